//! One safe door to the GEMM library: row-major f32 products on the calling thread.

/// A row-major matrix or its transpose.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a> Operand<'a> {
    /// A `[rows, columns]` row-major matrix.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a [{rows}, {columns}] operand");
        Self { data, rows, columns, transposed: false }
    }

    /// The transpose, without moving anything.
    pub(super) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows, columns, row stride, column stride as multiplied.
    fn view(&self) -> (usize, usize, isize, isize) {
        let stride = self.columns as isize;
        if self.transposed {
            (self.columns, self.rows, 1, stride)
        } else {
            (self.rows, self.columns, stride, 1)
        }
    }
}

/// `out = a·b`, or `out += a·b`; `out` is row-major and contiguous.
pub(super) fn matmul(out: &mut [f32], a: Operand<'_>, b: Operand<'_>, accumulate: bool) {
    let (m, k, a_row, a_column) = a.view();
    let (k_b, n, b_row, b_column) = b.view();
    assert_eq!(k, k_b, "inner dimensions");
    assert_eq!(out.len(), m * n, "a [{m}, {n}] product");
    // SAFETY: the strides are those of row-major matrices (or their transposes) whose lengths were
    // checked when the operands were made, `out` is m × n with unit column stride, and `out` cannot
    // overlap the operands because it is borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a_column,
            a_row,
            b.data.as_ptr(),
            b_column,
            b_row,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
