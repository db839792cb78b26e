//! Bottleneck and dense branches on the GPU, forward and backward: every seed of a layer in one launch, and one more that adds up
//! the parameter gradients.
//!
//! How rows are cut is in `matrix_work`, what the kernels do in `kernels/matrix_*.cuh`.

use kasmina_sys::{ByValue, DeviceBuffer, Kernel, LaunchConfig};

use super::columns::Columns;
use super::error::CudaError;
use super::job::{BackwardViews, JobList, View};
use super::matrix_work::{
    Item, ItemSums, MatrixParams, MergeItem, MergeParams, Pass, Share, Work, shares,
};
use super::tape::Piece;
use crate::DType;

/// Threads of a block, `kThreads`.
const THREADS: u32 = 256;
/// Floats of scratch memory, unless one block of threads needs more: 256 MiB. Layers of wide chunks then have fewer blocks.
const SCRATCH_FLOATS: u64 = 1 << 26;
/// The fatbin and the kernel that merge.
const MERGE_IMAGE: &str = "matrices_merge";
const MERGE_KERNEL: &str = "kasmina_matrix_merge";

pub(super) type Matrix = (ByValue<MatrixParams>,);
pub(super) type Merge = (ByValue<MergeParams>,);
type MatrixKernel = Kernel<Matrix>;
type MergeKernel = Kernel<Merge>;

/// Device memory of the matrix passes that is kept from call to call. Work lists are made anew when the shape or the set of jobs
/// changes, which waits for the stream; otherwise nothing waits.
#[derive(Debug, Default)]
pub(super) struct Matrices {
    forward: Option<Prepared>,
    backward: Option<Prepared>,
    /// Both passes' planes: they are of one stream, so never at work together.
    scratch: Option<DeviceBuffer<f32>>,
}

/// A pass over one shape, ready to be launched.
#[derive(Debug)]
struct Prepared {
    // What it was made for.
    pass: Pass,
    dtype: DType,
    rows: u32,
    shares: Vec<Share>,
    // What was made.
    kernel: MatrixKernel,
    items: DeviceBuffer<Item>,
    merges: DeviceBuffer<MergeItem>,
    partials: DeviceBuffer<f32>,
    sums: DeviceBuffer<ItemSums>,
    slice: u64,
    blocks: u32,
}

/// The three matrices of a launch; without the last two only reconstruction is served.
#[derive(Clone, Copy)]
struct Operands {
    x: View,
    grad_y: Option<View>,
    out: Option<View>,
}

impl Matrices {
    /// y of every bottleneck and dense branch on path; `y` may be `x`. After the streaming pass, which copied these chunks. Queued.
    pub(super) fn forward(
        &mut self,
        columns: &Columns,
        dtype: DType,
        jobs: JobList<'_>,
        x: View,
        y: View,
    ) -> Result<(), CudaError> {
        let Some(pass) = prepare(&mut self.forward, columns, Pass::Forward, dtype, jobs, x.rows)?
        else {
            return Ok(());
        };
        let operands = Operands { x, grad_y: None, out: Some(y) };
        pass.launch(&mut self.scratch, columns, jobs, operands)
    }

    /// dL/dx of every bottleneck and dense branch on path, and the gradients of all of them that train. Queued.
    pub(super) fn backward(
        &mut self,
        columns: &Columns,
        dtype: DType,
        jobs: JobList<'_>,
        views: BackwardViews,
    ) -> Result<(), CudaError> {
        let kind = Pass::Backward { gradients: views.gradients.is_some() };
        let rows = views.x.rows;
        let Some(pass) = prepare(&mut self.backward, columns, kind, dtype, jobs, rows)? else {
            return Ok(());
        };
        let (grad_y, out) = views.gradients.unzip();
        pass.launch(&mut self.scratch, columns, jobs, Operands { x: views.x, grad_y, out })?;
        pass.merge(columns, jobs)
    }
}

/// Keeps what was made for this pass, or makes it anew; `None` where no job is served.
fn prepare<'a>(
    kept: &'a mut Option<Prepared>,
    columns: &Columns,
    pass: Pass,
    dtype: DType,
    jobs: JobList<'_>,
    rows: u32,
) -> Result<Option<&'a Prepared>, CudaError> {
    let mut served = shares(jobs.host, pass).peekable();
    if served.peek().is_none() {
        return Ok(None);
    }
    let fits = kept.as_ref().is_some_and(|old| {
        (old.pass, old.dtype, old.rows) == (pass, dtype, rows)
            && served.eq(old.shares.iter().copied())
    });
    if !fits {
        // Freed first: two of them may be too many.
        *kept = None;
        columns.changed();
        *kept = Some(Prepared::new(columns, pass, dtype, jobs, rows)?);
    }
    Ok(kept.as_ref())
}

impl Prepared {
    fn new(
        columns: &Columns,
        pass: Pass,
        dtype: DType,
        jobs: JobList<'_>,
        rows: u32,
    ) -> Result<Self, CudaError> {
        let shares: Vec<_> = shares(jobs.host, pass).collect();
        let work = Work::cut(&shares, pass, rows);
        let direction = if pass == Pass::Forward { "forward" } else { "backward" };
        let kernel: MatrixKernel = columns
            .engine
            .kernel(&format!("matrices_{dtype}"), &format!("kasmina_matrix_{direction}_{dtype}"))?;
        // Each block of threads has a slice of the scratch memory, so there are no more than can be resident.
        let fit = u32::try_from(SCRATCH_FLOATS / work.slice.max(1)).unwrap_or(u32::MAX);
        let items = u32::try_from(work.items.len()).unwrap_or(u32::MAX);
        let blocks = kernel.resident_blocks(THREADS, 0)?.min(fit).max(1).min(items);
        let stream = &columns.stream;
        Ok(Self {
            pass,
            dtype,
            rows,
            shares,
            kernel,
            items: columns.uploads.buffer(stream, &work.items)?,
            merges: columns.uploads.buffer(stream, &work.merges)?,
            partials: DeviceBuffer::unwritten(stream, to_len(work.partials))?,
            sums: DeviceBuffer::unwritten(stream, work.sums as usize)?,
            slice: work.slice,
            blocks,
        })
    }

    fn launch(
        &self,
        scratch: &mut Option<DeviceBuffer<f32>>,
        columns: &Columns,
        jobs: JobList<'_>,
        operands: Operands,
    ) -> Result<(), CudaError> {
        // A matrix of no rows has no items.
        if self.blocks == 0 {
            return Ok(());
        }
        let needed = to_len(self.slice.saturating_mul(self.blocks.into()));
        let scratch = at_least(scratch, columns, needed)?;
        let address = |view: Option<View>| view.map_or((0, 0), |view| (view.address, view.pitch));
        let (grad_y, grad_y_pitch) = address(operands.grad_y);
        let (out, out_pitch) = address(operands.out);
        let params = MatrixParams {
            x: operands.x.address,
            grad_y,
            out,
            x_pitch: operands.x.pitch,
            grad_y_pitch,
            out_pitch,
            jobs: jobs.device,
            items: self.items.address(),
            bounds: columns.bounds.address(),
            scratch,
            slice: self.slice,
            partials: self.partials.address(),
            sums: self.sums.address(),
            saturated: columns.saturated.address(),
            rows: self.rows,
            count: u32::try_from(self.items.len()).unwrap_or(u32::MAX),
        };
        let config = LaunchConfig::new(self.blocks, THREADS);
        // SAFETY: the parameters are the kernel's; the lists were made for these jobs and rows; every address is of memory that
        // belongs to this stream, or that the caller has joined with it, and lives until what is queued is done.
        unsafe { columns.launch(Piece::Matrices, &self.kernel, &config, (ByValue(params),)) }
    }

    /// Adds the items' gradients to the jobs'.
    fn merge(&self, columns: &Columns, jobs: JobList<'_>) -> Result<(), CudaError> {
        if self.merges.is_empty() {
            return Ok(());
        }
        let kernel: MergeKernel = columns.engine.kernel(MERGE_IMAGE, MERGE_KERNEL)?;
        let params = MergeParams {
            jobs: jobs.device,
            items: self.merges.address(),
            partials: self.partials.address(),
            sums: self.sums.address(),
            rows: self.rows,
            padding: 0,
        };
        let blocks = u32::try_from(self.merges.len()).unwrap_or(u32::MAX);
        let config = LaunchConfig::new(blocks, THREADS);
        // SAFETY: as above; the items' results were queued on the same stream before.
        unsafe { columns.launch(Piece::MatrixMerge, &kernel, &config, (ByValue(params),)) }
    }
}

/// The address of a buffer of at least `len` floats, which need not be kept from call to call.
fn at_least(
    kept: &mut Option<DeviceBuffer<f32>>,
    columns: &Columns,
    len: usize,
) -> Result<u64, CudaError> {
    if let Some(buffer) = kept.as_ref().filter(|buffer| buffer.len() >= len) {
        return Ok(buffer.address());
    }
    *kept = None;
    columns.changed();
    Ok(kept.insert(DeviceBuffer::unwritten(&columns.stream, len)?).address())
}

/// A length; what no memory has room for is refused when it is allocated.
fn to_len(elements: u64) -> usize {
    usize::try_from(elements).unwrap_or(usize::MAX)
}
