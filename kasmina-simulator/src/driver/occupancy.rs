//! How many blocks of a kernel a multiprocessor holds: by threads, shared memory, registers and the number of blocks.

use std::ffi::{c_int, c_uint};

use kasmina_sys::CUresult;
use kasmina_sys::raw::{CUfunction, CUlaunchConfig, CUoccupancyB2DSize};

use super::{answer, context, device, give, launch};
use crate::machine::Kernel;

/// Registers are handed out to warps in such portions.
const REGISTER_UNIT: u32 = 256;
/// Shared memory is handed out to blocks in such portions.
const SHARED_UNIT: u32 = 128;

/// What a block takes of a multiprocessor.
#[derive(Clone, Copy)]
struct Needs {
    threads: u32,
    shared: u32,
    registers: u32,
}

/// Blocks of such needs that a multiprocessor with so much shared memory holds.
fn fit(needs: Needs, shared_memory: u32) -> u32 {
    if needs.threads == 0 || needs.threads > device::MAX_THREADS {
        return 0;
    }
    let warps = needs.threads.div_ceil(device::WARP);
    let shared = needs.shared.next_multiple_of(SHARED_UNIT).saturating_add(device::SHARED_RESERVED);
    let registers = (needs.registers.max(1) * device::WARP).next_multiple_of(REGISTER_UNIT) * warps;
    let by_threads = device::THREADS_PER_MULTIPROCESSOR / (warps * device::WARP);
    by_threads
        .min(shared_memory / shared)
        .min(device::REGISTERS / registers)
        .min(device::BLOCKS_PER_MULTIPROCESSOR)
}

/// Blocks of a kernel that a multiprocessor holds.
pub(crate) fn blocks(kernel: &Kernel, threads: u32, dynamic_shared: u32) -> u32 {
    if threads > kernel.max_threads {
        return 0;
    }
    let declared = u32::try_from(kernel.static_shared).unwrap_or(u32::MAX);
    let shared = declared.saturating_add(dynamic_shared);
    if shared > device::shared_per_block() {
        return 0;
    }
    fit(Needs { threads, shared, registers: kernel.registers }, device::shared_per_multiprocessor())
}

pub(crate) unsafe extern "C" fn max_blocks(
    count: *mut c_int,
    function: CUfunction,
    threads: c_int,
    dynamic_shared: usize,
    flags: c_uint,
) -> CUresult {
    answer(|| {
        let function = context::current()?.functions.get(function)?;
        let threads = u32::try_from(threads)
            .ok()
            .filter(|threads| *threads > 0)
            .ok_or(CUresult::INVALID_VALUE)?;
        if flags > 1 {
            return Err(CUresult::INVALID_VALUE);
        }
        let shared = u32::try_from(dynamic_shared).unwrap_or(u32::MAX);
        // SAFETY: the caller's place for an integer.
        unsafe { give(count, blocks(function.kernel(), threads, shared) as c_int) }
    })
}

pub(crate) unsafe extern "C" fn suggested_block(
    grid: *mut c_int,
    block: *mut c_int,
    function: CUfunction,
    shared_of: CUoccupancyB2DSize,
    dynamic_shared: usize,
    limit: c_int,
) -> CUresult {
    answer(|| {
        let function = context::current()?.functions.get(function)?;
        let most = function.kernel().max_threads;
        let limit = u32::try_from(limit)
            .ok()
            .filter(|limit| *limit > 0)
            .map_or(most, |limit| limit.min(most));
        // From the largest down: of sizes that hold as many threads the largest wins.
        let sizes =
            (1..=limit).rev().filter(|size| size.is_multiple_of(device::WARP) || *size == limit);
        let held = |size: u32| {
            let shared = match shared_of {
                // SAFETY: the caller's function, which takes any size of a block.
                Some(of) => unsafe { of(size as c_int) },
                None => dynamic_shared,
            };
            blocks(function.kernel(), size, u32::try_from(shared).unwrap_or(u32::MAX))
        };
        let best =
            sizes.map(|size| (size, held(size))).rev().max_by_key(|(size, held)| size * held);
        let (size, held) = best.filter(|(_, held)| *held > 0).ok_or(CUresult::INVALID_VALUE)?;
        // SAFETY: the caller's places for two integers.
        unsafe {
            give(grid, (held * device::MULTIPROCESSORS) as c_int)?;
            give(block, size as c_int)
        }
    })
}

pub(crate) unsafe extern "C" fn available_shared(
    bytes: *mut usize,
    function: CUfunction,
    count: c_int,
    threads: c_int,
) -> CUresult {
    answer(|| {
        let function = context::current()?.functions.get(function)?;
        let positive = |value: c_int| {
            u32::try_from(value).ok().filter(|value| *value > 0).ok_or(CUresult::INVALID_VALUE)
        };
        let (count, threads) = (positive(count)?, positive(threads)?);
        if blocks(function.kernel(), threads, 0) < count {
            return Err(CUresult::INVALID_VALUE);
        }
        let each = device::shared_per_multiprocessor() / count / SHARED_UNIT * SHARED_UNIT;
        let each = each.saturating_sub(device::SHARED_RESERVED).min(device::shared_per_block());
        let declared = u32::try_from(function.kernel().static_shared).unwrap_or(u32::MAX);
        let free = each.saturating_sub(declared).min(function.max_dynamic());
        // SAFETY: the caller's place for an integer.
        unsafe { give(bytes, free as usize) }
    })
}

pub(crate) unsafe extern "C" fn max_clusters(
    count: *mut c_int,
    function: CUfunction,
    config: *const CUlaunchConfig,
) -> CUresult {
    answer(|| {
        let function = context::current()?.functions.get(function)?;
        // SAFETY: null or the caller's configuration.
        let config = unsafe { config.as_ref() }.ok_or(CUresult::INVALID_VALUE)?;
        // SAFETY: the caller's attributes.
        let launch = unsafe { launch::shape(config) }?;
        launch::check(&function, &launch)?;
        let threads = launch.block.iter().product();
        let held =
            blocks(function.kernel(), threads, launch.dynamic_shared) * device::MULTIPROCESSORS;
        // SAFETY: the caller's place for an integer.
        unsafe { give(count, (held / launch.cluster.iter().product::<u32>()) as c_int) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: u32 = 228 << 10;

    #[test]
    fn each_limit_is_the_one_that_binds_where_it_should() {
        let needs = |threads, shared, registers| Needs { threads, shared, registers };
        assert_eq!(fit(needs(1024, 0, 32), SHARED), 2, "threads");
        assert_eq!(fit(needs(32, 0, 16), SHARED), 32, "blocks");
        assert_eq!(fit(needs(256, 0, 255), SHARED), 1, "registers");
        assert_eq!(fit(needs(128, 100 << 10, 32), SHARED), 2, "shared memory");
        assert_eq!(fit(needs(128, 227 << 10, 32), SHARED), 1, "all shared memory");
        assert_eq!(fit(needs(128, 228 << 10, 32), SHARED), 0, "too much shared memory");
        assert_eq!(fit(needs(0, 0, 32), SHARED), 0, "no threads");
        assert_eq!(fit(needs(1056, 0, 32), SHARED), 0, "too many threads");
    }
}
