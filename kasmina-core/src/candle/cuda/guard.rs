//! A layer on the device within reach of its owner, without its passes and its stream, which are candle's.

use std::path::Path;

use kasmina_telemetry::transport::Transport;
use kasmina_telemetry::{ChunkStats, GradientStats, TelemetryMode, TelemetryScope};
use parking_lot::MappedMutexGuard;

use crate::checkpoint::{CheckpointError, Extensions};
use crate::controller::Controller;
use crate::cuda::{CudaError, CudaLayer, LayerReport, PublishOutcome, PublishedEpoch, TuneReport};
use crate::lifecycle::{Lifecycle, Readiness, RestoreOutcome, SeedSignals};
use crate::{
    Command, DType, EpochReport, Layer, LayerState, Registry, Result, SeedLayout, Stability, State,
};

type CudaResult<T> = std::result::Result<T, CudaError>;
type Checkpointed<T> = std::result::Result<T, CheckpointError>;

/// A module's layer, locked: what one asks a [`CudaLayer`] between passes. Each method is that one's.
///
/// The layer cannot be taken out, and its stream cannot be had: it is candle's, which may be another one in every thread.
#[derive(Debug)]
pub struct CudaLayerGuard<'a>(pub(super) MappedMutexGuard<'a, CudaLayer>);

/// Methods of [`CudaLayer`] with their own words.
macro_rules! layers {
    ($($(#[$doc:meta])* $name:ident(&self $(, $argument:ident: $type:ty)*) -> $out:ty;)*) => {
        $($(#[$doc])* pub fn $name(&self $(, $argument: $type)*) -> $out { self.0.$name($($argument),*) })*
    };
}
macro_rules! layers_mut {
    ($($(#[$doc:meta])* $name:ident(&mut self $(, $argument:ident: $type:ty)*) -> $out:ty;)*) => {
        $($(#[$doc])* pub fn $name(&mut self $(, $argument: $type)*) -> $out { self.0.$name($($argument),*) })*
    };
}

impl CudaLayerGuard<'_> {
    layers! {
        /// [`CudaLayer::name`].
        name(&self) -> &str;
        /// [`CudaLayer::layout`].
        layout(&self) -> SeedLayout;
        /// [`CudaLayer::registry`].
        registry(&self) -> &Registry;
        /// [`CudaLayer::lifecycle`].
        lifecycle(&self) -> &Lifecycle;
        /// [`CudaLayer::layer_state`].
        layer_state(&self) -> &LayerState;
        /// [`CudaLayer::last_synchronized`].
        last_synchronized(&self) -> Layer;
        /// [`CudaLayer::state`].
        ///
        /// # Errors
        /// As there.
        state(&self, seed: usize) -> Result<State>;
        /// [`CudaLayer::alpha`].
        ///
        /// # Errors
        /// As there.
        alpha(&self, seed: usize) -> Result<f32>;
        /// [`CudaLayer::readiness`].
        ///
        /// # Errors
        /// As there.
        readiness(&self, seed: usize) -> Result<Readiness>;
        /// [`CudaLayer::reconstruction_loss`].
        reconstruction_loss(&self, seed: usize) -> Option<f64>;
        /// [`CudaLayer::stability`].
        stability(&self) -> Stability;
        /// [`CudaLayer::chunk_stats`].
        chunk_stats(&self) -> &[ChunkStats];
        /// [`CudaLayer::gradient_stats`].
        gradient_stats(&self) -> &[GradientStats];
        /// [`CudaLayer::report`].
        report(&self) -> LayerReport;
    }

    layers_mut! {
        /// [`CudaLayer::withdraw`].
        withdraw(&mut self, seed: usize) -> Option<Command>;
        /// [`CudaLayer::record`].
        ///
        /// # Errors
        /// As there.
        record(&mut self, seed: usize, signals: SeedSignals) -> CudaResult<()>;
        /// [`CudaLayer::set_parameters`]. The seed's variables get these values.
        ///
        /// # Errors
        /// As there.
        set_parameters(&mut self, seed: usize, parameters: &[f32]) -> CudaResult<()>;
        /// [`CudaLayer::set_stability`].
        ///
        /// # Errors
        /// As there.
        set_stability(&mut self, stability: Stability) -> Result<()>;
        /// [`CudaLayer::set_telemetry_mode`].
        ///
        /// # Errors
        /// As there.
        set_telemetry_mode(&mut self, mode: TelemetryMode) -> CudaResult<()>;
        /// [`CudaLayer::tune`]. Waits, for seconds.
        ///
        /// # Errors
        /// As there.
        tune(&mut self, rows: usize, dtype: DType) -> CudaResult<TuneReport>;
        /// [`CudaLayer::advance_step`]. [`KasminaCudaLayer::advance_step`](super::KasminaCudaLayer::advance_step) waits less.
        ///
        /// # Errors
        /// As there.
        advance_step(&mut self) -> CudaResult<()>;
        /// [`CudaLayer::end_epoch`]. Waits.
        ///
        /// # Errors
        /// As there.
        end_epoch(&mut self) -> CudaResult<EpochReport>;
        /// [`CudaLayer::end_epoch_with`]. Waits.
        ///
        /// # Errors
        /// As there.
        end_epoch_with(&mut self, controller: &mut dyn Controller) -> CudaResult<EpochReport>;
        /// [`CudaLayer::end_epoch_publishing`].
        ///
        /// # Errors
        /// As there.
        end_epoch_publishing(&mut self, transport: &Transport) -> CudaResult<PublishedEpoch>;
        /// [`CudaLayer::publish`].
        ///
        /// # Errors
        /// As there.
        publish(&mut self, transport: &Transport) -> CudaResult<PublishOutcome>;
        /// [`CudaLayer::zero_gradients`]: of a layer that came with some.
        ///
        /// # Errors
        /// As there.
        zero_gradients(&mut self) -> CudaResult<()>;
        /// [`CudaLayer::synchronize`]. Waits.
        ///
        /// # Errors
        /// As there.
        synchronize(&mut self) -> CudaResult<()>;
        /// [`CudaLayer::to_layer`]: a copy on the CPU. Waits.
        ///
        /// # Errors
        /// As there.
        to_layer(&mut self) -> CudaResult<Layer>;
        /// [`CudaLayer::replace`]. Waits.
        ///
        /// # Errors
        /// As there.
        replace(&mut self, layer: &Layer) -> CudaResult<()>;
    }

    /// [`CudaLayer::set_telemetry_scope`].
    pub fn set_telemetry_scope(&mut self, scope: TelemetryScope) {
        self.0.set_telemetry_scope(scope);
    }

    /// [`CudaLayer::command`].
    ///
    /// # Errors
    /// As there.
    pub fn command(&mut self, seed: usize, command: Command, why: impl Into<String>) -> Result<()> {
        self.0.command(seed, command, why)
    }

    /// [`CudaLayer::roll_back`].
    ///
    /// # Errors
    /// As there.
    pub fn roll_back(&mut self, why: impl Into<String>) -> Result<()> {
        self.0.roll_back(why)
    }

    /// [`CudaLayer::save`]. Waits.
    ///
    /// # Errors
    /// As there.
    pub fn save(&mut self, path: impl AsRef<Path>) -> Checkpointed<()> {
        self.0.save(path)
    }

    /// [`CudaLayer::restore`]. Waits. Restored seeds have new variables.
    ///
    /// # Errors
    /// As there.
    pub fn restore<'e>(
        &mut self,
        path: impl AsRef<Path>,
        extensions: impl Into<Extensions<'e>>,
        why: impl Into<String>,
    ) -> Checkpointed<RestoreOutcome> {
        self.0.restore(path, extensions, why)
    }

    /// A seed's parameters by name, as [`CudaLayer::parameters`].
    pub fn parameters(&self, seed: usize) -> Option<impl ExactSizeIterator<Item = (&str, &[f32])>> {
        self.0.parameters(seed)
    }
}
