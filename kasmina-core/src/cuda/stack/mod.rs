//! Consecutive layers in one launch: what one layer leaves, the next one finds in registers.
//!
//! What a seed of the kinds residual, attention head and expansion does to a column, it does to each element by itself. So a stack of
//! layers without anything between them takes an element through all of them before it is stored: one launch, one read and one write,
//! whatever the depth. Which layers share a launch is in `plan`, how the matrix is cut in `cut`.

mod apart;
mod backward;
mod cut;
mod error;
mod forward;
mod list;
mod params;
mod plan;
mod report;

use std::sync::Arc;

use kasmina_sys::{DeviceBuffer, Stream};

pub(in crate::cuda) use backward::{StackBackward, StackFinalize};
pub use cut::StackCut;
pub use error::StackError;
pub(in crate::cuda) use forward::StackForward;
use list::Lists;
use params::BackwardLayer;
pub(in crate::cuda) use params::ForwardLayer;
pub use plan::OwnLaunches;
use plan::Run;
pub use report::{FusedLayers, StackReport};

use super::engine::Engine;
use super::error::CudaError;
use super::layer::CudaLayer;
use super::matrix::{DeviceMatMut, DeviceMatRef};
use super::params::FinalizeParams;
use crate::{DType, Element, ForwardOptions};
use cut::Shape;

/// Runs consecutive layers as one: y = layerₙ(… layer₁(x)), as [`CudaLayer::forward`] of each would, with no matrix between them where
/// that can be.
///
/// Layers whose branches are residuals, attention heads or expansions share a launch. A layer that cannot, for the reason that the
/// [`StackReport`] gives, runs by its own launches between those of its neighbours. Each layer counts what it is given, moves its
/// counters, and sees commands, epoch boundaries and other settings as in calls of its own; outputs have the same bits, statistics may
/// differ in the last bits of means and deviations, and parameter gradients in theirs, as sums are cut otherwise.
///
/// What stays here from call to call is a list of the layers on the device, and the matrices around layers that run by themselves. Give
/// one stack value always the same layers: any will do, but then nothing has to go up.
///
/// ```no_run
/// use kasmina_core::cuda::{CudaLayer, DeviceMatMut, DeviceMatRef, Engine, LayerStack};
/// use kasmina_core::{ForwardOptions, Layer, SeedLayout};
/// use kasmina_sys::{DeviceBuffer, Driver, Stream};
///
/// let engine = Engine::new(Driver::load()?.device(0)?)?;
/// let stream = Stream::new(engine.context())?;
/// let layer = Layer::builder(SeedLayout::new(768, 48)?).build()?;
/// let mut layers = Vec::new();
/// for _ in 0..48 {
///     layers.push(CudaLayer::from_layer(&layer, &engine, &stream)?);
/// }
/// let mut stack = LayerStack::new(&engine, &stream);
///
/// let x = DeviceBuffer::<f32>::zeroed(&stream, 32 * 768)?;
/// let mut y = DeviceBuffer::<f32>::zeroed(&stream, 32 * 768)?;
/// let report = stack.forward(
///     &mut layers.iter_mut().collect::<Vec<_>>(),
///     DeviceMatRef::new(x.as_slice(), 32, 768, 768)?,
///     &mut DeviceMatMut::new(y.as_mut_slice(), 32, 768, 768)?,
///     &[ForwardOptions::new()],
/// )?;
/// println!("{report}"); // 48 layers in 1 launches; …
/// // … and back: `stack.backward(&mut layers, x, grad_y, &mut grad_x, &options)`.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LayerStack {
    engine: Arc<Engine>,
    stream: Stream,
    /// What the launches of a pass are told of their layers.
    forward: Lists<ForwardLayer>,
    backward: Lists<BackwardLayer>,
    finalize: Lists<FinalizeParams>,
    /// Between runs of layers, in the stack's order: what the latter are given.
    between: Vec<DeviceBuffer<u8>>,
    /// Gradients between runs, in turn.
    gradients: Vec<DeviceBuffer<u8>>,
    passed: Option<Passed>,
    /// Those that were worked out, the latest first.
    cuts: Vec<((Shape, usize), StackCut)>,
    /// The one that is forced.
    cut: Option<StackCut>,
}

/// The latest forward pass: what `between` holds.
#[derive(Debug)]
struct Passed {
    dtype: DType,
    rows: usize,
    layers: Vec<u64>,
    runs: Vec<Run>,
}

impl Passed {
    fn new(dtype: DType, rows: usize, layers: &[&mut CudaLayer], runs: &[Run]) -> Self {
        let layers = layers.iter().map(|layer| layer.id()).collect();
        Self { dtype, rows, layers, runs: runs.to_vec() }
    }

    /// Whether it was a pass of these layers over such a matrix.
    fn was(&self, dtype: DType, rows: usize, layers: &[&mut CudaLayer]) -> bool {
        let ids = layers.iter().map(|layer| layer.id());
        self.dtype == dtype && self.rows == rows && ids.eq(self.layers.iter().copied())
    }
}

impl LayerStack {
    /// A stack whose layers are all on `stream`.
    pub fn new(engine: &Arc<Engine>, stream: &Stream) -> Self {
        let (engine, stream) = (Arc::clone(engine), stream.clone());
        Self {
            engine,
            stream,
            forward: Lists::default(),
            backward: Lists::default(),
            finalize: Lists::default(),
            between: Vec::new(),
            gradients: Vec::new(),
            passed: None,
            cuts: Vec::new(),
            cut: None,
        }
    }

    /// y = layerₙ(… layer₁(x)); both `[rows, hidden]`. `options` are those of each layer, or one set for all. Queued on the stack's stream,
    /// after everything queued on the streams of both matrices so far; these wait for it.
    ///
    /// # Errors
    /// [`StackError`], and what [`CudaLayer::forward`] refuses: nothing is queued then, and no layer has counted a pass. Or the driver
    /// refused, or there was no memory: layers in front of the failing launch have made their pass then, as with calls of their own.
    pub fn forward<T: Element>(
        &mut self,
        layers: &mut [&mut CudaLayer],
        x: DeviceMatRef<'_, T>,
        y: &mut DeviceMatMut<'_, T>,
        options: &[ForwardOptions],
    ) -> Result<StackReport, CudaError> {
        self.run_forward(layers, x, y.as_ref(), false, options)
    }

    /// The same with the result in `x` itself.
    ///
    /// # Errors
    /// As [`LayerStack::forward`], and [`Error::InPlaceNeedsInput`](crate::Error::InPlaceNeedsInput) (within [`CudaError::Engine`]) if a
    /// backward pass of some layer would need its input; [`ForwardOptions::inference`] lifts that.
    pub fn forward_in_place<T: Element>(
        &mut self,
        layers: &mut [&mut CudaLayer],
        x: &mut DeviceMatMut<'_, T>,
        options: &[ForwardOptions],
    ) -> Result<StackReport, CudaError> {
        let both = x.as_ref();
        self.run_forward(layers, both, both, true, options)
    }

    /// Takes dL/dy back through the layers, the last one first: writes dL/dx and adds parameter gradients to every trainable seed, as
    /// [`CudaLayer::backward`] of each would. `x` is what [`LayerStack::forward`] was given, and so are the options; what the layers inside the
    /// stack were given is computed once more, or was kept where one of them ran by its own launches. Queued, as a forward pass is.
    ///
    /// # Errors
    /// As [`LayerStack::forward`]; [`StackError::NoForward`] where something is missing that a forward pass of the same layers over as many
    /// rows would have kept.
    pub fn backward<T: Element>(
        &mut self,
        layers: &mut [&mut CudaLayer],
        x: DeviceMatRef<'_, T>,
        grad_y: DeviceMatRef<'_, T>,
        grad_x: &mut DeviceMatMut<'_, T>,
        options: &[ForwardOptions],
    ) -> Result<StackReport, CudaError> {
        self.run_backward(layers, [x, grad_y, grad_x.as_ref()], options)
    }

    /// Forces the cut of fused launches, or lets them choose again; one that a launch has no kernel or no room for is passed over. Doors for
    /// tests and benchmarks, without promises.
    #[doc(hidden)]
    pub fn force_cut(&mut self, cut: Option<StackCut>) {
        self.cut = cut;
    }

    /// Checks what needs nothing of the device.
    fn check(
        &self,
        layers: &[&mut CudaLayer],
        options: &[ForwardOptions],
    ) -> Result<(), StackError> {
        let Some(first) = layers.first() else { return Err(StackError::Empty) };
        let needed = first.layout().hidden();
        for (layer, one) in layers.iter().enumerate() {
            let found = one.layout().hidden();
            if found != needed {
                return Err(StackError::Width { layer, found, needed });
            }
            if !one.stream().same_queue(&self.stream) {
                return Err(StackError::Stream { layer });
            }
        }
        match options {
            [all] if layers.len() > 1 => match all.probes().first() {
                Some(probe) => Err(StackError::Probes { seed: probe.seed }),
                None => Ok(()),
            },
            _ if options.len() == layers.len() => Ok(()),
            _ => Err(StackError::Options { given: options.len(), layers: layers.len() }),
        }
    }
}

/// The options of one layer of several.
fn options_of(options: &[ForwardOptions], layer: usize) -> &ForwardOptions {
    // One set for all, or one a layer, which has been checked.
    &options[layer.min(options.len() - 1)]
}
