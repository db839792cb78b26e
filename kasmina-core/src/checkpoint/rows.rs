//! The seeds' rows of a file, judged one by one.

use super::raw::Seeds;
use super::{CheckpointError, Result};
use crate::lifecycle::{NO_STRATEGY, SeedRow, SeedTable, Strategies};
use crate::{BlueprintId, State};

/// The present of the saved run; nothing in it lies in the future.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) epoch: u32,
    pub(super) step: u64,
}

impl Clock {
    pub(super) fn epoch(&self, tensor: &'static str, index: usize, epoch: u32) -> Result<u32> {
        if epoch <= self.epoch {
            return Ok(epoch);
        }
        let legal = format!("at most the running epoch, {}", self.epoch);
        Err(CheckpointError::element(tensor, index, epoch, legal))
    }

    pub(super) fn step(&self, tensor: &'static str, index: usize, step: u64) -> Result<u64> {
        if step <= self.step {
            return Ok(step);
        }
        let legal = format!("at most the steps done, {}", self.step);
        Err(CheckpointError::element(tensor, index, step, legal))
    }
}

/// `code` through `decode`, with an error that says where it stands.
pub(super) fn code<T>(
    tensor: &'static str,
    index: usize,
    code: u8,
    decode: fn(u8) -> crate::Result<T>,
) -> Result<T> {
    decode(code).map_err(|error| CheckpointError::element(tensor, index, code, error.to_string()))
}

pub(super) fn table(
    seeds: &Seeds,
    ids: &[BlueprintId],
    strategies: &mut Strategies,
    clock: Clock,
) -> Result<SeedTable> {
    let states = (0..seeds.state.len())
        .map(|seed| code("seed.state", seed, seeds.state[seed], State::try_from))
        .collect::<Result<Vec<_>>>()?;
    let rows = states.into_iter().enumerate().map(|(seed, state)| {
        let row = SeedRow {
            state,
            blueprint: seeds.blueprint[seed],
            strategy: seeds.strategy[seed],
            alpha: seeds.alpha[seed],
            entered_epoch: seeds.entered_epoch[seed],
            last_update_epoch: seeds.last_update_epoch[seed],
            embargo_until: seeds.embargo_until[seed],
        };
        (row, seeds.crc[seed])
    });
    let mut table = SeedTable::from_rows(rows);
    if let Err(faults) = table.verify()
        && let Some(&first) = faults.first()
    {
        return Err(CheckpointError::Integrity { count: faults.len(), first });
    }
    for seed in 0..table.len() {
        let mut row = table.row(seed);
        check_row(seed, &row, clock)?;
        if row.state.owns_parameters() {
            let id = ids.get(usize::from(row.blueprint)).ok_or_else(|| {
                let legal = format!("a code of the {} listed blueprints", ids.len());
                CheckpointError::element("seed.blueprint", seed, row.blueprint, legal)
            })?;
            if !strategies.count(row.strategy) {
                let legal = "a code of the listed strategies";
                return Err(CheckpointError::element("seed.strategy", seed, row.strategy, legal));
            }
            // The file's codes become the loading registry's; the row is written anew only if they differ.
            if id.index() != row.blueprint {
                row.blueprint = id.index();
                table.write(seed, row);
            }
        }
    }
    Ok(table)
}

/// What holds for every row, whatever wrote it.
fn check_row(seed: usize, row: &SeedRow, clock: Clock) -> Result<()> {
    let state = row.state;
    let legal_alpha =
        if state.on_path() { (0.0..=1.0).contains(&row.alpha) } else { row.alpha.to_bits() == 0 };
    if !legal_alpha {
        let legal = format!("{} in {state}", if state.on_path() { "between 0 and 1" } else { "0" });
        return Err(CheckpointError::element("seed.alpha", seed, row.alpha, legal));
    }
    if !state.owns_parameters() {
        for (tensor, value, none) in [
            ("seed.blueprint", row.blueprint, BlueprintId::NONE),
            ("seed.strategy", row.strategy, NO_STRATEGY),
        ] {
            if value != none {
                return Err(CheckpointError::element(
                    tensor,
                    seed,
                    value,
                    format!("{none} in {state}"),
                ));
            }
        }
        if row.last_update_epoch != 0 {
            let legal = format!("0 in {state}");
            return Err(CheckpointError::element(
                "seed.last_update_epoch",
                seed,
                row.last_update_epoch,
                legal,
            ));
        }
    }
    if state != State::Culled && row.embargo_until != 0 {
        return Err(CheckpointError::element(
            "seed.embargo_until",
            seed,
            row.embargo_until,
            format!("0 in {state}"),
        ));
    }
    clock.epoch("seed.entered_epoch", seed, row.entered_epoch)?;
    clock.epoch("seed.last_update_epoch", seed, row.last_update_epoch)?;
    Ok(())
}
