//! The one device: its name, what it can do, and its limits, which are an H200's but for the number of multiprocessors.

use std::ffi::{c_char, c_int, c_uint};
use std::sync::atomic::{AtomicBool, Ordering};

use kasmina_sys::CUresult;
use kasmina_sys::raw::{CUdevice, CUdevice_attribute as Attribute, CUuuid};

use super::settings::settings;
use super::{Outcome, answer, give};

/// The version of the driver interface, which is that of the bindings.
pub(crate) const DRIVER_VERSION: c_int = kasmina_sys::raw::CUDA_VERSION as c_int;
const NAME: &[u8] = b"Kasmina simulator";

/// Few, so that grids of one wave are small.
pub(crate) const MULTIPROCESSORS: u32 = 4;
pub(crate) const WARP: u32 = 32;
pub(crate) const MAX_THREADS: u32 = 1024;
pub(crate) const THREADS_PER_MULTIPROCESSOR: u32 = 2048;
pub(crate) const BLOCKS_PER_MULTIPROCESSOR: u32 = 32;
pub(crate) const REGISTERS: u32 = 65_536;
/// Shared memory of a block without asking.
pub(crate) const SHARED_DEFAULT: u32 = 48 << 10;
/// What the system keeps of a multiprocessor's shared memory for each block.
pub(crate) const SHARED_RESERVED: u32 = 1 << 10;
pub(crate) const GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
pub(crate) const BLOCK: [u32; 3] = [1024, 1024, 64];

static STARTED: AtomicBool = AtomicBool::new(false);

/// Major and minor compute capability.
pub(crate) fn capability() -> (u32, u32) {
    settings().map_or((9, 0), |settings| settings.capability)
}

/// Whether the device is of Hopper's kind: clusters, tensor maps, programmatic launches.
pub(crate) fn is_hopper() -> bool {
    capability().0 >= 9
}

/// Shared memory of a multiprocessor.
pub(crate) fn shared_per_multiprocessor() -> u32 {
    if is_hopper() { 228 << 10 } else { 164 << 10 }
}

/// The most shared memory that a block can be allowed.
pub(crate) fn shared_per_block() -> u32 {
    shared_per_multiprocessor() - SHARED_RESERVED
}

/// Refuses devices but the one, and all before the driver was started.
pub(crate) fn known(device: CUdevice) -> Outcome {
    if !STARTED.load(Ordering::Acquire) {
        return Err(CUresult::NOT_INITIALIZED);
    }
    if device == 0 { Ok(()) } else { Err(CUresult::INVALID_DEVICE) }
}

pub(crate) unsafe extern "C" fn init(flags: c_uint) -> CUresult {
    answer(|| {
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        settings().map_err(|_| CUresult::INVALID_VALUE)?;
        STARTED.store(true, Ordering::Release);
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn version(version: *mut c_int) -> CUresult {
    // SAFETY: the caller's place for an integer.
    answer(|| unsafe { give(version, DRIVER_VERSION) })
}

pub(crate) unsafe extern "C" fn count(count: *mut c_int) -> CUresult {
    answer(|| {
        known(0)?;
        // SAFETY: the caller's place for an integer.
        unsafe { give(count, 1) }
    })
}

pub(crate) unsafe extern "C" fn get(device: *mut CUdevice, ordinal: c_int) -> CUresult {
    answer(|| {
        known(ordinal)?;
        // SAFETY: the caller's place for a device.
        unsafe { give(device, ordinal) }
    })
}

pub(crate) unsafe extern "C" fn name(to: *mut c_char, length: c_int, device: CUdevice) -> CUresult {
    answer(|| {
        known(device)?;
        let room = usize::try_from(length).ok().filter(|room| *room > 0 && !to.is_null());
        let room = room.ok_or(CUresult::INVALID_VALUE)?;
        let text = &NAME[..NAME.len().min(room - 1)];
        // SAFETY: the caller has `room` bytes there, and the text and its end fit into them.
        unsafe {
            to.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
            to.add(text.len()).write(0);
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn uuid(to: *mut CUuuid, device: CUdevice) -> CUresult {
    answer(|| {
        known(device)?;
        let bytes = b"kasmina-simulate".map(|byte| byte as c_char);
        // SAFETY: the caller's place for an identifier.
        unsafe { give(to, CUuuid { bytes }) }
    })
}

pub(crate) unsafe extern "C" fn total_memory(bytes: *mut usize, device: CUdevice) -> CUresult {
    answer(|| {
        known(device)?;
        let capacity = settings().map_err(|_| CUresult::INVALID_VALUE)?.capacity;
        // SAFETY: the caller's place for an integer.
        unsafe { give(bytes, capacity as usize) }
    })
}

pub(crate) unsafe extern "C" fn attribute(
    value: *mut c_int,
    attribute: Attribute,
    device: CUdevice,
) -> CUresult {
    answer(|| {
        known(device)?;
        let found = value_of(attribute).ok_or(CUresult::INVALID_VALUE)?;
        // SAFETY: the caller's place for an integer.
        unsafe { give(value, found) }
    })
}

/// What this device has of each attribute; nothing for those that nobody has needed yet.
fn value_of(attribute: Attribute) -> Option<c_int> {
    let hopper = u32::from(is_hopper());
    let value = match attribute {
        Attribute::MAX_THREADS_PER_BLOCK => MAX_THREADS,
        Attribute::MAX_BLOCK_DIM_X => BLOCK[0],
        Attribute::MAX_BLOCK_DIM_Y => BLOCK[1],
        Attribute::MAX_BLOCK_DIM_Z => BLOCK[2],
        Attribute::MAX_GRID_DIM_X => GRID[0],
        Attribute::MAX_GRID_DIM_Y => GRID[1],
        Attribute::MAX_GRID_DIM_Z => GRID[2],
        Attribute::MAX_SHARED_MEMORY_PER_BLOCK => SHARED_DEFAULT,
        Attribute::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN => shared_per_block(),
        Attribute::MAX_SHARED_MEMORY_PER_MULTIPROCESSOR => shared_per_multiprocessor(),
        Attribute::RESERVED_SHARED_MEMORY_PER_BLOCK => SHARED_RESERVED,
        Attribute::TOTAL_CONSTANT_MEMORY => 64 << 10,
        Attribute::WARP_SIZE => WARP,
        Attribute::MAX_REGISTERS_PER_BLOCK | Attribute::MAX_REGISTERS_PER_MULTIPROCESSOR => {
            REGISTERS
        }
        Attribute::CLOCK_RATE => 1_000_000,
        Attribute::MEMORY_CLOCK_RATE => 1_000_000,
        Attribute::GLOBAL_MEMORY_BUS_WIDTH => 64,
        Attribute::MULTIPROCESSOR_COUNT => MULTIPROCESSORS,
        Attribute::L2_CACHE_SIZE => 1 << 20,
        Attribute::MAX_THREADS_PER_MULTIPROCESSOR => THREADS_PER_MULTIPROCESSOR,
        Attribute::MAX_BLOCKS_PER_MULTIPROCESSOR => BLOCKS_PER_MULTIPROCESSOR,
        Attribute::COMPUTE_CAPABILITY_MAJOR => capability().0,
        Attribute::COMPUTE_CAPABILITY_MINOR => capability().1,
        Attribute::UNIFIED_ADDRESSING
        | Attribute::CONCURRENT_KERNELS
        | Attribute::CAN_MAP_HOST_MEMORY
        | Attribute::COOPERATIVE_LAUNCH
        | Attribute::MEMORY_POOLS_SUPPORTED => 1,
        Attribute::CLUSTER_LAUNCH | Attribute::TENSOR_MAP_ACCESS_SUPPORTED => hopper,
        _ => return None,
    };
    c_int::try_from(value).ok()
}
