//! The hosts: networks as one writes them in candle for a GPU, with layers of dormant seeds where activations are, or without.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{D, DType, Device, Module, Tensor, Var};
use candle_nn::{Linear, Optimizer, SGD, VarBuilder, VarMap, linear, loss, ops};
use kasmina_core::candle::KasminaCudaLayer;
use kasmina_core::cuda::Engine;
use kasmina_core::{ForwardOptions, Layer, SeedLayout};
use kasmina_telemetry::TelemetryMode;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Columns of a seed.
const CHUNK: usize = 64;
const CLASSES: usize = 16;
const HEAD: usize = 64;

/// What stands where the host's activations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seeds {
    /// Nothing: the host alone.
    None,
    /// Dormant seeds that measure nothing.
    Dormant,
    /// The same with the telemetry of activations.
    Activations,
    /// With the telemetry of gradients, too.
    Both,
    /// Both in every [`EVERY`]th step.
    Sampled,
}

/// Steps from one sampled step to the next.
pub(crate) const EVERY: usize = 8;

/// Sizes of a host's batch.
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

/// Where hosts train.
pub(crate) struct There {
    pub(crate) device: Device,
    pub(crate) engine: Arc<Engine>,
    /// Numbers in (−1, 1).
    table: Tensor,
}

impl There {
    pub(crate) fn new(device: Device, engine: Arc<Engine>) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let table: Vec<f32> = (0..1_048_573).map(|_| rng.random_range(-1.0..1.0)).collect();
        let table = Tensor::new(table, &device)?;
        Ok(Self { device, engine, table })
    }

    /// The table over and over.
    fn numbers(&self, dims: &[usize]) -> Result<Tensor> {
        let n: usize = dims.iter().product();
        let all = self.table.repeat(n.div_ceil(self.table.elem_count()))?;
        Ok(all.narrow(0, 0, n)?.reshape(dims)?)
    }
}

/// A network that trains.
pub(crate) trait Host: Sized {
    fn new(shape: &Shape, seeds: Seeds, there: &There) -> Result<Self>;
    fn name(shape: &Shape) -> String;
    /// Layers of seeds in it, were there some.
    fn places(shape: &Shape) -> usize;
    /// Queues forward, loss, backward and an update.
    fn step(&mut self) -> Result<()>;
    fn weights(&self) -> &Weights;
}

/// Variables with the same values for all variants of a host, and their optimizer. Plain gradient descent: the cheapest there
/// is, so that what the seeds cost is not hidden behind it.
pub(crate) struct Weights {
    map: VarMap,
    optimizer: Option<SGD>,
}

impl Weights {
    fn new() -> Self {
        Self { map: VarMap::new(), optimizer: None }
    }

    fn builder(&self, shape: &Shape, there: &There) -> VarBuilder<'static> {
        VarBuilder::from_varmap(&self.map, shape.dtype, &there.device)
    }

    fn sorted(&self) -> Vec<(String, Var)> {
        let data = self.map.data().lock().expect("no thread panicked");
        let mut vars: Vec<_> = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        vars
    }

    /// Overwrites what candle drew by numbers that are the same in every run.
    fn start(&mut self, there: &There) -> Result<()> {
        for (_, var) in self.sorted() {
            let scale = 1.0 / (var.dims()[var.dims().len() - 1] as f64).sqrt();
            let values = (there.numbers(var.dims())? * scale)?;
            var.set(&values.to_dtype(var.dtype())?)?;
        }
        self.optimizer = Some(SGD::new(self.map.all_vars(), 1e-3)?);
        Ok(())
    }

    fn update(&mut self, loss: &Tensor) -> Result<()> {
        if let Some(optimizer) = &mut self.optimizer {
            optimizer.backward_step(loss)?;
        }
        Ok(())
    }

    /// Whether all are numbers and the same as `others`.
    pub(crate) fn agree(&self, others: &Self) -> Result<bool> {
        let mut agree = true;
        for ((_, a), (_, b)) in self.sorted().iter().zip(others.sorted()) {
            // NaN is not equal to itself.
            let equal = a.eq(b.as_tensor())?.to_dtype(DType::F32)?.flatten_all()?.min(0)?;
            agree &= equal.to_scalar::<f32>()? == 1.0;
        }
        Ok(agree)
    }
}

/// A layer of dormant seeds, or nothing.
struct Watch(Option<KasminaCudaLayer>);

impl Watch {
    fn new(seeds: Seeds, hidden: usize, there: &There) -> Result<Self> {
        if seeds == Seeds::None {
            return Ok(Self(None));
        }
        let mut layer = Layer::builder(SeedLayout::new(hidden, CHUNK)?).build()?;
        if seeds == Seeds::Sampled {
            layer.set_telemetry_mode(TelemetryMode::sampling(EVERY as u32, 1.0)?)?;
        }
        let module = KasminaCudaLayer::new(&layer, &there.device, &there.engine)?;
        Ok(Self(Some(match seeds {
            Seeds::Dormant => module.with_options(ForwardOptions::new().without_telemetry()),
            Seeds::Activations => module.without_gradient_statistics(),
            _ => module,
        })))
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        Ok(match &self.0 {
            Some(layer) => layer.forward(&x)?,
            None => x,
        })
    }

    fn end_step(&self) -> Result<()> {
        if let Some(layer) = &self.0 {
            layer.advance_step()?;
        }
        Ok(())
    }
}

fn element(dtype: DType) -> &'static str {
    if dtype == DType::BF16 { "bf16" } else { "f32" }
}

/// width → width → … → classes, relu.
pub(crate) struct Mlp {
    weights: Weights,
    layers: Vec<(Linear, Watch)>,
    last: Linear,
    x: Tensor,
    labels: Tensor,
}

impl Host for Mlp {
    fn new(shape: &Shape, seeds: Seeds, there: &There) -> Result<Self> {
        let Shape { batch, width, depth, dtype, .. } = *shape;
        let mut weights = Weights::new();
        let vb = weights.builder(shape, there);
        let layer = |i: usize| -> Result<(Linear, Watch)> {
            Ok((linear(width, width, vb.pp(i))?, Watch::new(seeds, width, there)?))
        };
        let layers = (0..depth).map(layer).collect::<Result<_>>()?;
        let last = linear(width, CLASSES, vb.pp("last"))?;
        weights.start(there)?;
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let x = there.numbers(&[batch, width])?.to_dtype(dtype)?;
        let labels = classes(&mut rng, batch, there)?;
        Ok(Self { weights, layers, last, x, labels })
    }

    fn name(shape: &Shape) -> String {
        let Shape { batch, width, depth, dtype, .. } = *shape;
        format!("MLP {depth} × {width}, batch {batch}, {}", element(dtype))
    }

    fn places(shape: &Shape) -> usize {
        shape.depth
    }

    fn step(&mut self) -> Result<()> {
        let mut h = self.x.clone();
        for (linear, watch) in &self.layers {
            h = watch.forward(linear.forward(&h)?.relu()?)?;
        }
        let logits = self.last.forward(&h)?.to_dtype(DType::F32)?;
        self.weights.update(&loss::cross_entropy(&logits, &self.labels)?)?;
        self.layers.iter().try_for_each(|(_, watch)| watch.end_step())
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }
}

/// Blocks of attention and a feed-forward part of four times the width, normalized before each. The seeds watch every feed-forward
/// part's hidden activations and every block's output.
pub(crate) struct Transformer {
    weights: Weights,
    blocks: Vec<Block>,
    head: Linear,
    x: Tensor,
    labels: Tensor,
}

struct Block {
    norms: [Norm; 2],
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
    hidden: Watch,
    output: Watch,
}

/// A layer's norm in operations that have backward passes: candle's own, in one kernel, has none.
struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn new(vb: &VarBuilder<'_>, width: usize) -> Result<Self> {
        Ok(Self { weight: vb.get(width, "weight")?, bias: vb.get(width, "bias")? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (dtype, width) = (x.dtype(), x.dim(D::Minus1)? as f64);
        let x = x.to_dtype(DType::F32)?;
        let x = x.broadcast_sub(&(x.sum_keepdim(D::Minus1)? / width)?)?;
        let variance = (x.sqr()?.sum_keepdim(D::Minus1)? / width)?;
        let x = x.broadcast_div(&(variance + 1e-5)?.sqrt()?)?.to_dtype(dtype)?;
        Ok(x.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

impl Block {
    fn new(vb: &VarBuilder<'_>, width: usize, seeds: Seeds, there: &There) -> Result<Self> {
        Ok(Self {
            norms: [Norm::new(&vb.pp("n1"), width)?, Norm::new(&vb.pp("n2"), width)?],
            qkv: linear(width, 3 * width, vb.pp("qkv"))?,
            out: linear(width, width, vb.pp("out"))?,
            up: linear(width, 4 * width, vb.pp("up"))?,
            down: linear(4 * width, width, vb.pp("down"))?,
            hidden: Watch::new(seeds, 4 * width, there)?,
            output: Watch::new(seeds, width, there)?,
        })
    }

    /// `[batch, length, width]` to the same.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.attention(&self.norms[0].forward(x)?)?)?;
        let hidden = self.up.forward(&self.norms[1].forward(&x)?)?.gelu()?;
        let hidden = self.hidden.forward(hidden)?;
        self.output.forward((&x + self.down.forward(&hidden)?)?)
    }

    fn attention(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, length, width) = x.dims3()?;
        let heads = self.qkv.forward(x)?.reshape((batch, length, 3, width / HEAD, HEAD))?;
        let part = |i: usize| -> Result<Tensor> {
            Ok(heads.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous()?)
        };
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scale = 1.0 / (HEAD as f64).sqrt();
        let weights = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * scale)?;
        let mixed = ops::softmax(&weights, D::Minus1)?.matmul(&v)?;
        let mixed = mixed.transpose(1, 2)?.contiguous()?.reshape((batch, length, width))?;
        Ok(self.out.forward(&mixed)?)
    }
}

impl Host for Transformer {
    fn new(shape: &Shape, seeds: Seeds, there: &There) -> Result<Self> {
        let Shape { batch, length, width, depth, dtype } = *shape;
        let mut weights = Weights::new();
        let vb = weights.builder(shape, there);
        let blocks = (0..depth).map(|i| Block::new(&vb.pp(i), width, seeds, there));
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let head = linear(width, CLASSES, vb.pp("head"))?;
        weights.start(there)?;
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        // The tokens' embeddings; candle's lookup has a slow backward pass, which would make the seeds look cheaper.
        let x = there.numbers(&[batch, length, width])?.to_dtype(dtype)?;
        let labels = classes(&mut rng, batch * length, there)?;
        Ok(Self { weights, blocks, head, x, labels })
    }

    fn name(shape: &Shape) -> String {
        let Shape { batch, length, width, depth, dtype } = *shape;
        format!("transformer {depth} × {width}, batch {batch} × {length}, {}", element(dtype))
    }

    fn places(shape: &Shape) -> usize {
        2 * shape.depth
    }

    fn step(&mut self) -> Result<()> {
        let mut h = self.x.clone();
        for block in &self.blocks {
            h = block.forward(&h)?;
        }
        let logits = self.head.forward(&h)?.flatten_to(1)?.to_dtype(DType::F32)?;
        self.weights.update(&loss::cross_entropy(&logits, &self.labels)?)?;
        self.blocks.iter().try_for_each(|block| {
            block.hidden.end_step()?;
            block.output.end_step()
        })
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }
}

fn classes(rng: &mut ChaCha8Rng, n: usize, there: &There) -> Result<Tensor> {
    let labels: Vec<u32> = (0..n).map(|_| rng.random_range(0..CLASSES as u32)).collect();
    Ok(Tensor::from_vec(labels, n, &there.device)?)
}
