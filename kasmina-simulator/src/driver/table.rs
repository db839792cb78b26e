//! The functions that are handed out, by name and version of their form.

use std::ffi::{CStr, c_char, c_int, c_void};

use kasmina_sys::CUresult;
use kasmina_sys::raw::{self, CUdriverProcAddressQueryResult as Found};

use super::{
    answer, capture, context, copies, device, events, exec, give, graphs, launch, memory, modules,
    occupancy, pools, streams, tensor_maps,
};

struct Entry {
    name: &'static str,
    since: c_int,
    address: *mut c_void,
}

// SAFETY: addresses of functions, which every thread may call.
unsafe impl Sync for Entry {}

/// A line a function: its name, the type of its form in the bindings, and what stands for it. The type holds both together.
macro_rules! entries {
    ($($name:literal, $since:literal, $form:ident => $function:path;)*) => {
        &[$(
            Entry {
                name: $name,
                since: $since,
                address: {
                    const FUNCTION: raw::$form = Some($function);
                    match FUNCTION {
                        Some(function) => function as *mut c_void,
                        None => std::ptr::null_mut(),
                    }
                },
            },
        )*]
    };
}

static TABLE: &[Entry] = entries! {
    "cuInit", 2000, PFN_cuInit_v2000 => device::init;
    "cuDriverGetVersion", 2020, PFN_cuDriverGetVersion_v2020 => device::version;
    "cuGetProcAddress", 12000, PFN_cuGetProcAddress_v12000 => cuGetProcAddress_v2;
    "cuDeviceGet", 2000, PFN_cuDeviceGet_v2000 => device::get;
    "cuDeviceGetCount", 2000, PFN_cuDeviceGetCount_v2000 => device::count;
    "cuDeviceGetName", 2000, PFN_cuDeviceGetName_v2000 => device::name;
    "cuDeviceGetAttribute", 2000, PFN_cuDeviceGetAttribute_v2000 => device::attribute;
    "cuDeviceTotalMem", 3020, PFN_cuDeviceTotalMem_v3020 => device::total_memory;
    "cuDeviceGetUuid", 11040, PFN_cuDeviceGetUuid_v11040 => device::uuid;
    "cuDevicePrimaryCtxRetain", 7000, PFN_cuDevicePrimaryCtxRetain_v7000 => context::retain;
    "cuDevicePrimaryCtxRelease", 11000, PFN_cuDevicePrimaryCtxRelease_v11000 => context::release;
    "cuCtxGetCurrent", 4000, PFN_cuCtxGetCurrent_v4000 => context::get_current;
    "cuCtxPushCurrent", 4000, PFN_cuCtxPushCurrent_v4000 => context::push;
    "cuCtxPopCurrent", 4000, PFN_cuCtxPopCurrent_v4000 => context::pop;
    "cuCtxSynchronize", 2000, PFN_cuCtxSynchronize_v2000 => context::synchronize;
    "cuCtxGetStreamPriorityRange", 5050, PFN_cuCtxGetStreamPriorityRange_v5050 => context::priority_range;
    "cuStreamCreateWithPriority", 5050, PFN_cuStreamCreateWithPriority_v5050 => streams::create;
    "cuStreamDestroy", 4000, PFN_cuStreamDestroy_v4000 => streams::destroy;
    "cuStreamSynchronize", 2000, PFN_cuStreamSynchronize_v2000 => streams::synchronize;
    "cuStreamQuery", 2000, PFN_cuStreamQuery_v2000 => streams::query;
    "cuStreamWaitEvent", 3020, PFN_cuStreamWaitEvent_v3020 => events::wait_in_stream;
    "cuStreamGetPriority", 5050, PFN_cuStreamGetPriority_v5050 => streams::priority;
    "cuStreamIsCapturing", 10000, PFN_cuStreamIsCapturing_v10000 => capture::is_capturing;
    "cuStreamBeginCapture", 10010, PFN_cuStreamBeginCapture_v10010 => capture::begin;
    "cuStreamEndCapture", 10000, PFN_cuStreamEndCapture_v10000 => capture::end;
    "cuThreadExchangeStreamCaptureMode", 10010, PFN_cuThreadExchangeStreamCaptureMode_v10010 => capture::exchange_mode;
    "cuLaunchHostFunc", 10000, PFN_cuLaunchHostFunc_v10000 => streams::call_host;
    "cuEventCreate", 2000, PFN_cuEventCreate_v2000 => events::create;
    "cuEventDestroy", 4000, PFN_cuEventDestroy_v4000 => events::destroy;
    "cuEventRecord", 2000, PFN_cuEventRecord_v2000 => events::record;
    "cuEventQuery", 2000, PFN_cuEventQuery_v2000 => events::query;
    "cuEventSynchronize", 2000, PFN_cuEventSynchronize_v2000 => events::synchronize;
    "cuEventElapsedTime", 2000, PFN_cuEventElapsedTime_v2000 => events::elapsed;
    "cuMemAlloc", 3020, PFN_cuMemAlloc_v3020 => memory::allocate;
    "cuMemFree", 3020, PFN_cuMemFree_v3020 => memory::free;
    "cuMemAllocFromPoolAsync", 11020, PFN_cuMemAllocFromPoolAsync_v11020 => pools::allocate;
    "cuMemFreeAsync", 11020, PFN_cuMemFreeAsync_v11020 => pools::free;
    "cuMemPoolCreate", 11020, PFN_cuMemPoolCreate_v11020 => pools::create;
    "cuMemPoolDestroy", 11020, PFN_cuMemPoolDestroy_v11020 => pools::destroy;
    "cuMemPoolSetAttribute", 11020, PFN_cuMemPoolSetAttribute_v11020 => pools::set;
    "cuMemPoolGetAttribute", 11020, PFN_cuMemPoolGetAttribute_v11020 => pools::get;
    "cuMemPoolTrimTo", 11020, PFN_cuMemPoolTrimTo_v11020 => pools::trim;
    "cuMemGetInfo", 3020, PFN_cuMemGetInfo_v3020 => memory::info;
    "cuMemHostAlloc", 2020, PFN_cuMemHostAlloc_v2020 => memory::allocate_host;
    "cuMemFreeHost", 2000, PFN_cuMemFreeHost_v2000 => memory::free_host;
    "cuMemcpyHtoDAsync", 3020, PFN_cuMemcpyHtoDAsync_v3020 => copies::to_device;
    "cuMemcpyDtoHAsync", 3020, PFN_cuMemcpyDtoHAsync_v3020 => copies::to_host;
    "cuMemcpyDtoDAsync", 3020, PFN_cuMemcpyDtoDAsync_v3020 => copies::on_device;
    "cuMemsetD8Async", 3020, PFN_cuMemsetD8Async_v3020 => copies::fill8;
    "cuMemsetD32Async", 3020, PFN_cuMemsetD32Async_v3020 => copies::fill32;
    "cuPointerGetAttribute", 4000, PFN_cuPointerGetAttribute_v4000 => memory::pointer_attribute;
    "cuModuleLoadDataEx", 2010, PFN_cuModuleLoadDataEx_v2010 => modules::load;
    "cuModuleUnload", 2000, PFN_cuModuleUnload_v2000 => modules::unload;
    "cuModuleGetFunction", 2000, PFN_cuModuleGetFunction_v2000 => modules::function;
    "cuModuleGetGlobal", 3020, PFN_cuModuleGetGlobal_v3020 => modules::global;
    "cuFuncGetAttribute", 2020, PFN_cuFuncGetAttribute_v2020 => modules::attribute;
    "cuFuncSetAttribute", 9000, PFN_cuFuncSetAttribute_v9000 => modules::set_attribute;
    "cuFuncGetParamInfo", 12040, PFN_cuFuncGetParamInfo_v12040 => modules::parameter;
    "cuLaunchKernelEx", 11060, PFN_cuLaunchKernelEx_v11060 => launch::launch;
    "cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", 7000,
        PFN_cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags_v7000 => occupancy::max_blocks;
    "cuOccupancyMaxPotentialBlockSize", 6050, PFN_cuOccupancyMaxPotentialBlockSize_v6050 => occupancy::suggested_block;
    "cuOccupancyAvailableDynamicSMemPerBlock", 10020,
        PFN_cuOccupancyAvailableDynamicSMemPerBlock_v10020 => occupancy::available_shared;
    "cuOccupancyMaxActiveClusters", 11070, PFN_cuOccupancyMaxActiveClusters_v11070 => occupancy::max_clusters;
    "cuGraphGetNodes", 10000, PFN_cuGraphGetNodes_v10000 => graphs::nodes;
    "cuGraphDestroy", 10000, PFN_cuGraphDestroy_v10000 => graphs::destroy;
    "cuGraphCreate", 10000, PFN_cuGraphCreate_v10000 => graphs::create;
    "cuGraphAddKernelNode", 12000, PFN_cuGraphAddKernelNode_v12000 => graphs::add_kernel;
    "cuGraphAddMemcpyNode", 10000, PFN_cuGraphAddMemcpyNode_v10000 => graphs::add_copy;
    "cuGraphAddDependencies", 12030, PFN_cuGraphAddDependencies_v12030 => graphs::add_dependencies;
    "cuGraphExecKernelNodeSetParams", 12000, PFN_cuGraphExecKernelNodeSetParams_v12000 => exec::set_kernel;
    "cuGraphExecMemcpyNodeSetParams", 10020, PFN_cuGraphExecMemcpyNodeSetParams_v10020 => exec::set_copy;
    "cuGraphNodeSetEnabled", 11060, PFN_cuGraphNodeSetEnabled_v11060 => exec::set_enabled;
    "cuGraphInstantiateWithFlags", 11040, PFN_cuGraphInstantiateWithFlags_v11040 => exec::instantiate;
    "cuGraphExecUpdate", 12000, PFN_cuGraphExecUpdate_v12000 => exec::update;
    "cuGraphExecDestroy", 10000, PFN_cuGraphExecDestroy_v10000 => exec::destroy;
    "cuGraphUpload", 11010, PFN_cuGraphUpload_v11010 => exec::upload;
    "cuGraphLaunch", 10000, PFN_cuGraphLaunch_v10000 => exec::launch;
    "cuTensorMapEncodeTiled", 12000, PFN_cuTensorMapEncodeTiled_v12000 => tensor_maps::tiled;
    "cuTensorMapEncodeIm2col", 12000, PFN_cuTensorMapEncodeIm2col_v12000 => tensor_maps::im2col;
    "cuTensorMapEncodeIm2colWide", 12080, PFN_cuTensorMapEncodeIm2colWide_v12080 => tensor_maps::im2col_wide;
    "cuTensorMapReplaceAddress", 12000, PFN_cuTensorMapReplaceAddress_v12000 => tensor_maps::replace_address;
};

/// A function of no binding, which tests of contexts ask for.
static STATE: Entry = Entry {
    name: "cuDevicePrimaryCtxGetState",
    since: 7000,
    address: context::state as *mut c_void,
};

/// The one name that the library exports: the address of a function in the form of a version.
///
/// # Safety
/// A C string and a place for an address; a place for the status or null.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    address: *mut *mut c_void,
    version: c_int,
    _: u64,
    status: *mut Found,
) -> CUresult {
    answer(|| {
        // SAFETY: by the caller's word.
        unsafe { give(address, std::ptr::null_mut()) }?;
        if symbol.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: a C string of the caller's.
        let name = unsafe { CStr::from_ptr(symbol) }.to_bytes();
        let found = TABLE.iter().chain([&STATE]).find(|entry| entry.name.as_bytes() == name);
        let (code, told) = match found {
            Some(entry) if version >= entry.since => {
                // SAFETY: as above.
                unsafe { give(address, entry.address) }?;
                (Ok(()), Found::CU_GET_PROC_ADDRESS_SUCCESS)
            }
            Some(_) => {
                (Err(CUresult::NOT_FOUND), Found::CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT)
            }
            None => (Err(CUresult::NOT_FOUND), Found::CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND),
        };
        if !status.is_null() {
            // SAFETY: as above.
            unsafe { give(status, told) }?;
        }
        code
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_from_its_version_on_and_under_its_name_alone() {
        for (name, version, expected) in [
            (c"cuInit", 2000, CUresult::SUCCESS),
            (c"cuInit", 1000, CUresult::NOT_FOUND),
            (c"cuTensorMapEncodeTiled", 11080, CUresult::NOT_FOUND),
            (c"cuTensorMapEncodeTiled", 13000, CUresult::SUCCESS),
            (c"cuNothing", 13000, CUresult::NOT_FOUND),
        ] {
            let mut address = std::ptr::dangling_mut();
            // SAFETY: a C string and a live pointer.
            let code = unsafe {
                cuGetProcAddress_v2(name.as_ptr(), &mut address, version, 0, std::ptr::null_mut())
            };
            assert_eq!(
                (code, address.is_null()),
                (expected, expected != CUresult::SUCCESS),
                "{name:?} {version}"
            );
        }
    }
}
