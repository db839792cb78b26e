//! Building a layer: everything is checked before anything exists.

use kasmina_telemetry::{ChunkStats, GradientStats, Histogram, TelemetryMode, TelemetryScope};

use super::{Layer, LayerState, TelemetryState};
use crate::lifecycle::{InitialSeed, Lifecycle, LifecycleConfig};
use crate::lower::Plan;
use crate::{Error, Registry, Result, SeedLayout, Stability};

/// Settings of a layer to be; see [`Layer::builder`].
#[derive(Clone, Debug)]
pub struct LayerBuilder {
    layout: SeedLayout,
    name: String,
    registry: Registry,
    lifecycle: LifecycleConfig,
    stability: Stability,
    mode: TelemetryMode,
    scope: TelemetryScope,
    dead_epsilon: f32,
    snr_epsilon: f64,
    rng_seed: u64,
    seeds: Vec<(usize, InitialSeed)>,
}

impl LayerBuilder {
    pub(super) fn new(layout: SeedLayout) -> Self {
        Self {
            layout,
            name: "layer".into(),
            registry: Registry::builtin(),
            lifecycle: LifecycleConfig::default(),
            stability: Stability::default(),
            mode: TelemetryMode::default(),
            scope: TelemetryScope::default(),
            dead_epsilon: 1e-8,
            snr_epsilon: 1e-8,
            rng_seed: 0,
            seeds: Vec::new(),
        }
    }

    /// The layer's name in reports and events; default `"layer"`. Give each layer of a process its own: exporters, endpoints and
    /// transports tell reports apart by it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The blueprints that seeds can germinate; default [`Registry::builtin`].
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Conditions of commands and gates of readiness.
    #[must_use]
    pub fn lifecycle(mut self, config: LifecycleConfig) -> Self {
        self.lifecycle = config;
        self
    }

    /// Guards of the on-path chunks; default adaptive.
    #[must_use]
    pub fn stability(mut self, stability: Stability) -> Self {
        self.stability = stability;
        self
    }

    /// How much is measured; default production. It can be changed while running.
    #[must_use]
    pub fn telemetry_mode(mut self, mode: TelemetryMode) -> Self {
        self.mode = mode;
        self
    }

    /// Which seeds are measured; default all.
    #[must_use]
    pub fn telemetry_scope(mut self, scope: TelemetryScope) -> Self {
        self.scope = scope;
        self
    }

    /// |x| at or below this counts as dead; default 1e-8.
    #[must_use]
    pub fn dead_epsilon(mut self, epsilon: f32) -> Self {
        self.dead_epsilon = epsilon;
        self
    }

    /// ε in snr = |mean| / √(variance + ε); default 1e-8.
    #[must_use]
    pub fn snr_epsilon(mut self, epsilon: f64) -> Self {
        self.snr_epsilon = epsilon;
        self
    }

    /// Seed of the random stream that initial parameters are drawn from; default 0.
    #[must_use]
    pub fn rng_seed(mut self, seed: u64) -> Self {
        self.rng_seed = seed;
        self
    }

    /// Starts a seed in another state than DORMANT, for example with parameters trained elsewhere.
    #[must_use]
    pub fn seed(mut self, seed: usize, initial: InitialSeed) -> Self {
        self.seeds.push((seed, initial));
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// Whatever setting is wrong, by name: [`Error::Value`], [`Error::NoSuchSeed`],
    /// [`Error::InitialSeed`], [`Error::Length`], …
    pub fn build(self) -> Result<Layer> {
        self.stability.validate()?;
        let epsilon = |what: &str, value: f64| {
            if value.is_finite() && value >= 0.0 {
                return Ok(());
            }
            Err(Error::Value { what: what.into(), value, legal: "finite and ≥ 0" })
        };
        epsilon("dead_epsilon", self.dead_epsilon.into())?;
        epsilon("snr_epsilon", self.snr_epsilon)?;
        let mut lifecycle =
            Lifecycle::new(self.layout, self.registry, self.lifecycle, self.rng_seed)?;
        for (seed, initial) in self.seeds {
            lifecycle.import(seed, initial)?;
        }
        let mut telemetry = TelemetryState::new(self.layout);
        telemetry.dead_epsilon = self.dead_epsilon;
        telemetry.snr_epsilon = self.snr_epsilon;
        telemetry.scope = self.scope;
        telemetry.set_mode(self.mode)?;
        Ok(Layer::from_state(LayerState {
            name: self.name,
            lifecycle,
            stability: self.stability,
            telemetry,
        }))
    }
}

impl TelemetryState {
    /// Changes the mode; histograms appear with debug mode and go with it.
    pub(crate) fn set_mode(&mut self, mode: TelemetryMode) -> Result<()> {
        self.mode = mode.validated()?;
        let seeds = self.chunk.len();
        match (self.mode.has_histograms(), &self.histograms) {
            (true, None) => self.histograms = Some(vec![Histogram::EMPTY; seeds]),
            (false, Some(_)) => self.histograms = None,
            _ => {}
        }
        Ok(())
    }

    /// Empties the accumulators.
    pub(crate) fn clear(&mut self) {
        self.measured = 0;
        self.saturated = 0;
        self.chunk.fill(ChunkStats::EMPTY);
        self.gradient.fill(GradientStats::EMPTY);
        self.histograms.iter_mut().for_each(|all| all.fill(Histogram::EMPTY));
    }

    /// Empties the accumulators and returns what they held.
    pub(super) fn take(&mut self) -> (Vec<ChunkStats>, Vec<GradientStats>, Option<Vec<Histogram>>) {
        let seeds = self.chunk.len();
        let empty = self.histograms.as_ref().map(|_| vec![Histogram::EMPTY; seeds]);
        self.measured = 0;
        self.saturated = 0;
        (
            std::mem::replace(&mut self.chunk, vec![ChunkStats::EMPTY; seeds]),
            std::mem::replace(&mut self.gradient, vec![GradientStats::EMPTY; seeds]),
            std::mem::replace(&mut self.histograms, empty),
        )
    }
}

impl Layer {
    /// A layer around a state, with everything to be lowered at the first call.
    pub(crate) fn from_state(mut state: LayerState) -> Self {
        let plan = Plan::new(state.lifecycle.layout());
        let seeds: Vec<usize> = state.lifecycle.grown_seeds().map(|(seed, _)| seed).collect();
        seeds.into_iter().for_each(|seed| state.lifecycle.mark_dirty(seed));
        Self { state, plan, scratch: crate::cpu::Scratch::default(), overhead: None }
    }
}
