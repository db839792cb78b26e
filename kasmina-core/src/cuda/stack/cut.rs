//! How a matrix is cut for a launch over several layers: pure arithmetic, the same for every launch of a shape on a device.
//!
//! What counts is the way of one block through all layers: a thread's instructions for a layer, one after the other, as long as there are
//! few threads, the multiprocessor's schedulers where there are many, or the warps that merge statistics.

use kasmina_telemetry::ChunkStats;

use super::params::{BackwardLayer, ForwardLayer, PREPARERS};
use crate::cuda::geometry::{Geometry, PACKET_BYTES, WORKERS, pieces};
use crate::cuda::job::View;
use crate::cuda::layer::CudaLayer;
use crate::cuda::params::ColumnTotals;
use crate::cuda::variants::{Counting, StackPass as Pass, element_bytes, stack_rows};
use crate::{DType, SeedLayout};

/// What a cut is made for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) rows: u32,
    pub(super) columns: u32,
    /// The layers' chunks, each once.
    pub(super) chunks: Vec<u32>,
    pub(super) dtype: DType,
    /// What is counted.
    pub(super) counting: Counting,
    pub(super) pass: Pass,
}

/// What a cut leaves open: outputs do not depend on it, the last bits of statistics do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackCut {
    /// Packets of 16 bytes in a row of a block's tile.
    pub packets: u32,
    /// Threads that share a packet's columns.
    pub lanes: u32,
    /// Rows that a thread holds.
    pub held: u32,
}

/// Threads and shared memory of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Threads that have packets, whole warps.
    pub(super) workers: u32,
    /// Threads of a block.
    pub(super) threads: u32,
    /// Layers whose programs are in shared memory at once.
    pub(super) plans: u32,
    /// Layers whose records are.
    pub(super) slots: u32,
    /// Layers whose inputs are, for a backward pass.
    pub(super) places: u32,
    pub(super) shared_bytes: u32,
}

/// Row lanes at most.
const MOST_LANES: u32 = 32;
/// Slots beyond which more of them do not help.
const MOST_PLANS: u32 = 8;
const MOST_SLOTS: u32 = 32;
/// Layers' inputs for which a backward pass does with fewer warps that merge.
const FEW_PLACES: u32 = 16;
/// Bytes of shared memory that programs may take beyond two slots.
const PLAN_BYTES: u32 = 64 << 10;
/// Warps that merge: as many as workers leave room for, or these.
const FEWEST_MERGERS: u32 = 2;
const MOST_MERGERS: u32 = 12;

impl Shape {
    pub(super) fn new(
        pass: Pass,
        view: View,
        layers: &[&mut CudaLayer],
        dtype: DType,
        counting: Counting,
    ) -> Self {
        let mut chunks: Vec<u32> =
            layers.iter().map(|layer| layer.layout().chunk() as u32).collect();
        chunks.sort_unstable();
        chunks.dedup();
        Self { rows: view.rows, columns: view.columns, chunks, dtype, counting, pass }
    }

    fn elements(&self) -> u32 {
        PACKET_BYTES / element_bytes(self.dtype)
    }

    /// Threads of a block at most, `most_threads`.
    fn most_threads(&self) -> u32 {
        match (self.counting, self.pass) {
            (Counting::Column, _) => 256,
            (_, Pass::Backward) => 384,
            _ => 512,
        }
    }

    fn most_workers(&self) -> u32 {
        let beside = 32 * (PREPARERS + FEWEST_MERGERS);
        (self.most_threads() - beside).min(WORKERS) / 32 * 32
    }

    /// Records of a thread.
    fn units(&self) -> u32 {
        match self.counting {
            Counting::Off => 0,
            Counting::Packet => 1,
            Counting::Column => self.elements(),
        }
    }

    /// Whether there is a kernel for the cut, and a block has room for it.
    pub(super) fn allows(&self, cut: StackCut, layers: usize, shared_bytes: u32) -> bool {
        let StackCut { packets, lanes, held } = cut;
        stack_rows(self.pass, self.dtype, self.counting).contains(&held)
            && (1..=MOST_LANES).contains(&lanes)
            && (1..=self.most_workers() / lanes).contains(&packets)
            && self.room(cut, layers, shared_bytes).is_some()
    }

    /// The cheapest cut by the model.
    pub(super) fn cut(&self, layers: usize, multiprocessors: u32, shared_bytes: u32) -> StackCut {
        let whole = self.columns.div_ceil(self.elements());
        let mut best: Option<(u64, StackCut)> = None;
        for packets in 1..=whole.min(self.most_workers()) {
            for lanes in 1..=(self.most_workers() / packets).min(MOST_LANES) {
                for &held in stack_rows(self.pass, self.dtype, self.counting) {
                    let cut = StackCut { packets, lanes, held };
                    // Lanes and rows that nothing is left for.
                    let idle = (lanes > 1 || held > 1) && (lanes - 1) * held >= self.rows
                        || held > 1 && held / 2 * lanes >= self.rows;
                    if idle {
                        continue;
                    }
                    let Some(room) = self.room(cut, layers, shared_bytes) else { continue };
                    let cost = self.cost(cut, &room, layers, multiprocessors);
                    if best.is_none_or(|(least, _)| cost < least) {
                        best = Some((cost, cut));
                    }
                }
            }
        }
        best.map_or(StackCut { packets: 1, lanes: 1, held: 1 }, |(_, cut)| cut)
    }

    /// In cycles of an H200, roughly.
    fn cost(&self, cut: StackCut, room: &Room, layers: usize, multiprocessors: u32) -> u64 {
        let StackCut { packets, lanes, held } = cut;
        let tile = packets * self.elements();
        let (tiles, blocks) = (self.columns.div_ceil(tile), self.rows.div_ceil(lanes * held));
        let groups = (multiprocessors / tiles).clamp(1, blocks);
        let rounds = blocks.div_ceil(groups) * (tiles * groups).div_ceil(multiprocessors);
        let warps = room.workers / 32;
        let row = held * (self.elements() / 4);
        let (wait, issue) = match self.pass {
            Pass::Forward => (400 + 30 * row, 130 + 40 * row),
            Pass::Backward => (900 + 150 * row, 350 + 150 * row),
        };
        let work = wait.max(warps.div_ceil(4) * issue);
        let merge =
            self.chunks.iter().map(|chunk| self.merge_cost(cut, room, *chunk)).max().unwrap_or(0);
        u64::from(rounds) * (3000 + layers as u64 * u64::from(work.max(merge)))
    }

    /// Of a layer's statistics and sums, by one of several warps: as the kernel's mergers go about it.
    fn merge_cost(&self, cut: StackCut, room: &Room, chunk: u32) -> u32 {
        if !self.merges() {
            return 0;
        }
        let (tile, threads) = (cut.packets * self.elements(), cut.packets * cut.lanes);
        let units = self.units();
        let mut cost = 0;
        if let Some(unit) = self.elements().checked_div(units) {
            let pieces = pieces(tile, chunk);
            let records = (chunk.min(tile) / unit * cut.lanes).max(1);
            let log2_up = |n: u32| n.next_power_of_two().ilog2();
            let lanes = log2_up((records + 1).div_ceil(4)).min(8 - log2_up(pieces).min(8)).min(5);
            let passes = (pieces << lanes).div_ceil(32);
            let count = 100 + 30 * cut.held * (self.elements() / 4) * units;
            cost += threads.div_ceil(32) * count
                + passes * (700 + 70 * (records + 1).div_ceil(1 << lanes));
        }
        if self.pass == Pass::Backward {
            // A column's sums over the row lanes, by a thread each.
            cost += 200 + tile.div_ceil(32) * cut.lanes * 50;
        }
        cost / ((room.threads - room.workers) / 32 - PREPARERS)
    }

    /// Whether something is merged.
    fn merges(&self) -> bool {
        self.counting != Counting::Off || self.pass == Pass::Backward
    }

    /// What a launch over `layers` layers takes of a block's `shared_bytes`, with as many warps that merge as fit; `None` where not even
    /// one does.
    pub(super) fn room(&self, cut: StackCut, layers: usize, shared_bytes: u32) -> Option<Room> {
        if !self.merges() {
            return self.room_with(0, cut, layers, shared_bytes);
        }
        let workers = (cut.packets * cut.lanes).next_multiple_of(32);
        let most = (self.most_threads().checked_sub(workers)? / 32).checked_sub(PREPARERS)?;
        (1..=most.min(MOST_MERGERS))
            .rev()
            .find_map(|mergers| self.room_with(mergers, cut, layers, shared_bytes))
    }

    fn room_with(
        &self,
        mergers: u32,
        cut: StackCut,
        layers: usize,
        shared_bytes: u32,
    ) -> Option<Room> {
        let StackCut { packets, lanes, held } = cut;
        let workers = (packets * lanes).next_multiple_of(32);
        // A program for each column, and what is known of them together; bounds; two barriers.
        let plan = 16 + packets * (16 * self.elements() + 16) + 16;
        let plans = (PLAN_BYTES / plan).clamp(PREPARERS, MOST_PLANS);
        let records = packets * lanes * self.units() * size_of::<ChunkStats>() as u32;
        let list = layers
            * match self.pass {
                Pass::Forward => size_of::<ForwardLayer>(),
                Pass::Backward => size_of::<BackwardLayer>(),
            };
        let fixed = list as u32 + plans * plan + mergers * records;
        let rows = held * workers * PACKET_BYTES;
        let of_slots = |slots: u32| {
            // Totals of each column, of as many threads as there may be; several slots share a block's.
            let totals = self.elements() * WORKERS * size_of::<ColumnTotals>() as u32;
            let together =
                if self.pass == Pass::Backward { slots.div_ceil(WORKERS / workers) } else { 0 };
            slots * (rows + 16) + together * totals
        };
        let left = |slots: u32| shared_bytes.checked_sub(fixed + of_slots(slots));
        // No fewer slots than warps that take them in turn.
        let (slots, places) = match self.pass {
            _ if mergers == 0 => (0, 0),
            Pass::Forward => {
                let most = MOST_SLOTS.min(layers as u32 + 1).max(mergers);
                ((mergers..=most).rev().find(|slots| left(*slots).is_some())?, 0)
            }
            Pass::Backward => (mergers, (left(mergers)? / rows).min(layers as u32)),
        };
        // Inputs of some layers at least; fewer warps leave more room for them.
        let few = FEW_PLACES.min(layers as u32);
        if self.pass == Pass::Backward && places < if mergers > 1 { few } else { 1 } {
            return None;
        }
        let shared_bytes = fixed + of_slots(slots) + places * rows;
        left(slots)?;
        let threads = workers + 32 * (PREPARERS + mergers);
        Some(Room { workers, threads, plans, slots, places, shared_bytes })
    }

    /// The cut as a layer of `layout` has it: accumulators are by its chunks.
    pub(super) fn geometry(
        &self,
        cut: StackCut,
        layout: SeedLayout,
        multiprocessors: u32,
    ) -> Geometry {
        let StackCut { packets, lanes, held } = cut;
        Geometry::stacked(
            self.rows,
            layout,
            element_bytes(self.dtype),
            (packets, lanes, held),
            multiprocessors,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const H200: (u32, u32) = (132, 232_448);

    fn shape(
        (rows, columns, chunk): (u32, u32, u32),
        dtype: DType,
        counting: Counting,
        pass: Pass,
    ) -> Shape {
        Shape { rows, columns, chunks: vec![chunk], dtype, counting, pass }
    }

    #[test]
    fn a_small_matrix_is_spread_over_the_device() {
        for (rows, columns, chunk) in [(32, 768, 48), (8, 4096, 256), (256, 1024, 64)] {
            let shape = shape((rows, columns, chunk), DType::F32, Counting::Packet, Pass::Forward);
            let cut = shape.cut(48, H200.0, H200.1);
            let layout = SeedLayout::new(columns as usize, chunk as usize).expect("a layout");
            let geometry = shape.geometry(cut, layout, H200.0);
            assert!(geometry.blocks() >= 96 && geometry.blocks() <= 132, "{cut:?}: {geometry:?}");
        }
    }

    proptest! {
        #[test]
        fn every_cut_fits_and_covers(
            rows in 1u32..5000,
            columns in 1u32..6000,
            chunk in 1u32..6000,
            dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
            counting in prop::sample::select(vec![Counting::Off, Counting::Packet, Counting::Column]),
            pass in prop::sample::select(vec![Pass::Forward, Pass::Backward]),
            layers in 2usize..=128,
            machine in prop::sample::select(vec![H200, (108, 166_912), (76, 101_376)]),
        ) {
            let chunk = chunk.min(columns);
            let shape = shape((rows, columns, chunk), dtype, counting, pass);
            let cut = shape.cut(layers, machine.0, machine.1);
            prop_assert!(shape.allows(cut, layers, machine.1));
            let room = shape.room(cut, layers, machine.1).expect("it fits");
            prop_assert!(room.shared_bytes <= machine.1);
            prop_assert!(room.threads <= shape.most_threads() && room.workers <= shape.most_workers());
            let mergers = (room.threads - room.workers) / 32 - PREPARERS;
            let merges = counting != Counting::Off || pass == Pass::Backward;
            prop_assert!(!merges || (mergers > 0 && room.slots >= mergers));
            prop_assert!(room.plans >= PREPARERS);
            prop_assert_eq!(pass == Pass::Backward, room.places > 0);
            let layout = SeedLayout::new(columns as usize, chunk as usize).expect("a layout");
            let g = shape.geometry(cut, layout, machine.0);
            prop_assert!(g.tiles * g.tile_columns >= columns && (g.tiles - 1) * g.tile_columns < columns);
            prop_assert!(g.groups >= 1 && g.groups <= rows.div_ceil(g.stage_rows()));
            prop_assert_eq!(g.pieces, pieces(g.tile_columns, chunk));
        }
    }
}
