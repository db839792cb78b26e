//! From the times of two ways of doing the same to the percent that one gains over the other.

use serde::{Deserialize, Serialize};

use super::super::summary::{Summary, Timing, percentile};
use super::reason::{self, Facts};

/// One way of doing it, timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The times.
    pub timing: Timing,
    /// What the host queues for one time of it: launches, copies and fills.
    pub launches: usize,
    /// Which kernels, or how they were launched.
    pub how: String,
}

/// What was measured of a line.
#[derive(Clone, Debug)]
pub struct Found {
    /// Without.
    pub off: Side,
    /// With.
    pub on: Side,
    /// Milliseconds that the ceiling takes for the bytes that are needed; `None` where no ceiling says anything, as matrices stay in
    /// the cache.
    pub floor: Option<f64>,
    /// The greatest difference of the two sides' results, over what is allowed.
    pub disagreement: f64,
}

/// Percent that are gained: `time_off / time_on − 1`, over all pairs of a time off and a time on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percent {
    /// Half of the pairs gain more.
    pub median: f64,
    /// A tenth gains less.
    pub p10: f64,
    /// A tenth gains more.
    pub p90: f64,
}

/// The numbers of a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// Without.
    pub off: Side,
    /// With.
    pub on: Side,
    /// What is shown of their times.
    pub summaries: (Summary, Summary),
    /// What is gained.
    pub percent: Percent,
    /// As [`Found::floor`].
    pub floor: Option<f64>,
    /// As [`Found::disagreement`].
    pub disagreement: f64,
    /// How it stands to what was promised, and why, as follows from the numbers.
    pub reason: String,
}

impl Percent {
    /// Of all pairs; `None` where nothing was timed.
    #[must_use]
    pub fn of(off: &Timing, on: &Timing) -> Option<Self> {
        let against = |off: &f64| {
            let off = *off;
            on.milliseconds.iter().map(move |on| 100.0 * (off / on - 1.0))
        };
        let mut pairs: Vec<f64> = off.milliseconds.iter().flat_map(against).collect();
        pairs.sort_by(f64::total_cmp);
        let at = |share| percentile(&pairs, share);
        Some(Self { median: at(0.5)?, p10: at(0.1)?, p90: at(0.9)? })
    }
}

impl Gain {
    /// The numbers of what was found; `None` where nothing was timed.
    #[must_use]
    pub fn new(found: Found, promised: (f64, f64)) -> Option<Self> {
        let Found { off, on, floor, disagreement } = found;
        let percent = Percent::of(&off.timing, &on.timing)?;
        let summaries = (off.timing.summary()?, on.timing.summary()?);
        let facts = Facts {
            promised,
            percent,
            off: (summaries.0.median, off.launches),
            on: (summaries.1.median, on.launches),
            floor,
        };
        let reason = reason::of(&facts);
        Some(Self { off, on, summaries, percent, floor, disagreement, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(milliseconds: &[f64]) -> Timing {
        Timing { milliseconds: milliseconds.to_vec(), launches: 1 }
    }

    #[test]
    fn percent_are_of_all_pairs() {
        let percent = |off: &[f64], on: &[f64]| Percent::of(&timing(off), &timing(on));
        assert_eq!(percent(&[3.0], &[2.0]), Some(Percent { median: 50.0, p10: 50.0, p90: 50.0 }));
        assert_eq!(percent(&[1.0], &[2.0]).map(|p| p.median), Some(-50.0));
        // −50, 0, 50 and 200 percent.
        let found = percent(&[1.0, 3.0], &[2.0, 1.0]).expect("timed");
        assert_eq!(found.median, 25.0);
        assert!((found.p10 - -35.0).abs() < 1e-9 && (found.p90 - 155.0).abs() < 1e-9, "{found:?}");
        assert_eq!(percent(&[], &[1.0]), None);
        assert_eq!(percent(&[1.0], &[]), None);
    }

    #[test]
    fn the_order_of_the_times_does_not_matter() {
        let on = timing(&[1.0, 2.0, 4.0]);
        let one = Percent::of(&timing(&[5.0, 6.0, 9.0]), &on);
        assert_eq!(one, Percent::of(&timing(&[9.0, 5.0, 6.0]), &on));
    }
}
