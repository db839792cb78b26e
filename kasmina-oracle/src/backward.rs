//! The backward pass: dL/dx, and dL/dparameters and dL/dα where a seed is trainable.

use crate::kind::Parameter;
use crate::lifecycle;
use crate::stability::{self, Bounds};
use crate::telemetry::GradientStatistics;
use crate::transform;
use crate::{Objective, OracleError, OracleLayer, Probe};

/// What one seed gets from a backward pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeedGradients {
    /// In the order of the seed's parameters; none unless the seed is trainable.
    pub parameters: Option<Vec<Parameter>>,
    /// dL/dα of a trainable seed on path with α > 0.
    pub alpha: Option<f64>,
    /// The reconstruction loss of a TRAINING seed with that objective.
    pub reconstruction: Option<f64>,
}

/// What a backward pass gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Backward {
    /// `[rows, hidden]`.
    pub grad_x: Vec<f64>,
    /// One a seed.
    pub seeds: Vec<SeedGradients>,
}

impl OracleLayer {
    /// The gradients of a loss L with dL/dy = `grad_y`, at the input `x`; both `[rows, hidden]`.
    ///
    /// # Errors
    /// Sizes, codes, numbers and parameters that do not fit; see [`OracleLayer::validate`].
    pub fn backward(&self, x: &[f64], grad_y: &[f64]) -> Result<Backward, OracleError> {
        self.backward_probed(x, grad_y, &Probe::none())
    }

    /// As [`OracleLayer::backward`], with some seeds probed. A probed TRAINING seed learns from the
    /// output it then has, whatever its objective.
    ///
    /// # Errors
    /// As [`OracleLayer::backward`], and probes of seeds that are not there or have no blueprint.
    pub fn backward_probed(
        &self,
        x: &[f64],
        grad_y: &[f64],
        probe: &Probe,
    ) -> Result<Backward, OracleError> {
        self.validate(probe)?;
        self.check_matrix("x", x)?;
        self.check_matrix("grad_y", grad_y)?;
        let bounds = stability::bounds(&self.stability, x);
        // Do no harm: where nothing else is said, "its gradient likewise".
        let mut grad_x = grad_y.to_vec();
        let seeds = (0..self.seeds.len())
            .map(|i| {
                let trainable = lifecycle::trainable(self.seeds[i].state);
                match self.path_alpha(i, probe) {
                    Some(alpha) if alpha > 0.0 => {
                        self.seed_on_path(i, alpha, trainable, x, grad_y, bounds, &mut grad_x)
                    }
                    // On path with α = 0: y does not depend on the parameters.
                    Some(_) if trainable => SeedGradients {
                        parameters: Some(self.named(i, self.zeros(i))),
                        ..SeedGradients::default()
                    },
                    None if trainable => self.seed_in_training(i, x, grad_y, bounds),
                    _ => SeedGradients::default(),
                }
            })
            .collect();
        Ok(Backward { grad_x, seeds })
    }

    /// The gradient statistics of every chunk of `grad_y`; none for a chunk without a finite element.
    ///
    /// # Errors
    /// As [`OracleLayer::backward`].
    pub fn gradient_statistics(
        &self,
        grad_y: &[f64],
    ) -> Result<Vec<Option<GradientStatistics>>, OracleError> {
        self.validate(&Probe::none())?;
        self.check_matrix("grad_y", grad_y)?;
        Ok((0..self.seeds.len())
            .map(|i| GradientStatistics::of(&self.chunk_values(grad_y, i)))
            .collect())
    }

    /// y = clamp(α·T(xs) + (1−α)·xs) with xs = sanitize(x), read backwards.
    #[expect(clippy::too_many_arguments, reason = "the terms of one formula")]
    fn seed_on_path(
        &self,
        i: usize,
        alpha: f64,
        trainable: bool,
        x: &[f64],
        grad_y: &[f64],
        bounds: Bounds,
        grad_x: &mut [f64],
    ) -> SeedGradients {
        let seed = &self.seeds[i];
        let mut sums = self.zeros(i);
        let mut d_alpha = 0.0;
        for r in 0..self.rows {
            let xs = self.sanitized_row(x, r, i, bounds);
            let t = transform::apply(seed, &xs);
            let y = self.blended_row(x, r, i, alpha, bounds);
            // "masked to 0 where … y was clamped"
            let g = self.through_clamp(self.part(grad_y, r, i), &y, bounds);
            // dL/dT = α·g, and y − xs = α·(T − xs) gives dL/dα = Σ g·(T − xs).
            let dt: Vec<f64> = g.iter().map(|g| alpha * g).collect();
            let from_branch = transform::pull_back(seed, &xs, &dt, &mut sums);
            let start = r * self.hidden + self.columns(i).start;
            for k in 0..xs.len() {
                d_alpha += g[k] * (t[k] - xs[k]);
                let dx = from_branch[k] + (1.0 - alpha) * g[k];
                let before = stability::sanitize_input(&self.stability, bounds, x[start + k]);
                grad_x[start + k] = if before.passes { dx } else { 0.0 };
            }
        }
        SeedGradients {
            parameters: trainable.then(|| self.named(i, sums)),
            alpha: trainable.then_some(d_alpha),
            reconstruction: None,
        }
    }

    /// "TRAINING never changes y or grad_x": only the parameters hear of this.
    fn seed_in_training(
        &self,
        i: usize,
        x: &[f64],
        grad_y: &[f64],
        bounds: Bounds,
    ) -> SeedGradients {
        let seed = &self.seeds[i];
        let mut sums = self.zeros(i);
        let mut loss = 0.0;
        let n = (self.rows * self.columns(i).len()) as f64;
        for r in 0..self.rows {
            let xs = self.sanitized_row(x, r, i, bounds);
            let t = transform::apply(seed, &xs);
            let dt: Vec<f64> = match seed.objective {
                // "parameter gradients of the task loss as if α = 1": y would be clamp(T(xs)).
                Objective::StraightThrough => {
                    self.through_clamp(self.part(grad_y, r, i), &t, bounds)
                }
                // d/dT of the mean of (T − xs)² is 2·(T − xs)/n; no clamp takes part.
                Objective::Reconstruction => {
                    let error = t.iter().zip(&xs).map(|(t, x)| t - x);
                    loss += error.clone().map(|e| e * e).sum::<f64>() / n;
                    error.map(|e| 2.0 * e / n).collect()
                }
            };
            transform::pull_back(seed, &xs, &dt, &mut sums);
        }
        let reconstructs = seed.objective == Objective::Reconstruction;
        SeedGradients {
            parameters: Some(self.named(i, sums)),
            alpha: None,
            reconstruction: reconstructs.then_some(loss),
        }
    }

    fn through_clamp(&self, g: &[f64], y: &[f64], bounds: Bounds) -> Vec<f64> {
        g.iter()
            .zip(y)
            .map(|(g, y)| {
                let after = stability::clamp_output(&self.stability, bounds, *y);
                if after.passes { *g } else { 0.0 }
            })
            .collect()
    }

    fn zeros(&self, i: usize) -> Vec<Vec<f64>> {
        let params = &self.seeds[i].params;
        params.iter().map(|p| vec![0.0; p.values.len()]).collect()
    }

    fn named(&self, i: usize, sums: Vec<Vec<f64>>) -> Vec<Parameter> {
        self.seeds[i]
            .params
            .iter()
            .zip(sums)
            .map(|(p, values)| Parameter::new(&p.name, values))
            .collect()
    }
}
