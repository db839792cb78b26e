//! Count, mean and sum of squared deviations of a stream, in one pass.
//!
//! Element by element after Welford, "Note on a method for calculating corrected sums of squares and
//! products", Technometrics 4(3), 1962; set by set after Chan, Golub and LeVeque, "Updating formulae and
//! a pairwise algorithm for computing sample variances", Stanford STAN-CS-79-773, 1979, equation 2.1.
//! Both work on deviations from a mean near the data, so a large common offset does not cancel.

/// First two moments of the values pushed so far.
///
/// ```
/// use kasmina_telemetry::Moments;
///
/// let mut a = Moments::from_values([1.0, 2.0]);
/// let b = Moments::from_values([3.0, 6.0]);
/// a.merge(&b);
/// assert_eq!((a.n, a.mean(), a.variance()), (4, Some(3.0), Some(3.5)));
/// assert_eq!(Moments::EMPTY.mean(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Moments {
    /// Number of values.
    pub n: u64,
    /// Their mean; 0 while there is none.
    pub mean: f64,
    /// Σ (x − mean)².
    pub m2: f64,
}

impl Moments {
    /// No values yet: the neutral element of [`Moments::merge`].
    pub const EMPTY: Self = Self { n: 0, mean: 0.0, m2: 0.0 };

    /// Moments of all values of an iterator.
    pub fn from_values(values: impl IntoIterator<Item = f64>) -> Self {
        let mut moments = Self::EMPTY;
        values.into_iter().for_each(|x| moments.push(x));
        moments
    }

    /// Moments of `n` values from their sums of (x − pivot) and (x − pivot)².
    ///
    /// Cancels least when the pivot is one of the values: then Σ(x − pivot)² ≤ (1 + n)·m2, however far
    /// the values lie from zero and however odd the pivot is among them.
    #[inline]
    pub(crate) fn from_shifted(n: u64, pivot: f64, sum: f64, squares: f64) -> Self {
        if n == 0 {
            return Self::EMPTY;
        }
        let shift = sum / n as f64;
        Self {
            n,
            mean: pivot + shift,
            // Rounding may leave a tiny negative number where all values are equal.
            m2: (squares - sum * shift).max(0.0),
        }
    }

    /// Adds one value (Welford 1962).
    #[inline]
    pub fn push(&mut self, x: f64) {
        self.n += 1;
        let delta = x - self.mean;
        self.mean += delta / self.n as f64;
        self.m2 += delta * (x - self.mean);
    }

    /// Adds all values behind `other` (Chan, Golub and LeVeque 1979).
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        if self.n == 0 {
            *self = *other;
            return;
        }
        let n = self.n + other.n;
        let delta = other.mean - self.mean;
        let share = other.n as f64 / n as f64;
        self.m2 += other.m2 + delta * delta * (self.n as f64 * share);
        self.mean += delta * share;
        self.n = n;
    }

    /// Mean, or `None` without values.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then_some(self.mean)
    }

    /// Population variance m2 / n, or `None` without values.
    pub fn variance(&self) -> Option<f64> {
        (self.n > 0).then(|| self.m2 / self.n as f64)
    }

    /// Σ x², from the moments: m2 + n·mean². Both terms are positive, so nothing cancels.
    pub fn sum_squares(&self) -> f64 {
        self.m2 + self.n as f64 * (self.mean * self.mean)
    }
}

impl Default for Moments {
    fn default() -> Self {
        Self::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_variance_zero_and_none_has_no_variance() {
        assert_eq!(Moments::from_values([7.5]).variance(), Some(0.0));
        assert_eq!(Moments::EMPTY.variance(), None);
    }

    #[test]
    fn empty_is_neutral_on_both_sides() {
        let full = Moments::from_values([1.0, 4.0, -2.0]);
        let mut left = Moments::EMPTY;
        left.merge(&full);
        let mut right = full;
        right.merge(&Moments::EMPTY);
        assert_eq!((left, right), (full, full));
    }

    #[test]
    fn shifted_sums_survive_an_outlying_pivot() {
        let values: Vec<f64> =
            std::iter::once(-3.0e4).chain((0..1000).map(|i| 1.0e4 + f64::from(i % 7))).collect();
        let pivot = values[0];
        let sum = values.iter().map(|x| x - pivot).sum();
        let squares = values.iter().map(|x| (x - pivot).powi(2)).sum();
        let got = Moments::from_shifted(values.len() as u64, pivot, sum, squares);
        let want = Moments::from_values(values);
        assert!((got.m2 / want.m2 - 1.0).abs() < 1e-11);
        assert!((got.mean / want.mean - 1.0).abs() < 1e-13);
    }
}
