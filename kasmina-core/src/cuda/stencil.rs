//! Filters on the GPU, forward and backward: one launch each for all jobs of a layer.

use bytemuck::{Pod, Zeroable};
use kasmina_sys::{ByValue, DeviceBuffer, Kernel, LaunchConfig};

use super::columns::Columns;
use super::error::CudaError;
use super::job::{
    BackwardViews, JobList, KIND_CONV_FILTER, ROLE_PATH, ROLE_RECONSTRUCTION,
    ROLE_STRAIGHT_THROUGH, SeedJob, View,
};
use super::stencil_cut::{Direction, Shape, THREADS, most_taps};
use super::tape::Piece;
use crate::DType;

/// `StencilParams` of `kernels/stencil_pipeline.cuh`; addresses are the device's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct StencilParams {
    x: u64,
    g: u64,
    out: u64,
    x_pitch: u64,
    g_pitch: u64,
    out_pitch: u64,
    jobs: u64,
    list: u64,
    bounds: u64,
    saturated: u64,
    partials: u64,
    arrivals: u64,
    rows: u32,
    count: u32,
    parts: u32,
    units: u32,
    unit_tiles: u32,
    column_tiles: u32,
    tile_packets: u32,
    row_lanes: u32,
    halo: u32,
    stages: u32,
}

const _: () = assert!(size_of::<StencilParams>() == 136, "as in stencil_pipeline.cuh");

pub(super) type Stencil = (ByValue<StencilParams>,);
type StencilKernel = Kernel<Stencil>;

/// Device memory of the filter passes that is kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Stencils {
    forward: WorkList,
    backward: WorkList,
    /// Sums of the parts of jobs that several blocks share.
    partials: Option<DeviceBuffer<f64>>,
    /// One a job, 0 between launches.
    arrivals: Option<DeviceBuffer<u32>>,
}

/// Which jobs a launch serves: their indices, on the device too, where they are written again only when they change.
#[derive(Debug, Default)]
struct WorkList {
    host: Vec<u32>,
    /// Found for this call; kept for its memory.
    found: Vec<u32>,
    device: Option<DeviceBuffer<u32>>,
}

impl WorkList {
    /// Finds the jobs that `serves` says yes to, and returns the list's address and the most taps among them; `None` where
    /// there are none.
    fn update(
        &mut self,
        columns: &Columns,
        jobs: &[SeedJob],
        serves: impl Fn(&SeedJob) -> bool,
    ) -> Result<Option<(u64, u32)>, CudaError> {
        self.found.clear();
        let mut taps = 1;
        for (index, job) in (0u32..).zip(jobs) {
            if job.kind == KIND_CONV_FILTER && serves(job) {
                self.found.push(index);
                taps = taps.max(job.width);
            }
        }
        if self.found.is_empty() {
            return Ok(None);
        }
        if let (Some(device), true) = (&self.device, self.found == self.host) {
            return Ok(Some((device.address(), taps)));
        }
        // A list that was queued only in part is not taken for the one on the device.
        self.host.clear();
        columns.changed();
        let stream = &columns.stream;
        let mut device = match self.device.take() {
            Some(device) if device.len() == self.found.len() => device,
            _ => DeviceBuffer::unwritten(stream, self.found.len())?,
        };
        columns.uploads.write(stream, &mut device.as_mut_slice(), &self.found)?;
        let address = device.address();
        self.device = Some(device);
        self.host.clone_from(&self.found);
        Ok(Some((address, taps)))
    }
}

impl Stencils {
    /// y of every filter on path; `y` may be `x`. After the streaming pass, which copied these chunks. Queued.
    pub(super) fn forward(
        &mut self,
        columns: &Columns,
        dtype: DType,
        jobs: JobList<'_>,
        x: View,
        y: View,
    ) -> Result<(), CudaError> {
        if x.rows == 0 {
            return Ok(());
        }
        let on_path = |job: &SeedJob| job.role == ROLE_PATH;
        let Some((list, taps)) = self.forward.update(columns, jobs.host, on_path)? else {
            return Ok(());
        };
        let launch = Launch {
            direction: Direction::Forward,
            dtype,
            x,
            g: None,
            out: Some(y),
            jobs: jobs.device,
            list,
            count: self.forward.host.len() as u32,
            taps,
        };
        self.launch(columns, &launch)
    }

    /// dL/dx of every filter on path, and the gradients of all filters that train. Queued.
    pub(super) fn backward(
        &mut self,
        columns: &Columns,
        dtype: DType,
        jobs: JobList<'_>,
        views: BackwardViews,
    ) -> Result<(), CudaError> {
        let serves = |job: &SeedJob| match job.role {
            ROLE_PATH => views.gradients.is_some(),
            ROLE_STRAIGHT_THROUGH => views.gradients.is_some() && job.gradients != 0,
            ROLE_RECONSTRUCTION => true,
            _ => false,
        };
        let Some((list, taps)) = self.backward.update(columns, jobs.host, serves)? else {
            return Ok(());
        };
        let launch = Launch {
            direction: Direction::Backward,
            dtype,
            x: views.x,
            g: views.gradients.map(|(g, _)| g),
            out: views.gradients.map(|(_, out)| out),
            jobs: jobs.device,
            list,
            count: self.backward.host.len() as u32,
            taps,
        };
        self.launch(columns, &launch)
    }

    fn launch(&mut self, columns: &Columns, launch: &Launch) -> Result<(), CudaError> {
        let Launch { direction, dtype, x, taps, count, .. } = *launch;
        let engine = &columns.engine;
        let element_bytes = if dtype == DType::F32 { 4 } else { 2 };
        let chunk = columns.layout.chunk() as u32;
        let aligned = x.address.is_multiple_of(16)
            && x.pitch.is_multiple_of(16)
            && (chunk * element_bytes).is_multiple_of(16);
        let cut = Shape {
            direction,
            rows: x.rows,
            chunk,
            element_bytes,
            aligned,
            // dL/dx may be dL/dy, too: rows are walked so that halos are read first, forward and backward.
            in_place: launch
                .out
                .is_some_and(|out| out.address == launch.g.map_or(x.address, |g| g.address)),
            jobs: count,
            taps,
            blocks: engine.multiprocessors() * blocks(direction, taps),
            shared_bytes: engine.shared_bytes(),
        }
        .cut()?;
        let kernel: StencilKernel = engine.kernel(&image_name(dtype), &kernel_name(launch))?;
        let (mut partials, mut arrivals) = (0, 0);
        if direction == Direction::Backward && cut.parts > 1 {
            let sums = count as usize * cut.parts as usize * (most_taps(taps) as usize + 1);
            partials = at_least(&mut self.partials, sums, |n| {
                columns.changed();
                DeviceBuffer::unwritten(&columns.stream, n)
            })?;
            arrivals = at_least(&mut self.arrivals, count as usize, |n| {
                columns.changed();
                DeviceBuffer::zeroed(&columns.stream, n)
            })?;
        }
        let address = |view: Option<View>| view.map_or((0, 0), |view| (view.address, view.pitch));
        let ((g, g_pitch), (out, out_pitch)) = (address(launch.g), address(launch.out));
        let params = StencilParams {
            x: x.address,
            g,
            out,
            x_pitch: x.pitch,
            g_pitch,
            out_pitch,
            jobs: launch.jobs,
            list: launch.list,
            bounds: columns.bounds.address(),
            saturated: columns.saturated.address(),
            partials,
            arrivals,
            rows: x.rows,
            count,
            parts: cut.parts,
            units: cut.units,
            unit_tiles: cut.unit_tiles,
            column_tiles: cut.column_tiles,
            tile_packets: cut.tile_packets,
            row_lanes: cut.row_lanes,
            halo: cut.halo,
            stages: cut.stages,
        };
        let config = LaunchConfig::new(cut.grid, THREADS).shared_bytes(cut.shared_bytes);
        // SAFETY: the parameters are the kernel's; the caller joined the stream with the homes of the matrices and jobs, and
        // everything else is freed on the stream itself; the cut stays within the matrices and counts the shared memory.
        unsafe { columns.launch(Piece::Filters, &kernel, &config, (ByValue(params),)) }
    }
}

/// One launch.
#[derive(Clone, Copy, Debug)]
struct Launch {
    direction: Direction,
    dtype: DType,
    x: View,
    g: Option<View>,
    out: Option<View>,
    /// Address of the jobs.
    jobs: u64,
    /// Address of the indices of those that are served.
    list: u64,
    count: u32,
    /// The most taps among them.
    taps: u32,
}

/// Blocks that a multiprocessor runs at once, as `kernels/stencil_kernels.cuh` holds the registers to; of some 16-bit kernels
/// newer devices run one after the other, which only costs what two at once hide.
fn blocks(direction: Direction, taps: u32) -> u32 {
    if direction == Direction::Backward && most_taps(taps) == 16 { 1 } else { 2 }
}

fn image_name(dtype: DType) -> String {
    format!("stencil_{dtype}")
}

fn kernel_name(launch: &Launch) -> String {
    let direction = match launch.direction {
        Direction::Forward => "forward",
        Direction::Backward => "backward",
    };
    format!("kasmina_stencil_{direction}_{}_{}", launch.dtype, most_taps(launch.taps))
}

/// The address of a buffer of at least `len` elements, made anew where it is too short.
fn at_least<T: kasmina_sys::DeviceCopy>(
    buffer: &mut Option<DeviceBuffer<T>>,
    len: usize,
    make: impl FnOnce(usize) -> Result<DeviceBuffer<T>, kasmina_sys::Error>,
) -> Result<u64, CudaError> {
    match buffer {
        Some(buffer) if buffer.len() >= len => Ok(buffer.address()),
        _ => Ok(buffer.insert(make(len)?).address()),
    }
}
