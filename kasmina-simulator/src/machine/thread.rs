//! A thread of a block, as the machine sees it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;

use corosensei::{Coroutine, Yielder};

use super::abi::{Combine, Spin, ThreadView};
use super::copy::Copy;
use super::grid::{Grid, Id};
use super::stack::ThreadStack;
use super::warp::Meeting;

/// What a thread runs on.
pub(super) type Fiber = Coroutine<(), Waiting, (), ThreadStack>;
/// How it stops.
pub(super) type Pause = Yielder<(), Waiting>;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Waiting {
    /// It can run.
    #[default]
    Nothing,
    /// It lets the others go first.
    Others(Spin),
    /// One of the block's barriers, by its number; for a result or for none.
    Barrier { id: u32, how: Option<Combine> },
    /// The lanes of a mask.
    Warp { mask: u32 },
    /// The phase of an mbarrier, by its shared address and parity.
    Mbarrier { barrier: u32, parity: u32 },
    /// The whole grid.
    Grid,
    /// Nothing any more: the grid has failed.
    End,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Others(Spin::Load) => f.write_str("a word in memory, or time"),
            Self::Others(Spin::System) => f.write_str("a word of the host's"),
            Self::Others(_) => f.write_str("time, or a word in memory"),
            Self::Barrier { id, .. } => write!(f, "barrier {id}"),
            Self::Warp { mask } => write!(f, "the lanes {mask:#010x} of its warp"),
            Self::Mbarrier { barrier, parity } => {
                write!(f, "the phase of parity {parity} of the mbarrier at shared {barrier:#x}")
            }
            Self::Grid => f.write_str("the grid's barrier"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// What a running thread finds behind its stack: itself as the kernel sees it, and the machine.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Local {
    pub(super) view: ThreadView,
    pub(super) grid: *mut Grid<'static>,
    pub(super) id: Id,
    pub(super) pause: Cell<*const Pause>,
    pub(super) stack_middle: usize,
}

/// A thread of a live block.
#[derive(Default)]
pub(super) struct Thread {
    /// Its stack and what is on it; taken out while it runs.
    pub(super) fiber: Option<Fiber>,
    pub(super) waiting: Waiting,
    /// Of what it has waited for.
    pub(super) result: u64,
    /// A meeting of its warp that it has to bring to its end.
    pub(super) meeting: Option<Box<Meeting>>,
    /// cp.async copies under way, in their order.
    pub(super) copies: VecDeque<Copy>,
    /// Groups of bulk stores that it has committed.
    pub(super) bulk_groups: u64,
    /// Of groups that nobody has waited for yet: the number, and how many stores may still read shared memory.
    pub(super) bulk_reads: VecDeque<(u64, u32)>,
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}
