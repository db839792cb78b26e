//! One layer's part of a step: its matrices and options.

use crate::cuda::error::CudaError;
use crate::cuda::layer::CudaLayer;
use crate::cuda::layer::LayerStep;
use crate::cuda::step_graph::StepGraphError;
use crate::cuda::{SharedLayer, SharedMatrix};
use crate::{Element, ForwardOptions};

/// The matrices of one layer of a [`SharedStep`](super::SharedStep), and its options.
#[derive(Clone, Debug)]
pub struct SharedPart<T: Element> {
    pub(super) x: SharedMatrix<T>,
    pub(super) y: Option<SharedMatrix<T>>,
    pub(super) gradients: Option<[SharedMatrix<T>; 2]>,
    pub(super) options: ForwardOptions,
}

impl<T: Element> SharedPart<T> {
    /// A layer that reads `x`, which is `[rows, hidden]`.
    pub fn new(x: &SharedMatrix<T>) -> Self {
        Self { x: x.clone(), y: None, gradients: None, options: ForwardOptions::new() }
    }

    /// Where the forward pass writes.
    #[must_use]
    pub fn y(mut self, y: &SharedMatrix<T>) -> Self {
        self.y = Some(y.clone());
        self
    }

    /// dL/dy, and where dL/dx goes.
    #[must_use]
    pub fn gradients(mut self, grad_y: &SharedMatrix<T>, grad_x: &SharedMatrix<T>) -> Self {
        self.gradients = Some([grad_y.clone(), grad_x.clone()]);
        self
    }

    /// Options of both passes. Probes keep the step from the grid.
    #[must_use]
    pub fn options(mut self, options: &ForwardOptions) -> Self {
        self.options = options.clone();
        self
    }
}

impl<T: Element> SharedPart<T> {
    pub(super) fn matrices(&self) -> impl Iterator<Item = &SharedMatrix<T>> {
        std::iter::once(&self.x).chain(&self.y).chain(self.gradients.iter().flatten())
    }

    pub(super) fn as_layer_step(&self) -> Result<LayerStep<'_, T>, CudaError> {
        let view = SharedMatrix::as_ref;
        Ok(LayerStep {
            x: Some(self.x.as_ref()?),
            y: self.y.as_ref().map(view).transpose()?,
            grad_y: self.gradients.as_ref().map(|[grad_y, _]| view(grad_y)).transpose()?,
            grad_x: self.gradients.as_ref().map(|[_, grad_x]| view(grad_x)).transpose()?,
            options: self.options.clone(),
        })
    }

    pub(super) fn forward(&self, layer: &mut CudaLayer) -> Result<(), CudaError> {
        let Some(y) = &self.y else { return Ok(()) };
        // SAFETY: nobody else borrows y here, and it does not overlap x.
        let mut y = unsafe { y.as_mut() }?;
        layer.forward(self.x.as_ref()?, &mut y, &self.options)
    }

    pub(super) fn backward(&self, layer: &mut CudaLayer) -> Result<(), CudaError> {
        let Some([grad_y, grad_x]) = &self.gradients else { return Ok(()) };
        // SAFETY: as above, of dL/dx.
        let mut grad_x = unsafe { grad_x.as_mut() }?;
        layer.backward(self.x.as_ref()?, grad_y.as_ref()?, &mut grad_x, &self.options)
    }
}

/// That the part has the matrices that its passes need, and that they fit and lie apart.
pub(super) fn check<T: Element>(
    index: usize,
    layer: &SharedLayer,
    part: &SharedPart<T>,
    (forward, backward): (bool, bool),
    rows: usize,
) -> Result<(), CudaError> {
    let missing = |what| Err(StepGraphError::Missing { what, layer: index }.into());
    if forward && part.y.is_none() {
        return missing("y");
    }
    if backward && part.gradients.is_none() {
        return missing("grad_y and grad_x");
    }
    let needed = (rows, layer.lock().layout().hidden());
    let [grad_y, grad_x] =
        part.gradients.as_ref().map_or([None, None], |[a, b]| [Some(a), Some(b)]);
    for (what, matrix) in
        [("x", Some(&part.x)), ("y", part.y.as_ref()), ("grad_y", grad_y), ("grad_x", grad_x)]
    {
        if let Some(found) = matrix.map(SharedMatrix::shape).filter(|found| *found != needed) {
            return Err(CudaError::Shape { what, found, needed });
        }
    }
    let reads_and_writes = [
        ("x", Some(&part.x), "y", part.y.as_ref()),
        ("x", Some(&part.x), "grad_x", grad_x),
        ("grad_y", grad_y, "grad_x", grad_x),
    ];
    for (read, from, written, to) in reads_and_writes {
        if from.zip(to).is_some_and(|(from, to)| from.overlaps(to)) {
            return Err(StepGraphError::Overlap { layer: index, read, written }.into());
        }
    }
    Ok(())
}
