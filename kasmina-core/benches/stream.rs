//! The streaming passes on a GPU, in one run with what limits them: the forward pass against the driver's device-to-device copy of
//! the same matrix, the backward pass against a kernel that reads two such matrices and writes one.

use std::process::ExitCode;

use half::bf16;
use kasmina_core::cuda::{Backward, DeviceMatMut, DeviceMatRef, Engine, Forward, KERNELS, Streams};
use kasmina_core::{
    Blueprint, Bounds, Element, InitialSeed, Layer, SeedLayout, Stability, StabilityMode, State,
};
use kasmina_gpu_test::{Body, Failed, Measurement, record};
use kasmina_sys::{Device, DeviceBuffer, Event, LaunchConfig, Module, Stream};
use kasmina_tma::LoadPath;

const BENCHES: &[(&str, Body)] = &[
    ("forward_f32", forward_f32),
    ("forward_bf16", forward_bf16),
    ("backward_f32", backward_f32),
    ("backward_bf16", backward_bf16),
];

/// Matrices that are gone round, so that none is found in the second-level cache.
const BUFFERS: usize = 4;
const REPEATS: usize = 41;
/// Passes of a batch.
const BATCH: usize = 2 * BUFFERS;

fn main() -> ExitCode {
    kasmina_gpu_test::bench_main("kasmina-core", &KERNELS, BENCHES)
}

fn forward_f32(device: Device) -> Result<(), Failed> {
    forward::<f32>(device, 8192, 8192)
}

fn forward_bf16(device: Device) -> Result<(), Failed> {
    forward::<bf16>(device, 8192, 16384)
}

/// Milliseconds a pass, of each of `REPEATS` batches after three that warm up. In batches, so that what the host does before a
/// launch happens while the device works on the one before, as in training.
fn time(
    stream: &Stream,
    mut body: impl FnMut(usize) -> Result<(), Failed>,
) -> Result<Vec<f64>, Failed> {
    let (start, end) = (Event::timed(stream.context())?, Event::timed(stream.context())?);
    let mut values = Vec::with_capacity(REPEATS);
    for i in 0..REPEATS + 3 {
        start.record(stream)?;
        for pass in 0..BATCH {
            body(pass % BUFFERS)?;
        }
        end.record(stream)?;
        end.synchronize()?;
        if i >= 3 {
            values.push(f64::from(end.milliseconds_since(&start)?) / BATCH as f64);
        }
    }
    Ok(values)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn forward<T: Element>(device: Device, rows: usize, hidden: usize) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let elements = rows * hidden;
    let row: Vec<T> = (0..elements)
        .map(|i| T::from_f32(((i * 2_654_435_761) % 1999) as f32 / 1000.0 - 1.0))
        .collect();
    let mut x = Vec::new();
    let mut y = Vec::new();
    for _ in 0..BUFFERS {
        x.push(DeviceBuffer::from_host(&stream, &row)?);
        y.push(DeviceBuffer::<T>::zeroed(&stream, elements)?);
    }
    let name = |what: &str| format!("forward {} {rows}x{hidden}/{what}", T::DTYPE);
    let copy = time(&stream, |i| Ok(y[i].copy_from_device(x[i].as_slice(), &stream)?))?;
    let ceiling = median(&copy);
    record(device, &Measurement { name: &name("device copy"), unit: "ms", values: &copy })?;
    println!("    {:.3} TB/s", 2.0 * (elements * size_of::<T>()) as f64 / ceiling / 1e9);
    for chunk in [64, 1] {
        for (kind, on_path) in [("dormant", false), ("residual on path", true)] {
            for path in LoadPath::LADDER {
                for measured in [true, false] {
                    if !measured && !on_path {
                        continue;
                    }
                    let layout = SeedLayout::new(hidden, chunk)?;
                    let mut streams = Streams::new(&engine, &stream, layout)?;
                    let mut builder = Layer::builder(layout);
                    if on_path {
                        for seed in 0..layout.seeds() {
                            builder = builder.seed(
                                seed,
                                InitialSeed {
                                    state: State::Fossilized,
                                    alpha: 0.5,
                                    blueprint: Some(Blueprint::Residual),
                                    ..InitialSeed::default()
                                },
                            );
                        }
                    }
                    let mut layer = builder.build()?;
                    layer.refresh_plan()?;
                    streams.set_plan(layer.plan())?;
                    streams.set_bounds(Bounds {
                        guarded: true,
                        epsilon: 1e-8,
                        lower: -1e6,
                        upper: 1e6,
                    })?;
                    let options = Forward { measured, dead_epsilon: 1e-8, path: Some(path) };
                    let values = time(&stream, |i| {
                        let from = DeviceMatRef::new(x[i].as_slice(), rows, hidden, hidden)?;
                        let mut to = DeviceMatMut::new(y[i].as_mut_slice(), rows, hidden, hidden)?;
                        drop(streams.forward(from, &mut to, &options)?);
                        Ok(())
                    })?;
                    let what = format!(
                        "{kind}, chunk {chunk}, {}, {path}",
                        if measured { "telemetry" } else { "no telemetry" }
                    );
                    record(
                        device,
                        &Measurement { name: &name(&what), unit: "ms", values: &values },
                    )?;
                    println!("    {:.3} of the device copy", ceiling / median(&values));
                }
            }
        }
    }
    Ok(())
}

fn backward_f32(device: Device) -> Result<(), Failed> {
    backward::<f32>(device, 8192, 8192)
}

fn backward_bf16(device: Device) -> Result<(), Failed> {
    backward::<bf16>(device, 8192, 16384)
}

/// A layer whose seeds all train through the output, or are all dormant.
fn training(
    layout: SeedLayout,
    blueprint: Option<Blueprint>,
    mode: StabilityMode,
) -> Result<Layer, Failed> {
    let mut builder = Layer::builder(layout).stability(Stability::new(mode));
    for seed in 0..blueprint.as_ref().map_or(0, |_| layout.seeds()) {
        let initial = InitialSeed {
            state: State::Grafting,
            alpha: 0.5,
            blueprint: blueprint.clone(),
            ..InitialSeed::default()
        };
        builder = builder.seed(seed, initial);
    }
    let mut layer = builder.build()?;
    layer.refresh_plan()?;
    Ok(layer)
}

fn backward<T: Element>(device: Device, rows: usize, hidden: usize) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let elements = rows * hidden;
    let values: Vec<T> = (0..elements)
        .map(|i| T::from_f32(((i * 2_654_435_761) % 1999) as f32 / 1000.0 - 1.0))
        .collect();
    let (mut x, mut g, mut out) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..BUFFERS {
        x.push(DeviceBuffer::from_host(&stream, &values)?);
        g.push(DeviceBuffer::from_host(&stream, &values)?);
        out.push(DeviceBuffer::<T>::zeroed(&stream, elements)?);
    }
    let name = |what: &str| format!("backward {} {rows}x{hidden}/{what}", T::DTYPE);
    let ceiling = two_reads_one_write(&engine, &stream, &x, &g, &out)?;
    record(device, &Measurement { name: &name("2 reads 1 write"), unit: "ms", values: &ceiling })?;
    let ceiling = median(&ceiling);
    println!("    {:.3} TB/s", 3.0 * (elements * size_of::<T>()) as f64 / ceiling / 1e9);
    let layout = SeedLayout::new(hidden, 64)?;
    let cases = [
        ("dormant, telemetry", None, StabilityMode::Fast, true),
        ("residual trains, fast", Some(Blueprint::Residual), StabilityMode::Fast, false),
        (
            "expansion trains, adaptive, telemetry",
            Some(Blueprint::MlpExpansion),
            StabilityMode::Adaptive,
            true,
        ),
    ];
    for (what, blueprint, mode, measured) in cases {
        let layer = training(layout, blueprint, mode)?;
        for path in LoadPath::LADDER {
            let mut streams = Streams::new(&engine, &stream, layout)?;
            let guarded = mode != StabilityMode::Fast;
            streams.set_bounds(Bounds { guarded, epsilon: 1e-8, lower: -1e6, upper: 1e6 })?;
            let rehearsal = streams.rehearse(&layer, 0.0)?;
            let options = Backward { measured, path: Some(path) };
            let values = time(&stream, |i| {
                let x = DeviceMatRef::new(x[i].as_slice(), rows, hidden, hidden)?;
                let g = DeviceMatRef::new(g[i].as_slice(), rows, hidden, hidden)?;
                let mut out = DeviceMatMut::new(out[i].as_mut_slice(), rows, hidden, hidden)?;
                let gradients = Some((g, &mut out));
                drop(streams.rehearse_backward(x, gradients, &rehearsal, &options)?);
                Ok(())
            })?;
            let full = name(&format!("{what}, chunk 64, {path}"));
            record(device, &Measurement { name: &full, unit: "ms", values: &values })?;
            println!("    {:.3} of 2 reads 1 write", ceiling / median(&values));
        }
    }
    Ok(())
}

/// Milliseconds of a kernel that reads two matrices, writes one, and does next to nothing.
fn two_reads_one_write<T: Element>(
    engine: &Engine,
    stream: &Stream,
    x: &[DeviceBuffer<T>],
    g: &[DeviceBuffer<T>],
    out: &[DeviceBuffer<T>],
) -> Result<Vec<f64>, Failed> {
    let image =
        KERNELS.iter().find(|image| image.name == "bench_stream").ok_or("no bench_stream")?;
    let module = Module::load(engine.context(), image.fatbin()?)?;
    let kernel = module.kernel::<(u64, u64, u64, u64)>("kasmina_bench_two_reads_one_write")?;
    // The best of a few grids: the ceiling should be one.
    let mut best: Option<Vec<f64>> = None;
    for blocks in [132 * 4, 132 * 8, 132 * 16, 132 * 64] {
        let config = LaunchConfig::new(blocks, 512);
        let values = time(stream, |i| {
            let packets = (x[i].bytes() / 16) as u64;
            let arguments = (x[i].address(), g[i].address(), out[i].address(), packets);
            // SAFETY: three matrices of that many packets of 16 bytes, of which nothing else uses the last meanwhile.
            Ok(unsafe { kernel.launch(stream, &config, arguments) }?)
        })?;
        if best.as_ref().is_none_or(|best| median(&values) < median(best)) {
            best = Some(values);
        }
    }
    best.ok_or_else(|| "nothing was measured".into())
}
