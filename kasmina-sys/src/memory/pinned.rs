//! Page-locked host memory, which the device copies from and to while the host does something else.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use crate::capture::apart_from_captures;
use crate::context::Context;
use crate::error::{Error, check, report_drop_error};
use crate::event::Event;
use crate::memory::{DeviceCopy, bytes_of};
use crate::raw::{
    CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTALLOC_WRITECOMBINED,
    CUdeviceptr, CUpointer_attribute,
};
use crate::stream::Stream;

/// How the host's caches treat page-locked memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinnedKind {
    /// Like any other memory.
    Cached,
    /// Past the caches: for data that the host only writes, front to back. Reading it is very slow.
    WriteCombined,
}

/// What the device does with the memory while a use is in flight, in the order of what the host must keep from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// Nothing.
    None,
    /// It may be read by the host, too.
    Read,
    /// The host keeps away.
    Written,
    /// Something was queued whose end nobody could note; the host keeps away until the whole context has been waited for.
    Unknown,
}

/// `len` elements of page-locked memory, freed on drop.
///
/// It knows the last copy that uses it: reading waits for one that writes it, writing and dropping wait for any. A copy that
/// uses it first waits for the one before it, on whatever stream that was.
pub struct PinnedBuffer<T: DeviceCopy> {
    context: Context,
    host: NonNull<T>,
    len: usize,
    kind: PinnedKind,
    in_flight: Mutex<Use>,
    /// Recorded after each use; made with the first, if not before.
    done: OnceCell<Event>,
    elements: PhantomData<T>,
}

// SAFETY: the memory belongs to no thread, and the elements may go to another one.
unsafe impl<T: DeviceCopy> Send for PinnedBuffer<T> {}
// SAFETY: shared borrows read the elements, after the wait for whoever writes them, and change the rest behind a lock.
unsafe impl<T: DeviceCopy> Sync for PinnedBuffer<T> {}

impl<T: DeviceCopy> PinnedBuffer<T> {
    /// A buffer whose every byte is zero. An empty one allocates nothing.
    ///
    /// # Errors
    /// Out of memory, or [`Error::TooLarge`] for a size that does not fit the address space.
    pub fn zeroed(context: &Context, len: usize, kind: PinnedKind) -> Result<Self, Error> {
        let bytes = bytes_of::<T>(len)?;
        let host =
            if bytes == 0 { NonNull::dangling() } else { allocate_for(context, bytes, kind)? };
        Ok(Self {
            context: context.clone(),
            host,
            len,
            kind,
            in_flight: Mutex::new(Use::None),
            done: OnceCell::new(),
            elements: PhantomData,
        })
    }

    /// The same buffer, whose waits sleep where they would otherwise spin: later by some microseconds, and the core is free
    /// meanwhile. For a buffer that was not used yet; one that was goes on as it did.
    ///
    /// # Errors
    /// The driver made no event.
    pub fn with_sleeping_waits(self) -> Result<Self, Error> {
        self.done.get_or_try_init(|| Event::blocking(&self.context))?;
        Ok(self)
    }

    /// A copy of `host`.
    ///
    /// # Errors
    /// As for [`PinnedBuffer::zeroed`].
    pub fn from_slice(context: &Context, host: &[T], kind: PinnedKind) -> Result<Self, Error> {
        let mut buffer = Self::zeroed(context, host.len(), kind)?;
        buffer.as_mut_slice()?.copy_from_slice(host);
        Ok(buffer)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        // Checked where the buffer was made.
        self.len * size_of::<T>()
    }

    /// The kind it was made as.
    pub fn kind(&self) -> PinnedKind {
        self.kind
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The elements, after any copy that writes them is done.
    ///
    /// # Errors
    /// That copy, or anything queued before it, failed.
    pub fn as_slice(&self) -> Result<&[T], Error> {
        self.wait_for(Use::Written)?;
        // SAFETY: the memory is this long and was zeroed when it was made, every bit pattern is a value, and nothing writes
        // it: the wait is over, and another copy to it needs this buffer exclusively.
        Ok(unsafe { std::slice::from_raw_parts(self.host.as_ptr(), self.len) })
    }

    /// The elements, after any copy that uses them is done.
    ///
    /// # Errors
    /// That copy, or anything queued before it, failed.
    pub fn as_mut_slice(&mut self) -> Result<&mut [T], Error> {
        self.wait_for(Use::Read)?;
        // SAFETY: as above, and nothing reads it either: another copy from it needs this buffer, too.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.host.as_ptr(), self.len) })
    }

    /// Whether no copy uses the elements any more. Does not wait.
    ///
    /// # Errors
    /// A copy that used them, or anything queued before it, failed.
    pub fn is_ready(&self) -> Result<bool, Error> {
        let mut in_flight = self.in_flight.lock();
        if *in_flight == Use::Unknown {
            return Ok(false);
        }
        let done = match self.done.get() {
            Some(done) if *in_flight != Use::None => {
                apart_from_captures(&self.context, || done.is_done())?
            }
            _ => true,
        };
        if done {
            *in_flight = Use::None;
        }
        Ok(done)
    }

    /// Counts everything queued on `stream` so far as a use that may write the elements: after a kernel or a graph was
    /// launched that does, so that reading waits for it like for a copy.
    ///
    /// # Errors
    /// [`Error::Capturing`] while the stream is captured, [`Error::OtherContext`], or the driver refused.
    pub fn in_use_by(&self, stream: &Stream) -> Result<(), Error> {
        self.use_on("the use of a pinned buffer", Use::Written, stream, || Ok(()))
    }

    /// The address on the host.
    pub fn address(&self) -> *const T {
        self.host.as_ptr()
    }

    /// The address by which kernels reach the memory over the bus, 0 for an empty buffer. It is not the host's for
    /// [`PinnedKind::WriteCombined`] on some machines.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn device_address(&self) -> Result<CUdeviceptr, Error> {
        if self.bytes() == 0 {
            return Ok(0);
        }
        let call = self.context.device().driver().cuPointerGetAttribute()?;
        let mut address: CUdeviceptr = 0;
        let host = self.host.as_ptr().addr() as CUdeviceptr;
        self.context.with_current(|| {
            let attribute = CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER;
            // SAFETY: a live address, which is what this attribute is written as.
            let code = unsafe { call((&raw mut address).cast(), attribute, host) };
            check("cuPointerGetAttribute", code, || format!("device pointer of {host:#x}"))
        })?;
        Ok(address)
    }

    pub(super) fn host_pointer(&self) -> *mut c_void {
        self.host.as_ptr().cast()
    }

    /// Runs `work`, which queues a use of the memory on `on`, after the use before it, and notes where it ends.
    pub(super) fn use_on(
        &self,
        what: &'static str,
        kind: Use,
        on: &Stream,
        work: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if on.context().raw() != self.context.raw() {
            return Err(Error::OtherContext { what });
        }
        // A replay would use the memory long after this call.
        if on.is_capturing()? {
            return Err(Error::Capturing { what });
        }
        // Made first: once the work is queued, its end must be noted.
        let done = self.done.get_or_try_init(|| Event::new(&self.context))?;
        // Held until the end is noted: of two threads' copies the later waits for the earlier.
        let mut in_flight = self.in_flight.lock();
        if *in_flight != Use::None {
            // Also on the same stream, where it costs little: a stream that is gone can have the same handle.
            on.wait(done)?;
        }
        work()?;
        let noted = done.record(on);
        let drained = if noted.is_err() { on.drain() } else { Ok(()) };
        let reached = if drained.is_err() { Use::Unknown } else { kind };
        *in_flight = reached.max(*in_flight);
        noted
    }

    /// Waits for what is in flight where it is `least` or more.
    fn wait_for(&self, least: Use) -> Result<(), Error> {
        let mut in_flight = self.in_flight.lock();
        if *in_flight < least || *in_flight == Use::None {
            return Ok(());
        }
        match self.done.get() {
            Some(done) if *in_flight != Use::Unknown => {
                apart_from_captures(&self.context, || done.synchronize())?;
            }
            _ => apart_from_captures(&self.context, || self.context.synchronize())?,
        }
        *in_flight = Use::None;
        Ok(())
    }

    /// Waits for what uses the memory, frees it and returns what the driver said.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`set_drop_error_hook`]. Where the wait fails the
    /// memory is not freed: the device might still write to it.
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn close(mut self) -> Result<(), Error> {
        self.release()
    }

    fn release(&mut self) -> Result<(), Error> {
        if self.bytes() == 0 {
            return Ok(());
        }
        let waited = self.wait_for(Use::Read);
        // Emptied either way, so that a second attempt has nothing to free.
        self.len = 0;
        let memory = std::mem::replace(&mut self.host, NonNull::dangling());
        waited?;
        free(&self.context, memory.cast())
    }
}

/// `bytes` zeros (not none) where a `T` may lie.
fn allocate_for<T>(context: &Context, bytes: usize, kind: PinnedKind) -> Result<NonNull<T>, Error> {
    let memory = allocate(context, bytes, kind)?;
    let (address, align) = (memory.addr().get(), align_of::<T>());
    if address % align != 0 {
        free(context, memory)?;
        return Err(Error::Misaligned { address, align });
    }
    // SAFETY: so many bytes were allocated here, and nothing else knows of them.
    unsafe { memory.as_ptr().write_bytes(0, bytes) };
    Ok(memory.cast())
}

fn allocate(context: &Context, bytes: usize, kind: PinnedKind) -> Result<NonNull<u8>, Error> {
    let driver = context.device().driver();
    // Looked up before allocating: what was allocated can then always be freed.
    driver.cuMemFreeHost()?;
    let call = driver.cuMemHostAlloc()?;
    let flags = CU_MEMHOSTALLOC_PORTABLE
        | CU_MEMHOSTALLOC_DEVICEMAP
        | match kind {
            PinnedKind::Cached => 0,
            PinnedKind::WriteCombined => CU_MEMHOSTALLOC_WRITECOMBINED,
        };
    let arguments = || format!("{bytes} bytes, flags {flags:#x}");
    let mut memory: *mut c_void = std::ptr::null_mut();
    apart_from_captures(context, || {
        // SAFETY: a live pointer and a size that is not zero.
        check("cuMemHostAlloc", unsafe { call(&mut memory, bytes, flags) }, arguments)
    })?;
    NonNull::new(memory.cast()).ok_or(Error::HostMemory { bytes })
}

fn free(context: &Context, memory: NonNull<u8>) -> Result<(), Error> {
    let call = context.device().driver().cuMemFreeHost()?;
    apart_from_captures(context, || {
        // SAFETY: the memory came from `cuMemHostAlloc`, is freed once, and nothing uses it any more.
        check("cuMemFreeHost", unsafe { call(memory.as_ptr().cast()) }, || format!("{memory:p}"))
    })
}

impl<T: DeviceCopy> Drop for PinnedBuffer<T> {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            report_drop_error(&error);
        }
    }
}

impl<T: DeviceCopy> fmt::Debug for PinnedBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedBuffer")
            .field("address", &self.host)
            .field("len", &self.len)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
