//! The hosts: networks as one writes them in candle, with a layer of dormant seeds where activations are, or without.

use anyhow::Result;
use candle_core::{D, DType, Device, Module, Tensor, Var};
use candle_nn::{
    Embedding, Linear, Optimizer, SGD, VarBuilder, VarMap, embedding, linear, loss, ops,
};
use kasmina_core::candle::KasminaLayer;
use kasmina_core::{ForwardOptions, Layer, SeedLayout};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Columns of a seed.
const CHUNK: usize = 64;
const CLASSES: usize = 16;
const HEADS: usize = 4;
const BLOCKS: usize = 2;

/// What stands where the host's activations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seeds {
    /// Nothing: the host alone.
    None,
    /// Dormant seeds that measure nothing.
    Dormant,
    /// Dormant seeds with the telemetry of activations and gradients.
    Watched,
}

/// Sizes of a host's batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    /// Tokens of a sequence.
    pub(crate) length: usize,
    pub(crate) width: usize,
}

/// A network that trains.
pub(crate) trait Host: Sized {
    fn new(shape: &Shape, seeds: Seeds) -> Result<Self>;
    fn name(&self) -> String;
    /// Forward, loss, backward and an update.
    fn step(&mut self) -> Result<()>;
    fn weights(&self) -> &Weights;
}

/// Variables with the same values for all variants of a host, and their optimizer. Plain gradient descent: the cheapest there
/// is, so that what the seeds cost is not hidden behind it.
pub(crate) struct Weights {
    map: VarMap,
    optimizer: Option<SGD>,
    /// What they were in the beginning.
    start: Vec<Vec<u32>>,
}

impl Weights {
    fn new() -> Self {
        Self { map: VarMap::new(), optimizer: None, start: Vec::new() }
    }

    fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_varmap(&self.map, DType::F32, &Device::Cpu)
    }

    fn sorted(&self) -> Vec<(String, Var)> {
        let data = self.map.data().lock().expect("no thread panicked");
        let mut vars: Vec<_> = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        vars
    }

    /// Overwrites what candle drew by numbers that are the same in every run.
    fn start(&mut self) -> Result<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (_, var) in self.sorted() {
            let scale = 1.0 / (var.dims()[var.dims().len() - 1] as f32).sqrt();
            let values: Vec<f32> =
                (0..var.elem_count()).map(|_| scale * rng.random_range(-1.0..1.0)).collect();
            var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu)?)?;
        }
        self.optimizer = Some(SGD::new(self.map.all_vars(), 1e-3)?);
        self.start = self.bits()?;
        Ok(())
    }

    fn update(&mut self, loss: &Tensor) -> Result<()> {
        if let Some(optimizer) = &mut self.optimizer {
            optimizer.backward_step(loss)?;
        }
        Ok(())
    }

    /// Names of those in which no bit has changed: a host's gradients do not reach them.
    pub(crate) fn untrained(&self) -> Result<Vec<String>> {
        let names = self.sorted().into_iter().map(|(name, _)| name);
        let held = self.bits()?.into_iter().zip(&self.start);
        Ok(names
            .zip(held)
            .filter(|(_, (now, start))| now == *start)
            .map(|(name, _)| name)
            .collect())
    }

    /// The bits of all of them.
    pub(crate) fn bits(&self) -> Result<Vec<Vec<u32>>> {
        let bits = |(_, var): (String, Var)| -> Result<Vec<u32>> {
            let values = var.flatten_all()?.to_vec1::<f32>()?;
            Ok(values.into_iter().map(f32::to_bits).collect())
        };
        self.sorted().into_iter().map(bits).collect()
    }
}

/// A layer of dormant seeds, or nothing.
struct Watch(Option<KasminaLayer>);

impl Watch {
    fn new(seeds: Seeds, hidden: usize) -> Result<Self> {
        if seeds == Seeds::None {
            return Ok(Self(None));
        }
        let layer = Layer::builder(SeedLayout::new(hidden, CHUNK)?).build()?;
        let options = ForwardOptions::new();
        let options = if seeds == Seeds::Watched { options } else { options.without_telemetry() };
        Ok(Self(Some(KasminaLayer::new(layer).with_options(options))))
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        Ok(match &self.0 {
            Some(layer) => layer.forward(&x)?,
            None => x,
        })
    }

    fn end_step(&self) {
        if let Some(layer) = &self.0 {
            layer.layer().advance_step();
        }
    }
}

/// width → width → width → classes, relu.
pub(crate) struct Mlp {
    shape: Shape,
    weights: Weights,
    layers: [Linear; 3],
    watches: [Watch; 2],
    x: Tensor,
    labels: Tensor,
}

impl Host for Mlp {
    fn new(shape: &Shape, seeds: Seeds) -> Result<Self> {
        let Shape { batch, width, .. } = *shape;
        let mut weights = Weights::new();
        let vb = weights.builder();
        let layers = [
            linear(width, width, vb.pp("a"))?,
            linear(width, width, vb.pp("b"))?,
            linear(width, CLASSES, vb.pp("c"))?,
        ];
        weights.start()?;
        let watches = [Watch::new(seeds, width)?, Watch::new(seeds, width)?];
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let x: Vec<f32> = (0..batch * width).map(|_| rng.random_range(-1.0..1.0)).collect();
        let x = Tensor::from_vec(x, (batch, width), &Device::Cpu)?;
        let labels = classes(&mut rng, batch)?;
        Ok(Self { shape: *shape, weights, layers, watches, x, labels })
    }

    fn name(&self) -> String {
        let Shape { batch, width, .. } = self.shape;
        format!("MLP {width}-{width}-{width}-{CLASSES}, 2 layers, batch {batch}")
    }

    fn step(&mut self) -> Result<()> {
        let mut h = self.x.clone();
        for (linear, watch) in self.layers.iter().zip(&self.watches) {
            h = watch.forward(linear.forward(&h)?.relu()?)?;
        }
        let loss = loss::cross_entropy(&self.layers[2].forward(&h)?, &self.labels)?;
        self.weights.update(&loss)?;
        self.watches.iter().for_each(Watch::end_step);
        Ok(())
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }
}

/// Tokens in, tokens out: blocks of attention and a feed-forward part of four times the width, normalized before each. The seeds
/// watch every feed-forward part's hidden activations and every block's output.
pub(crate) struct Transformer {
    shape: Shape,
    weights: Weights,
    tokens: Embedding,
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

/// A layer's norm in operations that have backward passes: candle's own is one operation that has none, and would keep the
/// gradients from everything before it.
struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn new(vb: &VarBuilder<'_>, width: usize) -> Result<Self> {
        Ok(Self { weight: vb.get(width, "weight")?, bias: vb.get(width, "bias")? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let width = x.dim(D::Minus1)? as f64;
        let x = x.broadcast_sub(&(x.sum_keepdim(D::Minus1)? / width)?)?;
        let variance = (x.sqr()?.sum_keepdim(D::Minus1)? / width)?;
        let x = x.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
        Ok(x.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

impl Block {
    fn new(vb: &VarBuilder<'_>, width: usize, seeds: Seeds) -> Result<Self> {
        Ok(Self {
            norms: [Norm::new(&vb.pp("n1"), width)?, Norm::new(&vb.pp("n2"), width)?],
            qkv: linear(width, 3 * width, vb.pp("qkv"))?,
            out: linear(width, width, vb.pp("out"))?,
            up: linear(width, 4 * width, vb.pp("up"))?,
            down: linear(4 * width, width, vb.pp("down"))?,
            hidden: Watch::new(seeds, 4 * width)?,
            output: Watch::new(seeds, width)?,
        })
    }

    /// `[batch, length, width]` to the same.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.attention(&self.norms[0].forward(x)?)?)?;
        let hidden = self.up.forward(&self.norms[1].forward(&x)?)?.gelu_erf()?;
        let hidden = self.hidden.forward(hidden)?;
        self.output.forward((&x + self.down.forward(&hidden)?)?)
    }

    fn attention(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, length, width) = x.dims3()?;
        let heads = self.qkv.forward(x)?.reshape((batch, length, 3, HEADS, width / HEADS))?;
        let part = |i: usize| -> Result<Tensor> {
            Ok(heads.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous()?)
        };
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scale = 1.0 / ((width / HEADS) as f64).sqrt();
        let weights = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * scale)?;
        let mixed = ops::softmax(&weights, D::Minus1)?.matmul(&v)?;
        let mixed = mixed.transpose(1, 2)?.contiguous()?.reshape((batch, length, width))?;
        Ok(self.out.forward(&mixed)?)
    }
}

impl Host for Transformer {
    fn new(shape: &Shape, seeds: Seeds) -> Result<Self> {
        let Shape { batch, length, width } = *shape;
        let mut weights = Weights::new();
        let vb = weights.builder();
        let tokens = embedding(CLASSES, width, vb.pp("tokens"))?;
        let blocks = (0..BLOCKS).map(|i| Block::new(&vb.pp(i), width, seeds));
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let head = linear(width, CLASSES, vb.pp("head"))?;
        weights.start()?;
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let x = classes(&mut rng, batch * length)?.reshape((batch, length))?;
        let labels = classes(&mut rng, batch * length)?;
        Ok(Self { shape: *shape, weights, tokens, blocks, head, x, labels })
    }

    fn name(&self) -> String {
        let Shape { batch, length, width } = self.shape;
        format!("transformer {width}, {BLOCKS} blocks, 4 layers, batch {batch} × {length}")
    }

    fn step(&mut self) -> Result<()> {
        let mut h = self.tokens.forward(&self.x)?;
        for block in &self.blocks {
            h = block.forward(&h)?;
        }
        let logits = self.head.forward(&h)?.flatten_to(1)?;
        self.weights.update(&loss::cross_entropy(&logits, &self.labels)?)?;
        for block in &self.blocks {
            block.hidden.end_step();
            block.output.end_step();
        }
        Ok(())
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }
}

fn classes(rng: &mut ChaCha8Rng, n: usize) -> Result<Tensor> {
    let labels: Vec<u32> = (0..n).map(|_| rng.random_range(0..CLASSES as u32)).collect();
    Ok(Tensor::from_vec(labels, n, &Device::Cpu)?)
}
