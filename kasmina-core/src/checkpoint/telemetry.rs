//! Telemetry in checkpoints: the accumulators column by column, judged element by element.

use kasmina_telemetry::{ChunkStats, GradientStats, Histogram};

use super::CheckpointError;
use super::columns::Writer;
use super::meta::TelemetryMeta;
use super::raw::{HistogramColumns, TelemetryColumns};
use crate::{Error, TelemetryState};

/// Counts above this could overflow when more is added to them; no run comes near it.
const MAX_COUNT: u64 = 1 << 60;

pub(super) fn write(telemetry: &TelemetryState, writer: &mut Writer) {
    let chunk = || telemetry.chunk.iter();
    writer.column("chunk.n", chunk().map(|stats| stats.n));
    writer.column("chunk.dead", chunk().map(|stats| stats.dead));
    writer.column("chunk.nonfinite", chunk().map(|stats| stats.nonfinite));
    writer.column("chunk.mean", chunk().map(|stats| stats.mean));
    writer.column("chunk.m2", chunk().map(|stats| stats.m2));
    writer.column("chunk.min", chunk().map(|stats| stats.min));
    writer.column("chunk.max", chunk().map(|stats| stats.max));
    let gradient = || telemetry.gradient.iter();
    writer.column("gradient.n", gradient().map(|stats| stats.n));
    writer.column("gradient.nonfinite", gradient().map(|stats| stats.nonfinite));
    writer.column("gradient.mean", gradient().map(|stats| stats.mean));
    writer.column("gradient.m2", gradient().map(|stats| stats.m2));
    writer.column("gradient.max_abs", gradient().map(|stats| stats.max_abs));
    writer.column("gradient.sum_squares", gradient().map(|stats| stats.sum_squares));
    if let Some(histograms) = &telemetry.histograms {
        let counts = histograms.iter().flat_map(|h| h.bins().map(|bin| bin.count));
        writer.matrix("histogram.counts", Some(Histogram::BINS), counts);
        writer.column("histogram.nonfinite", histograms.iter().map(Histogram::nonfinite));
        writer.column("histogram.min", histograms.iter().map(|h| extremum(h, 0.0)));
        writer.column("histogram.max", histograms.iter().map(|h| extremum(h, 1.0)));
    }
}

/// The least or greatest value; 0 for an empty histogram.
fn extremum(histogram: &Histogram, quantile: f64) -> f32 {
    histogram.quantile(quantile).map_or(0.0, |value| value as f32)
}

pub(super) fn check_settings(telemetry: &TelemetryState) -> Result<(), CheckpointError> {
    telemetry
        .mode
        .validated()
        .map_err(|error| CheckpointError::Metadata { reason: error.to_string() })?;
    for (what, value) in [
        ("dead_epsilon", f64::from(telemetry.dead_epsilon)),
        ("snr_epsilon", telemetry.snr_epsilon),
    ] {
        if !(value.is_finite() && value >= 0.0) {
            return Err(Error::Value { what: what.into(), value, legal: "finite and ≥ 0" }.into());
        }
    }
    if telemetry.mode.has_histograms() != telemetry.histograms.is_some() {
        let reason = "histograms are there exactly in debug mode".into();
        return Err(CheckpointError::Metadata { reason });
    }
    Ok(())
}

pub(super) fn check_lengths(
    telemetry: &TelemetryState,
    seeds: usize,
) -> Result<(), CheckpointError> {
    let histograms = telemetry.histograms.as_ref().map_or(seeds, Vec::len);
    for (what, found) in [
        ("the chunk statistics", telemetry.chunk.len()),
        ("the gradient statistics", telemetry.gradient.len()),
        ("the histograms", histograms),
    ] {
        if found != seeds {
            return Err(Error::Length { what: what.into(), found, needed: seeds }.into());
        }
    }
    Ok(())
}

/// The telemetry of a file; empty columns are those of a schema that had none.
pub(super) fn read(
    meta: TelemetryMeta,
    columns: TelemetryColumns,
    seeds: usize,
) -> Result<TelemetryState, CheckpointError> {
    let chunk = match columns.chunk_n.is_empty() {
        true => vec![ChunkStats::EMPTY; seeds],
        false => (0..seeds).map(|i| chunk(&columns, i)).collect::<Result<_, _>>()?,
    };
    let gradient = match columns.gradient_n.is_empty() {
        true => vec![GradientStats::EMPTY; seeds],
        false => (0..seeds).map(|i| gradient(&columns, i)).collect::<Result<_, _>>()?,
    };
    let histograms = match &columns.histogram {
        None => None,
        Some(columns) => {
            Some((0..seeds).map(|i| histogram(columns, i)).collect::<Result<Vec<_>, _>>()?)
        }
    };
    let telemetry = TelemetryState {
        mode: meta.mode,
        scope: meta.scope,
        dead_epsilon: meta.dead_epsilon,
        snr_epsilon: meta.snr_epsilon,
        passes: meta.passes,
        measured: meta.measured,
        saturated: meta.saturated,
        chunk,
        gradient,
        histograms,
    };
    check_settings(&telemetry)?;
    Ok(telemetry)
}

fn chunk(columns: &TelemetryColumns, i: usize) -> Result<ChunkStats, CheckpointError> {
    let stats = ChunkStats {
        n: columns.chunk_n[i],
        dead: columns.chunk_dead[i],
        nonfinite: columns.chunk_nonfinite[i],
        mean: columns.chunk_mean[i],
        m2: columns.chunk_m2[i],
        min: columns.chunk_min[i],
        max: columns.chunk_max[i],
    };
    count("chunk.n", i, stats.n)?;
    count("chunk.nonfinite", i, stats.nonfinite)?;
    if stats.dead > stats.n {
        let legal = format!("at most chunk.n, {}", stats.n);
        return Err(CheckpointError::element("chunk.dead", i, stats.dead, legal));
    }
    let empty = ChunkStats { nonfinite: stats.nonfinite, ..ChunkStats::EMPTY };
    if stats.n == 0 {
        // By bits, as NaN is not to slip through, and 0 has two forms.
        let bits =
            |s: &ChunkStats| (s.mean.to_bits(), s.m2.to_bits(), s.min.to_bits(), s.max.to_bits());
        let ok = bits(&stats) == bits(&empty);
        return if ok { Ok(stats) } else { Err(not_empty("chunk.n", i)) };
    }
    moments(["chunk.mean", "chunk.m2"], i, stats.mean, stats.m2)?;
    if !(stats.min.is_finite() && stats.max.is_finite() && stats.min <= stats.max) {
        let legal = format!("finite and at most chunk.max, {}", stats.max);
        return Err(CheckpointError::element("chunk.min", i, stats.min, legal));
    }
    Ok(stats)
}

fn gradient(columns: &TelemetryColumns, i: usize) -> Result<GradientStats, CheckpointError> {
    let stats = GradientStats {
        n: columns.gradient_n[i],
        nonfinite: columns.gradient_nonfinite[i],
        mean: columns.gradient_mean[i],
        m2: columns.gradient_m2[i],
        max_abs: columns.gradient_max_abs[i],
        sum_squares: columns.gradient_sum_squares[i],
    };
    count("gradient.n", i, stats.n)?;
    count("gradient.nonfinite", i, stats.nonfinite)?;
    if stats.n == 0 {
        let zero = |v: f64| v.to_bits() == 0;
        let ok = zero(stats.mean) && zero(stats.m2) && zero(stats.sum_squares);
        let ok = ok && stats.max_abs.to_bits() == 0;
        return if ok { Ok(stats) } else { Err(not_empty("gradient.n", i)) };
    }
    moments(["gradient.mean", "gradient.m2"], i, stats.mean, stats.m2)?;
    moments(["gradient.mean", "gradient.sum_squares"], i, stats.mean, stats.sum_squares)?;
    if !(stats.max_abs.is_finite() && stats.max_abs >= 0.0) {
        let legal = "finite and ≥ 0";
        return Err(CheckpointError::element("gradient.max_abs", i, stats.max_abs, legal));
    }
    Ok(stats)
}

fn count(tensor: &'static str, i: usize, value: u64) -> Result<(), CheckpointError> {
    if value <= MAX_COUNT {
        return Ok(());
    }
    Err(CheckpointError::element(tensor, i, value, format!("at most {MAX_COUNT}")))
}

fn moments(
    [mean_name, m2_name]: [&'static str; 2],
    i: usize,
    mean: f64,
    m2: f64,
) -> Result<(), CheckpointError> {
    if !mean.is_finite() {
        return Err(CheckpointError::element(mean_name, i, mean, "finite"));
    }
    if !(m2.is_finite() && m2 >= 0.0) {
        return Err(CheckpointError::element(m2_name, i, m2, "finite and ≥ 0"));
    }
    Ok(())
}

fn not_empty(tensor: &'static str, i: usize) -> CheckpointError {
    CheckpointError::element(tensor, i, 0, "more than 0 where the seed's other statistics are set")
}

/// A histogram with the given counts and extrema. It is built by merging, which is the only way to make
/// one, and then compared with what it should be, so that counts and extrema that contradict each other
/// are found.
fn histogram(columns: &HistogramColumns, i: usize) -> Result<Histogram, CheckpointError> {
    let counts = &columns.counts[i * Histogram::BINS..(i + 1) * Histogram::BINS];
    let (min, max) = (columns.min[i], columns.max[i]);
    let wrong = |value: String| {
        let legal = "finite, and in the outermost bins that hold anything";
        CheckpointError::element("histogram.min and .max", i, value, legal)
    };
    count("histogram.nonfinite", i, columns.nonfinite[i])?;
    let total = counts.iter().try_fold(0u64, |sum, &n| sum.checked_add(n)).unwrap_or(u64::MAX);
    count("histogram.counts", i, total)?;
    let mut histogram = Histogram::EMPTY;
    merge_many(&mut histogram, f32::NAN, columns.nonfinite[i]);
    let occupied = || counts.iter().enumerate().filter(|&(_, &n)| n > 0).map(|(bin, _)| bin);
    if let (Some(first), Some(last)) = (occupied().next(), occupied().next_back()) {
        if !(min.is_finite() && max.is_finite() && min <= max) {
            return Err(wrong(format!("{min} and {max}")));
        }
        let edges: Vec<_> = Histogram::EMPTY.bins().map(|bin| (bin.low, bin.high)).collect();
        for bin in occupied() {
            let mut n = counts[bin];
            let (low, high) = edges[bin];
            // A value of the bin: the extrema in the outermost ones, the edge towards zero elsewhere.
            let inner = if low <= 0.0 && high >= 0.0 {
                0.0
            } else if low > 0.0 {
                low
            } else {
                high
            };
            let value = if bin == first {
                min
            } else if bin == last {
                max
            } else {
                inner
            };
            if bin == first && bin == last {
                // Both extrema in one bin take one count each.
                n -= 1;
                merge_many(&mut histogram, max, 1);
            }
            merge_many(&mut histogram, value, n);
        }
    } else if min.to_bits() != 0 || max.to_bits() != 0 {
        return Err(wrong(format!("{min} and {max}")));
    }
    let same = histogram.bins().map(|bin| bin.count).eq(counts.iter().copied())
        && extremum(&histogram, 0.0).to_bits() == min.to_bits()
        && extremum(&histogram, 1.0).to_bits() == max.to_bits();
    if same { Ok(histogram) } else { Err(wrong(format!("{min} and {max}"))) }
}

/// Adds `value` `n` times, by doubling.
fn merge_many(into: &mut Histogram, value: f32, n: u64) {
    let mut power = Histogram::EMPTY;
    power.push(value);
    let mut rest = n;
    while rest > 0 {
        if rest & 1 == 1 {
            into.merge(&power);
        }
        rest >>= 1;
        if rest > 0 {
            let copy = power;
            power.merge(&copy);
        }
    }
}
