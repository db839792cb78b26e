//! Sums, extremes, and both with sums of squares. What a NaN does is decided by who reads what was found.

#![allow(clippy::needless_range_loop)]

use super::{Quantity, greater, less};
use crate::element::Scalar;
use crate::{Element, NanPolicy};

/// Σ x over the numbers.
#[derive(Clone, Copy)]
pub(crate) struct Sums;

/// Least and greatest number.
#[derive(Clone, Copy)]
pub(crate) struct Bounds;

/// Both, and Σ x².
#[derive(Clone, Copy)]
pub(crate) struct Everything;

/// Σ x over those of `elements` that are numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Total<S> {
    pub(crate) sum: S,
    pub(crate) squares: f64,
    pub(crate) numbers: u64,
    pub(crate) elements: u64,
}

/// Least and greatest of those of `elements` that are numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<V> {
    pub(crate) min: V,
    pub(crate) max: V,
    pub(crate) numbers: u64,
    pub(crate) elements: u64,
}

impl<S> Total<S> {
    /// The sum, or `None` for nothing to sum.
    pub(crate) fn found<T: Element<Sum = S>>(self, nan: NanPolicy) -> Option<S> {
        match T::nan() {
            Some((_, sum)) if nan == NanPolicy::Propagate && self.numbers < self.elements => {
                Some(sum)
            }
            _ => (self.numbers > 0).then_some(self.sum),
        }
    }
}

impl<V> Ends<V> {
    /// Least and greatest, or `None` for no numbers.
    pub(crate) fn found<T: Element<Value = V>>(self, nan: NanPolicy) -> Option<(T, T)> {
        match T::nan() {
            Some((both, _)) if nan == NanPolicy::Propagate && self.numbers < self.elements => {
                Some((both, both))
            }
            _ => (self.numbers > 0).then(|| (T::from_value(self.min), T::from_value(self.max))),
        }
    }
}

#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct SumLanes<V: Scalar, const L: usize> {
    sum: [V::Lane; L],
    squares: [f64; L],
    numbers: [u32; L],
}

#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct BoundLanes<V, const L: usize> {
    low: [V; L],
    high: [V; L],
    numbers: [u32; L],
}

impl<V: Scalar, const L: usize> SumLanes<V, L> {
    #[inline(always)]
    fn new() -> Self {
        Self { sum: [V::Lane::default(); L], squares: [0.0; L], numbers: [0; L] }
    }

    #[inline(always)]
    fn step<const SQUARES: bool>(&mut self, x: &[V; L]) {
        for l in 0..L {
            let x = if x[l].is_number() { x[l] } else { V::ZERO };
            self.sum[l] = V::add(self.sum[l], x.summand());
            if SQUARES {
                self.squares[l] += x.wide() * x.wide();
            }
        }
        for l in 0..L {
            self.numbers[l] += u32::from(x[l].is_number());
        }
    }

    #[inline(always)]
    fn one(&self, l: usize) -> SumLanes<V, 1> {
        SumLanes { sum: [self.sum[l]], squares: [self.squares[l]], numbers: [self.numbers[l]] }
    }

    #[inline(always)]
    fn put(&mut self, l: usize, one: SumLanes<V, 1>) {
        ([self.sum[l]], [self.squares[l]], [self.numbers[l]]) = (one.sum, one.squares, one.numbers);
    }

    #[inline(always)]
    fn halve(&mut self, half: usize) {
        for l in 0..half {
            self.sum[l] = V::add(self.sum[l], self.sum[l + half]);
            self.squares[l] += self.squares[l + half];
            self.numbers[l] += self.numbers[l + half];
        }
    }
}

impl<V: Scalar> SumLanes<V, 1> {
    #[inline(always)]
    fn found(&self, len: usize) -> Total<V::Sum> {
        let numbers = u64::from(self.numbers[0]);
        Total { sum: V::sum(self.sum[0]), squares: self.squares[0], numbers, elements: len as u64 }
    }
}

impl<V: Scalar, const L: usize> BoundLanes<V, L> {
    #[inline(always)]
    fn new() -> Self {
        Self { low: [V::GREATEST; L], high: [V::LEAST; L], numbers: [0; L] }
    }

    /// Counts, unless another does.
    #[inline(always)]
    fn step<const COUNT: bool>(&mut self, x: &[V; L]) {
        for l in 0..L {
            self.low[l] = less(x[l], self.low[l]);
            self.high[l] = greater(x[l], self.high[l]);
        }
        for l in 0..L {
            self.numbers[l] += u32::from(COUNT && x[l].is_number());
        }
    }

    #[inline(always)]
    fn one(&self, l: usize) -> BoundLanes<V, 1> {
        BoundLanes { low: [self.low[l]], high: [self.high[l]], numbers: [self.numbers[l]] }
    }

    #[inline(always)]
    fn put(&mut self, l: usize, one: BoundLanes<V, 1>) {
        ([self.low[l]], [self.high[l]], [self.numbers[l]]) = (one.low, one.high, one.numbers);
    }

    #[inline(always)]
    fn halve(&mut self, half: usize) {
        for l in 0..half {
            self.low[l] = less(self.low[l + half], self.low[l]);
            self.high[l] = greater(self.high[l + half], self.high[l]);
            self.numbers[l] += self.numbers[l + half];
        }
    }
}

impl<V: Scalar> BoundLanes<V, 1> {
    #[inline(always)]
    fn found(&self, len: usize) -> Ends<V> {
        let (min, max) = (self.low[0].positive_zero(), self.high[0].positive_zero());
        Ends { min, max, numbers: u64::from(self.numbers[0]), elements: len as u64 }
    }
}

impl<T: Element> Quantity<T> for Sums {
    type Found = Total<T::Sum>;
    type Lanes<const L: usize> = SumLanes<T::Value, L>;

    fn nothing() -> Self::Found {
        SumLanes::<T::Value, 1>::new().found(0)
    }

    #[inline(always)]
    fn pivot(&self, _: &[T]) -> T::Value {
        T::Value::ZERO
    }

    #[inline(always)]
    fn start<const L: usize>(&self, _: [T::Value; L]) -> Self::Lanes<L> {
        SumLanes::new()
    }

    #[inline(always)]
    fn step<const L: usize>(&self, lanes: &mut Self::Lanes<L>, x: &[T::Value; L]) {
        lanes.step::<false>(x);
    }

    #[inline(always)]
    fn one<const L: usize>(lanes: &Self::Lanes<L>, l: usize) -> Self::Lanes<1> {
        lanes.one(l)
    }

    #[inline(always)]
    fn put<const L: usize>(lanes: &mut Self::Lanes<L>, l: usize, one: Self::Lanes<1>) {
        lanes.put(l, one);
    }

    #[inline(always)]
    fn halve<const L: usize>(lanes: &mut Self::Lanes<L>, half: usize) {
        lanes.halve(half);
    }

    #[inline(always)]
    fn found(lane: &Self::Lanes<1>, len: usize) -> Self::Found {
        lane.found(len)
    }

    fn merge(left: &mut Self::Found, right: &Self::Found) {
        left.sum = T::add(left.sum, right.sum);
        left.squares += right.squares;
        left.numbers += right.numbers;
        left.elements += right.elements;
    }
}

impl<T: Element> Quantity<T> for Bounds {
    type Found = Ends<T::Value>;
    type Lanes<const L: usize> = BoundLanes<T::Value, L>;

    fn nothing() -> Self::Found {
        BoundLanes::<T::Value, 1>::new().found(0)
    }

    #[inline(always)]
    fn pivot(&self, _: &[T]) -> T::Value {
        T::Value::ZERO
    }

    #[inline(always)]
    fn start<const L: usize>(&self, _: [T::Value; L]) -> Self::Lanes<L> {
        BoundLanes::new()
    }

    #[inline(always)]
    fn step<const L: usize>(&self, lanes: &mut Self::Lanes<L>, x: &[T::Value; L]) {
        lanes.step::<true>(x);
    }

    #[inline(always)]
    fn one<const L: usize>(lanes: &Self::Lanes<L>, l: usize) -> Self::Lanes<1> {
        lanes.one(l)
    }

    #[inline(always)]
    fn put<const L: usize>(lanes: &mut Self::Lanes<L>, l: usize, one: Self::Lanes<1>) {
        lanes.put(l, one);
    }

    #[inline(always)]
    fn halve<const L: usize>(lanes: &mut Self::Lanes<L>, half: usize) {
        lanes.halve(half);
    }

    #[inline(always)]
    fn found(lane: &Self::Lanes<1>, len: usize) -> Self::Found {
        lane.found(len)
    }

    fn merge(left: &mut Self::Found, right: &Self::Found) {
        left.min = less(right.min, left.min);
        left.max = greater(right.max, left.max);
        left.numbers += right.numbers;
        left.elements += right.elements;
    }
}

impl<T: Element> Quantity<T> for Everything {
    type Found = (Total<T::Sum>, Ends<T::Value>);
    type Lanes<const L: usize> = (SumLanes<T::Value, L>, BoundLanes<T::Value, L>);

    fn nothing() -> Self::Found {
        (<Sums as Quantity<T>>::nothing(), <Bounds as Quantity<T>>::nothing())
    }

    #[inline(always)]
    fn pivot(&self, _: &[T]) -> T::Value {
        T::Value::ZERO
    }

    #[inline(always)]
    fn start<const L: usize>(&self, _: [T::Value; L]) -> Self::Lanes<L> {
        (SumLanes::new(), BoundLanes::new())
    }

    #[inline(always)]
    fn step<const L: usize>(&self, lanes: &mut Self::Lanes<L>, x: &[T::Value; L]) {
        lanes.0.step::<true>(x);
        lanes.1.step::<false>(x);
    }

    #[inline(always)]
    fn one<const L: usize>(lanes: &Self::Lanes<L>, l: usize) -> Self::Lanes<1> {
        (lanes.0.one(l), lanes.1.one(l))
    }

    #[inline(always)]
    fn put<const L: usize>(lanes: &mut Self::Lanes<L>, l: usize, one: Self::Lanes<1>) {
        lanes.0.put(l, one.0);
        lanes.1.put(l, one.1);
    }

    #[inline(always)]
    fn halve<const L: usize>(lanes: &mut Self::Lanes<L>, half: usize) {
        lanes.0.halve(half);
        lanes.1.halve(half);
    }

    #[inline(always)]
    fn found(lane: &Self::Lanes<1>, len: usize) -> Self::Found {
        let total = lane.0.found(len);
        (total, Ends { numbers: total.numbers, ..lane.1.found(len) })
    }

    fn merge(left: &mut Self::Found, right: &Self::Found) {
        <Sums as Quantity<T>>::merge(&mut left.0, &right.0);
        <Bounds as Quantity<T>>::merge(&mut left.1, &right.1);
    }
}
