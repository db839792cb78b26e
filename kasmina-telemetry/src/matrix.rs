//! A checked view of a row-major matrix whose rows may lie further apart than they are long.

use crate::{Element, TelemetryError};

/// `rows` rows of `columns` values, f32 unless said otherwise, `row_stride` elements from one row's start to the next.
///
/// ```
/// use kasmina_telemetry::MatrixView;
///
/// let data = [1.0, 2.0, -9.0, 3.0, 4.0];
/// let matrix = MatrixView::new(&data, 2, 2, 3)?;
/// assert_eq!(matrix.row(1), Some(&[3.0, 4.0][..]));
/// assert!(MatrixView::new(&data, 2, 3, 2).is_err(), "stride shorter than a row");
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a, T: Element = f32> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, T: Element> MatrixView<'a, T> {
    /// A view of `data`, which may go on behind the last row. A matrix may have no rows, but not no columns.
    ///
    /// # Errors
    /// [`TelemetryError::Zero`] for no columns, [`TelemetryError::StrideTooShort`],
    /// [`TelemetryError::ShapeOverflow`], and [`TelemetryError::WrongLength`] if `data` ends too early.
    pub fn new(
        data: &'a [T],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Result<Self, TelemetryError> {
        crate::error::nonzero("columns", columns)?;
        if row_stride < columns {
            return Err(TelemetryError::StrideTooShort { row_stride, columns });
        }
        let needed = match rows {
            0 => 0,
            rows => (rows - 1)
                .checked_mul(row_stride)
                .and_then(|skip| skip.checked_add(columns))
                .ok_or(TelemetryError::ShapeOverflow { rows, row_stride })?,
        };
        if data.len() < needed {
            return Err(TelemetryError::WrongLength {
                what: "data",
                actual: data.len(),
                expected: needed,
            });
        }
        Ok(Self { data: &data[..needed], rows, columns, row_stride })
    }

    /// A view of rows without gaps; `data` has exactly `rows` × `columns` values.
    ///
    /// # Errors
    /// As [`MatrixView::new`].
    pub fn contiguous(data: &'a [T], rows: usize, columns: usize) -> Result<Self, TelemetryError> {
        let view = Self::new(data, rows, columns, columns)?;
        if data.len() != view.data.len() {
            return Err(TelemetryError::WrongLength {
                what: "data",
                actual: data.len(),
                expected: view.data.len(),
            });
        }
        Ok(view)
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

    /// One row, or `None` past the last.
    pub fn row(&self, row: usize) -> Option<&'a [T]> {
        (row < self.rows).then(|| {
            let start = row * self.row_stride;
            &self.data[start..start + self.columns]
        })
    }

    /// `rows` of the columns `columns`, from the first row's first value to the last row's last.
    /// Both ranges must lie in the matrix, and neither may be empty.
    #[inline]
    pub(crate) fn block(
        &self,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
    ) -> &'a [T] {
        &self.data[rows.start * self.row_stride + columns.start
            ..(rows.end - 1) * self.row_stride + columns.end]
    }
}
