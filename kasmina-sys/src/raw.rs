//! The few pieces of `cuda.h` that the safe layer calls: handles, attribute codes and the table of functions.
//!
//! Each function stands with the CUDA version whose form of it is meant; `cuGetProcAddress` is asked for exactly that
//! form, so a newer driver that has changed the signature (as 13.0 did with `cuCtxSynchronize`) still hands out ours.

use std::ffi::{c_char, c_int, c_uint, c_void};

use once_cell::sync::OnceCell;

use crate::driver::Driver;
use crate::result::CUresult;
use crate::unavailable::Unavailable;
use crate::version::CudaVersion;

/// A device handle: its ordinal in the driver's eyes.
pub type CUdevice = c_int;
/// An address in device memory.
pub type CUdeviceptr = u64;
/// A context handle.
pub type CUcontext = *mut c_void;
/// A module handle.
pub type CUmodule = *mut c_void;
/// A kernel handle.
pub type CUfunction = *mut c_void;
/// A stream handle; null is the default stream.
pub type CUstream = *mut c_void;

/// The 16 bytes that name a device for good.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CUuuid {
    /// The bytes in the order in which they are printed.
    pub bytes: [u8; 16],
}

/// A question to `cuDeviceGetAttribute`. An integer newtype: attributes that are not named here can be asked for too.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceAttribute(pub c_int);

impl DeviceAttribute {
    /// Threads in a warp.
    pub const WARP_SIZE: Self = Self(10);
    /// Streaming multiprocessors.
    pub const MULTIPROCESSOR_COUNT: Self = Self(16);
    /// Width of the memory bus, bits.
    pub const GLOBAL_MEMORY_BUS_WIDTH: Self = Self(37);
    /// Second-level cache, bytes.
    pub const L2_CACHE_SIZE: Self = Self(38);
    /// Resident threads of one multiprocessor.
    pub const MAX_THREADS_PER_MULTIPROCESSOR: Self = Self(39);
    /// Compute capability before the point.
    pub const COMPUTE_CAPABILITY_MAJOR: Self = Self(75);
    /// Compute capability after the point.
    pub const COMPUTE_CAPABILITY_MINOR: Self = Self(76);
    /// Shared memory of one multiprocessor, bytes.
    pub const MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: Self = Self(81);
    /// Registers of one multiprocessor.
    pub const MAX_REGISTERS_PER_MULTIPROCESSOR: Self = Self(82);
    /// Shared memory that one block can have when it asks, bytes.
    pub const MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: Self = Self(97);
    /// Whether kernels can read through tensor maps, 0 or 1.
    pub const TENSOR_MAP_ACCESS_SUPPORTED: Self = Self(127);
}

/// A question to `cuFuncGetAttribute`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FunctionAttribute(pub c_int);

impl FunctionAttribute {
    /// The greatest block that the kernel can be launched with, threads.
    pub const MAX_THREADS_PER_BLOCK: Self = Self(0);
    /// Shared memory that the kernel declares, bytes.
    pub const SHARED_SIZE_BYTES: Self = Self(1);
    /// Local memory of one thread, bytes: spills and arrays.
    pub const LOCAL_SIZE_BYTES: Self = Self(3);
    /// Registers of one thread.
    pub const NUM_REGS: Self = Self(4);
    /// The PTX version of the code, 80 for 8.0.
    pub const PTX_VERSION: Self = Self(5);
    /// The architecture of the machine code that was chosen, 90 for 9.0.
    pub const BINARY_VERSION: Self = Self(6);
}

/// Keys of the options of `cuModuleLoadDataEx`.
pub(crate) const JIT_ERROR_LOG_BUFFER: c_int = 5;
pub(crate) const JIT_ERROR_LOG_BUFFER_SIZE_BYTES: c_int = 6;

/// An address that was looked up once, or the reason why it could not be.
type Lookup = OnceCell<Result<usize, Unavailable>>;

macro_rules! functions {
    ($($method:ident = $name:literal, CUDA $major:literal . $minor:literal, ($($ty:ty),*);)*) => {
        /// One cell a function, filled at its first use.
        #[derive(Default)]
        pub(crate) struct Functions {
            $($method: Lookup,)*
        }

        impl Driver {
            $(
                pub(crate) fn $method(
                    &self,
                ) -> Result<unsafe extern "C" fn($($ty),*) -> CUresult, Unavailable> {
                    let lookup = || self.resolve($name, CudaVersion::new($major, $minor));
                    let found = self.functions.$method.get_or_init(|| lookup().map(|p| p.as_ptr() as usize));
                    let address = found.clone()?;
                    // SAFETY: the driver handed out this address for exactly this name and version, whose C
                    // signature is the one above, and the library stays loaded for the life of the process.
                    Ok(unsafe {
                        std::mem::transmute::<usize, unsafe extern "C" fn($($ty),*) -> CUresult>(address)
                    })
                }
            )*
        }
    };
}

functions! {
    cu_init = "cuInit", CUDA 2 . 0, (c_uint);
    cu_driver_get_version = "cuDriverGetVersion", CUDA 2 . 2, (*mut c_int);
    cu_device_get = "cuDeviceGet", CUDA 2 . 0, (*mut CUdevice, c_int);
    cu_device_get_count = "cuDeviceGetCount", CUDA 2 . 0, (*mut c_int);
    cu_device_get_name = "cuDeviceGetName", CUDA 2 . 0, (*mut c_char, c_int, CUdevice);
    cu_device_get_attribute = "cuDeviceGetAttribute", CUDA 2 . 0, (*mut c_int, c_int, CUdevice);
    cu_device_total_mem = "cuDeviceTotalMem", CUDA 3 . 2, (*mut usize, CUdevice);
    cu_device_get_uuid = "cuDeviceGetUuid", CUDA 11 . 4, (*mut CUuuid, CUdevice);
    cu_device_primary_ctx_retain = "cuDevicePrimaryCtxRetain", CUDA 7 . 0, (*mut CUcontext, CUdevice);
    cu_device_primary_ctx_release = "cuDevicePrimaryCtxRelease", CUDA 11 . 0, (CUdevice);
    cu_ctx_get_current = "cuCtxGetCurrent", CUDA 4 . 0, (*mut CUcontext);
    cu_ctx_push_current = "cuCtxPushCurrent", CUDA 4 . 0, (CUcontext);
    cu_ctx_pop_current = "cuCtxPopCurrent", CUDA 4 . 0, (*mut CUcontext);
    cu_ctx_synchronize = "cuCtxSynchronize", CUDA 2 . 0, ();
    cu_module_load_data_ex = "cuModuleLoadDataEx", CUDA 2 . 1,
        (*mut CUmodule, *const c_void, c_uint, *mut c_int, *mut *mut c_void);
    cu_module_unload = "cuModuleUnload", CUDA 2 . 0, (CUmodule);
    cu_module_get_function = "cuModuleGetFunction", CUDA 2 . 0, (*mut CUfunction, CUmodule, *const c_char);
    cu_func_get_attribute = "cuFuncGetAttribute", CUDA 2 . 2, (*mut c_int, c_int, CUfunction);
    cu_launch_kernel = "cuLaunchKernel", CUDA 4 . 0,
        (CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void, *mut *mut c_void);
    cu_mem_alloc = "cuMemAlloc", CUDA 3 . 2, (*mut CUdeviceptr, usize);
    cu_mem_free = "cuMemFree", CUDA 3 . 2, (CUdeviceptr);
    cu_mem_get_info = "cuMemGetInfo", CUDA 3 . 2, (*mut usize, *mut usize);
    cu_memcpy_htod = "cuMemcpyHtoD", CUDA 3 . 2, (CUdeviceptr, *const c_void, usize);
    cu_memcpy_dtoh = "cuMemcpyDtoH", CUDA 3 . 2, (*mut c_void, CUdeviceptr, usize);
    cu_memset_d8 = "cuMemsetD8", CUDA 3 . 2, (CUdeviceptr, u8, usize);
}
