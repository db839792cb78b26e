//! Streams: queues of work on a device, each item after the one before it.

use std::any::Any;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use once_cell::sync::{Lazy, OnceCell};
use parking_lot::Mutex;

use crate::capture::apart_from_captures;
use crate::context::Context;
use crate::error::{Error, check, report_drop_error};
use crate::event::Event;
use crate::memory::free_on;
use crate::raw::{CUdeviceptr, CUresult, CUstream, CUstream_flags, CUstreamCaptureStatus};

/// A queue of work. Clones share it; the last to go destroys it, after which what was queued still runs.
///
/// Own streams do not wait for the legacy default stream, nor it for them.
#[derive(Clone)]
pub struct Stream(Arc<Queue>);

struct Queue {
    context: Context,
    raw: CUstream,
    owned: bool,
    /// Reused by every [`Stream::join`] on this stream's work: a wait sees the event as last recorded before it, so a later
    /// recording can only make others wait for more.
    tail: OnceCell<Event>,
    /// Memory that was dropped while this stream was being captured, when a free would have become part of the graph.
    parked: Mutex<Vec<CUdeviceptr>>,
    /// Whoever destroys a stream that is not owned, kept from it by this. Dropped last.
    _owner: Option<Arc<dyn Any + Send + Sync>>,
}

// SAFETY: a stream handle belongs to no thread; the driver locks for itself.
unsafe impl Send for Queue {}
// SAFETY: as above; the event is set once, behind its cell's lock.
unsafe impl Sync for Queue {}

/// The priorities that a device tells apart: smaller is sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPriorities {
    /// For work that can wait; 0, and what a stream has unless it asks.
    pub least: i32,
    /// For work that should not.
    pub greatest: i32,
}

impl Stream {
    /// A stream of its own, of the least priority.
    ///
    /// # Errors
    /// The driver refused.
    pub fn new(context: &Context) -> Result<Self, Error> {
        Self::with_priority(context, 0)
    }

    /// A stream of its own; a priority outside [`Stream::priorities`] is moved to the nearer end.
    ///
    /// # Errors
    /// The driver refused.
    pub fn with_priority(context: &Context, priority: i32) -> Result<Self, Error> {
        let driver = context.device().driver();
        // Looked up before creating: what was created can then always be destroyed.
        driver.cuStreamDestroy()?;
        let call = driver.cuStreamCreateWithPriority()?;
        let mut raw: CUstream = std::ptr::null_mut();
        context.with_current(|| {
            // SAFETY: the pointer is to a live handle, and the context is current.
            let code =
                unsafe { call(&mut raw, CUstream_flags::CU_STREAM_NON_BLOCKING.0, priority) };
            check("cuStreamCreateWithPriority", code, || format!("priority {priority}"))
        })?;
        Ok(Self::of(context, raw, true, None))
    }

    /// The context's legacy default stream, which waits for, and holds up, every stream that was not made non-blocking.
    pub fn default_of(context: &Context) -> Self {
        Self::of(context, std::ptr::null_mut(), false, None)
    }

    /// A stream of someone else's: of the CUDA runtime, of PyTorch, of another crate. It is not destroyed here.
    ///
    /// # Safety
    /// `raw` is a stream of `context` (or null, for its default stream), and lives until every clone of this value is gone,
    /// and with them everything made on it: buffers keep the stream that they were allocated on. It is one queue whoever uses
    /// it, so not `CU_STREAM_PER_THREAD`, which is another one in every thread.
    pub unsafe fn from_raw(context: &Context, raw: CUstream) -> Self {
        Self::of(context, raw, false, None)
    }

    /// The same where its owner is a value: `owner` is kept until every clone of this value is gone, and what was made on it.
    ///
    /// # Safety
    /// As for [`Stream::from_raw`], but that `raw` need live only as long as `owner` does.
    pub unsafe fn from_owner(
        context: &Context,
        raw: CUstream,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self::of(context, raw, false, Some(owner))
    }

    fn of(
        context: &Context,
        raw: CUstream,
        owned: bool,
        owner: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Queue {
            context: context.clone(),
            raw,
            owned,
            tail: OnceCell::new(),
            parked: Mutex::default(),
            _owner: owner,
        }))
    }

    /// The priorities that the device tells apart.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn priorities(context: &Context) -> Result<StreamPriorities, Error> {
        let call = context.device().driver().cuCtxGetStreamPriorityRange()?;
        let (mut least, mut greatest): (c_int, c_int) = (0, 0);
        context.with_current(|| {
            // SAFETY: both pointers are to live integers, and the context is current.
            check(
                "cuCtxGetStreamPriorityRange",
                unsafe { call(&mut least, &mut greatest) },
                String::new,
            )
        })?;
        Ok(StreamPriorities { least, greatest })
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// The driver's handle, null for the default stream; valid while any clone of this stream lives.
    pub fn raw(&self) -> CUstream {
        self.0.raw
    }

    /// The priority that it was given.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn priority(&self) -> Result<i32, Error> {
        let call = self.context().device().driver().cuStreamGetPriority()?;
        let mut priority: c_int = 0;
        self.context().with_current(|| {
            // SAFETY: a live stream and a live integer.
            check("cuStreamGetPriority", unsafe { call(self.raw(), &mut priority) }, String::new)
        })?;
        Ok(priority)
    }

    /// Waits until everything queued so far is done.
    ///
    /// # Errors
    /// The first failure of anything queued before, too: kernels report late.
    pub fn synchronize(&self) -> Result<(), Error> {
        let call = self.context().device().driver().cuStreamSynchronize()?;
        self.context().with_current(|| {
            // SAFETY: a live stream.
            check("cuStreamSynchronize", unsafe { call(self.raw()) }, || self.to_string())
        })
    }

    /// Whether everything queued so far is done. Does not wait.
    ///
    /// # Errors
    /// The first failure of anything queued before.
    pub fn is_idle(&self) -> Result<bool, Error> {
        let call = self.context().device().driver().cuStreamQuery()?;
        self.context().with_current(|| {
            // SAFETY: a live stream.
            match unsafe { call(self.raw()) } {
                CUresult::NOT_READY => Ok(false),
                code => check("cuStreamQuery", code, || self.to_string()).map(|()| true),
            }
        })
    }

    /// Whether what is queued is being recorded into a graph instead of run. True for the default stream, too, while a stream
    /// that waits for it is recorded: work on it would break that capture.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn is_capturing(&self) -> Result<bool, Error> {
        let call = self.context().device().driver().cuStreamIsCapturing()?;
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        self.context().with_current(|| {
            // SAFETY: a live stream and a live status.
            match unsafe { call(self.raw(), &mut status) } {
                CUresult::STREAM_CAPTURE_IMPLICIT => Ok(true),
                code => check("cuStreamIsCapturing", code, || self.to_string())
                    .map(|()| status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE),
            }
        })
    }

    /// Makes what is queued here from now on wait for `event` as it was last recorded. Does not block the host.
    ///
    /// # Errors
    /// The driver refused, for instance across a capture's border.
    pub fn wait(&self, event: &Event) -> Result<(), Error> {
        let call = self.context().device().driver().cuStreamWaitEvent()?;
        self.context().with_current(|| {
            // SAFETY: a live stream and a live event; 0 is the default for the flags.
            check("cuStreamWaitEvent", unsafe { call(self.raw(), event.raw(), 0) }, || {
                self.to_string()
            })
        })
    }

    /// Makes what is queued here from now on wait for everything queued on `other` so far. Does not block the host.
    ///
    /// # Errors
    /// The driver refused, for instance across a capture's border.
    pub fn join(&self, other: &Self) -> Result<(), Error> {
        if self.same_queue(other) {
            return Ok(());
        }
        let tail = other.tail()?;
        tail.record(other)?;
        self.wait(tail)
    }

    /// Whether both are the same queue of the same context.
    pub fn same_queue(&self, other: &Self) -> bool {
        self.raw() == other.raw() && self.context().raw() == other.context().raw()
    }

    /// Calls `body` on a thread of the driver once everything queued so far is done; what is queued later waits for it.
    ///
    /// `body` must not call CUDA, and should be short; the driver refuses calls from it, or comes to a standstill. That goes for
    /// what it owns, too: a buffer or the last share of a stream would be released in it. A panic in it goes to the hook of
    /// [`set_drop_error_hook`]. Where the context fails before its turn it is never called, and kept for the life of the process.
    ///
    /// # Errors
    /// [`Error::Capturing`]: a graph would call it at every replay. Or the driver refused.
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn call_host(&self, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        if self.is_capturing()? {
            return Err(Error::Capturing { what: "a call of a host function" });
        }
        let call = self.context().device().driver().cuLaunchHostFunc()?;
        let ticket = NEXT_TICKET.fetch_add(1, Ordering::Relaxed);
        HOST_CALLS.lock().insert(ticket, Box::new(body));
        let queued = self.context().with_current(|| {
            // SAFETY: a live stream; the function takes any ticket, and takes its body out of the table at most once.
            let code = unsafe { call(self.raw(), Some(run_host_call), ticket as *mut c_void) };
            check("cuLaunchHostFunc", code, || self.to_string())
        });
        if queued.is_err() {
            let refused = HOST_CALLS.lock().remove(&ticket);
            // After the lock is given back: dropping it runs code of the caller's.
            drop(refused);
        }
        queued
    }

    /// [`Stream::synchronize`] for a wait that memory hangs on: not refused because some thread captures another stream, and where
    /// it fails all the same, the whole context is waited for, so that only one that is lost leaves work behind.
    pub(crate) fn drain(&self) -> Result<(), Error> {
        let call = self.context().device().driver().cuStreamSynchronize()?;
        apart_from_captures(self.context(), || {
            // SAFETY: a live stream.
            check("cuStreamSynchronize", unsafe { call(self.raw()) }, || self.to_string())
                // The first failure is the one that explains things.
                .inspect_err(|_| drop(self.context().synchronize()))
        })
    }

    /// Runs `work`, which queues something here that uses memory of `homes`: after everything queued on them so far, and
    /// before whatever is queued on them from now on.
    pub(crate) fn run_between<const N: usize>(
        &self,
        what: &'static str,
        homes: [&Self; N],
        work: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let others = homes.iter().filter(|home| !self.same_queue(home));
        if others.clone().next().is_none() {
            return work();
        }
        // One switch of contexts for all the calls below.
        self.context().with_current(|| {
            let capturing = self.is_capturing()?;
            for home in others.clone() {
                if home.context().raw() != self.context().raw() {
                    return Err(Error::OtherContext { what });
                }
                // The join would break the one's capture, or pull the other into it unasked.
                if home.is_capturing()? != capturing {
                    return Err(Error::Capturing { what });
                }
            }
            // Made first: once the work is queued, the homes must be able to wait for it.
            self.tail()?;
            for home in others.clone() {
                self.join(home)?;
            }
            work()?;
            for home in others {
                if let Err(error) = home.join(self) {
                    // Without a join the host waits in the homes' place.
                    self.drain()?;
                    return Err(error);
                }
            }
            Ok(())
        })
    }

    fn tail(&self) -> Result<&Event, Error> {
        self.0.tail.get_or_try_init(|| Event::new(self.context()))
    }

    /// Frees what a buffer had, once what is queued here so far is done.
    pub(crate) fn free(&self, address: CUdeviceptr) -> Result<(), Error> {
        self.context().with_current(|| {
            // Where the question fails the free will say why.
            if self.is_capturing().unwrap_or(false) {
                self.0.parked.lock().push(address);
                return Ok(());
            }
            self.free_parked();
            free_on(self.context(), self.raw(), address)
        })
    }

    /// Frees what was dropped during a capture. The stream is not being captured.
    pub(crate) fn free_parked(&self) {
        self.0.free_parked();
    }

    /// Gives this share back. The last one destroys an own stream and returns what the driver said to that.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`set_drop_error_hook`].
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn close(self) -> Result<(), Error> {
        match Arc::into_inner(self.0) {
            Some(mut queue) => queue.destroy(),
            None => Ok(()),
        }
    }
}

type HostCall = Box<dyn FnOnce() + Send>;

/// Bodies that wait for their turn. A table and no pointers: should the driver call one ticket twice, the second finds nothing.
static HOST_CALLS: Lazy<Mutex<HashMap<usize, HostCall>>> = Lazy::new(Mutex::default);
static NEXT_TICKET: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn run_host_call(ticket: *mut c_void) {
    let body = HOST_CALLS.lock().remove(&(ticket as usize));
    // A panic must not unwind into the driver.
    if let Some(body) = body
        && let Err(panic) = catch_unwind(AssertUnwindSafe(body))
    {
        // Its own drop might panic again, outside of the catch.
        std::mem::forget(panic);
        report_drop_error(&Error::HostCallPanicked);
    }
}

impl Queue {
    fn free_parked(&self) {
        // Taken out first: the driver is not called with the lock held.
        let parked = std::mem::take(&mut *self.parked.lock());
        for address in parked {
            if let Err(error) = free_on(&self.context, self.raw, address) {
                report_drop_error(&error);
            }
        }
    }

    fn destroy(&mut self) -> Result<(), Error> {
        self.free_parked();
        // Cleared first, so that a second attempt has nothing to destroy.
        if !std::mem::take(&mut self.owned) {
            return Ok(());
        }
        let call = self.context.device().driver().cuStreamDestroy()?;
        apart_from_captures(&self.context, || {
            // SAFETY: the stream was created here and is destroyed once.
            check("cuStreamDestroy", unsafe { call(self.raw) }, || format!("stream {:p}", self.raw))
        })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Err(error) = self.destroy() {
            report_drop_error(&error);
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.raw().is_null() {
            return f.write_str("the default stream");
        }
        write!(f, "stream {:p}", self.raw())
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("raw", &self.raw())
            .field("owned", &self.0.owned)
            .finish_non_exhaustive()
    }
}
