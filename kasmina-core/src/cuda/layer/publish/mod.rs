//! Telemetry on its way to a [`Transport`]: nobody waits, and what a lagging consumer has no slot for waits on the device.
//!
//! A window leaves the accumulators at once, into a slot, from which a stream of its own copies it to page-locked memory, or, where
//! both slots are on their way, into a place where windows wait and merge. So the layer's state, what checkpoints save and what the
//! epoch boundary takes, is always what was counted since, however the consumer fares; and what was published is in exactly one of:
//! a landing, the place where it waits, or the transport. The order of all this is in `ledger`.

mod ledger;
mod ring;
mod slot;

use std::fmt;

use kasmina_sys::{Context, Stream};
use kasmina_telemetry::transport::Transport;

use super::CudaLayer;
use crate::cuda::error::CudaError;
use crate::layer::RunBy;
use ledger::{Load, Moved, OnTheWay};
use ring::Ring;
use slot::{Porter, Room, Slot};

/// Reports on their way at once. With two, one is read while the other is copied.
const SLOTS: usize = 2;

/// What became of a window of [`CudaLayer::publish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It is on its way, in one report with the windows that waited.
    Sent {
        /// Windows in the report.
        windows: u64,
    },
    /// The consumer lags: two reports are on their way. The window waits on the device, and goes with the next one.
    Deferred {
        /// Windows that wait.
        windows: u64,
    },
}

/// A layer's way to its transports.
pub(super) struct Publisher {
    /// The stream of the copies.
    aside: Stream,
    ring: Ring<Slot>,
    /// Windows that wait for a slot, and where.
    waiting: Load,
    room: Room,
}

impl Publisher {
    fn new(context: &Context, seeds: usize) -> Result<Self, CudaError> {
        let aside = Stream::new(context)?;
        let slots: Vec<_> =
            (0..SLOTS).map(|_| Slot::new(&aside, seeds)).collect::<Result<_, _>>()?;
        let room = Room::new(&aside, seeds)?;
        Ok(Self { aside, ring: Ring::new(slots), waiting: Load::default(), room })
    }

    /// Makes room for histograms now and not in a publication. A slot that is on its way gets its own when it is used again.
    pub(super) fn make_histograms(&mut self, seeds: usize) -> Result<(), CudaError> {
        self.room.make_histograms(seeds)?;
        let free: Vec<_> = std::iter::from_fn(|| self.ring.take()).collect();
        free.iter().try_for_each(|lent| lent.slot().make_histograms())
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let windows = self.waiting.windows;
        if windows > 0 {
            tracing::warn!(
                target: "kasmina::cuda", windows,
                "windows of telemetry that waited for a lagging consumer go with their layer; \
                 end with `publish_waiting` to keep them"
            );
        }
    }
}

impl CudaLayer {
    /// Sends what was measured since the last report to `transport`. Neither the host nor the stream of the passes waits: the
    /// measurements are moved aside in stream order, copied on a stream of their own, and become a report on the consumer's
    /// thread, which waits for them there. It is the report that [`CudaLayer::end_epoch`] would give, bit for bit, with states,
    /// blueprints, alphas, epoch and kernels as they are at this call.
    ///
    /// Two reports are on their way at most. Where the consumer has taken neither, the window waits on the device, merges with
    /// those that wait already, and goes with the next publication ([`TelemetryReport::windows`] counts them), to whichever
    /// transport that is: nothing is dropped, and memory does not grow. [`CudaLayer::publish_waiting`] does not leave any
    /// behind, and is for the end of a run.
    ///
    /// A window ends here, not the epoch: commands go on waiting. `end_epoch` and its controller see what was measured since.
    /// Each measurement is in one report, and a published one is no longer part of the layer: not of
    /// [`CudaLayer::chunk_stats`], [`CudaLayer::to_layer`] or a checkpoint; it stays published where the layer is restored,
    /// replaced or dropped while it is on its way.
    ///
    /// The first call allocates: per seed 288 bytes on the device and 192 page-locked ones, and where histograms are published for
    /// the first time 2376 and 1584 more. That may wait for the device. Later calls use the same memory.
    ///
    /// # Errors
    /// No memory; the layer's stream is being captured; or the driver refused. The window is then still the layer's; or, where its
    /// copy alone was refused, among those that wait. A device that fails later is an error on the consumer's side:
    /// [`TransportStatus::lost`](kasmina_telemetry::transport::TransportStatus::lost) counts the report.
    ///
    /// [`TelemetryReport::windows`]: kasmina_telemetry::TelemetryReport::windows
    pub fn publish(&mut self, transport: &Transport) -> Result<PublishOutcome, CudaError> {
        let stream = self.streams.columns.stream.clone();
        if stream.is_capturing()? {
            return Err(kasmina_sys::Error::Capturing { what: "publishing telemetry" }.into());
        }
        self.streams.columns.residents.settle();
        self.send_telemetry()?;
        let publisher = match &mut self.publisher {
            Some(publisher) => publisher,
            none => {
                let seeds = self.state.lifecycle.layout().seeds();
                none.insert(Publisher::new(stream.context(), seeds)?)
            }
        };
        let histograms = self.telemetry.histograms.as_ref();
        let steps = self.state.telemetry.measured;
        let counted = Load { windows: 1, steps, histograms: histograms.is_some() };
        let Publisher { aside, ring, waiting, room } = publisher;
        let mut porter = Porter { streams: &mut self.streams, histograms, aside, waiting: room };
        let moved = ledger::hand_over(ring, waiting, counted, &mut porter)?;
        let waiting = waiting.windows;
        self.nothing_counted();
        match moved {
            Moved::Sent(slot, load) => {
                let report = self.state.report(self.run_by());
                transport.publish_landing(Box::new(OnTheWay::new(report, slot, load)));
                Ok(PublishOutcome::Sent { windows: load.windows })
            }
            Moved::Waits => Ok(PublishOutcome::Deferred { windows: waiting }),
            Moved::Kept(error) => Err(error),
        }
    }

    /// [`CudaLayer::publish`] that leaves nothing waiting: where the consumer lags it waits for the device, though never for the
    /// consumer, and hands over a report that is here. Returns the windows of the report.
    ///
    /// # Errors
    /// As there, or a pass failed; what could not be handed over waits on.
    pub fn publish_waiting(&mut self, transport: &Transport) -> Result<u64, CudaError> {
        if let PublishOutcome::Sent { windows } = self.publish(transport)? {
            return Ok(windows);
        }
        let (mut report, seeds) = (self.state.report(self.run_by()), self.layout().seeds());
        let Some(publisher) = &mut self.publisher else { return Ok(0) };
        publisher.room.read(&mut report, seeds, publisher.waiting.histograms)?;
        let load = std::mem::take(&mut publisher.waiting);
        transport.publish(ledger::framed(report, load));
        Ok(load.windows)
    }

    /// Windows that wait on the device since a [`PublishOutcome::Deferred`].
    pub fn deferred_windows(&self) -> u64 {
        self.publisher.as_ref().map_or(0, |publisher| publisher.waiting.windows)
    }

    /// The host's copy of what was counted: nothing, as on the device.
    fn nothing_counted(&mut self) {
        let telemetry = &mut self.state.telemetry;
        telemetry.measured = 0;
        // It costs a walk over all seeds, and is seldom needed.
        if std::mem::take(&mut self.counted_on_host) {
            telemetry.clear();
        }
    }

    pub(super) fn run_by(&self) -> RunBy {
        RunBy {
            hardware: self.report.device.clone(),
            kernel: self.report.kernels(),
            overhead: None,
        }
    }
}
