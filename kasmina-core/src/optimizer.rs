//! The built-in optimizer: AdamW over the parameters of a layer's trainable seeds.
//!
//! Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2 with a constant
//! schedule, per seed with its own count t of updates:
//!
//! ```text
//! m ← β₁m + (1 − β₁)g          v ← β₂v + (1 − β₂)g²
//! p ← p − η·( (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε) + λp )
//! ```

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::lifecycle::{GrownSeed, Lifecycle, OptimizerState, SeedSignals};
use crate::{Error, Result};

/// AdamW and its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// η; default 1e-3.
    pub learning_rate: f64,
    /// β₁, the decay of the first moment; default 0.9.
    pub beta1: f64,
    /// β₂, the decay of the second moment; default 0.999.
    pub beta2: f64,
    /// ε; default 1e-8.
    pub epsilon: f64,
    /// λ; default 0.01.
    pub weight_decay: f64,
    /// Scales a seed's gradients down to this L2 norm, seed by seed, where they exceed it. Default `None`.
    pub clip_norm: Option<f64>,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
            clip_norm: None,
        }
    }
}

/// What one optimizer step did.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "seeds with damaged gradients are reported here and nowhere else"]
pub struct OptimizerReport {
    /// Seeds whose parameters were updated.
    pub updated: Vec<SeedUpdate>,
    /// Seeds that were left as they were, ascending. Their gradients are dropped.
    pub skipped: Vec<SkippedSeed>,
}

/// One updated seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeedUpdate {
    /// The seed.
    pub seed: usize,
    /// L2 norm of its gradients, before clipping.
    pub gradient_norm: f64,
    /// Whether they were clipped.
    pub clipped: bool,
}

/// One seed that was not updated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SkippedSeed {
    /// The seed.
    pub seed: usize,
    /// Why.
    pub reason: SkipReason,
}

/// Why a seed was not updated.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The optimizer's own numbers are out of range; [`AdamW::validate`] says which.
    InvalidSettings,
    /// A gradient is NaN or infinite: this one of the seed's flat parameters.
    NonFiniteGradient {
        /// Index of the parameter.
        index: usize,
    },
    /// The update would overflow this one of the seed's flat parameters, or its moments.
    Overflow {
        /// Index of the parameter.
        index: usize,
    },
}

impl AdamW {
    /// The default numbers with the given learning rate.
    pub fn new(learning_rate: f64) -> Self {
        Self { learning_rate, ..Self::default() }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Value`] for a number outside its range.
    pub fn validate(&self) -> Result<()> {
        let non_negative = |v: f64| v.is_finite() && v >= 0.0;
        let rows = [
            (
                "learning_rate",
                self.learning_rate,
                non_negative(self.learning_rate),
                "finite and ≥ 0",
            ),
            ("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "at least 0 and less than 1"),
            ("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "at least 0 and less than 1"),
            (
                "epsilon",
                self.epsilon,
                self.epsilon.is_finite() && self.epsilon > 0.0,
                "finite and more than 0",
            ),
            ("weight_decay", self.weight_decay, non_negative(self.weight_decay), "finite and ≥ 0"),
        ];
        let clip =
            self.clip_norm.map(|v| ("clip_norm", v, v.is_finite() && v > 0.0, "finite and > 0"));
        for (what, value, ok, legal) in rows.into_iter().chain(clip) {
            if !ok {
                return Err(Error::Value { what: format!("AdamW's {what}"), value, legal });
            }
        }
        Ok(())
    }

    /// Updates every seed that has gathered gradients, and consumes them. The gradient norm is recorded
    /// as the seed's signal. A seed that is skipped keeps its parameters and its optimizer state; with
    /// numbers that [`AdamW::validate`] refuses, that is every seed.
    pub fn step(&self, lifecycle: &mut Lifecycle) -> OptimizerReport {
        let valid = self.validate().is_ok();
        let epoch = lifecycle.epoch();
        let mut seeds: Vec<_> =
            lifecycle.grown_seeds_mut().filter(|(_, grown)| grown.has_gradients).collect();
        // Seeds share nothing, so how they are spread over threads changes no bit.
        let results: Vec<_> = seeds
            .par_iter_mut()
            .map_init(Scratch::default, |scratch, (seed, grown)| {
                let result = match valid {
                    true => self.update(grown, scratch, epoch),
                    false => Err(SkipReason::InvalidSettings),
                };
                grown.clear_gradients();
                (*seed, result)
            })
            .collect();
        let mut report = OptimizerReport::default();
        for (seed, result) in results {
            match result {
                Ok((gradient_norm, clipped)) => {
                    report.updated.push(SeedUpdate { seed, gradient_norm, clipped });
                }
                Err(reason) => report.skipped.push(SkippedSeed { seed, reason }),
            }
        }
        for skipped in &report.skipped {
            tracing::warn!(
                target: "kasmina::optimizer", seed = skipped.seed, reason = ?skipped.reason,
                "seed not updated"
            );
        }
        for update in &report.updated {
            lifecycle.parameters_changed(update.seed, epoch);
        }
        report
    }

    /// One seed's update; on an error it is as it was. Answers the gradient norm and whether it was clipped.
    fn update(
        &self,
        seed: &mut GrownSeed,
        scratch: &mut Scratch,
        epoch: u32,
    ) -> Result<(f64, bool), SkipReason> {
        if let Some(index) = seed.gradients.iter().position(|g| !g.is_finite()) {
            return Err(SkipReason::NonFiniteGradient { index });
        }
        let norm = seed.gradients.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let scale = match self.clip_norm {
            Some(limit) if norm > limit => limit / norm,
            _ => 1.0,
        };
        let n = seed.parameters.len();
        let updates = seed.optimizer.as_ref().map_or(0, |state| state.updates).saturating_add(1);
        let (correct1, correct2) =
            (correction(self.beta1, updates), correction(self.beta2, updates));

        scratch.resize(n);
        let old = seed.optimizer.as_ref();
        for i in 0..n {
            let (p, g) = (f64::from(seed.parameters[i]), f64::from(seed.gradients[i]) * scale);
            let (m, v) =
                old.map_or((0.0, 0.0), |o| (f64::from(o.first[i]), f64::from(o.second[i])));
            let m = self.beta1 * m + (1.0 - self.beta1) * g;
            let v = self.beta2 * v + (1.0 - self.beta2) * g * g;
            let direction = (m / correct1) / ((v / correct2).sqrt() + self.epsilon);
            let p = p - self.learning_rate * (direction + self.weight_decay * p);
            let new = (p as f32, m as f32, v as f32);
            // A second moment that overflows would freeze its parameter for good.
            if !(new.0.is_finite() && new.1.is_finite() && new.2.is_finite()) {
                return Err(SkipReason::Overflow { index: i });
            }
            (scratch.parameters[i], scratch.first[i], scratch.second[i]) = new;
        }
        seed.parameters.copy_from_slice(&scratch.parameters);
        let state = seed.optimizer.get_or_insert_with(|| OptimizerState::new(n));
        state.first.copy_from_slice(&scratch.first);
        state.second.copy_from_slice(&scratch.second);
        state.updates = updates;
        let signals = SeedSignals { gradient_norm: Some(norm), ..SeedSignals::default() };
        seed.measured.record(&signals, epoch);
        Ok((norm, scale < 1.0))
    }
}

/// New values of one seed, until all of them are known to be good.
#[derive(Default)]
struct Scratch {
    parameters: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Scratch {
    fn resize(&mut self, n: usize) {
        for buffer in [&mut self.parameters, &mut self.first, &mut self.second] {
            buffer.resize(n, 0.0);
        }
    }
}

/// 1 − βᵗ, through expm1: for β near 1 and small t the difference would cancel.
fn correction(beta: f64, updates: u64) -> f64 {
    if beta == 0.0 { 1.0 } else { -(beta.ln() * updates as f64).exp_m1() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Blueprint, InitialSeed, LifecycleConfig, Registry, SeedLayout, State};

    const N: usize = 5; // a residual of 4 columns

    fn lifecycle(states: &[State]) -> Lifecycle {
        let layout = SeedLayout::new(4 * states.len(), 4).unwrap();
        let config = LifecycleConfig::default();
        let mut lifecycle = Lifecycle::new(layout, Registry::builtin(), config, 3).unwrap();
        for (seed, &state) in states.iter().enumerate() {
            let blueprint = state.owns_parameters().then_some(Blueprint::Residual);
            let parameters = state
                .owns_parameters()
                .then(|| vec![vec![0.5, -1.0, 2.0, 0.0], vec![1.0 + seed as f32]]);
            let initial = InitialSeed { state, blueprint, parameters, ..InitialSeed::default() };
            lifecycle.import(seed, initial).unwrap();
        }
        lifecycle.take_dirty();
        lifecycle
    }

    fn give(lifecycle: &mut Lifecycle, seed: usize, gradients: &[f32]) {
        let grown = lifecycle.grown_mut(seed).unwrap();
        grown.gradients.copy_from_slice(gradients);
        grown.has_gradients = true;
    }

    /// The paper's algorithm, in f64, one parameter at a time, with powers instead of logarithms.
    fn reference(optimizer: &AdamW, start: &[f32], gradients: &[Vec<f32>]) -> Vec<f64> {
        let norm = |g: &[f32]| g.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        (0..start.len())
            .map(|i| {
                let (mut p, mut m, mut v) = (f64::from(start[i]), 0.0, 0.0);
                for (t, g) in gradients.iter().enumerate() {
                    let clip = optimizer.clip_norm.map_or(1.0, |limit| (limit / norm(g)).min(1.0));
                    let g = f64::from(g[i]) * clip;
                    m = optimizer.beta1 * m + (1.0 - optimizer.beta1) * g;
                    v = optimizer.beta2 * v + (1.0 - optimizer.beta2) * g * g;
                    let t = t as i32 + 1;
                    let m_hat = m / (1.0 - optimizer.beta1.powi(t));
                    let v_hat = v / (1.0 - optimizer.beta2.powi(t));
                    let decay = optimizer.learning_rate * optimizer.weight_decay * p;
                    p -= optimizer.learning_rate * m_hat / (v_hat.sqrt() + optimizer.epsilon)
                        + decay;
                }
                p
            })
            .collect()
    }

    #[test]
    fn agrees_with_the_algorithm_in_f64() {
        for clip_norm in [None, Some(0.7), Some(1e9)] {
            let optimizer =
                AdamW { learning_rate: 0.01, weight_decay: 0.1, clip_norm, ..AdamW::default() };
            let mut lifecycle = lifecycle(&[State::Training, State::FineTuning]);
            let start = lifecycle.grown(1).unwrap().parameters().to_vec();
            let gradients: Vec<Vec<f32>> = (0..60)
                .map(|t| (0..N).map(|i| ((t * 7 + i * 3) as f32).sin() * 2.0).collect())
                .collect();
            for g in &gradients {
                give(&mut lifecycle, 1, g);
                let report = optimizer.step(&mut lifecycle);
                assert_eq!(report.updated.len(), 1);
                assert_eq!(report.updated[0].clipped, clip_norm == Some(0.7));
            }
            let expected = reference(&optimizer, &start, &gradients);
            for (p, e) in lifecycle.grown(1).unwrap().parameters().iter().zip(expected) {
                assert!((f64::from(*p) - e).abs() < 2e-6 * (1.0 + e.abs()), "{p} for {e}");
            }
        }
    }

    #[test]
    fn consumes_gradients_and_touches_only_seeds_that_have_some() {
        let mut lifecycle = lifecycle(&[State::Training, State::Dormant, State::Grafting]);
        let before = lifecycle.grown(0).unwrap().clone();
        give(&mut lifecycle, 2, &[0.3, 0.0, 0.0, 0.4, 0.0]);
        let optimizer = AdamW::new(0.1);
        let report = optimizer.step(&mut lifecycle);
        assert_eq!(report.updated.len(), 1);
        assert!((report.updated[0].gradient_norm - 0.5).abs() < 1e-7);
        assert_eq!(lifecycle.take_dirty(), [2]);
        assert_eq!(*lifecycle.grown(0).unwrap(), before);
        let grown = lifecycle.grown(2).unwrap();
        assert!(grown.gradients().is_none() && grown.gradients == [0.0; N]);
        assert!(grown.measured.gradient_norm.is_some());
        assert_eq!(grown.updates(), 1);
        assert_eq!(optimizer.step(&mut lifecycle), OptimizerReport::default(), "nothing is left");
    }

    #[test]
    fn damaged_gradients_are_reported_and_change_nothing() {
        for (bad, index) in [(f32::NAN, 3), (f32::INFINITY, 0), (f32::MAX, 1)] {
            let mut lifecycle = lifecycle(&[State::Training]);
            give(&mut lifecycle, 0, &[0.1; N]);
            assert_eq!(AdamW::default().step(&mut lifecycle).skipped, []);
            lifecycle.take_dirty();
            let before = lifecycle.grown(0).unwrap().clone();
            let mut gradients = [0.1; N];
            gradients[index] = bad;
            give(&mut lifecycle, 0, &gradients);
            let report = AdamW::default().step(&mut lifecycle);
            assert!(report.updated.is_empty());
            let reason = match bad.is_finite() {
                true => SkipReason::Overflow { index },
                false => SkipReason::NonFiniteGradient { index },
            };
            assert_eq!(report.skipped, [SkippedSeed { seed: 0, reason }]);
            assert_eq!(*lifecycle.grown(0).unwrap(), before, "gradients are consumed all the same");
            assert!(lifecycle.take_dirty().is_empty());
        }
    }

    #[test]
    fn invalid_numbers_are_named_and_update_nothing() {
        let invalid = [
            AdamW { learning_rate: f64::NAN, ..AdamW::default() },
            AdamW { beta1: 1.0, ..AdamW::default() },
            AdamW { beta2: -0.1, ..AdamW::default() },
            AdamW { epsilon: 0.0, ..AdamW::default() },
            AdamW { weight_decay: -1.0, ..AdamW::default() },
            AdamW { clip_norm: Some(0.0), ..AdamW::default() },
        ];
        for optimizer in invalid {
            assert!(optimizer.validate().is_err());
            let mut lifecycle = lifecycle(&[State::Training]);
            give(&mut lifecycle, 0, &[0.1; N]);
            let before = lifecycle.grown(0).unwrap().parameters().to_vec();
            let report = optimizer.step(&mut lifecycle);
            assert_eq!(report.skipped[0].reason, SkipReason::InvalidSettings);
            assert_eq!(lifecycle.grown(0).unwrap().parameters(), before);
        }
    }

    #[test]
    fn the_bias_correction_does_not_cancel() {
        for beta in [0.0, 0.5, 0.9, 0.999, 1.0 - 1e-9] {
            for t in [1u64, 2, 1000] {
                // 1 − βᵗ = (1 − β)·Σ βᵏ, which has no difference of near equals but the first.
                let sum: f64 = (0..t as i32).map(|k| f64::powi(beta, k)).sum();
                let expected = (1.0 - beta) * sum;
                assert!((correction(beta, t) / expected - 1.0).abs() < 1e-7, "{beta} {t}");
            }
        }
    }

    #[test]
    fn optimizer_state_lives_and_dies_with_the_parameters() {
        use crate::Command;
        let mut lifecycle = lifecycle(&[State::FineTuning]);
        give(&mut lifecycle, 0, &[0.1; N]);
        let _ = AdamW::default().step(&mut lifecycle);
        assert!(lifecycle.grown(0).unwrap().optimizer.is_some());
        let mut culled = lifecycle.clone();
        lifecycle.command(0, Command::Fossilize, "").unwrap();
        drop(lifecycle.end_epoch());
        let grown = lifecycle.grown(0).unwrap();
        assert!(grown.optimizer.is_none() && grown.gradients.is_empty());
        assert_eq!(grown.parameters.len(), N);
        culled.command(0, Command::Cull, "").unwrap();
        drop(culled.end_epoch());
        assert!(culled.grown(0).is_none());
    }
}
