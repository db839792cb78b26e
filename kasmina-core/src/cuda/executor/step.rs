//! Steps: what is submitted. Passes of layers over matrices that stay where they are, in an order.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Zeroable;
use kasmina_sys::{DeviceBuffer, Stream};
use parking_lot::{Mutex, MutexGuard};

use super::cut::{Access, conflict, link};
use super::error::ExecutorError;
use super::grid::Grid;
use super::matrix::{AnyMatrix, SharedMatrix};
use super::queue::Ordered;
use super::records::{
    CollectParams, Item, KIND_BACKWARD, KIND_COLLECT_CHUNKS, KIND_COLLECT_GRADIENTS, KIND_FINALIZE,
    KIND_FORWARD, StepRecord, Wait,
};
use crate::cuda::CudaLayer;
use crate::cuda::error::CudaError;
use crate::cuda::geometry::Machine;
use crate::cuda::layer::ResidentStamp;
use crate::cuda::variants::Counting;
use crate::{DType, Element, ForwardOptions};

/// A layer that steps share with whoever else holds it. A method of [`CudaLayer`] that touches the device's memory waits for the steps in
/// flight that use the layer.
pub type SharedLayer = Arc<Mutex<CudaLayer>>;

/// Passes of layers, gathered to be submitted together, over and over: a training step, say.
///
/// Items run in the order in which they were added, as far as they touch the same memory; what does not, runs side by side.
#[derive(Debug, Default)]
#[must_use]
pub struct ResidentStepBuilder {
    operations: Vec<Operation>,
    layers: Vec<SharedLayer>,
}

/// One pass, of the layer of this number.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    layer: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Forward { x: AnyMatrix, y: AnyMatrix, options: ForwardOptions },
    Backward { matrices: [AnyMatrix; 3], options: ForwardOptions },
    Collect,
}

/// A step's layers, all locked: what the step is made from does not change until it is on its way.
pub(super) type Locked<'a> = Vec<MutexGuard<'a, CudaLayer>>;

/// A step that can be submitted, to one executor at a time. Cheap to clone; clones are the same step.
#[derive(Clone)]
pub struct ResidentStep(pub(super) Arc<StepInner>);

pub(super) struct StepInner {
    id: u64,
    pub(super) operations: Vec<Operation>,
    layers: Vec<SharedLayer>,
    /// The layers' numbers, by address.
    order: Vec<usize>,
    /// The streams whose work so far comes before the step, each once; the first is a layer's.
    pub(super) streams: Vec<Stream>,
    /// Ascending.
    accesses: Vec<Access>,
    pub(super) device: Mutex<Option<OnDevice>>,
}

/// A step's memory on the device.
#[derive(Debug)]
pub(super) struct OnDevice {
    pub(super) items: Vec<Item>,
    /// What it was made from; `None` of a layer whose every pass is another.
    stamps: Vec<Option<ResidentStamp>>,
    /// Of each operation, whether it counts.
    counted: Vec<bool>,
    /// Of the executor that it was made for.
    pub(super) executor: u64,
    pub(super) record: DeviceBuffer<StepRecord>,
    // The record points at these.
    _items: DeviceBuffer<Item>,
    _waits: DeviceBuffer<Wait>,
    _counters: DeviceBuffer<u32>,
}

/// What stands for parts of a layer among addresses: the device has none so high.
const LAYERS: u64 = 1 << 63;

/// A part of a layer.
#[derive(Clone, Copy)]
enum Part {
    Activations,
    Gradients,
    Sums,
    Parameters,
}

fn part(layer: &SharedLayer, part: Part, writes: bool) -> Access {
    let start = LAYERS | (Arc::as_ptr(layer) as usize as u64 + part as u64);
    Access { start, end: start + 1, writes }
}

fn bytes(matrix: &AnyMatrix, writes: bool) -> Access {
    let range = matrix.bytes();
    Access { start: range.start, end: range.end, writes }
}

impl ResidentStepBuilder {
    /// A step with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds y = layer(x), as [`CudaLayer::forward`]; with the same matrix twice, in place.
    ///
    /// # Errors
    /// [`ExecutorError::Mismatch`] for a y that is not like x, or a layer of another width; [`ExecutorError::Probes`].
    pub fn forward<T: Element>(
        &mut self,
        layer: &SharedLayer,
        x: &SharedMatrix<T>,
        y: &SharedMatrix<T>,
        options: &ForwardOptions,
    ) -> Result<&mut Self, ExecutorError> {
        y.any.check("y", &x.any)?;
        check(layer, &x.any, options)?;
        let (x, y, options) = (x.any.clone(), y.any.clone(), options.clone());
        self.push(layer, What::Forward { x, y, options });
        Ok(self)
    }

    /// Adds a backward pass, as [`CudaLayer::backward`]: dL/dx, and gradients for every trainable seed.
    ///
    /// # Errors
    /// As [`ResidentStepBuilder::forward`].
    pub fn backward<T: Element>(
        &mut self,
        layer: &SharedLayer,
        x: &SharedMatrix<T>,
        grad_y: &SharedMatrix<T>,
        grad_x: &SharedMatrix<T>,
        options: &ForwardOptions,
    ) -> Result<&mut Self, ExecutorError> {
        grad_y.any.check("grad_y", &x.any)?;
        grad_x.any.check("grad_x", &x.any)?;
        check(layer, &x.any, options)?;
        let matrices = [x, grad_y, grad_x].map(|matrix| matrix.any.clone());
        self.push(layer, What::Backward { matrices, options: options.clone() });
        Ok(self)
    }

    /// Adds the reduction of what earlier steps and items have counted, to one record a seed. The end of an epoch does it in any case; here
    /// it costs no launch.
    pub fn collect(&mut self, layer: &SharedLayer) -> &mut Self {
        self.push(layer, What::Collect);
        self
    }

    fn push(&mut self, layer: &SharedLayer, what: What) {
        let known = self.layers.iter().position(|known| Arc::ptr_eq(known, layer));
        let layer = known.unwrap_or_else(|| {
            self.layers.push(Arc::clone(layer));
            self.layers.len() - 1
        });
        self.operations.push(Operation { layer, what });
    }

    /// The step.
    ///
    /// # Errors
    /// [`ExecutorError::Empty`].
    pub fn build(self) -> Result<ResidentStep, ExecutorError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Self { operations, layers } = self;
        if operations.is_empty() {
            return Err(ExecutorError::Empty);
        }
        let of = |operation: &Operation| operation.accesses(&layers[operation.layer]);
        let mut accesses: Vec<Access> = operations.iter().flat_map(of).collect();
        accesses.sort_unstable();
        accesses.dedup();
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<usize> = (0..layers.len()).collect();
        order.sort_unstable_by_key(|i| Arc::as_ptr(&layers[*i]));
        let mut streams: Vec<Stream> = Vec::new();
        let mut add = |stream: &Stream| {
            if !streams.iter().any(|known| known.same_queue(stream)) {
                streams.push(stream.clone());
            }
        };
        layers.iter().for_each(|layer| add(layer.lock().stream()));
        operations.iter().flat_map(Operation::matrices).for_each(|matrix| add(&matrix.home));
        let device = Mutex::new(None);
        let inner = StepInner { id, operations, layers, order, streams, accesses, device };
        Ok(ResidentStep(Arc::new(inner)))
    }
}

impl ResidentStep {
    /// Why a grid would not run the step as its layers are now; `None` where it would.
    ///
    /// # Errors
    /// As a pass of its layers.
    pub(in crate::cuda) fn why_launched(&self) -> Result<Option<String>, CudaError> {
        self.0.not_resident(&mut self.0.lock())
    }
}

fn check(
    layer: &SharedLayer,
    x: &AnyMatrix,
    options: &ForwardOptions,
) -> Result<(), ExecutorError> {
    if let Some(probe) = options.probes().first() {
        return Err(ExecutorError::Probes { seed: probe.seed });
    }
    let hidden = layer.lock().layout().hidden();
    if x.view.columns as usize != hidden {
        let (found, needed) =
            (format!("{} columns", x.view.columns), format!("the layer's {hidden}"));
        return Err(ExecutorError::Mismatch { what: "x", found, needed });
    }
    Ok(())
}

impl Operation {
    fn matrices(&self) -> Vec<&AnyMatrix> {
        match &self.what {
            What::Forward { x, y, .. } => vec![x, y],
            What::Backward { matrices, .. } => matrices.iter().collect(),
            What::Collect => Vec::new(),
        }
    }

    fn accesses(&self, layer: &SharedLayer) -> Vec<Access> {
        match &self.what {
            What::Forward { x, y, .. } => {
                vec![bytes(x, false), bytes(y, true), part(layer, Part::Activations, true)]
            }
            What::Backward { matrices: [x, grad_y, grad_x], .. } => vec![
                bytes(x, false),
                bytes(grad_y, false),
                bytes(grad_x, true),
                part(layer, Part::Gradients, true),
                part(layer, Part::Sums, true),
                part(layer, Part::Parameters, true),
            ],
            What::Collect => {
                vec![part(layer, Part::Activations, true), part(layer, Part::Gradients, true)]
            }
        }
    }

    /// Why the grid cannot run it, if it cannot.
    fn not_resident(&self, layer: &mut CudaLayer) -> Result<Option<String>, CudaError> {
        match &self.what {
            What::Forward { x, y, options } => {
                layer.not_resident(x.dtype, &[x.view, y.view], in_place(x, y), options)
            }
            What::Backward { matrices, options } => {
                let views = [0, 1, 2].map(|i| matrices[i].view);
                layer.not_resident(matrices[0].dtype, &views, false, options)
            }
            What::Collect => Ok(None),
        }
    }

    /// The layer has made it.
    fn note(&self, layer: &mut CudaLayer, counted: bool) -> Result<(), CudaError> {
        match &self.what {
            What::Forward { .. } => {
                layer.note_resident_forward(counted);
                Ok(())
            }
            What::Backward { matrices, .. } => layer.note_resident_backward(matrices[0].view.rows),
            What::Collect => Ok(()),
        }
    }

    /// Its items, with what they touch.
    fn items(
        &self,
        layer: &mut CudaLayer,
        name: &SharedLayer,
        machine: Machine,
        mut add: impl FnMut(Item, Vec<Access>),
    ) -> Result<(), CudaError> {
        match &self.what {
            What::Forward { x, y, options } => {
                let places = (x.view, y.view, in_place(x, y));
                let pass = layer.resident_forward(x.dtype, places, options, machine)?;
                let mut item = Item::new(KIND_FORWARD, pass.params.geometry.blocks(), &pass.params);
                (item.element, item.counting) = (element(x.dtype), counting(pass.counting));
                add(item, self.accesses(name));
            }
            What::Backward { matrices, options } => {
                let dtype = matrices[0].dtype;
                let views = [0, 1, 2].map(|i| matrices[i].view);
                let pass = layer.resident_backward(dtype, views, options, machine)?;
                let mut item =
                    Item::new(KIND_BACKWARD, pass.params.geometry.blocks(), &pass.params);
                (item.element, item.counting) = (element(dtype), counting(pass.counting));
                let mut own = self.accesses(name);
                // The parameters are the finalize step's alone.
                own.pop();
                add(item, own);
                if let Some(params) = pass.finalize {
                    let item = Item::new(KIND_FINALIZE, params.count, &params);
                    add(
                        item,
                        vec![part(name, Part::Sums, true), part(name, Part::Parameters, true)],
                    );
                }
            }
            What::Collect => {
                for collect in layer.resident_collect() {
                    let (kind, what) = match collect.of_gradients {
                        false => (KIND_COLLECT_CHUNKS, Part::Activations),
                        true => (KIND_COLLECT_GRADIENTS, Part::Gradients),
                    };
                    let blocks = collect
                        .geometry
                        .seeds
                        .div_ceil(SEEDS_OF_BLOCK)
                        .min(machine.multiprocessors);
                    let params = CollectParams {
                        accumulators: collect.accumulators,
                        totals: collect.totals,
                        geometry: collect.geometry,
                    };
                    add(Item::new(kind, blocks, &params), vec![part(name, what, true)]);
                }
            }
        }
        Ok(())
    }

    /// Queues it on the layer's stream.
    fn launch(&self, layer: &mut CudaLayer) -> Result<(), CudaError> {
        let dtype = match &self.what {
            What::Forward { x, .. } => x.dtype,
            What::Backward { matrices, .. } => matrices[0].dtype,
            // The end of the epoch does it.
            What::Collect => return Ok(()),
        };
        match dtype {
            DType::F32 => self.launch_as::<f32>(layer),
            DType::F16 => self.launch_as::<half::f16>(layer),
            DType::Bf16 => self.launch_as::<half::bf16>(layer),
        }
    }

    fn launch_as<T: Element>(&self, layer: &mut CudaLayer) -> Result<(), CudaError> {
        match &self.what {
            // SAFETY: the caller has looked at the type, the step holds the memory, and the device alone looks into it.
            What::Forward { x, y, options } => unsafe {
                let mut out = y.typed_mut::<T>()?;
                match in_place(x, y) {
                    true => layer.forward_in_place(&mut out, options),
                    false => layer.forward(x.typed::<T>()?, &mut out, options),
                }
            },
            // SAFETY: as above.
            What::Backward { matrices: [x, grad_y, grad_x], options } => unsafe {
                let mut out = grad_x.typed_mut::<T>()?;
                layer.backward(x.typed::<T>()?, grad_y.typed::<T>()?, &mut out, options)
            },
            What::Collect => Ok(()),
        }
    }
}

/// Whether a pass overwrites what it reads. Empty matrices may lie nowhere, all of them.
fn in_place(x: &AnyMatrix, y: &AnyMatrix) -> bool {
    x.view.address == y.view.address && !x.bytes().is_empty()
}

/// Seeds that a block collects at a time, at most: a warp each at the least.
const SEEDS_OF_BLOCK: u32 = 8;

fn element(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Bf16 => 2,
    }
}

fn counting(counting: Counting) -> u32 {
    match counting {
        Counting::Off => 0,
        Counting::Packet => 1,
        Counting::Column => 2,
    }
}

impl StepInner {
    /// Locks the step's layers, in the order of their addresses, as every step does.
    pub(super) fn lock(&self) -> Locked<'_> {
        let mut locked: Vec<Option<MutexGuard<'_, CudaLayer>>> = Vec::new();
        locked.resize_with(self.layers.len(), || None);
        for i in &self.order {
            locked[*i] = Some(self.layers[*i].lock());
        }
        locked.into_iter().flatten().collect()
    }

    /// What the layers' items depend on, the device brought up to date.
    pub(super) fn stamps(
        &self,
        layers: &mut Locked<'_>,
    ) -> Result<Vec<Option<ResidentStamp>>, CudaError> {
        layers.iter_mut().map(|layer| layer.resident_stamp()).collect()
    }

    /// The address of the record, where it was made by this executor from the same.
    pub(super) fn unchanged(&self, executor: u64, stamps: &[Option<ResidentStamp>]) -> Option<u64> {
        let device = self.device.lock();
        let kept = device.as_ref().filter(|kept| kept.executor == executor)?;
        let same = stamps.iter().all(Option::is_some) && kept.stamps == stamps;
        same.then(|| kept.record.address())
    }

    /// The layers have made the step's passes once more.
    pub(super) fn note(&self, layers: &mut Locked<'_>) -> Result<(), CudaError> {
        let device = self.device.lock();
        let Some(kept) = device.as_ref() else { return Ok(()) };
        let mut all = self.operations.iter().zip(&kept.counted);
        all.try_for_each(|(operation, counted)| {
            operation.note(&mut layers[operation.layer], *counted)
        })
    }

    /// Why the grid cannot run the step, if it cannot.
    pub(super) fn not_resident(
        &self,
        layers: &mut Locked<'_>,
    ) -> Result<Option<String>, CudaError> {
        for operation in &self.operations {
            if let Some(reason) = operation.not_resident(&mut layers[operation.layer])? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// Queues the step on its layers' streams.
    pub(super) fn launch(&self, layers: &mut Locked<'_>) -> Result<(), CudaError> {
        self.operations
            .iter()
            .try_for_each(|operation| operation.launch(&mut layers[operation.layer]))
    }

    /// The items as the layers are now; the layers have run them afterwards.
    pub(super) fn lower(
        &self,
        layers: &mut Locked<'_>,
        machine: Machine,
    ) -> Result<Lowered, CudaError> {
        let (mut items, mut accesses, mut counted) = (Vec::<Item>::new(), Vec::new(), Vec::new());
        for operation in &self.operations {
            let mut counts = false;
            let add = |item: Item, touched| {
                counts |= item.counting != 0;
                items.push(item);
                accesses.push(touched);
            };
            operation.items(
                &mut layers[operation.layer],
                &self.layers[operation.layer],
                machine,
                add,
            )?;
            operation.note(&mut layers[operation.layer], counts)?;
            counted.push(counts);
        }
        let (waits, counters) = link(&mut items, &accesses);
        Ok(Lowered { items, waits, counters, counted })
    }

    /// Puts `lowered` on the device, where it is not there already; the record's address. `before` is called before anything of the old is
    /// given up.
    pub(super) fn upload(
        &self,
        grid: &Grid,
        id: u64,
        stream: &Stream,
        (lowered, stamps): (Lowered, Vec<Option<ResidentStamp>>),
        before: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<u64, CudaError> {
        let Lowered { items, waits, counters, counted } = lowered;
        let mut device = self.device.lock();
        if let Some(kept) = device.as_mut()
            && kept.executor == id
            && kept.items == items
        {
            (kept.stamps, kept.counted) = (stamps, counted);
            return Ok(kept.record.address());
        }
        before()?;
        let items_there = DeviceBuffer::from_host(stream, &items)?;
        let waits = if waits.is_empty() { vec![Wait::zeroed()] } else { waits };
        let waits_there = DeviceBuffer::from_host(stream, &waits)?;
        let counters_there = DeviceBuffer::<u32>::zeroed(stream, counters.max(1) as usize)?;
        let blocks = items.iter().map(|item| item.blocks).max().unwrap_or(0);
        // Steps begin at different workers, so that small ones run side by side.
        let offset = (self.id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32 % grid.workers();
        let record = StepRecord {
            items: items_there.address(),
            waits: waits_there.address(),
            counters: counters_there.address(),
            count: items.len() as u32,
            blocks,
            offset,
            run: 0,
        };
        let record = DeviceBuffer::from_host(stream, &[record])?;
        // The grid does not wait for streams.
        stream.synchronize()?;
        let address = record.address();
        *device = Some(OnDevice {
            items,
            stamps,
            counted,
            executor: id,
            record,
            _items: items_there,
            _waits: waits_there,
            _counters: counters_there,
        });
        Ok(address)
    }
}

/// A step's items, linked.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) items: Vec<Item>,
    pub(super) waits: Vec<Wait>,
    pub(super) counters: u32,
    counted: Vec<bool>,
}

impl Ordered for Arc<StepInner> {
    fn conflicts(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other) || conflict(&self.accesses, &other.accesses)
    }
}

impl fmt::Debug for ResidentStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResidentStep")
            .field("id", &self.0.id)
            .field("operations", &self.0.operations)
            .finish_non_exhaustive()
    }
}
