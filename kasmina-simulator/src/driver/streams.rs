//! Streams: a thread each, which does what was queued in its order.

use std::collections::VecDeque;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::{Arc, OnceLock};

use kasmina_sys::CUresult;
use kasmina_sys::raw::{CUhostFn, CUstream, CUstream_flags};
use parking_lot::{Condvar, Mutex};

use super::capture::{self, Joined};
use super::context::{self, Context};
use super::events::{Event, GLANCE};
use super::graphs::Plan;
use super::handles::{Table, fresh, pointer};
use super::memory::Block;
use super::pools::Pool;
use super::work::{HostCall, Work};
use super::{Outcome, answer, give};

/// The range of priorities, which this device has and does not look at.
pub(crate) const LEAST: c_int = 0;
pub(crate) const GREATEST: c_int = -5;

/// One entry of a queue.
pub(crate) enum Op {
    /// Work of the device.
    Work(Work),
    /// All work of a graph.
    Graph(Arc<Plan>),
    /// The recording of an event.
    Record(Arc<Event>, u64),
    /// A wait for one.
    Wait(Arc<Event>, u64),
    /// A wait for another stream to have done so many entries.
    Follow(Arc<Stream>, u64),
    /// Memory of a pool begins to be there.
    Birth(Arc<Block>, usize),
    /// It ends; the pool has the block back, under the number of this release.
    Death(Arc<Block>, Arc<Pool>, u64),
}

/// A stream.
pub(crate) struct Stream {
    handle: usize,
    priority: c_int,
    /// Whether it and the default stream wait for each other.
    blocking: bool,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// The capture that it takes part in.
    pub(crate) joined: Mutex<Option<Joined>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Op>,
    queued: u64,
    done: u64,
    closing: bool,
}

/// The streams of the context, the default one among them.
#[derive(Default)]
pub(crate) struct Streams {
    table: Table<Stream>,
    default: OnceLock<Arc<Stream>>,
}

impl Streams {
    fn default_stream(&self) -> &Arc<Stream> {
        self.default.get_or_init(|| Stream::start(0, LEAST, true))
    }

    /// The stream of this handle; null is the default one.
    pub(crate) fn get(&self, handle: CUstream) -> Result<Arc<Stream>, CUresult> {
        if handle.is_null() {
            return Ok(Arc::clone(self.default_stream()));
        }
        self.table.get(handle)
    }

    /// All that live; the default one if it was used.
    pub(crate) fn all(&self) -> Vec<Arc<Stream>> {
        let mut all = self.table.all();
        all.extend(self.default.get().cloned());
        all
    }

    /// Waits for everything that is queued anywhere.
    pub(crate) fn drain(&self) -> Outcome {
        for stream in self.all() {
            stream.wait()?;
        }
        context::the().alive()
    }

    /// Lets go of all but the default one, which the next owner of the context finds again.
    pub(crate) fn clear(&self) {
        for stream in self.table.all() {
            stream.close();
        }
        self.table.clear();
    }
}

impl Stream {
    fn start(handle: usize, priority: c_int, blocking: bool) -> Arc<Self> {
        let stream = Arc::new(Self {
            handle,
            priority,
            blocking,
            queue: Mutex::default(),
            changed: Condvar::new(),
            joined: Mutex::new(None),
        });
        let own = Arc::clone(&stream);
        let name = format!("stream {handle:#x}");
        if let Err(error) = std::thread::Builder::new().name(name).spawn(move || own.run()) {
            context::the().end(
                CUresult::OPERATING_SYSTEM,
                &format!("a stream's thread cannot be started: {error}"),
            );
        }
        stream
    }

    /// Its handle's number.
    pub(crate) fn handle(&self) -> usize {
        self.handle
    }

    /// Whether it is the default stream.
    pub(crate) fn is_default(&self) -> bool {
        self.handle == 0
    }

    /// Whether it and the default stream wait for each other.
    pub(crate) fn is_blocking(&self) -> bool {
        self.blocking
    }

    /// Queues an entry; its number.
    pub(crate) fn queue(&self, op: Op) -> u64 {
        self.queue_with(|| op)
    }

    /// Queues an entry that is made while nothing else can be queued here; its number.
    pub(crate) fn queue_with(&self, op: impl FnOnce() -> Op) -> u64 {
        let before = self.before();
        let mut queue = self.queue.lock();
        for op in before.into_iter().chain(std::iter::once(op())) {
            queue.waiting.push_back(op);
            queue.queued += 1;
        }
        self.changed.notify_all();
        queue.queued
    }

    /// What an entry waits for by the rules of the default stream.
    fn before(&self) -> Vec<Op> {
        let streams = &context::the().streams;
        let others: Vec<Arc<Self>> = if self.is_default() {
            streams.table.all().into_iter().filter(|stream| stream.blocking).collect()
        } else if self.blocking {
            streams.default.get().cloned().into_iter().collect()
        } else {
            return Vec::new();
        };
        let waits = others.into_iter().filter_map(|other| {
            let queue = other.queue.lock();
            let number = queue.queued;
            let is_idle = queue.done == number;
            drop(queue);
            (!is_idle).then(|| Op::Follow(other, number))
        });
        waits.collect()
    }

    /// Waits until what is queued now is done.
    pub(crate) fn wait(&self) -> Outcome {
        let number = self.queue.lock().queued;
        self.wait_for(number)
    }

    fn wait_for(&self, number: u64) -> Outcome {
        let mut queue = self.queue.lock();
        while queue.done < number {
            context::the().alive()?;
            self.changed.wait_for(&mut queue, GLANCE);
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        let queue = self.queue.lock();
        queue.done == queue.queued
    }

    /// Lets its thread end once everything queued is done.
    fn close(&self) {
        self.queue.lock().closing = true;
        self.changed.notify_all();
    }

    /// The stream's thread.
    fn run(&self) {
        loop {
            let op = {
                let mut queue = self.queue.lock();
                loop {
                    if let Some(op) = queue.waiting.pop_front() {
                        break op;
                    }
                    if queue.closing {
                        return;
                    }
                    self.changed.wait(&mut queue);
                }
            };
            // Whatever it panics of is this library's defect; the streams that wait for this one must hear of it.
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| perform(op)));
            if ran.is_err() {
                context::the().end(CUresult::UNKNOWN, "the simulator itself panicked; see above");
            }
            self.queue.lock().done += 1;
            self.changed.notify_all();
        }
    }
}

fn perform(op: Op) {
    let context = context::the();
    match op {
        // In an ended context nothing runs any more, and nobody waits for it in vain.
        Op::Work(work) if context.alive().is_ok() => work.perform(),
        Op::Graph(plan) if context.alive().is_ok() => plan.perform(),
        Op::Work(_) | Op::Graph(_) => {}
        Op::Record(event, number) => event.pass(number),
        // An ended context ends the wait, which is all that there is to do about it here.
        Op::Wait(event, number) => drop(event.wait(number)),
        Op::Follow(other, number) => drop(other.wait_for(number)),
        Op::Birth(block, bytes) => context.memory.begin(&block, bytes),
        Op::Death(block, pool, number) => {
            context.memory.finish(&block);
            pool.take_back(&block, number);
        }
    }
}

/// Queues work, or makes a node of it where the stream is captured.
pub(crate) fn submit(stream: &Arc<Stream>, work: Work) -> Outcome {
    match capture::take(stream, work)? {
        Some(work) => {
            stream.queue(Op::Work(work));
            Ok(())
        }
        None => Ok(()),
    }
}

pub(crate) unsafe extern "C" fn create(
    stream: *mut CUstream,
    flags: c_uint,
    priority: c_int,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        if flags & !CUstream_flags::CU_STREAM_NON_BLOCKING.0 != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let handle = fresh();
        let priority = priority.clamp(GREATEST, LEAST);
        let made = Stream::start(handle, priority, flags == CUstream_flags::CU_STREAM_DEFAULT.0);
        context.streams.table.add(handle, made);
        // SAFETY: the caller's place for a handle.
        unsafe { give(stream, pointer(handle)) }
    })
}

pub(crate) unsafe extern "C" fn destroy(stream: CUstream) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let found = context.streams.table.get(stream)?;
        if found.joined.lock().is_some() {
            capture::spoil(&found);
        }
        context.streams.table.remove(stream)?.close();
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn synchronize(stream: CUstream) -> CUresult {
    answer(|| {
        let (context, stream) = quiet(stream)?;
        stream.wait()?;
        context.alive()
    })
}

pub(crate) unsafe extern "C" fn query(stream: CUstream) -> CUresult {
    answer(|| {
        let (_, stream) = quiet(stream)?;
        if stream.is_idle() { Ok(()) } else { Err(CUresult::NOT_READY) }
    })
}

/// The stream, for a question that spoils a capture.
fn quiet(stream: CUstream) -> Result<(&'static Context, Arc<Stream>), CUresult> {
    let context = context::current()?;
    let stream = context.streams.get(stream)?;
    capture::forbid_on(context, &stream)?;
    capture::forbid_beside(context)?;
    Ok((context, stream))
}

pub(crate) unsafe extern "C" fn priority(stream: CUstream, priority: *mut c_int) -> CUresult {
    answer(|| {
        let stream = context::current()?.streams.get(stream)?;
        // SAFETY: the caller's place for an integer.
        unsafe { give(priority, stream.priority) }
    })
}

pub(crate) unsafe extern "C" fn call_host(
    stream: CUstream,
    function: CUhostFn,
    data: *mut c_void,
) -> CUresult {
    answer(|| {
        let stream = context::current()?.streams.get(stream)?;
        let function = function.ok_or(CUresult::INVALID_VALUE)?;
        submit(&stream, Work::Host(HostCall { function, data: data.addr() }))
    })
}
