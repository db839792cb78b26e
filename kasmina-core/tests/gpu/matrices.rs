//! Bottleneck and dense branches of random layers, forward and backward, against f64 with bounds (`matrices_reference`), which
//! itself is held against the oracle.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_core::cuda::{DeviceMatMut, DeviceMatRef, Engine, MatrixPasses, MatrixSeed};
use kasmina_core::{Activation, Blueprint, Bounds, DType, Element, Objective, SeedLayout};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_oracle as oracle;
use kasmina_sys::{Device, DeviceBuffer, Stream};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::matrices_reference::{Expected, Near, Task, oracle_activation};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("matrix_branches_are_within_bounds_of_f64", random_layers),
    ("matrix_branches_of_wide_chunks", wide_chunks),
    ("matrix_branches_of_many_rows_and_seeds", many),
    ("matrix_branches_let_infinities_through_when_nothing_guards", infinities),
];

/// A guard of this many elements around every matrix.
const GUARD: usize = 64;
const POISON: f32 = -77.0;

#[derive(Clone, Debug)]
struct SeedCase {
    blueprint: Blueprint,
    role: Result<f32, Objective>,
    trains: bool,
    dormant: bool,
}

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    hidden: usize,
    chunk: usize,
    seeds: Vec<SeedCase>,
    /// Extra elements from row to row of x, y, grad_y, grad_x, and before the first.
    padding: [usize; 4],
    offset: [usize; 4],
    dtype: DType,
    bounds: Bounds,
    wild: bool,
    in_place: bool,
    /// Whether the backward pass has gradients of y.
    task: bool,
    values: u64,
}

fn seed_case(width: impl Strategy<Value = usize>) -> impl Strategy<Value = SeedCase> {
    let activation = prop_oneof![
        Just(Activation::Relu),
        Just(Activation::Gelu),
        Just(Activation::Silu),
        Just(Activation::Tanh)
    ];
    let alpha = prop_oneof![Just(1.0f32), 0.01f32..1.0];
    let role = prop_oneof![
        3 => alpha.prop_map(Ok),
        1 => Just(Err(Objective::StraightThrough)),
        1 => Just(Err(Objective::Reconstruction)),
    ];
    (activation, width, any::<bool>(), role, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(activation, width, dense, role, trains, dormant)| SeedCase {
            blueprint: match dense {
                true => Blueprint::Dense { activation },
                false => Blueprint::Bottleneck { width, activation },
            },
            role,
            trains: trains || role.is_err(),
            dormant,
        },
    )
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let of = |guarded, epsilon, lower, upper| Just(Bounds { guarded, epsilon, lower, upper });
    prop_oneof![
        2 => of(false, 0.0, 0.0, 0.0),
        2 => of(true, 1e-8, -1e6, 1e6),
        // Bounds that bite, and an ε that does.
        2 => of(true, 1e-8, -1.5, 1.25),
        1 => of(true, 0.3, -2.0, 2.0),
    ]
}

fn case(chunk: std::ops::RangeInclusive<usize>, work: usize) -> impl Strategy<Value = Case> {
    let width = prop_oneof![3 => 1usize..20, 1 => 1usize..=100];
    let seeds = prop::collection::vec(seed_case(width), 1..5);
    let rows = prop_oneof![1 => 0usize..4, 3 => 1usize..130, 2 => 60usize..700];
    let small = || prop_oneof![Just(0usize), 1usize..20, (1usize..8).prop_map(|n| n * 8)];
    let four = || [small(), small(), small(), small()];
    let dtype = prop_oneof![Just(DType::F32), Just(DType::F16), Just(DType::Bf16)];
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.85), any::<u64>());
    (chunk, any::<u32>(), seeds, rows, four(), four(), dtype, bounds(), flags).prop_map(
        move |(chunk, short, seeds, rows, padding, offset, dtype, bounds, flags)| {
            let (wild, in_place, task, values) = flags;
            let hidden = chunk * seeds.len() - short as usize % chunk;
            let chunk = chunk.min(hidden);
            let rows = rows.min((work / (hidden * chunk.max(20))).max(1));
            Case {
                rows,
                hidden,
                chunk,
                seeds,
                padding,
                offset,
                dtype,
                bounds,
                wild,
                in_place,
                task,
                values,
            }
        },
    )
}

fn random_layers(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(300)?.check(&case(1..=200, 2_000_000), |case| check(&engine, &case))
}

fn wide_chunks(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(12)?.check(&case(200..=1000, 4_000_000), |case| check(&engine, &case))
}

/// Items of several blocks, several parts, more items than blocks of threads.
fn many(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for (rows, chunk, seeds) in [(9000, 5, 2), (70, 3, 2000)] {
            let kinds = [
                Blueprint::Bottleneck { width: 4, activation: Activation::Gelu },
                Blueprint::Dense { activation: Activation::Tanh },
            ];
            let roles = [Ok(0.5), Err(Objective::Reconstruction), Ok(1.0)];
            let seeds: Vec<_> = (0..seeds)
                .map(|i| SeedCase {
                    blueprint: kinds[i % 2].clone(),
                    role: roles[i % 3],
                    trains: i % 3 < 2,
                    dormant: false,
                })
                .collect();
            let hidden = chunk * seeds.len();
            check(&engine, &Case { rows, hidden, chunk, seeds, ..plain(dtype) })?;
        }
    }
    Ok(())
}

/// Products with a factor that is not finite leave the tensor cores.
fn infinities(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for blueprint in [
            Blueprint::Bottleneck { width: 70, activation: Activation::Relu },
            Blueprint::Dense { activation: Activation::Tanh },
        ] {
            let seed = SeedCase { blueprint, role: Ok(0.5), trains: true, dormant: false };
            check(&engine, &Case { wild: true, seeds: vec![seed], ..plain(dtype) })?;
        }
    }
    Ok(())
}

fn plain(dtype: DType) -> Case {
    Case {
        rows: 100,
        hidden: 90,
        chunk: 90,
        seeds: vec![],
        padding: [0; 4],
        offset: [0; 4],
        dtype,
        bounds: Bounds { guarded: false, epsilon: 0.0, lower: 0.0, upper: 0.0 },
        wild: false,
        in_place: false,
        task: true,
        values: 5,
    }
}

fn check(engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
    match case.dtype {
        DType::F32 => run::<f32>(engine, case),
        DType::F16 => run::<f16>(engine, case),
        DType::Bf16 => run::<bf16>(engine, case),
    }
}

fn parameters(case: &Case, layout: SeedLayout, seed: usize) -> Result<Vec<f32>, Failed> {
    let mut rng = ChaCha8Rng::seed_from_u64(case.values);
    rng.set_stream(10 + seed as u64);
    let c = layout.chunk_len(seed);
    let tensors = case.seeds[seed].blueprint.parameters(c)?;
    let mut out = Vec::new();
    for spec in tensors.specs() {
        let scale = if let [_, inner] = spec.shape[..] { 1.5 / (inner as f32).sqrt() } else { 0.5 };
        let count: usize = spec.shape.iter().product();
        out.extend((0..count).map(|_| scale * rng.random_range(-1.0f32..1.0)));
    }
    Ok(out)
}

/// A dense matrix's values, as they are stored.
fn matrix<T: Element>(case: &Case, stream: u64) -> Vec<T> {
    let mut rng = ChaCha8Rng::seed_from_u64(case.values);
    rng.set_stream(stream);
    let value = |rng: &mut ChaCha8Rng| match rng.random_range(0..400) {
        // Rare without guards, where one of them is in every number of its row.
        n if case.wild && (case.bounds.guarded || n % 20 == 0) && n < 60 => {
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e7, -1e-30, 0.0][n as usize / 10]
        }
        _ => rng.random_range(-2.0f32..2.0),
    };
    (0..case.rows * case.hidden).map(|_| T::from_f32(value(&mut rng))).collect()
}

/// A matrix on the device with guards around it, and whatever lies between its rows.
struct Framed<T: Element> {
    buffer: DeviceBuffer<T>,
    start: usize,
    stride: usize,
    used: usize,
}

impl<T: Element> Framed<T> {
    fn new(stream: &Stream, case: &Case, which: usize, dense: &[T]) -> Result<Self, Failed> {
        let (stride, start) = (case.hidden + case.padding[which], GUARD + case.offset[which]);
        let used = if case.rows == 0 { 0 } else { (case.rows - 1) * stride + case.hidden };
        let mut all = vec![T::from_f32(POISON); start + used + GUARD];
        for row in 0..case.rows {
            all[start + row * stride..][..case.hidden]
                .copy_from_slice(&dense[row * case.hidden..][..case.hidden]);
        }
        Ok(Self { buffer: DeviceBuffer::from_host(stream, &all)?, start, stride, used })
    }

    fn view(&self, case: &Case) -> Result<DeviceMatRef<'_, T>, Failed> {
        let data = self.buffer.slice(self.start..self.start + self.used)?;
        Ok(DeviceMatRef::new(data, case.rows, case.hidden, self.stride)?)
    }

    fn view_mut(&mut self, case: &Case) -> Result<DeviceMatMut<'_, T>, Failed> {
        let data = self.buffer.slice_mut(self.start..self.start + self.used)?;
        Ok(DeviceMatMut::new(data, case.rows, case.hidden, self.stride)?)
    }

    /// The dense matrix; fails where anything around it changed.
    fn read(&self, what: &str, case: &Case) -> Result<Vec<T>, Failed> {
        let all = self.buffer.to_vec()?;
        let mut dense = Vec::new();
        for (i, value) in all.iter().enumerate() {
            let inside = i >= self.start
                && i < self.start + self.used
                && (i - self.start) % self.stride < case.hidden;
            if inside {
                dense.push(*value);
            } else {
                ensure(value.to_f32() == POISON, || format!("{what}: a guard was written at {i}"))?;
            }
        }
        Ok(dense)
    }
}

/// What the device made of a case.
struct Outcome<T> {
    y: Vec<T>,
    grad_x: Vec<T>,
    gradients: Vec<Option<Vec<f32>>>,
    results: Vec<(f64, f32)>,
    saturated: u64,
}

fn on_device<T: Element>(
    engine: &Arc<Engine>,
    case: &Case,
    seeds: &[MatrixSeed],
    x: &[T],
    grad_y: &[T],
) -> Result<Outcome<T>, Failed> {
    let stream = Stream::new(engine.context())?;
    let layout = SeedLayout::new(case.hidden, case.chunk)?;
    let mut passes = MatrixPasses::new(engine, &stream, layout, case.bounds, seeds)?;
    let poison = vec![T::from_f32(POISON); x.len()];
    let device_x = Framed::new(&stream, case, 0, x)?;
    let mut y = Framed::new(&stream, case, 1, if case.in_place { x } else { &poison })?;
    if case.in_place {
        passes.forward_in_place(&mut y.view_mut(case)?)?;
    } else {
        passes.forward(device_x.view(case)?, &mut y.view_mut(case)?)?;
    }
    let device_g = Framed::new(&stream, case, 2, grad_y)?;
    let mut grad_x = Framed::new(&stream, case, 3, &poison)?;
    let mut backward = |passes: &mut MatrixPasses| -> Result<(), Failed> {
        let x = device_x.view(case)?;
        let g = device_g.view(case)?;
        let mut out = grad_x.view_mut(case)?;
        Ok(passes.backward(x, case.task.then_some((g, &mut out)))?)
    };
    backward(&mut passes)?;
    let all = |passes: &MatrixPasses| -> Result<_, Failed> {
        let mut found = Vec::new();
        for i in 0..seeds.len() {
            found.push((passes.gradients(i)?, passes.result(i)?.unwrap_or_default()));
        }
        Ok(found)
    };
    let first = all(&passes)?;
    let saturated = passes.saturated()?;
    // Once more: gradients add up, to the double of equal bits; the loss is the latest.
    backward(&mut passes)?;
    for (i, ((once, result), (twice, later))) in first.iter().zip(all(&passes)?).enumerate() {
        let double = |a: f32, b: f32| 2.0 * a == b || (a.is_nan() && b.is_nan());
        let right = match (once, &twice) {
            (Some(once), Some(twice)) => once.iter().zip(twice).all(|(a, b)| double(*a, *b)),
            (once, twice) => once.is_none() && twice.is_none(),
        };
        let same = double(result.1, later.1)
            && (result.0 == later.0 || (result.0.is_nan() && later.0.is_nan()));
        ensure(right && same, || format!("seed {i}: a second pass does not add the same"))?;
    }
    let same =
        |a: &[T], b: &[T]| bytemuck::cast_slice::<T, u8>(a) == bytemuck::cast_slice::<T, u8>(b);
    ensure(same(&device_x.read("x", case)?, x), || "x was written".to_owned())?;
    ensure(same(&device_g.read("grad_y", case)?, grad_y), || "grad_y was written".to_owned())?;
    let (gradients, results) = first.into_iter().unzip();
    Ok(Outcome {
        y: y.read("y", case)?,
        grad_x: grad_x.read("grad_x", case)?,
        gradients,
        results,
        saturated,
    })
}

fn run<T: Element>(engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
    let layout = SeedLayout::new(case.hidden, case.chunk)?;
    let (x, grad_y) = (matrix::<T>(case, 1), matrix::<T>(&Case { wild: false, ..case.clone() }, 2));
    let mut seeds = Vec::new();
    for seed in (0..layout.seeds()).filter(|seed| !case.seeds[*seed].dormant) {
        let SeedCase { blueprint, role, trains, .. } = case.seeds[seed].clone();
        seeds.push(MatrixSeed {
            seed,
            blueprint,
            parameters: parameters(case, layout, seed)?,
            role,
            trains,
        });
    }
    let found = on_device(engine, case, &seeds, &x, &grad_y)?;
    let again = on_device(engine, case, &seeds, &x, &grad_y)?;
    same_bits(&found, &again)?;

    let unit = if T::DTYPE == DType::F32 { 1e-5 } else { 1e-4 };
    let wide = |values: &[T]| values.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
    let (x, grad_y) = (wide(&x), wide(&grad_y));
    // Other chunks stay as they were.
    let still = |v: f32| Near { v: v.into(), e: 0.0 };
    let mut y: Vec<Near> =
        x.iter().map(|x| still(if case.in_place { *x } else { POISON })).collect();
    let mut grad_x = vec![still(POISON); x.len()];
    for (i, seed) in seeds.iter().enumerate() {
        let columns = layout.columns(seed.seed);
        let part = |all: &[f32]| -> Vec<f32> {
            all.chunks(case.hidden).flat_map(|row| row[columns.clone()].to_vec()).collect()
        };
        let MatrixSeed { blueprint, parameters, role, .. } = seed;
        let task =
            Task { blueprint, parameters, role: *role, bounds: case.bounds, rows: case.rows, unit };
        let expected = task.run(&part(&x), &part(&grad_y));
        against_oracle(case, &task, &part(&x), &part(&grad_y), &expected)?;
        let about = |what: &str| format!("seed {}, {blueprint:?}, {role:?}: {what}", seed.seed);
        let put = |to: &mut [Near], from: &[Near]| {
            for (row, from) in from.chunks(columns.len()).enumerate() {
                to[row * case.hidden..][columns.clone()].copy_from_slice(from);
            }
        };
        if role.is_ok() {
            put(&mut y, &expected.y);
            if case.task {
                put(&mut grad_x, &expected.grad_x);
            }
        }
        let reconstructs = *role == Err(Objective::Reconstruction);
        let served = case.task || reconstructs;
        let zero = vec![Near::default(); parameters.len()];
        if let Some(found) = &found.gradients[i] {
            let want = if served { &expected.parameters } else { &zero };
            compare(
                &about("parameter gradients"),
                found.iter().map(|v| f64::from(*v)),
                want,
                |_| 1e-37,
            )?;
        }
        let (loss, alpha) = found.results[i];
        let want = if reconstructs { expected.loss } else { Near::default() };
        compare(&about("the loss"), [loss].into_iter(), &[want], |_| 0.0)?;
        let want =
            if role.is_ok() && served && seed.trains { expected.alpha } else { Near::default() };
        compare(&about("alpha's gradient"), [f64::from(alpha)].into_iter(), &[want], |_| 1e-37)?;
    }
    let stored = |v: f64| match T::DTYPE {
        DType::F32 => 1e-37,
        DType::F16 => v.abs() / 2048.0 + 1.0 / f64::from(1 << 25),
        DType::Bf16 => v.abs() / 256.0 + 1e-37,
    };
    let (mut least, mut most) = (0, 0);
    for want in y.iter_mut().chain(&mut grad_x).filter(|_| T::DTYPE == DType::F16) {
        if want.v.is_finite() {
            least += u64::from(want.v.abs() - want.e >= 65520.0);
            let below = want.v.abs() + want.e < 65519.0;
            most += u64::from(!below);
            want.v = want.v.clamp(-65504.0, 65504.0);
        }
    }
    compare("y", found.y.iter().map(|v| v.to_f32().into()), &y, stored)?;
    compare("grad_x", found.grad_x.iter().map(|v| v.to_f32().into()), &grad_x, stored)?;
    let counted = found.saturated;
    ensure(T::DTYPE != DType::F16 || (least..=most).contains(&counted), || {
        format!("{counted} saturated, {least} to {most} should")
    })
}

fn compare(
    what: &str,
    found: impl ExactSizeIterator<Item = f64>,
    want: &[Near],
    rounding: impl Fn(f64) -> f64,
) -> Result<(), Failed> {
    ensure(found.len() == want.len(), || {
        format!("{what}: {} numbers for {}", found.len(), want.len())
    })?;
    for (i, (found, want)) in found.zip(want).enumerate() {
        let right = if want.v.is_nan() {
            found.is_nan()
        } else if want.v.is_infinite() {
            found == want.v
        } else {
            // An error that is not finite comes of an edge at an infinity.
            !want.e.is_finite() || (found - want.v).abs() <= want.e + rounding(want.v)
        };
        ensure(right, || {
            format!("{what}: number {i} is {found:e} for {:e} within {:e}", want.v, want.e)
        })?;
    }
    Ok(())
}

fn same_bits<T: Element>(a: &Outcome<T>, b: &Outcome<T>) -> Result<(), Failed> {
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let all = |o: &Outcome<T>| {
        let gradients: Vec<_> = o.gradients.iter().flatten().map(|v| bits(v)).collect();
        let results: Vec<_> = o.results.iter().map(|r| (r.0.to_bits(), r.1.to_bits())).collect();
        let bytes = |m: &[T]| bytemuck::cast_slice::<T, u8>(m).to_vec();
        (bytes(&o.y), bytes(&o.grad_x), gradients, results, o.saturated)
    };
    ensure(all(a) == all(b), || "two runs differ".to_owned())
}

/// Holds the reference against the oracle: the same formulas, written by others.
fn against_oracle(
    case: &Case,
    task: &Task<'_>,
    x: &[f32],
    grad_y: &[f32],
    expected: &Expected,
) -> Result<(), Failed> {
    // Once a layer is enough of a seed that many are like; and the oracle wants rows.
    if case.rows == 0 || case.seeds.len() > 100 {
        return Ok(());
    }
    let c = x.len() / case.rows;
    let (kind, width) = match *task.blueprint {
        Blueprint::Bottleneck { width, activation } => {
            (oracle::Kind::Bottleneck { activation: oracle_activation(activation) }, width)
        }
        Blueprint::Dense { activation } => {
            (oracle::Kind::Dense { activation: oracle_activation(activation) }, c)
        }
        _ => return Ok(()),
    };
    let mut rest = task.parameters.iter().map(|v| f64::from(*v));
    let tensors = kind.parameter_names().iter().zip(kind.parameter_lengths(c, width));
    let params = tensors
        .map(|(name, n)| oracle::Parameter::new(name, rest.by_ref().take(n).collect()))
        .collect();
    let Bounds { guarded, epsilon, lower, upper } = task.bounds;
    let mode = if guarded { oracle::StabilityMode::Adaptive } else { oracle::StabilityMode::Fast };
    let stability = oracle::Stability {
        mode,
        epsilon: epsilon.into(),
        lower: lower.into(),
        upper: upper.into(),
        sigmas: 6.0,
    };
    let objective = match task.role {
        Err(Objective::Reconstruction) => oracle::Objective::Reconstruction,
        _ => oracle::Objective::StraightThrough,
    };
    // GRAFTING, or TRAINING.
    let (state, alpha) = task.role.map_or((2, 0.0), |alpha| (3, f64::from(alpha)));
    let seed = oracle::OracleSeed { kind, state, alpha, objective, params };
    let layer =
        oracle::OracleLayer { rows: case.rows, hidden: c, chunk: c, stability, seeds: vec![seed] };
    let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let (x, grad_y) = (wide(x), wide(grad_y));
    let backward = layer.backward(&x, &grad_y)?;
    let exactly = |v: f64| 1e-9 * v.abs() + 1e-12;
    if task.role.is_ok() {
        compare("the oracle's y", layer.forward(&x)?.y.into_iter(), &expected.y, exactly)?;
        compare("the oracle's grad_x", backward.grad_x.into_iter(), &expected.grad_x, exactly)?;
    }
    for found in backward.seeds {
        let all: Vec<_> = found.parameters.into_iter().flatten().flat_map(|p| p.values).collect();
        compare("the oracle's gradients", all.into_iter(), &expected.parameters, exactly)?;
        if let Some(alpha) = found.alpha {
            compare("the oracle's alpha", [alpha].into_iter(), &[expected.alpha], exactly)?;
        }
        if let Some(loss) = found.reconstruction {
            compare("the oracle's loss", [loss].into_iter(), &[expected.loss], exactly)?;
        }
    }
    Ok(())
}
