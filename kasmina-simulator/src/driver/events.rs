//! Events: marks that a stream passes, with the time at which it did.

use std::ffi::c_uint;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kasmina_sys::CUresult;
use kasmina_sys::raw::{CUevent, CUevent_flags, CUstream};
use parking_lot::{Condvar, Mutex};

use super::capture::{self, Mark};
use super::handles::{fresh, pointer};
use super::streams::Op;
use super::{Outcome, answer, context, give};

/// How often a wait looks whether the context has ended meanwhile.
pub(crate) const GLANCE: Duration = Duration::from_millis(20);

/// An event.
pub(crate) struct Event {
    timed: bool,
    state: Mutex<Passed>,
    changed: Condvar,
}

#[derive(Default)]
struct Passed {
    /// Recordings that were asked for, and the last one that its stream has come to.
    recorded: u64,
    done: u64,
    at: Option<Instant>,
    /// The place in a capture that it was last recorded at.
    captured: Option<Mark>,
}

impl Event {
    /// One more recording, in no capture; its number.
    fn record(&self) -> u64 {
        let mut state = self.state.lock();
        state.captured = None;
        state.recorded += 1;
        state.recorded
    }

    /// What its stream does when it comes to a recording.
    pub(crate) fn pass(&self, number: u64) {
        let mut state = self.state.lock();
        if state.done < number {
            state.done = number;
            state.at = Some(Instant::now());
        }
        self.changed.notify_all();
    }

    /// Waits until a recording was passed.
    pub(crate) fn wait(&self, number: u64) -> Outcome {
        let mut state = self.state.lock();
        while state.done < number {
            context::the().alive()?;
            self.changed.wait_for(&mut state, GLANCE);
        }
        Ok(())
    }
}

pub(crate) unsafe extern "C" fn create(event: *mut CUevent, flags: c_uint) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let known =
            CUevent_flags::CU_EVENT_BLOCKING_SYNC.0 | CUevent_flags::CU_EVENT_DISABLE_TIMING.0;
        if flags & !known != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let timed = flags & CUevent_flags::CU_EVENT_DISABLE_TIMING.0 == 0;
        let made = Event { timed, state: Mutex::default(), changed: Condvar::new() };
        let handle = fresh();
        context.events.add(handle, Arc::new(made));
        // SAFETY: the caller's place for a handle.
        unsafe { give(event, pointer(handle)) }
    })
}

pub(crate) unsafe extern "C" fn destroy(event: CUevent) -> CUresult {
    // Queued recordings and waits keep what they need.
    answer(|| context::current()?.events.remove(event).map(drop))
}

pub(crate) unsafe extern "C" fn record(event: CUevent, stream: CUstream) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let (event, stream) = (context.events.get(event)?, context.streams.get(stream)?);
        if let Some(mark) = capture::mark(&stream)? {
            event.state.lock().captured = Some(mark);
            return Ok(());
        }
        // Numbered and queued in one step: of two threads that record it, the later one queues later.
        stream.queue_with(|| Op::Record(Arc::clone(&event), event.record()));
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn query(event: CUevent) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let event = context.events.get(event)?;
        capture::forbid_beside(context)?;
        let state = event.state.lock();
        if state.captured.is_some() {
            return Err(CUresult::CAPTURED_EVENT);
        }
        if state.done < state.recorded { Err(CUresult::NOT_READY) } else { Ok(()) }
    })
}

pub(crate) unsafe extern "C" fn synchronize(event: CUevent) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let event = context.events.get(event)?;
        capture::forbid_beside(context)?;
        let number = {
            let state = event.state.lock();
            if state.captured.is_some() {
                return Err(CUresult::CAPTURED_EVENT);
            }
            state.recorded
        };
        event.wait(number)?;
        context.alive()
    })
}

pub(crate) unsafe extern "C" fn elapsed(
    milliseconds: *mut f32,
    start: CUevent,
    end: CUevent,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let (start, end) = (context.events.get(start)?, context.events.get(end)?);
        let at = |event: &Event| {
            let state = event.state.lock();
            if !event.timed || state.recorded == 0 {
                return Err(CUresult::INVALID_HANDLE);
            }
            if state.done < state.recorded {
                return Err(CUresult::NOT_READY);
            }
            state.at.ok_or(CUresult::INVALID_HANDLE)
        };
        let (start, end) = (at(&start)?, at(&end)?);
        let seconds =
            if end >= start { (end - start).as_secs_f64() } else { -(start - end).as_secs_f64() };
        // SAFETY: the caller's place for a float.
        unsafe { give(milliseconds, (seconds * 1e3) as f32) }
    })
}

pub(crate) unsafe extern "C" fn wait_in_stream(
    stream: CUstream,
    event: CUevent,
    flags: c_uint,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let (stream, event) = (context.streams.get(stream)?, context.events.get(event)?);
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let (captured, number) = {
            let state = event.state.lock();
            (state.captured.clone(), state.recorded)
        };
        if capture::join(&stream, captured)? || number == 0 {
            return Ok(());
        }
        stream.queue(Op::Wait(event, number));
        Ok(())
    })
}
