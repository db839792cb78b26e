//! Section 2.6: the statistics of a chunk and of its gradient, in two passes over the finite elements.

/// Mean, population variance, minimum and maximum of at least one finite value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// Σx / n.
    pub mean: f64,
    /// Σ(x − mean)² / n.
    pub variance: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Moments {
    /// Of the finite elements of `values`; "An empty statistic is `None`, not 0."
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let finite = || values.iter().copied().filter(|v| v.is_finite());
        let n = finite().count();
        if n == 0 {
            return None;
        }
        let n = n as f64;
        let mean = finite().sum::<f64>() / n;
        // Second pass about the rounded mean, less what that rounding adds.
        let squares: f64 = finite().map(|v| (v - mean) * (v - mean)).sum();
        let rest: f64 = finite().map(|v| v - mean).sum();
        Some(Self {
            mean,
            variance: ((squares - rest * rest / n) / n).max(0.0),
            min: finite().fold(f64::INFINITY, f64::min),
            max: finite().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// What a seed measures of its chunk: "over rows × c, on raw x, finite elements only".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// Finite elements.
    pub n: u64,
    /// Their moments, or none where there are none.
    pub moments: Option<Moments>,
    /// "dead (|x| ≤ dead_epsilon = 1e-8)".
    pub dead: u64,
    /// NaN and ±Inf.
    pub nonfinite: u64,
}

impl Statistics {
    /// Of the raw values of one chunk.
    #[must_use]
    pub fn of(values: &[f64], dead_epsilon: f64) -> Self {
        let count = |f: &dyn Fn(f64) -> bool| values.iter().filter(|v| f(**v)).count() as u64;
        Self {
            n: count(&|v| v.is_finite()),
            moments: Moments::of(values),
            dead: count(&|v| v.abs() <= dead_epsilon),
            nonfinite: count(&|v| !v.is_finite()),
        }
    }

    /// n, mean, variance, min, max, dead, nonfinite; the moments are NaN where n = 0.
    #[must_use]
    pub fn row(&self) -> [f64; 7] {
        let m = self.moments.unwrap_or(Moments {
            mean: f64::NAN,
            variance: f64::NAN,
            min: f64::NAN,
            max: f64::NAN,
        });
        [self.n as f64, m.mean, m.variance, m.min, m.max, self.dead as f64, self.nonfinite as f64]
    }
}

/// "Gradients of y per seed: norm, variance, max|g|", over the finite elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientStatistics {
    /// √Σg².
    pub norm: f64,
    /// Population variance.
    pub variance: f64,
    /// Largest |g|.
    pub max_abs: f64,
}

impl GradientStatistics {
    /// Of the gradient of one chunk, or none where it has no finite element.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let m = Moments::of(values)?;
        let squares: f64 = values.iter().filter(|v| v.is_finite()).map(|v| v * v).sum();
        Some(Self {
            norm: squares.sqrt(),
            variance: m.variance,
            max_abs: m.max.abs().max(m.min.abs()),
        })
    }

    /// norm, variance, max|g|.
    #[must_use]
    pub fn row(&self) -> [f64; 3] {
        [self.norm, self.variance, self.max_abs]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let s = Statistics::of(&[1.0, f64::NAN, 3.0, 0.0, -1e-9, f64::INFINITY], 1e-8);
        let m = s.moments.unwrap();
        assert_eq!((s.n, s.dead, s.nonfinite), (4, 2, 2));
        assert_eq!((m.min, m.max), (-1e-9, 3.0));
        assert!((m.mean - 1.0).abs() < 1e-9);
        assert!((m.variance - 1.5).abs() < 1e-8);
    }

    #[test]
    fn nothing_finite_is_none() {
        let s = Statistics::of(&[f64::NAN], 1e-8);
        assert_eq!((s.n, s.moments, s.nonfinite), (0, None, 1));
        assert!(s.row()[1..5].iter().all(|v| v.is_nan()));
        assert_eq!(GradientStatistics::of(&[]), None);
    }

    #[test]
    fn variance_survives_a_large_mean() {
        // ±1 about 1e8: one pass over x² would lose it altogether.
        let values: Vec<f64> = (0..1000).map(|i| 1e8 + f64::from(i % 2 * 2 - 1)).collect();
        assert_eq!(Moments::of(&values).unwrap().variance, 1.0);
    }

    #[test]
    fn gradient_rows() {
        let g = GradientStatistics::of(&[3.0, -4.0]).unwrap();
        assert_eq!(g.row(), [5.0, 12.25, 4.0]);
    }
}
