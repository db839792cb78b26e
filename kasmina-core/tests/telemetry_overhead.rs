//! The measured cost of telemetry: the measurement leaves no trace in the layer but its number, and the
//! number is in the reports for as long as it holds.

mod common;

use std::time::Duration;

use common::{Run, Spec, run, spec};
use kasmina_core::{
    Command, Element, Error, ForwardOptions, Germination, Layer, MatMut, MatRef, OverheadOptions,
    SeedLayout, Stability, StabilityMode,
};
use kasmina_telemetry::{OverheadPass, TelemetryMode, TelemetryScope, write_json_lines};
use proptest::prelude::*;

/// Short: the tests look at where the number goes, not at what it says about this machine.
const BRIEF: OverheadOptions = OverheadOptions { rounds: 6, timing: Duration::from_micros(20) };

fn layer() -> Layer {
    Layer::builder(SeedLayout::new(12, 4).expect("legal")).build().expect("legal")
}

fn measure(layer: &mut Layer) {
    let x = [0.5f32; 8 * 12];
    let view = MatRef::contiguous(&x, 12).expect("whole rows");
    layer.measure_telemetry_overhead(view, None, &BRIEF).expect("measured");
}

/// Everything a checkpoint holds, which is everything there is.
fn saved(layer: &Layer) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    layer.save(file.path()).expect("saved");
    std::fs::read(file.path()).expect("read")
}

fn leaves_no_trace<T: Element>(
    spec: &Spec,
    mode: TelemetryMode,
    backward: bool,
) -> Result<(), TestCaseError> {
    // With gradients, statistics and a counter of passes in it.
    let Run { mut layer, .. } = run::<T>(spec, &ForwardOptions::new(), 0);
    layer.set_telemetry_mode(mode).expect("legal");
    let before = saved(&layer);
    let (x, grad_y) = (spec.x::<T>(), spec.grad_y::<T>());
    let view = |data| MatRef::contiguous(data, spec.hidden).expect("whole rows");
    let cost = layer
        .measure_telemetry_overhead(view(&x), backward.then(|| view(&grad_y)), &BRIEF)
        .expect("measured");
    prop_assert!(before == saved(&layer), "the measurement changed the layer");
    let numbers = [cost.percent, cost.low_percent, cost.high_percent, cost.noise_percent];
    prop_assert!(numbers.iter().all(|number| number.is_finite()), "{:?}", cost);
    prop_assert!(cost.low_percent <= cost.percent && cost.percent <= cost.high_percent);
    prop_assert_eq!((cost.rounds, cost.of.rows, cost.of.columns), (6, spec.rows, spec.hidden));

    let mut apart = run::<T>(spec, &ForwardOptions::new(), 0).layer;
    apart.set_telemetry_mode(mode).expect("legal");
    for layer in [&mut layer, &mut apart] {
        let mut y = x.clone();
        let out = MatMut::contiguous(&mut y, spec.hidden).expect("whole rows");
        layer.forward(view(&x), out, &ForwardOptions::new()).expect("forward");
        let mut grad_x = x.clone();
        let out = MatMut::contiguous(&mut grad_x, spec.hidden).expect("whole rows");
        layer.backward(view(&x), view(&grad_y), out, &ForwardOptions::new()).expect("backward");
    }
    prop_assert!(saved(&layer) == saved(&apart), "later passes differ");
    prop_assert_eq!(layer.end_epoch().telemetry.overhead, Some(cost));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..Default::default() })]

    #[test]
    fn measuring_changes_nothing_in_the_layer(
        spec in spec(),
        mode in prop_oneof![
            Just(TelemetryMode::Production),
            Just(TelemetryMode::Debug),
            Just(TelemetryMode::sampling(3, 0.5).expect("legal")),
        ],
        backward in prop::bool::ANY,
    ) {
        for_dtype!(spec.dtype, leaves_no_trace, &spec, mode, backward)?;
    }
}

#[test]
fn reports_say_nothing_before_it_was_measured_and_carry_it_after() {
    let mut layer = layer();
    assert_eq!(layer.telemetry_overhead(), None);
    assert_eq!(layer.end_epoch().telemetry.overhead_percent(), None);
    measure(&mut layer);
    for _ in 0..2 {
        let report = layer.end_epoch().telemetry;
        let overhead = report.overhead.expect("measured");
        assert_eq!((overhead.of.epoch, overhead.of.pass), (1, OverheadPass::Forward));
        let mut json = Vec::new();
        write_json_lines(&report, &mut json).expect("a vector");
        let json = String::from_utf8(json).expect("text");
        assert!(json.contains(&format!("\"telemetry_overhead_percent\":{:?}", overhead.percent)));
    }
}

#[test]
fn the_number_goes_when_another_pass_would_be_measured() {
    let changes: [fn(&mut Layer); 4] = [
        |layer| layer.set_telemetry_mode(TelemetryMode::Debug).expect("legal"),
        |layer| layer.set_telemetry_scope(TelemetryScope::DormantOnly),
        |layer| layer.set_stability(Stability::new(StabilityMode::Strict)).expect("legal"),
        |layer| {
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            layer.save(file.path()).expect("saved");
            let registry = layer.registry().clone();
            let outcome = layer.restore(file.path(), &registry, "test").expect("restored");
            assert!(outcome.withdrawn.is_empty());
        },
    ];
    for change in changes {
        let mut layer = layer();
        measure(&mut layer);
        change(&mut layer);
        assert_eq!(layer.telemetry_overhead(), None);
    }
    let unchanged: [fn(&mut Layer); 4] = [
        |layer| layer.set_telemetry_mode(TelemetryMode::Production).expect("legal"),
        |layer| layer.set_telemetry_scope(TelemetryScope::All),
        |layer| layer.set_stability(Stability::default()).expect("legal"),
        |layer| {
            let wrong = TelemetryMode::Sampling { every: std::num::NonZeroU32::MIN, fraction: 2.0 };
            layer.set_telemetry_mode(wrong).expect_err("no such share");
        },
    ];
    let mut layer = layer();
    measure(&mut layer);
    for keep in unchanged {
        keep(&mut layer);
        assert!(layer.telemetry_overhead().is_some());
    }
    // A transition: the epoch that ends was the measured one, the next is not.
    let residual = layer.registry().find("residual").expect("built in");
    layer.command(0, Command::Germinate(Germination::new(residual)), "test").expect("legal");
    assert!(layer.end_epoch().telemetry.overhead.is_some());
    assert_eq!(layer.end_epoch().telemetry.overhead, None);
}

#[test]
fn sampling_spreads_the_cost_over_the_passes_between() {
    let mut layer = layer();
    layer.set_telemetry_mode(TelemetryMode::sampling(50, 1.0).expect("legal")).expect("legal");
    measure(&mut layer);
    assert_eq!(layer.telemetry_overhead().map(|cost| cost.of.period), Some(50));
}

#[test]
fn what_cannot_be_measured_is_an_error_and_the_old_number_stays() {
    let mut layer = layer();
    measure(&mut layer);
    let old = layer.telemetry_overhead().copied();
    let x = vec![0.0f32; 8 * 13];
    let good = MatRef::contiguous(&x[..8 * 12], 12).expect("whole rows");
    let wide = MatRef::contiguous(&x, 13).expect("whole rows");
    let short = MatRef::contiguous(&x[..24], 12).expect("whole rows");
    let none = MatRef::contiguous(&x[..0], 12).expect("no rows");
    let mut refused = |x, grad_y, rounds, timing| {
        layer
            .measure_telemetry_overhead(x, grad_y, &OverheadOptions { rounds, timing })
            .expect_err("not measurable")
    };
    assert!(matches!(refused(wide, None, 6, BRIEF.timing), Error::Shape { what: "x", .. }));
    let error = refused(good, Some(short), 6, BRIEF.timing);
    assert!(matches!(error, Error::Shape { what: "grad_y", .. }), "{error}");
    assert_eq!(refused(none, None, 6, BRIEF.timing), Error::Zero { what: "rows" });
    for (rounds, timing) in [(5, 0), (100_001, 0), (6, 1001)] {
        let error = refused(good, None, rounds, Duration::from_millis(timing));
        assert!(matches!(error, Error::Value { .. }), "{error}");
    }
    assert_eq!(layer.telemetry_overhead().copied(), old);
}
