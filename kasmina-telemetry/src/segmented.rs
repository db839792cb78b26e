//! Statistics of many segments at once: equal ones, ones between offsets, and the column chunks of a matrix.
//!
//! Segments far smaller than a piece of work are batched, and segments far larger are cut, so neither
//! 64-element segments nor one giant among dwarfs leaves cores idle.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::error::nonzero;
use crate::lanes::slice_stats;
use crate::strategy::{Cut, PIECE, Shareable, SharedStats, tree};
use crate::{
    ChunkAccumulator, ChunkStats, GradientAccumulator, GradientStats, MatrixView, ReductionOptions,
    ReductionStrategy, TelemetryError,
};

/// Rows that an accumulator is handed at once where chunks are short: a seed's sums then stay in registers
/// over the rows, which makes chunks of up to 64 columns half as fast again.
const ROWS_AT_ONCE: usize = 4;
/// From this chunk length on, one row after the other is faster: the sums move rarely, and memory is read
/// in one stream.
const LONG_CHUNK: usize = 128;

/// Statistics of each `segment` consecutive values of `x`; the last segment may be short. No values give
/// no segments.
///
/// ```
/// use kasmina_telemetry::{ReductionOptions, segmented};
///
/// let stats = segmented::equal(&[1.0, 3.0, 5.0, 5.0, 9.0], 2, &ReductionOptions::default())?;
/// let means: Vec<_> = stats.iter().map(|s| s.mean()).collect();
/// assert_eq!(means, [Some(2.0), Some(5.0), Some(9.0)]);
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
///
/// # Errors
/// [`TelemetryError::Zero`] for empty segments.
pub fn equal(
    x: &[f32],
    segment: usize,
    options: &ReductionOptions,
) -> Result<Vec<ChunkStats>, TelemetryError> {
    nonzero("segment", segment)?;
    let segments = x.len().div_ceil(segment);
    Ok(contiguous(x, segments, options, |i| {
        i * segment..x.len().min(i.saturating_add(1).saturating_mul(segment))
    }))
}

/// Statistics of the segments `x[offsets[i]..offsets[i + 1]]`, as in a compressed sparse row matrix. An
/// empty segment gives [`ChunkStats::EMPTY`].
///
/// ```
/// use kasmina_telemetry::{ReductionOptions, segmented};
///
/// let stats = segmented::offsets(&[1.0, 3.0, 5.0], &[0, 2, 2, 3], &ReductionOptions::default())?;
/// let means: Vec<_> = stats.iter().map(|s| s.mean()).collect();
/// assert_eq!(means, [Some(2.0), None, Some(5.0)]);
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
///
/// # Errors
/// [`TelemetryError::WrongLength`] without offsets, [`TelemetryError::BadOffset`] where they decrease or
/// leave `x`.
pub fn offsets(
    x: &[f32],
    offsets: &[usize],
    options: &ReductionOptions,
) -> Result<Vec<ChunkStats>, TelemetryError> {
    if offsets.is_empty() {
        return Err(TelemetryError::WrongLength { what: "offsets", actual: 0, expected: 1 });
    }
    let mut low = 0;
    for (index, &value) in offsets.iter().enumerate() {
        if value < low || value > x.len() {
            return Err(TelemetryError::BadOffset { index, value, low, high: x.len() });
        }
        low = value;
    }
    Ok(contiguous(x, offsets.len() - 1, options, |i| offsets[i]..offsets[i + 1]))
}

/// Statistics of each `chunk` columns over all rows: one record a seed, ceil(columns / chunk) of them.
///
/// Partial results are bounded by the number of tasks, never rows × seeds.
///
/// ```
/// use kasmina_telemetry::{MatrixView, ReductionOptions, segmented};
///
/// let data = [1.0, 3.0, 7.0, 5.0, 7.0, 9.0];
/// let matrix = MatrixView::contiguous(&data, 2, 3)?;
/// let stats = segmented::column_chunks(&matrix, 2, &ReductionOptions::default())?;
/// assert_eq!((stats[0].n, stats[0].mean()), (4, Some(4.0)));
/// assert_eq!((stats[1].n, stats[1].mean()), (2, Some(8.0)));
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
///
/// # Errors
/// [`TelemetryError::Zero`] for a zero chunk.
pub fn column_chunks(
    matrix: &MatrixView<'_>,
    chunk: usize,
    options: &ReductionOptions,
) -> Result<Vec<ChunkStats>, TelemetryError> {
    chunked(matrix, chunk, options.strategy, |rows, columns, chunk| {
        let mut tile = ChunkAccumulator::new(columns.len(), chunk, options.dead_epsilon)?;
        let mut out = vec![ChunkStats::EMPTY; tile.seeds()];
        push_blocks(matrix, rows, columns, chunk, |x, stride, rows| {
            tile.push_rows(0..out.len(), x, stride, rows);
        });
        tile.finish(&mut out);
        Ok(out)
    })
}

/// Gradient statistics of each `chunk` columns over all rows, as [`column_chunks`].
///
/// # Errors
/// [`TelemetryError::Zero`] for a zero chunk.
pub fn column_chunk_gradients(
    matrix: &MatrixView<'_>,
    chunk: usize,
    options: &ReductionOptions,
) -> Result<Vec<GradientStats>, TelemetryError> {
    chunked(matrix, chunk, options.strategy, |rows, columns, chunk| {
        let mut tile = GradientAccumulator::new(columns.len(), chunk)?;
        let mut out = vec![GradientStats::EMPTY; tile.seeds()];
        push_blocks(matrix, rows, columns, chunk, |x, stride, rows| {
            tile.push_rows(0..out.len(), x, stride, rows);
        });
        tile.finish(&mut out);
        Ok(out)
    })
}

/// Hands a tile's rows on, a few at a time.
fn push_blocks(
    matrix: &MatrixView<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    chunk: usize,
    mut push: impl FnMut(&[f32], usize, usize),
) {
    let at_once = if chunk < LONG_CHUNK { ROWS_AT_ONCE } else { 1 };
    for first in rows.clone().step_by(at_once) {
        let last = rows.end.min(first + at_once);
        if at_once > 1 {
            for row in first..last {
                touch(matrix.block(row..row + 1, columns.clone()));
            }
        }
        let x = matrix.block(first..last, columns.clone());
        push(x, matrix.row_stride(), last - first);
    }
}

/// Reads one value of each cache line in order. An accumulator takes several rows of one seed before the
/// next seed's, an order that memory answers slowly.
fn touch(row: &[f32]) {
    const LINE: usize = 16;
    let sum = row.iter().step_by(LINE).fold(0_u32, |sum, x| sum ^ x.to_bits());
    std::hint::black_box(sum);
}

/// Runs `task(rows, columns, chunk)` on every tile and block of rows, and brings the records together.
fn chunked<R: Shareable>(
    matrix: &MatrixView<'_>,
    chunk: usize,
    strategy: ReductionStrategy,
    task: impl Fn(Range<usize>, Range<usize>, usize) -> Result<Vec<R>, TelemetryError> + Sync,
) -> Result<Vec<R>, TelemetryError> {
    let chunk = nonzero("chunk", chunk)?.min(matrix.columns());
    let split = strategy != ReductionStrategy::Direct;
    let cut = Cut::new(matrix.rows(), matrix.columns(), chunk, split);
    let columns_of = |tile| {
        let seeds = cut.seeds_of(tile);
        seeds.start * chunk..matrix.columns().min(seeds.end * chunk)
    };
    let run = |i: usize| task(cut.rows_of(i % cut.blocks), columns_of(i / cut.blocks), chunk);
    let tasks = (0..cut.tiles * cut.blocks).into_par_iter();
    match strategy {
        ReductionStrategy::Hierarchical | ReductionStrategy::Direct => {
            let mut parts = tasks.map(run).collect::<Result<Vec<_>, _>>()?.into_iter();
            let mut out = Vec::with_capacity(matrix.columns().div_ceil(chunk));
            for _ in 0..cut.tiles {
                let blocks = parts.by_ref().take(cut.blocks).collect();
                out.extend(
                    tree(blocks, |a: &mut Vec<R>, b| {
                        a.iter_mut().zip(b).for_each(|(a, b)| a.absorb(b));
                    })
                    .unwrap_or_default(),
                );
            }
            Ok(out)
        }
        ReductionStrategy::Atomic => {
            let cells: Vec<SharedStats> = (0..matrix.columns().div_ceil(chunk))
                .into_par_iter()
                .map(|seed| SharedStats::new(first_finite(matrix, seed * chunk, chunk)))
                .collect();
            tasks.try_for_each(|i| {
                for (seed, part) in cut.seeds_of(i / cut.blocks).zip(run(i)?) {
                    part.fold_into(&cells[seed]);
                }
                Ok(())
            })?;
            Ok(cells.into_iter().map(R::from_shared).collect())
        }
    }
}

/// The first finite value of a chunk, in row order.
fn first_finite(matrix: &MatrixView<'_>, start: usize, chunk: usize) -> Option<f32> {
    let columns = start..matrix.columns().min(start + chunk);
    (0..matrix.rows())
        .flat_map(|row| matrix.block(row..row + 1, columns.clone()))
        .copied()
        .find(|x| x.is_finite())
}

/// Statistics of `segments` runs of `x`; `segment(i)` must give ranges in `x`.
fn contiguous(
    x: &[f32],
    segments: usize,
    options: &ReductionOptions,
    segment: impl Fn(usize) -> Range<usize> + Sync,
) -> Vec<ChunkStats> {
    let arch = Arch::new();
    let strategy = options.strategy;
    let batches = batches(segments, &segment);
    let run = |range: Range<usize>| {
        arch.dispatch(Flat { x: &x[range], dead_epsilon: options.dead_epsilon })
    };
    if strategy == ReductionStrategy::Atomic {
        let cells: Vec<SharedStats> = (0..segments)
            .into_par_iter()
            .map(|i| SharedStats::new(x[segment(i)].iter().copied().find(|x| x.is_finite())))
            .collect();
        batches.into_par_iter().for_each(|batch| {
            for i in batch {
                let range = segment(i);
                if range.len() <= PIECE {
                    run(range).fold_into(&cells[i]);
                } else {
                    let pieces = pieces(range).into_par_iter();
                    pieces.for_each(|piece| run(piece).fold_into(&cells[i]));
                }
            }
        });
        return cells.into_iter().map(ChunkStats::from_shared).collect();
    }
    let mut out = vec![ChunkStats::EMPTY; segments];
    let mut rest = out.as_mut_slice();
    let mut tasks = Vec::with_capacity(batches.len());
    for batch in batches {
        let (own, others) = rest.split_at_mut(batch.len());
        rest = others;
        tasks.push((batch, own));
    }
    tasks.into_par_iter().for_each(|(batch, own)| {
        let length = |i: usize| segment(i).len();
        match own {
            [one] if strategy == ReductionStrategy::Hierarchical && length(batch.start) > PIECE => {
                let parts = pieces(segment(batch.start)).into_par_iter().map(run).collect();
                *one = tree(parts, ChunkStats::merge).unwrap_or(ChunkStats::EMPTY);
            }
            many => arch.dispatch(Segments {
                x,
                first: batch.start,
                out: many,
                dead_epsilon: options.dead_epsilon,
                segment: &segment,
            }),
        }
    });
    out
}

/// Consecutive segments that make up about a piece together; a larger one stands alone.
fn batches(segments: usize, segment: impl Fn(usize) -> Range<usize>) -> Vec<Range<usize>> {
    /// Empty segments cost time too.
    const SEGMENT_COST: usize = 16;
    let mut batches = Vec::new();
    let (mut start, mut elements) = (0, 0_usize);
    for i in 0..segments {
        let cost = segment(i).len().saturating_add(SEGMENT_COST);
        if i > start && elements.saturating_add(cost) > PIECE {
            batches.push(start..i);
            (start, elements) = (i, 0);
        }
        elements = elements.saturating_add(cost);
    }
    if start < segments {
        batches.push(start..segments);
    }
    batches
}

/// A range cut into pieces.
fn pieces(range: Range<usize>) -> Vec<Range<usize>> {
    range.clone().step_by(PIECE).map(|start| start..range.end.min(start + PIECE)).collect()
}

/// One run of values, compiled per instruction set.
pub(crate) struct Flat<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) dead_epsilon: f32,
}

impl WithSimd for Flat<'_> {
    type Output = ChunkStats;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> ChunkStats {
        slice_stats(self.x, self.dead_epsilon)
    }
}

/// A batch of segments, compiled per instruction set.
struct Segments<'a, F> {
    x: &'a [f32],
    first: usize,
    out: &'a mut [ChunkStats],
    dead_epsilon: f32,
    segment: &'a F,
}

impl<F: Fn(usize) -> Range<usize>> WithSimd for Segments<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (i, out) in self.out.iter_mut().enumerate() {
            let values = &self.x[(self.segment)(self.first + i)];
            *out = slice_stats(values, self.dead_epsilon);
        }
    }
}
