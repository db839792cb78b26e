//! What a runner says of itself: which way its steps go, and why.

use std::fmt;

use super::chooser::{Choice, Chooser};
use super::way::{ExecutionMode, Way};
use crate::cuda::{ExecutorReport, StepGraphReport};

/// One way, as far as the kind of step that ran last is concerned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WayReport {
    /// Which.
    pub way: Way,
    /// Steps of every kind that went it.
    pub steps: u64,
    /// Blocks of steps that were timed.
    pub blocks: usize,
    /// Their median, in microseconds a step: from the host's first call to the end of the last step on the device, whatever the caller
    /// did between included.
    pub median_us: Option<f64>,
    /// Why it is not possible, as far as that was asked.
    pub excluded: Option<String>,
}

/// What a [`StepRunner`](super::StepRunner) has done so far, and which way the kind of step that ran last goes, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepRunnerReport {
    /// What was asked for.
    pub mode: ExecutionMode,
    /// How the last step ran; `None` before the first one.
    pub way: Option<Way>,
    /// Why this way.
    pub choice: Choice,
    /// Launches, graph and grid.
    pub ways: Vec<WayReport>,
    /// Searches that came to an end, for this kind of step.
    pub searches: u64,
    /// Steps that were tried in them.
    pub trial_steps: u64,
    /// Of the graph.
    pub graph: StepGraphReport,
    /// Of the grid, where there is an executor.
    pub executor: Option<ExecutorReport>,
}

impl StepRunnerReport {
    pub(super) fn new(
        mode: ExecutionMode,
        counts: [u64; 3],
        refused: &[Option<String>; 3],
        chooser: Option<&Chooser>,
    ) -> Self {
        let of = |way: Way| {
            let candidate = chooser.map(|chooser| &chooser.ways[way.index()]);
            WayReport {
                way,
                steps: counts[way.index()],
                blocks: candidate.map_or(0, |candidate| candidate.blocks.len()),
                median_us: candidate.and_then(|candidate| candidate.median()),
                excluded: match candidate {
                    Some(candidate) => candidate.excluded.clone(),
                    None => refused[way.index()].clone(),
                },
            }
        };
        let asked = if mode.way().is_some() { Choice::Asked } else { Choice::Searching };
        Self {
            mode,
            way: None,
            choice: chooser.map_or(asked, |chooser| chooser.choice.clone()),
            ways: Way::ALL.map(of).to_vec(),
            searches: chooser.map_or(0, |chooser| chooser.searches),
            trial_steps: chooser.map_or(0, |chooser| chooser.trial_steps),
            graph: StepGraphReport::default(),
            executor: None,
        }
    }
}

impl fmt::Display for StepRunnerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way {
            None => write!(f, "{}: no step ran yet", self.mode)?,
            Some(way) => write!(f, "{}: steps go by {way}: {}", self.mode, self.choice)?,
        }
        for WayReport { way, steps, blocks, median_us, excluded } in &self.ways {
            write!(f, "\n  {way}: {steps} steps")?;
            if let Some(median) = median_us {
                write!(f, ", {median:.1} µs each (median of {blocks} blocks)")?;
            }
            if let Some(reason) = excluded {
                write!(f, ", not possible: {reason}")?;
            }
        }
        if self.mode == ExecutionMode::Auto {
            write!(f, "\n  {} searches, {} steps tried in them", self.searches, self.trial_steps)?;
        }
        write!(f, "\n  graph: {}", self.graph)?;
        match &self.executor {
            Some(executor) => write!(f, "\n  executor: {executor}"),
            None => Ok(()),
        }
    }
}
