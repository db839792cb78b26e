//! What a runner runs: passes of layers over matrices that stay where they are, and what follows them.

use std::sync::{Arc, OnceLock};

use kasmina_sys::Stream;
use parking_lot::MutexGuard;

use super::part::{SharedPart, check};
use crate::cuda::error::CudaError;
use crate::cuda::executor::{ExecutorError, ResidentStep, ResidentStepBuilder};
use crate::cuda::layer::CudaLayer;
use crate::cuda::layer::Phases;
use crate::cuda::step_graph::{Step, StepGraphError};
use crate::cuda::{SharedLayer, SharedMatrix};
use crate::{AdamW, DType, Element};

/// Passes of a stack of shared layers, for a [`StepRunner`](super::StepRunner) to run over and over: the forward passes from the first
/// layer to the last, or the backward passes the other way round, or both. Cheap to clone; clones are the same step.
#[derive(Debug)]
pub struct SharedStep<T: Element>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T: Element> {
    layers: Vec<SharedLayer>,
    parts: Vec<SharedPart<T>>,
    forward: bool,
    backward: bool,
    /// The layers' numbers, by address.
    order: Vec<usize>,
    /// Of the layers and of the matrices, each once.
    streams: Vec<Stream>,
    /// Of the layers alone.
    layers_streams: Arc<[Stream]>,
    kind: Kind,
    resident: OnceLock<Result<ResidentStep, ExecutorError>>,
}

/// What steps that are tried together have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    dtype: DType,
    rows: usize,
    passes: [bool; 2],
    /// Whether the optimizer follows, and the end of the step.
    end: [bool; 2],
    layers: Vec<u64>,
}

impl<T: Element> Clone for SharedStep<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Element> SharedStep<T> {
    /// Passes of layers with matrices of their own, one part a layer. Parts with a y run forward, parts with gradients backward: all
    /// parts are alike in that.
    ///
    /// # Errors
    /// [`CudaError::StepGraph`] for other numbers of parts and layers, a layer that comes twice, a part that lacks a matrix which others
    /// have, or one whose pass would write what it reads; [`CudaError::Executor`] and [`CudaError::Shape`] for matrices that do not fit.
    pub fn apart(layers: &[SharedLayer], parts: Vec<SharedPart<T>>) -> Result<Self, CudaError> {
        count("matrices of layers", parts.len(), layers.len())?;
        for (second, layer) in layers.iter().enumerate() {
            if let Some(first) = layers[..second].iter().position(|known| Arc::ptr_eq(known, layer))
            {
                return Err(StepGraphError::Twice { first, second }.into());
            }
        }
        let forward = parts.iter().any(|part| part.y.is_some());
        let backward = parts.iter().any(|part| part.gradients.is_some());
        let rows = parts.first().map_or(0, |part| part.x.shape().0);
        for (index, (layer, part)) in layers.iter().zip(&parts).enumerate() {
            check(index, layer, part, (forward, backward), rows)?;
        }
        let mut order: Vec<usize> = (0..layers.len()).collect();
        order.sort_unstable_by_key(|i| Arc::as_ptr(&layers[*i]));
        let ids = layers.iter().map(|layer| layer.lock().id()).collect();
        let kind = Kind {
            dtype: T::DTYPE,
            rows,
            passes: [forward, backward],
            end: [false; 2],
            layers: ids,
        };
        let layers_streams: Vec<Stream> = once(layers.iter().map(|l| l.lock().stream().clone()));
        let homes = parts.iter().flat_map(SharedPart::matrices).map(|matrix| matrix.home().clone());
        let streams = once(layers_streams.iter().cloned().chain(homes));
        Ok(Self(Arc::new(Inner {
            layers: layers.to_vec(),
            parts,
            forward,
            backward,
            order,
            streams,
            layers_streams: layers_streams.into(),
            kind,
            resident: OnceLock::new(),
        })))
    }

    /// The forward passes of layers one behind the other. `activations` are one more than there are layers: layer i reads the i-th and
    /// writes the next.
    ///
    /// # Errors
    /// As [`SharedStep::apart`].
    pub fn forward(
        layers: &[SharedLayer],
        activations: &[SharedMatrix<T>],
    ) -> Result<Self, CudaError> {
        Self::apart(layers, chain(layers, activations)?)
    }

    /// Forward and backward. `gradients` are as many as `activations`: layer i reads the one behind it and writes the i-th. The last is
    /// dL/dy of the whole, which is the caller's, and there before the step is run.
    ///
    /// # Errors
    /// As [`SharedStep::apart`].
    pub fn both(
        layers: &[SharedLayer],
        activations: &[SharedMatrix<T>],
        gradients: &[SharedMatrix<T>],
    ) -> Result<Self, CudaError> {
        Self::apart(layers, with_gradients(chain(layers, activations)?, gradients)?)
    }

    /// The backward passes alone, behind a loss of one's own.
    ///
    /// # Errors
    /// As [`SharedStep::apart`].
    pub fn backward(
        layers: &[SharedLayer],
        activations: &[SharedMatrix<T>],
        gradients: &[SharedMatrix<T>],
    ) -> Result<Self, CudaError> {
        let mut parts = with_gradients(chain(layers, activations)?, gradients)?;
        parts.iter_mut().for_each(|part| part.y = None);
        Self::apart(layers, parts)
    }

    /// The layers.
    pub fn layers(&self) -> &[SharedLayer] {
        &self.0.layers
    }

    pub(super) fn has_backward(&self) -> bool {
        self.0.backward
    }

    pub(super) fn kind(&self, end: &StepEnd) -> Kind {
        Kind { end: [end.optimizer.is_some(), end.advance], ..self.0.kind.clone() }
    }

    pub(super) fn streams(&self) -> &[Stream] {
        &self.0.streams
    }

    pub(super) fn layers_streams(&self) -> &Arc<[Stream]> {
        &self.0.layers_streams
    }

    /// The layers, all locked in the order of their addresses, as executors do it; in the step's order.
    pub(super) fn lock(&self) -> Vec<MutexGuard<'_, CudaLayer>> {
        let mut locked: Vec<Option<MutexGuard<'_, CudaLayer>>> = Vec::new();
        locked.resize_with(self.0.layers.len(), || None);
        for i in &self.0.order {
            locked[*i] = Some(self.0.layers[*i].lock());
        }
        locked.into_iter().flatten().collect()
    }

    /// Runs `body` with the step as graphs take it.
    pub(super) fn with_graph_step<R>(
        &self,
        end: &StepEnd,
        body: impl FnOnce(Step<'_, T>) -> Result<R, CudaError>,
    ) -> Result<R, CudaError> {
        let mut locked = self.lock();
        let parts = self.0.parts.iter().map(SharedPart::as_layer_step);
        let parts = parts.collect::<Result<_, CudaError>>()?;
        let mut step = Step::of(locked.iter_mut().map(|layer| &mut **layer).collect(), parts)?;
        step.phases = Phases {
            forward: self.0.forward,
            backward: self.0.backward,
            optimizer: end.optimizer,
            advance: end.advance,
        };
        body(step)
    }

    /// The plain calls, in their order.
    ///
    /// # Errors
    /// A call of a layer that cannot be made, nothing queued; or the driver refused.
    pub(super) fn launch(&self, end: &StepEnd) -> Result<(), CudaError> {
        let Inner { parts, forward, backward, .. } = &*self.0;
        let mut layers = self.lock();
        for (layer, part) in layers.iter_mut().zip(parts) {
            layer.prepare_call(&part.options)?;
        }
        if *forward {
            layers.iter_mut().zip(parts).try_for_each(|(layer, part)| part.forward(layer))?;
        }
        if *backward {
            let mut all = layers.iter_mut().zip(parts).rev();
            all.try_for_each(|(layer, part)| part.backward(layer))?;
        }
        end.launch(&mut layers)
    }

    /// The optimizer and the end of the step alone.
    pub(super) fn launch_end(&self, end: &StepEnd) -> Result<(), CudaError> {
        end.launch(&mut self.lock())
    }

    /// The passes as an executor takes them; or why they are none for a grid.
    pub(super) fn resident(&self) -> Result<&ResidentStep, &ExecutorError> {
        self.0.resident.get_or_init(|| self.0.build_resident()).as_ref()
    }
}

impl<T: Element> Inner<T> {
    fn build_resident(&self) -> Result<ResidentStep, ExecutorError> {
        let mut step = ResidentStepBuilder::new();
        for (layer, part) in self.layers.iter().zip(&self.parts) {
            if let Some(y) = &part.y {
                step.forward(layer, &part.x, y, &part.options)?;
            }
        }
        for (layer, part) in self.layers.iter().zip(&self.parts).rev() {
            if let Some([grad_y, grad_x]) = &part.gradients {
                step.backward(layer, &part.x, grad_y, grad_x, &part.options)?;
            }
        }
        step.build()
    }
}

/// What follows the passes of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[must_use]
pub struct StepEnd {
    pub(super) optimizer: Option<AdamW>,
    pub(super) advance: bool,
}

impl StepEnd {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A step of the optimizer on every layer, [`CudaLayer::optimizer_step`]; other settings each time, as they come.
    pub fn optimizer(mut self, optimizer: &AdamW) -> Self {
        self.optimizer = Some(*optimizer);
        self
    }

    /// The end of the step, [`CudaLayer::advance_step`] of every layer, which waits where a graft's strategy measures.
    pub fn advance(mut self) -> Self {
        self.advance = true;
        self
    }

    fn launch(&self, layers: &mut [MutexGuard<'_, CudaLayer>]) -> Result<(), CudaError> {
        if let Some(optimizer) = &self.optimizer {
            layers.iter_mut().try_for_each(|layer| layer.optimizer_step(optimizer))?;
        }
        if self.advance {
            layers.iter_mut().try_for_each(|layer| layer.advance_step())?;
        }
        Ok(())
    }
}

fn count(what: &'static str, found: usize, needed: usize) -> Result<(), StepGraphError> {
    if found == needed { Ok(()) } else { Err(StepGraphError::Count { what, found, needed }) }
}

fn chain<T: Element>(
    layers: &[SharedLayer],
    activations: &[SharedMatrix<T>],
) -> Result<Vec<SharedPart<T>>, StepGraphError> {
    count("activations", activations.len(), layers.len() + 1)?;
    Ok(activations.windows(2).map(|pair| SharedPart::new(&pair[0]).y(&pair[1])).collect())
}

fn with_gradients<T: Element>(
    parts: Vec<SharedPart<T>>,
    gradients: &[SharedMatrix<T>],
) -> Result<Vec<SharedPart<T>>, StepGraphError> {
    count("gradients", gradients.len(), parts.len() + 1)?;
    let pairs = parts.into_iter().zip(gradients.windows(2));
    Ok(pairs.map(|(part, pair)| part.gradients(&pair[1], &pair[0])).collect())
}

/// Each stream once.
fn once(streams: impl Iterator<Item = Stream>) -> Vec<Stream> {
    let mut all: Vec<Stream> = Vec::new();
    for stream in streams {
        if !all.iter().any(|known| known.same_queue(&stream)) {
            all.push(stream);
        }
    }
    all
}
