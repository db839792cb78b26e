//! How the filters of a layer are cut into tiles and dealt out to blocks, as `kernels/stencil_pipeline.cuh` walks them.

use super::error::CudaError;

/// Threads that compute, of a block.
pub(super) const CONSUMERS: u32 = 256;
/// All threads of a block: two warps beside them load.
pub(super) const THREADS: u32 = CONSUMERS + 64;
/// Bytes of a packet.
const PACKET_BYTES: u32 = 16;
/// The most tiles in shared memory at once.
const MOST_STAGES: u32 = 3;
/// Packets in a row of a tile where a chunk has to be cut; 16 taps of f32 read 3 % of its columns twice.
const CUT_PACKETS: u32 = 128;
/// Bytes that a kernel declares statically, at most: they count against the same limit.
const STATIC_BYTES: u32 = 2048;
/// What the kernels count tiles and items up to.
const LIMIT: u64 = 1 << 30;

/// Forward or backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// What a cut depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) direction: Direction,
    pub(super) rows: u32,
    /// Columns of a chunk; the last may have fewer.
    pub(super) chunk: u32,
    pub(super) element_bytes: u32,
    /// Whether every row of every chunk begins at a multiple of 16 bytes.
    pub(super) aligned: bool,
    /// The output overwrites the input.
    pub(super) in_place: bool,
    pub(super) jobs: u32,
    /// Of the job with the most.
    pub(super) taps: u32,
    /// Blocks that the device runs at once.
    pub(super) blocks: u32,
    /// Shared memory that a block can have.
    pub(super) shared_bytes: u32,
}

/// The numbers of a launch; the first eight are fields of `StencilParams`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) parts: u32,
    pub(super) units: u32,
    pub(super) unit_tiles: u32,
    pub(super) column_tiles: u32,
    pub(super) tile_packets: u32,
    pub(super) row_lanes: u32,
    pub(super) halo: u32,
    pub(super) stages: u32,
    /// Blocks to launch.
    pub(super) grid: u32,
    /// Dynamic shared memory of a block.
    pub(super) shared_bytes: u32,
}

/// The taps that the kernel for up to `taps` is compiled for.
pub(super) fn most_taps(taps: u32) -> u32 {
    [4, 8].into_iter().find(|&most| taps <= most).unwrap_or(16)
}

impl Shape {
    fn lanes(&self) -> u32 {
        PACKET_BYTES / self.element_bytes
    }

    /// Rows of a tile that a thread takes.
    fn thread_rows(&self) -> u32 {
        match self.direction {
            Direction::Forward => 4,
            Direction::Backward => 2,
        }
    }

    /// Bytes of one stage, and of what is there once.
    fn shared(&self, tile_packets: u32, row_lanes: u32, halo: u32) -> (u32, u32) {
        let rows = row_lanes * self.thread_rows();
        let middle = tile_packets + halo;
        match self.direction {
            Direction::Forward => (rows * middle * PACKET_BYTES, 0),
            Direction::Backward => {
                let (x, g) = (tile_packets + 2 * halo, middle + 1);
                let sums = (most_taps(self.taps) + 1) * CONSUMERS * 8;
                (rows * (x + g) * PACKET_BYTES, 2 * rows * middle * self.lanes() * 4 + sums)
            }
        }
    }

    /// The cut.
    ///
    /// # Errors
    /// [`CudaError::TooLarge`].
    pub(super) fn cut(&self) -> Result<Cut, CudaError> {
        let lanes = self.lanes();
        if u64::from(self.chunk) > LIMIT {
            let (value, limit) = (self.chunk as usize, LIMIT as usize);
            return Err(CudaError::TooLarge { what: "a filter's columns", value, limit });
        }
        // Of a row that begins at the last element of a packet, where that can be.
        let packets = (self.chunk + if self.aligned { 0 } else { lanes - 1 }).div_ceil(lanes);
        let fits = |stages, (stage, once): (u32, u32)| {
            stages * stage + once + STATIC_BYTES <= self.shared_bytes
        };
        // The devices with least shared memory have not quite enough for the widest row.
        let is_one = packets <= CONSUMERS && fits(2, self.shared(packets, 1, 0));
        let column_tiles = if is_one { 1 } else { packets.div_ceil(CUT_PACKETS) };
        let tile_packets = packets.div_ceil(column_tiles);
        let halo = if column_tiles == 1 { 0 } else { (self.taps - 1).div_ceil(lanes) };
        let mut row_lanes =
            (CONSUMERS / tile_packets).min(self.rows.div_ceil(self.thread_rows())).max(1);
        let mut stages = MOST_STAGES;
        let shared_bytes = loop {
            let (stage, once) = self.shared(tile_packets, row_lanes, halo);
            if fits(stages, (stage, once)) || (stages == 2 && row_lanes == 1) {
                break stages * stage + once;
            }
            if stages > 2 { stages -= 1 } else { row_lanes -= 1 }
        };
        let row_tiles = self.rows.div_ceil(row_lanes * self.thread_rows());
        let tiles = u64::from(row_tiles) * u64::from(column_tiles);
        if tiles > LIMIT {
            let (value, limit) = (tiles as usize, LIMIT as usize);
            return Err(CudaError::TooLarge { what: "a filter's tiles", value, limit });
        }
        let (units, unit_tiles) =
            if self.in_place { (row_tiles, column_tiles) } else { (tiles as u32, 1) };
        let parts = parts(self.jobs, units, self.blocks);
        Ok(Cut {
            parts,
            units,
            unit_tiles,
            column_tiles,
            tile_packets,
            row_lanes,
            halo,
            stages,
            grid: self.blocks.min(self.jobs.saturating_mul(parts)).max(1),
            shared_bytes,
        })
    }
}

/// Into how many parts each of `jobs` of `units` is cut, so that `blocks` have about the same to do: with every block in the
/// same number of rounds, or nearly so. Few parts, since each ends with a reduction.
fn parts(jobs: u32, units: u32, blocks: u32) -> u32 {
    let most = units.max(1);
    let slots = |round: u32| u64::from(round) * u64::from(blocks);
    let of = |round: u32| (slots(round) / u64::from(jobs.max(1))).min(u64::from(most)) as u32;
    // Of a round's slots, how many do something, in 1/1024.
    let busy = |parts: u32| {
        let items = u64::from(jobs) * u64::from(parts);
        items * 1024 / (items.div_ceil(u64::from(blocks)).max(1) * u64::from(blocks))
    };
    let mut best = 1;
    for parts in (1..=16).map(of).filter(|&parts| parts > 0) {
        if busy(best) >= 950 {
            break;
        }
        if busy(parts) > busy(best) {
            best = parts;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Shape = Shape {
        direction: Direction::Backward,
        rows: 8192,
        chunk: 64,
        element_bytes: 4,
        aligned: true,
        in_place: false,
        jobs: 128,
        taps: 16,
        blocks: 264,
        shared_bytes: 227 << 10,
    };

    #[test]
    fn every_cut_covers_its_chunk_and_fits_its_shared_memory() {
        for direction in [Direction::Forward, Direction::Backward] {
            for shared_bytes in [99 << 10, 227 << 10] {
                for element_bytes in [2, 4] {
                    for chunk in (1..3000).chain([4096, 5001, 99_999, 100_000]) {
                        let aligned = chunk % 8 == 0;
                        let shape = Shape {
                            direction,
                            shared_bytes,
                            element_bytes,
                            chunk,
                            aligned,
                            ..H200
                        };
                        let cut = shape.cut().expect("a legal shape");
                        let lanes = 16 / element_bytes;
                        let columns = cut.column_tiles * cut.tile_packets * lanes;
                        let lead = if aligned { 0 } else { lanes - 1 };
                        assert!(columns >= chunk + lead, "{shape:?}: {cut:?}");
                        assert!(
                            cut.tile_packets * cut.row_lanes <= CONSUMERS,
                            "{shape:?}: {cut:?}"
                        );
                        assert!(
                            cut.shared_bytes + STATIC_BYTES <= shared_bytes,
                            "{shape:?}: {cut:?}"
                        );
                        assert!(cut.parts >= 1 && cut.parts <= cut.units && cut.stages >= 2);
                        assert!(cut.column_tiles == 1 || cut.halo * lanes >= shape.taps - 1);
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_have_about_the_same_to_do() {
        for jobs in 1..2000 {
            let parts = parts(jobs, 100_000, 264);
            let items = jobs * parts;
            let rounds = items.div_ceil(264);
            assert!(items * 100 >= rounds * 264 * 85, "{jobs} jobs in {parts} parts");
            assert!(parts <= 2 * 264, "{jobs} jobs in {parts} parts");
        }
        assert_eq!(parts(1, 3, 264), 3, "no part is without a unit");
        assert_eq!(parts(1, 0, 264), 1, "no rows");
        assert_eq!(parts(100_000, 1, 264), 1);
    }

    #[test]
    fn rows_are_one_unit_in_place() {
        let shape = Shape { chunk: 100_000, direction: Direction::Forward, ..H200 };
        let apart = shape.cut().expect("a legal shape");
        assert_eq!(apart.unit_tiles, 1);
        let in_place = Shape { in_place: true, ..shape }.cut().expect("a legal shape");
        assert_eq!(in_place.unit_tiles, in_place.column_tiles);
        assert_eq!(in_place.units * in_place.unit_tiles, apart.units);
        let empty = Shape { rows: 0, ..H200 }.cut().expect("a legal shape");
        assert_eq!((empty.units, empty.parts), (0, 1));
    }
}
