//! A stack's layers one launch each with the stack's cut: what a launch over all of them is compared with, by tests bit for bit and by
//! benchmarks in time.

use kasmina_sys::{ByValue, LaunchConfig};
use kasmina_tma::LoadPath;

use super::cut::Shape;
use super::{LayerStack, StackError, options_of};
use crate::cuda::backward::PlainBackward;
use crate::cuda::engine::ForwardKernel;
use crate::cuda::error::CudaError;
use crate::cuda::job::BackwardViews;
use crate::cuda::layer::CudaLayer;
use crate::cuda::matrix::DeviceMatMut;
use crate::cuda::variants::{BackwardVariant, Counting, ForwardVariant, StackPass, backward_image};
use crate::{Element, ForwardOptions};

impl LayerStack {
    /// Layer i from matrix i to matrix i + 1, all on the stack's stream, by kernels of their own with the cut that a launch over all of them
    /// would have. Doors for tests and benchmarks, without promises: rows begin at multiples of 16 bytes, and all layers could share a launch.
    ///
    /// # Errors
    /// As [`LayerStack::forward`].
    #[doc(hidden)]
    pub fn forward_apart<T: Element>(
        &mut self,
        layers: &mut [&mut CudaLayer],
        matrices: &mut [DeviceMatMut<'_, T>],
        options: &[ForwardOptions],
    ) -> Result<(), CudaError> {
        self.check(layers, options)?;
        for (i, layer) in layers.iter_mut().enumerate() {
            layer.ready_stacked(false, options_of(options, i))?;
        }
        let all = |matrix: &DeviceMatMut<'_, T>| matrix.as_ref().view();
        let Some(view) = matrices.first().map(all) else { return Err(StackError::Empty.into()) };
        let mut counting = Counting::Off;
        for (i, layer) in layers.iter().enumerate() {
            if let Ok(own @ (Counting::Packet | Counting::Column)) =
                layer.fits_forward(T::DTYPE, options_of(options, i))
            {
                counting = own;
            }
        }
        let dtype = T::DTYPE;
        let shape = Shape::new(StackPass::Forward, view, layers, dtype, counting);
        let cut = self.cut_for(&shape, layers.len());
        for (i, layer) in layers.iter_mut().enumerate() {
            let geometry = shape.geometry(cut, layer.layout(), self.engine.multiprocessors());
            let own = layer.fits_forward(dtype, options_of(options, i)).unwrap_or(Counting::Off);
            let (x, y) = (all(&matrices[i]), all(&matrices[i + 1]));
            let variant =
                ForwardVariant { dtype, path: LoadPath::CpAsync, counting: own, computes: true };
            let params = layer.apart_forward(variant, geometry, (x, y), options_of(options, i))?;
            let ForwardKernel::Plain(kernel) = self.engine.forward(variant)? else {
                return Err(CudaError::NoImage);
            };
            let config = LaunchConfig::new(geometry.blocks(), variant.threads())
                .shared_bytes(variant.shared_bytes(&geometry));
            // SAFETY: the parameters are the kernel's; the matrices are borrowed, and belong to this stream or to idle ones.
            unsafe { kernel.launch(&self.stream, &config, (ByValue(params),)) }?;
        }
        Ok(())
    }

    /// The same of a backward pass: `inputs[i]` is what layer i was given, and its gradient goes from `gradients[i + 1]` to `gradients[i]`.
    ///
    /// # Errors
    /// As [`LayerStack::backward`].
    #[doc(hidden)]
    pub fn backward_apart<T: Element>(
        &mut self,
        layers: &mut [&mut CudaLayer],
        inputs: &[DeviceMatMut<'_, T>],
        gradients: &mut [DeviceMatMut<'_, T>],
        options: &[ForwardOptions],
    ) -> Result<(), CudaError> {
        self.check(layers, options)?;
        for (i, layer) in layers.iter_mut().enumerate() {
            layer.ready_stacked(false, options_of(options, i))?;
        }
        let view = |matrix: &DeviceMatMut<'_, T>| matrix.as_ref().view();
        let Some(first) = inputs.first().map(view) else { return Err(StackError::Empty.into()) };
        let dtype = T::DTYPE;
        let own = |i: usize, layer: &CudaLayer| layer.fits_backward(dtype, options_of(options, i));
        let counting = layers
            .iter()
            .enumerate()
            .filter_map(|(i, layer)| own(i, layer).ok())
            .find(|own| *own != Counting::Off)
            .unwrap_or(Counting::Off);
        let shape = Shape::new(StackPass::Backward, first, layers, dtype, counting);
        let cut = self.cut_for(&shape, layers.len());
        for (i, layer) in layers.iter_mut().enumerate().rev() {
            let geometry = shape.geometry(cut, layer.layout(), self.engine.multiprocessors());
            let own = own(i, layer).unwrap_or(Counting::Off);
            let gradients = Some((view(&gradients[i + 1]), view(&gradients[i])));
            let views = BackwardViews { x: view(&inputs[i]), gradients };
            let (params, _) =
                layer.stacked_backward(dtype, &views, geometry, options_of(options, i))?;
            let variant = BackwardVariant { dtype, path: LoadPath::CpAsync, counting: own };
            let (image, name) = (backward_image(dtype), variant.name());
            let kernel = self.engine.kernel::<PlainBackward>(&image, &name)?;
            let config = LaunchConfig::new(geometry.blocks(), variant.threads())
                .shared_bytes(variant.shared_bytes(&geometry));
            // SAFETY: as above.
            unsafe { kernel.launch(&self.stream, &config, (ByValue(params),)) }?;
            layer.finalize_alone(&views, geometry.groups)?;
            layer.note_backward_apart(first.rows as usize)?;
        }
        Ok(())
    }
}
