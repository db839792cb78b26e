//! One pass of the layer as an operation of candle's graph, as on the CPU: the pass has run, or is queued, before the operation is
//! made, and the packed parameters are an argument so that their gradients find the way to the variables.

use std::sync::Arc;

use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use parking_lot::Mutex;

use super::snapshot::Snapshot;
use super::tensor::Result1;
use super::{Shared, tensor};
use crate::ForwardOptions;
use crate::candle::{CandleError, CandleResult};

/// The operation: the result of a forward pass, and what its backward pass needs.
pub(super) struct Pass {
    backward: Option<Backward>,
    /// The result, until the graph takes it.
    y: Mutex<Option<Result1>>,
}

struct Backward {
    shared: Arc<Mutex<Shared>>,
    options: ForwardOptions,
    snapshot: Snapshot,
}

impl Pass {
    pub(super) fn new(
        shared: Arc<Mutex<Shared>>,
        options: ForwardOptions,
        snapshot: Snapshot,
        y: Result1,
    ) -> Self {
        let backward = Some(Backward { shared, options, snapshot });
        Self { backward, y: Mutex::new(Some(y)) }
    }

    pub(super) fn without_backward(y: Result1) -> Self {
        Self { backward: None, y: Mutex::new(Some(y)) }
    }

    /// The storage of the forward pass's result.
    fn result(&self) -> Result<Result1> {
        let y = self.y.lock().take();
        y.ok_or_else(|| candle_core::Error::msg("the operation of one pass of a layer runs once"))
    }

    /// dL/dx, and the gradients of `packed`. The layer's accumulators are empty before and after.
    fn backward(
        &self,
        x: &Tensor,
        packed: Option<&Tensor>,
        grad_y: &Tensor,
    ) -> CandleResult<(Tensor, Option<Tensor>)> {
        let Some(Backward { shared, options, snapshot }) = &self.backward else {
            return Err(candle_core::Error::msg("an inference has no backward pass").into());
        };
        let Shared { layer, norms, device, .. } = &mut *Shared::lock(shared)?;
        snapshot.check(layer)?;
        if let Some(seed) = layer.seed_with_gradients() {
            return Err(CandleError::GradientsWaiting { seed });
        }
        let Some(packed) = packed else {
            return Ok((tensor::backward(layer, device, x, grad_y, options)?, None));
        };
        // The values that the forward pass ran with; an optimizer may have moved the variables since. The next pass lends those.
        snapshot.lend(layer, packed)?;
        let grad_x = tensor::backward(layer, device, x, grad_y, options);
        let gathered = match &grad_x {
            Ok(_) => snapshot.take_gradients(layer, device).map(Some),
            Err(_) => Ok(None),
        };
        if layer.seed_with_gradients().is_some() {
            layer.zero_gradients()?;
        }
        let (grad_x, gathered) = (grad_x?, gathered?);
        if let Some(gathered) = &gathered {
            norms.wait_in(gathered, snapshot.packed_seeds());
        }
        Ok((grad_x, gathered))
    }
}

impl CustomOp1 for Pass {
    fn name(&self) -> &'static str {
        "kasmina-layer"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Err(candle_core::Error::msg("a layer among CUDA tensors has no pass on the CPU"))
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.result()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad_y: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.backward(x, None, grad_y)?.0))
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
        Err(candle_core::Error::msg("a layer among CUDA tensors has no pass on the CPU"))
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.result()
    }

    fn bwd(
        &self,
        x: &Tensor,
        packed: &Tensor,
        _: &Tensor,
        grad_y: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (grad_x, packed) = self.backward(x, Some(packed), grad_y)?;
        Ok((Some(grad_x), packed))
    }
}
