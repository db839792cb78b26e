//! Segments, equal ones and ones between offsets.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use kasmina_telemetry::cuda::{CudaError, Engine, Reducer};
use kasmina_telemetry::{NanPolicy, ReductionOptions, ReductionStrategy, TelemetryError};
use proptest::prelude::*;

use crate::oracle::{AnySum, Ends, Stats, check_any_sum, check_chunk, check_extrema};
use crate::values::{Draw, Drawn, Kind, kind, strategy, values};

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
    strategy: ReductionStrategy,
}

fn case() -> impl Strategy<Value = Case> {
    let segment = prop_oneof![
        4 => 1usize..40,
        4 => (0u32..19, 0usize..3).prop_map(|(k, d)| ((1_usize << k) + d).saturating_sub(1).max(1)),
        2 => 40usize..5000,
        1 => Just(usize::MAX),
    ];
    let n = prop_oneof![1 => Just(0usize), 2 => 1usize..200, 4 => 200usize..60_000, 2 => 60_000usize..700_000];
    (n, segment, 0usize..16, 0usize..7, kind(), any::<u64>(), any::<bool>(), strategy()).prop_map(
        |(n, segment, offset, dtype, kind, seed, ignore, strategy)| Case {
            n,
            segment,
            offset,
            dtype,
            kind,
            seed,
            ignore,
            strategy,
        },
    )
}

const ALL: [ReductionStrategy; 3] =
    [ReductionStrategy::Hierarchical, ReductionStrategy::Atomic, ReductionStrategy::Direct];

/// What a case's results are compared with.
struct Data<T> {
    all: Vec<T>,
    offset: usize,
    n: usize,
    options: ReductionOptions,
}

impl<T: Drawn> Data<T> {
    fn new(case: &Case) -> Self {
        // NaN or a large number in front and behind would show.
        let poison = T::nearest(if T::INTEGER { 2e6 } else { f64::NAN });
        let mut all = vec![poison; case.offset];
        all.extend(values::<T>(case.n, case.kind, case.seed));
        all.extend([poison; 16]);
        let nan = if case.ignore { NanPolicy::Ignore } else { NanPolicy::Propagate };
        Self {
            all,
            offset: case.offset,
            n: case.n,
            options: ReductionOptions { nan, strategy: case.strategy, ..Default::default() },
        }
    }

    fn x(&self) -> &[T] {
        &self.all[self.offset..self.offset + self.n]
    }
}

fn check<T: SegmentDrawn>(
    at: usize,
    x: &[T],
    options: &ReductionOptions,
    (stats, sum, extrema): (&T::SegmentStatistics, Option<T::Sum>, Option<T::SegmentExtrema>),
) -> Result<(), Failed> {
    let what = format!("segment {at} of {} values", x.len());
    check_chunk(&what, stats, x, options.dead_epsilon)?;
    check_any_sum(&what, sum, x, options)?;
    check_extrema(&what, extrema, x, options.nan)
}

/// A type whose segments' results can be judged: each of them.
trait SegmentDrawn:
    Drawn<Sum: AnySum, SegmentStatistics: Stats<Self::Value>, SegmentExtrema: Ends<Self::Value>>
{
}

impl<T> SegmentDrawn for T where
    T: Drawn<Sum: AnySum, SegmentStatistics: Stats<T::Value>, SegmentExtrema: Ends<T::Value>>
{
}

/// Runs a case in its type.
macro_rules! in_its_type {
    ($case:ident, $run:ident, $engine:expr) => {
        match $case.dtype {
            0 => $run::<f32>($engine, &$case),
            1 => $run::<f16>($engine, &$case),
            2 => $run::<bf16>($engine, &$case),
            3 => $run::<f64>($engine, &$case),
            4 => $run::<i32>($engine, &$case),
            5 => $run::<u32>($engine, &$case),
            _ => $run::<i64>($engine, &$case),
        }
    };
}

fn equal(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(900)?.check(&case(), |case| in_its_type!(case, equal_case, &engine))
}

fn equal_case<T: SegmentDrawn>(engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
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
    Cases::from_environment(900)?.check(&case(), |case| in_its_type!(case, offsets_case, &engine))
}

fn offsets_case<T: SegmentDrawn>(engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
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
        for strategy in ALL {
            let options = ReductionOptions { strategy, ..Default::default() };
            let stats = reducer.offsets(buffer.as_slice(), offsets.as_slice(), &options)?;
            let sums = reducer.offset_sums(buffer.as_slice(), offsets.as_slice(), &options)?;
            let extrema =
                reducer.offset_extrema(buffer.as_slice(), offsets.as_slice(), &options)?;
            for i in [0, 1, 999, 1000, 1001, 2000] {
                let x = &x[cuts[i] as usize..cuts[i + 1] as usize];
                check(i, x, &options, (&stats[i], sums[i], extrema[i]))?;
            }
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
    let mut first = [None, None, None];
    for run in 0..300 {
        let strategy = ALL[run % 3];
        let options = ReductionOptions { strategy, ..Default::default() };
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
        match &first[run % 3] {
            None => first[run % 3] = Some(bits),
            Some(first) => {
                ensure(*first == bits, || format!("run {run}, {strategy:?}, differs"))?;
            }
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
