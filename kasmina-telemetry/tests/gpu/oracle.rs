//! The judge: compensated sums in f64, exact ones in i128, two passes for moments, a loop for extremes.

use kasmina_gpu_test::{Failed, ensure};
use kasmina_telemetry::{ChunkStats, ElementStats, NanPolicy};

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
    nan: NanPolicy,
) -> Result<(), Failed> {
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
            near(what, got, Exact::of(numbers), values.len())
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

/// The same for the record of a chunk.
pub(crate) fn check_chunk<T: Drawn<Value = f32>>(
    what: &str,
    got: &ChunkStats,
    values: &[T],
    dead_epsilon: f32,
) -> Result<(), Failed> {
    let ChunkStats { n, dead, nonfinite, mean, m2, min, max } = *got;
    if n == 0 {
        ensure((min, max) == (f32::INFINITY, f32::NEG_INFINITY), || format!("{what}: {got:?}"))?;
    }
    let zero_is_positive =
        min.to_bits() != (-0.0_f32).to_bits() && max.to_bits() != (-0.0_f32).to_bits();
    ensure(zero_is_positive, || format!("{what}: a zero of {got:?} is negative"))?;
    let stats = ElementStats { n, dead, nonfinite, mean, m2, min, max };
    check_statistics(what, &stats, values, dead_epsilon)
}
