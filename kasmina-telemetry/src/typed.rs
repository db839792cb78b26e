//! Flat reductions of slices of every [`Element`] type: what [`reduce`](crate::reduce) does for f32, for all.

use rayon::prelude::*;

use crate::reduce::Summary;
use crate::strategy::{PIECE, tree};
use crate::{Comparison, Element, ElementStats, Moments, NanPolicy, ReductionOptions};

/// All of [`Summary`], or `None` for no values (or, with NaNs ignored, nothing but NaNs).
///
/// ```
/// use kasmina_telemetry::{ReductionOptions, reduce};
///
/// let summary = reduce::summary_of(&[i64::MAX, i64::MAX, -5], &ReductionOptions::default()).expect("three numbers");
/// assert_eq!((summary.sum, summary.arg_max, summary.min), (2 * i128::from(i64::MAX) - 5, 0, -5));
/// ```
pub fn summary_of<T: Element>(x: &[T], options: &ReductionOptions) -> Option<Summary<T>> {
    let parts = x.par_chunks(PIECE).enumerate().map(|(i, piece)| summarize(piece, i * PIECE));
    let all = tree(parts.collect(), merge)?;
    if let (Some(at), NanPolicy::Propagate) = (all.first_nan, options.nan) {
        // Only floats have a first NaN.
        let (nan, sum) = T::nan()?;
        return Some(Summary {
            count: x.len() as u64,
            sum,
            sum_squares: f64::NAN,
            min: nan,
            arg_min: at,
            max: nan,
            arg_max: at,
        });
    }
    let ((min, arg_min), (max, arg_max)) = (all.min?, all.max?);
    let Part { count, sum, squares, .. } = all;
    Some(Summary { count, sum, sum_squares: squares, min, arg_min, max, arg_max })
}

/// How many elements stand to `threshold` as `comparison` says.
///
/// ```
/// use kasmina_telemetry::{Comparison, reduce};
///
/// assert_eq!(reduce::count(&[1.0, f32::NAN, 3.0], Comparison::Greater, 0.5), 2);
/// ```
pub fn count<T: Element>(x: &[T], comparison: Comparison, threshold: T) -> u64 {
    let of = |piece: &[T]| piece.iter().filter(|&&x| comparison.holds(x, threshold)).count() as u64;
    x.par_chunks(PIECE).map(of).sum()
}

/// Statistics of all values, or `None` for no values. Non-finite ones are counted and left out.
pub fn statistics_of<T: Element>(
    x: &[T],
    options: &ReductionOptions,
) -> Option<ElementStats<T::Value>> {
    let parts = x.par_chunks(PIECE).map(|piece| statistics(piece, options.dead_epsilon));
    let all = tree(parts.collect(), |left: &mut Running<T>, right| {
        left.moments.merge(&right.moments);
        left.dead += right.dead;
        left.nonfinite += right.nonfinite;
        left.range = match (left.range, right.range) {
            (Some((a, b)), Some((c, d))) => {
                Some((if c < a { c } else { a }, if d > b { d } else { b }))
            }
            (one, None) | (None, one) => one,
        };
    })?;
    let first = x.first()?.value();
    let (min, max) = all.range.unwrap_or((first, first));
    let Moments { n, mean, m2 } = all.moments;
    Some(ElementStats { n, dead: all.dead, nonfinite: all.nonfinite, mean, m2, min, max })
}

#[derive(Clone, Copy)]
struct Part<T: Element> {
    count: u64,
    sum: T::Sum,
    squares: f64,
    min: Option<(T, usize)>,
    max: Option<(T, usize)>,
    first_nan: Option<usize>,
}

fn summarize<T: Element>(piece: &[T], start: usize) -> Part<T> {
    let (mut count, mut squares, mut sum) = (0, 0.0, T::Sum::default());
    let (mut min, mut max, mut first_nan) = (None::<(T, usize)>, None::<(T, usize)>, None);
    for (i, &x) in (start..).zip(piece) {
        if x.is_nan() {
            first_nan = first_nan.or(Some(i));
            continue;
        }
        count += 1;
        sum = T::add(sum, x.to_sum());
        squares += x.to_f64() * x.to_f64();
        if min.is_none_or(|(least, _)| x < least) {
            min = Some((x, i));
        }
        if max.is_none_or(|(greatest, _)| x > greatest) {
            max = Some((x, i));
        }
    }
    Part { count, sum, squares, min, max, first_nan }
}

/// `right` lies behind `left`, so ties stay with `left`.
fn merge<T: Element>(left: &mut Part<T>, right: &Part<T>) {
    left.count += right.count;
    left.sum = T::add(left.sum, right.sum);
    left.squares += right.squares;
    left.first_nan = left.first_nan.or(right.first_nan);
    if right.min.is_some_and(|(x, _)| left.min.is_none_or(|(least, _)| x < least)) {
        left.min = right.min;
    }
    if right.max.is_some_and(|(x, _)| left.max.is_none_or(|(greatest, _)| x > greatest)) {
        left.max = right.max;
    }
}

struct Running<T: Element> {
    moments: Moments,
    dead: u64,
    nonfinite: u64,
    range: Option<(T::Value, T::Value)>,
}

fn statistics<T: Element>(piece: &[T], dead_epsilon: f32) -> Running<T> {
    let mut all = Running { moments: Moments::EMPTY, dead: 0, nonfinite: 0, range: None };
    // Integers are dead when they are 0, whatever the threshold.
    let epsilon = if T::nan().is_some() { f64::from(dead_epsilon) } else { 0.0 };
    for &x in piece {
        let wide = x.to_f64();
        if !wide.is_finite() {
            all.nonfinite += 1;
            continue;
        }
        all.moments.push(wide);
        all.dead += u64::from(wide.abs() <= epsilon);
        let value = x.value();
        all.range = Some(all.range.map_or((value, value), |(low, high)| {
            (if value < low { value } else { low }, if value > high { value } else { high })
        }));
    }
    all
}
