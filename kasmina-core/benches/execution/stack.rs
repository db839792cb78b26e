//! The stack that is timed: layers of 16 chunks, and the matrices between them.

use std::fmt;
use std::sync::Arc;

use kasmina_core::cuda::{
    CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Engine, Step, StepGraph,
};
use kasmina_core::{
    AdamW, Blueprint, ForwardOptions, InitialSeed, Layer, SeedLayout, State, Strategy,
};
use kasmina_gpu_test::Failed;
use kasmina_sys::{DeviceBuffer, Stream};

pub(crate) const LAYERS: usize = 48;
const SEEDS: usize = 16;
/// Of the seeds of a layer that grows.
const GROWING: usize = 4;

/// What the layers' seeds do.
#[derive(Clone, Copy)]
pub(crate) enum Life {
    /// Nothing.
    Dormant,
    /// Some are expansions that train on the task's loss beside the output.
    Training,
    /// The same are grafted in, alpha moving in every step.
    Grafting,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dormant => f.write_str("dormant"),
            Self::Training => write!(f, "{GROWING} of {SEEDS} training"),
            Self::Grafting => write!(f, "{GROWING} of {SEEDS} grafting"),
        }
    }
}

/// What of a step is timed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Parts {
    Forward,
    Whole,
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Whole => "forward, backward, optimizer",
        })
    }
}

pub(crate) struct Stack {
    layers: Vec<CudaLayer>,
    x: Vec<DeviceBuffer<f32>>,
    g: Vec<DeviceBuffer<f32>>,
    size: (usize, usize),
    options: ForwardOptions,
    optimizer: AdamW,
}

fn layer(hidden: usize, life: Life) -> Result<Layer, Failed> {
    let mut builder = Layer::builder(SeedLayout::new(hidden, hidden / SEEDS)?);
    let state = match life {
        Life::Dormant => None,
        Life::Training => Some(State::Training),
        Life::Grafting => Some(State::Grafting),
    };
    if let Some(state) = state {
        for seed in 0..GROWING {
            let initial = InitialSeed {
                state,
                alpha: 0.0,
                blueprint: Some(Blueprint::MlpExpansion),
                strategy: Strategy::FixedRamp { steps: 1_000_000 },
                ..InitialSeed::default()
            };
            builder = builder.seed(seed * SEEDS / GROWING, initial);
        }
    }
    Ok(builder.build()?)
}

fn read(
    b: &DeviceBuffer<f32>,
    size: (usize, usize),
) -> kasmina_core::Result<DeviceMatRef<'_, f32>> {
    DeviceMatRef::new(b.as_slice(), size.0, size.1, size.1)
}

fn write(
    b: &mut DeviceBuffer<f32>,
    size: (usize, usize),
) -> kasmina_core::Result<DeviceMatMut<'_, f32>> {
    DeviceMatMut::new(b.as_mut_slice(), size.0, size.1, size.1)
}

impl Stack {
    pub(crate) fn new(
        engine: &Arc<Engine>,
        stream: &Stream,
        rows: usize,
        hidden: usize,
        life: Life,
    ) -> Result<Self, Failed> {
        let layer = layer(hidden, life)?;
        let layers = (0..LAYERS).map(|_| CudaLayer::from_layer(&layer, engine, stream));
        let wave = |i: usize| ((i * 2_654_435_761) % 1999) as f32 / 1000.0 - 1.0;
        let values: Vec<f32> = (0..rows * hidden).map(wave).collect();
        let memory = || -> Result<Vec<DeviceBuffer<f32>>, kasmina_sys::Error> {
            (0..LAYERS + 1).map(|_| DeviceBuffer::from_host(stream, &values)).collect()
        };
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            x: memory()?,
            g: memory()?,
            size: (rows, hidden),
            options: ForwardOptions::new(),
            optimizer: AdamW::default(),
        })
    }

    pub(crate) fn launches(&mut self, parts: Parts) -> Result<(), CudaError> {
        let Self { layers, x, g, size, options, optimizer } = self;
        for (i, layer) in layers.iter_mut().enumerate() {
            let (before, behind) = x.split_at_mut(i + 1);
            layer.forward(read(&before[i], *size)?, &mut write(&mut behind[0], *size)?, options)?;
        }
        if parts == Parts::Whole {
            for (i, layer) in layers.iter_mut().enumerate().rev() {
                let (before, behind) = g.split_at_mut(i + 1);
                let (grad_y, mut grad_x) =
                    (read(&behind[0], *size)?, write(&mut before[i], *size)?);
                layer.backward(read(&x[i], *size)?, grad_y, &mut grad_x, options)?;
            }
            layers.iter_mut().try_for_each(|layer| layer.optimizer_step(optimizer))?;
        }
        layers.iter_mut().try_for_each(CudaLayer::advance_step)
    }

    pub(crate) fn replay(&mut self, graph: &mut StepGraph, parts: Parts) -> Result<(), CudaError> {
        let Self { layers, x, g, size, optimizer, .. } = self;
        let mut x = x.iter_mut().map(|b| write(b, *size)).collect::<Result<Vec<_>, _>>()?;
        let mut g = g.iter_mut().map(|b| write(b, *size)).collect::<Result<Vec<_>, _>>()?;
        let step = Step::chain(layers, &mut x)?.chain_gradients(&mut g)?.forward().advance();
        graph.replay(match parts {
            Parts::Forward => step,
            Parts::Whole => step.backward().optimizer(optimizer),
        })
    }
}
