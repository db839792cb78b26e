//! Reports as OpenMetrics text, version 1.0.0, which Prometheus and its kin scrape, and as the older text
//! format 0.0.4 for what reads no other.
//!
//! A report describes a window, so its statistics are gauges; only what never falls is a counter. Samples
//! of one family stand together whatever the number of layers, as the format demands, and a statistic that
//! was not measured has no sample.

use std::fmt::{self, Display};
use std::io::{self, BufWriter, Write};

use crate::{SeedReport, TelemetryOverhead, TelemetryReport};

/// Content type of what the writers give, for an HTTP answer.
pub const OPEN_METRICS_CONTENT_TYPE: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Content type of what [`write_prometheus_text_of`] gives.
pub const PROMETHEUS_TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Quantiles that debug mode's histograms are exported at.
const QUANTILES: [f64; 5] = [0.01, 0.25, 0.5, 0.75, 0.99];

/// Writes one report as a complete exposition, `# EOF` included.
///
/// # Errors
/// The writer's, and [`io::ErrorKind::InvalidInput`] for a report that fails [`TelemetryReport::check`];
/// then nothing is written.
pub fn write_open_metrics(report: &TelemetryReport, writer: impl Write) -> io::Result<()> {
    write_open_metrics_of(&[report], writer)
}

/// Writes the reports of several layers as one complete exposition, `# EOF` included.
///
/// # Errors
/// As [`write_open_metrics`], and [`io::ErrorKind::InvalidInput`] where two reports name the same layer,
/// which would give two samples one identity.
pub fn write_open_metrics_of(reports: &[&TelemetryReport], writer: impl Write) -> io::Result<()> {
    write_page(Format::OpenMetrics, reports, writer)
}

/// Writes the same samples in Prometheus' text format 0.0.4, which has no units, no info type and no end
/// mark.
///
/// # Errors
/// As [`write_open_metrics_of`].
pub fn write_prometheus_text_of(
    reports: &[&TelemetryReport],
    writer: impl Write,
) -> io::Result<()> {
    write_page(Format::Text, reports, writer)
}

/// What the two formats differ in: metadata and the end mark.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    OpenMetrics,
    Text,
}

fn write_page(format: Format, reports: &[&TelemetryReport], writer: impl Write) -> io::Result<()> {
    for (i, report) in reports.iter().enumerate() {
        report.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if reports[..i].iter().any(|other| other.layer == report.layer) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("two reports name the layer {:?}; rename one", report.layer),
            ));
        }
    }
    let mut out = BufWriter::with_capacity(1 << 16, writer);
    let layers: Vec<String> =
        reports.iter().map(|report| format!("layer=\"{}\"", Escaped(&report.layer))).collect();
    write_layers(format, reports, &layers, &mut out)?;
    write_seeds(format, reports, &layers, &mut out)?;
    if format == Format::OpenMetrics {
        out.write_all(b"# EOF\n")?;
    }
    out.flush()
}

impl Format {
    /// The head of a metric family.
    fn head(
        self,
        out: &mut impl Write,
        name: &str,
        kind: &str,
        unit: &str,
        help: &str,
    ) -> io::Result<()> {
        // Format 0.0.4 knows a family by its samples' name, and an info as a gauge that is 1.
        let (suffix, kind) = match (self, kind) {
            (Self::Text, "counter") => ("_total", "counter"),
            (Self::Text, "info") => ("_info", "gauge"),
            _ => ("", kind),
        };
        writeln!(out, "# TYPE {name}{suffix} {kind}")?;
        if self == Self::OpenMetrics && !unit.is_empty() {
            writeln!(out, "# UNIT {name} {unit}")?;
        }
        writeln!(out, "# HELP {name}{suffix} {help}")
    }
}

/// A family with one sample a layer.
struct LayerFamily {
    name: &'static str,
    kind: &'static str,
    unit: &'static str,
    /// What the sample's name adds to the family's.
    suffix: &'static str,
    help: &'static str,
    value: fn(&TelemetryReport) -> Option<Number>,
}

const LAYER_FAMILIES: [LayerFamily; 10] = [
    LayerFamily {
        name: "kasmina_layer_epochs",
        kind: "counter",
        unit: "",
        suffix: "_total",
        help: "Epochs completed.",
        value: |report| Some(Number::Count(report.epoch)),
    },
    LayerFamily {
        name: "kasmina_layer_saturated_elements",
        kind: "gauge",
        unit: "",
        suffix: "",
        help: "Elements saturated on conversion to their storage type, in the window.",
        value: |report| Some(Number::Count(report.saturated)),
    },
    LayerFamily {
        name: "kasmina_layer_seeds",
        kind: "gauge",
        unit: "",
        suffix: "",
        help: "Seeds in the layer.",
        value: |report| Some(Number::Count(report.len() as u64)),
    },
    LayerFamily {
        name: "kasmina_layer_windows",
        kind: "gauge",
        unit: "",
        suffix: "",
        help: "Reporting windows merged into the report.",
        value: |report| Some(Number::Count(report.windows)),
    },
    LayerFamily {
        name: "kasmina_layer_steps",
        kind: "gauge",
        unit: "",
        suffix: "",
        help: "Forward steps in the reported window.",
        value: |report| Some(Number::Count(report.steps)),
    },
    LayerFamily {
        name: "kasmina_layer_telemetry_overhead_ratio",
        kind: "gauge",
        unit: "ratio",
        suffix: "",
        help: "Measured cost of telemetry, as a share of the pass without it.",
        value: |report| share(report, |overhead| overhead.percent),
    },
    LayerFamily {
        name: "kasmina_layer_telemetry_overhead_low_ratio",
        kind: "gauge",
        unit: "ratio",
        suffix: "",
        help: "Lower end of the 95 % interval of that cost.",
        value: |report| share(report, |overhead| overhead.low_percent),
    },
    LayerFamily {
        name: "kasmina_layer_telemetry_overhead_high_ratio",
        kind: "gauge",
        unit: "ratio",
        suffix: "",
        help: "Upper end of the 95 % interval of that cost.",
        value: |report| share(report, |overhead| overhead.high_percent),
    },
    LayerFamily {
        name: "kasmina_layer_telemetry_overhead_noise_ratio",
        kind: "gauge",
        unit: "ratio",
        suffix: "",
        help: "What the pass without telemetry, timed twice, differed by.",
        value: |report| share(report, |overhead| overhead.noise_percent),
    },
    LayerFamily {
        name: "kasmina_layer_telemetry_overhead_epoch",
        kind: "gauge",
        unit: "",
        suffix: "",
        help: "Epochs completed when the cost of telemetry was measured.",
        value: |report| report.overhead.map(|overhead| Number::Count(overhead.of.epoch)),
    },
];

/// Percent of the measured cost of telemetry as a share.
fn share(report: &TelemetryReport, percent: fn(&TelemetryOverhead) -> f64) -> Option<Number> {
    report.overhead.as_ref().map(|overhead| Number::Double(percent(overhead) / 100.0))
}

fn write_layers(
    format: Format,
    reports: &[&TelemetryReport],
    layers: &[String],
    out: &mut impl Write,
) -> io::Result<()> {
    let help = "How and where the layer runs and is measured.";
    format.head(out, "kasmina_layer", "info", "", help)?;
    for (report, layer) in reports.iter().zip(layers) {
        writeln!(
            out,
            "kasmina_layer_info{{{layer},hardware=\"{}\",kernel=\"{}\",mode=\"{}\"}} 1",
            Escaped(&report.hardware),
            Escaped(&report.kernel),
            report.mode.name(),
        )?;
    }
    for family in &LAYER_FAMILIES {
        format.head(out, family.name, family.kind, family.unit, family.help)?;
        for (report, layer) in reports.iter().zip(layers) {
            if let Some(value) = (family.value)(report) {
                writeln!(out, "{}{}{{{layer}}} {value}", family.name, family.suffix)?;
            }
        }
    }
    Ok(())
}

/// A gauge with at most one sample a seed.
struct SeedFamily {
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    value: fn(&SeedReport<'_>) -> Option<Number>,
}

const fn seed_family(
    name: &'static str,
    help: &'static str,
    value: fn(&SeedReport<'_>) -> Option<Number>,
) -> SeedFamily {
    SeedFamily { name, unit: "", help, value }
}

const SEED_FAMILIES: [SeedFamily; 14] = [
    seed_family("kasmina_seed_state_code", "Lifecycle state code.", |s| {
        s.state_code.map(|code| Number::Count(code.into()))
    }),
    seed_family("kasmina_seed_alpha", "Blend factor of the blueprint.", |s| {
        s.alpha.map(Number::Single)
    }),
    seed_family("kasmina_seed_elements", "Finite elements measured in the window.", |s| {
        (s.elements > 0).then_some(Number::Count(s.elements))
    }),
    seed_family(
        "kasmina_seed_nonfinite_elements",
        "NaN and infinite elements in the window.",
        |s| s.nonfinite.map(Number::Count),
    ),
    seed_family("kasmina_seed_variance", "Population variance of the activations.", |s| {
        s.variance.map(Number::Double)
    }),
    seed_family("kasmina_seed_mean", "Mean of the activations.", |s| s.mean.map(Number::Double)),
    seed_family("kasmina_seed_min", "Least activation.", |s| s.min.map(Number::Single)),
    seed_family("kasmina_seed_max", "Greatest activation.", |s| s.max.map(Number::Single)),
    SeedFamily {
        name: "kasmina_seed_dead_ratio",
        unit: "ratio",
        help: "Share of the activations that are dead.",
        value: |s| s.dead_ratio.map(Number::Double),
    },
    seed_family(
        "kasmina_seed_snr",
        "Signal to noise of the activations, |mean| over deviation.",
        |s| s.snr.map(Number::Double),
    ),
    seed_family("kasmina_seed_gradient_norm", "Euclidean norm of the output gradient.", |s| {
        s.gradient_norm.map(Number::Double)
    }),
    seed_family(
        "kasmina_seed_gradient_variance",
        "Population variance of the output gradient.",
        |s| s.gradient_variance.map(Number::Double),
    ),
    seed_family("kasmina_seed_gradient_max_abs", "Greatest size in the output gradient.", |s| {
        s.gradient_max_abs.map(Number::Single)
    }),
    seed_family(
        "kasmina_seed_gradient_nonfinite_elements",
        "NaN and infinite elements of the output gradient in the window.",
        |s| s.gradient_nonfinite.map(Number::Count),
    ),
];

fn write_seeds(
    format: Format,
    reports: &[&TelemetryReport],
    layers: &[String],
    out: &mut impl Write,
) -> io::Result<()> {
    format.head(out, "kasmina_seed", "info", "", "Lifecycle state and blueprint of a seed.")?;
    for (report, layer) in reports.iter().zip(layers) {
        for seed in report.iter() {
            write!(out, "kasmina_seed_info{{{layer},seed=\"{}\"", seed.seed)?;
            if let Some(state) = seed.state {
                write!(out, ",state=\"{}\"", Escaped(state))?;
            }
            if let Some(blueprint) = seed.blueprint {
                write!(out, ",blueprint=\"{}\"", Escaped(blueprint))?;
            }
            out.write_all(b"} 1\n")?;
        }
    }
    for family in &SEED_FAMILIES {
        format.head(out, family.name, "gauge", family.unit, family.help)?;
        for (report, layer) in reports.iter().zip(layers) {
            for seed in report.iter() {
                if let Some(value) = (family.value)(&seed) {
                    writeln!(out, "{}{{{layer},seed=\"{}\"}} {value}", family.name, seed.seed)?;
                }
            }
        }
    }
    if reports.iter().all(|report| report.histograms.is_none()) {
        return Ok(());
    }
    let name = "kasmina_seed_activation";
    format.head(out, name, "summary", "", "Estimated quantiles of the activations.")?;
    for (report, layer) in reports.iter().zip(layers) {
        for (seed, histogram) in report.histograms.iter().flatten().enumerate() {
            for q in QUANTILES {
                if let Some(value) = histogram.quantile(q) {
                    let value = Number::Double(value);
                    writeln!(out, "{name}{{{layer},seed=\"{seed}\",quantile=\"{q}\"}} {value}")?;
                }
            }
        }
    }
    Ok(())
}

/// A sample's value. Keeps its width, so that an f32 is written with an f32's digits.
#[derive(Clone, Copy)]
enum Number {
    Count(u64),
    Single(f32),
    Double(f64),
}

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let double = match *self {
            Self::Count(count) => return write!(f, "{count}"),
            Self::Single(single) if single.is_finite() => return write!(f, "{single:?}"),
            Self::Single(single) => f64::from(single),
            Self::Double(double) => double,
        };
        // `Debug` writes an exponent where digits would be many, and infinities otherwise than the format.
        if double.is_nan() {
            f.write_str("NaN")
        } else if double.is_infinite() {
            f.write_str(if double > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            write!(f, "{double:?}")
        }
    }
}

/// A label's value with backslash, quote and newline escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            match part.as_bytes().last() {
                Some(b'\\') => write!(f, "{}\\\\", &part[..part.len() - 1])?,
                Some(b'"') => write!(f, "{}\\\"", &part[..part.len() - 1])?,
                Some(b'\n') => write!(f, "{}\\n", &part[..part.len() - 1])?,
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}
