//! Reports that go to a consumer's thread: the same bits as those of a boundary that waits, however the consumer lags and whatever
//! the layer is asked for meanwhile.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use kasmina_core::cuda::{
    CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Engine, PublishOutcome,
};
use kasmina_core::{Command, ForwardOptions, Layer, SeedLayout};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use kasmina_telemetry::transport::Transport;
use kasmina_telemetry::{ChunkStats, GradientStats, Histogram, TelemetryMode, TelemetryReport};
use proptest::prelude::*;

use crate::common::Draw;
use crate::layer_moves::{HIDDEN, ROWS, layer, values};
use crate::layer_pair::ADAMW;

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("published_reports_are_those_of_a_boundary_that_waits", same_reports),
    ("a_lagging_consumer_gets_merged_windows_and_all_of_them", lagging),
];

/// Longer than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) type Reports = mpsc::Receiver<Arc<TelemetryReport>>;

/// A transport whose consumer gives every report away.
pub(crate) fn transport() -> Result<(Transport, Reports), Failed> {
    let (give, taken) = mpsc::channel();
    let transport =
        Transport::new(2, move |report: &Arc<TelemetryReport>| Ok(give.send(Arc::clone(report))?))?;
    Ok((transport, taken))
}

/// Of a consumer that is stuck with its first report.
pub(crate) struct Stuck {
    /// Hears of each report before the consumer is stuck with it.
    begun: mpsc::Receiver<()>,
    /// Dropped, it lets the consumer go.
    pub(crate) release: mpsc::Sender<()>,
}

pub(crate) fn stuck_transport() -> Result<(Transport, Reports, Stuck), Failed> {
    let ((give, taken), (release, gate)) = (mpsc::channel(), mpsc::channel::<()>());
    let (begin, begun) = mpsc::channel();
    let transport = Transport::new(2, move |report: &Arc<TelemetryReport>| {
        // Either end may be gone when the test is over; nothing ever comes through the gate.
        let _ = begin.send(());
        let _ = gate.recv();
        Ok(give.send(Arc::clone(report))?)
    })?;
    Ok((transport, taken, Stuck { begun, release }))
}

/// Matrices of a layer's passes.
pub(crate) struct Data {
    rows: usize,
    hidden: usize,
    x: DeviceBuffer<f32>,
    y: DeviceBuffer<f32>,
}

impl Data {
    pub(crate) fn new(
        stream: &Stream,
        rows: usize,
        hidden: usize,
        seed: u64,
    ) -> Result<Self, Failed> {
        let x = DeviceBuffer::from_host(stream, &values(seed, rows * hidden))?;
        let y = DeviceBuffer::zeroed(stream, rows * hidden)?;
        Ok(Self { rows, hidden, x, y })
    }

    pub(crate) fn forward(&mut self, layer: &mut CudaLayer) -> Result<(), CudaError> {
        let (rows, hidden) = (self.rows, self.hidden);
        let x = DeviceMatRef::new(self.x.as_slice(), rows, hidden, hidden)?;
        let mut y = DeviceMatMut::new(self.y.as_mut_slice(), rows, hidden, hidden)?;
        layer.forward(x, &mut y, &ForwardOptions::new())
    }

    /// Forward, and backward with x for a gradient.
    pub(crate) fn both(&mut self, layer: &mut CudaLayer) -> Result<(), CudaError> {
        self.forward(layer)?;
        let (rows, hidden) = (self.rows, self.hidden);
        let x = DeviceMatRef::new(self.x.as_slice(), rows, hidden, hidden)?;
        let mut grad_x = DeviceMatMut::new(self.y.as_mut_slice(), rows, hidden, hidden)?;
        layer.backward(x, x, &mut grad_x, &ForwardOptions::new())
    }
}

/// Both reports by their texts, which tell all bits but NaN's apart.
pub(crate) fn same(
    what: &str,
    found: &TelemetryReport,
    want: &TelemetryReport,
) -> Result<(), Failed> {
    let (found, want) = (format!("{found:?}"), format!("{want:?}"));
    let at = found.bytes().zip(want.bytes()).position(|(a, b)| a != b);
    let at = at.or((found.len() != want.len()).then_some(found.len().min(want.len())));
    let Some(at) = at else { return Ok(()) };
    let near = |text: &str| {
        let bytes = &text.as_bytes()[at.saturating_sub(120)..(at + 120).min(text.len())];
        String::from_utf8_lossy(bytes).into_owned()
    };
    Err(format!("{what}: …{}…, but …{}… is right", near(&found), near(&want)).into())
}

fn is_empty(report: &TelemetryReport) -> Result<(), Failed> {
    let empty = report.steps == 0
        && report.windows == 1
        && report.saturated == 0
        && report.chunk.iter().all(|stats| *stats == ChunkStats::EMPTY)
        && report.gradient.iter().all(|stats| *stats == GradientStats::EMPTY)
        && report.histograms.iter().flatten().all(|one| *one == Histogram::EMPTY);
    ensure(empty, || "what was published was reported again".to_owned())
}

fn mode(draw: &mut Draw) -> Result<TelemetryMode, Failed> {
    Ok(match draw.below(4) {
        0 => TelemetryMode::sampling(2, 0.5)?,
        1 => TelemetryMode::Production,
        _ => TelemetryMode::Debug,
    })
}

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    seeds: usize,
    chunk: usize,
    values: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let rows = prop_oneof![8 => 1usize..200, 1 => Just(0)];
    (rows, prop_oneof![3 => 1usize..40, 1 => 40usize..3000], 1usize..20, any::<u64>())
        .prop_map(|(rows, seeds, chunk, values)| Case { rows, seeds, chunk, values })
}

fn same_reports(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(40)?.check(&case(), |case| {
        let mut draw = Draw(case.values);
        let stream = Stream::new(engine.context())?;
        let hidden = case.seeds * case.chunk;
        let layer = Layer::builder(SeedLayout::new(hidden, case.chunk)?).build()?;
        let mut waits = CudaLayer::from_layer(&layer, &engine, &stream)?;
        let mut publishes = CudaLayer::from_layer(&layer, &engine, &stream)?;
        let (mut transport, reports) = transport()?;
        for epoch in 0..8 {
            let mode = mode(&mut draw)?;
            let mut data = Data::new(&stream, case.rows, hidden, draw.next())?;
            for pass in 0..3 {
                // In one window in two, in its middle.
                if pass == draw.below(6) {
                    waits.set_telemetry_mode(mode)?;
                    publishes.set_telemetry_mode(mode)?;
                }
                data.both(&mut waits)?;
                data.both(&mut publishes)?;
            }
            let want = waits.end_epoch()?.telemetry;
            match draw.below(3) {
                0 => {
                    let boundary = publishes.end_epoch_publishing(&transport)?;
                    ensure(boundary.outcome.epoch == epoch, || format!("{boundary:?}"))?;
                    let sent = boundary.telemetry == PublishOutcome::Sent { windows: 1 };
                    ensure(sent, || format!("{boundary:?}"))?;
                }
                1 => {
                    let sent = publishes.publish(&transport)?;
                    ensure(sent == PublishOutcome::Sent { windows: 1 }, || format!("{sent:?}"))?;
                    is_empty(&publishes.end_epoch()?.telemetry)?;
                }
                _ => {
                    let windows = publishes.publish_waiting(&transport)?;
                    ensure(windows == 1, || format!("{windows} windows"))?;
                    is_empty(&publishes.end_epoch()?.telemetry)?;
                }
            }
            transport.flush(LONG)?;
            same(&format!("epoch {epoch}"), &*reports.recv_timeout(LONG)?, &want)?;
        }
        let closed = transport.close(LONG)?;
        ensure(closed.status.lost == 0 && reports.try_recv().is_err(), || format!("{closed:?}"))
    })
}

/// Two equal layers, one of which publishes to a consumer that is stuck while modes change, the host synchronizes, checkpoints are
/// saved, commands are applied and seeds learn. In the end every window has arrived, with the bits of the other's reports.
fn lagging(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let folder = tempfile::tempdir()?;
    let cases = Cases::from_environment(12)?;
    for life in 0..cases.count {
        let mut draw = Draw(cases.seed.wrapping_add(life.into()));
        let mut waits = CudaLayer::from_layer(&layer()?, &engine, &stream)?;
        let mut publishes = CudaLayer::from_layer(&layer()?, &engine, &stream)?;
        let (mut transport, reports, Stuck { begun, release }) = stuck_transport()?;
        let (mut windows, mut deferred) = (Vec::new(), 0);
        for epoch in 0..25u64 {
            let mut data = Data::new(&stream, ROWS, HIDDEN, draw.next())?;
            for _ in 0..1 + draw.below(3) {
                if draw.below(4) == 0 {
                    let mode = mode(&mut draw)?;
                    waits.set_telemetry_mode(mode)?;
                    publishes.set_telemetry_mode(mode)?;
                }
                for layer in [&mut waits, &mut publishes] {
                    data.both(layer)?;
                    layer.optimizer_step(&ADAMW)?;
                    layer.advance_step()?;
                }
                // What is on its way, or waits for it, is no part of the layer.
                match draw.below(4) {
                    0 => {
                        let (a, b) = (publishes.to_layer()?, waits.to_layer()?);
                        ensure(a.chunk_stats() == b.chunk_stats(), || "statistics".to_owned())?;
                        let (a, b) = (a.gradient_stats(), b.gradient_stats());
                        ensure(a == b, || "gradient statistics".to_owned())?;
                    }
                    1 => {
                        let path = folder.path().join("layer.safetensors");
                        publishes.save(&path)?;
                        waits.synchronize()?;
                        let saved = std::fs::read(&path)?;
                        let same = saved == waits.layer_state().to_bytes()?;
                        ensure(same, || format!("checkpoint of epoch {epoch}"))?;
                        if draw.below(2) == 0 {
                            let registry = kasmina_core::Registry::builtin();
                            let _ = publishes.restore(&path, &registry, "again")?;
                            let _ = waits.restore(&path, &registry, "again")?;
                        }
                    }
                    _ => {}
                }
            }
            if epoch == 9 {
                waits.command(0, Command::Cancel, "so that the boundary has something to do")?;
                publishes.command(
                    0,
                    Command::Cancel,
                    "so that the boundary has something to do",
                )?;
            }
            windows.push(waits.end_epoch()?.telemetry);
            match publishes.end_epoch_publishing(&transport)?.telemetry {
                PublishOutcome::Sent { windows } => {
                    ensure(windows == 1, || format!("{windows} windows were free to go"))?;
                }
                PublishOutcome::Deferred { windows } => deferred = windows,
            }
            if epoch == 0 {
                begun.recv_timeout(LONG)?;
            }
        }
        // The consumer has the first, and two are on their way.
        ensure(publishes.deferred_windows() == deferred && deferred == 22, || {
            format!("{deferred} windows wait")
        })?;
        windows.push(waits.end_epoch()?.telemetry);
        let last = match draw.below(2) {
            // Nothing waits on the device, however long the consumer is stuck.
            0 => {
                let windows = publishes.publish_waiting(&transport)?;
                drop(release);
                windows
            }
            _ => {
                drop(release);
                transport.flush(LONG)?;
                match publishes.publish(&transport)? {
                    PublishOutcome::Sent { windows } => windows,
                    PublishOutcome::Deferred { .. } => return Err("both slots are free".into()),
                }
            }
        };
        ensure(last == deferred + 1, || format!("{last} windows went last"))?;
        drop(publishes);
        let closed = transport.close(LONG)?;
        ensure(closed.status.lost == 0 && closed.undelivered.is_empty(), || format!("{closed:?}"))?;
        let mut windows = windows.into_iter();
        let arrived: Vec<_> = reports.try_iter().collect();
        for (i, report) in arrived.iter().enumerate() {
            let mut want = windows.next().ok_or("more windows than there were")?;
            for _ in 1..report.windows {
                want.merge(windows.next().ok_or("more windows than there were")?)?;
            }
            same(&format!("life {life}, report {i} of {}", arrived.len()), report, &want)?;
        }
        ensure(windows.next().is_none(), || "a window is missing".to_owned())?;
    }
    Ok(())
}
