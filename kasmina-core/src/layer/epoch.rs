//! The epoch boundary: telemetry is taken, waiting commands are applied.

use std::sync::Arc;

use kasmina_telemetry::{TelemetryOverhead, TelemetryReport};

use super::{Layer, LayerState};
use crate::controller::Controller;
use crate::lifecycle::{EpochOutcome, Readiness, Refusal, SeedSignals};
use crate::{Command, Result, State};

/// What an epoch boundary brought.
#[derive(Debug)]
pub struct EpochReport {
    /// Transitions made and commands refused.
    pub outcome: EpochOutcome,
    /// What was measured in the epoch that ended.
    pub telemetry: TelemetryReport,
}

impl Layer {
    /// Gives a seed a command. It is checked now, and applied at the next epoch boundary.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed),
    /// [`Error::IllegalCommand`](crate::Error::IllegalCommand),
    /// [`Error::CommandPending`](crate::Error::CommandPending),
    /// [`Error::UnregisteredBlueprint`](crate::Error::UnregisteredBlueprint); the layer is unchanged then.
    pub fn command(&mut self, seed: usize, command: Command, why: impl Into<String>) -> Result<()> {
        self.state.lifecycle.command(seed, command, why)
    }

    /// Takes back a seed's waiting command.
    pub fn withdraw(&mut self, seed: usize) -> Option<Command> {
        self.state.lifecycle.withdraw(seed)
    }

    /// Rolls back the whole layer at the next epoch boundary: every seed from TRAINING to FINE_TUNING
    /// goes to ROLLED_BACK, which only restoring a checkpoint leaves.
    ///
    /// # Errors
    /// [`Error::NothingToRollBack`](crate::Error::NothingToRollBack) if no seed is in these states,
    /// [`Error::RollBackPending`](crate::Error::RollBackPending) if a roll-back already waits.
    pub fn roll_back(&mut self, why: impl Into<String>) -> Result<()> {
        self.state.lifecycle.roll_back(why)
    }

    /// Records measured signals of a seed; what was not measured stays `None` and holds the seed back.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed), [`Error::Value`](crate::Error::Value).
    pub fn record(&mut self, seed: usize, signals: SeedSignals) -> Result<()> {
        self.state.lifecycle.record(seed, signals)
    }

    /// Whether a seed is ready for its next command, or what it waits for.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed).
    pub fn readiness(&self, seed: usize) -> Result<Readiness> {
        self.state.lifecycle.readiness(seed)
    }

    /// Ends a training step: alpha moves on in GRAFTING seeds, steps are counted.
    pub fn advance_step(&mut self) {
        self.state.lifecycle.advance_step();
    }

    /// Ends the epoch: takes the telemetry and applies the waiting commands.
    pub fn end_epoch(&mut self) -> EpochReport {
        self.close_epoch(None)
    }

    /// Ends the epoch with a controller, whose decisions are given as commands and applied at once.
    /// Decisions that the lifecycle refuses are among the outcome's refused commands.
    pub fn end_epoch_with(&mut self, controller: &mut dyn Controller) -> EpochReport {
        self.close_epoch(Some(controller))
    }

    fn close_epoch(&mut self, controller: Option<&mut dyn Controller>) -> EpochReport {
        let report = self.state.end_epoch(RunBy::cpu(self.overhead), controller);
        if !report.outcome.transitions.is_empty() {
            // It was the cost beside other programs.
            self.overhead = None;
        }
        report
    }
}

/// What ran a layer's passes, for its report.
#[derive(Clone, Debug)]
pub(crate) struct RunBy {
    pub(crate) hardware: String,
    pub(crate) kernel: String,
    /// What telemetry was measured to cost there.
    pub(crate) overhead: Option<TelemetryOverhead>,
}

impl RunBy {
    fn cpu(overhead: Option<TelemetryOverhead>) -> Self {
        Self { hardware: crate::hardware().into(), kernel: "cpu-column-program".into(), overhead }
    }
}

/// The boundary on the host, whichever backend ran the epoch.
impl LayerState {
    pub(crate) fn end_epoch(
        &mut self,
        run_by: RunBy,
        controller: Option<&mut dyn Controller>,
    ) -> EpochReport {
        let telemetry = self.take_telemetry(run_by);
        let lifecycle = &mut self.lifecycle;
        let mut refused = Vec::new();
        let decisions = controller.map(|controller| controller.decide(lifecycle, &telemetry));
        for decision in decisions.into_iter().flatten() {
            let (seed, command) = (decision.seed, decision.command.clone());
            if let Err(error) = lifecycle.command(seed, decision.command, decision.why) {
                refused.push(Refusal { seed, command, error });
            }
        }
        let mut outcome = lifecycle.end_epoch();
        outcome.refused.splice(0..0, refused);
        EpochReport { outcome, telemetry }
    }

    /// Moves the accumulators into a report; the cost is one allocation an array, not a walk over seeds.
    fn take_telemetry(&mut self, run_by: RunBy) -> TelemetryReport {
        let report = self.report(run_by);
        let (steps, saturated) = (self.telemetry.measured, self.telemetry.saturated);
        let (chunk, gradient, histograms) = self.telemetry.take();
        TelemetryReport { steps, chunk, gradient, histograms, saturated, ..report }
    }

    /// A report of the layer as it is, without measurements.
    pub(crate) fn report(&self, run_by: RunBy) -> TelemetryReport {
        let (lifecycle, telemetry) = (&self.lifecycle, &self.telemetry);
        let table = lifecycle.table();
        let names: Arc<[String]> =
            lifecycle.registry().iter().map(|(name, _)| name.into()).collect();
        TelemetryReport {
            layer: self.name.clone(),
            epoch: lifecycle.epoch().into(),
            mode: telemetry.mode,
            snr_epsilon: telemetry.snr_epsilon,
            state: table.states().iter().map(|state| state.code()).collect(),
            alpha: table.alphas().to_vec(),
            blueprint: table.blueprints().to_vec(),
            state_names: &State::NAMES,
            blueprint_names: names,
            hardware: run_by.hardware,
            kernel: run_by.kernel,
            overhead: run_by.overhead,
            ..TelemetryReport::default()
        }
    }
}
