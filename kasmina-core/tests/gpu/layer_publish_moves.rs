//! What publishing promises beside its numbers: nobody waits, layers and transports may go, and a capture is left alone.

use std::time::Duration;

use kasmina_core::cuda::{CudaError, CudaLayer, Engine, PublishOutcome};
use kasmina_core::{Layer, SeedLayout};
use kasmina_gpu_test::{Body, Cases, Failed, ensure, without_waiting};
use kasmina_sys::{CaptureMode, Device, DeviceBuffer, Graph, Stream};
use kasmina_telemetry::{Histogram, TelemetryMode};

use crate::layer_moves::{HIDDEN, ROWS};
use crate::layer_publish::{Data, LONG, Stuck, same, stuck_transport, transport};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("publishing_does_not_wait", no_waiting),
    ("layers_and_transports_go_with_reports_on_their_way", dropped),
    ("publishing_is_refused_in_a_capture_and_loses_nothing", captured),
];

/// With the device held up, windows are published, more than there are slots, and modes change.
fn no_waiting(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let start = Layer::builder(SeedLayout::new(HIDDEN, 8)?).build()?;
    let mut layer = CudaLayer::from_layer(&start, &engine, &stream)?;
    let mut data = Data::new(&stream, ROWS, HIDDEN, 1)?;
    let (mut transport, reports) = transport()?;
    // Kernels are loaded and memory is allocated, each slot's histograms too.
    for _ in 0..3 {
        for mode in [TelemetryMode::Debug, TelemetryMode::Production] {
            layer.set_telemetry_mode(mode)?;
            data.both(&mut layer)?;
            let _ = layer.end_epoch_publishing(&transport)?;
            transport.flush(LONG)?;
        }
    }
    let before = reports.try_iter().count();
    ensure(before == 6, || format!("{before} reports"))?;
    layer.synchronize()?;
    let mut outcomes = Vec::new();
    without_waiting(&stream, || {
        for mode in [TelemetryMode::Production, TelemetryMode::Debug, TelemetryMode::Production] {
            layer.set_telemetry_mode(mode)?;
            data.both(&mut layer)?;
            outcomes.push(layer.publish(&transport)?);
            data.both(&mut layer)?;
            outcomes.push(layer.end_epoch_publishing(&transport)?.telemetry);
        }
        Ok(())
    })?;
    let want = [
        PublishOutcome::Sent { windows: 1 },
        PublishOutcome::Sent { windows: 1 },
        PublishOutcome::Deferred { windows: 1 },
        PublishOutcome::Deferred { windows: 2 },
        PublishOutcome::Deferred { windows: 3 },
        PublishOutcome::Deferred { windows: 4 },
    ];
    ensure(outcomes == want, || format!("{outcomes:?}"))?;
    layer.synchronize()?;
    let _ = layer.publish_waiting(&transport)?;
    transport.close(LONG)?;
    let arrived: Vec<_> = reports.try_iter().collect();
    let windows: Vec<u64> = arrived.iter().map(|report| report.windows).collect();
    ensure(windows == [1, 1, 5], || format!("{windows:?}"))?;
    // Two of the merged windows were in debug mode, with a pass each.
    let counted = arrived[2].histogram(0).map(Histogram::count);
    ensure(counted == Some(2 * 8 * ROWS as u64), || format!("{counted:?} in a histogram"))?;
    ensure(arrived[2].chunk[0].n == 4 * 8 * ROWS as u64, || format!("{:?}", arrived[2].chunk[0]))
}

/// Layers that are dropped with both slots on their way, and memory that is used by others at once; transports that are dropped
/// with reports in them.
fn dropped(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let start = Layer::builder(SeedLayout::new(64 * 1024, 8)?).build()?;
    for round in 0..Cases::from_environment(20)?.count {
        let stream = Stream::new(engine.context())?;
        let mut waits = CudaLayer::from_layer(&start, &engine, &stream)?;
        let mut publishes = CudaLayer::from_layer(&start, &engine, &stream)?;
        let mut data = Data::new(&stream, 4, 64 * 1024, round.into())?;
        let (mut transport, reports, Stuck { release, .. }) = stuck_transport()?;
        let debug = round % 2 == 1;
        let mut want = Vec::new();
        for layer in [&mut waits, &mut publishes] {
            layer.set_telemetry_mode(if debug {
                TelemetryMode::Debug
            } else {
                TelemetryMode::Production
            })?;
        }
        for _ in 0..2 {
            data.both(&mut waits)?;
            data.both(&mut publishes)?;
            want.push(waits.end_epoch()?.telemetry);
            let _ = publishes.end_epoch_publishing(&transport)?;
        }
        drop(publishes);
        // The pool hands the layer's memory out again.
        let noise: Vec<_> = (0..8)
            .map(|_| {
                let mut buffer = DeviceBuffer::<u32>::unwritten(&stream, 64 * 1024 * 16)?;
                buffer.fill_u32(0xdead_beef, &stream)?;
                Ok(buffer)
            })
            .collect::<Result<_, kasmina_sys::Error>>()?;
        if round % 3 == 2 {
            // What no consumer has taken goes with its transport; nothing else is to be seen of it.
            drop(reports);
            drop(release);
            drop(transport);
            stream.synchronize()?;
            drop(noise);
            continue;
        }
        drop(release);
        transport.flush(LONG)?;
        for want in &want {
            same(&format!("round {round}"), &*reports.recv_timeout(LONG)?, want)?;
        }
        let closed = transport.close(LONG)?;
        ensure(closed.status.lost == 0, || format!("{closed:?}"))?;
        drop(noise);
    }
    Ok(())
}

fn captured(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let start = Layer::builder(SeedLayout::new(HIDDEN, 8)?).build()?;
    let mut layer = CudaLayer::from_layer(&start, &engine, &stream)?;
    let mut data = Data::new(&stream, ROWS, HIDDEN, 1)?;
    let (mut transport, reports) = transport()?;
    data.forward(&mut layer)?;
    let mut refused = None;
    let _ = Graph::capture(&stream, CaptureMode::default(), |_| {
        refused = Some(layer.publish(&transport));
        Ok(())
    })?;
    let is_refused =
        matches!(refused, Some(Err(CudaError::Driver(kasmina_sys::Error::Capturing { .. }))));
    ensure(is_refused, || format!("{refused:?}"))?;
    data.forward(&mut layer)?;
    let _ = layer.publish(&transport)?;
    // The consumer waits for a copy while this thread captures in the strictest mode.
    let _ = Graph::capture(&stream, CaptureMode::Global, |_| {
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    })?;
    transport.close(LONG)?;
    let report = reports.recv_timeout(LONG)?;
    let found = (report.windows, report.steps, report.chunk[0].n);
    ensure(found == (1, 2, 2 * 8 * ROWS as u64), || format!("{found:?}"))
}
