//! A grid as it runs: its blocks, who runs next, and what waits for what.
//!
//! All is on one thread of the system. A thread of the grid runs until it waits for others or lets them go first; who is next is
//! drawn. Asynchronous copies and their arrivals on barriers happen at a drawn moment, at the latest when somebody waits for them or
//! when nobody else can go on.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::abi::Spin;
use super::block::{Block, Blocks};
use super::bulk::Bulk;
use super::races::Races;
use super::random::Random;
use super::thread::Waiting;
use super::{Fault, FaultKind, Kernel, Launch, Memory};

/// A thread of a grid: the place of its block among the live ones, and its number in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    pub(super) block: u32,
    pub(super) thread: u32,
}

/// What a call of a thread comes to.
#[derive(Debug)]
pub(super) enum Step {
    /// The thread goes on, with this result.
    Go(u64),
    /// The thread waits; whoever wakes it leaves the result.
    Park(Waiting),
}

/// Blocks of an ordinary grid that are live at once: enough to meet each other, few enough to stay small.
const LIVE: u64 = 4;
/// Rounds of asking again without a pause, and how long a pause is.
const EAGER: u32 = 2000;
const PAUSE: Duration = Duration::from_micros(30);
/// The clock goes on by so much when all wait for barriers that nobody can complete any more.
const LEAP_NS: u64 = 1_000_000_000;
/// So often is that tried before it is called a deadlock.
const LEAPS: u32 = 100;

/// The device's clock: one for all grids, which compare what they have read of it.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
/// By how much it has leapt, in nanoseconds.
static LEAPT: AtomicU64 = AtomicU64::new(0);

/// A grid that runs.
pub(super) struct Grid<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) launch: &'a Launch,
    pub(super) memory: &'a dyn Memory,
    pub(super) seed: u64,
    pub(super) random: Random,
    /// Where each parameter lies.
    pub(super) parameters: Vec<*mut c_void>,
    pub(super) blocks: Blocks,
    pub(super) bulk: Vec<Bulk>,
    /// Threads with copies under way; a thread may stand here without any, and more than once.
    pub(super) copying: Vec<Id>,
    pub(super) fault: Option<Fault>,
    /// For images that report their accesses.
    pub(super) races: Option<Races>,
    /// Whether a thread works on the operands of its whole warp.
    pub(super) completing: bool,
    /// The thread that runs.
    pub(super) running: Option<Id>,
    /// Allocations that were last asked for.
    allocations: [Range<u64>; 4],
    oldest: usize,
    ready: Vec<Id>,
    spinning: Vec<Id>,
    at_grid: Vec<Id>,
    leaps: u32,
    idle: Idle,
}

/// How long nothing but asking again has happened.
#[derive(Debug)]
struct Idle {
    rounds: u32,
    since: Option<Instant>,
    limit: Duration,
}

impl<'a> Grid<'a> {
    pub(super) fn new(
        kernel: &'a Kernel,
        launch: &'a Launch,
        memory: &'a dyn Memory,
        seed: u64,
        own_seed: u64,
        parameters: Vec<*mut c_void>,
        patience: Duration,
    ) -> Self {
        let mut random = Random::new(own_seed);
        let blocks = Blocks::new(kernel, launch, &mut random);
        Self {
            kernel,
            launch,
            memory,
            seed,
            random,
            parameters,
            blocks,
            bulk: Vec::new(),
            copying: Vec::new(),
            fault: None,
            races: kernel.reports.then(Races::default),
            completing: false,
            running: None,
            allocations: std::array::from_fn(|_| 0..0),
            oldest: 0,
            ready: Vec::new(),
            spinning: Vec::new(),
            at_grid: Vec::new(),
            leaps: 0,
            idle: Idle { rounds: 0, since: None, limit: patience },
        }
    }

    /// Ends the grid with a fault at the thread that runs, or at `thread`.
    pub(super) fn fail(&mut self, thread: Option<Id>, kind: FaultKind) {
        if self.fault.is_some() {
            return;
        }
        let (block, thread) = match thread.or(self.running).and_then(|id| self.place(id)) {
            Some((block, thread)) => (block, thread),
            None => ([0; 3], [0; 3]),
        };
        let kernel = self.kernel.name.clone();
        self.fault = Some(Fault { kernel, block, thread, seed: self.seed, kind });
    }

    /// Block and thread as the kernel counts them.
    pub(super) fn place(&self, id: Id) -> Option<([u32; 3], [u32; 3])> {
        let block = self.blocks.get(id.block)?;
        Some((block.view.index, block.index_of(id.thread)))
    }

    /// Makes a thread go on, with the result of what it waited for.
    pub(super) fn wake(&mut self, id: Id, result: u64) {
        let thread = self.blocks.thread(id);
        thread.waiting = Waiting::Nothing;
        thread.result = result;
        self.ready.push(id);
    }

    pub(super) fn block(&mut self, id: Id) -> &mut Block {
        self.blocks.of(id)
    }

    /// Nanoseconds, as the device's clock has them.
    pub(super) fn clock(&self) -> u64 {
        // Not from zero, which kernels take for a time that was never read.
        1_000_000_000 + LEAPT.load(Ordering::Relaxed) + STARTED.elapsed().as_nanos() as u64
    }

    /// Whether these bytes are of one parameter of the kernel.
    pub(super) fn is_parameter(&self, address: u64, bytes: u64) -> bool {
        // Or of the list of them.
        let list = self.parameters.as_ptr_range();
        if (list.start as u64..list.end as u64).contains(&address) {
            return true;
        }
        let sizes = self.kernel.parameters.iter().map(|parameter| parameter.size as u64);
        self.parameters.iter().zip(sizes).any(|(&begin, size)| {
            let begin = begin as u64;
            begin <= address && address.saturating_add(bytes) <= begin + size
        })
    }

    /// Whether these bytes are in one live allocation.
    pub(super) fn is_allocated(&mut self, address: u64, bytes: u64) -> bool {
        let Some(end) = address.checked_add(bytes) else { return false };
        let within = |range: &Range<u64>| range.start <= address && end <= range.end;
        if self.allocations.iter().any(within) {
            return true;
        }
        match self.memory.allocation_of(address) {
            Some(range) if within(&range) => {
                self.oldest = (self.oldest + 1) % self.allocations.len();
                self.allocations[self.oldest] = range;
                true
            }
            _ => false,
        }
    }

    /// The next thread to run; nothing when the grid is through, or has failed.
    pub(super) fn next(&mut self) -> Option<Id> {
        loop {
            if self.fault.is_some() {
                return None;
            }
            self.admit();
            if self.random.once_in(16) {
                self.complete_one();
            }
            if !self.ready.is_empty() {
                let index = self.random.below(self.ready.len());
                return Some(self.ready.swap_remove(index));
            }
            if self.complete_one() {
                continue;
            }
            if !self.spinning.is_empty() {
                self.ask_again();
                continue;
            }
            if self.blocks.is_empty() {
                self.finish();
                return None;
            }
            self.leap();
        }
    }

    /// A thread has stopped: it waits, or it is through.
    pub(super) fn stopped(&mut self, id: Id, waiting: Option<Waiting>) {
        match waiting {
            Some(Waiting::Others(Spin::Atomic)) => self.ready.push(id),
            Some(Waiting::Others(_)) => self.spinning.push(id),
            // Whoever was told that time has gone by waits again.
            Some(Waiting::Mbarrier { .. }) => {}
            Some(_) => self.moved(),
            None => {
                self.moved();
                self.exit(id);
            }
        }
    }

    /// Something other than asking again has happened.
    pub(super) fn moved(&mut self) {
        self.idle.rounds = 0;
        self.idle.since = None;
        self.leaps = 0;
    }

    fn admit(&mut self) {
        while self.blocks.wants_more(self.launch, LIVE) {
            let begun = match self.blocks.begin(self.kernel, self.launch) {
                Ok(begun) => begun,
                Err(reason) => return self.fail(None, FaultKind::Launch(reason)),
            };
            for block in begun {
                if let (Some(races), Some(block_of)) = (&mut self.races, self.blocks.get(block)) {
                    races.begin(
                        block,
                        block_of.view.index,
                        block_of.view.dim,
                        block_of.shared.range(),
                    );
                }
                let threads = self.blocks.get(block).map_or(0, Block::threads);
                self.ready.extend((0..threads).map(|thread| Id { block, thread }));
            }
        }
    }

    /// Everybody who lets others go first has been asked once: another round, slower while nothing moves.
    fn ask_again(&mut self) {
        self.idle.rounds = self.idle.rounds.saturating_add(1);
        if self.idle.rounds > EAGER {
            let since = *self.idle.since.get_or_insert_with(Instant::now);
            if since.elapsed() > self.idle.limit {
                let waiting = self.blocks.describe_waiting();
                let limit = self.idle.limit.as_secs();
                let reason = format!("nothing but asking again for {limit} s: {waiting}");
                return self.fail(self.spinning.first().copied(), FaultKind::Deadlock(reason));
            }
            std::thread::sleep(PAUSE);
        }
        self.ready.append(&mut self.spinning);
    }

    /// All wait, and nothing is under way. Who waits for an mbarrier is told that time has gone by; nobody else can be helped.
    fn leap(&mut self) {
        let waiters = self.blocks.mbarrier_waiters();
        if waiters.is_empty() || self.leaps == LEAPS {
            let waiting = self.blocks.describe_waiting();
            let first = self.blocks.first_waiting();
            return self.fail(first, FaultKind::Deadlock(waiting));
        }
        self.leaps += 1;
        LEAPT.fetch_add(LEAP_NS, Ordering::Relaxed);
        for id in waiters {
            if let Waiting::Mbarrier { barrier, .. } = self.blocks.thread(id).waiting
                && let Some(barrier) = self.blocks.of(id).mbarriers.get_mut(&barrier)
            {
                barrier.give_up(id);
            }
            self.wake(id, 0);
        }
    }

    fn exit(&mut self, id: Id) {
        let block = self.blocks.of(id);
        block.live -= 1;
        let present = block.live;
        let completed: Vec<_> = (0..)
            .zip(&mut block.barriers)
            .filter_map(|(number, barrier)| Some((number, barrier.complete(present)?)))
            .collect();
        let (warp, lane) = (id.thread / super::warp::LANES, id.thread % super::warp::LANES);
        let meeting = block.warps[warp as usize].exit(lane);
        for (number, done) in completed {
            self.tell(|races| races.barrier_end(id.block, number, &done.waiting));
            self.release(id.block, done);
        }
        if let Some(meeting) = meeting {
            // One of those who wait does what the last to come would have done.
            let lane = meeting.arrived.trailing_zeros();
            let last = Id { block: id.block, thread: warp * super::warp::LANES + lane };
            self.blocks.thread(last).meeting = Some(Box::new(meeting));
            self.wake(last, 0);
        }
        if present == 0 {
            self.retire(id);
        }
        if self.launch.cooperative {
            self.check_grid_barrier();
        }
    }

    /// Lets those go who waited at a barrier.
    pub(super) fn release(&mut self, block: u32, done: super::barrier::Completed) {
        for &thread in &done.waiting {
            let id = Id { block, thread };
            let result = match self.blocks.thread(id).waiting {
                Waiting::Barrier { how: Some(how), .. } => u64::from(done.result(how)),
                _ => 0,
            };
            self.wake(id, result);
        }
    }

    /// The last thread of a block has exited.
    fn retire(&mut self, last: Id) {
        let block = last.block;
        let threads = self.blocks.get(block).map_or(0, Block::threads);
        for thread in 0..threads {
            self.complete_copies(Id { block, thread }, 0, true);
        }
        if let Some(what) = self.unfinished_bulk(block) {
            return self.fail(Some(last), FaultKind::Undefined(what));
        }
        self.complete_writes(block);
        self.blocks.end(block);
        self.tell(|races| races.end(block));
    }

    /// The last block is through: what is still on its way to global memory arrives.
    fn finish(&mut self) {
        while self.complete_bulk() {}
    }

    /// One copy that is under way is done, a drawn one. False if there is none.
    fn complete_one(&mut self) -> bool {
        let (copies, bulk) = (self.copying.len(), self.bulk.len());
        if copies + bulk == 0 {
            return false;
        }
        let index = self.random.below(copies + bulk);
        if index >= copies {
            return self.complete_bulk();
        }
        let id = self.copying[index];
        if !self.complete_copy(id) {
            self.copying.swap_remove(index);
        }
        true
    }

    // ---------------------------------------------------------------------------------------- barriers of grids and clusters

    pub(super) fn grid_sync(&mut self, id: Id) -> Step {
        if !self.launch.cooperative {
            self.fail(
                Some(id),
                FaultKind::Undefined(
                    "a barrier of the grid in a launch that is not cooperative".into(),
                ),
            );
        }
        self.at_grid.push(id);
        if !self.check_grid_barrier() {
            return Step::Park(Waiting::Grid);
        }
        // Whoever comes last does not wait, and is not to be woken.
        self.ready.retain(|&other| other != id);
        Step::Go(0)
    }

    fn check_grid_barrier(&mut self) -> bool {
        let live = self.blocks.live_threads();
        let complete = self.blocks.all_begun() && live > 0 && self.at_grid.len() as u64 == live;
        if complete {
            let all = std::mem::take(&mut self.at_grid);
            self.tell(|races| races.meet_all(&all));
            for id in all {
                self.wake(id, 0);
            }
        }
        complete
    }
}

impl std::fmt::Debug for Grid<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grid")
            .field("kernel", &self.kernel.name)
            .field("launch", self.launch)
            .finish_non_exhaustive()
    }
}
