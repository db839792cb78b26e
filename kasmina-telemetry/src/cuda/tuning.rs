//! Measuring launches on the device: on memory of its own that is gone round, so that no run finds its data in the second-level cache.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kasmina_sys::{Device, DeviceBuffer, DeviceInfo, DeviceSlice, Event, Stream};

use super::KERNELS;
use super::cut::{PACKET, PieceCut};
use super::element::GpuElement;
use super::engine::Engine;
use super::error::CudaError;
use super::launch::{Launch, LaunchKey};
use super::params::Settings;
use super::quantity::Flat;
use super::reducer::{Reducer, Start};
use crate::ReductionOptions;
use crate::tune::{
    Asked, Candidate, Choice, Decision, Failure, Identity, Runner, TuningSource, WhyTable, cache,
    search,
};

/// What is gone round, in sizes of the second-level cache.
const CACHES: u64 = 2;
/// The share of the free memory that may be taken.
const SHARE: u64 = 4;
/// Bytes that are reduced between two events: a quarter of a millisecond at 4 TB/s, so that the host's way to a launch is not what is
/// measured.
const IN_A_ROW: u64 = 1 << 30;
/// Runs of a candidate before it is timed.
const WARM: usize = 2;
/// Words of the largest result.
const WORDS: usize = 11;

/// How a flat reduction is launched, and why so.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedLaunch {
    /// The launch.
    pub launch: Launch,
    /// Where it comes from, and what was measured.
    pub source: TuningSource,
    /// Every launch that failed when it was measured just now, with the reason.
    pub failed: Vec<String>,
}

impl Reducer {
    /// Measures how a flat reduction of data like `x` is launched best, whatever the mode of autotuning is, keeps it and launches so
    /// from now on. Waits, for milliseconds. Nothing of `x` is read.
    ///
    /// # Errors
    /// [`CudaError::WaitsWhileCaptured`], [`CudaError::Misaligned`], or the driver refused. Where nothing could be measured the launch is the
    /// default's, and the source says why.
    pub fn tune<T: GpuElement>(
        &mut self,
        what: Flat,
        x: DeviceSlice<'_, T>,
    ) -> Result<TunedLaunch, CudaError> {
        self.may_wait()?;
        let start = super::reducer::start_of("x", &x)?;
        let key = LaunchKey::new(what, T::NAME, x.len() as u64, start.lead);
        let (decision, choice) = tune::<T>(&self.engine, &key, x.len() as u64);
        let trials = choice.map_or_else(Vec::new, |choice| choice.trials);
        let failed = trials
            .iter()
            .filter_map(|trial| Some(format!("{}: {}", trial.candidate, trial.failed.as_deref()?)))
            .collect();
        let Decision { candidate, source } = decision;
        Ok(TunedLaunch { launch: candidate.unwrap_or_default(), source, failed })
    }

    /// How a flat reduction is launched: as the caller said, else as was measured, else by default. Measures where that is the mode.
    pub(super) fn launch_of<T: GpuElement>(
        &self,
        what: Flat,
        elements: u64,
        start: Start,
    ) -> Launch {
        if let Some(launch) = self.launch {
            return launch;
        }
        let key = LaunchKey::new(what, T::NAME, elements, start.lead);
        let identity = || self.engine.identity(T::FLAT);
        let decision = match self.engine.tuner().ask(&key, identity, |_| Ok(())) {
            Asked::Decided(decision) => decision,
            // Nothing can be waited for then. Another run may measure it.
            Asked::Measure if self.stream.is_capturing().unwrap_or(true) => {
                return Launch::default();
            }
            Asked::Measure => tune::<T>(&self.engine, &key, elements).0,
        };
        decision.candidate.unwrap_or_default()
    }

    /// How a flat reduction of data like `x` is launched, and why so. Measures nothing.
    ///
    /// # Errors
    /// [`CudaError::Misaligned`].
    pub fn launch_for<T: GpuElement>(
        &self,
        what: Flat,
        x: DeviceSlice<'_, T>,
    ) -> Result<TunedLaunch, CudaError> {
        let start = super::reducer::start_of("x", &x)?;
        let failed = Vec::new();
        if let Some(launch) = self.launch {
            return Ok(TunedLaunch { launch, source: TuningSource::Forced, failed });
        }
        let key = LaunchKey::new(what, T::NAME, x.len() as u64, start.lead);
        let identity = || self.engine.identity(T::FLAT);
        Ok(match self.engine.tuner().ask(&key, identity, |_| Ok(())) {
            Asked::Decided(Decision { candidate, source }) => {
                TunedLaunch { launch: candidate.unwrap_or_default(), source, failed }
            }
            Asked::Measure => {
                let source = TuningSource::Table { because: WhyTable::NotMeasured };
                TunedLaunch { launch: Launch::default(), source, failed }
            }
        })
    }
}

/// Measures and keeps.
fn tune<T: GpuElement>(
    engine: &Arc<Engine>,
    key: &LaunchKey,
    elements: u64,
) -> (Decision<Launch>, Option<Choice<Launch>>) {
    let outcome = measure::<T>(engine, key, elements);
    let identity = engine.identity(T::FLAT);
    let kept = engine.tuner().keep(key, identity, outcome.as_ref().map_err(Clone::clone));
    (kept, outcome.ok())
}

fn measure<T: GpuElement>(
    engine: &Arc<Engine>,
    key: &LaunchKey,
    elements: u64,
) -> Result<Choice<Launch>, String> {
    let element = size_of::<T>() as u64;
    let pieces = PieceCut::flat((key.lead + elements).div_ceil(PACKET / element)).pieces;
    let all = Launch::candidates(key.what, pieces, engine.info().multiprocessors);
    // A clock that is set before 1970 makes all choices equally old.
    let when = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let outcome = Bench::<T>::new(engine, key, elements)
        .map(|mut bench| {
            let outcome = search(&all, &mut bench, when);
            // The frees are queued behind what runs.
            let _ = bench.stream.synchronize();
            outcome
        })
        .map_err(|error| error.to_string())?;
    // What was freed stays with the pool, where other libraries of the process cannot have it.
    let _ = engine.context().synchronize();
    let _ = engine.context().trim_pool(0);
    outcome
}

struct Bench<T> {
    what: Flat,
    reducer: Reducer,
    stream: Stream,
    arena: DeviceBuffer<u8>,
    out: DeviceBuffer<[u64; WORDS]>,
    elements: u64,
    /// Bytes from a slot's start.
    past: u64,
    slot_bytes: u64,
    slots: u64,
    next: u64,
    in_a_row: u64,
    start: Event,
    end: Event,
    element: std::marker::PhantomData<T>,
}

impl<T: GpuElement> Bench<T> {
    fn new(engine: &Arc<Engine>, key: &LaunchKey, elements: u64) -> Result<Self, CudaError> {
        let context = engine.context();
        let stream = Stream::new(context)?;
        let past = key.lead * size_of::<T>() as u64;
        let bytes = elements * size_of::<T>() as u64;
        let slot_bytes = (past + bytes).next_multiple_of(256).max(256);
        let (free, _) = context.memory_info()?;
        let most = free / SHARE / slot_bytes;
        if most == 0 {
            return Err(CudaError::NoRoom { needed: slot_bytes, allowed: free / SHARE });
        }
        let wanted = (u64::from(engine.info().l2_cache) * CACHES).div_ceil(slot_bytes) + 1;
        let slots = wanted.min(most);
        Ok(Self {
            what: key.what,
            reducer: Reducer::new(engine, &stream),
            arena: patterned(&stream, (slot_bytes * slots) as usize)?,
            out: DeviceBuffer::zeroed(&stream, 1)?,
            elements,
            past,
            slot_bytes,
            slots,
            next: 0,
            in_a_row: (IN_A_ROW / bytes.max(1)).clamp(2, 32),
            start: Event::timed(context)?,
            end: Event::timed(context)?,
            stream,
            element: std::marker::PhantomData,
        })
    }

    fn launch(&mut self, launch: Launch, slot: u64) -> Result<(), CudaError> {
        self.reducer.set_launch(launch)?;
        let stream = self.stream.clone();
        let address = self.arena.address() + slot * self.slot_bytes + self.past;
        // SAFETY: a slot has room for that many elements from this address, of which any bits are a value, and the arena outlives the run, which is on its
        // own stream.
        let x = unsafe { DeviceSlice::<T>::from_raw(&stream, address, self.elements as usize) }?;
        let options = ReductionOptions::default();
        let settings = Settings::new(&options);
        self.reducer.flat(x, self.out.as_mut_slice(), self.what, &options, settings)
    }

    /// Milliseconds of one of several launches in a row.
    fn time_one(&mut self, launch: Launch) -> Result<f64, CudaError> {
        self.start.record(&self.stream)?;
        for _ in 0..self.in_a_row {
            let slot = self.next % self.slots;
            self.next += 1;
            self.launch(launch, slot)?;
        }
        self.end.record(&self.stream)?;
        self.end.synchronize()?;
        Ok(f64::from(self.end.milliseconds_since(&self.start)?) / self.in_a_row as f64)
    }

    fn result(&mut self, launch: Launch) -> Result<Vec<[u64; WORDS]>, CudaError> {
        self.out.fill_zero(&self.stream)?;
        self.launch(launch, 0)?;
        Ok(self.out.to_vec()?)
    }
}

impl<T: GpuElement> Runner<Launch> for Bench<T> {
    fn time(&mut self, candidate: &Launch, runs: usize) -> Result<Vec<f64>, Failure> {
        for _ in 0..WARM {
            self.time_one(*candidate).map_err(failure)?;
        }
        (0..runs).map(|_| self.time_one(*candidate).map_err(failure)).collect()
    }

    fn verify(&mut self, candidate: &Launch, reference: &Launch) -> Result<(), Failure> {
        let right = self.result(*reference).map_err(failure)?;
        if self.result(*candidate).map_err(failure)? == right {
            return Ok(());
        }
        Err(Failure::of_candidate("its result has other bits"))
    }
}

/// An error of the driver may have lost the context; nothing else can.
fn failure(error: CudaError) -> Failure {
    let fatal = matches!(error, CudaError::Driver(kasmina_sys::Error::Call { .. }));
    Failure { fatal, reason: error.to_string() }
}

/// Numbers between 1 and 2 as floats of any type, over and over.
fn patterned(stream: &Stream, bytes: usize) -> Result<DeviceBuffer<u8>, CudaError> {
    let mut state = 1_u32;
    let pattern: Vec<u8> = (0..1 << 16)
        .flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (0x3f80_3f80 | state >> 9 & 0x007f_007f).to_le_bytes()
        })
        .collect();
    let mut buffer = DeviceBuffer::<u8>::zeroed(stream, bytes)?;
    let mut done = pattern.len().min(bytes);
    buffer.slice_mut(..done)?.copy_from_host(&pattern[..done])?;
    while done < bytes {
        let more = done.min(bytes - done);
        let (from, to) = buffer.as_mut_slice().split_at_mut(done)?;
        let mut to = to;
        to.slice_mut(..more)?.copy_from_device(from.slice(..more)?, stream)?;
        done += more;
    }
    Ok(buffer)
}

/// How many launches lie measured in `folder` for a device and the kernels of this executable, and what is wrong with the files.
pub fn choices_on_disk(folder: &Path, device: &Device, info: &DeviceInfo) -> (usize, Vec<String>) {
    let (mut count, mut problems) = (0, Vec::new());
    for image in KERNELS.iter().filter(|image| image.name.starts_with("flat_")) {
        let Ok(fatbin) = image.fatbin() else { continue };
        let identity = Identity::of(device, info, fatbin, env!("CARGO_PKG_VERSION"));
        match cache::load::<Launch>(folder, &identity) {
            Ok(found) => {
                for (key, choice) in &found {
                    match Candidate::check(&choice.candidate) {
                        Ok(()) => count += 1,
                        Err(reason) => problems.push(format!("{}, {key}: {reason}", image.name)),
                    }
                }
            }
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    (count, problems)
}
