//! Whether two designs compute the same, before anybody times them. A [`Judge`] keeps the greatest difference over what is allowed.
//!
//! Allowed are: for an element 2·10⁻⁵ of itself and of the root mean square (16-bit: 1.6·10⁻², two roundings); for a seed's parameter
//! gradients an error of norm 10⁻⁴ of theirs and 10⁻⁶ of ‖x‖·‖g‖; for a mean 10⁻⁵ of itself and σ; for a variance 10⁻⁴; for a sum 10⁻⁶ of
//! the sum of magnitudes. Counts and extremes are equal.

use kasmina_core::DType;
use kasmina_telemetry::{ChunkStats, GradientStats};

const RELATIVE: f64 = 1e-4;
const PRODUCT: f64 = 1e-6;
const MEAN: f64 = 1e-5;
const VARIANCE: f64 = 1e-4;
const SUM: f64 = 1e-6;

/// What an element may differ by, of its magnitude and of the root mean square.
fn element(dtype: DType) -> f64 {
    if dtype == DType::F32 { 2e-5 } else { 1.6e-2 }
}

/// Compares, and remembers.
#[derive(Debug, Default)]
pub(super) struct Judge {
    worst: f64,
}

impl Judge {
    /// The greatest difference over what was allowed.
    pub(super) fn worst(&self) -> f64 {
        self.worst
    }

    /// # Errors
    /// The difference is greater than `allowed`, or not a number.
    fn within(
        &mut self,
        what: impl FnOnce() -> String,
        found: f64,
        expected: f64,
        allowed: f64,
    ) -> Result<(), String> {
        if found == expected {
            return Ok(());
        }
        let share = (found - expected).abs() / allowed;
        if share <= 1.0 {
            self.worst = self.worst.max(share);
            return Ok(());
        }
        let what = what();
        Err(format!(
            "the two sides disagree: {what} is {found:e} off and {expected:e} on, with {allowed:.1e} allowed between them"
        ))
    }

    fn same_length(what: &str, found: usize, expected: usize) -> Result<(), String> {
        if found == expected {
            return Ok(());
        }
        Err(format!("the two sides disagree: {what} has {found} values off and {expected} on"))
    }

    /// A matrix that is not all zeros.
    pub(super) fn elements(
        &mut self,
        what: &str,
        dtype: DType,
        found: &[f32],
        expected: &[f32],
    ) -> Result<(), String> {
        Self::same_length(what, found.len(), expected.len())?;
        let squares: f64 = expected.iter().map(|e| f64::from(*e).powi(2)).sum();
        let rms = (squares / expected.len().max(1) as f64).sqrt();
        if rms.is_nan() || rms <= 0.0 {
            return Err(format!("{what} says nothing: its root mean square is {rms}"));
        }
        let share = element(dtype);
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let (found, expected) = (f64::from(*found), f64::from(*expected));
            let allowed = share * (expected.abs() + rms);
            self.within(|| format!("{what}[{i}]"), found, expected, allowed)?;
        }
        Ok(())
    }

    /// Statistics of activations.
    pub(super) fn chunks(
        &mut self,
        found: &[ChunkStats],
        expected: &[ChunkStats],
    ) -> Result<(), String> {
        Self::same_length("the statistics", found.len(), expected.len())?;
        for (seed, (a, e)) in found.iter().zip(expected).enumerate() {
            self.counts(
                seed,
                &[
                    ("n", a.n as f64, e.n as f64),
                    ("dead", a.dead as f64, e.dead as f64),
                    ("nonfinite", a.nonfinite as f64, e.nonfinite as f64),
                    ("min", a.min.into(), e.min.into()),
                    ("max", a.max.into(), e.max.into()),
                ],
            )?;
            self.moments(seed, (a.mean, a.m2), (e.mean, e.m2), e.n)?;
        }
        Ok(())
    }

    /// Statistics of gradients.
    pub(super) fn gradients(
        &mut self,
        found: &[GradientStats],
        expected: &[GradientStats],
    ) -> Result<(), String> {
        Self::same_length("the gradient's statistics", found.len(), expected.len())?;
        for (seed, (a, e)) in found.iter().zip(expected).enumerate() {
            self.counts(
                seed,
                &[
                    ("the gradient's n", a.n as f64, e.n as f64),
                    ("the gradient's nonfinite", a.nonfinite as f64, e.nonfinite as f64),
                    ("max|g|", a.max_abs.into(), e.max_abs.into()),
                ],
            )?;
            self.moments(seed, (a.mean, a.m2), (e.mean, e.m2), e.n)?;
        }
        Ok(())
    }

    fn counts(&mut self, seed: usize, all: &[(&str, f64, f64)]) -> Result<(), String> {
        all.iter().try_for_each(|(what, found, expected)| {
            self.within(|| format!("{what} of seed {seed}"), *found, *expected, 0.0)
        })
    }

    fn moments(
        &mut self,
        seed: usize,
        found: (f64, f64),
        expected: (f64, f64),
        n: u64,
    ) -> Result<(), String> {
        if n == 0 {
            return Err(format!("the statistics of seed {seed} are of nothing"));
        }
        let variance = |m2: f64| m2 / n as f64;
        let (mean, expected_variance) = (expected.0, variance(expected.1));
        let allowed = MEAN * (mean.abs() + expected_variance.sqrt());
        self.within(|| format!("the mean of seed {seed}"), found.0, mean, allowed)?;
        let allowed = VARIANCE * expected_variance;
        let name = || format!("the variance of seed {seed}");
        self.within(name, variance(found.1), expected_variance, allowed)
    }

    /// A seed's gradients; `product` is ‖x‖·‖g‖ of its chunk.
    pub(super) fn vector(
        &mut self,
        what: impl Fn() -> String,
        found: &[f32],
        expected: &[f32],
        product: f64,
    ) -> Result<(), String> {
        Self::same_length(&what(), found.len(), expected.len())?;
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let pairs = found.iter().zip(expected);
        let error = norm(&mut pairs.map(|(a, e)| f64::from(*a) - f64::from(*e)));
        let size = norm(&mut expected.iter().map(|e| f64::from(*e)));
        let allowed = RELATIVE * size + PRODUCT * product;
        self.within(|| format!("the norm of the error of {}", what()), error, 0.0, allowed)
    }

    /// A sum of numbers whose magnitudes add up to `magnitude`.
    pub(super) fn sum(
        &mut self,
        what: impl FnOnce() -> String,
        found: f64,
        expected: f64,
        magnitude: f64,
    ) -> Result<(), String> {
        self.within(what, found, expected, SUM * magnitude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(values: &[f32]) -> ChunkStats {
        let mut stats = ChunkStats::EMPTY;
        values.iter().for_each(|x| stats.push(*x, 1e-8));
        stats
    }

    #[test]
    fn what_is_within_is_kept_and_what_is_beyond_is_named() {
        let mut judge = Judge::default();
        let ones = [1.0f32; 4];
        assert_eq!(judge.elements("y", DType::F32, &ones, &ones), Ok(()));
        assert_eq!(judge.worst(), 0.0);
        let near = [1.0, 1.0, 1.00002, 1.0];
        assert_eq!(judge.elements("y", DType::F32, &near, &ones), Ok(()));
        assert!((judge.worst() - 0.5).abs() < 0.01, "{}", judge.worst());
        let far = [1.0, 1.0, 1.00005, 1.0];
        let error = judge.elements("y", DType::F32, &far, &ones).expect_err("it is too far");
        assert!(error.contains("y[2]") && error.contains("4.0e-5 allowed"), "{error}");
        assert_eq!(judge.elements("y", DType::Bf16, &far, &ones), Ok(()));
        let broken = [1.0, f32::NAN, 1.0, 1.0];
        assert!(judge.elements("y", DType::Bf16, &broken, &ones).is_err());
        assert!(judge.elements("y", DType::F32, &ones[..3], &ones).is_err());
        // Two sides that wrote nothing agree on nothing.
        assert!(judge.elements("y", DType::F32, &[0.0; 4], &[0.0; 4]).is_err());
    }

    #[test]
    fn counts_and_extremes_are_equal_and_moments_near() {
        let expected = [stats(&[1.0, -2.0, 0.0, 4.0])];
        let judge = |change: &dyn Fn(&mut ChunkStats)| {
            let mut found = expected;
            change(&mut found[0]);
            Judge::default().chunks(&found, &expected)
        };
        assert_eq!(judge(&|_| {}), Ok(()));
        assert_eq!(judge(&|s| s.mean += 1e-6), Ok(()));
        assert!(judge(&|s| s.mean += 1e-3).is_err_and(|e| e.contains("the mean of seed 0")));
        assert!(judge(&|s| s.m2 *= 1.001).is_err_and(|e| e.contains("variance")));
        assert!(judge(&|s| s.dead += 1).is_err_and(|e| e.contains("dead of seed 0")));
        assert!(judge(&|s| s.max = 3.999).is_err_and(|e| e.contains("max")));
        let empty = [ChunkStats::EMPTY];
        assert!(Judge::default().chunks(&empty, &empty).is_err());
        let mut gradient = GradientStats::EMPTY;
        [1.0, -3.0].into_iter().for_each(|g| gradient.push(g));
        let other = GradientStats { max_abs: 2.0, ..gradient };
        assert_eq!(Judge::default().gradients(&[gradient], &[gradient]), Ok(()));
        assert!(Judge::default().gradients(&[other], &[gradient]).is_err());
    }

    #[test]
    fn gradients_and_sums_have_the_size_of_what_they_are_made_of() {
        let mut judge = Judge::default();
        let name = || "weight".to_owned();
        assert_eq!(judge.vector(name, &[3.0, 4.0003], &[3.0, 4.0], 0.0), Ok(()));
        assert!(judge.vector(name, &[3.0, 4.001], &[3.0, 4.0], 0.0).is_err());
        assert_eq!(judge.vector(name, &[0.0, 0.5], &[0.0, 0.0], 1e6), Ok(()));
        assert_eq!(judge.sum(name, 1.0, 1.5, 1e6), Ok(()));
        assert!(judge.sum(name, 1.0, 3.0, 1e6).is_err());
    }
}
