//! The kinds of steps that a runner has met, each with a way of its own. One of them is tried at a time: where two take turns, as the
//! two parts of a step around a loss, a block's time has the other's steps in it, and these are to be the same for every way.

use super::chooser::Chooser;
use super::trials::Trials;

/// Kinds that are remembered: whole steps and forward alone, of a few numbers of rows.
const KEPT: usize = 8;
/// Steps of others after which a kind that is being tried, and does not come any more, gives way to one that waits.
const PATIENCE: u32 = 64;

#[derive(Debug)]
pub(super) struct Kind<K> {
    pub(super) key: K,
    pub(super) chooser: Chooser,
    /// Of each layer, what its work was when it was last looked at.
    pub(super) seen: Vec<Seen>,
    /// When it ran last.
    used: u64,
}

/// A layer's work, and the layer and its revision of which it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) at: Option<(u64, u64)>,
    pub(super) work: u64,
}

#[derive(Debug)]
pub(super) struct Kinds<K> {
    trials: Trials,
    all: Vec<Kind<K>>,
    now: u64,
    /// Steps of others since a kind that is being tried ran.
    away: u32,
}

impl<K: PartialEq> Kinds<K> {
    pub(super) fn new(trials: Trials) -> Self {
        Self { trials, all: Vec::new(), now: 0, away: 0 }
    }

    /// The place of the kind of the step that is to run, until the next visit; and whether a search for its way may begin, which it
    /// wants then.
    pub(super) fn visit(&mut self, key: K) -> (usize, bool) {
        self.now += 1;
        let at = match self.all.iter().position(|kind| kind.key == key) {
            Some(at) => at,
            None => self.add(key),
        };
        let other = self.all.iter().position(|kind| kind.chooser.is_searching());
        let free = match other {
            None => true,
            Some(other) if other == at => {
                self.away = 0;
                false
            }
            Some(other) => {
                self.away += 1;
                let gone = self.away > PATIENCE;
                if gone {
                    self.all[other].chooser.give_up();
                    self.away = 0;
                }
                gone
            }
        };
        let kind = &mut self.all[at];
        kind.used = self.now;
        let begins = free && kind.chooser.wants_search();
        (at, begins)
    }

    pub(super) fn at(&mut self, at: usize) -> &mut Kind<K> {
        &mut self.all[at]
    }

    /// The kind that ran last.
    pub(super) fn latest(&self) -> Option<&Kind<K>> {
        self.all.iter().max_by_key(|kind| kind.used)
    }

    fn add(&mut self, key: K) -> usize {
        if self.all.len() == KEPT {
            let oldest = self.all.iter().enumerate().min_by_key(|(_, kind)| kind.used);
            if let Some((oldest, _)) = oldest {
                self.all.swap_remove(oldest);
            }
        }
        let chooser = Chooser::new(self.trials);
        self.all.push(Kind { key, chooser, seen: Vec::new(), used: self.now });
        self.all.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::execution::Way;
    use proptest::prelude::*;

    /// Runs a step of kind `key`, and says whether it was tried.
    fn step(kinds: &mut Kinds<u8>, key: u8) -> bool {
        let (at, begins) = kinds.visit(key);
        let kind = kinds.at(at);
        if begins {
            kind.chooser.begin([None, None, None]);
        }
        let (turn, tried) = (kind.chooser.next(), kind.chooser.is_searching());
        kind.chooser.ran(turn.ends.then_some(1.0 + turn.way as u8 as f64));
        tried
    }

    proptest! {
        #[test]
        fn one_kind_is_tried_at_a_time_and_each_that_keeps_coming_is_in_the_end(
            keys in prop::collection::vec(0u8..12, 1..2000),
            trials in (1u32..3, 1u32..4, 1u32..4),
        ) {
            let trials = Trials::new().warm_up(trials.0).steps(trials.1).rounds(trials.2);
            let mut kinds = Kinds::new(trials);
            for key in keys {
                step(&mut kinds, key);
                let tried = kinds.all.iter().filter(|kind| kind.chooser.is_searching()).count();
                prop_assert!(tried <= 1 && kinds.all.len() <= KEPT);
                prop_assert_eq!(kinds.latest().map(|kind| kind.key), Some(key));
            }
            // Three that keep coming, in turn: each has its way after what all of them may take.
            let most = 3 * 3 * trials.most_steps() + u64::from(PATIENCE) + 3;
            for i in 0..most {
                step(&mut kinds, (i % 3) as u8);
            }
            for kind in kinds.all.iter().filter(|kind| kind.key < 3) {
                prop_assert!(!kind.chooser.wants_search() && !kind.chooser.is_searching());
                prop_assert_eq!(kind.chooser.way, Way::Launch);
            }
        }
    }

    #[test]
    fn a_kind_that_does_not_come_back_gives_way() {
        let mut kinds = Kinds::new(Trials::new());
        assert!(step(&mut kinds, 1));
        let waited = (0..1000).take_while(|_| !step(&mut kinds, 2)).count();
        assert_eq!(waited, PATIENCE as usize);
        // It goes on where it can when it does come back.
        while step(&mut kinds, 2) {}
        assert!(step(&mut kinds, 1));
    }
}
