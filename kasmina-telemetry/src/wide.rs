//! Accumulator for chunks of sixteen columns and more: one slot a seed, and each row of the chunk walks
//! through it sixteen columns at a time.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::lanes::{LANES, Record, STEPS_BEFORE_FOLD, Slot, walk};

#[derive(Clone, Debug)]
pub(crate) struct Wide<R, const GRADIENT: bool> {
    columns: usize,
    chunk: usize,
    dead_epsilon: f32,
    slots: Vec<Slot<GRADIENT>>,
    /// A finite value of the seed's chunk, NaN until one was seen.
    pivots: Vec<f32>,
    /// Rows each seed took since its last fold.
    rows: Vec<u32>,
    /// Upper bound of `rows`.
    most_rows: u32,
    /// Rows a seed may take before all are folded.
    row_limit: u32,
    /// Records of the folds before the last; empty while there was none.
    folded: Vec<R>,
}

impl<R: Record, const GRADIENT: bool> Wide<R, GRADIENT> {
    pub(crate) fn new(columns: usize, chunk: usize, dead_epsilon: f32) -> Self {
        let seeds = columns.div_ceil(chunk);
        let steps = chunk.min(columns).div_ceil(LANES);
        Self {
            columns,
            chunk,
            dead_epsilon,
            slots: vec![Slot::EMPTY; seeds],
            pivots: vec![f32::NAN; seeds],
            rows: vec![0; seeds],
            most_rows: 0,
            // At most 2^15, so the cast is exact.
            row_limit: (STEPS_BEFORE_FOLD / steps).max(1) as u32,
            folded: Vec::new(),
        }
    }

    pub(crate) fn seeds(&self) -> usize {
        self.slots.len()
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
            if self.most_rows == self.row_limit {
                self.fold();
            }
            let now = rows.min((self.row_limit - self.most_rows) as usize);
            arch.dispatch(Walk {
                chunk: self.chunk,
                columns: self.columns,
                dead_epsilon: self.dead_epsilon,
                slots: &mut self.slots,
                pivots: &mut self.pivots,
                rows: &mut self.rows,
                most_rows: &mut self.most_rows,
                seeds: seeds.clone(),
                x,
                row_stride,
                now,
            });
            rows -= now;
            if rows > 0 {
                x = &x[now * row_stride..];
            }
        }
    }

    /// Moves what the slots hold into `folded` and starts them anew around their means.
    #[cold]
    fn fold(&mut self) {
        if self.folded.is_empty() {
            self.folded = vec![R::NEUTRAL; self.seeds()];
        }
        for seed in 0..self.seeds() {
            let record = self.record(seed);
            self.folded[seed].absorb(&record);
            self.pivots[seed] = self.folded[seed].center().unwrap_or(f32::NAN);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.slots.fill(Slot::EMPTY);
        self.rows.fill(0);
        self.most_rows = 0;
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
        self.pivots.fill(f32::NAN);
        self.clear();
    }

    /// What the seed's slot holds.
    fn record(&self, seed: usize) -> R {
        let rows = u64::from(self.rows[seed]);
        if rows == 0 {
            return R::NEUTRAL;
        }
        let width = self.chunk.min(self.columns - seed * self.chunk);
        R::from_total(&self.slots[seed].total(self.pivots[seed], rows * width as u64))
    }
}

/// One call's work, compiled per instruction set.
struct Walk<'a, const GRADIENT: bool> {
    chunk: usize,
    columns: usize,
    dead_epsilon: f32,
    slots: &'a mut [Slot<GRADIENT>],
    pivots: &'a mut [f32],
    rows: &'a mut [u32],
    most_rows: &'a mut u32,
    seeds: Range<usize>,
    x: &'a [f32],
    row_stride: usize,
    now: usize,
}

impl<const GRADIENT: bool> WithSimd for Walk<'_, GRADIENT> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let first_column = self.seeds.start * self.chunk;
        let Range { start, end } = self.seeds;
        let slots = self.slots[start..end].iter_mut();
        let pivots = self.pivots[start..end].iter_mut();
        let counts = self.rows[start..end].iter_mut();
        for (i, ((slot, pivot), count)) in slots.zip(pivots).zip(counts).enumerate() {
            let offset = i * self.chunk;
            let width = self.chunk.min(self.columns - first_column - offset);
            *count += self.now as u32;
            *self.most_rows = (*self.most_rows).max(*count);
            let mut row = 0;
            while pivot.is_nan() && row < self.now {
                let at = row * self.row_stride + offset;
                open(slot, pivot, &self.x[at..at + width], self.dead_epsilon);
                row += 1;
            }
            // In registers for the remaining rows of this call.
            let mut lanes = *slot;
            while row < self.now {
                let at = row * self.row_stride + offset;
                walk(&mut lanes, *pivot, &self.x[at..at + width], self.dead_epsilon);
                row += 1;
            }
            *slot = lanes;
        }
    }
}

/// A row of a chunk that has no pivot yet.
#[cold]
#[inline(never)]
fn open<const GRADIENT: bool>(
    lanes: &mut Slot<GRADIENT>,
    pivot: &mut f32,
    values: &[f32],
    dead_epsilon: f32,
) {
    match values.iter().find(|x| x.is_finite()) {
        Some(&first) => {
            *pivot = first;
            walk(lanes, first, values, dead_epsilon);
        }
        None => {
            walk(lanes, 0.0, values, dead_epsilon);
            // Nothing finite yet, so the stand-in pivot must not stay as an extremum.
            lanes.low = Slot::<GRADIENT>::EMPTY.low;
            lanes.high = Slot::<GRADIENT>::EMPTY.high;
        }
    }
}
