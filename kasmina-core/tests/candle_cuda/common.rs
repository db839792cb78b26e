//! Layers with a seed of every role, and tensors.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use kasmina_core::candle::KasminaCudaLayer;
use kasmina_core::cuda::Engine;
use kasmina_core::graft::Strategy;
use kasmina_core::{
    Activation, Blueprint, Command, Germination, InitialSeed, Layer, Objective, SeedLayout, State,
};
use kasmina_gpu_test::{Failed, ensure};

pub(crate) const HIDDEN: usize = 20;

/// A candle device and the kernels on it.
pub(crate) struct There {
    pub(crate) device: Device,
    pub(crate) engine: Arc<Engine>,
}

/// Made once: candle compiles its kernels anew for each of its devices, and an engine loads the layer's.
static THREADS: OnceLock<Device> = OnceLock::new();
static OWN: OnceLock<Device> = OnceLock::new();
static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();

impl There {
    /// With candle's stream of the calling thread, as most programs have it.
    pub(crate) fn new(device: kasmina_sys::Device) -> Result<Self, Failed> {
        Self::on(once(&THREADS, || Ok(Device::new_cuda(device.ordinal() as usize)?))?)
    }

    /// Both kinds of candle's devices: with a stream a thread, and with one of its own.
    pub(crate) fn both(device: kasmina_sys::Device) -> Result<[Self; 2], Failed> {
        let own = || Ok(Device::new_cuda_with_stream(device.ordinal() as usize)?);
        Ok([Self::new(device)?, Self::on(once(&OWN, own)?)?])
    }

    fn on(device: Device) -> Result<Self, Failed> {
        let engine = once(&ENGINE, || Ok(KasminaCudaLayer::engine(&device)?))?;
        Ok(Self { device, engine })
    }

    pub(crate) fn module(&self, layer: &Layer) -> Result<KasminaCudaLayer, Failed> {
        Ok(KasminaCudaLayer::new(layer, &self.device, &self.engine)?)
    }

    /// `[rows, HIDDEN]`
    pub(crate) fn tensor(&self, rows: usize, phase: f32) -> Result<Tensor, Failed> {
        Ok(Tensor::from_vec(values(rows * HIDDEN, phase), (rows, HIDDEN), &self.device)?)
    }
}

fn once<T: Clone>(
    cell: &OnceLock<T>,
    make: impl FnOnce() -> Result<T, Failed>,
) -> Result<T, Failed> {
    if let Some(made) = cell.get() {
        return Ok(made.clone());
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made).clone())
}

/// Five seeds of four columns, one of every role: on path and trained, trained beside the path, kept, dormant, being blended in.
pub(crate) fn layer() -> Result<Layer, Failed> {
    let bottleneck = Blueprint::Bottleneck { width: 3, activation: Activation::Gelu };
    let seed = |state, alpha, blueprint: Blueprint| -> Result<InitialSeed, Failed> {
        let layout = blueprint.parameters(4)?;
        let values: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 1.7).sin() * 0.5).collect();
        let parameters = Some(layout.tensors(&values).map(|(_, t)| t.to_vec()).collect());
        let blueprint = Some(blueprint);
        Ok(InitialSeed { state, alpha, parameters, blueprint, ..InitialSeed::default() })
    };
    let dense = Blueprint::Dense { activation: Activation::Tanh };
    Ok(Layer::builder(SeedLayout::new(HIDDEN, 4)?)
        .seed(0, seed(State::FineTuning, 0.7, bottleneck)?)
        .seed(1, seed(State::Training, 0.0, dense)?)
        .seed(2, seed(State::Fossilized, 1.0, Blueprint::Residual)?)
        .seed(4, seed(State::Grafting, 0.25, Blueprint::AttentionHead)?)
        .build()?)
}

/// A layer of 8 columns with one bottleneck that learns beside the path.
pub(crate) fn training(objective: Objective, strategy: Strategy) -> Result<Layer, Failed> {
    let mut layer = Layer::builder(SeedLayout::new(8, 4)?).rng_seed(3).build()?;
    let bottleneck = layer.registry().find("bottleneck")?;
    let germination = Germination::new(bottleneck).objective(objective).strategy(strategy);
    for command in [Command::Germinate(germination), Command::Promote] {
        layer.command(1, command, "test")?;
        let _ = layer.end_epoch();
    }
    Ok(layer)
}

pub(crate) fn values(n: usize, phase: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.61 + phase).sin()).collect()
}

pub(crate) fn flat(tensor: &Tensor) -> Result<Vec<f32>, Failed> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// ⟨y, w⟩: a loss whose gradient at y is w.
pub(crate) fn weighed(y: &Tensor, w: &Tensor) -> Result<Tensor, Failed> {
    Ok((y * w)?.sum_all()?)
}

/// Equality of bits, but that candle adds gradients to 0, so −0 becomes 0 where `gradients`.
pub(crate) fn same(what: &str, a: &[f32], b: &[f32], gradients: bool) -> Result<(), Failed> {
    let zero = if gradients { 0.0 } else { -0.0 };
    let bits = |values: &[f32]| values.iter().map(|v| (v + zero).to_bits()).collect::<Vec<_>>();
    let (a_bits, b_bits) = (bits(a), bits(b));
    let differ = a_bits.iter().zip(&b_bits).filter(|(a, b)| a != b).count();
    ensure(a.len() == b.len() && differ == 0, || {
        let at = a_bits.iter().zip(&b_bits).position(|(a, b)| a != b).unwrap_or(0);
        format!(
            "{what}: {differ} of {} and {} differ, at {at} {:?} and {:?}",
            a.len(),
            b.len(),
            a.get(at),
            b.get(at)
        )
    })
}

/// Agreement within a share of the largest value.
pub(crate) fn close(what: &str, a: &[f32], b: &[f32], share: f32) -> Result<(), Failed> {
    let largest = b.iter().fold(1e-3f32, |largest, v| largest.max(v.abs()));
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    ensure(a.len() == b.len() && worst <= share * largest, || {
        format!("{what}: {worst} apart of {largest}, {} and {} values", a.len(), b.len())
    })
}
