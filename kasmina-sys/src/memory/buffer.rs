//! Device memory with an owner.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use crate::error::{Error, report_drop_error};
use crate::memory::watch::Life;
use crate::memory::{
    AllocationWatch, DeviceCopy, DevicePointer, DeviceSlice, DeviceSliceMut, PinnedBuffer,
    bytes_of, pool,
};
use crate::raw::CUdeviceptr;
use crate::stream::Stream;

/// `len` elements of device memory, which belong to a stream and are freed there on drop.
///
/// Allocating and freeing are work of the [home](DeviceBuffer::home) and wait for nobody, where the context has a pool
/// ([`Context::allocator`](crate::Context::allocator)).
pub struct DeviceBuffer<T: DeviceCopy> {
    home: Stream,
    address: CUdeviceptr,
    len: usize,
    life: Arc<Life>,
    elements: PhantomData<T>,
}

impl<T: DeviceCopy> DeviceBuffer<T> {
    /// A buffer whose bytes are what the memory last held: another buffer's data, maybe of another part of the program.
    /// An empty one allocates nothing and has address 0.
    ///
    /// # Errors
    /// Out of memory, [`Error::TooLarge`] for a size that does not fit the address space, or [`Error::Capturing`].
    pub fn unwritten(home: &Stream, len: usize) -> Result<Self, Error> {
        let bytes = bytes_of::<T>(len)?;
        let life = Life::begin();
        let address = if bytes == 0 { 0 } else { pool::allocate(home, bytes)? };
        Ok(Self { home: home.clone(), address, len, life, elements: PhantomData })
    }

    /// A buffer whose every byte is zero.
    ///
    /// # Errors
    /// As for [`DeviceBuffer::unwritten`], or the driver refused to write.
    pub fn zeroed(home: &Stream, len: usize) -> Result<Self, Error> {
        let mut buffer = Self::unwritten(home, len)?;
        buffer.as_mut_slice().fill_zero(home)?;
        Ok(buffer)
    }

    /// A copy of `host`. Waits for it, and so for everything queued on `home` before.
    ///
    /// # Errors
    /// As for [`DeviceBuffer::unwritten`], or the copy, or anything before it, failed.
    pub fn from_host(home: &Stream, host: &[T]) -> Result<Self, Error> {
        let mut buffer = Self::unwritten(home, host.len())?;
        buffer.copy_from_host(host)?;
        Ok(buffer)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        // Checked where the buffer was made.
        self.len * size_of::<T>()
    }

    /// The address on the device, 0 for an empty buffer.
    pub fn address(&self) -> CUdeviceptr {
        self.address
    }

    /// The address as a kernel takes it.
    pub fn pointer(&self) -> DevicePointer<T> {
        DevicePointer::new(self.address)
    }

    /// The stream that the memory belongs to: it is there for what comes later on it, and freed after what came before.
    pub fn home(&self) -> &Stream {
        &self.home
    }

    /// Tells when this buffer is gone.
    pub fn watch(&self) -> AllocationWatch {
        AllocationWatch(Arc::clone(&self.life))
    }

    /// All elements, to be read.
    pub fn as_slice(&self) -> DeviceSlice<'_, T> {
        DeviceSlice::of(&self.home, self.address, self.len, Some(&self.life))
    }

    /// All elements.
    pub fn as_mut_slice(&mut self) -> DeviceSliceMut<'_, T> {
        DeviceSliceMut::of(DeviceSlice::of(&self.home, self.address, self.len, Some(&self.life)))
    }

    /// The elements of `range`, to be read.
    ///
    /// # Errors
    /// [`Error::Range`]: they do not lie within the buffer.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<DeviceSlice<'_, T>, Error> {
        self.as_slice().slice(range)
    }

    /// The elements of `range`.
    ///
    /// # Errors
    /// [`Error::Range`]: they do not lie within the buffer.
    pub fn slice_mut(
        &mut self,
        range: impl RangeBounds<usize>,
    ) -> Result<DeviceSliceMut<'_, T>, Error> {
        self.as_slice().slice(range).map(DeviceSliceMut::of)
    }

    /// [`DeviceSliceMut::copy_from_host`] of all elements.
    ///
    /// # Errors
    /// As there.
    pub fn copy_from_host(&mut self, host: &[T]) -> Result<(), Error> {
        self.as_mut_slice().copy_from_host(host)
    }

    /// [`DeviceSliceMut::copy_from_pinned`] of all elements.
    ///
    /// # Errors
    /// As there.
    pub fn copy_from_pinned(&mut self, host: &PinnedBuffer<T>, on: &Stream) -> Result<(), Error> {
        self.as_mut_slice().copy_from_pinned(host, on)
    }

    /// [`DeviceSliceMut::copy_from_device`] of all elements.
    ///
    /// # Errors
    /// As there.
    pub fn copy_from_device(&mut self, from: DeviceSlice<'_, T>, on: &Stream) -> Result<(), Error> {
        self.as_mut_slice().copy_from_device(from, on)
    }

    /// [`DeviceSliceMut::fill_zero`] of all elements.
    ///
    /// # Errors
    /// As there.
    pub fn fill_zero(&mut self, on: &Stream) -> Result<(), Error> {
        self.as_mut_slice().fill_zero(on)
    }

    /// [`DeviceSliceMut::fill_u32`] of all elements.
    ///
    /// # Errors
    /// As there.
    pub fn fill_u32(&mut self, bits: u32, on: &Stream) -> Result<(), Error> {
        self.as_mut_slice().fill_u32(bits, on)
    }

    /// [`DeviceSlice::copy_to_host`] of all elements.
    ///
    /// # Errors
    /// As there.
    pub fn copy_to_host(&self, host: &mut [T]) -> Result<(), Error> {
        self.as_slice().copy_to_host(host)
    }

    /// [`DeviceSlice::to_vec`] of all elements.
    ///
    /// # Errors
    /// As there.
    pub fn to_vec(&self) -> Result<Vec<T>, Error> {
        self.as_slice().to_vec()
    }

    /// [`DeviceSlice::copy_to_pinned`] of all elements.
    ///
    /// # Errors
    /// As there.
    pub fn copy_to_pinned(&self, host: &mut PinnedBuffer<T>, on: &Stream) -> Result<(), Error> {
        self.as_slice().copy_to_pinned(host, on)
    }

    /// Queues the free on the home and returns what the driver said.
    ///
    /// While the home is being captured the free is kept back until something is allocated or freed on it afterwards, or it
    /// goes itself; a failure then goes to the hook.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`set_drop_error_hook`].
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn close(mut self) -> Result<(), Error> {
        self.free()
    }

    fn free(&mut self) -> Result<(), Error> {
        // Before the memory can become someone else's.
        self.life.end();
        // Taken first, so that a second attempt has nothing to free.
        match std::mem::take(&mut self.address) {
            0 => Ok(()),
            address => self.home.free(address),
        }
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
