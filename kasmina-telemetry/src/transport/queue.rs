//! What waits for the consumer: batches in order, bounded by merging, and reports that the consumer did not take.
//!
//! Nothing of a caller's (a consumer, an error's text, a landing) runs in here, as all of it runs under the lock.

use std::collections::VecDeque;

use super::{Landing, TransportStatus};
use crate::TelemetryReport;

/// One thing to deliver.
pub(super) struct Batch {
    layer: String,
    pub(super) body: Body,
    /// It was refused before, and is to be asked for once more.
    again: bool,
}

pub(super) enum Body {
    Ready(Box<TelemetryReport>),
    InFlight(Box<dyn Landing>),
}

/// Everything that publishers and the consumer share, behind one lock.
pub(super) struct Queue {
    waiting: VecDeque<Batch>,
    /// Refused, or under delivery when the consumer panicked: merged with the layer's next report, or delivered again when
    /// someone asks for it. Of a layer the oldest first.
    held: Vec<TelemetryReport>,
    /// A layer's waiting reports from which on further ones merge.
    capacity: usize,
    /// Batches that were put at the end of the queue, and those of them that the consumer is done with.
    pub(super) pushed: u64,
    pub(super) finished: u64,
    /// Held reports that wait, or are with the consumer, once more.
    pub(super) again: usize,
    /// What is with the consumer: whether it was held before.
    busy: Option<bool>,
    /// The consumer ends once nothing waits.
    pub(super) stopping: bool,
    /// The consumer's thread has come to its end, and its consumer was dropped.
    pub(super) ended: bool,
    pub(super) status: TransportStatus,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            held: Vec::new(),
            capacity,
            pushed: 0,
            finished: 0,
            again: 0,
            busy: None,
            stopping: false,
            ended: true,
            status: TransportStatus::default(),
        }
    }

    /// Whether the report has got a place of its own; otherwise it is part of the newest one of its layer.
    ///
    /// Reports of one name but of other numbers of seeds are kept apart, as of two layers: there are as many places as layers
    /// and numbers of seeds, whoever publishes how often.
    pub(super) fn push(&mut self, report: TelemetryReport) -> bool {
        self.status.published += 1;
        let (mut places, mut newest) = (0, None);
        for batch in self.waiting.iter_mut().filter(|batch| batch.layer == report.layer) {
            match &mut batch.body {
                Body::Ready(waiting) if waiting.len() == report.len() => {
                    places += 1;
                    newest = Some(waiting);
                }
                Body::Ready(_) => {}
                // A batch still on its way from the device cannot be added to, and nothing may overtake it.
                Body::InFlight(_) => (places, newest) = (0, None),
            }
        }
        let report = match newest.filter(|_| places >= self.capacity) {
            None => report,
            Some(newest) => match newest.merge(report) {
                Ok(()) => {
                    self.status.merged += 1;
                    return false;
                }
                // Columns of other lengths than its seeds: the exporters refuse it, and say so.
                Err(refused) => *refused.report,
            },
        };
        let (layer, body) = (report.layer.clone(), Body::Ready(Box::new(report)));
        self.waiting.push_back(Batch { layer, body, again: false });
        self.pushed += 1;
        true
    }

    pub(super) fn push_landing(&mut self, layer: String, landing: Box<dyn Landing>) {
        self.status.published += 1;
        self.waiting.push_back(Batch { layer, body: Body::InFlight(landing), again: false });
        self.pushed += 1;
    }

    /// The next batch, for the consumer.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let batch = self.waiting.pop_front();
        self.busy = batch.as_ref().map(|batch| batch.again);
        batch
    }

    /// The consumer is done with what it was given last.
    pub(super) fn finish(&mut self) {
        match self.busy.take() {
            Some(true) => self.again -= 1,
            Some(false) => self.finished += 1,
            None => {}
        }
    }

    /// What is held of a layer, the oldest first.
    pub(super) fn take_held(&mut self, layer: &str) -> Vec<TelemetryReport> {
        self.held.extract_if(.., |held| held.layer == layer).collect()
    }

    pub(super) fn hold(&mut self, reports: impl IntoIterator<Item = TelemetryReport>) {
        self.held.extend(reports);
    }

    /// Lets the consumer have the held reports again, before all others.
    pub(super) fn retry_held(&mut self) {
        for report in self.held.drain(..).rev() {
            let (layer, body) = (report.layer.clone(), Body::Ready(Box::new(report)));
            self.waiting.push_front(Batch { layer, body, again: true });
            self.again += 1;
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn take_all_held(&mut self) -> Vec<TelemetryReport> {
        std::mem::take(&mut self.held)
    }

    pub(super) fn lose(&mut self, error: String) {
        self.status.lost += 1;
        self.status.last_error = Some(error);
    }

    pub(super) fn status(&self) -> TransportStatus {
        let waiting = self.waiting.len() + usize::from(self.busy.is_some());
        TransportStatus { waiting, held: self.held.len(), ..self.status.clone() }
    }
}
