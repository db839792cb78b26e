//! Matrices that steps share.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use kasmina_sys::{DeviceBuffer, DeviceSlice, DeviceSliceMut, Stream};

use super::error::ExecutorError;
use crate::cuda::error::CudaError;
use crate::cuda::job::View;
use crate::cuda::matrix::DeviceMatRef;
use crate::matrix::check_length;
use crate::{DType, Element};

/// A `[rows, columns]` matrix in device memory that steps read and write, for as long as any of them has it. Cheap to clone; clones are the
/// same memory.
///
/// Steps that share one keep their order by themselves. Other uses are the caller's to order: [`read`](SharedMatrix::read) and
/// [`write`](SharedMatrix::write) before a step is submitted or after its ticket is done.
#[derive(Clone)]
pub struct SharedMatrix<T: Element> {
    pub(super) any: AnyMatrix,
    element: PhantomData<fn() -> T>,
}

/// The same of any type.
#[derive(Clone)]
pub(super) struct AnyMatrix {
    pub(super) view: View,
    pub(super) dtype: DType,
    pub(super) home: Stream,
    elements: usize,
    row_stride: usize,
    /// Keeps the memory; `None` where somebody else does.
    _owner: Option<Arc<dyn Any + Send + Sync>>,
}

impl<T: Element> SharedMatrix<T> {
    /// Takes a buffer as a matrix whose row r begins at element r·row_stride.
    ///
    /// # Errors
    /// [`Error`](crate::Error)s of a matrix that does not fit the buffer, or more than 2³¹ rows or columns.
    pub fn new(
        buffer: DeviceBuffer<T>,
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Result<Self, CudaError> {
        let buffer = Arc::new(buffer);
        let (home, address, len) = (buffer.home().clone(), buffer.address(), buffer.len());
        Self::over(&home, address, len, [rows, columns, row_stride], Some(buffer))
    }

    /// A dense matrix of zeros, there for whatever comes later on `home`.
    ///
    /// # Errors
    /// Out of memory, or as [`SharedMatrix::new`].
    pub fn zeroed(home: &Stream, rows: usize, columns: usize) -> Result<Self, CudaError> {
        let elements = rows.checked_mul(columns).ok_or(CudaError::TooLarge {
            what: "the number of rows",
            value: rows,
            limit: 1 << 31,
        })?;
        Self::new(DeviceBuffer::zeroed(home, elements)?, rows, columns, columns)
    }

    /// Memory of somebody else: `len` elements from `address`.
    ///
    /// # Errors
    /// As [`SharedMatrix::new`].
    ///
    /// # Safety
    /// The memory is valid on `home` until every step that has this matrix is dropped and its tickets are done.
    pub unsafe fn from_raw(
        home: &Stream,
        address: u64,
        len: usize,
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Result<Self, CudaError> {
        Self::over(home, address, len, [rows, columns, row_stride], None)
    }

    fn over(
        home: &Stream,
        address: u64,
        len: usize,
        [rows, columns, row_stride]: [usize; 3],
        owner: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Result<Self, CudaError> {
        check_length("the matrix", len, rows, columns, row_stride)?;
        crate::cuda::matrix::side("the number of rows", rows)?;
        crate::cuda::matrix::side("the number of columns", columns)?;
        // SAFETY: only its numbers are looked at.
        let slice = unsafe { DeviceSlice::<T>::from_raw(home, address, len) }?;
        let view = DeviceMatRef::new(slice, rows, columns, row_stride)?.view();
        let any = AnyMatrix {
            view,
            dtype: T::DTYPE,
            home: home.clone(),
            elements: len,
            row_stride,
            _owner: owner,
        };
        Ok(Self { any, element: PhantomData })
    }

    /// Rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.any.view.rows as usize, self.any.view.columns as usize)
    }

    pub(in crate::cuda) fn home(&self) -> &Stream {
        &self.any.home
    }

    /// Whether the two have memory in common.
    pub(in crate::cuda) fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (self.any.bytes(), other.any.bytes());
        a.start < b.end && b.start < a.end
    }

    pub(in crate::cuda) fn as_ref(&self) -> Result<DeviceMatRef<'_, T>, CudaError> {
        // SAFETY: `T` is the type that it was made with.
        unsafe { self.any.typed() }
    }

    /// To be written.
    ///
    /// # Safety
    /// No other borrow of the memory is used meanwhile.
    pub(in crate::cuda) unsafe fn as_mut(
        &self,
    ) -> Result<crate::cuda::DeviceMatMut<'_, T>, CudaError> {
        // SAFETY: `T` is the type that it was made with, and the rest by the caller's word.
        unsafe { self.any.typed_mut() }
    }

    /// All elements, padding between rows included. Waits for the memory's own stream, not for steps.
    ///
    /// # Errors
    /// Something queued before, or the copy, failed.
    pub fn read(&self) -> Result<Vec<T>, CudaError> {
        // SAFETY: the memory is there for as long as this is.
        let slice = unsafe {
            DeviceSlice::<T>::from_raw(&self.any.home, self.any.view.address, self.any.elements)
        }?;
        Ok(slice.to_vec()?)
    }

    /// Overwrites all elements, padding included. Waits for the memory's own stream, not for steps.
    ///
    /// # Errors
    /// Another number of elements, something queued before, or the copy, failed.
    pub fn write(&self, values: &[T]) -> Result<(), CudaError> {
        // SAFETY: the memory is there for as long as this is; whoever reads it meanwhile reads some numbers.
        let mut slice = unsafe {
            DeviceSliceMut::<T>::from_raw(&self.any.home, self.any.view.address, self.any.elements)
        }?;
        Ok(slice.copy_from_host(values)?)
    }
}

impl AnyMatrix {
    /// The bytes from the first element to the last.
    pub(super) fn bytes(&self) -> Range<u64> {
        let element = u64::from(crate::cuda::variants::element_bytes(self.dtype));
        let View { address, rows, columns, pitch } = self.view;
        if rows == 0 {
            return address..address;
        }
        address..address + (u64::from(rows) - 1) * pitch + u64::from(columns) * element
    }

    /// As a slice of its own type, for launches.
    ///
    /// # Safety
    /// `T` is its type.
    pub(super) unsafe fn typed<T: Element>(&self) -> Result<DeviceMatRef<'_, T>, CudaError> {
        // SAFETY: the memory is there for as long as this is.
        let slice = unsafe { DeviceSlice::from_raw(&self.home, self.view.address, self.elements) }?;
        Ok(DeviceMatRef::new(
            slice,
            self.view.rows as usize,
            self.view.columns as usize,
            self.row_stride,
        )?)
    }

    /// The same, to be written.
    ///
    /// # Safety
    /// `T` is its type, and no other borrow of the memory is used meanwhile.
    pub(super) unsafe fn typed_mut<T: Element>(
        &self,
    ) -> Result<crate::cuda::DeviceMatMut<'_, T>, CudaError> {
        // SAFETY: as above.
        let slice =
            unsafe { DeviceSliceMut::from_raw(&self.home, self.view.address, self.elements) }?;
        let (rows, columns) = (self.view.rows as usize, self.view.columns as usize);
        Ok(crate::cuda::DeviceMatMut::new(slice, rows, columns, self.row_stride)?)
    }

    /// That it is of this type and shape.
    pub(super) fn check(&self, what: &'static str, like: &Self) -> Result<(), ExecutorError> {
        let of = |m: &Self| format!("{} [{}, {}]", m.dtype, m.view.rows, m.view.columns);
        if (self.dtype, self.view.rows, self.view.columns)
            == (like.dtype, like.view.rows, like.view.columns)
        {
            return Ok(());
        }
        Err(ExecutorError::Mismatch { what, found: of(self), needed: of(like) })
    }
}

impl<T: Element> fmt::Debug for SharedMatrix<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.any.fmt(f)
    }
}

impl fmt::Debug for AnyMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMatrix")
            .field("dtype", &self.dtype)
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}
