//! A controller that finds sick chunks by telemetry against a baseline, and walks what it grows to the end.

use std::collections::BTreeMap;

use kasmina_telemetry::TelemetryReport;

use super::{Baseline, Controller, Decision, Deviation, Thresholds};
use crate::graft::Strategy;
use crate::{
    Blueprint, BlueprintId, Command, Error, Germination, Lifecycle, Objective, Readiness, Registry,
    Result, State,
};

/// The rules of a [`HeuristicController`].
#[derive(Clone, Debug, PartialEq)]
pub struct HeuristicConfig {
    /// Reports that make the baseline before anything is grown; default 3.
    pub baseline_epochs: u32,
    /// From where on a chunk is unhealthy.
    pub thresholds: Thresholds,
    /// Reports in a row in which a chunk must be unhealthy; default 2.
    pub confirmations: u32,
    /// Seeds from GERMINATED to FINE_TUNING at the same time; default 1.
    pub max_growing: usize,
    /// Germinations of one seed before it is left alone; default 3.
    pub max_attempts: u32,
    /// What the first, second, … attempt grows; the last one repeats.
    pub blueprints: Vec<BlueprintId>,
    /// What the first attempt grows where only the mean has moved, if anything else than the above.
    /// Telemetry cannot tell an affine drift from a nonlinear one that happens to keep the variance, so
    /// the default is `None`.
    pub affine: Option<BlueprintId>,
    /// How a seed is blended in; default a fixed ramp.
    pub strategy: Strategy,
    /// How a seed of a chunk with a score of at least `severe` is blended in: its branch has far to go,
    /// so by default the ramp waits while the weights drift.
    pub severe_strategy: Strategy,
    /// The score from which `severe_strategy` is used; default 8.
    pub severe: f64,
    /// What a seed learns from while TRAINING.
    pub objective: Objective,
}

impl HeuristicConfig {
    /// The defaults with the registry's first bottleneck, then its first dense branch: the kinds that add
    /// capacity anywhere. A nonlinear drift needs capacity, and a bottleneck can undo an affine one too.
    ///
    /// # Errors
    /// [`Error::UnregisteredBlueprint`] if the registry has neither.
    pub fn new(registry: &Registry) -> Result<Self> {
        let is = |wanted: fn(&Blueprint) -> bool| {
            let mut entries = registry.iter();
            entries.find(|(_, blueprint)| wanted(blueprint)).map(|(name, _)| registry.find(name))
        };
        let found = [
            is(|blueprint| matches!(blueprint, Blueprint::Bottleneck { .. })),
            is(|blueprint| matches!(blueprint, Blueprint::Dense { .. })),
        ];
        let blueprints = found.into_iter().flatten().collect::<Result<Vec<_>>>()?;
        if blueprints.is_empty() {
            registry.find("bottleneck")?;
        }
        Ok(Self {
            baseline_epochs: 3,
            thresholds: Thresholds::default(),
            confirmations: 2,
            max_growing: 1,
            max_attempts: 3,
            blueprints,
            affine: None,
            strategy: Strategy::default(),
            severe_strategy: Strategy::drift_controlled(),
            severe: 8.0,
            objective: Objective::default(),
        })
    }

    fn validate(&self) -> Result<()> {
        if self.baseline_epochs == 0 {
            return Err(Error::Zero { what: "baseline_epochs" });
        }
        if self.blueprints.is_empty() {
            return Err(Error::Zero { what: "the number of blueprints to choose from" });
        }
        let t = &self.thresholds;
        for (what, value) in [
            ("thresholds.mean", t.mean),
            ("thresholds.log_variance", t.log_variance),
            ("thresholds.dead", t.dead),
            ("thresholds.nonfinite", t.nonfinite),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::Value {
                    what: what.into(),
                    value,
                    legal: "finite and more than 0",
                });
            }
        }
        for (what, value) in [("thresholds.noise", t.noise), ("severe", self.severe)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::Value { what: what.into(), value, legal: "finite and ≥ 0" });
            }
        }
        self.strategy.validate()?;
        self.severe_strategy.validate()
    }
}

/// Finds the sickest dormant chunk, grows a blueprint there, and follows [`Lifecycle::readiness`] until the
/// seed is fossilized, or culled or cancelled, in which case it may try again after the embargo.
#[derive(Clone, Debug)]
pub struct HeuristicController {
    config: HeuristicConfig,
    baseline: Baseline,
    /// Unhealthy reports in a row, of seeds that have any.
    streaks: BTreeMap<usize, u32>,
    /// Germinations so far, of seeds that have any.
    attempts: BTreeMap<usize, u32>,
}

impl HeuristicController {
    /// A controller that takes its baseline from the first reports it sees.
    ///
    /// # Errors
    /// [`Error::Zero`] or [`Error::Value`] for a number out of range.
    pub fn new(config: HeuristicConfig) -> Result<Self> {
        Self::with_baseline(config, Baseline::default())
    }

    /// A controller with a baseline taken earlier.
    ///
    /// # Errors
    /// As [`HeuristicController::new`].
    pub fn with_baseline(config: HeuristicConfig, baseline: Baseline) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, baseline, streaks: BTreeMap::new(), attempts: BTreeMap::new() })
    }

    /// The rules.
    pub fn config(&self) -> &HeuristicConfig {
        &self.config
    }

    /// What is normal, as far as it is known; it can be saved and given to
    /// [`HeuristicController::with_baseline`].
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Whether the baseline is complete.
    pub fn has_baseline(&self) -> bool {
        self.baseline.epochs() >= self.config.baseline_epochs
    }

    /// Every chunk's deviation from its normal; `None` where it was not measured.
    pub fn deviations(&self, report: &TelemetryReport) -> Vec<Option<Deviation>> {
        let deviation =
            |(seed, stats)| self.baseline.deviation(seed, stats, &self.config.thresholds);
        report.chunk.iter().enumerate().map(deviation).collect()
    }

    /// The blueprint and strategy for a seed, by the rules of [`HeuristicConfig`].
    fn germination(&self, seed: usize, deviation: &Deviation) -> Germination {
        let config = &self.config;
        let attempt = self.attempts.get(&seed).copied().unwrap_or(0) as usize;
        let last = config.blueprints.len() - 1; // not empty: validated
        let only_mean_moved = deviation.leading == "mean"
            && deviation.log_variance_ratio.abs() < config.thresholds.log_variance
            && deviation.dead_change.abs() < config.thresholds.dead;
        let blueprint = match config.affine {
            Some(affine) if attempt == 0 && only_mean_moved => affine,
            _ => config.blueprints[attempt.min(last)],
        };
        let severe = deviation.score >= config.severe;
        let strategy = if severe { &config.severe_strategy } else { &config.strategy };
        Germination::new(blueprint).strategy(strategy.clone()).objective(config.objective)
    }

    /// Follows readiness for everything that has grown or is on its way back to dormant.
    fn walk(&self, lifecycle: &Lifecycle, seed: usize) -> Option<Decision> {
        match lifecycle.readiness(seed).ok()? {
            Readiness::Ready(verdict) | Readiness::Harmful(verdict) => {
                let spent =
                    self.attempts.get(&seed).copied().unwrap_or(0) >= self.config.max_attempts;
                if verdict.command == Command::Reset && spent {
                    return None;
                }
                Some(Decision { seed, command: verdict.command, why: verdict.why })
            }
            Readiness::Waiting(_) | Readiness::Settled => None,
        }
    }
}

impl Controller for HeuristicController {
    fn decide(&mut self, lifecycle: &Lifecycle, report: &TelemetryReport) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut growing = 0;
        for (seed, &state) in lifecycle.table().states().iter().enumerate() {
            if state.owns_parameters() && state != State::Fossilized {
                growing += 1;
            }
            if state != State::Dormant && lifecycle.waiting(seed).is_none() {
                decisions.extend(self.walk(lifecycle, seed));
            }
        }
        if !self.has_baseline() {
            self.baseline.observe(report);
            return decisions;
        }
        let mut sick = Vec::new();
        let dormant = lifecycle.table().states().iter().map(|&state| state == State::Dormant);
        for ((seed, stats), dormant) in report.chunk.iter().enumerate().zip(dormant) {
            let deviation = self.baseline.deviation(seed, stats, &self.config.thresholds);
            // A chunk that was not measured keeps its streak: it is neither sick nor well.
            let Some(deviation) = deviation else { continue };
            if !dormant || deviation.score < 1.0 {
                self.streaks.remove(&seed);
                continue;
            }
            let streak = self.streaks.entry(seed).or_insert(0);
            *streak = streak.saturating_add(1);
            let attempts = self.attempts.get(&seed).copied().unwrap_or(0);
            let waits = lifecycle.waiting(seed).is_some();
            if waits {
                growing += 1;
            } else if *streak >= self.config.confirmations && attempts < self.config.max_attempts {
                sick.push((seed, deviation));
            }
        }
        // Worst first; equal scores in the order of the seeds, so that runs repeat.
        sick.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
        for (seed, deviation) in
            sick.into_iter().take(self.config.max_growing.saturating_sub(growing))
        {
            let germination = self.germination(seed, &deviation);
            *self.attempts.entry(seed).or_insert(0) += 1;
            let why = format!(
                "its {} is off by {:.1} times what counts (mean {:.2} σ, ln variance {:+.2}, dead {:+.3}, \
                 non-finite {:+.4})",
                deviation.leading,
                deviation.score,
                deviation.mean_shift,
                deviation.log_variance_ratio,
                deviation.dead_change,
                deviation.nonfinite_rise
            );
            decisions.push(Decision { seed, command: Command::Germinate(germination), why });
        }
        decisions
    }
}
