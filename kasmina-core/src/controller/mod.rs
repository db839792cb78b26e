//! Controllers: who decides which command a seed is given, and when.

mod baseline;
mod heuristic;

pub use baseline::{Baseline, Deviation, Thresholds};
pub use heuristic::{HeuristicConfig, HeuristicController};
use kasmina_telemetry::TelemetryReport;

use crate::{Command, Lifecycle};

/// A command that a controller wants to be given.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The seed.
    pub seed: usize,
    /// The command.
    pub command: Command,
    /// The reason, for the history.
    pub why: String,
}

/// Looks at the lifecycle and at an epoch's telemetry, and decides.
pub trait Controller {
    /// The commands to be given before this epoch ends.
    fn decide(&mut self, lifecycle: &Lifecycle, report: &TelemetryReport) -> Vec<Decision>;
}
