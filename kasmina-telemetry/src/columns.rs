//! Column reductions of a row-major matrix: sums, sums of products of two matrices, extrema over rows.
//!
//! A column without rows, or with nothing but ignored NaNs, gives `None`.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::strategy::{Cut, add_f64, tree};
use crate::{MatrixView, NanPolicy, ReductionOptions, ReductionStrategy, TelemetryError};

/// Least and greatest value of a column.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Extrema {
    /// Least value; NaN where a NaN propagates.
    pub min: f32,
    /// Greatest value; NaN where a NaN propagates.
    pub max: f32,
}

/// Σ over rows of each column, in f64.
///
/// ```
/// use kasmina_telemetry::{MatrixView, ReductionOptions, columns};
///
/// let matrix = MatrixView::contiguous(&[1.0, 2.0, 3.0, 4.0], 2, 2)?;
/// let sums = columns::sums(&matrix, &ReductionOptions::default());
/// assert_eq!(sums, [Some(4.0), Some(6.0)]);
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
pub fn sums(matrix: &MatrixView<'_>, options: &ReductionOptions) -> Vec<Option<f64>> {
    let part = run(matrix, Input::Sums(*matrix), options.strategy);
    part.finish(matrix.rows(), options.nan, |a, _| a)
}

/// Σ over rows of left × right in each column, in f64. A product is NaN where either factor is.
///
/// # Errors
/// [`TelemetryError::ShapeMismatch`] unless both have the same rows and columns; strides may differ.
pub fn products(
    left: &MatrixView<'_>,
    right: &MatrixView<'_>,
    options: &ReductionOptions,
) -> Result<Vec<Option<f64>>, TelemetryError> {
    if (left.rows(), left.columns()) != (right.rows(), right.columns()) {
        return Err(TelemetryError::ShapeMismatch {
            left_rows: left.rows(),
            left_columns: left.columns(),
            right_rows: right.rows(),
            right_columns: right.columns(),
        });
    }
    let part = run(left, Input::Products(*left, *right), options.strategy);
    Ok(part.finish(left.rows(), options.nan, |a, _| a))
}

/// Extrema over rows of each column. ±Inf are ordinary values, and a zero extremum is +0.0.
pub fn extrema(matrix: &MatrixView<'_>, options: &ReductionOptions) -> Vec<Option<Extrema>> {
    let part = run(matrix, Input::Extrema(*matrix), options.strategy);
    // Both f64 hold f32 values, so the casts are exact; adding 0 turns −0 into +0.
    part.finish(matrix.rows(), options.nan, |a, b| Extrema {
        min: a as f32 + 0.0,
        max: b as f32 + 0.0,
    })
}

/// What is reduced.
#[derive(Clone, Copy)]
enum Input<'a> {
    Sums(MatrixView<'a>),
    Products(MatrixView<'a>, MatrixView<'a>),
    Extrema(MatrixView<'a>),
}

impl Input<'_> {
    /// Values of `a` and `b` before the first row.
    fn neutral(&self) -> (f64, f64) {
        match self {
            Self::Sums(_) | Self::Products(..) => (0.0, 0.0),
            Self::Extrema(_) => (f64::INFINITY, f64::NEG_INFINITY),
        }
    }

    fn merge(&self, left: &mut Part, right: &Part) {
        for (n, more) in left.n.iter_mut().zip(&right.n) {
            *n += more;
        }
        let a = left.a.iter_mut().zip(&right.a);
        let b = left.b.iter_mut().zip(&right.b);
        if let Self::Extrema(_) = self {
            a.for_each(|(held, &x)| *held = held.min(x));
            b.for_each(|(held, &x)| *held = held.max(x));
        } else {
            a.for_each(|(held, &x)| *held += x);
        }
    }
}

/// Some columns over some rows: sums in `a`, or minima in `a` and maxima in `b`, and how many were no NaN.
struct Part {
    a: Vec<f64>,
    b: Vec<f64>,
    n: Vec<u64>,
}

impl Part {
    fn new(columns: usize, (a, b): (f64, f64)) -> Self {
        Self { a: vec![a; columns], b: vec![b; columns], n: vec![0; columns] }
    }

    fn finish<T>(
        self,
        rows: usize,
        nan: NanPolicy,
        value: impl Fn(f64, f64) -> T,
    ) -> Vec<Option<T>> {
        let sums = self.a.into_iter().zip(self.b);
        sums.zip(self.n)
            .map(|((a, b), n)| match nan {
                NanPolicy::Propagate if n < rows as u64 => Some(value(f64::NAN, f64::NAN)),
                _ => (n > 0).then(|| value(a, b)),
            })
            .collect()
    }
}

fn run(shape: &MatrixView<'_>, input: Input<'_>, strategy: ReductionStrategy) -> Part {
    let arch = Arch::new();
    let columns = shape.columns();
    let cut = Cut::new(shape.rows(), columns, 1, strategy != ReductionStrategy::Direct);
    let tasks = (0..cut.tiles * cut.blocks).into_par_iter();
    let part = |i: usize| {
        arch.dispatch(Task {
            input,
            rows: cut.rows_of(i % cut.blocks),
            columns: cut.seeds_of(i / cut.blocks),
        })
    };
    let mut all = Part::new(0, (0.0, 0.0));
    if strategy == ReductionStrategy::Atomic {
        let shared = Shared::new(columns, input.neutral());
        tasks.for_each(|i| shared.fold(&input, cut.seeds_of(i / cut.blocks).start, &part(i)));
        return shared.into_part();
    }
    let mut parts = tasks.map(part).collect::<Vec<_>>().into_iter();
    for _ in 0..cut.tiles {
        let blocks = parts.by_ref().take(cut.blocks).collect();
        if let Some(tile) = tree(blocks, |left, right| input.merge(left, right)) {
            all.a.extend(tile.a);
            all.b.extend(tile.b);
            all.n.extend(tile.n);
        }
    }
    all
}

/// One tile's block of rows, compiled per instruction set.
struct Task<'a> {
    input: Input<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl WithSimd for Task<'_> {
    type Output = Part;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Part {
        let mut part = Part::new(self.columns.len(), self.input.neutral());
        let Part { a, b, n } = &mut part;
        let columns = self.columns;
        for row in self.rows {
            match self.input {
                Input::Sums(matrix) => {
                    for ((a, n), &x) in
                        a.iter_mut().zip(n.iter_mut()).zip(segment(matrix, row, columns.clone()))
                    {
                        *a += f64::from(if x.is_nan() { 0.0 } else { x });
                        *n += u64::from(!x.is_nan());
                    }
                }
                Input::Products(left, right) => {
                    let values = segment(left, row, columns.clone()).iter().zip(segment(
                        right,
                        row,
                        columns.clone(),
                    ));
                    for ((a, n), (&x, &y)) in a.iter_mut().zip(n.iter_mut()).zip(values) {
                        // The factors decide: 0 × Inf is a NaN of the arithmetic, which always shows.
                        let nan = x.is_nan() | y.is_nan();
                        let product = f64::from(x) * f64::from(y);
                        *a += if nan { 0.0 } else { product };
                        *n += u64::from(!nan);
                    }
                }
                Input::Extrema(matrix) => {
                    let held = a.iter_mut().zip(b.iter_mut()).zip(n.iter_mut());
                    for (((a, b), n), &x) in held.zip(segment(matrix, row, columns.clone())) {
                        let value = f64::from(x);
                        *a = if value < *a { value } else { *a };
                        *b = if value > *b { value } else { *b };
                        *n += u64::from(!x.is_nan());
                    }
                }
            }
        }
        part
    }
}

/// One row's values of a tile.
#[inline(always)]
fn segment(matrix: MatrixView<'_>, row: usize, columns: Range<usize>) -> &[f32] {
    matrix.block(row..row + 1, columns)
}

/// The whole result, as cells that threads fold into at the same time.
struct Shared {
    a: Vec<AtomicU64>,
    b: Vec<AtomicU64>,
    n: Vec<AtomicU64>,
}

impl Shared {
    fn new(columns: usize, (a, b): (f64, f64)) -> Self {
        let cells = |bits: u64| (0..columns).map(|_| AtomicU64::new(bits)).collect();
        Self { a: cells(a.to_bits()), b: cells(b.to_bits()), n: cells(0) }
    }

    fn fold(&self, input: &Input<'_>, first: usize, part: &Part) {
        for (i, cell) in (first..).zip(0..part.n.len()) {
            let (a, b, n) = (part.a[cell], part.b[cell], part.n[cell]);
            self.n[i].fetch_add(n, Relaxed);
            if let Input::Extrema(_) = input {
                keep(&self.a[i], a, |x, held| x < held);
                keep(&self.b[i], b, |x, held| x > held);
            } else {
                add_f64(&self.a[i], a);
            }
        }
    }

    fn into_part(self) -> Part {
        let floats = |cells: Vec<AtomicU64>| {
            let cells = cells.into_iter();
            cells.map(|x| f64::from_bits(x.into_inner())).collect()
        };
        Part {
            a: floats(self.a),
            b: floats(self.b),
            n: self.n.into_iter().map(AtomicU64::into_inner).collect(),
        }
    }
}

/// Replaces an f64 that lives in an atomic's bits where `better(x, held)`.
fn keep(cell: &AtomicU64, x: f64, better: fn(f64, f64) -> bool) {
    // Failing means that the held value stays.
    let _ = cell.fetch_update(Relaxed, Relaxed, |bits| {
        better(x, f64::from_bits(bits)).then(|| x.to_bits())
    });
}
