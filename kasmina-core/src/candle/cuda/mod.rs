//! The layer among candle's CUDA tensors: passes read and write the tensors' own memory, in candle's stream.
//!
//! [`KasminaCudaLayer`] is [`KasminaLayer`](super::KasminaLayer) for a network on a GPU, around a [`CudaLayer`] in place of a
//! [`Layer`]. Nothing goes through the host.
//!
//! # Who owns what
//!
//! * The variables of seeds that learn, and of germinated ones, are the truth, on candle's device. Every pass and every look at the
//!   layer copies them into the layer, on the device; nothing is compared, as that would wait.
//! * The layer's parameters are the truth where it changes them itself: a seed that germinates or thaws, a checkpoint,
//!   [`CudaLayerGuard::set_parameters`]. The variables get its values then, and a write to them in between is lost.
//! * Variables of frozen seeds are copies. What is written to them has no effect.
//! * Gradients are candle's, as with the module on the CPU. Their norm goes to the host when something asks for it.
//! * A NaN that an optimizer writes is not looked for: it would wait. It shows in what the seed computes.
//!
//! # What waits
//!
//! Forward, backward and [`KasminaCudaLayer::advance_step`] wait for nothing, but for what [`CudaLayer::advance_step`] says of
//! strategies that measure. [`KasminaCudaLayer::layer`] waits for gradient norms of seeds that learn, if there are any. With
//! `Device::new_cuda`, where candle's stream is another one in every thread, a thread that uses a layer after another thread waits for
//! the device first.
//!
//! # What it costs
//!
//! Where no seed is on path or learns, y is x, and what is left to do depends on what is measured:
//!
//! * Nothing, as in the steps that [`TelemetryMode::Sampling`](crate::TelemetryMode::Sampling) passes over: `forward` returns the
//!   tensor that it was given. The graph has no operation for the layer.
//! * Activations alone ([`KasminaCudaLayer::without_gradient_statistics`], inference): the same, after one reading of x.
//! * Activations and gradients: an operation of the graph. x is copied and dL/dy, too, each read once for both purposes; and candle
//!   adds what a custom operation returns to zeros, three more passes over memory.
//!
//! For seeds that learn, a pass adds copies on the device: one a parameter tensor (candle's `cat`), and one a seed each way.

mod guard;
mod op;
mod snapshot;
mod tensor;
mod turns;
mod variables;

use std::sync::Arc;

use candle_core::{Device, DeviceLocation, Module, Tensor, Var};
use kasmina_sys::Driver;
use parking_lot::{Mutex, MutexGuard};

pub use guard::CudaLayerGuard;

use super::{CandleError, CandleResult, tensor as any_tensor};
use crate::cuda::{CudaError, CudaLayer, Engine};
use crate::lifecycle::SeedSignals;
use crate::{ForwardOptions, Layer};
use op::Pass;
use snapshot::Snapshot;
use tensor::Result1;
use turns::Turns;
use variables::{Norms, Variables};

/// A [`CudaLayer`] as a candle module for tensors on its device; clones share the layer.
///
/// ```no_run
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{AdamW, Optimizer, ParamsAdamW};
/// use kasmina_core::candle::KasminaCudaLayer;
/// use kasmina_core::{Layer, SeedLayout};
///
/// let device = Device::new_cuda(0)?;
/// // One engine for all layers of a device: it holds the kernels.
/// let engine = KasminaCudaLayer::engine(&device)?;
/// let layer = Layer::builder(SeedLayout::new(1024, 64)?).build()?;
/// let kasmina = KasminaCudaLayer::new(&layer, &device, &engine)?;
///
/// let x = Tensor::ones((8, 1024), DType::BF16, &device)?;
/// let loss = kasmina.forward(&x)?.sqr()?.mean_all()?;
/// let mut optimizer = AdamW::new(kasmina.vars()?, ParamsAdamW::default())?;
/// optimizer.backward_step(&loss)?;
/// kasmina.advance_step()?;
/// let report = kasmina.layer()?.end_epoch()?; // waits
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct KasminaCudaLayer {
    shared: Arc<Mutex<Shared>>,
    options: ForwardOptions,
    measures_gradients: bool,
}

/// What clones of a module, and the operations in candle's graphs, share.
#[derive(Debug)]
struct Shared {
    layer: CudaLayer,
    variables: Variables,
    norms: Norms,
    device: Device,
    turns: Turns,
}

impl KasminaCudaLayer {
    /// The kernels, loaded for a candle device. Layers of one device share one.
    ///
    /// # Errors
    /// [`CandleError::OtherDevice`] for a device that is no GPU, [`CandleError::Cuda`] where the kernels were not built or do not
    /// run there.
    pub fn engine(device: &Device) -> CandleResult<Arc<Engine>> {
        let ordinal = match device.location() {
            DeviceLocation::Cuda { gpu_id } => u32::try_from(gpu_id).unwrap_or(u32::MAX),
            _ => return Err(no_gpu(device)),
        };
        let driver = Driver::load().map_err(CudaError::from)?;
        Ok(Engine::new(driver.device(ordinal).map_err(CudaError::from)?)?)
    }

    /// A module around a copy of `layer` on `device`, whose passes are queued in candle's stream. Waits.
    ///
    /// # Errors
    /// [`CandleError::OtherDevice`] where `engine` is another device's, and those of [`CudaLayer::from_layer`].
    pub fn new(layer: &Layer, device: &Device, engine: &Arc<Engine>) -> CandleResult<Self> {
        let Device::Cuda(cuda) = device else { return Err(no_gpu(device)) };
        let (turns, stream) = Turns::new(cuda, engine)?;
        let shared = Shared {
            layer: CudaLayer::from_layer(layer, engine, &stream)?,
            variables: Variables::default(),
            norms: Norms::default(),
            device: device.clone(),
            turns,
        };
        let (shared, options) = (Arc::new(Mutex::new(shared)), ForwardOptions::new());
        Ok(Self { shared, options, measures_gradients: true })
    }

    /// The same layer, run with `options` by [`Module::forward`]: a probe inside a `Sequential`.
    #[must_use]
    pub fn with_options(&self, options: ForwardOptions) -> Self {
        Self { options, ..self.clone() }
    }

    /// The same layer, whose backward passes measure nothing: its reports have no gradient statistics of these passes. Where no seed
    /// is on path or learns, the graph then has no operation for the layer, in training too.
    #[must_use]
    pub fn without_gradient_statistics(&self) -> Self {
        Self { measures_gradients: false, ..self.clone() }
    }

    /// The layer itself, locked, with what the variables hold: for commands, epochs, telemetry. Waits for the gradient norms of
    /// seeds that learn, if there are any, which [`KasminaCudaLayer::advance_step`] does only where a strategy asks for them.
    ///
    /// Passes of the module wait while the guard lives; in the same thread they would wait for ever.
    ///
    /// # Errors
    /// The device's or candle's refusal of a copy.
    pub fn layer(&self) -> CandleResult<CudaLayerGuard<'_>> {
        let mut shared = Shared::lock(&self.shared)?;
        shared.sync()?;
        shared.settle_norms(|_| true)?;
        Ok(CudaLayerGuard(MutexGuard::map(shared, |shared| &mut shared.layer)))
    }

    /// The layer as the host last saw it, as [`CudaLayer::last_synchronized`]: for when the device has failed and
    /// [`KasminaCudaLayer::layer`] with it.
    pub fn last_synchronized(&self) -> Layer {
        self.shared.lock().layer.last_synchronized()
    }

    /// Ends a training step, as [`CudaLayer::advance_step`], and waits where that does.
    ///
    /// # Errors
    /// As there, or candle's refusal of a copy.
    pub fn advance_step(&self) -> CandleResult<()> {
        let shared = &mut *Shared::lock(&self.shared)?;
        let measured: Vec<_> = shared.layer.lifecycle().grafts_that_measure().collect();
        if measured.iter().any(|(_, drift, _)| *drift) {
            shared.sync()?;
        }
        shared.settle_norms(|seed| measured.iter().any(|m| m.0 as usize == seed && m.2))?;
        Ok(shared.layer.advance_step()?)
    }

    /// y = layer(x) for x of any shape `[…, hidden]` in f32, f16 or bf16 on the layer's device. The leading dimensions are rows.
    /// Rows at a uniform distance are read where they are, other layouts are copied first. Queued.
    ///
    /// With [`ForwardOptions::inference`] the result has no backward pass. Where no seed is on path, and a backward pass has nothing
    /// to do or will not come, the result is `x` itself: it is read for the statistics, and nothing is written.
    ///
    /// # Errors
    /// [`CandleError`].
    pub fn forward_with(&self, x: &Tensor, options: &ForwardOptions) -> CandleResult<Tensor> {
        let x = any_tensor::rowwise(x)?;
        let mut shared = Shared::lock(&self.shared)?;
        shared.check_device("x", &x)?;
        let Shared { layer, variables, device, .. } = &mut *shared;
        any_tensor::check_shape("x", &x, layer.layout().hidden())?;
        variables.sync(layer, device)?;
        let packed = variables.lend(layer)?;
        let graph = !options.is_inference() && (x.track_op() || packed.is_some());
        let backward = match self.measures_gradients {
            true => options.clone(),
            false => options.clone().without_telemetry(),
        };
        // Seeds that learn get gradients from every backward pass, zeros too.
        let bare = !graph || packed.is_none() && layer.next_backward_is_idle(&backward)?;
        if bare && tensor::observe(layer, &x, options)? {
            return Ok(if graph { x } else { x.detach() });
        }
        let y: Result1 = tensor::forward(layer, device, &x, options)?;
        if !graph {
            drop(shared);
            return Ok(x.apply_op1_no_bwd(&Pass::without_backward(y))?);
        }
        let snapshot = Snapshot::new(layer, packed.is_some());
        drop(shared);
        let pass = Pass::new(Arc::clone(&self.shared), backward, snapshot, y);
        Ok(match packed {
            Some(packed) => x.apply_op2(&packed, pass)?,
            None => x.apply_op1(pass)?,
        })
    }

    /// The variables that the next backward pass gives gradients, for candle's optimizers: f32, on the layer's device. A seed keeps
    /// its variables as long as it keeps its parameters; one that germinates anew, or comes from a checkpoint, gets new ones.
    ///
    /// # Errors
    /// The device's or candle's refusal of a copy.
    pub fn vars(&self) -> CandleResult<Vec<Var>> {
        let shared = &mut *Shared::lock(&self.shared)?;
        shared.sync()?;
        Ok(shared.variables.trainable(&shared.layer).cloned().collect())
    }

    /// All variables by name, such as `seed2.up_bias`, frozen ones included.
    ///
    /// # Errors
    /// As [`KasminaCudaLayer::vars`].
    pub fn named_vars(&self) -> CandleResult<Vec<(String, Var)>> {
        let shared = &mut *Shared::lock(&self.shared)?;
        shared.sync()?;
        Ok(shared.variables.named())
    }

    /// Sets every variable to the layer's value as of its last pass, whatever was written to it since.
    ///
    /// # Errors
    /// As [`KasminaCudaLayer::vars`].
    pub fn reload_vars(&self) -> CandleResult<()> {
        let Shared { layer, variables, device, .. } = &mut *Shared::lock(&self.shared)?;
        variables.reload(layer, device)
    }
}

impl Module for KasminaCudaLayer {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_with(x, &self.options)?)
    }
}

impl Shared {
    /// The calling thread's turn.
    fn lock(shared: &Mutex<Self>) -> CandleResult<MutexGuard<'_, Self>> {
        let mut shared = shared.lock();
        shared.turns.take()?;
        Ok(shared)
    }

    /// Brings variables and layer into agreement, in both directions.
    fn sync(&mut self) -> CandleResult<()> {
        self.variables.sync(&mut self.layer, &self.device)?;
        self.variables.lend(&mut self.layer)?;
        Ok(())
    }

    /// Records the gradient norms that wait of the seeds that are `wanted`; waits for the device where there are some.
    fn settle_norms(&mut self, wanted: impl Fn(usize) -> bool) -> CandleResult<()> {
        for (seed, norm) in self.norms.take(wanted)? {
            if self.layer.lifecycle().grown(seed).is_some() {
                let signals = SeedSignals { gradient_norm: Some(norm), ..SeedSignals::default() };
                self.layer.record(seed, signals)?;
            }
        }
        Ok(())
    }

    fn check_device(&self, what: &'static str, x: &Tensor) -> CandleResult<()> {
        if x.device().same_device(&self.device) {
            return Ok(());
        }
        let (found, needed) = (name(x.device()), name(&self.device));
        Err(CandleError::OtherDevice { what, found, needed })
    }
}

impl Drop for Shared {
    /// What goes with it is freed in the stream of the thread that drops it, which takes its turn for that.
    fn drop(&mut self) {
        if let Err(error) = self.turns.take() {
            tracing::warn!(target: "kasmina::cuda", %error, "the device could not be waited for");
        }
    }
}

fn no_gpu(device: &Device) -> CandleError {
    let needed = "a CUDA device".to_owned();
    CandleError::OtherDevice { what: "the module", found: name(device), needed }
}

fn name(device: &Device) -> String {
    match device {
        Device::Cpu => "the CPU".to_owned(),
        // Devices that are made apart are different ones to candle, even on one GPU: each has its stream.
        Device::Cuda(cuda) => {
            format!("CUDA device {} ({cuda:?})", cuda.cuda_stream().context().ordinal())
        }
        Device::Metal(_) => "a Metal device".to_owned(),
    }
}
