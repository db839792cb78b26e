//! The lifecycle table of section 2.1 as plain data, for tests that walk it at random.

/// Waiting; measures its chunk.
pub const DORMANT: u8 = 0;
/// Holds a fresh blueprint.
pub const GERMINATED: u8 = 1;
/// Trains without touching the host.
pub const TRAINING: u8 = 2;
/// Is blended in.
pub const GRAFTING: u8 = 3;
/// Holds still at its target alpha.
pub const STABILIZATION: u8 = 4;
/// Is judged.
pub const EVALUATING: u8 = 5;
/// Trains on path.
pub const FINE_TUNING: u8 = 6;
/// Kept for good.
pub const FOSSILIZED: u8 = 7;
/// Removed, under embargo.
pub const CULLED: u8 = 8;
/// Given up before it reached the path.
pub const CANCELLED: u8 = 9;
/// Rolled back with the whole layer.
pub const ROLLED_BACK: u8 = 10;
/// The highest code.
pub const LAST: u8 = 10;

/// "*On path* (changes the output): GRAFTING, STABILIZATION, EVALUATING, FINE_TUNING, FOSSILIZED —
/// an explicit list".
#[must_use]
pub fn on_path(state: u8) -> bool {
    matches!(state, GRAFTING | STABILIZATION | EVALUATING | FINE_TUNING | FOSSILIZED)
}

/// "*Trainable*: TRAINING, GRAFTING, FINE_TUNING; otherwise parameters are frozen and no parameter
/// gradient is computed."
#[must_use]
pub fn trainable(state: u8) -> bool {
    matches!(state, TRAINING | GRAFTING | FINE_TUNING)
}

/// The commands of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Plant a blueprint.
    Germinate,
    /// Start to train it.
    Promote,
    /// Start to blend it in.
    Graft,
    /// Blending is done.
    Stabilize,
    /// Start to judge.
    Evaluate,
    /// Train on path.
    FineTune,
    /// Keep for good.
    Fossilize,
    /// Remove.
    Cull,
    /// Give up before the path.
    Cancel,
    /// Undo the whole layer.
    RollBack,
    /// Free the place.
    Reset,
}

impl Command {
    /// Every command, in the table's order.
    pub const ALL: [Self; 11] = [
        Self::Germinate,
        Self::Promote,
        Self::Graft,
        Self::Stabilize,
        Self::Evaluate,
        Self::FineTune,
        Self::Fossilize,
        Self::Cull,
        Self::Cancel,
        Self::RollBack,
        Self::Reset,
    ];
}

/// What a legal pair needs besides the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// "alpha at its target".
    AlphaAtTarget,
    /// "after N steps" in the state.
    StepsPassed,
    /// "after its embargo".
    EmbargoOver,
    /// Given to every seed of the layer at once; seeds in other states stay as they are.
    WholeLayer,
}

/// One legal transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: u8,
    /// The command.
    pub command: Command,
    /// The state after.
    pub to: u8,
    /// What else must hold.
    pub condition: Condition,
}

const fn row(from: u8, command: Command, to: u8, condition: Condition) -> Transition {
    Transition { from, command, to, condition }
}

/// Every legal (state, command) pair; "Anything else is an error".
pub const TRANSITIONS: [Transition; 21] = [
    row(DORMANT, Command::Germinate, GERMINATED, Condition::Always),
    row(GERMINATED, Command::Promote, TRAINING, Condition::Always),
    row(TRAINING, Command::Graft, GRAFTING, Condition::Always),
    row(GRAFTING, Command::Stabilize, STABILIZATION, Condition::AlphaAtTarget),
    row(STABILIZATION, Command::Evaluate, EVALUATING, Condition::StepsPassed),
    row(EVALUATING, Command::FineTune, FINE_TUNING, Condition::Always),
    row(FINE_TUNING, Command::Fossilize, FOSSILIZED, Condition::Always),
    row(TRAINING, Command::Cull, CULLED, Condition::Always),
    row(GRAFTING, Command::Cull, CULLED, Condition::Always),
    row(STABILIZATION, Command::Cull, CULLED, Condition::Always),
    row(EVALUATING, Command::Cull, CULLED, Condition::Always),
    row(FINE_TUNING, Command::Cull, CULLED, Condition::Always),
    row(GERMINATED, Command::Cancel, CANCELLED, Condition::Always),
    row(TRAINING, Command::Cancel, CANCELLED, Condition::Always),
    row(TRAINING, Command::RollBack, ROLLED_BACK, Condition::WholeLayer),
    row(GRAFTING, Command::RollBack, ROLLED_BACK, Condition::WholeLayer),
    row(STABILIZATION, Command::RollBack, ROLLED_BACK, Condition::WholeLayer),
    row(EVALUATING, Command::RollBack, ROLLED_BACK, Condition::WholeLayer),
    row(FINE_TUNING, Command::RollBack, ROLLED_BACK, Condition::WholeLayer),
    row(CULLED, Command::Reset, DORMANT, Condition::EmbargoOver),
    row(CANCELLED, Command::Reset, DORMANT, Condition::Always),
];

/// The transition that `command` makes from `state`, or none where the table has none.
#[must_use]
pub fn transition(state: u8, command: Command) -> Option<Transition> {
    TRANSITIONS.into_iter().find(|t| t.from == state && t.command == command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_stands_once() {
        for (i, a) in TRANSITIONS.iter().enumerate() {
            assert!(a.from <= LAST && a.to <= LAST && a.from != a.to);
            for b in &TRANSITIONS[i + 1..] {
                assert!(a.from != b.from || a.command != b.command, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn terminal_states_are_left_by_no_command() {
        for state in [FOSSILIZED, ROLLED_BACK] {
            assert!(Command::ALL.iter().all(|c| transition(state, *c).is_none()));
        }
    }

    #[test]
    fn every_state_is_reached_from_dormant() {
        let mut reached = vec![DORMANT];
        let mut next = 0;
        while let Some(&state) = reached.get(next) {
            for t in TRANSITIONS.iter().filter(|t| t.from == state) {
                if !reached.contains(&t.to) {
                    reached.push(t.to);
                }
            }
            next += 1;
        }
        reached.sort_unstable();
        assert_eq!(reached, (0..=LAST).collect::<Vec<_>>());
    }

    #[test]
    fn path_and_trainable_are_the_lists() {
        let path: Vec<u8> = (0..=255).filter(|s| on_path(*s)).collect();
        assert_eq!(path, [3, 4, 5, 6, 7]);
        let trainable: Vec<u8> = (0..=255).filter(|s| trainable(*s)).collect();
        assert_eq!(trainable, [2, 3, 6]);
    }
}
