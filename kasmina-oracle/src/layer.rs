//! The layer as plain data: sizes, stability and what each seed is, checked once before any formula runs.

use crate::kind::{self, Kind, Parameter};
use crate::lifecycle;
use crate::{OracleError, Probe};

/// "`Fast`: none. `Adaptive` (default) … `Strict`: bounds = mean ± 6σ …"
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StabilityMode {
    /// No sanitizing, no clamp.
    Fast,
    /// NaN to 0, flush, clamp to fixed bounds.
    Adaptive,
    /// As adaptive, with the bounds narrowed to mean ± `sigmas`·σ of the input.
    Strict,
}

/// The stability settings of section 2.5.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stability {
    /// Which mode.
    pub mode: StabilityMode,
    /// |x| below this is flushed to 0. Unit of x.
    pub epsilon: f64,
    /// Lower bound of x and y on path. Unit of x.
    pub lower: f64,
    /// Upper bound of x and y on path. Unit of x.
    pub upper: f64,
    /// Half width of the strict bounds, in standard deviations.
    pub sigmas: f64,
}

impl Default for Stability {
    fn default() -> Self {
        Self { mode: StabilityMode::Adaptive, epsilon: 1e-8, lower: -1e6, upper: 1e6, sigmas: 6.0 }
    }
}

/// The objectives a TRAINING seed learns by without touching the host (section 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Objective {
    /// "parameter gradients of the task loss as if α = 1, at the host's activations".
    #[default]
    StraightThrough,
    /// "mean of (T(x)−x)² over rows × c".
    Reconstruction,
}

/// One seed: what it is, where in its life, and its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct OracleSeed {
    /// The blueprint.
    pub kind: Kind,
    /// Lifecycle code, 0 to 10.
    pub state: u8,
    /// Blend factor; "clamped to \[0,1\]" wherever it is used.
    pub alpha: f64,
    /// Read while the state is TRAINING.
    pub objective: Objective,
    /// The kind's parameters, in the order of [`Kind::parameter_names`].
    pub params: Vec<Parameter>,
}

impl OracleSeed {
    /// A dormant seed.
    #[must_use]
    pub fn dormant() -> Self {
        Self {
            kind: Kind::None,
            state: lifecycle::DORMANT,
            alpha: 0.0,
            objective: Objective::StraightThrough,
            params: vec![],
        }
    }

    /// The values of the parameter `name`, or none if the kind has no such parameter.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&[f64]> {
        self.params.iter().find(|p| p.name == name).map(|p| p.values.as_slice())
    }

    /// A parameter that [`OracleLayer::validate`] has seen.
    pub(crate) fn known(&self, name: &str) -> &[f64] {
        self.param(name).expect("validate checked that the kind's parameters are there")
    }

    /// The one value of `scale`.
    pub(crate) fn scale(&self) -> f64 {
        self.known("scale")[0]
    }
}

/// A layer over `x[rows, hidden]`, row-major and contiguous.
#[derive(Debug, Clone, PartialEq)]
pub struct OracleLayer {
    /// Rows of x.
    pub rows: usize,
    /// Columns of x.
    pub hidden: usize,
    /// Columns of a seed; the last seed may have fewer.
    pub chunk: usize,
    /// The stability settings.
    pub stability: Stability,
    /// "seeds = ceil(hidden/chunk)".
    pub seeds: Vec<OracleSeed>,
}

impl OracleLayer {
    /// The columns of seed `i`. "the last chunk may be short".
    #[must_use]
    pub fn columns(&self, i: usize) -> std::ops::Range<usize> {
        i * self.chunk..((i + 1) * self.chunk).min(self.hidden)
    }

    /// Seed `i`'s part of row `r` of a `[rows, hidden]` matrix.
    pub(crate) fn part<'a>(&self, matrix: &'a [f64], r: usize, i: usize) -> &'a [f64] {
        &matrix[r * self.hidden..(r + 1) * self.hidden][self.columns(i)]
    }

    /// All values of seed `i`'s chunk of a `[rows, hidden]` matrix, row by row.
    #[must_use]
    pub fn chunk_values(&self, matrix: &[f64], i: usize) -> Vec<f64> {
        (0..self.rows).flat_map(|r| self.part(matrix, r, i).iter().copied()).collect()
    }

    /// The α with which seed `i` changes the output in this call, or none where it does not.
    ///
    /// "*On path*: GRAFTING, STABILIZATION, EVALUATING, FINE_TUNING, FOSSILIZED" or probed;
    /// "α clamped to \[0,1\]"; "With alpha = 0 the branch is skipped, never multiplied by zero."
    #[must_use]
    pub fn blend(&self, i: usize, probe: &Probe) -> Option<f64> {
        let alpha = self.path_alpha(i, probe)?;
        (alpha > 0.0).then_some(alpha)
    }

    /// As [`OracleLayer::blend`], but a seed on path with α = 0 gives `Some(0.0)`.
    #[must_use]
    pub fn path_alpha(&self, i: usize, probe: &Probe) -> Option<f64> {
        let seed = &self.seeds[i];
        let alpha = match probe.alpha(i) {
            Some(alpha) => alpha,
            None if lifecycle::on_path(seed.state) => seed.alpha,
            None => return None,
        };
        Some(alpha.clamp(0.0, 1.0))
    }

    /// Checks every size, number, code, parameter and probe.
    ///
    /// # Errors
    /// The first thing found that the formulas are not defined for.
    pub fn validate(&self, probe: &Probe) -> Result<(), OracleError> {
        let size = |field, value: usize, ok: bool, limit: String| {
            if ok { Ok(()) } else { Err(OracleError::Size { field, value, limit }) }
        };
        size("rows", self.rows, self.rows > 0, "at least 1".into())?;
        size("hidden", self.hidden, self.hidden > 0, "at least 1".into())?;
        size(
            "rows × hidden",
            self.rows,
            self.rows.checked_mul(self.hidden).is_some(),
            format!("within the address space with hidden = {}", self.hidden),
        )?;
        size(
            "chunk",
            self.chunk,
            (1..=self.hidden).contains(&self.chunk),
            format!("from 1 to hidden = {}", self.hidden),
        )?;
        let expected = self.hidden.div_ceil(self.chunk);
        size(
            "the number of seeds",
            self.seeds.len(),
            self.seeds.len() == expected,
            format!("ceil(hidden/chunk) = {expected}"),
        )?;
        self.validate_stability()?;
        for (i, seed) in self.seeds.iter().enumerate() {
            self.validate_seed(i, seed)?;
        }
        for &(seed, alpha) in &probe.0 {
            let last = self.seeds.len() - 1;
            if seed > last {
                return Err(OracleError::NoSuchSeed { seed, last });
            }
            finite(format!("the probe of seed {seed}"), alpha)?;
            if self.seeds[seed].kind == Kind::None {
                return Err(OracleError::NoBlueprint { seed, what: "probed" });
            }
        }
        Ok(())
    }

    fn validate_stability(&self) -> Result<(), OracleError> {
        let s = &self.stability;
        let number = |field: &str, value: f64, ok: bool, limit| {
            if ok {
                Ok(())
            } else {
                let field = field.to_owned();
                Err(OracleError::Number { field, value, limit })
            }
        };
        let not_negative = "finite and at least 0";
        number("epsilon", s.epsilon, s.epsilon.is_finite() && s.epsilon >= 0.0, not_negative)?;
        number("sigmas", s.sigmas, s.sigmas.is_finite() && s.sigmas >= 0.0, not_negative)?;
        finite("upper".into(), s.upper)?;
        let below = s.lower.is_finite() && s.lower <= s.upper;
        number("lower", s.lower, below, "finite and at most upper")
    }

    fn validate_seed(&self, i: usize, seed: &OracleSeed) -> Result<(), OracleError> {
        if seed.state > lifecycle::LAST {
            let code = seed.state;
            return Err(OracleError::State { seed: i, code });
        }
        let alive = lifecycle::on_path(seed.state) || lifecycle::trainable(seed.state);
        if alive && seed.kind == Kind::None {
            return Err(OracleError::NoBlueprint { seed: i, what: "on path or trainable" });
        }
        finite(format!("seed {i}'s alpha"), seed.alpha)?;
        kind::check(seed.kind, &seed.params, i, self.columns(i).len())
    }

    pub(crate) fn check_matrix(&self, field: &str, matrix: &[f64]) -> Result<(), OracleError> {
        let expected = self.rows * self.hidden;
        if matrix.len() == expected {
            return Ok(());
        }
        Err(OracleError::Length { field: field.to_owned(), found: matrix.len(), expected })
    }
}

fn finite(field: String, value: f64) -> Result<(), OracleError> {
    if value.is_finite() {
        return Ok(());
    }
    Err(OracleError::Number { field, value, limit: "finite" })
}
