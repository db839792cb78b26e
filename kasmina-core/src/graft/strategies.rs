//! The rules of the built-in strategies: one ramp, and three reasons to run it faster, or to hold it.

use super::{GraftSignals, GraftStep, Hold, Signal, Strategy};
use crate::{Error, Result};

impl Strategy {
    /// Checks the strategy's numbers.
    ///
    /// # Errors
    /// [`Error::Zero`] for a ramp of no steps, [`Error::Value`] for a limit outside its range.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::FixedRamp { steps } => check_steps(steps),
            Self::PerformanceLinked { steps, gain, max_speed } => {
                check_steps(steps)?;
                check_non_negative("performance_linked.gain", gain)?;
                check_non_negative("performance_linked.max_speed", max_speed)?;
                check(max_speed > 0.0, "performance_linked.max_speed", max_speed, "more than 0")
            }
            Self::DriftControlled { steps, max_drift } => {
                check_steps(steps)?;
                check_non_negative("drift_controlled.max_drift", max_drift)
            }
            Self::GradNormGated { steps, low, high } => {
                check_steps(steps)?;
                check_non_negative("grad_norm_gated.low", low)?;
                check_non_negative("grad_norm_gated.high", high)?;
                check(low <= high, "grad_norm_gated.low", low, "at most grad_norm_gated.high")
            }
            Self::Custom(_) => Ok(()),
        }
    }

    /// The rule itself; a custom strategy's answer comes back unchecked.
    pub(super) fn step(&self, signals: &GraftSignals) -> GraftStep {
        match *self {
            Self::FixedRamp { steps } => ramp(steps, signals),
            Self::PerformanceLinked { steps, gain, max_speed } => {
                follow_loss(steps, gain, max_speed, signals)
            }
            Self::DriftControlled { steps, max_drift } => {
                within(Signal::WeightDrift, signals.weight_drift, 0.0, max_drift)
                    .unwrap_or_else(|| ramp(steps, signals))
            }
            Self::GradNormGated { steps, low, high } => {
                within(Signal::GradientNorm, signals.gradient_norm, low, high)
                    .unwrap_or_else(|| ramp(steps, signals))
            }
            Self::Custom(ref custom) => custom.advance(signals),
        }
    }
}

/// Share start + n / steps after n steps that were not held: one division, so n = steps gives the target
/// itself and nothing accumulates.
fn ramp(steps: u32, signals: &GraftSignals) -> GraftStep {
    let done = signals.advanced.saturating_add(1) as f64;
    GraftStep::Share(signals.start + done / f64::from(steps))
}

/// The hold for a signal that is unmeasured or out of `[low, high]`.
fn within(signal: Signal, value: Option<f64>, low: f64, high: f64) -> Option<GraftStep> {
    match value {
        None => Some(GraftStep::Hold(Hold::Unmeasured { signal })),
        Some(value) if (low..=high).contains(&value) => None,
        Some(value) => Some(GraftStep::Hold(Hold::Outside { signal, value, low, high })),
    }
}

fn follow_loss(steps: u32, gain: f64, max_speed: f64, signals: &GraftSignals) -> GraftStep {
    let (Some(loss), Some(initial)) = (signals.loss, signals.initial_loss) else {
        return GraftStep::Hold(Hold::Unmeasured { signal: Signal::Loss });
    };
    // Equal losses first: the quotient of two infinities or two zeros is not a number.
    let fall = if loss == initial {
        0.0
    } else if initial.is_infinite() {
        1.0
    } else {
        (initial - loss) / initial.abs().max(f64::MIN_POSITIVE)
    };
    // Gain 0 does not follow the loss at all, not even an infinite one.
    let speed = if gain == 0.0 { 1.0 } else { 1.0 + gain * fall }.clamp(0.0, max_speed);
    if speed == 0.0 {
        let (low, high) = (f64::NEG_INFINITY, initial + initial.abs() / gain);
        return GraftStep::Hold(Hold::Outside { signal: Signal::Loss, value: loss, low, high });
    }
    GraftStep::Share(signals.share + speed / f64::from(steps))
}

fn check(ok: bool, what: &str, value: f64, legal: &'static str) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Value { what: what.into(), value, legal }) }
}

fn check_steps(steps: u32) -> Result<()> {
    if steps == 0 { Err(Error::Zero { what: "a graft strategy's steps" }) } else { Ok(()) }
}

fn check_non_negative(what: &str, value: f64) -> Result<()> {
    check(value.is_finite() && value >= 0.0, what, value, "finite and ≥ 0")
}
