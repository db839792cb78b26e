//! Layers and matrices that are timed.

use std::sync::Arc;

use kasmina_core::cuda::{
    CudaLayer, Engine, ResidentStep, ResidentStepBuilder, SharedLayer, SharedMatrix,
};
use kasmina_core::{
    Blueprint, ForwardOptions, InitialSeed, Layer, Objective, SeedLayout, State, Strategy,
};
use kasmina_gpu_test::Failed;
use kasmina_sys::Stream;
use parking_lot::Mutex;

pub(crate) const LAYERS: usize = 48;

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
