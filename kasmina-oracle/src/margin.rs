//! How far a call is from the places where the formulas have no derivative.
//!
//! A finite difference across a kink says nothing, and a case whose expectation turns over with the
//! last bit of f32 tests rounding rather than the backend. Both ask here first.

use crate::forward::Probe;
use crate::kind::Activation;
use crate::lifecycle;
use crate::stability::{self, Bounds};
use crate::transform;
use crate::{OracleError, OracleLayer, StabilityMode};

impl OracleLayer {
    /// The smallest relative distance of any branch decision from turning over, in this call: of x
    /// and y from the bounds, of |x| from ε, and of relu's argument from 0.
    ///
    /// Bounds are measured against their own size (and their gap, where strict mode made it narrow),
    /// ε against itself, a relu of a matrix product against the largest argument of its row. The
    /// relu of an MlpExpansion is left out: the sign of a single product is the same in every precision.
    /// Seeds neither on path nor trainable decide nothing.
    ///
    /// # Errors
    /// As [`OracleLayer::forward_probed`].
    pub fn margin(&self, x: &[f64], probe: &Probe) -> Result<f64, OracleError> {
        self.validate(probe)?;
        self.check_matrix("x", x)?;
        let bounds = stability::bounds(&self.stability, x);
        let mut least = f64::INFINITY;
        for i in 0..self.seeds.len() {
            let alpha = match self.path_alpha(i, probe) {
                Some(alpha) => alpha,
                None if lifecycle::trainable(self.seeds[i].state) => 1.0,
                None => continue,
            };
            if alpha > 0.0 {
                for r in 0..self.rows {
                    least = least.min(self.row_margin(x, r, i, alpha, bounds));
                }
            }
        }
        Ok(least)
    }

    fn row_margin(&self, x: &[f64], r: usize, i: usize, alpha: f64, bounds: Bounds) -> f64 {
        let mut least = f64::INFINITY;
        if self.stability.mode != StabilityMode::Fast {
            for v in self.part(x, r, i).iter().filter(|v| v.is_finite()) {
                let epsilon = self.stability.epsilon;
                if epsilon > 0.0 {
                    least = least.min((v.abs() - epsilon).abs() / epsilon);
                }
                least = least.min(from_bounds(*v, bounds));
            }
            for v in self.blended_row(x, r, i, alpha, bounds) {
                least = least.min(from_bounds(v, bounds));
            }
        }
        let xs = self.sanitized_row(x, r, i, bounds);
        if let Some((Activation::Relu, z)) = transform::pre_activation(&self.seeds[i], &xs) {
            let top = z.iter().fold(f64::MIN_POSITIVE, |top, z| top.max(z.abs()));
            for z in z {
                least = least.min(z.abs() / top);
            }
        }
        least
    }
}

fn from_bounds(v: f64, bounds: Bounds) -> f64 {
    [bounds.lower, bounds.upper]
        .into_iter()
        .map(|b| {
            let size = b.abs().min(bounds.upper - bounds.lower);
            (v - b).abs() / size.max(f64::MIN_POSITIVE)
        })
        .fold(f64::INFINITY, f64::min)
}
