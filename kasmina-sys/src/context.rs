//! The primary context of a device, held while it is needed and current only inside a call.

use std::fmt;
use std::sync::Arc;

use crate::device::Device;
use crate::error::{Error, check, report_drop_error};
use crate::raw::CUcontext;

/// A share in a device's primary context: the one that the CUDA runtime and other libraries of the process use too.
///
/// Clones share one retention; the last to go releases it. No call of this crate leaves a context current that the
/// caller did not set.
#[derive(Clone)]
pub struct Context(Arc<Retained>);

struct Retained {
    device: Device,
    raw: CUcontext,
}

// SAFETY: a context handle belongs to no thread: the driver lets any thread make it current and locks for itself.
unsafe impl Send for Retained {}
// SAFETY: as above; nothing here is changed after construction.
unsafe impl Sync for Retained {}

impl Context {
    /// Retains the primary context of `device`.
    ///
    /// # Errors
    /// The driver refused, for instance for want of memory.
    pub fn primary(device: Device) -> Result<Self, Error> {
        let call = device.driver().cu_device_primary_ctx_retain()?;
        let mut raw: CUcontext = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle, and the device handle came from the driver.
        let code = unsafe { call(&mut raw, device.handle()) };
        check("cuDevicePrimaryCtxRetain", code, || format!("device {}", device.ordinal()))?;
        Ok(Self(Arc::new(Retained { device, raw })))
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.0.device
    }

    /// The driver's handle, valid while any clone of this context lives.
    pub fn raw(&self) -> CUcontext {
        self.0.raw
    }

    /// Runs `body` with this context current in this thread, and puts back what was current before, also on a panic.
    ///
    /// # Errors
    /// `body`'s own, or the driver's refusal to switch.
    pub fn with_current<R>(&self, body: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        let current = Current::push(self)?;
        let result = body();
        let popped = current.pop();
        let value = result?;
        popped?;
        Ok(value)
    }

    /// Waits until everything that was launched in this context is done.
    ///
    /// # Errors
    /// The first failure of anything launched before, too: kernels report late.
    pub fn synchronize(&self) -> Result<(), Error> {
        let call = self.device().driver().cu_ctx_synchronize()?;
        self.with_current(|| {
            // SAFETY: this context is current, and the call takes no arguments.
            check("cuCtxSynchronize", unsafe { call() }, String::new)
        })
    }

    /// Free and total device memory, bytes.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn memory_info(&self) -> Result<(u64, u64), Error> {
        let call = self.device().driver().cu_mem_get_info()?;
        self.with_current(|| {
            let (mut free, mut total) = (0usize, 0usize);
            // SAFETY: both pointers are to live integers of the type of `size_t`, and this context is current.
            let code = unsafe { call(&mut free, &mut total) };
            check("cuMemGetInfo", code, String::new)?;
            Ok((free as u64, total as u64))
        })
    }

    /// Gives this share back. The last one releases the context and returns what the driver said to that.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`set_drop_error_hook`].
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn close(self) -> Result<(), Error> {
        match Arc::into_inner(self.0) {
            Some(retained) => {
                let retained = std::mem::ManuallyDrop::new(retained);
                retained.release()
            }
            None => Ok(()),
        }
    }
}

impl Retained {
    fn release(&self) -> Result<(), Error> {
        let call = self.device.driver().cu_device_primary_ctx_release()?;
        // SAFETY: this value retained the context once and releases it once, from `drop` or from `close`.
        let code = unsafe { call(self.device.handle()) };
        check("cuDevicePrimaryCtxRelease", code, || format!("device {}", self.device.ordinal()))
    }
}

impl Drop for Retained {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            report_drop_error(&error);
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("device", &self.0.device).finish_non_exhaustive()
    }
}

/// The context that is current in a thread now, null for none: what tests use to see that nothing was left behind.
///
/// # Errors
/// The driver did not answer.
pub fn current_context(device: Device) -> Result<CUcontext, Error> {
    let call = device.driver().cu_ctx_get_current()?;
    let mut raw: CUcontext = std::ptr::null_mut();
    // SAFETY: the pointer is to a live handle.
    check("cuCtxGetCurrent", unsafe { call(&mut raw) }, String::new)?;
    Ok(raw)
}

/// One entry on the thread's stack of contexts, taken off when it goes.
struct Current<'a> {
    context: &'a Context,
}

impl<'a> Current<'a> {
    fn push(context: &'a Context) -> Result<Self, Error> {
        let driver = context.device().driver();
        // Looked up before pushing: what was pushed can then always be popped.
        driver.cu_ctx_pop_current()?;
        let call = driver.cu_ctx_push_current()?;
        // SAFETY: the handle is retained as long as the context lives.
        let code = unsafe { call(context.raw()) };
        check("cuCtxPushCurrent", code, || format!("device {}", context.device().ordinal()))?;
        Ok(Self { context })
    }

    fn pop(self) -> Result<(), Error> {
        std::mem::ManuallyDrop::new(self).take_off()
    }

    fn take_off(&self) -> Result<(), Error> {
        let call = self.context.device().driver().cu_ctx_pop_current()?;
        let mut popped: CUcontext = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle; the entry pushed above is still on this thread's stack.
        let code = unsafe { call(&mut popped) };
        check("cuCtxPopCurrent", code, String::new)
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.take_off() {
            report_drop_error(&error);
        }
    }
}
