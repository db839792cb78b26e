//! The backward kernels. Whether a tile is computed, summed or copied is asked at run time: they are limited by memory.

use kasmina_tma::LoadPath;

use super::{Counting, DTYPES, block_threads, element_bytes, is_bulk, path_name, type_name};
use crate::DType;

/// Threads of the bulk kernels that count and do nothing else.
pub(crate) const COUNTERS: u32 = 128;

/// A backward kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BackwardVariant {
    pub(crate) dtype: DType,
    pub(crate) path: LoadPath,
    pub(crate) counting: Counting,
}

impl BackwardVariant {
    /// Every kernel, in the order of the generated file.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        DTYPES.into_iter().flat_map(|dtype| {
            [Counting::Off, Counting::Packet, Counting::Column].into_iter().flat_map(
                move |counting| {
                    LoadPath::LADDER
                        .into_iter()
                        .map(move |path| Self { dtype, path, counting })
                        .filter(|variant| variant.available() == *variant)
                },
            )
        })
    }

    /// The kernel that does what is asked: itself where there is one, else one that can do more. The unaligned rung is rare
    /// and slow in any form.
    pub(crate) fn available(mut self) -> Self {
        if self.path == LoadPath::Scalar && self.counting == Counting::Packet {
            self.counting = Counting::Column;
        }
        self
    }

    /// The kernel's name.
    pub(crate) fn name(&self) -> String {
        let (path, counting) = (path_name(self.path), self.counting.name());
        format!("kasmina_backward_{}_{path}_{counting}", self.dtype)
    }

    /// Bytes of an element.
    pub(crate) fn element_bytes(&self) -> u32 {
        element_bytes(self.dtype)
    }

    /// Threads of a block.
    pub(crate) fn threads(&self) -> u32 {
        let counts = is_bulk(self.path) && self.counting != Counting::Off;
        block_threads(self.path) + if counts { COUNTERS } else { 0 }
    }

    /// The line of the generated file.
    pub(super) fn declaration(&self) -> String {
        let common = format!("{}, {}, {:?}", self.name(), type_name(self.dtype), self.counting);
        match self.path {
            LoadPath::TensorMap => format!("KASMINA_BACKWARD_BULK_TENSOR({common})"),
            LoadPath::Bulk => format!("KASMINA_BACKWARD_BULK({common})"),
            LoadPath::CpAsync => format!("KASMINA_BACKWARD_ASYNC({common})"),
            LoadPath::Vector16 => format!("KASMINA_BACKWARD_DIRECT({common}, true)"),
            LoadPath::Scalar => format!("KASMINA_BACKWARD_DIRECT({common}, false)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_has_a_kernel_that_counts_at_least_that() {
        let all: Vec<_> = BackwardVariant::all().collect();
        for dtype in DTYPES {
            for path in LoadPath::LADDER {
                for counting in [Counting::Off, Counting::Packet, Counting::Column] {
                    let found = BackwardVariant { dtype, path, counting }.available();
                    assert!(all.contains(&found), "{found:?}");
                    assert_eq!((found.dtype, found.path), (dtype, path));
                    assert!((found.counting == Counting::Off) == (counting == Counting::Off));
                }
            }
        }
        let mut names: Vec<_> = all.iter().map(BackwardVariant::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
