//! A checked view of a row-major matrix in device memory.

use kasmina_sys::DeviceSlice;

use super::element::GpuElement;
use crate::TelemetryError;
use crate::error::nonzero;

/// `rows` rows of `columns` values on the device, `row_stride` elements from one row's start to the next.
#[derive(Clone, Copy, Debug)]
pub struct DeviceMatrix<'a, T: GpuElement> {
    data: DeviceSlice<'a, T>,
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, T: GpuElement> DeviceMatrix<'a, T> {
    /// A view of `data`, which may go on behind the last row. A matrix may have no rows, but not no columns. Memory of another
    /// crate comes in through [`DeviceSlice::from_raw`].
    ///
    /// # Errors
    /// [`TelemetryError::Zero`] for no columns, [`TelemetryError::StrideTooShort`], [`TelemetryError::ShapeOverflow`], and
    /// [`TelemetryError::WrongLength`] if `data` ends too early.
    pub fn new(
        data: DeviceSlice<'a, T>,
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Result<Self, TelemetryError> {
        nonzero("columns", columns)?;
        if row_stride < columns {
            return Err(TelemetryError::StrideTooShort { row_stride, columns });
        }
        let expected = match rows {
            0 => 0,
            rows => (rows - 1)
                .checked_mul(row_stride)
                .and_then(|skip| skip.checked_add(columns))
                .ok_or(TelemetryError::ShapeOverflow { rows, row_stride })?,
        };
        if data.len() < expected {
            return Err(TelemetryError::WrongLength { what: "data", actual: data.len(), expected });
        }
        Ok(Self { data, rows, columns, row_stride })
    }

    /// A view of rows without gaps.
    ///
    /// # Errors
    /// As [`DeviceMatrix::new`].
    pub fn contiguous(
        data: DeviceSlice<'a, T>,
        rows: usize,
        columns: usize,
    ) -> Result<Self, TelemetryError> {
        Self::new(data, rows, columns, columns)
    }

    /// The elements, padding between rows included.
    pub fn data(&self) -> DeviceSlice<'a, T> {
        self.data
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements from one row's start to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Whether every row begins at a multiple of `bytes`.
    pub(super) fn rows_begin_at(&self, bytes: u64) -> bool {
        let pitch = (self.row_stride as u64).wrapping_mul(size_of::<T>() as u64);
        self.data.address().is_multiple_of(bytes) && pitch.is_multiple_of(bytes)
    }
}
