//! Flat reductions of a slice: sum, sum of squares, extrema and where they are, all in one read; how many
//! elements stand to a threshold; and statistics. Of every [`Element`] type.
//!
//! Sums of floats run in f64: sixteen lanes over pieces of 2^16 values, then a pairwise tree over pieces, so
//! the error is at most about (2^12 + log2(n)) · 2^-53 · Σ|x|, whatever the length. Integers are summed exactly.

use parking_lot::Mutex;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::fold::{Bounds, Ends, Everything, Quantity, Statistics, Sums, Total};
use crate::strategy::{PIECE, tree};
use crate::{Comparison, Element, ElementStats, NanPolicy, ReductionOptions, ReductionStrategy};

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
/// assert_eq!(reduce::sum::<f32>(&[], &ignoring), None);
///
/// let summary = reduce::summary(&[i64::MAX, i64::MAX, -5], &ignoring).expect("three numbers");
/// assert_eq!((summary.sum, summary.arg_max, summary.min), (2 * i128::from(i64::MAX) - 5, 0, -5));
/// ```
pub fn summary<T: Element>(x: &[T], options: &ReductionOptions) -> Option<Summary<T>> {
    let arch = Arch::new();
    let part = |i: usize, piece: &[T]| {
        Placed::new(i, arch.dispatch(Run { quantity: Everything, run: piece }))
    };
    pieces(x, options.strategy, part, Placed::merge)?.finish(x, options.nan)
}

/// Σ x; `None` as for [`summary`].
pub fn sum<T: Element>(x: &[T], options: &ReductionOptions) -> Option<T::Sum> {
    flat(x, Sums, options.strategy)?.found::<T>(options.nan)
}

/// Σ x²; see [`summary`].
pub fn sum_squares<T: Element>(x: &[T], options: &ReductionOptions) -> Option<f64> {
    summary(x, options).map(|s| s.sum_squares)
}

/// Least and greatest value, a zero as +0; `None` as for [`summary`].
///
/// ```
/// use kasmina_telemetry::{ReductionOptions, reduce};
///
/// assert_eq!(reduce::bounds(&[3_u32, 9, 4], &ReductionOptions::default()), Some((3, 9)));
/// ```
pub fn bounds<T: Element>(x: &[T], options: &ReductionOptions) -> Option<(T, T)> {
    flat(x, Bounds, options.strategy)?.found(options.nan)
}

/// Least value; see [`bounds`].
pub fn min<T: Element>(x: &[T], options: &ReductionOptions) -> Option<T> {
    bounds(x, options).map(|(min, _)| min)
}

/// Greatest value; see [`bounds`].
pub fn max<T: Element>(x: &[T], options: &ReductionOptions) -> Option<T> {
    bounds(x, options).map(|(_, max)| max)
}

/// Index of the first least value; see [`summary`].
pub fn arg_min<T: Element>(x: &[T], options: &ReductionOptions) -> Option<usize> {
    summary(x, options).map(|s| s.arg_min)
}

/// Index of the first greatest value; see [`summary`].
pub fn arg_max<T: Element>(x: &[T], options: &ReductionOptions) -> Option<usize> {
    summary(x, options).map(|s| s.arg_max)
}

/// How many elements stand to `threshold` as `comparison` says.
///
/// ```
/// use kasmina_telemetry::{Comparison, reduce};
///
/// assert_eq!(reduce::count(&[1.0, f32::NAN, 3.0], Comparison::Greater, 0.5), 2);
/// ```
pub fn count<T: Element>(x: &[T], comparison: Comparison, threshold: T) -> u64 {
    let arch = Arch::new();
    let of = |piece: &[T]| arch.dispatch(Count { piece, comparison, threshold });
    if x.len() <= PIECE { of(x) } else { x.par_chunks(PIECE).map(of).sum() }
}

/// Statistics of all values, or `None` for no values. Non-finite ones are counted and left out.
///
/// ```
/// use kasmina_telemetry::{ReductionOptions, reduce};
///
/// let stats = reduce::statistics(&[1.0, 2.0, 3.0, f32::INFINITY], &ReductionOptions::default());
/// assert_eq!(stats.and_then(|s| s.mean()), Some(2.0));
/// ```
pub fn statistics<T: Element>(
    x: &[T],
    options: &ReductionOptions,
) -> Option<ElementStats<T::Value>> {
    flat(x, Statistics { dead_epsilon: options.dead_epsilon }, options.strategy)
}

/// A quantity of all elements, or `None` for none.
fn flat<T: Element, Q: Quantity<T>>(
    x: &[T],
    quantity: Q,
    strategy: ReductionStrategy,
) -> Option<Q::Found> {
    let arch = Arch::new();
    let part = |_, piece: &[T]| arch.dispatch(Run { quantity, run: piece });
    pieces(x, strategy, part, |left, right| Q::merge(left, right))
}

/// What `part` gives of all pieces, brought together by strategy. By [`ReductionStrategy::Atomic`] `merge` gets them in any order.
fn pieces<T: Element, P: Send>(
    x: &[T],
    strategy: ReductionStrategy,
    part: impl Fn(usize, &[T]) -> P + Sync,
    merge: impl Fn(&mut P, &P) + Sync,
) -> Option<P> {
    let parts = || x.chunks(PIECE).enumerate().map(|(i, piece)| part(i, piece));
    if x.len() <= PIECE {
        return parts().next();
    }
    let at_once = x.par_chunks(PIECE).enumerate();
    match strategy {
        ReductionStrategy::Hierarchical => {
            tree(at_once.map(|(i, piece)| part(i, piece)).collect(), merge)
        }
        ReductionStrategy::Direct => parts().reduce(|mut all, part| {
            merge(&mut all, &part);
            all
        }),
        ReductionStrategy::Atomic => {
            let cell = Mutex::new(None);
            at_once.for_each(|(i, piece)| {
                let part = part(i, piece);
                match &mut *cell.lock() {
                    Some(all) => merge(all, &part),
                    empty => *empty = Some(part),
                }
            });
            cell.into_inner()
        }
    }
}

/// One run of elements, compiled per instruction set.
pub(crate) struct Run<'a, T, Q> {
    pub(crate) quantity: Q,
    pub(crate) run: &'a [T],
}

impl<T: Element, Q: Quantity<T>> WithSimd for Run<'_, T, Q> {
    type Output = Q::Found;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Q::Found {
        self.quantity.of(self.run)
    }
}

/// How many of a piece stand to a threshold, compiled per instruction set.
struct Count<'a, T> {
    piece: &'a [T],
    comparison: Comparison,
    threshold: T,
}

impl<T: Element> WithSimd for Count<'_, T> {
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u64 {
        let Self { piece, comparison, threshold } = self;
        let threshold = threshold.value();
        // A loop for each, so that none asks inside which it is.
        match comparison {
            Comparison::Less => count_if(piece, |x| x < threshold),
            Comparison::LessOrEqual => count_if(piece, |x| x <= threshold),
            Comparison::Equal => count_if(piece, |x| x == threshold),
            Comparison::NotEqual => count_if(piece, |x| x != threshold),
            Comparison::GreaterOrEqual => count_if(piece, |x| x >= threshold),
            Comparison::Greater => count_if(piece, |x| x > threshold),
        }
    }
}

#[inline(always)]
fn count_if<T: Element>(piece: &[T], holds: impl Fn(T::Value) -> bool) -> u64 {
    let mut all = 0;
    // A piece's count fits 32 bits, of which a register holds more.
    for run in piece.chunks(PIECE) {
        let mut count = 0_u32;
        for x in run {
            count += u32::from(holds(x.value()));
        }
        all += u64::from(count);
    }
    all
}

/// What a run of pieces adds up to. Extremes remember their piece; where in it is looked up at the end.
#[derive(Clone, Copy, Debug)]
struct Placed<T: Element> {
    total: Total<T::Sum>,
    ends: Ends<T::Value>,
    min_piece: usize,
    max_piece: usize,
    /// First piece with a NaN; `usize::MAX` for none.
    nan_piece: usize,
}

impl<T: Element> Placed<T> {
    fn new(piece: usize, (total, ends): (Total<T::Sum>, Ends<T::Value>)) -> Self {
        let nan_piece = if total.numbers < total.elements { piece } else { usize::MAX };
        Self { total, ends, min_piece: piece, max_piece: piece, nan_piece }
    }

    /// In any order: of equal extremes the one in the first piece stays.
    fn merge(&mut self, other: &Self) {
        let (held, new) = (&self.ends, &other.ends);
        if new.numbers > 0 {
            let empty = held.numbers == 0;
            let first = new.min == held.min && other.min_piece < self.min_piece;
            if empty || new.min < held.min || first {
                self.min_piece = other.min_piece;
            }
            let first = new.max == held.max && other.max_piece < self.max_piece;
            if empty || new.max > held.max || first {
                self.max_piece = other.max_piece;
            }
        }
        self.nan_piece = self.nan_piece.min(other.nan_piece);
        let mut all = (self.total, self.ends);
        <Everything as Quantity<T>>::merge(&mut all, &(other.total, other.ends));
        (self.total, self.ends) = all;
    }

    fn finish(&self, x: &[T], nan: NanPolicy) -> Option<Summary<T>> {
        let first = |piece: usize, wanted: &dyn Fn(&[T]) -> Option<usize>| {
            let start = piece * PIECE;
            wanted(&x[start..x.len().min(start + PIECE)]).map(|i| start + i)
        };
        if let (NanPolicy::Propagate, Some((damaged, sum))) = (nan, T::nan())
            && self.nan_piece != usize::MAX
        {
            let at = first(self.nan_piece, &|piece| piece.iter().position(|x| x.is_nan()))?;
            return Some(Summary {
                count: x.len() as u64,
                sum,
                sum_squares: f64::NAN,
                min: damaged,
                arg_min: at,
                max: damaged,
                arg_max: at,
            });
        }
        if self.total.numbers == 0 {
            return None;
        }
        let arch = Arch::new();
        let find = |value: T::Value| move |piece: &[T]| arch.dispatch(Find { piece, value });
        let arg_min = first(self.min_piece, &find(self.ends.min))?;
        let arg_max = first(self.max_piece, &find(self.ends.max))?;
        Some(Summary {
            count: self.total.numbers,
            sum: self.total.sum,
            sum_squares: self.total.squares,
            min: x[arg_min],
            arg_min,
            max: x[arg_max],
            arg_max,
        })
    }
}

/// Where a value first is, compiled per instruction set.
struct Find<'a, T: Element> {
    piece: &'a [T],
    value: T::Value,
}

impl<T: Element> WithSimd for Find<'_, T> {
    type Output = Option<usize>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Option<usize> {
        /// Elements that are asked together, without a branch for each.
        const TOGETHER: usize = 256;
        for (i, run) in self.piece.chunks(TOGETHER).enumerate() {
            let mut any = false;
            for x in run {
                any |= x.value() == self.value;
            }
            if any {
                let at = run.iter().position(|x| x.value() == self.value);
                return at.map(|at| i * TOGETHER + at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_first_in_any_order_of_merging() {
        let mut x = vec![0.0; 3 * PIECE];
        for i in [7, PIECE, 2 * PIECE + 1] {
            x[i] = 1.0;
            x[i + 1] = -1.0;
        }
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let part = |i: usize| {
                let run = &x[i * PIECE..(i + 1) * PIECE];
                Placed::<f32>::new(i, Everything.of(run))
            };
            let [first, rest @ ..] = order;
            let mut all = part(first);
            rest.iter().for_each(|&i| all.merge(&part(i)));
            let summary = all.finish(&x, NanPolicy::Propagate).unwrap();
            assert_eq!((summary.arg_max, summary.arg_min), (7, 8));
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let x: Vec<f32> = (0..70_001).map(|i| ((i * 2_654_435_761_usize) as f32).sin()).collect();
        let bits = |arch: Arch| {
            let stats = arch.dispatch(Run { quantity: Statistics { dead_epsilon: 0.0 }, run: &x });
            let sum = arch.dispatch(Run { quantity: Sums, run: &x }).sum;
            (stats.mean.to_bits(), stats.m2.to_bits(), stats.min.to_bits(), sum.to_bits())
        };
        assert_eq!(bits(Arch::new()), bits(Arch::Scalar));
    }
}
