//! Storage types: f32, f16 and bf16. Arithmetic is f32; these convert whole rows at a time.

use std::fmt;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
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

macro_rules! half_element {
    ($type:ty, $dtype:expr) => {
        impl Element for $type {
            const DTYPE: DType = $dtype;

            #[inline]
            fn widen(row: &[Self], wide: &mut [f32]) {
                row.convert_to_f32_slice(wide);
            }

            fn narrow(wide: &[f32], row: &mut [Self]) -> u64 {
                row.convert_from_f32_slice(wide);
                // Overflow is rare: look for any infinity first, repair element by element if so.
                if !row.iter().any(|v| v.is_infinite()) {
                    return 0;
                }
                let mut saturated = 0;
                for (narrow, &wide) in row.iter_mut().zip(wide) {
                    if narrow.is_infinite() && wide.is_finite() {
                        *narrow = if wide > 0.0 { Self::MAX } else { Self::MIN };
                        saturated += 1;
                    }
                }
                saturated
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

half_element!(f16, DType::F16);
half_element!(bf16, DType::Bf16);

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
}
