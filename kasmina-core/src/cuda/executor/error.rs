//! What can go wrong with an executor.

use std::time::Duration;

/// Why a step did not run, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The executor was stopped before the step began.
    #[error("the executor was stopped before this step began; submit it to another one")]
    Stopped,
    /// The queue is full.
    #[error(
        "the queue holds {capacity} steps, which is all it takes; wait for a ticket, use `submit`, which waits, or give \
         ExecutorOptions a greater capacity"
    )]
    Full {
        /// Steps that it takes.
        capacity: usize,
    },
    /// A worker waited for another one for too long: steps in flight are lost, what they wrote is incomplete.
    #[error(
        "a worker of the resident grid waited longer than the watchdog's {watchdog:?} at step {number}; this executor is done. \
         If the steps are that long, give ExecutorOptions a longer watchdog"
    )]
    Watchdog {
        /// The step's number, counted from the executor's start.
        number: u64,
        /// The limit.
        watchdog: Duration,
    },
    /// A kernel that a stream had queued found no grid for too long.
    #[error(
        "a kernel of another stream waited longer than the watchdog's {watchdog:?} for the resident grid; this executor is \
         done. Something keeps the grid from starting, or the executor was stopped before the stream came to the kernel"
    )]
    NoGrid {
        /// The limit.
        watchdog: Duration,
    },
    /// The driver failed; as text, since every ticket gets it.
    #[error("the resident grid failed: {reason}")]
    Device {
        /// What the driver said.
        reason: String,
    },
    /// A step without items.
    #[error("a step has at least one item; this one has none")]
    Empty,
    /// Probes are the options of one call, and a step is many.
    #[error(
        "a step takes no probes: seed {seed} is probed; call `CudaLayer::forward` for that pass"
    )]
    Probes {
        /// The first probed seed.
        seed: usize,
    },
    /// A step was put on a stream before it was ever submitted or prepared.
    #[error(
        "a step is to be prepared before a stream launches it: call `PersistentExecutor::prepare`"
    )]
    NotPrepared,
    /// The step's items are launches, not the grid's.
    #[error("this step runs by launches, which no stream can hand to the grid: {reason}")]
    ByLaunches {
        /// Why.
        reason: String,
    },
    /// A stream that is being captured.
    #[error(
        "a stream of this step is being captured; prepare the step, and use `launch_on` in the capture"
    )]
    Capturing,
    /// A matrix of another type, context or shape.
    #[error("{what}: found {found}, needed {needed}")]
    Mismatch {
        /// Which.
        what: &'static str,
        /// What was given.
        found: String,
        /// What is needed.
        needed: String,
    },
}
