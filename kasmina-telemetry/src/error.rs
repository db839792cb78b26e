//! What can be wrong with a caller's arguments, each with the value, the limit and the way out.

/// An argument that this crate refuses.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// A size that must be at least one is zero.
    #[error("`{what}` is 0, but at least 1 is needed")]
    Zero {
        /// Name of the argument.
        what: &'static str,
    },
    /// A number lies outside its interval.
    #[error("`{what}` is {value}, but {limit} is needed")]
    OutOfRange {
        /// Name of the argument.
        what: &'static str,
        /// The value given.
        value: f64,
        /// The interval that is accepted, in words.
        limit: &'static str,
    },
    /// A row's stride is shorter than the row.
    #[error(
        "the row stride is {row_stride}, but a row has {columns} columns; give a stride of at least that"
    )]
    StrideTooShort {
        /// Elements from one row's start to the next.
        row_stride: usize,
        /// Elements in a row.
        columns: usize,
    },
    /// Rows × stride is larger than the address space.
    #[error("{rows} rows of stride {row_stride} overflow a machine word; use a smaller view")]
    ShapeOverflow {
        /// Number of rows.
        rows: usize,
        /// Elements from one row's start to the next.
        row_stride: usize,
    },
    /// A slice has the wrong number of elements.
    #[error("`{what}` has {actual} elements, but {expected} are needed")]
    WrongLength {
        /// Name of the argument.
        what: &'static str,
        /// Its length.
        actual: usize,
        /// The length that the shape asks for.
        expected: usize,
    },
    /// Segment offsets are empty, decrease, or leave the data.
    #[error(
        "offset {index} is {value}, but it must lie between {low} (the offset before it) and {high} (the data's length)"
    )]
    BadOffset {
        /// Position in the offsets.
        index: usize,
        /// The offset there.
        value: usize,
        /// Least value allowed there.
        low: usize,
        /// Greatest value allowed there.
        high: usize,
    },
    /// Two matrices that are walked together differ in shape.
    #[error(
        "the left matrix is {left_rows} × {left_columns}, the right one {right_rows} × {right_columns}; they must be equal"
    )]
    ShapeMismatch {
        /// Rows of the left matrix.
        left_rows: usize,
        /// Columns of the left matrix.
        left_columns: usize,
        /// Rows of the right matrix.
        right_rows: usize,
        /// Columns of the right matrix.
        right_columns: usize,
    },
}

/// `value` when it is not zero.
pub(crate) fn nonzero(what: &'static str, value: usize) -> Result<usize, TelemetryError> {
    if value == 0 { Err(TelemetryError::Zero { what }) } else { Ok(value) }
}
