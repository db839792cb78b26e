//! The one function that changes a seed's state, with everything that follows from it.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::table::{NO_STRATEGY, SeedRow};
use super::{Cause, GerminationRng, GrownSeed, Lifecycle, Transition};
use crate::{Blueprint, BlueprintId, Error, Germination, ParameterLayout, Result, State};

/// Parameters of one seed are counted in 32 bits on every backend.
const MAX_PARAMETERS: usize = i32::MAX as usize;

/// A new seed's belongings, made before the transition so that the transition itself cannot fail.
pub(super) struct Growth {
    pub(super) grown: GrownSeed,
    pub(super) strategy: u16,
}

impl Lifecycle {
    /// Moves `seed` to `to`. The caller has checked that it may; `growth` is there exactly for a seed
    /// that germinates.
    ///
    /// Side effects, each here and nowhere else: parameters are born or dropped, and optimizer state,
    /// gradients and measurements with them; alpha is 0 on entering GRAFTING, stays while on path, and
    /// is 0 off path; counters start; a culled seed gets its embargo; the row's sum, the list of stale
    /// lowerings, the history and the event log are brought up to date.
    pub(super) fn transition(
        &mut self,
        seed: usize,
        to: State,
        cause: Cause,
        why: Arc<str>,
        growth: Option<Growth>,
    ) -> Transition {
        let key = seed as u32;
        let old = self.table.row(seed);
        let mut row = SeedRow {
            state: to,
            entered_epoch: self.epoch,
            alpha: if to.on_path() && to != State::Grafting { old.alpha } else { 0.0 },
            embargo_until: match to {
                State::Culled => self.epoch.saturating_add(self.config.embargo_epochs),
                _ => 0,
            },
            ..old
        };
        if to.owns_parameters() {
            if let Some(growth) = growth {
                row.blueprint = growth.grown.blueprint.index();
                row.strategy = growth.strategy;
                self.grown.insert(key, Box::new(growth.grown));
            }
            if let Some(grown) = self.grown.get_mut(&key) {
                grown.enter(to, self.step, 0.0);
            }
        } else {
            self.grown.remove(&key);
            self.strategies.release(old.strategy);
            row.blueprint = BlueprintId::NONE;
            row.strategy = NO_STRATEGY;
            row.last_update_epoch = 0;
        }
        if to == State::Grafting {
            self.grafting.insert(key);
        } else if old.state == State::Grafting {
            self.grafting.remove(&key);
        }
        self.table.write(seed, row);
        self.mark_dirty(seed);

        let code = if row.blueprint == BlueprintId::NONE { old.blueprint } else { row.blueprint };
        let transition = Transition {
            // The boundary belongs to the epoch that ends with it.
            epoch: self.epoch.saturating_sub(1),
            step: self.step,
            seed: key,
            from: old.state,
            to,
            cause,
            blueprint: (code != BlueprintId::NONE).then_some(BlueprintId(code)),
            why,
        };
        tracing::info!(
            target: "kasmina::lifecycle",
            seed,
            from = %transition.from,
            to = %transition.to,
            cause = cause.name(),
            epoch = transition.epoch,
            step = transition.step,
            why = &*transition.why,
            "seed changed its state"
        );
        self.history.push(transition.clone());
        transition
    }

    /// Everything about a germination that can be known beforehand.
    pub(super) fn check_germination(
        &mut self,
        seed: usize,
        germination: &Germination,
    ) -> Result<()> {
        germination.strategy.validate()?;
        let layout = self.parameter_layout(germination.blueprint, seed)?;
        probe_memory(layout.len())
    }

    /// Draws a new seed's parameters. On an error nothing has changed, the random stream included.
    pub(super) fn grow(&mut self, seed: usize, germination: &Germination) -> Result<Growth> {
        self.check_germination(seed, germination)?;
        let Germination { blueprint, ref strategy, objective } = *germination;
        let layout = self.parameter_layout(blueprint, seed)?;
        let parameters = self.rng.draw(
            self.registry.get(blueprint)?,
            self.layout.chunk_len(seed),
            layout.len(),
        )?;
        let strategy = self.strategies.acquire(strategy)?;
        Ok(Growth { grown: GrownSeed::new(blueprint, objective, layout, parameters), strategy })
    }

    /// The parameter layout of a blueprint for a seed's chunk length, made once for all seeds of a length.
    pub(crate) fn parameter_layout(
        &mut self,
        blueprint: BlueprintId,
        seed: usize,
    ) -> Result<Arc<ParameterLayout>> {
        let c = self.layout.chunk_len(seed);
        if let Some(layout) = self.layouts.get(&(blueprint, c)) {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(checked_layout(self.registry.get(blueprint)?, c)?);
        self.layouts.insert((blueprint, c), Arc::clone(&layout));
        Ok(layout)
    }
}

impl GerminationRng {
    /// Parameters from the next stream; the stream counts as used only if they are good.
    pub(super) fn draw(
        &mut self,
        blueprint: &Blueprint,
        c: usize,
        needed: usize,
    ) -> Result<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.germinations);
        let parameters = blueprint.initialise(c, &mut rng)?;
        if parameters.len() != needed {
            return Err(Error::Length {
                what: format!("a new {}'s parameters", blueprint.kind()),
                found: parameters.len(),
                needed,
            });
        }
        self.germinations = self.germinations.wrapping_add(1);
        Ok(parameters)
    }
}

/// A blueprint's parameter layout, if the engine can hold that many parameters.
pub(crate) fn checked_layout(blueprint: &Blueprint, c: usize) -> Result<ParameterLayout> {
    let layout = blueprint.parameters(c)?;
    if layout.len() > MAX_PARAMETERS {
        return Err(Error::TooLarge {
            what: "a seed's parameter count",
            value: layout.len() as u64,
            limit: MAX_PARAMETERS as u64,
        });
    }
    probe_memory(layout.len())?;
    Ok(layout)
}

/// Asks for the memory of a large seed and gives it back, so that a size that cannot be had is an error
/// and not the end of the process.
fn probe_memory(parameters: usize) -> Result<()> {
    const LARGE: usize = 1 << 20;
    if parameters < LARGE {
        return Ok(());
    }
    Vec::<f32>::new()
        .try_reserve_exact(parameters)
        .map_err(|_| Error::Memory { what: "a seed's parameters", bytes: parameters as u64 * 4 })
}
