//! A layer's state as a file of the current schema.

use super::columns::Writer;
use super::meta::{BlueprintRecord, Meta, StrategyRecord, TelemetryMeta};
use super::raw::{KEY, VALUES, present, seal};
use super::text::TextWriter;
use super::{CheckpointError, telemetry};
use crate::blueprint::check_finite;
use crate::graft::Strategy;
use crate::lifecycle::{Cause, GrownSeed, Lifecycle, NO_STRATEGY};
use crate::{BlueprintId, Command, Error, Germination, LayerState};

pub(super) fn pack(state: &LayerState) -> Result<Vec<u8>, CheckpointError> {
    let LayerState { name, lifecycle, stability, telemetry } = state;
    check(state)?;
    let mut writer = Writer::default();
    let mut texts = TextWriter::default();
    seeds(lifecycle, &mut writer);
    active(lifecycle, &mut writer);
    history(lifecycle, &mut writer, &mut texts);
    let waiting_strategies = waiting(lifecycle, &mut writer, &mut texts)?;
    texts.finish(&mut writer);
    telemetry::write(telemetry, &mut writer);

    let layout = lifecycle.layout();
    let rng = lifecycle.rng();
    let meta = Meta {
        name: name.clone(),
        hidden: layout.hidden(),
        chunk: layout.chunk(),
        epoch: lifecycle.epoch(),
        step: lifecycle.step(),
        rng_seed: rng.seed,
        germinations: rng.germinations,
        lifecycle: *lifecycle.config(),
        stability: *stability,
        telemetry: TelemetryMeta {
            mode: telemetry.mode,
            scope: telemetry.scope,
            dead_epsilon: telemetry.dead_epsilon,
            snr_epsilon: telemetry.snr_epsilon,
            passes: telemetry.passes,
            measured: telemetry.measured,
            saturated: telemetry.saturated,
        },
        blueprints: lifecycle
            .registry()
            .iter()
            .map(|(name, blueprint)| BlueprintRecord::new(name, blueprint))
            .collect(),
        strategies: lifecycle
            .strategies()
            .slots()
            .map(|slot| slot.map(StrategyRecord::from))
            .collect(),
        waiting_strategies: waiting_strategies.iter().map(StrategyRecord::from).collect(),
        history_dropped: lifecycle.history().dropped(),
        roll_back: lifecycle.waiting_roll_back().map(str::to_owned),
        tensors: std::mem::take(&mut writer.crcs),
    };
    let json = serde_json::to_string(&meta)
        .map_err(|error| CheckpointError::Metadata { reason: error.to_string() })?;
    writer.finish(KEY, seal(&json))
}

/// A file that could not be loaded again is not written.
fn check(state: &LayerState) -> Result<(), CheckpointError> {
    let LayerState { lifecycle, stability, telemetry, .. } = state;
    if let Err(faults) = lifecycle.verify()
        && let Some(&first) = faults.first()
    {
        return Err(CheckpointError::Integrity { count: faults.len(), first });
    }
    for (seed, grown) in lifecycle.grown_seeds() {
        check_finite(&format!("seed {seed}"), grown.parameters())?;
    }
    stability.validate()?;
    telemetry::check_settings(telemetry)?;
    telemetry::check_lengths(telemetry, lifecycle.layout().seeds())
}

fn seeds(lifecycle: &Lifecycle, writer: &mut Writer) {
    let table = lifecycle.table();
    writer.column("seed.state", table.states().iter().map(|state| state.code()));
    writer.column("seed.blueprint", table.blueprints().iter().copied());
    writer.column("seed.strategy", table.strategies().iter().copied());
    writer.column("seed.alpha", table.alphas().iter().copied());
    writer.column("seed.entered_epoch", table.entered_epochs().iter().copied());
    writer.column("seed.last_update_epoch", table.last_update_epochs().iter().copied());
    writer.column("seed.embargo_until", table.embargoes().iter().copied());
    writer.column("seed.crc32", table.crcs().iter().copied());
}

fn active(lifecycle: &Lifecycle, writer: &mut Writer) {
    let grown = || lifecycle.grown_seeds().map(|(_, grown)| grown);
    let moments = || grown().filter_map(|grown| grown.optimizer.as_ref());
    writer.column("active.seed", lifecycle.grown_seeds().map(|(seed, _)| seed as u32));
    writer.column("active.objective", grown().map(|grown| grown.objective as u8));
    writer.column("active.entered_step", grown().map(|grown| grown.entered_step));
    writer.column("active.present", grown().map(present_bits));
    let values = grown().flat_map(|grown| values(grown).map(|value| value.unwrap_or(0.0)));
    writer.matrix("active.value", Some(VALUES), values);
    writer.matrix("active.measured_epoch", Some(4), grown().flat_map(measured_epochs));
    writer
        .column("active.alpha_gradient", grown().map(|grown| grown.alpha_gradient.unwrap_or(0.0)));
    writer.column("active.updates", grown().map(GrownSeed::updates));
    let shares = grown().flat_map(|grown| [grown.graft.start, grown.graft.share]);
    writer.matrix("active.graft_share", Some(2), shares);
    let steps = grown().flat_map(|grown| [grown.graft.steps, grown.graft.advanced]);
    writer.matrix("active.graft_steps", Some(2), steps);
    let packed =
        |part: fn(&GrownSeed) -> &[f32]| grown().flat_map(move |g| part(g).iter().copied());
    writer.column("active.parameters", packed(|grown| &grown.parameters));
    writer.column("active.gradients", packed(|grown| &grown.gradients));
    writer.column("active.reference", packed(|grown| &grown.reference));
    writer.column("active.first_moment", moments().flat_map(|m| m.first.iter().copied()));
    writer.column("active.second_moment", moments().flat_map(|m| m.second.iter().copied()));
}

/// The numbers of a grown seed that may be absent, in the order of the columns of `active.value`.
fn values(grown: &GrownSeed) -> [Option<f64>; VALUES] {
    let m = &grown.measured;
    let value = |measured: Option<crate::lifecycle::Measured>| measured.map(|m| m.value);
    [
        grown.reconstruction,
        grown.accepted_loss,
        value(m.loss),
        value(m.held_back),
        value(m.counterfactual),
        value(m.gradient_norm),
        m.initial_loss,
        m.best_loss,
    ]
}

fn measured_epochs(grown: &GrownSeed) -> [u32; 4] {
    let m = &grown.measured;
    [m.loss, m.held_back, m.counterfactual, m.gradient_norm].map(|m| m.map_or(0, |m| m.epoch))
}

fn present_bits(grown: &GrownSeed) -> u16 {
    let bit = |is: bool, bit: u16| if is { bit } else { 0 };
    let values = values(grown);
    let values = values.iter().enumerate().map(|(i, v)| bit(v.is_some(), present::VALUE_0 << i));
    bit(grown.has_gradients, present::GRADIENTS)
        | bit(grown.alpha_gradient.is_some(), present::ALPHA_GRADIENT)
        | bit(grown.optimizer.is_some(), present::OPTIMIZER)
        | values.sum::<u16>()
}

fn history(lifecycle: &Lifecycle, writer: &mut Writer, texts: &mut TextWriter) {
    let entries = || lifecycle.history().iter();
    writer.column("history.seed", entries().map(|entry| entry.seed));
    writer.column("history.epoch", entries().map(|entry| entry.epoch));
    writer.column("history.step", entries().map(|entry| entry.step));
    writer.column("history.from", entries().map(|entry| entry.from.code()));
    writer.column("history.to", entries().map(|entry| entry.to.code()));
    writer.column("history.cause", entries().map(|entry| entry.cause as u8));
    let blueprint = |id: Option<BlueprintId>| id.map_or(BlueprintId::NONE, BlueprintId::index);
    writer.column("history.blueprint", entries().map(|entry| blueprint(entry.blueprint)));
    writer.column("history.why", entries().map(|entry| texts.add(&entry.why)));
}

fn germination(command: &Command) -> Option<&Germination> {
    match command {
        Command::Germinate(germination) => Some(germination),
        _ => None,
    }
}

/// Writes the waiting commands and answers the strategies that they name.
fn waiting(
    lifecycle: &Lifecycle,
    writer: &mut Writer,
    texts: &mut TextWriter,
) -> Result<Vec<Strategy>, CheckpointError> {
    let entries = || lifecycle.waiting_commands();
    let mut strategies: Vec<Strategy> = Vec::new();
    writer.column("waiting.seed", entries().map(|(seed, _)| seed));
    writer.column("waiting.command", entries().map(|(_, w)| Cause::from(&w.command) as u8));
    let blueprint = |command: &Command| {
        germination(command).map_or(BlueprintId::NONE, |germination| germination.blueprint.index())
    };
    writer.column("waiting.blueprint", entries().map(|(_, w)| blueprint(&w.command)));
    let mut strategy = |command: &Command| {
        let Some(germination) = germination(command) else {
            return NO_STRATEGY;
        };
        let known = strategies.iter().position(|known| *known == germination.strategy);
        known.unwrap_or_else(|| {
            strategies.push(germination.strategy.clone());
            strategies.len() - 1
        }) as u16
    };
    let codes: Vec<u16> = entries().map(|(_, w)| strategy(&w.command)).collect();
    if strategies.len() > usize::from(NO_STRATEGY) {
        let (value, limit) = (strategies.len() as u64, u64::from(NO_STRATEGY));
        return Err(Error::TooLarge {
            what: "distinct strategies of waiting commands",
            value,
            limit,
        }
        .into());
    }
    writer.column("waiting.strategy", codes);
    let objective = |command: &Command| germination(command).map_or(0, |g| g.objective as u8);
    writer.column("waiting.objective", entries().map(|(_, w)| objective(&w.command)));
    writer.column("waiting.why", entries().map(|(_, w)| texts.add(&w.why)));
    Ok(strategies)
}
