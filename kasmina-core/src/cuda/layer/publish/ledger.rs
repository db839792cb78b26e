//! Which windows go where: into a free slot with all that waited before them, or to those that wait. Knows nothing of devices, so
//! that what it promises is tested without one.

use kasmina_telemetry::TelemetryReport;
use kasmina_telemetry::transport::{BoxError, Landing, Spare};

use super::ring::{Lent, Ring};

/// What lies in one place: windows, one after the other merged into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) windows: u64,
    /// Measured forward passes.
    pub(super) steps: u64,
    /// Whether any of them has histograms.
    pub(super) histograms: bool,
}

impl Load {
    fn followed_by(self, later: Self) -> Self {
        Self {
            windows: self.windows + later.windows,
            steps: self.steps + later.steps,
            histograms: self.histograms || later.histograms,
        }
    }
}

/// Moves windows about. None of it waits.
pub(super) trait Courier {
    type Slot;
    type Error;

    /// Moves what was counted behind the window that waits (nothing, if `waiting` has no windows) and both, which are `all`,
    /// into the slot; or, without one, to where windows wait. Counting starts anew. On an error everything is where it was.
    fn load(
        &mut self,
        waiting: Load,
        all: Load,
        to: Option<&mut Self::Slot>,
    ) -> Result<(), Self::Error>;

    /// Sends what is in the slot on its way to the host.
    fn send(&mut self, slot: &mut Self::Slot, all: Load) -> Result<(), Self::Error>;

    /// Makes what is in the slot the window that waits. There is none.
    fn keep(&mut self, slot: &mut Self::Slot);
}

/// What became of a window.
pub(super) enum Moved<S, E> {
    /// It is on its way, with those that waited.
    Sent(Lent<S>, Load),
    /// It waits for a slot.
    Waits,
    /// It waits, as it could not be sent.
    Kept(E),
}

/// Takes `counted`, the window that is in the accumulators, out of them.
///
/// # Errors
/// As [`Courier::load`].
pub(super) fn hand_over<C: Courier>(
    ring: &Ring<C::Slot>,
    waiting: &mut Load,
    counted: Load,
    courier: &mut C,
) -> Result<Moved<C::Slot, C::Error>, C::Error> {
    let all = waiting.followed_by(counted);
    let Some(lent) = ring.take() else {
        courier.load(*waiting, all, None)?;
        *waiting = all;
        return Ok(Moved::Waits);
    };
    let sent = {
        let mut slot = lent.slot();
        courier.load(*waiting, all, Some(&mut slot))?;
        *waiting = Load::default();
        courier.send(&mut slot, all).inspect_err(|_| courier.keep(&mut slot))
    };
    match sent {
        Ok(()) => Ok(Moved::Sent(lent, all)),
        Err(error) => {
            *waiting = all;
            Ok(Moved::Kept(error))
        }
    }
}

/// A slot that is read where it lands.
pub(super) trait Arrives: Send + 'static {
    /// Waits for what was sent, and puts it into the report's columns.
    fn read(
        &mut self,
        report: &mut TelemetryReport,
        histograms: bool,
        spare: &mut Spare,
    ) -> Result<(), BoxError>;
}

/// Windows on their way, with everything of their report that the host knew when they were sent.
pub(super) struct OnTheWay<S> {
    report: TelemetryReport,
    slot: Lent<S>,
    histograms: bool,
}

impl<S> OnTheWay<S> {
    /// `report` has no columns of measurements yet.
    pub(super) fn new(report: TelemetryReport, slot: Lent<S>, load: Load) -> Self {
        let report = framed(report, load);
        Self { report, slot, histograms: load.histograms }
    }
}

/// A report of `load`.
pub(super) fn framed(report: TelemetryReport, load: Load) -> TelemetryReport {
    TelemetryReport { windows: load.windows, steps: load.steps, ..report }
}

impl<S: Arrives> Landing for OnTheWay<S> {
    fn layer(&self) -> &str {
        &self.report.layer
    }

    fn land(self: Box<Self>, spare: &mut Spare) -> Result<TelemetryReport, BoxError> {
        let Self { mut report, slot, histograms } = *self;
        slot.slot().read(&mut report, histograms, spare)?;
        Ok(report)
    }
}

#[cfg(test)]
mod tests;
