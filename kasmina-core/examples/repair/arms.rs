//! The arms of the experiment on one paired seed: the same host, drift, rows, updates for all of them.

use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Tensor;
use candle_nn::{Optimizer, loss::cross_entropy};
use kasmina_core::candle::{DevicePasses, KasminaLayer};
use kasmina_core::cuda::Engine;
use kasmina_core::{Blueprint, ForwardOptions, InitialSeed, Layer, Registry, SeedLayout, State};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::blueprints::{AffineMap, Poisoned, Recalibration};
use crate::cost::Cost;
use crate::data::{PIXELS, Rows, Split};
use crate::drift::Drift;
use crate::grow::{LEARNING_RATE, Life, Update, World};
use crate::host::{self, Host, adam, tensor_bits};

/// Columns of a chunk: four chunks, two rows of pixels each.
pub(crate) const CHUNK: usize = 16;

/// An arm, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Arm {
    Clean,
    Drifted,
    Affine,
    RandomChunk,
    WrongChunk,
    FullFinetune,
    Poisoned,
    Kasmina,
    /// Beside the eight: the strongest affine map there is, for scale.
    AffineMap,
}

impl Arm {
    pub(crate) const ALL: [Self; 9] = [
        Self::Clean,
        Self::Drifted,
        Self::Affine,
        Self::RandomChunk,
        Self::WrongChunk,
        Self::FullFinetune,
        Self::Poisoned,
        Self::Kasmina,
        Self::AffineMap,
    ];

    /// The name in the JSON file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Drifted => "drifted",
            Self::Affine => "affine",
            Self::RandomChunk => "random_chunk",
            Self::WrongChunk => "wrong_chunk",
            Self::FullFinetune => "full_finetune",
            Self::Poisoned => "poisoned",
            Self::Kasmina => "kasmina",
            Self::AffineMap => "affine_map",
        }
    }

    /// What it is, in words for the report.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Clean => "clean sensors, the frozen host",
            Self::Drifted => "drifted sensors, nothing done",
            Self::Affine => "gain and offset of each sensor of the right chunk retrained",
            Self::RandomChunk => "the bottleneck on a chunk drawn at random",
            Self::WrongChunk => "the bottleneck two chunks away from the drift",
            Self::FullFinetune => "the whole host retrained",
            Self::Poisoned => "a blueprint with a latent fault, grown by the controller and culled",
            Self::Kasmina => "the bottleneck, found, grown and judged by the controller",
            Self::AffineMap => "a full affine matrix on the right chunk, for scale",
        }
    }
}

/// Test accuracy of an arm and what it cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) accuracy: f64,
    pub(crate) cost: Cost,
}

/// Everything one paired seed brought.
#[derive(Debug)]
pub(crate) struct PairedSeed {
    /// Outcomes in the order of [`Arm::ALL`].
    pub(crate) arms: Vec<Outcome>,
    pub(crate) drifted_chunk: usize,
    pub(crate) life: Life,
    pub(crate) poisoned: Life,
    /// Whether the host that all but `full_finetune` share kept every bit.
    pub(crate) host_unchanged: bool,
    /// Whether the poisoned seed was culled and test scores are those of the drifted host, bit for bit.
    pub(crate) poison_removed: bool,
    /// Passes of all layers, where they were to run on a GPU.
    pub(crate) passes: DevicePasses,
}

/// Independent streams of random numbers of one paired seed.
fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

impl PairedSeed {
    /// Runs all arms, with their layers on the engine's device where there is one; `done` is told after each.
    pub(crate) fn run(
        seed: u64,
        digits: &Rows,
        engine: Option<&Arc<Engine>>,
        done: &dyn Fn(Arm),
    ) -> Result<Self> {
        let layout = SeedLayout::new(PIXELS, CHUNK)?;
        let clean = digits.split(&mut stream(seed, 0));
        let drift = Drift::random(layout, &mut stream(seed, 1));
        let drifted = Split {
            train: drift.apply(&clean.train),
            held_back: drift.apply(&clean.held_back),
            test: drift.apply(&clean.test),
        };
        let host = Host::train(&clean.train, &mut stream(seed, 2), stream(seed, 3))?;
        let bits = host.bits()?;
        let world = World { host: &host, layout, clean: &clean, drifted: &drifted, seed, engine };
        let mut outcomes = Vec::new();
        let mut add = |arm: Arm, scores: Tensor, rows: &Rows, cost: Cost| -> Result<()> {
            let accuracy = host::accuracy(&scores, &rows.tensors()?.1)?;
            outcomes.push((arm, Outcome { accuracy, cost }));
            done(arm);
            Ok(())
        };
        let test = &drifted.test;
        let (x, _) = test.tensors()?;
        let drifted_scores = host.logits(&x)?;
        add(Arm::Clean, host.logits(&clean.test.tensors()?.0)?, &clean.test, Cost::default())?;
        add(Arm::Drifted, drifted_scores.clone(), test, Cost::default())?;

        let life = Life::live(&world, Registry::builtin(), "bottleneck", stream(seed, 4))?;
        add(Arm::Kasmina, scores(&host, &life.module, &x)?, test, life.cost)?;

        let mut registry = Registry::builtin();
        registry.register_user(Arc::new(Poisoned))?;
        let poisoned = Life::live(&world, registry, "poisoned", stream(seed, 4))?;
        let poisoned_scores = scores(&host, &poisoned.module, &x)?;
        let poison_removed = poisoned.end() == Some(State::Culled)
            && tensor_bits(&poisoned_scores)? == tensor_bits(&drifted_scores)?;
        add(Arm::Poisoned, poisoned_scores, test, poisoned.cost)?;

        let mut passes = life.module.device_passes().unwrap_or_default();
        passes += poisoned.module.device_passes().unwrap_or_default();
        let bottleneck = {
            let layer = life.module.layer();
            layer.registry().get(layer.registry().find("bottleneck")?)?.clone()
        };
        let mut rng = stream(seed, 5);
        // Two away, so that it shares no border with the drifted pixels; the random one may.
        let wrong = (drift.chunk + 2) % layout.seeds();
        let random = rng.random_range(0..layout.seeds());
        let recalibration = Blueprint::User(Arc::new(Recalibration));
        let affine_map = Blueprint::User(Arc::new(AffineMap));
        for (arm, chunk, blueprint) in [
            (Arm::Affine, drift.chunk, &recalibration),
            (Arm::AffineMap, drift.chunk, &affine_map),
            (Arm::RandomChunk, random, &bottleneck),
            (Arm::WrongChunk, wrong, &bottleneck),
        ] {
            let (module, cost) = train_adapter(&world, chunk, blueprint, &life.updates)?;
            let outcome = scores(&host, &module, &x)?;
            passes += module.device_passes().unwrap_or_default();
            add(arm, outcome, test, cost)?;
        }

        let (tuned, cost) = fine_tune(&host, &drifted.train, &life.updates)?;
        add(Arm::FullFinetune, tuned.logits(&x)?, test, cost)?;

        outcomes.sort_by_key(|(arm, _)| *arm);
        Ok(Self {
            arms: outcomes.into_iter().map(|(_, outcome)| outcome).collect(),
            drifted_chunk: drift.chunk,
            host_unchanged: host.bits()? == bits,
            poison_removed,
            passes,
            life,
            poisoned,
        })
    }
}

/// The host's scores behind a layer.
fn scores(host: &Host, module: &KasminaLayer, x: &Tensor) -> Result<Tensor> {
    let quiet = ForwardOptions::new().inference().without_telemetry();
    host.logits(&module.forward_with(x, &quiet)?)
}

/// A blueprint on a given chunk, on path from the start, trained with the given updates on the drifted
/// rows in front of the frozen host.
fn train_adapter(
    world: &World<'_>,
    chunk: usize,
    blueprint: &Blueprint,
    updates: &[Update],
) -> Result<(KasminaLayer, Cost)> {
    let initial = InitialSeed {
        state: State::FineTuning,
        alpha: 1.0,
        blueprint: Some(blueprint.clone()),
        ..InitialSeed::default()
    };
    let layer = Layer::builder(world.layout).rng_seed(world.seed).seed(chunk, initial).build()?;
    let grown = layer.lifecycle().grown(chunk).context("the seed starts with parameters")?;
    let cost = Cost {
        parameters: grown.parameters().len() as u64,
        updates: updates.len() as u64,
        flops: updates.len() as u64 * Cost::update(blueprint, world.layout.chunk_len(chunk)),
    };
    let module = world.module(layer)?;
    let mut optimizer = adam(module.vars()?, LEARNING_RATE)?;
    for update in updates {
        let (x, labels) = world.drifted.train.select(&update.rows).tensors()?;
        let y = module.forward_with(&x, &ForwardOptions::new().without_telemetry())?;
        optimizer.set_learning_rate(update.learning_rate);
        optimizer.backward_step(&cross_entropy(&world.host.logits(&y)?, &labels)?)?;
    }
    Ok((module, cost))
}

/// A copy of the host, all of it trained with the given updates on the drifted rows.
fn fine_tune(host: &Host, rows: &Rows, updates: &[Update]) -> Result<(Host, Cost)> {
    let (tuned, vars) = host.trainable_copy()?;
    let mut optimizer = adam(vars, LEARNING_RATE)?;
    for update in updates {
        let (x, labels) = rows.select(&update.rows).tensors()?;
        optimizer.set_learning_rate(update.learning_rate);
        optimizer.backward_step(&cross_entropy(&tuned.logits(&x)?, &labels)?)?;
    }
    let updates = updates.len() as u64;
    let flops = updates * Cost::host_update();
    Ok((tuned, Cost { parameters: host::PARAMETERS, updates, flops }))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn one_paired_seed_is_found_repaired_and_kept() {
        let digits = crate::data::load().unwrap();
        let done = RefCell::new(Vec::new());
        let run = PairedSeed::run(1, &digits, None, &|arm| done.borrow_mut().push(arm)).unwrap();
        let mut done = done.into_inner();
        done.sort();
        assert_eq!(done, Arm::ALL);
        assert_eq!(run.arms.len(), Arm::ALL.len());
        assert_eq!(run.life.chosen(), Some(run.drifted_chunk));
        assert_eq!(run.life.end(), Some(State::Fossilized));
        assert_eq!(run.poisoned.end(), Some(State::Culled));
        assert!(run.host_unchanged && run.poison_removed);
        assert!(run.life.untouched_while_training && run.poisoned.untouched_while_training);
        let outcome = |arm: Arm| run.arms[arm as usize];
        assert_eq!(outcome(Arm::Poisoned).accuracy, outcome(Arm::Drifted).accuracy);
        let ours = outcome(Arm::Kasmina);
        for other in [Arm::Drifted, Arm::Affine, Arm::WrongChunk] {
            assert!(ours.accuracy > outcome(other).accuracy, "{other:?}");
        }
        for matched in [Arm::Affine, Arm::RandomChunk, Arm::WrongChunk, Arm::FullFinetune] {
            assert_eq!(outcome(matched).cost.updates, ours.cost.updates, "{matched:?}");
        }
    }
}
