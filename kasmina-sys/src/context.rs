//! The primary context of a device, held while it is needed and current only inside a call.

use std::fmt;
use std::sync::Arc;

use once_cell::sync::OnceCell;

use crate::device::Device;
use crate::error::{Error, check, report_drop_error};
use crate::memory::{Allocator, PoolUsage};
use crate::raw::CUcontext;

/// A share in a device's primary context: the one that the CUDA runtime and other libraries of the process use too.
///
/// Clones share one retention; the last to go releases it, unless memory was allocated ([`Context::allocator`]). No call of this crate leaves a context current that the
/// caller did not set.
#[derive(Clone)]
pub struct Context(Arc<Retained>);

struct Retained {
    device: Device,
    raw: CUcontext,
    /// Chosen at the first allocation, or when first asked for.
    allocator: OnceCell<Allocator>,
    released: bool,
}

// SAFETY: a context handle belongs to no thread: the driver lets any thread make it current and locks for itself.
unsafe impl Send for Retained {}
// SAFETY: as above; the allocator is set once, behind its cell's lock.
unsafe impl Sync for Retained {}

impl Context {
    /// Retains the primary context of `device`.
    ///
    /// Code that resets it (`cudaDeviceReset`, `cuDevicePrimaryCtxReset`) destroys everything that anyone in the process made
    /// in it, and leaves the handles of this crate dangling; no such call is made here.
    ///
    /// # Errors
    /// The driver refused, for instance for want of memory.
    pub fn primary(device: Device) -> Result<Self, Error> {
        // Looked up before retaining: what was retained can then always be released.
        device.driver().cuDevicePrimaryCtxRelease()?;
        let call = device.driver().cuDevicePrimaryCtxRetain()?;
        let mut raw: CUcontext = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle, and the device handle came from the driver.
        let code = unsafe { call(&mut raw, device.handle()) };
        check("cuDevicePrimaryCtxRetain", code, || format!("device {}", device.ordinal()))?;
        Ok(Self(Arc::new(Retained { device, raw, allocator: OnceCell::new(), released: false })))
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
    /// Every call of this crate does it for itself. Around many small calls it saves each of them the switch: one that finds
    /// its context current leaves the thread's stack of contexts alone.
    ///
    /// # Errors
    /// `body`'s own, or the driver's refusal to switch.
    pub fn with_current<R>(&self, body: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        self.0.with_current(body)
    }

    /// Waits until everything that was launched in this context is done.
    ///
    /// # Errors
    /// The first failure of anything launched before, too: kernels report late.
    pub fn synchronize(&self) -> Result<(), Error> {
        let call = self.device().driver().cuCtxSynchronize()?;
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
        let call = self.device().driver().cuMemGetInfo()?;
        self.with_current(|| {
            let (mut free, mut total) = (0usize, 0usize);
            // SAFETY: both pointers are to live integers of the type of `size_t`, and this context is current.
            let code = unsafe { call(&mut free, &mut total) };
            check("cuMemGetInfo", code, String::new)?;
            Ok((free as u64, total as u64))
        })
    }

    /// Where [`DeviceBuffer`](crate::DeviceBuffer)s of this context come from: the device's pool, or, with the reason, the
    /// driver's plain allocation. Chosen at the first call, or by the first buffer.
    ///
    /// All contexts of a device share its pool. Once there is one, it and the primary context stay for the life of the process,
    /// and so does what the pool reserved: [`Context::trim_pool`] gives that back where other libraries need it.
    pub fn allocator(&self) -> &Allocator {
        self.0.allocator.get_or_init(|| Allocator::choose(self))
    }

    /// What the device's pool holds, for all contexts of the process; `None` where [`Context::allocator`] is not a pool.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn pool_usage(&self) -> Result<Option<PoolUsage>, Error> {
        match self.allocator() {
            Allocator::Pool(pool) => self.with_current(|| pool.usage(self.device())).map(Some),
            Allocator::Direct(_) => Ok(None),
        }
    }

    /// Gives unused memory of the pool back to the device until no more than `keep_bytes` are reserved. Does nothing where
    /// there is no pool.
    ///
    /// A pool keeps what was freed, for the next buffer. Memory counts as unused once its stream has come to its free, so
    /// synchronize before, where all of it is meant.
    ///
    /// # Errors
    /// The driver refused.
    pub fn trim_pool(&self, keep_bytes: u64) -> Result<(), Error> {
        match self.allocator() {
            Allocator::Pool(pool) => self.with_current(|| pool.trim(self.device(), keep_bytes)),
            Allocator::Direct(_) => Ok(()),
        }
    }

    /// Gives this share back. The last one releases the context and returns what the driver said to that; where the device has
    /// a pool ([`Context::allocator`]), that one's share is the last, and it stays.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`set_drop_error_hook`].
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn close(self) -> Result<(), Error> {
        match Arc::into_inner(self.0) {
            Some(mut retained) => retained.release(),
            None => Ok(()),
        }
    }
}

impl Retained {
    fn with_current<R>(&self, body: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        if current_context(self.device)? == self.raw {
            return body();
        }
        let current = Current::push(self)?;
        let result = body();
        let popped = current.pop();
        let value = result?;
        popped?;
        Ok(value)
    }

    fn release(&mut self) -> Result<(), Error> {
        // Noted first, so that a second attempt has nothing to release.
        if std::mem::replace(&mut self.released, true) {
            return Ok(());
        }
        let call = self.device.driver().cuDevicePrimaryCtxRelease()?;
        // SAFETY: this value retained the context once, and comes here once.
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
    let call = device.driver().cuCtxGetCurrent()?;
    let mut raw: CUcontext = std::ptr::null_mut();
    // SAFETY: the pointer is to a live handle.
    check("cuCtxGetCurrent", unsafe { call(&mut raw) }, String::new)?;
    Ok(raw)
}

/// One entry on the thread's stack of contexts, taken off when it goes.
struct Current<'a> {
    context: &'a Retained,
}

impl<'a> Current<'a> {
    fn push(context: &'a Retained) -> Result<Self, Error> {
        let driver = context.device.driver();
        // Looked up before pushing: what was pushed can then always be popped.
        driver.cuCtxPopCurrent()?;
        let call = driver.cuCtxPushCurrent()?;
        // SAFETY: the handle is retained as long as the context lives.
        let code = unsafe { call(context.raw) };
        check("cuCtxPushCurrent", code, || format!("device {}", context.device.ordinal()))?;
        Ok(Self { context })
    }

    fn pop(self) -> Result<(), Error> {
        std::mem::ManuallyDrop::new(self).take_off()
    }

    fn take_off(&self) -> Result<(), Error> {
        let call = self.context.device.driver().cuCtxPopCurrent()?;
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
