//! The forward kernels.

use kasmina_telemetry::ChunkStats;
use kasmina_tma::LoadPath;

use super::{Counting, DTYPES, block_threads, element_bytes, is_bulk, path_name, type_name};
use crate::DType;
use crate::cuda::geometry::{COPIED_ROWS, Geometry, Needs, PACKET_BYTES, ROWS, Tuning, WORKERS};

/// Blocks of rows that the cp.async kernels keep: `kAsyncStages` of `kernels/stream_access.cuh`.
const ASYNC_STAGES: u32 = 3;

/// A forward kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ForwardVariant {
    pub(crate) dtype: DType,
    pub(crate) path: LoadPath,
    pub(crate) counting: Counting,
    /// Whether columns may have programs.
    pub(crate) computes: bool,
}

impl ForwardVariant {
    /// Every kernel, in the order of the generated file.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let combinations = [
            (Counting::Packet, false),
            (Counting::Packet, true),
            (Counting::Column, false),
            (Counting::Column, true),
            (Counting::Off, true),
        ];
        DTYPES.into_iter().flat_map(move |dtype| {
            combinations.into_iter().flat_map(move |(counting, computes)| {
                LoadPath::LADDER
                    .into_iter()
                    .map(move |path| Self { dtype, path, counting, computes })
                    .filter(|variant| variant.exists())
            })
        })
    }

    /// The unaligned rung is rare and slow in any form: its kernels are the two that can do everything.
    fn exists(&self) -> bool {
        self.path != LoadPath::Scalar || (self.computes && self.counting != Counting::Packet)
    }

    /// The kernel that does what is asked: itself where there is one, else one that can do more.
    pub(crate) fn available(mut self) -> Self {
        if self.path == LoadPath::Scalar {
            self.computes = true;
            if self.counting == Counting::Packet {
                self.counting = Counting::Column;
            }
        }
        if self.counting == Counting::Off {
            // A copy that counts nothing is the driver's own copy.
            self.computes = true;
        }
        self
    }

    /// The kernel's name.
    pub(crate) fn name(&self) -> String {
        let counting = self.counting.name();
        let mode = if self.computes { "compute" } else { "copy" };
        format!("kasmina_forward_{}_{}_{counting}_{mode}", self.dtype, path_name(self.path))
    }

    /// Bytes of an element.
    pub(crate) fn element_bytes(&self) -> u32 {
        element_bytes(self.dtype)
    }

    /// Blocks that a multiprocessor runs at once: what the kernel's registers are held to, and the grid is made for.
    pub(crate) fn blocks(&self) -> u32 {
        let plain = matches!(self.path, LoadPath::CpAsync | LoadPath::Vector16);
        // The copy engine's kernels have the whole multiprocessor's shared memory; of the others, only those without programs and
        // statistics by column get by with half of the registers.
        if plain && !self.computes && self.counting == Counting::Packet { 2 } else { 1 }
    }

    /// Threads of a block.
    pub(crate) fn threads(&self) -> u32 {
        block_threads(self.path)
    }

    /// What a forward kernel keeps in shared memory, and how it is cut for.
    pub(crate) fn needs(&self) -> Needs {
        let bulk = is_bulk(self.path);
        let (narrow, by_column) = (self.element_bytes() == 2, self.counting == Counting::Column);
        let light = u32::from(narrow) + u32::from(by_column) + u32::from(self.computes) < 2;
        let tuning = match (bulk, light, narrow) {
            (true, _, _) if !self.computes => Tuning::BULK_COPY,
            // Half of the threads suffice for what is little work.
            (true, true, _) => Tuning::BULK,
            (true, false, _) => Tuning::BULK_BUSY,
            (false, _, true) => Tuning::PLAIN_16,
            (false, _, false) => Tuning::PLAIN,
        };
        let beside = if bulk { self.scratch_bytes() } else { 0 };
        let lane_rows = if bulk && !self.computes { COPIED_ROWS } else { ROWS };
        Needs { most_packets: WORKERS, matrices: 1, beside, fewest: 1, lane_rows, tuning }
    }

    /// Dynamic shared memory of a block: the stages with their barriers, and the records beside them; or the threads' own places,
    /// which the records have afterwards.
    pub(crate) fn shared_bytes(&self, geometry: &Geometry) -> u32 {
        const BARRIERS: u32 = 3 * 8;
        let places = ROWS * WORKERS * PACKET_BYTES;
        let scratch = self.scratch_bytes();
        match self.path {
            LoadPath::TensorMap | LoadPath::Bulk => {
                let barriers = (geometry.stages * BARRIERS).next_multiple_of(PACKET_BYTES);
                geometry.stages * geometry.stage_bytes() + barriers + scratch
            }
            LoadPath::CpAsync => scratch.max(ASYNC_STAGES * places),
            LoadPath::Vector16 | LoadPath::Scalar => scratch.max(places),
        }
    }

    /// The kernels' records in shared memory, one a thread and unit.
    fn scratch_bytes(&self) -> u32 {
        let per_thread = match self.counting {
            Counting::Off => 0,
            Counting::Packet => 1,
            Counting::Column => PACKET_BYTES / self.element_bytes(),
        };
        WORKERS * per_thread * size_of::<ChunkStats>() as u32
    }

    /// The line of the generated file.
    pub(super) fn declaration(&self) -> String {
        let ty = type_name(self.dtype);
        let common = format!(
            "{}, {ty}, {:?}, {}",
            self.name(),
            self.counting,
            if self.computes { "Compute" } else { "Copy" }
        );
        let blocks = self.blocks();
        match self.path {
            LoadPath::TensorMap => format!("KASMINA_FORWARD_BULK_TENSOR({common})"),
            LoadPath::Bulk => format!("KASMINA_FORWARD_BULK({common})"),
            LoadPath::CpAsync => format!("KASMINA_FORWARD_ASYNC({common}, {blocks})"),
            LoadPath::Vector16 => format!("KASMINA_FORWARD_DIRECT({common}, true, {blocks})"),
            LoadPath::Scalar => format!("KASMINA_FORWARD_DIRECT({common}, false, {blocks})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_has_a_kernel_that_does_at_least_that() {
        let all: Vec<_> = ForwardVariant::all().collect();
        for dtype in DTYPES {
            for path in LoadPath::LADDER {
                for counting in [Counting::Off, Counting::Packet, Counting::Column] {
                    for computes in [false, true] {
                        let asked = ForwardVariant { dtype, path, counting, computes };
                        let found = asked.available();
                        assert!(all.contains(&found), "{asked:?} gave {found:?}");
                        assert_eq!((found.dtype, found.path), (dtype, path));
                        assert!(found.computes >= computes);
                        assert!((found.counting == Counting::Off) == (counting == Counting::Off));
                    }
                }
            }
        }
        let mut names: Vec<_> = all.iter().map(ForwardVariant::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
