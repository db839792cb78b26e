//! What a layer on the device promises beside its numbers: foreign memory, in place, no waiting, refusals, checkpoints.

use std::sync::Arc;

use kasmina_core::cuda::{CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Engine};
use kasmina_core::optimizer::SkipReason;
use kasmina_core::{
    AdamW, Blueprint, Error, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, Objective,
    ParameterSpec, Registry, SeedLayout, Stability, StabilityMode, State, Strategy, UserBlueprint,
};
use kasmina_gpu_test::{Body, Failed, ensure, without_waiting};
use kasmina_sys::{Device, DeviceBuffer, DeviceSlice, DeviceSliceMut, Stream};
use kasmina_tma::LoadPath;

use crate::common::Draw;
use crate::layer_pair::{ADAMW, Pair};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("memory_and_streams_of_others", foreign),
    ("in_place_is_refused_where_backward_needs_the_input", in_place),
    ("a_training_step_does_not_wait", no_waiting),
    ("user_blueprints_are_refused_and_change_nothing", user_blueprints),
    ("checkpoints_are_the_cpus", checkpoints),
    ("a_damaged_gradient_skips_its_seed_and_is_told", skipped),
    ("forced_rungs_are_reported", rungs),
];

pub(crate) const ROWS: usize = 96;
pub(crate) const HIDDEN: usize = 192;
const CHUNK: usize = 16;

/// A seed of every kind in every state that runs.
pub(crate) fn layer() -> Result<Layer, Failed> {
    let kinds = [
        Blueprint::Residual,
        Blueprint::AttentionHead,
        Blueprint::MlpExpansion,
        Blueprint::ConvFilter { taps: 5 },
        Blueprint::Bottleneck { width: 4, activation: Default::default() },
        Blueprint::Dense { activation: Default::default() },
    ];
    let mut draw = Draw(3);
    let mut builder = Layer::builder(SeedLayout::new(HIDDEN, CHUNK)?).rng_seed(5);
    for (i, blueprint) in kinds.into_iter().enumerate() {
        let objectives = [Objective::StraightThrough, Objective::Reconstruction];
        let specs = blueprint.parameters(CHUNK)?;
        let parameters = specs
            .specs()
            .iter()
            .map(|spec| (0..spec.shape.iter().product()).map(|_| 0.3 * draw.unit()).collect());
        let parameters: Vec<Vec<f32>> = parameters.collect();
        let training = InitialSeed {
            state: State::Training,
            blueprint: Some(blueprint.clone()),
            objective: objectives[i % 2],
            parameters: Some(parameters.clone()),
            ..InitialSeed::default()
        };
        let grafting = InitialSeed {
            state: if i % 2 == 0 { State::Grafting } else { State::FineTuning },
            alpha: 0.25,
            strategy: Strategy::FixedRamp { steps: 1000 },
            ..training.clone()
        };
        builder = builder.seed(2 * i, training).seed(2 * i + 1, grafting);
    }
    Ok(builder.build()?)
}

pub(crate) fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut draw = Draw(seed);
    (0..n).map(|_| draw.unit()).collect()
}

struct Matrices {
    x: DeviceBuffer<f32>,
    grad_y: DeviceBuffer<f32>,
    y: DeviceBuffer<f32>,
    grad_x: DeviceBuffer<f32>,
}

impl Matrices {
    fn new(stream: &Stream) -> Result<Self, Failed> {
        let n = ROWS * HIDDEN;
        Ok(Self {
            x: DeviceBuffer::from_host(stream, &values(1, n))?,
            grad_y: DeviceBuffer::from_host(stream, &values(2, n))?,
            y: DeviceBuffer::zeroed(stream, n)?,
            grad_x: DeviceBuffer::zeroed(stream, n)?,
        })
    }

    fn pass(&mut self, layer: &mut CudaLayer, options: &ForwardOptions) -> Result<(), CudaError> {
        let x = DeviceMatRef::new(self.x.as_slice(), ROWS, HIDDEN, HIDDEN)?;
        let mut y = DeviceMatMut::new(self.y.as_mut_slice(), ROWS, HIDDEN, HIDDEN)?;
        layer.forward(x, &mut y, options)?;
        let grad_y = DeviceMatRef::new(self.grad_y.as_slice(), ROWS, HIDDEN, HIDDEN)?;
        let mut grad_x = DeviceMatMut::new(self.grad_x.as_mut_slice(), ROWS, HIDDEN, HIDDEN)?;
        layer.backward(x, grad_y, &mut grad_x, options)
    }
}

fn start(device: Device) -> Result<(Arc<Engine>, Stream, CudaLayer), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let layer = CudaLayer::from_layer(&layer()?, &engine, &stream)?;
    Ok((engine, stream, layer))
}

/// Raw pointers and a raw stream, as PyTorch or cudarc hand them out; the copy that fills x is still on its way there.
fn foreign(device: Device) -> Result<(), Failed> {
    let (engine, _, mut layer) = start(device)?;
    let theirs = Stream::new(engine.context())?;
    let n = ROWS * HIDDEN;
    let source = DeviceBuffer::from_host(&theirs, &values(1, n))?;
    let mut x = DeviceBuffer::<f32>::zeroed(&theirs, n)?;
    let y = DeviceBuffer::<f32>::zeroed(&theirs, n)?;
    // SAFETY: the stream outlives its borrowed self.
    let borrowed = unsafe { Stream::from_raw(engine.context(), theirs.raw()) };
    for _ in 0..20 {
        x.fill_zero(&theirs)?;
        x.copy_from_device(source.as_slice(), &theirs)?;
        // SAFETY: the buffers live on this stream until the end of the test, and nothing else uses them meanwhile.
        let (from, to) = unsafe {
            (
                DeviceSlice::<f32>::from_raw(&borrowed, x.address(), n)?,
                DeviceSliceMut::<f32>::from_raw(&borrowed, y.address(), n)?,
            )
        };
        let from = DeviceMatRef::new(from, ROWS, HIDDEN, HIDDEN)?;
        let mut to = DeviceMatMut::new(to, ROWS, HIDDEN, HIDDEN)?;
        layer.forward(from, &mut to, &ForwardOptions::new())?;
    }
    // Queued on their stream, so that it shows whether that waits for the pass.
    let found = y.to_vec()?;
    let mut cpu = crate::layer_moves::layer()?;
    let host = values(1, n);
    let mut expected = vec![0.0f32; n];
    cpu.forward(
        MatRef::contiguous(&host, HIDDEN)?,
        MatMut::contiguous(&mut expected, HIDDEN)?,
        &ForwardOptions::new(),
    )?;
    let far = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
    ensure(far == 0, || format!("{far} of {n} elements differ"))
}

fn in_place(device: Device) -> Result<(), Failed> {
    let (_, stream, mut layer) = start(device)?;
    let host = values(1, ROWS * HIDDEN);
    let mut x = DeviceBuffer::from_host(&stream, &host)?;
    let mut matrix = DeviceMatMut::new(x.as_mut_slice(), ROWS, HIDDEN, HIDDEN)?;
    let refused = layer.forward_in_place(&mut matrix, &ForwardOptions::new());
    ensure(
        matches!(refused, Err(CudaError::Engine(Error::InPlaceNeedsInput { seed: 1, .. }))),
        || format!("{refused:?}"),
    )?;
    ensure(layer.layer_state().telemetry.passes == 0, || "a refusal counted".to_owned())?;
    layer.forward_in_place(&mut matrix, &ForwardOptions::new().inference())?;
    let found = x.to_vec()?;
    let mut cpu = crate::layer_moves::layer()?;
    let mut expected = host;
    let matrix = MatMut::contiguous(&mut expected, HIDDEN)?;
    cpu.forward_in_place(matrix, &ForwardOptions::new().inference())?;
    let far = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
    ensure(far == 0, || format!("{far} elements differ"))
}

fn no_waiting(device: Device) -> Result<(), Failed> {
    // Strict mode has a pass of its own over the input, whose bounds stay on the device.
    for mode in [StabilityMode::Fast, StabilityMode::Adaptive, StabilityMode::Strict] {
        no_waiting_in(device, mode).map_err(|failed| format!("{mode:?}: {}", failed.message()))?;
    }
    Ok(())
}

/// With the device held up, whole steps are queued.
fn no_waiting_in(device: Device, mode: StabilityMode) -> Result<(), Failed> {
    let (_, stream, mut layer) = start(device)?;
    layer.set_stability(Stability::new(mode))?;
    let mut matrices = Matrices::new(&stream)?;
    let plain = ForwardOptions::new();
    let probed = ForwardOptions::new().probe(0, 1.0).probe(3, 0.0);
    let step = |matrices: &mut Matrices, layer: &mut CudaLayer| -> Result<(), Failed> {
        matrices.pass(layer, &plain)?;
        matrices.pass(layer, &probed)?;
        let x = DeviceMatRef::new(matrices.x.as_slice(), ROWS, HIDDEN, HIDDEN)?;
        layer.reconstruct(x)?;
        layer.optimizer_step(&ADAMW)?;
        Ok(layer.advance_step()?)
    };
    // Kernels are loaded and memory is laid out by the first.
    for _ in 0..2 {
        step(&mut matrices, &mut layer)?;
    }
    layer.synchronize()?;
    without_waiting(&stream, || step(&mut matrices, &mut layer))?;
    Ok(layer.synchronize()?)
}

#[derive(Debug)]
struct Identity;

impl UserBlueprint for Identity {
    fn kind(&self) -> &str {
        "identity"
    }
    fn parameters(&self, _: usize) -> Vec<ParameterSpec> {
        vec![ParameterSpec::new("unused", [1])]
    }
    fn initialise(&self, _: usize, _: &mut dyn rand::RngCore, _: &mut [f32]) {}
    fn forward(&self, _: usize, _: &[f32], x: &[f32], y: &mut [f32]) {
        y.copy_from_slice(x);
    }
    fn backward(
        &self,
        _: usize,
        _: &[f32],
        _: &[f32],
        g: &[f32],
        grad_x: &mut [f32],
        _: Option<&mut [f32]>,
    ) {
        grad_x.copy_from_slice(g);
    }
    fn flops_per_row(&self, _: usize) -> u64 {
        0
    }
}

fn user_blueprints(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let mut registry = Registry::builtin();
    registry.register_user(Arc::new(Identity))?;
    let initial = InitialSeed {
        state: State::FineTuning,
        alpha: 1.0,
        blueprint: Some(Blueprint::User(Arc::new(Identity))),
        ..InitialSeed::default()
    };
    let layer = Layer::builder(SeedLayout::new(HIDDEN, CHUNK)?).seed(2, initial).build()?;
    let mut layer = CudaLayer::from_layer(&layer, &engine, &stream)?;
    let mut matrices = Matrices::new(&stream)?;
    for _ in 0..2 {
        let refused = matrices.pass(&mut layer, &ForwardOptions::new());
        ensure(matches!(refused, Err(CudaError::UserBlueprint { seed: 2 })), || {
            format!("{refused:?}")
        })?;
    }
    ensure(layer.layer_state().telemetry.passes == 0, || "a refusal counted".to_owned())?;
    ensure(matrices.y.to_vec()?.iter().all(|v| *v == 0.0), || "y was written".to_owned())?;
    // At rest it is like any other.
    matrices.pass(&mut layer, &ForwardOptions::new().probe(2, 0.0))?;
    layer.synchronize()?;
    ensure(layer.gradients(2).is_some(), || "its gradients are zeros, but there".to_owned())
}

fn checkpoints(device: Device) -> Result<(), Failed> {
    let (_, stream, mut layer) = start(device)?;
    let mut matrices = Matrices::new(&stream)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("layer.safetensors");
    for _ in 0..3 {
        matrices.pass(&mut layer, &ForwardOptions::new())?;
        layer.optimizer_step(&ADAMW)?;
        layer.advance_step()?;
    }
    matrices.pass(&mut layer, &ForwardOptions::new())?;
    layer.save(&path)?;
    let saved = layer.layer_state().to_bytes()?;
    let loaded = Layer::load(&path, &Registry::builtin())?;
    ensure(loaded.layer_state().to_bytes()? == saved, || "the file is another layer".to_owned())?;
    // Onwards twice from the same place: the second time after a restore.
    let mut ends = Vec::new();
    for _ in 0..2 {
        layer.optimizer_step(&ADAMW)?;
        layer.advance_step()?;
        matrices.pass(&mut layer, &ForwardOptions::new())?;
        layer.synchronize()?;
        ends.push((layer.layer_state().to_bytes()?, matrices.grad_x.to_vec()?));
        let _ = layer.restore(&path, &Registry::builtin(), "once more")?;
    }
    ensure(ends[0].1 == ends[1].1, || "grad_x differs after a restore".to_owned())?;
    ensure(ends[0].0 == ends[1].0, || "the state differs after a restore".to_owned())
}

fn skipped(device: Device) -> Result<(), Failed> {
    let (engine, stream, _) = start(device)?;
    let mut pair = Pair::new(&engine, layer()?, ROWS)?;
    let mut host = values(2, ROWS * HIDDEN);
    // Chunk 1 is a residual on path: its gradients are sums of g.
    host[CHUNK] = f32::INFINITY;
    let mut matrices = Matrices::new(&stream)?;
    matrices.grad_y.copy_from_host(&host)?;
    matrices.pass(&mut pair.gpu, &ForwardOptions::new())?;
    let invalid = pair.gpu.optimizer_step(&AdamW { learning_rate: f64::NAN, ..ADAMW });
    ensure(matches!(invalid, Err(CudaError::Engine(Error::Value { .. }))), || {
        format!("{invalid:?}")
    })?;
    let before: Vec<f32> =
        pair.gpu.lifecycle().grown(1).map(|g| g.parameters().to_vec()).unwrap_or_default();
    pair.gpu.optimizer_step(&ADAMW)?;
    pair.gpu.synchronize()?;
    let after: Vec<f32> =
        pair.gpu.lifecycle().grown(1).map(|g| g.parameters().to_vec()).unwrap_or_default();
    ensure(before == after, || "a skipped seed was moved".to_owned())?;
    let summaries = pair.gpu.take_optimizer_summaries();
    let of = |seed: usize| summaries.iter().find(|summary| summary.seed == seed).copied();
    let one = of(1).ok_or("seed 1 was not told")?;
    ensure((one.updates, one.skipped) == (0, 1), || format!("{one:?}"))?;
    ensure(matches!(one.reason, Some(SkipReason::NonFiniteGradient { .. })), || {
        format!("{one:?}")
    })?;
    let other = of(0).ok_or("seed 0 was not told")?;
    ensure((other.updates, other.skipped) == (1, 0), || format!("{other:?}"))?;
    ensure(other.gradient_norm.is_some_and(|norm| norm > 0.0), || format!("{other:?}"))?;
    ensure(pair.gpu.take_optimizer_summaries().is_empty(), || "told twice".to_owned())
}

fn rungs(device: Device) -> Result<(), Failed> {
    let (_, stream, mut layer) = start(device)?;
    let mut matrices = Matrices::new(&stream)?;
    for path in [LoadPath::CpAsync, LoadPath::Vector16, LoadPath::Scalar] {
        layer.force_path(Some(path));
        matrices.pass(&mut layer, &ForwardOptions::new())?;
        let report = layer.report();
        let found = report.forward.as_ref().map(|forward| forward.path.path);
        ensure(found == Some(path), || format!("{report}"))?;
        let text = report.to_string();
        ensure(text.contains(&path.to_string()) && text.contains("as asked"), || text.clone())?;
        ensure((report.filters, report.matrices) == (2, 4), || text.clone())?;
    }
    Ok(())
}
