//! What is normal for each chunk: statistics of the first epochs and how much they scatter by themselves.

use kasmina_telemetry::{ChunkStats, TelemetryReport};
use serde::{Deserialize, Serialize};

/// Mean and scatter of one statistic over epochs (Welford 1962).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Spread {
    n: u32,
    mean: f64,
    m2: f64,
}

impl Spread {
    fn push(&mut self, value: f64) {
        self.n += 1;
        let delta = value - self.mean;
        self.mean += delta / f64::from(self.n);
        self.m2 += delta * (value - self.mean);
    }

    /// Sample standard deviation; 0 for a single epoch, of which no scatter is known.
    fn deviation(&self) -> f64 {
        if self.n < 2 { 0.0 } else { (self.m2 / f64::from(self.n - 1)).sqrt() }
    }
}

/// One chunk's normal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SeedBaseline {
    mean: Spread,
    variance: Spread,
    log_variance: Spread,
    dead: Spread,
    nonfinite: Spread,
}

/// What is normal for each chunk of a layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    seeds: Vec<SeedBaseline>,
    epochs: u32,
}

/// From where on a deviation counts. A deviation must exceed both its threshold and `noise` times the
/// scatter that the statistic had while the baseline was taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Shift of the mean in standard deviations of the chunk; default 0.1.
    pub mean: f64,
    /// |ln(variance / baseline variance)|; default 0.15.
    pub log_variance: f64,
    /// Change of the dead ratio; default 0.05.
    pub dead: f64,
    /// Rise of the share of non-finite elements; default 1e-4.
    pub nonfinite: f64,
    /// Multiples of a statistic's own scatter; default 4.
    pub noise: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { mean: 0.1, log_variance: 0.15, dead: 0.05, nonfinite: 1e-4, noise: 4.0 }
    }
}

/// How far a chunk is from its normal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Deviation {
    /// |mean − baseline| in baseline standard deviations of the chunk.
    pub mean_shift: f64,
    /// ln(variance / baseline).
    pub log_variance_ratio: f64,
    /// Dead ratio − baseline.
    pub dead_change: f64,
    /// Share of non-finite elements − baseline.
    pub nonfinite_rise: f64,
    /// The largest of the four as a multiple of what counts; unhealthy from 1 on.
    pub score: f64,
    /// The statistic with that score.
    pub leading: &'static str,
}

impl Baseline {
    /// Adds one epoch's report. Chunks that were not measured keep what they have.
    pub fn observe(&mut self, report: &TelemetryReport) {
        if self.seeds.len() < report.len() {
            self.seeds.resize(report.len(), SeedBaseline::default());
        }
        for (seed, stats) in self.seeds.iter_mut().zip(&report.chunk) {
            if let Some(nonfinite) = nonfinite_ratio(stats) {
                seed.nonfinite.push(nonfinite);
            }
            let (Some(mean), Some(variance), Some(dead)) =
                (stats.mean(), stats.variance(), stats.dead_ratio())
            else {
                continue;
            };
            seed.mean.push(mean);
            seed.variance.push(variance);
            seed.log_variance.push((variance + floor(mean, variance)).ln());
            seed.dead.push(dead);
        }
        self.epochs += 1;
    }

    /// Epochs observed.
    pub fn epochs(&self) -> u32 {
        self.epochs
    }

    /// How far a chunk is from its normal; `None` where either was not measured, which is neither
    /// healthy nor unhealthy.
    pub fn deviation(
        &self,
        seed: usize,
        stats: &ChunkStats,
        thresholds: &Thresholds,
    ) -> Option<Deviation> {
        let normal = self.seeds.get(seed)?;
        let nonfinite = nonfinite_ratio(stats)?;
        if normal.nonfinite.n == 0 {
            return None;
        }
        let nonfinite_rise = nonfinite - normal.nonfinite.mean;
        let mut deviation = Deviation {
            mean_shift: 0.0,
            log_variance_ratio: 0.0,
            dead_change: 0.0,
            nonfinite_rise,
            score: 0.0,
            leading: "nothing",
        };
        let noise = |spread: &Spread| thresholds.noise * spread.deviation();
        let mut rank = |leading, value: f64, limit: f64| {
            let score = value / limit.max(f64::MIN_POSITIVE);
            if score > deviation.score {
                (deviation.score, deviation.leading) = (score, leading);
            }
        };
        let limit = thresholds.nonfinite.max(noise(&normal.nonfinite));
        rank("non-finite share", nonfinite_rise, limit);
        if let (Some(mean), Some(variance), Some(dead)) =
            (stats.mean(), stats.variance(), stats.dead_ratio())
            && normal.mean.n > 0
        {
            let floor = floor(normal.mean.mean, normal.variance.mean);
            let sigma = (normal.variance.mean + floor).sqrt();
            let mean_shift = (mean - normal.mean.mean).abs() / sigma;
            let log_variance_ratio = (variance + floor).ln() - normal.log_variance.mean;
            let dead_change = dead - normal.dead.mean;
            rank("mean", mean_shift, thresholds.mean.max(noise(&normal.mean) / sigma));
            let limit = thresholds.log_variance.max(noise(&normal.log_variance));
            rank("variance", log_variance_ratio.abs(), limit);
            rank("dead ratio", dead_change.abs(), thresholds.dead.max(noise(&normal.dead)));
            (deviation.mean_shift, deviation.log_variance_ratio, deviation.dead_change) =
                (mean_shift, log_variance_ratio, dead_change);
        }
        Some(deviation)
    }
}

/// Share of non-finite elements; `None` if there were no elements.
fn nonfinite_ratio(stats: &ChunkStats) -> Option<f64> {
    let elements = stats.n + stats.nonfinite;
    (elements > 0).then(|| stats.nonfinite as f64 / elements as f64)
}

/// A variance too small to mean anything: chunks that are constant, or nearly so next to their mean,
/// must not turn rounding into a deviation.
fn floor(mean: f64, variance: f64) -> f64 {
    1e-12 + 1e-6 * (variance + mean * mean)
}
