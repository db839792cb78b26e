//! Running candidates on the device: on memory, programs and counters of their own, so that nothing of a caller's layer is
//! read, added to or counted. Every run finds its matrices outside of the second-level cache.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use half::{bf16, f16};
use kasmina_sys::{DeviceBuffer, DeviceSlice, Event, Stream};
use kasmina_telemetry::tune::{Failure, Runner, search};

use super::candidates::{Resources, candidates};
use super::choice::{Candidate, Choice};
use super::key::{Key, Pass, Work};
use super::room::{Room, in_a_row};
use super::variant::Variant;
use crate::cuda::engine::Engine;
use crate::cuda::error::CudaError;
use crate::cuda::forward::Forward;
use crate::cuda::geometry::Geometry;
use crate::cuda::job::{BackwardViews, View};
use crate::cuda::matrix::DeviceMatRef;
use crate::cuda::params::{COMPUTE, NEEDS_X, RawBounds, SUM_G, SUM_GX};
use crate::cuda::streams::Streams;
use crate::cuda::variants::Counting;
use crate::{DType, Element, SeedLayout};
use kasmina_tma::LoadPath;

/// Values of the pattern that inputs repeat: a prime number, so that no two rows of a usual length are equal.
const PATTERN: usize = 262_139;
/// Bytes that outputs hold before a run that is compared: an element that is not written is seen.
const POISON: u8 = 0xA5;
/// Bytes that are compared at a time.
const BLOCK: usize = 32 << 20;
/// Runs of a candidate before it is timed: its memory is made in the first.
const WARM: usize = 2;

/// Measures what `key` may run with on a matrix of `rows` rows.
///
/// # Errors
/// The reason, where nothing could be measured.
pub(super) fn measure(
    engine: &Arc<Engine>,
    key: &Key,
    rows: u32,
    layout: SeedLayout,
    paths: &[LoadPath],
) -> Result<Choice, String> {
    match key.dtype {
        DType::F32 => measure_as::<f32>(engine, key, rows, layout, paths),
        DType::F16 => measure_as::<f16>(engine, key, rows, layout, paths),
        DType::Bf16 => measure_as::<bf16>(engine, key, rows, layout, paths),
    }
}

fn measure_as<T: Element + kasmina_sys::DeviceCopy>(
    engine: &Arc<Engine>,
    key: &Key,
    rows: u32,
    layout: SeedLayout,
    paths: &[LoadPath],
) -> Result<Choice, String> {
    let resources = |variant: &Variant| resources(engine, variant).ok();
    let all = candidates(key, rows, layout, engine.machine(1), paths, resources);
    if all.is_empty() {
        return Err("no kernel fits the device".to_owned());
    }
    // A clock that is set before 1970 makes all choices equally old.
    let when = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let told = |error: kasmina_sys::Error| error.to_string();
    let (free, _) = engine.context().memory_info().map_err(told)?;
    let cache = engine.context().device().info().map_err(told)?.l2_cache;
    let room = Room::new(key, rows, layout, free, cache.into())?;
    let outcome = Bench::<T>::new(engine, key, rows, layout, room)
        .map_err(|error| error.to_string())
        .and_then(|mut bench| {
            let outcome = search(&all, &mut bench, when);
            // The frees are queued behind what runs.
            let _ = bench.stream.synchronize();
            outcome
        });
    // What was freed stays with the pool, where other libraries of the process cannot have it.
    let _ = engine.context().synchronize();
    let _ = engine.context().trim_pool(0);
    outcome
}

pub(super) fn resources(engine: &Engine, variant: &Variant) -> Result<Resources, CudaError> {
    let attributes = engine.attributes(&variant.image(), &variant.name())?;
    Ok(Resources {
        registers: attributes.registers,
        shared_bytes: attributes.static_shared_bytes,
        max_threads: attributes.max_threads,
    })
}

/// Slots of memory, one matrix each, that are gone round.
struct Arena(DeviceBuffer<u8>);

struct Bench<T> {
    key: Key,
    streams: Streams,
    stream: Stream,
    rows: u32,
    pitch: u64,
    /// From an arena's start, and from one slot to the next.
    offset: u64,
    slot_bytes: u64,
    slots: u64,
    next: u64,
    in_a_row: u32,
    /// Inputs: x and, backward, dL/dy.
    inputs: Vec<Arena>,
    /// y or dL/dx; in place, the matrix itself.
    output: Arena,
    /// The reference's output.
    expected: DeviceBuffer<u8>,
    start: Event,
    end: Event,
    element: std::marker::PhantomData<T>,
}

/// What is compared beside the output's bits.
struct Measured {
    /// Counts and extremes, which are exact.
    exact: Vec<[u64; 5]>,
    /// Sums of columns, which are rounded in the order of the cut.
    sums: Vec<f64>,
}

impl<T: Element + kasmina_sys::DeviceCopy> Bench<T> {
    fn new(
        engine: &Arc<Engine>,
        key: &Key,
        rows: u32,
        layout: SeedLayout,
        room: Room,
    ) -> Result<Self, CudaError> {
        let stream = Stream::new(engine.context())?;
        let Room { pitch, offset, slot_bytes, slots, count } = room;
        let bytes = (slot_bytes * slots) as usize;
        let values: Vec<T> = (0..PATTERN as u64)
            .map(|i| T::from_f32((i.wrapping_mul(2_654_435_761) % 1999) as f32 / 333.0 - 3.0))
            .collect();
        let inputs = (1..count)
            .map(|_| Ok(Arena(patterned(&stream, &values, bytes)?)))
            .collect::<Result<Vec<_>, CudaError>>()?;
        let output = match key.pass {
            // The values come back smaller with each run, never NaN, and never denormal: there is a bias.
            Pass::InPlace => Arena(patterned(&stream, &values, bytes)?),
            _ => Arena(DeviceBuffer::zeroed(&stream, bytes)?),
        };
        let mut streams = Streams::new(engine, &stream, layout)?;
        let flag = match (key.pass, key.work) {
            (_, Work::Copy) => 0,
            (Pass::Forward | Pass::InPlace, _) => COMPUTE,
            (Pass::Backward | Pass::Reconstruct, Work::Compute) => COMPUTE | SUM_G,
            (Pass::Backward | Pass::Reconstruct, Work::ReadX) => COMPUTE | SUM_G | SUM_GX | NEEDS_X,
        };
        let columns = &mut streams.columns;
        columns.host_flags.fill(flag);
        columns.flags.copy_from_host(&columns.host_flags)?;
        columns.programs.copy_from_host(&vec![[0.75, 0.5, 0.015_625, 1.0]; layout.hidden()])?;
        columns.generation += 1;
        // Guards need x.
        let guarded = key.pass != Pass::Backward || key.work == Work::ReadX;
        let bounds = RawBounds {
            guarded: u32::from(guarded && key.work != Work::Copy),
            epsilon: 1e-8,
            lower: -1e6,
            upper: 1e6,
        };
        columns.bounds.copy_from_host(&[bounds])?;
        Ok(Self {
            key: *key,
            streams,
            rows,
            pitch,
            offset,
            slot_bytes,
            slots,
            next: 0,
            in_a_row: in_a_row(slot_bytes * count),
            inputs,
            output,
            expected: DeviceBuffer::zeroed(&stream, slot_bytes as usize)?,
            start: Event::timed(engine.context())?,
            end: Event::timed(engine.context())?,
            stream,
            element: std::marker::PhantomData,
        })
    }

    fn view(&self, arena: &Arena, slot: u64) -> View {
        View {
            address: arena.0.address() + slot * self.slot_bytes + self.offset,
            pitch: self.pitch,
            rows: self.rows,
            columns: self.streams.columns.layout.hidden() as u32,
        }
    }

    fn launch(&mut self, candidate: &Candidate, slot: u64) -> Result<Geometry, CudaError> {
        let output = self.view(&self.output, slot);
        let x = match self.key.pass {
            Pass::InPlace => output,
            _ => self.view(&self.inputs[0], slot),
        };
        let variant = Variant::of(&self.key, candidate.path);
        match variant {
            Variant::Forward(variant) => {
                let stream = self.stream.clone();
                let matrix = |view: View| -> Result<DeviceMatRef<'_, T>, CudaError> {
                    let (rows, columns) = (view.rows as usize, view.columns as usize);
                    let stride = view.pitch as usize / size_of::<T>();
                    let len = (rows - 1) * stride + columns;
                    // SAFETY: a slot has room for that many elements from this address, and its arena outlives the run, which
                    // is on the arena's own stream.
                    let data = unsafe { DeviceSlice::from_raw(&stream, view.address, len) }?;
                    Ok(DeviceMatRef::new(data, rows, columns, stride)?)
                };
                let in_place = self.key.pass == Pass::InPlace;
                let measured = self.key.counting != Counting::Off;
                let options = Forward { measured, dead_epsilon: 1e-8, path: None };
                let (x, y) = (matrix(x)?, matrix(output)?);
                self.streams.launch(variant, candidate.tuning, x, y, in_place, &options)
            }
            Variant::Backward(variant) => {
                let grad_y = self.view(&self.inputs[1], slot);
                let views = BackwardViews { x, gradients: Some((grad_y, output)) };
                self.streams.launch_back(variant, candidate.tuning, &views, &[x, grad_y, output])
            }
        }
    }

    /// One run, and all that it left.
    fn results(&mut self, candidate: &Candidate) -> Result<Measured, CudaError> {
        let slot_bytes = self.slot_bytes as usize;
        // The first run makes the sums' memory, the second begins with zeros where nothing is written.
        let geometry = self.launch(candidate, 0)?;
        if let Some(sums) = self.streams.backward.sums_mut() {
            sums.fill_zero(&self.stream)?;
        }
        self.streams.clear_stats()?;
        match self.key.pass {
            Pass::InPlace => {
                let from = self.inputs[0].0.slice(..slot_bytes)?;
                self.output.0.slice_mut(..slot_bytes)?.copy_from_device(from, &self.stream)?;
            }
            _ => {
                let output = self.output.0.address();
                // SAFETY: the arena has at least one slot.
                unsafe { self.stream.fill_raw(output, POISON, slot_bytes) }?;
            }
        }
        self.launch(candidate, 0)?;
        let mut exact = Vec::new();
        let bits = |value: f32| u64::from(value.to_bits());
        if self.key.counting != Counting::Off {
            match self.key.pass {
                Pass::Backward => exact.extend(
                    self.streams
                        .gradient_stats()?
                        .iter()
                        .map(|s| [s.n, s.nonfinite, bits(s.max_abs), 0, 0]),
                ),
                _ => exact.extend(
                    self.streams
                        .stats()?
                        .iter()
                        .map(|s| [s.n, s.nonfinite, s.dead, bits(s.min), bits(s.max)]),
                ),
            }
        }
        let mut sums = Vec::new();
        if let (Some(memory), true) =
            (self.streams.backward.sums_mut(), self.key.work != Work::Copy)
        {
            let columns = geometry.columns as usize;
            let parts = memory.slice(..columns * geometry.groups as usize)?.to_vec()?;
            let width = parts.first().map_or(0, |part| part.len());
            sums = vec![0.0; columns * width];
            for (i, part) in parts.iter().enumerate() {
                for (j, value) in part.iter().enumerate() {
                    sums[i % columns * width + j] += value;
                }
            }
        }
        Ok(Measured { exact, sums })
    }

    fn compare(
        &mut self,
        candidate: &Candidate,
        reference: &Candidate,
    ) -> Result<Option<String>, CudaError> {
        let slot_bytes = self.slot_bytes as usize;
        let right = self.results(reference)?;
        self.expected.copy_from_device(self.output.0.slice(..slot_bytes)?, &self.stream)?;
        let found = self.results(candidate)?;
        // The copies below are on the buffers' own stream, which is this one.
        for first in (0..slot_bytes).step_by(BLOCK) {
            let range = first..(first + BLOCK).min(slot_bytes);
            let (a, b) = (
                self.expected.slice(range.clone())?.to_vec()?,
                self.output.0.slice(range)?.to_vec()?,
            );
            if let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) {
                return Ok(Some(format!("byte {} of its output is wrong", first + at)));
            }
        }
        if right.exact != found.exact {
            return Ok(Some("its statistics are wrong".to_owned()));
        }
        let close = |(a, b): (&f64, &f64)| {
            (a - b).abs() <= 1e-5 * (a.abs() + b.abs() + f64::from(self.rows))
        };
        if right.sums.len() != found.sums.len() || !right.sums.iter().zip(&found.sums).all(close) {
            return Ok(Some("its column sums are wrong".to_owned()));
        }
        Ok(None)
    }

    /// Milliseconds of one of several launches in a row: of a single one, most of what a clock sees of a small matrix is the
    /// host on its way to the launch.
    fn time_one(&mut self, candidate: &Candidate) -> Result<f64, CudaError> {
        self.start.record(&self.stream)?;
        for _ in 0..self.in_a_row {
            let slot = self.next % self.slots;
            self.next += 1;
            self.launch(candidate, slot)?;
        }
        self.end.record(&self.stream)?;
        self.end.synchronize()?;
        let all = f64::from(self.end.milliseconds_since(&self.start)?);
        Ok(all / f64::from(self.in_a_row))
    }
}

impl<T: Element + kasmina_sys::DeviceCopy> Runner<Candidate> for Bench<T> {
    fn time(&mut self, candidate: &Candidate, runs: usize) -> Result<Vec<f64>, Failure> {
        for _ in 0..WARM {
            self.time_one(candidate).map_err(failure)?;
        }
        (0..runs).map(|_| self.time_one(candidate).map_err(failure)).collect()
    }

    fn verify(&mut self, candidate: &Candidate, reference: &Candidate) -> Result<(), Failure> {
        match self.compare(candidate, reference).map_err(failure)? {
            None => Ok(()),
            Some(wrong) => Err(Failure::of_candidate(wrong)),
        }
    }
}

fn failure(error: CudaError) -> Failure {
    Failure { fatal: error.is_sticky(), reason: error.to_string() }
}

/// `values` over and over.
fn patterned<T: Element>(
    stream: &Stream,
    values: &[T],
    bytes: usize,
) -> Result<DeviceBuffer<u8>, CudaError> {
    let pattern: &[u8] = bytemuck::cast_slice(values);
    let mut buffer = DeviceBuffer::<u8>::zeroed(stream, bytes)?;
    let mut done = pattern.len().min(bytes);
    buffer.slice_mut(..done)?.copy_from_host(&pattern[..done])?;
    while done < bytes {
        let more = done.min(bytes - done);
        let (from, to) = (buffer.address(), buffer.address() + done as u64);
        // SAFETY: both ranges lie in the buffer and do not overlap: `more` is at most `done`, and at most what is left.
        unsafe { stream.copy_raw_on_device(to, from, more) }?;
        done += more;
    }
    Ok(buffer)
}
