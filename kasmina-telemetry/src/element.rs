//! The types whose values the generic reductions take, and what their sums are.

use std::fmt::Debug;

use half::{bf16, f16};
use kasmina_sys::DeviceCopy;

mod sealed {
    pub trait Sealed {}
}

/// A type that can be reduced: `f32`, `f64`, [`half::f16`], [`half::bf16`], `i32`, `u32` or `i64`.
///
/// Floats are summed in f64, integers exactly in 128 bits.
pub trait Element: sealed::Sealed + DeviceCopy + Debug + PartialOrd {
    /// What values are computed with: `f32` for the 16-bit floats, otherwise the type itself.
    type Value: Copy + Debug + PartialOrd + Send + Sync + 'static;
    /// The type of Σ x: `f64` for floats, `i128` for integers.
    type Sum: Copy + Debug + PartialEq + Send + Sync + Default;
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

    /// Whether it is a NaN.
    fn is_nan(self) -> bool {
        // Only a NaN differs from itself.
        self.partial_cmp(&self).is_none()
    }
}

macro_rules! element {
    ($($type:ty, $name:literal, $value:ty, $sum:ty, |$x:ident| $to_value:expr, $wide:expr, |$v:ident| $from:expr, $nan:expr;)*) => {
        $(
            impl sealed::Sealed for $type {}

            impl Element for $type {
                type Value = $value;
                type Sum = $sum;
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

                fn nan() -> Option<(Self, $sum)> {
                    $nan
                }
            }
        )*
    };
}

element! {
    f32, "f32", f32, f64, |x| x, f64::from(x), |v| v, Some((Self::NAN, f64::NAN));
    f64, "f64", f64, f64, |x| x, x, |v| v, Some((Self::NAN, f64::NAN));
    f16, "f16", f32, f64, |x| x.to_f32(), x.to_f64(), |v| Self::from_f32(v), Some((Self::NAN, f64::NAN));
    bf16, "bf16", f32, f64, |x| x.to_f32(), x.to_f64(), |v| Self::from_f32(v), Some((Self::NAN, f64::NAN));
    i32, "i32", i32, i128, |x| x, f64::from(x), |v| v, None;
    u32, "u32", u32, i128, |x| x, f64::from(x), |v| v, None;
    i64, "i64", i64, i128, |x| x, x as f64, |v| v, None;
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

impl From<ElementStats<f32>> for crate::ChunkStats {
    fn from(stats: ElementStats<f32>) -> Self {
        let ElementStats { n, dead, nonfinite, mean, m2, min, max } = stats;
        Self { n, dead, nonfinite, mean, m2, min, max }
    }
}
