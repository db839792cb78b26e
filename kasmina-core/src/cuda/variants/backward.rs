//! The backward kernels. Whether a tile is computed, summed or copied is asked at run time: they are limited by memory.

use kasmina_telemetry::GradientStats;
use kasmina_tma::LoadPath;

use super::{Counting, DTYPES, block_threads, element_bytes, is_bulk, path_name, type_name};
use crate::DType;
use crate::cuda::geometry::{Geometry, Needs, PACKET_BYTES, Tuning, WORKERS};
use crate::cuda::params::ColumnTotals;

/// Threads of the bulk kernels that count and do nothing else.
const COUNTERS: u32 = 128;

/// Rows that a thread takes at a time, `kBackwardRows` of `kernels/stream_backward_task.cuh`: stages of two matrices are small
/// enough then that several fit.
const LANE_ROWS: u32 = 4;

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

    /// What the kernels keep in shared memory. The bulk ones need a stage to load while one is worked on, those with asynchronous
    /// copies have three (`kAsyncPairs`), the others one.
    pub(crate) fn needs(&self) -> Needs {
        let (bulk, plain) = match self.element_bytes() {
            2 => (Tuning::BACKWARD_16, Tuning::PLAIN_16),
            _ => (Tuning::BACKWARD, Tuning::PLAIN),
        };
        let (fewest, tuning) = match self.path {
            LoadPath::TensorMap => (2, bulk),
            // Row by row, so long rows.
            LoadPath::Bulk => (2, Tuning { packets: COUNTERS, ..bulk }),
            LoadPath::CpAsync => (3, plain),
            LoadPath::Vector16 | LoadPath::Scalar => (1, plain),
        };
        // A thread counts one packet of a tile's rows.
        let most_packets = if is_bulk(self.path) { COUNTERS } else { WORKERS };
        let beside = self.slot_bytes() + self.own_scratch_bytes();
        Needs { most_packets, matrices: 2, beside, fewest, lane_rows: LANE_ROWS, tuning }
    }

    /// Dynamic shared memory of a block: the threads' totals with the stages and their barriers, or with the threads' own places;
    /// and no less than the statistics need at the end.
    pub(crate) fn shared_bytes(&self, geometry: &Geometry) -> u32 {
        // Full, ready and empty; of twice the stages where a stage holds one matrix.
        const BARRIERS: u32 = 2 * 3 * 8;
        let places = 2 * geometry.lane_rows * WORKERS * PACKET_BYTES;
        let pipeline = match self.path {
            LoadPath::TensorMap | LoadPath::Bulk => {
                geometry.stages * (2 * geometry.stage_bytes() + BARRIERS)
            }
            LoadPath::CpAsync => 3 * places,
            LoadPath::Vector16 | LoadPath::Scalar => places,
        };
        (self.slot_bytes() + pipeline + self.own_scratch_bytes()).max(self.scratch_bytes())
    }

    /// Bytes of the threads' totals, `Slots` in the kernels.
    fn slot_bytes(&self) -> u32 {
        let lanes = PACKET_BYTES / self.element_bytes();
        lanes * WORKERS * size_of::<ColumnTotals>() as u32
    }

    /// Bytes of the statistics on their way out of a block.
    fn scratch_bytes(&self) -> u32 {
        let per_thread = match self.counting {
            Counting::Off => 0,
            Counting::Packet => 1,
            Counting::Column => PACKET_BYTES / self.element_bytes(),
        };
        let threads = if is_bulk(self.path) { COUNTERS } else { WORKERS };
        threads * per_thread * size_of::<GradientStats>() as u32
    }

    /// The same where they have a place of their own; others have that of the totals and stages, when those are out.
    fn own_scratch_bytes(&self) -> u32 {
        let own = is_bulk(self.path) && self.counting == Counting::Packet;
        if own { self.scratch_bytes() } else { 0 }
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
    use crate::SeedLayout;
    use crate::cuda::geometry::Machine;

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

    #[test]
    fn every_kernel_fits_the_shared_memory_of_every_device() {
        for (multiprocessors, shared_bytes_of_block) in
            [(132, 232_448), (108, 166_912), (48, 101_376)]
        {
            for variant in BackwardVariant::all() {
                for (rows, hidden, chunk) in
                    [(8192, 8192, 64), (8192, 16384, 64), (333, 1000, 3), (5, 7, 1)]
                {
                    let layout = SeedLayout::new(hidden, chunk).expect("a layout");
                    let machine =
                        Machine { multiprocessors, shared_bytes: shared_bytes_of_block, blocks: 1 };
                    let bytes = variant.element_bytes();
                    let g =
                        Geometry::new(rows, layout, bytes, variant.path, machine, variant.needs());
                    // The compiler declares 1 KiB of its own.
                    assert!(
                        variant.shared_bytes(&g) + 1024 <= shared_bytes_of_block,
                        "{variant:?} {g:?}"
                    );
                    assert!(g.stages >= 2 && [1, 2, 4].contains(&g.lane_rows));
                }
            }
        }
    }

    #[test]
    fn an_h200_has_several_stages_of_two_matrices() {
        let machine = Machine { multiprocessors: 132, shared_bytes: 232_448, blocks: 1 };
        let layout = SeedLayout::new(8192, 64).expect("a layout");
        for (dtype, expected) in [(DType::F32, (6, 4)), (DType::Bf16, (5, 4))] {
            let path = LoadPath::TensorMap;
            let variant = BackwardVariant { dtype, path, counting: Counting::Packet };
            let bytes = variant.element_bytes();
            let g = Geometry::new(8192, layout, bytes, path, machine, variant.needs());
            assert_eq!((g.stages, g.lane_rows), expected);
        }
    }
}
