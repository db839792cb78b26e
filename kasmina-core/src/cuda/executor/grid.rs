//! The resident grid as the host sees it: its memory, its launches, and whether it is there.

use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use kasmina_sys::{
    ByValue, DeviceBuffer, Kernel, KernelArguments, LaunchConfig, PinnedBuffer, PinnedKind, Stream,
};

use super::State;
use super::error::ExecutorError;
use super::options::ExecutorOptions;
use super::records::{
    BOARD, CONTROL_BYTES, FAULT_KERNEL_WAITED, FAULT_WORKER_WAITED, Mail, Mailbox, Report,
    ResidentParams, STOP_BITS, STOP_DRAIN, STOP_NO,
};
use crate::cuda::engine::Engine;
use crate::cuda::error::CudaError;
use crate::cuda::geometry::{Machine, WORKERS};
use crate::cuda::residents::{GRID, RECORD_BYTES};

/// The fatbin of the grid.
const IMAGE: &str = "resident";
const RUN: &str = "kasmina_resident_run";

/// What the kernels take.
pub(super) type Resident = (ByValue<ResidentParams>,);
pub(super) type Run = (u64, u64, u64, u64);

/// Bytes of their arguments.
pub(in crate::cuda) const RESIDENT_ARGUMENTS: &[usize] = <Resident as KernelArguments>::SIZES;
/// See [`RESIDENT_ARGUMENTS`].
pub(in crate::cuda) const RUN_ARGUMENTS: &[usize] = <Run as KernelArguments>::SIZES;

/// Dynamic shared memory of a block for items, `kItemBytes`: what the forward pass's rows take.
const ITEM_BYTES: u32 = 96 << 10;
/// The same for the mergers' job, before the records.
const JOB_BYTES: u32 = 48;
const SHARED_BYTES: u32 = ITEM_BYTES + JOB_BYTES + RECORD_BYTES;
/// Blocks that a grid is worth having: one that dispatches and one that works.
const FEWEST_BLOCKS: u32 = 2;

/// The grid's memory and how it is launched. One thread launches at a time: the executor's lock sees to that.
#[derive(Debug)]
pub(super) struct Grid {
    /// Its own, on which there is nothing but grids.
    stream: Stream,
    kernel: Kernel<Resident>,
    run: Kernel<Run>,
    params: ResidentParams,
    /// Grids launched so far.
    generation: AtomicU64,
    /// Steps put into the mailbox so far.
    tail: AtomicU64,
    mailbox: PinnedBuffer<Mailbox>,
    report: PinnedBuffer<Report>,
    control: DeviceBuffer<u8>,
    watchdog: std::time::Duration,
}

impl Grid {
    /// Everything that a grid needs, and no grid yet; or why there can be none, as text, for the executor to run by launches.
    pub(super) fn new(
        engine: &Arc<Engine>,
        options: &ExecutorOptions,
    ) -> Result<Result<Self, String>, CudaError> {
        if let Some(reason) = &options.forced_launches {
            return Ok(Err(reason.clone()));
        }
        let context = engine.context();
        let kernel = engine.kernel::<Resident>(IMAGE, GRID)?;
        let run = engine.kernel::<Run>(IMAGE, RUN)?;
        // A multiprocessor divides its memory anew only while nothing runs there: where such a kernel waits for a grid, it must be divided as the
        // grid's blocks want it.
        run.prefer_shared_carveout(Some(100))?;
        let shared = kernel.attributes()?.static_shared_bytes + SHARED_BYTES;
        if shared > engine.shared_bytes() {
            return Ok(Err(format!(
                "a block of the resident grid needs {shared} bytes of shared memory, and the device has {} for one",
                engine.shared_bytes()
            )));
        }
        let of_one = kernel.max_active_blocks(WORKERS, SHARED_BYTES)?.min(1);
        let multiprocessors = engine.multiprocessors().saturating_sub(options.left);
        let blocks = of_one * multiprocessors;
        if blocks < FEWEST_BLOCKS {
            return Ok(Err(format!(
                "{blocks} blocks of the resident grid can run at once ({} multiprocessors, {} left to others), and it needs \
                 {FEWEST_BLOCKS}",
                engine.multiprocessors(),
                options.left
            )));
        }
        let stream = Stream::new(context)?;
        let mailbox = PinnedBuffer::<Mailbox>::zeroed(context, 1, PinnedKind::Cached)?;
        let report = PinnedBuffer::<Report>::zeroed(context, 1, PinnedKind::Cached)?;
        let control = DeviceBuffer::<u8>::zeroed(&stream, CONTROL_BYTES)?;
        stream.synchronize()?;
        let addresses = [mailbox.device_address()?, report.device_address()?, control.address()];
        let nanoseconds =
            [options.idle, options.watchdog].map(|d| d.as_nanos().min(u64::MAX.into()) as u64);
        let params = ResidentParams::new(addresses, blocks - 1, nanoseconds);
        let watchdog = options.watchdog;
        let (generation, tail) = (AtomicU64::new(0), AtomicU64::new(0));
        let grid = Self {
            stream,
            kernel,
            run,
            params,
            generation,
            tail,
            mailbox,
            report,
            control,
            watchdog,
        };
        // The first launch tells whether the driver does it at all: under MPS, say, it may not.
        match grid.launch() {
            Ok(()) => Ok(Ok(grid)),
            Err(error) if error.is_sticky() => Err(error),
            Err(error) => Ok(Err(format!(
                "the driver refused a cooperative launch of {blocks} blocks: {error}"
            ))),
        }
    }

    /// Blocks that work.
    pub(super) fn workers(&self) -> u32 {
        self.params.workers
    }

    /// What items are cut for.
    pub(super) fn machine(&self) -> Machine {
        Machine { multiprocessors: self.workers(), shared_bytes: ITEM_BYTES, blocks: 1 }
    }

    /// Launches a grid after the one before it. One thread at a time.
    fn launch(&self) -> Result<(), CudaError> {
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        let params = self.params.of(generation);
        let word = self.tail.load(Ordering::Relaxed) << STOP_BITS | STOP_NO;
        self.say(offset_of!(Mailbox, word), word, Ordering::Release);
        let blocks = self.params.workers + 1;
        let config =
            LaunchConfig::new(blocks, WORKERS).shared_bytes(SHARED_BYTES).cooperative(true);
        // SAFETY: the parameters are the kernel's; mailbox, report and control live until the grid has ended, which `Drop` waits for; steps
        // live until they are done, which the executor sees to.
        unsafe { self.kernel.launch(&self.stream, &config, (ByValue(params),)) }?;
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }

    /// Starts a grid where the last one has ended, and says whether that was so. The state is held so that one thread does it.
    pub(super) fn ensure_running(&self, _held: &mut State) -> Result<bool, CudaError> {
        let ended = self.has_ended();
        if ended {
            self.launch()?;
        }
        Ok(ended)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.told(offset_of!(Report, ended)) == self.generation.load(Ordering::Acquire)
    }

    /// Puts a step, by its record's address, into the mailbox, as number `number`.
    pub(super) fn hand_over(&self, step: u64, number: u64, after: u64) {
        let slot = offset_of!(Mailbox, slots) + (number as usize - 1) % BOARD * size_of::<Mail>();
        self.say(slot + offset_of!(Mail, step), step, Ordering::Relaxed);
        self.say(slot + offset_of!(Mail, after), after, Ordering::Relaxed);
        self.say(offset_of!(Mailbox, word), number << STOP_BITS | STOP_NO, Ordering::Release);
        self.tail.store(number, Ordering::Relaxed);
        // A grid that is just ending may not see it, nor its end be seen here yet: whoever waits asks again.
        fence(Ordering::SeqCst);
    }

    /// The number of the last step of the mailbox that is done.
    pub(super) fn completed(&self) -> u64 {
        self.told(offset_of!(Report, from_mailbox))
    }

    /// Whether kernels of streams wait for a grid to take their steps.
    pub(super) fn is_asked(&self) -> bool {
        self.told(offset_of!(Report, asked)) > self.told(offset_of!(Report, answered))
    }

    /// Why the grid gave up, if it did.
    pub(super) fn fault(&self) -> Option<ExecutorError> {
        let fault = self.told(offset_of!(Report, fault));
        let (number, watchdog) = (fault >> 8, self.watchdog);
        match fault as u8 {
            FAULT_WORKER_WAITED => Some(ExecutorError::Watchdog { number, watchdog }),
            FAULT_KERNEL_WAITED => Some(ExecutorError::NoGrid { watchdog }),
            _ => None,
        }
    }

    /// Whether the grid ended without saying so, as one does that the driver killed.
    pub(super) fn is_lost(&self) -> Option<ExecutorError> {
        let failed = |reason: String| Some(ExecutorError::Device { reason });
        match self.stream.is_idle() {
            Err(error) => failed(error.to_string()),
            Ok(true) if !self.has_ended() => failed("it ended without a word".to_owned()),
            Ok(_) => None,
        }
    }

    /// Whether no grid runs: none of its blocks is in anyone's memory any more.
    pub(super) fn is_gone(&self) -> bool {
        // An error is the context's, in which nothing runs then.
        self.stream.is_idle().unwrap_or(true)
    }

    /// Queues a kernel on `stream` that hands a step, by its record's address, to the grid and waits until it is done.
    pub(super) fn run_on(&self, stream: &Stream, step: u64) -> Result<(), CudaError> {
        let [control, report] = [self.control.address(), self.params.report];
        let arguments = (step, control, report, self.params.watchdog_ns);
        // SAFETY: the arguments are the kernel's; control and report live until the executor is dropped, which waits for its grids, and the
        // step until the ticket or the graph that this is for is done, by the callers' word.
        Ok(unsafe { self.run.launch(stream, &LaunchConfig::new(1, 32), arguments) }?)
    }

    /// Lets the grid end when what is in the mailbox is done. The next step starts another one.
    pub(super) fn stop(&self) {
        let word = self.tail.load(Ordering::Relaxed) << STOP_BITS | STOP_DRAIN;
        self.say(offset_of!(Mailbox, word), word, Ordering::Release);
    }

    /// Ends the grid, after what it has, and waits for that.
    pub(super) fn finish(&self) -> Result<(), ExecutorError> {
        self.stop();
        let failed =
            |error: kasmina_sys::Error| ExecutorError::Device { reason: error.to_string() };
        self.stream.synchronize().map_err(failed)?;
        self.fault().map_or(Ok(()), Err)
    }

    fn told(&self, offset: usize) -> u64 {
        // SAFETY: an aligned place inside the report, which lives as long as this; the host only uses it through atomics.
        let at = unsafe {
            AtomicU64::from_ptr(self.place::<Report>(&self.report, offset).cast().as_ptr())
        };
        at.load(Ordering::Acquire)
    }

    fn say(&self, offset: usize, value: u64, ordering: Ordering) {
        // SAFETY: as above, of the mailbox.
        let at = unsafe {
            AtomicU64::from_ptr(self.place::<Mailbox>(&self.mailbox, offset).cast().as_ptr())
        };
        at.store(value, ordering);
    }

    fn place<T: kasmina_sys::DeviceCopy>(
        &self,
        buffer: &PinnedBuffer<T>,
        offset: usize,
    ) -> NonNull<u8> {
        debug_assert!(offset < size_of::<T>());
        // SAFETY: page-locked memory is not null, and the offset is inside.
        unsafe { NonNull::new_unchecked(buffer.address().cast_mut().cast::<u8>().add(offset)) }
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        // It ends by itself when it is idle, too; what it reads and writes must be there until then.
        self.stop();
        if let Err(error) = self.stream.synchronize() {
            tracing::warn!(target: "kasmina::executor", %error, "the resident grid did not end well");
        }
    }
}
