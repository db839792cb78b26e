//! Row-major matrices in device memory, borrowed: ours, or anyone's through a raw slice.

use kasmina_sys::{DeviceSlice, DeviceSliceMut};

use super::error::CudaError;
use super::job::View;
use crate::matrix::check_length;
use crate::{Element, Result};

/// The greatest number of rows or columns.
const MAX_SIDE: usize = 1 << 31;

/// A read-only `[rows, columns]` matrix on the device; row r begins at element r·row_stride.
#[derive(Clone, Copy, Debug)]
pub struct DeviceMatRef<'a, T: Element> {
    data: DeviceSlice<'a, T>,
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, T: Element> DeviceMatRef<'a, T> {
    /// A matrix over `data`; `row_stride` is in elements, at least `columns`. Zero rows are legal. Memory of another crate
    /// comes in through [`DeviceSlice::from_raw`].
    ///
    /// # Errors
    /// [`Error::Zero`](crate::Error::Zero), [`Error::Value`](crate::Error::Value),
    /// [`Error::Overflow`](crate::Error::Overflow) or [`Error::Length`](crate::Error::Length).
    pub fn new(
        data: DeviceSlice<'a, T>,
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Result<Self> {
        check_length("the matrix", data.len(), rows, columns, row_stride)?;
        Ok(Self { data, rows, columns, row_stride })
    }

    /// The elements, padding between rows included.
    pub fn data(&self) -> DeviceSlice<'a, T> {
        self.data
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Elements from one row's start to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The matrix as the load ladder and the kernels see it. Whoever launches checks that its sides are at most 2³¹.
    pub(super) fn view(&self) -> View {
        View {
            address: self.data.address(),
            pitch: self.row_stride as u64 * size_of::<T>() as u64,
            rows: self.rows as u32,
            columns: self.columns as u32,
        }
    }
}

/// A `[rows, columns]` matrix on the device, to be written.
#[derive(Debug)]
pub struct DeviceMatMut<'a, T: Element> {
    data: DeviceSliceMut<'a, T>,
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, T: Element> DeviceMatMut<'a, T> {
    /// A matrix over `data`; see [`DeviceMatRef::new`]. Padding between rows is not written.
    ///
    /// # Errors
    /// As for [`DeviceMatRef::new`].
    pub fn new(
        data: DeviceSliceMut<'a, T>,
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Result<Self> {
        check_length("the matrix", data.len(), rows, columns, row_stride)?;
        Ok(Self { data, rows, columns, row_stride })
    }

    /// The matrix, to be read.
    pub fn as_ref(&self) -> DeviceMatRef<'_, T> {
        let Self { rows, columns, row_stride, .. } = *self;
        DeviceMatRef { data: self.data.as_slice(), rows, columns, row_stride }
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Elements from one row's start to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }
}

/// Whether so many rows or columns are few enough for the kernels.
///
/// # Errors
/// [`CudaError::TooLarge`].
pub(super) fn side(what: &'static str, value: usize) -> Result<(), CudaError> {
    if value <= MAX_SIDE {
        return Ok(());
    }
    Err(CudaError::TooLarge { what, value, limit: MAX_SIDE })
}
