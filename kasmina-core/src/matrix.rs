//! Borrowed row-major matrices with a row stride: how activations enter and leave the engine.

use crate::{Error, Result};

/// Elements a `[rows, columns]` matrix with `row_stride` spans; the last row needs no padding.
fn span(rows: usize, columns: usize, row_stride: usize) -> Result<usize> {
    if columns == 0 {
        return Err(Error::Zero { what: "columns" });
    }
    if row_stride < columns {
        return Err(Error::Value {
            what: "row stride (elements)".into(),
            value: row_stride as f64,
            legal: "at least the number of columns",
        });
    }
    let Some(last) = rows.checked_sub(1) else { return Ok(0) };
    last.checked_mul(row_stride).and_then(|start| start.checked_add(columns)).ok_or(
        Error::Overflow { what: "rows × row stride", left: rows as u64, right: row_stride as u64 },
    )
}

pub(crate) fn check_length(
    what: &str,
    found: usize,
    rows: usize,
    columns: usize,
    row_stride: usize,
) -> Result<()> {
    let needed = span(rows, columns, row_stride)?;
    if found >= needed {
        return Ok(());
    }
    Err(Error::Length {
        what: format!("{what} of [{rows}, {columns}] with row stride {row_stride}"),
        found,
        needed,
    })
}

/// A read-only `[rows, columns]` matrix; element (r, c) is `data[r·row_stride + c]`.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, T> MatRef<'a, T> {
    /// A matrix over `data`; `row_stride` is in elements, at least `columns`. Zero rows are legal.
    ///
    /// # Errors
    /// [`Error::Zero`], [`Error::Value`], [`Error::Overflow`] or [`Error::Length`].
    pub fn new(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Result<Self> {
        check_length("the matrix", data.len(), rows, columns, row_stride)?;
        Ok(Self { data, rows, columns, row_stride })
    }

    /// A matrix whose rows follow one another without padding; the number of rows is
    /// `data.len() / columns`.
    ///
    /// # Errors
    /// [`Error::Zero`], or [`Error::Length`] if `data` is no whole number of rows.
    pub fn contiguous(data: &'a [T], columns: usize) -> Result<Self> {
        Self::new(data, whole_rows(data.len(), columns)?, columns, columns)
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

    /// Row `r`; panics past the last row, like a slice.
    pub fn row(&self, r: usize) -> &'a [T] {
        assert!(r < self.rows, "row {r} of a matrix of {} rows", self.rows);
        &self.data[r * self.row_stride..][..self.columns]
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.data.as_ptr()
    }

    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }
}

/// A writable `[rows, columns]` matrix; elements between rows are never touched.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, T> MatMut<'a, T> {
    /// A matrix over `data`; `row_stride` is in elements, at least `columns`. Zero rows are legal.
    ///
    /// # Errors
    /// [`Error::Zero`], [`Error::Value`], [`Error::Overflow`] or [`Error::Length`].
    pub fn new(data: &'a mut [T], rows: usize, columns: usize, row_stride: usize) -> Result<Self> {
        check_length("the matrix", data.len(), rows, columns, row_stride)?;
        Ok(Self { data, rows, columns, row_stride })
    }

    /// A matrix whose rows follow one another without padding.
    ///
    /// # Errors
    /// [`Error::Zero`], or [`Error::Length`] if `data` is no whole number of rows.
    pub fn contiguous(data: &'a mut [T], columns: usize) -> Result<Self> {
        let rows = whole_rows(data.len(), columns)?;
        Self::new(data, rows, columns, columns)
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

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.data.as_mut_ptr()
    }

    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }
}

fn whole_rows(len: usize, columns: usize) -> Result<usize> {
    if columns == 0 {
        return Err(Error::Zero { what: "columns" });
    }
    if len.is_multiple_of(columns) {
        return Ok(len / columns);
    }
    Err(Error::Length {
        what: format!("a contiguous matrix of {columns} columns"),
        found: len,
        needed: len.div_ceil(columns) * columns,
    })
}
