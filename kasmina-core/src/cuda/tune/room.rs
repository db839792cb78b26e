//! How much memory a measurement takes: a few arenas of slots, one matrix each, that are gone round so that none is found in the
//! second-level cache. Pure arithmetic.

use super::key::{Key, Pass};
use crate::SeedLayout;
use crate::cuda::variants::element_bytes;

/// What is gone round, in sizes of the second-level cache.
const CACHES: u64 = 2;
/// The share of the free memory that may be taken.
const SHARE: u64 = 4;

/// How much memory a measurement takes, and how it is divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Room {
    pub(super) pitch: u64,
    /// From an arena's start, so that a matrix lies as the key says.
    pub(super) offset: u64,
    /// From one slot of an arena to the next, bytes.
    pub(super) slot_bytes: u64,
    pub(super) slots: u64,
    /// Arenas.
    pub(super) count: u64,
}

impl Room {
    /// With `free` bytes of device memory and a second-level cache of `cache`.
    pub(super) fn new(
        key: &Key,
        rows: u32,
        layout: SeedLayout,
        free: u64,
        cache: u64,
    ) -> Result<Self, String> {
        let row = layout.hidden() as u64 * u64::from(element_bytes(key.dtype));
        let pitch = if key.dense { row } else { pitch(row, key.pitch_bits) };
        let offset = if key.aligned_bits < 8 { 1u64 << key.aligned_bits } else { 0 };
        // At most 2^31 rows of 2^31 elements: it fits.
        let slot_bytes = (offset + pitch * u64::from(rows)).next_multiple_of(256);
        let (count, touched) = match key.pass {
            Pass::Backward | Pass::Reconstruct => (3, 3),
            Pass::Forward => (2, 2),
            Pass::InPlace => (2, 1),
        };
        // One slot more holds what is right.
        let most = ((free / SHARE).saturating_sub(slot_bytes) / count) / slot_bytes;
        if most == 0 {
            let (needed, share) = (u128::from(slot_bytes) * u128::from(count + 1), free / SHARE);
            return Err(format!("{needed} bytes are needed, {share} may be taken of what is free"));
        }
        let slots = ((cache * CACHES).div_ceil(slot_bytes * touched) + 1).min(most);
        Ok(Self { pitch, offset, slot_bytes, slots, count })
    }
}

/// Launches that are timed together: so many that they take a quarter of a millisecond where memory gives 4 TB/s, and never one.
pub(super) fn in_a_row(bytes: u64) -> u32 {
    const BYTES: u64 = 1 << 30;
    (BYTES / bytes.max(1)).clamp(2, 32) as u32
}

/// The least row stride with gaps that has just so many zero bits, eight standing for more.
fn pitch(row: u64, bits: u32) -> u64 {
    let unit = 1u64 << bits;
    let mut pitch = (row + 1).next_multiple_of(unit);
    if bits < 8 && pitch.trailing_zeros() != bits {
        pitch += unit;
    }
    pitch
}

#[cfg(test)]
mod tests {
    use kasmina_tma::LoadPath;

    use super::super::key::Work;
    use super::*;
    use crate::DType;
    use crate::cuda::variants::Counting;

    #[test]
    fn matrices_exceed_the_cache_and_keep_to_their_share_of_the_memory() {
        const GIB: u64 = 1 << 30;
        for (rows, hidden) in [(1u32, 1usize), (32, 768), (8192, 8192), (65536, 16384)] {
            let layout = SeedLayout::new(hidden, 1).expect("a layout");
            for pass in [Pass::Forward, Pass::InPlace, Pass::Backward] {
                let (x, path) = ((Counting::Packet, Work::ReadX), LoadPath::Scalar);
                let key = Key::new(pass, DType::F32, x, layout, &[], (path, None));
                for free in [0, GIB / 4, 10 * GIB, 140 * GIB] {
                    match Room::new(&key, rows, layout, free, 50 << 20) {
                        Ok(room) => {
                            let all = (room.slots * room.count + 1) * room.slot_bytes;
                            assert!(room.slots >= 1 && all <= free / SHARE, "{room:?}");
                            let touched = if pass == Pass::InPlace { 1 } else { room.count };
                            let cold = room.slots * room.slot_bytes * touched > 50 << 20;
                            assert!(cold || free < GIB, "{room:?}");
                        }
                        Err(reason) => assert!(
                            u64::from(rows) * hidden as u64 * 16 + 1024 > free / SHARE,
                            "{reason}"
                        ),
                    }
                }
            }
        }
    }

    #[test]
    fn a_strided_matrix_is_measured_with_a_pitch_of_its_class() {
        for row in [2u64, 7, 64, 1000, 4096, 4100] {
            for bits in 0..=8 {
                let found = pitch(row, bits);
                assert!(found > row && found.trailing_zeros().min(8) == bits, "{row} {bits}");
                assert!(found <= row + (2 << bits));
            }
        }
    }
}
