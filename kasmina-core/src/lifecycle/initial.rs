//! Setting a seed up in a given state, before a layer runs.

use super::{GrownSeed, Lifecycle, SeedRow};
use crate::blueprint::check_finite;
use crate::graft::Strategy;
use crate::lifecycle::transition::checked_layout;
use crate::{Blueprint, Error, Objective, Result, State};

/// How a seed starts. The default is a dormant one.
#[derive(Clone, Debug, Default)]
pub struct InitialSeed {
    /// The state.
    pub state: State,
    /// Alpha in [0, 1]. It means something on path only; a seed in another state stands at 0.
    pub alpha: f32,
    /// What it grew into; for states that own parameters, and only for them.
    pub blueprint: Option<Blueprint>,
    /// What it learns from while TRAINING.
    pub objective: Objective,
    /// How alpha rises while it is GRAFTING.
    pub strategy: Strategy,
    /// The parameter tensors in the order of the blueprint's layout; `None` draws fresh ones.
    pub parameters: Option<Vec<Vec<f32>>>,
}

impl Lifecycle {
    /// Sets a dormant seed up as `initial` says. It is no transition: the history does not show it.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`]; [`Error::InitialSeed`] if the seed is not dormant any more, if a state that
    /// owns parameters has no blueprint, or one that owns none is given some; [`Error::Value`] for an
    /// alpha outside [0, 1] or parameters that are not finite; [`Error::Length`] for tensors that do not
    /// fit the blueprint; those of [`Registry::intern`](crate::Registry::intern) and of a germination.
    pub fn import(&mut self, seed: usize, initial: InitialSeed) -> Result<()> {
        let seed = self.layout.check(seed)?;
        let InitialSeed { state, alpha, blueprint, objective, strategy, parameters } = initial;
        let contradiction = |reason| Err(Error::InitialSeed { seed, state, reason });
        if self.table.states()[seed] != State::Dormant || self.waiting(seed).is_some() {
            return contradiction("it is no longer dormant and free of commands");
        }
        if !(0.0..=1.0).contains(&alpha) {
            let what = format!("alpha of seed {seed}");
            return Err(Error::Value { what, value: alpha.into(), legal: "between 0 and 1" });
        }
        let mut row = SeedRow {
            state,
            // |−0| = 0: a row's sum is over bits, and there is one zero.
            alpha: if state.on_path() { alpha.abs() } else { 0.0 },
            entered_epoch: self.epoch,
            embargo_until: match state {
                State::Culled => self.epoch.saturating_add(self.config.embargo_epochs),
                _ => 0,
            },
            ..SeedRow::DORMANT
        };
        let blueprint = match (state.owns_parameters(), blueprint) {
            (true, Some(blueprint)) => blueprint,
            (true, None) => return contradiction("this state owns parameters; name a blueprint"),
            (false, None) if parameters.is_none() => {
                self.table.write(seed, row);
                self.mark_dirty(seed);
                return Ok(());
            }
            (false, _) => {
                return contradiction(
                    "this state owns no parameters; give no blueprint or tensors",
                );
            }
        };
        // Everything that can fail comes first, and on copies.
        strategy.validate()?;
        blueprint.validate()?;
        let c = self.layout.chunk_len(seed);
        let layout = checked_layout(&blueprint, c)?;
        let mut rng = self.rng;
        let parameters = match parameters {
            None => rng.draw(&blueprint, c, layout.len())?,
            Some(tensors) => flatten(seed, &layout, &tensors)?,
        };
        let strategy = self.strategies.acquire(&strategy)?;
        let blueprint = match self.registry.intern(blueprint) {
            Ok(blueprint) => blueprint,
            Err(error) => {
                self.strategies.release(strategy);
                return Err(error);
            }
        };
        self.rng = rng;
        let layout = self.parameter_layout(blueprint, seed)?;
        let mut grown = GrownSeed::new(blueprint, objective, layout, parameters);
        let share = f64::from(row.alpha) / f64::from(self.config.target_alpha);
        grown.enter(state, self.step, share.min(1.0));
        row.blueprint = blueprint.index();
        row.strategy = strategy;
        self.grown.insert(seed as u32, Box::new(grown));
        if state == State::Grafting {
            self.grafting.insert(seed as u32);
        }
        self.table.write(seed, row);
        self.mark_dirty(seed);
        Ok(())
    }
}

/// The tensors one after the other, each checked against its specification.
fn flatten(seed: usize, layout: &crate::ParameterLayout, tensors: &[Vec<f32>]) -> Result<Vec<f32>> {
    if tensors.len() != layout.specs().len() {
        return Err(Error::Length {
            what: format!("the list of seed {seed}'s parameter tensors"),
            found: tensors.len(),
            needed: layout.specs().len(),
        });
    }
    let mut parameters = Vec::with_capacity(layout.len());
    for (index, (spec, tensor)) in layout.specs().iter().zip(tensors).enumerate() {
        let needed = layout.range(index).len();
        if tensor.len() != needed {
            let what = format!("seed {seed}'s {}", spec.name);
            return Err(Error::Length { what, found: tensor.len(), needed });
        }
        check_finite(&format!("seed {seed}'s {}", spec.name), tensor)?;
        parameters.extend_from_slice(tensor);
    }
    Ok(parameters)
}
