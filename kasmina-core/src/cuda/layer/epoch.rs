//! The epoch boundary and checkpoints: here the host may wait.

use std::path::Path;

use kasmina_telemetry::transport::Transport;

use super::{CudaLayer, PublishOutcome};
use crate::checkpoint::{self, CheckpointError, Extensions};
use crate::controller::Controller;
use crate::cuda::error::CudaError;
use crate::lifecycle::{EpochOutcome, Readiness, RestoreOutcome, SeedSignals};
use crate::{Command, EpochReport, Layer, Objective, Result};

/// What an epoch boundary brought whose telemetry was published.
#[derive(Debug)]
pub struct PublishedEpoch {
    /// Transitions made and commands refused.
    pub outcome: EpochOutcome,
    /// What became of what was measured in the epoch that ended.
    pub telemetry: PublishOutcome,
}

impl CudaLayer {
    /// Gives a seed a command. It is checked now, and applied at the next epoch boundary.
    ///
    /// # Errors
    /// Those of [`Layer::command`]; the layer is unchanged then.
    pub fn command(&mut self, seed: usize, command: Command, why: impl Into<String>) -> Result<()> {
        self.state.lifecycle.command(seed, command, why)
    }

    /// Takes back a seed's waiting command.
    pub fn withdraw(&mut self, seed: usize) -> Option<Command> {
        self.state.lifecycle.withdraw(seed)
    }

    /// Rolls back the whole layer at the next epoch boundary, as [`Layer::roll_back`].
    ///
    /// # Errors
    /// As there.
    pub fn roll_back(&mut self, why: impl Into<String>) -> Result<()> {
        self.state.lifecycle.roll_back(why)
    }

    /// Records measured signals of a seed. A loss recorded for a seed that learns by reconstruction waits for the losses on
    /// their way, so that the later one counts.
    ///
    /// # Errors
    /// [`CudaError::Engine`] as [`Layer::record`], or a pass failed.
    pub fn record(&mut self, seed: usize, signals: SeedSignals) -> Result<(), CudaError> {
        let grown = self.state.lifecycle.grown(seed);
        let reconstructs = grown.is_some_and(|g| g.objective() == Objective::Reconstruction);
        if signals.loss.is_some() && reconstructs {
            self.landings.settle(&mut self.state.lifecycle, true)?;
        }
        self.state.lifecycle.record(seed, signals)?;
        if signals.gradient_norm.is_some()
            && let Some(arena) = &mut self.arena
            && let Some(index) = arena.find(seed as u32)
        {
            arena.slots[index].norm_waits = false;
        }
        Ok(())
    }

    /// Whether a seed is ready for its next command, or what it waits for, by what the host knows: as of the last
    /// [`CudaLayer::synchronize`] where it depends on the device's measurements.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed).
    pub fn readiness(&self, seed: usize) -> Result<Readiness> {
        self.state.lifecycle.readiness(seed)
    }

    /// Ends the epoch: takes the telemetry and applies the waiting commands. Waits. What was published since the last boundary
    /// is not in the report, as it is in another; see [`CudaLayer::end_epoch_publishing`] for a boundary that need not wait.
    ///
    /// # Errors
    /// Something queued in the epoch failed; it has not ended then. Memory that the transitions need and the device does not
    /// have is the next pass's error: the layer is whole on the host.
    pub fn end_epoch(&mut self) -> Result<EpochReport, CudaError> {
        self.close_epoch(None)
    }

    /// Ends the epoch with a controller, whose decisions are given as commands and applied at once. Waits.
    ///
    /// # Errors
    /// As [`CudaLayer::end_epoch`].
    pub fn end_epoch_with(
        &mut self,
        controller: &mut dyn Controller,
    ) -> Result<EpochReport, CudaError> {
        self.close_epoch(Some(controller))
    }

    /// Ends the epoch, with its telemetry to `transport` as by [`CudaLayer::publish`], and applies the waiting commands. For
    /// epochs without a controller, which needs the measurements on the host.
    ///
    /// Waits only where the boundary depends on what the device alone knows: a command or a roll-back is waiting, the optimizer
    /// has made steps since the host last knew of all of them, or a reconstruction's loss is on its way.
    ///
    /// # Errors
    /// As [`CudaLayer::publish`], or something queued in the epoch failed where that is waited for; the epoch has not ended then.
    pub fn end_epoch_publishing(
        &mut self,
        transport: &Transport,
    ) -> Result<PublishedEpoch, CudaError> {
        self.landings.settle(&mut self.state.lifecycle, false)?;
        if self.stepped || self.landings.any() || self.state.lifecycle.anything_waits() {
            self.landings.settle(&mut self.state.lifecycle, true)?;
            self.pull_seeds()?;
        }
        let telemetry = self.publish(transport)?;
        let outcome = self.state.lifecycle.end_epoch();
        if !outcome.transitions.is_empty() {
            self.remake();
        }
        Ok(PublishedEpoch { outcome, telemetry })
    }

    fn close_epoch(
        &mut self,
        controller: Option<&mut dyn Controller>,
    ) -> Result<EpochReport, CudaError> {
        self.synchronize()?;
        if !self.telemetry_unsent {
            self.telemetry.empty(&mut self.streams)?;
        }
        let report = self.state.end_epoch(self.run_by(), controller);
        self.counted_on_host = false;
        if !report.outcome.transitions.is_empty() {
            self.remake();
        }
        Ok(report)
    }

    /// Lays the device's memory out anew, now rather than in the next pass, which is not to wait.
    fn remake(&mut self) {
        // Given back first: the host has everything.
        self.arena = None;
        if let Err(error) = self.ensure_arena() {
            tracing::warn!(
                target: "kasmina::cuda", %error,
                "the layer's seeds did not get onto the device; the next pass tries again"
            );
        }
    }

    /// Writes a checkpoint, as [`Layer::save`]. Waits.
    ///
    /// # Errors
    /// [`CheckpointError::Device`] if the device did not give up what it has, and those of [`Layer::save`].
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
        self.synchronize()?;
        checkpoint::save(&self.state, path.as_ref())
    }

    /// Puts the layer back to a checkpoint, as [`Layer::restore`]. Waits.
    ///
    /// # Errors
    /// As [`Layer::restore`]; the layer is unchanged then.
    pub fn restore<'a>(
        &mut self,
        path: impl AsRef<Path>,
        extensions: impl Into<Extensions<'a>>,
        why: impl Into<String>,
    ) -> Result<RestoreOutcome, CheckpointError> {
        let saved = checkpoint::load_with(path.as_ref(), extensions.into())?;
        let outcome = self.state.restore(saved, why)?;
        self.forget();
        self.remake();
        Ok(outcome)
    }

    /// Takes the state of `layer` in place of this one's; memory that fits is used again. Waits.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for a layer of another layout, this one unchanged; or the copy failed, after which the next pass
    /// tries again.
    pub fn replace(&mut self, layer: &Layer) -> Result<(), CudaError> {
        let shape = |layout: crate::SeedLayout| (layout.hidden(), layout.chunk());
        if layer.layout() != self.layout() {
            let (found, needed) = (shape(layer.layout()), shape(self.layout()));
            return Err(CudaError::Shape { what: "the layer's [hidden, chunk]", found, needed });
        }
        self.state = layer.layer_state().clone();
        self.forget();
        self.ensure_arena()
    }

    /// What the device holds is of another state than the host's.
    fn forget(&mut self) {
        self.arena = None;
        self.revision += 1;
        self.landings = Default::default();
        self.stepped = false;
        self.telemetry_unsent = true;
        self.counted_on_host = true;
        self.summaries.clear();
    }
}
