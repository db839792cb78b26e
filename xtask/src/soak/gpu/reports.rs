//! Published reports of a life, with a consumer that stalls and panics when it is told to: each measurement has to arrive exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kasmina_core::LayerState;
use kasmina_telemetry::TelemetryReport;
use kasmina_telemetry::transport::{BoxError, ConsumerState, Transport, TransportError};
use parking_lot::Mutex;

use super::super::life::{counts, text};
use super::super::tally::Tally;
use super::super::user::PANIC;

/// Faults of a consumer.
pub(super) const STALLS: &str = "a consumer of reports that stalls";
pub(super) const PANICS: &str = "a consumer of reports that panics";

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);
/// Training steps that a consumer is stuck for.
const STUCK: u32 = 20;

/// A transport, and the account of what went in and what came out.
#[derive(Debug)]
pub(super) struct Reports {
    transport: Transport,
    mood: Arc<Mood>,
    /// Elements of each seed that were published.
    published: Vec<u64>,
    /// Steps until a stalled consumer goes on.
    stuck: u32,
}

#[derive(Debug, Default)]
struct Mood {
    stalls: AtomicBool,
    panics: AtomicBool,
    /// Elements of each seed that arrived.
    arrived: Mutex<Vec<u64>>,
}

fn consumer(
    mood: Arc<Mood>,
) -> impl FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError> + Send + 'static {
    move |report| {
        while mood.stalls.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!mood.panics.swap(false, Ordering::Relaxed), "{PANIC}");
        report.check()?;
        let mut arrived = mood.arrived.lock();
        for (sum, stats) in arrived.iter_mut().zip(&report.chunk) {
            *sum += stats.n + stats.nonfinite;
        }
        Ok(())
    }
}

impl Reports {
    pub(super) fn new(seeds: usize) -> Result<Self, String> {
        let mood = Mood { arrived: Mutex::new(vec![0; seeds]), ..Mood::default() };
        let mood = Arc::new(mood);
        let transport = Transport::new(2, consumer(Arc::clone(&mood))).map_err(text)?;
        Ok(Self { transport, mood, published: vec![0; seeds], stuck: 0 })
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// What `layer` has counted is about to be published.
    pub(super) fn expect(&mut self, layer: LayerState) {
        for (sum, more) in self.published.iter_mut().zip(counts(&layer)) {
            *sum += more;
        }
    }

    /// The consumer is stuck with its next report for some steps.
    pub(super) fn stall(&mut self) {
        self.stuck = STUCK;
        self.mood.stalls.store(true, Ordering::Relaxed);
    }

    /// The consumer panics over its next report.
    pub(super) fn panic(&mut self) {
        self.mood.panics.store(true, Ordering::Relaxed);
    }

    /// A step later: a consumer that is stuck may go on, and one that panicked is replaced.
    pub(super) fn recover(&mut self, tally: &mut Tally) -> Result<(), String> {
        self.stuck = self.stuck.saturating_sub(1);
        self.mood.stalls.store(self.stuck > 0, Ordering::Relaxed);
        if !matches!(self.transport.status().consumer, ConsumerState::Panicked(_)) {
            return Ok(());
        }
        tally.fault(PANICS);
        let started = Instant::now();
        loop {
            match self.transport.restart(consumer(Arc::clone(&self.mood))) {
                // Its thread is still on its way out.
                Err(TransportError::StillRunning) if started.elapsed() < LONG => {
                    thread::sleep(Duration::from_millis(1));
                }
                other => return other.map_err(text),
            }
        }
    }

    /// Nothing is stuck any more.
    pub(super) fn recover_for_good(&mut self, tally: &mut Tally) -> Result<(), String> {
        self.stuck = 0;
        self.recover(tally)
    }

    /// Everything has arrived, and nothing twice.
    pub(super) fn close(&mut self, tally: &mut Tally) -> Result<(), String> {
        if let Err(error) = self.transport.flush(LONG) {
            // An injected panic that came as late as this.
            if !matches!(error, TransportError::ConsumerPanicked { .. }) {
                return Err(text(error));
            }
            self.recover_for_good(tally)?;
            self.transport.flush(LONG).map_err(text)?;
        }
        let closed = self.transport.close(LONG).map_err(text)?;
        tally.add("reports delivered", closed.status.delivered);
        let arrived = self.mood.arrived.lock();
        if closed.status.lost > 0 || !closed.undelivered.is_empty() || *arrived != self.published {
            let (lost, left) = (closed.status.lost, closed.undelivered.len());
            return Err(format!(
                "of published telemetry {lost} reports are lost and {left} undelivered; {arrived:?} elements arrived of {:?}",
                self.published
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kasmina_core::{Layer, SeedLayout};
    use kasmina_telemetry::ChunkStats;

    use super::super::super::user;
    use super::*;

    fn layer(counted: u64) -> LayerState {
        let layout = SeedLayout::new(4, 2).expect("it fits");
        let mut state = Layer::builder(layout).build().expect("it is built").layer_state().clone();
        state.telemetry.chunk[1] = ChunkStats { n: counted, ..ChunkStats::EMPTY };
        state
    }

    fn report(layer: &LayerState) -> TelemetryReport {
        let mut cpu = Layer::builder(layer.lifecycle.layout()).build().expect("it is built");
        let report = cpu.end_epoch().telemetry;
        TelemetryReport { chunk: layer.telemetry.chunk.clone(), ..report }
    }

    #[test]
    fn what_a_consumer_stalls_and_panics_over_arrives_once() {
        user::silence_injected_panics();
        let (mut reports, mut tally) = (Reports::new(2).expect("a thread"), Tally::default());
        for turn in 1..20 {
            if turn % 5 == 0 {
                reports.stall();
            }
            if turn % 7 == 0 {
                reports.panic();
            }
            reports.recover(&mut tally).expect("a consumer");
            reports.expect(layer(turn));
            reports.transport().publish(report(&layer(turn)));
        }
        reports.recover_for_good(&mut tally).expect("a consumer");
        reports.close(&mut tally).expect("everything has arrived");
        assert!(tally.faults.contains_key(PANICS));
        assert_eq!(reports.published, [0, (1..20).sum()]);
    }

    #[test]
    fn a_lost_report_and_one_that_came_twice_are_told() {
        for sent in [0, 2] {
            let (mut reports, mut tally) = (Reports::new(2).expect("a thread"), Tally::default());
            reports.expect(layer(3));
            for _ in 0..sent {
                reports.transport().publish(report(&layer(3)));
            }
            let error = reports.close(&mut tally).expect_err("the account is wrong");
            assert!(error.contains("elements arrived of [0, 3]"), "{error}");
        }
    }
}
