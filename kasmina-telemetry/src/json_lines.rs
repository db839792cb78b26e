//! Reports as JSON lines: one object a seed, each complete in itself, for logs and data frames.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::{Bin, SeedReport, TelemetryMode, TelemetryOverhead, TelemetryReport};

/// Writes one JSON object and a newline for each seed.
///
/// What was not measured is `null`, and so is a number that is not finite, since JSON has none such. In
/// debug mode `histogram` lists the non-empty bins; an outermost edge is `null`.
/// `telemetry_overhead_percent` is the measured cost, `telemetry_overhead` the whole [`TelemetryOverhead`].
///
/// # Errors
/// The writer's, and [`io::ErrorKind::InvalidInput`] for a report that fails [`TelemetryReport::check`];
/// then nothing is written.
pub fn write_json_lines(report: &TelemetryReport, writer: impl Write) -> io::Result<()> {
    report.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut out = BufWriter::with_capacity(1 << 16, writer);
    for seed in report.iter() {
        let bins = report.histogram(seed.seed).map(|histogram| {
            let bins = histogram.bins().filter(|bin| bin.count > 0);
            bins.map(JsonBin::from).collect()
        });
        let line = Line {
            layer: &report.layer,
            epoch: report.epoch,
            steps: report.steps,
            windows: report.windows,
            mode: report.mode,
            seed,
            histogram: bins,
            hardware: &report.hardware,
            kernel: &report.kernel,
            telemetry_overhead_percent: report.overhead_percent(),
            telemetry_overhead: report.overhead.as_ref(),
        };
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

#[derive(Serialize)]
struct Line<'a> {
    layer: &'a str,
    epoch: u64,
    steps: u64,
    windows: u64,
    mode: TelemetryMode,
    #[serde(flatten)]
    seed: SeedReport<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    histogram: Option<Vec<JsonBin>>,
    hardware: &'a str,
    kernel: &'a str,
    telemetry_overhead_percent: Option<f64>,
    telemetry_overhead: Option<&'a TelemetryOverhead>,
}

#[derive(Serialize)]
struct JsonBin {
    low: f32,
    high: f32,
    count: u64,
}

impl From<Bin> for JsonBin {
    fn from(Bin { low, high, count }: Bin) -> Self {
        Self { low, high, count }
    }
}
