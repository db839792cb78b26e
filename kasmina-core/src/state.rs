//! The eleven lifecycle states and what each means for the data path.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;

/// A seed's lifecycle state; the discriminant is its code in checkpoints, telemetry and kernels.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum State {
    /// Watching its chunk.
    #[default]
    Dormant = 0,
    /// Owns parameters of a blueprint, not yet trained.
    Germinated = 1,
    /// Its shadow branch trains; the output is untouched.
    Training = 2,
    /// Being blended in by alpha.
    Grafting = 3,
    /// On path with frozen parameters, settling.
    Stabilization = 4,
    /// On path with frozen parameters, being judged.
    Evaluating = 5,
    /// On path and trained once more.
    FineTuning = 6,
    /// Kept for good.
    Fossilized = 7,
    /// Removed after harm; under embargo.
    Culled = 8,
    /// Given up before it was on path.
    Cancelled = 9,
    /// Taken out by a roll-back of the layer; only a checkpoint brings it back.
    RolledBack = 10,
}

impl State {
    /// All states, in the order of their codes.
    pub const ALL: [Self; 11] = [
        Self::Dormant,
        Self::Germinated,
        Self::Training,
        Self::Grafting,
        Self::Stabilization,
        Self::Evaluating,
        Self::FineTuning,
        Self::Fossilized,
        Self::Culled,
        Self::Cancelled,
        Self::RolledBack,
    ];

    /// Names in the order of the codes, as reports print them.
    pub const NAMES: [&'static str; 11] = [
        "DORMANT",
        "GERMINATED",
        "TRAINING",
        "GRAFTING",
        "STABILIZATION",
        "EVALUATING",
        "FINE_TUNING",
        "FOSSILIZED",
        "CULLED",
        "CANCELLED",
        "ROLLED_BACK",
    ];

    /// The state's code, 0 to 10.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The state's name, such as `"FINE_TUNING"`.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether a seed in this state changes the layer's output. A list, never an order of codes:
    /// culled, cancelled and rolled-back seeds come after these and are off path.
    pub fn on_path(self) -> bool {
        matches!(
            self,
            Self::Grafting
                | Self::Stabilization
                | Self::Evaluating
                | Self::FineTuning
                | Self::Fossilized
        )
    }

    /// Whether parameter gradients are computed in this state; elsewhere parameters are frozen.
    pub fn trainable(self) -> bool {
        matches!(self, Self::Training | Self::Grafting | Self::FineTuning)
    }

    /// Whether a seed in this state owns parameters.
    pub fn owns_parameters(self) -> bool {
        matches!(self, Self::Germinated | Self::Training) || self.on_path()
    }

    /// Whether `cull` and a layer's roll-back apply: `TRAINING … FINE_TUNING`.
    pub fn removable(self) -> bool {
        matches!(self, Self::Training) || (self.on_path() && self != Self::Fossilized)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<u8> for State {
    type Error = Error;

    fn try_from(code: u8) -> Result<Self, Error> {
        Self::ALL.get(usize::from(code)).copied().ok_or(Error::UnknownCode {
            what: "lifecycle state",
            code: code.into(),
            last: 10,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_unknown_codes_are_errors() {
        for code in 0..=u8::MAX {
            match State::try_from(code) {
                Ok(state) => assert_eq!(state.code(), code),
                Err(error) => {
                    assert!(code > 10);
                    assert!(error.to_string().contains(&code.to_string()));
                }
            }
        }
    }

    #[test]
    fn terminal_states_are_off_path() {
        for state in [State::Culled, State::Cancelled, State::RolledBack] {
            assert!(!state.on_path() && !state.trainable() && !state.owns_parameters());
        }
    }
}
