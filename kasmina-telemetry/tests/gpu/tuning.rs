//! Launches that are measured: kept, found again, and without an effect on results.

use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_sys::{CaptureMode, Device, DeviceBuffer, Graph, Stream};
use kasmina_telemetry::cuda::{Engine, Flat, GpuElement, Reducer};
use kasmina_telemetry::tune::{Autotune, AutotuneMode, TuningSource, WhyTable};
use kasmina_telemetry::{ReductionOptions, ReductionStrategy};

use crate::values::{Drawn, Kind, values};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("tuned_launches_are_kept_found_again_and_give_the_same_bits", kept),
    ("a_captured_stream_is_not_measured", captured),
    ("damaged_choices_are_told_and_not_used", damaged),
];

const ALL: [Flat; 6] =
    [Flat::Sum, Flat::Extrema, Flat::Bounds, Flat::Summary, Flat::Count, Flat::Statistics];

fn folder() -> Result<tempfile::TempDir, Failed> {
    Ok(tempfile::tempdir().map_err(|error| error.to_string())?)
}

/// A sum and statistics as bits.
fn bits<T: Drawn<Sum: std::fmt::Debug>>(
    reducer: &mut Reducer,
    x: &DeviceBuffer<T>,
) -> Result<String, Failed> {
    let options = ReductionOptions::default();
    let sum = reducer.summary(x.as_slice(), &options)?.ok_or("no summary")?;
    let stats = reducer.statistics(x.as_slice(), &options)?.ok_or("no statistics")?;
    let total = reducer.sum(x.as_slice(), &options)?;
    Ok(format!(
        "{total:?} {:?} {:x} {:x} {:x}",
        sum.sum,
        sum.sum_squares.to_bits(),
        stats.mean.to_bits(),
        stats.m2.to_bits()
    ))
}

fn kept(device: Device) -> Result<(), Failed> {
    let folder = folder()?;
    kept_of::<f32>(device, &folder, 1 << 22)?;
    kept_of::<f32>(device, &folder, 5000)?;
    kept_of::<i64>(device, &folder, 300_000)
}

fn kept_of<T: Drawn<Sum: std::fmt::Debug> + GpuElement>(
    device: Device,
    folder: &tempfile::TempDir,
    n: usize,
) -> Result<(), Failed> {
    let engine = |mode| Engine::with_autotune(device, Autotune::new(mode).in_folder(folder.path()));
    let values = values::<T>(n, Kind::Offset, 3);
    let mut seen = Vec::new();
    for mode in [AutotuneMode::Off, AutotuneMode::Load, AutotuneMode::Tune, AutotuneMode::Load] {
        let engine = engine(mode)?;
        let stream = Stream::new(engine.context())?;
        let mut reducer = Reducer::new(&engine, &stream);
        let x = DeviceBuffer::from_host(&stream, &values)?;
        let found = bits(&mut reducer, &x)?;
        let launch = reducer.launch_for(Flat::Sum, x.as_slice())?;
        let as_it_should = match (mode, seen.len()) {
            (AutotuneMode::Off, _) => {
                launch.source == TuningSource::Table { because: WhyTable::Off }
            }
            (AutotuneMode::Load, 1) => {
                launch.source == TuningSource::Table { because: WhyTable::NotMeasured }
            }
            (AutotuneMode::Tune, _) => {
                matches!(launch.source, TuningSource::Tuned { tried, failed: 0, .. } if tried > 1)
            }
            (AutotuneMode::Load, _) => matches!(launch.source, TuningSource::Cached { .. }),
        };
        ensure(as_it_should, || format!("{mode}, {n} {}: {:?}", T::NAME, launch))?;
        println!("    {mode}: {} of {n} {}: {}", launch.launch, T::NAME, launch.source);
        if mode == AutotuneMode::Tune {
            for what in ALL {
                let tuned = reducer.tune(what, x.as_slice())?;
                ensure(tuned.failed.is_empty(), || format!("{what:?}: {:?}", tuned.failed))?;
            }
        }
        ensure(engine.tuning_problems().is_empty(), || format!("{:?}", engine.tuning_problems()))?;
        seen.push((launch.launch, found));
    }
    ensure(seen.iter().all(|(_, bits)| *bits == seen[0].1), || format!("{seen:?}"))
}

fn captured(device: Device) -> Result<(), Failed> {
    let folder = folder()?;
    let autotune = Autotune::new(AutotuneMode::Tune).in_folder(folder.path());
    let engine = Engine::with_autotune(device, autotune)?;
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(&engine, &stream);
    // Scratch memory by another strategy's name: the first sum by this one is the captured one.
    let x = DeviceBuffer::from_host(&stream, &values::<f32>(1 << 20, Kind::Offset, 3))?;
    let large = DeviceBuffer::<f32>::zeroed(&stream, 1 << 21)?;
    let options = ReductionOptions::default();
    reducer.statistics(large.as_slice(), &options)?;
    let mut sum = DeviceBuffer::zeroed(&stream, 1)?;
    let mut refused = None;
    let graph = Graph::capture(&stream, CaptureMode::ThreadLocal, |_| {
        refused = reducer.sum_into(x.as_slice(), &options, sum.as_mut_slice()).err();
        Ok(())
    })?;
    ensure(refused.is_none(), || format!("{refused:?}"))?;
    ensure(graph.nodes()? == 1, || format!("{:?} nodes", graph.nodes()))?;
    // Measured once nothing is captured, and to the bits of the graph.
    let want = reducer.sum(x.as_slice(), &options)?;
    let source = reducer.launch_for(Flat::Sum, x.as_slice())?.source;
    ensure(matches!(source, TuningSource::Tuned { .. }), || format!("{source:?}"))?;
    let exec = graph.instantiate()?;
    // SAFETY: data, result and scratch memory live, and are used on this stream alone.
    unsafe { exec.launch(&stream) }?;
    let got = sum.to_vec()?[0].sum;
    ensure(Some(got.to_bits()) == want.map(f64::to_bits), || format!("{got:?}, {want:?}"))
}

fn damaged(device: Device) -> Result<(), Failed> {
    let folder = folder()?;
    let engine = |mode| Engine::with_autotune(device, Autotune::new(mode).in_folder(folder.path()));
    let n = 100_000;
    let tunes = engine(AutotuneMode::Tune)?;
    let stream = Stream::new(tunes.context())?;
    let x = DeviceBuffer::from_host(&stream, &values::<f32>(n, Kind::Offset, 3))?;
    let options = ReductionOptions::default();
    let want = Reducer::new(&tunes, &stream).sum(x.as_slice(), &options)?;
    // A launch that no kernel has, then a file that is none.
    let spoilers: [fn(String) -> String; 2] = [
        |text| text.replace("\"threads\": ", "\"threads\": 9"),
        |text| text[..text.len() / 2].to_owned(),
    ];
    for spoil in spoilers {
        let files = std::fs::read_dir(folder.path()).map_err(|error| error.to_string())?;
        for file in files.filter_map(Result::ok) {
            let path = file.path();
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
            std::fs::write(&path, spoil(text)).map_err(|error| error.to_string())?;
        }
        let loads = engine(AutotuneMode::Load)?;
        let mut reducer = Reducer::new(&loads, &stream);
        let got = reducer.sum(x.as_slice(), &options)?;
        ensure(got.map(f64::to_bits) == want.map(f64::to_bits), || format!("{got:?}"))?;
        let source = reducer.launch_for(Flat::Sum, x.as_slice())?.source;
        ensure(matches!(source, TuningSource::Table { .. }), || format!("{source:?}"))?;
        ensure(loads.tuning_problems().len() == 1, || format!("{:?}", loads.tuning_problems()))?;
        // What is spoilt is replaced for the next round.
        let again = engine(AutotuneMode::Tune)?;
        Reducer::new(&again, &stream).sum(x.as_slice(), &options)?;
    }
    let direct = ReductionOptions { strategy: ReductionStrategy::Direct, ..options };
    ensure(Reducer::new(&tunes, &stream).sum(x.as_slice(), &direct)?.is_some(), || {
        "no direct sum".to_owned()
    })
}
