//! Device memory with an owner, and blocking copies to and from it.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;

use crate::context::Context;
use crate::error::{Error, check, report_drop_error};
use crate::raw::CUdeviceptr;

/// Types that may cross between host and device byte by byte.
///
/// # Safety
/// Every bit pattern is a valid value, all zeros is one, and there is no padding.
pub unsafe trait DeviceCopy: Copy + Send + Sync + 'static {}

macro_rules! device_copy {
    ($($ty:ty),*) => {
        // SAFETY: integers and floats take every bit pattern and have no padding.
        $(unsafe impl DeviceCopy for $ty {})*
    };
}

device_copy!(u8, i8, u16, i16, u32, i32, u64, i64, usize, isize, f32, f64);

/// `len` elements of device memory, freed on drop.
pub struct DeviceBuffer<T: DeviceCopy> {
    context: Context,
    address: CUdeviceptr,
    len: usize,
    element: PhantomData<T>,
}

impl<T: DeviceCopy> DeviceBuffer<T> {
    /// Allocates without writing. An empty buffer allocates nothing and has address 0.
    fn allocate(context: &Context, len: usize) -> Result<Self, Error> {
        let bytes = len
            .checked_mul(size_of::<T>())
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or(Error::TooLarge {
                elements: len,
                element_bytes: size_of::<T>(),
                limit: isize::MAX as usize,
            })?;
        let mut address: CUdeviceptr = 0;
        if bytes > 0 {
            let driver = context.device().driver();
            // Looked up before allocating: what was allocated can then always be freed.
            driver.cu_mem_free()?;
            let call = driver.cu_mem_alloc()?;
            context.with_current(|| {
                // SAFETY: the pointer is to a live address, the size is not zero, and the context is current.
                let code = unsafe { call(&mut address, bytes) };
                check("cuMemAlloc", code, || format!("{bytes} bytes"))
            })?;
        }
        Ok(Self { context: context.clone(), address, len, element: PhantomData })
    }

    /// A buffer whose every byte is zero.
    ///
    /// # Errors
    /// Out of memory, or a size that does not fit the address space.
    pub fn zeroed(context: &Context, len: usize) -> Result<Self, Error> {
        let buffer = Self::allocate(context, len)?;
        if buffer.bytes() > 0 {
            let call = context.device().driver().cu_memset_d8()?;
            context.with_current(|| {
                // SAFETY: the range is the buffer's own allocation, and its context is current.
                let code = unsafe { call(buffer.address, 0, buffer.bytes()) };
                check("cuMemsetD8", code, || format!("{} bytes", buffer.bytes()))
            })?;
        }
        Ok(buffer)
    }

    /// A copy of `host`.
    ///
    /// # Errors
    /// Out of memory, or the copy failed.
    pub fn from_host(context: &Context, host: &[T]) -> Result<Self, Error> {
        let mut buffer = Self::allocate(context, host.len())?;
        buffer.copy_from_host(host)?;
        Ok(buffer)
    }

    /// Overwrites the buffer; returns when `host` may be changed again.
    ///
    /// # Errors
    /// [`Error::Length`] where the lengths differ, or the copy failed.
    pub fn copy_from_host(&mut self, host: &[T]) -> Result<(), Error> {
        self.same_length("copy to the device", host.len())?;
        if self.bytes() == 0 {
            return Ok(());
        }
        let call = self.context.device().driver().cu_memcpy_htod()?;
        self.context.with_current(|| {
            // SAFETY: both ranges are `bytes` long and live, and the buffer's context is current.
            let code = unsafe { call(self.address, host.as_ptr().cast::<c_void>(), self.bytes()) };
            check("cuMemcpyHtoD", code, || format!("{} bytes", self.bytes()))
        })
    }

    /// Copies the buffer out; waits for everything launched before on the default stream.
    ///
    /// # Errors
    /// [`Error::Length`] where the lengths differ, or the copy, or a kernel launched before it, failed.
    pub fn copy_to_host(&self, host: &mut [T]) -> Result<(), Error> {
        self.same_length("copy to the host", host.len())?;
        if self.bytes() == 0 {
            return Ok(());
        }
        let call = self.context.device().driver().cu_memcpy_dtoh()?;
        self.context.with_current(|| {
            // SAFETY: both ranges are `bytes` long and live, `T` takes every bit pattern, and the context is current.
            let code =
                unsafe { call(host.as_mut_ptr().cast::<c_void>(), self.address, self.bytes()) };
            check("cuMemcpyDtoH", code, || format!("{} bytes", self.bytes()))
        })
    }

    fn same_length(&self, what: &'static str, host: usize) -> Result<(), Error> {
        if host == self.len {
            return Ok(());
        }
        Err(Error::Length { what, host, device: self.len })
    }

    fn bytes(&self) -> usize {
        // `allocate` has checked this product.
        self.len * size_of::<T>()
    }

    /// The address on the device, 0 for an empty buffer.
    pub fn address(&self) -> CUdeviceptr {
        self.address
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Frees the memory and returns what the driver said.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`set_drop_error_hook`].
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn close(mut self) -> Result<(), Error> {
        self.free()
    }

    fn free(&mut self) -> Result<(), Error> {
        // Taken first, so that a second attempt has nothing to free.
        let address = std::mem::take(&mut self.address);
        if address == 0 {
            return Ok(());
        }
        let call = self.context.device().driver().cu_mem_free()?;
        self.context.with_current(|| {
            // SAFETY: the address came from `cuMemAlloc` and is freed once.
            check("cuMemFree", unsafe { call(address) }, || format!("address {address:#x}"))
        })
    }
}

impl<T: DeviceCopy> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        if let Err(error) = self.free() {
            report_drop_error(&error);
        }
    }
}

impl<T: DeviceCopy> fmt::Debug for DeviceBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceBuffer")
            .field("address", &format_args!("{:#x}", self.address))
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
