//! Where the launches of a layer's passes go: onto its stream, or onto a tape from which a graph is made.
//!
//! A tape takes launches and copies alone. What passes do beside them (uploads, allocations, emptying of new accumulators, tile
//! flags) goes onto the stream as always, in front of the graph: all of it depends on the host, and on nothing that the step
//! computes.

use kasmina_sys::{CopyCall, Kernel, KernelArguments, LaunchConfig, Link, Stream};
use parking_lot::Mutex;

use super::error::CudaError;

/// A part of a training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Phase {
    #[default]
    Forward,
    Backward,
    Optimizer,
}

/// What one layer queues in a phase, each at most once, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Piece {
    Histograms,
    StrictBounds,
    /// The driver's copy, in place of a streaming kernel.
    Copy,
    Stream,
    Finalize,
    Filters,
    Matrices,
    MatrixMerge,
    AdamW,
    /// Large seeds, each by one block.
    AdamWAlone,
    /// Large seeds, shared by blocks: three rounds.
    AdamWMeasure,
    AdamWCheck,
    AdamWApply,
    Lower,
}

/// A piece of work, and where in a layer's step it stands.
pub(super) type Placed = ((Phase, Piece), Link);

#[derive(Debug, Default)]
struct Recording {
    phase: Phase,
    links: Vec<Placed>,
}

/// Takes launches, or lets them through.
#[derive(Debug, Default)]
pub(super) struct Tape(Mutex<Option<Recording>>);

impl Tape {
    /// From now on launches are written down, as those of `phase`.
    pub(super) fn record(&self, phase: Phase) {
        self.0.lock().get_or_insert_default().phase = phase;
    }

    /// Whether launches are written down.
    pub(super) fn is_recording(&self) -> bool {
        self.0.lock().is_some()
    }

    /// What was written down; launches go through again.
    pub(super) fn take(&self) -> Vec<Placed> {
        self.0.lock().take().unwrap_or_default().links
    }

    /// Queues the kernel on `stream`, or writes it down.
    ///
    /// # Safety
    /// As for [`Kernel::launch`]; of what is written down, whoever launches it vouches for that.
    pub(super) unsafe fn launch<A: KernelArguments>(
        &self,
        stream: &Stream,
        piece: Piece,
        kernel: &Kernel<A>,
        config: &LaunchConfig,
        arguments: A,
    ) -> Result<(), CudaError> {
        match self.0.lock().as_mut() {
            Some(Recording { phase, links }) => {
                links.push(((*phase, piece), Link::Kernel(kernel.call(config, arguments)?)));
                Ok(())
            }
            // SAFETY: by the caller's word.
            None => Ok(unsafe { kernel.launch(stream, config, arguments) }?),
        }
    }

    /// Writes a copy down, if launches are; else returns `false`.
    pub(super) fn copy(&self, to: u64, from: u64, bytes: usize) -> bool {
        match self.0.lock().as_mut() {
            Some(Recording { phase, links }) => {
                let copy = Link::Copy(CopyCall { to, from, bytes });
                links.push(((*phase, Piece::Copy), copy));
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tape_takes_what_comes_while_it_records_and_lets_the_rest_through() {
        let tape = Tape::default();
        assert!(!tape.copy(1, 2, 3) && !tape.is_recording());
        tape.record(Phase::Forward);
        assert!(tape.copy(1, 2, 3));
        tape.record(Phase::Backward);
        assert!(tape.copy(4, 5, 6) && tape.is_recording());
        let copy = |to, from, bytes| Link::Copy(CopyCall { to, from, bytes });
        let expected = vec![
            ((Phase::Forward, Piece::Copy), copy(1, 2, 3)),
            ((Phase::Backward, Piece::Copy), copy(4, 5, 6)),
        ];
        assert_eq!(tape.take(), expected);
        assert!(tape.take().is_empty() && !tape.copy(1, 2, 3));
    }
}
