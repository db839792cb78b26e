//! JSON lines read back with serde, and OpenMetrics text with a parser of the tests' own.

mod support {
    pub(crate) mod exposition;
}

use std::io;
use std::sync::Arc;

use kasmina_telemetry::{
    ChunkStats, GradientStats, Histogram, OverheadPass, OverheadSubject, TelemetryMode,
    TelemetryOverhead, TelemetryReport, write_json_lines, write_open_metrics,
    write_open_metrics_of, write_prometheus_text_of,
};
use serde_json::Value;
use support::exposition::{of_seed, parse, parse_text};

/// Three seeds: measured, nothing but NaN, never measured.
fn report() -> TelemetryReport {
    let mut measured = ChunkStats::EMPTY;
    let mut histogram = Histogram::EMPTY;
    for x in [1.0, 0.0, -2.5, f32::INFINITY] {
        measured.push(x, 1e-8);
        histogram.push(x);
    }
    let mut broken = ChunkStats::EMPTY;
    broken.push(f32::NAN, 1e-8);
    let mut gradient = GradientStats::EMPTY;
    [3.0, 4.0].into_iter().for_each(|g| gradient.push(g));
    TelemetryReport {
        layer: "enc \"0\"\\\nnorm".into(),
        epoch: 7,
        steps: 30,
        mode: TelemetryMode::Debug,
        chunk: vec![measured, broken, ChunkStats::EMPTY],
        gradient: vec![gradient, GradientStats::EMPTY, GradientStats::EMPTY],
        state: vec![3, 0, 0],
        alpha: vec![0.25, f32::NAN, 0.0],
        blueprint: vec![0, TelemetryReport::NO_BLUEPRINT, TelemetryReport::NO_BLUEPRINT],
        state_names: &["DORMANT", "GERMINATED", "TRAINING", "GRAFTING"],
        blueprint_names: Arc::from(["bottleneck".to_owned()]),
        histograms: Some(vec![histogram, Histogram::EMPTY, Histogram::EMPTY]),
        saturated: 5,
        hardware: "cpu, 2 cores".into(),
        kernel: "rayon".into(),
        overhead: Some(TelemetryOverhead {
            percent: 2.0,
            low_percent: 1.5,
            high_percent: 2.5,
            noise_percent: 0.25,
            rounds: 31,
            of: OverheadSubject {
                pass: OverheadPass::ForwardBackward,
                rows: 64,
                columns: 6,
                epoch: 5,
                period: 1,
            },
        }),
        ..TelemetryReport::default()
    }
}

#[test]
fn json_lines_read_back() {
    let mut text = Vec::new();
    write_json_lines(&report(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    let first = &lines[0];
    assert_eq!(first["layer"], "enc \"0\"\\\nnorm");
    assert_eq!(
        (&first["seed"], &first["epoch"], &first["steps"]),
        (&0.into(), &7.into(), &30.into())
    );
    assert_eq!((&first["state"], &first["state_code"]), (&"GRAFTING".into(), &3.into()));
    assert_eq!((&first["blueprint"], &first["alpha"]), (&"bottleneck".into(), &0.25.into()));
    assert_eq!((&first["elements"], &first["nonfinite"]), (&3.into(), &1.into()));
    assert_eq!(
        (&first["mean"], &first["min"], &first["max"]),
        (&(-0.5).into(), &(-2.5).into(), &1.0.into())
    );
    let variance = first["variance"].as_f64().unwrap();
    assert!((variance - 6.5 / 3.0).abs() < 1e-15);
    assert!((first["snr"].as_f64().unwrap() - 0.5 / (variance + 1e-8).sqrt()).abs() < 1e-15);
    assert!((first["dead_ratio"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-16);
    assert_eq!((&first["gradient_norm"], &first["gradient_max_abs"]), (&5.0.into(), &4.0.into()));
    assert_eq!(first["histogram"].as_array().unwrap().len(), 3);
    assert_eq!((&first["mode"], &first["kernel"]), (&"debug".into(), &"rayon".into()));
    assert_eq!(first["telemetry_overhead_percent"], 2.0);
    let overhead = &first["telemetry_overhead"];
    assert_eq!((&overhead["low_percent"], &overhead["high_percent"]), (&1.5.into(), &2.5.into()));
    assert_eq!(
        (&overhead["pass"], &overhead["rows"], &overhead["epoch"]),
        (&"forward_backward".into(), &64.into(), &5.into())
    );
    for empty in &lines[1..] {
        for key in
            ["variance", "mean", "min", "max", "dead_ratio", "snr", "gradient_norm", "blueprint"]
        {
            assert_eq!(empty.get(key), Some(&Value::Null), "{key}");
        }
    }
    assert_eq!((&lines[1]["nonfinite"], &lines[2]["nonfinite"]), (&1.into(), &Value::Null));
    assert_eq!(lines[1]["alpha"], Value::Null, "JSON has no NaN");
}

#[test]
fn open_metrics_reads_back() {
    let report = report();
    let mut text = Vec::new();
    write_open_metrics(&report, &mut text).unwrap();
    let families = parse(std::str::from_utf8(&text).unwrap());
    let layer = &report.layer;
    for family in families.values() {
        assert!(family.samples.iter().all(|(_, (labels, _))| labels["layer"] == *layer));
    }
    let value = |name: &str, seed| of_seed(&families[name], seed);
    assert_eq!(value("kasmina_seed_mean", "0"), Some(-0.5));
    assert_eq!(value("kasmina_seed_min", "0"), Some(-2.5));
    assert_eq!(value("kasmina_seed_gradient_norm", "0"), Some(5.0));
    assert_eq!(value("kasmina_seed_nonfinite_elements", "1"), Some(1.0));
    assert!(value("kasmina_seed_alpha", "1").unwrap().is_nan());
    for name in ["variance", "mean", "min", "max", "dead_ratio", "snr", "elements", "gradient_norm"]
    {
        let family = &families[&format!("kasmina_seed_{name}")];
        assert_eq!(family.samples.len(), 1, "{name} of unmeasured seeds must be absent");
    }
    assert_eq!(value("kasmina_seed_nonfinite_elements", "2"), None);
    assert_eq!(families["kasmina_seed_dead_ratio"].unit.as_deref(), Some("ratio"));
    assert_eq!(families["kasmina_layer_saturated_elements"].samples[0].1.1, 5.0);
    assert_eq!(families["kasmina_layer_epochs"].kind, "counter");
    let overhead = families["kasmina_layer_telemetry_overhead_ratio"].samples[0].1.1;
    assert!((overhead - 0.02).abs() < 1e-9);
    assert_eq!(families["kasmina_layer_telemetry_overhead_low_ratio"].samples[0].1.1, 0.015);
    assert_eq!(families["kasmina_layer_telemetry_overhead_epoch"].samples[0].1.1, 5.0);
    let info = &families["kasmina_seed"].samples[0].1.0;
    assert_eq!((info["state"].as_str(), info["blueprint"].as_str()), ("GRAFTING", "bottleneck"));
    let quantiles = &families["kasmina_seed_activation"].samples;
    assert_eq!(quantiles.len(), 5, "of the one measured seed; a count would have to grow for ever");
    assert_eq!(families["kasmina_layer_windows"].samples[0].1.1, 1.0);
}

#[test]
fn the_text_format_has_the_same_samples() {
    let (mut metrics, mut text) = (Vec::new(), Vec::new());
    write_open_metrics(&report(), &mut metrics).unwrap();
    write_prometheus_text_of(&[&report()], &mut text).unwrap();
    let metrics = parse(std::str::from_utf8(&metrics).unwrap());
    let text = parse_text(std::str::from_utf8(&text).unwrap());
    let samples = |families: Vec<support::exposition::Family>| {
        let samples = families.into_iter().flat_map(|family| family.samples);
        samples.map(|sample| format!("{sample:?}")).collect::<Vec<_>>()
    };
    let mut expected = samples(metrics.into_values().collect());
    let mut found = samples(text.into_values().collect());
    expected.sort();
    found.sort();
    assert_eq!(expected, found);
}

#[test]
fn several_layers_share_families_and_must_differ_in_name() {
    let first = report();
    let mut second = report();
    second.layer = "decoder".into();
    second.overhead = None;
    second.histograms = None;
    let mut text = Vec::new();
    write_open_metrics_of(&[&first, &second], &mut text).unwrap();
    let families = parse(std::str::from_utf8(&text).unwrap());
    assert_eq!(families["kasmina_seed_mean"].samples.len(), 2);
    assert_eq!(families["kasmina_layer_telemetry_overhead_ratio"].samples.len(), 1);
    let error = write_open_metrics_of(&[&first, &first], &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn no_reports_and_no_seeds_are_still_valid() {
    let mut text = Vec::new();
    write_open_metrics_of(&[], &mut text).unwrap();
    parse(std::str::from_utf8(&text).unwrap());
    text.clear();
    write_open_metrics(&TelemetryReport::default(), &mut text).unwrap();
    parse(std::str::from_utf8(&text).unwrap());
    text.clear();
    write_json_lines(&TelemetryReport::default(), &mut text).unwrap();
    assert!(text.is_empty());
}

#[test]
fn a_report_that_does_not_fit_together_is_refused_before_a_byte_is_written() {
    let broken: [fn(&mut TelemetryReport); 6] = [
        |r| r.state.truncate(2),
        |r| r.alpha.push(0.0),
        |r| r.blueprint.clear(),
        |r| r.gradient.truncate(1),
        |r| r.state[1] = 9,
        |r| r.blueprint[1] = 1,
    ];
    for breaks in broken {
        let mut report = report();
        breaks(&mut report);
        let mut out = Vec::new();
        let json = write_json_lines(&report, &mut out).unwrap_err();
        let metrics = write_open_metrics(&report, &mut out).unwrap_err();
        assert_eq!(
            (json.kind(), metrics.kind()),
            (io::ErrorKind::InvalidInput, io::ErrorKind::InvalidInput)
        );
        assert!(out.is_empty());
    }
}

/// A disk that is full.
struct Full;

impl io::Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_writers_errors_come_back() {
    let json = write_json_lines(&report(), Full).unwrap_err();
    let metrics = write_open_metrics(&report(), Full).unwrap_err();
    assert_eq!(json.kind(), io::ErrorKind::StorageFull);
    assert_eq!(metrics.kind(), io::ErrorKind::StorageFull);
}
