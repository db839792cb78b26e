//! The lifecycle as the oracle's table has it, walked beside the engine's and never put right by it.

use std::collections::BTreeMap;

use kasmina_core::{LifecycleConfig, State};
use kasmina_oracle::lifecycle::{self as table, Command, Condition};

/// One seed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seed {
    pub(super) state: u8,
    /// As the engine should have it; `None` where a measured signal decides, and the engine is asked.
    pub(super) ramp: Option<u32>,
    pub(super) alpha: f32,
    /// Steps of the graft.
    grafted: u64,
    entered_step: u64,
    embargo_until: u32,
}

/// All seeds of a layer.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) seeds: Vec<Seed>,
    config: LifecycleConfig,
    pub(super) epoch: u32,
    step: u64,
    waiting: BTreeMap<usize, Waiting>,
    roll_back: bool,
}

/// A command on its way, with the fixed ramp that a germination names.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    command: Command,
    ramp: Option<u32>,
}

impl Model {
    pub(super) fn new(seeds: usize, config: LifecycleConfig) -> Self {
        let seeds = vec![Seed::default(); seeds];
        Self { seeds, config, epoch: 0, step: 0, waiting: BTreeMap::new(), roll_back: false }
    }

    /// Whether the engine has to accept a command; if so it waits.
    pub(super) fn command(&mut self, seed: usize, command: Command, ramp: Option<u32>) -> bool {
        let legal = seed < self.seeds.len()
            && !self.waiting.contains_key(&seed)
            && !(self.roll_back && self.is_taken(seed))
            && self.target(seed, command).is_some();
        if legal {
            self.waiting.insert(seed, Waiting { command, ramp });
        }
        legal
    }

    pub(super) fn withdraw(&mut self, seed: usize) -> bool {
        self.waiting.remove(&seed).is_some()
    }

    /// Whether the engine has to accept a roll-back.
    pub(super) fn roll_back(&mut self) -> bool {
        let legal = !self.roll_back && (0..self.seeds.len()).any(|seed| self.is_taken(seed));
        self.roll_back |= legal;
        legal
    }

    /// One training step: fixed ramps rise.
    pub(super) fn advance_step(&mut self) {
        self.step += 1;
        for seed in self.seeds.iter_mut().filter(|seed| seed.state == table::GRAFTING) {
            seed.grafted += 1;
            if let Some(steps) = seed.ramp {
                let share = (seed.grafted as f64 / f64::from(steps)).min(1.0);
                let target = self.config.target_alpha;
                seed.alpha = if share >= 1.0 { target } else { (share * f64::from(target)) as f32 };
            }
        }
    }

    /// The boundary; the seeds whose commands are refused by then.
    pub(super) fn end_epoch(&mut self) -> Vec<usize> {
        let waiting = std::mem::take(&mut self.waiting);
        let roll_back = std::mem::take(&mut self.roll_back);
        self.epoch += 1;
        if roll_back {
            for seed in 0..self.seeds.len() {
                if self.is_taken(seed) {
                    self.enter(seed, table::ROLLED_BACK, None);
                }
            }
        }
        let mut refused = Vec::new();
        for (seed, Waiting { command, ramp }) in waiting {
            match self.target(seed, command) {
                Some(to) => self.enter(seed, to, ramp),
                None => refused.push(seed),
            }
        }
        refused
    }

    /// Compares with the engine's rows; alphas that a measured signal moves are checked for their bounds and taken over.
    pub(super) fn agree(&mut self, states: &[State], alphas: &[f32]) -> Result<(), String> {
        for (i, seed) in self.seeds.iter_mut().enumerate() {
            let (state, alpha) = (states[i].code(), alphas[i]);
            if state != seed.state {
                return Err(format!(
                    "seed {i} is {}, the table has state {}",
                    states[i], seed.state
                ));
            }
            if seed.ramp.is_none() && state == table::GRAFTING {
                let legal = (seed.alpha..=self.config.target_alpha).contains(&alpha);
                if !legal {
                    return Err(format!("alpha of seed {i} went from {} to {alpha}", seed.alpha));
                }
                seed.alpha = alpha;
            }
            if alpha.to_bits() != seed.alpha.to_bits() {
                return Err(format!("alpha of seed {i} is {alpha}, the replay has {}", seed.alpha));
            }
        }
        Ok(())
    }

    fn is_taken(&self, seed: usize) -> bool {
        table::transition(self.seeds[seed].state, Command::RollBack).is_some()
    }

    fn target(&self, seed: usize, command: Command) -> Option<u8> {
        let at = &self.seeds[seed];
        let row = table::transition(at.state, command)?;
        let holds = match row.condition {
            Condition::Always => true,
            Condition::AlphaAtTarget => at.alpha >= self.config.target_alpha,
            Condition::StepsPassed => {
                self.step - at.entered_step >= self.config.stabilization_steps
            }
            Condition::EmbargoOver => self.epoch >= at.embargo_until,
            // Not a command to one seed.
            Condition::WholeLayer => false,
        };
        holds.then_some(row.to)
    }

    fn enter(&mut self, seed: usize, to: u8, ramp: Option<u32>) {
        let (step, epoch) = (self.step, self.epoch);
        let embargo = self.config.embargo_epochs;
        let at = &mut self.seeds[seed];
        if to == table::GERMINATED {
            at.ramp = ramp;
        }
        at.state = to;
        at.alpha = if table::on_path(to) && to != table::GRAFTING { at.alpha } else { 0.0 };
        at.grafted = 0;
        at.entered_step = step;
        at.embargo_until = if to == table::CULLED { epoch + embargo } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_life_and_what_differs_from_it() {
        let config = LifecycleConfig { stabilization_steps: 1, ..LifecycleConfig::default() };
        let mut model = Model::new(1, config);
        let states = |code| [State::try_from(code).expect("a state")];
        for (command, steps) in [
            (Command::Germinate, 0),
            (Command::Promote, 0),
            (Command::Graft, 4),
            (Command::Stabilize, 1),
            (Command::Evaluate, 0),
            (Command::FineTune, 0),
            (Command::Fossilize, 0),
        ] {
            assert!(model.command(0, command, Some(4)), "{command:?}");
            assert!(!model.command(0, command, Some(4)), "one waits");
            assert!(model.end_epoch().is_empty());
            for _ in 0..steps {
                model.advance_step();
            }
        }
        assert_eq!(model.agree(&states(table::FOSSILIZED), &[1.0]), Ok(()));
        assert!(model.agree(&states(table::FINE_TUNING), &[1.0]).is_err());
        assert!(model.agree(&states(table::FOSSILIZED), &[0.999]).is_err());
        assert!(!model.roll_back(), "a fossil stays");
        assert!(!model.command(1, Command::Germinate, None), "there is no seed 1");
    }
}
