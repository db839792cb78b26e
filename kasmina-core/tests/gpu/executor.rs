//! What the resident grid computes: the bits of launches, as the layers are now, and launches where it cannot.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_core::cuda::executor::launch_plainly;
use kasmina_core::cuda::{
    CudaLayer, Engine, ExecutorOptions, PersistentExecutor, ResidentStep, ResidentStepBuilder,
    SharedLayer, SharedMatrix,
};
use kasmina_core::{
    Blueprint, Element, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, Objective, SeedLayout,
    Stability, StabilityMode, State, Strategy as Grafting,
};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, Stream};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::strategy::Strategy as Drawn;

use crate::common::{Draw, bits, same};
use crate::executor_queue::{counted, counter};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("the_grid_has_the_bits_of_launches", random_programs),
    ("a_change_of_the_layer_is_seen_by_the_next_step", changes),
    ("what_is_not_for_the_grid_is_launched", launches),
];

/// Steps in a test's queue, unless the environment asks for fewer cases.
pub(crate) fn many(n: usize) -> usize {
    if kasmina_gpu_test::is_sanitized() { 20 } else { n }
}

/// A layer of pointwise seeds in all states, drawn.
pub(crate) fn layer(
    hidden: usize,
    chunk: usize,
    mode: StabilityMode,
    owning: u64,
    draw: &mut Draw,
) -> Result<Layer, Failed> {
    const STATES: [State; 7] = [
        State::Germinated,
        State::Training,
        State::Grafting,
        State::Stabilization,
        State::Evaluating,
        State::FineTuning,
        State::Fossilized,
    ];
    let layout = SeedLayout::new(hidden, chunk)?;
    let mut builder = Layer::builder(layout).stability(Stability::new(mode));
    for seed in 0..layout.seeds() {
        if draw.next() % 8 >= owning {
            continue;
        }
        let blueprints = [Blueprint::Residual, Blueprint::AttentionHead, Blueprint::MlpExpansion];
        let blueprint = blueprints[draw.below(3)].clone();
        let specs = blueprint.parameters(layout.chunk_len(seed))?;
        let all = specs
            .specs()
            .iter()
            .map(|spec| (0..spec.shape.iter().product()).map(|_| draw.unit()).collect());
        let parameters = Some(all.collect());
        builder = builder.seed(
            seed,
            InitialSeed {
                state: STATES[draw.below(7)],
                alpha: [0.0, 0.3, 1.0][draw.below(3)],
                blueprint: Some(blueprint),
                objective: Objective::StraightThrough,
                strategy: Grafting::FixedRamp { steps: 4 },
                parameters,
            },
        );
    }
    Ok(builder.build()?)
}

pub(crate) fn shared(
    layer: &Layer,
    engine: &Arc<Engine>,
    stream: &Stream,
) -> Result<SharedLayer, Failed> {
    Ok(Arc::new(Mutex::new(CudaLayer::from_layer(layer, engine, stream)?)))
}

/// A program: matrices of one shape, layers, and passes among them.
#[derive(Clone, Debug)]
struct Case {
    dtype: usize,
    rows: usize,
    hidden: usize,
    mode: StabilityMode,
    owning: u64,
    layers: usize,
    matrices: usize,
    items: usize,
    runs: usize,
    values: u64,
}

fn case() -> impl Drawn<Value = Case> {
    let sizes = (
        1usize..200,
        prop_oneof![3 => (1usize..40).prop_map(|n| 8 * n), 1 => (1usize..30).prop_map(|n| 96 * n)],
    );
    let mode = prop_oneof![Just(StabilityMode::Fast), Just(StabilityMode::Adaptive)];
    let rest = (1usize..4, 3usize..7, 1usize..14, 1usize..4, any::<u64>());
    (0usize..3, sizes, mode, 0u64..=8, rest).prop_map(
        |(dtype, (rows, hidden), mode, owning, (layers, matrices, items, runs, values))| Case {
            dtype,
            rows,
            hidden,
            mode,
            owning,
            layers,
            matrices,
            items,
            runs,
            values,
        },
    )
}

fn random_programs(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
    let report = executor.report();
    ensure(report.workers > 1, || format!("no grid: {report}"))?;
    Cases::from_environment(200)?.check(&case(), |case| match case.dtype {
        0 => program::<f32>(&engine, &executor, &case),
        1 => program::<f16>(&engine, &executor, &case),
        _ => program::<bf16>(&engine, &executor, &case),
    })?;
    let report = executor.report();
    ensure(report.by_launches == 0, || format!("something was launched: {report}"))
}

/// One of two equal worlds.
struct World<T: Element> {
    layers: Vec<SharedLayer>,
    matrices: Vec<SharedMatrix<T>>,
    step: ResidentStep,
}

fn world<T: Element>(
    engine: &Arc<Engine>,
    stream: &Stream,
    case: &Case,
) -> Result<World<T>, Failed> {
    let mut draw = Draw(case.values);
    let mut layers = Vec::new();
    for _ in 0..case.layers {
        let chunk = [1, 8, 48, 64, 3, case.hidden][draw.below(6)].min(case.hidden);
        layers.push(shared(
            &layer(case.hidden, chunk, case.mode, case.owning, &mut draw)?,
            engine,
            stream,
        )?);
    }
    let mut matrices = Vec::new();
    for _ in 0..case.matrices {
        let matrix = SharedMatrix::<T>::zeroed(stream, case.rows, case.hidden)?;
        let values: Vec<T> = (0..case.rows * case.hidden)
            .map(|_| T::from_f32(draw.value(case.mode == StabilityMode::Adaptive)))
            .collect();
        matrix.write(&values)?;
        matrices.push(matrix);
    }
    let mut step = ResidentStepBuilder::new();
    let options = ForwardOptions::new().inference();
    for _ in 0..case.items {
        let layer = &layers[draw.below(layers.len())];
        let mut any = || &matrices[draw.below(case.matrices)];
        let (a, b, c) = (any(), any(), any());
        match draw.below(8) {
            0..4 => step.forward(layer, a, b, &options)?,
            // In place of its own gradient, or of x, a block would overwrite what it reads, in every implementation alike.
            4..7 => step.backward(layer, a, b, c, &options)?,
            _ => step.collect(layer),
        };
    }
    Ok(World { layers, matrices, step: step.build()? })
}

/// Runs one world through the grid and the other by launches.
fn program<T: Element>(
    engine: &Arc<Engine>,
    executor: &PersistentExecutor,
    case: &Case,
) -> Result<(), Failed> {
    let stream = Stream::new(engine.context())?;
    let (grid, plain) = (world::<T>(engine, &stream, case)?, world::<T>(engine, &stream, case)?);
    for run in 0..case.runs {
        executor.submit(&grid.step)?.wait()?;
        executor.prepare(&plain.step)?;
        // SAFETY: everything is kept, and the stream is waited for below.
        unsafe { launch_plainly(executor, &plain.step, &stream) }?;
        stream.synchronize()?;
        for (i, (found, want)) in grid.matrices.iter().zip(&plain.matrices).enumerate() {
            let (found, want) = (bits(&found.read()?, |_| false), bits(&want.read()?, |_| false));
            same(&format!("run {run}, matrix {i}"), &found, &want)?;
        }
    }
    for (i, (found, want)) in grid.layers.iter().zip(&plain.layers).enumerate() {
        let (mut found, mut want) = (found.lock(), want.lock());
        found.synchronize()?;
        want.synchronize()?;
        let text =
            |layer: &CudaLayer| format!("{:?} {:?}", layer.chunk_stats(), layer.gradient_stats());
        ensure(text(&found) == text(&want), || format!("statistics of layer {i} differ"))?;
        let seeds = found.layout().seeds();
        for seed in 0..seeds {
            let bits = |layer: &CudaLayer| {
                let gradients = layer.gradients(seed).map(|all| {
                    all.flat_map(|(_, values)| values.iter().map(|g| g.to_bits()))
                        .collect::<Vec<_>>()
                });
                (gradients, layer.alpha_gradient(seed).map(f32::to_bits))
            };
            ensure(bits(&found) == bits(&want), || {
                format!("gradients of layer {i}, seed {seed} differ")
            })?;
        }
    }
    Ok(())
}

fn changes(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
    let mut draw = Draw(11);
    let (rows, hidden) = (9, 96);
    let mut cpu = layer(hidden, 16, StabilityMode::Adaptive, 8, &mut draw)?;
    let gpu = shared(&cpu, &engine, &stream)?;
    let (x, y) = (
        SharedMatrix::<f32>::zeroed(&stream, rows, hidden)?,
        SharedMatrix::<f32>::zeroed(&stream, rows, hidden)?,
    );
    let mut step = ResidentStepBuilder::new();
    step.forward(&gpu, &x, &y, &ForwardOptions::new().inference())?;
    let step = step.build()?;
    for round in 0..many(60).min(60) {
        let values: Vec<f32> = (0..rows * hidden).map(|_| draw.value(false)).collect();
        x.write(&values)?;
        executor.submit(&step)?.wait()?;
        let mut want = vec![0.0; rows * hidden];
        cpu.forward(
            MatRef::contiguous(&values, hidden)?,
            MatMut::contiguous(&mut want, hidden)?,
            &ForwardOptions::new().inference(),
        )?;
        same(&format!("y in round {round}"), &bits(&y.read()?, |_| true), &bits(&want, |_| true))?;
        // Alphas move on, or a seed's parameters are others.
        if round % 2 == 0 {
            cpu.advance_step();
            gpu.lock().advance_step()?;
        } else if let Some(seed) = (0..6).find(|_| draw.next().is_multiple_of(2)) {
            let count =
                cpu.parameters(seed).map(|all| all.map(|(_, values)| values.len()).sum::<usize>());
            let parameters =
                count.map(|count| (0..count).map(|_| draw.unit()).collect::<Vec<f32>>());
            if let Some(parameters) = parameters {
                cpu.set_parameters(seed, &parameters)?;
                gpu.lock().set_parameters(seed, &parameters)?;
            }
        }
    }
    Ok(())
}

fn launches(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let forced =
        PersistentExecutor::new(&engine, ExecutorOptions::new().by_launches("the test wants it"))?;
    ensure(forced.report().why_no_grid.as_deref() == Some("the test wants it"), || {
        forced.report().to_string()
    })?;
    let none_left = ExecutorOptions::new().leave_multiprocessors(10_000);
    let crowded = PersistentExecutor::new(&engine, none_left)?;
    ensure(crowded.report().why_no_grid.is_some(), || crowded.report().to_string())?;
    for executor in [&forced, &crowded] {
        let (layer, x, step) = counter(&engine, &stream, 64)?;
        for _ in 0..50 {
            let _ticket = executor.submit(&step)?;
        }
        executor.drain()?;
        counted(&layer, &x, 50)?;
        ensure(executor.report().by_launches == 50, || executor.report().to_string())?;
    }
    // A filter has kernels of its own.
    let layout = SeedLayout::new(64, 64)?;
    let seed = InitialSeed {
        state: State::Fossilized,
        alpha: 1.0,
        blueprint: Some(Blueprint::ConvFilter { taps: 3 }),
        objective: Objective::StraightThrough,
        strategy: Grafting::FixedRamp { steps: 1 },
        parameters: Some(vec![vec![0.5, 0.25, 1.0], vec![2.0]]),
    };
    let cpu = Layer::builder(layout).seed(0, seed).build()?;
    let gpu = shared(&cpu, &engine, &stream)?;
    let x = SharedMatrix::<f32>::zeroed(&stream, 5, 64)?;
    let y = SharedMatrix::<f32>::zeroed(&stream, 5, 64)?;
    let mut draw = Draw(3);
    let values: Vec<f32> = (0..5 * 64).map(|_| draw.value(false)).collect();
    x.write(&values)?;
    let mut step = ResidentStepBuilder::new();
    step.forward(&gpu, &x, &y, &ForwardOptions::new())?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
    executor.submit(&step.build()?)?.wait()?;
    let report = executor.report();
    ensure(report.by_launches == 1 && report.last_reason.is_some(), || report.to_string())?;
    let mut cpu = cpu;
    let mut want = vec![0.0; 5 * 64];
    cpu.forward(
        MatRef::contiguous(&values, 64)?,
        MatMut::contiguous(&mut want, 64)?,
        &ForwardOptions::new(),
    )?;
    same("a filter's y", &bits(&y.read()?, |_| true), &bits(&want, |_| true))
}
