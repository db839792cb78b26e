//! Passes without launches: a grid that stays on the device and is fed from a queue.
//!
//! A launch costs some microseconds, a step of a small layer less than one. [`PersistentExecutor`] keeps a grid resident, hands it
//! [`ResidentStep`]s through page-locked memory, and tells by [`Ticket`]s when they are done. What makes this safe:
//!
//! * *It always ends.* After some milliseconds without work the grid ends by itself, and the next step starts it again. Nothing on the
//!   device waits longer than the watchdog allows, and dropping the executor ends the grid.
//! * *It cannot wait in a circle.* All blocks run at once (a cooperative launch, or none), go through one sequence of steps and items in
//!   the same order, and wait only for what is earlier in it.
//! * *Order is kept.* Steps and items that touch the same memory, one of them writing, run in the order of submission; a pass of
//!   [`CudaLayer`](super::CudaLayer) outside waits for the steps that use the layer; a step runs after what was queued before it on the streams of
//!   its layers and matrices, for which `submit` waits ([`PersistentExecutor::launch_on`] does not).
//!
//! Where there can be no grid, or a step has something that needs kernels of its own, the same calls launch, and
//! [`PersistentExecutor::report`] says why.
//!
//! ```no_run
//! use std::sync::Arc;
//! use kasmina_core::cuda::{CudaLayer, Engine, ExecutorOptions, PersistentExecutor, SharedMatrix, ResidentStepBuilder};
//! use kasmina_core::{ForwardOptions, Layer, SeedLayout};
//! use kasmina_sys::{Driver, Stream};
//! use parking_lot::Mutex;
//!
//! let engine = Engine::new(Driver::load()?.device(0)?)?;
//! let stream = Stream::new(engine.context())?;
//! let layer = Layer::builder(SeedLayout::new(768, 48)?).build()?;
//! let layer = Arc::new(Mutex::new(CudaLayer::from_layer(&layer, &engine, &stream)?));
//! let x = SharedMatrix::<f32>::zeroed(&stream, 32, 768)?;
//! let y = SharedMatrix::<f32>::zeroed(&stream, 32, 768)?;
//!
//! let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
//! let mut step = ResidentStepBuilder::new();
//! step.forward(&layer, &x, &y, &ForwardOptions::new())?;
//! let step = step.build()?;
//! for _ in 0..1000 {
//!     executor.submit(&step)?.wait()?;
//! }
//! println!("{}", executor.report());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cut;
mod error;
mod grid;
mod matrix;
#[cfg(test)]
mod model;
mod options;
mod plain;
mod queue;
mod records;
mod report;
mod service;
mod step;
mod ticket;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use kasmina_sys::{Event, Stream};
use parking_lot::{Condvar, Mutex, MutexGuard};

pub use error::ExecutorError;
pub use matrix::SharedMatrix;
pub use options::ExecutorOptions;
#[doc(hidden)]
pub use plain::launch_plainly;
pub use queue::Priority;
pub use report::ExecutorReport;
pub use step::{ResidentStep, ResidentStepBuilder, SharedLayer};
pub use ticket::Ticket;

pub(super) use grid::{RESIDENT_ARGUMENTS, RUN_ARGUMENTS};

use super::engine::Engine;
use super::error::CudaError;
use grid::Grid;
use queue::{Ordered, Queue};
use step::{Locked, StepInner};
use ticket::{Stage, Submitted};

/// A grid that stays on the device, with a queue of steps. See the [module](self) for what it promises.
///
/// Any number of threads submit to one; share it by reference or [`Arc`].
#[derive(Debug)]
pub struct PersistentExecutor {
    shared: Arc<Shared>,
    service: Option<JoinHandle<()>>,
}

/// What callers, tickets and the service thread have in common.
pub(super) struct Shared {
    id: u64,
    engine: Arc<Engine>,
    options: ExecutorOptions,
    /// For uploads, which wait for nothing on it but themselves.
    uploads: Stream,
    state: Mutex<State>,
    /// The service thread has something to see to.
    work: Condvar,
    /// The queue has room.
    room: Condvar,
    /// `None`: everything runs by launches.
    grid: Option<Grid>,
    why_no_grid: Option<String>,
    stopping: AtomicBool,
}

struct State {
    queue: Queue<Queued>,
    /// Steps that are on streams.
    launched: Vec<Queued>,
    fault: Option<ExecutorError>,
    report: ExecutorReport,
    /// Whether streams or graphs may hand steps to the grid.
    is_bound: bool,
}

/// A submitted step.
struct Queued {
    step: Arc<StepInner>,
    record: u64,
    ticket: Arc<Submitted>,
}

impl Ordered for Queued {
    fn conflicts(&self, other: &Self) -> bool {
        self.step.conflicts(&other.step)
    }
}

impl PersistentExecutor {
    /// An executor on the device of `engine`, its grid running; or one that launches, where there can be no grid: see
    /// [`ExecutorReport::why_no_grid`].
    ///
    /// # Errors
    /// The kernels are missing, out of memory, or the driver failed.
    pub fn new(engine: &Arc<Engine>, options: ExecutorOptions) -> Result<Self, CudaError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let uploads = Stream::new(engine.context())?;
        let (grid, why_no_grid) = match Grid::new(engine, &options)? {
            Ok(grid) => (Some(grid), None),
            Err(reason) => {
                tracing::warn!(target: "kasmina::executor", %reason, "no resident grid; steps run by launches");
                (None, Some(reason))
            }
        };
        let report =
            ExecutorReport::new(grid.as_ref().map_or(0, Grid::workers), why_no_grid.clone());
        let shared = Arc::new(Shared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            engine: Arc::clone(engine),
            uploads,
            grid,
            why_no_grid,
            state: Mutex::new(State {
                queue: Queue::new(options.window),
                launched: Vec::new(),
                fault: None,
                report,
                is_bound: false,
            }),
            work: Condvar::new(),
            room: Condvar::new(),
            stopping: AtomicBool::new(false),
            options,
        });
        let service = service::start(&shared)?;
        Ok(Self { shared, service: Some(service) })
    }

    /// Submits a step; where the queue is full, waits until there is room.
    ///
    /// # Errors
    /// A pass of the step is refused, as by [`CudaLayer::forward`](super::CudaLayer::forward); the executor has failed; or the driver did.
    pub fn submit(&self, step: &ResidentStep) -> Result<Ticket, CudaError> {
        self.submit_with(step, Priority::default())
    }

    /// The same with a priority.
    ///
    /// # Errors
    /// As [`PersistentExecutor::submit`].
    pub fn submit_with(
        &self,
        step: &ResidentStep,
        priority: Priority,
    ) -> Result<Ticket, CudaError> {
        loop {
            match self.shared.submit(step, priority) {
                Err(CudaError::Executor(ExecutorError::Full { .. })) => self.shared.wait_for_room(),
                other => return other,
            }
        }
    }

    /// The same without ever waiting for room.
    ///
    /// # Errors
    /// [`ExecutorError::Full`], nothing changed; and those of [`PersistentExecutor::submit`].
    pub fn try_submit(&self, step: &ResidentStep, priority: Priority) -> Result<Ticket, CudaError> {
        self.shared.submit(step, priority)
    }

    /// Makes a step's record on the device as the layers are now, without running it: for [`PersistentExecutor::launch_on`].
    ///
    /// # Errors
    /// [`ExecutorError::ByLaunches`] for a step that the grid cannot run, and those of [`PersistentExecutor::submit`].
    pub fn prepare(&self, step: &ResidentStep) -> Result<(), CudaError> {
        self.shared.prepare(step)
    }

    /// Queues a small kernel on `stream` that hands the step to the grid and waits until it is done: for steps between other work of the
    /// stream, and for captured graphs. The step runs as it was prepared: what the layers' commands change later, a graph does not see until
    /// `prepare` is called again. The layers' own passes do not wait for it. They count its passes, once for each call that captures nothing;
    /// replays of a graph they do not know of.
    ///
    /// # Safety
    /// Until the stream, or the last replay of the graph, is done: the step, its layers and the executor are kept; the step is neither prepared nor
    /// submitted again; and nothing else is done to the layers but to read them.
    ///
    /// # Errors
    /// [`ExecutorError::NotPrepared`], or the driver refused.
    pub unsafe fn launch_on(&self, step: &ResidentStep, stream: &Stream) -> Result<(), CudaError> {
        self.shared.launch_on(step, stream)
    }

    /// Lets the grid end as soon as it has done what it was given, and not after [`ExecutorOptions::idle`]: for work outside that wants the
    /// multiprocessors. The next step starts it again. Does not wait.
    pub fn let_grid_go(&self) {
        self.shared.let_grid_go();
    }

    /// Why no step runs on a grid any more, or ever did: there is none, it failed, or the executor was stopped.
    pub(in crate::cuda) fn why_not(&self) -> Option<String> {
        self.shared.look_after();
        match self.shared.fault() {
            Some(fault) => Some(fault.to_string()),
            None => self.shared.why_no_grid.clone(),
        }
    }

    /// What has run so far, where, and why.
    pub fn report(&self) -> ExecutorReport {
        self.shared.report()
    }

    /// Waits until everything submitted so far is done.
    ///
    /// # Errors
    /// The executor has failed.
    pub fn drain(&self) -> Result<(), CudaError> {
        self.shared.drain()
    }

    /// Ends the grid after what is with the device; what still waits on the host gets [`ExecutorError::Stopped`]. Dropping does the same
    /// and says nothing.
    ///
    /// # Errors
    /// The grid failed.
    pub fn stop(mut self) -> Result<(), CudaError> {
        self.end();
        self.shared.fault().map_or(Ok(()), |fault| Err(fault.into()))
    }

    fn end(&mut self) {
        self.shared.stop();
        if let Some(service) = self.service.take()
            && service.join().is_err()
        {
            tracing::error!(target: "kasmina::executor", "a callback panicked on the executor's thread");
        }
    }
}

impl Drop for PersistentExecutor {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    pub(super) fn completed(&self) -> u64 {
        self.grid.as_ref().map_or(0, Grid::completed)
    }

    pub(super) fn fault(&self) -> Option<ExecutorError> {
        let known = self.state.lock().fault.clone();
        known.or_else(|| self.grid.as_ref().and_then(Grid::fault))
    }

    /// The next step for it starts another one.
    pub(super) fn let_grid_go(&self) {
        if let Some(grid) = &self.grid {
            // One thread at a time writes the mailbox's word.
            let _state = self.state.lock();
            grid.stop();
        }
    }

    pub(super) fn wake(&self) {
        self.work.notify_all();
    }

    fn submit(
        self: &Arc<Self>,
        step: &ResidentStep,
        priority: Priority,
    ) -> Result<Ticket, CudaError> {
        let step = &step.0;
        self.check_room()?;
        let streams = &step.streams;
        for stream in streams {
            if stream.is_capturing()? {
                return Err(ExecutorError::Capturing.into());
            }
        }
        let mut layers = step.lock();
        let ticket = Ticket::new(self, Stage::Waiting);
        let submitted = match self.record(step, &mut layers)? {
            Ok((grid, record)) => {
                let at = (grid, record);
                self.submit_to_grid(at, step, &mut layers, streams, priority, &ticket)
            }
            Err(reason) => self.submit_launches(step, &mut layers, streams, reason, &ticket),
        };
        if submitted.is_err() {
            // Layers may have been told of it.
            ticket.0.finish(Err(ExecutorError::Stopped));
        }
        submitted.map(|()| ticket)
    }

    /// The grid and the address of the step's record, made anew where the layers have changed; or why the step is not for the grid.
    fn record(
        &self,
        step: &Arc<StepInner>,
        layers: &mut Locked<'_>,
    ) -> Result<Result<(&Grid, u64), String>, CudaError> {
        let Some(grid) = &self.grid else {
            return Ok(Err(self.why_no_grid.clone().unwrap_or_default()));
        };
        let stamps = step.stamps(layers)?;
        if let Some(record) = step.unchanged(self.id, &stamps) {
            step.note(layers)?;
            return Ok(Ok((grid, record)));
        }
        if let Some(reason) = step.not_resident(layers)? {
            return Ok(Err(reason));
        }
        let lowered = step.lower(layers, grid.machine())?;
        // What lowering has made is part of what it was made from.
        let stamps = step.stamps(layers)?;
        let uses = |queued: &Queued| Arc::ptr_eq(&queued.step, step);
        let unused = |state: &State| !state.queue.any(uses) && !state.launched.iter().any(uses);
        let before = || self.settle(unused).map(drop);
        let record = step.upload(grid, self.id, &self.uploads, (lowered, stamps), before)?;
        Ok(Ok((grid, record)))
    }

    fn submit_to_grid(
        &self,
        (grid, record): (&Grid, u64),
        step: &Arc<StepInner>,
        layers: &mut Locked<'_>,
        streams: &[Stream],
        priority: Priority,
        ticket: &Ticket,
    ) -> Result<(), CudaError> {
        for stream in streams {
            // A grid follows no stream. (A kernel that waited in the stream for a grid that is not there yet could keep it from coming.)
            if !stream.is_idle()? {
                stream.synchronize()?;
                self.state.lock().report.waited_for_streams += 1;
            }
        }
        layers.iter().for_each(|layer| layer.residents().note(ticket.clone()));
        let queued = Queued { step: Arc::clone(step), record, ticket: Arc::clone(&ticket.0) };
        // A step on a stream whose memory this one touches: what this one's own streams did not show.
        let mut state =
            self.settle(|state| !state.launched.iter().any(|other| other.conflicts(&queued)))?;
        state.queue.push(queued, priority);
        state.report.submitted += 1;
        let pumped = state.pump(grid);
        drop(state);
        self.work.notify_all();
        pumped
    }

    /// By launches, for a reason.
    fn submit_launches(
        &self,
        step: &Arc<StepInner>,
        layers: &mut Locked<'_>,
        streams: &[Stream],
        reason: String,
        ticket: &Ticket,
    ) -> Result<(), CudaError> {
        drop(self.settle(|state| !state.queue.any(|queued| queued.step.conflicts(step)))?);
        // Its blocks have the shared memory that launches want.
        self.let_grid_go();
        ticket.0.by_launches(reason.clone());
        step.launch(layers)?;
        let mut state = self.state.lock();
        state.report.by_launches += 1;
        state.report.last_reason = Some(reason);
        self.launched(state, step, streams, ticket)
    }

    /// Gives the ticket what it needs to know of a step that was just queued on the first of `streams`, or on all.
    fn launched(
        &self,
        mut state: MutexGuard<'_, State>,
        step: &Arc<StepInner>,
        streams: &[Stream],
        ticket: &Ticket,
    ) -> Result<(), CudaError> {
        let mut events = Vec::new();
        for stream in streams {
            if let Some(first) = streams.first().filter(|first| !first.same_queue(stream)) {
                stream.join(first)?;
            }
            let event = Event::new(self.engine.context())?;
            event.record(stream)?;
            events.push(event);
        }
        ticket.0.launched(events);
        state.launched.push(Queued {
            step: Arc::clone(step),
            record: 0,
            ticket: Arc::clone(&ticket.0),
        });
        state.report.submitted += 1;
        drop(state);
        self.work.notify_all();
        Ok(())
    }

    /// Waits until `settled` holds.
    fn settle(&self, settled: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>, CudaError> {
        loop {
            self.look_after();
            let state = self.state.lock();
            if let Some(fault) = &state.fault {
                return Err(fault.clone().into());
            }
            if self.stopping.load(Ordering::Acquire) {
                return Err(ExecutorError::Stopped.into());
            }
            if settled(&state) {
                return Ok(state);
            }
            drop(state);
            std::thread::yield_now();
        }
    }

    fn prepare(&self, step: &ResidentStep) -> Result<(), CudaError> {
        let step = &step.0;
        let mut layers = step.lock();
        let counts: Vec<_> = layers.iter().map(|layer| layer.passes_counted()).collect();
        let recorded = self.record(step, &mut layers);
        // Nothing has run.
        layers.iter_mut().zip(counts).for_each(|(layer, counts)| layer.count_passes_as(counts));
        if let Err(reason) = recorded? {
            return Err(ExecutorError::ByLaunches { reason }.into());
        }
        // What lowering has queued.
        step.streams.iter().try_for_each(Stream::synchronize)?;
        Ok(())
    }

    fn launch_on(&self, step: &ResidentStep, stream: &Stream) -> Result<(), CudaError> {
        let mut layers = step.0.lock();
        let record = {
            let device = step.0.device.lock();
            let kept = device.as_ref().filter(|kept| kept.executor == self.id);
            kept.map(|kept| kept.record.address()).ok_or(ExecutorError::NotPrepared)?
        };
        let Some(grid) = &self.grid else { return Err(ExecutorError::NotPrepared.into()) };
        grid.run_on(stream, record)?;
        if !stream.is_capturing()? {
            step.0.note(&mut layers)?;
        }
        self.state.lock().is_bound = true;
        self.work.notify_all();
        Ok(())
    }

    fn check_room(&self) -> Result<(), CudaError> {
        self.look_after();
        let state = self.state.lock();
        if let Some(fault) = &state.fault {
            return Err(fault.clone().into());
        }
        let capacity = self.options.capacity;
        if state.queue.waiting() >= capacity {
            return Err(ExecutorError::Full { capacity }.into());
        }
        Ok(())
    }

    fn wait_for_room(&self) {
        let mut state = self.state.lock();
        if state.queue.waiting() >= self.options.capacity {
            self.room.wait_for(&mut state, service::GLANCE);
        }
    }

    fn drain(&self) -> Result<(), CudaError> {
        self.settle(|state| state.queue.is_empty() && state.launched.is_empty()).map(drop)
    }

    fn report(&self) -> ExecutorReport {
        self.look_after();
        self.state.lock().report.clone()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("id", &self.id)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
