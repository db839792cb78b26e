//! One layer's life in the soak: drawn at random, trained, commanded, and compared at every step.
//!
//! Everything that touches the engine goes through [`Subject`], so that another backend's layer can take the CPU's place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kasmina_core::{
    Activation, AdamW, Blueprint, Element, ForwardOptions, HeuristicController, Layer, LayerState,
    LifecycleConfig, Registry, SeedLayout, Stability, StabilityMode, controller,
};
use kasmina_oracle as oracle;
use kasmina_telemetry::{TelemetryMode, TelemetryScope};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::judge::{Moments, Pass, Verdict, judge, mirror, wide};
use super::model::Model;
use super::subject::{Given, Subject};
use super::tally::Tally;
use super::user::Shift;

/// What a checkpoint has to bring back, as the replays had it.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    pub(super) model: Model,
    pub(super) moments: Moments,
}

/// The blueprints of every life: the library's, a small one, and the user's.
pub(super) fn registry(user: &Arc<Shift>) -> Result<Registry, String> {
    let mut registry = Registry::builtin();
    let user = Arc::clone(user) as Arc<dyn kasmina_core::UserBlueprint>;
    registry.register_user(user).map_err(text)?;
    let small = Blueprint::Bottleneck { width: 3, activation: Activation::Tanh };
    registry.register("small", small).map_err(text)?;
    Ok(registry)
}

/// Columns of a packet of 16 bytes, of any type.
const PACKET: usize = 8;

/// A layer with its replays.
#[derive(Debug)]
pub(super) struct Life<S> {
    pub(super) subject: S,
    pub(super) layout: SeedLayout,
    pub(super) replay: Replay,
    pub(super) user: Arc<Shift>,
    /// Whether seeds are only what a resident grid can run.
    pub(super) pointwise: bool,
    adamw: AdamW,
    pub(super) controller: HeuristicController,
    scope: TelemetryScope,
    mode: TelemetryMode,
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl<S: Subject> Life<S> {
    /// A layer of a random layout, every seed dormant.
    pub(super) fn draw(
        home: &S::Home,
        rng: &mut ChaCha8Rng,
        registry: &Registry,
        user: &Arc<Shift>,
    ) -> Result<Self, String> {
        let pointwise = S::HAS_GRID && rng.random_bool(0.4);
        let hidden: usize = rng.random_range(1..=96);
        let hidden = if pointwise { hidden.next_multiple_of(PACKET) } else { hidden };
        let chunk = rng.random_range(1..=hidden.min(24));
        let layout = SeedLayout::new(hidden, chunk).map_err(text)?;
        let config = LifecycleConfig {
            target_alpha: if rng.random_bool(0.3) { 0.75 } else { 1.0 },
            stabilization_steps: 3,
            embargo_epochs: 2,
            ..LifecycleConfig::default()
        };
        let layer = Layer::builder(layout)
            .name("soak")
            .registry(registry.clone())
            .lifecycle(config)
            .rng_seed(rng.random())
            .build()
            .map_err(text)?;
        let rules = controller::HeuristicConfig::new(registry).map_err(text)?;
        Ok(Self {
            replay: Replay {
                model: Model::new(layout.seeds(), config),
                moments: Moments::default(),
            },
            controller: HeuristicController::new(rules).map_err(text)?,
            adamw: AdamW { clip_norm: rng.random_bool(0.3).then_some(0.5), ..AdamW::new(0.01) },
            subject: S::new(home, layer)?,
            layout,
            user: Arc::clone(user),
            pointwise,
            scope: TelemetryScope::default(),
            mode: TelemetryMode::default(),
        })
    }

    /// A training step: modes may switch, one pass is judged, parameters move, commands are given.
    pub(super) fn step(&mut self, rng: &mut ChaCha8Rng, tally: &mut Tally) -> Result<(), String> {
        self.subject.before_step(tally)?;
        self.switch_modes(rng)?;
        match rng.random_range(0..3) {
            0 => self.pass::<f32>(rng, tally)?,
            1 => self.pass::<half::f16>(rng, tally)?,
            _ => self.pass::<half::bf16>(rng, tally)?,
        }
        self.optimize(tally)?;
        self.subject.advance_step()?;
        self.replay.model.advance_step();
        // Before commands are judged: alphas that measured signals move are the engine's.
        self.agree()?;
        for _ in 0..rng.random_range(0..=2 + self.layout.seeds() / 3) {
            self.command(rng, tally)?;
        }
        self.agree()
    }

    fn switch_modes(&mut self, rng: &mut ChaCha8Rng) -> Result<(), String> {
        if rng.random_bool(0.2) {
            let mode = match rng.random_range(0..3) {
                0 => StabilityMode::Fast,
                1 => StabilityMode::Adaptive,
                _ => StabilityMode::Strict,
            };
            let tight = rng.random_bool(0.3) && mode == StabilityMode::Adaptive;
            let mut stability = Stability { lower: -6e4, upper: 6e4, ..Stability::new(mode) };
            if tight {
                (stability.lower, stability.upper) = (-1.5, 1.25);
            }
            self.subject.set_stability(stability)?;
        }
        if rng.random_bool(0.2) {
            self.mode = match rng.random_range(0..3) {
                0 => TelemetryMode::Production,
                1 => TelemetryMode::Debug,
                _ => TelemetryMode::sampling(2, 0.5).map_err(text)?,
            };
            self.subject.set_telemetry_mode(self.mode)?;
        }
        if rng.random_bool(0.1) {
            use TelemetryScope::{All, DormantOnly, Off};
            self.scope = [All, DormantOnly, Off][rng.random_range(0..3)];
            self.subject.set_telemetry_scope(self.scope);
        }
        // What is refused changes nothing.
        let wrong = Stability { lower: 1.0, upper: -1.0, ..Stability::default() };
        match self.subject.set_stability(wrong) {
            Ok(()) => Err("bounds in the wrong order were accepted".to_owned()),
            Err(_) => Ok(()),
        }
    }

    /// Forward and backward on random data, against the oracle and against what must not change.
    fn pass<T: Element>(&mut self, rng: &mut ChaCha8Rng, tally: &mut Tally) -> Result<(), String> {
        let (rows, hidden) = (rng.random_range(1..=40), self.layout.hidden());
        let wild = rng.random_bool(0.2);
        let damaged = rng.random_bool(0.05);
        let x: Vec<T> = (0..rows * hidden).map(|_| T::from_f32(value(rng, wild))).collect();
        let mut grad_y: Vec<T> =
            (0..rows * hidden).map(|_| T::from_f32(rng.random_range(-1.0..1.0))).collect();
        if damaged {
            let at = rng.random_range(0..grad_y.len());
            grad_y[at] = T::from_f32(f32::NAN);
        }
        let (options, probe) = self.probes(rng)?;
        let state = self.subject.look()?;
        let (before, counts) = (mirror(state, rows)?, counts(state));
        self.subject.zero_gradients()?;
        let given = Given { x: &x, grad_y: &grad_y, rows, options: &options };
        let (y, grad_x) = self.subject.passes(&given, tally)?;
        let after = self.subject.look()?;
        let is_fast = after.stability.mode == StabilityMode::Fast;

        tally.passes += 1;
        tally.digest(bytemuck::cast_slice(&y));
        tally.digest(bytemuck::cast_slice(&grad_x));
        self.no_harm(&before, &probe, (&x, &y), (&grad_y, &grad_x))?;
        self.counted(rows, &counts)?;
        if damaged || (wild && is_fast) {
            tally.unguarded += 1;
            return Ok(());
        }
        let f64s = |values: &[T]| values.iter().map(|v| f64::from(v.to_f32())).collect::<Vec<_>>();
        let pass = Pass {
            x: &f64s(&x),
            grad_y: &f64s(&grad_y),
            y: &f64s(&y),
            grad_x: &f64s(&grad_x),
            dtype: T::DTYPE,
            probe: &probe,
        };
        let verdict = judge(&before, self.subject.look()?, &pass, rng);
        match verdict.map_err(|error| format!("{:?}: {error}", T::DTYPE))? {
            Verdict::Agreed(worst) => tally.agreed(worst),
            Verdict::Kink => tally.kinks += 1,
        }
        Ok(())
    }

    /// Some seeds with parameters run at another alpha in this call.
    fn probes(&mut self, rng: &mut ChaCha8Rng) -> Result<(ForwardOptions, oracle::Probe), String> {
        let (mut options, mut probe) = (ForwardOptions::new(), oracle::Probe::none());
        for (seed, _) in self.subject.look()?.lifecycle.grown_seeds() {
            if rng.random_bool(0.05) {
                let alpha = [0.0f32, 0.3, 1.0][rng.random_range(0..3)];
                options = options.probe(seed, alpha);
                probe.0.push((seed, alpha.into()));
            }
        }
        Ok((options, probe))
    }

    /// A chunk that nothing changes comes out bit for bit, and its gradient likewise.
    fn no_harm<T: Element>(
        &self,
        before: &oracle::OracleLayer,
        probe: &oracle::Probe,
        (x, y): (&[T], &[T]),
        (grad_y, grad_x): (&[T], &[T]),
    ) -> Result<(), String> {
        let layout = self.layout;
        for seed in (0..layout.seeds()).filter(|seed| before.blend(*seed, probe).is_none()) {
            let columns = layout.columns(seed);
            for (from, to) in [(x, y), (grad_y, grad_x)] {
                let rows = from.chunks(layout.hidden()).zip(to.chunks(layout.hidden()));
                for (from, to) in rows {
                    let bytes =
                        |row: &[T]| bytemuck::cast_slice::<T, u8>(&row[columns.clone()]).to_vec();
                    if bytes(from) != bytes(to) {
                        return Err(format!(
                            "seed {seed} is not on path and its chunk was changed"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Each seed's telemetry has this pass whole or not at all, as mode and scope say.
    fn counted(&mut self, rows: usize, before: &[u64]) -> Result<(), String> {
        for (seed, now) in counts(self.subject.look()?).into_iter().enumerate() {
            let whole = (rows * self.layout.chunk_len(seed)) as u64;
            let more = now - before[seed];
            let dormant = self.replay.model.seeds[seed].state == oracle::lifecycle::DORMANT;
            let legal = match (self.scope.covers(dormant), self.mode) {
                (false, _) => more == 0,
                (true, TelemetryMode::Sampling { .. }) => more == 0 || more == whole,
                (true, _) => more == whole,
            };
            if !legal {
                let (mode, scope) = (self.mode.name(), self.scope);
                return Err(format!(
                    "seed {seed} counted {more} of {whole} elements in {mode}, {scope:?}"
                ));
            }
        }
        Ok(())
    }

    /// A step of the built-in optimizer beside the oracle's; a damaged gradient leaves its seed alone.
    fn optimize(&mut self, tally: &mut Tally) -> Result<(), String> {
        let grown = |layer: &LayerState| -> Vec<(usize, Vec<f64>, Option<Vec<f64>>)> {
            let seeds = layer.lifecycle.grown_seeds();
            seeds
                .map(|(seed, own)| (seed, wide(own.parameters()), own.gradients().map(wide)))
                .collect()
        };
        let before = grown(self.subject.look()?);
        self.replay.moments.keep(|seed| before.iter().any(|(own, ..)| *own == seed));
        let stepped = self.subject.optimizer_step(&self.adamw)?;
        let after = grown(self.subject.look()?);
        for ((seed, old, gradients), (_, new, _)) in before.iter().zip(&after) {
            let updated = stepped.contains(seed);
            let finite = gradients.iter().flatten().all(|g| g.is_finite());
            match (gradients, updated) {
                (Some(gradients), true) if finite => {
                    let worst =
                        self.replay.moments.update(*seed, &self.adamw, gradients, old, new)?;
                    tally.updated(worst);
                }
                (_, true) => {
                    return Err(format!("seed {seed} was updated without sound gradients"));
                }
                (Some(_), false) if finite => {
                    // An update that overflows is refused, too; nothing here is that large.
                    return Err(format!("seed {seed} has sound gradients and was left alone"));
                }
                (_, false) => {
                    tally.skipped += usize::from(gradients.is_some());
                    if old.iter().zip(new).any(|(a, b)| a.to_bits() != b.to_bits()) {
                        return Err(format!("seed {seed} was left alone and has moved"));
                    }
                }
            }
        }
        Ok(())
    }

    /// States and alphas are the table's, and every row has its sum.
    pub(super) fn agree(&mut self) -> Result<(), String> {
        let lifecycle = &self.subject.look()?.lifecycle;
        let table = lifecycle.table();
        self.replay.model.agree(table.states(), table.alphas())?;
        if lifecycle.epoch() != self.replay.model.epoch {
            return Err("the epochs differ".to_owned());
        }
        lifecycle.verify().map_err(|faults| format!("damaged rows: {faults:?}"))
    }

    /// Whether most of the layer has been rolled back, and waits for a restore.
    pub(super) fn is_rolled_back(&self) -> bool {
        let seeds = &self.replay.model.seeds;
        let gone = seeds.iter().filter(|seed| seed.state == oracle::lifecycle::ROLLED_BACK);
        2 * gone.count() > seeds.len()
    }

    /// A restored layer has the modes that were saved.
    pub(super) fn settings_restored(&mut self) -> Result<(), String> {
        let telemetry = &self.subject.look()?.telemetry;
        (self.mode, self.scope) = (telemetry.mode, telemetry.scope);
        Ok(())
    }

    /// Another state in the layer's place, of the same moment.
    pub(super) fn replace(
        &mut self,
        state: kasmina_core::LayerState,
        registry: &Registry,
    ) -> Result<(), String> {
        let folder = tempfile::tempdir().map_err(text)?;
        let path = folder.path().join("layer.safetensors");
        kasmina_core::checkpoint::save(&state, &path).map_err(text)?;
        self.subject.replace(Layer::load(&path, registry).map_err(text)?)?;
        self.settings_restored()?;
        self.agree()
    }

    /// Passes in which the user's blueprint panics where it runs; whether it did.
    pub(super) fn panicking_pass(&mut self, tally: &mut Tally) -> Result<bool, String> {
        let x = vec![0.5f32; 2 * self.layout.hidden()];
        let (given, options) = (&x[..], ForwardOptions::new());
        let given = Given { x: given, grad_y: given, rows: 2, options: &options };
        self.user.panics.store(true, Ordering::Relaxed);
        let subject = &mut self.subject;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            subject.passes(&given, tally).map(drop)
        }));
        self.user.panics.store(false, Ordering::Relaxed);
        match outcome {
            Ok(passed) => passed.map(|()| false),
            Err(_) => Ok(true),
        }
    }
}

/// Elements that each seed has counted.
pub(super) fn counts(layer: &LayerState) -> Vec<u64> {
    layer.telemetry.chunk.iter().map(|stats| stats.n + stats.nonfinite).collect()
}

/// A value of an activation; wild ones are what a broken host sends.
fn value(rng: &mut ChaCha8Rng, wild: bool) -> f32 {
    let plain = rng.random_range(-2.0f32..2.0);
    match rng.random_range(0..40) {
        0 if wild => f32::NAN,
        1 if wild => f32::INFINITY,
        2 if wild => f32::NEG_INFINITY,
        3 if wild => 0.0,
        4 if wild => -0.0,
        5 if wild => plain * 1e-10,
        6 if wild => plain * 1e4,
        _ => plain,
    }
}
