//! Captures: streams whose work becomes nodes of a graph, and what is refused meanwhile.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::c_uint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;

use kasmina_sys::CUresult;
use kasmina_sys::raw::{
    CUgraph, CUstream, CUstreamCaptureMode as Mode, CUstreamCaptureStatus as Status,
};
use parking_lot::Mutex;

use super::context::Context;
use super::graphs::{Graph, Nodes};
use super::handles::{fresh, pointer};
use super::streams::Stream;
use super::work::Work;
use super::{Outcome, answer, context, give};

/// A capture that has begun and not ended.
pub(crate) struct Capture {
    origin: usize,
    mode: Mode,
    thread: ThreadId,
    spoilt: AtomicBool,
    nodes: Mutex<Nodes>,
    members: Mutex<Vec<Arc<Stream>>>,
}

/// A stream's part in a capture: the nodes that its next one comes after.
pub(crate) struct Joined {
    capture: Arc<Capture>,
    tails: BTreeSet<usize>,
}

/// The place of an event in a capture.
#[derive(Clone)]
pub(crate) struct Mark {
    capture: Arc<Capture>,
    tails: BTreeSet<usize>,
}

/// The captures that are going on.
#[derive(Default)]
pub(crate) struct Captures(Mutex<Vec<Arc<Capture>>>);

thread_local! {
    /// What the thread wants to be kept from.
    static MODE: Cell<Mode> = const { Cell::new(Mode::CU_STREAM_CAPTURE_MODE_GLOBAL) };
}

impl Capture {
    fn spoil(&self) {
        self.spoilt.store(true, Ordering::Release);
    }

    fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Acquire)
    }
}

/// Makes a node of the work where the stream is captured; else gives it back.
pub(crate) fn take(stream: &Stream, work: Work) -> Result<Option<Work>, CUresult> {
    let mut joined = stream.joined.lock();
    let Some(joined) = joined.as_mut() else {
        return Ok(Some(work));
    };
    if joined.capture.is_spoilt() {
        return Err(CUresult::STREAM_CAPTURE_INVALIDATED);
    }
    let node = joined.capture.nodes.lock().add(work, joined.tails.iter().copied());
    joined.tails = BTreeSet::from([node]);
    Ok(None)
}

/// The mark of an event that is recorded on a captured stream; nothing on others.
pub(crate) fn mark(stream: &Stream) -> Result<Option<Mark>, CUresult> {
    let joined = stream.joined.lock();
    let Some(joined) = joined.as_ref() else { return Ok(None) };
    if joined.capture.is_spoilt() {
        return Err(CUresult::STREAM_CAPTURE_INVALIDATED);
    }
    Ok(Some(Mark { capture: Arc::clone(&joined.capture), tails: joined.tails.clone() }))
}

/// A wait for an event: whether it was settled here because a capture has to do with it.
pub(crate) fn join(stream: &Arc<Stream>, mark: Option<Mark>) -> Result<bool, CUresult> {
    let mut joined = stream.joined.lock();
    match (joined.as_mut(), mark) {
        (None, None) => Ok(false),
        (Some(own), None) => {
            own.capture.spoil();
            Err(CUresult::STREAM_CAPTURE_ISOLATION)
        }
        (None, Some(mark)) => {
            let context = context::the();
            if !context.captures.0.lock().iter().any(|active| Arc::ptr_eq(active, &mark.capture)) {
                // Its capture has ended: there is nothing left to wait for.
                return Err(CUresult::INVALID_VALUE);
            }
            if stream.is_default() {
                mark.capture.spoil();
                return Err(CUresult::STREAM_CAPTURE_IMPLICIT);
            }
            mark.capture.members.lock().push(Arc::clone(stream));
            *joined = Some(Joined { capture: mark.capture, tails: mark.tails });
            Ok(true)
        }
        (Some(own), Some(mark)) => {
            if !Arc::ptr_eq(&own.capture, &mark.capture) {
                own.capture.spoil();
                mark.capture.spoil();
                return Err(CUresult::STREAM_CAPTURE_MERGE);
            }
            own.tails.extend(mark.tails);
            Ok(true)
        }
    }
}

/// Spoils the capture that the stream is in.
pub(crate) fn spoil(stream: &Stream) {
    if let Some(joined) = stream.joined.lock().as_ref() {
        joined.capture.spoil();
    }
}

/// Refuses a call that a captured stream cannot take, to the harm of its capture.
pub(crate) fn forbid_on(context: &Context, stream: &Stream) -> Outcome {
    if let Some(joined) = stream.joined.lock().as_ref() {
        joined.capture.spoil();
        return Err(CUresult::STREAM_CAPTURE_UNSUPPORTED);
    }
    if stream.is_default() {
        // The default stream would wait for what is captured.
        let captures = context.captures.0.lock();
        let waits = |capture: &&Arc<Capture>| {
            capture.members.lock().iter().any(|member| member.is_blocking())
        };
        if let Some(capture) = captures.iter().find(waits) {
            capture.spoil();
            return Err(CUresult::STREAM_CAPTURE_IMPLICIT);
        }
    }
    Ok(())
}

/// Refuses a call that could conflict with captures, to their harm, unless the thread has said that it keeps away from them.
pub(crate) fn forbid_beside(context: &Context) -> Outcome {
    let (own, here) = (MODE.get(), std::thread::current().id());
    if own == Mode::CU_STREAM_CAPTURE_MODE_RELAXED {
        return Ok(());
    }
    let is_global = own == Mode::CU_STREAM_CAPTURE_MODE_GLOBAL;
    let mut forbidden = false;
    for capture in context.captures.0.lock().iter() {
        let concerns = match capture.mode {
            Mode::CU_STREAM_CAPTURE_MODE_GLOBAL => is_global || capture.thread == here,
            Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL => capture.thread == here,
            _ => false,
        };
        if concerns {
            capture.spoil();
            forbidden = true;
        }
    }
    if forbidden { Err(CUresult::STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
}

pub(crate) unsafe extern "C" fn exchange_mode(mode: *mut Mode) -> CUresult {
    answer(|| {
        // SAFETY: null or the caller's mode.
        let mode = unsafe { mode.as_mut() }.ok_or(CUresult::INVALID_VALUE)?;
        if mode.0 > 2 {
            return Err(CUresult::INVALID_VALUE);
        }
        *mode = MODE.replace(*mode);
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn begin(stream: CUstream, mode: Mode) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let stream = context.streams.get(stream)?;
        if mode.0 > 2 {
            return Err(CUresult::INVALID_VALUE);
        }
        if stream.is_default() {
            return Err(CUresult::STREAM_CAPTURE_UNSUPPORTED);
        }
        let mut joined = stream.joined.lock();
        if joined.is_some() {
            return Err(CUresult::ILLEGAL_STATE);
        }
        let capture = Arc::new(Capture {
            origin: stream.handle(),
            mode,
            thread: std::thread::current().id(),
            spoilt: AtomicBool::new(false),
            nodes: Mutex::default(),
            members: Mutex::new(vec![Arc::clone(&stream)]),
        });
        context.captures.0.lock().push(Arc::clone(&capture));
        *joined = Some(Joined { capture, tails: BTreeSet::new() });
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn end(stream: CUstream, graph: *mut CUgraph) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let stream = context.streams.get(stream)?;
        if graph.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        let capture = match stream.joined.lock().as_ref() {
            None => return Err(CUresult::ILLEGAL_STATE),
            Some(joined) if joined.capture.origin != stream.handle() => {
                joined.capture.spoil();
                return Err(CUresult::STREAM_CAPTURE_UNMATCHED);
            }
            Some(joined) => Arc::clone(&joined.capture),
        };
        let is_bound = capture.mode != Mode::CU_STREAM_CAPTURE_MODE_RELAXED;
        if is_bound && capture.thread != std::thread::current().id() {
            return Err(CUresult::STREAM_CAPTURE_WRONG_THREAD);
        }
        context.captures.0.lock().retain(|active| !Arc::ptr_eq(active, &capture));
        // Whatever comes of it, all its streams are free again.
        let members = std::mem::take(&mut *capture.members.lock());
        let parts: Vec<Joined> =
            members.iter().filter_map(|member| member.joined.lock().take()).collect();
        // SAFETY: a live place for a handle.
        unsafe { give(graph, std::ptr::null_mut()) }?;
        if capture.is_spoilt() {
            return Err(CUresult::STREAM_CAPTURE_INVALIDATED);
        }
        let nodes = std::mem::take(&mut *capture.nodes.lock());
        // The origin is the first member.
        let (origin, others) = parts.split_first().ok_or(CUresult::UNKNOWN)?;
        let reached = nodes.before(&origin.tails);
        if others.iter().any(|other| !other.tails.is_subset(&reached)) {
            return Err(CUresult::STREAM_CAPTURE_UNJOINED);
        }
        let handle = fresh();
        context.graphs.add(handle, Arc::new(Graph::of(nodes)));
        // SAFETY: as above.
        unsafe { give(graph, pointer(handle)) }
    })
}

pub(crate) unsafe extern "C" fn is_capturing(stream: CUstream, status: *mut Status) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let stream = context.streams.get(stream)?;
        let found = match stream.joined.lock().as_ref() {
            None => Status::CU_STREAM_CAPTURE_STATUS_NONE,
            Some(joined) if joined.capture.is_spoilt() => {
                Status::CU_STREAM_CAPTURE_STATUS_INVALIDATED
            }
            Some(_) => Status::CU_STREAM_CAPTURE_STATUS_ACTIVE,
        };
        if stream.is_default() {
            let captures = context.captures.0.lock();
            if captures
                .iter()
                .any(|capture| capture.members.lock().iter().any(|member| member.is_blocking()))
            {
                return Err(CUresult::STREAM_CAPTURE_IMPLICIT);
            }
        }
        // SAFETY: the caller's place for a status.
        unsafe { give(status, found) }
    })
}

/// The flags that a graph may be made with.
pub(crate) fn no_flags(flags: c_uint) -> Outcome {
    if flags == 0 { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}
