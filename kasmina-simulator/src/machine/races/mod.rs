//! The race detector: finds two accesses to the same memory of which one writes, at least one is no atomic one, and neither is ordered
//! before the other by barriers, mbarriers, fences with atomics, or waits for copies.
//!
//! Images that are made for it report every access. What is ordered is decided by vector clocks and not by what happened to come
//! first, so a race is found in every run that makes both accesses, mostly.

mod clock;
mod shadow;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use clock::{Clock, Event, Gathering, join};
use shadow::{Access, Shadow};

pub(super) use clock::Knowledge;
pub(super) use shadow::Manner;

use super::barrier::BARRIERS;
use super::grid::Id;

/// What an image reports of an atomic access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Atomic {
    Load,
    Store,
    Change,
}

/// The compiler's numbers of memory orders from which on they acquire, or release.
fn acquires(order: u32) -> bool {
    matches!(order & 0xff, 1 | 2 | 4 | 5)
}

fn releases(order: u32) -> bool {
    matches!(order & 0xff, 3..=5)
}

/// Two accesses that are not ordered.
#[derive(Debug)]
pub(super) struct Race {
    pub(super) address: u64,
    pub(super) new: Side,
    pub(super) old: Side,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) what: &'static str,
    pub(super) by: String,
    /// Where in the image's code; 0 where it is a copy.
    pub(super) from: u64,
}

/// A live block.
#[derive(Debug)]
struct Block {
    number: u32,
    threads: Vec<Knowledge>,
    /// Each thread's asynchronous copies.
    copies: Vec<Copies>,
    /// The copy engine's time.
    engine: u32,
    barriers: [Gathering; BARRIERS],
    mbarriers: BTreeMap<u32, Phases>,
}

/// The asynchronous copies of a thread: their time, and that of each group that was not waited for.
#[derive(Clone, Debug)]
struct Copies {
    time: u32,
    groups: Vec<u32>,
}

/// What an mbarrier hands on: of the phase that goes on, and of those that are over.
#[derive(Debug, Default)]
struct Phases {
    coming: Clock,
    over: Clock,
}

/// All that is known of a grid.
#[derive(Debug, Default)]
pub(super) struct Races {
    /// By the place among live blocks.
    blocks: Vec<Option<Block>>,
    /// The index of every block that has begun, by its number.
    indices: Vec<([u32; 3], [u32; 3])>,
    shadow: Shadow,
    /// What atomics hand on, by address.
    objects: HashMap<u64, Clock>,
}

impl Races {
    // --------------------------------------------------------------------------------------------------------------- blocks

    /// A block begins at a place, with its index, its dimensions and its shared memory.
    pub(super) fn begin(&mut self, place: u32, index: [u32; 3], dim: [u32; 3], shared: (u64, u64)) {
        self.shadow.forget(shared.0, shared.1);
        let number = self.indices.len() as u32;
        self.indices.push((index, dim));
        let count = dim.iter().product::<u32>() as usize;
        let own = Rc::new(vec![0; 2 * count + 1]);
        let others = Rc::new(Clock::new());
        let threads = (0..count)
            .map(|thread| {
                Knowledge::new(number, thread as u16, Rc::clone(&own), Rc::clone(&others))
            })
            .collect();
        let block = Block {
            number,
            threads,
            copies: vec![Copies { time: 1, groups: Vec::new() }; count],
            engine: 1,
            barriers: Default::default(),
            mbarriers: BTreeMap::new(),
        };
        let place = place as usize;
        if self.blocks.len() <= place {
            self.blocks.resize_with(place + 1, || None);
        }
        self.blocks[place] = Some(block);
    }

    pub(super) fn end(&mut self, place: u32) {
        self.blocks[place as usize] = None;
    }

    fn block(&mut self, id: Id) -> &mut Block {
        self.blocks[id.block as usize]
            .as_mut()
            .expect("a thread's block is live as long as the thread")
    }

    fn thread(&mut self, id: Id) -> &mut Knowledge {
        &mut self.block(id).threads[id.thread as usize]
    }

    // -------------------------------------------------------------------------------------------------------------- accesses

    pub(super) fn access(
        &mut self,
        id: Id,
        address: u64,
        bytes: u64,
        manner: Manner,
        from: u64,
    ) -> Option<Race> {
        let Self { blocks, shadow, .. } = self;
        let thread = &blocks[id.block as usize].as_ref()?.threads[id.thread as usize];
        let event = thread.now();
        let found = shadow.access(address, bytes, manner, event, thread, from);
        found.map(|(address, old)| self.race(address, old, manner, event, from))
    }

    /// An atomic access, and what it hands on and takes over.
    pub(super) fn atomic(
        &mut self,
        id: Id,
        address: u64,
        bytes: u64,
        kind: Atomic,
        order: u32,
        from: u64,
    ) -> Option<Race> {
        let manner = Manner { writes: kind != Atomic::Load, atomic: true };
        let race = self.access(id, address, bytes, manner, from);
        let Self { blocks, objects, .. } = self;
        let thread = &mut blocks[id.block as usize].as_mut()?.threads[id.thread as usize];
        if kind != Atomic::Store
            && let Some(object) = objects.get(&address)
        {
            if acquires(order) {
                thread.acquire(object);
            } else {
                join(&mut thread.met, object);
            }
        }
        if kind != Atomic::Load {
            let object = objects.entry(address).or_default();
            if kind == Atomic::Store {
                object.clear();
            }
            if releases(order) {
                thread.release(object);
            } else if let Some(fenced) = &thread.fenced {
                join(object, fenced);
            }
        }
        race
    }

    pub(super) fn fence(&mut self, id: Id) {
        self.thread(id).fence();
    }

    // -------------------------------------------------------------------------------------------------------------- meetings

    pub(super) fn barrier_come(&mut self, id: Id, barrier: u32) {
        let block = self.block(id);
        block.barriers[barrier as usize].come(&mut block.threads[id.thread as usize]);
    }

    pub(super) fn barrier_end(&mut self, block: u32, barrier: usize, waiting: &[u32]) {
        let block = self.block(Id { block, thread: 0 });
        let (own, others) = std::mem::take(&mut block.barriers[barrier]).end();
        for &thread in waiting {
            let thread = &mut block.threads[thread as usize];
            thread.own = Rc::clone(&own);
            thread.others = Rc::clone(&others);
        }
    }

    /// Threads that all come and all wait: lanes of a warp, by their numbers in the block.
    pub(super) fn meet(&mut self, block: u32, threads: impl Iterator<Item = u32> + Clone) {
        let block = self.block(Id { block, thread: 0 });
        let mut gathering = Gathering::default();
        for thread in threads.clone() {
            gathering.come(&mut block.threads[thread as usize]);
        }
        let (own, others) = gathering.end();
        for thread in threads {
            let thread = &mut block.threads[thread as usize];
            thread.own = Rc::clone(&own);
            thread.others = Rc::clone(&others);
        }
    }

    /// Lanes exchange values: memory is not ordered by that, but what they have read for it is read.
    pub(super) fn exchange(&mut self, block: u32, threads: impl Iterator<Item = u32> + Clone) {
        let block = self.block(Id { block, thread: 0 });
        let mut times: Vec<u32> = Vec::new();
        let mut last = None;
        for thread in threads.clone() {
            let thread = &mut block.threads[thread as usize];
            for known in [&thread.own, &thread.read] {
                if last.as_ref().is_some_and(|last| Rc::ptr_eq(last, known)) {
                    continue;
                }
                times.resize(known.len(), 0);
                times.iter_mut().zip(known.iter()).for_each(|(to, &from)| *to = from.max(*to));
                last = Some(Rc::clone(known));
            }
            let own = &mut times[usize::from(thread.thread)];
            *own = thread.time.max(*own);
            thread.time += 1;
        }
        let times = Rc::new(times);
        for thread in threads {
            block.threads[thread as usize].read = Rc::clone(&times);
        }
    }

    /// The whole grid meets.
    pub(super) fn meet_all(&mut self, threads: &[Id]) {
        let mut all = Clock::new();
        for &id in threads {
            self.thread(id).release(&mut all);
        }
        for &id in threads {
            self.thread(id).acquire(&all);
        }
    }

    // ------------------------------------------------------------------------------------------------------------- mbarriers

    pub(super) fn mbarrier_arrive(&mut self, id: Id, barrier: u32) {
        let block = self.block(id);
        let phases = block.mbarriers.entry(barrier).or_default();
        block.threads[id.thread as usize].release(&mut phases.coming);
    }

    pub(super) fn mbarrier_over(&mut self, id: Id, barrier: u32) {
        let phases = self.block(id).mbarriers.entry(barrier).or_default();
        let coming = std::mem::take(&mut phases.coming);
        join(&mut phases.over, &coming);
    }

    pub(super) fn mbarrier_waited(&mut self, id: Id, barrier: u32) {
        let block = self.block(id);
        if let Some(phases) = block.mbarriers.get(&barrier) {
            block.threads[id.thread as usize].acquire(&phases.over);
        }
    }

    // ---------------------------------------------------------------------------------------------------- asynchronous copies

    /// cp.async begins: its source is read, and its destination is written by nobody who knows of it before a wait.
    pub(super) fn copy(
        &mut self,
        id: Id,
        to: u64,
        from: Option<(u64, u64)>,
        bytes: u64,
    ) -> Option<Race> {
        let block = self.block(id);
        let component = (block.threads.len() + id.thread as usize) as u16;
        let event =
            Event { block: block.number, component, time: block.copies[id.thread as usize].time };
        let read = from.and_then(|(from, bytes)| self.by_copy(id, from, bytes, false, event));
        read.or_else(|| self.by_copy(id, to, bytes, true, event))
    }

    /// A group of copies ends.
    pub(super) fn copy_group(&mut self, id: Id) {
        let copies = &mut self.block(id).copies[id.thread as usize];
        copies.groups.push(copies.time);
        copies.time += 1;
    }

    /// A thread has waited for all groups but its newest ones, or for all copies.
    pub(super) fn copies_waited(&mut self, id: Id, pending: usize, all: bool) {
        let block = self.block(id);
        let component = block.threads.len() + id.thread as usize;
        let copies = &mut block.copies[id.thread as usize];
        let time = if all {
            copies.groups.clear();
            copies.time += 1;
            copies.time - 1
        } else {
            let done = copies.groups.len().saturating_sub(pending);
            copies.groups.drain(..done).next_back().unwrap_or(0)
        };
        block.threads[id.thread as usize].learn(component, time);
    }

    /// Copies up to here are to arrive on an mbarrier. Answers their time.
    pub(super) fn copies_so_far(&mut self, id: Id) -> u32 {
        let copies = &mut self.block(id).copies[id.thread as usize];
        copies.time += 1;
        copies.time - 1
    }

    /// Copies up to a time are done, and an mbarrier knows it.
    pub(super) fn copies_arrive(&mut self, id: Id, barrier: u32, time: u32) {
        let block = self.block(id);
        let mut times = vec![0; 2 * block.threads.len() + 1];
        times[block.threads.len() + id.thread as usize] = time;
        let phases = block.mbarriers.entry(barrier).or_default();
        join(&mut phases.coming, &Clock::from([(block.number, Rc::new(times))]));
    }

    /// What a bulk copy knows: all that its thread does when it starts it.
    pub(super) fn knowledge(&mut self, id: Id) -> Knowledge {
        let mut knowledge = self.thread(id).clone();
        knowledge.learn(usize::from(knowledge.thread), knowledge.time);
        knowledge
    }

    /// The copy engine reads or writes memory for a copy that was started with this knowledge, in the shared memory of a live block or in
    /// global memory. `place`: the live block whose engine it is.
    pub(super) fn engine(
        &mut self,
        place: u32,
        knowledge: &Knowledge,
        address: u64,
        bytes: u64,
        manner: Manner,
    ) -> Option<Race> {
        let block = self.blocks.get(place as usize)?.as_ref()?;
        let component = (2 * block.threads.len()) as u16;
        let event = Event { block: block.number, component, time: block.engine };
        let found = self.shadow.access(address, bytes, manner, event, knowledge, 0);
        found.map(|(address, old)| self.race(address, old, manner, event, 0))
    }

    /// A copy is done. Answers the engine's time, for whoever is told of it.
    pub(super) fn engine_done(&mut self, place: u32) -> u32 {
        let Some(Some(block)) = self.blocks.get_mut(place as usize) else { return 0 };
        block.engine += 1;
        block.engine - 1
    }

    /// A thread has waited for the engine.
    pub(super) fn engine_waited(&mut self, id: Id, time: u32) {
        let block = self.block(id);
        let component = 2 * block.threads.len();
        block.threads[id.thread as usize].learn(component, time);
    }

    /// An mbarrier of a live block is told of the engine.
    pub(super) fn engine_arrives(&mut self, place: u32, barrier: u32, time: u32) {
        let Some(Some(block)) = self.blocks.get_mut(place as usize) else { return };
        let mut times = vec![0; 2 * block.threads.len() + 1];
        times[2 * block.threads.len()] = time;
        let phases = block.mbarriers.entry(barrier).or_default();
        join(&mut phases.coming, &Clock::from([(block.number, Rc::new(times))]));
    }

    fn by_copy(
        &mut self,
        id: Id,
        address: u64,
        bytes: u64,
        writes: bool,
        event: Event,
    ) -> Option<Race> {
        let manner = Manner { writes, atomic: false };
        let Self { blocks, shadow, .. } = self;
        let thread = &blocks[id.block as usize].as_ref()?.threads[id.thread as usize];
        let found = shadow.access(address, bytes, manner, event, thread, 0);
        found.map(|(address, old)| self.race(address, old, manner, event, 0))
    }

    // ----------------------------------------------------------------------------------------------------------------- words

    fn race(&self, address: u64, old: Access, manner: Manner, event: Event, from: u64) -> Race {
        let side = |event, writes, atomic, from| Side {
            what: what(writes, atomic),
            by: self.who(event),
            from,
        };
        Race {
            address,
            new: side(event, manner.writes, manner.atomic, from),
            old: side(old.event, old.writes, old.atomic, old.from),
        }
    }

    fn who(&self, event: Event) -> String {
        let (block, dim) = self.indices[event.block as usize];
        let count = dim.iter().product::<u32>();
        let component = u32::from(event.component);
        if component == 2 * count {
            return format!("a bulk copy of block {block:?}");
        }
        let thread = component % count;
        let index = [thread % dim[0], thread / dim[0] % dim[1], thread / (dim[0] * dim[1])];
        let copy = if component < count { "" } else { "a cp.async of " };
        format!("{copy}block {block:?}, thread {index:?}")
    }
}

fn what(writes: bool, atomic: bool) -> &'static str {
    match (writes, atomic) {
        (true, false) => "write",
        (false, false) => "read",
        (true, true) => "atomic write",
        (false, true) => "atomic read",
    }
}
