//! The backends a case can be run on, behind one trait.

use super::case::Case;
use super::judge::{Outcome, Output, SeedOutcome};

/// Runs a case.
pub trait Backend {
    /// Its name in a table.
    fn name(&self) -> &'static str;

    /// One forward and backward pass of `case`.
    ///
    /// # Errors
    /// Why the backend refused the case; that counts as a failed case.
    fn run(&self, case: &Case) -> Result<Outcome, BackendError>;
}

/// A backend refused a case.
#[derive(Debug, thiserror::Error)]
#[error("the {backend} backend failed to {step}: {source}")]
pub struct BackendError {
    /// Its name.
    pub backend: &'static str,
    /// What it was to do.
    pub step: &'static str,
    /// Why it did not.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The oracle as a backend: judges the case file rather than the project.
#[derive(Debug, Clone, Copy, Default)]
pub struct Oracle;

impl Backend for Oracle {
    fn name(&self) -> &'static str {
        "oracle"
    }

    fn run(&self, case: &Case) -> Result<Outcome, BackendError> {
        oracle_outcome(case).map_err(|e| BackendError {
            backend: self.name(),
            step: "run",
            source: Box::new(e),
        })
    }
}

fn oracle_outcome(case: &Case) -> Result<Outcome, kasmina_oracle::OracleError> {
    let layer = case.oracle();
    let (x, grad_y) = (case.x.values(), case.grad_y.values());
    let forward = layer.forward(&x)?;
    let backward = layer.backward(&x, &grad_y)?;
    let telemetry = layer.telemetry(&x, case.dead_epsilon)?;
    let grad_stats = layer.gradient_statistics(&grad_y)?;
    let seeds = backward.seeds.into_iter().zip(telemetry.iter().zip(grad_stats));
    Ok(Outcome {
        y: Output { values: forward.y, stored: None },
        grad_x: Output { values: backward.grad_x, stored: None },
        seeds: seeds
            .map(|(seed, (telemetry, grad_stats))| SeedOutcome {
                parameters: seed.parameters.map(|p| p.into_iter().map(|p| p.values).collect()),
                alpha: seed.alpha,
                reconstruction: seed.reconstruction,
                telemetry: telemetry.row(),
                grad_stats: grad_stats.map_or([f64::NAN; 3], |g| g.row()),
            })
            .collect(),
        disagreements: vec![],
    })
}
