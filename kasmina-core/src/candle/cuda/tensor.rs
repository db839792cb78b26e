//! CUDA tensors as the layer's matrices, where they lie.

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr};
use candle_core::{CudaStorage, DType, Device, Shape, Storage, Tensor};
use half::{bf16, f16};
use kasmina_sys::{DeviceSlice, DeviceSliceMut, Stream};

use super::super::tensor::{check_shape, dispatch, row_stride, rowwise};
use super::super::{CandleError, CandleResult};
use crate::cuda::{CudaLayer, DeviceMatMut, DeviceMatRef};
use crate::{Element, ForwardOptions};

/// A pass's result.
pub(super) type Result1 = (CudaStorage, Shape);

/// The layer's forward pass on a tensor of its device.
pub(super) fn forward(
    layer: &mut CudaLayer,
    device: &Device,
    x: &Tensor,
    options: &ForwardOptions,
) -> CandleResult<Result1> {
    dispatch!("x", x, T => with_rows::<T, _>("x", x, layer, |rows, layer| {
        let y = with_new::<T>(layer, device, rows.shape().0, |y, layer| {
            Ok(layer.forward(rows, y, options)?)
        })?;
        Ok((y, x.shape().clone()))
    }))
}

/// Counts statistics of a tensor that is its own result; `false` where it is not.
pub(super) fn observe(
    layer: &mut CudaLayer,
    x: &Tensor,
    options: &ForwardOptions,
) -> CandleResult<bool> {
    dispatch!("x", x, T => with_rows::<T, _>("x", x, layer, |rows, layer| {
        Ok(layer.observe(rows, options)?)
    }))
}

/// The layer's backward pass on tensors. Parameter gradients are left with the layer.
pub(super) fn backward(
    layer: &mut CudaLayer,
    device: &Device,
    x: &Tensor,
    grad_y: &Tensor,
    options: &ForwardOptions,
) -> CandleResult<Tensor> {
    if layer.backward_is_idle(options)? {
        return Ok(grad_y.clone());
    }
    let grad_y = rowwise(grad_y)?;
    check_shape("grad_y", &grad_y, layer.layout().hidden())?;
    dispatch!("x", x, T => with_rows::<T, _>("x", x, layer, |x_rows, layer| {
        with_rows::<T, _>("grad_y", &grad_y, layer, |grad_rows, layer| {
            let grad_x = with_new::<T>(layer, device, x_rows.shape().0, |grad_x, layer| {
                Ok(layer.backward(x_rows, grad_rows, grad_x, options)?)
            })?;
            Ok(tensor_of(grad_x, x.shape().clone()))
        })
    }))
}

/// A tensor outside every graph.
pub(super) fn tensor_of(storage: CudaStorage, shape: Shape) -> Tensor {
    let none = candle_core::op::BackpropOp::none();
    Tensor::from_storage(Storage::Cuda(storage), shape, none, false)
}

/// A new contiguous storage of `len` elements that `write` is queued to write all of.
pub(super) fn new_storage<T: Element + CudaDType + DeviceRepr>(
    device: &Device,
    stream: &Stream,
    len: usize,
    write: impl FnOnce(DeviceSliceMut<'_, T>) -> CandleResult<()>,
) -> CandleResult<CudaStorage> {
    let cuda = device.as_cuda_device()?;
    // SAFETY: every element is written before it is read. Of no elements there is one all the same: the driver refuses nothing.
    let mut slice: CudaSlice<T> = unsafe { cuda.alloc(len.max(1)) }?;
    {
        let theirs = cuda.cuda_stream();
        // Records candle's event of the write when it goes, which is after the work is queued.
        let (address, _written) = slice.device_ptr_mut(&theirs);
        // SAFETY: new memory of so many elements, valid in candle's stream, which is `stream`; whatever frees it is queued there.
        write(unsafe { DeviceSliceMut::from_raw(stream, address, len) }.map_err(cuda_error)?)?;
    }
    Ok(CudaStorage::wrap_cuda_slice(slice, cuda.clone()))
}

/// Runs `f` on the elements of a contiguous f32 tensor, flat.
pub(super) fn with_flat<R>(
    stream: &Stream,
    x: &Tensor,
    f: impl FnOnce(DeviceSlice<'_, f32>) -> CandleResult<R>,
) -> CandleResult<R> {
    let (storage, layout) = x.storage_and_layout();
    let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
    else {
        return Err(CandleError::DType { what: "a seed's parameters", found: x.dtype() });
    };
    let slice = storage.as_cuda_slice::<f32>()?;
    let theirs = storage.device.cuda_stream();
    let (address, _read) = slice.device_ptr(&theirs);
    // SAFETY: the storage is borrowed until the work is queued, and is written and freed in candle's stream, which is `stream`.
    let all = unsafe { DeviceSlice::from_raw(stream, address, slice.len()) };
    f(all.and_then(|all| all.slice(start..end)).map_err(cuda_error)?)
}

pub(super) fn cuda_error(error: kasmina_sys::Error) -> CandleError {
    CandleError::Cuda(error.into())
}

/// Runs `f` on the rows of a tensor that `rowwise` has passed and whose device is the layer's.
fn with_rows<T: Element + CudaDType + DeviceRepr, R>(
    what: &'static str,
    x: &Tensor,
    layer: &mut CudaLayer,
    f: impl FnOnce(DeviceMatRef<'_, T>, &mut CudaLayer) -> CandleResult<R>,
) -> CandleResult<R> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err(CandleError::DType { what, found: x.dtype() });
    };
    let hidden = layer.layout().hidden();
    let slice = storage.as_cuda_slice::<T>()?;
    let (rows, stride) = (x.elem_count() / hidden, row_stride(layout).unwrap_or(hidden));
    let (stream, theirs) = (layer.stream().clone(), storage.device.cuda_stream());
    let (address, _read) = slice.device_ptr(&theirs);
    // SAFETY: the storage is borrowed until the work is queued, and is written and freed in candle's stream, which is the layer's.
    let all =
        unsafe { DeviceSlice::from_raw(&stream, address, slice.len()) }.map_err(cuda_error)?;
    let there = all.slice(layout.start_offset()..).map_err(cuda_error)?;
    f(DeviceMatRef::new(there, rows, hidden, stride)?, layer)
}

/// A new `[rows, hidden]` storage, written by `write`.
fn with_new<T: Element + CudaDType + DeviceRepr>(
    layer: &mut CudaLayer,
    device: &Device,
    rows: usize,
    write: impl FnOnce(&mut DeviceMatMut<'_, T>, &mut CudaLayer) -> CandleResult<()>,
) -> CandleResult<CudaStorage> {
    let (hidden, stream) = (layer.layout().hidden(), layer.stream().clone());
    new_storage::<T>(device, &stream, rows * hidden, |slice| {
        write(&mut DeviceMatMut::new(slice, rows, hidden, hidden)?, layer)
    })
}
