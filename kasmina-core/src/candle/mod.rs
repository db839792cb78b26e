//! The layer as a candle module: its place in a network, its parameters in candle's optimizers.
//!
//! [`KasminaLayer`] shares one [`Layer`] between its clones. A forward pass is one custom operation of
//! candle's graph with two arguments, the activations and all trainable parameters; its backward pass is
//! the layer's own, and candle's graph carries the gradients on to the network before it and to the
//! variables.
//!
//! It takes tensors on the CPU. With the feature `candle-cuda` there is `KasminaCudaLayer` for tensors on a GPU.
//!
//! # Who owns what
//!
//! * Parameters live in both: one `Var` a parameter tensor ([`KasminaLayer::named_vars`]), and the layer's
//!   own copy. Before every use they are compared with the values both last agreed on, and the side that
//!   moved wins: an optimizer's step reaches the layer, a roll-back reaches the variables.
//! * Gradients belong to candle: a backward pass leaves them in its `GradStore` and nothing in the layer.
//!   TRAINING seeds' gradients arrive there too, although the output does not depend on them. Only the
//!   gradient norm is recorded with the layer, where gates and graft strategies look for it.
//! * [`Objective::Reconstruction`](crate::Objective::Reconstruction) is an objective of its own: its
//!   gradient arrives with every backward pass through the layer, unscaled by the task loss.
//!
//! ```
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_nn::{AdamW, Optimizer, ParamsAdamW};
//! use kasmina_core::candle::KasminaLayer;
//! use kasmina_core::{Command, Germination, Layer, SeedLayout};
//!
//! let mut layer = Layer::builder(SeedLayout::new(64, 16)?).build()?;
//! let bottleneck = layer.registry().find("bottleneck")?;
//! layer.command(2, Command::Germinate(Germination::new(bottleneck)), "chunk 2 drifted")?;
//! let _ = layer.end_epoch();
//! layer.command(2, Command::Promote, "train it")?;
//! let _ = layer.end_epoch();
//!
//! let kasmina = KasminaLayer::new(layer);
//! let mut optimizer = AdamW::new(kasmina.vars()?, ParamsAdamW::default())?;
//! let x = Tensor::ones((8, 64), DType::F32, &Device::Cpu)?;
//! let loss = kasmina.forward(&x)?.sqr()?.mean_all()?;
//! optimizer.backward_step(&loss)?; // moves `seed2.down`, `seed2.down_bias`, `seed2.up`, `seed2.up_bias`
//! kasmina.layer().advance_step();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "candle-cuda")]
mod cuda;
mod device;
mod error;
mod op;
mod snapshot;
mod tensor;
mod vars;

use std::sync::Arc;

use candle_core::{Module, Tensor, Var};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

#[cfg(feature = "candle-cuda")]
pub use cuda::{CudaLayerGuard, KasminaCudaLayer};
pub use device::DevicePasses;
pub use error::{CandleError, CandleResult};

use crate::cuda::Engine;
use crate::{ForwardOptions, Layer};
use device::OnDevice;
use op::Pass;
use snapshot::Snapshot;
use vars::Variables;

/// A [`Layer`] as a candle module; clones share the layer.
#[derive(Clone, Debug)]
pub struct KasminaLayer {
    shared: Arc<Mutex<Shared>>,
    options: ForwardOptions,
}

/// What clones of a module, and the operations in candle's graphs, share.
#[derive(Debug)]
struct Shared {
    layer: Layer,
    variables: Variables,
    /// Where passes run, if that is not the CPU.
    device: Option<OnDevice>,
}

impl KasminaLayer {
    /// A module around `layer`.
    pub fn new(layer: Layer) -> Self {
        Self::with_device(layer, None)
    }

    /// A module around `layer` whose passes run on a GPU, between tensors on the CPU: inputs and results are copied, and the
    /// layer's state with them. A pass in which a user-defined blueprint runs is the CPU's; [`KasminaLayer::device_passes`]
    /// counts both.
    ///
    /// # Errors
    /// [`CandleError::Cuda`] if the device has no stream for it.
    pub fn on_device(layer: Layer, engine: &Arc<Engine>) -> CandleResult<Self> {
        Ok(Self::with_device(layer, Some(OnDevice::new(engine)?)))
    }

    fn with_device(layer: Layer, device: Option<OnDevice>) -> Self {
        let shared = Shared { layer, variables: Variables::default(), device };
        Self { shared: Arc::new(Mutex::new(shared)), options: ForwardOptions::new() }
    }

    /// How many passes ran where; `None` for a module on the CPU.
    pub fn device_passes(&self) -> Option<DevicePasses> {
        self.shared.lock().device.as_ref().map(|device| device.passes)
    }

    /// The same layer, run with `options` by [`Module::forward`]: a probe inside a `Sequential`.
    #[must_use]
    pub fn with_options(&self, options: ForwardOptions) -> Self {
        Self { shared: Arc::clone(&self.shared), options }
    }

    /// The layer itself, locked, with what the variables hold: for commands, epochs, telemetry. Parameters
    /// that the layer refuses, such as a NaN, stay in their variables, and the next forward pass is the
    /// error that says so.
    ///
    /// Passes of the module wait while the guard lives; in the same thread they would wait for ever.
    pub fn layer(&self) -> MappedMutexGuard<'_, Layer> {
        let mut shared = self.shared.lock();
        // An error persists and is reported by the next pass; here it must not lock the caller out of the
        // commands that get rid of its seed.
        let _ = shared.sync();
        MutexGuard::map(shared, |shared| &mut shared.layer)
    }

    /// y = layer(x) for x of any shape `[…, hidden]` in f32, f16 or bf16 on the CPU. The leading
    /// dimensions are rows. Rows at a uniform distance are read where they are, other layouts are copied
    /// first. With [`ForwardOptions::inference`] the result has no backward pass.
    ///
    /// # Errors
    /// [`CandleError`]; the layer is unchanged then.
    pub fn forward_with(&self, x: &Tensor, options: &ForwardOptions) -> CandleResult<Tensor> {
        let x = tensor::rowwise(x)?;
        let mut shared = self.shared.lock();
        shared.sync()?;
        let Shared { layer, variables, device } = &mut *shared;
        let y = tensor::forward(layer, device.as_mut(), &x, options)?;
        let snapshot = Snapshot::new(layer);
        let packed = variables.packed(snapshot.trainable_seeds())?;
        drop(shared);
        let pass = Pass::new(Arc::clone(&self.shared), options.clone(), snapshot, y);
        Ok(match packed {
            _ if options.is_inference() => x.apply_op1_no_bwd(&pass)?,
            Some(packed) => x.apply_op2(&packed, pass)?,
            None => x.apply_op1(pass)?,
        })
    }

    /// The variables that the next backward pass gives gradients, for candle's optimizers. A seed keeps its
    /// variables as long as it keeps its parameters; one that germinates anew gets new ones.
    ///
    /// # Errors
    /// As [`KasminaLayer::sync`].
    pub fn vars(&self) -> CandleResult<Vec<Var>> {
        let mut shared = self.shared.lock();
        shared.sync()?;
        let Shared { layer, variables, .. } = &*shared;
        let trainable = |seed: usize| layer.state(seed).is_ok_and(crate::State::trainable);
        let vars = variables.seeds.iter().filter(|(seed, _)| trainable(**seed));
        Ok(vars.flat_map(|(_, seed)| seed.vars.iter().cloned()).collect())
    }

    /// All variables by name, such as `seed2.up_bias`, frozen ones included.
    ///
    /// # Errors
    /// As [`KasminaLayer::sync`].
    pub fn named_vars(&self) -> CandleResult<Vec<(String, Var)>> {
        let mut shared = self.shared.lock();
        shared.sync()?;
        let seeds = shared.variables.seeds.values();
        Ok(seeds.flat_map(|s| s.names.iter().cloned().zip(s.vars.iter().cloned())).collect())
    }

    /// Brings variables and layer into agreement; every pass and every look at the variables does this
    /// first.
    ///
    /// # Errors
    /// [`CandleError::Conflict`] if both sides moved, and the layer's refusals:
    /// [`Error::Frozen`](crate::Error::Frozen), [`Error::Value`](crate::Error::Value) for a NaN.
    pub fn sync(&self) -> CandleResult<()> {
        self.shared.lock().sync()
    }

    /// Sets every variable to the layer's value, whatever was written to it: the way back from a conflict
    /// or from a step that went to NaN.
    ///
    /// # Errors
    /// Candle's, if a variable cannot be written.
    pub fn reload_vars(&self) -> CandleResult<()> {
        let shared = &mut *self.shared.lock();
        shared.variables.reload(&shared.layer)
    }
}

impl Module for KasminaLayer {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(self.forward_with(x, &self.options)?)
    }
}

impl Shared {
    fn sync(&mut self) -> CandleResult<()> {
        self.variables.sync(&mut self.layer)
    }
}
