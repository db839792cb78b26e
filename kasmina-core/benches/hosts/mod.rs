//! Hosts for the benches `host` and `host_cuda`: networks as one writes them in candle, with something behind their activations or
//! with nothing, and how several of them are timed and compared.

mod networks;
pub(crate) mod rounds;
mod weights;

use anyhow::Result;
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{VarBuilder, loss};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) use networks::{Mlp, Transformer};
use weights::Weights;

/// Columns of a seed.
pub(crate) const CHUNK: usize = 64;
const CLASSES: usize = 16;

/// Sizes of a host and of its batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    /// Tokens of a sequence.
    pub(crate) length: usize,
    pub(crate) width: usize,
    /// Layers of an MLP before its last, blocks of a transformer.
    pub(crate) depth: usize,
    pub(crate) dtype: DType,
}

impl Shape {
    fn element(&self) -> &'static str {
        self.dtype.as_str()
    }
}

/// What stands behind an activation of a host, and sees its gradient.
pub(crate) trait Watch: Module {
    /// Tells it that an update was made.
    fn end_step(&self) -> Result<()>;
}

/// A place behind an activation, mostly empty in the host that the others are compared with.
pub(crate) type Place = Option<Box<dyn Watch>>;

/// Makes a place of so many columns.
pub(crate) type Places<'a> = &'a dyn Fn(usize) -> Result<Place>;

/// A network without its training.
pub(crate) trait Network: Sized {
    fn new(shape: &Shape, vb: &VarBuilder<'_>, places: Places<'_>) -> Result<Self>;
    fn name(shape: &Shape) -> String;
    /// Places in it.
    fn places(shape: &Shape) -> usize;
    /// Sizes of its input; the last is the width.
    fn input(shape: &Shape) -> Vec<usize>;
    /// A row for each label.
    fn logits(&self, x: &Tensor) -> Result<Tensor>;
    fn end_step(&self) -> Result<()>;
}

/// Where hosts train, and the numbers that they begin with.
pub(crate) struct There {
    pub(crate) device: Device,
    /// Numbers in (−1, 1).
    table: Tensor,
}

impl There {
    pub(crate) fn new(device: Device) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let table: Vec<f32> = (0..1_048_573).map(|_| rng.random_range(-1.0..1.0)).collect();
        let table = Tensor::new(table, &device)?;
        Ok(Self { device, table })
    }

    /// The table over and over.
    fn numbers(&self, dims: &[usize]) -> Result<Tensor> {
        let n: usize = dims.iter().product();
        let all = self.table.repeat(n.div_ceil(self.table.elem_count()))?;
        Ok(all.narrow(0, 0, n)?.reshape(dims)?)
    }
}

/// A network that trains.
pub(crate) struct Host<N> {
    network: N,
    weights: Weights,
    /// Of a transformer the tokens' embeddings: candle's lookup has a slow backward pass, which would make the seeds look cheaper.
    x: Tensor,
    labels: Tensor,
}

impl<N: Network> Host<N> {
    pub(crate) fn new(shape: &Shape, there: &There, places: Places<'_>) -> Result<Self> {
        let mut weights = Weights::new();
        let network = N::new(shape, &weights.builder(shape.dtype, &there.device), places)?;
        weights.start(there)?;
        let x = there.numbers(&N::input(shape))?.to_dtype(shape.dtype)?;
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let n = x.elem_count() / shape.width;
        let labels: Vec<u32> = (0..n).map(|_| rng.random_range(0..CLASSES as u32)).collect();
        let labels = Tensor::from_vec(labels, n, &there.device)?;
        Ok(Self { network, weights, x, labels })
    }

    fn loss(&self) -> Result<Tensor> {
        let logits = self.network.logits(&self.x)?.to_dtype(DType::F32)?;
        Ok(loss::cross_entropy(&logits, &self.labels)?)
    }

    /// Forward, loss, backward and an update; on a GPU they are queued.
    pub(crate) fn step(&mut self) -> Result<()> {
        let loss = self.loss()?;
        self.weights.update(&loss)?;
        self.network.end_step()
    }
}

/// What is wrong with hosts that have made the same steps: weights that training does not reach, as a host that trains only in part
/// makes what is in it look dearer or cheaper than it is; and weights that are not those of the first host to the bit.
pub(crate) fn faults<N: Network>(hosts: &[Host<N>]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let alone = hosts.first().map(|host| host.weights.bits()).transpose()?.unwrap_or_default();
    for (variant, host) in hosts.iter().enumerate() {
        if host.weights.bits()? != alone {
            faults.push(format!("variant {variant} has other weights than the host alone"));
        }
        // Last, as it makes a step's passes.
        faults.extend(
            host.weights
                .untrained(&host.loss()?)?
                .into_iter()
                .map(|name| format!("weight {name} of variant {variant} does not train")),
        );
    }
    Ok(faults)
}
