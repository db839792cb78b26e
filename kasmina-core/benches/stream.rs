//! The streaming forward pass on a GPU against the driver's device-to-device copy of the same matrix, in one run.

use std::process::ExitCode;

use half::bf16;
use kasmina_core::cuda::{DeviceMatMut, DeviceMatRef, Engine, Forward, KERNELS, Streams};
use kasmina_core::{Blueprint, Bounds, Element, InitialSeed, Layer, SeedLayout, State};
use kasmina_gpu_test::{Body, Failed, Measurement, record};
use kasmina_sys::{Device, DeviceBuffer, Event, Stream};
use kasmina_tma::LoadPath;

const BENCHES: &[(&str, Body)] = &[("forward_f32", forward_f32), ("forward_bf16", forward_bf16)];

/// Matrices that are gone round, so that none is found in the second-level cache.
const BUFFERS: usize = 4;
const REPEATS: usize = 41;

fn main() -> ExitCode {
    kasmina_gpu_test::bench_main("kasmina-core", &KERNELS, BENCHES)
}

fn forward_f32(device: Device) -> Result<(), Failed> {
    forward::<f32>(device, 8192, 8192)
}

fn forward_bf16(device: Device) -> Result<(), Failed> {
    forward::<bf16>(device, 8192, 16384)
}

/// Milliseconds of each of `REPEATS` runs, after three that warm up.
fn time(
    stream: &Stream,
    mut body: impl FnMut(usize) -> Result<(), Failed>,
) -> Result<Vec<f64>, Failed> {
    let (start, end) = (Event::timed(stream.context())?, Event::timed(stream.context())?);
    let mut values = Vec::with_capacity(REPEATS);
    for i in 0..REPEATS + 3 {
        start.record(stream)?;
        body(i % BUFFERS)?;
        end.record(stream)?;
        end.synchronize()?;
        if i >= 3 {
            values.push(f64::from(end.milliseconds_since(&start)?));
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
