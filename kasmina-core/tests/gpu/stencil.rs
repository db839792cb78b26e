//! Filters of random layers, forward and backward, beside the CPU's: outputs and input gradients bit for bit.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_core::cuda::testing::{FilterGradients, Filters};
use kasmina_core::cuda::{DeviceMatMut, DeviceMatRef, Engine};
use kasmina_core::lower::Lowered;
use kasmina_core::{
    Blueprint, Bounds, Element, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, Objective,
    SeedLayout, Stability, StabilityMode, State,
};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use proptest::prelude::*;

use crate::common::Draw;

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("filters_are_the_cpus_bit_for_bit_and_their_gradients_close", random_filters),
    ("filters_of_wide_chunks_of_every_tap_count_and_type", wide_chunks),
    ("a_hundred_thousand_filters", many_filters),
];

/// A guard of this many elements around every matrix.
const GUARD: usize = 64;
/// What stands wherever nobody may write.
const POISON: f32 = -77.0;

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    hidden: usize,
    chunk: usize,
    /// At most so many taps.
    taps: usize,
    /// Extra elements from row to row, of x, y, dL/dy and dL/dx.
    padding: [usize; 4],
    /// Elements by which these begin past an aligned address.
    offset: [usize; 4],
    dtype: usize,
    mode: StabilityMode,
    bounds: (f32, f32),
    wild: bool,
    in_place: bool,
    values: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let hidden =
        prop_oneof![4 => 1usize..300, 3 => (1usize..80).prop_map(|n| n * 16), 2 => 300usize..9000];
    let rows = prop_oneof![4 => 1usize..40, 2 => 40usize..300, 1 => 0usize..2000];
    let sizes = (rows, hidden).prop_flat_map(|(rows, hidden)| {
        let rows = rows.min(300_000 / hidden);
        let power = (0u32..10).prop_map(move |k| (1usize << k).min(hidden));
        (Just(rows), Just(hidden), prop_oneof![3 => 1..=hidden, 3 => power, 1 => Just(hidden)])
    });
    let small = || {
        let one = || prop_oneof![3 => Just(0usize), 2 => (1usize..8).prop_map(|n| n * 8), 1 => 1usize..20];
        [one(), one(), one(), one()]
    };
    let mode = prop_oneof![Just(StabilityMode::Fast), Just(StabilityMode::Adaptive)];
    let bounds = prop::sample::select(vec![(-1e6f32, 1e6f32), (-1.5, 2.25)]);
    let flags = (any::<bool>(), any::<bool>(), any::<u64>());
    (sizes, 1usize..17, small(), small(), 0usize..3, mode, bounds, flags).prop_map(
        |((rows, hidden, chunk), taps, padding, offset, dtype, mode, bounds, flags)| {
            let (wild, in_place, values) = flags;
            Case {
                rows,
                hidden,
                chunk,
                taps,
                padding,
                offset,
                dtype,
                mode,
                bounds,
                wild,
                in_place,
                values,
            }
        },
    )
}

fn random_filters(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(500)?.check(&case(), |case| run_any(&engine, &case))
}

fn wide_chunks(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for taps in 1..17 {
        for dtype in 0..3 {
            for (rows, hidden, chunk) in [(9, 9000, 4500), (2, 40_000, 40_000), (200, 512, 64)] {
                let (in_place, values) = (taps % 2 == 0, (taps * 3 + dtype) as u64);
                let case = Case { rows, hidden, chunk, taps, dtype, in_place, values, ..plain() };
                run_any(&engine, &case)?;
            }
        }
    }
    Ok(())
}

fn many_filters(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for (dtype, chunk) in [(0, 1), (2, 3)] {
        run_any(&engine, &Case { rows: 5, hidden: 100_000 * chunk, chunk, dtype, ..plain() })?;
    }
    Ok(())
}

fn plain() -> Case {
    Case {
        rows: 100,
        hidden: 512,
        chunk: 64,
        taps: 5,
        padding: [0; 4],
        offset: [0; 4],
        dtype: 0,
        mode: StabilityMode::Adaptive,
        bounds: (-1e6, 1e6),
        wild: false,
        in_place: false,
        values: 7,
    }
}

fn run_any(engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
    match case.dtype {
        0 => run::<f32>(engine, case),
        1 => run::<f16>(engine, case),
        _ => run::<bf16>(engine, case),
    }
}

fn layer(case: &Case, draw: &mut Draw) -> Result<Layer, Failed> {
    let layout = SeedLayout::new(case.hidden, case.chunk)?;
    let (lower, upper) = case.bounds;
    let stability = Stability { lower, upper, ..Stability::new(case.mode) };
    let mut builder = Layer::builder(layout).stability(stability).rng_seed(case.values);
    for seed in 0..layout.seeds() {
        let (state, objective) = match draw.next() % 8 {
            0 => continue,
            1 => (State::Training, Objective::StraightThrough),
            2 => (State::Training, Objective::Reconstruction),
            3 => (State::Fossilized, Objective::default()),
            _ => (State::FineTuning, Objective::default()),
        };
        let taps = 1 + draw.next() as usize % case.taps;
        let weight = (0..taps).map(|_| draw.unit()).collect();
        let alpha = [0.0, 0.3, 1.0][(draw.next() % 3) as usize];
        let initial = InitialSeed {
            state,
            alpha: if state == State::Training { 0.0 } else { alpha },
            objective,
            blueprint: Some(Blueprint::ConvFilter { taps }),
            parameters: Some(vec![weight, vec![draw.unit() * 2.0]]),
            ..InitialSeed::default()
        };
        builder = builder.seed(seed, initial);
    }
    let mut layer = builder.build()?;
    layer.refresh_plan()?;
    Ok(layer)
}

/// A matrix on the device, with guards around it and poison between its rows.
struct Framed<T: Element> {
    host: Vec<T>,
    device: DeviceBuffer<T>,
    start: usize,
    stride: usize,
    shape: (usize, usize),
}

impl<T: Element> Framed<T> {
    fn new(
        stream: &Stream,
        case: &Case,
        which: usize,
        mut fill: impl FnMut(usize, usize) -> T,
    ) -> Result<Self, Failed> {
        let (rows, hidden) = (case.rows, case.hidden);
        let stride = hidden + case.padding[which];
        let start = GUARD + case.offset[which];
        let mut host = vec![T::from_f32(POISON); start + rows * stride + GUARD];
        for row in 0..rows {
            for column in 0..hidden {
                host[start + row * stride + column] = fill(row, column);
            }
        }
        let device = DeviceBuffer::from_host(stream, &host)?;
        Ok(Self { host, device, start, stride, shape: (rows, hidden) })
    }

    fn len(&self) -> usize {
        let (rows, hidden) = self.shape;
        if rows == 0 { 0 } else { (rows - 1) * self.stride + hidden }
    }

    fn host(&self) -> Result<MatRef<'_, T>, Failed> {
        let values = &self.host[self.start..self.start + self.len()];
        Ok(MatRef::new(values, self.shape.0, self.shape.1, self.stride)?)
    }

    fn device(&self) -> Result<DeviceMatRef<'_, T>, Failed> {
        let slice = self.device.slice(self.start..self.start + self.len())?;
        Ok(DeviceMatRef::new(slice, self.shape.0, self.shape.1, self.stride)?)
    }

    fn device_mut(&mut self) -> Result<DeviceMatMut<'_, T>, Failed> {
        let range = self.start..self.start + self.len();
        let slice = self.device.slice_mut(range)?;
        Ok(DeviceMatMut::new(slice, self.shape.0, self.shape.1, self.stride)?)
    }

    /// What is on the device now has these values in the columns that `written` names, and elsewhere what was put there.
    fn check(
        &self,
        what: &str,
        expected: &[T],
        written: impl Fn(usize) -> bool,
    ) -> Result<(), Failed> {
        let (rows, hidden) = self.shape;
        let mut want = self.host.clone();
        for row in 0..rows {
            for column in (0..hidden).filter(|column| written(*column)) {
                want[self.start + row * self.stride + column] = expected[row * hidden + column];
            }
        }
        let found = self.device.to_vec()?;
        let differs = |i: &usize| bits(found[*i]) != bits(want[*i]);
        match (0..want.len()).find(differs) {
            None => Ok(()),
            Some(at) => {
                let inner = at.saturating_sub(self.start);
                Err(format!(
                    "{what}: row {}, column {} is {}, {} is right; {} differ",
                    inner / self.stride,
                    inner % self.stride,
                    found[at].to_f32(),
                    want[at].to_f32(),
                    (0..want.len()).filter(differs).count(),
                )
                .into())
            }
        }
    }
}

/// All NaN are one: their payload is the processor's choice.
fn bits<T: Element>(value: T) -> u32 {
    match size_of::<T>() {
        _ if value.to_f32().is_nan() => u32::MAX,
        4 => u32::from_ne_bytes(bytemuck::bytes_of(&value).try_into().unwrap_or_default()),
        _ => u16::from_ne_bytes(bytemuck::bytes_of(&value).try_into().unwrap_or_default()).into(),
    }
}

fn bounds(stability: Stability) -> Bounds {
    Bounds {
        guarded: stability.mode != StabilityMode::Fast,
        epsilon: stability.epsilon,
        lower: stability.lower,
        upper: stability.upper,
    }
}

fn run<T: Element>(engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
    let (rows, hidden) = (case.rows, case.hidden);
    let mut draw = Draw(case.values);
    let mut layer = layer(case, &mut draw)?;
    let stream = Stream::new(engine.context())?;
    let mut filters = Filters::new(engine, &stream, &layer, bounds(layer.stability()), 0.5)?;
    let mut x = Framed::<T>::new(&stream, case, 0, |_, _| T::from_f32(draw.value(case.wild)))?;
    let g = Framed::<T>::new(&stream, case, 2, |_, _| T::from_f32(draw.unit()))?;
    let poison = |_, _| T::from_f32(POISON);

    // What the CPU makes of it.
    let (mut y, mut grad_x) =
        (vec![T::from_f32(0.0); rows * hidden], vec![T::from_f32(0.0); rows * hidden]);
    let options = ForwardOptions::new();
    layer.forward(x.host()?, MatMut::new(&mut y, rows, hidden, hidden)?, &options)?;
    let to = MatMut::new(&mut grad_x, rows, hidden, hidden)?;
    layer.backward(x.host()?, g.host()?, to, &options)?;

    let on_path: Vec<bool> = (0..layer.layout().seeds()).map(|seed| filters.writes(seed)).collect();
    let written = |column: usize| on_path[column / case.chunk];
    let mut first: Option<(Vec<u32>, Vec<FilterGradients>)> = None;
    for repeat in 0..2 {
        let mut found_x = Framed::<T>::new(&stream, case, 3, poison)?;
        filters.backward(x.device()?, Some((g.device()?, &mut found_x.device_mut()?)))?;
        found_x.check("dL/dx", &grad_x, written)?;
        let gradients = filters.gradients()?;
        if repeat == 0 {
            check_gradients(&layer, case, &x, &g, &gradients)?;
        }
        let now: Vec<u32> = found_x.device.to_vec()?.into_iter().map(bits).collect();
        match &first {
            None => first = Some((now, gradients)),
            Some((bits, _)) => {
                ensure(*bits == now, || "dL/dx: another run, other bits".to_owned())?;
            }
        }
        filters = Filters::new(engine, &stream, &layer, bounds(layer.stability()), 0.5)?;
        filters.backward(x.device()?, Some((g.device()?, &mut found_x.device_mut()?)))?;
        let again = filters.gradients()?;
        ensure(first.as_ref().is_some_and(|(_, first)| same_gradients(first, &again)), || {
            "gradients: another run, other bits".to_owned()
        })?;
        filters = Filters::new(engine, &stream, &layer, bounds(layer.stability()), 0.5)?;
    }
    // Without a task gradient, reconstructions alone.
    filters.backward::<T>(x.device()?, None)?;
    let alone = filters.gradients()?;
    let (of_reconstructions, others): (Vec<_>, Vec<_>) =
        alone.into_iter().partition(|one| reconstructs(&layer, one.seed));
    check_gradients(&layer, case, &x, &g, &of_reconstructions)?;
    for one in others {
        let untouched = one.parameters.iter().flatten().chain([&one.alpha]).all(|v| *v == 0.5);
        ensure(untouched, || format!("without dL/dy: {one:?}"))?;
    }
    // Forward last: in place it changes x.
    if case.in_place {
        filters.forward_in_place(&mut x.device_mut()?)?;
        x.check("y in place", &y, written)?;
    } else {
        let mut found_y = Framed::<T>::new(&stream, case, 1, poison)?;
        filters.forward(x.device()?, &mut found_y.device_mut()?)?;
        found_y.check("y", &y, written)?;
        x.check("x", &[], |_| false)?;
    }
    Ok(())
}

fn reconstructs(layer: &Layer, seed: usize) -> bool {
    let shadow = layer.plan().seed(seed).and_then(|seed| seed.shadow.as_ref());
    shadow.is_some_and(|(_, objective)| *objective == Objective::Reconstruction)
}

fn same_gradients(a: &[FilterGradients], b: &[FilterGradients]) -> bool {
    let of = |all: &[FilterGradients]| -> Vec<u64> {
        let each = all.iter().flat_map(|one| {
            let narrow = one.parameters.iter().flatten().copied().chain([one.alpha]);
            narrow.map(|v| u64::from(v.to_bits())).chain([one.reconstruction.to_bits()])
        });
        each.collect()
    };
    of(a) == of(b)
}

/// The gradients that one backward pass added to 0.5, within 1e-5 of the sum of their terms' magnitudes.
fn check_gradients<T: Element>(
    layer: &Layer,
    case: &Case,
    x: &Framed<T>,
    g: &Framed<T>,
    found: &[FilterGradients],
) -> Result<(), Failed> {
    let bounds = bounds(layer.stability());
    for found in found {
        let seed = found.seed;
        let Some(parameters) = &found.parameters else {
            ensure(found.alpha == 0.5, || format!("seed {seed} is frozen: {found:?}"))?;
            continue;
        };
        let own: Vec<f32> =
            layer.parameters(seed).into_iter().flatten().flat_map(|(_, v)| v.to_vec()).collect();
        let expected: Vec<f32> =
            layer.gradients(seed).into_iter().flatten().flat_map(|(_, v)| v.to_vec()).collect();
        let taps = own.len() - 1;
        let columns = layer.layout().columns(seed);
        let reconstructs = reconstructs(layer, seed);
        let lowered = match layer.plan().seed(seed) {
            Some(plan) => plan.shadow.as_ref().map_or(&plan.path, |(lowered, _)| lowered),
            None => continue,
        };
        let Lowered::Stencil { taps: lowered } = lowered else { continue };
        let factor =
            if reconstructs { 2.0 / (case.rows * columns.len()).max(1) as f64 } else { 1.0 };
        // Σ |g[i]·v[i−j]|; a reconstruction's g is at most the terms of T(x) − x.
        let mut sizes = vec![0.0f64; taps];
        for row in 0..case.rows {
            let at = |m: &Framed<T>, i: usize| {
                m.host[m.start + row * m.stride + columns.start + i].to_f32()
            };
            let v: Vec<f64> =
                (0..columns.len()).map(|i| f64::from(bounds.sanitize(at(x, i)))).collect();
            for i in 0..v.len() {
                let g = if reconstructs {
                    let terms = lowered.iter().zip(v[..=i].iter().rev());
                    terms.map(|(t, v)| (f64::from(*t) * v).abs()).sum::<f64>() + v[i].abs()
                } else {
                    f64::from(at(g, i)).abs()
                };
                for (j, size) in sizes.iter_mut().enumerate().take_while(|(j, _)| *j <= i) {
                    *size += g * v[i - j].abs() * factor;
                }
            }
        }
        let scale = f64::from(own[taps]).abs();
        let total: f64 = own.iter().zip(&sizes).map(|(w, s)| f64::from(*w).abs() * s).sum();
        let close = |found: f32, expected: f32, size: f64| {
            let off = (f64::from(found) - 0.5 - f64::from(expected)).abs();
            // Products that are not finite, or not in f32, have no sum to compare.
            size >= 1e30
                || size.is_nan()
                || off <= 1e-5 * size + 1e-6 * (1.0 + f64::from(expected).abs())
        };
        for j in 0..=taps {
            let size = if j < taps { scale * sizes[j] } else { total };
            ensure(close(parameters[j], expected[j], size), || {
                format!(
                    "seed {seed}, gradient {j}: {} for {}, of {size}",
                    parameters[j] - 0.5,
                    expected[j]
                )
            })?;
        }
        if let Some(expected) = layer.alpha_gradient(seed) {
            ensure(close(found.alpha, expected, scale * total + sizes[0]), || {
                format!("seed {seed}, alpha: {} for {expected}", found.alpha - 0.5)
            })?;
        } else {
            ensure(found.alpha == 0.5, || format!("seed {seed} is off path: {found:?}"))?;
        }
        if let Some(expected) = layer.reconstruction_loss(seed) {
            let loss = found.reconstruction;
            let right = (loss - expected).abs() <= 1e-9 * expected
                || loss.is_nan() && expected.is_nan()
                || loss == expected;
            ensure(right, || format!("seed {seed}: a loss of {loss} for {expected}"))?;
        }
    }
    Ok(())
}
