//! Statistics, sums and extremes of many segments at once: equal ones, ones between offsets; and statistics of
//! the column chunks of a matrix.
//!
//! Segments far smaller than a piece of work are batched, and segments far larger are cut, so neither
//! 64-element segments nor one giant among dwarfs leaves cores idle.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::element::Scalar;
use crate::error::nonzero;
use crate::fold::{Bounds, Statistics, Sums};
use crate::runs::{Equal, Offsets, Segments};
use crate::strategy::{Cut, Shareable, SharedStats, tree};
use crate::{
    ChunkAccumulator, ChunkStats, Element, GradientAccumulator, GradientStats, MatrixView,
    ReductionOptions, ReductionStrategy, TelemetryError,
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
/// let stats = segmented::equal(&[1.0_f32, 3.0, 5.0, 5.0, 9.0], 2, &ReductionOptions::default())?;
/// let means: Vec<_> = stats.iter().map(|s| s.mean()).collect();
/// assert_eq!(means, [Some(2.0), Some(5.0), Some(9.0)]);
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
///
/// # Errors
/// [`TelemetryError::Zero`] for empty segments.
pub fn equal<T: Element>(
    x: &[T],
    segment: usize,
    options: &ReductionOptions,
) -> Result<Vec<T::SegmentStatistics>, TelemetryError> {
    let equal = Equal::new(x.len(), segment)?;
    Ok(equal.find(x, statistics(options), options.strategy, T::SegmentStatistics::from))
}

/// Σ of each `segment` consecutive values; `None` for nothing but ignored NaNs.
///
/// ```
/// use kasmina_telemetry::{ReductionOptions, segmented};
///
/// let sums = segmented::equal_sums(&[1, 3, 5, 5, i64::MAX], 2, &ReductionOptions::default())?;
/// assert_eq!(sums, [Some(4), Some(10), Some(i128::from(i64::MAX))]);
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
///
/// # Errors
/// As [`equal`].
pub fn equal_sums<T: Element>(
    x: &[T],
    segment: usize,
    options: &ReductionOptions,
) -> Result<Vec<Option<T::Sum>>, TelemetryError> {
    let equal = Equal::new(x.len(), segment)?;
    Ok(equal.find(x, Sums, options.strategy, |total| total.found::<T>(options.nan)))
}

/// Least and greatest of each `segment` consecutive values, a zero as +0; `None` for nothing but ignored NaNs.
///
/// # Errors
/// As [`equal`].
pub fn equal_extrema<T: Element>(
    x: &[T],
    segment: usize,
    options: &ReductionOptions,
) -> Result<Vec<Option<(T, T)>>, TelemetryError> {
    let equal = Equal::new(x.len(), segment)?;
    Ok(equal.find(x, Bounds, options.strategy, |ends| ends.found::<T>(options.nan)))
}

fn statistics(options: &ReductionOptions) -> Statistics {
    Statistics { dead_epsilon: options.dead_epsilon }
}

/// Statistics of the segments `x[offsets[i]..offsets[i + 1]]`, as in a compressed sparse row matrix. An
/// empty segment gives [`ChunkStats::EMPTY`].
///
/// ```
/// use kasmina_telemetry::{ReductionOptions, segmented};
///
/// let stats = segmented::offsets(&[1.0_f32, 3.0, 5.0], &[0, 2, 2, 3], &ReductionOptions::default())?;
/// let means: Vec<_> = stats.iter().map(|s| s.mean()).collect();
/// assert_eq!(means, [Some(2.0), None, Some(5.0)]);
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
///
/// # Errors
/// [`TelemetryError::WrongLength`] without offsets, [`TelemetryError::BadOffset`] where they decrease or
/// leave `x`.
pub fn offsets<T: Element>(
    x: &[T],
    offsets: &[usize],
    options: &ReductionOptions,
) -> Result<Vec<T::SegmentStatistics>, TelemetryError> {
    let offsets = Offsets::new(x.len(), offsets)?;
    Ok(offsets.find(x, statistics(options), options.strategy, T::SegmentStatistics::from))
}

/// Σ of the segments between offsets; `None` for empty ones and nothing but ignored NaNs.
///
/// # Errors
/// As [`offsets`].
pub fn offset_sums<T: Element>(
    x: &[T],
    offsets: &[usize],
    options: &ReductionOptions,
) -> Result<Vec<Option<T::Sum>>, TelemetryError> {
    let offsets = Offsets::new(x.len(), offsets)?;
    Ok(offsets.find(x, Sums, options.strategy, |total| total.found::<T>(options.nan)))
}

/// Least and greatest of the segments between offsets, a zero as +0; `None` for empty ones and nothing but ignored NaNs.
///
/// ```
/// use kasmina_telemetry::{ReductionOptions, segmented};
///
/// let extrema = segmented::offset_extrema(&[1.0, 3.0, 5.0], &[0, 2, 2, 3], &ReductionOptions::default())?;
/// assert_eq!(extrema, [Some((1.0, 3.0)), None, Some((5.0, 5.0))]);
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
///
/// # Errors
/// As [`offsets`].
pub fn offset_extrema<T: Element>(
    x: &[T],
    offsets: &[usize],
    options: &ReductionOptions,
) -> Result<Vec<Option<(T, T)>>, TelemetryError> {
    let offsets = Offsets::new(x.len(), offsets)?;
    Ok(offsets.find(x, Bounds, options.strategy, |ends| ends.found::<T>(options.nan)))
}

/// Statistics of each `chunk` columns over all rows: one record a seed, ceil(columns / chunk) of them.
///
/// Of f32, f16 or bf16. Partial results are bounded by the number of tasks, never rows × seeds.
///
/// ```
/// use kasmina_telemetry::{MatrixView, ReductionOptions, segmented};
///
/// let data = [1.0_f32, 3.0, 7.0, 5.0, 7.0, 9.0];
/// let matrix = MatrixView::contiguous(&data, 2, 3)?;
/// let stats = segmented::column_chunks(&matrix, 2, &ReductionOptions::default())?;
/// assert_eq!((stats[0].n, stats[0].mean()), (4, Some(4.0)));
/// assert_eq!((stats[1].n, stats[1].mean()), (2, Some(8.0)));
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
///
/// # Errors
/// [`TelemetryError::Zero`] for a zero chunk.
pub fn column_chunks<T: Element<Value = f32>>(
    matrix: &MatrixView<'_, T>,
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
pub fn column_chunk_gradients<T: Element<Value = f32>>(
    matrix: &MatrixView<'_, T>,
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
fn push_blocks<T: Element<Value = f32>>(
    matrix: &MatrixView<'_, T>,
    rows: Range<usize>,
    columns: Range<usize>,
    chunk: usize,
    mut push: impl FnMut(&[f32], usize, usize),
) {
    let at_once = if chunk < LONG_CHUNK { ROWS_AT_ONCE } else { 1 };
    let arch = Arch::new();
    let mut wide = Vec::new();
    for first in rows.clone().step_by(at_once) {
        let last = rows.end.min(first + at_once);
        let x = matrix.block(first..last, columns.clone());
        if let Some(x) = T::as_values(x) {
            if at_once > 1 {
                (first..last).for_each(|row| touch(matrix.block(row..row + 1, columns.clone())));
            }
            push(x, matrix.row_stride(), last - first);
        } else {
            wide.resize((last - first) * columns.len(), 0.0);
            for (row, wide) in (first..last).zip(wide.chunks_mut(columns.len())) {
                arch.dispatch(Widen { row: matrix.block(row..row + 1, columns.clone()), wide });
            }
            push(&wide, columns.len(), last - first);
        }
    }
}

/// A row as f32, compiled per instruction set.
struct Widen<'a, T> {
    row: &'a [T],
    wide: &'a mut [f32],
}

impl<T: Element<Value = f32>> WithSimd for Widen<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.wide.iter_mut().zip(self.row).for_each(|(wide, x)| *wide = x.value());
    }
}

/// Reads one value of each cache line in order. Taking several rows of some columns before the next
/// columns' is an order that memory answers slowly.
pub(crate) fn touch<T: Element<Value = f32>>(row: &[T]) {
    const LINE: usize = 64;
    let lines = row.iter().step_by(LINE / size_of::<T>());
    std::hint::black_box(lines.fold(0_u32, |sum, x| sum ^ x.value().to_bits()));
}

/// Runs `task(rows, columns, chunk)` on every tile and block of rows, and brings the records together.
fn chunked<T: Element<Value = f32>, R: Shareable>(
    matrix: &MatrixView<'_, T>,
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
fn first_finite<T: Element<Value = f32>>(
    matrix: &MatrixView<'_, T>,
    start: usize,
    chunk: usize,
) -> Option<f32> {
    let columns = start..matrix.columns().min(start + chunk);
    (0..matrix.rows())
        .flat_map(|row| matrix.block(row..row + 1, columns.clone()))
        .map(|x| x.value())
        .find(|x| Scalar::is_finite(*x))
}
