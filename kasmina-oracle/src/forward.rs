//! The forward pass: y = α·T(x) + (1−α)·x where a seed is on path, and x itself everywhere else.

use crate::stability::{self, Bounds};
use crate::telemetry::Statistics;
use crate::transform;
use crate::{OracleError, OracleLayer};

/// "a forward with a given α for a given seed, passed as an argument": (seed, α) pairs. A probed seed
/// is on path for that call with that α; its state, and with it whether it is trainable, stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probe(pub Vec<(usize, f64)>);

impl Probe {
    /// No seed is probed.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The α of seed `i` if it is probed; the last pair wins.
    #[must_use]
    pub fn alpha(&self, i: usize) -> Option<f64> {
        let found = self.0.iter().rev().find(|(seed, _)| *seed == i);
        found.map(|(_, alpha)| *alpha)
    }
}

/// What a forward pass gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// `[rows, hidden]`.
    pub y: Vec<f64>,
    /// The bounds that held.
    pub bounds: Bounds,
}

impl OracleLayer {
    /// y of `x[rows, hidden]`.
    ///
    /// # Errors
    /// Sizes, codes, numbers and parameters that do not fit; see [`OracleLayer::validate`].
    pub fn forward(&self, x: &[f64]) -> Result<Forward, OracleError> {
        self.forward_probed(x, &Probe::none())
    }

    /// As [`OracleLayer::forward`], with some seeds probed.
    ///
    /// # Errors
    /// As [`OracleLayer::forward`], and probes of seeds that are not there or have no blueprint.
    pub fn forward_probed(&self, x: &[f64], probe: &Probe) -> Result<Forward, OracleError> {
        self.validate(probe)?;
        self.check_matrix("x", x)?;
        let bounds = stability::bounds(&self.stability, x);
        // "a chunk whose seed is not on path comes out bit for bit as it came in, NaN included, in
        // every mode"; "With alpha = 0 the branch is skipped".
        let mut y = x.to_vec();
        for i in 0..self.seeds.len() {
            let Some(alpha) = self.blend(i, probe) else {
                continue;
            };
            for r in 0..self.rows {
                let blended = self.blended_row(x, r, i, alpha, bounds);
                let start = r * self.hidden + self.columns(i).start;
                for (k, raw) in blended.into_iter().enumerate() {
                    y[start + k] = stability::clamp_output(&self.stability, bounds, raw).value;
                }
            }
        }
        Ok(Forward { y, bounds })
    }

    /// The telemetry of every chunk of `x`: raw values, every state.
    ///
    /// # Errors
    /// As [`OracleLayer::forward`].
    pub fn telemetry(&self, x: &[f64], dead_epsilon: f64) -> Result<Vec<Statistics>, OracleError> {
        self.validate(&Probe::none())?;
        self.check_matrix("x", x)?;
        Ok((0..self.seeds.len())
            .map(|i| Statistics::of(&self.chunk_values(x, i), dead_epsilon))
            .collect())
    }

    /// Row `r` of seed `i`'s chunk after sanitizing.
    pub(crate) fn sanitized_row(&self, x: &[f64], r: usize, i: usize, bounds: Bounds) -> Vec<f64> {
        self.part(x, r, i)
            .iter()
            .map(|x| stability::sanitize_input(&self.stability, bounds, *x).value)
            .collect()
    }

    /// "Output on path: y = α·T(x) + (1−α)·x", before the clamp.
    pub(crate) fn blended_row(
        &self,
        x: &[f64],
        r: usize,
        i: usize,
        alpha: f64,
        bounds: Bounds,
    ) -> Vec<f64> {
        let xs = self.sanitized_row(x, r, i, bounds);
        let t = transform::apply(&self.seeds[i], &xs);
        t.iter().zip(&xs).map(|(t, x)| blend(alpha, *t, *x)).collect()
    }
}

/// α·T + (1−α)·x. At α = 1 the second term is absent, so that an infinite x does not become NaN.
fn blend(alpha: f64, t: f64, x: f64) -> f64 {
    if alpha == 1.0 { t } else { alpha * t + (1.0 - alpha) * x }
}
