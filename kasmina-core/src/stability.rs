//! Numerical stability modes: what is done to non-finite, tiny and huge activations of on-path chunks.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How much the layer guards the chunks whose seeds are on path. Other chunks are never touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum StabilityMode {
    /// Nothing is done.
    Fast = 0,
    /// NaN → 0, |x| < ε → 0, clamp to `[lower, upper]`, and the same clamp on the output.
    #[default]
    Adaptive = 1,
    /// As adaptive, with `[lower, upper]` narrowed to mean ± sigmas·σ of the finite elements of this
    /// call's whole input.
    Strict = 2,
}

/// Stability mode and its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// The mode.
    pub mode: StabilityMode,
    /// Inputs with |x| below this are flushed to 0; default 1e-8.
    pub epsilon: f32,
    /// Lower clamp; default −1e6.
    pub lower: f32,
    /// Upper clamp; default 1e6.
    pub upper: f32,
    /// Width of the strict bounds in standard deviations; default 6.
    pub sigmas: f32,
}

impl Default for Stability {
    fn default() -> Self {
        Self { mode: StabilityMode::Adaptive, epsilon: 1e-8, lower: -1e6, upper: 1e6, sigmas: 6.0 }
    }
}

impl Stability {
    /// The default numbers with the given mode.
    pub fn new(mode: StabilityMode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Value`] for a negative or non-finite ε or sigmas, non-finite bounds, or `lower > upper`.
    pub fn validate(&self) -> Result<()> {
        let check = |what: &str, value: f32, ok: bool, legal| {
            if ok {
                Ok(())
            } else {
                Err(Error::Value { what: what.into(), value: value.into(), legal })
            }
        };
        let non_negative = |v: f32| v.is_finite() && v >= 0.0;
        check("stability.epsilon", self.epsilon, non_negative(self.epsilon), "finite and ≥ 0")?;
        check("stability.sigmas", self.sigmas, non_negative(self.sigmas), "finite and ≥ 0")?;
        check("stability.lower", self.lower, self.lower.is_finite(), "finite")?;
        check(
            "stability.upper",
            self.upper,
            self.upper.is_finite() && self.upper >= self.lower,
            "finite and ≥ stability.lower",
        )
    }
}

/// The bounds in force in one call, and whether they are in force at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// `false` in [`StabilityMode::Fast`].
    pub guarded: bool,
    /// Flush threshold.
    pub epsilon: f32,
    /// Lower clamp.
    pub lower: f32,
    /// Upper clamp.
    pub upper: f32,
}

impl Bounds {
    /// Input of an on-path branch: NaN → 0, |x| < ε → 0, then the clamp.
    #[inline(always)]
    pub fn sanitize(&self, x: f32) -> f32 {
        if !self.guarded {
            return x;
        }
        // A NaN fails the comparison and becomes 0 with the tiny ones.
        let x = if x.abs() >= self.epsilon { x } else { 0.0 };
        self.clamp(x)
    }

    /// The clamp alone; NaN stays NaN.
    #[inline(always)]
    pub fn clamp(&self, y: f32) -> f32 {
        if !self.guarded {
            return y;
        }
        let y = if y < self.lower { self.lower } else { y };
        if y > self.upper { self.upper } else { y }
    }

    /// Whether a value passes the clamp unchanged, so that its gradient passes too; NaN does not.
    #[inline(always)]
    pub fn passes(&self, v: f32) -> bool {
        !self.guarded | ((v >= self.lower) & (v <= self.upper))
    }
}
