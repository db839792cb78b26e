//! The consumer's thread: takes a batch, waits for it if it is on its way, and gives it to the consumer.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::queue::Batch;
use super::{BoxError, ConsumerState, Shared};
use crate::TelemetryReport;

pub(super) fn spawn<C>(shared: Arc<Shared>, mut consumer: C) -> std::io::Result<JoinHandle<()>>
where
    C: FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError> + Send + 'static,
{
    shared.queue.lock().ended = false;
    let theirs = shared.clone();
    let started = thread::Builder::new().name("kasmina-telemetry".into()).spawn(move || {
        let shared = theirs;
        while let Some(batch) = next(&shared) {
            if let Some(due) = land(&shared, batch)
                && !deliver(&shared, due, &mut consumer)
            {
                break;
            }
        }
        // Closes files and channels before anyone hears that this is over. A panic in there is the consumer's last word.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(consumer)));
        let mut queue = shared.queue.lock();
        if let Err(panic) = dropped {
            queue.status.last_error = Some(message(&*panic));
        }
        queue.ended = true;
        shared.idle.notify_all();
    });
    if started.is_err() {
        shared.queue.lock().ended = true;
    }
    started
}

/// Waits for a batch; `None` when there will be no more.
fn next(shared: &Shared) -> Option<Batch> {
    let mut queue = shared.queue.lock();
    loop {
        if let Some(batch) = queue.pop() {
            return Some(batch);
        }
        shared.idle.notify_all();
        if queue.stopping {
            return None;
        }
        shared.work.wait(&mut queue);
    }
}

/// The batch's report, once it is here.
pub(super) fn arrive(batch: Batch) -> Result<TelemetryReport, BoxError> {
    match batch {
        Batch::Ready(report) => Ok(*report),
        Batch::InFlight(landing) => catch_unwind(AssertUnwindSafe(|| landing.land()))
            .unwrap_or_else(|panic| Err(message(&*panic).into())),
    }
}

/// The reports that are due with this batch; `None` if it is lost.
fn land(shared: &Shared, batch: Batch) -> Option<VecDeque<TelemetryReport>> {
    let landed = arrive(batch);
    let mut queue = shared.queue.lock();
    match landed {
        Ok(report) => Some(queue.with_held(report)),
        Err(error) => {
            queue.lose(&*error);
            None
        }
    }
}

/// Whether the consumer is still there.
fn deliver<C>(shared: &Shared, mut due: VecDeque<TelemetryReport>, consumer: &mut C) -> bool
where
    C: FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError>,
{
    while let Some(report) = due.pop_front() {
        let report = Arc::new(report);
        // The report is not changed, and the consumer is not called again after a panic.
        let outcome = catch_unwind(AssertUnwindSafe(|| consumer(&report)));
        let mut queue = shared.queue.lock();
        let (error, gone) = match outcome {
            Ok(Ok(())) => {
                queue.status.delivered += 1;
                continue;
            }
            Ok(Err(error)) => (error.to_string(), false),
            Err(panic) => (message(&*panic), true),
        };
        queue.status.refused += 1;
        queue.status.last_error = Some(error.clone());
        queue.hold([Arc::unwrap_or_clone(report)]);
        // Nothing overtakes a report that was not taken.
        queue.hold(due);
        if gone {
            queue.status.consumer = ConsumerState::Panicked(error);
            queue.busy = false;
        }
        return !gone;
    }
    true
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
