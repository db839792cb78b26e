//! The statistics of a tile, gathered row by row while its values are hot in cache.
//!
//! A tile is a run of columns that starts at a chunk boundary. Whoever owns the pass over the data pushes
//! each row's segment, and takes the records out once, at the end. The result depends on the pushed data
//! and their order alone: not on the instruction set, and not on how rows are grouped into calls.

use std::ops::Range;

use pulp::Arch;

use crate::error::nonzero;
use crate::lanes::{LANES, Record};
use crate::narrow::Narrow;
use crate::wide::Wide;
use crate::{ChunkStats, GradientStats, TelemetryError};

/// Both layouts behind one call.
#[derive(Clone, Debug)]
enum Layout<R, const GRADIENT: bool> {
    Wide(Wide<R, GRADIENT>),
    Narrow(Narrow<R, GRADIENT>),
}

/// The accumulator of either record.
#[derive(Clone, Debug)]
struct Tile<R, const GRADIENT: bool> {
    arch: Arch,
    columns: usize,
    chunk: usize,
    layout: Layout<R, GRADIENT>,
}

impl<R: Record, const GRADIENT: bool> Tile<R, GRADIENT> {
    fn new(columns: usize, chunk: usize, dead_epsilon: f32) -> Result<Self, TelemetryError> {
        nonzero("columns", columns)?;
        // A chunk longer than the tile is one short chunk.
        let chunk = nonzero("chunk", chunk)?.min(columns);
        // Infinity is not finite, so it is never dead.
        let dead_epsilon = if dead_epsilon == f32::INFINITY { f32::MAX } else { dead_epsilon };
        let layout = if chunk >= LANES {
            Layout::Wide(Wide::new(columns, chunk, dead_epsilon))
        } else {
            Layout::Narrow(Narrow::new(columns, chunk, dead_epsilon))
        };
        Ok(Self { arch: Arch::new(), columns, chunk, layout })
    }

    fn seeds(&self) -> usize {
        match &self.layout {
            Layout::Wide(wide) => wide.seeds(),
            Layout::Narrow(narrow) => narrow.seeds(),
        }
    }

    #[track_caller]
    fn push_rows(&mut self, seeds: Range<usize>, x: &[f32], row_stride: usize, rows: usize) {
        assert!(
            seeds.start <= seeds.end && seeds.end <= self.seeds(),
            "seeds {seeds:?} lie outside the tile's 0..{}",
            self.seeds()
        );
        if seeds.is_empty() || rows == 0 {
            return;
        }
        let width = self.columns.min(seeds.end * self.chunk) - seeds.start * self.chunk;
        let needed = (rows - 1).checked_mul(row_stride).and_then(|skip| skip.checked_add(width));
        assert!(
            needed == Some(x.len()) && (rows == 1 || row_stride >= width),
            "{rows} rows of {width} columns, {row_stride} apart, do not make {} values",
            x.len()
        );
        match &mut self.layout {
            Layout::Wide(wide) => wide.push_rows(self.arch, seeds, x, row_stride, rows),
            Layout::Narrow(narrow) => narrow.push_rows(self.arch, seeds, x, row_stride, rows),
        }
    }

    #[track_caller]
    fn finish(&mut self, out: &mut [R]) {
        assert_eq!(out.len(), self.seeds(), "finish needs one record for each seed of the tile");
        match &mut self.layout {
            Layout::Wide(wide) => wide.finish(out),
            Layout::Narrow(narrow) => narrow.finish(out),
        }
    }
}

/// Gathers [`ChunkStats`] for each seed of a tile.
///
/// A tile is `columns` consecutive columns that start at a chunk boundary, `chunk` columns a seed; the last
/// chunk may be short. A tile's sums take 512 bytes a seed where a chunk has at least 16 columns, 32 bytes a
/// column otherwise; they should fit the second-level cache.
///
/// ```
/// use kasmina_telemetry::{ChunkAccumulator, ChunkStats};
///
/// // Five columns in chunks of two: seeds 0 and 1 have two columns, seed 2 has one.
/// let mut tile = ChunkAccumulator::new(5, 2, 1e-8)?;
/// tile.push_row(0..3, &[1.0, 3.0, 0.0, 2.0, 5.0]);
/// tile.push_row(1..3, &[4.0, 2.0, 7.0]);
///
/// let mut stats = [ChunkStats::EMPTY; 3];
/// tile.finish(&mut stats);
/// assert_eq!((stats[0].n, stats[0].mean()), (2, Some(2.0)));
/// assert_eq!((stats[1].n, stats[1].dead), (4, 1));
/// assert_eq!((stats[2].n, stats[2].variance()), (2, Some(1.0)));
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChunkAccumulator(Tile<ChunkStats, false>);

impl ChunkAccumulator {
    /// An empty accumulator. A finite |x| ≤ `dead_epsilon` counts as dead; a negative or NaN threshold
    /// counts nothing.
    ///
    /// # Errors
    /// [`TelemetryError::Zero`] for zero columns or a zero chunk.
    pub fn new(columns: usize, chunk: usize, dead_epsilon: f32) -> Result<Self, TelemetryError> {
        Tile::new(columns, chunk, dead_epsilon).map(Self)
    }

    /// Number of seeds in the tile, ceil(columns / chunk).
    pub fn seeds(&self) -> usize {
        self.0.seeds()
    }

    /// Takes one row's values of the tile-local seeds `seeds`; `x` holds exactly their columns.
    ///
    /// # Panics
    /// If `seeds` leaves the tile or `x` has another length, like indexing a slice.
    #[track_caller]
    #[inline]
    pub fn push_row(&mut self, seeds: Range<usize>, x: &[f32]) {
        self.0.push_rows(seeds, x, x.len(), 1);
    }

    /// Takes `rows` rows of `seeds` at once, each `row_stride` elements after the one before; `x` ends
    /// with the last row's last value. The result is bitwise that of [`push_row`](Self::push_row) row by
    /// row, and faster, because a seed's sums stay in registers over the rows.
    ///
    /// # Panics
    /// If `seeds` leaves the tile, the rows overlap, or `x` has another length.
    #[track_caller]
    #[inline]
    pub fn push_rows(&mut self, seeds: Range<usize>, x: &[f32], row_stride: usize, rows: usize) {
        self.0.push_rows(seeds, x, row_stride, rows);
    }

    /// Merges what was gathered into `out`, one record for each seed of the tile, and starts anew.
    ///
    /// # Panics
    /// If `out` has not one record for each seed of the tile.
    #[track_caller]
    pub fn finish(&mut self, out: &mut [ChunkStats]) {
        self.0.finish(out);
    }
}

/// Gathers [`GradientStats`] for each seed of a tile; otherwise like [`ChunkAccumulator`].
///
/// ```
/// use kasmina_telemetry::{GradientAccumulator, GradientStats};
///
/// let mut tile = GradientAccumulator::new(4, 2)?;
/// tile.push_row(0..2, &[3.0, -4.0, 0.5, f32::NAN]);
/// let mut stats = [GradientStats::EMPTY; 2];
/// tile.finish(&mut stats);
/// assert_eq!((stats[0].norm(), stats[0].max_abs()), (Some(5.0), Some(4.0)));
/// assert_eq!((stats[1].n, stats[1].nonfinite), (1, 1));
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GradientAccumulator(Tile<GradientStats, true>);

impl GradientAccumulator {
    /// An empty accumulator.
    ///
    /// # Errors
    /// [`TelemetryError::Zero`] for zero columns or a zero chunk.
    pub fn new(columns: usize, chunk: usize) -> Result<Self, TelemetryError> {
        // A gradient counts nothing as dead.
        Tile::new(columns, chunk, -1.0).map(Self)
    }

    /// Number of seeds in the tile, ceil(columns / chunk).
    pub fn seeds(&self) -> usize {
        self.0.seeds()
    }

    /// Takes one row's values of the tile-local seeds `seeds`; `g` holds exactly their columns.
    ///
    /// # Panics
    /// If `seeds` leaves the tile or `g` has another length, like indexing a slice.
    #[track_caller]
    #[inline]
    pub fn push_row(&mut self, seeds: Range<usize>, g: &[f32]) {
        self.0.push_rows(seeds, g, g.len(), 1);
    }

    /// Takes `rows` rows of `seeds` at once, as [`ChunkAccumulator::push_rows`] does.
    ///
    /// # Panics
    /// If `seeds` leaves the tile, the rows overlap, or `g` has another length.
    #[track_caller]
    #[inline]
    pub fn push_rows(&mut self, seeds: Range<usize>, g: &[f32], row_stride: usize, rows: usize) {
        self.0.push_rows(seeds, g, row_stride, rows);
    }

    /// Merges what was gathered into `out`, one record for each seed of the tile, and starts anew.
    ///
    /// # Panics
    /// If `out` has not one record for each seed of the tile.
    #[track_caller]
    pub fn finish(&mut self, out: &mut [GradientStats]) {
        self.0.finish(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of both signs and many sizes, some not finite.
    fn values(n: usize) -> Vec<f32> {
        let mut state = 9_u32;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match state >> 27 {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => 0.0,
                k => ((state >> 8) as f32 - 8e6) * 10_f32.powi(k as i32 % 7 - 9),
            }
        })
        .take(n)
        .collect()
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for (columns, chunk) in [(37, 3), (64, 1), (150, 50), (9, 4), (48, 16)] {
            let x = values(columns * 40);
            let records = |arch: Arch| {
                let mut tile = Tile::<ChunkStats, false>::new(columns, chunk, 1e-8).unwrap();
                tile.arch = arch;
                tile.push_rows(0..tile.seeds(), &x, columns, 40);
                let mut out = vec![ChunkStats::EMPTY; tile.seeds()];
                tile.finish(&mut out);
                out.iter()
                    .map(|s| (s.n, s.dead, s.mean.to_bits(), s.m2.to_bits(), s.min.to_bits()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(records(Arch::new()), records(Arch::Scalar));
        }
    }
}
