//! Three ways to the same numbers, and how work is cut into pieces.
//!
//! Pieces follow from the shape alone, never from the number of threads, so that `Hierarchical` and
//! `Direct` give the same bits on one core and on a hundred.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::{ChunkStats, GradientStats};

/// How partial results come together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReductionStrategy {
    /// Pieces in parallel, their partial results merged in a fixed tree. Bitwise reproducible.
    #[default]
    Hierarchical,
    /// Pieces in parallel, each folded into shared cells as it is done. The order is not fixed, so
    /// on the CPU the last digits of sums and moments may change from run to run; counts and extrema do not. On a GPU nothing does:
    /// its cells are integers throughout.
    Atomic,
    /// One worker walks all of a result's elements; only different results are computed in parallel.
    /// Bitwise reproducible, and the least work where results are many.
    Direct,
}

/// What a NaN does to a flat or column reduction. Statistics ([`ChunkStats`] and [`GradientStats`])
/// always leave NaN and ±Inf out and count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NanPolicy {
    /// One NaN makes the result NaN; an arg-min or arg-max is then the first NaN's index.
    #[default]
    Propagate,
    /// NaNs are passed over as if absent.
    Ignore,
}

/// Options of every reduction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReductionOptions {
    /// How partial results come together.
    pub strategy: ReductionStrategy,
    /// What a NaN does to sums and extrema.
    pub nan: NanPolicy,
    /// Finite |x| up to this count as dead in statistics.
    pub dead_epsilon: f32,
}

impl Default for ReductionOptions {
    fn default() -> Self {
        Self {
            strategy: ReductionStrategy::Hierarchical,
            nan: NanPolicy::Propagate,
            dead_epsilon: 1e-8,
        }
    }
}

/// Elements of a piece: large enough to outweigh handing it to another thread, small enough for the
/// second-level cache.
pub(crate) const PIECE: usize = 1 << 16;

/// Merges neighbours, then neighbours of those, up to one. `None` for no parts.
pub(crate) fn tree<T>(mut parts: Vec<T>, merge: impl Fn(&mut T, &T)) -> Option<T> {
    let mut step = 1;
    while step < parts.len() {
        for pair in parts.chunks_mut(2 * step) {
            if pair.len() > step {
                let (left, right) = pair.split_at_mut(step);
                merge(&mut left[0], &right[0]);
            }
        }
        step *= 2;
    }
    parts.into_iter().next()
}

/// How a matrix is cut: tiles of whole chunks side by side, and blocks of rows below each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    rows: usize,
    seeds: usize,
    /// Seeds of a tile; the last may have fewer.
    tile_seeds: usize,
    pub(crate) tiles: usize,
    /// Rows of a block; the last may have fewer.
    block_rows: usize,
    pub(crate) blocks: usize,
}

impl Cut {
    /// Columns of a tile, where chunks allow. Long row segments keep the prefetchers going: 4096 columns read
    /// from memory three times as fast as 512, though their accumulators live in the second-level cache.
    const TILE_COLUMNS: usize = 4096;
    /// Tasks that keep a large machine busy, where there are elements enough.
    const TASKS: usize = 64;
    /// Elements that a seed should have in a block, so that folding its sums costs little beside them.
    const SEED_ELEMENTS: usize = 256;

    /// `rows` may be 0; `columns` and `chunk` may not. `split_rows` is false for one block only.
    pub(crate) fn new(rows: usize, columns: usize, chunk: usize, split_rows: bool) -> Self {
        let chunk = chunk.min(columns);
        let seeds = columns.div_ceil(chunk);
        let tiles = (columns / Self::TILE_COLUMNS).clamp(1, seeds);
        // As even as can be: a narrow tile at the end would read from memory badly.
        let tile_seeds = seeds.div_ceil(tiles);
        let tiles = seeds.div_ceil(tile_seeds);
        let tile_elements = rows.saturating_mul((tile_seeds * chunk).min(columns));
        let blocks = if split_rows {
            Self::TASKS
                .div_ceil(tiles)
                .min(tile_elements / PIECE)
                .min(rows / Self::SEED_ELEMENTS.div_ceil(chunk))
                .max(1)
        } else {
            1
        };
        let block_rows = rows.div_ceil(blocks).max(1);
        Self {
            rows,
            seeds,
            tile_seeds,
            tiles,
            block_rows,
            blocks: rows.div_ceil(block_rows).max(1),
        }
    }

    pub(crate) fn seeds_of(&self, tile: usize) -> Range<usize> {
        tile * self.tile_seeds..self.seeds.min((tile + 1) * self.tile_seeds)
    }

    pub(crate) fn rows_of(&self, block: usize) -> Range<usize> {
        (block * self.block_rows).min(self.rows)..self.rows.min((block + 1) * self.block_rows)
    }
}

/// Adds to an f64 that lives in an atomic's bits.
pub(crate) fn add_f64(cell: &AtomicU64, x: f64) {
    // The closure always gives a value, so this cannot fail.
    let _ = cell.fetch_update(Relaxed, Relaxed, |bits| Some((f64::from_bits(bits) + x).to_bits()));
}

/// Replaces an f32 that lives in an atomic's bits where `better(x, held)`.
fn keep_f32(cell: &AtomicU32, x: f32, better: fn(f32, f32) -> bool) {
    // Failing means that the held value stays.
    let _ = cell.fetch_update(Relaxed, Relaxed, |bits| {
        better(x, f32::from_bits(bits)).then(|| x.to_bits())
    });
}

/// A record that threads fold into at the same time. Moments are held as sums about a fixed pivot, one of
/// the record's own values, because two sums can be added one after the other and a mean with its m2 not.
#[derive(Debug)]
pub(crate) struct SharedStats {
    pivot: f32,
    n: AtomicU64,
    dead: AtomicU64,
    nonfinite: AtomicU64,
    sum: AtomicU64,
    squares: AtomicU64,
    low: AtomicU32,
    high: AtomicU32,
}

impl SharedStats {
    pub(crate) fn new(pivot: Option<f32>) -> Self {
        Self {
            pivot: pivot.unwrap_or(0.0),
            n: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            nonfinite: AtomicU64::new(0),
            sum: AtomicU64::new(0.0_f64.to_bits()),
            squares: AtomicU64::new(0.0_f64.to_bits()),
            low: AtomicU32::new(f32::INFINITY.to_bits()),
            high: AtomicU32::new(f32::NEG_INFINITY.to_bits()),
        }
    }
}

/// A record with an atomic twin.
pub(crate) trait Shareable: crate::lanes::Record {
    fn fold_into(&self, shared: &SharedStats);
    fn from_shared(shared: SharedStats) -> Self;
}

/// The parts that both records share.
fn fold_moments(shared: &SharedStats, moments: crate::Moments, nonfinite: u64) {
    let shift = moments.mean - f64::from(shared.pivot);
    let n = moments.n as f64;
    shared.n.fetch_add(moments.n, Relaxed);
    shared.nonfinite.fetch_add(nonfinite, Relaxed);
    add_f64(&shared.sum, n * shift);
    add_f64(&shared.squares, moments.m2 + n * shift * shift);
}

fn total_of(shared: SharedStats) -> crate::lanes::Total {
    crate::lanes::Total {
        n: shared.n.into_inner(),
        dead: shared.dead.into_inner(),
        nonfinite: shared.nonfinite.into_inner(),
        pivot: shared.pivot,
        sum: f64::from_bits(shared.sum.into_inner()),
        squares: f64::from_bits(shared.squares.into_inner()),
        low: f32::from_bits(shared.low.into_inner()),
        high: f32::from_bits(shared.high.into_inner()),
    }
}

impl Shareable for ChunkStats {
    fn fold_into(&self, shared: &SharedStats) {
        fold_moments(shared, self.moments(), self.nonfinite);
        shared.dead.fetch_add(self.dead, Relaxed);
        keep_f32(&shared.low, self.min, |x, held| x < held);
        keep_f32(&shared.high, self.max, |x, held| x > held);
    }

    fn from_shared(shared: SharedStats) -> Self {
        crate::lanes::Record::from_total(&total_of(shared))
    }
}

impl Shareable for GradientStats {
    fn fold_into(&self, shared: &SharedStats) {
        fold_moments(shared, self.moments(), self.nonfinite);
        if self.n > 0 {
            keep_f32(&shared.low, self.max_abs, |x, held| x < held);
            keep_f32(&shared.high, self.max_abs, |x, held| x > held);
        }
    }

    fn from_shared(shared: SharedStats) -> Self {
        crate::lanes::Record::from_total(&total_of(shared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_covers_every_row_and_seed_once() {
        for rows in [0, 1, 2, 7, 1000, 70_000] {
            for (columns, chunk) in
                [(1, 1), (511, 1), (5000, 3), (4096, 64), (100_000, 100_000), (9, 20)]
            {
                for split in [false, true] {
                    let cut = Cut::new(rows, columns, chunk, split);
                    let covered: usize = (0..cut.blocks).map(|b| cut.rows_of(b).len()).sum();
                    assert_eq!(covered, rows);
                    assert!((0..cut.blocks).all(|b| rows == 0 || !cut.rows_of(b).is_empty()));
                    let seeds: usize = (0..cut.tiles).map(|t| cut.seeds_of(t).len()).sum();
                    assert_eq!(seeds, columns.div_ceil(chunk));
                    assert!((0..cut.tiles).all(|t| !cut.seeds_of(t).is_empty()));
                }
            }
        }
    }

    #[test]
    fn a_tree_merges_all_parts_in_order() {
        for n in 0..20 {
            let parts: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
            let all = tree(parts, |a, b| a.extend(b)).unwrap_or_default();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }
}
