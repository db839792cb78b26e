//! The host: a 64-32-10 perceptron, trained on clean sensors with candle and frozen afterwards.

use anyhow::Result;
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{AdamW, Linear, Optimizer, ParamsAdamW, loss::cross_entropy};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::data::{Batches, CLASSES, PIXELS, Rows};

/// Width of the hidden layer.
const HIDDEN: usize = 32;
/// Parameters of the host.
pub(crate) const PARAMETERS: u64 = (PIXELS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES) as u64;
/// Rows of a batch, everywhere.
pub(crate) const BATCH: usize = 64;

const STEPS: usize = 1500;
const LEARNING_RATE: f64 = 1e-2;

/// The classifier. Its tensors are variables while it trains, and plain tensors once frozen.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    hidden: Linear,
    output: Linear,
}

/// Fresh or copied weights that candle can train.
struct Weights {
    vars: Vec<Var>,
    host: Host,
}

impl Host {
    /// Trains a host on clean rows and freezes it.
    pub(crate) fn train(rows: &Rows, init: &mut ChaCha8Rng, batches: ChaCha8Rng) -> Result<Self> {
        let mut uniform = |fan_in: usize, shape: &[usize]| {
            let bound = 1.0 / (fan_in as f32).sqrt();
            let n = shape.iter().product();
            let values: Vec<f32> = (0..n).map(|_| init.random_range(-bound..bound)).collect();
            Var::from_vec(values, shape, &Device::Cpu)
        };
        let weights = Weights::new(vec![
            uniform(PIXELS, &[HIDDEN, PIXELS])?,
            uniform(PIXELS, &[HIDDEN])?,
            uniform(HIDDEN, &[CLASSES, HIDDEN])?,
            uniform(HIDDEN, &[CLASSES])?,
        ]);
        let mut optimizer = adam(weights.vars.clone(), LEARNING_RATE)?;
        let mut batches = Batches::new(rows.len(), BATCH, batches);
        for step in 0..STEPS {
            // Linearly down to nothing, so that hosts of different seeds end equally settled.
            optimizer.set_learning_rate(LEARNING_RATE * (1.0 - step as f64 / STEPS as f64));
            let (x, labels) = rows.select(batches.next()).tensors()?;
            optimizer.backward_step(&cross_entropy(&weights.host.logits(&x)?, &labels)?)?;
        }
        Ok(weights.host.frozen())
    }

    /// Class scores `[rows, 10]` for pixels `[rows, 64]`.
    pub(crate) fn logits(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.output.forward(&self.hidden.forward(x)?.relu()?)?)
    }

    /// The same weights, out of any optimizer's reach.
    fn frozen(&self) -> Self {
        let freeze = |linear: &Linear| {
            Linear::new(linear.weight().detach(), linear.bias().map(|bias| bias.detach()))
        };
        Self { hidden: freeze(&self.hidden), output: freeze(&self.output) }
    }

    /// A copy with its own storage that can be trained, and its variables.
    pub(crate) fn trainable_copy(&self) -> Result<(Self, Vec<Var>)> {
        let vars = self.tensors().map(|t| Ok(Var::from_tensor(&t.copy()?)?));
        let Weights { vars, host } = Weights::new(vars.collect::<Result<_>>()?);
        Ok((host, vars))
    }

    /// Every bit of the weights.
    pub(crate) fn bits(&self) -> Result<Vec<u32>> {
        let mut bits = Vec::new();
        for tensor in self.tensors() {
            let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            bits.extend(values.iter().map(|value| value.to_bits()));
        }
        Ok(bits)
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        [&self.hidden, &self.output]
            .into_iter()
            .flat_map(|linear| std::iter::once(linear.weight()).chain(linear.bias()))
    }
}

impl Weights {
    /// A host over the variables hidden weight, hidden bias, output weight, output bias.
    fn new(vars: Vec<Var>) -> Self {
        let tensor = |i: usize| vars[i].as_tensor().clone();
        let host = Host {
            hidden: Linear::new(tensor(0), Some(tensor(1))),
            output: Linear::new(tensor(2), Some(tensor(3))),
        };
        Self { vars, host }
    }
}

/// Candle's AdamW without weight decay: the one optimizer of all arms.
pub(crate) fn adam(vars: Vec<Var>, learning_rate: f64) -> Result<AdamW> {
    let settings = ParamsAdamW { lr: learning_rate, weight_decay: 0.0, ..ParamsAdamW::default() };
    Ok(AdamW::new(vars, settings)?)
}

/// The share of rows whose largest score is at their label.
pub(crate) fn accuracy(logits: &Tensor, labels: &Tensor) -> Result<f64> {
    let right = logits.argmax(1)?.eq(labels)?.to_dtype(DType::F32)?.mean_all()?;
    Ok(right.to_scalar::<f32>()?.into())
}

/// The mean cross entropy; NaN counts as the worst.
pub(crate) fn loss(logits: &Tensor, labels: &Tensor) -> Result<f64> {
    let loss = f64::from(cross_entropy(logits, labels)?.to_scalar::<f32>()?);
    Ok(if loss.is_nan() { f64::INFINITY } else { loss })
}

/// The values of a tensor, bit by bit.
pub(crate) fn tensor_bits(tensor: &Tensor) -> Result<Vec<u32>> {
    let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
    Ok(values.iter().map(|value| value.to_bits()).collect())
}
