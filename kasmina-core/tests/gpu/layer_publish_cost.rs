//! What publishing costs: the call's time on the host, the consumer's, and no memory, however often it is done.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kasmina_core::cuda::{CudaLayer, Engine, PublishOutcome};
use kasmina_core::{Layer, SeedLayout};
use kasmina_gpu_test::{Body, Cases, Failed, Measurement, ensure, record};
use kasmina_sys::{Context, Device, Stream};
use kasmina_telemetry::transport::Transport;
use kasmina_telemetry::{TelemetryMode, TelemetryReport};

use crate::layer_publish::{Data, LONG, transport};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("publishing_for_ten_thousand_epochs_takes_no_memory", no_growth),
    ("a_boundary_of_a_hundred_thousand_seeds_in_time", boundary_time),
];

/// Free device memory, memory of the pool that buffers hold, and the process's resident memory, bytes; page-locked memory is
/// resident.
fn memory(context: &Context) -> Result<[u64; 3], Failed> {
    context.synchronize()?;
    let used = context.pool_usage()?.map_or(0, |usage| usage.used);
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).ok_or("no second number in statm")?.parse()?;
    // SAFETY: a question without arguments that matter.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })?;
    Ok([context.memory_info()?.0, used, pages * page])
}

/// Epochs in all modes, with a consumer that keeps up and one that lags.
fn no_growth(device: Device) -> Result<(), Failed> {
    const SEEDS: usize = 2000;
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let start = Layer::builder(SeedLayout::new(2 * SEEDS, 2)?).build()?;
    let mut layer = CudaLayer::from_layer(&start, &engine, &stream)?;
    let mut data = Data::new(&stream, 2, 2 * SEEDS, 1)?;
    let epochs = u64::from(Cases::from_environment(10_000)?.count);
    let (give, taken) = mpsc::channel();
    let mut count = 0u64;
    let mut transport = Transport::new(2, move |report: &Arc<TelemetryReport>| {
        count += 1;
        if count.is_multiple_of(50) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(give.send((report.windows, report.steps))?)
    })?;
    let (mut deferrals, mut before) = (0u64, None);
    let warm = epochs.min(500);
    for epoch in 0..warm + epochs {
        if epoch == warm {
            transport.flush(LONG)?;
            before = Some(memory(engine.context())?);
        }
        if epoch.is_multiple_of(16) {
            let debug = epoch.is_multiple_of(64);
            let mode = if debug { TelemetryMode::Debug } else { TelemetryMode::Production };
            layer.set_telemetry_mode(mode)?;
        }
        data.forward(&mut layer)?;
        let boundary = layer.end_epoch_publishing(&transport)?;
        deferrals += u64::from(matches!(boundary.telemetry, PublishOutcome::Deferred { .. }));
    }
    let last = layer.publish_waiting(&transport)?;
    transport.flush(LONG)?;
    let (before, after) = (before.ok_or("no epochs")?, memory(engine.context())?);
    transport.close(LONG)?;
    let arrived: Vec<(u64, u64)> = taken.try_iter().collect();
    let windows: u64 = arrived.iter().map(|(windows, _)| windows).sum();
    let steps: u64 = arrived.iter().map(|(_, steps)| steps).sum();
    println!(
        "{epochs} epochs of {SEEDS} seeds: {} reports, {deferrals} deferred, {last} in the last; free device memory, pool, \
         resident: {before:?}, then {after:?}",
        arrived.len()
    );
    ensure((windows, steps) == (warm + epochs + 1, warm + epochs), || {
        format!("{windows} windows and {steps} steps arrived of {}", warm + epochs)
    })?;
    // Less than a kilobyte an epoch over the whole run, and no less than what allocators round to.
    let allowed = (epochs * 1024).max(16 << 20);
    let growth = [
        ("device memory", before[0].saturating_sub(after[0])),
        ("the pool's buffers", after[1].saturating_sub(before[1])),
        ("resident memory", after[2].saturating_sub(before[2])),
    ];
    for (what, grown) in growth {
        ensure(grown <= allowed, || format!("{what} grew by {grown} bytes in {epochs} epochs"))?;
    }
    Ok(())
}

const ROUNDS: usize = 31;

fn boundary_time(device: Device) -> Result<(), Failed> {
    const SEEDS: usize = 100_000;
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let start = Layer::builder(SeedLayout::new(3 * SEEDS, 3)?).build()?;
    let mut layer = CudaLayer::from_layer(&start, &engine, &stream)?;
    let mut data = Data::new(&stream, 8, 3 * SEEDS, 1)?;
    for (name, mode) in [("production", TelemetryMode::Production), ("debug", TelemetryMode::Debug)]
    {
        layer.set_telemetry_mode(mode)?;
        let (mut transport, reports) = transport()?;
        // Memory is made by the first.
        for _ in 0..3 {
            data.forward(&mut layer)?;
            let _ = layer.end_epoch_publishing(&transport)?;
            transport.flush(LONG)?;
        }
        let (mut publishing, mut arriving, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            data.forward(&mut layer)?;
            stream.synchronize()?;
            let begun = Instant::now();
            let _ = layer.end_epoch_publishing(&transport)?;
            publishing.push(begun.elapsed());
            transport.flush(LONG)?;
            arriving.push(begun.elapsed());
            data.forward(&mut layer)?;
            stream.synchronize()?;
            let begun = Instant::now();
            let _ = layer.end_epoch()?;
            waiting.push(begun.elapsed());
        }
        drop(reports);
        transport.close(LONG).map(drop)?;
        let landing = landing_times(&mut layer, &mut data, &stream)?;
        let measured = [
            ("publishing, the call on the host", publishing),
            ("publishing, until the consumer has it", arriving),
            ("publishing, the consumer's work for a copy that is here", landing),
            ("end_epoch, which waits", waiting),
        ];
        for (what, times) in measured {
            let values: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
            let label = format!("boundary/{SEEDS} seeds/{name}/{what}");
            let measurement = Measurement { name: &label, unit: "ms", values: &values };
            let median = measurement.median().unwrap_or(f64::NAN);
            println!("{label}: {median:.3} ms");
            record(device, &measurement)?;
            if what.ends_with("on the host") {
                // The aim is 1 ms. Debug mode moves no more on the host.
                ensure(median < 5.0, || format!("{label}: {median} ms, at most 5 are allowed"))?;
            }
        }
    }
    Ok(())
}

/// What `land` takes where the copy is done: from the moment that the consumer is free to the next report.
fn landing_times(
    layer: &mut CudaLayer,
    data: &mut Data,
    stream: &Stream,
) -> Result<Vec<Duration>, Failed> {
    let ((permit, gate), (tell, told)) = (mpsc::channel::<()>(), mpsc::channel());
    let mut transport = Transport::new(2, move |_: &Arc<TelemetryReport>| {
        tell.send(Instant::now())?;
        // The end of the permits is the end of the test.
        let _ = gate.recv();
        Ok(())
    })?;
    let mut times = Vec::new();
    data.forward(layer)?;
    let _ = layer.publish(&transport)?;
    let _ = told.recv_timeout(LONG)?;
    for _ in 0..ROUNDS {
        data.forward(layer)?;
        let _ = layer.publish(&transport)?;
        stream.synchronize()?;
        // The copy is on another stream.
        std::thread::sleep(Duration::from_millis(20));
        let free = Instant::now();
        permit.send(())?;
        times.push(told.recv_timeout(LONG)?.saturating_duration_since(free));
    }
    drop(permit);
    transport.close(LONG).map(drop)?;
    Ok(times)
}
