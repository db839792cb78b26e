//! The blocks of a grid: which are live, which are still to come, and what each of them is.

use std::collections::BTreeMap;

use super::abi::{BlockView, ThreadView};
use super::barrier::{BARRIERS, Barrier};
use super::grid::Id;
use super::mbarrier::Mbarrier;
use super::random::Random;
use super::shared::Shared;
use super::thread::{Local, Thread, Waiting};
use super::warp::{LANES, Warp};
use super::{Kernel, Launch};

/// A live block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) view: Box<BlockView>,
    /// The number of its cluster.
    pub(super) cluster: u64,
    pub(super) shared: Shared,
    pub(super) threads: Vec<Thread>,
    pub(super) locals: Box<[Local]>,
    /// Threads that have not exited.
    pub(super) live: u32,
    pub(super) barriers: [Barrier; BARRIERS],
    pub(super) warps: Vec<Warp>,
    /// By shared address.
    pub(super) mbarriers: BTreeMap<u32, Mbarrier>,
}

impl Block {
    pub(super) fn threads(&self) -> u32 {
        self.threads.len() as u32
    }

    /// The indices of a thread.
    pub(super) fn index_of(&self, thread: u32) -> [u32; 3] {
        let [x, y, _] = self.view.dim;
        [thread % x, thread / x % y, thread / (x * y)]
    }
}

/// All blocks of a grid.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Clusters that have not begun, by number; the next is the last.
    coming: Vec<u64>,
    live: Vec<Option<Box<Block>>>,
    live_blocks: u64,
    /// Shared memory of blocks that have ended, for those that come.
    spare: Vec<Shared>,
}

impl Blocks {
    pub(super) fn new(_: &Kernel, launch: &Launch, random: &mut Random) -> Self {
        let mut coming: Vec<u64> = (0..launch.clusters()).collect();
        for i in (1..coming.len()).rev() {
            coming.swap(i, random.below(i + 1));
        }
        Self { coming, live: Vec::new(), live_blocks: 0, spare: Vec::new() }
    }

    pub(super) fn get(&self, block: u32) -> Option<&Block> {
        self.live.get(block as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, block: u32) -> Option<&mut Block> {
        self.live.get_mut(block as usize)?.as_deref_mut()
    }

    /// The block of a thread that has not exited.
    pub(super) fn of(&mut self, id: Id) -> &mut Block {
        self.get_mut(id.block).expect("a thread's block is live as long as the thread")
    }

    pub(super) fn thread(&mut self, id: Id) -> &mut Thread {
        &mut self.of(id).threads[id.thread as usize]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live_blocks == 0 && self.coming.is_empty()
    }

    pub(super) fn all_begun(&self) -> bool {
        self.coming.is_empty()
    }

    pub(super) fn wants_more(&self, launch: &Launch, most: u64) -> bool {
        let room = launch.cooperative
            || self.live_blocks + launch.cluster_blocks() <= most.max(launch.cluster_blocks());
        room && !self.coming.is_empty()
    }

    pub(super) fn live_threads(&self) -> u64 {
        self.all().map(|(_, block)| u64::from(block.live)).sum()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Block)> {
        self.live.iter().enumerate().filter_map(|(i, block)| Some((i as u32, block.as_deref()?)))
    }

    /// Every thread of a live block.
    pub(super) fn all_threads(&mut self) -> impl Iterator<Item = &mut Thread> {
        self.live.iter_mut().flatten().flat_map(|block| block.threads.iter_mut())
    }

    /// Begins the next cluster, which is a block where there are no clusters.
    pub(super) fn begin(&mut self, kernel: &Kernel, launch: &Launch) -> Result<Vec<u32>, String> {
        let Some(cluster) = self.coming.pop() else { return Ok(Vec::new()) };
        let mut begun = Vec::new();
        for rank in 0..launch.cluster_blocks() as u32 {
            let shared = match self.spare.pop() {
                Some(shared) => shared,
                None => Shared::new(kernel.static_shared, launch.dynamic_shared as usize)
                    .ok_or("the system gives no memory for a block's shared memory")?,
            };
            let mut block = make(kernel, launch, cluster, rank, shared);
            let place = match self.live.iter().position(Option::is_none) {
                Some(place) => place,
                None => {
                    self.live.push(None);
                    self.live.len() - 1
                }
            };
            for local in &mut block.locals {
                local.id.block = place as u32;
            }
            self.live[place] = Some(Box::new(block));
            self.live_blocks += 1;
            begun.push(place as u32);
        }
        Ok(begun)
    }

    /// Ends a block.
    pub(super) fn end(&mut self, block: u32) {
        if let Some(ended) = self.live.get_mut(block as usize).and_then(Option::take) {
            self.live_blocks -= 1;
            self.spare.push(ended.shared);
        }
    }

    /// The live block of this rank in a cluster.
    pub(super) fn in_cluster(&self, cluster: u64, rank: u32) -> Option<u32> {
        let mut all = self.all();
        all.find(|(_, block)| block.cluster == cluster && block.view.cluster_rank == rank)
            .map(|(place, _)| place)
    }

    // -------------------------------------------------------------------------------------------------- who waits for what

    fn waiting(&self) -> impl Iterator<Item = (Id, Waiting)> {
        self.all().flat_map(|(block, live)| {
            live.threads
                .iter()
                .enumerate()
                .filter(|(_, thread)| thread.fiber.is_some())
                .map(move |(i, thread)| (Id { block, thread: i as u32 }, thread.waiting))
        })
    }

    pub(super) fn mbarrier_waiters(&self) -> Vec<Id> {
        self.waiting()
            .filter(|(_, waiting)| matches!(waiting, Waiting::Mbarrier { .. }))
            .map(|(id, _)| id)
            .collect()
    }

    pub(super) fn first_waiting(&self) -> Option<Id> {
        self.waiting().find(|(_, waiting)| *waiting != Waiting::Nothing).map(|(id, _)| id)
    }

    /// In words: for each thing that is waited for, how many wait and the first of them.
    pub(super) fn describe_waiting(&self) -> String {
        let mut things: BTreeMap<String, (usize, Id)> = BTreeMap::new();
        for (id, waiting) in self.waiting() {
            let barrier = match waiting {
                Waiting::Mbarrier { barrier, .. } => {
                    self.get(id.block).and_then(|block| block.mbarriers.get(&barrier))
                }
                _ => None,
            };
            let what =
                barrier.map_or_else(|| waiting.to_string(), |state| format!("{waiting} ({state})"));
            things.entry(what).or_insert((0, id)).0 += 1;
        }
        let words: Vec<String> = things
            .into_iter()
            .map(|(what, (count, id))| {
                let place = self.get(id.block).map(|block| (block.view.index, block.index_of(id.thread)));
                let (block, thread) = place.unwrap_or_default();
                format!("{count} threads (block {block:?}, thread {thread:?} and others) wait for {what}")
            })
            .collect();
        words.join("; ")
    }
}

fn make(kernel: &Kernel, launch: &Launch, cluster: u64, rank: u32, mut shared: Shared) -> Block {
    shared.poison();
    let view = Box::new(BlockView {
        index: launch.block_of(cluster, rank),
        dim: launch.block,
        grid: launch.grid,
        cluster_rank: rank,
        cluster_size: launch.cluster_blocks() as u32,
        dynamic_bytes: launch.dynamic_shared,
        shared: shared.begin(),
        dynamic: shared.dynamic(),
        slots: kernel.slots.as_ptr(),
    });
    let [x, y, z] = launch.block;
    let count = x * y * z;
    let locals = (0..count)
        .map(|thread| Local {
            view: ThreadView {
                index: [thread % x, thread / x % y, thread / (x * y)],
                lane: thread % LANES,
                block: &raw const *view,
            },
            grid: std::ptr::null_mut(),
            id: Id { block: 0, thread },
            pause: std::cell::Cell::new(std::ptr::null()),
            stack_middle: 0,
        })
        .collect();
    let warps = (0..count.div_ceil(LANES))
        .map(|warp| {
            let lanes = (count - warp * LANES).min(LANES);
            Warp::new(if lanes == LANES { u32::MAX } else { (1 << lanes) - 1 })
        })
        .collect();
    Block {
        view,
        cluster,
        shared,
        threads: (0..count).map(|_| Thread::default()).collect(),
        locals,
        live: count,
        barriers: Default::default(),
        warps,
        mbarriers: BTreeMap::new(),
    }
}
