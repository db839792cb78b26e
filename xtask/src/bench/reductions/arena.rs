//! Memory that calls go round, and how each is timed: one call between two events, on data that are not in the second-level cache.
//!
//! Before each call other data are summed. That clears the cache, and keeps the device busy until events and call are queued, so that no time
//! of the host is measured. `cub_reference.cu` does the same with its own sum.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kasmina_sys::{DeviceBuffer, DeviceSlice, Event, Stream};
use kasmina_telemetry::ReductionOptions;
use kasmina_telemetry::cuda::{Engine, FloatSum, GpuElement, Reducer};
use serde::{Deserialize, Serialize};

use super::super::measure::{Bench, Failure};
use super::super::summary::{Summary, Timing};
use super::super::throttle::Watch;
use super::line::ReductionLine;
use super::reference::Pattern;

/// The least that is summed before each call.
const LEAST_BEFORE: u64 = 256 << 20;
/// What is summed, in sizes of the second-level cache.
const CACHES: u64 = 4;
/// Of the device's free memory, this share may be taken.
const SHARE: u64 = 2;
/// Calls before those that count, at least, and for as long: the host has compared results meanwhile, and the device may have slept.
const WARM_UP: usize = 3;
const AWAKE: Duration = Duration::from_millis(20);
/// Bytes between parts are multiples of this.
const STEP: u64 = 4096;
/// What a copy moves at least and at most: it should be memory's speed. Each half is whole periods of the pattern, so that no byte changes.
const COPIES: (u64, u64) = (2 * Pattern::BYTES as u64, 2 << 30);

/// Bytes of the memory, and of what is summed before each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Of all.
    pub arena: u64,
    /// Summed before each call.
    pub before: u64,
}

impl Sizes {
    /// Those for lines of up to so many bytes on a device with a second-level cache of `l2` and so much free memory.
    #[must_use]
    pub fn new(largest: u64, l2: u64, free: u64) -> Self {
        let before = (CACHES * l2).max(LEAST_BEFORE);
        let sizes = Self { arena: 0, before };
        let most = free / SHARE / Pattern::BYTES as u64 * Pattern::BYTES as u64;
        Self { arena: sizes.needed(largest).min(most).max(sizes.needed(0)), ..sizes }
    }

    /// For a line of so many bytes: that no call finds its data where the sum before it was, wherever the cursor stands.
    /// There is always room for the smallest copy.
    fn needed(&self, bytes: u64) -> u64 {
        let bytes = bytes.max(COPIES.0);
        (self.before + 2 * bytes + 2 * STEP).next_multiple_of(Pattern::BYTES as u64)
    }

    /// Why a line cannot be measured; `None` where it can.
    #[must_use]
    pub fn refuse(&self, line: &ReductionLine) -> Option<String> {
        let needed = self.needed(line.bytes() as u64);
        (needed > self.arena).then(|| {
            let (needed, arena) = (needed >> 20, self.arena >> 20);
            format!(
                "it needs {needed} MiB of memory to go round, and half of what is free are {arena}"
            )
        })
    }
}

/// A device-to-device copy, timed in the same way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyRow {
    /// Bytes that it moves, half of them read.
    pub bytes: u64,
    /// The times.
    pub timing: Timing,
    /// What is shown of them.
    pub summary: Option<Summary>,
}

impl CopyRow {
    /// At the median time; 0 where nothing was timed.
    #[must_use]
    pub fn bytes_per_millisecond(&self) -> f64 {
        self.summary.map_or(0.0, |summary| self.bytes as f64 / summary.median)
    }
}

/// The memory, with what reduces it.
pub(super) struct Arena<'a> {
    watch: &'a Watch,
    stream: Stream,
    engine: Arc<Engine>,
    /// What clears the cache.
    before: Reducer,
    before_sum: DeviceBuffer<FloatSum>,
    memory: DeviceBuffer<u8>,
    sizes: Sizes,
    cursor: u64,
    repetitions: usize,
    pub(super) copies: Vec<CopyRow>,
}

impl<'a> Arena<'a> {
    /// Memory with the pattern over and over.
    pub(super) fn new(bench: &'a Bench, sizes: Sizes, pattern: &Pattern) -> Result<Self, Failure> {
        let stream = bench.clock().stream().clone();
        let engine = Engine::new(stream.context().device())?;
        let mut memory = DeviceBuffer::<u8>::unwritten(&stream, sizes.arena as usize)?;
        let piece = Pattern::BYTES;
        memory.slice_mut(..piece)?.copy_from_host(pattern.bytes())?;
        for at in (piece..sizes.arena as usize).step_by(piece) {
            let (from, mut to) = memory.as_mut_slice().split_at_mut(at)?;
            let length = piece.min(to.len());
            to.slice_mut(..length)?.copy_from_device(from.slice(..length)?, &stream)?;
        }
        Ok(Self {
            watch: bench.clock().watch(),
            before: Reducer::new(&engine, &stream),
            before_sum: DeviceBuffer::unwritten(&stream, 1)?,
            stream,
            engine,
            memory,
            sizes,
            cursor: 0,
            repetitions: bench.clock().repetitions(),
            copies: Vec::new(),
        })
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// One that nothing was said to.
    pub(super) fn reducer(&self) -> Reducer {
        Reducer::new(&self.engine, &self.stream)
    }

    /// The first elements.
    pub(super) fn first<T: GpuElement>(
        &self,
        elements: usize,
    ) -> Result<DeviceSlice<'_, T>, Failure> {
        self.part_at(0, elements)
    }

    fn part_at<T: GpuElement>(
        &self,
        at: u64,
        elements: usize,
    ) -> Result<DeviceSlice<'_, T>, Failure> {
        let address = self.memory.address() + at;
        let end = at + (elements * size_of::<T>()) as u64;
        if end > self.sizes.arena {
            return Err(Failure::text(format!(
                "byte {end} is beyond the {} that there are",
                self.sizes.arena
            )));
        }
        // SAFETY: within the memory, which lives as long as the slice; any bits are a value, and nothing writes but copies of the same values.
        Ok(unsafe { DeviceSlice::from_raw(&self.stream, address, elements) }?)
    }

    /// Where the next bytes are.
    fn part(&mut self, bytes: u64) -> u64 {
        if self.cursor + bytes > self.sizes.arena {
            self.cursor = 0;
        }
        let at = self.cursor;
        self.cursor += bytes.next_multiple_of(STEP);
        at
    }

    /// Times `call`, which is told where its bytes are.
    fn measure(
        &mut self,
        bytes: u64,
        mut call: impl FnMut(&Self, u64) -> Result<(), Failure>,
    ) -> Result<Timing, Failure> {
        let context = self.stream.context().clone();
        let (start, end) = (Event::timed(&context)?, Event::timed(&context)?);
        let mut milliseconds = Vec::with_capacity(self.repetitions);
        let (begun, mut calls) = (Instant::now(), 0);
        while milliseconds.len() < self.repetitions {
            let counts = calls >= WARM_UP && begun.elapsed() >= AWAKE;
            calls += 1;
            let at = self.part(self.sizes.before);
            let elements = (self.sizes.before / 4) as usize;
            let address = self.memory.address() + at;
            // SAFETY: `part` gives what lies within the memory, which is not borrowed meanwhile by anyone who writes.
            let before = unsafe { DeviceSlice::<f32>::from_raw(&self.stream, address, elements) }?;
            let options = ReductionOptions::default();
            self.before.sum_into(before, &options, self.before_sum.as_mut_slice())?;
            let at = self.part(bytes);
            start.record(&self.stream)?;
            call(self, at)?;
            end.record(&self.stream)?;
            if counts && milliseconds.is_empty() {
                // The device is busy, and events and call are queued.
                self.watch.look();
            }
            end.synchronize()?;
            if counts {
                milliseconds.push(f64::from(end.milliseconds_since(&start)?));
            }
        }
        Ok(Timing { milliseconds, launches: 1 })
    }

    /// Times a reduction of so many elements.
    pub(super) fn time<T: GpuElement>(
        &mut self,
        elements: usize,
        mut call: impl FnMut(DeviceSlice<'_, T>) -> Result<(), Failure>,
    ) -> Result<Timing, Failure> {
        let bytes = (elements * size_of::<T>()) as u64;
        self.measure(bytes, |this, at| call(this.part_at(at, elements)?))
    }

    /// Bytes a millisecond of a copy that moves about as many.
    pub(super) fn copy(&mut self, bytes: u64) -> Result<f64, Failure> {
        // In memory that has no room for as many, as many as there is room for.
        let most = (self.sizes.arena - self.sizes.before - 2 * STEP) / 2 / COPIES.0 * COPIES.0;
        let bytes = bytes.clamp(COPIES.0, COPIES.1).next_multiple_of(COPIES.0).min(most);
        if let Some(known) = self.copies.iter().find(|row| row.bytes == bytes) {
            return Ok(known.bytes_per_millisecond());
        }
        let half = bytes / 2;
        let timing = self.measure(bytes, |this, at| {
            let from = this.memory.address() + at;
            // SAFETY: both halves lie within the memory and do not overlap, and nothing else is queued on it. They hold the same values.
            Ok(unsafe { this.stream.copy_raw_on_device(from + half, from, half as usize) }?)
        })?;
        let row = CopyRow { bytes, summary: timing.summary(), timing };
        let rate = row.bytes_per_millisecond();
        self.copies.push(row);
        Ok(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::{Quantity, ReductionLine, Scalar, Shape, Way};
    use super::*;

    const MIB: u64 = 1 << 20;

    fn line(elements: usize) -> ReductionLine {
        let shape = Shape::Flat { elements };
        ReductionLine { quantity: Quantity::Sum, shape, scalar: Scalar::F32, way: Way::Direct }
    }

    #[test]
    fn there_is_room_for_what_is_summed_and_twice_the_largest() {
        let sizes = Sizes::new(4 << 30, 60 * MIB, 140 << 30);
        assert_eq!(sizes.before, 256 * MIB);
        assert!(sizes.arena >= sizes.before + (8 << 30) && sizes.arena < 9 << 30, "{sizes:?}");
        assert_eq!(sizes.arena % Pattern::BYTES as u64, 0);
        assert_eq!(sizes.refuse(&line(1 << 30)), None);
        // A larger cache takes more to be cleared.
        assert_eq!(Sizes::new(4096, 128 * MIB, 64 << 30).before, 512 * MIB);
    }

    #[test]
    fn lines_that_do_not_fit_are_refused_and_the_others_are_not() {
        let sizes = Sizes::new(4 << 30, 40 * MIB, 4 << 30);
        assert_eq!(sizes.arena, 2 << 30);
        let why = sizes.refuse(&line(1 << 30)).expect("4 GiB");
        assert_eq!(
            why,
            "it needs 8480 MiB of memory to go round, and half of what is free are 2048"
        );
        assert_eq!(sizes.refuse(&line(1 << 26)), None);
        // Memory that is too small even for what is summed is asked for all the same: the driver says how much there is.
        let sizes = Sizes::new(4 << 30, 40 * MIB, 100 * MIB);
        assert!(sizes.arena > sizes.before && sizes.refuse(&line(1 << 12)).is_none());
    }
}
