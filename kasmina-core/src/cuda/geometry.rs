//! How a matrix is cut for the streaming kernels: pure arithmetic, the same for every launch of a shape on a device.
//!
//! `kernels/stream_geometry.cuh` has the struct's other side and says why blocks take interleaved rows.

use bytemuck::{Pod, Zeroable};
use kasmina_tma::LoadPath;
use serde::{Deserialize, Serialize};

use crate::SeedLayout;

/// Bytes of a packet: what a thread loads at a time.
pub(crate) const PACKET_BYTES: u32 = 16;
/// Threads of a block that compute.
pub(crate) const WORKERS: u32 = 256;
/// Rows that a thread takes at a time, at most.
pub(crate) const ROWS: u32 = 8;
/// The same of kernels that compute nothing, through the copy engine.
pub(crate) const COPIED_ROWS: u32 = 4;
/// The greatest side of a tensor map's box, elements.
const MAX_BOX: u32 = 256;
/// What a block keeps of shared memory for its barriers and for what the compiler declares.
const RESERVED_SHARED: u32 = 2048;

/// The cut; see the fields' comments in `stream_geometry.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub(crate) struct Geometry {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) chunk: u32,
    pub(crate) seeds: u32,
    pub(crate) tile_columns: u32,
    pub(crate) tiles: u32,
    pub(crate) groups: u32,
    pub(crate) tile_packets: u32,
    pub(crate) row_lanes: u32,
    pub(crate) box_packets: u32,
    pub(crate) box_pitch: u32,
    pub(crate) stages: u32,
    pub(crate) pieces: u32,
    pub(crate) loads_ahead: u32,
    pub(crate) lane_rows: u32,
    stage_bytes: u32,
}

const _: () = assert!(size_of::<Geometry>() == 64, "as in stream_geometry.cuh");

/// What a cut depends on beside the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) multiprocessors: u32,
    /// Shared memory that one block can have, bytes.
    pub(crate) shared_bytes: u32,
    /// Blocks that a multiprocessor runs at once.
    pub(crate) blocks: u32,
}

/// What a kernel keeps in shared memory, and how it is best cut for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Packets in a row of a tile, at most.
    pub(crate) most_packets: u32,
    /// Matrices that a stage has rows of.
    pub(crate) matrices: u32,
    /// Bytes beside the stages and their barriers.
    pub(crate) beside: u32,
    /// Stages without which the kernel does not work; a thread takes fewer rows at a time where they would not fit.
    pub(crate) fewest: u32,
    /// Rows that a thread takes at a time where there is room.
    pub(crate) lane_rows: u32,
    /// What was measured, or chosen by hand.
    pub(crate) tuning: Tuning,
}

/// What a cut leaves open: the same result with other times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Tuning {
    /// Packets in a row of a tile where nothing else decides.
    pub(crate) packets: u32,
    /// Threads of a block that have a packet, at most.
    pub(crate) threads: u32,
    /// Bytes that a multiprocessor has under way from memory.
    pub(crate) under_way: u32,
    /// Stages at most.
    pub(crate) stages: u32,
}

impl Tuning {
    /// The choice for an H200 where nothing is computed, of the sweeps in docs/kernels.md.
    pub(crate) const BULK_COPY: Self =
        Self { packets: 128, threads: WORKERS, under_way: 64 << 10, stages: 12 };
    /// The same for what is little work.
    pub(crate) const BULK: Self =
        Self { packets: 128, threads: 128, under_way: 64 << 10, stages: 8 };
    /// The same for kernels with more work than half the threads can do.
    pub(crate) const BULK_BUSY: Self =
        Self { packets: 128, threads: WORKERS, under_way: 64 << 10, stages: 6 };
    /// Of two matrices: what tuning found on an H200 for a pass that reads both.
    pub(crate) const BACKWARD: Self =
        Self { packets: 64, threads: WORKERS, under_way: 96 << 10, stages: 6 };
    /// The same, 16 bits, of which a packet has twice the columns.
    pub(crate) const BACKWARD_16: Self = Self { packets: 32, ..Self::BACKWARD };
    /// Without the copy engine, f32.
    pub(crate) const PLAIN: Self =
        Self { packets: 32, threads: WORKERS, under_way: 64 << 10, stages: 3 };
    /// Without the copy engine, 16 bits.
    pub(crate) const PLAIN_16: Self =
        Self { packets: WORKERS, threads: WORKERS, under_way: 64 << 10, stages: 3 };
}

impl Geometry {
    /// Cuts `rows × layout.hidden()` elements of `element_bytes` (4 or 2). `rows` is at least 1 and, like the columns, at most
    /// 2³¹, which the caller has checked.
    pub(crate) fn new(
        rows: u32,
        layout: SeedLayout,
        element_bytes: u32,
        path: LoadPath,
        machine: Machine,
        needs: Needs,
    ) -> Self {
        let (columns, chunk) = (layout.hidden() as u32, layout.chunk() as u32);
        let elements = PACKET_BYTES / element_bytes;
        let tuning = needs.tuning;
        let most = columns.div_ceil(elements).min(needs.most_packets);
        let packets = tile_packets(rows, columns, chunk, elements, machine, (tuning, most));
        Self::of_tile(rows, layout, element_bytes, path, machine, needs, packets)
    }

    /// The same with `tile_packets` packets in a row of a tile.
    fn of_tile(
        rows: u32,
        layout: SeedLayout,
        element_bytes: u32,
        path: LoadPath,
        machine: Machine,
        needs: Needs,
        tile_packets: u32,
    ) -> Self {
        let (columns, chunk) = (layout.hidden() as u32, layout.chunk() as u32);
        let elements = PACKET_BYTES / element_bytes;
        let tuning = needs.tuning;
        let tile_columns = tile_packets * elements;
        let tiles = columns.div_ceil(tile_columns);
        let row_lanes = row_lanes(tile_packets, tuning);
        let room = (machine.shared_bytes.saturating_sub(RESERVED_SHARED) / machine.blocks)
            .saturating_sub(needs.beside);
        // The stages of all rungs but the bulk ones are laid out for whole blocks, whatever the tile.
        let of_row = needs.matrices * WORKERS * PACKET_BYTES;
        let lane_rows = (0..)
            .map(|halvings| needs.lane_rows >> halvings)
            .find(|n| *n <= 1 || needs.fewest * of_row * n <= room)
            .unwrap_or(1);
        let row_blocks = rows.div_ceil(lane_rows * row_lanes);
        let blocks = machine.multiprocessors * machine.blocks;
        // Whole rounds: with 8 tiles on 132 multiprocessors 16 groups leave 4 idle, which costs nothing where memory is the
        // limit; 17 would leave 128 waiting for 8.
        let groups = (blocks / tiles).clamp(1, row_blocks);
        // Only tensor maps have a greatest side.
        let boxes = if path == LoadPath::TensorMap { boxes(tile_packets, elements) } else { 1 };
        let box_packets = tile_packets / boxes;
        let box_bytes = box_packets * PACKET_BYTES * lane_rows * row_lanes;
        let box_pitch = box_bytes.next_multiple_of(128);
        let own_bytes = box_pitch * boxes;
        let stage_bytes = own_bytes * needs.matrices;
        let own_blocks = row_blocks.div_ceil(groups);
        let stages = (room / stage_bytes).min(tuning.stages).min(own_blocks + 1).max(2);
        Self {
            rows,
            columns,
            chunk,
            seeds: layout.seeds() as u32,
            tile_columns,
            tiles,
            groups,
            tile_packets,
            row_lanes,
            box_packets,
            box_pitch,
            stages,
            pieces: pieces(tile_columns, chunk),
            loads_ahead: (tuning.under_way / stage_bytes).clamp(1, stages),
            lane_rows,
            stage_bytes: own_bytes,
        }
    }

    /// Cuts for a grid of `machine.multiprocessors` blocks that has nothing else to do: what counts is when the last block is done, which
    /// for small matrices is the way through one block, not the memory. Every kernel of a shape and type is cut alike where it takes
    /// `lane_rows` rows at a time; `threads` of a block have a packet, at most.
    pub(crate) fn resident(
        rows: u32,
        layout: SeedLayout,
        element_bytes: u32,
        path: LoadPath,
        machine: Machine,
        needs: Needs,
        threads: u32,
    ) -> Self {
        let (columns, chunk) = (layout.hidden() as u32, layout.chunk() as u32);
        let elements = PACKET_BYTES / element_bytes;
        let whole = columns.div_ceil(elements);
        let workers = machine.multiprocessors;
        let aligned = |packets: u32| {
            let tile = packets * elements;
            tile.is_multiple_of(chunk) || chunk.is_multiple_of(tile)
        };
        let cut = |packets: u32| {
            let lanes = (threads / packets).min(MAX_BOX / ROWS).min(rows);
            let tuning = Tuning { packets, threads: packets * lanes, ..needs.tuning };
            let needs = Needs { tuning, ..needs };
            Self::of_tile(rows, layout, element_bytes, path, machine, needs, packets)
        };
        // In cycles of an H200, roughly: of a block, of a row of each thread, and of the records that a lane merges.
        let cost = |g: &Self| {
            let rounds = u64::from(g.blocks().div_ceil(workers));
            let rows = u64::from(rows.div_ceil(g.stage_rows()).div_ceil(g.groups) * g.lane_rows);
            let of_piece = g.tile_packets.min(chunk.div_ceil(elements)) * g.row_lanes;
            rounds * (3000 + 80 * rows + 150 * u64::from(of_piece.div_ceil(32)))
        };
        let most = whole.min(threads);
        let cuts = (1..=most).filter(|packets| aligned(*packets)).map(cut);
        cuts.min_by_key(cost).unwrap_or_else(|| cut(most))
    }

    /// Cuts for a launch over several layers: `packets` in a row of a tile, `lanes` threads that share a packet's columns, and `held` rows of
    /// each at a time. A block for each multiprocessor at most, unless there are more tiles.
    pub(crate) fn stacked(
        rows: u32,
        layout: SeedLayout,
        element_bytes: u32,
        (packets, lanes, held): (u32, u32, u32),
        multiprocessors: u32,
    ) -> Self {
        let (columns, chunk) = (layout.hidden() as u32, layout.chunk() as u32);
        let tile_columns = packets * (PACKET_BYTES / element_bytes);
        let tiles = columns.div_ceil(tile_columns);
        let row_blocks = rows.div_ceil(held * lanes);
        let stage_bytes = packets * PACKET_BYTES * held * lanes;
        Self {
            rows,
            columns,
            chunk,
            seeds: layout.seeds() as u32,
            tile_columns,
            tiles,
            groups: (multiprocessors / tiles).clamp(1, row_blocks),
            tile_packets: packets,
            row_lanes: lanes,
            box_packets: packets,
            box_pitch: stage_bytes,
            stages: 1,
            pieces: pieces(tile_columns, chunk),
            loads_ahead: 1,
            lane_rows: held,
            stage_bytes,
        }
    }

    /// Blocks of a launch.
    pub(crate) fn blocks(&self) -> u32 {
        self.tiles * self.groups
    }

    /// Accumulator records: each block has one for every chunk that its tile has a part of.
    pub(crate) fn records(&self) -> usize {
        self.blocks() as usize * self.pieces as usize
    }

    /// Rows of a stage.
    pub(crate) fn stage_rows(&self) -> u32 {
        self.lane_rows * self.row_lanes
    }

    /// Bytes of one matrix's part of a stage in shared memory.
    pub(crate) fn stage_bytes(&self) -> u32 {
        self.stage_bytes
    }
}

/// The most chunks of `chunk` columns that a tile has a part of: one that begins inside a chunk has a part more than its width suggests.
pub(crate) fn pieces(tile_columns: u32, chunk: u32) -> u32 {
    match tile_columns.is_multiple_of(chunk) {
        true => tile_columns / chunk,
        false => (tile_columns - 1) / chunk + 2,
    }
}

/// Threads that share a packet of columns: as many as there are, but no more rows than a box's side.
fn row_lanes(tile_packets: u32, tuning: Tuning) -> u32 {
    (tuning.threads / tile_packets).clamp(1, MAX_BOX / ROWS)
}

/// The boxes that a tile's row is cut into: the fewest that divide it and keep to the greatest side.
fn boxes(tile_packets: u32, elements: u32) -> u32 {
    let most = MAX_BOX / elements;
    // `tile_packets` itself always divides, with boxes of one packet.
    (1..=tile_packets)
        .find(|boxes| tile_packets.is_multiple_of(*boxes) && tile_packets / boxes <= most)
        .unwrap_or(tile_packets)
}

/// Packets in a row of a tile: a whole number of chunks, or a whole part of one, where packets allow it; not more than the
/// workers; and so few that all multiprocessors get something to do.
fn tile_packets(
    rows: u32,
    columns: u32,
    chunk: u32,
    elements: u32,
    machine: Machine,
    (tuning, most): (Tuning, u32),
) -> u32 {
    let whole_row = columns.div_ceil(elements);
    let enough = |packets: u32| {
        let row_blocks = rows.div_ceil(ROWS * row_lanes(packets, tuning));
        u64::from(whole_row.div_ceil(packets)) * u64::from(row_blocks)
            >= u64::from(machine.multiprocessors)
    };
    let aligned = |packets: u32| {
        let tile = packets * elements;
        tile.is_multiple_of(chunk) || chunk.is_multiple_of(tile)
    };
    // From the preferred width downwards, and only then the wider ones.
    let wide = tuning.packets.min(most);
    let order = || (1..=wide).rev().chain(wide + 1..=most);
    let fine = |packets: &u32| aligned(*packets) && boxes(*packets, elements) <= 8;
    order()
        .find(|packets| fine(packets) && enough(*packets) && *packets * 4 >= wide)
        .or_else(|| order().filter(|packets| enough(*packets)).find(fine))
        .or_else(|| order().find(fine))
        .unwrap_or(wide)
}

/// An H200, an A100 and a consumer card.
#[cfg(test)]
pub(crate) const MACHINES: [Machine; 3] = [
    Machine { multiprocessors: 132, shared_bytes: 232_448, blocks: 1 },
    Machine { multiprocessors: 108, shared_bytes: 166_912, blocks: 2 },
    Machine { multiprocessors: 48, shared_bytes: 101_376, blocks: 1 },
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Needs of a forward kernel that only copies and counts packets.
    const COPY: Needs = Needs {
        most_packets: WORKERS,
        matrices: 1,
        beside: 256 * 48,
        fewest: 1,
        lane_rows: ROWS,
        tuning: Tuning::BULK,
    };

    fn cut(rows: u32, hidden: usize, chunk: usize, element_bytes: u32, path: LoadPath) -> Geometry {
        let layout = SeedLayout::new(hidden, chunk).expect("a layout");
        Geometry::new(rows, layout, element_bytes, path, MACHINES[0], COPY)
    }

    proptest! {
        #[test]
        fn every_column_is_in_one_tile_and_every_stage_fits(
            rows in prop_oneof![1u32..100, 1u32..1_000_000],
            (hidden, chunk) in prop_oneof![1usize..400, 1usize..200_000]
                .prop_flat_map(|hidden| (Just(hidden), prop_oneof![1..=hidden, 1..=hidden.min(64)])),
            element_bytes in prop_oneof![Just(2u32), Just(4)],
            path in prop::sample::select(LoadPath::LADDER.to_vec()),
            machine in prop::sample::select(MACHINES.to_vec()),
            matrices in 1u32..3,
            tuning in prop::sample::select(vec![Tuning::BULK, Tuning::BULK_BUSY, Tuning::PLAIN]),
            most_packets in prop::sample::select(vec![WORKERS, WORKERS / 2]),
        ) {
            let layout = SeedLayout::new(hidden, chunk).expect("a layout");
            let needs = Needs { most_packets, matrices, tuning, fewest: 2, ..COPY };
            let g = Geometry::new(rows, layout, element_bytes, path, machine, needs);
            let elements = PACKET_BYTES / element_bytes;
            prop_assert_eq!(g.tile_columns, g.tile_packets * elements);
            prop_assert!(g.tiles * g.tile_columns >= g.columns && (g.tiles - 1) * g.tile_columns < g.columns);
            prop_assert!(g.tile_packets * g.row_lanes <= WORKERS && g.row_lanes >= 1);
            prop_assert!(g.tile_packets <= most_packets);
            prop_assert!(g.groups >= 1 && g.groups <= rows.div_ceil(g.stage_rows()));
            prop_assert!(g.blocks() <= (machine.multiprocessors * machine.blocks).max(g.tiles));
            // What a tensor map and a barrier allow, and how boxes lie in shared memory.
            prop_assert!(g.tile_packets.is_multiple_of(g.box_packets));
            if path == LoadPath::TensorMap {
                prop_assert!(g.box_packets * elements <= MAX_BOX && g.stage_rows() <= MAX_BOX);
            }
            prop_assert!(g.box_pitch.is_multiple_of(128));
            prop_assert!(g.box_pitch >= g.box_packets * PACKET_BYTES * g.stage_rows());
            prop_assert!(g.stage_bytes() < 1 << 20);
            // More stages than the kernel has stores under way, and all of them fit.
            prop_assert!(g.stages >= 2);
            if matches!(path, LoadPath::TensorMap | LoadPath::Bulk) && machine.blocks == 1 {
                let bytes = g.stages * (matrices * g.stage_bytes() + 24) + needs.beside;
                prop_assert!(bytes <= machine.shared_bytes - RESERVED_SHARED / 2);
            }
            prop_assert!(g.loads_ahead >= 1 && g.loads_ahead <= g.stages);
            // Pieces: the most chunks that any tile has a part of.
            for tile in (0..g.tiles).take(50) {
                let (start, end) = (tile * g.tile_columns, ((tile + 1) * g.tile_columns).min(g.columns));
                prop_assert!((end - 1) / g.chunk - start / g.chunk < g.pieces);
            }
        }
    }

    #[test]
    fn large_matrices_are_cut_as_was_measured_best() {
        let g = cut(8192, 8192, 64, 4, LoadPath::TensorMap);
        assert_eq!((g.tile_packets, g.row_lanes, g.box_packets, g.stages), (128, 1, 64, 8));
        assert_eq!((g.tiles, g.groups, g.stage_bytes(), g.loads_ahead), (16, 8, 16 << 10, 4));
        let g = cut(8192, 16384, 64, 2, LoadPath::TensorMap);
        assert_eq!((g.tile_packets, g.box_packets, g.tiles, g.groups), (128, 32, 16, 8));
    }

    #[test]
    fn a_tile_is_a_whole_number_of_chunks_where_packets_allow_it() {
        for (chunk, tile) in [(1000, 500), (48, 480), (768, 384), (3, 504), (1, 512)] {
            let g = cut(100_000, 6000, chunk, 4, LoadPath::TensorMap);
            assert_eq!(g.tile_columns, tile, "chunk {chunk}");
        }
    }

    #[test]
    fn few_rows_still_use_many_multiprocessors() {
        let g = cut(32, 768, 48, 4, LoadPath::TensorMap);
        assert!(g.blocks() >= 8, "{g:?}");
    }
}
