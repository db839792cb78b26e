//! What a submitted step is waited for by.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kasmina_sys::Event;
use parking_lot::{Condvar, Mutex};

use super::Shared;
use super::error::ExecutorError;
use crate::cuda::residents::Resident;

type Callback = Box<dyn FnOnce(&Result<(), ExecutorError>) + Send>;

/// A step that was submitted. Dropping it drops nothing else: the step runs.
#[derive(Clone)]
#[must_use = "a step runs without it, but nobody would know when it is done"]
pub struct Ticket(pub(super) Arc<Submitted>);

pub(super) struct Submitted {
    shared: Arc<Shared>,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Why it was launched, if it was.
    launched_because: OnceLock<String>,
}

struct Progress {
    stage: Stage,
    callbacks: Vec<Callback>,
}

pub(super) enum Stage {
    /// On the host.
    Waiting,
    /// With the grid, as this number of the mailbox.
    InFlight(u64),
    /// Queued on streams.
    Launched(Vec<Event>),
    Done(Result<(), ExecutorError>),
}

/// A wait looks at memory for so long, which is how long most steps take, before it sleeps between looks.
const EAGER: Duration = Duration::from_micros(100);
const NAP: Duration = Duration::from_micros(50);

impl Ticket {
    pub(super) fn new(shared: &Arc<Shared>, stage: Stage) -> Self {
        let progress = Mutex::new(Progress { stage, callbacks: Vec::new() });
        let (changed, launched_because) = (Condvar::new(), OnceLock::new());
        let shared = Arc::clone(shared);
        Self(Arc::new(Submitted { shared, progress, changed, launched_because }))
    }

    /// Whether the step is done, or will never be. Does not wait.
    pub fn is_done(&self) -> bool {
        self.0.poll().is_some()
    }

    /// Why the step runs by launches and not on the grid; `None` where the grid has it.
    pub fn why_launched(&self) -> Option<String> {
        self.0.launched_because.get().cloned()
    }

    /// As [`PersistentExecutor::let_grid_go`](super::PersistentExecutor::let_grid_go).
    pub(in crate::cuda) fn let_grid_go(&self) {
        self.0.shared.let_grid_go();
    }

    /// Waits until the step is done: its results are there for copies, for other streams and for the host.
    ///
    /// # Errors
    /// The step did not run, or not to its end.
    pub fn wait(&self) -> Result<(), ExecutorError> {
        let begun = Instant::now();
        loop {
            if let Some(outcome) = self.0.poll() {
                return outcome;
            }
            if begun.elapsed() < EAGER {
                std::hint::spin_loop();
                continue;
            }
            self.0.shared.look_after();
            let mut progress = self.0.progress.lock();
            if !matches!(progress.stage, Stage::Done(_)) {
                self.0.changed.wait_for(&mut progress, NAP);
            }
        }
    }

    /// The same for at most `limit`; `None` where the step is not done by then.
    ///
    /// # Errors
    /// As [`Ticket::wait`].
    pub fn wait_for(&self, limit: Duration) -> Result<Option<()>, ExecutorError> {
        let begun = Instant::now();
        loop {
            if let Some(outcome) = self.0.poll() {
                return outcome.map(Some);
            }
            if begun.elapsed() >= limit {
                return Ok(None);
            }
            if begun.elapsed() > EAGER {
                self.0.shared.look_after();
                std::thread::sleep(NAP.min(limit.saturating_sub(begun.elapsed())));
            }
        }
    }

    /// Has `callback` called once the step is done or will never be: on the executor's own thread, or at once on this one where that
    /// is known already. It must not wait for other steps, which that thread may have to see to.
    pub fn on_done(&self, callback: impl FnOnce(&Result<(), ExecutorError>) + Send + 'static) {
        let outcome = {
            let mut progress = self.0.progress.lock();
            match &progress.stage {
                Stage::Done(outcome) => outcome.clone(),
                _ => {
                    progress.callbacks.push(Box::new(callback));
                    drop(progress);
                    self.0.shared.wake();
                    return;
                }
            }
        };
        callback(&outcome);
    }
}

impl Submitted {
    /// The outcome, if there is one. Looks at the grid's report, and changes nothing that others wait for.
    pub(super) fn poll(&self) -> Option<Result<(), ExecutorError>> {
        let progress = self.progress.lock();
        match &progress.stage {
            Stage::Done(outcome) => Some(outcome.clone()),
            Stage::InFlight(number) if self.shared.completed() >= *number => Some(Ok(())),
            Stage::InFlight(_) | Stage::Waiting => None,
            Stage::Launched(_) => {
                drop(progress);
                let done = self.poll_launched()?;
                // A kernel that found no grid has done nothing.
                Some(self.shared.fault().map_or(done, Err))
            }
        }
    }

    /// The same of what is on streams, without a look at the grid.
    pub(super) fn poll_launched(&self) -> Option<Result<(), ExecutorError>> {
        let progress = self.progress.lock();
        let Stage::Launched(events) = &progress.stage else { return None };
        for event in events {
            match event.is_done() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    return Some(Err(ExecutorError::Device { reason: error.to_string() }));
                }
            }
        }
        Some(Ok(()))
    }

    /// The step is to run by launches, for a reason. Told once.
    pub(super) fn by_launches(&self, reason: String) {
        let _told_before = self.launched_because.set(reason);
    }

    pub(super) fn launched(&self, events: Vec<Event>) {
        self.progress.lock().stage = Stage::Launched(events);
    }

    pub(super) fn handed_over(&self, number: u64) {
        self.progress.lock().stage = Stage::InFlight(number);
    }

    /// Settles the outcome and tells everybody.
    pub(super) fn finish(&self, outcome: Result<(), ExecutorError>) {
        let callbacks = {
            let mut progress = self.progress.lock();
            if matches!(progress.stage, Stage::Done(_)) {
                return;
            }
            progress.stage = Stage::Done(outcome.clone());
            std::mem::take(&mut progress.callbacks)
        };
        self.changed.notify_all();
        for callback in callbacks {
            callback(&outcome);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("done", &self.is_done()).finish_non_exhaustive()
    }
}

impl Resident for Ticket {
    fn is_over(&self) -> bool {
        self.is_done()
    }

    fn outlast(&self) {
        // Also after an error nothing of the step runs any more: the grid has ended, or the context is lost. How it went is the
        // submitter's to ask.
        let _outcome = self.wait();
    }
}
