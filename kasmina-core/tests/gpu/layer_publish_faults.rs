//! Faults on the way of a layer's reports: a consumer that refuses, panics and stalls, and a stream whose work fails.

use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kasmina_core::cuda::{CudaLayer, DeviceMatMut, DeviceMatRef, Engine, PublishOutcome};
use kasmina_core::{ForwardOptions, Layer, SeedLayout};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, DeviceSlice, Driver, Stream};
use kasmina_telemetry::transport::{BoxError, ConsumerState, Transport, TransportError};
use kasmina_telemetry::{TelemetryMode, TelemetryReport};

use crate::common::Draw;
use crate::layer_moves::{HIDDEN, ROWS, layer};
use crate::layer_publish::{Data, LONG, same, transport};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("a_consumer_that_refuses_panics_and_stalls_gets_every_window_of_a_layer", consumer),
    ("work_of_a_stream_that_fails_is_an_error_on_both_sides", stream_error),
];

/// Set in a process that is there to lose its context.
const FAULT: &str = "FAULT_OF_A_STREAM";

/// Takes reports, when it does not refuse one, panic, or stall.
fn faulty(
    seed: u64,
    give: mpsc::Sender<Arc<TelemetryReport>>,
) -> impl FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError> + Send + 'static {
    let mut draw = Draw(seed);
    move |report| {
        match draw.below(6) {
            // Without the hook that prints.
            0 => std::panic::resume_unwind(Box::new("a fault on purpose")),
            1 => return Err("not now".into()),
            2 => std::thread::sleep(Duration::from_millis(3)),
            _ => {}
        }
        Ok(give.send(Arc::clone(report))?)
    }
}

/// Puts another consumer in the place of one that panicked.
fn revive(
    transport: &mut Transport,
    seed: u64,
    give: &mpsc::Sender<Arc<TelemetryReport>>,
) -> Result<bool, Failed> {
    if !matches!(transport.status().consumer, ConsumerState::Panicked(_)) {
        return Ok(false);
    }
    let deadline = Instant::now() + LONG;
    loop {
        match transport.restart(faulty(seed, give.clone())) {
            Ok(()) => return Ok(true),
            Err(TransportError::StillRunning) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// As [`same`], but for the last digits of moments: a refused report of several windows that meets another of several gives other
/// roundings than those windows one by one.
fn alike(what: &str, found: &TelemetryReport, mut want: TelemetryReport) -> Result<(), Failed> {
    let near = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-12 * (a.abs() + b.abs() + scale);
    for (a, b) in found.chunk.iter().zip(&mut want.chunk) {
        let close = near(a.mean, b.mean, 1.0) && near(a.m2, b.m2, 0.0);
        ensure(close, || format!("{what}: {a:?} instead of {b:?}"))?;
        (b.mean, b.m2) = (a.mean, a.m2);
    }
    for (a, b) in found.gradient.iter().zip(&mut want.gradient) {
        let close = near(a.mean, b.mean, 1.0)
            && near(a.m2, b.m2, 0.0)
            && near(a.sum_squares, b.sum_squares, 0.0);
        ensure(close, || format!("{what}: {a:?} instead of {b:?}"))?;
        (b.mean, b.m2, b.sum_squares) = (a.mean, a.m2, a.sum_squares);
    }
    same(what, found, &want)
}

/// Two equal layers, one of which publishes to such a consumer. Every window arrives, with what the other's reports say.
fn consumer(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let cases = Cases::from_environment(6)?;
    let (mut panics, mut refusals) = (0, 0);
    for life in 0..cases.count {
        let mut draw = Draw(cases.seed.wrapping_add(life.into()));
        let mut waits = CudaLayer::from_layer(&layer()?, &engine, &stream)?;
        let mut publishes = CudaLayer::from_layer(&layer()?, &engine, &stream)?;
        let (give, reports) = mpsc::channel();
        let mut transport = Transport::new(2, faulty(draw.next(), give.clone()))?;
        let mut windows = Vec::new();
        for _ in 0..40 {
            let mut data = Data::new(&stream, ROWS, HIDDEN, draw.next())?;
            let debug = draw.below(3) == 0;
            for layer in [&mut waits, &mut publishes] {
                layer.set_telemetry_mode(if debug {
                    TelemetryMode::Debug
                } else {
                    TelemetryMode::Production
                })?;
                data.both(layer)?;
            }
            windows.push(waits.end_epoch()?.telemetry);
            let _ = publishes.end_epoch_publishing(&transport)?;
            if draw.below(4) == 0 {
                // As far as the consumer will.
                let _ = transport.flush(Duration::from_millis(50));
            }
            panics += u32::from(revive(&mut transport, draw.next(), &give)?);
        }
        windows.push(waits.end_epoch()?.telemetry);
        publishes.publish_waiting(&transport)?;
        drop(publishes);
        for _ in 0..100 {
            if transport.flush(LONG).is_ok() {
                break;
            }
            panics += u32::from(revive(&mut transport, draw.next(), &give)?);
        }
        let closed = transport.close(LONG)?;
        refusals += closed.status.refused;
        ensure(closed.status.lost == 0, || format!("{:?}", closed.status))?;
        let mut windows = windows.into_iter();
        let arrived = reports.try_iter().chain(closed.undelivered.into_iter().map(Arc::new));
        for (i, report) in arrived.enumerate() {
            let mut want = windows.next().ok_or("more windows than there were")?;
            for _ in 1..report.windows {
                want.merge(windows.next().ok_or("more windows than there were")?)?;
            }
            alike(&format!("life {life}, report {i}"), &report, want)?;
        }
        ensure(windows.next().is_none(), || "a window is missing".to_owned())?;
    }
    println!("{} lives, {panics} panics, {refusals} refusals", cases.count);
    ensure(panics > 0 && refusals > 0, || "nothing went wrong".to_owned())
}

/// A context that an illegal access has spoilt is spoilt for good, so another process does it.
fn stream_error(_: Device) -> Result<(), Failed> {
    let mut child = Command::new(std::env::current_exe()?)
        .env(FAULT, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + LONG;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            return Err("it hangs".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    print!("{}", text(&output.stdout));
    ensure(output.status.success(), || format!("{}: {}", output.status, text(&output.stderr)))
}

/// The other process's whole work, where this is it.
pub(crate) fn child() -> Option<ExitCode> {
    std::env::var_os(FAULT)?;
    Some(match lose_the_context() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    })
}

fn lose_the_context() -> Result<(), Failed> {
    let engine = Engine::new(Driver::load()?.device(0)?)?;
    let stream = Stream::new(engine.context())?;
    let start = Layer::builder(SeedLayout::new(HIDDEN, 8)?).build()?;
    let mut layer = CudaLayer::from_layer(&start, &engine, &stream)?;
    let mut data = Data::new(&stream, ROWS, HIDDEN, 1)?;
    let (mut transport, reports) = transport()?;
    data.forward(&mut layer)?;
    let _ = layer.publish(&transport)?;
    transport.flush(LONG)?;
    ensure(reports.try_iter().count() == 1, || "a good report did not arrive".to_owned())?;

    // Held up, so that the report is on its way before anything fails.
    let (release, gate) = mpsc::channel::<()>();
    stream.call_host(move || {
        let _ = gate.recv();
    })?;
    let mut y = DeviceBuffer::<f32>::unwritten(&stream, ROWS * HIDDEN)?;
    // SAFETY: none: nothing lies there, which is the fault. The context is lost by it, and this process ends.
    let nothing =
        unsafe { DeviceSlice::<f32>::from_raw(&stream, 0x7a00_0000_0000, ROWS * HIDDEN) }?;
    let x = DeviceMatRef::new(nothing, ROWS, HIDDEN, HIDDEN)?;
    let mut to = DeviceMatMut::new(y.as_mut_slice(), ROWS, HIDDEN, HIDDEN)?;
    layer.forward(x, &mut to, &ForwardOptions::new())?;
    let sent = layer.publish(&transport)?;
    ensure(sent == PublishOutcome::Sent { windows: 1 }, || format!("{sent:?}"))?;
    drop(release);
    // The consumer's side: the report is lost and counted, with the reason.
    let _ = transport.flush(LONG);
    let status = transport.status();
    ensure((status.lost, status.delivered) == (1, 1), || format!("{status:?}"))?;
    println!("lost with: {}", status.last_error.as_deref().unwrap_or("no reason"));
    ensure(status.last_error.is_some(), || format!("{status:?}"))?;
    // The layer's side: errors that say that the context is gone.
    for error in [layer.publish(&transport).err(), layer.end_epoch().err()] {
        let error = error.ok_or("it went on as if nothing had happened")?;
        ensure(error.is_sticky(), || format!("{error:?}"))?;
        println!("the layer says: {error}");
    }
    // Reports that are no device's still come through.
    transport.publish(TelemetryReport { layer: "another".into(), ..TelemetryReport::default() });
    transport.flush(LONG)?;
    ensure(reports.try_iter().count() == 1, || "the transport is gone, too".to_owned())?;
    drop(layer);
    transport.close(LONG).map(drop)?;
    Ok(())
}
