//! Reductions over the rows of a matrix: a result a column, or one a chunk of neighbouring columns.

use kasmina_sys::{DeviceCopy, DeviceSliceMut, LaunchConfig};

use super::cut::{COLUMN_THREADS, ColumnCut, WIDE};
use super::element::GpuFloat;
use super::error::CudaError;
use super::flat::length;
use super::matrix::DeviceMatrix;
use super::params::{ColumnParams, Settings};
use super::quantity::Quantity;
use super::records::{SegmentBounds, SegmentSum};
use super::reducer::{Reducer, start_of};
use crate::columns::Extrema;
use crate::error::nonzero;
use crate::{ChunkStats, ReductionOptions, ReductionStrategy, TelemetryError};

/// The fatbin of these kernels.
const IMAGE: &str = "columns";

impl Reducer {
    /// Queues the statistics of each `chunk` columns over all rows: one record a seed, ceil(columns / chunk) of them in `out`.
    ///
    /// Where a row has a multiple of four columns and begins at a multiple of their size, four are read a load; elsewhere one.
    ///
    /// # Errors
    /// [`TelemetryError::Zero`] for a zero chunk, [`TelemetryError::WrongLength`], [`CudaError::Misaligned`], or the driver refused.
    pub fn column_chunks_into<T: GpuFloat>(
        &mut self,
        matrix: &DeviceMatrix<'_, T>,
        chunk: usize,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, ChunkStats>,
    ) -> Result<(), CudaError> {
        nonzero("chunk", chunk)?;
        self.columns(matrix, None, chunk, (Quantity::Statistics, "statistics"), options, out)
    }

    /// Queues Σ over rows of each column, in f64. A column without rows, or with nothing but ignored NaNs, is
    /// [`NO_SUM_BITS`](super::NO_SUM_BITS).
    ///
    /// # Errors
    /// As for [`Reducer::column_chunks_into`].
    pub fn column_sums_into<T: GpuFloat>(
        &mut self,
        matrix: &DeviceMatrix<'_, T>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, f64>,
    ) -> Result<(), CudaError> {
        self.columns(matrix, None, 1, (Quantity::Sum, "sum"), options, out)
    }

    /// Queues Σ over rows of left × right in each column, in f64. A product is NaN where either factor is.
    ///
    /// # Errors
    /// [`TelemetryError::ShapeMismatch`] unless both have the same rows and columns, and as for [`Reducer::column_chunks_into`].
    pub fn column_products_into<T: GpuFloat>(
        &mut self,
        left: &DeviceMatrix<'_, T>,
        right: &DeviceMatrix<'_, T>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, f64>,
    ) -> Result<(), CudaError> {
        if (left.rows(), left.columns()) != (right.rows(), right.columns()) {
            return Err(TelemetryError::ShapeMismatch {
                left_rows: left.rows(),
                left_columns: left.columns(),
                right_rows: right.rows(),
                right_columns: right.columns(),
            }
            .into());
        }
        self.columns(left, Some(right), 1, (Quantity::Sum, "product"), options, out)
    }

    /// Queues least and greatest over rows of each column; a zero is +0. Without numbers they are +Inf and −Inf.
    ///
    /// # Errors
    /// As for [`Reducer::column_chunks_into`].
    pub fn column_extrema_into<T: GpuFloat>(
        &mut self,
        matrix: &DeviceMatrix<'_, T>,
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, Extrema>,
    ) -> Result<(), CudaError> {
        self.columns(matrix, None, 1, (Quantity::Extrema, "extrema"), options, out)
    }

    /// [`Reducer::column_chunks_into`], and waits.
    ///
    /// # Errors
    /// As there, or something queued before failed.
    pub fn column_chunks<T: GpuFloat>(
        &mut self,
        matrix: &DeviceMatrix<'_, T>,
        chunk: usize,
        options: &ReductionOptions,
    ) -> Result<Vec<ChunkStats>, CudaError> {
        let seeds = matrix.columns().div_ceil(nonzero("chunk", chunk)?);
        self.many(seeds, |this, out| this.column_chunks_into(matrix, chunk, options, out))
    }

    /// [`Reducer::column_sums_into`], and waits; `None` for a column without numbers.
    ///
    /// # Errors
    /// As there, or something queued before failed.
    pub fn column_sums<T: GpuFloat>(
        &mut self,
        matrix: &DeviceMatrix<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<f64>>, CudaError> {
        let sums =
            self.many(matrix.columns(), |this, out| this.column_sums_into(matrix, options, out))?;
        Ok(sums.iter().map(SegmentSum::segment_total).collect())
    }

    /// [`Reducer::column_products_into`], and waits; `None` for a column without numbers.
    ///
    /// # Errors
    /// As there, or something queued before failed.
    pub fn column_products<T: GpuFloat>(
        &mut self,
        left: &DeviceMatrix<'_, T>,
        right: &DeviceMatrix<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<f64>>, CudaError> {
        let sums = self.many(left.columns(), |this, out| {
            this.column_products_into(left, right, options, out)
        })?;
        Ok(sums.iter().map(SegmentSum::segment_total).collect())
    }

    /// [`Reducer::column_extrema_into`], and waits; `None` for a column without numbers.
    ///
    /// # Errors
    /// As there, or something queued before failed.
    pub fn column_extrema<T: GpuFloat>(
        &mut self,
        matrix: &DeviceMatrix<'_, T>,
        options: &ReductionOptions,
    ) -> Result<Vec<Option<Extrema>>, CudaError> {
        let all = self
            .many(matrix.columns(), |this, out| this.column_extrema_into(matrix, options, out))?;
        Ok(all.into_iter().map(|extrema| extrema.found(options.nan)).collect())
    }

    fn columns<T: GpuFloat, R: DeviceCopy>(
        &mut self,
        x: &DeviceMatrix<'_, T>,
        y: Option<&DeviceMatrix<'_, T>>,
        chunk: usize,
        (quantity, what): (Quantity, &str),
        options: &ReductionOptions,
        out: DeviceSliceMut<'_, R>,
    ) -> Result<(), CudaError> {
        let results = x.columns().div_ceil(chunk);
        length("out", out.len(), results)?;
        for matrix in [Some(x), y].into_iter().flatten() {
            start_of("matrix", &matrix.data())?;
        }
        let columns = x.columns() as u64;
        // One load takes several columns, and must not leave the row: behind the last one there may be nothing.
        let load = WIDE * size_of::<T>() as u64;
        let wide = columns.is_multiple_of(WIDE)
            && x.rows_begin_at(load)
            && y.is_none_or(|y| y.rows_begin_at(load));
        let width = if wide { WIDE } else { 1 };
        let split = options.strategy != ReductionStrategy::Direct;
        let cut = ColumnCut::new(x.rows() as u64, columns, width, chunk as u64, split);
        let runs = columns.div_ceil(cut.run);
        // What one block finds alone meets nothing.
        let atomic = options.strategy == ReductionStrategy::Atomic && cut.blocks > 1;
        let partials = if atomic {
            self.cells(results as u64 * quantity.cell_words(true))?
        } else {
            self.scratch(cut.blocks * runs * quantity.record_bytes(size_of::<f32>()), 1)?.0
        };
        let params = ColumnParams {
            x: x.data().address(),
            y: y.map_or(0, |y| y.data().address()),
            rows: x.rows() as u64,
            columns,
            x_stride: x.row_stride() as u64,
            y_stride: y.map_or(0, |y| y.row_stride() as u64),
            partials,
            out: out.address(),
            chunk: cut.chunk,
            block_rows: cut.block_rows,
            blocks: cut.blocks,
            tiles: cut.tiles,
            settings: Settings { compact: 1, ..Settings::new(options) },
            across: cut.across as u32,
            run: cut.run as u32,
        };
        let grid = |what, blocks: u64| {
            // Rows and columns that many do not fit any memory.
            u32::try_from(blocks).map_err(|_| TelemetryError::OutOfRange {
                what,
                value: blocks as f64,
                limit: "fewer than 2^32 blocks",
            })
        };
        let walk = grid("rows × columns", cut.blocks * cut.tiles)?;
        let merge = grid("columns", (results as u64 * 32).div_ceil(COLUMN_THREADS))?;
        let threads = COLUMN_THREADS as u32;
        let homes = [x.data().home(), y.unwrap_or(x).data().home(), out.home()];
        self.between(&homes, |this| {
            if walk > 0 {
                let shape = if wide { "wide" } else { "scalar" };
                let kind = if atomic { "atomic_columns" } else { "columns" };
                let name = format!("kasmina_{kind}_{what}_{}_{shape}", T::NAME);
                // SAFETY: matrices and results are borrowed, their homes joined on both sides; the partial results' memory is as
                // large as the cut says and used on this stream alone; the struct is the kernel's.
                unsafe {
                    this.launch_kernel(IMAGE, &name, &LaunchConfig::new(walk, threads), params)
                }?;
            }
            let name = if atomic {
                format!("kasmina_collect_columns_{}_{}", quantity.name(), T::NAME)
            } else {
                format!("kasmina_merge_columns_{}", quantity.name())
            };
            // SAFETY: as above; this stream's order puts it behind the kernel that writes the partial results.
            unsafe { this.launch_kernel(IMAGE, &name, &LaunchConfig::new(merge, threads), params) }
        })
    }
}
