//! Waits, allocations and releases that neither fail nor do harm while some thread captures a graph.
//!
//! While a thread captures in the driver's strict mode, calls that *could* conflict with it are refused in every thread,
//! also where they have nothing to do with the captured stream, and the capture is spoilt. In a thread-local capture the same
//! goes for the thread itself. A drop cannot come back later, and a copy into a caller's memory must be waited for whatever
//! else goes on; so these calls tell the driver that they stay away from what is being captured. Which calls the driver
//! refuses is not written anywhere: all releases of this crate are exempt, and whatever it allocates or makes of its own accord.
//! What the caller asks for by name, a synchronization or a query, stays as strict as the capture was meant to be.

use std::ffi::c_int;

use crate::context::Context;
use crate::error::{Error, check, report_drop_error};
use crate::raw::CUstreamCaptureMode;

/// Runs `body` with `context` current and this thread exempt from other captures' strictness, and puts the thread's own
/// mode back, also on a panic. `body` makes no call on a stream or event that is being captured.
pub(crate) fn apart_from_captures<R>(
    context: &Context,
    body: impl FnOnce() -> Result<R, Error>,
) -> Result<R, Error> {
    // Without the exemption the call still works wherever nobody captures, and says so itself where it does not.
    let _relaxed = Relaxed::enter(context).ok();
    context.with_current(body)
}

struct Relaxed<'a> {
    context: &'a Context,
    before: CUstreamCaptureMode,
}

impl<'a> Relaxed<'a> {
    fn enter(context: &'a Context) -> Result<Self, Error> {
        let mut mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        exchange(context, &mut mode)?;
        Ok(Self { context, before: mode })
    }
}

impl Drop for Relaxed<'_> {
    fn drop(&mut self) {
        if let Err(error) = exchange(self.context, &mut self.before) {
            report_drop_error(&error);
        }
    }
}

fn exchange(context: &Context, mode: &mut CUstreamCaptureMode) -> Result<(), Error> {
    let call = context.device().driver().cuThreadExchangeStreamCaptureMode()?;
    let asked = mode.0 as c_int;
    // SAFETY: a live mode; the call changes this thread alone.
    let code = unsafe { call(mode) };
    check("cuThreadExchangeStreamCaptureMode", code, || format!("mode {asked}"))
}
