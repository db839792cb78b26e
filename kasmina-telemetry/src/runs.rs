//! Where segments lie in a slice, and how what is sought of each is shared out among threads.

use std::ops::Range;

use parking_lot::Mutex;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::error::nonzero;
use crate::fold::{Quantity, SHORT};
use crate::lanes::LANES;
use crate::reduce::Run;
use crate::strategy::{PIECE, tree};
use crate::{Element, ReductionStrategy, TelemetryError};

/// Empty segments cost time too: as much as so many elements.
const SEGMENT_COST: usize = 16;

/// Segments of a slice, one behind the other.
pub(crate) trait Segments: Sync {
    /// How many there are.
    fn count(&self) -> usize;
    /// Where in the slice one lies.
    fn range(&self, segment: usize) -> Range<usize>;
    /// The length of those from one on, up to another, where they are all as long.
    fn common_length(&self, segments: Range<usize>) -> Option<usize>;
    /// Consecutive segments that make up about a piece together; a larger one stands alone.
    fn batches(&self) -> Vec<Range<usize>>;

    /// `quantity` of each segment, as `result` makes it.
    fn find<T: Element, Q: Quantity<T>, R: Send>(
        &self,
        x: &[T],
        quantity: Q,
        strategy: ReductionStrategy,
        result: impl Fn(Q::Found) -> R + Sync,
    ) -> Vec<R>
    where
        Self: Sized,
    {
        let arch = Arch::new();
        let count = self.count();
        let mut out = Vec::with_capacity(count);
        let mut rest = &mut out.spare_capacity_mut()[..count];
        let mut tasks = Vec::new();
        for batch in self.batches() {
            let (own, others) = rest.split_at_mut(batch.len());
            rest = others;
            tasks.push((batch, own));
        }
        debug_assert!(rest.is_empty(), "the batches have every segment");
        let all = |(batch, own): (Range<usize>, &mut [std::mem::MaybeUninit<R>])| {
            let first = self.range(batch.start);
            match own {
                [one] if first.len() > PIECE && strategy != ReductionStrategy::Direct => {
                    one.write(result(large(&x[first], quantity, strategy)));
                }
                _ => {
                    let place = |i: usize, found| {
                        own[i - batch.start].write(result(found));
                    };
                    arch.dispatch(Batch {
                        segments: self,
                        x,
                        batch: batch.clone(),
                        quantity,
                        place,
                    });
                }
            }
        };
        if tasks.len() < 2 {
            tasks.into_iter().for_each(all);
        } else {
            tasks.into_par_iter().for_each(all);
        }
        // SAFETY: the batches have each of the `count` segments once, and of each its result was written.
        unsafe { out.set_len(count) };
        out
    }
}

/// What is found of a segment of several pieces, which threads share.
fn large<T: Element, Q: Quantity<T>>(
    x: &[T],
    quantity: Q,
    strategy: ReductionStrategy,
) -> Q::Found {
    let arch = Arch::new();
    let parts = x.par_chunks(PIECE).map(|run| arch.dispatch(Run { quantity, run }));
    if strategy == ReductionStrategy::Atomic {
        let cell = Mutex::new(Q::nothing());
        parts.for_each(|part| Q::merge(&mut cell.lock(), &part));
        return cell.into_inner();
    }
    tree(parts.collect(), |left, right| Q::merge(left, right)).unwrap_or_else(Q::nothing)
}

/// A batch of segments by one worker, compiled per instruction set.
struct Batch<'a, S, T, Q, F> {
    segments: &'a S,
    x: &'a [T],
    batch: Range<usize>,
    quantity: Q,
    place: F,
}

impl<S, T, Q, F> WithSimd for Batch<'_, S, T, Q, F>
where
    S: Segments,
    T: Element,
    Q: Quantity<T>,
    F: FnMut(usize, Q::Found),
{
    type Output = ();

    #[inline(always)]
    fn with_simd<I: Simd>(self, _: I) {
        let Self { segments, x, batch, quantity, mut place } = self;
        let mut at = batch.start;
        while at < batch.end {
            let group = at..(at + LANES).min(batch.end);
            let together = segments.common_length(group.clone()).filter(|&len| len <= SHORT);
            match together {
                Some(len) if group.len() == LANES => {
                    let start = segments.range(at).start;
                    let runs = &x[start..start + LANES * len];
                    quantity.side_by_side(runs, len, |l, found| place(at + l, found));
                }
                _ => {
                    // No closure: it would be a function of its own, without the instruction set.
                    for i in group.clone() {
                        place(i, quantity.of(&x[segments.range(i)]));
                    }
                }
            }
            at = group.end;
        }
    }
}

/// Segments of one length, the last of which may be shorter.
pub(crate) struct Equal {
    elements: usize,
    segment: usize,
}

impl Equal {
    pub(crate) fn new(elements: usize, segment: usize) -> Result<Self, TelemetryError> {
        Ok(Self { elements, segment: nonzero("segment", segment)? })
    }
}

impl Segments for Equal {
    fn count(&self) -> usize {
        self.elements.div_ceil(self.segment)
    }

    #[inline(always)]
    fn range(&self, i: usize) -> Range<usize> {
        let start = i * self.segment;
        start..start + self.segment.min(self.elements - start)
    }

    #[inline(always)]
    fn common_length(&self, segments: Range<usize>) -> Option<usize> {
        // Without the last one if that is shorter. At most a segment more than there are elements, so this does not overflow.
        (segments.end * self.segment <= self.elements).then_some(self.segment)
    }

    fn batches(&self) -> Vec<Range<usize>> {
        let count = self.count();
        let together = (PIECE / self.segment.saturating_add(SEGMENT_COST)).max(1);
        // Whole groups of lanes, where there are some.
        let together = if together > LANES { together / LANES * LANES } else { together };
        (0..count).step_by(together).map(|first| first..count.min(first + together)).collect()
    }
}

/// Segments between offsets that were checked: they never decrease, and stay in the slice.
pub(crate) struct Offsets<'a>(&'a [usize]);

impl<'a> Offsets<'a> {
    pub(crate) fn new(elements: usize, offsets: &'a [usize]) -> Result<Self, TelemetryError> {
        if offsets.is_empty() {
            return Err(TelemetryError::WrongLength { what: "offsets", actual: 0, expected: 1 });
        }
        let mut low = 0;
        for (index, &value) in offsets.iter().enumerate() {
            if value < low || value > elements {
                return Err(TelemetryError::BadOffset { index, value, low, high: elements });
            }
            low = value;
        }
        Ok(Self(offsets))
    }
}

impl Segments for Offsets<'_> {
    fn count(&self) -> usize {
        self.0.len() - 1
    }

    #[inline(always)]
    fn range(&self, i: usize) -> Range<usize> {
        self.0[i]..self.0[i + 1]
    }

    #[inline(always)]
    fn common_length(&self, segments: Range<usize>) -> Option<usize> {
        let ends = &self.0[segments.start..=segments.end];
        let len = ends[1] - ends[0];
        ends.windows(2).all(|ends| ends[1] - ends[0] == len).then_some(len)
    }

    fn batches(&self) -> Vec<Range<usize>> {
        let mut batches = Vec::new();
        let (mut start, mut elements) = (0, 0_usize);
        for i in 0..self.count() {
            let cost = self.range(i).len().saturating_add(SEGMENT_COST);
            if i > start && elements.saturating_add(cost) > PIECE {
                batches.push(start..i);
                (start, elements) = (i, 0);
            }
            elements = elements.saturating_add(cost);
        }
        if start < self.count() {
            batches.push(start..self.count());
        }
        batches
    }
}
