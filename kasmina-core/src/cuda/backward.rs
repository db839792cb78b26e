//! The streaming backward pass and the finalize step.

use std::sync::Arc;

use kasmina_sys::{ByValue, LaunchConfig};
use kasmina_tma::{LoadPath, Selection, TensorMap};

use super::engine::Engine;
use super::error::CudaError;
use super::geometry::{Geometry, Needs, Tuning};
use super::job::{BackwardViews, JobList, ROLE_RECONSTRUCTION, SeedJob, View};
use super::loading;
use super::params::{BackwardParams, COMPUTE, FinalizeParams, RECONSTRUCTION, STRAIGHT_THROUGH};
use super::streams::Streams;
use super::tape::Piece;
use super::tune::{self, Key, Pass, TuningSource, Variant, Work};
use super::variants::{BackwardVariant, Counting, backward_image, element_bytes};
use crate::DType;

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

pub(super) type BulkTensorBackward = (TensorMap, TensorMap, TensorMap, ByValue<BackwardParams>);
pub(super) type PlainBackward = (ByValue<BackwardParams>,);
pub(super) type Finalize = (ByValue<FinalizeParams>,);

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
        let groups = if report.kernel.is_some() { self.backward.groups() } else { 0 };
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
        let needs = Needs { tuning, ..variant.needs() };
        let bytes = variant.element_bytes();
        let layout = self.columns.layout;
        let geometry = Geometry::new(x.rows, layout, bytes, variant.path, machine, needs);
        let params = self.backward_params(variant, geometry, views)?;
        let stream = self.columns.stream.clone();
        let (state, columns) = (&mut self.backward, &self.columns);
        let config = LaunchConfig::new(geometry.blocks(), variant.threads())
            .shared_bytes(variant.shared_bytes(&geometry));
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
        let counts = variant.counting != Counting::Off;
        let totals = &self.gradient_totals;
        let (cut, sums) = self.backward.prepare(&self.columns, geometry, counts, totals)?;
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
        let sums = self.backward.sums(&self.columns, columns)?;
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

/// The bytes of each of some matrices, where none has padding between rows.
fn dense_bytes(dtype: DType, views: &[View]) -> Option<usize> {
    let row = |view: &View| u64::from(view.columns) * u64::from(element_bytes(dtype));
    let dense = views.iter().all(|view| view.rows == 1 || view.pitch == row(view));
    views.first().filter(|_| dense).map(|view| (u64::from(view.rows) * row(view)) as usize)
}
