//! How many 16-bit outputs and input gradients did not fit their type, on every rung, beside a count by the host's own formulas.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_core::cuda::{CudaLayer, DeviceMatMut, DeviceMatRef, Engine};
use kasmina_core::{
    Blueprint, Element, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, SeedLayout, Stability,
    StabilityMode, State,
};
use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use kasmina_tma::LoadPath;

use crate::common::Draw;

pub(crate) const TESTS: &[(&str, Body)] =
    &[("what_does_not_fit_16_bits_is_counted_as_on_the_host", saturation)];

const ROWS: usize = 65;
const HIDDEN: usize = 1024;
/// By how much a branch goes past the greatest value: over the rounding of both types, and for bf16 still within f32.
const EXCESS: f32 = 0.003;

/// A branch that takes the greatest value past itself, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Dormant,
    /// y = x ± EXCESS · greatest.
    Residual,
    /// y = (1 + EXCESS) · |x| where x has the weight's sign, else 0.
    Expansion,
    /// y = (1 + EXCESS) · x.
    Filter,
}

/// By seed. Those of even rounds are frozen, the others train, which takes other ways through the backward kernels.
fn kind(seed: usize) -> (Kind, State) {
    let kinds = [Kind::Dormant, Kind::Residual, Kind::Expansion, Kind::Filter];
    let state = if (seed / 4).is_multiple_of(2) { State::Fossilized } else { State::FineTuning };
    (kinds[seed % 4], state)
}

/// The sign of a column's weight.
fn sign(column: usize) -> f32 {
    if column.is_multiple_of(3) { -1.0 } else { 1.0 }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    path: LoadPath,
    chunk: usize,
    measured: bool,
    mode: StabilityMode,
}

/// The storage type, as the host sees it without any code of the library's.
struct Type<T> {
    greatest: f32,
    of: fn(f32) -> T,
    wide: fn(T) -> f32,
}

impl<T: Element> Type<T> {
    /// Whether a number has no place in the type.
    fn overflows(&self, value: f32) -> bool {
        value.is_finite() && (self.wide)((self.of)(value)).is_infinite()
    }

    fn values(&self, seed: u64) -> Vec<T> {
        let mut draw = Draw(seed);
        let greatest = self.greatest;
        let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -1e-30];
        let usual = [greatest, -greatest, 0.99 * greatest, -0.99 * greatest, 1.0, -3.0];
        let mut one = || match draw.below(16) {
            i @ 0..5 => odd[i],
            i => usual[i % usual.len()],
        };
        (0..ROWS * HIDDEN).map(|_| (self.of)(one())).collect()
    }

    fn layer(&self, case: &Case) -> Result<Layer, Failed> {
        let layout = SeedLayout::new(HIDDEN, case.chunk)?;
        let mut builder = Layer::builder(layout).stability(Stability::new(case.mode));
        for seed in 0..layout.seeds() {
            let signs = layout.columns(seed).map(sign);
            let push = EXCESS * self.greatest;
            let (kind, state) = kind(seed);
            let (blueprint, parameters) = match kind {
                Kind::Dormant => continue,
                Kind::Residual => {
                    (Blueprint::Residual, vec![signs.map(|s| s * push).collect(), vec![1.0]])
                }
                Kind::Expansion => {
                    (Blueprint::MlpExpansion, vec![signs.collect(), vec![1.0 + EXCESS]])
                }
                Kind::Filter => {
                    (Blueprint::ConvFilter { taps: 1 }, vec![vec![1.0 + EXCESS], vec![1.0]])
                }
            };
            let initial = InitialSeed {
                state,
                alpha: 1.0,
                blueprint: Some(blueprint),
                parameters: Some(parameters),
                ..InitialSeed::default()
            };
            builder = builder.seed(seed, initial);
        }
        Ok(builder.build()?)
    }

    /// Outputs that do not fit.
    fn expected(&self, case: &Case, x: &[T]) -> u64 {
        let stability = Stability::new(case.mode);
        let guarded = case.mode != StabilityMode::Fast;
        let count = x.iter().enumerate().filter(|&(i, &x)| {
            let (column, x) = (i % HIDDEN, (self.wide)(x));
            let (kind, _) = kind(column / case.chunk);
            let v = match guarded {
                true if x.is_nan() || x.abs() < stability.epsilon => 0.0,
                true => x.clamp(stability.lower, stability.upper),
                false => x,
            };
            let y = match kind {
                Kind::Dormant => return false,
                Kind::Residual => v + sign(column) * EXCESS * self.greatest,
                Kind::Expansion if v * sign(column) > 0.0 => v * sign(column) * (1.0 + EXCESS),
                Kind::Expansion => 0.0,
                Kind::Filter => v * (1.0 + EXCESS),
            };
            let y = if guarded { y.clamp(stability.lower, stability.upper) } else { y };
            self.overflows(y)
        });
        count.count() as u64
    }

    /// Input gradients that do not fit; without guards.
    fn expected_gradients(&self, case: &Case, x: &[T], g: &[T]) -> u64 {
        let count = x.iter().zip(g).enumerate().filter(|&(i, (&x, &g))| {
            let (column, x, g) = (i % HIDDEN, (self.wide)(x), (self.wide)(g));
            match kind(column / case.chunk).0 {
                Kind::Dormant | Kind::Residual => false,
                Kind::Expansion => x * sign(column) > 0.0 && self.overflows(g * (1.0 + EXCESS)),
                Kind::Filter => self.overflows(g * (1.0 + EXCESS)),
            }
        });
        count.count() as u64
    }

    /// How many outputs and gradients the CPU counts, which are those that the formulas give.
    fn on_host(&self, case: &Case, x: &[T], g: &[T]) -> Result<(u64, u64), Failed> {
        let mut layer = self.layer(case)?;
        let mut out = vec![(self.of)(0.0); x.len()];
        let matrix = |data| MatRef::<T>::contiguous(data, HIDDEN);
        let options = ForwardOptions::new();
        let counted = |layer: &Layer| layer.layer_state().telemetry.saturated;
        layer.forward(matrix(x)?, MatMut::contiguous(&mut out, HIDDEN)?, &options)?;
        let outputs = counted(&layer);
        layer.backward(matrix(x)?, matrix(g)?, MatMut::contiguous(&mut out, HIDDEN)?, &options)?;
        let gradients = counted(&layer) - outputs;
        let expected = self.expected(case, x);
        ensure(outputs == expected, || {
            format!("{case:?}: {outputs} outputs on the CPU, {expected} should")
        })?;
        if case.mode == StabilityMode::Fast {
            let expected = self.expected_gradients(case, x, g);
            ensure(outputs > 0 && gradients > 0 && gradients == expected, || {
                format!("{case:?}: {gradients} gradients on the CPU, {expected} should")
            })?;
        }
        Ok((outputs, gradients))
    }

    fn check(&self, engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
        let (x, g) = (self.values(1), self.values(2));
        let (outputs, gradients) = self.on_host(case, &x, &g)?;
        let plain = ForwardOptions::new();
        let options = if case.measured { plain } else { plain.without_telemetry() };

        let stream = Stream::new(engine.context())?;
        let mut gpu = CudaLayer::from_layer(&self.layer(case)?, engine, &stream)?;
        gpu.force_path(Some(case.path));
        let mut on_x = DeviceBuffer::from_host(&stream, &x)?;
        let on_g = DeviceBuffer::from_host(&stream, &g)?;
        let mut on_out = DeviceBuffer::<T>::zeroed(&stream, ROWS * HIDDEN)?;
        let there = |data| DeviceMatRef::new(data, ROWS, HIDDEN, HIDDEN);
        let mut before = 0;
        let mut since = |gpu: &mut CudaLayer| -> Result<u64, Failed> {
            let now = gpu.to_layer()?.layer_state().telemetry.saturated;
            Ok(now - std::mem::replace(&mut before, now))
        };
        let right = |what: &str, found: u64, expected: u64| {
            ensure(found == expected, || format!("{case:?}: {found} {what}, {expected} should"))
        };
        let mut to = DeviceMatMut::new(on_out.as_mut_slice(), ROWS, HIDDEN, HIDDEN)?;
        gpu.forward(there(on_x.as_slice())?, &mut to, &options)?;
        let report = gpu.report();
        let found = report.forward.as_ref().map(|forward| forward.path.path);
        ensure(found == Some(case.path), || format!("{case:?}: {report}"))?;
        right("outputs", since(&mut gpu)?, outputs)?;
        gpu.backward(there(on_x.as_slice())?, there(on_g.as_slice())?, &mut to, &options)?;
        right("gradients", since(&mut gpu)?, gradients)?;
        // Last: it changes x.
        let mut both = DeviceMatMut::new(on_x.as_mut_slice(), ROWS, HIDDEN, HIDDEN)?;
        gpu.forward_in_place(&mut both, &options.inference())?;
        right("outputs in place", since(&mut gpu)?, outputs)
    }
}

fn saturation(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let has_bulk = engine.tma().is_supported();
    let half = Type { greatest: 65504.0, of: f16::from_f32, wide: f16::to_f32 };
    let brain = Type { greatest: 255.0 * 2f32.powi(120), of: bf16::from_f32, wide: bf16::to_f32 };
    for path in LoadPath::LADDER {
        if !has_bulk && path < LoadPath::CpAsync {
            continue;
        }
        // Chunks of whole packets, and some of which a packet has parts of several.
        for chunk in [64, 3] {
            for measured in [true, false] {
                for mode in [StabilityMode::Fast, StabilityMode::Adaptive] {
                    let case = Case { path, chunk, measured, mode };
                    half.check(&engine, &case)?;
                    brain.check(&engine, &case)?;
                }
            }
        }
    }
    Ok(())
}
