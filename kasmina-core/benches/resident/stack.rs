//! Layers and matrices that are timed, and how.

use std::sync::Arc;
use std::time::Instant;

use kasmina_core::cuda::{
    CudaLayer, Engine, ResidentStep, ResidentStepBuilder, SharedLayer, SharedMatrix,
};
use kasmina_core::{
    Blueprint, ForwardOptions, InitialSeed, Layer, Objective, SeedLayout, State, Strategy,
};
use kasmina_gpu_test::Failed;
use kasmina_sys::{Event, Stream};
use parking_lot::Mutex;

pub(crate) const LAYERS: usize = 48;
pub(crate) const SAMPLES: usize = 41;

pub(crate) struct Stack {
    pub(crate) layers: Vec<SharedLayer>,
    pub(crate) matrices: Vec<SharedMatrix<f32>>,
}

pub(crate) fn stack(
    engine: &Arc<Engine>,
    stream: &Stream,
    rows: usize,
    hidden: usize,
    chunk: usize,
    grown: bool,
) -> Result<Stack, Failed> {
    let layout = SeedLayout::new(hidden, chunk)?;
    let mut layers = Vec::new();
    for _ in 0..LAYERS {
        let mut builder = Layer::builder(layout);
        for seed in (0..layout.seeds()).filter(|seed| grown && seed % 2 == 0) {
            builder = builder.seed(
                seed,
                InitialSeed {
                    state: State::FineTuning,
                    alpha: 1.0,
                    blueprint: Some(Blueprint::Residual),
                    objective: Objective::StraightThrough,
                    strategy: Strategy::FixedRamp { steps: 1 },
                    parameters: None,
                },
            );
        }
        layers.push(Arc::new(Mutex::new(CudaLayer::from_layer(
            &builder.build()?,
            engine,
            stream,
        )?)));
    }
    let matrices: Vec<SharedMatrix<f32>> = (0..2 * LAYERS + 2)
        .map(|_| SharedMatrix::zeroed(stream, rows, hidden))
        .collect::<Result<_, _>>()?;
    for (i, matrix) in matrices.iter().enumerate() {
        matrix.write(&values(rows * hidden, i as u64))?;
    }
    stream.synchronize()?;
    Ok(Stack { layers, matrices })
}

/// Numbers in (−1, 1), by a linear congruence.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Forward through all layers, and with `both` back.
pub(crate) fn step_of(stack: &Stack, both: bool) -> Result<ResidentStep, Failed> {
    let mut step = ResidentStepBuilder::new();
    let options = ForwardOptions::new();
    let m = &stack.matrices;
    for (i, layer) in stack.layers.iter().enumerate() {
        step.forward(layer, &m[i], &m[i + 1], &options)?;
    }
    if both {
        for (i, layer) in stack.layers.iter().enumerate().rev() {
            step.backward(layer, &m[i], &m[LAYERS + 2 + i], &m[LAYERS + 1 + i], &options)?;
        }
    }
    Ok(step.build()?)
}

pub(crate) fn single(
    engine: &Arc<Engine>,
    stream: &Stream,
    rows: usize,
    hidden: usize,
    chunk: usize,
) -> Result<(ResidentStep, SharedLayer, [SharedMatrix<f32>; 2]), Failed> {
    let layer = Layer::builder(SeedLayout::new(hidden, chunk)?).build()?;
    let layer = Arc::new(Mutex::new(CudaLayer::from_layer(&layer, engine, stream)?));
    let (x, y) =
        (SharedMatrix::zeroed(stream, rows, hidden)?, SharedMatrix::zeroed(stream, rows, hidden)?);
    let mut step = ResidentStepBuilder::new();
    step.forward(&layer, &x, &y, &ForwardOptions::new())?;
    stream.synchronize()?;
    Ok((step.build()?, layer, [x, y]))
}

pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Median µs of what `body` queues on the stream.
pub(crate) fn on_stream(
    engine: &Engine,
    stream: &Stream,
    mut body: impl FnMut() -> Result<(), Failed>,
) -> Result<f64, Failed> {
    let (begin, end) = (Event::timed(engine.context())?, Event::timed(engine.context())?);
    let mut samples = Vec::new();
    for i in 0..SAMPLES + 5 {
        begin.record(stream)?;
        body()?;
        end.record(stream)?;
        end.synchronize()?;
        if i >= 5 {
            samples.push(f64::from(end.milliseconds_since(&begin)?) * 1e3);
        }
    }
    Ok(median(samples))
}

pub(crate) fn on_host(mut body: impl FnMut() -> Result<(), Failed>) -> Result<f64, Failed> {
    let mut samples = Vec::new();
    for i in 0..SAMPLES + 5 {
        let begun = Instant::now();
        body()?;
        if i >= 5 {
            samples.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(median(samples))
}
