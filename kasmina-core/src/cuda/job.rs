//! One seed's work as the kernels that go seed by seed are told, byte for byte as `kernels/seed_job.cuh` has it.

use bytemuck::{Pod, Zeroable};

/// `SeedResult`: what a backward pass leaves beside parameter gradients.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(crate) struct SeedResult {
    /// The latest pass's mean of (T(x) − x)².
    pub(crate) reconstruction: f64,
    /// dL/dalpha, added up over passes.
    pub(crate) alpha: f32,
    padding: u32,
}

/// `SeedJob`; addresses are the device's, 0 where there is nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(crate) struct SeedJob {
    pub(crate) parameters: u64,
    pub(crate) gradients: u64,
    pub(crate) taps: u64,
    pub(crate) result: u64,
    pub(crate) first_column: u32,
    pub(crate) columns: u32,
    /// A `KIND_…`.
    pub(crate) kind: u32,
    /// A filter's taps, a bottleneck's rows of V.
    pub(crate) width: u32,
    pub(crate) activation: u32,
    /// A `ROLE_…`.
    pub(crate) role: u32,
    pub(crate) alpha: f32,
    pub(crate) seed: u32,
}

const _: () = assert!(size_of::<SeedResult>() == 16 && size_of::<SeedJob>() == 64);

pub(crate) const KIND_RESIDUAL: u32 = 0;
pub(crate) const KIND_ATTENTION_HEAD: u32 = 1;
pub(crate) const KIND_MLP_EXPANSION: u32 = 2;
pub(crate) const KIND_CONV_FILTER: u32 = 3;
pub(crate) const KIND_BOTTLENECK: u32 = 4;
pub(crate) const KIND_DENSE: u32 = 5;

pub(crate) const ROLE_PATH: u32 = 0;
pub(crate) const ROLE_STRAIGHT_THROUGH: u32 = 1;
pub(crate) const ROLE_RECONSTRUCTION: u32 = 2;

impl SeedResult {
    pub(crate) fn new(reconstruction: f64, alpha: f32) -> Self {
        Self { reconstruction, alpha, padding: 0 }
    }
}

impl SeedJob {
    /// Whether the streaming passes run its branch: it has column programs.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kind <= KIND_MLP_EXPANSION
    }
}

/// The jobs of a layer on the device, with the host's copy: ascending by seed, one job a seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobList<'a> {
    pub(crate) host: &'a [SeedJob],
    /// Address of the same array in device memory.
    pub(crate) device: u64,
}

/// A matrix in device memory: address, bytes from row to row, rows and columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) address: u64,
    pub(crate) pitch: u64,
    pub(crate) rows: u32,
    pub(crate) columns: u32,
}

/// What a backward pass reads and writes; all matrices have the same rows and columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackwardViews {
    /// The layer's input.
    pub(crate) x: View,
    /// dL/dy, and where dL/dx goes; without them only reconstruction objectives are served.
    pub(crate) gradients: Option<(View, View)>,
}
