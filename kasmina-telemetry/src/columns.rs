//! Column reductions of a row-major matrix of f32, f16 or bf16: sums, sums of products of two matrices,
//! extrema over rows.
//!
//! A column without rows, or with nothing but ignored NaNs, gives `None`.

// Several arrays run side by side, and the lane is the subject.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use parking_lot::Mutex;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::lanes::LANES;
use crate::segmented::touch;
use crate::strategy::{Cut, tree};
use crate::{Element, MatrixView, NanPolicy, ReductionOptions, ReductionStrategy, TelemetryError};

/// Rows that sixteen columns take before the next sixteen do: their sums stay in registers meanwhile.
const ROWS_AT_ONCE: usize = 8;

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
/// let matrix = MatrixView::contiguous(&[1.0_f32, 2.0, 3.0, 4.0], 2, 2)?;
/// let sums = columns::sums(&matrix, &ReductionOptions::default());
/// assert_eq!(sums, [Some(4.0), Some(6.0)]);
/// # Ok::<(), kasmina_telemetry::TelemetryError>(())
/// ```
pub fn sums<T: Element<Value = f32>>(
    matrix: &MatrixView<'_, T>,
    options: &ReductionOptions,
) -> Vec<Option<f64>> {
    reduce::<T, Sum>([matrix, matrix], options)
}

/// Σ over rows of left × right in each column, in f64. A product is NaN where either factor is.
///
/// # Errors
/// [`TelemetryError::ShapeMismatch`] unless both have the same rows and columns; strides may differ.
pub fn products<T: Element<Value = f32>>(
    left: &MatrixView<'_, T>,
    right: &MatrixView<'_, T>,
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
    Ok(reduce::<T, Product>([left, right], options))
}

/// Extrema over rows of each column. ±Inf are ordinary values, and a zero extremum is +0.0.
pub fn extrema<T: Element<Value = f32>>(
    matrix: &MatrixView<'_, T>,
    options: &ReductionOptions,
) -> Vec<Option<Extrema>> {
    reduce::<T, Ends>([matrix, matrix], options)
}

/// What sixteen columns have been found to hold over some rows.
trait Columns: Copy + Send {
    type Found;
    /// Whether the second matrix is another one.
    const TWO: bool;
    /// Of no rows.
    const NEUTRAL: Self;
    /// Takes a row of both matrices.
    fn step(&mut self, x: &[f32; LANES], y: &[f32; LANES]);
    /// Adds what the rows below hold.
    fn merge(&mut self, below: &Self);
    /// Rows of a column that held numbers.
    fn numbers(&self, l: usize) -> u64;
    /// A column's result, where it has one.
    fn found(&self, l: usize) -> Self::Found;
    /// The result of a column with a NaN that propagates.
    fn nan() -> Self::Found;
}

/// Σ x, and how many.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Sum {
    sum: [f64; LANES],
    numbers: [u64; LANES],
}

/// Σ x · y, and how many.
#[derive(Clone, Copy)]
struct Product(Sum);

/// Least and greatest, and of how many.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Ends {
    low: [f32; LANES],
    high: [f32; LANES],
    numbers: [u64; LANES],
}

impl Columns for Sum {
    type Found = f64;
    const TWO: bool = false;
    const NEUTRAL: Self = Self { sum: [0.0; LANES], numbers: [0; LANES] };

    #[inline(always)]
    fn step(&mut self, x: &[f32; LANES], _: &[f32; LANES]) {
        for l in 0..LANES {
            self.sum[l] += f64::from(if x[l].is_nan() { 0.0 } else { x[l] });
            self.numbers[l] += u64::from(!x[l].is_nan());
        }
    }

    #[inline(always)]
    fn merge(&mut self, below: &Self) {
        for l in 0..LANES {
            self.sum[l] += below.sum[l];
            self.numbers[l] += below.numbers[l];
        }
    }

    fn numbers(&self, l: usize) -> u64 {
        self.numbers[l]
    }

    fn found(&self, l: usize) -> f64 {
        self.sum[l]
    }

    fn nan() -> f64 {
        f64::NAN
    }
}

impl Columns for Product {
    type Found = f64;
    const TWO: bool = true;
    const NEUTRAL: Self = Self(Sum::NEUTRAL);

    #[inline(always)]
    fn step(&mut self, x: &[f32; LANES], y: &[f32; LANES]) {
        // All in f64, so that a comparison has as many lanes as a sum.
        let (mut left, mut right) = ([0.0; LANES], [0.0; LANES]);
        for l in 0..LANES {
            left[l] = f64::from(x[l]);
        }
        for l in 0..LANES {
            right[l] = f64::from(y[l]);
        }
        for l in 0..LANES {
            // The factors decide: 0 × Inf is a NaN of the arithmetic, which always shows.
            let number = !left[l].is_nan() & !right[l].is_nan();
            let product = left[l] * right[l];
            self.0.sum[l] += if number { product } else { 0.0 };
            self.0.numbers[l] += u64::from(number);
        }
    }

    #[inline(always)]
    fn merge(&mut self, below: &Self) {
        self.0.merge(&below.0);
    }

    fn numbers(&self, l: usize) -> u64 {
        self.0.numbers[l]
    }

    fn found(&self, l: usize) -> f64 {
        self.0.sum[l]
    }

    fn nan() -> f64 {
        f64::NAN
    }
}

impl Columns for Ends {
    type Found = Extrema;
    const TWO: bool = false;
    const NEUTRAL: Self =
        Self { low: [f32::INFINITY; LANES], high: [f32::NEG_INFINITY; LANES], numbers: [0; LANES] };

    #[inline(always)]
    fn step(&mut self, x: &[f32; LANES], _: &[f32; LANES]) {
        for l in 0..LANES {
            self.low[l] = if x[l] < self.low[l] { x[l] } else { self.low[l] };
            self.high[l] = if x[l] > self.high[l] { x[l] } else { self.high[l] };
        }
        for l in 0..LANES {
            self.numbers[l] += u64::from(!x[l].is_nan());
        }
    }

    #[inline(always)]
    fn merge(&mut self, below: &Self) {
        for l in 0..LANES {
            self.low[l] = if below.low[l] < self.low[l] { below.low[l] } else { self.low[l] };
            self.high[l] = if below.high[l] > self.high[l] { below.high[l] } else { self.high[l] };
            self.numbers[l] += below.numbers[l];
        }
    }

    fn numbers(&self, l: usize) -> u64 {
        self.numbers[l]
    }

    fn found(&self, l: usize) -> Extrema {
        // Adding 0 turns −0 into +0.
        Extrema { min: self.low[l] + 0.0, max: self.high[l] + 0.0 }
    }

    fn nan() -> Extrema {
        Extrema { min: f32::NAN, max: f32::NAN }
    }
}

fn reduce<T: Element<Value = f32>, C: Columns>(
    matrices: [&MatrixView<'_, T>; 2],
    options: &ReductionOptions,
) -> Vec<Option<C::Found>> {
    let [shape, _] = matrices;
    let cut =
        Cut::new(shape.rows(), shape.columns(), 1, options.strategy != ReductionStrategy::Direct);
    let arch = Arch::new();
    let part = |i: usize| -> Vec<C> {
        let (rows, columns) = (cut.rows_of(i % cut.blocks), cut.seeds_of(i / cut.blocks));
        arch.dispatch(Task { matrices, rows, columns, columns_of: std::marker::PhantomData })
    };
    let merge = |above: &mut Vec<C>, below: &Vec<C>| {
        above.iter_mut().zip(below).for_each(|(above, below)| above.merge(below));
    };
    let tasks = (0..cut.tiles * cut.blocks).into_par_iter();
    let tiles: Vec<Vec<C>> = if options.strategy == ReductionStrategy::Atomic {
        let cells: Vec<_> = (0..cut.tiles).map(|_| Mutex::new(None)).collect();
        tasks.for_each(|i| {
            let part = part(i);
            match &mut *cells[i / cut.blocks].lock() {
                Some(all) => merge(all, &part),
                empty => *empty = Some(part),
            }
        });
        cells.into_iter().filter_map(Mutex::into_inner).collect()
    } else {
        let mut parts = tasks.map(part).collect::<Vec<_>>().into_iter();
        (0..cut.tiles)
            .filter_map(|_| tree(parts.by_ref().take(cut.blocks).collect(), merge))
            .collect()
    };
    let rows = shape.rows() as u64;
    let found = |columns: &C, l: usize| match (options.nan, columns.numbers(l)) {
        (NanPolicy::Propagate, n) if n < rows => Some(C::nan()),
        (_, n) => (n > 0).then(|| columns.found(l)),
    };
    let mut out = Vec::with_capacity(shape.columns());
    for (tile, columns) in tiles.iter().enumerate() {
        out.extend((0..cut.seeds_of(tile).len()).map(|i| found(&columns[i / LANES], i % LANES)));
    }
    out
}

/// One tile's block of rows, compiled per instruction set.
struct Task<'a, T: Element, C> {
    matrices: [&'a MatrixView<'a, T>; 2],
    rows: Range<usize>,
    columns: Range<usize>,
    columns_of: std::marker::PhantomData<C>,
}

impl<T: Element<Value = f32>, C: Columns> WithSimd for Task<'_, T, C> {
    type Output = Vec<C>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<C> {
        let Self { matrices: [left, right], rows, columns, .. } = self;
        let mut all = vec![C::NEUTRAL; columns.len().div_ceil(LANES)];
        for first in rows.clone().step_by(ROWS_AT_ONCE) {
            let rows = first..rows.end.min(first + ROWS_AT_ONCE);
            for row in rows.clone() {
                touch(segment(left, row, columns.clone()));
                if C::TWO {
                    touch(segment(right, row, columns.clone()));
                }
            }
            for (held, start) in all.iter_mut().zip(columns.clone().step_by(LANES)) {
                let own = start..columns.end.min(start + LANES);
                // In registers over the rows.
                let mut lanes = *held;
                // Apart, so that no load of the many whole ones has to wait for which it is.
                if own.len() == LANES {
                    for row in rows.clone() {
                        let x = whole(segment(left, row, own.clone()));
                        let y = if C::TWO { whole(segment(right, row, own.clone())) } else { x };
                        lanes.step(&x, &y);
                    }
                } else {
                    for row in rows.clone() {
                        let x = short(segment(left, row, own.clone()));
                        let y = if C::TWO { short(segment(right, row, own.clone())) } else { x };
                        lanes.step(&x, &y);
                    }
                }
                *held = lanes;
            }
        }
        all
    }
}

/// Sixteen values.
#[inline(always)]
fn whole<T: Element<Value = f32>>(x: &[T]) -> [f32; LANES] {
    let mut values = [0.0; LANES];
    for l in 0..LANES {
        values[l] = x[l].value();
    }
    values
}

/// Fewer, and zeros behind them, whose columns nobody reads.
#[inline(always)]
fn short<T: Element<Value = f32>>(x: &[T]) -> [f32; LANES] {
    let mut values = [0.0; LANES];
    for (value, x) in values.iter_mut().zip(x) {
        *value = x.value();
    }
    values
}

/// One row's values of some columns.
#[inline(always)]
fn segment<'a, T: Element>(
    matrix: &MatrixView<'a, T>,
    row: usize,
    columns: Range<usize>,
) -> &'a [T] {
    matrix.block(row..row + 1, columns)
}
