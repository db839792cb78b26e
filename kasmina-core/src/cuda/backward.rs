//! The streaming backward pass and the finalize step.

use std::sync::Arc;

use kasmina_sys::{ByValue, DeviceBuffer, DeviceCopy, DeviceSlice, LaunchConfig, Stream};
use kasmina_telemetry::GradientStats;
use kasmina_tma::{BoundTensorMap, LoadPath, Selection, TensorMap};

use super::columns::Columns;
use super::cuts::Cuts;
use super::engine::Engine;
use super::error::CudaError;
use super::forward::Streams;
use super::geometry::{Geometry, Needs, PACKET_BYTES, Tuning, WORKERS};
use super::job::{JobList, ROLE_RECONSTRUCTION, SeedJob, View};
use super::loading;
use super::params::{
    BackwardParams, COMPUTE, FinalizeParams, RECONSTRUCTION, RawGradientStats, STRAIGHT_THROUGH,
};
use super::tape::Piece;
use super::tune::{self, Key, Pass, TuningSource, Variant, Work};
use super::variants::{
    BackwardVariant, COUNTERS, Counting, backward_image, element_bytes, is_bulk,
};
use crate::DType;

/// What a backward pass reads and writes; all matrices have the same rows and columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackwardViews {
    /// The layer's input.
    pub(super) x: View,
    /// dL/dy, and where dL/dx goes; without them only reconstruction objectives are served.
    pub(super) gradients: Option<(View, View)>,
}

/// How one backward pass is to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backward {
    /// Whether the output gradient is counted into the seeds' gradient statistics.
    pub measured: bool,
    /// Force a rung of the load ladder.
    pub path: Option<LoadPath>,
}

/// How a backward pass ran.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct BackwardReport {
    /// The way that x and the gradients are loaded, and why not a better one; `None` where nothing was streamed.
    pub path: Option<Selection>,
    /// The kernel; `None` where the driver's own copy did it, or nothing had to be done.
    pub kernel: Option<String>,
    /// Blocks that were launched.
    pub blocks: u32,
    /// Where the rung and the cut came from.
    pub tuning: TuningSource,
}

impl BackwardReport {
    const IDLE: Self =
        Self { path: None, kernel: None, blocks: 0, tuning: TuningSource::NOTHING_STREAMED };
}

/// Device memory of backward passes that is kept from call to call.
#[derive(Debug, Default)]
pub(super) struct BackwardState {
    cuts: Cuts<RawGradientStats>,
    /// Of every group of blocks: [groups][columns].
    sums: Option<DeviceBuffer<ColumnTotals>>,
    /// Groups of the latest cut.
    groups: u32,
    /// Of x, dL/dy and dL/dx, with what they were made from: a map is a function of that alone.
    maps: [Option<(MapKey, TensorMap)>; 3],
}

/// Σg, Σg·x and Σg·x over x·p > 0 of a column: `ColumnTotals` of `kernels/kasmina_program.cuh`.
pub(super) type ColumnTotals = [f64; 3];

#[derive(Clone, Copy, Debug, PartialEq)]
struct MapKey {
    dtype: DType,
    view: View,
    geometry: Geometry,
}

pub(super) type BulkTensorBackward = (TensorMap, TensorMap, TensorMap, ByValue<BackwardParams>);
pub(super) type PlainBackward = (ByValue<BackwardParams>,);
pub(super) type Finalize = (ByValue<FinalizeParams>,);

/// Rows that a thread takes at a time, `kBackwardRows` of `kernels/stream_backward_task.cuh`: stages of two matrices are small
/// enough then that several fit.
const LANE_ROWS: u32 = 4;
/// Seeds for each multiprocessor beyond which narrow ones get a warp each, not a block: a block hides the latency of its loads
/// better, but only so many run at once.
const SEEDS_PER_MULTIPROCESSOR: u32 = 16;
/// Columns of a seed that a warp finalizes without being slow at it.
const NARROW: u32 = 128;
/// Threads of a finalizing block, and seeds of it where each has a warp.
pub(super) const FINALIZE_THREADS: u32 = 192;
const FINALIZE_WARPS: u32 = FINALIZE_THREADS / 32;

impl Streams {
    /// dL/dx of every column without a filter or matrix on path (those are copied from dL/dy here and overwritten by their
    /// own kernels), the gradient statistics, and the parameter and alpha gradients of the pointwise jobs. Queued on the
    /// columns' stream, which the caller has joined with the homes of the matrices.
    pub(super) fn backward(
        &mut self,
        dtype: DType,
        views: BackwardViews,
        jobs: JobList<'_>,
        options: &Backward,
    ) -> Result<BackwardReport, CudaError> {
        let report = self.stream_back(dtype, &views, options)?;
        // Without a kernel nothing was summed.
        let groups = if report.kernel.is_some() { self.backward.groups } else { 0 };
        self.finalize(&views, jobs, groups)?;
        Ok(report)
    }

    fn stream_back(
        &mut self,
        dtype: DType,
        views: &BackwardViews,
        options: &Backward,
    ) -> Result<BackwardReport, CudaError> {
        let served = match views.gradients {
            Some(_) => COMPUTE | STRAIGHT_THROUGH | RECONSTRUCTION,
            None => RECONSTRUCTION,
        };
        let flags = self.columns.all_flags();
        let works = flags & served != 0;
        let measured = options.measured && views.gradients.is_some();
        let counting = loading::counting(&self.columns, dtype, measured);
        if views.x.rows == 0 {
            return Ok(BackwardReport::IDLE);
        }
        if !works && counting == Counting::Off {
            let Some((grad_y, grad_x)) = views.gradients else { return Ok(BackwardReport::IDLE) };
            if let Some(bytes) = dense_bytes(dtype, &[grad_y, grad_x]) {
                let (to, from) = (grad_x.address, grad_y.address);
                if self.columns.tape.copy(to, from, bytes) {
                    return Ok(BackwardReport::IDLE);
                }
                // SAFETY: both matrices are whole rows of that many bytes, which the caller keeps and has joined.
                unsafe { self.columns.stream.copy_raw_on_device(to, from, bytes) }?;
                return Ok(BackwardReport::IDLE);
            }
        }
        let (all, used) = match views.gradients {
            Some((grad_y, grad_x)) => ([views.x, grad_y, grad_x], 3),
            None => ([views.x; 3], 1),
        };
        let path = loading::select(&self.columns.engine, dtype, &all[..used], options.path)?;
        let pass = if used == 3 { Pass::Backward } else { Pass::Reconstruct };
        let what = (counting, Work::backward(flags));
        let (layout, used) = (self.columns.layout, &all[..used]);
        let key = Key::new(pass, dtype, what, layout, used, (path.path, options.path));
        let decision = tune::decide(&self.columns, &key, used, &[]);
        let engine = Arc::clone(&self.columns.engine);
        let ran = tune::run(&engine, &key, used, path, decision, |variant, candidate| {
            // The key is a backward pass's, and so are its kernels.
            let Variant::Backward(variant) = variant else { return Err(CudaError::NoImage) };
            self.launch_back(*variant, candidate.tuning, views, &all)
        })?;
        let (kernel, blocks) = (Some(ran.variant.name()), ran.result.blocks());
        Ok(BackwardReport { path: Some(ran.path), kernel, blocks, tuning: ran.source })
    }

    /// Launches a kernel of the table with one cut; returns the cut.
    pub(super) fn launch_back(
        &mut self,
        variant: BackwardVariant,
        tuning: Tuning,
        views: &BackwardViews,
        [x, grad_y, grad_x]: &[View; 3],
    ) -> Result<Geometry, CudaError> {
        // As many registers as there are, and shared memory for two matrices: one block.
        let machine = self.columns.engine.machine(1);
        let needs = Needs { tuning, ..needs(&variant) };
        let bytes = variant.element_bytes();
        let layout = self.columns.layout;
        let geometry = Geometry::new(x.rows, layout, bytes, variant.path, machine, needs);
        let params = self.backward_params(variant, geometry, views)?;
        let stream = self.columns.stream.clone();
        let (state, columns) = (&mut self.backward, &self.columns);
        let config = LaunchConfig::new(geometry.blocks(), variant.threads())
            .shared_bytes(shared_bytes(&variant, &geometry));
        let (image, name) = (backward_image(variant.dtype), variant.name());
        if variant.path == LoadPath::TensorMap {
            let [x, grad_y, grad_x] = [(0, x), (1, grad_y), (2, grad_x)]
                .map(|(i, view)| state.map(i, &stream, variant.dtype, *view, geometry));
            let maps = (x?, grad_y?, grad_x?, ByValue(params));
            let kernel = columns.engine.kernel::<BulkTensorBackward>(&image, &name)?;
            // SAFETY: the parameters are the kernel's; every address in them is of memory that lives until the kernel is done:
            // ours is freed on this stream, and the caller has joined the matrices'; the layout of the shared memory is what
            // `shared_bytes` counts.
            unsafe { columns.launch(Piece::Stream, &kernel, &config, maps) }?;
        } else {
            let kernel = columns.engine.kernel::<PlainBackward>(&image, &name)?;
            // SAFETY: as above.
            unsafe { columns.launch(Piece::Stream, &kernel, &config, (ByValue(params),)) }?;
        }
        Ok(geometry)
    }

    /// What a launch of `variant` is told, the cut made ready for it and its sums' place there.
    pub(super) fn backward_params(
        &mut self,
        variant: BackwardVariant,
        geometry: Geometry,
        views: &BackwardViews,
    ) -> Result<BackwardParams, CudaError> {
        let BackwardViews { x, gradients } = *views;
        let state = &mut self.backward;
        let places = geometry.groups as usize * geometry.columns as usize;
        let sums = grown(&mut state.sums, &self.columns, places)?;
        state.groups = geometry.groups;
        let counts = variant.counting != Counting::Off;
        let cut = state.cuts.prepare(&self.columns, geometry, counts, &self.gradient_totals)?;
        let none = View { address: 0, ..x };
        let (grad_y, grad_x) = gradients.unwrap_or((none, none));
        let columns = &self.columns;
        Ok(BackwardParams {
            x: x.address,
            grad_y: grad_y.address,
            grad_x: grad_x.address,
            x_pitch: x.pitch,
            grad_y_pitch: grad_y.pitch,
            grad_x_pitch: grad_x.pitch,
            programs: columns.programs.address(),
            flags: columns.flags.address(),
            tile_flags: cut.tile_flags(),
            bounds: columns.bounds.address(),
            sums,
            accumulators: cut.accumulators(),
            pace: cut.pace(),
            watched: columns.watched_address(),
            saturated: columns.saturated.address(),
            geometry,
        })
    }

    /// What a finalize step over `groups` groups' sums is told, and the widest seed that it is for; `None` where none wants one.
    pub(super) fn finalize_params(
        &mut self,
        views: &BackwardViews,
        jobs: JobList<'_>,
        groups: u32,
    ) -> Result<Option<(FinalizeParams, u32)>, CudaError> {
        let has_gradients = views.gradients.is_some();
        let served = |job: &&SeedJob| {
            job.is_pointwise()
                && job.gradients != 0
                && (has_gradients || job.role == ROLE_RECONSTRUCTION)
        };
        let Some(widest) = jobs.host.iter().filter(served).map(|job| job.columns).max() else {
            return Ok(None);
        };
        let columns = self.columns.layout.hidden();
        let sums = grown(&mut self.backward.sums, &self.columns, columns)?;
        let params = FinalizeParams {
            jobs: jobs.device,
            programs: self.columns.programs.address(),
            sums,
            rows: views.x.rows.into(),
            count: jobs.host.len() as u32,
            columns: columns as u32,
            groups,
            has_gradients: has_gradients.into(),
        };
        Ok(Some((params, widest)))
    }

    /// From column sums to gradients, for the pointwise jobs that want any; without groups every sum is 0.
    pub(super) fn finalize(
        &mut self,
        views: &BackwardViews,
        jobs: JobList<'_>,
        groups: u32,
    ) -> Result<(), CudaError> {
        let Some((params, widest)) = self.finalize_params(views, jobs, groups)? else {
            return Ok(());
        };
        let count = params.count;
        let engine = &self.columns.engine;
        let (name, blocks) = match by_blocks(engine, count, widest) {
            true => ("kasmina_finalize_block", count),
            false => ("kasmina_finalize_warp", count.div_ceil(FINALIZE_WARPS)),
        };
        let kernel = engine.kernel::<Finalize>("finalize", name)?;
        let config = LaunchConfig::new(blocks, FINALIZE_THREADS);
        // SAFETY: the parameters are the kernel's; the jobs, and the memory that they name, are the caller's until the kernel is
        // done; the sums are ours, freed on this stream.
        unsafe { self.columns.launch(Piece::Finalize, &kernel, &config, (ByValue(params),)) }
    }
}

/// Whether `count` seeds, of at most `widest` columns, are finalized by a block each.
pub(super) fn by_blocks(engine: &Engine, count: u32, widest: u32) -> bool {
    count <= SEEDS_PER_MULTIPROCESSOR * engine.multiprocessors() || widest > NARROW
}

impl BackwardState {
    /// The column sums of the latest pass, [groups][columns] and maybe more.
    pub(super) fn sums_mut(&mut self) -> Option<&mut DeviceBuffer<ColumnTotals>> {
        self.sums.as_mut()
    }

    /// Notes that the passes of a graph have counted.
    pub(super) fn note_counts(&mut self) {
        self.cuts.note_counts();
    }

    /// Moves what the passes have counted to the seeds' totals. Queued.
    pub(super) fn collect(
        &mut self,
        columns: &Columns,
        totals: &DeviceBuffer<RawGradientStats>,
    ) -> Result<(), CudaError> {
        self.cuts.collect(columns, totals)
    }

    /// As [`Cuts::counted`].
    pub(super) fn counted(&self) -> impl Iterator<Item = (u64, Geometry)> + '_ {
        self.cuts.counted()
    }

    /// The map of the tiles of matrix `i`.
    fn map(
        &mut self,
        i: usize,
        stream: &Stream,
        dtype: DType,
        view: View,
        geometry: Geometry,
    ) -> Result<TensorMap, CudaError> {
        let key = MapKey { dtype, view, geometry };
        if let Some((_, map)) = self.maps[i].filter(|(of, _)| *of == key) {
            return Ok(map);
        }
        let bytes = span_bytes(dtype, view);
        // SAFETY: only the address and the length are looked at here; the caller vouches for the matrix.
        let memory = unsafe { DeviceSlice::<u8>::from_raw(stream, view.address, bytes) }?;
        let bound = BoundTensorMap::encode(memory, &loading::tile_map(dtype, view, &geometry)?)?;
        // SAFETY: kernels get the map together with the matrix, which the caller keeps until they are done.
        let map = unsafe { bound.unbound() };
        self.maps[i] = Some((key, map));
        Ok(map)
    }
}

/// The address of a buffer of at least `len` elements, kept or made anew; what was in it may be lost.
fn grown<T: DeviceCopy>(
    buffer: &mut Option<DeviceBuffer<T>>,
    columns: &Columns,
    len: usize,
) -> Result<u64, CudaError> {
    if let Some(kept) = buffer.as_ref().filter(|buffer| buffer.len() >= len) {
        return Ok(kept.address());
    }
    columns.residents.settle();
    let new = DeviceBuffer::unwritten(&columns.stream, len)?;
    columns.changed();
    Ok(buffer.insert(new).address())
}

/// Bytes from the first element of a matrix of at least one row to its last.
fn span_bytes(dtype: DType, view: View) -> usize {
    let row = u64::from(view.columns) * u64::from(element_bytes(dtype));
    ((u64::from(view.rows) - 1) * view.pitch + row) as usize
}

/// The bytes of each of some matrices, where none has padding between rows.
fn dense_bytes(dtype: DType, views: &[View]) -> Option<usize> {
    let row = |view: &View| u64::from(view.columns) * u64::from(element_bytes(dtype));
    let dense = views.iter().all(|view| view.rows == 1 || view.pitch == row(view));
    views.first().filter(|_| dense).map(|view| (u64::from(view.rows) * row(view)) as usize)
}

/// Bytes of the threads' totals, `Slots` in the kernels.
fn slot_bytes(variant: &BackwardVariant) -> u32 {
    let lanes = PACKET_BYTES / variant.element_bytes();
    lanes * WORKERS * size_of::<ColumnTotals>() as u32
}

/// What the kernels keep in shared memory. The bulk ones need a stage to load while one is worked on, those with asynchronous
/// copies have three (`kAsyncPairs`), the others one.
pub(super) fn needs(variant: &BackwardVariant) -> Needs {
    let (bulk, plain) = match variant.element_bytes() {
        2 => (Tuning::BACKWARD_16, Tuning::PLAIN_16),
        _ => (Tuning::BACKWARD, Tuning::PLAIN),
    };
    let (fewest, tuning) = match variant.path {
        LoadPath::TensorMap => (2, bulk),
        // Row by row, so long rows.
        LoadPath::Bulk => (2, Tuning { packets: COUNTERS, ..bulk }),
        LoadPath::CpAsync => (3, plain),
        LoadPath::Vector16 | LoadPath::Scalar => (1, plain),
    };
    // A thread counts one packet of a tile's rows.
    let most_packets = if is_bulk(variant.path) { COUNTERS } else { WORKERS };
    let beside = slot_bytes(variant) + own_scratch_bytes(variant);
    Needs { most_packets, matrices: 2, beside, fewest, lane_rows: LANE_ROWS, tuning }
}

/// Bytes of the statistics on their way out of a block.
fn scratch_bytes(variant: &BackwardVariant) -> u32 {
    let per_thread = match variant.counting {
        Counting::Off => 0,
        Counting::Packet => 1,
        Counting::Column => PACKET_BYTES / variant.element_bytes(),
    };
    let threads = if is_bulk(variant.path) { COUNTERS } else { WORKERS };
    threads * per_thread * size_of::<GradientStats>() as u32
}

/// The same where they have a place of their own; others have that of the totals and stages, when those are out.
fn own_scratch_bytes(variant: &BackwardVariant) -> u32 {
    let own = is_bulk(variant.path) && variant.counting == Counting::Packet;
    if own { scratch_bytes(variant) } else { 0 }
}

/// Dynamic shared memory of a block: the threads' totals with the stages and their barriers, or with the threads' own places;
/// and no less than the statistics need at the end.
pub(super) fn shared_bytes(variant: &BackwardVariant, geometry: &Geometry) -> u32 {
    // Full, ready and empty; of twice the stages where a stage holds one matrix.
    const BARRIERS: u32 = 2 * 3 * 8;
    let places = 2 * geometry.lane_rows * WORKERS * PACKET_BYTES;
    let pipeline = match variant.path {
        LoadPath::TensorMap | LoadPath::Bulk => {
            geometry.stages * (2 * geometry.stage_bytes() + BARRIERS)
        }
        LoadPath::CpAsync => 3 * places,
        LoadPath::Vector16 | LoadPath::Scalar => places,
    };
    (slot_bytes(variant) + pipeline + own_scratch_bytes(variant)).max(scratch_bytes(variant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeedLayout;
    use crate::cuda::geometry::Machine;

    #[test]
    fn every_kernel_fits_the_shared_memory_of_every_device() {
        for (multiprocessors, shared_bytes_of_block) in
            [(132, 232_448), (108, 166_912), (48, 101_376)]
        {
            for variant in BackwardVariant::all() {
                for (rows, hidden, chunk) in
                    [(8192, 8192, 64), (8192, 16384, 64), (333, 1000, 3), (5, 7, 1)]
                {
                    let layout = SeedLayout::new(hidden, chunk).expect("a layout");
                    let machine =
                        Machine { multiprocessors, shared_bytes: shared_bytes_of_block, blocks: 1 };
                    let bytes = variant.element_bytes();
                    let g =
                        Geometry::new(rows, layout, bytes, variant.path, machine, needs(&variant));
                    // The compiler declares 1 KiB of its own.
                    assert!(
                        shared_bytes(&variant, &g) + 1024 <= shared_bytes_of_block,
                        "{variant:?} {g:?}"
                    );
                    assert!(g.stages >= 2 && [1, 2, 4].contains(&g.lane_rows));
                }
            }
        }
    }

    #[test]
    fn an_h200_has_several_stages_of_two_matrices() {
        let machine = Machine { multiprocessors: 132, shared_bytes: 232_448, blocks: 1 };
        let layout = SeedLayout::new(8192, 64).expect("a layout");
        for (dtype, expected) in [(DType::F32, (6, 4)), (DType::Bf16, (5, 4))] {
            let path = LoadPath::TensorMap;
            let variant = BackwardVariant { dtype, path, counting: Counting::Packet };
            let bytes = variant.element_bytes();
            let g = Geometry::new(8192, layout, bytes, path, machine, needs(&variant));
            assert_eq!((g.stages, g.lane_rows), expected);
        }
    }
}
