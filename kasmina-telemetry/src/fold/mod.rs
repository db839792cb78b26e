//! What flat and segmented reductions find of a run of elements, and how: sixteen lanes over a long run, one after the other in a
//! short one, sixteen short ones side by side.
//!
//! Plain fixed-size array code, compiled once per instruction set by `pulp` and vectorised by the compiler. Every lane does the same
//! operations in the same order whatever the vector width, so that the bits are the same on every machine.

// Several arrays run side by side, and the lane is the subject.
#![allow(clippy::needless_range_loop)]

use crate::Element;
use crate::element::Scalar;
use crate::lanes::{LANES, apart};
use crate::strategy::PIECE;

/// Elements up to which a run is taken one after the other: sixteen lanes cost as much at their start and end (of segments of 63
/// alone 3.5 GB/s, of 65 4.9; of equal ones side by side 8 to 10).
pub(crate) const SHORT: usize = 64;

/// Something that is found of a run of elements.
pub(crate) trait Quantity<T: Element>: Copy + Send + Sync {
    /// What is found.
    type Found: Clone + Send + Sync;
    /// What `L` lanes hold on the way.
    type Lanes<const L: usize>: Copy;

    /// Of no elements.
    fn nothing() -> Self::Found;
    /// What lanes take differences from.
    fn pivot(&self, run: &[T]) -> T::Value;
    /// Lanes that have taken nothing, each with its pivot.
    fn start<const L: usize>(&self, pivots: [T::Value; L]) -> Self::Lanes<L>;
    /// Each lane takes a value.
    fn step<const L: usize>(&self, lanes: &mut Self::Lanes<L>, x: &[T::Value; L]);
    /// One of the lanes.
    fn one<const L: usize>(lanes: &Self::Lanes<L>, l: usize) -> Self::Lanes<1>;
    /// Puts one of the lanes back.
    fn put<const L: usize>(lanes: &mut Self::Lanes<L>, l: usize, one: Self::Lanes<1>);
    /// Adds the upper half of `2 * half` lanes of one pivot to the lower.
    fn halve<const L: usize>(lanes: &mut Self::Lanes<L>, half: usize);
    /// What a lane found of `len` elements.
    fn found(lane: &Self::Lanes<1>, len: usize) -> Self::Found;
    /// Adds what was found of the elements behind.
    fn merge(left: &mut Self::Found, right: &Self::Found);

    /// Of any run, by one worker. To be inlined where an instruction set is enabled.
    #[inline(always)]
    fn of(&self, run: &[T]) -> Self::Found {
        if run.len() <= SHORT {
            return self.of_short(run);
        }
        // No closure: it would be a function of its own, without the instruction set.
        let (first, rest) = run.split_at(run.len().min(PIECE));
        let mut all = self.of_piece(first);
        for piece in rest.chunks(PIECE) {
            Self::merge(&mut all, &self.of_piece(piece));
        }
        all
    }

    /// Of at most [`PIECE`] elements.
    #[inline(always)]
    fn of_piece(&self, piece: &[T]) -> Self::Found {
        let mut start = self.start([self.pivot(piece); LANES]);
        apart(&mut start);
        // A copy, whose address nobody has, stays in registers.
        let mut taking = start;
        let (steps, rest) = piece.as_chunks::<LANES>();
        for step in steps {
            let mut x = [T::Value::ZERO; LANES];
            for l in 0..LANES {
                x[l] = step[l].value();
            }
            self.step(&mut taking, &x);
            if !T::FLOAT {
                // Integers may be added in any order: without this the compiler takes a lane's elements of several steps at once,
                // which lie apart (1.5 instead of 18 GB/s).
                std::hint::black_box(());
            }
        }
        let mut lanes = taking;
        apart(&mut lanes);
        for (l, x) in rest.iter().enumerate() {
            let mut one = Self::one(&lanes, l);
            self.step(&mut one, &[x.value()]);
            Self::put(&mut lanes, l, one);
        }
        let mut half = LANES / 2;
        while half > 0 {
            Self::halve(&mut lanes, half);
            half /= 2;
        }
        Self::found(&Self::one(&lanes, 0), piece.len())
    }

    /// One element after the other.
    #[inline(always)]
    fn of_short(&self, run: &[T]) -> Self::Found {
        let mut lane = self.start([self.pivot(run)]);
        for x in run {
            self.step(&mut lane, &[x.value()]);
        }
        Self::found(&lane, run.len())
    }

    /// Of sixteen short runs of `len` elements at once, a lane each: what [`Quantity::of_short`] finds of each, to the bit.
    #[inline(always)]
    fn side_by_side(&self, runs: &[T], len: usize, mut found: impl FnMut(usize, Self::Found)) {
        let runs = &runs[..LANES * len];
        let mut pivots = [T::Value::ZERO; LANES];
        for l in 0..LANES {
            pivots[l] = self.pivot(&runs[l * len..(l + 1) * len]);
        }
        let mut start = self.start(pivots);
        apart(&mut start);
        let mut taking = start;
        for i in 0..len {
            let mut x = [T::Value::ZERO; LANES];
            for l in 0..LANES {
                x[l] = runs[l * len + i].value();
            }
            self.step(&mut taking, &x);
        }
        let mut lanes = taking;
        apart(&mut lanes);
        for l in 0..LANES {
            found(l, Self::found(&Self::one(&lanes, l), len));
        }
    }
}

#[inline(always)]
fn less<V: PartialOrd>(a: V, b: V) -> V {
    // A comparison with NaN is false, so that one in `a` stays out.
    if a < b { a } else { b }
}

#[inline(always)]
fn greater<V: PartialOrd>(a: V, b: V) -> V {
    if a > b { a } else { b }
}

mod statistics;
mod sums;

pub(crate) use statistics::Statistics;
pub(crate) use sums::{Bounds, Ends, Everything, Sums, Total};
