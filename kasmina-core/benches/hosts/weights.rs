//! A host's variables and their optimizer.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Optimizer, SGD, VarBuilder, VarMap};

use super::There;

/// Variables with the same values for all variants of a host, and their optimizer. Plain gradient descent: the cheapest there
/// is, so that what the seeds cost is not hidden behind it.
pub(super) struct Weights {
    map: VarMap,
    optimizer: Option<SGD>,
    /// What they were in the beginning.
    start: Vec<Vec<u32>>,
}

impl Weights {
    pub(super) fn new() -> Self {
        Self { map: VarMap::new(), optimizer: None, start: Vec::new() }
    }

    pub(super) fn builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_varmap(&self.map, dtype, device)
    }

    fn sorted(&self) -> Vec<(String, Var)> {
        let data = self.map.data().lock().expect("no thread panicked");
        let mut vars: Vec<_> = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        vars
    }

    /// Overwrites what candle drew by numbers that are the same in every run.
    pub(super) fn start(&mut self, there: &There) -> Result<()> {
        for (_, var) in self.sorted() {
            let scale = 1.0 / (var.dims()[var.dims().len() - 1] as f64).sqrt();
            let values = (there.numbers(var.dims())? * scale)?;
            var.set(&values.to_dtype(var.dtype())?)?;
        }
        self.optimizer = Some(SGD::new(self.map.all_vars(), 1e-3)?);
        self.start = self.bits()?;
        Ok(())
    }

    pub(super) fn update(&mut self, loss: &Tensor) -> Result<()> {
        if let Some(optimizer) = &mut self.optimizer {
            optimizer.backward_step(loss)?;
        }
        Ok(())
    }

    /// Names of those that training does not reach: `loss` gives them no gradient, or zeros, or no bit of them has changed. Of 16-bit
    /// weights only gradients are asked, as rounding may swallow every update.
    pub(super) fn untrained(&self, loss: &Tensor) -> Result<Vec<String>> {
        let gradients = loss.backward()?;
        let now = self.bits()?;
        let mut untrained = Vec::new();
        for ((name, var), (now, start)) in
            self.sorted().into_iter().zip(now.iter().zip(&self.start))
        {
            let greatest = match gradients.get(var.as_tensor()) {
                Some(gradient) => {
                    gradient.to_dtype(DType::F32)?.abs()?.flatten_all()?.max(0)?.to_scalar()?
                }
                None => 0.0_f32,
            };
            if greatest == 0.0 || var.dtype() == DType::F32 && now == start {
                untrained.push(name);
            }
        }
        Ok(untrained)
    }

    /// The bits of all of them as f32, which holds them exactly; an error where one is no number.
    pub(super) fn bits(&self) -> Result<Vec<Vec<u32>>> {
        let bits = |(name, var): (String, Var)| -> Result<Vec<u32>> {
            let values = var.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            ensure!(values.iter().all(|x| x.is_finite()), "weight {name} is not finite any more");
            Ok(values.into_iter().map(f32::to_bits).collect())
        };
        self.sorted().into_iter().map(bits).collect()
    }
}
