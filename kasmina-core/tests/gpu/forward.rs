//! Forward passes of random layers in every storage type and on every rung, beside the CPU's.

use std::collections::BTreeSet;
use std::sync::Arc;

use half::{bf16, f16};
use kasmina_core::cuda::{CudaError, DeviceMatMut, DeviceMatRef, Engine, Forward, Streams};
use kasmina_core::lower::Lowered;
use kasmina_core::{
    Blueprint, Element, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, SeedLayout, Stability,
    StabilityMode, State,
};
use kasmina_gpu_test::{Body, Cases, Failed, ensure, not_applicable};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use kasmina_telemetry::ChunkStats;
use kasmina_tma::LoadPath;
use proptest::prelude::*;

use crate::common::{
    Draw, GUARD, all_launched, bits, bounds, framed, poison, rung, same, sizes, small, used,
};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("forward_is_the_cpus_bit_for_bit_and_counts_like_f64", random_layers),
    ("every_kernel_of_the_table_launches", every_kernel),
    ("statistics_merge_over_steps_and_repeat_bit_for_bit", steps_merge),
    ("a_hundred_thousand_seeds", many_seeds),
];

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    hidden: usize,
    chunk: usize,
    /// Extra elements from row to row, of x and of y.
    padding: [usize; 2],
    /// Elements by which the matrices begin past an aligned address.
    offset: [usize; 2],
    dtype: usize,
    mode: StabilityMode,
    /// How many of eight seeds are on path.
    on_path: u32,
    wild: bool,
    in_place: bool,
    measured: bool,
    path: Option<LoadPath>,
    values: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let mode = prop_oneof![Just(StabilityMode::Fast), Just(StabilityMode::Adaptive)];
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.8), rung(), any::<u64>());
    (sizes(), [small(), small()], [small(), small()], 0usize..3, mode, 0u32..=8, flags).prop_map(
        |((rows, hidden, chunk), padding, offset, dtype, mode, on_path, flags)| {
            let (wild, in_place, measured, path, values) = flags;
            Case {
                rows,
                hidden,
                chunk,
                padding,
                offset,
                dtype,
                mode,
                on_path,
                wild,
                in_place,
                measured,
                path,
                values,
            }
        },
    )
}

fn random_layers(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(600)?.check(&case(), |case| {
        let outcome = match case.dtype {
            0 => run::<f32>(&engine, &case),
            1 => run::<f16>(&engine, &case),
            _ => run::<bf16>(&engine, &case),
        };
        outcome.map(|_| ())
    })
}

fn layer(case: &Case, draw: &mut Draw) -> Result<Layer, Failed> {
    let layout = SeedLayout::new(case.hidden, case.chunk)?;
    let mut builder =
        Layer::builder(layout).stability(Stability::new(case.mode)).rng_seed(case.values);
    for seed in 0..layout.seeds() {
        if (draw.next() % 8) as u32 >= case.on_path {
            continue;
        }
        let kind = draw.next() % 3;
        let (blueprint, tensors) = match kind {
            0 => (Blueprint::Residual, vec![layout.chunk_len(seed), 1]),
            1 => (Blueprint::AttentionHead, vec![layout.chunk_len(seed)]),
            _ => (Blueprint::MlpExpansion, vec![layout.chunk_len(seed), 1]),
        };
        let parameters =
            tensors.iter().map(|&n| (0..n).map(|_| draw.unit() * 2.0).collect()).collect();
        let alpha = [0.0, 0.3, 1.0][(draw.next() % 3) as usize];
        let initial = InitialSeed {
            state: State::Fossilized,
            alpha,
            blueprint: Some(blueprint),
            parameters: Some(parameters),
            ..InitialSeed::default()
        };
        builder = builder.seed(seed, initial);
    }
    Ok(builder.build()?)
}

/// Runs a case in both ways and compares; returns the kernel that ran.
fn run<T: Element>(engine: &Arc<Engine>, case: &Case) -> Result<Option<String>, Failed> {
    let Case { rows, hidden, chunk, .. } = *case;
    let mut draw = Draw(case.values);
    let mut layer = layer(case, &mut draw)?;
    let strides = [hidden + case.padding[0], hidden + case.padding[1]];
    let x: Vec<T> = (0..rows * strides[0]).map(|_| T::from_f32(draw.value(case.wild))).collect();
    let stream = Stream::new(engine.context())?;

    // What the CPU makes of it.
    let poison = poison::<T>();
    let mut expected = vec![poison; rows * strides[1]];
    let used = |stride: usize| used(rows, hidden, stride);
    let x_view = MatRef::new(&x[..used(strides[0])], rows, hidden, strides[0])?;
    let y_view = MatMut::new(&mut expected, rows, hidden, strides[1])?;
    layer.forward(x_view, y_view, &ForwardOptions::new().inference())?;

    let plan = layer.plan();
    let programmed: Vec<bool> = (0..hidden)
        .map(|c| plan.seed(c / chunk).is_some_and(|seed| seed.path == Lowered::Pointwise))
        .collect();
    let computed = |i: usize, start: usize, stride: usize| {
        i.checked_sub(start).is_some_and(|i| *programmed.get(i % stride).unwrap_or(&false))
    };

    // The same on the device, with guards around both.
    let mut streams = Streams::new(engine, &stream, SeedLayout::new(hidden, chunk)?)?;
    streams.set_plan(layer.plan())?;
    streams.set_bounds(bounds(layer.stability()))?;
    let options = Forward { measured: case.measured, dead_epsilon: 1e-8, path: case.path };
    let host_x = framed(&x[..used(strides[0])], case.offset[0]);
    let mut device_x = DeviceBuffer::from_host(&stream, &host_x)?;
    let x_range = GUARD + case.offset[0]..host_x.len() - GUARD;
    let outcome = if case.in_place {
        let mut matrix =
            DeviceMatMut::new(device_x.slice_mut(x_range.clone())?, rows, hidden, strides[0])?;
        streams.forward_in_place(&mut matrix, &options)
    } else {
        let blank = framed(&vec![poison; used(strides[1])], case.offset[1]);
        let mut device_y = DeviceBuffer::from_host(&stream, &blank)?;
        let y_range = GUARD + case.offset[1]..blank.len() - GUARD;
        let matrix = DeviceMatRef::new(device_x.slice(x_range.clone())?, rows, hidden, strides[0])?;
        let mut y =
            DeviceMatMut::new(device_y.slice_mut(y_range.clone())?, rows, hidden, strides[1])?;
        let outcome = streams.forward(matrix, &mut y, &options);
        if outcome.is_ok() {
            let found = device_y.to_vec()?;
            let want = framed(&expected[..used(strides[1])], case.offset[1]);
            let at = |i| computed(i, GUARD + case.offset[1], strides[1]);
            same("y and its guards", &bits(&found, at), &bits(&want, at))?;
            let none = |_| false;
            same("x", &bits(&device_x.to_vec()?, none), &bits(&host_x, none))?;
        }
        outcome
    };
    let report = match outcome {
        Err(reason @ (CudaError::Path(_) | CudaError::RaggedRows { .. }))
            if case.path.is_some() =>
        {
            return Err(not_applicable(reason));
        }
        other => other?,
    };
    if case.in_place {
        let mut want = host_x.clone();
        let inner = &mut want[x_range];
        for row in 0..rows {
            inner[row * strides[0]..][..hidden]
                .copy_from_slice(&expected[row * strides[1]..][..hidden]);
        }
        let at = |i| computed(i, GUARD + case.offset[0], strides[0]);
        same("y in place, and its guards", &bits(&device_x.to_vec()?, at), &bits(&want, at))?;
    }
    let stats = streams.stats()?;
    check_stats(case, &x, strides[0], &stats)?;
    Ok(report.kernel)
}

/// Two passes over the data in f64, which is as good as exact here.
fn check_stats<T: Element>(
    case: &Case,
    x: &[T],
    stride: usize,
    stats: &[ChunkStats],
) -> Result<(), Failed> {
    for (seed, found) in stats.iter().enumerate() {
        let columns = seed * case.chunk..((seed + 1) * case.chunk).min(case.hidden);
        let mut values = Vec::new();
        let (mut nonfinite, mut dead) = (0, 0);
        for row in 0..if case.measured { case.rows } else { 0 } {
            for v in &x[row * stride..][columns.clone()] {
                let v = v.to_f32();
                if v.is_finite() {
                    values.push(f64::from(v));
                    dead += u64::from(v.abs() <= 1e-8);
                } else {
                    nonfinite += 1;
                }
            }
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n.max(1.0);
        let m2: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let deviation = (m2 / n.max(1.0)).sqrt();
        let right = found.n == values.len() as u64
            && (found.nonfinite, found.dead) == (nonfinite, dead)
            && (f64::from(found.min), f64::from(found.max)) == (min, max)
            && (found.mean - mean).abs() <= 1e-6 * deviation + 1e-7 * mean.abs()
            && (found.m2 - m2).abs() <= 1e-5 * m2;
        ensure(right, || {
            format!(
                "seed {seed}: {found:?}; n {n}, mean {mean}, m2 {m2}, {min} to {max}, {nonfinite} nonfinite, {dead} dead"
            )
        })?;
    }
    Ok(())
}

fn plain(dtype: usize, path: Option<LoadPath>) -> Case {
    Case {
        rows: 333,
        hidden: 1024,
        chunk: 64,
        padding: [0, 0],
        offset: [0, 0],
        dtype,
        mode: StabilityMode::Adaptive,
        on_path: 0,
        wild: false,
        in_place: false,
        measured: true,
        path,
        values: 7,
    }
}

/// Not one of them may be missing for the architecture, or refuse its launch.
fn every_kernel(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let has_bulk = engine.tma().is_supported();
    let mut seen = BTreeSet::new();
    for dtype in 0..3 {
        for path in LoadPath::LADDER {
            if !has_bulk && path < LoadPath::CpAsync {
                continue;
            }
            for (chunk, on_path, measured) in
                [(64, 0, true), (64, 4, true), (3, 0, true), (3, 4, true), (64, 4, false)]
            {
                let case = Case { chunk, on_path, measured, ..plain(dtype, Some(path)) };
                let outcome = match dtype {
                    0 => run::<f32>(&engine, &case)?,
                    1 => run::<f16>(&engine, &case)?,
                    _ => run::<bf16>(&engine, &case)?,
                };
                seen.extend(outcome);
            }
        }
    }
    all_launched(|name| name.starts_with("kasmina_forward_"), has_bulk, &seen)
}

fn steps_merge(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    for path in LoadPath::LADDER {
        let (rows, hidden, chunk) = (1000, 768, 48);
        let mut draw = Draw(11);
        let x: Vec<f32> = (0..3 * rows * hidden).map(|_| 1e4 + draw.unit()).collect();
        let device_x = DeviceBuffer::from_host(&stream, &x)?;
        let mut device_y = DeviceBuffer::<f32>::zeroed(&stream, rows * hidden)?;
        let mut first: Option<Vec<ChunkStats>> = None;
        for _ in 0..5 {
            let mut streams = Streams::new(&engine, &stream, SeedLayout::new(hidden, chunk)?)?;
            for step in 0..3 {
                let part = device_x.slice(step * rows * hidden..(step + 1) * rows * hidden)?;
                let mut y = DeviceMatMut::new(device_y.as_mut_slice(), rows, hidden, hidden)?;
                let options = Forward { measured: true, dead_epsilon: 1e-8, path: Some(path) };
                let outcome = streams.forward(
                    DeviceMatRef::new(part, rows, hidden, hidden)?,
                    &mut y,
                    &options,
                );
                match outcome {
                    Err(CudaError::Path(_)) => break,
                    other => drop(other?),
                }
            }
            let stats = streams.stats()?;
            if stats[0].n == 0 {
                continue;
            }
            let case = Case { rows: 3 * rows, hidden, chunk, ..plain(0, Some(path)) };
            check_stats(&case, &x, hidden, &stats)?;
            match &first {
                None => first = Some(stats),
                Some(first) => {
                    ensure(*first == stats, || format!("{path}: another run, other bits"))?
                }
            }
        }
    }
    Ok(())
}

fn many_seeds(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for chunk in [1, 3] {
        let case = Case { rows: 37, hidden: 100_000 * chunk, chunk, ..plain(0, None) };
        run::<f32>(&engine, &case)?;
        let case = Case { dtype: 2, on_path: 4, ..case };
        run::<bf16>(&engine, &case)?;
    }
    Ok(())
}
