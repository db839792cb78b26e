//! One life of the layer: clean sensors, the accident, and what the controller makes of it.
//!
//! The controller sees telemetry and nothing else. This loop serves production, trains what the layer says
//! is trainable, measures what the gates ask for, and checks on every batch that a layer without a seed on
//! path hands its input on bit for bit.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use candle_nn::{AdamW, Optimizer, loss::cross_entropy};
use kasmina_core::candle::KasminaLayer;
use kasmina_core::controller::{Deviation, HeuristicConfig};
use kasmina_core::cuda::Engine;
use kasmina_core::lifecycle::{Gates, Transition};
use kasmina_core::{
    ForwardOptions, HeuristicController, Layer, LifecycleConfig, Objective, Registry, SeedLayout,
    SeedSignals, State,
};
use rand_chacha::ChaCha8Rng;

use crate::cost::Cost;
use crate::data::{Batches, Rows, Split};
use crate::host::{BATCH, Host, adam, loss, tensor_bits};

/// Learning rate of every update before fine-tuning.
pub(crate) const LEARNING_RATE: f64 = 5e-3;
/// Learning rate of fine-tuning.
const FINE_RATE: f64 = 5e-4;
/// Steps of an epoch: about once through the training rows.
pub(crate) const EPOCH_STEPS: usize = 16;
/// Clean epochs; the controller takes its baseline from the first of them.
pub(crate) const CLEAN_EPOCHS: u32 = 8;
const BASELINE_EPOCHS: u32 = 6;
/// A life that has not come to its end by then is taken as it is; its last state says so.
const MAX_EPOCHS: u32 = 100;
const TRAINING_STEPS: u64 = 240;
const FINE_TUNING_STEPS: u64 = 96;
/// The held-back rows are few: their loss scatters by more than the default of 2 %.
const FINE_TUNING_TOLERANCE: f64 = 0.1;

/// The rows of one update and its learning rate, for other arms to make the same.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub(crate) rows: Vec<usize>,
    pub(crate) learning_rate: f64,
}

/// What an epoch looked like.
#[derive(Clone, Debug)]
pub(crate) struct Epoch {
    /// Every seed's state while it ran.
    pub(crate) states: Vec<State>,
    /// The growing seed's alpha at its end.
    pub(crate) alpha: f32,
    /// Every chunk's deviation from its baseline, as the controller sees it.
    pub(crate) deviations: Vec<Option<Deviation>>,
    /// Mean loss of the epoch's updates.
    pub(crate) training_loss: Option<f64>,
    /// Held-back loss of what production delivers.
    pub(crate) held_back: f64,
    /// The same with the seed probed at alpha 0, or the same if there is none.
    pub(crate) counterfactual: f64,
}

/// A life and what is left of it.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) module: KasminaLayer,
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) transitions: Vec<Transition>,
    pub(crate) updates: Vec<Update>,
    pub(crate) cost: Cost,
    /// Whether every batch that met no seed on path came out bit for bit as it went in, and held-back
    /// scores were those of the drifted host bit for bit.
    pub(crate) untouched_while_training: bool,
}

/// The world a life is lived in.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub(crate) host: &'a Host,
    pub(crate) layout: SeedLayout,
    pub(crate) clean: &'a Split,
    pub(crate) drifted: &'a Split,
    pub(crate) seed: u64,
    /// Where layers run, if not on the CPU.
    pub(crate) engine: Option<&'a Arc<Engine>>,
}

impl World<'_> {
    /// The layer as a module, where the layers of this world run.
    pub(crate) fn module(&self, layer: Layer) -> Result<KasminaLayer> {
        Ok(match self.engine {
            Some(engine) => KasminaLayer::on_device(layer, engine)?,
            None => KasminaLayer::new(layer),
        })
    }
}

impl Life {
    /// Lives until the seed the controller chose is fossilized, culled or cancelled, or until the last
    /// epoch. The controller grows the registry's blueprint of the given name.
    pub(crate) fn live(
        world: &World<'_>,
        registry: Registry,
        blueprint: &str,
        batches: ChaCha8Rng,
    ) -> Result<Self> {
        let mut controller = HeuristicController::new(HeuristicConfig {
            baseline_epochs: BASELINE_EPOCHS,
            max_attempts: 1,
            blueprints: vec![registry.find(blueprint)?],
            objective: Objective::Probe,
            ..HeuristicConfig::new(&registry)?
        })?;
        let gates = Gates {
            training_steps: TRAINING_STEPS,
            fine_tuning_steps: FINE_TUNING_STEPS,
            fine_tuning_tolerance: FINE_TUNING_TOLERANCE,
            ..Gates::default()
        };
        let layer = Layer::builder(world.layout)
            .name("sensors")
            .registry(registry)
            .lifecycle(LifecycleConfig { gates, ..LifecycleConfig::default() })
            .rng_seed(world.seed)
            .build()?;
        let mut run = Run::new(world, world.module(layer)?)?;
        let mut batches = Batches::new(world.clean.train.len(), BATCH, batches);
        for epoch in 0..MAX_EPOCHS {
            let split = if epoch < CLEAN_EPOCHS { world.clean } else { world.drifted };
            run.epoch(split, &mut batches, &mut controller)?;
            if run.over() {
                return Ok(run.life);
            }
        }
        Ok(run.life)
    }

    /// The seed the controller chose.
    pub(crate) fn chosen(&self) -> Option<usize> {
        self.transitions.first().map(|transition| transition.seed as usize)
    }

    /// The state its life ended in.
    pub(crate) fn end(&self) -> Option<State> {
        self.transitions.last().map(|transition| transition.to)
    }
}

struct Run<'a> {
    world: &'a World<'a>,
    optimizer: Option<AdamW>,
    /// Held-back scores of the drifted host without any seed.
    drifted_scores: Vec<u32>,
    life: Life,
}

/// The seed that is growing, as one epoch sees it.
#[derive(Clone, Copy)]
struct Growing {
    seed: usize,
    state: State,
}

impl<'a> Run<'a> {
    fn new(world: &'a World<'a>, module: KasminaLayer) -> Result<Self> {
        let (x, _) = world.drifted.held_back.tensors()?;
        let drifted_scores = tensor_bits(&world.host.logits(&x)?)?;
        let life = Life {
            module,
            epochs: Vec::new(),
            transitions: Vec::new(),
            updates: Vec::new(),
            cost: Cost::default(),
            untouched_while_training: true,
        };
        Ok(Self { world, optimizer: None, drifted_scores, life })
    }

    fn over(&self) -> bool {
        matches!(self.life.end(), Some(State::Fossilized | State::Culled | State::Cancelled))
    }

    fn growing(&self) -> Option<Growing> {
        let layer = self.life.module.layer();
        let (seed, _) = layer.lifecycle().grown_seeds().next()?;
        Some(Growing { seed, state: layer.lifecycle().table().states()[seed] })
    }

    fn epoch(
        &mut self,
        split: &Split,
        batches: &mut Batches,
        controller: &mut HeuristicController,
    ) -> Result<()> {
        let growing = self.growing();
        let mut losses = Vec::new();
        for _ in 0..EPOCH_STEPS {
            let rows = batches.next();
            losses.extend(self.step(&split.train, rows, growing)?);
            self.life.cost.flops += Cost::telemetry();
            self.life.module.layer().advance_step();
        }
        let (held_back, counterfactual) = self.judge(&split.held_back, growing)?;

        let mut layer = self.life.module.layer();
        let states = layer.lifecycle().table().states().to_vec();
        let alpha = growing.map_or(Ok(0.0), |growing| layer.alpha(growing.seed))?;
        let report = layer.end_epoch_with(controller);
        drop(layer);
        ensure!(report.outcome.refused.is_empty(), "refused: {:?}", report.outcome.refused);
        self.life.transitions.extend(report.outcome.transitions);
        self.life.epochs.push(Epoch {
            states,
            alpha,
            deviations: controller.deviations(&report.telemetry),
            training_loss: mean(&losses),
            held_back,
            counterfactual,
        });
        Ok(())
    }

    /// Production on one batch, and an update where the growing seed is trainable; its loss.
    fn step(
        &mut self,
        rows: &Rows,
        batch: &[usize],
        growing: Option<Growing>,
    ) -> Result<Option<f64>> {
        let (x, labels) = rows.select(batch).tensors()?;
        let state = growing.map_or(State::Dormant, |growing| growing.state);
        if !state.on_path() {
            let y = self.life.module.forward_with(&x, &ForwardOptions::new().inference())?;
            self.life.untouched_while_training &= tensor_bits(&y)? == tensor_bits(&x)?;
        }
        let (loss, learning_rate) = match (growing, state) {
            (Some(Growing { seed, .. }), State::Training) => {
                // As if it were on path; production, above, knows nothing of it.
                let as_if = ForwardOptions::new().probe(seed, 1.0).without_telemetry();
                (self.task_loss(&x, &labels, &as_if)?, LEARNING_RATE)
            }
            (_, State::Grafting) => {
                (self.task_loss(&x, &labels, &ForwardOptions::new())?, LEARNING_RATE)
            }
            (_, State::FineTuning) => {
                (self.task_loss(&x, &labels, &ForwardOptions::new())?, FINE_RATE)
            }
            (_, state) => {
                if state.on_path() {
                    self.life.module.forward_with(&x, &ForwardOptions::new().inference())?;
                }
                return Ok(None);
            }
        };
        self.update(&loss, learning_rate)?;
        self.life.updates.push(Update { rows: batch.to_vec(), learning_rate });
        let loss = f64::from(loss.to_scalar::<f32>()?);
        self.record(growing, SeedSignals::loss(if loss.is_nan() { f64::INFINITY } else { loss }))?;
        self.count(growing, |cost, blueprint, c| {
            cost.updates += 1;
            cost.flops += Cost::update(blueprint, c);
        })?;
        Ok(Some(loss))
    }

    fn task_loss(&self, x: &Tensor, labels: &Tensor, options: &ForwardOptions) -> Result<Tensor> {
        let y = self.life.module.forward_with(x, options)?;
        Ok(cross_entropy(&self.world.host.logits(&y)?, labels)?)
    }

    /// One optimizer for the seed's whole life: its variables stay the same from state to state.
    fn update(&mut self, loss: &Tensor, learning_rate: f64) -> Result<()> {
        if self.optimizer.is_none() {
            self.optimizer = Some(adam(self.life.module.vars()?, learning_rate)?);
        }
        let optimizer = self.optimizer.as_mut().context("made above")?;
        optimizer.set_learning_rate(learning_rate);
        Ok(optimizer.backward_step(loss)?)
    }

    /// Held-back loss with the seed as it is and without it, recorded for the gates of a seed on path.
    fn judge(&mut self, rows: &Rows, growing: Option<Growing>) -> Result<(f64, f64)> {
        let (x, labels) = rows.tensors()?;
        let scores = |options: &ForwardOptions| -> Result<Tensor> {
            let y = self.life.module.forward_with(&x, options)?;
            self.world.host.logits(&y)
        };
        let quiet = ForwardOptions::new().inference().without_telemetry();
        let actual = scores(&quiet)?;
        let held_back = loss(&actual, &labels)?;
        let Some(Growing { seed, state }) = growing else {
            return Ok((held_back, held_back));
        };
        let counterfactual = loss(&scores(&quiet.probe(seed, 0.0))?, &labels)?;
        if state.on_path() {
            self.record(growing, SeedSignals::evaluation(held_back, counterfactual))?;
            let rows = rows.len();
            self.count(growing, |cost, blueprint, c| {
                cost.flops += Cost::judgement(blueprint, c, rows);
            })?;
        } else {
            self.life.untouched_while_training &= tensor_bits(&actual)? == self.drifted_scores;
        }
        Ok((held_back, counterfactual))
    }

    fn record(&self, growing: Option<Growing>, signals: SeedSignals) -> Result<()> {
        let Some(Growing { seed, .. }) = growing else {
            return Ok(());
        };
        Ok(self.life.module.layer().record(seed, signals)?)
    }

    fn count(
        &mut self,
        growing: Option<Growing>,
        add: impl FnOnce(&mut Cost, &kasmina_core::Blueprint, usize),
    ) -> Result<()> {
        let Some(Growing { seed, .. }) = growing else {
            return Ok(());
        };
        let layer = self.life.module.layer();
        let grown = layer.lifecycle().grown(seed).context("a growing seed owns parameters")?;
        self.life.cost.parameters = grown.parameters().len() as u64;
        let blueprint = layer.registry().get(grown.blueprint())?;
        add(&mut self.life.cost, blueprint, self.world.layout.chunk_len(seed));
        Ok(())
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
