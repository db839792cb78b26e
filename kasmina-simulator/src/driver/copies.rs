//! Copies and fills as a program asks for them.
//!
//! Page-locked memory is read and written when the stream comes to the copy. Other memory of the host behaves as the driver documents
//! it: it is read before the call returns, and a copy to it is done before the call returns.

use std::ffi::{c_uchar, c_uint, c_void};
use std::sync::Arc;

use kasmina_sys::CUresult;
use kasmina_sys::raw::{CUDA_MEMCPY3D_v2, CUdeviceptr, CUmemorytype, CUstream};

use super::memory::{Kind, Memory, must_be_given};
use super::streams::submit;
use super::work::{Copy, Fill, Place, Work};
use super::{answer, context};

/// Whether this memory of the host is page-locked.
fn is_pinned(memory: &Memory, address: usize, bytes: usize) -> bool {
    matches!(memory.given_around(address as u64, bytes), Some(Kind::Pinned))
}

pub(crate) unsafe extern "C" fn to_device(
    to: CUdeviceptr,
    from: *const c_void,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let stream = context.streams.get(stream)?;
        if bytes == 0 {
            return Ok(());
        }
        must_be_given(&context.memory, to, bytes)?;
        if from.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        let address = from.expose_provenance();
        let from = if is_pinned(&context.memory, address, bytes) {
            Place::Known(address as u64)
        } else if stream.joined.lock().is_some() {
            // A node reads it at each launch of the graph.
            Place::Host(address)
        } else {
            // SAFETY: the caller has so many bytes there.
            Place::Staged(Arc::new(
                unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) }.to_vec(),
            ))
        };
        submit(&stream, Work::Copy(Copy { to: Place::Known(to), from, bytes }))
    })
}

pub(crate) unsafe extern "C" fn to_host(
    to: *mut c_void,
    from: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let stream = context.streams.get(stream)?;
        if bytes == 0 {
            return Ok(());
        }
        must_be_given(&context.memory, from, bytes)?;
        if to.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        let address = to.expose_provenance();
        let pinned = is_pinned(&context.memory, address, bytes);
        let captured = stream.joined.lock().is_some();
        let to = if pinned { Place::Known(address as u64) } else { Place::Host(address) };
        submit(&stream, Work::Copy(Copy { to, from: Place::Known(from), bytes }))?;
        if pinned || captured {
            return Ok(());
        }
        stream.wait()?;
        context.alive()
    })
}

pub(crate) unsafe extern "C" fn on_device(
    to: CUdeviceptr,
    from: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let stream = context.streams.get(stream)?;
        if bytes == 0 {
            return Ok(());
        }
        must_be_given(&context.memory, to, bytes)?;
        must_be_given(&context.memory, from, bytes)?;
        submit(&stream, Work::Copy(Copy { to: Place::Known(to), from: Place::Known(from), bytes }))
    })
}

/// The copy of a graph's node: from the device to the device, in one row.
///
/// # Safety
/// Null or the caller's parameters.
pub(crate) unsafe fn of_node(parameters: *const CUDA_MEMCPY3D_v2) -> Result<Copy, CUresult> {
    // SAFETY: by the caller's word.
    let node = unsafe { parameters.as_ref() }.ok_or(CUresult::INVALID_VALUE)?;
    let device = CUmemorytype::CU_MEMORYTYPE_DEVICE;
    let offsets = [node.srcXInBytes, node.srcY, node.srcZ, node.dstXInBytes, node.dstY, node.dstZ];
    let is_row = (node.Height, node.Depth) == (1, 1) && offsets == [0; 6] && node.WidthInBytes > 0;
    if !is_row {
        return Err(CUresult::INVALID_VALUE);
    }
    if (node.srcMemoryType, node.dstMemoryType) != (device, device) {
        return Err(CUresult::NOT_SUPPORTED);
    }
    let memory = &context::the().memory;
    must_be_given(memory, node.dstDevice, node.WidthInBytes)?;
    must_be_given(memory, node.srcDevice, node.WidthInBytes)?;
    Ok(Copy {
        to: Place::Known(node.dstDevice),
        from: Place::Known(node.srcDevice),
        bytes: node.WidthInBytes,
    })
}

fn fill(to: CUdeviceptr, value: [u8; 4], width: usize, count: usize, stream: CUstream) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let stream = context.streams.get(stream)?;
        let bytes = count.checked_mul(width).ok_or(CUresult::INVALID_VALUE)?;
        if bytes == 0 {
            return Ok(());
        }
        if !to.is_multiple_of(width as u64) {
            return Err(CUresult::INVALID_VALUE);
        }
        must_be_given(&context.memory, to, bytes)?;
        submit(&stream, Work::Fill(Fill { to, value, width, bytes }))
    })
}

pub(crate) unsafe extern "C" fn fill8(
    to: CUdeviceptr,
    value: c_uchar,
    count: usize,
    stream: CUstream,
) -> CUresult {
    fill(to, [value; 4], 1, count, stream)
}

pub(crate) unsafe extern "C" fn fill32(
    to: CUdeviceptr,
    value: c_uint,
    count: usize,
    stream: CUstream,
) -> CUresult {
    fill(to, value.to_ne_bytes(), 4, count, stream)
}
