//! Loaded kernels and their launch.

use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, check, report_drop_error};
use crate::image::Fatbin;
use crate::raw::{
    CUfunction, CUmodule, FunctionAttribute, JIT_ERROR_LOG_BUFFER, JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
};

/// Room for what the driver's compiler writes about PTX that it refuses.
const LOG_BYTES: usize = 8192;

/// A fatbin loaded into a context. Clones share it; the last to go unloads it.
#[derive(Clone)]
pub struct Module(Arc<Loaded>);

struct Loaded {
    context: Context,
    raw: CUmodule,
    name: String,
}

// SAFETY: a module handle belongs to no thread; the driver locks for itself.
unsafe impl Send for Loaded {}
// SAFETY: as above; nothing here is changed after construction.
unsafe impl Sync for Loaded {}

impl Module {
    /// Loads a fatbin; the driver picks the code that suits the device, or compiles its PTX.
    ///
    /// # Errors
    /// [`Error::NotAFatbin`], or [`Error::Module`] with what the driver's compiler wrote.
    pub fn load(context: &Context, fatbin: &Fatbin) -> Result<Self, Error> {
        fatbin.check()?;
        let driver = context.device().driver();
        // Looked up before loading: what was loaded can then always be unloaded.
        driver.cu_module_unload()?;
        let call = driver.cu_module_load_data_ex()?;
        let mut log = vec![0u8; LOG_BYTES];
        let mut keys: [c_int; 2] = [JIT_ERROR_LOG_BUFFER, JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // The driver takes the size by value in a pointer's place.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_BYTES as *mut c_void];
        let mut raw: CUmodule = std::ptr::null_mut();
        context.with_current(|| {
            // SAFETY: the image's header has been checked against its length; keys and values are two each, the log
            // outlives the call, and the context is current.
            let code = unsafe {
                call(
                    &mut raw,
                    fatbin.bytes.as_ptr().cast::<c_void>(),
                    keys.len() as u32,
                    keys.as_mut_ptr(),
                    values.as_mut_ptr(),
                )
            };
            if code.is_success() {
                return Ok(());
            }
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]).trim().to_owned();
            Err(Error::Module { name: fatbin.name.to_owned(), code, log })
        })?;
        let name = fatbin.name.to_owned();
        Ok(Self(Arc::new(Loaded { context: context.clone(), raw, name })))
    }

    /// The kernel of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn function(&self, name: &str) -> Result<Function, Error> {
        let c_name = CString::new(name).map_err(|_| Error::NulInName { name: name.to_owned() })?;
        let context = &self.0.context;
        let call = context.device().driver().cu_module_get_function()?;
        let mut raw: CUfunction = std::ptr::null_mut();
        context.with_current(|| {
            // SAFETY: a live handle, a live module and a C string; the context is current.
            let code = unsafe { call(&mut raw, self.0.raw, c_name.as_ptr()) };
            check("cuModuleGetFunction", code, || format!("{name} of {}", self.0.name))
        })?;
        Ok(Function { module: self.clone(), raw, name: name.to_owned() })
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let unload = || -> Result<(), Error> {
            let call = self.context.device().driver().cu_module_unload()?;
            self.context.with_current(|| {
                // SAFETY: the module was loaded once and is unloaded once, and no `Function` of it lives.
                check("cuModuleUnload", unsafe { call(self.raw) }, || self.name.clone())
            })
        };
        if let Err(error) = unload() {
            report_drop_error(&error);
        }
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// How a kernel is spread over the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Shared memory beyond what the kernel declares, bytes.
    pub shared_bytes: u32,
}

/// A kernel. Keeps its module loaded.
#[derive(Clone)]
pub struct Function {
    module: Module,
    raw: CUfunction,
    name: String,
}

// SAFETY: a kernel handle belongs to no thread; the driver locks for itself.
unsafe impl Send for Function {}
// SAFETY: as above; nothing here is changed after construction.
unsafe impl Sync for Function {}

impl Function {
    /// One attribute of the kernel.
    ///
    /// # Errors
    /// The driver does not know the attribute.
    pub fn attribute(&self, attribute: FunctionAttribute) -> Result<i32, Error> {
        let context = &self.module.0.context;
        let call = context.device().driver().cu_func_get_attribute()?;
        let mut value: c_int = 0;
        context.with_current(|| {
            // SAFETY: a live integer and a live kernel; the context is current.
            let code = unsafe { call(&mut value, attribute.0, self.raw) };
            check("cuFuncGetAttribute", code, || {
                format!("attribute {}, {}", attribute.0, self.name)
            })
        })?;
        Ok(value)
    }

    /// Launches the kernel on the default stream and returns at once.
    ///
    /// # Safety
    /// `arguments` point at values of the types, and in the order, of the kernel's parameters; device addresses among
    /// them stay valid, and are not used otherwise, until the kernel is done; the kernel is sound for this `config`.
    ///
    /// # Errors
    /// The driver refused the launch. What goes wrong inside the kernel is told by a later call.
    pub unsafe fn launch(
        &self,
        config: LaunchConfig,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Error> {
        let context = &self.module.0.context;
        let call = context.device().driver().cu_launch_kernel()?;
        let ([gx, gy, gz], [bx, by, bz]) = (config.grid, config.block);
        let (stream, extra) = (std::ptr::null_mut(), std::ptr::null_mut());
        context.with_current(|| {
            // SAFETY: the caller vouches for the arguments and the configuration; the context is current.
            let code = unsafe {
                let shared = config.shared_bytes;
                call(
                    self.raw,
                    gx,
                    gy,
                    gz,
                    bx,
                    by,
                    bz,
                    shared,
                    stream,
                    arguments.as_mut_ptr(),
                    extra,
                )
            };
            check("cuLaunchKernel", code, || format!("{}, {config:?}", self.name))
        })
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}
