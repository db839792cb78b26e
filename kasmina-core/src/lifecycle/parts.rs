//! A lifecycle taken apart and put together, for checkpoints.

use std::collections::BTreeMap;

use super::queue::Waiting;
use super::{
    GerminationRng, GrownSeed, History, Lifecycle, LifecycleConfig, SeedTable, Strategies,
    Transition,
};
use crate::{Registry, SeedLayout, State};

/// What a checkpoint holds of a lifecycle, but for waiting commands, which are given anew.
pub(crate) struct Parts {
    pub(crate) layout: SeedLayout,
    pub(crate) registry: Registry,
    pub(crate) config: LifecycleConfig,
    pub(crate) table: SeedTable,
    pub(crate) strategies: Strategies,
    pub(crate) grown: BTreeMap<u32, Box<GrownSeed>>,
    pub(crate) history: Vec<Transition>,
    pub(crate) history_dropped: u64,
    pub(crate) epoch: u32,
    pub(crate) step: u64,
    pub(crate) rng: GerminationRng,
}

impl Lifecycle {
    /// A lifecycle of parts that the caller has checked against each other.
    pub(crate) fn from_parts(parts: Parts) -> Self {
        let Parts {
            layout,
            registry,
            config,
            table,
            strategies,
            mut grown,
            history: entries,
            history_dropped,
            epoch,
            step,
            rng,
        } = parts;
        let mut history = History::new(config.history_limit);
        history.replace(entries, config.history_limit, history_dropped);
        let is_grafting = |seed: &&u32| table.states()[**seed as usize] == State::Grafting;
        let mut moved = Vec::new();
        for (&seed, one) in &mut grown {
            one.moved = !one.reference.is_empty() && one.reference != one.parameters;
            if one.moved {
                moved.push(seed);
            }
        }
        let mut lifecycle = Self {
            grafting: grown.keys().filter(is_grafting).copied().collect(),
            waiting: BTreeMap::new(),
            roll_back: None,
            moved,
            layouts: BTreeMap::new(),
            dirty: Vec::new(),
            is_dirty: vec![false; layout.seeds()],
            layout,
            registry,
            config,
            table,
            strategies,
            grown,
            history,
            epoch,
            step,
            rng,
        };
        lifecycle.mark_all_dirty();
        lifecycle
    }

    pub(crate) fn rng(&self) -> GerminationRng {
        self.rng
    }

    pub(crate) fn strategies(&self) -> &Strategies {
        &self.strategies
    }

    pub(crate) fn waiting_commands(&self) -> impl ExactSizeIterator<Item = (u32, &Waiting)> {
        self.waiting.iter().map(|(&seed, waiting)| (seed, waiting))
    }

    /// The reason of the roll-back that waits for the epoch boundary.
    pub fn waiting_roll_back(&self) -> Option<&str> {
        self.roll_back.as_deref()
    }
}
