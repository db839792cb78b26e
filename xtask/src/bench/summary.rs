//! From the times of one thing to the numbers that are shown of it.

use serde::{Deserialize, Serialize};

/// Times of one thing, each the mean over `launches` of it in a row, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// One a repetition, in their order.
    pub milliseconds: Vec<f64>,
    /// How many were timed together and divided by: more than 1 where one alone is shorter than a clock of half a microsecond
    /// can tell.
    pub launches: usize,
}

/// What is shown of a [`Timing`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Milliseconds.
    pub median: f64,
    /// A tenth of the times is shorter.
    pub p10: f64,
    /// A tenth of the times is longer.
    pub p90: f64,
}

impl Timing {
    /// Median and spread; `None` where nothing was timed.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.milliseconds.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share| percentile(&sorted, share);
        Some(Summary { median: at(0.5)?, p10: at(0.1)?, p90: at(0.9)? })
    }

    /// Whether these can be times at all, when someone else says so.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), String> {
        if self.milliseconds.is_empty() {
            return Err("there are no times".to_owned());
        }
        if self.launches == 0 {
            return Err("launches must be at least 1".to_owned());
        }
        match self.milliseconds.iter().find(|ms| !(ms.is_finite() && **ms > 0.0)) {
            Some(time) => Err(format!("{time} ms is no time")),
            None => Ok(()),
        }
    }
}

/// The value below which `share` of the ascending values lies, between two of them where it falls there.
pub(super) fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let (low, high) = (*sorted.get(below)?, *sorted.get(above)?);
    Some(low + (high - low) * (place - place.floor()))
}

/// 10¹² bytes a second.
#[must_use]
pub fn terabytes_per_second(bytes: u64, milliseconds: f64) -> f64 {
    bytes as f64 / milliseconds / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(milliseconds: Vec<f64>) -> Timing {
        Timing { milliseconds, launches: 1 }
    }

    #[test]
    fn percentiles_lie_between_the_values() {
        let sorted: Vec<f64> = (0..=10).map(f64::from).collect();
        for (share, expected) in
            [(0.0, 0.0), (0.1, 1.0), (0.25, 2.5), (0.5, 5.0), (1.0, 10.0), (7.0, 10.0)]
        {
            assert_eq!(percentile(&sorted, share), Some(expected), "{share}");
        }
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn the_order_of_the_times_does_not_matter() {
        let summary = timing(vec![3.0, 1.0, 2.0]).summary();
        assert_eq!(summary.map(|s| s.median), Some(2.0));
        assert_eq!(timing(vec![1.0, 2.0]).summary().map(|s| s.median), Some(1.5));
        assert_eq!(timing(vec![4.0]).summary(), Some(Summary { median: 4.0, p10: 4.0, p90: 4.0 }));
        assert_eq!(timing(Vec::new()).summary(), None);
    }

    #[test]
    fn a_gigabyte_a_millisecond_is_a_terabyte_a_second() {
        assert_eq!(terabytes_per_second(1_000_000_000, 1.0), 1.0);
        assert_eq!(terabytes_per_second(1_000_000_000, 0.25), 4.0);
    }
}
