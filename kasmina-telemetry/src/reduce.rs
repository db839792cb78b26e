//! Flat reductions of a slice: sum, sum of squares, extrema and where they are, all in one read; and its
//! statistics.
//!
//! Sums run in f64: sixteen lanes over pieces of 2^16 values, then a pairwise tree over pieces, so the
//! error is at most about (2^12 + log2(n)) · 2^-53 · Σ|x|, whatever the length.

// Several arrays run side by side, and the lane is the subject.
#![allow(clippy::needless_range_loop)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::lanes::{LANES, apart};
use crate::strategy::{PIECE, add_f64, tree};
use crate::{ChunkStats, Element, NanPolicy, ReductionOptions, ReductionStrategy, segmented};

pub use crate::typed::{count, statistics_of, summary_of};

/// Everything that one read of a slice gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary<T: Element = f32> {
    /// Values reduced: all of them, or under [`NanPolicy::Ignore`] those that are not NaN.
    pub count: u64,
    /// Σ x: f64 of floats, exact i128 of integers.
    pub sum: T::Sum,
    /// Σ x², in f64.
    pub sum_squares: f64,
    /// Least value. −0.0 and +0.0 count as equal.
    pub min: T,
    /// Index of the first least value.
    pub arg_min: usize,
    /// Greatest value.
    pub max: T,
    /// Index of the first greatest value.
    pub arg_max: usize,
}

/// All of [`Summary`], or `None` for no values (or, with NaNs ignored, nothing but NaNs).
///
/// ±Inf are ordinary values here.
///
/// ```
/// use kasmina_telemetry::{NanPolicy, ReductionOptions, reduce};
///
/// let x = [2.0, f32::NAN, -3.0, 7.0];
/// let ignoring = ReductionOptions { nan: NanPolicy::Ignore, ..Default::default() };
/// let summary = reduce::summary(&x, &ignoring).expect("three numbers");
/// assert_eq!((summary.sum, summary.sum_squares), (6.0, 62.0));
/// assert_eq!((summary.arg_min, summary.max), (2, 7.0));
/// assert_eq!(reduce::arg_max(&x, &ReductionOptions::default()), Some(1), "the NaN");
/// assert_eq!(reduce::sum(&[], &ignoring), None);
/// ```
pub fn summary(x: &[f32], options: &ReductionOptions) -> Option<Summary> {
    let arch = Arch::new();
    let pieces = x.len().div_ceil(PIECE);
    let part = |piece: usize| arch.dispatch(Part { x, piece });
    let total = match options.strategy {
        ReductionStrategy::Hierarchical => {
            let parts = if pieces < 2 {
                (0..pieces).map(part).collect()
            } else {
                (0..pieces).into_par_iter().map(part).collect()
            };
            tree(parts, Partial::merge)?
        }
        ReductionStrategy::Direct => (0..pieces).map(part).reduce(|mut all, part| {
            all.merge(&part);
            all
        })?,
        ReductionStrategy::Atomic => {
            let shared = Shared::default();
            (0..pieces).into_par_iter().for_each(|piece| shared.fold(x, piece, &part(piece)));
            shared.into_partial(x)
        }
    };
    total.finish(x, options.nan)
}

/// Σ x; see [`summary`].
pub fn sum(x: &[f32], options: &ReductionOptions) -> Option<f64> {
    summary(x, options).map(|s| s.sum)
}

/// Σ x²; see [`summary`].
pub fn sum_squares(x: &[f32], options: &ReductionOptions) -> Option<f64> {
    summary(x, options).map(|s| s.sum_squares)
}

/// Least value; see [`summary`].
pub fn min(x: &[f32], options: &ReductionOptions) -> Option<f32> {
    summary(x, options).map(|s| s.min)
}

/// Greatest value; see [`summary`].
pub fn max(x: &[f32], options: &ReductionOptions) -> Option<f32> {
    summary(x, options).map(|s| s.max)
}

/// Index of the first least value; see [`summary`].
pub fn arg_min(x: &[f32], options: &ReductionOptions) -> Option<usize> {
    summary(x, options).map(|s| s.arg_min)
}

/// Index of the first greatest value; see [`summary`].
pub fn arg_max(x: &[f32], options: &ReductionOptions) -> Option<usize> {
    summary(x, options).map(|s| s.arg_max)
}

/// Statistics of all values, or `None` for no values. Non-finite ones are counted and left out.
///
/// ```
/// use kasmina_telemetry::{ReductionOptions, reduce};
///
/// let stats = reduce::statistics(&[1.0, 2.0, 3.0, f32::INFINITY], &ReductionOptions::default());
/// assert_eq!(stats.and_then(|s| s.mean()), Some(2.0));
/// ```
pub fn statistics(x: &[f32], options: &ReductionOptions) -> Option<ChunkStats> {
    // One segment, which is not zero long unless there is nothing to reduce.
    segmented::equal(x, x.len(), options).ok()?.first().copied()
}

/// What a run of pieces adds up to. Extrema remember their piece; where in it is looked up at the end.
#[derive(Clone, Copy, Debug)]
struct Partial {
    /// Values that are not NaN.
    count: u64,
    sum: f64,
    squares: f64,
    min: f32,
    min_piece: usize,
    max: f32,
    max_piece: usize,
    /// First piece with a NaN; `usize::MAX` for none.
    nan_piece: usize,
}

impl Partial {
    /// `other` lies behind `self`.
    fn merge(&mut self, other: &Self) {
        if other.count > 0 && (self.count == 0 || other.min < self.min) {
            (self.min, self.min_piece) = (other.min, other.min_piece);
        }
        if other.count > 0 && (self.count == 0 || other.max > self.max) {
            (self.max, self.max_piece) = (other.max, other.max_piece);
        }
        self.nan_piece = self.nan_piece.min(other.nan_piece);
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    fn finish(&self, x: &[f32], nan: NanPolicy) -> Option<Summary> {
        let first = |piece: usize, wanted: &dyn Fn(f32) -> bool| {
            let start = piece * PIECE;
            x.iter().skip(start).position(|&x| wanted(x)).map(|i| start + i)
        };
        if nan == NanPolicy::Propagate && self.nan_piece != usize::MAX {
            let at = first(self.nan_piece, &f32::is_nan)?;
            return Some(Summary {
                count: x.len() as u64,
                sum: f64::NAN,
                sum_squares: f64::NAN,
                min: f32::NAN,
                arg_min: at,
                max: f32::NAN,
                arg_max: at,
            });
        }
        if self.count == 0 {
            return None;
        }
        let arg_min = first(self.min_piece, &|x| x == self.min)?;
        let arg_max = first(self.max_piece, &|x| x == self.max)?;
        Some(Summary {
            count: self.count,
            sum: self.sum,
            sum_squares: self.squares,
            min: x[arg_min],
            arg_min,
            max: x[arg_max],
            arg_max,
        })
    }
}

/// One piece, compiled per instruction set.
struct Part<'a> {
    x: &'a [f32],
    piece: usize,
}

impl WithSimd for Part<'_> {
    type Output = Partial;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Partial {
        let start = self.piece * PIECE;
        let values = &self.x[start..self.x.len().min(start + PIECE)];
        let mut lanes = Lanes {
            sum: [0.0; LANES],
            squares: [0.0; LANES],
            low: [f32::INFINITY; LANES],
            high: [f32::NEG_INFINITY; LANES],
            numbers: [0; LANES],
        };
        apart(&mut lanes);
        let (steps, rest) = values.as_chunks::<LANES>();
        for step in steps {
            lanes.step(step);
        }
        if !rest.is_empty() {
            let mut tail = [f32::NAN; LANES];
            tail[..rest.len()].copy_from_slice(rest);
            lanes.step(&tail);
        }
        apart(&mut lanes);
        lanes.partial(self.piece, values.len())
    }
}

/// Sixteen lanes of running sums over values that are not NaN.
#[derive(Clone, Copy)]
struct Lanes {
    sum: [f64; LANES],
    squares: [f64; LANES],
    low: [f32; LANES],
    high: [f32; LANES],
    numbers: [u32; LANES],
}

impl Lanes {
    #[inline(always)]
    fn step(&mut self, x: &[f32; LANES]) {
        for l in 0..LANES {
            let number = f64::from(if x[l].is_nan() { 0.0 } else { x[l] });
            self.sum[l] += number;
            self.squares[l] += number * number;
        }
        for l in 0..LANES {
            // A comparison with NaN is false, so a NaN stays out of both.
            self.low[l] = if x[l] < self.low[l] { x[l] } else { self.low[l] };
            self.high[l] = if x[l] > self.high[l] { x[l] } else { self.high[l] };
            self.numbers[l] += u32::from(!x[l].is_nan());
        }
    }

    #[inline(always)]
    fn partial(mut self, piece: usize, len: usize) -> Partial {
        let mut half = LANES / 2;
        while half > 0 {
            for l in 0..half {
                self.sum[l] += self.sum[l + half];
                self.squares[l] += self.squares[l + half];
                self.low[l] = self.low[l].min(self.low[l + half]);
                self.high[l] = self.high[l].max(self.high[l + half]);
                self.numbers[l] += self.numbers[l + half];
            }
            half /= 2;
        }
        Partial {
            count: u64::from(self.numbers[0]),
            sum: self.sum[0],
            squares: self.squares[0],
            min: self.low[0],
            min_piece: piece,
            max: self.high[0],
            max_piece: piece,
            nan_piece: if (self.numbers[0] as usize) < len { piece } else { usize::MAX },
        }
    }
}

/// A partial that threads fold into at the same time. The cells are independent of each other, so relaxed
/// order is enough; the join of the parallel loop publishes them.
#[derive(Debug)]
struct Shared {
    count: AtomicU64,
    sum: AtomicU64,
    squares: AtomicU64,
    /// Indices into the values rather than the values: one word holds both, and ties go to the lower.
    arg_min: AtomicUsize,
    arg_max: AtomicUsize,
    nan_piece: AtomicUsize,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0.0_f64.to_bits()),
            squares: AtomicU64::new(0.0_f64.to_bits()),
            arg_min: AtomicUsize::new(usize::MAX),
            arg_max: AtomicUsize::new(usize::MAX),
            nan_piece: AtomicUsize::new(usize::MAX),
        }
    }
}

impl Shared {
    fn fold(&self, x: &[f32], piece: usize, part: &Partial) {
        self.nan_piece.fetch_min(part.nan_piece, Relaxed);
        if part.count == 0 {
            return;
        }
        self.count.fetch_add(part.count, Relaxed);
        add_f64(&self.sum, part.sum);
        add_f64(&self.squares, part.squares);
        offer(&self.arg_min, x, piece, part.min, |new, held| new < held);
        offer(&self.arg_max, x, piece, part.max, |new, held| new > held);
    }

    fn into_partial(self, x: &[f32]) -> Partial {
        let at = |arg: usize| x.get(arg).copied().unwrap_or(f32::NAN);
        let (arg_min, arg_max) = (self.arg_min.into_inner(), self.arg_max.into_inner());
        Partial {
            count: self.count.into_inner(),
            sum: f64::from_bits(self.sum.into_inner()),
            squares: f64::from_bits(self.squares.into_inner()),
            min: at(arg_min),
            min_piece: arg_min / PIECE,
            max: at(arg_max),
            max_piece: arg_max / PIECE,
            nan_piece: self.nan_piece.into_inner(),
        }
    }
}

/// Puts the index of `extreme`, which lies in `piece`, into `cell` where it beats what is held there.
fn offer(cell: &AtomicUsize, x: &[f32], piece: usize, extreme: f32, beats: fn(f32, f32) -> bool) {
    // The held value only gets better, so what it beats already needs no place.
    if x.get(cell.load(Relaxed)).is_some_and(|&held| beats(held, extreme)) {
        return;
    }
    let start = piece * PIECE;
    let Some(offset) = x[start..].iter().position(|&x| x == extreme) else {
        return;
    };
    let index = start + offset;
    // Failing means that the held index stays.
    let _ = cell.fetch_update(Relaxed, Relaxed, |held| {
        let better = match x.get(held) {
            None => true,
            Some(&value) => beats(extreme, value) || (extreme == value && index < held),
        };
        better.then_some(index)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_ties_go_to_the_first_in_any_order_of_folding() {
        let mut x = vec![0.0; 3 * PIECE];
        for i in [7, PIECE, 2 * PIECE + 1] {
            x[i] = 1.0;
            x[i + 1] = -1.0;
        }
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let shared = Shared::default();
            for piece in order {
                shared.fold(&x, piece, &Arch::new().dispatch(Part { x: &x, piece }));
            }
            let summary = shared.into_partial(&x).finish(&x, NanPolicy::Propagate).unwrap();
            assert_eq!((summary.arg_max, summary.arg_min), (7, 8));
        }
    }
}
