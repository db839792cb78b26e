//! What all paired seeds bring together: the numbers of the table, the JSON file and the report.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::arms::{Arm, PairedSeed};
use crate::cost::Cost;
use crate::stats::Interval;

/// One arm over all paired seeds.
#[derive(Clone, Debug)]
pub(crate) struct ArmSummary {
    pub(crate) arm: Arm,
    pub(crate) accuracies: Vec<f64>,
    pub(crate) interval: Interval,
    /// Means over the paired seeds, rounded.
    pub(crate) cost: Cost,
}

/// The whole experiment.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) arms: Vec<ArmSummary>,
    pub(crate) seeds: Vec<PairedSeed>,
}

/// One line of the life of the first paired seed.
#[derive(Serialize)]
struct LifecycleLine<'a> {
    epoch: u32,
    seed: u32,
    from: &'a str,
    to: &'a str,
    why: &'a str,
}

impl Results {
    /// Summarises at least two paired seeds.
    pub(crate) fn new(seeds: Vec<PairedSeed>) -> Result<Self> {
        let summary = |(index, arm): (usize, Arm)| {
            let accuracies: Vec<f64> = seeds.iter().map(|seed| seed.arms[index].accuracy).collect();
            let interval =
                Interval::of(&accuracies).context("an interval needs two paired seeds")?;
            let mean = |part: fn(&Cost) -> u64| {
                let sum: u64 = seeds.iter().map(|seed| part(&seed.arms[index].cost)).sum();
                (sum as f64 / seeds.len() as f64).round() as u64
            };
            let cost = Cost {
                parameters: mean(|cost| cost.parameters),
                updates: mean(|cost| cost.updates),
                flops: mean(|cost| cost.flops),
            };
            Ok(ArmSummary { arm, accuracies, interval, cost })
        };
        let arms = Arm::ALL.into_iter().enumerate().map(summary).collect::<Result<_>>()?;
        Ok(Self { arms, seeds })
    }

    pub(crate) fn arm(&self, arm: Arm) -> &ArmSummary {
        // Made from `Arm::ALL`, which holds them in this order.
        &self.arms[arm as usize]
    }

    /// Kasmina's accuracy minus another arm's, paired.
    pub(crate) fn gain_over(&self, other: Arm) -> Interval {
        let (ours, other) = (self.arm(Arm::Kasmina), self.arm(other));
        Interval::of_differences(&ours.accuracies, &other.accuracies)
            .expect("as many pairs as the arms' own intervals were made of")
    }

    pub(crate) fn chosen_correctly(&self) -> usize {
        let right = |seed: &&PairedSeed| seed.life.chosen() == Some(seed.drifted_chunk);
        self.seeds.iter().filter(right).count()
    }

    pub(crate) fn host_unchanged(&self) -> bool {
        self.seeds.iter().all(|seed| seed.host_unchanged)
    }

    pub(crate) fn poison_removed(&self) -> bool {
        self.seeds.iter().all(|seed| seed.poison_removed)
    }

    pub(crate) fn untouched_while_training(&self) -> bool {
        let untouched = |seed: &PairedSeed| {
            seed.life.untouched_while_training && seed.poisoned.untouched_while_training
        };
        self.seeds.iter().all(untouched)
    }

    /// Promises that must hold whatever the accuracies are, with whether they did.
    pub(crate) fn invariants(&self) -> [(&'static str, bool); 3] {
        [
            ("the frozen host kept every bit", self.host_unchanged()),
            ("training left the output as it was, bit for bit", self.untouched_while_training()),
            ("the poisoned seed was culled and left no bit behind", self.poison_removed()),
        ]
    }

    /// The JSON file.
    pub(crate) fn json(&self) -> Value {
        let entry = |summary: &ArmSummary| {
            let Interval { mean, low, high } = summary.interval;
            let Cost { parameters, updates, flops } = summary.cost;
            json!({
                "accuracy_mean": mean, "ci95": [low, high], "parameters": parameters,
                "updates": updates, "flops": flops, "accuracies": summary.accuracies,
            })
        };
        let named = |arms: &[ArmSummary]| -> Map<String, Value> {
            arms.iter().map(|arm| (arm.arm.name().to_owned(), entry(arm))).collect()
        };
        let (eight, beside) = self.arms.split_at(Arm::AffineMap as usize);
        let gain = |other: Arm| {
            let Interval { mean, low, high } = self.gain_over(other);
            json!({ "mean": mean, "ci95": [low, high] })
        };
        let transitions = self.seeds[0].life.transitions.iter();
        let lifecycle: Vec<_> = transitions
            .map(|t| LifecycleLine {
                epoch: t.epoch,
                seed: t.seed,
                from: t.from.name(),
                to: t.to.name(),
                why: &t.why,
            })
            .collect();
        json!({
            "arms": named(eight),
            "arms_beside": named(beside),
            "kasmina_minus": {
                "affine": gain(Arm::Affine),
                "wrong_chunk": gain(Arm::WrongChunk),
                "full_finetune": gain(Arm::FullFinetune),
            },
            "chosen_chunk_correct": self.chosen_correctly(),
            "runs": self.seeds.len(),
            "host_unchanged": self.host_unchanged(),
            "output_unchanged_while_training": self.untouched_while_training(),
            "poisoned_culled": self.poison_removed(),
            "lifecycle": lifecycle,
        })
    }
}
