//! A layer that hands everything on may count without writing: the same statistics as a forward pass, x untouched.

use half::{bf16, f16};
use kasmina_core::cuda::{CudaLayer, DeviceMatMut, DeviceMatRef, Engine};
use kasmina_core::{
    Blueprint, Element, ForwardOptions, InitialSeed, Layer, Objective, SeedLayout, State,
};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, Stream};

use crate::common::{Draw, bits, same, sizes};

pub(crate) const TESTS: &[(&str, Body)] =
    &[("observing_counts_what_a_pass_counts_and_writes_nothing", observing)];

fn observing(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(24)?.check(&(sizes(), proptest::num::u64::ANY), |(size, values)| {
        match values % 3 {
            0 => observe::<f32>(&engine, size, values),
            1 => observe::<f16>(&engine, size, values),
            _ => observe::<bf16>(&engine, size, values),
        }
    })
}

/// A layer with a seed that learns beside the path, or, with `alpha`, is on it.
fn layer(hidden: usize, chunk: usize, alpha: Option<f32>) -> Result<Layer, Failed> {
    let state = if alpha.is_some() { State::Grafting } else { State::Training };
    let seed = InitialSeed {
        state,
        alpha: alpha.unwrap_or(0.0),
        blueprint: Some(Blueprint::Residual),
        objective: Objective::StraightThrough,
        ..InitialSeed::default()
    };
    Ok(Layer::builder(SeedLayout::new(hidden, chunk)?).seed(0, seed).build()?)
}

fn observe<T: Element>(
    engine: &std::sync::Arc<Engine>,
    (rows, hidden, chunk): (usize, usize, usize),
    values: u64,
) -> Result<(), Failed> {
    let stream = Stream::new(engine.context())?;
    let mut draw = Draw(values);
    let x: Vec<T> = (0..rows * hidden).map(|_| T::from_f32(draw.value(true))).collect();
    let on_x = DeviceBuffer::from_host(&stream, &x)?;
    let mut on_y = DeviceBuffer::from_host(&stream, &x)?;
    let matrix = || DeviceMatRef::new(on_x.as_slice(), rows, hidden, hidden);
    let there = |alpha| {
        CudaLayer::from_layer(&layer(hidden, chunk, alpha)?, engine, &stream).map_err(Failed::from)
    };
    let options = ForwardOptions::new();

    let (mut passed, mut observed) = (there(None)?, there(None)?);
    let y = &mut DeviceMatMut::new(on_y.as_mut_slice(), rows, hidden, hidden)?;
    passed.forward(matrix()?, y, &options)?;
    ensure(observed.observe(matrix()?, &options)?, || "nothing is on path".into())?;
    passed.synchronize()?;
    observed.synchronize()?;
    for (seed, (a, b)) in observed.chunk_stats().iter().zip(passed.chunk_stats()).enumerate() {
        // Two kernels may cut a matrix differently, so the last bits of sums may differ.
        let counts = (a.n, a.dead, a.nonfinite) == (b.n, b.dead, b.nonfinite);
        let extrema = a.min.to_bits() == b.min.to_bits() && a.max.to_bits() == b.max.to_bits();
        let deviation = (b.m2 / (b.n.max(1) as f64)).sqrt();
        let moments = (a.mean - b.mean).abs() <= 1e-6 * (b.mean.abs() + deviation)
            && (a.m2 - b.m2).abs() <= 1e-5 * b.m2;
        ensure(counts && extrema && moments, || format!("seed {seed}: {a:?} and {b:?}"))?;
    }
    let plain = options.clone().without_telemetry();
    ensure(observed.observe(matrix()?, &plain)?, || "nothing is on path".into())?;
    let probed = options.clone().probe(0, 1.0);
    ensure(!observed.observe(matrix()?, &probed)?, || "a probe is on path".into())?;
    let mut grafting = there(Some(0.5))?;
    ensure(!grafting.observe(matrix()?, &options)?, || "a graft is on path".into())?;
    grafting.synchronize()?;
    ensure(grafting.chunk_stats().iter().all(|stats| stats.n == 0), || "it counted".into())?;
    let found: Vec<T> = on_x.to_vec()?;
    same("x", &bits(&found, |_| false), &bits(&x, |_| false))
}
