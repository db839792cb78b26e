//! Which kernels serve which type.

use half::{bf16, f16};
use kasmina_sys::DeviceCopy;

use super::records::{
    BoundsRecord, ExtremaRecord, FloatSum, IntegerSum, SegmentBounds, SegmentSum, SumRecord,
    SummaryRecord,
};
use crate::columns::Extrema;
use crate::{ChunkStats, Comparison, Element, ElementStats};

/// An [`Element`] with kernels: all of them. The associated types are what results look like in device memory.
pub trait GpuElement: Element {
    /// A sum.
    type SumRecord: SumRecord<Self::Sum>;
    /// Extremes: always [`ExtremaRecord`] of `Self::Value`.
    type Extrema: DeviceCopy + AsExtrema<Self::Value>;
    /// Extremes without places: always [`BoundsRecord`] of `Self::Value`.
    type Bounds: DeviceCopy + AsBounds<Self::Value>;
    /// Everything in one read: always [`SummaryRecord`].
    type Summary: DeviceCopy + AsSummary<Self::SumRecord, Self::Value>;
    /// Statistics: always [`ElementStats`] of `Self::Value`.
    type Statistics: DeviceCopy + AsStatistics<Self::Value>;
    /// A segment's sum: `f64` of floats, where [`NO_SUM_BITS`](super::NO_SUM_BITS) stands for none, and [`IntegerSum`] of integers.
    type SegmentSum: SegmentSum<Self::Sum>;
    /// A segment's extremes: [`Extrema`] of floats of up to 32 bits, else [`BoundsRecord`].
    type SegmentExtrema: SegmentBounds;
    /// The fatbin with its flat kernels.
    #[doc(hidden)]
    const FLAT: &'static str;
    /// Whether it has a group of lanes for every length of a segment, as the floats of a layer have.
    #[doc(hidden)]
    const ALL_GROUPS: bool;

    /// What stands to this threshold as a comparison says, or what does not.
    #[doc(hidden)]
    fn interval(self, comparison: Comparison) -> Interval;
}

/// The values from least to most, as floats or as integers; none where `least` is greater.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interval {
    /// Of a float type.
    Float(f64, f64),
    /// Of an integer type.
    Whole(i64, i64),
}

/// A float that a layer's activations are stored in, with column kernels: `f32`, [`half::f16`] or [`half::bf16`].
pub trait GpuFloat:
    GpuElement<
        Value = f32,
        Sum = f64,
        SumRecord = FloatSum,
        Statistics = ElementStats<f32>,
        SegmentSum = f64,
        SegmentExtrema = Extrema,
        SegmentStatistics = ChunkStats,
    >
{
}

impl GpuFloat for f32 {}
impl GpuFloat for f16 {}
impl GpuFloat for bf16 {}

/// A type that is an [`ExtremaRecord`].
pub trait AsExtrema<V> {
    /// Itself.
    fn extrema(&self) -> &ExtremaRecord<V>;
}

/// A type that is a [`BoundsRecord`].
pub trait AsBounds<V> {
    /// Itself.
    fn bounds(&self) -> &BoundsRecord<V>;
}

/// A type that is a [`SummaryRecord`].
pub trait AsSummary<S, V> {
    /// Itself.
    fn summary(&self) -> &SummaryRecord<S, V>;
}

/// A type that is an [`ElementStats`].
pub trait AsStatistics<V> {
    /// Itself.
    fn statistics(&self) -> &ElementStats<V>;
}

impl<V> AsExtrema<V> for ExtremaRecord<V> {
    fn extrema(&self) -> &Self {
        self
    }
}

impl<V> AsBounds<V> for BoundsRecord<V> {
    fn bounds(&self) -> &Self {
        self
    }
}

impl<S, V> AsSummary<S, V> for SummaryRecord<S, V> {
    fn summary(&self) -> &Self {
        self
    }
}

impl<V> AsStatistics<V> for ElementStats<V> {
    fn statistics(&self) -> &Self {
        self
    }
}

macro_rules! gpu_elements {
    ($($type:ty, $record:ty, $flat:literal, [$sum:ty, $extrema:ty, $all:literal],
       |$t:ident, $c:ident| $interval:expr;)*) => {
        $(
            impl GpuElement for $type {
                type SumRecord = $record;
                type Extrema = ExtremaRecord<Self::Value>;
                type Bounds = BoundsRecord<Self::Value>;
                type Summary = SummaryRecord<$record, Self::Value>;
                type Statistics = ElementStats<Self::Value>;
                type SegmentSum = $sum;
                type SegmentExtrema = $extrema;
                const FLAT: &'static str = $flat;
                const ALL_GROUPS: bool = $all;

                fn interval(self, comparison: Comparison) -> Interval {
                    let $t = self.value();
                    let $c = comparison;
                    $interval
                }
            }
        )*
    };
}

macro_rules! float_interval {
    ($type:ty, $t:expr, $comparison:expr) => {{
        let (t, infinity): ($type, $type) = ($t, <$type>::INFINITY);
        let (least, most) = match $comparison {
            // Nothing compares with a NaN, and nothing lies beyond infinity.
            _ if t.is_nan() => (1.0, 0.0),
            Comparison::Less if t == -infinity => (1.0, 0.0),
            Comparison::Greater if t == infinity => (1.0, 0.0),
            Comparison::Less => (-infinity, t.next_down()),
            Comparison::LessOrEqual => (-infinity, t),
            Comparison::Equal | Comparison::NotEqual => (t, t),
            Comparison::GreaterOrEqual => (t, infinity),
            Comparison::Greater => (t.next_up(), infinity),
        };
        Interval::Float(least.into(), most.into())
    }};
}

macro_rules! whole_interval {
    ($type:ty, $t:expr, $comparison:expr) => {{
        let t: $type = $t;
        let (low, high) = (<$type>::MIN, <$type>::MAX);
        let (least, most) = match $comparison {
            Comparison::Less if t == low => (1, 0),
            Comparison::Greater if t == high => (1, 0),
            Comparison::Less => (low, t - 1),
            Comparison::LessOrEqual => (low, t),
            Comparison::Equal | Comparison::NotEqual => (t, t),
            Comparison::GreaterOrEqual => (t, high),
            Comparison::Greater => (t + 1, high),
        };
        Interval::Whole(least.into(), most.into())
    }};
}

gpu_elements! {
    f32, FloatSum, "flat_short", [f64, Extrema, true], |t, c| float_interval!(f32, t, c);
    f16, FloatSum, "flat_short", [f64, Extrema, true], |t, c| float_interval!(f32, t, c);
    bf16, FloatSum, "flat_short", [f64, Extrema, true], |t, c| float_interval!(f32, t, c);
    f64, FloatSum, "flat_long", [f64, BoundsRecord<f64>, false], |t, c| float_interval!(f64, t, c);
    i32, IntegerSum, "flat_long", [IntegerSum, BoundsRecord<i32>, false], |t, c| whole_interval!(i32, t, c);
    u32, IntegerSum, "flat_long", [IntegerSum, BoundsRecord<u32>, false], |t, c| whole_interval!(u32, t, c);
    i64, IntegerSum, "flat_long", [IntegerSum, BoundsRecord<i64>, false], |t, c| whole_interval!(i64, t, c);
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPARISONS: [Comparison; 6] = [
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::GreaterOrEqual,
        Comparison::Greater,
    ];

    /// Whether a kernel would count `x`.
    fn counted<T: GpuElement>(x: T, threshold: T, comparison: Comparison) -> bool {
        let inside = match threshold.interval(comparison) {
            Interval::Float(least, most) => x.to_f64() >= least && x.to_f64() <= most,
            Interval::Whole(least, most) => {
                // Exact for every value of the tests.
                (least as i128 as f64..=most as i128 as f64).contains(&x.to_f64())
            }
        };
        inside != (comparison == Comparison::NotEqual)
    }

    fn check<T: GpuElement>(values: &[T]) {
        for &threshold in values {
            for comparison in COMPARISONS {
                for &x in values {
                    let want = comparison.holds(x, threshold);
                    assert_eq!(
                        counted(x, threshold, comparison),
                        want,
                        "{x:?} {comparison:?} {threshold:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_interval_counts_what_the_comparison_does() {
        let floats = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            0.0,
            -0.0,
            1e-45,
            -1e-45,
            1.0,
            1.0_f32.next_up(),
            f32::MAX,
        ];
        check(&floats);
        check(&floats.map(f64::from));
        check(&floats.map(f16::from_f32));
        check(&floats.map(bf16::from_f32));
        check(&[i32::MIN, i32::MIN + 1, -1, 0, 1, i32::MAX - 1, i32::MAX]);
        check(&[0, 1, 2, u32::MAX - 1, u32::MAX]);
        check(&[-5_i64, 0, 1, 7]);
        for comparison in COMPARISONS {
            let Interval::Whole(least, most) = i64::MIN.interval(comparison) else {
                panic!("an integer")
            };
            assert_eq!(comparison == Comparison::Less, least > most, "{comparison:?}");
        }
    }
}
