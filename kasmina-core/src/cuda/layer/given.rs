//! What a step gives a layer: its matrices, and which parts of a training step they are for.

use crate::cuda::matrix::{DeviceMatMut, DeviceMatRef};
use crate::{AdamW, Element, ForwardOptions};

/// The matrices of one layer, as its plain calls take them, and their options.
#[derive(Debug)]
pub struct LayerStep<'a, T: Element> {
    pub(in crate::cuda) x: Option<DeviceMatRef<'a, T>>,
    /// Written: whoever made this holds it exclusively for as long.
    pub(in crate::cuda) y: Option<DeviceMatRef<'a, T>>,
    pub(in crate::cuda) grad_y: Option<DeviceMatRef<'a, T>>,
    /// Written, as y.
    pub(in crate::cuda) grad_x: Option<DeviceMatRef<'a, T>>,
    pub(in crate::cuda) options: ForwardOptions,
}

impl<'a, T: Element> LayerStep<'a, T> {
    /// A layer that reads `x`.
    pub fn new(x: DeviceMatRef<'a, T>) -> Self {
        let options = ForwardOptions::new();
        Self { x: Some(x), y: None, grad_y: None, grad_x: None, options }
    }

    /// Where the forward pass writes.
    #[must_use]
    pub fn y(mut self, y: &'a mut DeviceMatMut<'_, T>) -> Self {
        self.y = Some((*y).as_ref());
        self
    }

    /// dL/dy, and where dL/dx goes.
    #[must_use]
    pub fn gradients(
        mut self,
        grad_y: DeviceMatRef<'a, T>,
        grad_x: &'a mut DeviceMatMut<'_, T>,
    ) -> Self {
        self.grad_y = Some(grad_y);
        self.grad_x = Some((*grad_x).as_ref());
        self
    }

    /// Options of both passes, such as probes.
    #[must_use]
    pub fn options(mut self, options: ForwardOptions) -> Self {
        self.options = options;
        self
    }
}

/// The parts of a training step that are replayed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cuda) struct Phases {
    pub(in crate::cuda) forward: bool,
    pub(in crate::cuda) backward: bool,
    pub(in crate::cuda) optimizer: Option<AdamW>,
    pub(in crate::cuda) advance: bool,
}
