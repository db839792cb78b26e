//! Tensor maps: encoded by the driver, moved to another address, and found in the cache.

use std::hint::black_box;
use std::mem::MaybeUninit;

use cudarc::driver::sys as peer;
use kasmina_bench::host_nanoseconds;
use kasmina_gpu_test::{Body, Failed};
use kasmina_sys::{Context, Device, DeviceBuffer, Stream};
use kasmina_tma::{DataType, DescriptorCache, Geometry, TensorMap};

use super::row;

pub(crate) const BENCHES: &[(&str, Body)] = &[("tensor_maps", tensor_maps)];

const ROUNDS: usize = 1000;

fn tensor_maps(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let buffer = DeviceBuffer::<f32>::zeroed(&stream, 4096 * 4096)?;
    let geometry =
        Geometry::tiled(DataType::F32).sizes(&[4096, 2048]).box_sides(&[256, 32]).build()?;
    let requests = [geometry.at(buffer.address())?, geometry.at(buffer.address() + 16 * 4096)?];

    let encode = || -> Result<(), Failed> {
        for i in 0..ROUNDS {
            // SAFETY: no kernel is given the map.
            black_box(unsafe { TensorMap::encode(&context, &requests[i % 2]) }?);
        }
        Ok(())
    };
    row(device, "tensor map/encode/kasmina", "ns", &host_nanoseconds(ROUNDS, encode, nothing)?)?;
    // SAFETY: as above.
    let map = unsafe { TensorMap::encode(&context, &requests[0]) }?;
    let replace = || -> Result<(), Failed> {
        for i in 0..ROUNDS {
            // SAFETY: as above.
            black_box(unsafe { map.replace_address(&context, &requests[i % 2]) }?);
        }
        Ok(())
    };
    row(
        device,
        "tensor map/replace address/kasmina",
        "ns",
        &host_nanoseconds(ROUNDS, replace, nothing)?,
    )?;

    let cache = DescriptorCache::new();
    let hit = || -> Result<(), Failed> {
        for _ in 0..ROUNDS {
            black_box(cache.get(buffer.as_slice(), &geometry)?);
        }
        Ok(())
    };
    row(device, "tensor map/cache hit/kasmina", "ns", &host_nanoseconds(ROUNDS, hit, nothing)?)?;
    let build = || -> Result<(), Failed> {
        for _ in 0..ROUNDS {
            black_box(
                Geometry::tiled(DataType::F32)
                    .sizes(&[4096, 2048])
                    .box_sides(&[256, 32])
                    .build()?,
            );
        }
        Ok(())
    };
    row(
        device,
        "tensor map/check a geometry/kasmina",
        "ns",
        &host_nanoseconds(ROUNDS, build, nothing)?,
    )?;

    let theirs = || -> Result<(), Failed> {
        (0..ROUNDS).try_for_each(|i| encode_raw(requests[i % 2].address()))
    };
    row(
        device,
        "tensor map/encode, unchecked call/cudarc",
        "ns",
        &host_nanoseconds(ROUNDS, theirs, nothing)?,
    )
}

fn nothing() -> Result<(), Failed> {
    Ok(())
}

/// The bare call, which is what cudarc has for tensor maps.
fn encode_raw(address: u64) -> Result<(), Failed> {
    let mut map = MaybeUninit::<peer::CUtensorMap>::uninit();
    // SAFETY: all arrays are as long as the rank says, and no kernel is given the map.
    let code = unsafe {
        peer::cuTensorMapEncodeTiled(
            map.as_mut_ptr(),
            peer::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
            2,
            address as *mut _,
            [4096u64, 2048].as_ptr(),
            [4096u64 * 4].as_ptr(),
            [256u32, 32].as_ptr(),
            [1u32, 1].as_ptr(),
            peer::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            peer::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            peer::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            peer::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    black_box(&map);
    if code == peer::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(format!("{code:?}").into()) }
}
