//! Accumulator for chunks of fewer than sixteen columns: one slot for each sixteen columns of the tile,
//! and the lanes find their seeds only at the end.
//!
//! Each lane has its own pivot, since neighbouring columns may belong to seeds with different means.
//! Rows that cover only a part of a slot's columns pass NaN in the other lanes; what is not finite is found
//! by counting what is.

// Several arrays run side by side, and the lane is the subject.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::lanes::{LANES, Record, STEPS_BEFORE_FOLD, Slot, Total, without_first};

#[derive(Clone, Debug)]
pub(crate) struct Narrow<R, const GRADIENT: bool> {
    grid: Grid,
    dead_epsilon: f32,
    seeds: usize,
    slots: Vec<Slot<GRADIENT>>,
    pivots: Vec<Pivots>,
    /// Rows that covered the whole tile since the last fold; they count for every seed.
    full_rows: u32,
    /// Further rows each seed took.
    rows: Vec<u32>,
    /// Upper bound of `rows`.
    most_rows: u32,
    /// Records of the folds before the last; empty while there was none.
    folded: Vec<R>,
}

/// Which column is which lane.
#[derive(Clone, Copy, Debug)]
struct Grid {
    columns: usize,
    chunk: usize,
}

impl Grid {
    /// Columns of `slot`.
    #[inline(always)]
    fn columns_of(self, slot: usize) -> Range<usize> {
        slot * LANES..self.columns.min((slot + 1) * LANES)
    }

    /// Column of lane 0. The last slot is moved left to end with the tile, so that a load of sixteen
    /// columns stays inside the row; its first lanes then have no column.
    #[inline(always)]
    fn base(self, slot: usize) -> usize {
        (slot * LANES).min(self.columns.saturating_sub(LANES))
    }
}

/// A finite value of each lane's column, or 0 until one was seen.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Pivots {
    values: [f32; LANES],
    /// Lanes that still wait for a finite value, one bit each.
    open: u16,
}

impl Pivots {
    const OPEN: Self = Self { values: [0.0; LANES], open: u16::MAX };
}

impl<R: Record, const GRADIENT: bool> Narrow<R, GRADIENT> {
    pub(crate) fn new(columns: usize, chunk: usize, dead_epsilon: f32) -> Self {
        let slots = columns.div_ceil(LANES);
        let seeds = columns.div_ceil(chunk);
        let mut narrow = Self {
            grid: Grid { columns, chunk },
            dead_epsilon,
            seeds,
            slots: vec![Slot::EMPTY; slots],
            pivots: vec![Pivots::OPEN; slots],
            full_rows: 0,
            rows: vec![0; seeds],
            most_rows: 0,
            folded: Vec::new(),
        };
        narrow.reopen();
        narrow
    }

    pub(crate) fn seeds(&self) -> usize {
        self.seeds
    }

    /// Takes `rows` rows, `row_stride` apart in `x`, of the columns of `seeds`.
    pub(crate) fn push_rows(
        &mut self,
        arch: Arch,
        seeds: Range<usize>,
        mut x: &[f32],
        row_stride: usize,
        mut rows: usize,
    ) {
        while rows > 0 {
            let taken = self.full_rows + self.most_rows;
            if taken as usize == STEPS_BEFORE_FOLD {
                self.fold();
                continue;
            }
            let now = rows.min(STEPS_BEFORE_FOLD - taken as usize);
            let columns =
                seeds.start * self.grid.chunk..self.grid.columns.min(seeds.end * self.grid.chunk);
            let slots = columns.start / LANES..columns.end.div_ceil(LANES);
            // At most 2^15, so the casts are exact.
            if seeds.len() == self.seeds {
                self.full_rows += now as u32;
            } else {
                for count in self.rows[seeds.clone()].iter_mut() {
                    *count += now as u32;
                    self.most_rows = self.most_rows.max(*count);
                }
            }
            arch.dispatch(Walk {
                grid: self.grid,
                dead_epsilon: self.dead_epsilon,
                slots: &mut self.slots,
                pivots: &mut self.pivots,
                range: slots,
                columns,
                x,
                row_stride,
                rows: now,
            });
            rows -= now;
            if rows > 0 {
                x = &x[now * row_stride..];
            }
        }
    }

    /// Moves what the slots hold into `folded` and starts them anew around their seeds' means.
    #[cold]
    fn fold(&mut self) {
        if self.folded.is_empty() {
            self.folded = vec![R::NEUTRAL; self.seeds];
        }
        for seed in 0..self.seeds {
            let record = self.record(seed);
            self.folded[seed].absorb(&record);
        }
        self.clear();
        for slot in 0..self.slots.len() {
            let base = self.grid.base(slot);
            for column in self.grid.columns_of(slot) {
                if let Some(center) = self.folded[column / self.grid.chunk].center() {
                    self.pivots[slot].values[column - base] = center;
                    self.pivots[slot].open &= !(1 << (column - base));
                }
            }
        }
    }

    fn clear(&mut self) {
        self.slots.fill(Slot::EMPTY);
        self.rows.fill(0);
        self.full_rows = 0;
        self.most_rows = 0;
        self.reopen();
    }

    /// Forgets the pivots. Lanes without a column never see a finite value, so they wait for none.
    fn reopen(&mut self) {
        self.pivots.fill(Pivots::OPEN);
        for slot in 0..self.slots.len() {
            let base = self.grid.base(slot);
            self.pivots[slot].open =
                self.grid.columns_of(slot).fold(0, |open, column| open | 1 << (column - base));
        }
    }

    pub(crate) fn finish(&mut self, out: &mut [R]) {
        for (seed, out) in out.iter_mut().enumerate() {
            let mut record = self.record(seed);
            if let Some(folded) = self.folded.get(seed) {
                let mut all = *folded;
                all.absorb(&record);
                record = all;
            }
            out.absorb(&record);
        }
        self.folded.clear();
        self.clear();
    }

    /// What the seed's lanes hold, shifted to one common pivot of theirs: a value of the seed's chunk,
    /// so `Moments::from_shifted` keeps its bound, and no division is spent on a lane.
    fn record(&self, seed: usize) -> R {
        let Grid { columns, chunk } = self.grid;
        let first = seed * chunk;
        let last = columns.min(first + chunk);
        let rows = u64::from(self.full_rows + self.rows[seed]);
        let mut total = Total {
            n: 0,
            dead: 0,
            nonfinite: 0,
            pivot: 0.0,
            sum: 0.0,
            squares: 0.0,
            low: f32::INFINITY,
            high: f32::NEG_INFINITY,
        };
        if rows == 0 {
            return R::NEUTRAL;
        }
        for column in first..last {
            let slot = column / LANES;
            let l = column - self.grid.base(slot);
            let lanes = &self.slots[slot];
            let n = lanes.finite[l];
            if n == 0 {
                continue;
            }
            let pivot = self.pivots[slot].values[l];
            if total.n == 0 {
                total.pivot = pivot;
            }
            let shift = f64::from(pivot) - f64::from(total.pivot);
            total.n += u64::from(n);
            total.squares += lanes.squares[l] + shift * (2.0 * lanes.sum[l] + shift * f64::from(n));
            total.sum += lanes.sum[l] + shift * f64::from(n);
            total.dead += u64::from(lanes.dead[l]);
            if lanes.low[l] < total.low {
                total.low = lanes.low[l];
            }
            if lanes.high[l] > total.high {
                total.high = lanes.high[l];
            }
        }
        total.nonfinite = rows * (last - first) as u64 - total.n;
        R::from_total(&total)
    }
}

/// One call's work, compiled per instruction set.
struct Walk<'a, const GRADIENT: bool> {
    grid: Grid,
    dead_epsilon: f32,
    slots: &'a mut [Slot<GRADIENT>],
    pivots: &'a mut [Pivots],
    range: Range<usize>,
    /// The tile's columns that `x` holds.
    columns: Range<usize>,
    x: &'a [f32],
    row_stride: usize,
    rows: usize,
}

impl<const GRADIENT: bool> WithSimd for Walk<'_, GRADIENT> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { grid, columns, x, row_stride, rows, dead_epsilon, .. } = self;
        let slots = self.slots[self.range.clone()].iter_mut();
        let pivots = self.pivots[self.range.clone()].iter_mut();
        for ((index, slot), pivots) in self.range.zip(slots).zip(pivots) {
            let own = grid.columns_of(index);
            let base = grid.base(index);
            let mut steps = Steps { slot, pivots, rows, dead_epsilon };
            if columns.start <= base && own.end <= columns.end && grid.columns >= LANES {
                // A whole load; it overlaps the slot before where the tile's end moved this one left.
                let taken = own.start - base;
                let at = base - columns.start;
                if taken == 0 {
                    steps.walk(|row| load(x, row * row_stride + at));
                } else {
                    steps.walk(|row| without_first(load(x, row * row_stride + at), taken));
                }
            } else {
                let covered = own.start.max(columns.start)..own.end.min(columns.end);
                steps.walk(|row| {
                    let mut values = [f32::NAN; LANES];
                    let from = row * row_stride + covered.start - columns.start;
                    values[covered.start - base..covered.end - base]
                        .copy_from_slice(&x[from..from + covered.len()]);
                    values
                });
            }
        }
    }
}

#[inline(always)]
fn load(x: &[f32], at: usize) -> [f32; LANES] {
    *x[at..at + LANES].as_array().expect("the slice is LANES long")
}

/// The rows of one call through one slot.
struct Steps<'a, const GRADIENT: bool> {
    slot: &'a mut Slot<GRADIENT>,
    pivots: &'a mut Pivots,
    rows: usize,
    dead_epsilon: f32,
}

impl<const GRADIENT: bool> Steps<'_, GRADIENT> {
    #[inline(always)]
    fn walk(&mut self, load: impl Fn(usize) -> [f32; LANES]) {
        let mut row = 0;
        while self.pivots.open != 0 && row < self.rows {
            open(self.slot, self.pivots, &load(row), self.dead_epsilon);
            row += 1;
        }
        let pivot = self.pivots.values;
        let mut lanes = *self.slot;
        while row < self.rows {
            lanes.step(&load(row), &pivot, self.dead_epsilon);
            row += 1;
        }
        *self.slot = lanes;
    }
}

/// A step of a slot with lanes that have no pivot yet.
#[cold]
#[inline(never)]
fn open<const GRADIENT: bool>(
    slot: &mut Slot<GRADIENT>,
    pivots: &mut Pivots,
    x: &[f32; LANES],
    dead_epsilon: f32,
) {
    for l in 0..LANES {
        if pivots.open & 1 << l != 0 && x[l].is_finite() {
            pivots.open &= !(1 << l);
            pivots.values[l] = x[l];
            // The stand-in pivot 0 may stand as an extremum.
            slot.low[l] = f32::INFINITY;
            slot.high[l] = f32::NEG_INFINITY;
        }
    }
    slot.step(x, &pivots.values, dead_epsilon);
}
