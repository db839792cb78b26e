//! Means over paired seeds, with Student's interval.

use serde::Serialize;

/// A mean with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Interval {
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Interval {
    /// mean ± t·s/√n with n − 1 degrees of freedom; `None` for fewer than two values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n < 2 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let square: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let error = (square / (n - 1) as f64 / n as f64).sqrt();
        let half = t_quantile(n - 1) * error;
        Some(Self { mean, low: mean - half, high: mean + half })
    }

    /// The interval of the differences a − b of paired values.
    pub(crate) fn of_differences(a: &[f64], b: &[f64]) -> Option<Self> {
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        Self::of(&differences)
    }
}

/// The 0.975 quantile of Student's t distribution.
fn t_quantile(degrees: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010,
        2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739,
        2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
    ];
    if let Some(&t) = degrees.checked_sub(1).and_then(|i| TABLE.get(i)) {
        return t;
    }
    // Abramowitz & Stegun 26.7.5, its first two corrections: exact to four digits from here on.
    let (z, n) = (1.959_964f64, degrees as f64);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    z + first / n + second / (n * n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_worked_by_hand() {
        // Mean 3, sample deviation 1.5811, standard error 0.7071, t(4) = 2.7764.
        let interval = Interval::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!((interval.mean - 3.0).abs() < 1e-12);
        assert!((interval.high - 4.9632).abs() < 1e-4 && (interval.low - 1.0368).abs() < 1e-4);
        assert_eq!(Interval::of(&[1.0]), None);
    }

    #[test]
    fn pairs_cancel_what_they_share() {
        let a = [0.9, 0.5, 0.7];
        let b = a.map(|v| v - 0.1);
        let interval = Interval::of_differences(&a, &b).unwrap();
        assert!((interval.mean - 0.1).abs() < 1e-12 && interval.high - interval.low < 1e-9);
    }

    #[test]
    fn quantiles_fall_to_the_normal_one_without_a_step() {
        let mut last = f64::INFINITY;
        for degrees in 1..200 {
            let t = t_quantile(degrees);
            assert!(t < last && t > 1.959_96, "{degrees}: {t}");
            last = t;
        }
        assert!((t_quantile(40) - 2.0211).abs() < 1e-4 && (t_quantile(120) - 1.9799).abs() < 1e-4);
    }
}
