//! The judge: compensated sums in f64, exact ones in i128, two passes for moments, a loop for extremes.

use kasmina_gpu_test::{Failed, ensure};
use kasmina_telemetry::columns::Extrema;
use kasmina_telemetry::cuda::BoundsRecord;
use kasmina_telemetry::{ChunkStats, ElementStats, NanPolicy, ReductionOptions, ReductionStrategy};

use crate::values::Drawn;

/// Σ and Σ|x|, compensated after Neumaier (1974), with infinities summed apart.
#[derive(Clone, Copy, Default)]
pub(crate) struct Exact {
    sum: f64,
    lost: f64,
    special: f64,
    pub(crate) magnitude: f64,
}

impl Exact {
    pub(crate) fn push(&mut self, x: f64) {
        if !x.is_finite() {
            self.special += x;
            return;
        }
        let sum = self.sum + x;
        self.lost +=
            if self.sum.abs() >= x.abs() { self.sum - sum + x } else { x - sum + self.sum };
        self.sum = sum;
        self.magnitude += x.abs();
    }

    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut all = Self::default();
        values.into_iter().for_each(|x| all.push(x));
        all
    }

    pub(crate) fn total(&self) -> f64 {
        if self.special == 0.0 { self.sum + self.lost } else { self.special }
    }
}

/// So many elements as `near` would be told of for the bound of this strategy: a direct sum's lanes are 2^12 times as long.
pub(crate) fn as_long(n: usize, strategy: ReductionStrategy) -> usize {
    if strategy == ReductionStrategy::Direct { n << 12 } else { n }
}

/// Whether a sum of `n` elements is within the documented bound.
pub(crate) fn near(what: &str, got: f64, want: Exact, n: usize) -> Result<(), Failed> {
    let bound = (n as f64 / f64::from(1 << 21) + 64.0) * f64::EPSILON / 2.0 * want.magnitude;
    let want = want.total();
    let same = (got - want).abs() <= bound || got == want || got.is_nan() && want.is_nan();
    ensure(same, || format!("{what}: {got:e} instead of {want:e}, bound {bound:e}"))
}

/// What a sum under a policy must be: nothing, NaN, or the sum of the numbers.
pub(crate) fn check_sum(
    what: &str,
    got: Option<f64>,
    values: &[f64],
    options: &ReductionOptions,
) -> Result<(), Failed> {
    let nan = options.nan;
    let numbers = values.iter().copied().filter(|x| !x.is_nan());
    let damaged = values.iter().any(|x| x.is_nan());
    match got {
        None => ensure(
            numbers.clone().next().is_none() && !(damaged && nan == NanPolicy::Propagate),
            || format!("{what}: nothing instead of a sum"),
        ),
        Some(got) if damaged && nan == NanPolicy::Propagate => {
            ensure(got.is_nan(), || format!("{what}: {got} instead of NaN"))
        }
        Some(got) => {
            ensure(numbers.clone().next().is_some(), || {
                format!("{what}: {got} instead of nothing")
            })?;
            near(what, got, Exact::of(numbers), as_long(values.len(), options.strategy))
        }
    }
}

/// Statistics against two passes.
pub(crate) fn check_statistics<T: Drawn>(
    what: &str,
    got: &ElementStats<T::Value>,
    values: &[T],
    dead_epsilon: f32,
) -> Result<(), Failed> {
    let finite: Vec<T> = values.iter().copied().filter(|x| x.to_f64().is_finite()).collect();
    let nonfinite = (values.len() - finite.len()) as u64;
    let epsilon = if T::INTEGER { 0.0 } else { f64::from(dead_epsilon) };
    let dead = finite.iter().filter(|x| x.to_f64().abs() <= epsilon).count() as u64;
    let n = finite.len();
    ensure((got.n, got.nonfinite, got.dead) == (n as u64, nonfinite, dead), || {
        format!("{what}: counts of {got:?} instead of {n}, {nonfinite}, {dead}")
    })?;
    if n == 0 {
        return ensure(got.mean == 0.0 && got.m2 == 0.0, || format!("{what}: {got:?} of nothing"));
    }
    let (mut low, mut high) = (finite[0], finite[0]);
    for &x in &finite {
        low = if x < low { x } else { low };
        high = if x > high { x } else { high };
    }
    ensure(got.min == low.value() && got.max == high.value(), || {
        format!("{what}: extremes of {got:?} instead of {low:?} and {high:?}")
    })?;
    let mean = Exact::of(finite.iter().map(|x| x.to_f64())).total() / n as f64;
    let deviations = finite.iter().map(|x| x.to_f64() - mean);
    let drift = Exact::of(deviations.clone()).total();
    let m2 = Exact::of(deviations.map(|d| d * d)).total() - drift * drift / n as f64;
    let largest = low.to_f64().abs().max(high.to_f64().abs());
    let mean_bound = 1e-13 * largest;
    ensure((got.mean - mean).abs() <= mean_bound, || {
        format!("{what}: mean {:e} instead of {mean:e}", got.mean)
    })?;
    let m2_bound = 1e-9 * m2 + n as f64 * (largest * 1e-15).powi(2);
    ensure((got.m2 - m2).abs() <= m2_bound, || {
        format!("{what}: m2 {:e} instead of {m2:e}, bound {m2_bound:e}", got.m2)
    })
}

/// Statistics of a segment, whatever their type.
pub(crate) trait Stats<V> {
    /// The same record, after a look at what only chunks promise.
    fn checked(&self, what: &str) -> Result<ElementStats<V>, Failed>;
}

impl Stats<f32> for ChunkStats {
    fn checked(&self, what: &str) -> Result<ElementStats<f32>, Failed> {
        let Self { n, dead, nonfinite, mean, m2, min, max } = *self;
        if n == 0 {
            ensure((min, max) == (f32::INFINITY, f32::NEG_INFINITY), || {
                format!("{what}: {self:?}")
            })?;
        }
        let zero_is_positive =
            min.to_bits() != (-0.0_f32).to_bits() && max.to_bits() != (-0.0_f32).to_bits();
        ensure(zero_is_positive, || format!("{what}: a zero of {self:?} is negative"))?;
        Ok(ElementStats { n, dead, nonfinite, mean, m2, min, max })
    }
}

impl<V: Copy> Stats<V> for ElementStats<V> {
    fn checked(&self, _: &str) -> Result<Self, Failed> {
        Ok(*self)
    }
}

/// Statistics of a chunk or a segment.
pub(crate) fn check_chunk<T: Drawn>(
    what: &str,
    got: &impl Stats<T::Value>,
    values: &[T],
    dead_epsilon: f32,
) -> Result<(), Failed> {
    check_statistics(what, &got.checked(what)?, values, dead_epsilon)
}

/// Least and greatest of a segment, whatever their type.
pub(crate) trait Ends<V> {
    fn ends(&self) -> (V, V);
    /// Whether a zero is always +0.
    const POSITIVE_ZERO: bool;
}

impl Ends<f32> for Extrema {
    fn ends(&self) -> (f32, f32) {
        (self.min, self.max)
    }
    const POSITIVE_ZERO: bool = true;
}

impl<V: Copy> Ends<V> for BoundsRecord<V> {
    fn ends(&self) -> (V, V) {
        (self.min, self.max)
    }
    const POSITIVE_ZERO: bool = false;
}

/// Extremes without places.
pub(crate) fn check_extrema<T: Drawn, E: Ends<T::Value>>(
    what: &str,
    got: Option<E>,
    values: &[T],
    nan: NanPolicy,
) -> Result<(), Failed> {
    let got = got.map(|x| x.ends()).map(|(a, b)| (T::from_value(a), T::from_value(b)));
    let numbers = || values.iter().copied().filter(|x| !x.is_nan());
    let stopped = nan == NanPolicy::Propagate && values.iter().any(|x| x.is_nan());
    let want = match (stopped, numbers().next()) {
        (true, _) => {
            return ensure(got.is_some_and(|(a, b)| a.is_nan() && b.is_nan()), || {
                format!("{what}: {got:?}")
            });
        }
        (false, None) => None,
        (false, Some(first)) => Some((
            numbers().fold(first, |a, b| if b < a { b } else { a }),
            numbers().fold(first, |a, b| if b > a { b } else { a }),
        )),
    };
    let negative_zero = T::nearest(-0.0).bits();
    let positive = T::INTEGER
        || !E::POSITIVE_ZERO
        || got.is_none_or(|(a, b)| a.bits() != negative_zero && b.bits() != negative_zero);
    ensure(got == want && positive, || format!("{what}: {got:?} instead of {want:?}"))
}

/// A sum of either kind.
pub(crate) trait AnySum: Copy + PartialEq + std::fmt::Debug {
    fn float(self) -> Option<f64>;
    fn whole(self) -> Option<i128>;
}

impl AnySum for f64 {
    fn float(self) -> Option<f64> {
        Some(self)
    }
    fn whole(self) -> Option<i128> {
        None
    }
}

impl AnySum for i128 {
    fn float(self) -> Option<f64> {
        None
    }
    fn whole(self) -> Option<i128> {
        Some(self)
    }
}

/// A sum of elements of any type.
pub(crate) fn check_any_sum<T: Drawn<Sum: AnySum>>(
    what: &str,
    got: Option<T::Sum>,
    values: &[T],
    options: &ReductionOptions,
) -> Result<(), Failed> {
    if T::INTEGER {
        let exact: i128 = values.iter().map(|&x| x.to_sum().whole().unwrap_or_default()).sum();
        let want = (!values.is_empty()).then_some(exact);
        let got = got.and_then(AnySum::whole);
        return ensure(got == want, || format!("{what}: {got:?} instead of {want:?}"));
    }
    let wide: Vec<f64> = values.iter().map(|x| x.to_f64()).collect();
    check_sum(what, got.and_then(AnySum::float), &wide, options)
}
