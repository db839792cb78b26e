//! What a layer hands out once an epoch: columns of records, cheap to build, read seed by seed.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    ChunkStats, GradientStats, Histogram, TelemetryError, TelemetryMode, TelemetryOverhead,
};

/// Telemetry of one layer over one reporting window, in columns: entry `i` of each belongs to seed `i`.
///
/// Building one moves the accumulators' vectors in and computes nothing. `gradient` may be empty where no
/// backward pass was measured; every other column has one entry a seed.
///
/// ```
/// use kasmina_telemetry::{ChunkStats, TelemetryReport};
///
/// let mut watched = ChunkStats::EMPTY;
/// [1.0, 3.0].into_iter().for_each(|x| watched.push(x, 1e-8));
/// let report = TelemetryReport {
///     layer: "encoder.0".into(),
///     chunk: vec![watched, ChunkStats::EMPTY],
///     state: vec![0, 0],
///     alpha: vec![0.0, 0.0],
///     blueprint: vec![TelemetryReport::NO_BLUEPRINT; 2],
///     state_names: &["DORMANT"],
///     ..TelemetryReport::default()
/// };
/// report.check()?;
/// let variances: Vec<_> = report.iter().map(|seed| seed.variance).collect();
/// assert_eq!(variances, [Some(1.0), None], "an unmeasured seed has no variance, not a variance of 0");
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TelemetryReport {
    /// The layer's name.
    pub layer: String,
    /// Epochs completed.
    pub epoch: u64,
    /// Forward steps merged into this report.
    pub steps: u64,
    /// Reporting windows (epochs, mostly) merged into this report: 1 unless [`TelemetryReport::merge`] has made it of several.
    pub windows: u64,
    /// How the window was measured.
    pub mode: TelemetryMode,
    /// ε of the signal-to-noise ratio.
    pub snr_epsilon: f64,
    /// Activation statistics.
    pub chunk: Vec<ChunkStats>,
    /// Output-gradient statistics, or nothing where none were measured.
    pub gradient: Vec<GradientStats>,
    /// Lifecycle state codes, indices into `state_names`.
    pub state: Vec<u8>,
    /// Blend factors.
    pub alpha: Vec<f32>,
    /// Blueprint codes, indices into `blueprint_names`, or [`TelemetryReport::NO_BLUEPRINT`].
    pub blueprint: Vec<u16>,
    /// Names of the states.
    pub state_names: &'static [&'static str],
    /// Names of the blueprints.
    pub blueprint_names: Arc<[String]>,
    /// Debug mode's histograms.
    pub histograms: Option<Vec<Histogram>>,
    /// Elements of the window that overflowed their storage type and were saturated.
    pub saturated: u64,
    /// The device that ran the layer.
    pub hardware: String,
    /// The kernel or backend that was chosen.
    pub kernel: String,
    /// Measured cost of telemetry; `None` if it was not measured.
    pub overhead: Option<TelemetryOverhead>,
}

impl Default for TelemetryReport {
    /// No seeds, production mode, ε = 1e-8.
    fn default() -> Self {
        Self {
            layer: String::new(),
            epoch: 0,
            steps: 0,
            windows: 1,
            mode: TelemetryMode::Production,
            snr_epsilon: 1e-8,
            chunk: Vec::new(),
            gradient: Vec::new(),
            state: Vec::new(),
            alpha: Vec::new(),
            blueprint: Vec::new(),
            state_names: &[],
            blueprint_names: Arc::from([]),
            histograms: None,
            saturated: 0,
            hardware: String::new(),
            kernel: String::new(),
            overhead: None,
        }
    }
}

/// One seed's row of a report. What was not measured is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SeedReport<'a> {
    /// Index of the seed.
    pub seed: usize,
    /// Lifecycle state code.
    pub state_code: Option<u8>,
    /// Its name.
    pub state: Option<&'a str>,
    /// Name of the seed's blueprint, if it has one.
    pub blueprint: Option<&'a str>,
    /// Blend factor.
    pub alpha: Option<f32>,
    /// Finite elements measured.
    pub elements: u64,
    /// NaN and ±Inf elements; `None` if nothing was measured at all.
    pub nonfinite: Option<u64>,
    /// Population variance.
    pub variance: Option<f64>,
    /// Mean.
    pub mean: Option<f64>,
    /// Least element.
    pub min: Option<f32>,
    /// Greatest element.
    pub max: Option<f32>,
    /// Share of dead elements, in [0, 1].
    pub dead_ratio: Option<f64>,
    /// |mean| / √(variance + ε).
    pub snr: Option<f64>,
    /// Euclidean norm of the output gradient.
    pub gradient_norm: Option<f64>,
    /// Population variance of the output gradient.
    pub gradient_variance: Option<f64>,
    /// Greatest |g| of the output gradient.
    pub gradient_max_abs: Option<f32>,
    /// NaN and ±Inf elements of the output gradient; `None` if it was not measured.
    pub gradient_nonfinite: Option<u64>,
}

impl TelemetryReport {
    /// The blueprint code of a seed without a blueprint.
    pub const NO_BLUEPRINT: u16 = u16::MAX;

    /// Measured cost of telemetry in percent of the pass without it; `None` if it was not measured.
    pub fn overhead_percent(&self) -> Option<f64> {
        self.overhead.map(|overhead| overhead.percent)
    }

    /// Number of seeds.
    pub fn len(&self) -> usize {
        self.chunk.len()
    }

    /// Whether there is no seed.
    pub fn is_empty(&self) -> bool {
        self.chunk.is_empty()
    }

    /// Checks that all columns fit together and all codes have names.
    ///
    /// # Errors
    /// [`TelemetryError::WrongLength`] and [`TelemetryError::OutOfRange`], naming the column.
    pub fn check(&self) -> Result<(), TelemetryError> {
        let length = |what, actual| {
            let expected = self.len();
            if actual == expected {
                Ok(())
            } else {
                Err(TelemetryError::WrongLength { what, actual, expected })
            }
        };
        length("state", self.state.len())?;
        length("alpha", self.alpha.len())?;
        length("blueprint", self.blueprint.len())?;
        if !self.gradient.is_empty() {
            length("gradient", self.gradient.len())?;
        }
        if let Some(histograms) = &self.histograms {
            length("histograms", histograms.len())?;
        }
        let unnamed = |what, value: Option<f64>| match value {
            None => Ok(()),
            Some(value) => {
                Err(TelemetryError::OutOfRange { what, value, limit: "a code that has a name" })
            }
        };
        // Names are numbered without gaps, so the greatest code speaks for all.
        let state =
            self.state.iter().copied().max().filter(|&code| self.state_name(code).is_none());
        unnamed("state", state.map(f64::from))?;
        // The code of none, u16::MAX, becomes 0, the others one more than they are.
        let blueprint = self.blueprint.iter().map(|code| code.wrapping_add(1)).max().unwrap_or(0);
        let blueprint =
            blueprint.checked_sub(1).filter(|&code| self.blueprint_name(code).is_none());
        unnamed("blueprint", blueprint.map(f64::from))
    }

    /// Takes in the report of a later window of the same layer: counts add, moments and histograms merge, and everything that
    /// is rather than was counted (epoch, mode, state, alpha, blueprint, hardware, kernel, cost) becomes the later one's.
    ///
    /// A column that one of both does not have (gradients, histograms) is the other's.
    ///
    /// # Errors
    /// [`MergeRefused`], with `later` in it, for another layer, another number of seeds, or columns that have neither an entry a
    /// seed nor none; this report is unchanged then.
    ///
    /// ```
    /// use kasmina_telemetry::{ChunkStats, TelemetryReport};
    ///
    /// let window = |epoch, x: f32| {
    ///     let mut stats = ChunkStats::EMPTY;
    ///     stats.push(x, 1e-8);
    ///     TelemetryReport { epoch, steps: 1, chunk: vec![stats], ..TelemetryReport::default() }
    /// };
    /// let mut report = window(1, 2.0);
    /// report.merge(window(2, 4.0))?;
    /// assert_eq!((report.windows, report.epoch, report.steps, report.chunk[0].mean()), (2, 2, 2, Some(3.0)));
    /// # Ok::<(), kasmina_telemetry::MergeRefused>(())
    /// ```
    pub fn merge(&mut self, later: Self) -> Result<(), MergeRefused> {
        let what = if self.layer != later.layer {
            Some("layers")
        } else if self.len() != later.len() {
            Some("numbers of seeds")
        } else if !self.columns_are_whole() || !later.columns_are_whole() {
            Some("lengths of columns")
        } else {
            None
        };
        if let Some(what) = what {
            let into = (self.layer.clone(), self.len());
            return Err(MergeRefused { what, report: Box::new(later), into });
        }
        let earlier = std::mem::replace(self, later);
        self.steps += earlier.steps;
        self.windows += earlier.windows;
        self.saturated += earlier.saturated;
        // Earlier before later, as a pass merges them: the same bits as if both windows had been one.
        merge_columns(&mut self.chunk, earlier.chunk, ChunkStats::merge);
        merge_columns(&mut self.gradient, earlier.gradient, GradientStats::merge);
        self.histograms = match (self.histograms.take(), earlier.histograms) {
            (Some(mut later), Some(earlier)) => {
                merge_columns(&mut later, earlier, Histogram::merge);
                Some(later)
            }
            (later, earlier) => later.or(earlier),
        };
        Ok(())
    }

    /// Whether the measured columns have an entry a seed, or are not there.
    fn columns_are_whole(&self) -> bool {
        let histograms = self.histograms.as_ref().map_or(self.len(), Vec::len);
        (self.gradient.is_empty() || self.gradient.len() == self.len()) && histograms == self.len()
    }

    /// One seed's row, or `None` past the last.
    pub fn seed(&self, seed: usize) -> Option<SeedReport<'_>> {
        let chunk = self.chunk.get(seed)?;
        let gradient = self.gradient.get(seed).copied().unwrap_or_default();
        let state_code = self.state.get(seed).copied();
        let blueprint = self.blueprint.get(seed).copied();
        Some(SeedReport {
            seed,
            state_code,
            state: state_code.and_then(|code| self.state_name(code)),
            blueprint: blueprint.and_then(|code| self.blueprint_name(code)),
            alpha: self.alpha.get(seed).copied(),
            elements: chunk.n,
            nonfinite: (chunk.n + chunk.nonfinite > 0).then_some(chunk.nonfinite),
            variance: chunk.variance(),
            mean: chunk.mean(),
            min: chunk.min(),
            max: chunk.max(),
            dead_ratio: chunk.dead_ratio(),
            snr: chunk.snr(self.snr_epsilon),
            gradient_norm: gradient.norm(),
            gradient_variance: gradient.variance(),
            gradient_max_abs: gradient.max_abs(),
            gradient_nonfinite: (gradient.n + gradient.nonfinite > 0).then_some(gradient.nonfinite),
        })
    }

    /// All seeds' rows.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SeedReport<'_>> + '_ {
        // Every index below `len` has a row.
        (0..self.len()).map(|seed| self.seed(seed).expect("the seed is below len"))
    }

    /// The seed's histogram, if one was gathered.
    pub fn histogram(&self, seed: usize) -> Option<&Histogram> {
        self.histograms.as_ref()?.get(seed)
    }

    fn state_name(&self, code: u8) -> Option<&'static str> {
        self.state_names.get(usize::from(code)).copied()
    }

    fn blueprint_name(&self, code: u16) -> Option<&str> {
        self.blueprint_names.get(usize::from(code)).map(String::as_str)
    }
}

/// A report that does not fit to the one it was to be merged into.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the report of layer {:?} with {} seeds was to be merged into that of layer {:?} with {}, but their {what} differ; keep them apart",
    .report.layer, .report.len(), .into.0, .into.1
)]
pub struct MergeRefused {
    what: &'static str,
    /// The report, unchanged.
    pub report: Box<TelemetryReport>,
    into: (String, usize),
}

/// `earlier` merged with `later`, into `later`. They are equally long, or one is empty.
fn merge_columns<T>(later: &mut Vec<T>, mut earlier: Vec<T>, merge: impl Fn(&mut T, &T)) {
    if earlier.is_empty() {
        return;
    }
    earlier.iter_mut().zip(later.iter()).for_each(|(earlier, later)| merge(earlier, later));
    *later = earlier;
}
