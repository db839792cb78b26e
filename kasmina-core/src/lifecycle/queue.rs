//! Commands: checked when given, one waiting per seed, applied together when the epoch ends.

use std::sync::Arc;

use super::{Cause, Lifecycle, Transition};
use crate::{Command, Error, Result, State};

/// A command on its way to the epoch boundary.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) command: Command,
    pub(crate) why: Arc<str>,
}

/// What an epoch boundary did.
#[derive(Debug, Default)]
#[must_use = "refused commands are reported here and nowhere else"]
pub struct EpochOutcome {
    /// The epoch that ended.
    pub epoch: u32,
    /// The transitions, a roll-back's first, then by seed.
    pub transitions: Vec<Transition>,
    /// Commands that were legal when given and no longer are, or whose blueprint could not be made.
    pub refused: Vec<Refusal>,
}

/// A waiting command that was not applied; its seed is as it was.
#[derive(Debug)]
pub struct Refusal {
    /// The seed.
    pub seed: usize,
    /// The command.
    pub command: Command,
    /// Why it was refused.
    pub error: Error,
}

impl Lifecycle {
    /// Gives a seed a command, with the reason that the history will show. It is applied by
    /// [`Lifecycle::end_epoch`], where it is checked once more.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`]; [`Error::CommandPending`] if the seed already has one waiting, or
    /// [`Error::RollBackPending`] if a waiting roll-back will take it; [`Error::IllegalCommand`] if its
    /// state, alpha, steps or embargo do not allow it; for a germination also
    /// [`Error::UnregisteredBlueprint`], [`Error::TooLarge`], [`Error::Memory`] and the errors of
    /// [`Strategy::validate`](crate::graft::Strategy::validate).
    pub fn command(&mut self, seed: usize, command: Command, why: impl Into<String>) -> Result<()> {
        let seed = self.layout.check(seed)?;
        if let Some(waiting) = self.waiting.get(&(seed as u32)) {
            let (pending, command) = (waiting.command.name(), command.name());
            return Err(Error::CommandPending { seed, pending, command });
        }
        if self.roll_back.is_some() && self.table.states()[seed].removable() {
            return Err(Error::RollBackPending);
        }
        self.check(seed, &command)?;
        self.waiting.insert(seed as u32, Waiting { command, why: why.into().into() });
        Ok(())
    }

    /// Takes a seed's waiting command back.
    pub fn withdraw(&mut self, seed: usize) -> Option<Command> {
        let waiting = self.waiting.remove(&u32::try_from(seed).ok()?)?;
        Some(waiting.command)
    }

    /// Takes every seed in TRAINING … FINE_TUNING to ROLLED_BACK when the epoch ends. It goes before the
    /// commands waiting for those seeds, which are then reported as refused.
    ///
    /// # Errors
    /// [`Error::RollBackPending`] if one is waiting, [`Error::NothingToRollBack`] if no seed is in those
    /// states.
    pub fn roll_back(&mut self, why: impl Into<String>) -> Result<()> {
        if self.roll_back.is_some() {
            return Err(Error::RollBackPending);
        }
        if !self.grown.keys().any(|&seed| self.table.states()[seed as usize].removable()) {
            return Err(Error::NothingToRollBack);
        }
        self.roll_back = Some(why.into().into());
        Ok(())
    }

    /// Takes a waiting roll-back back; whether there was one.
    pub fn withdraw_roll_back(&mut self) -> bool {
        self.roll_back.take().is_some()
    }

    /// Ends the epoch: applies a waiting roll-back, then the waiting commands in the order of their
    /// seeds. Costs as much as there are commands and updated GRAFTING seeds, however many seeds
    /// there are.
    pub fn end_epoch(&mut self) -> EpochOutcome {
        let mut outcome = EpochOutcome { epoch: self.epoch, ..EpochOutcome::default() };
        let waiting = std::mem::take(&mut self.waiting);
        let roll_back = self.roll_back.take();
        self.epoch = self.epoch.saturating_add(1);
        outcome.transitions.reserve(waiting.len());

        if let Some(why) = &roll_back {
            let taken: Vec<_> = self.grown.keys().map(|&seed| seed as usize).collect();
            for seed in taken {
                if self.table.states()[seed].removable() {
                    let (to, cause) = (State::RolledBack, Cause::RollBack);
                    outcome.transitions.push(self.transition(seed, to, cause, why.clone(), None));
                }
            }
        }
        for (seed, Waiting { command, why }) in waiting {
            let seed = seed as usize;
            match self.apply(seed, &command, why) {
                Ok(transition) => outcome.transitions.push(transition),
                Err(error) => {
                    tracing::warn!(
                        target: "kasmina::lifecycle", seed, command = command.name(), %error,
                        "command refused at the epoch boundary"
                    );
                    outcome.refused.push(Refusal { seed, command, error });
                }
            }
        }
        for seed in std::mem::take(&mut self.moved) {
            if let Some(grown) = self.grown.get_mut(&seed) {
                grown.moved = false;
                // A seed that has left GRAFTING since has no reference any more.
                if !grown.reference.is_empty() {
                    grown.reference.copy_from_slice(&grown.parameters);
                }
            }
        }
        outcome
    }

    /// Whether a command or a roll-back waits for the epoch's end.
    pub(crate) fn anything_waits(&self) -> bool {
        !self.waiting.is_empty() || self.roll_back.is_some()
    }

    fn apply(&mut self, seed: usize, command: &Command, why: Arc<str>) -> Result<Transition> {
        let to = self.check(seed, command)?;
        let growth = match command {
            Command::Germinate(germination) => Some(self.grow(seed, germination)?),
            _ => None,
        };
        Ok(self.transition(seed, to, Cause::from(command), why, growth))
    }

    /// The state that the command leads to, if everything it needs is there.
    fn check(&mut self, seed: usize, command: &Command) -> Result<State> {
        let row = self.table.row(seed);
        let illegal = |reason: String| Error::IllegalCommand {
            seed,
            state: row.state,
            command: command.name(),
            reason,
        };
        let to =
            command.target(row.state).ok_or_else(|| illegal(command.legal_from().to_owned()))?;
        match command {
            Command::Germinate(germination) => self.check_germination(seed, germination)?,
            Command::Stabilize if row.alpha < self.config.target_alpha => {
                let target = self.config.target_alpha;
                return Err(illegal(format!("alpha is {}, its target {target}", row.alpha)));
            }
            Command::Evaluate => {
                let (done, needed) = (self.steps_in_state(seed)?, self.config.stabilization_steps);
                if done < needed {
                    return Err(illegal(format!("{done} of {needed} steps are done")));
                }
            }
            Command::Reset if self.epoch < row.embargo_until => {
                let (epoch, until) = (self.epoch, row.embargo_until);
                return Err(illegal(format!("under embargo until epoch {until}, now {epoch}")));
            }
            _ => {}
        }
        Ok(to)
    }
}

impl From<&Command> for Cause {
    fn from(command: &Command) -> Self {
        match command {
            Command::Germinate(_) => Self::Germinate,
            Command::Promote => Self::Promote,
            Command::Graft => Self::Graft,
            Command::Stabilize => Self::Stabilize,
            Command::Evaluate => Self::Evaluate,
            Command::FineTune => Self::FineTune,
            Command::Fossilize => Self::Fossilize,
            Command::Cull => Self::Cull,
            Command::Cancel => Self::Cancel,
            Command::Reset => Self::Reset,
        }
    }
}
