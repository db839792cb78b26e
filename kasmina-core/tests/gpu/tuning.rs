//! Autotuning on a real device: choices that come back from the disk, give the same bits, and are survived when they are bad.

use std::path::Path;
use std::sync::Arc;

use kasmina_core::cuda::{
    Autotune, AutotuneMode, CudaLayer, DeviceMatMut, DeviceMatRef, Engine, LayerReport, TuneReport,
    TuningSource, WhyTable, cache_file, kernel_places,
};
use kasmina_core::{
    Blueprint, DType, ForwardOptions, InitialSeed, Layer, SeedLayout, Stability, StabilityMode,
    State,
};
use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use kasmina_tma::LoadPath;

use crate::common::Draw;

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("every_kernel_is_in_its_fatbin", every_kernel_resolves),
    ("a_choice_comes_back_from_the_disk_and_gives_the_same_bits", comes_back),
    ("a_choice_that_cannot_run_is_dropped_and_survived", poisoned),
    ("a_shape_is_measured_at_its_first_use_and_the_layer_untouched", first_use),
];

const ROWS: usize = 257;
const HIDDEN: usize = 768;

fn every_kernel_resolves(device: Device) -> Result<(), Failed> {
    let missing = Engine::new(device)?.unresolved(&kernel_places());
    ensure(missing.is_empty(), || format!("missing: {missing:?}"))
}

/// What a pass forward and one back leave.
#[derive(Debug, PartialEq)]
struct Left {
    y: Vec<u32>,
    grad_x: Vec<u32>,
    counts: Vec<[u64; 3]>,
}

fn engine(device: Device, mode: AutotuneMode, folder: &Path) -> Result<Arc<Engine>, Failed> {
    Ok(Engine::with_autotune(device, Autotune::new(mode).in_folder(folder))?)
}

fn layer(engine: &Arc<Engine>, stream: &Stream, on_path: bool) -> Result<CudaLayer, Failed> {
    let layout = SeedLayout::new(HIDDEN, 48)?;
    let mut builder =
        Layer::builder(layout).stability(Stability::new(StabilityMode::Adaptive)).rng_seed(5);
    for seed in (0..layout.seeds()).filter(|_| on_path) {
        let initial = InitialSeed {
            state: State::FineTuning,
            alpha: 0.5,
            blueprint: Some(Blueprint::Residual),
            ..InitialSeed::default()
        };
        builder = builder.seed(seed, initial);
    }
    Ok(CudaLayer::from_layer(&builder.build()?, engine, stream)?)
}

fn pass(engine: &Arc<Engine>, on_path: bool) -> Result<(Left, LayerReport), Failed> {
    let stream = Stream::new(engine.context())?;
    let mut layer = layer(engine, &stream, on_path)?;
    let mut draw = Draw(9);
    let mut values = || -> Vec<f32> { (0..ROWS * HIDDEN).map(|_| draw.value(true)).collect() };
    let x = DeviceBuffer::from_host(&stream, &values())?;
    let grad_y = DeviceBuffer::from_host(&stream, &values())?;
    let mut y = DeviceBuffer::<f32>::zeroed(&stream, ROWS * HIDDEN)?;
    let mut grad_x = DeviceBuffer::<f32>::zeroed(&stream, ROWS * HIDDEN)?;
    let options = ForwardOptions::new();
    let x = || DeviceMatRef::new(x.as_slice(), ROWS, HIDDEN, HIDDEN);
    layer.forward(
        x()?,
        &mut DeviceMatMut::new(y.as_mut_slice(), ROWS, HIDDEN, HIDDEN)?,
        &options,
    )?;
    layer.backward(
        x()?,
        DeviceMatRef::new(grad_y.as_slice(), ROWS, HIDDEN, HIDDEN)?,
        &mut DeviceMatMut::new(grad_x.as_mut_slice(), ROWS, HIDDEN, HIDDEN)?,
        &options,
    )?;
    layer.synchronize()?;
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let counts = layer.chunk_stats().iter().map(|s| [s.n, s.nonfinite, s.dead]).collect();
    let left = Left { y: bits(y.to_vec()?), grad_x: bits(grad_x.to_vec()?), counts };
    Ok((left, layer.report()))
}

fn sources(report: &LayerReport) -> Result<[TuningSource; 2], Failed> {
    match (&report.forward, &report.backward) {
        (Some(forward), Some(backward)) => Ok([forward.tuning.clone(), backward.tuning.clone()]),
        _ => Err(format!("no passes: {report}").into()),
    }
}

fn tune(engine: &Arc<Engine>, on_path: bool) -> Result<TuneReport, Failed> {
    let stream = Stream::new(engine.context())?;
    let report = layer(engine, &stream, on_path)?.tune(ROWS, DType::F32)?;
    println!("{report}");
    Ok(report)
}

fn comes_back(device: Device) -> Result<(), Failed> {
    for on_path in [false, true] {
        let folder = tempfile::tempdir()?;
        let off = engine(device, AutotuneMode::Off, folder.path())?;
        let (expected, report) = pass(&off, on_path)?;
        let table = TuningSource::Table { because: WhyTable::Off };
        ensure(sources(&report)? == [table.clone(), table], || report.to_string())?;
        // Whatever the mode, one who asks for it gets it; and only the mode decides whether it is used.
        let tuned = tune(&engine(device, AutotuneMode::Load, folder.path())?, on_path)?;
        ensure(tuned.passes.len() == 3 && tuned.problems.is_empty(), || tuned.to_string())?;
        let measured = |pass: &kasmina_core::cuda::TunedPass| {
            matches!(pass.source, TuningSource::Tuned { tried, .. } if tried > 1)
                && !pass.failed.iter().any(|failed| failed.contains("wrong"))
        };
        ensure(tuned.passes.iter().all(measured), || tuned.to_string())?;
        let fresh = engine(device, AutotuneMode::Load, folder.path())?;
        let (found, report) = pass(&fresh, on_path)?;
        let cached = |source: &TuningSource| matches!(source, TuningSource::Cached { .. });
        ensure(sources(&report)?.iter().all(cached), || report.to_string())?;
        ensure(report.to_string().contains("measured earlier"), || report.to_string())?;
        ensure(found == expected, || format!("other bits with {report}"))?;
        let (found, _) = pass(&engine(device, AutotuneMode::Off, folder.path())?, on_path)?;
        ensure(found == expected, || "off is not off".to_owned())?;
    }
    Ok(())
}

fn poisoned(device: Device) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (expected, _) = pass(&engine(device, AutotuneMode::Off, folder.path())?, true)?;
    drop(tune(&engine(device, AutotuneMode::Load, folder.path())?, true)?);
    let path = cache_file(folder.path(), &device, "forward_f32").ok_or("no kernels")?;
    let good = std::fs::read_to_string(&path)?;
    // Numbers that no cut has; a rung that there is not; no JSON at all.
    let replaced = |key: &str, value: &str| {
        let mut text = String::new();
        for line in good.lines() {
            let indent = line.len() - line.trim_start().len();
            match line.trim_start().starts_with(&format!("\"{key}\":")) {
                true => {
                    let comma = if line.ends_with(',') { "," } else { "" };
                    text += &format!("{}\"{key}\": {value}{comma}\n", &line[..indent]);
                }
                false => text += &format!("{line}\n"),
            }
        }
        text
    };
    let spoilt = [
        replaced("stages", "4000000000"),
        replaced("packets", "0"),
        replaced("path", "\"teleport\""),
        good[..good.len() / 2].to_owned(),
    ];
    for text in spoilt {
        std::fs::write(&path, &text)?;
        let engine = engine(device, AutotuneMode::Load, folder.path())?;
        for _ in 0..2 {
            let (found, report) = pass(&engine, true)?;
            let [forward, _] = sources(&report)?;
            ensure(matches!(forward, TuningSource::Table { .. }), || report.to_string())?;
            ensure(found == expected, || format!("other bits with {report}"))?;
        }
        ensure(engine.autotune_problems().len() == 1, || {
            format!("{:?}", engine.autotune_problems())
        })?;
    }
    Ok(())
}

fn first_use(device: Device) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (expected, _) = pass(&engine(device, AutotuneMode::Off, folder.path())?, true)?;
    let tunes = engine(device, AutotuneMode::Tune, folder.path())?;
    let (found, report) = pass(&tunes, true)?;
    let tuned = |source: &TuningSource| matches!(source, TuningSource::Tuned { .. });
    ensure(sources(&report)?.iter().all(tuned), || report.to_string())?;
    ensure(found == expected, || format!("other bits with {report}"))?;
    // A rung that is asked for is kept to.
    let stream = Stream::new(tunes.context())?;
    let mut forced = layer(&tunes, &stream, true)?;
    forced.force_path(Some(LoadPath::Vector16));
    let report = forced.tune(ROWS, DType::Bf16)?;
    let keeps = |pass: &kasmina_core::cuda::TunedPass| pass.choice.starts_with("vector16");
    ensure(report.passes.iter().all(keeps), || report.to_string())
}
