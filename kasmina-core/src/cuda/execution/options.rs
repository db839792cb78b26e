//! How a runner is set up.

use super::trials::Trials;
use super::way::{ExecutionMode, ParseExecutionError};
use crate::cuda::{ExecutorOptions, StepGraphOptions};

/// How a [`StepRunner`](super::StepRunner) is set up.
///
/// ```
/// use kasmina_core::cuda::{ExecutionMode, RunnerOptions};
///
/// let options = RunnerOptions::new().mode(ExecutionMode::Graph);
/// assert_eq!(options.asked_mode(), ExecutionMode::Graph);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RunnerOptions {
    pub(super) mode: ExecutionMode,
    pub(super) problem: Option<ParseExecutionError>,
    pub(super) graph: Option<StepGraphOptions>,
    pub(super) executor: ExecutorOptions,
    pub(super) trials: Trials,
    pub(super) sums_may_differ: bool,
}

impl RunnerOptions {
    /// The mode that `KASMINA_EXECUTION` names, else `Auto`. Graphs have places for what runs and no more, and programmatic edges where the
    /// device has them; executor and trials are as they are by themselves.
    pub fn new() -> Self {
        let (mode, problem) = ExecutionMode::from_environment();
        let (executor, trials) = (ExecutorOptions::new(), Trials::new());
        Self { mode, problem, graph: None, executor, trials, sums_may_differ: false }
    }

    /// The mode, whatever the environment says.
    pub fn mode(mut self, mode: ExecutionMode) -> Self {
        (self.mode, self.problem) = (mode, None);
        self
    }

    /// How graphs are made.
    pub fn graph(mut self, graph: StepGraphOptions) -> Self {
        self.graph = Some(graph);
        self
    }

    /// How the resident grid is set up, where the runner makes one.
    pub fn executor(mut self, executor: ExecutorOptions) -> Self {
        self.executor = executor;
        self
    }

    /// How `Auto` tries.
    pub fn trials(mut self, trials: Trials) -> Self {
        self.trials = trials;
        self
    }

    /// Lets `Auto` try the grid for backward passes, too. Outputs and input gradients are the same bits in every way; but a grid cuts
    /// matrices in a way of its own, so its sums over rows (parameter gradients, and the mean and variance of statistics) differ from
    /// those of launches and graphs in their last bits. Which steps it runs would depend on measured times, and so would these bits of
    /// what is learned. Not allowed unless this says so; a mode that is asked for is not measured, and repeats.
    /// Forward passes may go by the grid in any case: of them only statistics have such bits.
    pub fn sums_may_differ(mut self, may: bool) -> Self {
        self.sums_may_differ = may;
        self
    }

    /// See [`RunnerOptions::mode`].
    pub fn asked_mode(&self) -> ExecutionMode {
        self.mode
    }
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self::new()
    }
}
