//! The types whose values the generic reductions take, and what their sums are.

use std::fmt::Debug;

use half::{bf16, f16};
use kasmina_sys::DeviceCopy;

use crate::{ChunkStats, Moments};

pub(crate) use crate::scalar::Scalar;

mod sealed {
    pub trait Sealed {}
}

/// A type that can be reduced: `f32`, `f64`, [`half::f16`], [`half::bf16`], `i32`, `u32` or `i64`.
///
/// Floats are summed in f64, integers exactly in 128 bits.
pub trait Element: sealed::Sealed + DeviceCopy + Debug + PartialOrd {
    /// What values are computed with: `f32` for the 16-bit floats, otherwise the type itself.
    type Value: Scalar<Sum = Self::Sum>;
    /// The type of Σ x: `f64` for floats, `i128` for integers.
    type Sum: Copy + Debug + PartialEq + Send + Sync + Default;
    /// A segment's statistics: [`ChunkStats`] of floats of up to 32 bits, else [`ElementStats`].
    type SegmentStatistics: DeviceCopy
        + Debug
        + PartialEq
        + Send
        + Sync
        + From<ElementStats<Self::Value>>;
    /// Whether it is a float.
    const FLOAT: bool = <Self::Value as Scalar>::FLOAT;
    /// The name in kernels' names and in errors.
    const NAME: &'static str;

    /// The value, exactly.
    fn value(self) -> Self::Value;
    /// The element of a value that came from one.
    fn from_value(value: Self::Value) -> Self;
    /// The value as f64; an `i64` of more than 53 bits is rounded.
    fn to_f64(self) -> f64;
    /// The value as a summand.
    fn to_sum(self) -> Self::Sum;
    /// a + b; exact for integers.
    fn add(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    /// What stands for the sum, the extremes, where a NaN propagates; `None` for integers, which have none.
    fn nan() -> Option<(Self, Self::Sum)>;

    /// Elements as values, where they are the same.
    #[doc(hidden)]
    fn as_values(x: &[Self]) -> Option<&[Self::Value]>;

    /// Whether it is a NaN.
    fn is_nan(self) -> bool {
        // Only a NaN differs from itself.
        self.partial_cmp(&self).is_none()
    }
}

macro_rules! element {
    ($($type:ty, $name:literal, $value:ty, $sum:ty, $stats:ty, |$x:ident| $to_value:expr, $wide:expr, |$v:ident| $from:expr, $as_values:expr, $nan:expr;)*) => {
        $(
            impl sealed::Sealed for $type {}

            impl Element for $type {
                type Value = $value;
                type Sum = $sum;
                type SegmentStatistics = $stats;
                const NAME: &'static str = $name;

                #[inline(always)]
                fn value(self) -> $value {
                    let $x = self;
                    $to_value
                }

                #[inline(always)]
                fn from_value($v: $value) -> Self {
                    $from
                }

                #[inline(always)]
                fn to_f64(self) -> f64 {
                    let $x = self;
                    $wide
                }

                #[inline(always)]
                fn to_sum(self) -> $sum {
                    let $x = self.value();
                    $x as $sum
                }

                #[inline(always)]
                fn add(a: $sum, b: $sum) -> $sum {
                    a + b
                }

                #[inline(always)]
                fn as_values(x: &[Self]) -> Option<&[$value]> {
                    let same: fn(&[Self]) -> Option<&[$value]> = $as_values;
                    same(x)
                }

                #[inline(always)]
                fn nan() -> Option<(Self, $sum)> {
                    $nan
                }
            }
        )*
    };
}

element! {
    f32, "f32", f32, f64, ChunkStats, |x| x, f64::from(x), |v| v, |x| Some(x), Some((Self::NAN, f64::NAN));
    f64, "f64", f64, f64, ElementStats<f64>, |x| x, x, |v| v, |x| Some(x), Some((Self::NAN, f64::NAN));
    f16, "f16", f32, f64, ChunkStats, |x| widen_f16(x), x.to_f64(), |v| Self::from_f32(v), |_| None, Some((Self::NAN, f64::NAN));
    bf16, "bf16", f32, f64, ChunkStats, |x| widen_bf16(x), x.to_f64(), |v| Self::from_f32(v), |_| None, Some((Self::NAN, f64::NAN));
    i32, "i32", i32, i128, ElementStats<i32>, |x| x, f64::from(x), |v| v, |x| Some(x), None;
    u32, "u32", u32, i128, ElementStats<u32>, |x| x, f64::from(x), |v| v, |x| Some(x), None;
    i64, "i64", i64, i128, ElementStats<i64>, |x| x, x as f64, |v| v, |x| Some(x), None;
}

/// As `half` converts, but without a branch or a look at the processor, so that loops over it are vectorised.
#[inline(always)]
fn widen_f16(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let magnitude = bits & 0x7fff;
    // Exact: the exponent moves up by 2^112, of a denormal too, and a NaN or an infinity keeps all of its bits set.
    let moved = (f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23)).to_bits();
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(moved | special | (bits & 0x8000) << 16)
}

/// The upper half of an f32.
#[inline(always)]
fn widen_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// How an element must stand to a threshold to be counted. A NaN is unlike everything: only [`Comparison::NotEqual`] counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// x < threshold.
    Less,
    /// x ≤ threshold.
    LessOrEqual,
    /// x = threshold.
    Equal,
    /// x ≠ threshold, NaN among them.
    NotEqual,
    /// x ≥ threshold.
    GreaterOrEqual,
    /// x > threshold.
    Greater,
}

impl Comparison {
    /// Whether `x` is counted.
    #[inline]
    pub fn holds<T: PartialOrd>(self, x: T, threshold: T) -> bool {
        match self {
            Self::Less => x < threshold,
            Self::LessOrEqual => x <= threshold,
            Self::Equal => x == threshold,
            Self::NotEqual => x != threshold,
            Self::GreaterOrEqual => x >= threshold,
            Self::Greater => x > threshold,
        }
    }
}

/// Statistics of elements of any [`Element`] type: [`ChunkStats`](crate::ChunkStats) with extremes of the type that values are
/// computed with. Finite elements only, but for `nonfinite`.
///
/// For f64, differences between elements must stay below 1e154, or their squares leave f64.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct ElementStats<V> {
    /// Number of finite elements.
    pub n: u64,
    /// Finite elements with |x| ≤ the dead threshold; of integers, those that are 0.
    pub dead: u64,
    /// NaN and ±Inf elements.
    pub nonfinite: u64,
    /// Mean of the finite elements; 0 while there is none.
    pub mean: f64,
    /// Σ (x − mean)² over the finite elements.
    pub m2: f64,
    /// Least finite element; means nothing while there is none.
    pub min: V,
    /// Greatest finite element; means nothing while there is none.
    pub max: V,
}

impl<V: Scalar> ElementStats<V> {
    /// Nothing seen yet: the neutral element of [`ElementStats::merge`].
    pub const EMPTY: Self =
        Self { n: 0, dead: 0, nonfinite: 0, mean: 0.0, m2: 0.0, min: V::GREATEST, max: V::LEAST };

    /// Adds everything behind `other` (Chan, Golub and LeVeque 1979).
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        let mut moments = Moments { n: self.n, mean: self.mean, m2: self.m2 };
        moments.merge(&Moments { n: other.n, mean: other.mean, m2: other.m2 });
        Moments { n: self.n, mean: self.mean, m2: self.m2 } = moments;
        self.dead += other.dead;
        self.nonfinite += other.nonfinite;
        if other.min < self.min {
            self.min = other.min;
        }
        if other.max > self.max {
            self.max = other.max;
        }
    }
}

impl<V: Copy> ElementStats<V> {
    /// Mean, or `None` when no element was finite.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then_some(self.mean)
    }

    /// Population variance, or `None` when no element was finite.
    pub fn variance(&self) -> Option<f64> {
        (self.n > 0).then(|| self.m2 / self.n as f64)
    }

    /// Least finite element, or `None` when no element was finite.
    pub fn min(&self) -> Option<V> {
        (self.n > 0).then_some(self.min)
    }

    /// Greatest finite element, or `None` when no element was finite.
    pub fn max(&self) -> Option<V> {
        (self.n > 0).then_some(self.max)
    }
}

impl From<ElementStats<f32>> for ChunkStats {
    fn from(stats: ElementStats<f32>) -> Self {
        let ElementStats { n, dead, nonfinite, mean, m2, min, max } = stats;
        Self { n, dead, nonfinite, mean, m2, min, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_float_is_widened_as_half_does() {
        for bits in 0..=u16::MAX {
            let (a, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            for (got, want) in [(a.value(), a.to_f32()), (b.value(), b.to_f32())] {
                assert!(
                    got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                    "{bits:#x}"
                );
                assert_eq!(got.is_sign_negative(), want.is_sign_negative(), "{bits:#x}");
            }
        }
    }
}
