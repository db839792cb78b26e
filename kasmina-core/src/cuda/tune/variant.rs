//! The kernels of both passes, as far as tuning has to tell them apart.

use kasmina_tma::LoadPath;

use super::choice::Candidate;
use super::key::{Key, Pass, Work};
use crate::SeedLayout;
use crate::cuda::geometry::{Geometry, Machine, Needs, Tuning};
use crate::cuda::variants::{
    BackwardVariant, ForwardVariant, backward_image, element_bytes, forward_image,
};

/// A kernel of a streaming pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cuda) enum Variant {
    Forward(ForwardVariant),
    Backward(BackwardVariant),
}

impl Variant {
    /// The kernel that a pass of this key runs on a rung.
    pub(in crate::cuda) fn of(key: &Key, path: LoadPath) -> Self {
        let (dtype, counting) = (key.dtype, key.counting);
        match key.pass {
            Pass::Forward | Pass::InPlace => {
                let computes = key.work != Work::Copy;
                Self::Forward(ForwardVariant { dtype, path, counting, computes }.available())
            }
            Pass::Backward | Pass::Reconstruct => {
                Self::Backward(BackwardVariant { dtype, path, counting }.available())
            }
        }
    }

    pub(super) fn path(&self) -> LoadPath {
        match self {
            Self::Forward(variant) => variant.path,
            Self::Backward(variant) => variant.path,
        }
    }

    pub(super) fn threads(&self) -> u32 {
        match self {
            Self::Forward(variant) => variant.threads(),
            Self::Backward(variant) => variant.threads(),
        }
    }

    /// The fatbin that has it.
    pub(in crate::cuda) fn image(&self) -> String {
        match self {
            Self::Forward(variant) => forward_image(variant.dtype),
            Self::Backward(variant) => backward_image(variant.dtype),
        }
    }

    pub(in crate::cuda) fn name(&self) -> String {
        match self {
            Self::Forward(variant) => variant.name(),
            Self::Backward(variant) => variant.name(),
        }
    }

    fn needs(&self) -> Needs {
        match self {
            Self::Forward(variant) => variant.needs(),
            Self::Backward(variant) => variant.needs(),
        }
    }

    /// What the table says.
    pub(in crate::cuda) fn table(&self) -> Candidate {
        Candidate { path: self.path(), tuning: self.needs().tuning }
    }

    /// The cut of a matrix by a tuning. `machine` is one block a multiprocessor's.
    pub(in crate::cuda) fn cut(
        &self,
        rows: u32,
        layout: SeedLayout,
        machine: Machine,
        tuning: Tuning,
    ) -> Geometry {
        let (bytes, blocks) = match self {
            Self::Forward(variant) => (element_bytes(variant.dtype), variant.blocks()),
            Self::Backward(variant) => (element_bytes(variant.dtype), 1),
        };
        let needs = Needs { tuning, ..self.needs() };
        Geometry::new(rows, layout, bytes, self.path(), Machine { blocks, ..machine }, needs)
    }

    /// Dynamic shared memory of a block.
    pub(in crate::cuda) fn shared_bytes(&self, geometry: &Geometry) -> u32 {
        match self {
            Self::Forward(variant) => variant.shared_bytes(geometry),
            Self::Backward(variant) => variant.shared_bytes(geometry),
        }
    }
}
