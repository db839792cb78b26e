//! What a measured choice holds for: everything that decides how fast a cut is, and nothing of the data.

use std::fmt;

use kasmina_tma::LoadPath;

use crate::cuda::job::View;
use crate::cuda::params::{COMPUTE, NEEDS_X, RECONSTRUCTION, STRAIGHT_THROUGH};
use crate::cuda::variants::{Counting, element_bytes};
use crate::{DType, SeedLayout};

/// Alignments beyond this make no difference: no load or store is wider.
const MOST_ALIGNED: u32 = 8;

/// A streaming pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cuda) enum Pass {
    Forward,
    /// Forward with the result in x.
    InPlace,
    Backward,
    /// Backward without dL/dy, for reconstructions alone.
    Reconstruct,
}

/// What a pass does for its columns. A layer is taken for what the busiest of them need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cuda) enum Work {
    /// None has a program.
    Copy,
    /// Programs; a backward pass does not read x.
    Compute,
    /// Programs, and a backward pass reads x.
    ReadX,
}

/// Device, driver and kernels are the cache file's; this is the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cuda) struct Key {
    pub(in crate::cuda) pass: Pass,
    pub(in crate::cuda) dtype: DType,
    pub(in crate::cuda) counting: Counting,
    pub(in crate::cuda) work: Work,
    /// The least power of two that is not less, as its exponent.
    pub(super) rows_bits: u32,
    pub(super) columns: u32,
    pub(super) chunk: u32,
    /// Zero bits at the end of all addresses, and of all row strides in bytes.
    pub(super) aligned_bits: u32,
    pub(super) pitch_bits: u32,
    /// No gaps between rows.
    pub(super) dense: bool,
    /// The rung of the ladder: what stands in the way of better ones, a setting among them, is another case.
    pub(super) ladder: LoadPath,
    /// The rung that the caller wants.
    pub(super) forced: Option<LoadPath>,
}

impl Work {
    /// Of a forward pass over columns with these flags.
    pub(in crate::cuda) fn forward(computes: bool) -> Self {
        if computes { Self::Compute } else { Self::Copy }
    }

    /// Of a backward pass over columns with any of these flags.
    pub(in crate::cuda) fn backward(flags: u8) -> Self {
        match flags {
            _ if flags & (NEEDS_X | STRAIGHT_THROUGH | RECONSTRUCTION) != 0 => Self::ReadX,
            _ if flags & COMPUTE != 0 => Self::Compute,
            _ => Self::Copy,
        }
    }
}

impl Key {
    /// Of a pass over `views`, which have the same rows and columns, for which the ladder has a rung.
    pub(in crate::cuda) fn new(
        pass: Pass,
        dtype: DType,
        (counting, work): (Counting, Work),
        layout: SeedLayout,
        views: &[View],
        (ladder, forced): (LoadPath, Option<LoadPath>),
    ) -> Self {
        let zeros = |bits: u64| bits.trailing_zeros().min(MOST_ALIGNED);
        let row = u64::from(element_bytes(dtype)) * layout.hidden() as u64;
        let rows = views.first().map_or(1, |view| view.rows.max(1));
        Self {
            pass,
            dtype,
            counting,
            work,
            rows_bits: u64::from(rows).next_power_of_two().trailing_zeros(),
            columns: layout.hidden() as u32,
            chunk: layout.chunk() as u32,
            aligned_bits: zeros(views.iter().fold(0, |bits, view| bits | view.address)),
            pitch_bits: zeros(views.iter().fold(0, |bits, view| bits | view.pitch)),
            dense: views.iter().all(|view| view.pitch == row),
            ladder,
            forced,
        }
    }
}

impl kasmina_telemetry::tune::Key for Key {
    fn is_tunable(&self) -> bool {
        self.pass != Pass::Reconstruct
    }

    fn is_forced(&self) -> bool {
        self.forced.is_some()
    }
}

/// As cache files have it: two keys are equal where their texts are.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pass = match self.pass {
            Pass::Forward => "forward",
            Pass::InPlace => "forward in place",
            Pass::Backward => "backward",
            Pass::Reconstruct => "reconstruction",
        };
        let work = match self.work {
            Work::Copy => "copy",
            Work::Compute => "compute",
            Work::ReadX => "compute with x",
        };
        let Self { dtype, rows_bits, columns, chunk, aligned_bits, pitch_bits, .. } = self;
        write!(f, "{pass}, {dtype}, statistics {}, {work}, ", self.counting.name())?;
        write!(f, "rows to {}, columns {columns}, chunk {chunk}, ", 1u64 << rows_bits)?;
        write!(f, "aligned to {}, rows aligned to {}", 1u32 << aligned_bits, 1u32 << pitch_bits)?;
        f.write_str(if self.dense { ", dense" } else { ", strided" })?;
        write!(f, ", {} by the ladder", self.ladder)?;
        self.forced.map_or(Ok(()), |path| write!(f, ", {path} asked for"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Key> {
        let pass = prop::sample::select(vec![
            Pass::Forward,
            Pass::InPlace,
            Pass::Backward,
            Pass::Reconstruct,
        ]);
        let dtype = prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]);
        let counting =
            prop::sample::select(vec![Counting::Off, Counting::Packet, Counting::Column]);
        let work = prop::sample::select(vec![Work::Copy, Work::Compute, Work::ReadX]);
        let path = || prop::sample::select(LoadPath::LADDER.to_vec());
        let forced = (path(), prop::option::of(path()));
        let sizes = (0u32..=31, 1u32..5000, 1u32..5000, 1u32..9, 1u32..9, any::<bool>());
        (pass, dtype, counting, work, forced, sizes).prop_map(
            |(pass, dtype, counting, work, (ladder, forced), sizes)| {
                let (rows_bits, columns, chunk, aligned_bits, pitch_bits, dense) = sizes;
                Key {
                    pass,
                    dtype,
                    counting,
                    work,
                    rows_bits,
                    columns,
                    chunk,
                    aligned_bits,
                    pitch_bits,
                    dense,
                    ladder,
                    forced,
                }
            },
        )
    }

    fn of(rows: u32, pitch: u64, address: u64) -> Key {
        let view = View { address, pitch, rows, columns: 64 };
        let layout = SeedLayout::new(64, 8).expect("a layout");
        let what = (Counting::Packet, Work::Copy);
        Key::new(
            Pass::Forward,
            DType::F32,
            what,
            layout,
            &[view, view],
            (LoadPath::TensorMap, None),
        )
    }

    proptest! {
        #[test]
        fn texts_are_equal_where_keys_are(a in keys(), b in keys()) {
            prop_assert_eq!(a == b, a.to_string() == b.to_string());
            prop_assert_eq!(a.to_string(), { a }.to_string());
        }

        #[test]
        fn rows_share_a_key_up_to_the_next_power_of_two(rows in 1u32..=1 << 31) {
            let bits = of(rows, 256, 4096).rows_bits;
            prop_assert!(1u64 << bits >= u64::from(rows));
            prop_assert!(bits == 0 || 1u64 << (bits - 1) < u64::from(rows));
        }

        #[test]
        fn alignment_is_exact_up_to_what_a_load_can_use(address in 1u64..1 << 40, bits in 0u32..20) {
            let address = (address | 1) << bits;
            prop_assert_eq!(of(8, 256, address).aligned_bits, bits.min(8));
        }
    }

    #[test]
    fn the_least_aligned_matrix_counts_and_any_gap() {
        let (good, bad) = (
            View { address: 4096, pitch: 256, rows: 8, columns: 64 },
            View { address: 4100, pitch: 264, rows: 8, columns: 64 },
        );
        let layout = SeedLayout::new(64, 8).expect("a layout");
        let what = (Counting::Packet, Work::Copy);
        let key = Key::new(
            Pass::Forward,
            DType::F32,
            what,
            layout,
            &[good, bad],
            (LoadPath::TensorMap, None),
        );
        assert_eq!((key.aligned_bits, key.pitch_bits, key.dense), (2, 3, false));
        assert!(of(8, 256, 4096).dense);
    }

    #[test]
    fn a_backward_pass_is_taken_for_what_its_busiest_column_needs() {
        assert_eq!(Work::backward(0), Work::Copy);
        assert_eq!(Work::backward(COMPUTE), Work::Compute);
        assert_eq!(Work::backward(COMPUTE | NEEDS_X), Work::ReadX);
        assert_eq!(Work::backward(STRAIGHT_THROUGH), Work::ReadX);
    }
}
