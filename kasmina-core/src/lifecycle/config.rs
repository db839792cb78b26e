//! The numbers of a lifecycle: hard conditions of the command table, and the thresholds of readiness.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Conditions that commands must meet, and the gates that say when a seed is ready for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifecycleConfig {
    /// Where grafting takes alpha, in (0, 1]; default 1. `stabilize` is legal once alpha is there.
    pub target_alpha: f32,
    /// Training steps in STABILIZATION before `evaluate` is legal; default 20.
    pub stabilization_steps: u64,
    /// Whole epochs that a culled seed waits before `reset` is legal; default 5.
    pub embargo_epochs: u32,
    /// Transitions that the history keeps, the oldest going first; default 1,000,000.
    pub history_limit: usize,
    /// Thresholds of [`Lifecycle::readiness`](crate::Lifecycle::readiness).
    pub gates: Gates,
}

/// Thresholds of readiness. Losses are compared relatively: a fall of 0.05 is 5 % of the first loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// Least steps in TRAINING; default 50.
    pub training_steps: u64,
    /// Least fall of the training loss since the first measurement in TRAINING; default 0.02.
    pub training_fall: f64,
    /// Steps in TRAINING after which a seed whose loss has not fallen is to be given up; default 2000.
    pub training_patience: u64,
    /// How much the held-back loss may exceed the counterfactual loss in EVALUATING; default 0.
    pub evaluation_tolerance: f64,
    /// How much the held-back loss may exceed the counterfactual loss while the seed is still being
    /// blended in or settling, before it counts as harm; default 0.1.
    pub early_harm: f64,
    /// Least steps in FINE_TUNING; default 50.
    pub fine_tuning_steps: u64,
    /// How much the held-back loss may exceed the one with which the seed passed EVALUATING; default 0.02.
    pub fine_tuning_tolerance: f64,
}

impl Default for LifecycleConfig {
    fn default() -> Self {
        Self {
            target_alpha: 1.0,
            stabilization_steps: 20,
            embargo_epochs: 5,
            history_limit: 1_000_000,
            gates: Gates::default(),
        }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            training_steps: 50,
            training_fall: 0.02,
            training_patience: 2000,
            evaluation_tolerance: 0.0,
            early_harm: 0.1,
            fine_tuning_steps: 50,
            fine_tuning_tolerance: 0.02,
        }
    }
}

impl LifecycleConfig {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Value`] for a target outside (0, 1] or a threshold that is negative or not finite;
    /// [`Error::Zero`] for a history of no entries.
    pub fn validate(&self) -> Result<()> {
        if !(self.target_alpha > 0.0 && self.target_alpha <= 1.0) {
            return Err(Error::Value {
                what: "lifecycle.target_alpha".into(),
                value: self.target_alpha.into(),
                legal: "more than 0 and at most 1",
            });
        }
        if self.history_limit == 0 {
            return Err(Error::Zero { what: "lifecycle.history_limit" });
        }
        let gates = &self.gates;
        for (what, value) in [
            ("gates.training_fall", gates.training_fall),
            ("gates.evaluation_tolerance", gates.evaluation_tolerance),
            ("gates.early_harm", gates.early_harm),
            ("gates.fine_tuning_tolerance", gates.fine_tuning_tolerance),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::Value { what: what.into(), value, legal: "finite and ≥ 0" });
            }
        }
        Ok(())
    }
}
