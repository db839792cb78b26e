//! Copies and fills: of slices, where lengths, lifetimes and order are looked after, and of raw addresses.

use std::ffi::c_void;

use crate::capture::apart_from_captures;
use crate::error::{Error, check};
use crate::memory::pinned::Use;
use crate::memory::{DeviceCopy, DeviceSlice, DeviceSliceMut, PinnedBuffer, same_length};
use crate::raw::CUdeviceptr;
use crate::stream::Stream;

const TO_DEVICE: &str = "a copy to the device";
const TO_HOST: &str = "a copy to the host";
const ON_DEVICE: &str = "a copy on the device";
const FILL: &str = "a fill";

impl<T: DeviceCopy> DeviceSlice<'_, T> {
    /// Copies the elements out, after everything queued on the home, and waits for that.
    ///
    /// # Errors
    /// [`Error::Length`] where the lengths differ, [`Error::Capturing`] while the home is captured; or the copy, or anything
    /// queued before it, failed, after which `host` may hold anything.
    pub fn copy_to_host(&self, host: &mut [T]) -> Result<(), Error> {
        same_length(TO_HOST, self.len(), host.len())?;
        // SAFETY: the slice has as many elements as there are here, and is borrowed exclusively.
        unsafe { self.copy_out(host.as_mut_ptr()) }
    }

    /// The elements, copied out as by [`DeviceSlice::copy_to_host`].
    ///
    /// # Errors
    /// As there, or [`Error::HostMemory`].
    pub fn to_vec(&self) -> Result<Vec<T>, Error> {
        let mut host = Vec::new();
        if size_of::<T>() == 0 {
            host.resize(self.len(), T::zeroed());
            return Ok(host);
        }
        host.try_reserve_exact(self.len())
            .map_err(|_| Error::HostMemory { bytes: self.bytes() })?;
        // SAFETY: there is room for as many elements as there are here.
        unsafe { self.copy_out(host.as_mut_ptr()) }?;
        // SAFETY: the copy has written that many elements, whose every bit pattern is a value.
        unsafe { host.set_len(self.len()) };
        Ok(host)
    }

    /// # Safety
    /// There is room for `self.len()` elements at `host`, which nothing else uses meanwhile.
    unsafe fn copy_out(&self, host: *mut T) -> Result<(), Error> {
        if self.bytes() == 0 {
            return Ok(());
        }
        let home = self.home();
        if home.is_capturing()? {
            return Err(Error::Capturing { what: TO_HOST });
        }
        apart_from_captures(home.context(), || {
            // SAFETY: the elements here are there for what comes later on the home; by the caller's word there is room at `host`,
            // and the wait below keeps it until the copy is done.
            unsafe { home.copy_raw_to_host(host.cast(), self.address(), self.bytes()) }?;
            home.drain()
        })
    }

    /// Queues a copy of the elements to `host` on the stream `on`, after everything queued on the home so far, and makes the
    /// home wait for it. `host` itself waits where it is read.
    ///
    /// # Errors
    /// [`Error::Length`] where the lengths differ, [`Error::Capturing`] while either stream is captured,
    /// [`Error::OtherContext`], or the driver refused.
    pub fn copy_to_pinned(&self, host: &mut PinnedBuffer<T>, on: &Stream) -> Result<(), Error> {
        same_length(TO_HOST, self.len(), host.len())?;
        if self.bytes() == 0 {
            return Ok(());
        }
        on.run_between(TO_HOST, [self.home()], || {
            host.use_on(TO_HOST, Use::Written, on, || {
                // SAFETY: the join makes the elements here be there for the copy; the buffer is as long, and has the end of
                // this use noted right after, until which it lends its memory to nobody.
                unsafe { on.copy_raw_to_host(host.host_pointer(), self.address(), self.bytes()) }
            })
        })
    }
}

impl<T: DeviceCopy> DeviceSliceMut<'_, T> {
    /// Overwrites the elements, after everything queued on the home, and waits for that.
    ///
    /// # Errors
    /// [`Error::Length`] where the lengths differ, [`Error::Capturing`] while the home is captured; or the copy, or anything
    /// queued before it, failed.
    pub fn copy_from_host(&mut self, host: &[T]) -> Result<(), Error> {
        same_length(TO_DEVICE, host.len(), self.len())?;
        if self.bytes() == 0 {
            return Ok(());
        }
        let home = self.home();
        if home.is_capturing()? {
            return Err(Error::Capturing { what: TO_DEVICE });
        }
        apart_from_captures(home.context(), || {
            // SAFETY: the elements here are there for what comes later on the home; `host` is as long, and borrowed until the
            // wait below is over.
            unsafe { home.copy_raw_to_device(self.address(), host.as_ptr().cast(), self.bytes()) }?;
            home.drain()
        })
    }

    /// Queues a copy of `host` to the elements on the stream `on`, after everything queued on the home so far, and makes the
    /// home wait for it. `host` itself waits where it is written.
    ///
    /// # Errors
    /// [`Error::Length`] where the lengths differ, [`Error::Capturing`] while either stream is captured,
    /// [`Error::OtherContext`], or the driver refused.
    pub fn copy_from_pinned(&mut self, host: &PinnedBuffer<T>, on: &Stream) -> Result<(), Error> {
        same_length(TO_DEVICE, host.len(), self.len())?;
        if self.bytes() == 0 {
            return Ok(());
        }
        on.run_between(TO_DEVICE, [self.home()], || {
            host.use_on(TO_DEVICE, Use::Read, on, || {
                // SAFETY: the join makes the elements here be there for the copy; the buffer is as long, and has the end of
                // this use noted right after, until which it lets nobody write.
                unsafe { on.copy_raw_to_device(self.address(), host.host_pointer(), self.bytes()) }
            })
        })
    }

    /// Queues a copy of `from` to the elements on the stream `on`, after everything queued on both homes so far, and makes
    /// both wait for it. It may become part of a graph, where both homes are captured with `on`.
    ///
    /// # Errors
    /// [`Error::Length`] where the lengths differ, [`Error::Capturing`] where one of the streams is captured and another is
    /// not, [`Error::OtherContext`], or the driver refused.
    pub fn copy_from_device(&mut self, from: DeviceSlice<'_, T>, on: &Stream) -> Result<(), Error> {
        same_length(ON_DEVICE, from.len(), self.len())?;
        on.run_between(ON_DEVICE, [self.home(), from.home()], || {
            // SAFETY: the joins make both be there for the copy, and both are as long.
            unsafe { on.copy_raw_on_device(self.address(), from.address(), self.bytes()) }
        })
    }

    /// Queues zeros for every byte on the stream `on`, after everything queued on the home so far, and makes the home wait
    /// for it. It may become part of a graph, where the home is captured with `on`.
    ///
    /// # Errors
    /// [`Error::Capturing`] where one of the streams is captured and the other is not, [`Error::OtherContext`], or the driver
    /// refused.
    pub fn fill_zero(&mut self, on: &Stream) -> Result<(), Error> {
        on.run_between(FILL, [self.home()], || {
            // SAFETY: the join makes the elements be there for the fill, and all zeros is a value.
            unsafe { on.fill_raw(self.address(), 0, self.bytes()) }
        })
    }

    /// Queues the same four bytes for every element on the stream `on`, as [`DeviceSliceMut::fill_zero`] does; `bits` is what
    /// `to_bits` says of a float. Does not compile for elements of another size.
    ///
    /// # Errors
    /// As there.
    pub fn fill_u32(&mut self, bits: u32, on: &Stream) -> Result<(), Error> {
        const { assert!(size_of::<T>() == 4, "the elements must have four bytes") };
        if self.is_empty() {
            return Ok(());
        }
        let call = on.context().device().driver().cuMemsetD32Async()?;
        on.run_between(FILL, [self.home()], || {
            on.context().with_current(|| {
                // SAFETY: the join makes the elements be there for the fill, and any four bytes are a value.
                let code = unsafe { call(self.address(), bits, self.len(), on.raw()) };
                check("cuMemsetD32Async", code, || {
                    format!("{} elements at {:#x}, {on}", self.len(), self.address())
                })
            })
        })
    }
}

/// Copies that look after nothing: for graphs, and for memory that other code owns. Of zero bytes they do nothing.
impl Stream {
    /// Queues a copy of `bytes` from the host to the device.
    ///
    /// # Safety
    /// Both ranges are valid, and are not used otherwise, until the copy is done; in a graph, until the last replay is.
    ///
    /// # Errors
    /// The driver refused.
    pub unsafe fn copy_raw_to_device(
        &self,
        to: CUdeviceptr,
        from: *const c_void,
        bytes: usize,
    ) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let call = self.context().device().driver().cuMemcpyHtoDAsync()?;
        self.context().with_current(|| {
            // SAFETY: the caller vouches for both ranges; the stream is live.
            let code = unsafe { call(to, from, bytes, self.raw()) };
            check("cuMemcpyHtoDAsync", code, || format!("{bytes} bytes to {to:#x}, {self}"))
        })
    }

    /// Queues a copy of `bytes` from the device to the host.
    ///
    /// # Safety
    /// As for [`Stream::copy_raw_to_device`]; what is written must be a value of whatever type lies there.
    ///
    /// # Errors
    /// The driver refused.
    pub unsafe fn copy_raw_to_host(
        &self,
        to: *mut c_void,
        from: CUdeviceptr,
        bytes: usize,
    ) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let call = self.context().device().driver().cuMemcpyDtoHAsync()?;
        self.context().with_current(|| {
            // SAFETY: the caller vouches for both ranges; the stream is live.
            let code = unsafe { call(to, from, bytes, self.raw()) };
            check("cuMemcpyDtoHAsync", code, || format!("{bytes} bytes from {from:#x}, {self}"))
        })
    }

    /// Queues a copy of `bytes` within the device.
    ///
    /// # Safety
    /// As for [`Stream::copy_raw_to_device`]; the ranges do not overlap.
    ///
    /// # Errors
    /// The driver refused.
    pub unsafe fn copy_raw_on_device(
        &self,
        to: CUdeviceptr,
        from: CUdeviceptr,
        bytes: usize,
    ) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let call = self.context().device().driver().cuMemcpyDtoDAsync()?;
        self.context().with_current(|| {
            // SAFETY: the caller vouches for both ranges; the stream is live.
            let code = unsafe { call(to, from, bytes, self.raw()) };
            check("cuMemcpyDtoDAsync", code, || {
                format!("{bytes} bytes from {from:#x} to {to:#x}, {self}")
            })
        })
    }

    /// Queues `value` for each of `bytes` on the device.
    ///
    /// # Safety
    /// As for [`Stream::copy_raw_to_device`].
    ///
    /// # Errors
    /// The driver refused.
    pub unsafe fn fill_raw(&self, to: CUdeviceptr, value: u8, bytes: usize) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let call = self.context().device().driver().cuMemsetD8Async()?;
        self.context().with_current(|| {
            // SAFETY: the caller vouches for the range; the stream is live.
            let code = unsafe { call(to, value, bytes, self.raw()) };
            check("cuMemsetD8Async", code, || format!("{bytes} bytes at {to:#x}, {self}"))
        })
    }
}
