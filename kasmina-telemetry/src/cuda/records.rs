//! Results as kernels leave them in device memory, byte for byte as `kernels/reduce_records.cuh` has them.
//!
//! What a NaN does is decided where a record is read, so that one kernel serves both policies. *Numbers* are the elements that
//! are no NaN; an index is `u64::MAX` where there is none.

use bytemuck::{Pod, Zeroable};

use super::element::GpuElement;
use super::segments::is_no_sum;
use crate::columns::Extrema;
use crate::reduce::Summary;
use crate::{ElementStats, NanPolicy};

/// Σ of floats, of those that are numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct FloatSum {
    /// Σ x over the numbers.
    pub sum: f64,
    /// How many there are.
    pub numbers: u64,
    /// NaN elements.
    pub nans: u64,
}

/// Σ of integers, in 128 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct IntegerSum {
    /// The lower 64 bits.
    pub low: u64,
    /// The upper 64 bits, with the sign.
    pub high: i64,
    /// Elements.
    pub numbers: u64,
}

/// A sum's record.
pub trait SumRecord<S>: Pod + Send + Sync {
    /// The sum, or `None` for nothing to sum.
    fn total(&self, nan: NanPolicy) -> Option<S>;
}

impl SumRecord<f64> for FloatSum {
    fn total(&self, nan: NanPolicy) -> Option<f64> {
        match nan {
            NanPolicy::Propagate if self.nans > 0 => Some(f64::NAN),
            _ => (self.numbers > 0).then_some(self.sum),
        }
    }
}

impl SumRecord<i128> for IntegerSum {
    fn total(&self, _: NanPolicy) -> Option<i128> {
        (self.numbers > 0).then(|| i128::from(self.high) << 64 | i128::from(self.low))
    }
}

/// A segment's sum.
pub trait SegmentSum<S>: Pod + Send + Sync + std::fmt::Debug {
    /// The sum, or `None` for nothing to sum.
    fn segment_total(&self) -> Option<S>;
}

impl SegmentSum<f64> for f64 {
    fn segment_total(&self) -> Option<f64> {
        (!is_no_sum(*self)).then_some(*self)
    }
}

impl SegmentSum<i128> for IntegerSum {
    fn segment_total(&self) -> Option<i128> {
        SumRecord::total(self, NanPolicy::Propagate)
    }
}

/// A segment's extremes.
pub trait SegmentBounds: Pod + Send + Sync + std::fmt::Debug + PartialEq {
    /// Itself, both NaN where one propagates, or `None` for no numbers.
    fn found(self, nan: NanPolicy) -> Option<Self>;
}

impl SegmentBounds for Extrema {
    fn found(self, _: NanPolicy) -> Option<Self> {
        // Without numbers the least is +Inf and the greatest −Inf; a NaN, which the kernel puts there, is in no order, and is a result.
        (self.min <= self.max || self.min.is_nan()).then_some(self)
    }
}

impl SegmentBounds for BoundsRecord<f64> {
    fn found(mut self, nan: NanPolicy) -> Option<Self> {
        if nan == NanPolicy::Propagate && self.nans > 0 {
            (self.min, self.max) = (f64::NAN, f64::NAN);
            return Some(self);
        }
        (self.numbers > 0).then_some(self)
    }
}

macro_rules! integer_bounds {
    ($($value:ty),*) => {
        $(
            impl SegmentBounds for BoundsRecord<$value> {
                fn found(self, _: NanPolicy) -> Option<Self> {
                    (self.numbers > 0).then_some(self)
                }
            }
        )*
    };
}

integer_bounds!(i32, u32, i64);

/// Extremes and where they first occur.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExtremaRecord<V> {
    /// Least number; means nothing without numbers.
    pub min: V,
    /// Greatest number; means nothing without numbers.
    pub max: V,
    /// Index of the first least number.
    pub arg_min: u64,
    /// Index of the first greatest number.
    pub arg_max: u64,
    /// Index of the first NaN.
    pub first_nan: u64,
    /// How many elements are numbers.
    pub numbers: u64,
    /// NaN elements.
    pub nans: u64,
}

/// Extremes without places. ±Inf, or an integer type's own extremes, while there are no numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundsRecord<V> {
    /// How many elements are numbers.
    pub numbers: u64,
    /// NaN elements.
    pub nans: u64,
    /// Least number.
    pub min: V,
    /// Greatest number.
    pub max: V,
}

/// Sum, sum of squares and extremes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SummaryRecord<S, V> {
    /// Σ x.
    pub sum: S,
    /// Σ x² over the numbers.
    pub squares: f64,
    /// Extremes.
    pub extrema: ExtremaRecord<V>,
}

/// How many elements fulfil a predicate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct CountRecord {
    /// As many.
    pub matches: u64,
}

macro_rules! plain {
    ($($value:ty, $sum:ty, $extrema:literal, $bounds:literal, $summary:literal, $stats:literal;)*) => {
        $(
            const _: () = assert!(
                size_of::<ExtremaRecord<$value>>() == $extrema
                    && size_of::<BoundsRecord<$value>>() == $bounds
                    && size_of::<SummaryRecord<$sum, $value>>() == $summary
                    && size_of::<ElementStats<$value>>() == $stats,
                "as in kernels/reduce_records.cuh"
            );
            // SAFETY: integers and floats, for which zeros are values.
            unsafe impl Zeroable for ExtremaRecord<$value> {}
            // SAFETY: `repr(C)` of plain data; its size is the sum of its parts', so there is no padding.
            unsafe impl Pod for ExtremaRecord<$value> {}
            // SAFETY: as above.
            unsafe impl Zeroable for BoundsRecord<$value> {}
            // SAFETY: as above.
            unsafe impl Pod for BoundsRecord<$value> {}
            // SAFETY: as above.
            unsafe impl Zeroable for SummaryRecord<$sum, $value> {}
            // SAFETY: as above.
            unsafe impl Pod for SummaryRecord<$sum, $value> {}
            // SAFETY: as above.
            unsafe impl Zeroable for ElementStats<$value> {}
            // SAFETY: as above.
            unsafe impl Pod for ElementStats<$value> {}
        )*
    };
}

plain! {
    f32, FloatSum, 48, 24, 80, 48;
    f64, FloatSum, 56, 32, 88, 56;
    i32, IntegerSum, 48, 24, 80, 48;
    u32, IntegerSum, 48, 24, 80, 48;
    i64, IntegerSum, 56, 32, 88, 56;
}

impl<V: Copy> ExtremaRecord<V> {
    /// The extremes with their indices, `None` for no numbers. A NaN that propagates is in neither.
    pub(super) fn places(&self) -> Option<((V, usize), (V, usize))> {
        (self.numbers > 0)
            .then_some(((self.min, self.arg_min as usize), (self.max, self.arg_max as usize)))
    }

    /// The first NaN's index, where there is one and it counts.
    pub(super) fn nan_at(&self, nan: NanPolicy) -> Option<usize> {
        (nan == NanPolicy::Propagate && self.nans > 0).then_some(self.first_nan as usize)
    }
}

/// What the host is told.
pub(super) fn summary<T: GpuElement>(
    record: &SummaryRecord<T::SumRecord, T::Value>,
    nan: NanPolicy,
) -> Option<Summary<T>> {
    let SummaryRecord { sum, squares, extrema } = record;
    if let (Some(at), Some((value, _))) = (extrema.nan_at(nan), T::nan()) {
        return Some(Summary {
            count: extrema.numbers + extrema.nans,
            sum: sum.total(nan)?,
            sum_squares: f64::NAN,
            min: value,
            arg_min: at,
            max: value,
            arg_max: at,
        });
    }
    let ((min, arg_min), (max, arg_max)) = extrema.places()?;
    Some(Summary {
        count: extrema.numbers,
        sum: sum.total(nan)?,
        sum_squares: *squares,
        min: T::from_value(min),
        arg_min,
        max: T::from_value(max),
        arg_max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_sum_is_its_two_halves() {
        for sum in [0, -1, i128::from(i64::MIN) * 5, i128::from(u64::MAX) + 1, i128::MIN] {
            let record = IntegerSum { low: sum as u64, high: (sum >> 64) as i64, numbers: 1 };
            assert_eq!(record.total(NanPolicy::Propagate), Some(sum));
        }
        assert_eq!(IntegerSum::default().total(NanPolicy::Ignore), None);
    }

    #[test]
    fn a_nan_counts_where_the_policy_says_so() {
        let record = FloatSum { sum: 3.0, numbers: 2, nans: 1 };
        assert_eq!(record.total(NanPolicy::Ignore), Some(3.0));
        assert!(record.total(NanPolicy::Propagate).is_some_and(f64::is_nan));
        let nothing_else = FloatSum { sum: 0.0, numbers: 0, nans: 4 };
        assert_eq!(nothing_else.total(NanPolicy::Ignore), None);
    }
}
