//! Grafting: how alpha rises from 0 to its target while a seed is blended in.
//!
//! A strategy never touches alpha. It looks at [`GraftSignals`] once per training step and answers how far
//! along the graft now is, as a share of the way in [0, 1], or why it holds. The lifecycle turns the share
//! into alpha = share · target in f32. Shares are kept in f64 and, where the ramp is a plain one, computed
//! from a count of steps, so that a long ramp neither stalls nor stops short of the target.

mod strategies;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a strategy may look at, once per training step of a GRAFTING seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GraftSignals {
    /// Which step of the graft this is, from 1.
    pub step: u64,
    /// Steps on which the graft moved on; less than `step` − 1 where it was held.
    pub advanced: u64,
    /// The share of the way at which the graft began: 0, unless the seed was set up mid-graft.
    pub start: f64,
    /// The share of the way now, in [0, 1].
    pub share: f64,
    /// The seed's latest measured loss.
    pub loss: Option<f64>,
    /// The first loss measured in this graft.
    pub initial_loss: Option<f64>,
    /// The least loss measured in this graft.
    pub best_loss: Option<f64>,
    /// ‖p − r‖₂ / ‖r‖₂ over the seed's parameters p, r being their values at the last epoch boundary.
    pub weight_drift: Option<f64>,
    /// L2 norm of the seed's latest parameter gradients.
    pub gradient_norm: Option<f64>,
}

/// What a strategy decides on one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GraftStep {
    /// The share of the way to the target; the lifecycle clamps it to [0, 1].
    Share(f64),
    /// Alpha stays where it is.
    Hold(Hold),
}

/// Why a graft does not move on.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Hold {
    /// The strategy needs a signal that was not measured in this or the previous epoch.
    Unmeasured {
        /// Which signal.
        signal: Signal,
    },
    /// A signal lies outside the strategy's limits.
    Outside {
        /// Which signal.
        signal: Signal,
        /// Its value.
        value: f64,
        /// Lower limit.
        low: f64,
        /// Upper limit.
        high: f64,
    },
    /// A user-defined strategy answered with a share that is not a number.
    NotANumber,
    /// A user-defined strategy's own reason.
    Strategy,
}

/// The measured signals that strategies and gates ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// The seed's training loss.
    Loss,
    /// The loss on held-back data.
    HeldBackLoss,
    /// The loss on held-back data with the seed probed at alpha = 0.
    CounterfactualLoss,
    /// Relative change of the parameters since the last epoch boundary.
    WeightDrift,
    /// L2 norm of the parameter gradients.
    GradientNorm,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::HeldBackLoss => "held-back loss",
            Self::CounterfactualLoss => "counterfactual loss",
            Self::WeightDrift => "weight drift",
            Self::GradientNorm => "gradient norm",
        })
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmeasured { signal } => write!(f, "{signal} was not measured"),
            Self::Outside { signal, value, low, high } => {
                write!(f, "{signal} is {value:.4}, outside [{low}, {high}]")
            }
            Self::NotANumber => f.write_str("the strategy's share is not a number"),
            Self::Strategy => f.write_str("held by the strategy"),
        }
    }
}

/// A user-defined way to raise alpha. It keeps no state of its own: everything it needs is in the
/// signals, so that a checkpoint taken mid-graft continues exactly.
pub trait GraftStrategy: Send + Sync + fmt::Debug {
    /// The strategy's name, by which a checkpoint finds it again.
    fn name(&self) -> &str;

    /// How far along the graft is after this step.
    fn advance(&self, signals: &GraftSignals) -> GraftStep;
}

/// How alpha rises while a seed is GRAFTING.
///
/// ```
/// use kasmina_core::graft::Strategy;
/// assert_eq!(Strategy::default(), Strategy::FixedRamp { steps: 30 });
/// assert!(Strategy::DriftControlled { steps: 30, max_drift: f64::NAN }.validate().is_err());
/// ```
#[derive(Clone, Debug)]
pub enum Strategy {
    /// Equal steps: share n / steps after the n-th.
    FixedRamp {
        /// Steps from 0 to the target; default 30.
        steps: u32,
    },
    /// A ramp whose speed follows the loss: with f = (initial − loss) / |initial|, the fall of the loss
    /// since the graft began, one step is worth clamp(1 + gain·f, 0, max_speed) steps of the fixed
    /// ramp. It stands still once the loss has risen by 1/gain of itself, and while it is not measured.
    PerformanceLinked {
        /// Steps from 0 to the target at constant loss; default 60.
        steps: u32,
        /// How strongly the fall of the loss is followed; default 4.
        gain: f64,
        /// The most steps that one step may count for; default 4.
        max_speed: f64,
    },
    /// The fixed ramp, held while the weight drift is above its limit or not measured.
    DriftControlled {
        /// Steps from 0 to the target while not held; default 30.
        steps: u32,
        /// Largest weight drift at which the graft goes on; default 0.12.
        max_drift: f64,
    },
    /// The fixed ramp, held while the gradient norm is outside its limits or not measured.
    GradNormGated {
        /// Steps from 0 to the target while not held; default 30.
        steps: u32,
        /// Least gradient norm at which the graft goes on; default 0.1.
        low: f64,
        /// Greatest gradient norm at which the graft goes on; default 1.0.
        high: f64,
    },
    /// A strategy of the user's.
    Custom(Arc<dyn GraftStrategy>),
}

impl Default for Strategy {
    fn default() -> Self {
        Self::FixedRamp { steps: 30 }
    }
}

impl Strategy {
    /// [`Strategy::PerformanceLinked`] with its defaults.
    pub fn performance_linked() -> Self {
        Self::PerformanceLinked { steps: 60, gain: 4.0, max_speed: 4.0 }
    }

    /// [`Strategy::DriftControlled`] with its defaults.
    pub fn drift_controlled() -> Self {
        Self::DriftControlled { steps: 30, max_drift: 0.12 }
    }

    /// [`Strategy::GradNormGated`] with its defaults.
    pub fn grad_norm_gated() -> Self {
        Self::GradNormGated { steps: 30, low: 0.1, high: 1.0 }
    }

    /// The strategy's name, such as `"drift_controlled"`.
    pub fn name(&self) -> &str {
        match self {
            Self::FixedRamp { .. } => "fixed_ramp",
            Self::PerformanceLinked { .. } => "performance_linked",
            Self::DriftControlled { .. } => "drift_controlled",
            Self::GradNormGated { .. } => "grad_norm_gated",
            Self::Custom(custom) => custom.name(),
        }
    }

    /// How far along the graft is after this step; a share that is not a number becomes a hold.
    pub fn advance(&self, signals: &GraftSignals) -> GraftStep {
        match self.step(signals) {
            GraftStep::Share(share) if share.is_nan() => GraftStep::Hold(Hold::NotANumber),
            GraftStep::Share(share) => GraftStep::Share(share.clamp(0.0, 1.0)),
            hold => hold,
        }
    }
}

impl PartialEq for Strategy {
    /// Strategies are equal if their numbers are; custom ones if they are the same object.
    fn eq(&self, other: &Self) -> bool {
        use Strategy::*;
        match (self, other) {
            (FixedRamp { steps: a }, FixedRamp { steps: b }) => a == b,
            (
                PerformanceLinked { steps: a, gain: b, max_speed: c },
                PerformanceLinked { steps: p, gain: q, max_speed: r },
            ) => (a, b, c) == (p, q, r),
            (
                DriftControlled { steps: a, max_drift: b },
                DriftControlled { steps: p, max_drift: q },
            ) => (a, b) == (p, q),
            (
                GradNormGated { steps: a, low: b, high: c },
                GradNormGated { steps: p, low: q, high: r },
            ) => (a, b, c) == (p, q, r),
            (Custom(a), Custom(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}
