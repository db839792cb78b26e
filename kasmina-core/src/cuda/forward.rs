//! The streaming forward pass: one layer's column programs and statistics on the device, and the launches over them.

use std::sync::Arc;

use kasmina_sys::{ByValue, DeviceBuffer, DeviceSliceMut, LaunchConfig, Stream};
use kasmina_telemetry::ChunkStats;
use kasmina_tma::{
    DataType, Geometry as MapGeometry, L2Promotion, LoadPath, LoadShape, Selection, TensorMap,
};

use super::engine::{Engine, ForwardKernel};
use super::error::CudaError;
use super::geometry::{Geometry, PACKET_BYTES};
use super::matrix::{DeviceMatMut, DeviceMatRef};
use super::params::{COMPUTE, ForwardParams, RawBounds};
use super::variants::{Counting, ForwardVariant};
use crate::lower::{Lowered, Plan};
use crate::{Bounds, DType, Element, SeedLayout};

/// The greatest number of rows or columns.
const MAX_SIDE: usize = 1 << 31;

/// How one pass is to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forward {
    /// Whether the input is counted into the seeds' statistics.
    pub measured: bool,
    /// |x| up to this is dead.
    pub dead_epsilon: f32,
    /// Force a rung of the load ladder.
    pub path: Option<LoadPath>,
}

/// How a pass ran.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ForwardReport {
    /// The way that x is loaded, and why not a better one.
    pub path: Selection,
    /// The kernel; `None` where the driver's own copy did it, or nothing had to be done.
    pub kernel: Option<String>,
    /// Blocks that were launched.
    pub blocks: u32,
}

/// One layer on the device: its column programs, what they do to which columns, and the statistics gathered so far. All of it
/// belongs to one stream, on which passes are queued; nothing waits for the host.
#[derive(Debug)]
pub struct Streams {
    engine: Arc<Engine>,
    stream: Stream,
    layout: SeedLayout,
    programs: DeviceBuffer<[f32; 4]>,
    flags: DeviceBuffer<u8>,
    /// The host's copy, from which tiles' flags are made.
    host_flags: Vec<u8>,
    bounds: DeviceBuffer<RawBounds>,
    totals: DeviceBuffer<ChunkStats>,
    saturated: DeviceBuffer<u64>,
    cut: Option<Cut>,
}

/// What belongs to one cut of the matrix; kept while the shape stays.
#[derive(Debug)]
struct Cut {
    geometry: Geometry,
    tile_flags: DeviceBuffer<u8>,
    partials: DeviceBuffer<ChunkStats>,
    arrivals: DeviceBuffer<u32>,
}

impl Streams {
    /// A layer whose columns are all copied, with empty statistics.
    ///
    /// # Errors
    /// Out of memory, or more columns than the kernels take.
    pub fn new(
        engine: &Arc<Engine>,
        stream: &Stream,
        layout: SeedLayout,
    ) -> Result<Self, CudaError> {
        let columns = layout.hidden();
        side("the number of columns", columns)?;
        Ok(Self {
            engine: Arc::clone(engine),
            stream: stream.clone(),
            layout,
            programs: DeviceBuffer::zeroed(stream, columns)?,
            flags: DeviceBuffer::zeroed(stream, columns)?,
            host_flags: vec![0; columns],
            bounds: DeviceBuffer::zeroed(stream, 1)?,
            totals: DeviceBuffer::from_host(stream, &vec![ChunkStats::EMPTY; layout.seeds()])?,
            saturated: DeviceBuffer::zeroed(stream, 1)?,
            cut: None,
        })
    }

    /// Replaces all programs by those of a lowered layer.
    ///
    /// # Errors
    /// [`CudaError::NotStreamed`] for a seed on path whose branch mixes columns, the programs unchanged; or the copy failed.
    pub fn set_plan(&mut self, plan: &Plan) -> Result<(), CudaError> {
        let mut flags = vec![0u8; self.layout.hidden()];
        for (&seed, planned) in &plan.seeds {
            match planned.path {
                Lowered::Copy => {}
                Lowered::Pointwise => flags[self.layout.columns(seed)].fill(COMPUTE),
                Lowered::Stencil { .. } | Lowered::Matrix => {
                    return Err(CudaError::NotStreamed { seed });
                }
            }
        }
        let identity = [1.0, 1.0, 0.0, 1.0];
        let packed: Vec<[f32; 4]> = match plan.programs(0..self.layout.hidden()) {
            None => vec![identity; self.layout.hidden()],
            Some(all) => {
                let columns = all.on.iter().zip(all.off).zip(all.bias.iter().zip(all.polarity));
                columns.map(|((on, off), (bias, polarity))| [*on, *off, *bias, *polarity]).collect()
            }
        };
        self.programs.copy_from_host(&packed)?;
        self.flags.copy_from_host(&flags)?;
        self.host_flags = flags;
        self.cut = None;
        Ok(())
    }

    /// Sets the guards of the passes from now on.
    ///
    /// # Errors
    /// The copy failed.
    pub fn set_bounds(&mut self, bounds: Bounds) -> Result<(), CudaError> {
        let Bounds { guarded, epsilon, lower, upper } = bounds;
        let raw = RawBounds { guarded: guarded.into(), epsilon, lower, upper };
        Ok(self.bounds.copy_from_host(&[raw])?)
    }

    /// y = layer(x), both `[rows, hidden]`, each with its own row stride. Queued, not waited for.
    ///
    /// # Errors
    /// A shape that does not fit, a rung that is not possible, or the driver refused.
    pub fn forward<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        y: &mut DeviceMatMut<'_, T>,
        options: &Forward,
    ) -> Result<ForwardReport, CudaError> {
        let output = y.as_ref();
        self.run(x, output, false, options)
    }

    /// The same with the result in `x` itself: tiles that nothing changes are only read, and that only where they are counted.
    ///
    /// # Errors
    /// As for [`Streams::forward`].
    pub fn forward_in_place<T: Element>(
        &mut self,
        x: &mut DeviceMatMut<'_, T>,
        options: &Forward,
    ) -> Result<ForwardReport, CudaError> {
        let both = x.as_ref();
        self.run(both, both, true, options)
    }

    /// The statistics gathered so far, one entry a seed. Waits for the passes queued before.
    ///
    /// # Errors
    /// A pass, or the copy, failed.
    pub fn stats(&self) -> Result<Vec<ChunkStats>, CudaError> {
        Ok(self.totals.to_vec()?)
    }

    /// Starts the statistics anew.
    ///
    /// # Errors
    /// The copy failed.
    pub fn clear_stats(&mut self) -> Result<(), CudaError> {
        Ok(self.totals.copy_from_host(&vec![ChunkStats::EMPTY; self.layout.seeds()])?)
    }

    /// Outputs so far that did not fit their type. Waits for the passes queued before.
    ///
    /// # Errors
    /// A pass, or the copy, failed.
    pub fn saturated(&self) -> Result<u64, CudaError> {
        Ok(self.saturated.to_vec()?.first().copied().unwrap_or(0))
    }

    /// `y` is written: the callers hold it exclusively, or it is `x` itself, which they do.
    fn run<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        y: DeviceMatRef<'_, T>,
        in_place: bool,
        options: &Forward,
    ) -> Result<ForwardReport, CudaError> {
        let (rows, columns) = x.shape();
        self.check_shape("x", x.shape(), rows)?;
        self.check_shape("y", y.shape(), rows)?;
        side("the number of rows", rows)?;
        let computes = self.host_flags.iter().any(|flags| flags & COMPUTE != 0);
        let counting = self.counting::<T>(options.measured);
        let shape = load_shape(&x, &y);
        let rung = rung::<T>(columns, options.path)?;
        if rows == 0 {
            let shape = LoadShape { rows: 1, ..shape };
            return Ok(self.idle(self.engine.select(&shape, rung)?));
        }
        let mut path = self.engine.select(&shape, rung)?;
        if path.path < LoadPath::CpAsync
            && !columns.is_multiple_of(PACKET_BYTES as usize / size_of::<T>())
        {
            path = self.engine.select(&shape, Some(LoadPath::CpAsync))?;
        }
        if counting == Counting::Off && !computes {
            if in_place {
                return Ok(self.idle(path));
            }
            if x.row_stride() == columns && y.row_stride() == columns {
                self.copy(&x, &y)?;
                return Ok(self.idle(path));
            }
        }
        let variant =
            ForwardVariant { dtype: T::DTYPE, path: path.path, counting, computes }.available();
        self.launch(variant, x, y, in_place, options)?;
        let blocks = self.cut.as_ref().map_or(0, |cut| cut.geometry.blocks());
        Ok(ForwardReport { path, kernel: Some(variant.name()), blocks })
    }

    fn launch<T: Element>(
        &mut self,
        variant: ForwardVariant,
        x: DeviceMatRef<'_, T>,
        y: DeviceMatRef<'_, T>,
        in_place: bool,
        options: &Forward,
    ) -> Result<(), CudaError> {
        let rows = x.shape().0 as u32;
        let machine = self.engine.machine(&variant);
        let geometry =
            Geometry::new(rows, self.layout, variant.element_bytes(), variant.path, machine);
        self.prepare(geometry)?;
        let kernel = self.engine.forward(variant)?;
        // `prepare` has just made it.
        let Some(cut) = &self.cut else { return Ok(()) };
        let element = size_of::<T>() as u64;
        let params = ForwardParams {
            x: x.data().address(),
            y: y.data().address(),
            x_pitch: x.row_stride() as u64 * element,
            y_pitch: y.row_stride() as u64 * element,
            programs: self.programs.address(),
            flags: self.flags.address(),
            tile_flags: cut.tile_flags.address(),
            bounds: self.bounds.address(),
            partials: cut.partials.address(),
            totals: self.totals.address(),
            watched: 0,
            arrivals: cut.arrivals.address(),
            saturated: self.saturated.address(),
            geometry,
            dead_epsilon: options.dead_epsilon,
            in_place: in_place.into(),
        };
        let shared = shared_bytes(&variant, &geometry);
        let config = LaunchConfig::new(geometry.blocks(), variant.threads()).shared_bytes(shared);
        let homes = [x.data().home(), y.data().home()];
        let maps = match variant.path {
            LoadPath::TensorMap => (self.map(&x, &geometry)?, self.map(&y, &geometry)?),
            _ => (TensorMap::ZERO, TensorMap::ZERO),
        };
        // Kernels are not joined with their buffers' streams by themselves.
        for home in homes {
            self.stream.join(home)?;
        }
        let launched = match &kernel {
            // SAFETY: the parameters are the kernel's; every address in them is of memory that lives until the kernel is done,
            // as its frees are queued on streams that are joined with this one, before and after; the layout of the shared
            // memory is what `shared_bytes` counts.
            ForwardKernel::BulkTensor(kernel) => unsafe {
                kernel.launch(&self.stream, &config, (maps.0, maps.1, ByValue(params)))
            },
            // SAFETY: as above.
            ForwardKernel::Plain(kernel) => unsafe {
                kernel.launch(&self.stream, &config, (ByValue(params),))
            },
        };
        for home in homes {
            home.join(&self.stream)?;
        }
        Ok(launched?)
    }

    /// A map of the tiles of `matrix`: boxes of whole rows of a stage.
    fn map<T: Element>(
        &self,
        matrix: &DeviceMatRef<'_, T>,
        geometry: &Geometry,
    ) -> Result<TensorMap, CudaError> {
        let (rows, columns) = matrix.shape();
        let element = size_of::<T>() as u64;
        let elements = PACKET_BYTES / size_of::<T>() as u32;
        // The stride of a single row is never used, but it is checked.
        let stride = (matrix.row_stride() as u64 * element).next_multiple_of(16);
        let map = MapGeometry::tiled(data_type(T::DTYPE))
            .sizes(&[columns as u64, rows as u64])
            .strides(&[stride])
            .box_sides(&[geometry.box_packets * elements, geometry.stage_rows()])
            .l2_promotion(L2Promotion::Bytes256)
            .build()?;
        let maps = self.engine.maps();
        let bound = match matrix.data().watch() {
            Some(_) => maps.get(matrix.data(), &map)?,
            // Nobody tells when memory of someone else's goes, so its maps are made anew each time.
            None => kasmina_tma::BoundTensorMap::encode(matrix.data(), &map)?,
        };
        // SAFETY: the matrix is borrowed until the kernel is queued, and its memory is freed after it.
        Ok(unsafe { bound.unbound() })
    }

    /// Keeps what belongs to the cut, or makes it anew.
    fn prepare(&mut self, geometry: Geometry) -> Result<(), CudaError> {
        if self.cut.as_ref().is_some_and(|cut| cut.geometry == geometry) {
            return Ok(());
        }
        let tile_flags: Vec<u8> = self
            .host_flags
            .chunks(geometry.tile_columns as usize)
            .map(|tile| tile.iter().fold(0, |all, flags| all | flags))
            .collect();
        self.cut = Some(Cut {
            geometry,
            tile_flags: DeviceBuffer::from_host(&self.stream, &tile_flags)?,
            partials: DeviceBuffer::unwritten(&self.stream, geometry.partials())?,
            arrivals: DeviceBuffer::zeroed(&self.stream, geometry.clusters() as usize)?,
        });
        Ok(())
    }

    /// The driver's copy of a whole, dense matrix.
    fn copy<T: Element>(
        &self,
        x: &DeviceMatRef<'_, T>,
        y: &DeviceMatRef<'_, T>,
    ) -> Result<(), CudaError> {
        let elements = x.shape().0 * x.shape().1;
        let from = x.data().slice(..elements)?;
        // SAFETY: the caller holds `y` exclusively for this call.
        let mut to =
            unsafe { DeviceSliceMut::from_raw(y.data().home(), y.data().address(), elements) }?;
        Ok(to.copy_from_device(from, &self.stream)?)
    }

    fn idle(&self, path: Selection) -> ForwardReport {
        ForwardReport { path, kernel: None, blocks: 0 }
    }

    fn counting<T: Element>(&self, measured: bool) -> Counting {
        let lanes = PACKET_BYTES as usize / size_of::<T>();
        let whole = |columns: usize| columns.is_multiple_of(lanes);
        match measured {
            false => Counting::Off,
            true if whole(self.layout.chunk()) && whole(self.layout.hidden()) => Counting::Packet,
            true => Counting::Column,
        }
    }

    fn check_shape(
        &self,
        what: &'static str,
        found: (usize, usize),
        rows: usize,
    ) -> Result<(), CudaError> {
        let needed = (rows, self.layout.hidden());
        if found == needed { Ok(()) } else { Err(CudaError::Shape { what, found, needed }) }
    }
}

/// The rung to ask for. Bulk stores write whole packets: on an H200 a bulk-tensor store of 5 f16 columns wrote zeros to the three
/// behind them, outside the tensor. So rows that end within a packet are stored by threads, and then loaded by them, too.
fn rung<T: Element>(
    columns: usize,
    forced: Option<LoadPath>,
) -> Result<Option<LoadPath>, CudaError> {
    let per_packet = PACKET_BYTES as usize / size_of::<T>();
    match forced {
        _ if columns.is_multiple_of(per_packet) => Ok(forced),
        Some(path @ (LoadPath::TensorMap | LoadPath::Bulk)) => {
            Err(CudaError::RaggedRows { path, columns, per_packet })
        }
        other => Ok(other),
    }
}

fn side(what: &'static str, value: usize) -> Result<(), CudaError> {
    if value <= MAX_SIDE {
        return Ok(());
    }
    Err(CudaError::TooLarge { what, value, limit: MAX_SIDE })
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::F32,
        DType::F16 => DataType::F16,
        DType::Bf16 => DataType::Bf16,
    }
}

/// Both matrices as the load ladder sees them: the lesser alignment, and a row stride that is aligned where both are.
fn load_shape<T: Element>(x: &DeviceMatRef<'_, T>, y: &DeviceMatRef<'_, T>) -> LoadShape {
    let (rows, columns) = x.shape();
    let bits = x.data().address() | y.data().address();
    let alignment = 1u64 << bits.trailing_zeros().min(8);
    let per_packet = PACKET_BYTES as usize / size_of::<T>();
    let aligned = |stride: usize| stride.is_multiple_of(per_packet);
    let row_stride = if aligned(x.row_stride()) { y.row_stride() } else { x.row_stride() };
    LoadShape {
        rows: rows as u64,
        columns: columns as u64,
        row_stride: row_stride as u64,
        data_type: data_type(T::DTYPE),
        alignment,
    }
}

/// Dynamic shared memory of a block: the stages with their barriers, or the threads' own places; and no less than the
/// statistics need at the end.
fn shared_bytes(variant: &ForwardVariant, geometry: &Geometry) -> u32 {
    const BARRIERS: u32 = 3 * 8;
    const ASYNC_STAGES: u32 = 4;
    let places = super::geometry::ROWS * super::geometry::WORKERS * PACKET_BYTES;
    let pipeline = match variant.path {
        LoadPath::TensorMap | LoadPath::Bulk => {
            geometry.stages * (geometry.stage_bytes() + BARRIERS)
        }
        LoadPath::CpAsync => ASYNC_STAGES * places,
        LoadPath::Vector16 | LoadPath::Scalar => places,
    };
    let per_thread = match variant.counting {
        Counting::Off => 0,
        Counting::Packet => 1,
        Counting::Column => PACKET_BYTES / variant.element_bytes(),
    };
    let statistics = super::geometry::WORKERS * per_thread * size_of::<ChunkStats>() as u32;
    pipeline.max(statistics)
}
