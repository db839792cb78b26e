//! A layer on the device: the same methods as [`Layer`], queued on a stream.
//!
//! The host keeps a copy of the layer's state. Of it, the lifecycle is the truth: states, alphas and commands are the
//! host's, and the device runs what they lower to. Parameters, optimizer state, gradients and statistics are the device's,
//! and come to the host where it asks for them.
//!
//! Read on in `work` (what a seed's state asks for), `arena` (where its numbers are), `plan` (what goes up when), `pass`,
//! `train`, `step` (the same as parts of a graph), `resident` (as items of a resident grid), `stacked` (in one launch with its
//! neighbours), `sync` (what comes down when), `publish` (what goes to a consumer's thread) and `epoch`; `lend` is for parameters that
//! are somebody else's variables.

mod arena;
mod epoch;
mod given;
#[cfg(feature = "candle-cuda")]
mod lend;
mod pass;
mod plan;
mod publish;
mod report;
mod resident;
mod stacked;
mod step;
mod sync;
mod telemetry;
mod train;
#[cfg(feature = "candle")]
mod users;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;

use kasmina_sys::Stream;
use kasmina_telemetry::{ChunkStats, GradientStats, TelemetryMode, TelemetryScope};
use kasmina_tma::LoadPath;

pub use epoch::PublishedEpoch;
pub use given::LayerStep;
pub(in crate::cuda) use given::Phases;
pub use publish::PublishOutcome;
pub(in crate::cuda) use report::Reports;
pub use report::{LayerReport, OptimizerSummary};
pub(super) use resident::ResidentStamp;
pub(in crate::cuda) use step::{Ready, Stamp};
#[cfg(feature = "candle")]
pub(crate) use users::runs_user_blueprint;

use super::engine::Engine;
use super::error::CudaError;
use super::matrices::Matrices;
use super::params::RawBounds;
use super::seeds::{LargeSeeds, StrictScratch};
use super::stencil::Stencils;
use super::streams::Streams;
use super::tune::TuneReport;
use crate::lifecycle::Lifecycle;
use crate::{
    DType, ForwardOptions, Layer, LayerState, Registry, Result, SeedLayout, Stability, State,
};
use arena::Arena;
use plan::Stale;
use publish::Publisher;
use sync::Landings;
use telemetry::Telemetry;

/// A [`Layer`] on the device.
///
/// A training step (forward, backward, optimizer, [`advance_step`](CudaLayer::advance_step)) only queues work; the epoch
/// boundary, [`synchronize`](CudaLayer::synchronize), checkpoints and the ways to and from the host wait. Reports that nobody
/// has to wait for go to a consumer's thread, by [`publish`](CudaLayer::publish). What
/// [`parameters`](CudaLayer::parameters), [`gradients`](CudaLayer::gradients), [`chunk_stats`](CudaLayer::chunk_stats) and the
/// like show is as of the last of these. User-defined blueprints run on the CPU alone: a pass in which one would run is
/// [`CudaError::UserBlueprint`], and changes nothing.
///
/// ```no_run
/// use kasmina_core::cuda::{CudaLayer, DeviceMatMut, DeviceMatRef, Engine};
/// use kasmina_core::{AdamW, ForwardOptions, Layer, SeedLayout};
/// use kasmina_sys::{DeviceBuffer, Driver, Stream};
///
/// let engine = Engine::new(Driver::load()?.device(0)?)?;
/// let stream = Stream::new(engine.context())?;
/// let layer = Layer::builder(SeedLayout::new(1024, 64)?).build()?;
/// let mut layer = CudaLayer::from_layer(&layer, &engine, &stream)?;
///
/// let x = DeviceBuffer::<f32>::zeroed(&stream, 32 * 1024)?;
/// let grad_y = DeviceBuffer::<f32>::zeroed(&stream, 32 * 1024)?;
/// let mut y = DeviceBuffer::<f32>::zeroed(&stream, 32 * 1024)?;
/// let mut grad_x = DeviceBuffer::<f32>::zeroed(&stream, 32 * 1024)?;
/// let rows = |slice| DeviceMatRef::new(slice, 32, 1024, 1024);
/// let options = ForwardOptions::new();
/// layer.forward(
///     rows(x.as_slice())?,
///     &mut DeviceMatMut::new(y.as_mut_slice(), 32, 1024, 1024)?,
///     &options,
/// )?;
/// layer.backward(
///     rows(x.as_slice())?,
///     rows(grad_y.as_slice())?,
///     &mut DeviceMatMut::new(grad_x.as_mut_slice(), 32, 1024, 1024)?,
///     &options,
/// )?;
/// layer.optimizer_step(&AdamW::default())?;
/// layer.advance_step()?;
/// let report = layer.end_epoch()?; // waits
/// println!("{} {}", report.telemetry.hardware, report.telemetry.kernel);
/// let layer: Layer = layer.to_layer()?; // back on the CPU, mid-lifecycle
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Memory and streams of others
///
/// Matrices of cudarc, candle or PyTorch come in as they are: a raw address, and the stream on which the memory is valid.
/// The layer's own stream waits for that stream before a pass, and that stream for the pass.
///
/// ```no_run
/// use kasmina_core::ForwardOptions;
/// use kasmina_core::cuda::{CudaError, CudaLayer, DeviceMatMut, DeviceMatRef};
/// use kasmina_sys::{DeviceSlice, DeviceSliceMut, Stream, raw};
///
/// /// `x` and `y` are `tensor.data_ptr()` of contiguous `[rows, hidden]` tensors of f32, `stream` is
/// /// `torch.cuda.current_stream().cuda_stream`. With cudarc they are `slice.device_ptr(&stream)` and `stream.cu_stream()`.
/// ///
/// /// # Safety
/// /// The memory is valid on `stream`, a stream of the primary context, until this layer's work with it is done.
/// unsafe fn forward(
///     layer: &mut CudaLayer, stream: raw::CUstream, x: u64, y: u64, rows: usize,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let hidden = layer.layout().hidden();
///     // SAFETY: by the caller's word.
///     let theirs = unsafe { Stream::from_raw(layer.stream().context(), stream) };
///     // SAFETY: as above.
///     let (x, y) = unsafe {
///         (
///             DeviceSlice::<f32>::from_raw(&theirs, x, rows * hidden)?,
///             DeviceSliceMut::<f32>::from_raw(&theirs, y, rows * hidden)?,
///         )
///     };
///     let x = DeviceMatRef::new(x, rows, hidden, hidden)?;
///     let mut y = DeviceMatMut::new(y, rows, hidden, hidden)?;
///     Ok(layer.forward(x, &mut y, &ForwardOptions::new())?)
/// }
/// ```
///
/// # When the device fails
///
/// Out of memory is an error like any other, and the layer goes on. After an error that [`CudaError::is_sticky`] the device's
/// context is lost; [`CudaLayer::last_synchronized`] still gives the layer as the host last saw it.
#[derive(Debug)]
pub struct CudaLayer {
    state: LayerState,
    streams: Streams,
    stencils: Stencils,
    matrices: Matrices,
    strict: StrictScratch,
    large: LargeSeeds,
    telemetry: Telemetry,
    /// `None` where the host alone has the seeds' numbers; the next pass makes it.
    arena: Option<Arena>,
    stale: Stale,
    landings: Landings,
    /// What the device was last given; `None` where it is not known, as after a call in strict mode.
    bounds: Option<RawBounds>,
    /// Whether the optimizer has made steps that the host has not seen.
    stepped: bool,
    /// See [`CudaLayer::parameters_revision`].
    revision: u64,
    /// Whether the host's accumulators have not reached the device.
    telemetry_unsent: bool,
    /// Whether the host's accumulators may hold anything.
    counted_on_host: bool,
    /// Made by the first publication.
    publisher: Option<Publisher>,
    summaries: BTreeMap<u32, OptimizerSummary>,
    forced: Option<LoadPath>,
    report: LayerReport,
    /// How its passes run on a resident grid, as they were last made for one.
    on_grid: [Reports; 2],
}

impl CudaLayer {
    /// Copies a layer to the device, with everything that it is in the middle of. Passes will be queued on `stream`. Waits.
    ///
    /// # Errors
    /// Out of memory, more columns than the kernels take, a `stream` of another context; `layer` is as it was, always.
    pub fn from_layer(
        layer: &Layer,
        engine: &Arc<Engine>,
        stream: &Stream,
    ) -> Result<Self, CudaError> {
        if stream.context().raw() != engine.context().raw() {
            return Err(kasmina_sys::Error::OtherContext { what: "a layer" }.into());
        }
        let state = layer.layer_state().clone();
        let layout = state.lifecycle.layout();
        let mut streams = Streams::new(engine, stream, layout)?;
        let telemetry = Telemetry::new(&mut streams, layout, &state.telemetry)?;
        let device = engine.context().device().name()?;
        let mut layer = Self {
            state,
            streams,
            stencils: Stencils::default(),
            matrices: Matrices::default(),
            strict: StrictScratch::default(),
            large: LargeSeeds::default(),
            telemetry,
            arena: None,
            stale: Stale::default(),
            landings: Landings::default(),
            bounds: None,
            stepped: false,
            revision: 0,
            telemetry_unsent: false,
            counted_on_host: true,
            publisher: None,
            summaries: BTreeMap::new(),
            forced: None,
            report: LayerReport { device, ..LayerReport::default() },
            on_grid: Default::default(),
        };
        layer.ensure_arena()?;
        Ok(layer)
    }

    /// The layer as it is now, on the CPU: parameters, optimizer state, gradients, statistics, waiting commands. This one
    /// stays. Waits.
    ///
    /// # Errors
    /// Something queued before, or a copy, failed; [`CudaLayer::last_synchronized`] is what is left then.
    pub fn to_layer(&mut self) -> Result<Layer, CudaError> {
        self.synchronize()?;
        Ok(self.last_synchronized())
    }

    /// The layer as the host knows it, without asking the device: states, alphas, counters and commands of now; parameters,
    /// optimizer state, gradients and statistics as of the last [`CudaLayer::synchronize`] or epoch boundary.
    pub fn last_synchronized(&self) -> Layer {
        Layer::from_state(self.state.clone())
    }

    /// Makes what the device lacks. Waits where that is something.
    fn ensure_arena(&mut self) -> Result<(), CudaError> {
        self.send_telemetry()?;
        if self.arena.is_some() {
            return Ok(());
        }
        self.streams.columns.residents.settle();
        let stream = self.streams.columns.stream.clone();
        let arena = Arena::new(&stream, &self.state.lifecycle)?;
        self.landings = Landings::new(&stream, &arena, &self.state.lifecycle)?;
        self.arena = Some(arena);
        self.streams.columns.host_flags.fill(0);
        self.stale.all = true;
        self.streams.columns.changed();
        Ok(())
    }

    /// Gives the device the host's accumulators where it lacks them; waits then.
    fn send_telemetry(&mut self) -> Result<(), CudaError> {
        if self.telemetry_unsent {
            self.streams.columns.residents.settle();
            self.telemetry.put(&mut self.streams, &self.state.telemetry)?;
            self.telemetry_unsent = false;
            self.streams.columns.changed();
        }
        Ok(())
    }

    /// The stream that passes are queued on.
    pub fn stream(&self) -> &Stream {
        &self.streams.columns.stream
    }

    /// The device with its kernels.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.streams.columns.engine
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

    /// States, history, readiness; and parameters as of the last synchronization.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.state.lifecycle
    }

    /// The host's copy of the layer; see [`CudaLayer::last_synchronized`].
    pub fn layer_state(&self) -> &LayerState {
        &self.state
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
        self.state.stability = stability;
        self.streams.columns.changed();
        Ok(())
    }

    /// Changes how much is measured, from the next call on. Statistics gathered so far stay; histograms go with debug mode, but
    /// for those that were published.
    ///
    /// Queued; passes allocate nothing for it. Debug mode's histograms are allocated here when it is entered for the first time
    /// and kept for later: where the layer was published, page-locked memory too, which may wait for the device.
    ///
    /// # Errors
    /// [`CudaError::Engine`] for a sampling fraction outside (0, 1], the layer unchanged; or no memory for the histograms.
    pub fn set_telemetry_mode(&mut self, mode: TelemetryMode) -> Result<(), CudaError> {
        let old = self.state.telemetry.mode;
        self.state.telemetry.set_mode(mode)?;
        if let Err(error) = self.follow_mode() {
            self.state.telemetry.set_mode(old)?;
            return Err(error);
        }
        self.streams.columns.changed();
        Ok(())
    }

    fn follow_mode(&mut self) -> Result<(), CudaError> {
        let telemetry = &self.state.telemetry;
        if let (Some(publisher), Some(histograms)) = (&mut self.publisher, &telemetry.histograms) {
            publisher.make_histograms(histograms.len())?;
        }
        self.telemetry.follow(&self.streams.columns, telemetry)
    }

    /// Changes which seeds are measured, from the next call on.
    pub fn set_telemetry_scope(&mut self, scope: TelemetryScope) {
        self.state.telemetry.scope = scope;
    }

    /// Forces a rung of the load ladder in the streaming passes, or lets them choose again. A pass that cannot load its
    /// matrices so is an error.
    pub fn force_path(&mut self, path: Option<LoadPath>) {
        self.forced = path;
        self.streams.columns.changed();
    }

    /// Measures which rungs of the load ladder and which cuts the streaming passes run best with for `rows` dense rows of
    /// `dtype`, with the layer's columns and telemetry as they are now, and keeps that on the disk for other layers and
    /// processes; `KASMINA_AUTOTUNE` says whether they look for it. Matrices, gradients and statistics of the layer are not
    /// touched: it measures on memory of its own. Waits, for seconds.
    ///
    /// # Errors
    /// More rows than the kernels take, a forced rung that is not possible, a stream that is being captured, or the device is
    /// lost. What could not be measured is in the report with its reason.
    pub fn tune(&mut self, rows: usize, dtype: DType) -> Result<TuneReport, CudaError> {
        self.refresh(&ForwardOptions::new())?;
        let measured = self.state.telemetry.scope != TelemetryScope::Off;
        self.streams.tune(dtype, rows, measured, self.forced)
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

    /// A seed's parameters by name, as of the last synchronization; `None` if it owns none.
    pub fn parameters(&self, seed: usize) -> Option<impl ExactSizeIterator<Item = (&str, &[f32])>> {
        Some(self.state.lifecycle.grown(seed)?.named_parameters())
    }

    /// Grows whenever the layer itself changes parameters: by its optimizer, by [`CudaLayer::set_parameters`], by a checkpoint or
    /// another layer in its place. Transitions are in the history.
    pub fn parameters_revision(&self) -> u64 {
        self.revision
    }

    /// A seed's gathered parameter gradients by name, as of the last synchronization; `None` if it had none then.
    pub fn gradients(&self, seed: usize) -> Option<impl ExactSizeIterator<Item = (&str, &[f32])>> {
        self.state.lifecycle.grown(seed)?.named_gradients()
    }

    /// dL/dalpha of a seed, as of the last synchronization; see [`Layer::alpha_gradient`].
    pub fn alpha_gradient(&self, seed: usize) -> Option<f32> {
        self.state.lifecycle.grown(seed)?.alpha_gradient()
    }

    /// The latest reconstruction loss of a seed that has reached the host; see [`Layer::reconstruction_loss`].
    pub fn reconstruction_loss(&self, seed: usize) -> Option<f64> {
        self.state.lifecycle.grown(seed)?.reconstruction()
    }

    /// Activation statistics of the epoch as of the last synchronization, one entry a seed.
    pub fn chunk_stats(&self) -> &[ChunkStats] {
        &self.state.telemetry.chunk
    }

    /// Output-gradient statistics of the epoch as of the last synchronization, one entry a seed.
    pub fn gradient_stats(&self) -> &[GradientStats] {
        &self.state.telemetry.gradient
    }

    /// Which kernels ran the last passes, and why these.
    pub fn report(&self) -> LayerReport {
        let (filters, matrices) = self.count_branches();
        LayerReport { filters, matrices, ..self.report.clone() }
    }

    /// What the optimizer did, as far as synchronizations and epoch boundaries have told the host, since this was last called:
    /// one entry for every seed that it stepped, ascending.
    pub fn take_optimizer_summaries(&mut self) -> Vec<OptimizerSummary> {
        std::mem::take(&mut self.summaries).into_values().collect()
    }
}
