//! An MLP and a transformer.

use anyhow::Result;
use candle_core::{D, DType, Module, Tensor};
use candle_nn::{Linear, VarBuilder, linear, ops};

use super::{CLASSES, Network, Place, Places, Shape};

/// Columns of an attention head.
const HEAD: usize = 64;

fn through(place: &Place, x: Tensor) -> Result<Tensor> {
    Ok(match place {
        Some(watch) => watch.forward(&x)?,
        None => x,
    })
}

fn end_step(place: &Place) -> Result<()> {
    place.as_ref().map_or(Ok(()), |watch| watch.end_step())
}

/// width → width → … → classes, relu.
pub(crate) struct Mlp {
    layers: Vec<(Linear, Place)>,
    last: Linear,
}

impl Network for Mlp {
    fn new(shape: &Shape, vb: &VarBuilder<'_>, places: Places<'_>) -> Result<Self> {
        let width = shape.width;
        let layer = |i: usize| Ok((linear(width, width, vb.pp(i))?, places(width)?));
        let layers = (0..shape.depth).map(layer).collect::<Result<_>>()?;
        Ok(Self { layers, last: linear(width, CLASSES, vb.pp("last"))? })
    }

    fn name(shape: &Shape) -> String {
        let Shape { batch, width, depth, .. } = *shape;
        format!("MLP {depth} × {width}, batch {batch}, {}", shape.element())
    }

    fn places(shape: &Shape) -> usize {
        shape.depth
    }

    fn input(shape: &Shape) -> Vec<usize> {
        vec![shape.batch, shape.width]
    }

    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = x.clone();
        for (linear, place) in &self.layers {
            h = through(place, linear.forward(&h)?.relu()?)?;
        }
        Ok(self.last.forward(&h)?)
    }

    fn end_step(&self) -> Result<()> {
        self.layers.iter().try_for_each(|(_, place)| end_step(place))
    }
}

/// Blocks of attention and a feed-forward part of four times the width, normalized before each. There are places behind every
/// feed-forward part's hidden activations and at every block's end.
pub(crate) struct Transformer {
    blocks: Vec<Block>,
    head: Linear,
}

struct Block {
    norms: [Norm; 2],
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
    hidden: Place,
    output: Place,
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
        let (dtype, width) = (x.dtype(), x.dim(D::Minus1)? as f64);
        let x = x.to_dtype(DType::F32)?;
        let x = x.broadcast_sub(&(x.sum_keepdim(D::Minus1)? / width)?)?;
        let variance = (x.sqr()?.sum_keepdim(D::Minus1)? / width)?;
        let x = x.broadcast_div(&(variance + 1e-5)?.sqrt()?)?.to_dtype(dtype)?;
        Ok(x.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

impl Block {
    fn new(vb: &VarBuilder<'_>, width: usize, places: Places<'_>) -> Result<Self> {
        Ok(Self {
            norms: [Norm::new(&vb.pp("n1"), width)?, Norm::new(&vb.pp("n2"), width)?],
            qkv: linear(width, 3 * width, vb.pp("qkv"))?,
            out: linear(width, width, vb.pp("out"))?,
            up: linear(width, 4 * width, vb.pp("up"))?,
            down: linear(4 * width, width, vb.pp("down"))?,
            hidden: places(4 * width)?,
            output: places(width)?,
        })
    }

    /// `[batch, length, width]` to the same.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (x + self.attention(&self.norms[0].forward(x)?)?)?;
        let hidden = self.up.forward(&self.norms[1].forward(&x)?)?.gelu()?;
        let hidden = through(&self.hidden, hidden)?;
        through(&self.output, (&x + self.down.forward(&hidden)?)?)
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

impl Network for Transformer {
    fn new(shape: &Shape, vb: &VarBuilder<'_>, places: Places<'_>) -> Result<Self> {
        let width = shape.width;
        let blocks = (0..shape.depth).map(|i| Block::new(&vb.pp(i), width, places));
        let blocks = blocks.collect::<Result<_>>()?;
        Ok(Self { blocks, head: linear(width, CLASSES, vb.pp("head"))? })
    }

    fn name(shape: &Shape) -> String {
        let Shape { batch, length, width, depth, .. } = *shape;
        format!("transformer {depth} × {width}, batch {batch} × {length}, {}", shape.element())
    }

    fn places(shape: &Shape) -> usize {
        2 * shape.depth
    }

    fn input(shape: &Shape) -> Vec<usize> {
        vec![shape.batch, shape.length, shape.width]
    }

    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = x.clone();
        for block in &self.blocks {
            h = block.forward(&h)?;
        }
        Ok(self.head.forward(&h)?.flatten_to(1)?)
    }

    fn end_step(&self) -> Result<()> {
        self.blocks.iter().try_for_each(|block| {
            end_step(&block.hidden)?;
            end_step(&block.output)
        })
    }
}
