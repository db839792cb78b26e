//! Flat reductions of every type.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, DeviceSlice, Stream};
use kasmina_telemetry::cuda::{CudaError, Engine, Launch, Reducer};
use kasmina_telemetry::{Comparison, NanPolicy, ReductionOptions, ReductionStrategy, reduce};
use proptest::prelude::*;

use crate::oracle::{AnySum, Exact, as_long, check_any_sum, check_statistics, near};
use crate::values::{Drawn, Kind, kind, length, strategy, values};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("flat_reductions_match_the_oracle", flat_reductions),
    ("every_launch_and_every_run_gives_the_same_bits", same_bits),
    ("foreign_memory_and_streams_are_taken", foreign),
    ("what_cannot_be_reduced_is_refused", refused),
];

const COMPARISONS: [Comparison; 6] = [
    Comparison::Less,
    Comparison::LessOrEqual,
    Comparison::Equal,
    Comparison::NotEqual,
    Comparison::GreaterOrEqual,
    Comparison::Greater,
];

#[derive(Clone, Debug)]
struct Case {
    n: usize,
    offset: usize,
    dtype: usize,
    kind: Kind,
    seed: u64,
    ignore: bool,
    launch: Launch,
    strategy: ReductionStrategy,
}

fn launch() -> impl Strategy<Value = Launch> {
    let blocks = prop_oneof![Just(0x7fff_ffff_u32), 1u32..300];
    (prop::sample::select(vec![32u32, 64, 128, 256]), prop::sample::select(vec![4u32, 8]), blocks)
        .prop_map(|(threads, ahead, blocks)| Launch { threads, ahead, blocks })
}

fn case() -> impl Strategy<Value = Case> {
    let data = (length(), 0usize..16, 0usize..7, kind(), any::<u64>());
    (data, any::<bool>(), launch(), strategy()).prop_map(
        |((n, offset, dtype, kind, seed), ignore, launch, strategy)| Case {
            n,
            offset,
            dtype,
            kind,
            seed,
            ignore,
            launch,
            strategy,
        },
    )
}

fn flat_reductions(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(600)?.check(&case(), |case| match case.dtype {
        0 => flat_case::<f32>(&engine, &case),
        1 => flat_case::<f16>(&engine, &case),
        2 => flat_case::<bf16>(&engine, &case),
        3 => flat_case::<f64>(&engine, &case),
        4 => flat_case::<i32>(&engine, &case),
        5 => flat_case::<u32>(&engine, &case),
        _ => flat_case::<i64>(&engine, &case),
    })
}

fn flat_case<T: Drawn<Sum: AnySum>>(engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(engine, &stream);
    reducer.set_launch(case.launch)?;
    // NaN or a large number in front and behind would show.
    let poison = if T::INTEGER { T::nearest(2e6) } else { T::nearest(f64::NAN) };
    let mut all = vec![poison; case.offset];
    all.extend(values::<T>(case.n, case.kind, case.seed));
    all.extend([poison; 16]);
    let x = &all[case.offset..case.offset + case.n];
    let buffer = DeviceBuffer::from_host(&stream, &all)?;
    let device = buffer.slice(case.offset..case.offset + case.n)?;
    let nan = if case.ignore { NanPolicy::Ignore } else { NanPolicy::Propagate };
    let strategy = case.strategy;
    let options = ReductionOptions { nan, strategy, ..ReductionOptions::default() };

    let numbers: Vec<(usize, T)> =
        (0..).zip(x.iter().copied()).filter(|(_, x)| !x.is_nan()).collect();
    let first_nan = x.iter().position(|x| x.is_nan());
    let stopped = first_nan.filter(|_| nan == NanPolicy::Propagate);

    let sum = reducer.sum(device, &options)?;
    let summary = reducer.summary(device, &options)?;
    let extrema = reducer.extrema(device, &options)?;
    for (what, sum) in [("sum", sum), ("sum of the summary", summary.map(|s| s.sum))] {
        check_any_sum(what, sum, x, &options)?;
    }

    // The CPU's twin holds the same promises.
    let twin = reduce::summary(x, &options);
    ensure(twin.is_some() == summary.is_some(), || format!("{twin:?} and {summary:?}"))?;
    match (summary, stopped, numbers.first()) {
        (Some(got), Some(at), _) => {
            ensure(got.sum_squares.is_nan() && got.min.is_nan() && got.max.is_nan(), || {
                format!("{got:?} with a NaN")
            })?;
            ensure((got.arg_min, got.arg_max) == (at, at), || format!("{got:?}, NaN at {at}"))?;
            ensure(got.count == case.n as u64, || format!("{got:?}"))?;
        }
        (Some(got), None, Some(&first)) => {
            let (mut low, mut high) = (first, first);
            for &(i, x) in &numbers {
                low = if x < low.1 { (i, x) } else { low };
                high = if x > high.1 { (i, x) } else { high };
            }
            let found = (got.arg_min, got.min.bits(), got.arg_max, got.max.bits());
            let want = (low.0, low.1.bits(), high.0, high.1.bits());
            ensure(found == want, || format!("extremes {found:?} instead of {want:?}"))?;
            ensure(got.count == numbers.len() as u64, || {
                format!("{} numbers of {}", got.count, numbers.len())
            })?;
            let squares = Exact::of(numbers.iter().map(|(_, x)| x.to_f64() * x.to_f64()));
            near("squares", got.sum_squares, squares, as_long(case.n, strategy))?;
            let twin = twin.ok_or("no twin")?;
            ensure((twin.arg_min, twin.arg_max, twin.count) == (low.0, high.0, got.count), || {
                format!("{twin:?}")
            })?;
        }
        (None, None, None) => {}
        (got, ..) => return Err(format!("{got:?} of {} numbers", numbers.len()).into()),
    }
    let places = extrema.map(|(low, high)| (low.0.bits(), low.1, high.0.bits(), high.1));
    let want = summary.map(|s| (s.min.bits(), s.arg_min, s.max.bits(), s.arg_max));
    ensure(places == want, || format!("extremes {places:?}, in the summary {want:?}"))?;

    let bounds = reducer.bounds(device, &options)?;
    // Zeros of either sign are equal, and a NaN is unlike itself.
    let alike = match (bounds, summary) {
        (Some((low, high)), Some(s)) => {
            (low == s.min && high == s.max) || (low.is_nan() && high.is_nan() && s.min.is_nan())
        }
        (None, None) => true,
        _ => false,
    };
    ensure(alike, || format!("bounds {bounds:?} and {summary:?}"))?;

    let threshold = x.get(case.n / 2).copied().unwrap_or_else(|| T::nearest(0.5));
    for comparison in COMPARISONS {
        let got = reducer.count(device, comparison, threshold, &options)?;
        let want = x.iter().filter(|&&x| comparison.holds(x, threshold)).count() as u64;
        ensure(got == want, || format!("{comparison:?} {threshold:?}: {got} instead of {want}"))?;
        ensure(reduce::count(x, comparison, threshold) == want, || "count on the host".to_owned())?;
    }

    match reducer.statistics(device, &options)? {
        None => ensure(x.is_empty(), || "no statistics".to_owned()),
        Some(got) => {
            check_statistics("statistics", &got, x, options.dead_epsilon)?;
            let twin = reduce::statistics(x, &options).ok_or("no twin")?;
            check_statistics("statistics on the host", &twin, x, options.dead_epsilon)
        }
    }
}

/// All results as bits.
fn fingerprint(
    reducer: &mut Reducer,
    x: DeviceSlice<'_, f32>,
    strategy: ReductionStrategy,
) -> Result<Vec<u64>, Failed> {
    let options = ReductionOptions { strategy, ..Default::default() };
    let summary = reducer.summary(x, &options)?.ok_or("no summary")?;
    let sum = reducer.sum(x, &options)?.ok_or("no sum")?;
    let stats = reducer.statistics(x, &options)?.ok_or("no statistics")?;
    let count = reducer.count(x, Comparison::Greater, 1e4, &options)?;
    Ok(vec![
        summary.sum.to_bits(),
        summary.sum_squares.to_bits(),
        summary.arg_min as u64,
        summary.arg_max as u64,
        sum.to_bits(),
        stats.mean.to_bits(),
        stats.m2.to_bits(),
        count,
    ])
}

fn same_bits(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(&engine, &stream);
    use ReductionStrategy::{Atomic, Direct, Hierarchical};
    for (n, strategy) in [1000, 20_011, (1 << 22) + 17]
        .into_iter()
        .flat_map(|n| [Hierarchical, Atomic, Direct].map(|strategy| (n, strategy)))
    {
        let x = values::<f32>(n, Kind::Offset, 77);
        let buffer = DeviceBuffer::from_host(&stream, &x)?;
        reducer.set_launch(Launch::default())?;
        let first = fingerprint(&mut reducer, buffer.as_slice(), strategy)?;
        for run in 1..100 {
            let again = fingerprint(&mut reducer, buffer.as_slice(), strategy)?;
            ensure(again == first, || {
                format!("{strategy:?}, run {run} of {n}: {again:x?} instead of {first:x?}")
            })?;
        }
        for threads in [32, 64, 128, 256] {
            for ahead in [4, 8] {
                for blocks in [1, 7, 132, 0x7fff_ffff] {
                    reducer.set_launch(Launch { threads, ahead, blocks })?;
                    let again = fingerprint(&mut reducer, buffer.as_slice(), strategy)?;
                    ensure(again == first, || {
                        format!(
                            "{strategy:?}, {threads} threads, {ahead} ahead, {blocks} blocks, {n}: {again:x?} instead of {first:x?}"
                        )
                    })?;
                }
            }
        }
    }
    Ok(())
}

fn foreign(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let own = Stream::new(engine.context())?;
    // SAFETY: `own` outlives everything made on the borrowed stream.
    let borrowed = unsafe { Stream::from_raw(engine.context(), own.raw()) };
    let other = Stream::new(engine.context())?;
    let x = values::<f32>(50_000, Kind::Ordinary, 5);
    let buffer = DeviceBuffer::from_host(&other, &x)?;
    // SAFETY: the buffer lives on, and nothing writes it.
    let raw = unsafe { DeviceSlice::<f32>::from_raw(&other, buffer.address() + 4, x.len() - 1) }?;
    let mut reducer = Reducer::new(&engine, &borrowed);
    let sum = reducer.sum(raw, &ReductionOptions::default())?.ok_or("no sum")?;
    near("sum", sum, Exact::of(x[1..].iter().map(|&x| f64::from(x))), x.len())?;
    drop(reducer);
    Ok(())
}

fn refused(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(&engine, &stream);
    let buffer = DeviceBuffer::from_host(&stream, &[1.0_f32; 8])?;
    for past in 1..4 {
        // SAFETY: the elements lie within the buffer, if not at their alignment.
        let odd = unsafe { DeviceSlice::<f32>::from_raw(&stream, buffer.address() + past, 4) }?;
        let refused = reducer.sum(odd, &ReductionOptions::default());
        ensure(matches!(refused, Err(CudaError::Misaligned { element: 4, .. })), || {
            format!("{refused:?}")
        })?;
    }
    for launch in [
        Launch { threads: 96, ..Launch::default() },
        Launch { ahead: 5, ..Launch::default() },
        Launch { blocks: 0, ..Launch::default() },
    ] {
        ensure(reducer.set_launch(launch).is_err(), || format!("{launch:?}"))?;
    }
    let options = ReductionOptions::default();
    let mut out = DeviceBuffer::unwritten(&stream, 2)?;
    let refused = reducer.sum_into(buffer.as_slice(), &options, out.as_mut_slice());
    ensure(matches!(refused, Err(CudaError::Telemetry(_))), || format!("{refused:?}"))
}
