//! Count, mean, deviations, extremes and dead elements of the finite ones.

#![allow(clippy::needless_range_loop)]

use super::{Quantity, greater, less};
use crate::element::Scalar;
use crate::{Element, ElementStats, Moments};

/// [`ElementStats`] of a run.
#[derive(Clone, Copy)]
pub(crate) struct Statistics {
    pub(crate) dead_epsilon: f32,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Lanes<V, const L: usize> {
    pivot: [V; L],
    /// Σ (x − pivot).
    sum: [f64; L],
    /// Σ (x − pivot)².
    squares: [f64; L],
    low: [V; L],
    high: [V; L],
    dead: [u32; L],
    finite: [u32; L],
}

impl<T: Element> Quantity<T> for Statistics {
    type Found = ElementStats<T::Value>;
    type Lanes<const L: usize> = Lanes<T::Value, L>;

    fn nothing() -> Self::Found {
        ElementStats::EMPTY
    }

    /// The first finite element, so that no large offset cancels.
    #[inline(always)]
    fn pivot(&self, run: &[T]) -> T::Value {
        // Without a finite element the record is empty whatever the pivot.
        run.iter().map(|x| x.value()).find(|x| x.is_finite()).unwrap_or(T::Value::ZERO)
    }

    #[inline(always)]
    fn start<const L: usize>(&self, pivot: [T::Value; L]) -> Self::Lanes<L> {
        Lanes {
            pivot,
            sum: [0.0; L],
            squares: [0.0; L],
            low: [T::Value::GREATEST; L],
            high: [T::Value::LEAST; L],
            dead: [0; L],
            finite: [0; L],
        }
    }

    /// What is not finite is replaced by the pivot, which adds 0 to both sums and moves no extreme, since it lies between them.
    #[inline(always)]
    fn step<const L: usize>(&self, lanes: &mut Self::Lanes<L>, x: &[T::Value; L]) {
        let mut kept = [T::Value::ZERO; L];
        for l in 0..L {
            let finite = x[l].is_finite();
            kept[l] = if finite { x[l] } else { lanes.pivot[l] };
            lanes.finite[l] += u32::from(finite);
        }
        for l in 0..L {
            let shifted = kept[l].wide() - lanes.pivot[l].wide();
            lanes.sum[l] += shifted;
            lanes.squares[l] += shifted * shifted;
        }
        for l in 0..L {
            lanes.low[l] = less(kept[l], lanes.low[l]);
            lanes.high[l] = greater(kept[l], lanes.high[l]);
        }
        let most = T::Value::dead_up_to(self.dead_epsilon);
        for l in 0..L {
            lanes.dead[l] += u32::from(x[l].is_dead(most));
        }
    }

    #[inline(always)]
    fn one<const L: usize>(lanes: &Self::Lanes<L>, l: usize) -> Self::Lanes<1> {
        Lanes {
            pivot: [lanes.pivot[l]],
            sum: [lanes.sum[l]],
            squares: [lanes.squares[l]],
            low: [lanes.low[l]],
            high: [lanes.high[l]],
            dead: [lanes.dead[l]],
            finite: [lanes.finite[l]],
        }
    }

    #[inline(always)]
    fn put<const L: usize>(lanes: &mut Self::Lanes<L>, l: usize, one: Self::Lanes<1>) {
        [lanes.sum[l]] = one.sum;
        [lanes.squares[l]] = one.squares;
        [lanes.low[l]] = one.low;
        [lanes.high[l]] = one.high;
        [lanes.dead[l]] = one.dead;
        [lanes.finite[l]] = one.finite;
    }

    #[inline(always)]
    fn halve<const L: usize>(lanes: &mut Self::Lanes<L>, half: usize) {
        for l in 0..half {
            lanes.finite[l] += lanes.finite[l + half];
            lanes.dead[l] += lanes.dead[l + half];
            lanes.sum[l] += lanes.sum[l + half];
            lanes.squares[l] += lanes.squares[l + half];
            lanes.low[l] = less(lanes.low[l + half], lanes.low[l]);
            lanes.high[l] = greater(lanes.high[l + half], lanes.high[l]);
        }
    }

    #[inline(always)]
    fn found(lane: &Self::Lanes<1>, len: usize) -> Self::Found {
        let Lanes { pivot: [pivot], sum: [sum], squares: [squares], .. } = *lane;
        let n = u64::from(lane.finite[0]);
        if n == 0 {
            return ElementStats { nonfinite: len as u64, ..ElementStats::EMPTY };
        }
        let Moments { n, mean, m2 } = Moments::from_shifted(n, pivot.wide(), sum, squares);
        ElementStats {
            n,
            dead: u64::from(lane.dead[0]),
            nonfinite: len as u64 - n,
            mean,
            m2,
            min: lane.low[0].positive_zero(),
            max: lane.high[0].positive_zero(),
        }
    }

    fn merge(left: &mut Self::Found, right: &Self::Found) {
        left.merge(right);
    }
}
