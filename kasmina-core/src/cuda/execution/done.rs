//! A step that was run, and how to come behind it.

use std::sync::Arc;

use kasmina_sys::Stream;

use super::way::Way;
use crate::cuda::Ticket;
use crate::cuda::error::CudaError;

/// A step that a [`StepRunner`](super::StepRunner) has queued. Dropping it drops nothing else: the step runs.
///
/// Until it is done the step's matrices are the step's: whoever reads or writes them comes behind it by [`StepRun::wait`], or by
/// [`StepRun::join`] for work of a stream. The next steps of the same runner come behind it of themselves.
#[derive(Clone, Debug)]
#[must_use = "a step runs without it, but nobody would know when it is done"]
pub struct StepRun {
    way: Way,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    /// Queued on these.
    Streams(Arc<[Stream]>),
    Grid(Ticket),
}

impl StepRun {
    pub(super) fn on_streams(way: Way, streams: &Arc<[Stream]>) -> Self {
        Self { way, how: How::Streams(Arc::clone(streams)) }
    }

    pub(super) fn on_grid(ticket: Ticket) -> Self {
        Self { way: Way::Persistent, how: How::Grid(ticket) }
    }

    /// The way it went. [`Way::Launch`] also where another one was meant and refused it.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Whether its end is on a grid, which no stream waits for.
    pub(super) fn is_on_grid(&self) -> bool {
        matches!(self.how, How::Grid(_))
    }

    /// Waits until the step is done: its results are there for everybody. What was queued behind it on the layers' streams may be
    /// waited for, too.
    ///
    /// # Errors
    /// It did not run to its end.
    pub fn wait(&self) -> Result<(), CudaError> {
        match &self.how {
            How::Streams(streams) => Ok(streams.iter().try_for_each(Stream::synchronize)?),
            How::Grid(ticket) => Ok(ticket.wait()?),
        }
    }

    /// Puts whatever is queued on `stream` from now on behind the step. The host waits where a grid runs it, and the grid is then let go,
    /// so that kernels have the multiprocessors for themselves; else nobody waits.
    ///
    /// # Errors
    /// As [`StepRun::wait`]; or the driver refused.
    pub fn join(&self, stream: &Stream) -> Result<(), CudaError> {
        match &self.how {
            How::Streams(streams) => {
                Ok(streams.iter().try_for_each(|behind| stream.join(behind))?)
            }
            How::Grid(ticket) => {
                ticket.let_grid_go();
                Ok(ticket.wait()?)
            }
        }
    }
}
