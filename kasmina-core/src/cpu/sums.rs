//! Column sums of a backward pass: kept for every tile, merged in order, and turned into gradients.
//!
//! The sums of a block of a few rows are f32 and stay in the cache; they are folded into f64 totals.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::tile::Tile;
use crate::Blueprint;
use crate::lower::softmax;

/// Sums that a task merges.
const MERGE_ELEMENTS: usize = 1024;

/// Planes of sums: Σg, Σg·x, Σg·x over x·p > 0, and Σ(T(x) − x)² where reconstruction is asked for.
const PLANES: usize = 3;

/// The totals of all tiles, kept by a layer from call to call: fresh memory for them costs as much as the
/// sums themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    totals: Vec<f64>,
}

impl Scratch {
    /// Totals for tiles of the given widths, for the tiles to [clear](BlockSums::clear); empty ones if
    /// nothing is summed.
    pub(super) fn tiles(
        &mut self,
        widths: impl Iterator<Item = usize> + Clone,
        sums: bool,
        squares: bool,
    ) -> Vec<TileSums<'_>> {
        let planes = if sums { PLANES + usize::from(squares) } else { 0 };
        let needed = planes * widths.clone().sum::<usize>();
        if self.totals.len() < needed {
            self.totals.resize(needed, 0.0);
        }
        let mut rest = &mut self.totals[..needed];
        widths
            .map(|width| {
                let (own, after) = std::mem::take(&mut rest).split_at_mut(planes * width);
                rest = after;
                TileSums { width, values: own }
            })
            .collect()
    }
}

/// The totals of one tile, plane after plane.
#[derive(Debug)]
pub(super) struct TileSums<'a> {
    width: usize,
    values: &'a mut [f64],
}

impl TileSums<'_> {
    pub(super) fn values_mut(&mut self) -> &mut [f64] {
        self.values
    }

    fn plane(&self, plane: usize) -> &[f64] {
        self.values.chunks_exact(self.width).nth(plane).unwrap_or_default()
    }
}

/// The sums of a few rows of a tile, plane after plane like its totals.
#[derive(Debug, Default)]
pub(super) struct BlockSums {
    width: usize,
    values: Vec<f32>,
}

impl BlockSums {
    /// Zeros, as many as the tile has totals, and zeros in the totals.
    pub(super) fn clear(&mut self, tile: &mut TileSums<'_>) {
        tile.values.fill(0.0);
        self.width = tile.width;
        self.values.clear();
        self.values.resize(tile.values.len(), 0.0);
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The planes of some columns of the tile; a plane that is not kept is empty.
    pub(super) fn columns(&mut self, local: &Range<usize>) -> BlockColumns<'_> {
        let mut planes = self.values.chunks_exact_mut(self.width.max(1));
        let mut next = || planes.next().map(|plane| &mut plane[local.clone()]).unwrap_or_default();
        BlockColumns { g: next(), gx: next(), gx_on: next(), square: next() }
    }
}

/// The block's sums for the columns that a kernel works on.
#[derive(Debug, Default)]
pub(super) struct BlockColumns<'a> {
    pub(super) g: &'a mut [f32],
    pub(super) gx: &'a mut [f32],
    pub(super) gx_on: &'a mut [f32],
    pub(super) square: &'a mut [f32],
}

/// Adds the totals of all tiles of a column block to those of its first tile, from top to bottom.
pub(super) fn merge(tiles: &[Tile], sums: &mut [TileSums<'_>]) {
    let mut start = 0;
    for tiles in tiles.chunk_by(|a, b| a.columns == b.columns) {
        let (block, end) = (&mut sums[start..start + tiles.len()], start + tiles.len());
        start = end;
        let Some((first, rest)) = block.split_first_mut().filter(|(_, rest)| !rest.is_empty())
        else {
            continue;
        };
        // Threads share the columns, not the tiles, so that the order of the additions stays.
        first.values.par_chunks_mut(MERGE_ELEMENTS).enumerate().for_each(|(part, totals)| {
            for other in &*rest {
                let values = &other.values[part * MERGE_ELEMENTS..];
                for (total, value) in totals.iter_mut().zip(values) {
                    *total += value;
                }
            }
        });
    }
}

/// The merged sums of a chunk's columns.
#[derive(Debug)]
pub(super) struct ColumnSums<'a> {
    pub(super) g: Cow<'a, [f64]>,
    pub(super) gx: Cow<'a, [f64]>,
    pub(super) gx_on: Cow<'a, [f64]>,
    pub(super) square: Cow<'a, [f64]>,
}

/// Finds the merged sums of some columns; a chunk that is spread over several tiles is put together.
pub(super) fn of_columns<'a>(
    tiles: &[Tile],
    merged: &'a [TileSums<'_>],
    columns: &Range<usize>,
) -> ColumnSums<'a> {
    let first = tiles.partition_point(|tile| tile.columns.end <= columns.start);
    let plane = |plane: usize| -> Cow<'a, [f64]> {
        let mut found: Cow<'a, [f64]> = Cow::Borrowed(&[]);
        let mut at = columns.start;
        // Only the first tile of a column block holds its sums; it is the one that begins at or before `at`.
        for (tile, sums) in tiles[first..].iter().zip(&merged[first..]) {
            if at >= columns.end {
                break;
            }
            if tile.columns.start > at || tile.columns.end <= at {
                continue;
            }
            let end = tile.columns.end.min(columns.end);
            let local = at - tile.columns.start..end - tile.columns.start;
            let part = sums.plane(plane).get(local).unwrap_or_default();
            if found.is_empty() {
                found = Cow::Borrowed(part);
            } else {
                found.to_mut().extend_from_slice(part);
            }
            at = end;
        }
        found
    };
    ColumnSums { g: plane(0), gx: plane(1), gx_on: plane(2), square: plane(3) }
}

/// Parameter and alpha gradients of a pointwise kind from the sums over its chunk's columns, g being `factor` times
/// what was summed. From d/dw, d/ds and d/dalpha of y = (1 − alpha)·x + alpha·T(x).
pub(super) fn finalize(
    blueprint: &Blueprint,
    parameters: &[f32],
    alpha: f32,
    ColumnSums { g, gx, gx_on, .. }: &ColumnSums<'_>,
    factor: f64,
) -> (Vec<f32>, f64) {
    let alpha = factor * f64::from(alpha);
    let weighted = |weight: &[f32], sums: &[f64]| -> f64 {
        weight.iter().zip(sums).map(|(w, s)| f64::from(*w) * s).sum()
    };
    match blueprint {
        Blueprint::Residual | Blueprint::MlpExpansion => {
            let (weight, scale) = parameters.split_at(parameters.len() - 1);
            let scale = f64::from(scale[0]);
            let expansion = matches!(blueprint, Blueprint::MlpExpansion);
            let sums = if expansion { gx_on } else { g };
            let total = weighted(weight, sums);
            let mut gradient: Vec<f32> =
                sums.iter().map(|sum| (alpha * scale * sum) as f32).collect();
            gradient.push((alpha * total) as f32);
            let skipped: f64 = if expansion { gx.iter().sum() } else { 0.0 };
            (gradient, scale * total - skipped)
        }
        Blueprint::AttentionHead => {
            let p: Vec<f64> = softmax(parameters).map(f64::from).collect();
            let mean: f64 = p.iter().zip(gx.iter()).map(|(p, s)| p * s).sum();
            let gradient =
                p.iter().zip(gx.iter()).map(|(p, s)| (alpha * p * (s - mean)) as f32).collect();
            (gradient, mean - gx.iter().sum::<f64>())
        }
        other => unreachable!("{} does not lower to column programs", other.kind()),
    }
}
