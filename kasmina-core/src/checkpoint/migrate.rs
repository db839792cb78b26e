//! Schema 1 read as schema 2.
//!
//! Schema 1 counted epochs and embargoes in every seed's row instead of noting when they began, so that an
//! epoch boundary touched all rows; it saved no gradients, no measurements, no waiting commands, no
//! telemetry and no progress of a graft but alpha; and its tensors had no sums, only its rows. Its metadata
//! has the entries `format`, `schema` and `state` (JSON). What it did not save starts afresh: gradients at
//! zero, measurements unmeasured, and a graft goes on from its alpha.

use std::collections::HashMap;
use std::sync::Arc;

use kasmina_telemetry::{TelemetryMode, TelemetryScope};
use safetensors::SafeTensors;
use serde::Deserialize;

use super::CheckpointError;
use super::columns::Reader;
use super::meta::{BlueprintRecord, Meta, StrategyRecord, TelemetryMeta};
use super::raw::{
    Active, HistoryColumns, Raw, Seeds, TelemetryColumns, VALUES, WaitingColumns, present,
};
use crate::lifecycle::{Cause, IntegrityFault, LifecycleConfig, SCHEMA_VERSION, SeedRow};
use crate::{BlueprintId, SeedLayout, Stability, State};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta1 {
    hidden: usize,
    chunk: usize,
    epoch: u32,
    step: u64,
    rng_seed: u64,
    germinations: u64,
    target_alpha: f32,
    stabilization_steps: u64,
    embargo_epochs: u32,
    dead_epsilon: f32,
    stability: Stability,
    blueprints: Vec<BlueprintRecord>,
    strategies: Vec<StrategyRecord>,
    history: Vec<Event1>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event1 {
    epoch: u32,
    seed: u32,
    from: State,
    to: State,
    why: String,
}

/// Whether the metadata is in the form of schema 1, whatever number it gives.
pub(super) fn is_schema_1(entries: &HashMap<String, String>) -> bool {
    entries.get("format").is_some_and(|format| format == "kasmina-layer")
}

pub(super) fn read(
    tensors: SafeTensors<'_>,
    entries: &HashMap<String, String>,
) -> Result<Raw, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Metadata { reason };
    let entry = |key: &str| entries.get(key).map_or("", String::as_str);
    let found: u32 = entry("schema")
        .parse()
        .map_err(|_| damaged(format!("schema {:?} is no number", entry("schema"))))?;
    if found != 1 {
        return Err(CheckpointError::Schema { found, newest: SCHEMA_VERSION });
    }
    let meta: Meta1 =
        serde_json::from_str(entry("state")).map_err(|error| damaged(error.to_string()))?;
    let n = SeedLayout::new(meta.hidden, meta.chunk)?.seeds();
    let mut reader = Reader::new(tensors, None);
    let rows = Rows1 {
        state: reader.column("seed.state", n)?,
        blueprint: reader.column("seed.blueprint", n)?,
        strategy: reader.column("seed.strategy", n)?,
        alpha: reader.column("seed.alpha", n)?,
        epochs_in_state: reader.column("seed.epochs_in_state", n)?,
        last_update_epoch: reader.column("seed.last_update_epoch", n)?,
        embargo: reader.column("seed.embargo", n)?,
        crc: reader.column("seed.crc32", n)?,
    };
    rows.verify()?;
    let active_seed: Vec<u32> = reader.packed("active.seed")?;
    let a = active_seed.len();
    let steps_in_state: Vec<u64> = reader.column("active.steps_in_state", a)?;
    let updates: Vec<u64> = reader.column("active.updates", a)?;
    let mut active = Active {
        objective: reader.column("active.objective", a)?,
        entered_step: Vec::with_capacity(a),
        present: updates.iter().map(|&n| if n > 0 { present::OPTIMIZER } else { 0 }).collect(),
        value: vec![0.0; a * VALUES],
        measured_epoch: vec![0; a * 4],
        alpha_gradient: vec![0.0; a],
        updates,
        graft_share: Vec::with_capacity(2 * a),
        graft_steps: vec![0; 2 * a],
        parameters: reader.packed("active.parameters")?,
        gradients: None,
        first: reader.packed("active.first_moment")?,
        second: reader.packed("active.second_moment")?,
        reference: None,
        seed: active_seed,
    };
    reader.finish()?;
    for (i, &steps) in steps_in_state.iter().enumerate() {
        let entered = meta.step.checked_sub(steps).ok_or_else(|| {
            let legal = format!("at most the steps done, {}", meta.step);
            CheckpointError::element("active.steps_in_state", i, steps, legal)
        })?;
        active.entered_step.push(entered);
        let seed = active.seed[i] as usize;
        let grafting = rows.state.get(seed).is_some_and(|&code| code == State::Grafting.code());
        // A NaN alpha is refused with the row; here it only must not become a share.
        let share = match rows.alpha.get(seed) {
            Some(&alpha) if grafting => f64::from(alpha) / f64::from(meta.target_alpha),
            _ => 0.0,
        };
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        active.graft_share.extend([share, share]);
    }
    let seeds = rows.migrate(meta.epoch)?;
    let used = |code: usize| seeds.strategy.iter().any(|&strategy| usize::from(strategy) == code);
    let strategies = meta.strategies.into_iter().enumerate();
    let strategies = strategies.map(|(code, record)| used(code).then_some(record)).collect();
    let (texts, history) = events(&meta.history, meta.step);
    Ok(Raw {
        meta: Meta {
            name: "layer".into(),
            hidden: meta.hidden,
            chunk: meta.chunk,
            epoch: meta.epoch,
            step: meta.step,
            rng_seed: meta.rng_seed,
            germinations: meta.germinations,
            lifecycle: LifecycleConfig {
                target_alpha: meta.target_alpha,
                stabilization_steps: meta.stabilization_steps,
                embargo_epochs: meta.embargo_epochs,
                ..LifecycleConfig::default()
            },
            stability: meta.stability,
            telemetry: TelemetryMeta {
                mode: TelemetryMode::Production,
                scope: TelemetryScope::All,
                dead_epsilon: meta.dead_epsilon,
                snr_epsilon: 1e-8,
                passes: 0,
                measured: 0,
                saturated: 0,
            },
            blueprints: meta.blueprints,
            strategies,
            waiting_strategies: Vec::new(),
            history_dropped: 0,
            roll_back: None,
            tensors: Default::default(),
        },
        seeds,
        active,
        texts,
        history,
        waiting: WaitingColumns::default(),
        telemetry: TelemetryColumns::default(),
    })
}

struct Rows1 {
    state: Vec<u8>,
    blueprint: Vec<u16>,
    strategy: Vec<u16>,
    alpha: Vec<f32>,
    epochs_in_state: Vec<u32>,
    last_update_epoch: Vec<u32>,
    embargo: Vec<u32>,
    crc: Vec<u32>,
}

impl Rows1 {
    /// CRC-32 over the schema (1), the seed and the fields, little-endian, as schema 1 stored it.
    fn crc32(&self, seed: usize) -> u32 {
        let mut bytes = Vec::with_capacity(29);
        bytes.extend(1u32.to_le_bytes());
        bytes.extend((seed as u32).to_le_bytes());
        bytes.push(self.state[seed]);
        bytes.extend(self.blueprint[seed].to_le_bytes());
        bytes.extend(self.strategy[seed].to_le_bytes());
        bytes.extend(self.alpha[seed].to_bits().to_le_bytes());
        bytes.extend(self.epochs_in_state[seed].to_le_bytes());
        bytes.extend(self.last_update_epoch[seed].to_le_bytes());
        bytes.extend(self.embargo[seed].to_le_bytes());
        crc32fast::hash(&bytes)
    }

    fn verify(&self) -> Result<(), CheckpointError> {
        let fault = |seed: usize| {
            let (stored, found) = (self.crc[seed], self.crc32(seed));
            (stored != found).then_some(IntegrityFault { seed, stored, found })
        };
        let mut faults = (0..self.state.len()).filter_map(fault);
        match faults.next() {
            None => Ok(()),
            Some(first) => Err(CheckpointError::Integrity { count: 1 + faults.count(), first }),
        }
    }

    /// Counters become the epochs in which they began or end, and the rows get sums of the new form.
    fn migrate(self, epoch: u32) -> Result<Seeds, CheckpointError> {
        let mut entered_epoch = Vec::with_capacity(self.state.len());
        for (seed, &epochs) in self.epochs_in_state.iter().enumerate() {
            entered_epoch.push(epoch.checked_sub(epochs).ok_or_else(|| {
                let legal = format!("at most the running epoch, {epoch}");
                CheckpointError::element("seed.epochs_in_state", seed, epochs, legal)
            })?);
        }
        let culled = State::Culled.code();
        let embargo_until: Vec<_> = self
            .embargo
            .iter()
            .zip(&self.state)
            // What a row of another state holds here is judged, and refused, with the rest of the row.
            .map(|(&left, &state)| if state == culled { epoch.saturating_add(left) } else { left })
            .collect();
        let mut seeds = Seeds {
            crc: Vec::with_capacity(self.state.len()),
            state: self.state,
            blueprint: self.blueprint,
            strategy: self.strategy,
            alpha: self.alpha,
            entered_epoch,
            last_update_epoch: self.last_update_epoch,
            embargo_until,
        };
        for seed in 0..seeds.state.len() {
            let row = SeedRow {
                // An unknown code is refused with the row; its sum is of no interest then.
                state: State::try_from(seeds.state[seed]).unwrap_or_default(),
                blueprint: seeds.blueprint[seed],
                strategy: seeds.strategy[seed],
                alpha: seeds.alpha[seed],
                entered_epoch: seeds.entered_epoch[seed],
                last_update_epoch: seeds.last_update_epoch[seed],
                embargo_until: seeds.embargo_until[seed],
            };
            seeds.crc.push(row.crc32(seed as u32));
        }
        Ok(seeds)
    }
}

/// Schema 1 noted neither the step nor the cause; the cause follows from the states.
fn events(events: &[Event1], step: u64) -> (Vec<Arc<str>>, HistoryColumns) {
    let mut texts = Vec::new();
    let mut columns = HistoryColumns::default();
    for (i, event) in events.iter().enumerate() {
        texts.push(event.why.as_str().into());
        columns.seed.push(event.seed);
        columns.epoch.push(event.epoch);
        columns.step.push(step);
        columns.from.push(event.from.code());
        columns.to.push(event.to.code());
        columns.cause.push(cause(event.from, event.to) as u8);
        columns.blueprint.push(BlueprintId::NONE);
        columns.why.push(i as u32);
    }
    (texts, columns)
}

fn cause(from: State, to: State) -> Cause {
    match (from, to) {
        (State::RolledBack, _) => Cause::Restore,
        (_, State::Dormant) => Cause::Reset,
        (_, State::Germinated) => Cause::Germinate,
        (_, State::Training) => Cause::Promote,
        (_, State::Grafting) => Cause::Graft,
        (_, State::Stabilization) => Cause::Stabilize,
        (_, State::Evaluating) => Cause::Evaluate,
        (_, State::FineTuning) => Cause::FineTune,
        (_, State::Fossilized) => Cause::Fossilize,
        (_, State::Culled) => Cause::Cull,
        (_, State::Cancelled) => Cause::Cancel,
        (_, State::RolledBack) => Cause::RollBack,
    }
}
