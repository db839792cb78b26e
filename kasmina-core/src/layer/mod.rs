//! The layer: seeds over a matrix of activations, run on a backend, watched by telemetry.

mod builder;
mod epoch;
mod jobs;
mod options;
mod overhead;
mod pass;
mod state;

pub use builder::LayerBuilder;
pub use epoch::EpochReport;
pub(crate) use epoch::RunBy;
pub(crate) use jobs::probed_seed;
pub use options::{ForwardOptions, Probe};
pub use overhead::OverheadOptions;
pub(crate) use pass::watched_seeds;
pub use state::{LayerState, TelemetryState};

use std::path::Path;

use kasmina_telemetry::{
    ChunkStats, GradientStats, TelemetryMode, TelemetryOverhead, TelemetryScope,
};

use crate::checkpoint::{self, CheckpointError, Extensions};
use crate::cpu::Scratch;
use crate::lifecycle::{Lifecycle, RestoreOutcome};
use crate::lower::Plan;
use crate::optimizer::{AdamW, OptimizerReport};
use crate::{Registry, Result, SeedLayout, Stability, State};

/// A Kasmina layer over activations `[rows, hidden]`.
///
/// ```
/// use kasmina_core::{Command, ForwardOptions, Germination, Layer, MatMut, MatRef, SeedLayout};
///
/// let mut layer = Layer::builder(SeedLayout::new(64, 16)?).rng_seed(7).build()?;
/// let x = vec![0.5f32; 8 * 64];
/// let mut y = vec![0.0f32; 8 * 64];
/// let options = ForwardOptions::new();
/// layer.forward(MatRef::contiguous(&x, 64)?, MatMut::contiguous(&mut y, 64)?, &options)?;
/// assert_eq!(x, y); // every seed is dormant
///
/// let bottleneck = layer.registry().find("bottleneck")?;
/// layer.command(2, Command::Germinate(Germination::new(bottleneck)), "chunk 2 drifted")?;
/// let report = layer.end_epoch();
/// assert_eq!(report.outcome.transitions.len(), 1);
/// assert_eq!(report.telemetry.seed(0).and_then(|seed| seed.mean), Some(0.5));
/// # Ok::<(), kasmina_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Layer {
    state: LayerState,
    plan: Plan,
    /// Buffers of the backend; nothing in them outlives a call.
    scratch: Scratch,
    /// What telemetry was measured to cost, as long as that holds.
    overhead: Option<TelemetryOverhead>,
}

impl Layer {
    /// Settings of a new layer.
    pub fn builder(layout: SeedLayout) -> LayerBuilder {
        LayerBuilder::new(layout)
    }

    /// How the columns are split.
    pub fn layout(&self) -> SeedLayout {
        self.state.lifecycle.layout()
    }

    /// The layer's name.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The blueprints that seeds can germinate.
    pub fn registry(&self) -> &Registry {
        self.state.lifecycle.registry()
    }

    /// States, parameters, history, readiness.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.state.lifecycle
    }

    /// Everything that a checkpoint holds.
    pub fn layer_state(&self) -> &LayerState {
        &self.state
    }

    /// The lowered form of the layer, as of the last call.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Guards of the on-path chunks.
    pub fn stability(&self) -> Stability {
        self.state.stability
    }

    /// Changes the guards from the next call on.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value), the layer unchanged.
    pub fn set_stability(&mut self, stability: Stability) -> Result<()> {
        stability.validate()?;
        if stability != self.state.stability {
            self.overhead = None;
        }
        self.state.stability = stability;
        Ok(())
    }

    /// Changes how much is measured, from the next call on. Statistics gathered so far stay.
    ///
    /// # Errors
    /// [`Error::Telemetry`](crate::Error::Telemetry) for a sampling fraction outside (0, 1].
    pub fn set_telemetry_mode(&mut self, mode: TelemetryMode) -> Result<()> {
        let before = self.state.telemetry.mode;
        self.state.telemetry.set_mode(mode)?;
        if mode != before {
            self.overhead = None;
        }
        Ok(())
    }

    /// Changes which seeds are measured, from the next call on.
    pub fn set_telemetry_scope(&mut self, scope: TelemetryScope) {
        if scope != self.state.telemetry.scope {
            self.overhead = None;
        }
        self.state.telemetry.scope = scope;
    }

    /// A seed's lifecycle state.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed).
    pub fn state(&self, seed: usize) -> Result<State> {
        self.state.lifecycle.state(seed)
    }

    /// A seed's share of its branch in the output.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed).
    pub fn alpha(&self, seed: usize) -> Result<f32> {
        self.state.lifecycle.alpha(seed)
    }

    /// A seed's parameters by name; `None` if it owns none.
    pub fn parameters(&self, seed: usize) -> Option<impl ExactSizeIterator<Item = (&str, &[f32])>> {
        Some(self.state.lifecycle.grown(seed)?.named_parameters())
    }

    /// A seed's gathered parameter gradients by name; `None` if no backward pass has given it any.
    pub fn gradients(&self, seed: usize) -> Option<impl ExactSizeIterator<Item = (&str, &[f32])>> {
        self.state.lifecycle.grown(seed)?.named_gradients()
    }

    /// dL/dalpha of a seed, added up over backward passes; `None` if it was not on path with alpha
    /// above 0, or frozen.
    pub fn alpha_gradient(&self, seed: usize) -> Option<f32> {
        self.state.lifecycle.grown(seed)?.alpha_gradient()
    }

    /// The mean of (T(x) − x)² that a TRAINING seed with that objective had in the last backward pass.
    pub fn reconstruction_loss(&self, seed: usize) -> Option<f64> {
        self.state.lifecycle.grown(seed)?.reconstruction()
    }

    /// Drops all gathered gradients.
    pub fn zero_gradients(&mut self) {
        self.state.lifecycle.zero_gradients();
    }

    /// One step of the built-in optimizer on every seed with gradients; takes the gradients.
    pub fn optimizer_step(&mut self, optimizer: &AdamW) -> OptimizerReport {
        optimizer.step(&mut self.state.lifecycle)
    }

    /// Replaces a seed's flat parameters, as a caller's own optimizer does.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`](crate::Error::NoSuchSeed),
    /// [`Error::NoParameters`](crate::Error::NoParameters),
    /// [`Error::Length`](crate::Error::Length), or [`Error::Value`](crate::Error::Value) for a NaN or
    /// an infinity; the layer is unchanged then.
    pub fn set_parameters(&mut self, seed: usize, parameters: &[f32]) -> Result<()> {
        self.state.lifecycle.set_parameters(seed, parameters)
    }

    /// Activation statistics since the last epoch boundary, one entry a seed.
    pub fn chunk_stats(&self) -> &[ChunkStats] {
        &self.state.telemetry.chunk
    }

    /// Output-gradient statistics since the last epoch boundary, one entry a seed.
    pub fn gradient_stats(&self) -> &[GradientStats] {
        &self.state.telemetry.gradient
    }

    /// Writes a checkpoint: to a temporary file beside `path`, synced, then renamed over it. A failure
    /// or a crash at any point leaves the file that was there whole.
    ///
    /// # Errors
    /// [`CheckpointError`] with the path and what the system said.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
        checkpoint::save(&self.state, path.as_ref())
    }

    /// Reads a checkpoint; the layer continues bit for bit where the saved one stood. User-defined
    /// blueprints and strategies are found by name in `extensions`: a `&Registry`, or more.
    ///
    /// # Errors
    /// [`CheckpointError`]: what is damaged, too new, or not registered.
    pub fn load<'a>(
        path: impl AsRef<Path>,
        extensions: impl Into<Extensions<'a>>,
    ) -> Result<Self, CheckpointError> {
        Ok(Self::from_state(checkpoint::load_with(path.as_ref(), extensions.into())?))
    }

    /// Puts the layer back to a checkpoint, the only way out of ROLLED_BACK: parameters, optimizer
    /// moments, states, telemetry and random stream are those of the file. The history goes on, with the
    /// restore in it.
    ///
    /// # Errors
    /// [`CheckpointError`] as in [`Layer::load`], and [`Error::Shape`](crate::Error::Shape) if the file
    /// is of another layout; the layer is unchanged then.
    pub fn restore<'a>(
        &mut self,
        path: impl AsRef<Path>,
        extensions: impl Into<Extensions<'a>>,
        why: impl Into<String>,
    ) -> Result<RestoreOutcome, CheckpointError> {
        let saved = checkpoint::load_with(path.as_ref(), extensions.into())?;
        let outcome = self.state.restore(saved, why)?;
        self.overhead = None;
        Ok(outcome)
    }
}
