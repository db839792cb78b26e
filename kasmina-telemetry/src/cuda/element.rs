//! Which kernels serve which type.

use half::{bf16, f16};
use kasmina_sys::DeviceCopy;

use super::records::{BoundsRecord, ExtremaRecord, FloatSum, IntegerSum, SumRecord, SummaryRecord};
use crate::{Element, ElementStats};

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
    /// The fatbin with its flat kernels.
    #[doc(hidden)]
    const FLAT: &'static str;

    /// A threshold as kernels take it: as a float, as an integer.
    #[doc(hidden)]
    fn threshold(self) -> (f64, i64);
}

/// A float with segmented and column kernels: `f32`, [`half::f16`] or [`half::bf16`].
pub trait GpuFloat:
    GpuElement<Value = f32, Sum = f64, SumRecord = FloatSum, Statistics = ElementStats<f32>>
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
    ($($type:ty, $record:ty, $flat:literal, |$x:ident| $threshold:expr;)*) => {
        $(
            impl GpuElement for $type {
                type SumRecord = $record;
                type Extrema = ExtremaRecord<Self::Value>;
                type Bounds = BoundsRecord<Self::Value>;
                type Summary = SummaryRecord<$record, Self::Value>;
                type Statistics = ElementStats<Self::Value>;
                const FLAT: &'static str = $flat;

                fn threshold(self) -> (f64, i64) {
                    let $x = self;
                    $threshold
                }
            }
        )*
    };
}

gpu_elements! {
    f32, FloatSum, "flat_short", |x| (x.into(), 0);
    f16, FloatSum, "flat_short", |x| (x.into(), 0);
    bf16, FloatSum, "flat_short", |x| (x.into(), 0);
    f64, FloatSum, "flat_long", |x| (x, 0);
    i32, IntegerSum, "flat_long", |x| (0.0, x.into());
    u32, IntegerSum, "flat_long", |x| (0.0, x.into());
    i64, IntegerSum, "flat_long", |x| (0.0, x);
}
