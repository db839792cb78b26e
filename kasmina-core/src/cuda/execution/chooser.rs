//! Which way the next step of one kind goes: tries each way on real steps, decides, and tries again when what runs has changed. Times
//! come from outside, so there is no device in here.
//!
//! A search gives every possible way [`Trials::rounds`] blocks, in turn and each round beginning with another way, so that a drift of
//! the machine meets all alike. It ends after [`Trials::most_steps`] at the latest, and the next one begins [`Trials::again_after`] steps
//! later at the earliest.

use std::fmt;

use super::trials::Trials;
use super::way::Way;

/// Why a way was chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// Nothing is chosen yet: steps are being tried, or wait for another kind of step to be through with that.
    Searching,
    /// It was asked for.
    Asked,
    /// No other is possible.
    Only,
    /// Its median is the least.
    Fastest,
    /// Another one's median is less by no more than the margin, and this one is simpler, or was the choice before.
    WithinMargin {
        /// The other one.
        fastest: Way,
    },
    /// The way that was chosen became impossible.
    FellBack {
        /// Which.
        from: Way,
    },
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Searching => f.write_str("nothing is chosen yet"),
            Self::Asked => f.write_str("it was asked for"),
            Self::Only => f.write_str("no other way is possible"),
            Self::Fastest => f.write_str("its median is the least"),
            Self::WithinMargin { fastest } => write!(
                f,
                "{fastest} is faster by no more than the margin, and this is simpler or was the choice before"
            ),
            Self::FellBack { from } => {
                write!(f, "{from}, which was chosen before, became impossible")
            }
        }
    }
}

/// What is to be done with the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) way: Way,
    /// Everything before is to be done, and the clock starts with the step.
    pub(super) starts: bool,
    /// The step is waited for, and the clock stops with its end.
    pub(super) ends: bool,
}

/// What is known of a way.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Candidate {
    /// Why it is not possible.
    pub(super) excluded: Option<String>,
    /// Microseconds a step, of each block.
    pub(super) blocks: Vec<f64>,
}

impl Candidate {
    pub(super) fn median(&self) -> Option<f64> {
        let mut sorted = self.blocks.clone();
        sorted.sort_by(f64::total_cmp);
        let (upper, lower) = (sorted.len() / 2, sorted.len().saturating_sub(1) / 2);
        Some((sorted.get(lower)? + sorted.get(upper)?) / 2.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A search is wanted and has not begun.
    Wanted,
    /// In round `round`, the `place`-th way of it, step `step` of the block.
    Searching { round: u32, place: usize, step: u32 },
    /// Chosen when so many steps had run.
    Settled { at: u64 },
}

#[derive(Clone, Debug)]
pub(super) struct Chooser {
    trials: Trials,
    pub(super) ways: [Candidate; 3],
    stage: Stage,
    /// What steps go by while nothing is tried.
    pub(super) way: Way,
    pub(super) choice: Choice,
    steps: u64,
    /// Whether what runs is no longer what was measured.
    stale: bool,
    /// Whether this search was begun anew already.
    begun_anew: bool,
    /// Steps that were tried, and searches that came to an end.
    pub(super) trial_steps: u64,
    pub(super) searches: u64,
}

impl Chooser {
    pub(super) fn new(trials: Trials) -> Self {
        Self {
            trials,
            ways: Default::default(),
            stage: Stage::Wanted,
            way: Way::Launch,
            choice: Choice::Searching,
            steps: 0,
            stale: false,
            begun_anew: false,
            trial_steps: 0,
            searches: 0,
        }
    }

    /// Whether a search is to begin with the next step; [`Chooser::begin`] is told then what is impossible.
    pub(super) fn wants_search(&self) -> bool {
        match self.stage {
            Stage::Wanted => true,
            Stage::Searching { .. } => false,
            Stage::Settled { at } => self.stale && self.steps - at >= self.trials.again_after,
        }
    }

    pub(super) fn is_searching(&self) -> bool {
        matches!(self.stage, Stage::Searching { .. })
    }

    /// Begins a search, with the reason against every way that is not possible. Launches always are.
    pub(super) fn begin(&mut self, excluded: [Option<String>; 3]) {
        for (way, (candidate, excluded)) in Way::ALL.iter().zip(self.ways.iter_mut().zip(excluded))
        {
            let excluded = excluded.filter(|_| *way != Way::Launch);
            *candidate = Candidate { excluded, blocks: Vec::new() };
        }
        self.stale = false;
        self.stage = Stage::Searching { round: 0, place: 0, step: 0 };
        self.skip_impossible();
    }

    /// Gives a search up that somebody else waits for; it is still wanted.
    pub(super) fn give_up(&mut self) {
        if self.is_searching() {
            self.stage = Stage::Wanted;
            self.begun_anew = false;
        }
    }

    /// How the next step goes.
    pub(super) fn next(&self) -> Turn {
        match self.stage {
            Stage::Searching { round, place, step } => Turn {
                way: at(round, place),
                starts: step == self.trials.warm_up,
                ends: step + 1 == self.trials.warm_up + self.trials.steps,
            },
            Stage::Wanted | Stage::Settled { .. } => {
                Turn { way: self.way, starts: false, ends: false }
            }
        }
    }

    /// The step of `next` ran; with the block's microseconds a step where it was the block's end.
    pub(super) fn ran(&mut self, cost: Option<f64>) {
        self.steps += 1;
        let ends = self.next().ends;
        let Stage::Searching { round, place, step } = &mut self.stage else { return };
        self.trial_steps += 1;
        if !ends {
            *step += 1;
            return;
        }
        let way = at(*round, *place);
        (*place, *step) = (*place + 1, 0);
        self.ways[way.index()].blocks.extend(cost.filter(|cost| cost.is_finite()));
        self.skip_impossible();
    }

    /// The step of `next` ran by launches instead, since its way is not possible, for a reason.
    pub(super) fn refused(&mut self, way: Way, reason: String) {
        self.steps += 1;
        self.trial_steps += u64::from(self.is_searching());
        if way == Way::Launch {
            return;
        }
        self.ways[way.index()] = Candidate { excluded: Some(reason), blocks: Vec::new() };
        match &mut self.stage {
            Stage::Searching { round, place, step } if at(*round, *place) == way => {
                *step = 0;
                self.skip_impossible();
            }
            Stage::Settled { .. } if self.way == way => {
                // By what is known of the others, until it may be tried again.
                self.stale = true;
                self.way = self.best().map_or(Way::Launch, |(best, _)| best);
                self.choice = Choice::FellBack { from: way };
            }
            _ => {}
        }
    }

    /// What runs is not what it was.
    pub(super) fn changed(&mut self) {
        match self.stage {
            Stage::Wanted => {}
            Stage::Searching { .. } if !self.begun_anew => {
                self.begun_anew = true;
                self.stage = Stage::Wanted;
            }
            Stage::Searching { .. } | Stage::Settled { .. } => self.stale = true,
        }
    }

    /// Goes on to the next block of a possible way, or to the decision.
    fn skip_impossible(&mut self) {
        let possible = self.ways.iter().filter(|way| way.excluded.is_none()).count();
        let Stage::Searching { round, place, .. } = &mut self.stage else { return };
        while *round < self.trials.rounds && possible > 1 {
            if *place == Way::ALL.len() {
                (*place, *round) = (0, *round + 1);
            } else if self.ways[at(*round, *place).index()].excluded.is_some() {
                *place += 1;
            } else {
                return;
            }
        }
        self.settle(possible);
    }

    fn settle(&mut self, possible: usize) {
        self.stage = Stage::Settled { at: self.steps };
        self.begun_anew = false;
        self.searches += 1;
        let was = self.way;
        let Some((fastest, least)) = self.best().filter(|_| possible > 1) else {
            (self.way, self.choice) = (Way::Launch, Choice::Only);
            return;
        };
        let near = |way: &Way| {
            let candidate = &self.ways[way.index()];
            let median = candidate.median().filter(|_| candidate.excluded.is_none());
            median.is_some_and(|median| median <= least * (1.0 + self.trials.margin))
        };
        // A choice that was made before, and not the way that steps went by for want of one.
        let before = Some(was).filter(|_| self.searches > 1);
        let chosen = before.into_iter().chain(Way::ALL).find(near).unwrap_or(fastest);
        self.choice = match chosen == fastest {
            true => Choice::Fastest,
            false => Choice::WithinMargin { fastest },
        };
        self.way = chosen;
    }

    /// The way with the least median, the simplest of equals.
    fn best(&self) -> Option<(Way, f64)> {
        let of = |way: Way| {
            let candidate = &self.ways[way.index()];
            candidate.median().filter(|_| candidate.excluded.is_none()).map(|median| (way, median))
        };
        Way::ALL.into_iter().filter_map(of).min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// The `place`-th way of a round.
fn at(round: u32, place: usize) -> Way {
    Way::ALL[(place + round as usize) % Way::ALL.len()]
}

#[cfg(test)]
mod tests;
