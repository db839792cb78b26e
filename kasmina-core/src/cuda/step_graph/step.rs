//! What a replay is given: a stack of layers, and what each of them is given.

use crate::cuda::layer::{CudaLayer, LayerStep, Phases};
use crate::cuda::matrix::DeviceMatMut;
use crate::{AdamW, Element, ForwardOptions};

use super::StepGraphError;

/// One step of a stack of layers: what the plain calls would be given, in their order. All forward passes come first, the first
/// layer's before the second's; then the backward passes, the last layer's first; then the optimizer's steps; then the end of the
/// step.
#[derive(Debug)]
#[must_use = "a step is what `StepGraph::replay` takes"]
pub struct Step<'a, T: Element> {
    pub(super) layers: Vec<&'a mut CudaLayer>,
    pub(super) parts: Vec<LayerStep<'a, T>>,
    pub(in crate::cuda) phases: Phases,
}

impl<'a, T: Element> Step<'a, T> {
    /// A step of layers with matrices of their own, one entry a layer: for stacks with something else between the layers. It has
    /// no part yet.
    ///
    /// # Errors
    /// [`StepGraphError::Count`].
    pub fn apart(
        layers: &'a mut [CudaLayer],
        parts: Vec<LayerStep<'a, T>>,
    ) -> Result<Self, StepGraphError> {
        Self::of(layers.iter_mut().collect(), parts)
    }

    /// The same of layers that lie anywhere.
    pub(in crate::cuda) fn of(
        layers: Vec<&'a mut CudaLayer>,
        parts: Vec<LayerStep<'a, T>>,
    ) -> Result<Self, StepGraphError> {
        count("matrices of layers", parts.len(), layers.len())?;
        Ok(Self { layers, parts, phases: Phases::default() })
    }

    /// A step of layers one behind the other. `activations` are one more than there are layers: layer i reads the i-th and writes
    /// the next. It has no part yet.
    ///
    /// # Errors
    /// [`StepGraphError::Count`].
    pub fn chain(
        layers: &'a mut [CudaLayer],
        activations: &'a mut [DeviceMatMut<'_, T>],
    ) -> Result<Self, StepGraphError> {
        count("activations", activations.len(), layers.len() + 1)?;
        let activations: &'a [DeviceMatMut<'_, T>] = activations;
        let parts = activations.windows(2).map(|pair| {
            let [x, y] = [0, 1].map(|i| pair.get(i).map(DeviceMatMut::as_ref));
            LayerStep { x, y, grad_y: None, grad_x: None, options: ForwardOptions::new() }
        });
        Self::of(layers.iter_mut().collect(), parts.collect())
    }

    /// The gradients of a chain's activations, as many as these: layer i reads the one behind it and writes the i-th. The last is
    /// dL/dy of the whole, and the caller's to write.
    ///
    /// # Errors
    /// [`StepGraphError::Count`].
    pub fn chain_gradients(
        mut self,
        gradients: &'a mut [DeviceMatMut<'_, T>],
    ) -> Result<Self, StepGraphError> {
        count("gradients", gradients.len(), self.parts.len() + 1)?;
        let gradients: &'a [DeviceMatMut<'_, T>] = gradients;
        for (part, pair) in self.parts.iter_mut().zip(gradients.windows(2)) {
            [part.grad_x, part.grad_y] = [0, 1].map(|i| pair.get(i).map(DeviceMatMut::as_ref));
        }
        Ok(self)
    }

    /// The same options for every layer.
    pub fn options(mut self, options: &ForwardOptions) -> Self {
        for part in &mut self.parts {
            part.options.clone_from(options);
        }
        self
    }

    /// Options of layer `index`; nothing where there is no such layer.
    pub fn options_of(mut self, index: usize, options: &ForwardOptions) -> Self {
        if let Some(part) = self.parts.get_mut(index) {
            part.options.clone_from(options);
        }
        self
    }

    /// With the forward passes.
    pub fn forward(mut self) -> Self {
        self.phases.forward = true;
        self
    }

    /// With the backward passes. The last layer's dL/dy is there when the replay is queued, and does not depend on this step's y:
    /// a loss of one's own goes between a step of the forward passes and one of the others.
    pub fn backward(mut self) -> Self {
        self.phases.backward = true;
        self
    }

    /// With a step of the optimizer. Other settings than last time, such as another learning rate, are exchanged in place.
    pub fn optimizer(mut self, optimizer: &AdamW) -> Self {
        self.phases.optimizer = Some(*optimizer);
        self
    }

    /// With the end of the step, [`CudaLayer::advance_step`] of every layer, which waits where a graft's strategy measures.
    pub fn advance(mut self) -> Self {
        self.phases.advance = true;
        self
    }
}

fn count(what: &'static str, found: usize, needed: usize) -> Result<(), StepGraphError> {
    if found == needed { Ok(()) } else { Err(StepGraphError::Count { what, found, needed }) }
}
