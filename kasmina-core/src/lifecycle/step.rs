//! What happens between epoch boundaries: alpha moves, measurements come in, parameters are written.

use super::signals::fresh;
use super::{Lifecycle, SeedRow, SeedSignals};
use crate::blueprint::check_finite;
use crate::graft::{GraftSignals, GraftStep, Hold, Strategy};
use crate::{Error, Objective, Result, State};

impl Lifecycle {
    /// Counts one training step and moves the alpha of every GRAFTING seed by its strategy. Other seeds
    /// are not touched.
    pub fn advance_step(&mut self) {
        self.step = self.step.saturating_add(1);
        // The set is only read here, but the seeds it names are written.
        let grafting = std::mem::take(&mut self.grafting);
        for &seed in &grafting {
            self.advance_graft(seed);
        }
        self.grafting = grafting;
    }

    fn advance_graft(&mut self, seed: u32) {
        let decision = self.next_graft_step(seed);
        let Some(grown) = self.grown.get_mut(&seed) else {
            return;
        };
        grown.graft.steps = grown.graft.steps.saturating_add(1);
        let Some(GraftStep::Share(share)) = decision else {
            return;
        };
        grown.graft.advanced = grown.graft.advanced.saturating_add(1);
        grown.graft.share = share;
        let target = self.config.target_alpha;
        // The target itself at the end, not its product with 1.
        let alpha = if share >= 1.0 { target } else { (share * f64::from(target)) as f32 };
        let row = self.table.row(seed as usize);
        if alpha.to_bits() != row.alpha.to_bits() {
            self.table.write(seed as usize, SeedRow { alpha, ..row });
            self.mark_dirty(seed as usize);
        }
    }

    /// What the seed's strategy says to the next step; `None` unless it is GRAFTING.
    fn next_graft_step(&self, seed: u32) -> Option<GraftStep> {
        let row = self.table.get(seed as usize)?;
        if row.state != State::Grafting {
            return None;
        }
        let (strategy, grown) = (self.strategies.get(row.strategy)?, self.grown.get(&seed)?);
        // It costs a pass over the parameters.
        let needs_drift =
            matches!(strategy, Strategy::DriftControlled { .. } | Strategy::Custom(_));
        let (graft, measured) = (grown.graft, &grown.measured);
        Some(strategy.advance(&GraftSignals {
            step: graft.steps.saturating_add(1),
            advanced: graft.advanced,
            start: graft.start,
            share: graft.share,
            loss: fresh(measured.loss, self.epoch),
            initial_loss: measured.initial_loss,
            best_loss: measured.best_loss,
            weight_drift: if needs_drift { grown.weight_drift() } else { None },
            gradient_norm: fresh(measured.gradient_norm, self.epoch),
        }))
    }

    /// The GRAFTING seeds whose next step looks at measurements that a device has to be asked for: each with whether
    /// that is its weight drift, and whether it is the gradient norm that an optimizer found.
    pub(crate) fn grafts_that_measure(&self) -> impl Iterator<Item = (u32, bool, bool)> {
        self.grafting.iter().filter_map(|&seed| {
            match self.strategies.get(self.table.get(seed as usize)?.strategy)? {
                Strategy::DriftControlled { .. } => Some((seed, true, false)),
                Strategy::GradNormGated { .. } => Some((seed, false, true)),
                Strategy::Custom(_) => Some((seed, true, true)),
                Strategy::FixedRamp { .. } | Strategy::PerformanceLinked { .. } => None,
            }
        })
    }

    /// Why the next training step would leave the alpha of a GRAFTING seed where it is, if it would.
    pub fn hold(&self, seed: usize) -> Option<Hold> {
        match self.next_graft_step(u32::try_from(seed).ok()?)? {
            GraftStep::Hold(hold) => Some(hold),
            GraftStep::Share(_) => None,
        }
    }

    /// Records what was measured for a seed. A measurement counts in the epoch in which it was taken and
    /// in the next; it is forgotten when the seed changes its state.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`], [`Error::NoParameters`], and [`Error::Value`] for a NaN, a loss of −∞ or a
    /// negative norm.
    pub fn record(&mut self, seed: usize, signals: SeedSignals) -> Result<()> {
        let seed = self.layout.check(seed)?;
        signals.validate(seed)?;
        let (state, epoch) = (self.table.states()[seed], self.epoch);
        let grown = self.grown_mut(seed).ok_or(Error::NoParameters { seed, state })?;
        grown.measured.record(&signals, epoch);
        Ok(())
    }

    /// Notes the reconstruction loss of a pass; it is the training loss of a seed that learns from it.
    pub(crate) fn record_reconstruction(&mut self, seed: usize, loss: f64) {
        let epoch = self.epoch;
        if let Some(grown) = self.grown_mut(seed) {
            grown.reconstruction = Some(loss);
            if grown.objective == Objective::Reconstruction {
                let loss = if loss.is_nan() { f64::INFINITY } else { loss };
                grown.measured.record(&SeedSignals::loss(loss), epoch);
            }
        }
    }

    /// Replaces a seed's parameters, all tensors one after the other. Optimizer state stays.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`], [`Error::NoParameters`], [`Error::Frozen`] in a state whose parameters do
    /// not change, [`Error::Length`], and [`Error::Value`] for a NaN or an infinity.
    pub fn set_parameters(&mut self, seed: usize, values: &[f32]) -> Result<()> {
        let seed = self.layout.check(seed)?;
        let (row, epoch) = (self.table.row(seed), self.epoch);
        let state = row.state;
        let grown = self.grown_mut(seed).ok_or(Error::NoParameters { seed, state })?;
        if !(state.trainable() || state == State::Germinated) {
            return Err(Error::Frozen { seed, state });
        }
        if values.len() != grown.parameters.len() {
            return Err(Error::Length {
                what: format!("the parameters of seed {seed}"),
                found: values.len(),
                needed: grown.parameters.len(),
            });
        }
        check_finite(&format!("seed {seed}"), values)?;
        grown.parameters.copy_from_slice(values);
        self.parameters_changed(seed, epoch);
        Ok(())
    }

    /// What follows from writing a seed's parameters.
    pub(crate) fn parameters_changed(&mut self, seed: usize, epoch: u32) {
        let row = self.table.row(seed);
        if row.state == State::Grafting
            && let Some(grown) = self.grown.get_mut(&(seed as u32))
            && !grown.moved
        {
            grown.moved = true;
            self.moved.push(seed as u32);
        }
        if row.last_update_epoch != epoch {
            self.table.write(seed, SeedRow { last_update_epoch: epoch, ..row });
        }
        self.mark_dirty(seed);
    }
}
