//! Kernels that go seed by seed: lowering, the optimizer. Beside them the two that read the whole input apart from the pass.

use bytemuck::{Pod, Zeroable};
use kasmina_sys::{Allocator, ByValue, DeviceBuffer, LaunchConfig, Stream};

use super::columns::Columns;
use super::engine::Engine;
use super::error::CudaError;
use super::job::JobList;
use super::tape::{Piece, Tape};
pub(super) use super::whole_input::{StrictScratch, count_histograms, strict_bounds};
use crate::AdamW;

/// The fatbin of these kernels.
const SEEDS: &str = "seeds";

/// One seed for the optimizer, as `kernels/seed_adamw.cuh` has it; addresses are the device's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct OptimizerJob {
    pub(super) parameters: u64,
    pub(super) first: u64,
    pub(super) second: u64,
    /// Consumed: zero afterwards, whatever became of the seed.
    pub(super) gradients: u64,
    /// Its `SeedResult`, whose alpha gradient is consumed too.
    pub(super) result: u64,
    /// Its [`OptimizerRecord`].
    pub(super) record: u64,
    /// Parameters.
    pub(super) count: u64,
}

/// What the optimizer has done to one seed since the record was last zeroed, `updates` apart, which is the seed's for good.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct OptimizerRecord {
    /// Updates since the parameters were born: what the bias corrections depend on.
    pub(super) updates: u64,
    /// The gradient norm of the latest update, before clipping.
    pub(super) norm: f64,
    /// Updates since the record was taken.
    pub(super) updated: u32,
    /// Of these, how many were clipped.
    pub(super) clipped: u32,
    /// Steps that left the seed as it was, since the record was taken.
    pub(super) skipped: u32,
    /// Why, the first time: 1 a gradient that is not finite, 2 an overflow; 0 if none.
    pub(super) verdict: u32,
    /// The parameter to blame for that.
    pub(super) index: u32,
    pub(super) padding: u32,
}

const _: () = assert!(
    size_of::<OptimizerJob>() == 56
        && std::mem::offset_of!(OptimizerJob, count) == 48
        && size_of::<OptimizerRecord>() == 40
        && std::mem::offset_of!(OptimizerRecord, norm) == 8
        && std::mem::offset_of!(OptimizerRecord, index) == 32,
    "as in kernels/seed_adamw.cuh"
);

/// Threads of a lowering block, and the most columns of a chunk that one warp of it lowers alone.
const LOWER_THREADS: u32 = 128;
const LOWER_BY_WARP: usize = 256;

/// Lowers `count` jobs, those whose indices into `jobs` stand at the device address `changed` (u32): column programs to
/// `columns.programs`, a filter's taps to its job's place. Queued.
pub(super) fn lower(
    columns: &Columns,
    jobs: JobList<'_>,
    changed: u64,
    count: u32,
) -> Result<(), CudaError> {
    if count == 0 {
        return Ok(());
    }
    let (name, blocks) = if columns.layout.chunk() <= LOWER_BY_WARP {
        ("kasmina_lower_by_warp", count.div_ceil(LOWER_THREADS / 32))
    } else {
        ("kasmina_lower_by_block", count)
    };
    let kernel = columns.engine.kernel::<Lower>(SEEDS, name)?;
    let all = jobs.host.len() as u32;
    let arguments = (jobs.device, all, changed, count, columns.programs.address());
    let config = LaunchConfig::new(blocks, LOWER_THREADS);
    // SAFETY: `changed` has `count` indices, of which the kernel takes those below `all`; the jobs' parameters, taps and columns
    // are live, and all of it is of this stream.
    unsafe { columns.launch(Piece::Lower, &kernel, &config, arguments) }
}

/// `AdamW` of `kernels/kasmina_adamw.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct RawAdamW {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    clip_norm: f64,
}

const _: () = assert!(size_of::<RawAdamW>() == 48, "as in kernels/seed_adamw.cuh");

impl From<&AdamW> for RawAdamW {
    fn from(adamw: &AdamW) -> Self {
        let AdamW { learning_rate, beta1, beta2, epsilon, weight_decay, clip_norm } = *adamw;
        let clip_norm = clip_norm.unwrap_or(f64::INFINITY);
        Self { learning_rate, beta1, beta2, epsilon, weight_decay, clip_norm }
    }
}

/// What the kernels of this file take.
pub(super) type Lower = (u64, u32, u64, u32, u64);
pub(super) type AdamWSmall = (u64, u32, u32, ByValue<RawAdamW>);
pub(super) type AdamWAlone = (u64, u32, ByValue<RawAdamW>);
pub(super) type AdamWMeasure = (u64, u64);
pub(super) type AdamWShared = (u64, u64, ByValue<RawAdamW>);

/// Threads of an optimizer's block.
const ADAMW_THREADS: u32 = 256;
/// Slices of a large seed, and the bytes of its findings (`LargeSeed`).
const SLICES: u32 = 256;
const LARGE_SEED_BYTES: usize = SLICES as usize * 16 + 48;
/// The most seeds of a step whose large ones are shared by several blocks. With more, each has a block to itself: there are then
/// blocks enough, and a layer of so many seeds has no huge ones.
const MOST_SHARED: u32 = 1024;
/// Blocks that share the large seeds of a step: some waves of them on a large device, and cheap where no seed is large.
const SHARING_BLOCKS: u32 = 2048;
/// Seeds above which a block takes one for each of its warps.
const MANY: u32 = 2048;

/// The most parameters that one block updates in one piece: `kBlockMost` of `kernels/seed_adamw.cuh`. Seeds with more are large.
pub(super) const BLOCK_MOST: u64 = 8192;

/// What the optimizer steps: [`OptimizerJob`]s on the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct OptimizerJobs {
    /// Their address.
    pub(super) list: u64,
    pub(super) count: u32,
    /// The most parameters among them.
    pub(super) most: u64,
}

/// Whether several blocks share each large seed of as many seeds as these, unless somebody captures the stream.
pub(super) fn may_share(engine: &Engine, seeds: usize) -> bool {
    seeds <= MOST_SHARED as usize && matches!(engine.context().allocator(), Allocator::Pool(_))
}

/// Device memory of the blocks that share large seeds, kept from step to step.
#[derive(Debug, Default)]
pub(super) struct LargeSeeds {
    found: Option<DeviceBuffer<u8>>,
    /// How often it was made.
    pub(super) made: u64,
}

impl LargeSeeds {
    /// The address of a place for each of `count` seeds' findings; `None` where there is no room to be had without waiting, or
    /// none that a capture may have.
    fn places(
        &mut self,
        engine: &Engine,
        stream: &Stream,
        count: u32,
    ) -> Result<Option<u64>, CudaError> {
        let bytes = count as usize * LARGE_SEED_BYTES;
        if let Some(found) = self.found.as_ref().filter(|found| found.len() >= bytes) {
            return Ok(Some(found.address()));
        }
        if !may_share(engine, count as usize) || stream.is_capturing()? {
            return Ok(None);
        }
        self.made += 1;
        Ok(Some(self.found.insert(DeviceBuffer::unwritten(stream, bytes)?).address()))
    }
}

/// One AdamW update of each of the jobs. The numbers are valid. Queued, or written down.
///
/// The same bits in every run and whatever the other seeds are. A large seed has one block where there are very many seeds, where
/// device memory comes from no pool, and while the stream is captured by somebody: several would share memory.
pub(super) fn optimizer_step(
    engine: &Engine,
    (stream, tape): (&Stream, &Tape),
    large: &mut LargeSeeds,
    jobs: OptimizerJobs,
    adamw: &AdamW,
) -> Result<(), CudaError> {
    let OptimizerJobs { list, count, most } = jobs;
    if count == 0 {
        return Ok(());
    }
    let settings = ByValue(RawAdamW::from(adamw));
    let per_block = if count > MANY { ADAMW_THREADS / 32 } else { 1 };
    let threads = ADAMW_THREADS;
    let small = engine.kernel::<AdamWSmall>(SEEDS, "kasmina_adamw")?;
    let config = LaunchConfig::new(count.div_ceil(per_block), threads);
    let arguments = (list, count, per_block, settings);
    // SAFETY: there are `count` jobs, whose memory is live, of this stream, and no other job's.
    unsafe { tape.launch(stream, Piece::AdamW, &small, &config, arguments) }?;
    if most <= BLOCK_MOST {
        return Ok(());
    }

    let Some(found) = large.places(engine, stream, count)? else {
        let alone = engine.kernel::<AdamWAlone>(SEEDS, "kasmina_adamw_alone")?;
        let config = LaunchConfig::new(count.min(engine.multiprocessors() * 4), threads);
        let arguments = (list, count, settings);
        // SAFETY: as above.
        return unsafe { tape.launch(stream, Piece::AdamWAlone, &alone, &config, arguments) };
    };
    let measure = engine.kernel::<AdamWMeasure>(SEEDS, "kasmina_adamw_measure")?;
    let check = engine.kernel::<AdamWShared>(SEEDS, "kasmina_adamw_check")?;
    let apply = engine.kernel::<AdamWShared>(SEEDS, "kasmina_adamw_apply")?;
    let config = LaunchConfig::new([(SHARING_BLOCKS / count).clamp(1, SLICES), count], threads);
    // SAFETY: as above, and `found` has a place for each job's findings, which only work of this stream touches.
    unsafe {
        tape.launch(stream, Piece::AdamWMeasure, &measure, &config, (list, found))?;
        tape.launch(stream, Piece::AdamWCheck, &check, &config, (list, found, settings))?;
        tape.launch(stream, Piece::AdamWApply, &apply, &config, (list, found, settings))
    }
}
