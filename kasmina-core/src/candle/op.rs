//! One pass of the layer as an operation of candle's graph.
//!
//! The forward pass has run before the operation is made, under the one lock that also took the snapshot;
//! the operation only hands its result to the graph. The packed parameters are an argument for the sake of
//! the graph: that is how their gradients find the way to the variables.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor};
use parking_lot::Mutex;

use super::snapshot::Snapshot;
use super::vars::{Variables, bits};
use super::{CandleError, CandleResult, Shared, tensor};
use crate::lifecycle::SeedSignals;
use crate::{ForwardOptions, Layer};

/// The operation: the result of a forward pass, and what its backward pass needs.
pub(super) struct Pass {
    shared: Arc<Mutex<Shared>>,
    options: ForwardOptions,
    snapshot: Snapshot,
    /// The result, until the graph takes it.
    y: Mutex<Option<(CpuStorage, Shape)>>,
}

impl Variables {
    /// The variables of `seeds` as one vector that the graph can trace back to them; `None` if there are
    /// none.
    pub(super) fn packed(&self, seeds: impl Iterator<Item = usize>) -> Result<Option<Tensor>> {
        let vars = seeds.filter_map(|seed| self.seeds.get(&seed)).flat_map(|seed| &seed.vars);
        let flat: Vec<Tensor> = vars.map(|var| var.flatten_all()).collect::<Result<_>>()?;
        if flat.is_empty() { Ok(None) } else { Tensor::cat(&flat, 0).map(Some) }
    }
}

impl Pass {
    pub(super) fn new(
        shared: Arc<Mutex<Shared>>,
        options: ForwardOptions,
        snapshot: Snapshot,
        y: (CpuStorage, Shape),
    ) -> Self {
        Self { shared, options, snapshot, y: Mutex::new(Some(y)) }
    }

    /// The storage of the forward pass's result.
    fn result(&self) -> Result<(CpuStorage, Shape)> {
        let y = self.y.lock().take();
        y.ok_or_else(|| candle_core::Error::msg("the operation of one pass of a layer runs once"))
    }

    /// dL/dx and the packed parameter gradients. The layer's accumulators are empty before and after.
    fn backward(&self, x: &Tensor, grad_y: &Tensor) -> CandleResult<(Tensor, Vec<f32>)> {
        let mut shared = self.shared.lock();
        let Shared { layer, device, .. } = &mut *shared;
        self.snapshot.check(layer)?;
        if let Some((seed, _)) =
            layer.lifecycle().grown_seeds().find(|(_, grown)| grown.gradients().is_some())
        {
            return Err(CandleError::GradientsWaiting { seed });
        }
        let moved_on = self.swap_parameters(layer)?;
        let grad_x = tensor::backward(layer, device.as_mut(), x, grad_y, &self.options);
        let packed = grad_x.as_ref().map(|_| self.take_gradients(layer));
        layer.zero_gradients();
        for (seed, values) in moved_on {
            layer.set_parameters(seed, &values)?;
        }
        let packed = packed.map_or(Ok(Vec::new()), |packed| packed)?;
        Ok((grad_x?, packed))
    }

    /// Gives trainable seeds the parameters of the forward pass; returns those they had, where different.
    fn swap_parameters(&self, layer: &mut Layer) -> CandleResult<Vec<(usize, Vec<f32>)>> {
        let mut moved_on = Vec::new();
        for (seed, values) in self.snapshot.trainable() {
            let Some(grown) = layer.lifecycle().grown(seed) else {
                continue;
            };
            if bits(grown.parameters()) != bits(values) {
                moved_on.push((seed, grown.parameters().to_vec()));
                layer.set_parameters(seed, values)?;
            }
        }
        Ok(moved_on)
    }

    /// The gradients of the trainable seeds, one after the other as the variables were packed; their norms
    /// are recorded with the layer.
    fn take_gradients(&self, layer: &mut Layer) -> CandleResult<Vec<f32>> {
        let mut packed = Vec::new();
        for (seed, values) in self.snapshot.trainable() {
            let Some(gradients) = layer.lifecycle().grown(seed).and_then(|grown| grown.gradients())
            else {
                packed.resize(packed.len() + values.len(), 0.0);
                continue;
            };
            packed.extend_from_slice(gradients);
            let square: f64 = gradients.iter().map(|&g| f64::from(g).powi(2)).sum();
            // A norm that is not a number is the worst, as with losses.
            let norm = if square.is_nan() { f64::INFINITY } else { square.sqrt() };
            let signals = SeedSignals { gradient_norm: Some(norm), ..SeedSignals::default() };
            layer.record(seed, signals)?;
        }
        Ok(packed)
    }
}

impl CustomOp1 for Pass {
    fn name(&self) -> &'static str {
        "kasmina-layer"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.result()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad_y: &Tensor) -> Result<Option<Tensor>> {
        let (grad_x, _) = self.backward(x, grad_y)?;
        Ok(Some(grad_x))
    }
}

impl CustomOp2 for Pass {
    fn name(&self) -> &'static str {
        "kasmina-layer"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.result()
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        _: &Tensor,
        grad_y: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (grad_x, packed) = self.backward(x, grad_y)?;
        let packed = Tensor::from_vec(packed, parameters.dims(), &Device::Cpu)?;
        Ok((Some(grad_x), Some(packed)))
    }
}
