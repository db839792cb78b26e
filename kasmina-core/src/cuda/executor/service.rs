//! The executor's own thread, and what waiting callers do in its place: steps that are done are taken out, steps that wait are handed over,
//! and a grid that has ended while there is work is started again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::error::ExecutorError;
use super::grid::Grid;
use super::{Queued, Shared, State, Submitted};
use crate::cuda::error::CudaError;

/// How long the thread looks away while something is in flight.
pub(super) const GLANCE: Duration = Duration::from_micros(200);

/// Steps that are done, with how it went.
type Finished = Vec<(Arc<Submitted>, Result<(), ExecutorError>)>;

pub(super) fn start(shared: &Arc<Shared>) -> Result<JoinHandle<()>, CudaError> {
    let shared = Arc::clone(shared);
    let spawned = std::thread::Builder::new()
        .name("kasmina-executor".to_owned())
        .spawn(move || shared.serve());
    spawned.map_err(|error| {
        ExecutorError::Device { reason: format!("its thread did not start: {error}") }.into()
    })
}

impl Shared {
    fn serve(&self) {
        while !self.stopping.load(Ordering::Acquire) {
            self.look_after();
            let mut state = self.state.lock();
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            if state.is_busy() {
                self.work.wait_for(&mut state, GLANCE);
            } else {
                self.work.wait(&mut state);
            }
        }
    }

    /// Sees to everything once. Callbacks run without the lock.
    pub(super) fn look_after(&self) {
        let finished = {
            let mut state = self.state.lock();
            let waiting = state.queue.waiting();
            let finished = state.look_after(self.grid.as_ref());
            if state.queue.waiting() < waiting {
                self.room.notify_all();
            }
            finished
        };
        for (ticket, outcome) in finished {
            ticket.finish(outcome);
        }
    }

    /// Ends everything: what waits on the host at once, the grid after what it has.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let waiting = self.state.lock().queue.take_waiting();
        for Queued { ticket, .. } in waiting {
            ticket.finish(Err(ExecutorError::Stopped));
        }
        loop {
            self.look_after();
            let state = self.state.lock();
            if state.fault.is_some() || (state.queue.is_empty() && state.launched.is_empty()) {
                break;
            }
            drop(state);
            std::thread::yield_now();
        }
        if let Some(grid) = &self.grid
            && let Err(error) = grid.finish()
        {
            self.state.lock().fault.get_or_insert(error);
        }
        // What a fault has left.
        self.look_after();
        self.work.notify_all();
        self.room.notify_all();
    }
}

impl State {
    fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.launched.is_empty() || self.is_bound
    }

    /// Hands over what there is room for, and sees to it that there is a grid for it.
    pub(super) fn pump(&mut self, grid: &Grid) -> Result<(), CudaError> {
        while let Some((next, queued)) = self.queue.next() {
            queued.ticket.handed_over(next.number);
            grid.hand_over(queued.record, next.number, next.after);
        }
        if self.queue.in_flight() > 0 || grid.is_asked() {
            let restarted = grid.ensure_running(self)?;
            self.report.restarts += u64::from(restarted);
        }
        Ok(())
    }

    fn look_after(&mut self, grid: Option<&Grid>) -> Finished {
        let mut finished = Vec::new();
        self.launched.retain(|queued| match queued.ticket.poll_launched() {
            Some(outcome) => {
                finished.push((Arc::clone(&queued.ticket), outcome));
                false
            }
            None => true,
        });
        let Some(grid) = grid else { return finished };
        if self.fault.is_none() {
            let done = self.queue.complete(grid.completed());
            finished.extend(done.into_iter().map(|queued| (queued.ticket, Ok(()))));
            // A look at the driver only where something is overdue: the grid says by itself how it fares.
            self.fault =
                grid.fault().or_else(|| (!self.queue.is_empty()).then(|| grid.is_lost()).flatten());
            if self.fault.is_none()
                && let Err(error) = self.pump(grid)
            {
                self.fault = Some(ExecutorError::Device { reason: error.to_string() });
            }
        }
        // Until the last block has gone, the steps' memory is in use, and whoever waits for a ticket may give it back.
        if let Some(fault) = self.fault.clone().filter(|_| grid.is_gone()) {
            let (waiting, in_flight) = self.queue.abandon();
            let lost = waiting.into_iter().chain(in_flight);
            finished.extend(lost.map(|queued| (queued.ticket, Err(fault.clone()))));
        }
        finished
    }
}
