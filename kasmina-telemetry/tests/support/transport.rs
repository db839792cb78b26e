//! What the tests of the transport share: windows, consumers that keep or wait, and copies on their way.
#![allow(dead_code)] // Each test binary uses its own part.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use kasmina_telemetry::transport::{BoxError, Landing, Spare};
use kasmina_telemetry::{ChunkStats, TelemetryReport};
use parking_lot::Mutex;

/// Longer than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// One window of a layer of `seeds` seeds, in which each seed saw `x`.
pub(crate) fn window(layer: &str, epoch: u64, seeds: usize, x: f32) -> TelemetryReport {
    let mut stats = ChunkStats::EMPTY;
    stats.push(x, 1e-8);
    TelemetryReport {
        layer: layer.into(),
        epoch,
        steps: 3,
        saturated: 2,
        chunk: vec![stats; seeds],
        state: vec![0; seeds],
        alpha: vec![epoch as f32; seeds],
        blueprint: vec![TelemetryReport::NO_BLUEPRINT; seeds],
        state_names: &["DORMANT"],
        ..TelemetryReport::default()
    }
}

pub(crate) type Taken = Arc<Mutex<Vec<Arc<TelemetryReport>>>>;

/// A consumer that keeps what it takes.
pub(crate) fn keeping(
    taken: &Taken,
) -> impl FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError> + use<> {
    let taken = taken.clone();
    move |report| {
        taken.lock().push(report.clone());
        Ok(())
    }
}

pub(crate) fn windows<'a>(reports: impl IntoIterator<Item = &'a TelemetryReport>) -> u64 {
    reports.into_iter().map(|report| report.windows).sum()
}

/// A consumer that waits for a permit before each report, and says when it has begun.
pub(crate) struct Gate {
    pub(crate) permits: mpsc::Sender<()>,
    pub(crate) begun: mpsc::Receiver<()>,
}

pub(crate) fn gated(
    taken: &Taken,
) -> (Gate, impl FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError> + use<>) {
    let (permits, wait) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let mut keep = keeping(taken);
    let consumer = move |report: &Arc<TelemetryReport>| {
        // Either end may be gone when a test is over.
        let _ = begin.send(());
        let _ = wait.recv();
        keep(report)
    };
    (Gate { permits, begun }, consumer)
}

/// A copy that arrives, or fails.
pub(crate) struct Copied {
    layer: &'static str,
    outcome: Box<dyn FnOnce() -> Result<TelemetryReport, BoxError> + Send>,
}

impl Copied {
    pub(crate) fn new(
        layer: &'static str,
        outcome: impl FnOnce() -> Result<TelemetryReport, BoxError> + Send + 'static,
    ) -> Self {
        Self { layer, outcome: Box::new(outcome) }
    }

    pub(crate) fn fine(layer: &'static str, epoch: u64) -> Self {
        Self::new(layer, move || Ok(window(layer, epoch, 1, 0.0)))
    }
}

impl Landing for Copied {
    fn layer(&self) -> &str {
        self.layer
    }

    fn land(self: Box<Self>, _: &mut Spare) -> Result<TelemetryReport, BoxError> {
        (self.outcome)()
    }
}

/// Keeps the consumers' panics, which are on purpose and many, out of the output.
pub(crate) fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some("kasmina-telemetry") {
                print(panic);
            }
        }));
    });
}
