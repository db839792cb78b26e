//! The record of a layer's transitions, bounded, the oldest going first.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::{BlueprintId, Error, Result, State};

/// What made a seed change its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Cause {
    /// The command of this name; likewise those that follow.
    Germinate = 0,
    /// GERMINATED → TRAINING.
    Promote = 1,
    /// TRAINING → GRAFTING.
    Graft = 2,
    /// GRAFTING → STABILIZATION.
    Stabilize = 3,
    /// STABILIZATION → EVALUATING.
    Evaluate = 4,
    /// EVALUATING → FINE_TUNING.
    FineTune = 5,
    /// FINE_TUNING → FOSSILIZED.
    Fossilize = 6,
    /// TRAINING … FINE_TUNING → CULLED.
    Cull = 7,
    /// GERMINATED, TRAINING → CANCELLED.
    Cancel = 8,
    /// CULLED, CANCELLED → DORMANT.
    Reset = 9,
    /// A roll-back of the whole layer.
    RollBack = 10,
    /// A checkpoint was restored; the only cause that leads from any state to any other.
    Restore = 11,
}

impl Cause {
    /// All causes, in the order of their codes.
    pub const ALL: [Self; 12] = [
        Self::Germinate,
        Self::Promote,
        Self::Graft,
        Self::Stabilize,
        Self::Evaluate,
        Self::FineTune,
        Self::Fossilize,
        Self::Cull,
        Self::Cancel,
        Self::Reset,
        Self::RollBack,
        Self::Restore,
    ];

    /// The cause's name, such as `"fine_tune"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Germinate => "germinate",
            Self::Promote => "promote",
            Self::Graft => "graft",
            Self::Stabilize => "stabilize",
            Self::Evaluate => "evaluate",
            Self::FineTune => "fine_tune",
            Self::Fossilize => "fossilize",
            Self::Cull => "cull",
            Self::Cancel => "cancel",
            Self::Reset => "reset",
            Self::RollBack => "roll_back",
            Self::Restore => "restore",
        }
    }
}

impl TryFrom<u8> for Cause {
    type Error = Error;

    fn try_from(code: u8) -> Result<Self> {
        Self::ALL.get(usize::from(code)).copied().ok_or(Error::UnknownCode {
            what: "transition cause",
            code: code.into(),
            last: 11,
        })
    }
}

/// One change of one seed's state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transition {
    /// The epoch at whose end it happened.
    pub epoch: u32,
    /// Training steps done by then.
    pub step: u64,
    /// The seed.
    pub seed: u32,
    /// The state it left.
    pub from: State,
    /// The state it entered.
    pub to: State,
    /// What made it change.
    pub cause: Cause,
    /// The blueprint it had, gained or lost with this.
    pub blueprint: Option<BlueprintId>,
    /// The reason given with the command.
    #[serde(serialize_with = "text")]
    pub why: Arc<str>,
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// The transitions of a layer in the order in which they happened.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    entries: VecDeque<Transition>,
    limit: usize,
    dropped: u64,
}

impl History {
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), limit, dropped: 0 }
    }

    /// Starts over with `entries`, of which `dropped` earlier ones are already gone.
    pub(crate) fn replace(
        &mut self,
        entries: impl IntoIterator<Item = Transition>,
        limit: usize,
        dropped: u64,
    ) {
        *self = Self { entries: VecDeque::new(), limit, dropped };
        entries.into_iter().for_each(|entry| self.push(entry));
    }

    pub(crate) fn push(&mut self, transition: Transition) {
        if self.entries.len() >= self.limit {
            self.entries.pop_front();
            self.dropped += 1;
        }
        self.entries.push_back(transition);
    }

    /// The entries kept, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Transition> + DoubleEndedIterator {
        self.entries.iter()
    }

    /// Entries of one seed, oldest first.
    pub fn of(&self, seed: usize) -> impl Iterator<Item = &Transition> {
        self.entries.iter().filter(move |entry| entry.seed as usize == seed)
    }

    /// Number of entries kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no entry is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that went because the history was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
