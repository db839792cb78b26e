//! Storage types: f32, f16 and bf16. Arithmetic is f32; these convert whole rows at a time.

use std::fmt;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::{Arch, Simd, WithSimd};
use serde::{Deserialize, Serialize};

/// Storage type of activations and gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// Brain float.
    Bf16,
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// A storage type of activations: `f32`, [`half::f16`] or [`half::bf16`].
pub trait Element:
    Copy + Send + Sync + fmt::Debug + bytemuck::Pod + sealed::Sealed + 'static
{
    /// The type's tag.
    const DTYPE: DType;

    /// Converts a row to f32, exactly; both slices have the same length.
    fn widen(row: &[Self], wide: &mut [f32]);

    /// Rounds a row from f32 to nearest even. Finite values that overflow saturate to the largest
    /// finite value; their number is returned.
    fn narrow(wide: &[f32], row: &mut [Self]) -> u64;

    /// The row itself where it already is f32.
    fn as_f32(row: &[Self]) -> Option<&[f32]>;

    /// The row itself to write where it already is f32.
    fn as_f32_mut(row: &mut [Self]) -> Option<&mut [f32]>;

    /// One value as f32, exactly.
    fn to_f32(self) -> f32;

    /// The nearest value of this type, saturating.
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;

    #[inline]
    fn widen(row: &[Self], wide: &mut [f32]) {
        wide.copy_from_slice(row);
    }

    #[inline]
    fn narrow(wide: &[f32], row: &mut [Self]) -> u64 {
        row.copy_from_slice(wide);
        0
    }

    #[inline]
    fn as_f32(row: &[Self]) -> Option<&[f32]> {
        Some(row)
    }

    #[inline]
    fn as_f32_mut(row: &mut [Self]) -> Option<&mut [f32]> {
        Some(row)
    }

    #[inline]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline]
    fn from_f32(value: f32) -> Self {
        value
    }
}

/// Infinity's bits without the sign; the greatest finite value's are one less.
trait Half: Element {
    const INFINITY_BITS: u16;
}

impl Half for f16 {
    const INFINITY_BITS: u16 = 0x7c00;
}

impl Half for bf16 {
    const INFINITY_BITS: u16 = 0x7f80;
}

const MAGNITUDE: u16 = 0x7fff;

/// Makes what overflowed the greatest finite value again. Returns how many that were.
fn saturate<T: Half>(arch: Arch, wide: &[f32], row: &mut [T]) -> u64 {
    let bits: &mut [u16] = bytemuck::cast_slice_mut(row);
    // Overflow is rare: look for any infinity first, repair element by element if so.
    if !arch.dispatch(HasInfinity { row: bits, infinity: T::INFINITY_BITS }) {
        return 0;
    }
    let mut saturated = 0;
    for (narrow, &wide) in bits.iter_mut().zip(wide) {
        if *narrow & MAGNITUDE == T::INFINITY_BITS && wide.is_finite() {
            *narrow -= 1;
            saturated += 1;
        }
    }
    saturated
}

// Structs, not closures, here and below: a closure is not inlined into pulp's dispatched function and is then compiled for the
// baseline.
struct HasInfinity<'a> {
    row: &'a [u16],
    infinity: u16,
}

impl WithSimd for HasInfinity<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        let found = |bits: &u16| u16::from(*bits & MAGNITUDE == self.infinity);
        self.row.iter().fold(0, |any, bits| any | found(bits)) != 0
    }
}

/// [`bf16`] to f32 as `half` does it, for whole rows without a branch (passes that compute on bf16 or count it took 1.4 to 3.1
/// times as long with `half`'s loops; AVX-512, 4096 × 4096).
struct WidenBf16<'a> {
    row: &'a [bf16],
    wide: &'a mut [f32],
}

impl WithSimd for WidenBf16<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (wide, narrow) in self.wide.iter_mut().zip(self.row) {
            let bits = narrow.to_bits();
            // A signalling NaN becomes a quiet one.
            let quiet = if bits & MAGNITUDE > bf16::INFINITY_BITS { 0x40 } else { 0 };
            *wide = f32::from_bits(u32::from(bits | quiet) << 16);
        }
    }
}

/// f32 to [`bf16`], to nearest even.
struct NarrowBf16<'a> {
    wide: &'a [f32],
    row: &'a mut [bf16],
}

impl WithSimd for NarrowBf16<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (narrow, wide) in self.row.iter_mut().zip(self.wide) {
            let bits = wide.to_bits();
            // Half of the last place, less one where that is even: what is just in the middle goes to the even neighbour.
            let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            let nan = bits & 0x7fff_ffff > 0x7f80_0000;
            *narrow = bf16::from_bits(if nan { bits >> 16 | 0x40 } else { nearest } as u16);
        }
    }
}

macro_rules! half_element {
    ($type:ty, $dtype:expr, $widen:expr, $narrow:expr) => {
        impl Element for $type {
            const DTYPE: DType = $dtype;

            #[inline]
            fn widen(row: &[Self], wide: &mut [f32]) {
                assert_eq!(row.len(), wide.len(), "a row and its f32s are equally long");
                $widen(row, wide);
            }

            fn narrow(wide: &[f32], row: &mut [Self]) -> u64 {
                assert_eq!(row.len(), wide.len(), "a row and its f32s are equally long");
                let arch = Arch::new();
                $narrow(arch, wide, &mut *row);
                saturate(arch, wide, row)
            }

            #[inline]
            fn as_f32(_: &[Self]) -> Option<&[f32]> {
                None
            }

            #[inline]
            fn as_f32_mut(_: &mut [Self]) -> Option<&mut [f32]> {
                None
            }

            #[inline]
            fn to_f32(self) -> f32 {
                <$type>::to_f32(self)
            }

            #[inline]
            fn from_f32(value: f32) -> Self {
                let narrow = <$type>::from_f32(value);
                match narrow.is_infinite() && value.is_finite() {
                    true if value > 0.0 => Self::MAX,
                    true => Self::MIN,
                    false => narrow,
                }
            }
        }
    };
}

half_element!(
    f16,
    DType::F16,
    |row: &[f16], wide: &mut [f32]| row.convert_to_f32_slice(wide),
    |_, wide: &[f32], row: &mut [f16]| row.convert_from_f32_slice(wide)
);
half_element!(
    bf16,
    DType::Bf16,
    |row, wide| Arch::new().dispatch(WidenBf16 { row, wide }),
    |arch: Arch, wide, row| arch.dispatch(NarrowBf16 { wide, row })
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_saturates_and_is_counted() {
        let wide = [1e6, -1e6, f32::INFINITY, f32::NAN, 65504.0, 65519.9, 65520.0];
        let mut row = [f16::ZERO; 7];
        assert_eq!(f16::narrow(&wide, &mut row), 3);
        assert_eq!(row[0], f16::MAX);
        assert_eq!(row[1], f16::MIN);
        assert_eq!(row[2], f16::INFINITY);
        assert!(row[3].is_nan());
        assert_eq!((row[4], row[5], row[6]), (f16::MAX, f16::MAX, f16::MAX));
        for (narrow, wide) in row.iter().zip(wide) {
            assert_eq!(narrow.to_bits(), <f16 as Element>::from_f32(wide).to_bits());
        }
    }

    #[test]
    fn every_half_value_survives_the_round_trip() {
        for bits in 0..=u16::MAX {
            let (f, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            let mut wide = [0.0];
            f16::widen(&[f], &mut wide);
            let mut back = [f16::ZERO];
            f16::narrow(&wide, &mut back);
            assert!(f.is_nan() && back[0].is_nan() || back[0].to_bits() == bits);
            bf16::widen(&[b], &mut wide);
            let mut back = [bf16::ZERO];
            bf16::narrow(&wide, &mut back);
            assert!(b.is_nan() && back[0].is_nan() || back[0].to_bits() == bits);
        }
    }

    /// Whole rows convert as `half` converts single values, NaN's bits included.
    #[test]
    fn rows_convert_as_single_values() {
        fn check<T: Half>(one: impl Fn(f32) -> T, wide: impl Fn(T) -> f32) {
            let all: Vec<u16> = (0..=u16::MAX).collect();
            let row: &[T] = bytemuck::cast_slice(&all);
            let mut wides = vec![0.0; row.len()];
            T::widen(row, &mut wides);
            for (&found, &narrow) in wides.iter().zip(row) {
                assert_eq!(found.to_bits(), wide(narrow).to_bits(), "{narrow:?}");
            }
            // Around everything that a rounding can turn on: the middles between neighbours, and both signs' ends.
            let bits = (0..=u16::MAX).flat_map(|high| {
                let high = u32::from(high) << 16;
                [0, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| high | low)
            });
            let wides: Vec<f32> = bits.map(f32::from_bits).collect();
            let mut row = vec![T::zeroed(); wides.len()];
            let saturated = T::narrow(&wides, &mut row);
            let mut expected = 0;
            for (&found, &wide) in row.iter().zip(&wides) {
                expected += u64::from(wide.is_finite() && one(wide).to_f32().is_infinite());
                let one = if wide.is_nan() { one(wide) } else { T::from_f32(wide) };
                let [found, one] = [found, one].map(|v| bytemuck::cast::<T, u16>(v));
                assert_eq!(found, one, "{wide} of bits {:08x}", wide.to_bits());
            }
            assert_eq!(saturated, expected);
        }
        check(f16::from_f32, f16::to_f32);
        check(bf16::from_f32, bf16::to_f32);
    }
}
