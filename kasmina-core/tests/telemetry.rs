//! Telemetry as a layer gathers it: modes, scopes, merging across steps, reports.

use half::f16;
use kasmina_core::{
    Blueprint, Element, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, SeedLayout, Stability,
    StabilityMode, State,
};
use kasmina_telemetry::{ChunkStats, TelemetryMode, TelemetryScope};

const ROWS: usize = 40;

fn values(rows: usize, seed: u32) -> Vec<f32> {
    let wave =
        |k: u32| ((k ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    (0..rows as u32 * 12).map(wave).collect()
}

fn layer() -> Layer {
    Layer::builder(SeedLayout::new(12, 4).expect("legal")).build().expect("legal")
}

fn forward<T: Element>(layer: &mut Layer, x: &[T], options: &ForwardOptions) -> Vec<T> {
    let mut y = x.to_vec();
    let view = MatRef::contiguous(x, 12).expect("whole rows");
    let out = MatMut::contiguous(&mut y, 12).expect("whole rows");
    layer.forward(view, out, options).expect("forward");
    y
}

#[test]
fn steps_merge_to_what_one_large_step_gives() {
    let x = values(2 * ROWS, 1);
    let (mut one, mut two) = (layer(), layer());
    forward(&mut one, &x, &ForwardOptions::new());
    for half in x.chunks(ROWS * 12) {
        forward(&mut two, half, &ForwardOptions::new());
    }
    for (a, b) in one.chunk_stats().iter().zip(two.chunk_stats()) {
        assert_eq!((a.n, a.dead, a.min, a.max), (b.n, b.dead, b.min, b.max));
        assert!((a.mean - b.mean).abs() < 1e-12 && (a.m2 / b.m2 - 1.0).abs() < 1e-12);
    }
}

#[test]
fn a_report_takes_the_epoch_and_the_next_one_starts_empty() {
    let mut layer = layer();
    let x = values(ROWS, 2);
    forward(&mut layer, &x, &ForwardOptions::new());
    let report = layer.end_epoch().telemetry;
    assert_eq!((report.epoch, report.steps, report.len()), (0, 1, 3));
    assert_eq!(report.check(), Ok(()));
    let seed = report.seed(1).expect("a seed");
    assert_eq!(
        (seed.elements, seed.state, seed.blueprint),
        (ROWS as u64 * 4, Some("DORMANT"), None)
    );
    assert!(seed.gradient_norm.is_none(), "no backward pass ran");
    assert!(layer.chunk_stats().iter().all(|stats| *stats == ChunkStats::EMPTY));
    let empty = layer.end_epoch().telemetry;
    assert_eq!((empty.epoch, empty.seed(1).and_then(|seed| seed.mean)), (1, None));
}

#[test]
fn scopes_choose_seeds_by_state() {
    let grown = InitialSeed {
        state: State::Fossilized,
        alpha: 1.0,
        blueprint: Some(Blueprint::Residual),
        ..InitialSeed::default()
    };
    let layout = SeedLayout::new(12, 4).expect("legal");
    let mut layer = Layer::builder(layout).seed(1, grown).build().expect("legal");
    let x = values(ROWS, 3);
    let counts = |layer: &mut Layer| {
        forward(layer, &x, &ForwardOptions::new());
        let report = layer.end_epoch().telemetry;
        report.chunk.iter().map(|stats| stats.n / ROWS as u64).collect::<Vec<_>>()
    };
    assert_eq!(counts(&mut layer), [4, 4, 4]);
    layer.set_telemetry_scope(TelemetryScope::DormantOnly);
    assert_eq!(counts(&mut layer), [4, 0, 4]);
    layer.set_telemetry_scope(TelemetryScope::Off);
    assert_eq!(counts(&mut layer), [0, 0, 0]);
    layer.set_telemetry_scope(TelemetryScope::All);
    forward(&mut layer, &x, &ForwardOptions::new().without_telemetry());
    assert_eq!(layer.chunk_stats()[0].n, 0);
}

#[test]
fn sampling_measures_what_the_mode_says() {
    let mode = TelemetryMode::sampling(3, 0.5).expect("legal");
    let mut layer = layer();
    layer.set_telemetry_mode(mode).expect("legal");
    let x = values(1, 4);
    let mut expected = [0; 3];
    for pass in 0..60 {
        forward(&mut layer, &x, &ForwardOptions::new());
        for (seed, count) in expected.iter_mut().enumerate() {
            *count += if mode.samples(pass, seed as u32) { 4 } else { 0 };
        }
    }
    let found: Vec<u64> = layer.chunk_stats().iter().map(|stats| stats.n).collect();
    assert_eq!(found, expected);
    assert!(expected.iter().all(|n| (4..80).contains(n)), "each seed had its turns: {expected:?}");
}

#[test]
fn debug_mode_keeps_histograms_and_switching_drops_only_them() {
    let mut layer = layer();
    layer.set_telemetry_mode(TelemetryMode::Debug).expect("legal");
    let mut x = values(ROWS, 5);
    x[0] = f32::NAN;
    forward(&mut layer, &x, &ForwardOptions::new());
    layer.set_telemetry_mode(TelemetryMode::Debug).expect("legal");
    let report = layer.end_epoch().telemetry;
    let histogram = report.histogram(0).expect("debug mode");
    assert_eq!((histogram.count(), histogram.nonfinite()), (ROWS as u64 * 4 - 1, 1));
    forward(&mut layer, &x, &ForwardOptions::new());
    layer.set_telemetry_mode(TelemetryMode::Production).expect("legal");
    let report = layer.end_epoch().telemetry;
    assert!(report.histogram(0).is_none());
    assert_eq!(
        report.chunk[0].n,
        ROWS as u64 * 4 - 1,
        "statistics gathered before the switch stay"
    );
}

/// Overflow of f16 on path saturates and is counted, in every kind of pass.
#[test]
fn saturation_is_counted() {
    for (blueprint, parameters) in [
        (Blueprint::Residual, vec![vec![60000.0; 4], vec![1.0]]),
        (Blueprint::ConvFilter { taps: 1 }, vec![vec![4.0], vec![1.0]]),
    ] {
        let grown = InitialSeed {
            state: State::Fossilized,
            alpha: 1.0,
            blueprint: Some(blueprint.clone()),
            parameters: Some(parameters),
            ..InitialSeed::default()
        };
        let mut layer = Layer::builder(SeedLayout::new(12, 4).expect("legal"))
            .stability(Stability::new(StabilityMode::Fast))
            .seed(0, grown)
            .build()
            .expect("legal");
        let y = forward(&mut layer, &[f16::from_f32(30000.0); 12], &ForwardOptions::new());
        assert_eq!(y[..5], [f16::MAX, f16::MAX, f16::MAX, f16::MAX, f16::from_f32(30000.0)]);
        assert_eq!(layer.end_epoch().telemetry.saturated, 4, "{blueprint:?}");
    }
}
