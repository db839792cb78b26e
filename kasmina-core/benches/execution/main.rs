//! A training step of a deep stack of small layers, by every way to execute it: what launching costs where it costs more than the
//! work. `cargo bench -p kasmina-core --bench execution`, on a machine with a GPU.
//!
//! Each figure is microseconds a layer of a step: the time between two events around a batch of steps, divided by their number and
//! by the layers; so the host's part counts where it is the slower of the two, as in training. The host's own time for the same
//! batch stands beside it. The matrices of a step stay in the second-level cache where they fit, for every way alike.

mod stack;

use std::process::ExitCode;
use std::time::Instant;

use kasmina_core::cuda::{Engine, KERNELS, Room, StepGraph, StepGraphOptions};
use kasmina_gpu_test::{Body, Failed, Measurement, record};
use kasmina_sys::{ComputeCapability, Device, Event, Stream};

use stack::{LAYERS, Life, Parts, Stack};

const BENCHES: &[(&str, Body)] =
    &[("rows_32x768", narrow), ("rows_8x4096", wide), ("rows_256x1024", tall)];

/// Batches that count, and those before them that warm up.
const REPEATS: usize = 41;
const WARM_UP: usize = 3;
/// Steps of a batch.
const BATCH: usize = 8;

fn main() -> ExitCode {
    kasmina_gpu_test::bench_main("kasmina-core", &KERNELS, BENCHES)
}

fn narrow(device: Device) -> Result<(), Failed> {
    every_way(device, 32, 768)
}

fn wide(device: Device) -> Result<(), Failed> {
    every_way(device, 8, 4096)
}

fn tall(device: Device) -> Result<(), Failed> {
    every_way(device, 256, 1024)
}

/// How a step is executed.
enum Way {
    Launches,
    Replays(StepGraph),
}

/// The ways, the denominator first. Another executor is one more line here and one more arm in `Way`.
fn ways(device: Device, stream: &Stream) -> Result<Vec<(&'static str, Way)>, Failed> {
    let graph = |options| Way::Replays(StepGraph::new(stream, options));
    let exact = StepGraphOptions::new().room(Room::Exact);
    let mut ways = vec![
        ("stream launches", Way::Launches),
        ("graph replay, room for the lifecycle", graph(StepGraphOptions::new())),
        ("graph replay, exact", graph(exact)),
    ];
    if device.info()?.capability >= ComputeCapability::new(9, 0) {
        ways.push(("graph replay, programmatic edges", graph(exact.programmatic(true))));
    }
    Ok(ways)
}

fn every_way(device: Device, rows: usize, hidden: usize) -> Result<(), Failed> {
    let info = device.info()?;
    println!(
        "{LAYERS} layers of [{rows}, {hidden}] f32 in 16 chunks, telemetry on; {}, compute capability {}, driver for CUDA {}; medians \
         of {REPEATS} batches of {BATCH} steps, microseconds a layer",
        device.name()?,
        info.capability,
        device.driver().version(),
    );
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    for life in [Life::Dormant, Life::Training, Life::Grafting] {
        // One for every way: what its launches are does not change with its numbers.
        let mut stack = Stack::new(&engine, &stream, rows, hidden, life)?;
        for parts in [Parts::Forward, Parts::Whole] {
            let mut denominator = None;
            for (way, how) in ways(device, &stream)? {
                let (device_us, host_us, report) = time(&mut stack, &stream, parts, how)?;
                let name = format!("execution/{rows}x{hidden}/{life}/{parts}/{way}");
                record(
                    device,
                    &Measurement { name: &name, unit: "us a layer", values: &device_us },
                )?;
                let host = format!("{name}, host alone");
                record(device, &Measurement { name: &host, unit: "us a layer", values: &host_us })?;
                let median = middle(&device_us);
                let of = *denominator.get_or_insert(median);
                println!("    {:.2} times stream launches{report}", of / median);
            }
        }
    }
    Ok(())
}

/// Microseconds a layer, of each batch: between the events, and on the host.
fn time(
    stack: &mut Stack,
    stream: &Stream,
    parts: Parts,
    mut way: Way,
) -> Result<(Vec<f64>, Vec<f64>, String), Failed> {
    let (start, end) = (Event::timed(stream.context())?, Event::timed(stream.context())?);
    let (mut device_us, mut host_us) = (Vec::new(), Vec::new());
    let layers = (BATCH * LAYERS) as f64;
    for batch in 0..WARM_UP + REPEATS {
        start.record(stream)?;
        let began = Instant::now();
        for _ in 0..BATCH {
            match &mut way {
                Way::Launches => stack.launches(parts)?,
                Way::Replays(graph) => stack.replay(graph, parts)?,
            }
        }
        let queued = began.elapsed();
        end.record(stream)?;
        end.synchronize()?;
        if batch >= WARM_UP {
            device_us.push(f64::from(end.milliseconds_since(&start)?) * 1e3 / layers);
            host_us.push(queued.as_secs_f64() * 1e6 / layers);
        }
    }
    let report = match &way {
        Way::Launches => String::new(),
        Way::Replays(graph) => format!("; {}", graph.report()),
    };
    Ok((device_us, host_us, report))
}

fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
