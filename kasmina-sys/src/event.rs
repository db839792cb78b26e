//! Events: marks in a stream's work that others wait for and that clocks are read at.

use std::fmt;

use crate::capture::apart_from_captures;
use crate::context::Context;
use crate::error::{Error, check};
use crate::owned::Owned;
use crate::raw::{CUevent, CUevent_flags, CUevent_st, CUresult};
use crate::stream::Stream;

/// A mark in a stream's work. Recording it again moves it.
pub struct Event(Owned<CUevent_st>);

// SAFETY: an event handle belongs to no thread; the driver locks for itself.
unsafe impl Send for Event {}
// SAFETY: as above; nothing here is changed after construction.
unsafe impl Sync for Event {}

impl Event {
    /// An event without a clock, the cheaper kind, for ordering alone.
    ///
    /// # Errors
    /// The driver refused.
    pub fn new(context: &Context) -> Result<Self, Error> {
        Self::create(context, CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    /// An event that notes when it was passed, for [`Event::milliseconds_since`].
    ///
    /// # Errors
    /// The driver refused.
    pub fn timed(context: &Context) -> Result<Self, Error> {
        Self::create(context, CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// An event without a clock on which [`Event::synchronize`] sleeps where it would otherwise spin: later by some
    /// microseconds, and the core is free meanwhile.
    ///
    /// # Errors
    /// The driver refused.
    pub fn blocking(context: &Context) -> Result<Self, Error> {
        let (quiet, sleeping) =
            (CUevent_flags::CU_EVENT_DISABLE_TIMING, CUevent_flags::CU_EVENT_BLOCKING_SYNC);
        Self::create(context, CUevent_flags(quiet.0 | sleeping.0))
    }

    fn create(context: &Context, flags: CUevent_flags) -> Result<Self, Error> {
        let call = context.device().driver().cuEventCreate()?;
        let event = Owned::make(context, |raw| {
            // Joins and page-locked buffers make some that nobody asked for.
            apart_from_captures(context, || {
                // SAFETY: the pointer is to a live handle, and the context is current.
                check("cuEventCreate", unsafe { call(raw, flags.0) }, || {
                    format!("flags {:#x}", flags.0)
                })
            })
        })?;
        Ok(Self(event))
    }

    /// The context.
    pub fn context(&self) -> &Context {
        self.0.context()
    }

    /// The driver's handle, valid while this event lives.
    pub fn raw(&self) -> CUevent {
        self.0.raw()
    }

    /// Puts the mark after everything queued on `stream` so far.
    ///
    /// # Errors
    /// The driver refused, for instance because the stream is of another context.
    pub fn record(&self, stream: &Stream) -> Result<(), Error> {
        let call = self.context().device().driver().cuEventRecord()?;
        self.context().with_current(|| {
            // SAFETY: a live event and a live stream.
            check("cuEventRecord", unsafe { call(self.raw(), stream.raw()) }, || stream.to_string())
        })
    }

    /// Waits until the mark is passed; at once where it was never recorded.
    ///
    /// # Errors
    /// The first failure of anything before it, too.
    pub fn synchronize(&self) -> Result<(), Error> {
        let call = self.context().device().driver().cuEventSynchronize()?;
        self.context().with_current(|| {
            // SAFETY: a live event.
            check("cuEventSynchronize", unsafe { call(self.raw()) }, String::new)
        })
    }

    /// Whether the mark is passed. Does not wait.
    ///
    /// # Errors
    /// The first failure of anything before it.
    pub fn is_done(&self) -> Result<bool, Error> {
        let call = self.context().device().driver().cuEventQuery()?;
        self.context().with_current(|| {
            // SAFETY: a live event.
            match unsafe { call(self.raw()) } {
                CUresult::NOT_READY => Ok(false),
                code => check("cuEventQuery", code, String::new).map(|()| true),
            }
        })
    }

    /// Milliseconds of the device's clock from `start` to this event, in steps of about half a microsecond.
    ///
    /// # Errors
    /// One of them has no clock, was not recorded, or is not passed yet (`CUDA_ERROR_NOT_READY`).
    pub fn milliseconds_since(&self, start: &Self) -> Result<f32, Error> {
        let call = self.context().device().driver().cuEventElapsedTime()?;
        let mut milliseconds = 0f32;
        self.context().with_current(|| {
            // SAFETY: a live float and two live events.
            let code = unsafe { call(&mut milliseconds, start.raw(), self.raw()) };
            check("cuEventElapsedTime", code, String::new)
        })?;
        Ok(milliseconds)
    }

    /// Destroys the event and returns what the driver said. Whoever waits for it already goes on waiting.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`set_drop_error_hook`].
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn close(self) -> Result<(), Error> {
        self.0.close()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("raw", &self.raw()).finish_non_exhaustive()
    }
}
