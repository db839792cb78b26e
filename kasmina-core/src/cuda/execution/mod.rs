//! One runner for every way to execute a step, and the choice among them by measurement.
//!
//! A [`StepRunner`] is given a [`SharedStep`] and runs it by launches, as a [`StepGraph`](super::StepGraph), by a
//! [`PersistentExecutor`](super::PersistentExecutor), or by whichever is the fastest ([`ExecutionMode::Auto`]), and its report says which
//! and why. What is decided, and when, is in `chooser` (one kind of step) and `kinds` (all of them), without a device; `runner` does it.

mod chooser;
mod done;
mod kinds;
mod options;
mod part;
mod report;
mod runner;
mod step;
mod trials;
mod way;
mod ways;

pub use chooser::Choice;
pub use done::StepRun;
pub use options::RunnerOptions;
pub use part::SharedPart;
pub use report::{StepRunnerReport, WayReport};
pub use runner::StepRunner;
pub use step::{SharedStep, StepEnd};
pub use trials::Trials;
pub use way::{ExecutionMode, ParseExecutionError, Way};
