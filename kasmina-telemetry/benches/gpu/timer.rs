//! How every line is timed: one call between two events, on data that are not in the second-level cache.
//!
//! Calls go round an arena of 8 GiB, each on the next part of it. Before each, 256 MiB of other data are summed: that clears the
//! cache, and keeps the device busy until the events and the call are queued, so that no time of the host is measured.

use std::collections::HashMap;

use kasmina_gpu_test::{Failed, Measurement, record};
use kasmina_sys::{Device, DeviceBuffer, DeviceSlice, Event, Stream};
use kasmina_telemetry::ReductionOptions;
use kasmina_telemetry::cuda::{Engine, Flat, FloatSum, GpuElement, Launch, Reducer, TunedLaunch};

const ARENA: usize = 8 << 30;
/// Bytes summed before each call.
const BEFORE: usize = 256 << 20;
const WARM_UP: usize = 3;
const REPEATS: usize = 31;
/// Bytes between parts of the arena are multiples of this.
const STEP: usize = 4096;

pub(crate) struct Bench {
    device: Device,
    stream: Stream,
    reducer: Reducer,
    /// What clears the cache, with a launch of its own.
    before: Reducer,
    before_sum: DeviceBuffer<FloatSum>,
    arena: DeviceBuffer<u8>,
    cursor: usize,
    /// TB/s of the copy, by bytes.
    copies: HashMap<usize, f64>,
}

impl Bench {
    pub(crate) fn new(device: Device) -> Result<Self, Failed> {
        let engine = Engine::new(device)?;
        let stream = Stream::new(engine.context())?;
        let mut arena = DeviceBuffer::<u8>::unwritten(&stream, ARENA)?;
        // The same 32 MiB over and over: values between 1 and 2 as f32, f64 and bf16.
        let mut state = 1_u32;
        let pattern: Vec<u8> = (0..8 << 20)
            .flat_map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (0x3f80_3f80 | state >> 9 & 0x007f_007f).to_le_bytes()
            })
            .collect();
        arena.slice_mut(..pattern.len())?.copy_from_host(&pattern)?;
        for at in (pattern.len()..ARENA).step_by(pattern.len()) {
            let (from, to) = arena.as_mut_slice().split_at_mut(at)?;
            let mut to = to;
            to.slice_mut(..pattern.len())?
                .copy_from_device(from.slice(..pattern.len())?, &stream)?;
        }
        Ok(Self {
            device,
            reducer: Reducer::new(&engine, &stream),
            before: Reducer::new(&engine, &stream),
            before_sum: DeviceBuffer::unwritten(&stream, 1)?,
            stream,
            arena,
            cursor: 0,
            copies: HashMap::new(),
        })
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn launch(&mut self, launch: Launch) -> Result<(), Failed> {
        Ok(self.reducer.set_launch(launch)?)
    }

    /// Measures how `n` elements are reduced best.
    pub(crate) fn tune<T: GpuElement>(
        &mut self,
        what: Flat,
        n: usize,
    ) -> Result<TunedLaunch, Failed> {
        // SAFETY: within the arena; any bits are a value.
        let x = unsafe { DeviceSlice::<T>::from_raw(&self.stream, self.arena.address(), n) }?;
        Ok(self.reducer.tune(what, x)?)
    }

    /// A value that some elements are above and some not.
    pub(crate) fn threshold<T: GpuElement>(&self) -> T::Value {
        let bytes = [0xa0, 0x3f].repeat(size_of::<T>() / 2);
        bytemuck::pod_read_unaligned::<T>(&bytes).value()
    }

    /// The next `bytes` of the arena.
    fn part(&mut self, bytes: usize) -> usize {
        if self.cursor + bytes > ARENA {
            self.cursor = 0;
        }
        let at = self.cursor;
        self.cursor += bytes.next_multiple_of(STEP);
        at
    }

    /// Microseconds of each of `REPEATS` calls.
    fn measure(
        &mut self,
        bytes: usize,
        mut call: impl FnMut(&mut Self, usize) -> Result<(), Failed>,
    ) -> Result<Vec<f64>, Failed> {
        let (start, end) =
            (Event::timed(self.stream.context())?, Event::timed(self.stream.context())?);
        let mut values = Vec::with_capacity(REPEATS);
        for i in 0..WARM_UP + REPEATS {
            let at = self.part(BEFORE);
            // SAFETY: within the arena, which nothing writes but copies of the same values.
            let before = unsafe {
                DeviceSlice::<f32>::from_raw(
                    &self.stream,
                    self.arena.address() + at as u64,
                    BEFORE / 4,
                )
            }?;
            self.before.sum_into(
                before,
                &ReductionOptions::default(),
                self.before_sum.as_mut_slice(),
            )?;
            let at = self.part(bytes);
            start.record(&self.stream)?;
            call(self, at)?;
            end.record(&self.stream)?;
            end.synchronize()?;
            if i >= WARM_UP {
                values.push(f64::from(end.milliseconds_since(&start)?) * 1e3);
            }
        }
        Ok(values)
    }

    /// TB/s of a copy that moves `bytes`, half of them read; at least 64 MiB, so that it is memory's speed.
    fn copy(&mut self, bytes: usize) -> Result<f64, Failed> {
        let bytes = bytes.clamp(64 << 20, 2 << 30);
        if let Some(&known) = self.copies.get(&bytes) {
            return Ok(known);
        }
        let values = self.measure(bytes, |this, at| {
            let half = bytes / 2;
            let address = this.arena.address() + at as u64;
            // SAFETY: both halves lie within the arena and hold the same values.
            Ok(unsafe { this.stream.copy_raw_on_device(address + half as u64, address, half) }?)
        })?;
        let rate = bytes as f64 / median(&values) / 1e6;
        record(
            self.device,
            &Measurement { name: &format!("copy moving {bytes} B"), unit: "us", values: &values },
        )?;
        println!("    {rate:.3} TB/s");
        self.copies.insert(bytes, rate);
        Ok(rate)
    }

    /// Times `call` on `n` elements and prints a line.
    pub(crate) fn time<T: GpuElement>(
        &mut self,
        name: &str,
        n: usize,
        mut call: impl FnMut(&mut Reducer, DeviceSlice<'_, T>) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let bytes = n * size_of::<T>();
        let copy = self.copy(bytes)?;
        let values = self.measure(bytes, |this, at| {
            // SAFETY: within the arena; any bits are a value.
            let x = unsafe {
                DeviceSlice::<T>::from_raw(&this.stream, this.arena.address() + at as u64, n)
            }?;
            call(&mut this.reducer, x)
        })?;
        let rate = bytes as f64 / median(&values) / 1e6;
        record(self.device, &Measurement { name, unit: "us", values: &values })?;
        println!("    {rate:.3} TB/s, {:.1} % of the copy", 100.0 * rate / copy);
        Ok(())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
