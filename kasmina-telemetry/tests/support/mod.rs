//! The judge of the tests: plain two-pass statistics in f64, and generators of unpleasant data.
#![allow(dead_code)] // Each test binary uses its own part.

use kasmina_telemetry::{ChunkStats, GradientStats};
use proptest::prelude::*;

/// Two passes: the mean, then the deviations.
pub(crate) fn chunk_stats(values: &[f32], dead_epsilon: f32) -> ChunkStats {
    let finite: Vec<f64> = values.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x)).collect();
    let n = finite.len() as u64;
    let mut stats = ChunkStats::EMPTY;
    stats.nonfinite = values.len() as u64 - n;
    if n == 0 {
        return stats;
    }
    let mean = mean_of(&finite);
    stats.n = n;
    stats.mean = mean;
    stats.m2 = finite.iter().map(|x| (x - mean) * (x - mean)).sum();
    stats.dead = finite.iter().filter(|x| x.abs() <= f64::from(dead_epsilon)).count() as u64;
    stats.min = finite.iter().copied().fold(f64::INFINITY, f64::min) as f32;
    stats.max = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max) as f32;
    stats
}

/// The mean about the middle of the range, so that it is right to the last digits.
fn mean_of(finite: &[f64]) -> f64 {
    let first = finite[0];
    first + finite.iter().map(|x| x - first).sum::<f64>() / finite.len() as f64
}

pub(crate) fn gradient_stats(values: &[f32]) -> GradientStats {
    let chunk = chunk_stats(values, -1.0);
    let finite = values.iter().filter(|g| g.is_finite());
    GradientStats {
        n: chunk.n,
        nonfinite: chunk.nonfinite,
        mean: chunk.mean,
        m2: chunk.m2,
        max_abs: finite.clone().fold(0.0, |most, g| most.max(g.abs())),
        sum_squares: finite.map(|&g| f64::from(g) * f64::from(g)).sum(),
    }
}

fn close(what: &str, got: f64, want: f64, bound: f64) -> Result<(), TestCaseError> {
    prop_assert!(
        (got - want).abs() <= bound,
        "{what}: {got} instead of {want}, off by {:e}, bound {bound:e}",
        (got - want).abs()
    );
    Ok(())
}

/// Counts and extrema exact, mean and m2 within rounding.
pub(crate) fn same_chunk(got: &ChunkStats, want: &ChunkStats) -> Result<(), TestCaseError> {
    prop_assert_eq!((got.n, got.dead, got.nonfinite), (want.n, want.dead, want.nonfinite));
    prop_assert_eq!((got.min, got.max), (want.min, want.max));
    same_moments((got.mean, got.m2), (want.mean, want.m2), want.n)
}

/// Mean within rounding of the values' size, and m2 within 1e-6 relative, beside what the mean's own
/// rounding in f64 costs.
pub(crate) fn same_moments(got: (f64, f64), want: (f64, f64), n: u64) -> Result<(), TestCaseError> {
    let size = (want.1 / (n.max(1) as f64)).sqrt() + want.0.abs();
    close("mean", got.0, want.0, 1e-12 * size)?;
    close("m2", got.1, want.1, 1e-6 * want.1 + 1e-28 * size * size * n as f64)
}

pub(crate) fn same_gradient(
    got: &GradientStats,
    want: &GradientStats,
) -> Result<(), TestCaseError> {
    prop_assert_eq!((got.n, got.nonfinite), (want.n, want.nonfinite));
    prop_assert_eq!(got.max_abs, want.max_abs);
    close("sum of squares", got.sum_squares, want.sum_squares, 1e-10 * want.sum_squares)?;
    same_moments((got.mean, got.m2), (want.mean, want.m2), want.n)
}

/// One f32 of any kind: ordinary, shifted far from zero, huge, denormal, zero of both signs, not finite.
pub(crate) fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -2.0_f32..2.0,
        4 => 9_999.0_f32..10_001.0,
        1 => Just(0.0_f32),
        1 => Just(-0.0_f32),
        1 => Just(1e-8_f32),
        1 => Just(-1e-9_f32),
        1 => Just(f32::from_bits(3)),
        1 => Just(f32::NAN),
        1 => Just(f32::INFINITY),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(3e38_f32),
    ]
}

/// A matrix's worth of values of one temper: anything, ordinary, far from zero, or nothing finite at all.
pub(crate) fn values(len: usize) -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![
        4 => proptest::collection::vec(value(), len),
        2 => proptest::collection::vec(-2.0_f32..2.0, len),
        2 => proptest::collection::vec(9_996.0_f32..10_004.0, len),
        1 => proptest::collection::vec(
            prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)], len),
    ]
}

/// The values of seed `seed` in a row-major matrix.
pub(crate) fn chunk_of(
    x: &[f32],
    row_stride: usize,
    rows: usize,
    columns: std::ops::Range<usize>,
) -> Vec<f32> {
    (0..rows)
        .flat_map(|row| &x[row * row_stride + columns.start..row * row_stride + columns.end])
        .copied()
        .collect()
}

/// A quick source of normal-ish deviates, the same on every machine.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Mean 0, deviation 1 (Irwin–Hall of 12).
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
