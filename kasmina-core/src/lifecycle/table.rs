//! One row a seed, one array a column: what every seed of a layer is, with a CRC-32 over each row.
//!
//! A row's sum is written when the row is written and at no other time. A check that recomputed it first
//! would agree with any damage.

use crate::{State, blueprint::BlueprintId};

/// Version of the row layout; it is part of every row's sum and of every checkpoint.
pub const SCHEMA_VERSION: u32 = 2;

/// The code of "no strategy" in the table.
pub const NO_STRATEGY: u16 = u16::MAX;

/// One seed's row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeedRow {
    /// Lifecycle state.
    pub state: State,
    /// Code of the blueprint in the registry, [`BlueprintId::NONE`] without parameters.
    pub blueprint: u16,
    /// Code of the graft strategy in the lifecycle, [`NO_STRATEGY`] without parameters.
    pub strategy: u16,
    /// Share of the branch in the output, in [0, 1]; 0 off path.
    pub alpha: f32,
    /// The first epoch in this state. Epochs in the state are counted from here, so that an epoch
    /// boundary need not touch the seeds that stay as they are.
    pub entered_epoch: u32,
    /// The last epoch in which an optimizer changed the parameters; 0 if none did.
    pub last_update_epoch: u32,
    /// The first epoch in which a culled seed may be reset; 0 otherwise.
    pub embargo_until: u32,
}

impl SeedRow {
    /// A dormant seed.
    pub const DORMANT: Self = Self {
        state: State::Dormant,
        blueprint: BlueprintId::NONE,
        strategy: NO_STRATEGY,
        alpha: 0.0,
        entered_epoch: 0,
        last_update_epoch: 0,
        embargo_until: 0,
    };

    /// CRC-32 (IEEE 802.3) over the schema version, the seed's index and every field, little-endian.
    pub fn crc32(&self, seed: u32) -> u32 {
        let mut bytes = [0u8; 29];
        bytes[0..4].copy_from_slice(&SCHEMA_VERSION.to_le_bytes());
        bytes[4..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8] = self.state.code();
        bytes[9..11].copy_from_slice(&self.blueprint.to_le_bytes());
        bytes[11..13].copy_from_slice(&self.strategy.to_le_bytes());
        bytes[13..17].copy_from_slice(&self.alpha.to_bits().to_le_bytes());
        bytes[17..21].copy_from_slice(&self.entered_epoch.to_le_bytes());
        bytes[21..25].copy_from_slice(&self.last_update_epoch.to_le_bytes());
        bytes[25..29].copy_from_slice(&self.embargo_until.to_le_bytes());
        crc32fast::hash(&bytes)
    }
}

/// A row that is not what was last written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "seed {seed}'s row has CRC-32 {found:08x}, but {stored:08x} was stored when it was written"
)]
pub struct IntegrityFault {
    /// The seed.
    pub seed: usize,
    /// The sum stored with the row.
    pub stored: u32,
    /// The sum of the row as it is.
    pub found: u32,
}

/// The rows of all seeds, column by column.
#[derive(Clone, Debug, PartialEq)]
pub struct SeedTable {
    state: Vec<State>,
    blueprint: Vec<u16>,
    strategy: Vec<u16>,
    alpha: Vec<f32>,
    entered_epoch: Vec<u32>,
    last_update_epoch: Vec<u32>,
    embargo_until: Vec<u32>,
    crc: Vec<u32>,
}

impl SeedTable {
    /// `seeds` dormant rows.
    pub(crate) fn new(seeds: usize) -> Self {
        let row = SeedRow::DORMANT;
        Self {
            state: vec![row.state; seeds],
            blueprint: vec![row.blueprint; seeds],
            strategy: vec![row.strategy; seeds],
            alpha: vec![row.alpha; seeds],
            entered_epoch: vec![row.entered_epoch; seeds],
            last_update_epoch: vec![row.last_update_epoch; seeds],
            embargo_until: vec![row.embargo_until; seeds],
            crc: (0..seeds).map(|seed| row.crc32(seed as u32)).collect(),
        }
    }

    /// Rows with the sums that were stored with them; the sums are taken as they are, for
    /// [`SeedTable::verify`] to judge.
    pub(crate) fn from_rows(rows: impl ExactSizeIterator<Item = (SeedRow, u32)>) -> Self {
        let mut table = Self::new(0);
        for (row, crc) in rows {
            table.state.push(row.state);
            table.blueprint.push(row.blueprint);
            table.strategy.push(row.strategy);
            table.alpha.push(row.alpha);
            table.entered_epoch.push(row.entered_epoch);
            table.last_update_epoch.push(row.last_update_epoch);
            table.embargo_until.push(row.embargo_until);
            table.crc.push(crc);
        }
        table
    }

    /// The only way to change a row.
    pub(crate) fn write(&mut self, seed: usize, row: SeedRow) {
        self.state[seed] = row.state;
        self.blueprint[seed] = row.blueprint;
        self.strategy[seed] = row.strategy;
        self.alpha[seed] = row.alpha;
        self.entered_epoch[seed] = row.entered_epoch;
        self.last_update_epoch[seed] = row.last_update_epoch;
        self.embargo_until[seed] = row.embargo_until;
        self.crc[seed] = row.crc32(seed as u32);
    }

    /// One seed's row; `None` past the last seed.
    pub fn get(&self, seed: usize) -> Option<SeedRow> {
        (seed < self.len()).then(|| self.row(seed))
    }

    /// One seed's row; the seed exists.
    pub(crate) fn row(&self, seed: usize) -> SeedRow {
        SeedRow {
            state: self.state[seed],
            blueprint: self.blueprint[seed],
            strategy: self.strategy[seed],
            alpha: self.alpha[seed],
            entered_epoch: self.entered_epoch[seed],
            last_update_epoch: self.last_update_epoch[seed],
            embargo_until: self.embargo_until[seed],
        }
    }

    /// Number of seeds.
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Whether there are no seeds; a layer always has some.
    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
    }

    /// Every seed's state.
    pub fn states(&self) -> &[State] {
        &self.state
    }

    /// Every seed's blueprint code, [`BlueprintId::NONE`] for none.
    pub fn blueprints(&self) -> &[u16] {
        &self.blueprint
    }

    /// Every seed's strategy code, [`NO_STRATEGY`] for none.
    pub fn strategies(&self) -> &[u16] {
        &self.strategy
    }

    /// Every seed's alpha.
    pub fn alphas(&self) -> &[f32] {
        &self.alpha
    }

    /// The first epoch of every seed in its state.
    pub fn entered_epochs(&self) -> &[u32] {
        &self.entered_epoch
    }

    /// The last epoch in which each seed's parameters were updated.
    pub fn last_update_epochs(&self) -> &[u32] {
        &self.last_update_epoch
    }

    /// The first epoch in which each seed may be reset.
    pub fn embargoes(&self) -> &[u32] {
        &self.embargo_until
    }

    /// The sums stored with the rows.
    pub fn crcs(&self) -> &[u32] {
        &self.crc
    }

    /// Compares every row with the sum that was stored when it was written.
    ///
    /// # Errors
    /// The rows that differ.
    pub fn verify(&self) -> Result<(), Vec<IntegrityFault>> {
        let faults: Vec<_> = (0..self.len())
            .filter_map(|seed| {
                let (stored, found) = (self.crc[seed], self.row(seed).crc32(seed as u32));
                (stored != found).then_some(IntegrityFault { seed, stored, found })
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Damage = fn(&mut SeedTable);

    #[test]
    fn damage_to_any_field_of_a_row_is_found_and_stays_found() {
        let damages: [Damage; 8] = [
            |t| t.state[3] = State::Fossilized,
            |t| t.blueprint[3] ^= 1,
            |t| t.strategy[3] ^= 0x100,
            |t| t.alpha[3] = -0.0,
            |t| t.entered_epoch[3] += 1,
            |t| t.last_update_epoch[3] += 1,
            |t| t.embargo_until[3] += 1,
            |t| t.crc[3] ^= 1 << 31,
        ];
        for damage in damages {
            let mut table = SeedTable::new(7);
            assert_eq!(table.verify(), Ok(()));
            damage(&mut table);
            for _ in 0..2 {
                let faults = table.verify().unwrap_err();
                assert_eq!(faults.iter().map(|f| f.seed).collect::<Vec<_>>(), [3]);
            }
        }
    }

    #[test]
    fn equal_rows_of_two_seeds_have_different_sums() {
        // Otherwise two swapped rows would go unnoticed.
        assert_ne!(SeedRow::DORMANT.crc32(0), SeedRow::DORMANT.crc32(1));
    }

    #[test]
    fn the_sum_is_the_standard_crc32() {
        // The check value of CRC-32/ISO-HDLC, so another reader can verify a row.
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    }
}
