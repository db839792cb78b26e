//! Readiness: what a seed is ready for, what it still lacks, or that it does harm.
//!
//! A signal that was not measured is missing. It never counts as good and never as bad.

use std::fmt;

use super::{Lifecycle, signals::fresh};
use crate::graft::{Hold, Signal};
use crate::{Command, Result, State};

/// What the measurements say about a seed.
#[derive(Clone, Debug, PartialEq)]
pub enum Readiness {
    /// Nothing stands against this command.
    Ready(Verdict),
    /// The seed is measured to do harm, or to learn nothing; this command takes it out.
    Harmful(Verdict),
    /// What is still missing.
    Waiting(Vec<Missing>),
    /// Nothing is due: a dormant, fossilized or rolled-back seed.
    Settled,
}

/// A command and the measurement behind it, in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The command that is due.
    pub command: Command,
    /// Why.
    pub why: String,
}

/// One thing that holds a seed back.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Missing {
    /// Too few training steps in the state.
    Steps {
        /// Steps done.
        done: u64,
        /// Steps needed.
        needed: u64,
    },
    /// The embargo is not over.
    Embargo {
        /// The running epoch.
        epoch: u32,
        /// The first epoch after the embargo.
        until: u32,
    },
    /// Alpha is not at its target.
    Alpha {
        /// Alpha.
        value: f32,
        /// Its target.
        target: f32,
        /// Why the next step would not move it, if it would not.
        hold: Option<Hold>,
    },
    /// A signal was not measured in this state in this or the previous epoch.
    Unmeasured {
        /// The signal.
        signal: Signal,
    },
    /// The training loss has not fallen enough.
    LossFall {
        /// Its fall, relative to the first loss in this state.
        value: f64,
        /// The fall needed.
        needed: f64,
    },
    /// A held-back loss is over its limit, though not by enough to be harm.
    LossLimit {
        /// The loss.
        value: f64,
        /// The limit.
        limit: f64,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps { done, needed } => write!(f, "{done} of {needed} steps"),
            Self::Embargo { epoch, until } => {
                write!(f, "under embargo until epoch {until}, now {epoch}")
            }
            Self::Alpha { value, target, hold: None } => write!(f, "alpha {value:.3} of {target}"),
            Self::Alpha { value, target, hold: Some(hold) } => {
                write!(f, "alpha {value:.3} of {target}, held: {hold}")
            }
            Self::Unmeasured { signal } => write!(f, "{signal} not measured"),
            Self::LossFall { value, needed } => {
                write!(f, "loss fell by {:.2} %, needs {:.2} %", 100.0 * value, 100.0 * needed)
            }
            Self::LossLimit { value, limit } => {
                write!(f, "held-back loss {value:.5} over its limit {limit:.5}")
            }
        }
    }
}

impl Lifecycle {
    /// What the seed is ready for. Thresholds are [`Gates`](super::Gates); measurements come from
    /// [`Lifecycle::record`].
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed).
    pub fn readiness(&self, seed: usize) -> Result<Readiness> {
        let seed = self.layout.check(seed)?;
        let row = self.table.row(seed);
        Ok(match row.state {
            State::Dormant | State::Fossilized | State::RolledBack => Readiness::Settled,
            State::Germinated => ready(Command::Promote, "its parameters are initialised".into()),
            State::Cancelled => ready(Command::Reset, "it was cancelled".into()),
            State::Culled if self.epoch >= row.embargo_until => {
                ready(Command::Reset, format!("its embargo ended with epoch {}", row.embargo_until))
            }
            State::Culled => {
                let (epoch, until) = (self.epoch, row.embargo_until);
                Readiness::Waiting(vec![Missing::Embargo { epoch, until }])
            }
            State::Training => self.training_gate(seed),
            State::Grafting => self.harm_so_far(seed).unwrap_or_else(|| {
                let (value, target) = (row.alpha, self.config.target_alpha);
                if value >= target {
                    return ready(Command::Stabilize, format!("alpha is at its target {target}"));
                }
                let hold = self.hold(seed);
                Readiness::Waiting(vec![Missing::Alpha { value, target, hold }])
            }),
            State::Stabilization => self.harm_so_far(seed).unwrap_or_else(|| {
                let needed = self.config.stabilization_steps;
                match self.lacks_steps(seed, needed) {
                    Some(missing) => Readiness::Waiting(vec![missing]),
                    None => ready(Command::Evaluate, format!("it has settled for {needed} steps")),
                }
            }),
            State::Evaluating => self.evaluation_gate(seed),
            State::FineTuning => self.fine_tuning_gate(seed),
        })
    }

    fn lacks_steps(&self, seed: usize, needed: u64) -> Option<Missing> {
        let done = self.steps_in_state(seed).unwrap_or(0);
        (done < needed).then_some(Missing::Steps { done, needed })
    }

    /// The latest held-back loss and its counterfactual, where they still count.
    fn held_back(&self, seed: usize) -> (Option<f64>, Option<f64>) {
        self.grown(seed).map_or((None, None), |grown| {
            let measured = &grown.measured;
            (fresh(measured.held_back, self.epoch), fresh(measured.counterfactual, self.epoch))
        })
    }

    fn training_gate(&self, seed: usize) -> Readiness {
        let gates = &self.config.gates;
        let measured = self.grown(seed).map(|grown| grown.measured).unwrap_or_default();
        let mut missing: Vec<_> =
            self.lacks_steps(seed, gates.training_steps).into_iter().collect();
        let (Some(first), Some(last)) = (measured.initial_loss, fresh(measured.loss, self.epoch))
        else {
            missing.push(Missing::Unmeasured { signal: Signal::Loss });
            return Readiness::Waiting(missing);
        };
        let fall = relative_fall(first, last);
        let needed = gates.training_fall;
        if fall < needed {
            if self.lacks_steps(seed, gates.training_patience).is_none() {
                let why = format!(
                    "its loss went from {first:.5} to {last:.5} in {} steps, a fall of {:.2} % where \
                     {:.2} % is needed",
                    self.steps_in_state(seed).unwrap_or(0),
                    100.0 * fall,
                    100.0 * needed
                );
                return harmful(Command::Cancel, why);
            }
            missing.push(Missing::LossFall { value: fall, needed });
        }
        if !missing.is_empty() {
            return Readiness::Waiting(missing);
        }
        ready(Command::Graft, format!("its loss fell from {first:.5} to {last:.5}"))
    }

    /// Harm measured before the seed is due to be judged.
    fn harm_so_far(&self, seed: usize) -> Option<Readiness> {
        let (Some(actual), Some(without)) = self.held_back(seed) else {
            return None;
        };
        let limit = limit(without, self.config.gates.early_harm);
        (actual > limit).then(|| harmful(Command::Cull, worse(actual, without)))
    }

    fn evaluation_gate(&self, seed: usize) -> Readiness {
        let (actual, without) = self.held_back(seed);
        let (Some(actual), Some(without)) = (actual, without) else {
            return Readiness::Waiting(unmeasured([
                (Signal::HeldBackLoss, actual),
                (Signal::CounterfactualLoss, without),
            ]));
        };
        let limit = limit(without, self.config.gates.evaluation_tolerance);
        if actual > limit {
            harmful(Command::Cull, worse(actual, without))
        } else if actual.is_infinite() {
            // As bad as without the seed, but nothing to build on.
            Readiness::Waiting(vec![Missing::LossLimit { value: actual, limit }])
        } else {
            let why = format!("held-back loss {actual:.5}, without the seed {without:.5}");
            ready(Command::FineTune, why)
        }
    }

    fn fine_tuning_gate(&self, seed: usize) -> Readiness {
        let gates = &self.config.gates;
        let (actual, without) = self.held_back(seed);
        let accepted = self.grown(seed).and_then(|grown| grown.accepted_loss);
        if let (Some(actual), Some(without)) = (actual, without)
            && actual > limit(without, gates.evaluation_tolerance)
        {
            return harmful(Command::Cull, worse(actual, without));
        }
        let mut missing: Vec<_> =
            self.lacks_steps(seed, gates.fine_tuning_steps).into_iter().collect();
        match (actual, accepted.or(without)) {
            (None, _) => missing.push(Missing::Unmeasured { signal: Signal::HeldBackLoss }),
            (_, None) => missing.push(Missing::Unmeasured { signal: Signal::CounterfactualLoss }),
            (Some(actual), Some(basis)) => {
                let limit = limit(basis, gates.fine_tuning_tolerance);
                if actual > limit || actual.is_infinite() {
                    missing.push(Missing::LossLimit { value: actual, limit });
                } else if missing.is_empty() {
                    let why = format!("held-back loss {actual:.5}, at most {limit:.5} allowed");
                    return ready(Command::Fossilize, why);
                }
            }
        }
        Readiness::Waiting(missing)
    }
}

fn ready(command: Command, why: String) -> Readiness {
    Readiness::Ready(Verdict { command, why })
}

fn harmful(command: Command, why: String) -> Readiness {
    Readiness::Harmful(Verdict { command, why })
}

fn worse(actual: f64, without: f64) -> String {
    format!("held-back loss {actual:.5} is worse than {without:.5} without the seed")
}

/// `basis` and `tolerance` of its size on top.
fn limit(basis: f64, tolerance: f64) -> f64 {
    if basis.is_infinite() { basis } else { basis + tolerance * basis.abs() }
}

/// (first − last) / |first|; 0 where both are equal, even if infinite.
fn relative_fall(first: f64, last: f64) -> f64 {
    if first == last {
        0.0
    } else if first.is_infinite() {
        1.0
    } else {
        (first - last) / first.abs().max(f64::MIN_POSITIVE)
    }
}

fn unmeasured<const N: usize>(signals: [(Signal, Option<f64>); N]) -> Vec<Missing> {
    let missing = signals.into_iter().filter(|(_, value)| value.is_none());
    missing.map(|(signal, _)| Missing::Unmeasured { signal }).collect()
}
