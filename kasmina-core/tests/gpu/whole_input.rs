//! The kernels that read the whole input apart from the pass: strict bounds against f64, histograms against the host's.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_core::cuda::testing_seeds::SeedsDoor;
use kasmina_core::cuda::{DeviceMatRef, Engine};
use kasmina_core::{Bounds, Element, SeedLayout, Stability};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use kasmina_telemetry::Histogram;
use proptest::prelude::*;

use crate::common::Draw;

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("strict_bounds_are_those_of_f64_and_repeat", strict_bounds),
    ("histograms_are_the_hosts", histograms),
];

/// Elements before and behind every matrix.
const GUARD: usize = 24;

#[derive(Clone, Debug)]
struct InputCase {
    rows: usize,
    hidden: usize,
    chunk: usize,
    padding: usize,
    offset: usize,
    dtype: usize,
    /// How often an element is out of the ordinary: none, rarely, often, always.
    wild: usize,
    mean: f32,
    values: u64,
}

fn input_case() -> impl Strategy<Value = InputCase> {
    let hidden =
        prop_oneof![4 => 1usize..300, 3 => (1usize..80).prop_map(|n| n * 16), 2 => 300usize..9000];
    let rows = prop_oneof![3 => 1usize..40, 2 => 40usize..400, 1 => 0usize..6000];
    let small =
        || prop_oneof![3 => Just(0usize), 2 => (1usize..8).prop_map(|n| n * 8), 1 => 1usize..20];
    let mean = prop_oneof![Just(0.0f32), Just(3.0), Just(-500.0)];
    let chunk = prop_oneof![3 => 1usize..9000, 2 => (0u32..12).prop_map(|k| 1 << k)];
    (rows, hidden, chunk, small(), small(), 0usize..3, 0usize..4, mean, any::<u64>()).prop_map(
        |(rows, hidden, chunk, padding, offset, dtype, wild, mean, values)| InputCase {
            rows: rows.min(3_000_000 / hidden),
            hidden,
            chunk: chunk.min(hidden),
            padding,
            offset,
            dtype,
            wild,
            mean,
            values,
        },
    )
}

impl InputCase {
    /// The matrix with poison before, between and behind its rows, and where it begins.
    fn memory<T: Element>(&self) -> (Vec<T>, usize) {
        let start = GUARD + self.offset;
        let stride = self.hidden + self.padding;
        // Would show in every result.
        let mut all = vec![T::from_f32(-60_000.0); start + self.rows * stride + GUARD];
        let mut draw = Draw(self.values);
        for row in 0..self.rows {
            for value in &mut all[start + row * stride..][..self.hidden] {
                *value = T::from_f32(self.value(&mut draw));
            }
        }
        (all, start)
    }

    fn value(&self, draw: &mut Draw) -> f32 {
        let out_of_the_ordinary = match self.wild {
            0 => false,
            1 => draw.below(2000) == 0,
            2 => draw.below(8) == 0,
            _ => true,
        };
        if !out_of_the_ordinary {
            return draw.unit() * 3.0 + self.mean;
        }
        match draw.below(10) {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            3 => 3e7 * draw.unit(),
            4 => 1e-30 * draw.unit(),
            5 => 0.0,
            6 => -0.0,
            7 => 1e25 * draw.unit(),
            8 => f32::from_bits(draw.next() as u32),
            _ => draw.unit() * 1e-3,
        }
    }

    fn rows_of<'a, T: Element>(&self, all: &'a [T], start: usize) -> impl Iterator<Item = &'a [T]> {
        let (stride, hidden) = (self.hidden + self.padding, self.hidden);
        (0..self.rows).map(move |row| &all[start + row * stride..][..hidden])
    }

    fn matrix<'a, T: Element>(
        &self,
        buffer: &'a DeviceBuffer<T>,
        start: usize,
    ) -> Result<DeviceMatRef<'a, T>, Failed> {
        let stride = self.hidden + self.padding;
        let used = if self.rows == 0 { 0 } else { (self.rows - 1) * stride + self.hidden };
        Ok(DeviceMatRef::new(buffer.slice(start..start + used)?, self.rows, self.hidden, stride)?)
    }
}

fn strict_bounds(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(300)?.check(&input_case(), |case| match case.dtype {
        0 => strict_case::<f32>(&engine, &case),
        1 => strict_case::<f16>(&engine, &case),
        _ => strict_case::<bf16>(&engine, &case),
    })
}

fn strict_case<T: Element>(engine: &Arc<Engine>, case: &InputCase) -> Result<(), Failed> {
    let stream = Stream::new(engine.context())?;
    let mut door = SeedsDoor::new(engine, &stream, SeedLayout::new(case.hidden, case.chunk)?)?;
    let (all, start) = case.memory::<T>();
    let buffer = DeviceBuffer::from_host(&stream, &all)?;
    let Stability { epsilon, lower, upper, .. } = Stability::default();
    let wide = Draw(case.values).below(2) == 0;
    let fixed = match wide {
        true => Bounds { guarded: true, epsilon, lower: -f32::MAX, upper: f32::MAX },
        false => Bounds { guarded: true, epsilon, lower, upper },
    };
    let sigmas = [6.0, 1.5, 0.0][case.values as usize % 3];
    let mut first: Option<[u32; 3]> = None;
    for _ in 0..3 {
        let found = door.strict_bounds(case.matrix(&buffer, start)?, fixed, sigmas)?;
        let found = found.ok_or("one value was copied")?;
        let key = [found.lower, found.upper, found.epsilon].map(f32::to_bits);
        match first {
            None => check_strict(case, &all, start, fixed, sigmas, found)?,
            Some(first) => {
                ensure(first == key, || format!("another run, other bits: {found:?}"))?;
            }
        }
        ensure(found.guarded && found.epsilon == epsilon, || format!("{found:?}"))?;
        first = Some(key);
    }
    let read = buffer.to_vec()?;
    ensure(bytemuck::cast_slice::<T, u8>(&read) == bytemuck::cast_slice::<T, u8>(&all), || {
        "x has changed".to_owned()
    })
}

/// Two passes in f64.
fn check_strict<T: Element>(
    case: &InputCase,
    all: &[T],
    start: usize,
    fixed: Bounds,
    sigmas: f32,
    found: Bounds,
) -> Result<(), Failed> {
    let values: Vec<f64> = case
        .rows_of(all, start)
        .flatten()
        .map(|v| v.to_f32())
        .filter(|v| v.is_finite())
        .map(f64::from)
        .collect();
    if values.is_empty() {
        return ensure(found == fixed, || format!("nothing is finite, yet {found:?}"));
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    let width = f64::from(sigmas) * deviation;
    for (found, wanted) in [(found.lower, mean - width), (found.upper, mean + width)] {
        let wanted = wanted.clamp(fixed.lower.into(), fixed.upper.into());
        // σ within half of 1e-5, the mean as in the statistics, and the rounding to f32.
        let room = 5e-6 * width + 1e-6 * deviation + 2e-7 * mean.abs() + 1e-7 * wanted.abs();
        ensure((f64::from(found) - wanted).abs() <= room + 1e-37, || {
            format!("{found:e} for {wanted:e}; mean {mean:e}, σ {deviation:e} of {n}")
        })?;
    }
    Ok(())
}

fn histograms(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(200)?.check(&input_case(), |case| match case.dtype {
        0 => histogram_case::<f32>(&engine, &case),
        1 => histogram_case::<f16>(&engine, &case),
        _ => histogram_case::<bf16>(&engine, &case),
    })
}

fn histogram_case<T: Element>(engine: &Arc<Engine>, case: &InputCase) -> Result<(), Failed> {
    let stream = Stream::new(engine.context())?;
    let layout = SeedLayout::new(case.hidden, case.chunk)?;
    let mut door = SeedsDoor::new(engine, &stream, layout)?;
    let (all, start) = case.memory::<T>();
    let x = DeviceBuffer::from_host(&stream, &all)?;
    // A histogram before and one behind, which nothing may touch.
    let seeds = layout.seeds();
    let mut device = DeviceBuffer::from_host(&stream, &vec![Histogram::EMPTY; seeds + 2])?;
    let mut wanted = vec![Histogram::EMPTY; seeds + 2];
    let mut draw = Draw(case.values);
    // Counts add up over calls.
    for call in 0..2 {
        let watched: Option<Vec<u8>> =
            (call == 1).then(|| (0..seeds).map(|_| u8::from(draw.below(3) == 0)).collect());
        door.watch(watched.as_deref())?;
        door.count_histograms(case.matrix(&x, start)?, &mut device, 1)?;
        for row in case.rows_of(&all, start) {
            for (seed, values) in row.chunks(case.chunk).enumerate() {
                if watched.as_ref().is_none_or(|watched| watched[seed] != 0) {
                    values.iter().for_each(|value| wanted[seed + 1].push(value.to_f32()));
                }
            }
        }
        let found = device.to_vec()?;
        let bytes = |all: &[Histogram]| bytemuck::cast_slice::<Histogram, u8>(all).to_vec();
        if bytes(&found) != bytes(&wanted) {
            let at = found.iter().zip(&wanted).position(|(a, b)| a != b);
            let shown = at.map(|at| (&found[at], &wanted[at]));
            return Err(format!("the histogram at {at:?} (seed 0 is at 1): {shown:?}").into());
        }
    }
    Ok(())
}
