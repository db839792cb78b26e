//! How much is measured: which seeds a layer watches, and on which steps.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::TelemetryError;

/// Depth and frequency of measurement. Serialises as `"production"`, `"debug"` or
/// `{"sampling": {"every": 4, "fraction": 0.25}}`.
///
/// ```
/// use kasmina_telemetry::TelemetryMode;
///
/// let mode = TelemetryMode::sampling(4, 0.25)?;
/// assert!((0..100).all(|seed| !mode.samples(3, seed)), "step 3 is no fourth step");
/// let watched = (0..10_000).filter(|&seed| mode.samples(8, seed)).count();
/// assert!((2_300..2_700).contains(&watched));
/// assert!(TelemetryMode::sampling(0, 0.25).is_err());
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "Unchecked")]
pub enum TelemetryMode {
    /// Every seed on every step.
    #[default]
    Production,
    /// As production, and a histogram for each seed.
    Debug,
    /// On every `every`-th step, another `fraction` of the seeds each time.
    Sampling {
        /// Steps from one measured step to the next.
        every: NonZeroU32,
        /// Expected share of the seeds that is measured on such a step, in (0, 1].
        fraction: f32,
    },
}

impl TelemetryMode {
    /// Checked [`TelemetryMode::Sampling`].
    ///
    /// # Errors
    /// [`TelemetryError::Zero`] if `every` is 0, [`TelemetryError::OutOfRange`] unless 0 < `fraction` ≤ 1.
    pub fn sampling(every: u32, fraction: f32) -> Result<Self, TelemetryError> {
        let every = NonZeroU32::new(every).ok_or(TelemetryError::Zero { what: "every" })?;
        Self::Sampling { every, fraction }.validated()
    }

    /// `self` if its numbers are valid; the variant's fields are public, so they may not be.
    ///
    /// # Errors
    /// [`TelemetryError::OutOfRange`] unless 0 < `fraction` ≤ 1.
    pub fn validated(self) -> Result<Self, TelemetryError> {
        match self {
            Self::Sampling { fraction, .. } if !(fraction > 0.0 && fraction <= 1.0) => {
                Err(TelemetryError::OutOfRange {
                    what: "fraction",
                    value: f64::from(fraction),
                    limit: "more than 0 and at most 1 (to measure nothing, use the scope `off`)",
                })
            }
            valid => Ok(valid),
        }
    }

    /// Whether any seed is measured on `step`.
    #[inline]
    pub fn samples_step(&self, step: u64) -> bool {
        match self {
            Self::Production | Self::Debug => true,
            Self::Sampling { every, .. } => step.is_multiple_of(u64::from(every.get())),
        }
    }

    /// Whether `seed` is measured on `step`: a fixed function of both, so that a run can be repeated,
    /// and another subset on every measured step, so that each seed has its turn.
    #[inline]
    pub fn samples(&self, step: u64, seed: u32) -> bool {
        match *self {
            Self::Production | Self::Debug => true,
            Self::Sampling { fraction, .. } => {
                // 24 bits: every f32 in [0, 1) that this can give is exact.
                let draw = (mix(mix(step) ^ u64::from(seed)) >> 40) as f32 / (1_u32 << 24) as f32;
                self.samples_step(step) && draw < fraction
            }
        }
    }

    /// Whether histograms are gathered.
    #[inline]
    pub fn has_histograms(&self) -> bool {
        matches!(self, Self::Debug)
    }

    /// The mode's name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Debug => "debug",
            Self::Sampling { .. } => "sampling",
        }
    }
}

/// The mode as it may stand in a file.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", rename = "TelemetryMode")]
enum Unchecked {
    Production,
    Debug,
    Sampling { every: u32, fraction: f32 },
}

impl TryFrom<Unchecked> for TelemetryMode {
    type Error = TelemetryError;

    fn try_from(mode: Unchecked) -> Result<Self, TelemetryError> {
        match mode {
            Unchecked::Production => Ok(Self::Production),
            Unchecked::Debug => Ok(Self::Debug),
            Unchecked::Sampling { every, fraction } => Self::sampling(every, fraction),
        }
    }
}

/// Which seeds are measured at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TelemetryScope {
    /// Every seed, whatever its state.
    #[default]
    All,
    /// Dormant seeds only.
    DormantOnly,
    /// None.
    Off,
}

impl TelemetryScope {
    /// Whether a seed in this state is measured.
    #[inline]
    pub fn covers(&self, dormant: bool) -> bool {
        match self {
            Self::All => true,
            Self::DormantOnly => dormant,
            Self::Off => false,
        }
    }
}

/// SplitMix64's output function (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014): every input bit reaches every output bit.
#[inline]
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
