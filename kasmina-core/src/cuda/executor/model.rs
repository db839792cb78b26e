//! The protocol between host and grid, walked through exhaustively: every order in which the host's writes, the dispatcher's looks, the end of a
//! worker's step and the end of an idle grid can fall, with writes that the other side sees late.
//!
//! The model is of `queue.rs`, `grid.rs` and `service.rs` on the host's side and of `Dispatcher` and `Worker::finish` in
//! `kernels/resident_grid.cuh` on the device's; where those change, it is to change.

use std::collections::HashSet;

/// Steps that are submitted, and places of the mailbox, which the window is not greater than.
const STEPS: u8 = 4;
const PLACES: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    // The host.
    /// Steps handed over.
    tail: u8,
    /// Which step a place of the mailbox holds.
    places: [u8; PLACES as usize],
    /// What the host knows to be done.
    known_done: u8,
    generation: u8,
    // On their way from the device to the host.
    ended: u8,
    seen_ended: u8,
    // The grid.
    running: bool,
    /// Whether a launch is queued behind a grid that has said its end and not reached it.
    queued: bool,
    dispatcher: Dispatcher,
    taken: u8,
    /// Steps run, in order.
    ran: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Dispatcher {
    /// About to look at the mailbox.
    Looking,
    /// It has seen so many steps.
    Saw(u8),
    /// It has told the host that it ends.
    Ending,
}

impl World {
    fn new() -> Self {
        Self {
            tail: 0,
            places: [0; PLACES as usize],
            known_done: 0,
            generation: 1,
            ended: 0,
            seen_ended: 0,
            running: true,
            queued: false,
            dispatcher: Dispatcher::Looking,
            taken: 0,
            ran: Vec::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.known_done == STEPS
    }

    /// Every world that the next event can make of this one.
    fn next(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            change(&mut next);
            all.push(next);
        };
        // The host hands over: the place is free, because what was there is known to be done.
        if self.tail < STEPS && self.tail - self.known_done < PLACES {
            add(&|w| {
                w.places[usize::from(w.tail % PLACES)] = w.tail + 1;
                w.tail += 1;
            });
        }
        // It looks whether the grid has ended, while something is in flight: `pump`.
        if self.tail > self.known_done && self.seen_ended == self.generation {
            add(&|w| {
                w.generation += 1;
                w.queued = true;
            });
        }
        // It learns how far the grid is, and that it has ended; either may come late.
        if self.known_done < self.ran.len() as u8 {
            add(&|w| w.known_done = w.ran.len() as u8);
        }
        if self.seen_ended < self.ended {
            add(&|w| w.seen_ended = w.ended);
        }
        if self.running {
            match self.dispatcher {
                Dispatcher::Looking => {
                    // The tail of now, or an older one that is still on its way to the device.
                    for seen in self.taken..=self.tail {
                        add(&|w| w.dispatcher = Dispatcher::Saw(seen));
                    }
                }
                Dispatcher::Saw(tail) if self.taken < tail => {
                    add(&|w| {
                        w.ran.push(w.places[usize::from(w.taken % PLACES)]);
                        w.taken += 1;
                        w.dispatcher = Dispatcher::Looking;
                    });
                }
                // Nothing new: it looks again, or has been idle for long enough.
                Dispatcher::Saw(_) => {
                    add(&|w| w.dispatcher = Dispatcher::Looking);
                    add(&|w| {
                        w.ended = w.generation;
                        w.dispatcher = Dispatcher::Ending;
                    });
                }
                Dispatcher::Ending => add(&|w| w.running = false),
            }
        } else if self.queued {
            add(&|w| {
                w.running = true;
                w.queued = false;
                w.dispatcher = Dispatcher::Looking;
            });
        }
        all
    }
}

/// A host that never looks again after a submission would lose a step: this is what `look_after` is for.
#[test]
fn every_order_of_events_runs_every_step_once_and_never_gets_stuck() {
    let mut known = HashSet::new();
    let mut open = vec![World::new()];
    let (mut over, mut grids) = (0, 0);
    while let Some(world) = open.pop() {
        if !known.insert(world.clone()) {
            continue;
        }
        let right: Vec<u8> = (1..=world.ran.len() as u8).collect();
        assert_eq!(world.ran, right, "lost, doubled or out of order: {world:?}");
        // How often it may end and begin does not matter; that it may, does.
        grids = grids.max(world.generation);
        if world.is_over() {
            over += 1;
            continue;
        }
        let next = world.next();
        assert!(!next.is_empty(), "stuck: {world:?}");
        open.extend(next.into_iter().filter(|next| next.generation <= STEPS + 2));
    }
    assert!(over > 0 && grids > 2, "{over} ends, {grids} grids, {} worlds", known.len());
    // And from everywhere the end can be reached: no world only goes round.
    let mut good: HashSet<World> = known.iter().filter(|world| world.is_over()).cloned().collect();
    loop {
        let before = good.len();
        let more: Vec<World> = known
            .iter()
            .filter(|world| {
                !good.contains(*world) && world.next().iter().any(|next| good.contains(next))
            })
            .cloned()
            .collect();
        good.extend(more);
        if good.len() == before {
            break;
        }
    }
    let lost = known.iter().find(|world| !good.contains(*world) && world.generation < STEPS + 2);
    assert!(lost.is_none(), "no way to the end: {lost:?}");
}
