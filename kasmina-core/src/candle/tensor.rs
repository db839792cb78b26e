//! Tensors as the layer's matrices: any `[…, hidden]` whose rows lie at a uniform distance.

use candle_core::{
    CpuStorage, DType, Device, DeviceLocation, Layout, Shape, Storage, Tensor, WithDType,
};
use half::{bf16, f16};

use super::device::OnDevice;
use super::{CandleError, CandleResult};
use crate::{Element, ForwardOptions, Layer, MatMut, MatRef};

/// Runs `$body` with `$type` standing for the element type of `$tensor`; other types are an error.
macro_rules! dispatch {
    ($what:expr, $tensor:expr, $type:ident => $body:expr) => {
        match $tensor.dtype() {
            DType::F32 => {
                type $type = f32;
                $body
            }
            DType::F16 => {
                type $type = f16;
                $body
            }
            DType::BF16 => {
                type $type = bf16;
                $body
            }
            found => Err(CandleError::DType { what: $what, found }),
        }
    };
}

#[cfg(feature = "candle-cuda")]
pub(super) use dispatch;

/// Storage types that are both candle's and the layer's.
trait Stored: Element + WithDType {
    /// The elements of a storage of this type.
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
}

macro_rules! stored {
    ($type:ty, $variant:ident) => {
        impl Stored for $type {
            fn slice(storage: &CpuStorage) -> Option<&[Self]> {
                match storage {
                    CpuStorage::$variant(values) => Some(values),
                    _ => None,
                }
            }
        }
    };
}

stored!(f32, F32);
stored!(f16, F16);
stored!(bf16, BF16);

/// `x` itself if its rows lie at a uniform distance, otherwise a contiguous copy that candle's graph
/// knows of.
pub(super) fn rowwise(x: &Tensor) -> CandleResult<Tensor> {
    Ok(if row_stride(x.layout()).is_some() { x.clone() } else { x.contiguous()? })
}

/// Elements from one row to the next, if the leading dimensions collapse to one; `None` otherwise.
pub(super) fn row_stride(layout: &Layout) -> Option<usize> {
    let (dims, strides) = (layout.dims(), layout.stride());
    let (&columns, leading) = dims.split_last()?;
    if columns > 1 && strides[leading.len()] != 1 {
        return None;
    }
    // From the innermost leading dimension outwards; dimensions of size 1 have no stride of their own.
    let mut row: Option<(usize, usize)> = None;
    for (&size, &stride) in leading.iter().zip(strides).rev().filter(|(size, _)| **size != 1) {
        match row {
            None => row = Some((stride, size)),
            Some((inner, rows)) if stride == inner * rows => row = Some((inner, rows * size)),
            Some(_) => return None,
        }
    }
    let stride = row.map_or(columns, |(stride, _)| stride);
    (stride >= columns).then_some(stride)
}

/// The layer's forward pass on a tensor.
pub(super) fn forward(
    layer: &mut Layer,
    device: Option<&mut OnDevice>,
    x: &Tensor,
    options: &ForwardOptions,
) -> CandleResult<(CpuStorage, Shape)> {
    let hidden = layer.layout().hidden();
    check_shape("x", x, hidden)?;
    dispatch!("x", x, T => with_rows::<T, _>("x", x, hidden, |rows| {
        let mut y = vec![T::from_f32(0.0); rows.rows() * hidden];
        let there = device.map(|device| device.forward(layer, rows, &mut y, options)).transpose()?;
        if there != Some(true) {
            layer.forward(rows, MatMut::contiguous(&mut y, hidden)?, options)?;
        }
        Ok((T::to_cpu_storage_owned(y), x.shape().clone()))
    }))
}

/// The layer's backward pass on tensors: dL/dx for the `x` of a forward pass and dL/dy. Parameter
/// gradients are left with the layer.
pub(super) fn backward(
    layer: &mut Layer,
    device: Option<&mut OnDevice>,
    x: &Tensor,
    grad_y: &Tensor,
    options: &ForwardOptions,
) -> CandleResult<Tensor> {
    let hidden = layer.layout().hidden();
    let grad_y = rowwise(grad_y)?;
    check_shape("grad_y", &grad_y, hidden)?;
    dispatch!("x", x, T => with_rows::<T, _>("x", x, hidden, |rows| {
        with_rows::<T, _>("grad_y", &grad_y, hidden, |grad_rows| {
            let mut grad_x = vec![T::from_f32(0.0); rows.rows() * hidden];
            let there = device
                .map(|device| device.backward(layer, rows, grad_rows, &mut grad_x, options))
                .transpose()?;
            if there != Some(true) {
                let matrix = MatMut::contiguous(&mut grad_x, hidden)?;
                layer.backward(rows, grad_rows, matrix, options)?;
            }
            Ok(Tensor::from_vec(grad_x, x.dims(), &Device::Cpu)?)
        })
    }))
}

pub(super) fn check_shape(what: &'static str, x: &Tensor, hidden: usize) -> CandleResult<()> {
    match x.dims().last() {
        None => Err(CandleError::Scalar { what, hidden }),
        Some(&last) if last == hidden => Ok(()),
        Some(_) => Err(CandleError::Width { what, shape: x.dims().to_vec(), hidden }),
    }
}

/// Runs `f` on the rows of a tensor that [`rowwise`] has passed.
fn with_rows<T: Stored, R>(
    what: &'static str,
    x: &Tensor,
    hidden: usize,
    f: impl FnOnce(MatRef<'_, T>) -> CandleResult<R>,
) -> CandleResult<R> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        let found = match x.device().location() {
            DeviceLocation::Cpu => "the CPU",
            DeviceLocation::Cuda { .. } => "a CUDA device",
            DeviceLocation::Metal { .. } => "a Metal device",
        };
        return Err(CandleError::Device { what, found });
    };
    let values = T::slice(storage).ok_or(CandleError::DType { what, found: x.dtype() })?;
    let stride = row_stride(layout).unwrap_or(hidden);
    let rows = x.elem_count() / hidden;
    f(MatRef::new(&values[layout.start_offset()..], rows, hidden, stride)?)
}
