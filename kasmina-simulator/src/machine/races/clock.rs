//! What threads know of each other: vector clocks, by block.
//!
//! Every block has one component for each of its threads, one for the asynchronous copies of each thread, and one for the copy engine.
//! Vectors are shared between all that know the same, so that a barrier of a block makes one and not as many as there are threads.

use std::collections::BTreeMap;
use std::rc::Rc;

/// The components of one block.
pub(super) type Times = Rc<Vec<u32>>;
/// The components of some blocks, by the block's number.
pub(super) type Clock = BTreeMap<u32, Times>;

/// Takes over what another vector knows more.
pub(super) fn join_times(to: &mut Times, from: &Times) {
    if Rc::ptr_eq(to, from) || from.iter().zip(to.iter()).all(|(from, to)| from <= to) {
        return;
    }
    if to.iter().zip(from.iter()).all(|(to, from)| to <= from) {
        *to = Rc::clone(from);
        return;
    }
    for (to, &from) in Rc::make_mut(to).iter_mut().zip(from.iter()) {
        *to = from.max(*to);
    }
}

/// The same for several blocks.
pub(super) fn join(to: &mut Clock, from: &Clock) {
    for (&block, times) in from {
        match to.get_mut(&block) {
            Some(known) => join_times(known, times),
            None => {
                to.insert(block, Rc::clone(times));
            }
        }
    }
}

/// An event: a component of a block, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) block: u32,
    pub(super) component: u16,
    pub(super) time: u32,
}

/// What a thread knows, and its own time.
#[derive(Clone, Debug)]
pub(in super::super) struct Knowledge {
    pub(super) block: u32,
    pub(super) thread: u16,
    pub(super) time: u32,
    /// Of its own block; its own component may lag behind its time.
    pub(super) own: Times,
    pub(super) others: Rc<Clock>,
    /// Of its own block: up to when reads are over, where that is later than what it knows.
    pub(super) read: Times,
    /// As it was at the thread's last fence, where it had one: what a later relaxed write hands on.
    pub(super) fenced: Option<Rc<Clock>>,
    /// What relaxed reads have met since: known from the next fence on.
    pub(super) met: Clock,
}

impl Knowledge {
    pub(super) fn new(block: u32, thread: u16, own: Times, others: Rc<Clock>) -> Self {
        let read = Rc::clone(&own);
        Self { block, thread, time: 1, own, others, read, fenced: None, met: Clock::new() }
    }

    pub(super) fn now(&self) -> Event {
        Event { block: self.block, component: self.thread, time: self.time }
    }

    /// Whether an event is ordered before what this thread does now.
    pub(super) fn knows(&self, event: Event) -> bool {
        if event.block == self.block {
            return event.component == self.thread
                || self.own[usize::from(event.component)] >= event.time;
        }
        self.others
            .get(&event.block)
            .is_some_and(|times| times[usize::from(event.component)] >= event.time)
    }

    /// Whether a read is over before what this thread does now: ordered, or read for a value that lanes have exchanged since.
    pub(super) fn knows_read(&self, event: Event) -> bool {
        let exchanged =
            event.block == self.block && self.read[usize::from(event.component)] >= event.time;
        exchanged || self.knows(event)
    }

    /// Learns that a component of its block has come to a time.
    pub(super) fn learn(&mut self, component: usize, time: u32) {
        if self.own[component] < time {
            Rc::make_mut(&mut self.own)[component] = time;
        }
    }

    /// Everything that it knows, itself included.
    pub(super) fn all(&mut self) -> Clock {
        self.learn(usize::from(self.thread), self.time);
        let mut all = (*self.others).clone();
        all.insert(self.block, Rc::clone(&self.own));
        all
    }

    /// Hands on what it knows; what it does from now on is later.
    pub(super) fn release(&mut self, to: &mut Clock) {
        join(to, &self.all());
        self.time += 1;
    }

    /// Takes over what others know.
    pub(super) fn acquire(&mut self, from: &Clock) {
        for (block, times) in from {
            if *block == self.block {
                join_times(&mut self.own, times);
            } else if !self.others.get(block).is_some_and(|known| Rc::ptr_eq(known, times)) {
                match Rc::make_mut(&mut self.others).get_mut(block) {
                    Some(known) => join_times(known, times),
                    None => {
                        Rc::make_mut(&mut self.others).insert(*block, Rc::clone(times));
                    }
                }
            }
        }
    }

    /// A fence: relaxed accesses before and after it order others.
    pub(super) fn fence(&mut self) {
        let met = std::mem::take(&mut self.met);
        self.acquire(&met);
        self.fenced = Some(Rc::new(self.all()));
        self.time += 1;
    }
}

/// Threads of a block that meet: gathers what all know, cheaply where they know the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathering {
    times: Vec<u32>,
    last: Option<Times>,
    others: Clock,
    last_others: Option<Rc<Clock>>,
}

impl Gathering {
    /// A thread comes; what it does from now on is later.
    pub(super) fn come(&mut self, thread: &mut Knowledge) {
        if !self.last.as_ref().is_some_and(|last| Rc::ptr_eq(last, &thread.own)) {
            self.times.resize(thread.own.len(), 0);
            for (to, &from) in self.times.iter_mut().zip(thread.own.iter()) {
                *to = from.max(*to);
            }
            self.last = Some(Rc::clone(&thread.own));
        }
        let own = &mut self.times[usize::from(thread.thread)];
        *own = thread.time.max(*own);
        thread.time += 1;
        if !self.last_others.as_ref().is_some_and(|last| Rc::ptr_eq(last, &thread.others)) {
            join(&mut self.others, &thread.others);
            self.last_others = Some(Rc::clone(&thread.others));
        }
    }

    /// What all of them know together.
    pub(super) fn end(self) -> (Times, Rc<Clock>) {
        (Rc::new(self.times), Rc::new(self.others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> [Knowledge; 3] {
        let (own, others) = (Rc::new(vec![0; 7]), Rc::new(Clock::new()));
        [0, 1, 2].map(|thread| Knowledge::new(4, thread, Rc::clone(&own), Rc::clone(&others)))
    }

    #[test]
    fn what_was_released_is_known_to_whoever_acquires_and_nobody_else() {
        let [mut a, mut b, c] = threads();
        let before = a.now();
        let mut object = Clock::new();
        a.release(&mut object);
        let after = a.now();
        assert!(!b.knows(before));
        b.acquire(&object);
        assert!(b.knows(before) && !b.knows(after) && !c.knows(before));
    }

    #[test]
    fn fences_make_relaxed_accesses_order() {
        let [mut a, mut b, _] = threads();
        let before = a.now();
        a.fence();
        b.met = (**a.fenced.as_ref().unwrap()).clone();
        assert!(!b.knows(before));
        b.fence();
        assert!(b.knows(before));
    }

    #[test]
    fn who_meets_knows_what_was_before() {
        let [mut a, mut b, c] = threads();
        let events = [a.now(), b.now()];
        let mut gathering = Gathering::default();
        gathering.come(&mut a);
        gathering.come(&mut b);
        let (own, others) = gathering.end();
        let met = Knowledge { own, others, ..c };
        assert!(events.iter().all(|&event| met.knows(event)) && !met.knows(a.now()));
    }
}
