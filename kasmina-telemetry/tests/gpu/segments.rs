//! Segments, equal ones and ones between offsets.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use kasmina_telemetry::columns::Extrema;
use kasmina_telemetry::cuda::{CudaError, Engine, GpuFloat, Reducer};
use kasmina_telemetry::{ChunkStats, NanPolicy, ReductionOptions, TelemetryError};
use proptest::prelude::*;

use crate::oracle::{check_chunk, check_sum};
use crate::values::{Draw, Drawn, Kind, kind, values};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("equal_segments_match_the_oracle", equal),
    ("segments_between_offsets_match_the_oracle", offsets),
    ("one_huge_segment_among_small_ones", skewed),
    ("segments_repeat_bit_by_bit", repeat),
    ("bad_offsets_are_reported_and_never_followed", bad_offsets),
];

#[derive(Clone, Debug)]
struct Case {
    n: usize,
    segment: usize,
    offset: usize,
    dtype: usize,
    kind: Kind,
    seed: u64,
    ignore: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let segment = prop_oneof![
        4 => 1usize..40,
        4 => (0u32..19, 0usize..3).prop_map(|(k, d)| ((1_usize << k) + d).saturating_sub(1).max(1)),
        2 => 40usize..5000,
        1 => Just(usize::MAX),
    ];
    let n = prop_oneof![1 => Just(0usize), 2 => 1usize..200, 4 => 200usize..60_000, 2 => 60_000usize..700_000];
    (n, segment, 0usize..16, 0usize..3, kind(), any::<u64>(), any::<bool>()).prop_map(
        |(n, segment, offset, dtype, kind, seed, ignore)| Case {
            n,
            segment,
            offset,
            dtype,
            kind,
            seed,
            ignore,
        },
    )
}

/// What a case's results are compared with.
struct Data<T> {
    all: Vec<T>,
    offset: usize,
    n: usize,
    options: ReductionOptions,
}

impl<T: Drawn> Data<T> {
    fn new(case: &Case) -> Self {
        let mut all = vec![T::nearest(f64::NAN); case.offset];
        all.extend(values::<T>(case.n, case.kind, case.seed));
        all.extend([T::nearest(f64::NAN); 16]);
        let nan = if case.ignore { NanPolicy::Ignore } else { NanPolicy::Propagate };
        Self {
            all,
            offset: case.offset,
            n: case.n,
            options: ReductionOptions { nan, ..Default::default() },
        }
    }

    fn x(&self) -> &[T] {
        &self.all[self.offset..self.offset + self.n]
    }
}

fn check<T: Drawn<Value = f32>>(
    at: usize,
    x: &[T],
    options: &ReductionOptions,
    (stats, sum, extrema): (&ChunkStats, Option<f64>, Option<Extrema>),
) -> Result<(), Failed> {
    let what = format!("segment {at} of {} values", x.len());
    check_chunk(&what, stats, x, options.dead_epsilon)?;
    let wide: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
    check_sum(&what, sum, &wide, options.nan)?;
    check_extrema(&what, extrema, &wide, options.nan)
}

/// Extremes without places; a zero is +0.
pub(crate) fn check_extrema(
    what: &str,
    got: Option<Extrema>,
    values: &[f64],
    nan: NanPolicy,
) -> Result<(), Failed> {
    let numbers = || values.iter().copied().filter(|x| !x.is_nan());
    let stopped = nan == NanPolicy::Propagate && values.iter().any(|x| x.is_nan());
    let want = match (stopped, numbers().next()) {
        (true, _) => {
            return ensure(got.is_some_and(|x| x.min.is_nan() && x.max.is_nan()), || {
                format!("{what}: {got:?}")
            });
        }
        (false, None) => None,
        (false, Some(first)) => {
            let low = numbers().fold(first, |a, b| if b < a { b } else { a });
            let high = numbers().fold(first, |a, b| if b > a { b } else { a });
            Some(((low + 0.0) as f32, (high + 0.0) as f32))
        }
    };
    let bits = |(low, high): (f32, f32)| (low.to_bits(), high.to_bits());
    let got = got.map(|x| (x.min, x.max));
    ensure(got.map(bits) == want.map(bits), || format!("{what}: {got:?} instead of {want:?}"))
}

fn equal(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(500)?.check(&case(), |case| match case.dtype {
        0 => equal_case::<f32>(&engine, &case),
        1 => equal_case::<f16>(&engine, &case),
        _ => equal_case::<bf16>(&engine, &case),
    })
}

fn equal_case<T: Drawn + GpuFloat>(engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(engine, &stream);
    let data = Data::<T>::new(case);
    let buffer = DeviceBuffer::from_host(&stream, &data.all)?;
    let x = buffer.slice(case.offset..case.offset + case.n)?;
    let stats = reducer.equal(x, case.segment, &data.options)?;
    let sums = reducer.equal_sums(x, case.segment, &data.options)?;
    let extrema = reducer.equal_extrema(x, case.segment, &data.options)?;
    let segments = case.n.div_ceil(case.segment);
    ensure((stats.len(), sums.len(), extrema.len()) == (segments, segments, segments), || {
        "lengths".to_owned()
    })?;
    for (i, x) in data.x().chunks(case.segment).enumerate() {
        check(i, x, &data.options, (&stats[i], sums[i], extrema[i]))?;
    }
    Ok(())
}

/// Offsets from 0 or later to the end or before, some segments empty, a few long.
fn cuts(case: &Case) -> Vec<u64> {
    let mut draw = Draw(case.seed ^ 0x5eed);
    let mut at = draw.below(case.n.min(5) + 1);
    let mut all = vec![at as u64];
    let typical = case.segment.min(3000);
    while at < case.n && all.len() < 60_000 {
        let step = match draw.below(12) {
            0 => 0,
            1 => draw.below(20 * typical),
            2 if draw.below(4) == 0 => draw.below(case.n),
            _ => draw.below(2 * typical + 1),
        };
        at = (at + step).min(case.n);
        all.push(at as u64);
    }
    all
}

fn offsets(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(500)?.check(&case(), |case| match case.dtype {
        0 => offsets_case::<f32>(&engine, &case),
        1 => offsets_case::<f16>(&engine, &case),
        _ => offsets_case::<bf16>(&engine, &case),
    })
}

fn offsets_case<T: Drawn + GpuFloat>(engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
    let cuts = cuts(case);
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(engine, &stream);
    let data = Data::<T>::new(case);
    let buffer = DeviceBuffer::from_host(&stream, &data.all)?;
    let x = buffer.slice(case.offset..case.offset + case.n)?;
    let offsets = DeviceBuffer::from_host(&stream, &cuts)?;
    let stats = reducer.offsets(x, offsets.as_slice(), &data.options)?;
    let sums = reducer.offset_sums(x, offsets.as_slice(), &data.options)?;
    let extrema = reducer.offset_extrema(x, offsets.as_slice(), &data.options)?;
    for (i, ends) in cuts.windows(2).enumerate() {
        let x = &data.x()[ends[0] as usize..ends[1] as usize];
        check(i, x, &data.options, (&stats[i], sums[i], extrema[i]))?;
    }
    Ok(())
}

fn skewed(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for (small, huge) in [(3_u64, 9_000_001_u64), (64, 20_000_000), (1000, 1_000_000)] {
        let mut cuts = vec![0];
        for i in 0..2001 {
            cuts.push(cuts[i] + if i == 1000 { huge } else { small });
        }
        let n = cuts[cuts.len() - 1] as usize;
        let x = values::<f32>(n, Kind::Offset, 3);
        let stream = Stream::new(engine.context())?;
        let mut reducer = Reducer::new(&engine, &stream);
        let buffer = DeviceBuffer::from_host(&stream, &x)?;
        let offsets = DeviceBuffer::from_host(&stream, &cuts)?;
        let options = ReductionOptions::default();
        let stats = reducer.offsets(buffer.as_slice(), offsets.as_slice(), &options)?;
        let sums = reducer.offset_sums(buffer.as_slice(), offsets.as_slice(), &options)?;
        let extrema = reducer.offset_extrema(buffer.as_slice(), offsets.as_slice(), &options)?;
        for i in [0, 1, 999, 1000, 1001, 2000] {
            let x = &x[cuts[i] as usize..cuts[i + 1] as usize];
            check(i, x, &options, (&stats[i], sums[i], extrema[i]))?;
        }
    }
    Ok(())
}

fn repeat(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(&engine, &stream);
    let n = 3_000_000;
    let buffer = DeviceBuffer::from_host(&stream, &values::<f32>(n, Kind::Offset, 9))?;
    let mut draw = Draw(4);
    let mut cuts = vec![0_u64];
    while cuts[cuts.len() - 1] < n as u64 {
        let step = if draw.below(100) == 0 { 200_000 } else { draw.below(90) };
        cuts.push((cuts[cuts.len() - 1] + step as u64).min(n as u64));
    }
    let offsets = DeviceBuffer::from_host(&stream, &cuts)?;
    let options = ReductionOptions::default();
    let mut first = None;
    for run in 0..100 {
        let mut bits = Vec::new();
        for segment in [7, 64, 100_000] {
            bits.extend(
                reducer
                    .equal_sums(buffer.as_slice(), segment, &options)?
                    .iter()
                    .map(|x| x.unwrap_or(-1.0).to_bits()),
            );
        }
        bits.extend(
            reducer
                .offset_sums(buffer.as_slice(), offsets.as_slice(), &options)?
                .iter()
                .map(|x| x.unwrap_or(-1.0).to_bits()),
        );
        let stats = reducer.offsets(buffer.as_slice(), offsets.as_slice(), &options)?;
        bits.extend(stats.iter().flat_map(|x| [x.mean.to_bits(), x.m2.to_bits()]));
        match &first {
            None => first = Some(bits),
            Some(first) => ensure(*first == bits, || format!("run {run} differs"))?,
        }
    }
    Ok(())
}

fn bad_offsets(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(&engine, &stream);
    let buffer = DeviceBuffer::from_host(&stream, &values::<f32>(100, Kind::Ordinary, 1))?;
    let options = ReductionOptions::default();
    let cases: [(&[u64], usize, usize); 6] = [
        (&[0, 50, 40, 100], 2, 50),
        (&[0, 50, 101], 2, 50),
        (&[101, 101], 0, 0),
        (&[101], 0, 0),
        (&[0, u64::MAX, 100], 1, 0),
        (&[7, 3, 2, 1], 1, 7),
    ];
    for (cuts, index, low) in cases {
        let offsets = DeviceBuffer::from_host(&stream, cuts)?;
        let got = reducer.offsets(buffer.as_slice(), offsets.as_slice(), &options).err();
        let want = TelemetryError::BadOffset { index, value: cuts[index] as usize, low, high: 100 };
        ensure(got == Some(CudaError::Telemetry(want)), || format!("{got:?} for {cuts:?}"))?;
    }
    // Back and forth over all of the data: far more on the queue than it has room for.
    let n = 1_000_000_u64;
    let many = DeviceBuffer::from_host(&stream, &values::<f32>(n as usize, Kind::Ordinary, 1))?;
    let cuts: Vec<u64> = (0..2000).map(|i| if i % 2 == 0 { 0 } else { n }).collect();
    let offsets = DeviceBuffer::from_host(&stream, &cuts)?;
    let got = reducer.offsets(many.as_slice(), offsets.as_slice(), &options).err();
    let want = TelemetryError::BadOffset { index: 2, value: 0, low: n as usize, high: n as usize };
    ensure(got == Some(CudaError::Telemetry(want)), || format!("{got:?} back and forth"))?;
    let good = DeviceBuffer::from_host(&stream, &[0_u64, 50, 100])?;
    ensure(reducer.offsets(buffer.as_slice(), good.as_slice(), &options)?.len() == 2, || {
        "good offsets".to_owned()
    })?;
    let none = DeviceBuffer::from_host(&stream, &[] as &[u64])?;
    ensure(reducer.offsets(buffer.as_slice(), none.as_slice(), &options).is_err(), || {
        "no offsets".to_owned()
    })
}
