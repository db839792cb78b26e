//! What telemetry costs: a number that was measured, with its uncertainty, or none.
//!
//! Each round times a pass without telemetry, with it, and without it again. The two outer times give the
//! round's denominator, so that a clock that drifts slowly falls out, and their difference shows what the
//! same work timed twice differs by.

use std::time::Duration;

use serde::Serialize;

use crate::TelemetryError;

/// Measured cost of telemetry: how much longer a pass takes with it, in percent of the pass without it.
///
/// It is the median over the rounds. On a busy machine it can come out below 0; `low_percent` and
/// `high_percent` say how far it can be trusted, `noise_percent` what nothing at all would have measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TelemetryOverhead {
    /// Median cost, in percent of the pass without telemetry.
    pub percent: f64,
    /// Lower end of the median's 95 % interval.
    pub low_percent: f64,
    /// Upper end of it.
    pub high_percent: f64,
    /// Median difference between two timings of the pass without telemetry, in percent of it.
    pub noise_percent: f64,
    /// Rounds that were timed.
    pub rounds: usize,
    /// What was timed, and when.
    #[serde(flatten)]
    pub of: OverheadSubject,
}

/// What a measured cost is the cost of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OverheadSubject {
    /// The pass that was timed.
    pub pass: OverheadPass,
    /// Rows of the activations.
    pub rows: usize,
    /// Columns of the activations.
    pub columns: usize,
    /// Epochs completed when it was timed.
    pub epoch: u64,
    /// Passes from one that is measured to the next: 1, or sampling mode's `every`, which the cost of a
    /// measured pass is spread over.
    pub period: u32,
}

/// A pass whose cost was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OverheadPass {
    /// Forward: activations are measured.
    Forward,
    /// Forward and backward: gradients, too.
    ForwardBackward,
}

/// One round's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverheadRound {
    /// Without telemetry, before.
    pub before: Duration,
    /// With telemetry.
    pub with: Duration,
    /// Without telemetry, after.
    pub after: Duration,
}

impl TelemetryOverhead {
    /// Fewest rounds that give the median a 95 % interval: six of six on one side have a chance of 1.6 %.
    pub const MIN_ROUNDS: usize = 6;

    /// The cost that `rounds` show. The interval is that of order statistics, which assumes no
    /// distribution: ranks n/2 ± 1.96·√n/2, rounded (Campbell and Gardner, BMJ 296, 1988).
    ///
    /// ```
    /// use std::time::Duration;
    /// use kasmina_telemetry::{OverheadPass, OverheadRound, OverheadSubject, TelemetryOverhead};
    ///
    /// let us = Duration::from_micros;
    /// let rounds = [OverheadRound { before: us(199), with: us(204), after: us(201) }; 6];
    /// let pass = OverheadPass::Forward;
    /// let of = OverheadSubject { pass, rows: 64, columns: 256, epoch: 0, period: 1 };
    /// let overhead = TelemetryOverhead::from_rounds(&rounds, of)?;
    /// assert!((overhead.percent - 2.0).abs() < 1e-9 && (overhead.noise_percent - 1.0).abs() < 1e-9);
    /// # Ok::<(), kasmina_telemetry::TelemetryError>(())
    /// ```
    ///
    /// # Errors
    /// [`TelemetryError::OutOfRange`] for fewer than [`Self::MIN_ROUNDS`] rounds or a pass that took no
    /// time by the clock, [`TelemetryError::Zero`] for a period of 0.
    pub fn from_rounds(
        rounds: &[OverheadRound],
        of: OverheadSubject,
    ) -> Result<Self, TelemetryError> {
        crate::error::nonzero("period", of.period as usize)?;
        if rounds.len() < Self::MIN_ROUNDS {
            return Err(TelemetryError::OutOfRange {
                what: "rounds",
                value: rounds.len() as f64,
                limit: "at least 6",
            });
        }
        let (mut costs, mut noises) = (Vec::new(), Vec::new());
        for round in rounds {
            let [before, with, after] =
                [round.before, round.with, round.after].map(|time| time.as_secs_f64());
            let without = 0.5 * (before + after);
            if without <= 0.0 {
                return Err(TelemetryError::OutOfRange {
                    what: "seconds of the pass without telemetry",
                    value: without,
                    limit: "more than 0 (repeat the pass within each timing)",
                });
            }
            costs.push(100.0 * (with / without - 1.0) / f64::from(of.period));
            noises.push(100.0 * (after - before).abs() / without);
        }
        costs.sort_by(f64::total_cmp);
        noises.sort_by(f64::total_cmp);
        let n = costs.len();
        let (half, reach) = (0.5 * n as f64, 0.98 * (n as f64).sqrt());
        let rank = |rank: f64| costs[(rank.round() as usize).clamp(1, n) - 1];
        Ok(Self {
            percent: median(&costs),
            low_percent: rank(half - reach),
            high_percent: rank(1.0 + half + reach),
            noise_percent: median(&noises),
            rounds: n,
            of,
        })
    }
}

/// Of sorted values, at least one.
fn median(sorted: &[f64]) -> f64 {
    0.5 * (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: OverheadSubject =
        OverheadSubject { pass: OverheadPass::Forward, rows: 8, columns: 4, epoch: 3, period: 1 };

    /// A round whose telemetry costs `percent` of 1 ms, on a clock that drifts.
    fn round(percent: f64, drift: f64) -> OverheadRound {
        let ms = |ms: f64| Duration::from_secs_f64(ms * 1e-3);
        OverheadRound {
            before: ms(1.0 - drift),
            with: ms(1.0 + percent / 100.0),
            after: ms(1.0 + drift),
        }
    }

    #[test]
    fn the_median_stands_between_the_ends_of_its_interval_and_drift_falls_out() {
        let rounds: Vec<_> = (0..31).map(|i| round(f64::from(i), 0.01)).collect();
        let overhead = TelemetryOverhead::from_rounds(&rounds, OF).expect("enough rounds");
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-3, "{a} is not {b}");
        near(overhead.percent, 15.0);
        // Ranks 10 and 22 of 31.
        near(overhead.low_percent, 9.0);
        near(overhead.high_percent, 21.0);
        near(overhead.noise_percent, 2.0);
        assert_eq!((overhead.rounds, overhead.of), (31, OF));
    }

    #[test]
    fn six_rounds_span_them_all_and_an_outlier_moves_no_median() {
        let rounds: Vec<_> =
            [1.0, 2.0, 3.0, 4.0, 5.0, 9000.0].map(|cost| round(cost, 0.0)).to_vec();
        let overhead = TelemetryOverhead::from_rounds(&rounds, OF).expect("enough rounds");
        assert!((overhead.percent - 3.5).abs() < 1e-3);
        assert!((overhead.low_percent - 1.0).abs() < 1e-3);
        assert!((overhead.high_percent - 9000.0).abs() < 1e-3);
    }

    #[test]
    fn a_period_spreads_the_cost_of_the_measured_pass() {
        let of = OverheadSubject { period: 4, ..OF };
        let overhead = TelemetryOverhead::from_rounds(&[round(8.0, 0.0); 7], of).expect("enough");
        assert!((overhead.percent - 2.0).abs() < 1e-3);
    }

    #[test]
    fn what_shows_nothing_is_an_error() {
        let out_of_range = |result| matches!(result, Err(TelemetryError::OutOfRange { .. }));
        assert!(out_of_range(TelemetryOverhead::from_rounds(&[round(1.0, 0.0); 5], OF)));
        let no_time = OverheadRound {
            before: Duration::ZERO,
            with: Duration::from_micros(1),
            after: Duration::ZERO,
        };
        assert!(out_of_range(TelemetryOverhead::from_rounds(&[no_time; 8], OF)));
        let never = OverheadSubject { period: 0, ..OF };
        let error = TelemetryOverhead::from_rounds(&[round(1.0, 0.0); 8], never);
        assert_eq!(error, Err(TelemetryError::Zero { what: "period" }));
    }
}
