//! How data are cut for the kernels. Everything here follows from shape, type and alignment alone, because the shape of every
//! tree of sums hangs on it: never from the device.

/// Bytes of a packet.
pub(super) const PACKET: u64 = 16;
/// Strips of a piece: a warp each.
pub(super) const STRIPS: u64 = 8;
/// Packets of the shortest strip: four for each lane.
const LEAST_STRIP: u64 = 128;
/// Packets that one block reads as fast as several would, which have to meet: 16 KiB.
const ONE_PIECE: u64 = 1024;
/// Pieces that keep a large device busy, and yet are soon merged: 256 MiB took 68.7 µs in 1408 pieces, large and small, and 71.3 in
/// 3584.
const PIECES: u64 = 1024;
/// Packets of the strip of a large piece, 256 KiB: with longer ones blocks run out of work at different times (1 MiB took 262 µs for
/// 1 GiB, 512 KiB 251, 256 KiB 249).
const LONG_STRIP: u64 = 2048;
/// Pieces from which on merging them costs more than longer ones do.
const MOST_PIECES: u64 = 8192;
/// Of 8 parts of the data, those in large pieces; small ones behind them even out what is left.
const LARGE_PARTS: u64 = 7;
/// A large piece's length over a small one's.
const RATIO: u64 = 4;

/// A segment in pieces of eight strips each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PieceCut {
    pub(super) large: u64,
    pub(super) pieces: u64,
    pub(super) large_strip: u64,
    pub(super) small_strip: u64,
}

impl PieceCut {
    /// The cut of `packets`, the only segment.
    pub(super) fn flat(packets: u64) -> Self {
        if packets <= ONE_PIECE {
            return Self::whole(packets);
        }
        let of = |pieces: u64| (packets / (STRIPS * pieces)).next_power_of_two();
        let strip = of(PIECES).clamp(LEAST_STRIP, LONG_STRIP).max(of(MOST_PIECES));
        if strip < RATIO * LEAST_STRIP {
            return Self::uniform(packets, strip);
        }
        let large = packets / (STRIPS * strip) * LARGE_PARTS / 8;
        let small_strip = strip / RATIO;
        let rest = packets - large * STRIPS * strip;
        Self {
            large,
            pieces: large + rest.div_ceil(STRIPS * small_strip),
            large_strip: strip,
            small_strip,
        }
    }

    /// The cut for one block alone: one piece of `packets`.
    pub(super) fn whole(packets: u64) -> Self {
        Self::uniform(packets, packets.div_ceil(STRIPS).next_multiple_of(32).max(32))
    }

    /// The cut of each of `segments` segments of at most `packets`.
    pub(super) fn of_many(packets: u64, segments: u64) -> Self {
        let wanted = (4 * PIECES / segments.max(1)).max(1);
        Self::uniform(
            packets,
            packets.div_ceil(STRIPS * wanted).next_power_of_two().max(LEAST_STRIP),
        )
    }

    fn uniform(packets: u64, strip: u64) -> Self {
        let pieces = packets.div_ceil(STRIPS * strip).max(1);
        Self { large: 0, pieces, large_strip: strip, small_strip: strip }
    }
}

/// How many lanes take a segment, how many packets each at a time, and of how many segments at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) lanes: u64,
    pub(super) packets: u64,
    pub(super) rounds: u64,
}

/// Times that a group goes to memory for the longest segment that it takes itself.
const LIMIT: u64 = 16;

impl Group {
    const fn new(lanes: u64, packets: u64) -> Self {
        Self { lanes, packets, rounds: 4 / packets }
    }

    /// For equal segments of `packets` whole packets each. `all`: whether the type has a kernel for every group.
    pub(super) fn of_plain(packets: u64, all: bool) -> Self {
        match packets {
            0..=1 => Self::new(1, 1),
            2..=4 if !all => Self::new(4, 1),
            5..=16 if !all => Self::new(4, 4),
            _ if !all => Self::new(32, 4),
            2 => Self::new(2, 1),
            3..=4 => Self::new(4, 1),
            5..=8 => Self::new(4, 2),
            9..=16 => Self::new(4, 4),
            17..=32 => Self::new(8, 4),
            33..=64 => Self::new(16, 4),
            _ => Self::new(32, 4),
        }
    }

    /// For segments that begin and end anywhere, of `packets` on average. `all`: as for [`Group::of_plain`].
    pub(super) fn of_ragged(packets: u64, all: bool) -> Self {
        match packets {
            0..=3 => Self::new(1, 4),
            4..=18 if !all => Self::new(4, 4),
            _ if !all => Self::new(32, 4),
            4..=8 => Self::new(2, 4),
            9..=18 => Self::new(4, 4),
            19..=36 => Self::new(8, 4),
            37..=72 => Self::new(16, 4),
            _ => Self::new(32, 4),
        }
    }

    /// Elements of the longest segment between offsets that a group takes itself, of `lanes` elements a packet.
    pub(super) fn limit(&self, lanes: u64) -> u64 {
        LIMIT * lanes * self.lanes * self.packets
    }

    /// The kernel's ending.
    pub(super) fn name(&self) -> String {
        format!("{}x{}", self.lanes, self.packets)
    }

    /// Blocks of `threads` that take all segments in one go.
    pub(super) fn blocks(&self, segments: u64, threads: u64) -> u64 {
        let at_once = self.rounds * (threads / self.lanes);
        segments.div_ceil(at_once)
    }
}

/// How a matrix is cut for reductions over rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ColumnCut {
    pub(super) across: u64,
    /// Columns that a block makes one record of.
    pub(super) run: u64,
    /// Runs of a result.
    pub(super) chunk: u64,
    pub(super) tiles: u64,
    pub(super) block_rows: u64,
    pub(super) blocks: u64,
}

/// Columns of a thread where alignment allows: `kWideColumns` of `kernels/reduce_columns.cuh`.
pub(super) const WIDE: u64 = 4;
/// Threads of a block of the column kernels.
pub(super) const COLUMN_THREADS: u64 = 256;
/// Blocks that a matrix is cut into, where it has rows enough.
const COLUMN_BLOCKS: u64 = 512;
/// Rows that a thread should have at least.
const THREAD_ROWS: u64 = 8;

impl ColumnCut {
    /// For threads of `width` columns each and results of `chunk` columns. Neither of these nor `columns` is 0. `split`: whether rows
    /// may be divided among blocks.
    pub(super) fn new(rows: u64, columns: u64, width: u64, chunk: u64, split: bool) -> Self {
        let threads = columns.div_ceil(width);
        let across = threads.next_power_of_two().min(32);
        let tiles = threads.div_ceil(across);
        let down = COLUMN_THREADS / across;
        let most = if split { COLUMN_BLOCKS / tiles } else { 1 };
        let block_rows = rows.div_ceil(most.max(1)).max(down * THREAD_ROWS).next_multiple_of(down);
        // One result has all the columns there are, so runs need not end with it.
        let (run, chunk) = if chunk >= columns {
            (across * width, tiles)
        } else {
            let within = (0..=across.ilog2())
                .rev()
                .map(|k| width << k)
                .find(|run| chunk.is_multiple_of(*run));
            within.map_or((1, chunk), |run| (run, chunk / run))
        };
        Self { across, run, chunk, tiles, block_rows, blocks: rows.div_ceil(block_rows) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets that the pieces of a cut cover together.
    fn covered(cut: &PieceCut) -> u64 {
        STRIPS * (cut.large * cut.large_strip + (cut.pieces - cut.large) * cut.small_strip)
    }

    #[test]
    fn pieces_cover_everything_once_and_are_not_too_many() {
        let sizes =
            (0..34).flat_map(|k| [(1_u64 << k) - 1, 1 << k, (1 << k) + 1]).chain([1000, 99_991]);
        for packets in sizes {
            for cut in [
                PieceCut::flat(packets),
                PieceCut::of_many(packets, 1),
                PieceCut::of_many(packets, 500),
                PieceCut::whole(packets),
            ] {
                assert!(covered(&cut) >= packets, "{packets}: {cut:?}");
                assert!(cut.pieces >= 1 && cut.pieces < 3 * MOST_PIECES, "{packets}: {cut:?}");
                // The last piece has something.
                let last =
                    STRIPS * if cut.pieces > cut.large { cut.small_strip } else { cut.large_strip };
                assert!(packets == 0 || covered(&cut) - last < packets, "{packets}: {cut:?}");
            }
        }
        assert_eq!(PieceCut::flat(ONE_PIECE).pieces, 1);
        assert_eq!(PieceCut::whole(1 << 31).pieces, 1);
    }

    #[test]
    fn runs_lie_within_a_chunk_and_a_tile() {
        for (columns, width, chunk, run, runs) in [
            (8192, 4, 64, 64, 1),
            (8192, 4, 4096, 128, 32),
            (8192, 4, 1, 1, 1),
            (8192, 4, 6, 1, 6),
            (8192, 4, 12, 4, 3),
            (8192, 8, 12, 1, 12),
            (1000, 1, 24, 8, 3),
            (1000, 1, 5000, 32, 32),
            (3, 1, 7, 4, 1),
            (3, 1, 1, 1, 1),
        ] {
            let cut = ColumnCut::new(1000, columns, width, chunk, true);
            assert_eq!((cut.run, cut.chunk), (run, runs), "{columns} {width} {chunk}");
            // As many results as chunks.
            assert_eq!(columns.div_ceil(cut.run).div_ceil(cut.chunk), columns.div_ceil(chunk));
        }
    }

    #[test]
    fn columns_and_rows_are_covered_once() {
        for rows in [0, 1, 7, 64, 8192, 1_000_003] {
            for (columns, width) in [(1, 1), (3, 1), (4, 4), (8192, 4), (8192, 8), (100_000, 1)] {
                let whole = ColumnCut::new(rows, columns, width, 64, false);
                assert_eq!(whole.blocks, u64::from(rows > 0));
                let cut = ColumnCut::new(rows, columns, width, 64, true);
                assert!(cut.tiles * cut.across * width >= columns);
                assert!((cut.tiles - 1) * cut.across * width < columns);
                assert!(cut.blocks * cut.block_rows >= rows && (rows == 0) == (cut.blocks == 0));
                assert!(rows == 0 || (cut.blocks - 1) * cut.block_rows < rows);
            }
        }
    }
}
