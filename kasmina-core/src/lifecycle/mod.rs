//! The lifecycle of a layer's seeds: what each is, what it owns, and what may happen to it next.
//!
//! A [`Lifecycle`] knows nothing of activations or kernels. Commands are checked when given, wait in a
//! queue (`queue`), and are applied together at the epoch boundary by one function (`transition`) that
//! owns every side effect. Between boundaries only alpha moves (`step`). `gates` says when a seed is
//! ready for its next command; a controller decides.

mod config;
mod gates;
mod grown;
mod history;
mod initial;
mod parts;
mod queue;
mod restore;
mod signals;
mod step;
mod strategies;
mod table;
mod transition;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use config::{Gates, LifecycleConfig};
pub use gates::{Missing, Readiness, Verdict};
pub use grown::GrownSeed;
pub(crate) use grown::{Graft, OptimizerState};
pub use history::{Cause, History, Transition};
pub use initial::InitialSeed;
pub(crate) use parts::Parts;
pub use queue::{EpochOutcome, Refusal};
pub use restore::RestoreOutcome;
pub use signals::SeedSignals;
pub(crate) use signals::{Measured, Measurements};
pub(crate) use strategies::Strategies;
pub use table::{IntegrityFault, NO_STRATEGY, SCHEMA_VERSION, SeedRow, SeedTable};
pub(crate) use transition::checked_layout;

use queue::Waiting;

use crate::graft::Strategy;
use crate::{
    Blueprint, BlueprintId, Command, ParameterLayout, Registry, Result, SeedLayout, State,
};

/// The lifecycle of all seeds of a layer.
///
/// ```
/// use kasmina_core::{Command, Germination, Lifecycle, LifecycleConfig, Registry, SeedLayout, State};
///
/// let registry = Registry::builtin();
/// let bottleneck = registry.find("bottleneck")?;
/// let layout = SeedLayout::new(64, 8)?;
/// let mut lifecycle = Lifecycle::new(layout, registry, LifecycleConfig::default(), 7)?;
///
/// lifecycle.command(3, Command::Germinate(Germination::new(bottleneck)), "its mean has drifted")?;
/// assert_eq!(lifecycle.state(3)?, State::Dormant); // commands wait for the epoch boundary
/// let outcome = lifecycle.end_epoch();
/// assert_eq!(outcome.transitions.len(), 1);
/// assert_eq!(lifecycle.state(3)?, State::Germinated);
/// assert!(lifecycle.command(3, Command::Fossilize, "too early").is_err());
/// # Ok::<(), kasmina_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lifecycle {
    layout: SeedLayout,
    registry: Registry,
    config: LifecycleConfig,
    table: SeedTable,
    strategies: Strategies,
    /// Boxed, so that a search among many walks keys and not what the seeds own.
    grown: BTreeMap<u32, Box<GrownSeed>>,
    /// The GRAFTING seeds: the only ones that a training step touches.
    grafting: BTreeSet<u32>,
    waiting: BTreeMap<u32, Waiting>,
    /// The reason of a roll-back that waits for the epoch boundary.
    roll_back: Option<Arc<str>>,
    history: History,
    epoch: u32,
    step: u64,
    rng: GerminationRng,
    /// GRAFTING seeds whose parameters have changed since the last epoch boundary.
    moved: Vec<u32>,
    layouts: BTreeMap<(BlueprintId, usize), Arc<ParameterLayout>>,
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
}

/// Where fresh parameters come from: stream `germinations` of the generator seeded with `seed`. Two
/// numbers are the whole state, and a seed's parameters depend on nothing but its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GerminationRng {
    pub(crate) seed: u64,
    pub(crate) germinations: u64,
}

impl Lifecycle {
    /// All seeds of `layout` dormant, in epoch 0, step 0.
    ///
    /// # Errors
    /// Those of [`LifecycleConfig::validate`].
    pub fn new(
        layout: SeedLayout,
        registry: Registry,
        config: LifecycleConfig,
        rng_seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            table: SeedTable::new(layout.seeds()),
            strategies: Strategies::default(),
            grown: BTreeMap::new(),
            grafting: BTreeSet::new(),
            waiting: BTreeMap::new(),
            roll_back: None,
            history: History::new(config.history_limit),
            epoch: 0,
            step: 0,
            rng: GerminationRng { seed: rng_seed, germinations: 0 },
            moved: Vec::new(),
            layouts: BTreeMap::new(),
            dirty: Vec::new(),
            is_dirty: vec![false; layout.seeds()],
            layout,
            registry,
            config,
        })
    }

    /// How the columns are split.
    pub fn layout(&self) -> SeedLayout {
        self.layout
    }

    /// The blueprints that seeds may grow into.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Adds a blueprint to the registry.
    ///
    /// # Errors
    /// Those of [`Registry::register`].
    pub fn register(
        &mut self,
        name: impl Into<String>,
        blueprint: Blueprint,
    ) -> Result<BlueprintId> {
        self.registry.register(name, blueprint)
    }

    /// The configuration.
    pub fn config(&self) -> &LifecycleConfig {
        &self.config
    }

    /// The running epoch, from 0.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Training steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// A seed's state.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed).
    pub fn state(&self, seed: usize) -> Result<State> {
        Ok(self.table.row(self.layout.check(seed)?).state)
    }

    /// A seed's share of the branch in the output.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed).
    pub fn alpha(&self, seed: usize) -> Result<f32> {
        Ok(self.table.row(self.layout.check(seed)?).alpha)
    }

    /// Whole epochs a seed has been in its state.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed).
    pub fn epochs_in_state(&self, seed: usize) -> Result<u32> {
        let row = self.table.row(self.layout.check(seed)?);
        Ok(self.epoch.saturating_sub(row.entered_epoch))
    }

    /// Training steps a seed has been in its state; 0 for a seed without parameters, which no step
    /// concerns.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed).
    pub fn steps_in_state(&self, seed: usize) -> Result<u64> {
        let seed = self.layout.check(seed)?;
        Ok(self.grown(seed).map_or(0, |grown| self.step.saturating_sub(grown.entered_step)))
    }

    /// The rows of all seeds.
    pub fn table(&self) -> &SeedTable {
        &self.table
    }

    /// The strategy of a seed that owns parameters.
    pub fn strategy(&self, seed: usize) -> Option<&Strategy> {
        self.strategies.get(self.table.get(seed)?.strategy)
    }

    /// Compares every seed's row with the sum stored when it was written.
    ///
    /// # Errors
    /// The rows that differ.
    pub fn verify(&self) -> Result<(), Vec<IntegrityFault>> {
        self.table.verify()
    }

    /// The transitions so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What a seed owns, if it owns anything.
    pub fn grown(&self, seed: usize) -> Option<&GrownSeed> {
        self.grown.get(&u32::try_from(seed).ok()?).map(|grown| &**grown)
    }

    pub(crate) fn grown_mut(&mut self, seed: usize) -> Option<&mut GrownSeed> {
        self.grown.get_mut(&u32::try_from(seed).ok()?).map(|grown| &mut **grown)
    }

    /// All seeds that own parameters, ascending.
    pub fn grown_seeds(&self) -> impl ExactSizeIterator<Item = (usize, &GrownSeed)> {
        self.grown.iter().map(|(&seed, grown)| (seed as usize, &**grown))
    }

    pub(crate) fn grown_seeds_mut(
        &mut self,
    ) -> impl ExactSizeIterator<Item = (usize, &mut GrownSeed)> {
        self.grown.iter_mut().map(|(&seed, grown)| (seed as usize, &mut **grown))
    }

    /// The command that waits for a seed's epoch boundary.
    pub fn waiting(&self, seed: usize) -> Option<&Command> {
        self.waiting.get(&u32::try_from(seed).ok()?).map(|waiting| &waiting.command)
    }

    /// Seeds whose state, alpha or parameters changed since the last call, each once, ascending.
    pub fn take_dirty(&mut self) -> Vec<u32> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        for &seed in &dirty {
            self.is_dirty[seed as usize] = false;
        }
        dirty
    }

    /// Drops all gathered gradients.
    pub fn zero_gradients(&mut self) {
        self.grown.values_mut().for_each(|grown| grown.clear_gradients());
    }

    /// Notes that nothing is lowered yet.
    pub(crate) fn mark_all_dirty(&mut self) {
        self.is_dirty.fill(true);
        self.dirty = (0..self.is_dirty.len() as u32).collect();
    }

    /// Notes that what the seed lowers to has changed.
    pub(crate) fn mark_dirty(&mut self, seed: usize) {
        if !self.is_dirty[seed] {
            self.is_dirty[seed] = true;
            self.dirty.push(seed as u32);
        }
    }
}
