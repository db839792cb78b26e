//! What stores by the copy engine do with what is there: each element at once, and no more than that.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use half::{bf16, f16};

use super::abi::{Number, Reduction};

/// The elements of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    U16,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Kind {
    pub(super) fn of_number(number: Number) -> Self {
        match number {
            Number::U32 => Self::U32,
            Number::S32 => Self::S32,
            Number::U64 => Self::U64,
            Number::F32 => Self::F32,
            Number::F64 => Self::F64,
        }
    }

    /// By the code of a tensor map.
    pub(super) fn of_type(code: u8) -> Self {
        match code {
            0 => Self::U8,
            1 => Self::U16,
            2 => Self::U32,
            3 => Self::S32,
            4 => Self::U64,
            5 => Self::S64,
            6 => Self::F16,
            8 => Self::F64,
            9 => Self::Bf16,
            _ => Self::F32,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::S32 | Self::F32 => 4,
            Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }
}

/// Stores bytes at an address, or combines them with what is there.
///
/// # Errors
/// A combination that the instruction set does not have.
///
/// # Safety
/// The bytes at the address are writable.
pub(super) unsafe fn store(
    address: u64,
    bytes: &[u8],
    how: Reduction,
    kind: Kind,
) -> Result<(), String> {
    if how == Reduction::None {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        return Ok(());
    }
    combined(how, kind, 0, 0).ok_or_else(|| format!("a bulk reduction {how:?} of {kind:?}"))?;
    for (i, element) in bytes.chunks_exact(kind.bytes()).enumerate() {
        let at = address + (i * kind.bytes()) as u64;
        let mut word = [0; 8];
        word[..element.len()].copy_from_slice(element);
        let own = u64::from_le_bytes(word);
        let next = |before: u64| combined(how, kind, before, own);
        // SAFETY: the caller's promise; elements lie at multiples of their size.
        unsafe {
            match kind.bytes() {
                1 => {
                    let cell = AtomicU8::from_ptr(at as *mut u8);
                    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                        Some(next(word.into())? as u8)
                    });
                }
                2 => {
                    let cell = AtomicU16::from_ptr(at as *mut u16);
                    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                        Some(next(word.into())? as u16)
                    });
                }
                4 => {
                    let cell = AtomicU32::from_ptr(at as *mut u32);
                    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                        Some(next(word.into())? as u32)
                    });
                }
                _ => {
                    let cell = AtomicU64::from_ptr(at as *mut u64);
                    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
                }
            }
        }
    }
    Ok(())
}

/// What comes of what is there and what is stored.
fn combined(how: Reduction, kind: Kind, a: u64, b: u64) -> Option<u64> {
    use Reduction::{Add, And, Dec, Inc, Max, Min, None as Store, Or, Xor};
    let (single, double) = (f32::from_bits, f64::from_bits);
    let (half, brain) = (|x: u64| f16::from_bits(x as u16), |x: u64| bf16::from_bits(x as u16));
    Some(match (how, kind) {
        (Store, _) => b,
        (Add, Kind::U32 | Kind::S32) => u64::from((a as u32).wrapping_add(b as u32)),
        (Add, Kind::U64) => a.wrapping_add(b),
        (Add, Kind::F16) => f16::from_f32(half(a).to_f32() + half(b).to_f32()).to_bits().into(),
        (Add, Kind::Bf16) => bf16::from_f32(brain(a).to_f32() + brain(b).to_f32()).to_bits().into(),
        (Add, Kind::F32) => (single(a as u32) + single(b as u32)).to_bits().into(),
        (Add, Kind::F64) => (double(a) + double(b)).to_bits(),
        (Min, Kind::U32 | Kind::U64) => a.min(b),
        (Max, Kind::U32 | Kind::U64) => a.max(b),
        (Min, Kind::S32) => u64::from((a as i32).min(b as i32) as u32),
        (Max, Kind::S32) => u64::from((a as i32).max(b as i32) as u32),
        (Min, Kind::S64) => (a as i64).min(b as i64) as u64,
        (Max, Kind::S64) => (a as i64).max(b as i64) as u64,
        (Min, Kind::F16) => {
            if half(b) < half(a) {
                b
            } else {
                a
            }
        }
        (Max, Kind::F16) => {
            if half(b) > half(a) {
                b
            } else {
                a
            }
        }
        (Min, Kind::Bf16) => {
            if brain(b) < brain(a) {
                b
            } else {
                a
            }
        }
        (Max, Kind::Bf16) => {
            if brain(b) > brain(a) {
                b
            } else {
                a
            }
        }
        (Inc, Kind::U32) => {
            if a >= b {
                0
            } else {
                a + 1
            }
        }
        (Dec, Kind::U32) => {
            if a == 0 || a > b {
                b
            } else {
                a - 1
            }
        }
        (And, Kind::U32 | Kind::S32 | Kind::U64 | Kind::S64) => a & b,
        (Or, Kind::U32 | Kind::S32 | Kind::U64 | Kind::S64) => a | b,
        (Xor, Kind::U32 | Kind::S32 | Kind::U64 | Kind::S64) => a ^ b,
        _ => return None,
    })
}
