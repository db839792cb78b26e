//! The consumer's thread: takes a batch, waits for it if it is on its way, and gives it to the consumer.
//!
//! Whatever a caller wrote (the consumer, its errors' texts, its drop, a landing) runs here where a panic is caught, and not
//! under the lock.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::queue::{Batch, Body};
use super::{BoxError, ConsumerState, Shared, Spare};
use crate::TelemetryReport;

/// A thread for `consumer`.
pub(super) fn spawn<C>(shared: &Arc<Shared>, mut consumer: C) -> std::io::Result<JoinHandle<()>>
where
    C: FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError> + Send + 'static,
{
    start(shared, ConsumerState::Running, move |shared| {
        let panicked = run(shared, &mut consumer);
        // Closes files and channels before anyone hears that this is over, or another consumer opens them.
        if let Err(message) = caught(|| drop(consumer)) {
            shared.queue.lock().status.last_error = Some(message);
        }
        panicked.map_or(ConsumerState::Closed, ConsumerState::Panicked)
    })
}

/// A thread that waits for what is on its way, and holds everything.
pub(super) fn spawn_without(shared: &Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    let before = shared.queue.lock().status.consumer.clone();
    start(shared, before.clone(), move |shared| {
        // It was asked to stop before it began, so that it ends where nothing waits.
        shared.queue.lock().stopping = true;
        let mut spare = Spare::default();
        while let Some(batch) = next(shared) {
            let arrived = arrive(batch.body, &mut spare);
            let mut queue = shared.queue.lock();
            match arrived {
                Ok(report) => queue.hold([report]),
                Err(error) => queue.lose(error),
            }
            queue.finish();
        }
        before
    })
}

/// A thread that does `work`, and then has the consumer's state be what that gives.
fn start(
    shared: &Arc<Shared>,
    state: ConsumerState,
    work: impl FnOnce(&Shared) -> ConsumerState + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let before = {
        let mut queue = shared.queue.lock();
        queue.ended = false;
        queue.stopping = false;
        std::mem::replace(&mut queue.status.consumer, state)
    };
    let theirs = shared.clone();
    let started = thread::Builder::new().name("kasmina-telemetry".into()).spawn(move || {
        let state = work(&theirs);
        let mut queue = theirs.queue.lock();
        queue.status.consumer = state;
        queue.finish();
        queue.ended = true;
        theirs.idle.notify_all();
    });
    if started.is_err() {
        let mut queue = shared.queue.lock();
        queue.ended = true;
        queue.status.consumer = before;
    }
    started
}

/// Gives the consumer what comes, until there is no more, or it panics with the message that is returned.
fn run<C>(shared: &Shared, consumer: &mut C) -> Option<String>
where
    C: FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError>,
{
    let mut spare = Spare::default();
    while let Some(batch) = next(shared) {
        match arrive(batch.body, &mut spare) {
            Ok(report) => {
                if let Some(message) = deliver(shared, report, consumer, &mut spare) {
                    // Still busy: nobody is to think that this was done before the consumer is gone.
                    return Some(message);
                }
            }
            Err(error) => shared.queue.lock().lose(error),
        }
        shared.queue.lock().finish();
        shared.idle.notify_all();
    }
    None
}

/// Waits for a batch; `None` when there will be no more.
fn next(shared: &Shared) -> Option<Batch> {
    let mut queue = shared.queue.lock();
    loop {
        if let Some(batch) = queue.pop() {
            return Some(batch);
        }
        if queue.stopping {
            return None;
        }
        shared.work.wait(&mut queue);
    }
}

/// The batch's report, once it is here.
fn arrive(body: Body, spare: &mut Spare) -> Result<TelemetryReport, String> {
    match body {
        Body::Ready(report) => Ok(*report),
        Body::InFlight(landing) => {
            caught(|| landing.land(spare).map_err(|error| error.to_string())).flatten()
        }
    }
}

/// Gives the consumer a report with what is held of its layer. Returns the message if it panicked. What the consumer does not keep is
/// spare.
fn deliver<C>(
    shared: &Shared,
    report: TelemetryReport,
    consumer: &mut C,
    spare: &mut Spare,
) -> Option<String>
where
    C: FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError>,
{
    let held = shared.queue.lock().take_held(&report.layer);
    let (mut due, merged) = joined(held, report);
    shared.queue.lock().status.merged += merged;
    while let Some(report) = due.pop_front() {
        let report = Arc::new(report);
        // The report is not changed, and the consumer is not called again after a panic.
        let outcome = caught(|| consumer(&report).map_err(|error| error.to_string()));
        let (error, gone) = match outcome {
            Ok(Ok(())) => {
                shared.queue.lock().status.delivered += 1;
                if let Some(report) = Arc::into_inner(report) {
                    spare.keep(report);
                }
                continue;
            }
            Ok(Err(error)) => (error, false),
            Err(message) => (message, true),
        };
        // A copy, if the consumer has kept it.
        let report = Arc::unwrap_or_clone(report);
        let mut queue = shared.queue.lock();
        queue.status.refused += 1;
        queue.status.last_error = Some(error.clone());
        // Nothing of the layer overtakes a report that was not taken.
        queue.hold([report]);
        queue.hold(due);
        return gone.then_some(error);
    }
    None
}

/// Reports of one layer in as few as their numbers of seeds allow, in their order, and how often two became one.
fn joined(held: Vec<TelemetryReport>, latest: TelemetryReport) -> (VecDeque<TelemetryReport>, u64) {
    let mut due = VecDeque::from(held);
    let mut merged = 0;
    match due.iter_mut().rfind(|report| report.len() == latest.len()) {
        None => due.push_back(latest),
        Some(fitting) => match fitting.merge(latest) {
            Ok(()) => merged = 1,
            Err(refused) => due.push_back(*refused.report),
        },
    }
    (due, merged)
}

/// What `body` gives, or the message of its panic.
fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
