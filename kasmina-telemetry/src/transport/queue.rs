//! What waits for the consumer: batches in order, bounded by merging, and reports that the consumer did not take.

use std::collections::VecDeque;

use super::{Landing, TransportStatus};
use crate::TelemetryReport;

/// One thing to deliver.
pub(super) enum Batch {
    Ready(Box<TelemetryReport>),
    InFlight(Box<dyn Landing>),
}

impl Batch {
    fn layer(&self) -> &str {
        match self {
            Self::Ready(report) => &report.layer,
            Self::InFlight(landing) => landing.layer(),
        }
    }
}

/// Everything that publishers and the consumer share, behind one lock.
pub(super) struct Queue {
    waiting: VecDeque<Batch>,
    /// Refused, or under delivery when the consumer panicked: merged with the layer's next report, or delivered again when
    /// someone asks for it. Of a layer the oldest first.
    held: Vec<TelemetryReport>,
    /// A layer's waiting batches from which on reports merge.
    capacity: usize,
    /// A batch is with the consumer.
    pub(super) busy: bool,
    /// The consumer ends once nothing waits.
    pub(super) stopping: bool,
    /// The consumer's thread has come to its end.
    pub(super) ended: bool,
    pub(super) status: TransportStatus,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            held: Vec::new(),
            capacity,
            busy: false,
            stopping: false,
            ended: false,
            status: TransportStatus::default(),
        }
    }

    /// Whether the report has got a place of its own; otherwise it is part of the layer's newest.
    pub(super) fn push(&mut self, report: TelemetryReport) -> bool {
        self.status.published += 1;
        let same = self.waiting.iter_mut().filter(|batch| batch.layer() == report.layer);
        let (count, newest) = same.fold((0, None), |(count, _), batch| (count + 1, Some(batch)));
        let mut report = report;
        // A batch still on its way from the device cannot be added to, and nothing may overtake it.
        if count >= self.capacity
            && let Some(Batch::Ready(newest)) = newest
        {
            match newest.merge(report) {
                Ok(()) => {
                    self.status.merged += 1;
                    return false;
                }
                // Of other seeds than the one before: the layer was made anew.
                Err(refused) => report = *refused.report,
            }
        }
        self.waiting.push_back(Batch::Ready(Box::new(report)));
        true
    }

    pub(super) fn push_landing(&mut self, landing: Box<dyn Landing>) {
        self.status.published += 1;
        self.waiting.push_back(Batch::InFlight(landing));
    }

    /// The next batch, for the consumer.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let batch = self.waiting.pop_front();
        self.busy = batch.is_some();
        batch
    }

    /// What is to be delivered now that `report` is here: with what is held of its layer, in as few reports as their seeds allow.
    pub(super) fn with_held(&mut self, report: TelemetryReport) -> VecDeque<TelemetryReport> {
        let mut due: VecDeque<TelemetryReport> =
            self.held.extract_if(.., |held| held.layer == report.layer).collect();
        match due.pop_back() {
            None => due.push_back(report),
            Some(mut newest) => match newest.merge(report) {
                Ok(()) => {
                    self.status.merged += 1;
                    due.push_back(newest);
                }
                Err(refused) => due.extend([newest, *refused.report]),
            },
        }
        due
    }

    pub(super) fn hold(&mut self, reports: impl IntoIterator<Item = TelemetryReport>) {
        self.held.extend(reports);
    }

    /// Lets the consumer have the held reports again, before all others.
    pub(super) fn retry_held(&mut self) {
        for report in self.held.drain(..).rev() {
            self.waiting.push_front(Batch::Ready(Box::new(report)));
        }
    }

    pub(super) fn lose(&mut self, error: &(dyn std::error::Error + Send + Sync)) {
        self.status.lost += 1;
        self.status.last_error = Some(error.to_string());
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether everything has been given to the consumer, and it is done with it.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.busy
    }

    pub(super) fn status(&self) -> TransportStatus {
        let waiting = self.waiting.len() + usize::from(self.busy);
        TransportStatus { waiting, held: self.held.len(), ..self.status.clone() }
    }

    /// Everything that no consumer has taken, of a layer the oldest first.
    pub(super) fn take_all(&mut self) -> VecDeque<Batch> {
        self.retry_held();
        std::mem::take(&mut self.waiting)
    }
}
