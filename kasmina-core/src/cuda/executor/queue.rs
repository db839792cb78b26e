//! Steps on their way to the device: what waits on the host, what is in flight, and in which order.

use std::collections::VecDeque;

/// A step, as far as its order among others matters.
pub(super) trait Ordered {
    /// Whether the two touch the same memory, and one of them writes it: then their order stays.
    fn conflicts(&self, other: &Self) -> bool;
}

/// Which of the waiting steps goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// As usual.
    #[default]
    Normal,
    /// Before all others.
    High,
}

#[derive(Debug)]
struct Waiting<S> {
    step: S,
    priority: Priority,
}

/// Steps that have not completed, in the order in which they were submitted (`waiting`) or handed over (`in_flight`).
#[derive(Debug)]
pub(super) struct Queue<S> {
    waiting: VecDeque<Waiting<S>>,
    in_flight: VecDeque<(u64, S)>,
    /// The number of the last step that was handed over; the first has 1.
    tail: u64,
    window: usize,
}

/// A step that is to be handed over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// Its number.
    pub(super) number: u64,
    /// The step that must be done before it begins; 0 for none.
    pub(super) after: u64,
}

impl<S: Ordered> Queue<S> {
    pub(super) fn new(window: usize) -> Self {
        Self { waiting: VecDeque::new(), in_flight: VecDeque::new(), tail: 0, window }
    }

    pub(super) fn push(&mut self, step: S, priority: Priority) {
        self.waiting.push_back(Waiting { step, priority });
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Hands over the next step, if there is one and room for it: of the highest priority the oldest, but no step before an older
    /// one that it conflicts with.
    pub(super) fn next(&mut self) -> Option<(Next, &S)> {
        if self.in_flight.len() >= self.window {
            return None;
        }
        let mut best: Option<usize> = None;
        for (at, waiting) in self.waiting.iter().enumerate() {
            if best.is_some_and(|best| self.waiting[best].priority >= waiting.priority) {
                continue;
            }
            let older = self.waiting.iter().take(at);
            // What an older step waits for goes before it as well: it stands before this one, too.
            if !older.clone().any(|older| older.step.conflicts(&waiting.step)) {
                best = Some(at);
            }
            if waiting.priority == Priority::High && best == Some(at) {
                break;
            }
        }
        let Waiting { step, .. } = self.waiting.remove(best?)?;
        let conflicting = self.in_flight.iter().rev().find(|(_, other)| other.conflicts(&step));
        let after = conflicting.map_or(0, |(number, _)| *number);
        self.tail += 1;
        let number = self.tail;
        self.in_flight.push_back((number, step));
        self.in_flight.back().map(|(_, step)| (Next { number, after }, step))
    }

    /// Takes out the steps that are done, given the number of the last one.
    pub(super) fn complete(&mut self, up_to: u64) -> Vec<S> {
        let done = self.in_flight.iter().take_while(|(number, _)| *number <= up_to).count();
        self.in_flight.drain(..done).map(|(_, step)| step).collect()
    }

    /// Whether there is a step that is not done of which `is` holds.
    pub(super) fn any(&self, mut is: impl FnMut(&S) -> bool) -> bool {
        let in_flight = self.in_flight.iter().map(|(_, step)| step);
        in_flight.chain(self.waiting.iter().map(|waiting| &waiting.step)).any(&mut is)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Gives up what waits on the host.
    pub(super) fn take_waiting(&mut self) -> Vec<S> {
        self.waiting.drain(..).map(|waiting| waiting.step).collect()
    }

    /// Gives up everything: what waits, and what is in flight.
    pub(super) fn abandon(&mut self) -> (Vec<S>, Vec<S>) {
        (self.take_waiting(), self.in_flight.drain(..).map(|(_, step)| step).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A step of a test: its number in order of submission, and the places that it writes, as bits.
    #[derive(Clone, Debug, PartialEq)]
    struct Fake(usize, u8);

    impl Ordered for Fake {
        fn conflicts(&self, other: &Self) -> bool {
            self.1 & other.1 != 0
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Push(u8, Priority),
        HandOver,
        Complete(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        let priority = prop::sample::select(vec![Priority::Low, Priority::Normal, Priority::High]);
        prop_oneof![
            4 => (0u8..16, priority).prop_map(|(places, priority)| Act::Push(places, priority)),
            3 => Just(Act::HandOver),
            1 => (0u64..4).prop_map(Act::Complete),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_out_of_order(
            acts in prop::collection::vec(act(), 1..200),
            window in 1usize..6,
        ) {
            let mut queue = Queue::new(window);
            let (mut submitted, mut handed, mut done) = (Vec::new(), Vec::new(), Vec::new());
            let mut waiting: Vec<(Fake, Priority)> = Vec::new();
            for act in acts {
                match act {
                    Act::Push(places, priority) => {
                        let step = Fake(submitted.len(), places);
                        submitted.push(step.clone());
                        waiting.push((step.clone(), priority));
                        queue.push(step, priority);
                    }
                    Act::HandOver => {
                        let in_flight: Vec<Fake> = handed[done.len()..].to_vec();
                        match queue.next() {
                            None => prop_assert!(waiting.is_empty() || in_flight.len() == window),
                            Some((Next { number, after }, step)) => {
                                prop_assert!(in_flight.len() < window);
                                prop_assert_eq!(number as usize, handed.len() + 1);
                                // It waits for the latest that it conflicts with.
                                let latest = in_flight.iter().rposition(|other| other.conflicts(step));
                                prop_assert_eq!(after as usize, latest.map_or(0, |at| done.len() + at + 1));
                                // Nobody of a higher priority could have gone, nor an older one of the same.
                                let at = waiting.iter().position(|(other, _)| other == step).expect("it waited");
                                let free = |i: usize| !waiting[..i].iter().any(|(o, _)| o.conflicts(&waiting[i].0));
                                prop_assert!(free(at), "it overtook one that it conflicts with");
                                for i in 0..waiting.len() {
                                    let better = waiting[i].1 > waiting[at].1 || (waiting[i].1 == waiting[at].1 && i < at);
                                    prop_assert!(!(free(i) && better), "{i} should have gone");
                                }
                                handed.push(step.clone());
                                waiting.remove(at);
                            }
                        }
                    }
                    Act::Complete(more) => {
                        let up_to = (done.len() as u64 + more).min(handed.len() as u64);
                        done.extend(queue.complete(up_to));
                        prop_assert_eq!(done.len() as u64, up_to);
                    }
                }
                prop_assert_eq!(queue.waiting(), waiting.len());
                prop_assert_eq!(queue.in_flight(), handed.len() - done.len());
                prop_assert_eq!(&done[..], &handed[..done.len()]);
            }
            let (left, in_flight) = queue.abandon();
            let mut all: Vec<usize> = done.iter().chain(&in_flight).chain(&left).map(|step| step.0).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..submitted.len()).collect::<Vec<_>>());
        }
    }
}
