//! Measured signals of a seed: what was measured, when, and for how long it counts.

use crate::{Error, Result, graft::Signal};

/// Measurements to be recorded for a seed; what was not measured is `None` and changes nothing.
///
/// A loss that came out NaN is to be recorded as infinity: it is the worst, and it holds the seed back
/// or shows its harm, where an unrecorded one would only be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SeedSignals {
    /// Loss on training data, with the seed as it is (or as its objective sees it).
    pub loss: Option<f64>,
    /// Loss on held-back data, with the seed as it is.
    pub held_back_loss: Option<f64>,
    /// Loss on the same held-back data, with the seed probed at alpha = 0.
    pub counterfactual_loss: Option<f64>,
    /// L2 norm of the seed's parameter gradients; the built-in optimizer records it itself.
    pub gradient_norm: Option<f64>,
}

impl SeedSignals {
    /// A training loss alone.
    pub fn loss(loss: f64) -> Self {
        Self { loss: Some(loss), ..Self::default() }
    }

    /// A held-back loss with its counterfactual.
    pub fn evaluation(held_back_loss: f64, counterfactual_loss: f64) -> Self {
        Self {
            held_back_loss: Some(held_back_loss),
            counterfactual_loss: Some(counterfactual_loss),
            ..Self::default()
        }
    }

    pub(crate) fn validate(&self, seed: usize) -> Result<()> {
        let named = [
            (Signal::Loss, self.loss),
            (Signal::HeldBackLoss, self.held_back_loss),
            (Signal::CounterfactualLoss, self.counterfactual_loss),
            (Signal::GradientNorm, self.gradient_norm),
        ];
        for (signal, value) in named {
            let Some(value) = value else { continue };
            let (ok, legal) = match signal {
                Signal::GradientNorm => (value >= 0.0, "at least 0"),
                _ => (value > f64::NEG_INFINITY, "a number or +∞ (record a NaN loss as +∞)"),
            };
            if !ok {
                return Err(Error::Value {
                    what: format!("{signal} of seed {seed}"),
                    value,
                    legal,
                });
            }
        }
        Ok(())
    }
}

/// A value and the epoch in which it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    pub(crate) epoch: u32,
}

/// What was measured for a seed since it entered its state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measurements {
    pub(crate) loss: Option<Measured>,
    pub(crate) held_back: Option<Measured>,
    pub(crate) counterfactual: Option<Measured>,
    pub(crate) gradient_norm: Option<Measured>,
    /// The first loss in this state.
    pub(crate) initial_loss: Option<f64>,
    /// The least loss in this state.
    pub(crate) best_loss: Option<f64>,
}

impl Measurements {
    pub(crate) fn record(&mut self, signals: &SeedSignals, epoch: u32) {
        let note = |slot: &mut Option<Measured>, value: Option<f64>| {
            if let Some(value) = value {
                *slot = Some(Measured { value, epoch });
            }
        };
        note(&mut self.loss, signals.loss);
        note(&mut self.held_back, signals.held_back_loss);
        note(&mut self.counterfactual, signals.counterfactual_loss);
        note(&mut self.gradient_norm, signals.gradient_norm);
        if let Some(loss) = signals.loss {
            self.initial_loss.get_or_insert(loss);
            self.best_loss = Some(self.best_loss.map_or(loss, |best| best.min(loss)));
        }
    }
}

/// The value, if it was measured in `epoch` or the one before: a measurement taken at an epoch's end
/// serves the next epoch, an older one counts as not measured.
pub(crate) fn fresh(measured: Option<Measured>, epoch: u32) -> Option<f64> {
    measured.filter(|m| epoch.saturating_sub(m.epoch) <= 1).map(|m| m.value)
}
