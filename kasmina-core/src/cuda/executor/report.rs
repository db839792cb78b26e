//! What an executor has done.

use std::fmt;

/// What an executor has done so far, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutorReport {
    /// Blocks of the grid that work; 0 where there is none.
    pub workers: u32,
    /// Why there is no grid, if there is none.
    pub why_no_grid: Option<String>,
    /// Steps submitted.
    pub submitted: u64,
    /// Times that a submission waited for a stream.
    pub waited_for_streams: u64,
    /// Of them, those that ran by launches.
    pub by_launches: u64,
    /// Why the latest of these did.
    pub last_reason: Option<String>,
    /// Grids started after the first one had ended for idleness.
    pub restarts: u64,
}

impl ExecutorReport {
    pub(super) fn new(workers: u32, why_no_grid: Option<String>) -> Self {
        Self { workers, why_no_grid, ..Self::default() }
    }
}

impl fmt::Display for ExecutorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why_no_grid {
            Some(reason) => write!(f, "no resident grid: {reason}")?,
            None => write!(
                f,
                "resident grid of {} working blocks, restarted {} times",
                self.workers, self.restarts
            )?,
        }
        write!(
            f,
            "; {} steps, {} waits for streams, {} by launches",
            self.submitted, self.waited_for_streams, self.by_launches
        )?;
        match &self.last_reason {
            Some(reason) => write!(f, " (the last because {reason})"),
            None => Ok(()),
        }
    }
}
