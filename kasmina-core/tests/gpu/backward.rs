//! Backward passes of random layers in every storage type and on every rung: dL/dx beside the CPU's bit for bit, everything else
//! beside sums in f64.

use std::collections::BTreeSet;
use std::sync::Arc;

use half::{bf16, f16};
use kasmina_core::cuda::{
    Backward, BackwardReport, CudaError, DeviceMatMut, DeviceMatRef, Engine, Found, Streams,
};
use kasmina_core::lower::Lowered;
use kasmina_core::{
    Blueprint, Bounds, Element, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, Objective,
    SeedLayout, Stability, StabilityMode, State,
};
use kasmina_gpu_test::{Body, Cases, Failed, ensure, not_applicable};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use kasmina_telemetry::GradientStats;
use kasmina_tma::LoadPath;
use proptest::prelude::*;

use crate::common::{
    Draw, GUARD, all_launched, bits, bounds, framed, poison, rung, same, sizes, small, used,
};
use crate::reference::{self, Reference};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("backward_is_the_cpus_bit_for_bit_and_sums_like_f64", random_layers),
    ("every_backward_kernel_of_the_table_launches", every_kernel),
    ("backward_passes_add_up_and_repeat_bit_for_bit", passes_add_up),
    ("backward_of_a_hundred_thousand_seeds", many_seeds),
];

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    hidden: usize,
    chunk: usize,
    /// Of x, dL/dy and dL/dx: extra elements from row to row, and elements past an aligned address.
    padding: [usize; 3],
    offset: [usize; 3],
    dtype: usize,
    mode: StabilityMode,
    /// How many of eight seeds have grown.
    grown: u32,
    /// Only residuals, only expansions, …; `None` for any.
    kind: Option<u64>,
    wild: bool,
    /// Whether there is a task loss.
    loss: bool,
    measured: bool,
    /// Whether only some seeds are watched.
    picky: bool,
    path: Option<LoadPath>,
    values: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let three = || [small(), small(), small()];
    let mode = prop_oneof![Just(StabilityMode::Fast), Just(StabilityMode::Adaptive)];
    let kind = prop_oneof![2 => Just(None), 1 => (0u64..3).prop_map(Some)];
    let likely = prop::bool::weighted;
    let flags = (any::<bool>(), likely(0.85), likely(0.7), any::<bool>(), rung(), any::<u64>());
    (sizes(), three(), three(), 0usize..3, mode, 0u32..=8, kind, flags).prop_map(
        |((rows, hidden, chunk), padding, offset, dtype, mode, grown, kind, flags)| {
            let (wild, loss, measured, picky, path, values) = flags;
            Case {
                rows,
                hidden,
                chunk,
                padding,
                offset,
                dtype,
                mode,
                grown,
                kind,
                wild,
                loss,
                measured,
                picky,
                path,
                values,
            }
        },
    )
}

fn random_layers(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(600)?.check(&case(), |case| run_any(&engine, &case).map(|_| ()))
}

fn run_any(engine: &Arc<Engine>, case: &Case) -> Result<BackwardReport, Failed> {
    match case.dtype {
        0 => run::<f32>(engine, case),
        1 => run::<f16>(engine, case),
        _ => run::<bf16>(engine, case),
    }
}

fn layer(case: &Case, draw: &mut Draw) -> Result<Layer, Failed> {
    let layout = SeedLayout::new(case.hidden, case.chunk)?;
    let mut builder =
        Layer::builder(layout).stability(Stability::new(case.mode)).rng_seed(case.values);
    for seed in 0..layout.seeds() {
        if (draw.next() % 8) as u32 >= case.grown {
            continue;
        }
        let c = layout.chunk_len(seed);
        let (blueprint, tensors) = match case.kind.unwrap_or(draw.next() % 3) {
            0 => (Blueprint::Residual, vec![c, 1]),
            1 => (Blueprint::AttentionHead, vec![c]),
            _ => (Blueprint::MlpExpansion, vec![c, 1]),
        };
        let parameters =
            tensors.iter().map(|&n| (0..n).map(|_| draw.unit() * 2.0).collect()).collect();
        let (state, objective) = match draw.next() % 6 {
            0 => (State::Fossilized, Objective::StraightThrough),
            1 | 2 => (State::Grafting, Objective::StraightThrough),
            3 => (State::Training, Objective::StraightThrough),
            4 => (State::Training, Objective::Reconstruction),
            _ => (State::Training, Objective::Probe),
        };
        let alpha =
            if state == State::Training { 0.0 } else { [0.3, 1.0][(draw.next() % 2) as usize] };
        let initial = InitialSeed {
            state,
            alpha,
            objective,
            blueprint: Some(blueprint),
            parameters: Some(parameters),
            ..InitialSeed::default()
        };
        builder = builder.seed(seed, initial);
    }
    let mut layer = builder.build()?;
    layer.refresh_plan()?;
    Ok(layer)
}

/// Runs a case in both ways and compares.
fn run<T: Element>(engine: &Arc<Engine>, case: &Case) -> Result<BackwardReport, Failed> {
    let Case { rows, hidden, chunk, .. } = *case;
    let mut draw = Draw(case.values);
    let mut layer = layer(case, &mut draw)?;
    let strides = case.padding.map(|padding| hidden + padding);
    let mut values = |stride: usize| -> Vec<T> {
        (0..used(rows, hidden, stride)).map(|_| T::from_f32(draw.value(case.wild))).collect()
    };
    let (x, g) = (values(strides[0]), values(strides[1]));
    let stream = Stream::new(engine.context())?;

    // What the CPU makes of it.
    let mut expected = vec![poison::<T>(); used(rows, hidden, strides[2])];
    let x_view = MatRef::new(&x, rows, hidden, strides[0])?;
    if case.loss {
        let g_view = MatRef::new(&g, rows, hidden, strides[1])?;
        let out = MatMut::new(&mut expected, rows, hidden, strides[2])?;
        layer.backward(x_view, g_view, out, &ForwardOptions::new())?;
    } else {
        layer.reconstruct(x_view)?;
    }
    let plan = layer.plan();
    let programmed: Vec<bool> = (0..hidden)
        .map(|c| plan.seed(c / chunk).is_some_and(|seed| seed.path == Lowered::Pointwise))
        .collect();

    // The same on the device, twice, with guards around all three.
    let layout = SeedLayout::new(hidden, chunk)?;
    let hosts = [framed(&x, case.offset[0]), framed(&g, case.offset[1])];
    let blank = framed(&vec![poison::<T>(); expected.len()], case.offset[2]);
    let device_x = DeviceBuffer::from_host(&stream, &hosts[0])?;
    let device_g = DeviceBuffer::from_host(&stream, &hosts[1])?;
    let inner = |i: usize, len: usize| GUARD + case.offset[i]..GUARD + case.offset[i] + len;
    let watched: Vec<u8> =
        (0..layout.seeds()).map(|seed| u8::from(!case.picky || seed % 3 != 1)).collect();
    let options = Backward { measured: case.measured, path: case.path };
    let mut first: Option<(Vec<Found>, Vec<GradientStats>)> = None;
    let mut last = None;
    for _ in 0..2 {
        let mut streams = Streams::new(engine, &stream, layout)?;
        streams.set_bounds(bounds(layer.stability()))?;
        let rehearsal = streams.rehearse(&layer, 0.0)?;
        if case.picky {
            streams.rehearse_watching(&watched)?;
        }
        let mut device_out = DeviceBuffer::from_host(&stream, &blank)?;
        let x_matrix =
            DeviceMatRef::new(device_x.slice(inner(0, x.len()))?, rows, hidden, strides[0])?;
        let g_matrix =
            DeviceMatRef::new(device_g.slice(inner(1, g.len()))?, rows, hidden, strides[1])?;
        let slice = device_out.slice_mut(inner(2, expected.len()))?;
        let mut out = DeviceMatMut::new(slice, rows, hidden, strides[2])?;
        let gradients = case.loss.then_some((g_matrix, &mut out));
        let report = match streams.rehearse_backward(x_matrix, gradients, &rehearsal, &options) {
            Err(reason @ (CudaError::Path(_) | CudaError::RaggedRows { .. }))
                if case.path.is_some() =>
            {
                return Err(not_applicable(reason));
            }
            other => other?,
        };
        let begin = GUARD + case.offset[2];
        let at = |i: usize| {
            let inside = i.checked_sub(begin);
            inside.is_some_and(|i| *programmed.get(i % strides[2]).unwrap_or(&false))
        };
        let want = framed(&expected, case.offset[2]);
        same("grad_x and its guards", &bits(&device_out.to_vec()?, at), &bits(&want, at))?;
        let none = |_| false;
        same("x", &bits(&device_x.to_vec()?, none), &bits(&hosts[0], none))?;
        same("grad_y", &bits(&device_g.to_vec()?, none), &bits(&hosts[1], none))?;
        let (found, whole) = rehearsal.found(0.0)?;
        ensure(whole, || "something between the gradients was written".to_owned())?;
        let both = (found, streams.gradient_stats()?);
        match &first {
            None => first = Some(both),
            Some(first) => {
                ensure(same_runs(first, &both), || "another run, other bits".to_owned())?
            }
        }
        last = Some(report);
    }
    let (Some((found, stats)), Some(report)) = (first, last) else { return Err("no run".into()) };
    let data = Data { case, x: &x, g: &g, strides, bounds: bounds(layer.stability()) };
    data.check_found(&layer, &found)?;
    data.check_stats(&watched, &stats)?;
    Ok(report)
}

/// Whether two runs gave the same bits.
fn same_runs(a: &(Vec<Found>, Vec<GradientStats>), b: &(Vec<Found>, Vec<GradientStats>)) -> bool {
    let bits = |found: &Found| {
        let gradients = found.gradients.iter().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
        (gradients, found.alpha.to_bits(), found.reconstruction.to_bits())
    };
    a.1 == b.1 && a.0.len() == b.0.len() && a.0.iter().zip(&b.0).all(|(a, b)| bits(a) == bits(b))
}

/// What a case was run on.
struct Data<'a, T> {
    case: &'a Case,
    x: &'a [T],
    g: &'a [T],
    strides: [usize; 3],
    bounds: Bounds,
}

impl<T: Element> Data<'_, T> {
    /// Every gradient beside f64 sums over the same programs.
    fn check_found(&self, layer: &Layer, found: &[Found]) -> Result<(), Failed> {
        let Case { rows, loss, .. } = *self.case;
        for Found { seed, gradients, alpha, reconstruction } in found {
            let Some(planned) = layer.plan().seed(*seed) else { return Err("no plan".into()) };
            let objective = planned.shadow.as_ref().map(|(_, objective)| *objective);
            let reconstructs = objective == Some(Objective::Reconstruction);
            let served = planned.trainable && (loss || reconstructs);
            let columns = layer.layout().columns(*seed);
            let Some(grown) = layer.lifecycle().grown(*seed) else {
                return Err("not grown".into());
            };
            let blueprint = layer.lifecycle().registry().get(grown.blueprint())?;
            let reference = Reference {
                blueprint,
                parameters: grown.parameters(),
                alpha: if objective.is_some() { 1.0 } else { planned.alpha },
                reconstructs,
                bounds: self.bounds,
            };
            let element = |data: &[T], stride: usize, row: usize, c: usize| {
                data[row * stride + columns.start + c].to_f32()
            };
            let want = reference.gradients(rows, columns.len(), |row, c| {
                let x = element(self.x, self.strides[0], row, c);
                (x, if loss { element(self.g, self.strides[1], row, c) } else { 0.0 })
            });
            let check = |what: &str, found: f64, want: reference::Bounded| {
                ensure(want.allows(found, served), || {
                    format!("seed {seed}, {}, {what}: {found:e} for {want:?}", blueprint.kind())
                })
            };
            match gradients {
                None => ensure(!planned.trainable, || format!("seed {seed} has no gradients"))?,
                Some(gradients) => {
                    ensure(gradients.len() == want.parameters.len(), || {
                        "lengths differ".to_owned()
                    })?;
                    for (i, (found, want)) in gradients.iter().zip(&want.parameters).enumerate() {
                        check(&format!("parameter {i}"), f64::from(*found), *want)?;
                    }
                }
            }
            let on_path = objective.is_none() && served;
            ensure(on_path || *alpha == 0.0, || format!("seed {seed} has a gradient of alpha"))?;
            if on_path {
                check("alpha", f64::from(*alpha), want.alpha)?;
            }
            if reconstructs {
                check("reconstruction", *reconstruction, want.loss)?;
            }
        }
        Ok(())
    }

    /// Two passes over the data in f64.
    fn check_stats(&self, watched: &[u8], stats: &[GradientStats]) -> Result<(), Failed> {
        let Case { rows, hidden, chunk, loss, measured, .. } = *self.case;
        for (seed, found) in stats.iter().enumerate() {
            let columns = seed * chunk..((seed + 1) * chunk).min(hidden);
            let rows = if loss && measured && watched[seed] != 0 { rows } else { 0 };
            let mut values = Vec::new();
            let mut nonfinite = 0;
            for row in 0..rows {
                for g in &self.g[row * self.strides[1]..][columns.clone()] {
                    let g = g.to_f32();
                    if g.is_finite() { values.push(f64::from(g)) } else { nonfinite += 1 }
                }
            }
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n.max(1.0);
            let m2: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
            let squares: f64 = values.iter().map(|v| v * v).sum();
            let greatest = values.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
            let deviation = (m2 / n.max(1.0)).sqrt();
            let right = (found.n, found.nonfinite) == (values.len() as u64, nonfinite)
                && f64::from(found.max_abs) == greatest
                && (found.mean - mean).abs() <= 1e-6 * deviation + 1e-7 * mean.abs()
                && (found.m2 - m2).abs() <= 1e-5 * m2
                && (found.sum_squares - squares).abs() <= 1e-5 * squares;
            ensure(right, || {
                format!(
                    "seed {seed}: {found:?}; n {n}, mean {mean}, m2 {m2}, Σg² {squares}, {greatest}, {nonfinite} nonfinite"
                )
            })?;
        }
        Ok(())
    }
}

fn plain(dtype: usize, path: Option<LoadPath>) -> Case {
    Case {
        rows: 333,
        hidden: 1024,
        chunk: 64,
        padding: [0; 3],
        offset: [0; 3],
        dtype,
        mode: StabilityMode::Adaptive,
        grown: 6,
        kind: None,
        wild: false,
        loss: true,
        measured: true,
        picky: false,
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
            for (chunk, measured, loss) in
                [(64, true, true), (3, true, true), (64, false, true), (64, false, false)]
            {
                let case = Case { chunk, measured, loss, ..plain(dtype, Some(path)) };
                seen.extend(run_any(&engine, &case)?.kernel);
            }
        }
    }
    all_launched(|name| name.contains("_backward_"), has_bulk, &seen)
}

/// Gradients begin where they are left, and nothing remembers a pass with other shapes or flags.
fn passes_add_up(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let case = Case { rows: 500, kind: Some(0), ..plain(0, None) };
    let mut draw = Draw(3);
    let layer = layer(&case, &mut draw)?;
    let (rows, hidden) = (case.rows, case.hidden);
    // Small whole numbers: their sums are exact, and so are twice their sums.
    let x: Vec<f32> = (0..rows * hidden).map(|_| (draw.next() % 8) as f32 - 3.0).collect();
    let x = DeviceBuffer::from_host(&stream, &x)?;
    let mut out = DeviceBuffer::<f32>::zeroed(&stream, rows * hidden)?;
    let mut streams = Streams::new(&engine, &stream, SeedLayout::new(hidden, case.chunk)?)?;
    streams.set_bounds(bounds(layer.stability()))?;
    let mut results = Vec::new();
    for passes in [1, 2] {
        let rehearsal = streams.rehearse(&layer, 0.0)?;
        for _ in 0..passes {
            // A pass of another shape in between, without a loss for the seeds of the first.
            for rows in [17, rows] {
                let matrix = DeviceMatRef::new(x.slice(..rows * hidden)?, rows, hidden, hidden)?;
                if rows == 17 {
                    let own = streams.rehearse(&layer, 0.0)?;
                    let options = Backward::default();
                    drop(streams.rehearse_backward(matrix, None, &own, &options)?);
                    continue;
                }
                let mut out = DeviceMatMut::new(out.as_mut_slice(), rows, hidden, hidden)?;
                let options = Backward { measured: true, path: None };
                let gradients = Some((matrix, &mut out));
                drop(streams.rehearse_backward(matrix, gradients, &rehearsal, &options)?);
            }
        }
        results.push(rehearsal.found(0.0)?.0);
    }
    for (one, two) in results[0].iter().zip(&results[1]) {
        let doubled = one.gradients.iter().flatten().map(|v| 2.0 * v);
        let right = doubled.eq(two.gradients.iter().flatten().copied())
            && two.alpha == 2.0 * one.alpha
            && two.reconstruction == one.reconstruction;
        ensure(right, || format!("{one:?} twice is not {two:?}"))?;
    }
    ensure(streams.gradient_stats()?[0].n == 3 * (rows * case.chunk) as u64, || {
        "statistics do not add up".to_owned()
    })
}

fn many_seeds(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for chunk in [1, 3] {
        for dtype in [0, 2] {
            let case = Case { rows: 21, hidden: 100_000 * chunk, chunk, ..plain(dtype, None) };
            drop(run_any(&engine, &case)?);
        }
    }
    Ok(())
}
