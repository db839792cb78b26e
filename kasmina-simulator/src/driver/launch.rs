//! Launches: what the driver checks of one before it is queued.

use std::ffi::c_void;
use std::sync::Arc;

use kasmina_sys::CUresult;
use kasmina_sys::raw::{
    CUDA_KERNEL_NODE_PARAMS_v2, CUfunction, CUlaunchAttribute, CUlaunchAttributeID as Id,
    CUlaunchConfig,
};

use super::modules::Function;
use super::streams::submit;
use super::work::{KernelCall, Work};
use super::{Outcome, answer, context, device, occupancy, taken};
use crate::machine::Launch;

/// The most blocks of a cluster, unless a kernel allows more.
const PORTABLE_CLUSTER: u64 = 8;
const WIDE_CLUSTER: u64 = 16;

/// What a launch's attributes say of its shape.
///
/// # Safety
/// As many attributes as the configuration says.
pub(crate) unsafe fn shape(config: &CUlaunchConfig) -> Result<Launch, CUresult> {
    let mut launch = Launch {
        grid: [config.gridDimX, config.gridDimY, config.gridDimZ],
        block: [config.blockDimX, config.blockDimY, config.blockDimZ],
        cluster: [1; 3],
        dynamic_shared: config.sharedMemBytes,
        cooperative: false,
    };
    // SAFETY: by the caller's word.
    let attributes: &[CUlaunchAttribute] =
        unsafe { taken(config.attrs, config.numAttrs as usize) }?;
    for attribute in attributes {
        match attribute.id {
            Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION => {
                // SAFETY: this attribute has this value.
                let size = unsafe { attribute.value.clusterDim };
                launch.cluster = [size.x, size.y, size.z];
            }
            Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE => {
                // SAFETY: this attribute has this value.
                launch.cooperative = unsafe { attribute.value.cooperative } != 0;
            }
            // A grid may begin when the one before has ended; and there is one queue for all priorities.
            Id::CU_LAUNCH_ATTRIBUTE_IGNORE
            | Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            | Id::CU_LAUNCH_ATTRIBUTE_PRIORITY => {}
            _ => return Err(CUresult::NOT_SUPPORTED),
        }
    }
    Ok(launch)
}

fn within(values: [u32; 3], limits: [u32; 3]) -> bool {
    values.iter().zip(limits).all(|(value, limit)| (1..=limit).contains(value))
}

/// What the driver refuses of a launch.
pub(crate) fn check(function: &Function, launch: &Launch) -> Outcome {
    let threads = launch.block.iter().map(|side| u64::from(*side)).product::<u64>();
    let fits = within(launch.grid, device::GRID)
        && within(launch.block, device::BLOCK)
        && threads <= u64::from(function.kernel().max_threads)
        && launch.dynamic_shared <= function.max_dynamic();
    if !fits {
        return Err(CUresult::INVALID_VALUE);
    }
    if launch.cluster != [1; 3] {
        let blocks = launch.cluster.iter().map(|side| u64::from(*side)).product::<u64>();
        let most = if function.has_wide_clusters() { WIDE_CLUSTER } else { PORTABLE_CLUSTER };
        let divides = launch
            .cluster
            .iter()
            .zip(launch.grid)
            .all(|(side, grid)| *side > 0 && grid.is_multiple_of(*side));
        if !device::is_hopper() || blocks > most || !divides {
            return Err(CUresult::INVALID_CLUSTER_SIZE);
        }
    }
    if launch.cooperative {
        let blocks = launch.grid.iter().map(|side| u64::from(*side)).product::<u64>();
        let resident = occupancy::blocks(function.kernel(), threads as u32, launch.dynamic_shared);
        if blocks > u64::from(resident) * u64::from(device::MULTIPROCESSORS) {
            return Err(CUresult::COOPERATIVE_LAUNCH_TOO_LARGE);
        }
    }
    Ok(())
}

/// Copies a launch's arguments, whose sizes are the kernel's.
///
/// # Safety
/// A pointer to each of the kernel's parameters.
unsafe fn arguments(
    function: &Function,
    parameters: *mut *mut c_void,
) -> Result<Arc<Vec<Vec<u8>>>, CUresult> {
    let wanted = &function.kernel().parameters;
    // SAFETY: by the caller's word.
    let pointers = unsafe { taken(parameters, wanted.len()) }?;
    let copies = wanted.iter().zip(pointers).map(|(parameter, pointer)| {
        // SAFETY: as above.
        unsafe { taken(pointer.cast::<u8>().cast_const(), parameter.size) }.map(<[u8]>::to_vec)
    });
    Ok(Arc::new(copies.collect::<Result<_, _>>()?))
}

pub(crate) unsafe extern "C" fn launch(
    config: *const CUlaunchConfig,
    function: CUfunction,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        // SAFETY: null or the caller's configuration.
        let config = unsafe { config.as_ref() }.ok_or(CUresult::INVALID_VALUE)?;
        let function = context.functions.get(function)?;
        let stream = context.streams.get(config.hStream)?;
        if !extra.is_null() {
            return Err(CUresult::NOT_SUPPORTED);
        }
        // SAFETY: the caller's attributes.
        let launch = unsafe { shape(config) }?;
        check(&function, &launch)?;
        // SAFETY: the caller's arguments.
        let arguments = unsafe { arguments(&function, parameters) }?;
        submit(&stream, Work::Kernel(KernelCall { function, launch, arguments }))
    })
}

/// The launch of a graph's node, without attributes.
///
/// # Safety
/// Null or the caller's parameters, with a pointer to each of the kernel's.
pub(crate) unsafe fn of_node(
    parameters: *const CUDA_KERNEL_NODE_PARAMS_v2,
) -> Result<KernelCall, CUresult> {
    // SAFETY: by the caller's word.
    let node = unsafe { parameters.as_ref() }.ok_or(CUresult::INVALID_VALUE)?;
    let function = context::the().functions.get(node.func)?;
    if !node.extra.is_null() || !node.kern.is_null() {
        return Err(CUresult::NOT_SUPPORTED);
    }
    let launch = Launch {
        grid: [node.gridDimX, node.gridDimY, node.gridDimZ],
        block: [node.blockDimX, node.blockDimY, node.blockDimZ],
        cluster: [1; 3],
        dynamic_shared: node.sharedMemBytes,
        cooperative: false,
    };
    check(&function, &launch)?;
    // SAFETY: by the caller's word.
    let arguments = unsafe { arguments(&function, node.kernelParams) }?;
    Ok(KernelCall { function, launch, arguments })
}
