//! From columns to a layer's state: every element judged, every contradiction an error.

use std::sync::Arc;

use super::meta::resolve_blueprints;
use super::raw::{HistoryColumns, Raw, WaitingColumns};
use super::rows::{Clock, code, table};
use super::{CheckpointError, Extensions, Result, grown, telemetry};
use crate::graft::Strategy;
use crate::lifecycle::{Cause, GerminationRng, Lifecycle, Parts, Strategies, Transition};
use crate::{BlueprintId, Command, Germination, LayerState, Objective, SeedLayout, State};

pub(super) fn assemble(raw: Raw, extensions: Extensions<'_>) -> Result<LayerState> {
    let Raw { meta, seeds, active, texts, history, waiting, telemetry } = raw;
    let layout = SeedLayout::new(meta.hidden, meta.chunk)?;
    meta.lifecycle.validate()?;
    meta.stability.validate()?;
    let (registry, ids) = resolve_blueprints(meta.blueprints, extensions.registry)?;
    let resolve = |record: super::meta::StrategyRecord| record.resolve(&extensions);
    let slots: Vec<Option<Strategy>> = meta
        .strategies
        .into_iter()
        .map(|slot| slot.map(resolve).transpose())
        .collect::<Result<_>>()?;
    let waiting_strategies: Vec<_> =
        meta.waiting_strategies.into_iter().map(resolve).collect::<Result<_>>()?;

    let clock = Clock { epoch: meta.epoch, step: meta.step };
    let mut strategies = Strategies::from_slots(slots);
    let table = table(&seeds, &ids, &mut strategies, clock)?;
    if let Some(slot) = strategies.unused() {
        let reason = format!("strategy {slot} is listed, but no seed has it");
        return Err(CheckpointError::Metadata { reason });
    }
    let grown = grown::grown(active, &table, layout, &registry, clock)?;
    let history = transitions(&history, &texts, &ids, layout)?;
    if history.len() > meta.lifecycle.history_limit {
        let reason = format!(
            "the history has {} entries, its limit is {}",
            history.len(),
            meta.lifecycle.history_limit
        );
        return Err(CheckpointError::Metadata { reason });
    }
    let mut lifecycle = Lifecycle::from_parts(Parts {
        layout,
        registry,
        config: meta.lifecycle,
        table,
        strategies,
        grown,
        history,
        history_dropped: meta.history_dropped,
        epoch: meta.epoch,
        step: meta.step,
        rng: GerminationRng { seed: meta.rng_seed, germinations: meta.germinations },
    });
    give_waiting(&mut lifecycle, &waiting, &waiting_strategies, &texts, &ids)?;
    if let Some(why) = meta.roll_back {
        lifecycle.roll_back(why)?;
    }
    let telemetry = telemetry::read(meta.telemetry, telemetry, layout.seeds())?;
    Ok(LayerState { name: meta.name, lifecycle, stability: meta.stability, telemetry })
}

fn text(tensor: &'static str, index: usize, texts: &[Arc<str>], code: u32) -> Result<Arc<str>> {
    texts.get(code as usize).cloned().ok_or_else(|| {
        CheckpointError::element(tensor, index, code, format!("less than {} texts", texts.len()))
    })
}

fn blueprint(
    tensor: &'static str,
    index: usize,
    ids: &[BlueprintId],
    code: u16,
) -> Result<Option<BlueprintId>> {
    if code == BlueprintId::NONE {
        return Ok(None);
    }
    ids.get(usize::from(code)).map(|&id| Some(id)).ok_or_else(|| {
        let legal =
            format!("a code of the {} listed blueprints, or {}", ids.len(), BlueprintId::NONE);
        CheckpointError::element(tensor, index, code, legal)
    })
}

fn transitions(
    columns: &HistoryColumns,
    texts: &[Arc<str>],
    ids: &[BlueprintId],
    layout: SeedLayout,
) -> Result<Vec<Transition>> {
    (0..columns.seed.len())
        .map(|i| {
            if columns.seed[i] as usize >= layout.seeds() {
                let legal = format!("less than {} seeds", layout.seeds());
                return Err(CheckpointError::element("history.seed", i, columns.seed[i], legal));
            }
            Ok(Transition {
                // A restore leaves entries of epochs that are then in the future.
                epoch: columns.epoch[i],
                step: columns.step[i],
                seed: columns.seed[i],
                from: code("history.from", i, columns.from[i], State::try_from)?,
                to: code("history.to", i, columns.to[i], State::try_from)?,
                cause: code("history.cause", i, columns.cause[i], Cause::try_from)?,
                blueprint: blueprint("history.blueprint", i, ids, columns.blueprint[i])?,
                why: text("history.why", i, texts, columns.why[i])?,
            })
        })
        .collect()
}

/// Gives the commands that waited once more, so that they pass the checks that every command passes.
fn give_waiting(
    lifecycle: &mut Lifecycle,
    columns: &WaitingColumns,
    strategies: &[Strategy],
    texts: &[Arc<str>],
    ids: &[BlueprintId],
) -> Result<()> {
    for i in 0..columns.seed.len() {
        let command = match code("waiting.command", i, columns.command[i], Cause::try_from)? {
            Cause::Germinate => {
                let none = || {
                    let legal = "a listed blueprint for a germination";
                    CheckpointError::element("waiting.blueprint", i, columns.blueprint[i], legal)
                };
                let id = blueprint("waiting.blueprint", i, ids, columns.blueprint[i])?;
                let strategy =
                    strategies.get(usize::from(columns.strategy[i])).ok_or_else(|| {
                        let legal = format!("less than {} strategies", strategies.len());
                        CheckpointError::element("waiting.strategy", i, columns.strategy[i], legal)
                    })?;
                Command::Germinate(Germination {
                    blueprint: id.ok_or_else(none)?,
                    strategy: strategy.clone(),
                    objective: code(
                        "waiting.objective",
                        i,
                        columns.objective[i],
                        Objective::try_from,
                    )?,
                })
            }
            Cause::Promote => Command::Promote,
            Cause::Graft => Command::Graft,
            Cause::Stabilize => Command::Stabilize,
            Cause::Evaluate => Command::Evaluate,
            Cause::FineTune => Command::FineTune,
            Cause::Fossilize => Command::Fossilize,
            Cause::Cull => Command::Cull,
            Cause::Cancel => Command::Cancel,
            Cause::Reset => Command::Reset,
            Cause::RollBack | Cause::Restore => {
                let legal = "the code of a command to one seed, 0 to 9";
                let value = columns.command[i];
                return Err(CheckpointError::element("waiting.command", i, value, legal));
            }
        };
        let why = text("waiting.why", i, texts, columns.why[i])?;
        lifecycle.command(columns.seed[i] as usize, command, &*why)?;
    }
    Ok(())
}
