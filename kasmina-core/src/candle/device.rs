//! Passes on a GPU between tensors of the host: the layer goes there and comes back with every pass.
//!
//! The host's layer stays the one that everything else sees, so a pass costs the copies of the layer's whole state. That is
//! for networks whose other parts are on the CPU; a network on the GPU takes [`CudaLayer`] itself.

use std::fmt;
use std::sync::Arc;

use kasmina_sys::{DeviceBuffer, Stream};

use crate::cuda::{CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Engine, runs_user_blueprint};
use crate::{Element, ForwardOptions, Layer, MatRef};

/// How many passes ran where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DevicePasses {
    /// On the device.
    pub on_device: u64,
    /// On the CPU, because a user-defined blueprint ran.
    pub on_cpu: u64,
}

impl std::ops::AddAssign for DevicePasses {
    fn add_assign(&mut self, other: Self) {
        self.on_device += other.on_device;
        self.on_cpu += other.on_cpu;
    }
}

/// A module's place on a GPU.
pub(super) struct OnDevice {
    engine: Arc<Engine>,
    stream: Stream,
    layer: Option<CudaLayer>,
    pub(super) passes: DevicePasses,
}

impl OnDevice {
    pub(super) fn new(engine: &Arc<Engine>) -> Result<Self, CudaError> {
        let stream = Stream::new(engine.context())?;
        let engine = Arc::clone(engine);
        Ok(Self { engine, stream, layer: None, passes: DevicePasses::default() })
    }

    /// The forward pass of `layer`, whose state is then that after it. `false`, with nothing done, where a user-defined
    /// blueprint would run.
    pub(super) fn forward<T: Element>(
        &mut self,
        layer: &mut Layer,
        x: MatRef<'_, T>,
        y: &mut [T],
        options: &ForwardOptions,
    ) -> Result<bool, CudaError> {
        if self.is_the_cpus(layer, options) {
            return Ok(false);
        }
        let (rows, hidden) = (x.rows(), layer.layout().hidden());
        let x = self.upload(x)?;
        let mut on_y = DeviceBuffer::<T>::unwritten(&self.stream, y.len())?;
        self.run(layer, |layer| {
            let x = DeviceMatRef::new(x.as_slice(), rows, hidden, hidden)?;
            let mut y = DeviceMatMut::new(on_y.as_mut_slice(), rows, hidden, hidden)?;
            layer.forward(x, &mut y, options)
        })?;
        on_y.copy_to_host(y)?;
        Ok(true)
    }

    /// The backward pass, as [`OnDevice::forward`].
    pub(super) fn backward<T: Element>(
        &mut self,
        layer: &mut Layer,
        x: MatRef<'_, T>,
        grad_y: MatRef<'_, T>,
        grad_x: &mut [T],
        options: &ForwardOptions,
    ) -> Result<bool, CudaError> {
        if self.is_the_cpus(layer, options) {
            return Ok(false);
        }
        let (rows, hidden) = (x.rows(), layer.layout().hidden());
        let (x, grad_y) = (self.upload(x)?, self.upload(grad_y)?);
        let mut on_grad_x = DeviceBuffer::<T>::unwritten(&self.stream, grad_x.len())?;
        self.run(layer, |layer| {
            let x = DeviceMatRef::new(x.as_slice(), rows, hidden, hidden)?;
            let grad_y = DeviceMatRef::new(grad_y.as_slice(), rows, hidden, hidden)?;
            let mut grad_x = DeviceMatMut::new(on_grad_x.as_mut_slice(), rows, hidden, hidden)?;
            layer.backward(x, grad_y, &mut grad_x, options)
        })?;
        on_grad_x.copy_to_host(grad_x)?;
        Ok(true)
    }

    /// Whether a user-defined blueprint would run in the pass. Asked first: the copies would be for nothing.
    fn is_the_cpus(&mut self, layer: &Layer, options: &ForwardOptions) -> bool {
        let is = runs_user_blueprint(layer.lifecycle(), options);
        self.passes.on_cpu += u64::from(is);
        is
    }

    /// Takes the layer there, runs `pass`, and takes it back.
    fn run(
        &mut self,
        layer: &mut Layer,
        pass: impl FnOnce(&mut CudaLayer) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let there = match &mut self.layer {
            // Another layout means that the caller has put another layer in this one's place.
            Some(there) if there.layout() == layer.layout() => {
                there.replace(layer)?;
                there
            }
            _ => self.layer.insert(CudaLayer::from_layer(layer, &self.engine, &self.stream)?),
        };
        pass(there)?;
        *layer = there.to_layer()?;
        self.passes.on_device += 1;
        Ok(())
    }

    fn upload<T: Element>(&self, matrix: MatRef<'_, T>) -> Result<DeviceBuffer<T>, CudaError> {
        let dense: Vec<T> =
            (0..matrix.rows()).flat_map(|row| matrix.row(row).iter().copied()).collect();
        Ok(DeviceBuffer::from_host(&self.stream, &dense)?)
    }
}

impl fmt::Debug for OnDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDevice").field("passes", &self.passes).finish_non_exhaustive()
    }
}
