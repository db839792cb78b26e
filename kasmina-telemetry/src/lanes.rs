//! The inner step of the accumulators: sixteen columns of one row into sixteen lanes of running sums.
//!
//! Plain fixed-size array code, compiled once per instruction set by `pulp` and vectorised by the
//! compiler. Every lane does the same IEEE operations in the same order whatever the vector width, and
//! Rust never fuses a multiply with an add, so the result is bitwise the same on every machine.

// Several arrays run side by side, and the lane is the subject.
#![allow(clippy::needless_range_loop)]

use crate::stats::positive_zero;
use crate::{ChunkStats, GradientStats, Moments};

/// Columns a step takes: one AVX-512 register of f32, two of AVX, four of NEON.
pub(crate) const LANES: usize = 16;

/// Steps a slot may take before it is folded. Keeps a lane's rounding error below √2^15 ulp and its
/// counters far from overflow.
pub(crate) const STEPS_BEFORE_FOLD: usize = 1 << 15;

/// Sixteen lanes of running sums. A gradient's leave `dead` alone. They do keep both extrema: one max|g| in
/// their place comes out of the compiler at little over half the speed (18 against 32 GB/s).
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot<const GRADIENT: bool> {
    /// Σ (x − pivot). In f64 the difference of two f32 is exact up to 2^29 apart.
    pub(crate) sum: [f64; LANES],
    /// Σ (x − pivot)².
    pub(crate) squares: [f64; LANES],
    pub(crate) low: [f32; LANES],
    pub(crate) high: [f32; LANES],
    pub(crate) dead: [u32; LANES],
    /// Finite elements taken.
    pub(crate) finite: [u32; LANES],
}

impl<const GRADIENT: bool> Slot<GRADIENT> {
    pub(crate) const EMPTY: Self = Self {
        sum: [0.0; LANES],
        squares: [0.0; LANES],
        low: [f32::INFINITY; LANES],
        high: [f32::NEG_INFINITY; LANES],
        dead: [0; LANES],
        finite: [0; LANES],
    };

    /// Takes `x` into the lanes. A non-finite element is replaced by the pivot, which adds 0 to both sums
    /// and moves no extremum, since a pivot lies between the extremes.
    #[inline(always)]
    pub(crate) fn step(&mut self, x: &[f32; LANES], pivot: &[f32; LANES], dead_epsilon: f32) {
        let mut kept = [0.0; LANES];
        for l in 0..LANES {
            let finite = x[l].abs() < f32::INFINITY;
            kept[l] = if finite { x[l] } else { pivot[l] };
            self.finite[l] += u32::from(finite);
        }
        for l in 0..LANES {
            let shifted = f64::from(kept[l]) - f64::from(pivot[l]);
            self.sum[l] += shifted;
            self.squares[l] += shifted * shifted;
        }
        for l in 0..LANES {
            self.low[l] = if kept[l] < self.low[l] { kept[l] } else { self.low[l] };
            self.high[l] = if kept[l] > self.high[l] { kept[l] } else { self.high[l] };
        }
        if !GRADIENT {
            for l in 0..LANES {
                self.dead[l] += u32::from(x[l].abs() <= dead_epsilon);
            }
        }
    }

    /// What lanes with one common pivot add up to, when they were offered `elements`.
    #[inline(always)]
    pub(crate) fn total(&self, pivot: f32, elements: u64) -> Total {
        let mut n = self.finite.map(u64::from);
        let mut dead = self.dead.map(u64::from);
        let Self { mut sum, mut squares, mut low, mut high, .. } = *self;
        let mut half = LANES / 2;
        while half > 0 {
            for l in 0..half {
                n[l] += n[l + half];
                dead[l] += dead[l + half];
                sum[l] += sum[l + half];
                squares[l] += squares[l + half];
                low[l] = if low[l + half] < low[l] { low[l + half] } else { low[l] };
                high[l] = if high[l + half] > high[l] { high[l + half] } else { high[l] };
            }
            half /= 2;
        }
        Total {
            n: n[0],
            dead: dead[0],
            nonfinite: elements - n[0],
            pivot,
            sum: sum[0],
            squares: squares[0],
            low: low[0],
            high: high[0],
        }
    }
}

/// One row of a chunk, sixteen columns at a time.
///
/// A chunk that is no multiple of sixteen ends in a step that overlaps the one before: the lanes that
/// were already taken read as NaN, and what is not finite is found by counting what is. Loading the
/// overlap costs nothing; a copy into a padded buffer would cost a store-forwarding stall.
#[inline(always)]
pub(crate) fn walk<const GRADIENT: bool>(
    lanes: &mut Slot<GRADIENT>,
    pivot: f32,
    values: &[f32],
    dead_epsilon: f32,
) {
    let pivot = [pivot; LANES];
    let (steps, rest) = values.as_chunks::<LANES>();
    for step in steps {
        lanes.step(step, &pivot, dead_epsilon);
    }
    if rest.is_empty() {
        return;
    }
    let tail = match values.last_chunk::<LANES>() {
        Some(last) => without_first(*last, LANES - rest.len()),
        None => {
            let mut tail = [f32::NAN; LANES];
            tail[..rest.len()].copy_from_slice(rest);
            tail
        }
    };
    lanes.step(&tail, &pivot, dead_epsilon);
}

/// Makes the compiler vectorise what stands before and after this by itself. Where it sees a loop over
/// lanes together with their constant start or with the sum across them, it groups the lanes badly.
#[inline(always)]
pub(crate) fn apart<T>(lanes: &mut T) {
    std::hint::black_box(lanes);
}

/// `x` with its first `taken` lanes set to NaN, which count as nothing.
#[inline(always)]
pub(crate) fn without_first(mut x: [f32; LANES], taken: usize) -> [f32; LANES] {
    // Or-ing ones into every bit of a float gives a NaN, and is one instruction for all lanes.
    let start = LANES - taken;
    let window: &[u32; LANES] =
        BLANKS[start..start + LANES].as_array().expect("the slice is LANES long");
    for l in 0..LANES {
        x[l] = f32::from_bits(x[l].to_bits() | window[l]);
    }
    x
}

/// Sixteen lanes of ones, then sixteen of zeros.
static BLANKS: [u32; 2 * LANES] = {
    let mut blanks = [0; 2 * LANES];
    let mut l = 0;
    while l < LANES {
        blanks[l] = u32::MAX;
        l += 1;
    }
    blanks
};

/// What a seed's lanes add up to, before it becomes a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Total {
    pub(crate) n: u64,
    pub(crate) dead: u64,
    pub(crate) nonfinite: u64,
    pub(crate) pivot: f32,
    pub(crate) sum: f64,
    pub(crate) squares: f64,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

/// A record that lanes can be folded into.
pub(crate) trait Record: Copy + Send + Sync {
    /// The neutral element.
    const NEUTRAL: Self;
    /// The record of one seed's lanes.
    fn from_total(total: &Total) -> Self;
    /// Chan's merge.
    fn absorb(&mut self, other: &Self);
    /// A value between the extremes and near the mean: the next pivot. `None` without finite elements.
    fn center(&self) -> Option<f32>;
}

impl Record for ChunkStats {
    const NEUTRAL: Self = Self::EMPTY;

    #[inline]
    fn from_total(total: &Total) -> Self {
        if total.n == 0 {
            // The lanes' extrema hold nothing real.
            return Self { nonfinite: total.nonfinite, ..Self::EMPTY };
        }
        let Moments { n, mean, m2 } =
            Moments::from_shifted(total.n, f64::from(total.pivot), total.sum, total.squares);
        Self {
            n,
            dead: total.dead,
            nonfinite: total.nonfinite,
            mean,
            m2,
            min: positive_zero(total.low),
            max: positive_zero(total.high),
        }
    }

    #[inline]
    fn absorb(&mut self, other: &Self) {
        self.merge(other);
    }

    fn center(&self) -> Option<f32> {
        (self.n > 0).then(|| (self.mean as f32).max(self.min).min(self.max))
    }
}

impl Record for GradientStats {
    const NEUTRAL: Self = Self::EMPTY;

    #[inline]
    fn from_total(total: &Total) -> Self {
        if total.n == 0 {
            return Self { nonfinite: total.nonfinite, ..Self::EMPTY };
        }
        let moments =
            Moments::from_shifted(total.n, f64::from(total.pivot), total.sum, total.squares);
        Self {
            n: moments.n,
            nonfinite: total.nonfinite,
            mean: moments.mean,
            m2: moments.m2,
            max_abs: total.high.abs().max(total.low.abs()),
            sum_squares: moments.sum_squares(),
        }
    }

    #[inline]
    fn absorb(&mut self, other: &Self) {
        self.merge(other);
    }

    fn center(&self) -> Option<f32> {
        (self.n > 0).then(|| (self.mean as f32).max(-self.max_abs).min(self.max_abs))
    }
}
