//! What a controller or a user may ask of a seed, and how a seed is trained.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{BlueprintId, State, graft::Strategy};

/// What a TRAINING seed learns from. It never changes the layer's output or its input gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Objective {
    /// Parameter gradients of the task loss as if alpha were 1, at the host's activations.
    #[default]
    StraightThrough = 0,
    /// The mean of (T(x) − x)² over rows × chunk.
    Reconstruction = 1,
    /// Gradients only from forward passes that probe the seed
    /// (see [`ForwardOptions::probe`](crate::ForwardOptions::probe)).
    Probe = 2,
}

impl TryFrom<u8> for Objective {
    type Error = crate::Error;

    fn try_from(code: u8) -> Result<Self, Self::Error> {
        match code {
            0 => Ok(Self::StraightThrough),
            1 => Ok(Self::Reconstruction),
            2 => Ok(Self::Probe),
            _ => Err(crate::Error::UnknownCode { what: "objective", code: code.into(), last: 2 }),
        }
    }
}

/// What to grow in a dormant seed, how to blend it in, and how to train it.
#[derive(Clone, Debug, PartialEq)]
pub struct Germination {
    /// Which template of the layer's registry.
    pub blueprint: BlueprintId,
    /// How alpha rises while the seed is GRAFTING.
    pub strategy: Strategy,
    /// What the seed learns from while TRAINING.
    pub objective: Objective,
}

impl Germination {
    /// `blueprint` with the default strategy (a fixed ramp of 30 steps) and objective
    /// (straight-through).
    pub fn new(blueprint: BlueprintId) -> Self {
        Self { blueprint, strategy: Strategy::default(), objective: Objective::default() }
    }

    /// The same with another strategy.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// The same with another objective.
    #[must_use]
    pub fn objective(mut self, objective: Objective) -> Self {
        self.objective = objective;
        self
    }
}

/// A command to one seed. Commands are checked when given and applied together at the epoch boundary.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// DORMANT → GERMINATED.
    Germinate(Germination),
    /// GERMINATED → TRAINING.
    Promote,
    /// TRAINING → GRAFTING.
    Graft,
    /// GRAFTING with alpha at its target → STABILIZATION.
    Stabilize,
    /// STABILIZATION, after enough steps → EVALUATING.
    Evaluate,
    /// EVALUATING → FINE_TUNING.
    FineTune,
    /// FINE_TUNING → FOSSILIZED.
    Fossilize,
    /// TRAINING … FINE_TUNING → CULLED, under embargo.
    Cull,
    /// GERMINATED, TRAINING → CANCELLED.
    Cancel,
    /// CULLED after its embargo, CANCELLED → DORMANT.
    Reset,
}

impl Command {
    /// The command's name, such as `"fine_tune"`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Germinate(_) => "germinate",
            Self::Promote => "promote",
            Self::Graft => "graft",
            Self::Stabilize => "stabilize",
            Self::Evaluate => "evaluate",
            Self::FineTune => "fine_tune",
            Self::Fossilize => "fossilize",
            Self::Cull => "cull",
            Self::Cancel => "cancel",
            Self::Reset => "reset",
        }
    }

    /// The state the command leads to from `from`; `None` where the table has no such row.
    pub fn target(&self, from: State) -> Option<State> {
        use State::*;
        match (self, from) {
            (Self::Germinate(_), Dormant) => Some(Germinated),
            (Self::Promote, Germinated) => Some(Training),
            (Self::Graft, Training) => Some(Grafting),
            (Self::Stabilize, Grafting) => Some(Stabilization),
            (Self::Evaluate, Stabilization) => Some(Evaluating),
            (Self::FineTune, Evaluating) => Some(FineTuning),
            (Self::Fossilize, FineTuning) => Some(Fossilized),
            (Self::Cull, state) if state.removable() => Some(Culled),
            (Self::Cancel, Germinated | Training) => Some(Cancelled),
            (Self::Reset, Culled | Cancelled) => Some(Dormant),
            _ => None,
        }
    }

    /// The states the command is legal in, in words for an error message.
    pub fn legal_from(&self) -> &'static str {
        match self {
            Self::Germinate(_) => "legal in DORMANT",
            Self::Promote => "legal in GERMINATED",
            Self::Graft => "legal in TRAINING",
            Self::Stabilize => "legal in GRAFTING with alpha at its target",
            Self::Evaluate => "legal in STABILIZATION after its steps",
            Self::FineTune => "legal in EVALUATING",
            Self::Fossilize => "legal in FINE_TUNING",
            Self::Cull => "legal in TRAINING to FINE_TUNING",
            Self::Cancel => "legal in GERMINATED and TRAINING",
            Self::Reset => "legal in CANCELLED, and in CULLED after its embargo",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
