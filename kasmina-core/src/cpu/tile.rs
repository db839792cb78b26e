//! How a matrix is cut into tiles, and raw views through which tiles on several threads write it.

use std::ops::Range;

use kasmina_telemetry::{ChunkAccumulator, ChunkStats, GradientAccumulator, GradientStats};
use rayon::prelude::*;

use crate::{MatMut, MatRef, SeedLayout};

/// Columns of a tile at most: a row segment and its accumulators stay in the first-level caches.
const TILE_COLUMNS: usize = 4096;
/// Tiles a matrix is cut into where it is large enough, so that threads can balance.
const TARGET_TILES: usize = 64;
/// Chunks below this are cut into narrower tiles: they have few rows to share (see [`MIN_SEED_ELEMENTS`]), and
/// columns cost no merge (measured at 256 × 4096, chunk 1, 2 threads: 0.20 ms instead of 0.32).
const SMALL_CHUNK: usize = 16;
/// Columns of their tiles.
const SMALL_CHUNK_COLUMNS: usize = 1024;
/// Elements of a seed that a tile holds at least: each costs a merge of statistics (measured with 4096 seeds
/// of one column: 64 merges a seed took longer than the pass itself).
const MIN_SEED_ELEMENTS: usize = 512;
/// Elements below which a tile is not worth a task of its own.
const MIN_TILE_ELEMENTS: usize = 32 * 1024;
/// Elements below which a pass stays on the calling thread. A host has threads of its own, which spin for its next operation: on
/// 2 cores of an EPYC, four passes over 64 × 1024 in a training step of candle took 3.5 % of the step (1.0 to 4.9) on two threads
/// and nothing that can be measured (−1.5 to 0.5) on the caller's.
const PARALLEL_ELEMENTS: usize = 128 * 1024;

/// Some rows of some columns, `stride` elements from row to row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
}

/// A rectangle of the activation matrix.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// The seeds of the columns. A chunk wider than a tile is spread over several tiles.
    pub(super) seeds: Range<usize>,
    /// Columns a seed within this tile.
    pub(super) chunk: usize,
}

/// Cuts `[rows, hidden]` into tiles, column block by column block, each from top to bottom.
pub(super) fn tiles(layout: SeedLayout, rows: usize) -> Vec<Tile> {
    if rows == 0 {
        return Vec::new();
    }
    let mut blocks: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    let (seeds, chunk) = (layout.seeds(), layout.chunk());
    if chunk <= TILE_COLUMNS {
        let step = if chunk < SMALL_CHUNK { SMALL_CHUNK_COLUMNS } else { TILE_COLUMNS } / chunk;
        for first in (0..seeds).step_by(step) {
            let last = (first + step).min(seeds);
            blocks.push((layout.columns(first).start..layout.columns(last - 1).end, first..last));
        }
    } else {
        for seed in 0..seeds {
            let columns = layout.columns(seed);
            for start in columns.clone().step_by(TILE_COLUMNS) {
                blocks.push((start..(start + TILE_COLUMNS).min(columns.end), seed..seed + 1));
            }
        }
    }
    let width = layout.hidden().min(TILE_COLUMNS);
    let segments = (TARGET_TILES / blocks.len())
        .min(rows.saturating_mul(width) / MIN_TILE_ELEMENTS)
        .min(rows.saturating_mul(chunk) / MIN_SEED_ELEMENTS)
        .clamp(1, rows);
    let mut tiles = Vec::with_capacity(blocks.len() * segments);
    for (columns, seeds) in blocks {
        let chunk = chunk.min(columns.len());
        for s in 0..segments {
            let rows = rows * s / segments..rows * (s + 1) / segments;
            tiles.push(Tile { rows, columns: columns.clone(), seeds: seeds.clone(), chunk });
        }
    }
    tiles
}

/// Whether work in so many pieces, over so many elements, is worth waking other threads.
pub(super) fn is_parallel(pieces: usize, elements: usize) -> bool {
    pieces > 1 && elements >= PARALLEL_ELEMENTS
}

/// Runs `work` on every item and returns the results in the items' order; on the calling thread if the `elements` are few.
pub(super) fn in_order<I: Sync, R: Send>(
    items: &[I],
    elements: usize,
    work: impl Fn(&I) -> R + Send + Sync,
) -> Vec<R> {
    if is_parallel(items.len(), elements) {
        items.par_iter().map(work).collect()
    } else {
        items.iter().map(work).collect()
    }
}

/// A matrix that threads read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawMat<T> {
    data: *const T,
    rows: usize,
    columns: usize,
    row_stride: usize,
}

// SAFETY: the view only reads, and whoever makes it keeps the matrix alive and unwritten, or written
// through a `RawMatMut` in disjoint places, for the length of the call.
unsafe impl<T: Sync> Send for RawMat<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for RawMat<T> {}

impl<T> RawMat<T> {
    pub(crate) fn new(matrix: MatRef<'_, T>) -> Self {
        Self {
            data: matrix.as_ptr(),
            rows: matrix.rows(),
            columns: matrix.columns(),
            row_stride: matrix.row_stride(),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Visits some columns of every row in order; `columns` must be inside the matrix.
    pub(crate) fn for_each_row(&self, columns: Range<usize>, mut visit: impl FnMut(&[T])) {
        assert!(columns.end <= self.columns, "columns inside the matrix");
        for row in 0..self.rows {
            // SAFETY: the row and columns are inside the matrix, which the borrow behind this view
            // keeps alive, and no pass runs while rows are visited.
            visit(unsafe { self.row(row, columns.clone()) });
        }
    }

    /// Some columns of consecutive rows, as one slice from the first element to the last, and the stride
    /// from row to row.
    ///
    /// # Safety
    /// The rows (at least one) and columns are inside the matrix, the matrix is alive, and nothing writes
    /// it while the slice lives.
    pub(super) unsafe fn block<'a>(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> (&'a [T], usize) {
        debug_assert!(!rows.is_empty() && rows.end <= self.rows && columns.end <= self.columns);
        let len = (rows.len() - 1) * self.row_stride + columns.len();
        // SAFETY: inside the matrix by the caller's promise; `MatRef::new` checked the whole span.
        unsafe {
            let start = self.data.add(rows.start * self.row_stride + columns.start);
            (std::slice::from_raw_parts(start, len), self.row_stride)
        }
    }

    /// A part of a row.
    ///
    /// # Safety
    /// The row and columns are inside the matrix, the matrix is alive, and nothing writes the
    /// elements while the slice lives.
    pub(super) unsafe fn row<'a>(&self, row: usize, columns: Range<usize>) -> &'a [T] {
        debug_assert!(row < self.rows && columns.end <= self.columns);
        // SAFETY: inside the matrix by the caller's promise; `MatRef::new` checked the whole span.
        unsafe {
            let start = self.data.add(row * self.row_stride + columns.start);
            std::slice::from_raw_parts(start, columns.len())
        }
    }
}

/// A matrix that threads write in disjoint places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawMatMut<T> {
    data: *mut T,
    rows: usize,
    columns: usize,
    row_stride: usize,
}

// SAFETY: every user writes places that no other thread touches, see `row_mut`.
unsafe impl<T: Send> Send for RawMatMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for RawMatMut<T> {}

impl<T> RawMatMut<T> {
    pub(crate) fn new(matrix: &mut MatMut<'_, T>) -> Self {
        Self {
            data: matrix.as_mut_ptr(),
            rows: matrix.rows(),
            columns: matrix.columns(),
            row_stride: matrix.row_stride(),
        }
    }

    /// The same memory as an input: the in-place call.
    pub(crate) fn as_input(&self) -> RawMat<T> {
        RawMat {
            data: self.data,
            rows: self.rows,
            columns: self.columns,
            row_stride: self.row_stride,
        }
    }

    /// A part of a row to write.
    ///
    /// # Safety
    /// The row and columns are inside the matrix, the matrix is alive, and nothing else touches the
    /// elements while the slice lives.
    pub(super) unsafe fn row_mut<'a>(&self, row: usize, columns: Range<usize>) -> &'a mut [T] {
        debug_assert!(row < self.rows && columns.end <= self.columns);
        // SAFETY: inside the matrix by the caller's promise; `MatMut::new` checked the whole span.
        unsafe {
            let start = self.data.add(row * self.row_stride + columns.start);
            std::slice::from_raw_parts_mut(start, columns.len())
        }
    }
}

/// The accumulator of a tile's columns.
pub(super) fn new_chunk_accumulator(columns: usize, chunk: usize, dead: f32) -> ChunkAccumulator {
    ChunkAccumulator::new(columns, chunk, dead)
        .expect("a tile has columns and chunks of at least one")
}

/// The gradient accumulator of a tile's columns.
pub(super) fn new_gradient_accumulator(columns: usize, chunk: usize) -> GradientAccumulator {
    GradientAccumulator::new(columns, chunk).expect("a tile has columns and chunks of at least one")
}

/// Which seeds a call measures: ascending, disjoint ranges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) seeds: &'a [Range<usize>],
    pub(crate) dead_epsilon: f32,
}

/// The watched seeds of one tile, as tile-local seed and column ranges.
#[derive(Debug)]
pub(super) struct TileWatch {
    ranges: Vec<(Range<usize>, Range<usize>)>,
}

impl TileWatch {
    pub(super) fn new(watch: Watch<'_>, tile: &Tile) -> Self {
        let first = watch.seeds.partition_point(|range| range.end <= tile.seeds.start);
        let ranges = watch.seeds[first..]
            .iter()
            .take_while(|range| range.start < tile.seeds.end)
            .map(|range| {
                let local = range.start.max(tile.seeds.start) - tile.seeds.start
                    ..range.end.min(tile.seeds.end) - tile.seeds.start;
                let end = (local.end * tile.chunk).min(tile.columns.len());
                (local.clone(), local.start * tile.chunk..end)
            })
            .collect();
        Self { ranges }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    #[inline]
    pub(super) fn chunks(&self, accumulator: &mut ChunkAccumulator, block: Block<'_>, rows: usize) {
        for (seeds, columns) in &self.ranges {
            let end = (rows - 1) * block.stride + columns.end;
            let data = &block.data[columns.start..end];
            accumulator.push_rows(seeds.clone(), data, block.stride, rows);
        }
    }

    #[inline]
    pub(super) fn gradients(
        &self,
        accumulator: &mut GradientAccumulator,
        block: Block<'_>,
        rows: usize,
    ) {
        for (seeds, columns) in &self.ranges {
            let end = (rows - 1) * block.stride + columns.end;
            let data = &block.data[columns.start..end];
            accumulator.push_rows(seeds.clone(), data, block.stride, rows);
        }
    }
}

/// Merges the tiles' chunk statistics in tile order.
pub(super) fn merge_chunks<'a>(
    out: &mut [ChunkStats],
    parts: impl Iterator<Item = (&'a Tile, &'a [ChunkStats])>,
) {
    for (tile, part) in parts {
        for (total, part) in out[tile.seeds.clone()].iter_mut().zip(part) {
            total.merge(part);
        }
    }
}

/// Merges the tiles' gradient statistics in tile order.
pub(super) fn merge_gradients<'a>(
    out: &mut [GradientStats],
    parts: impl Iterator<Item = (&'a Tile, &'a [GradientStats])>,
) {
    for (tile, part) in parts {
        for (total, part) in out[tile.seeds.clone()].iter_mut().zip(part) {
            total.merge(part);
        }
    }
}
