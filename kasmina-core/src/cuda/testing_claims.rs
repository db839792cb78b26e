//! The source system's design on a GPU, for benches that hold its claims against what is gained over it: not for users, and without
//! promises. What each kernel does is said in `kernels/bench_claims.cu`.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use kasmina_sys::{ByValue, DeviceBuffer, DeviceSlice, DeviceSliceMut, LaunchConfig, Stream};
use kasmina_telemetry::{ChunkStats, GradientStats};

use super::engine::Engine;
use super::error::CudaError;
use crate::{Element, SeedLayout};

const IMAGE: &str = "bench_claims";
const LANES: u32 = 32;
/// Floats of raw telemetry that a program stores.
const RAW: usize = 6;
/// Columns of a chunk that a warp keeps in registers.
const WIDEST_CHUNK: usize = 128;
/// Threads of a block where a segment or an element has one.
const THREADS: u32 = 256;
/// Blocks for each multiprocessor where threads go over the data in strides: enough to fill it.
const BLOCKS_EACH: u32 = 8;

/// `ClaimsParams` of `kernels/bench_claims.cu`; addresses are the device's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(super) struct ClaimsParams {
    x: u64,
    g: u64,
    out: u64,
    raw: u64,
    weight: u64,
    scale: u64,
    alpha: u64,
    grad_weight: u64,
    grad_scale: u64,
    grad_alpha: u64,
    rows: u32,
    hidden: u32,
    chunk: u32,
    seeds: u32,
}

const _: () = assert!(size_of::<ClaimsParams>() == 96, "as in bench_claims.cu");

pub(super) type Programs = (ByValue<ClaimsParams>,);
pub(super) type Reduce = (u64, u64, u32, u32, u32, u32);
pub(super) type Sum = (u64, u64, u64);
pub(super) type SegmentSums = (u64, u64, u64, u64);

/// What a launch makes of a slot of the raw telemetry, as `Metric` of `kernels/bench_claims.cu`.
#[derive(Clone, Copy, Debug)]
enum Metric {
    Sum = 0,
    Mean = 1,
    M2 = 2,
    Min = 3,
    Max = 4,
}

/// One launch each; M2 after the mean that it needs.
const FORWARD_METRICS: [Metric; RAW] =
    [Metric::Sum, Metric::Mean, Metric::M2, Metric::Min, Metric::Max, Metric::Sum];
const BACKWARD_METRICS: [Metric; 4] = [Metric::Sum, Metric::Mean, Metric::M2, Metric::Max];

/// Parameters of an expansion, s·relu(x ⊙ w), in every chunk, and its alpha.
#[derive(Clone, Debug, PartialEq)]
pub struct Expansions {
    /// One a column.
    pub weight: Vec<f32>,
    /// One a seed.
    pub scale: Vec<f32>,
    /// One a seed.
    pub alpha: Vec<f32>,
}

/// A layer as the source system designed it, for matrices of so many rows.
#[derive(Debug)]
pub struct SourceLayer {
    engine: Arc<Engine>,
    stream: Stream,
    layout: SeedLayout,
    rows: usize,
    programs_a_block: u32,
    /// weight, scale, alpha; `None` where all columns are copied.
    parameters: Option<[DeviceBuffer<f32>; 3]>,
    /// Of weight, scale and alpha.
    gradients: [DeviceBuffer<f32>; 3],
    /// [rows][seeds][RAW], of the latest pass.
    raw: DeviceBuffer<f32>,
    /// [RAW][seeds], of the latest forward and the latest backward pass.
    metrics: [DeviceBuffer<f32>; 2],
}

impl SourceLayer {
    /// Programs that share a block: the source's own is 1; more of them are launched faster.
    pub const PROGRAMS_A_BLOCK: [u32; 3] = [1, 4, 8];

    /// A layer on `stream` with expansions on path in every chunk, or with none.
    ///
    /// # Errors
    /// A chunk of more than 128 columns, parameters that do not fit the layout, more than 2³¹ programs, or out of memory.
    pub fn new(
        engine: &Arc<Engine>,
        stream: &Stream,
        layout: SeedLayout,
        rows: usize,
        expansions: Option<&Expansions>,
    ) -> Result<Self, CudaError> {
        at_most("the number of columns of a chunk", layout.chunk(), WIDEST_CHUNK)?;
        let seeds = layout.seeds();
        let programs = rows.saturating_mul(seeds);
        at_most("the number of rows times seeds", programs, i32::MAX as usize)?;
        let lengths = [layout.hidden(), seeds, seeds];
        let parameters = match expansions {
            None => None,
            Some(Expansions { weight, scale, alpha }) => {
                let names = ["weight", "scale", "alpha"];
                let all = [weight, scale, alpha];
                for ((what, values), needed) in names.into_iter().zip(all).zip(lengths) {
                    fits(what, values.len(), needed)?;
                }
                let [weight, scale, alpha] =
                    all.map(|values| DeviceBuffer::from_host(stream, values));
                Some([weight?, scale?, alpha?])
            }
        };
        let [weight, scale, alpha] = lengths.map(|length| DeviceBuffer::zeroed(stream, length));
        let [forward, backward] = [(); 2].map(|()| DeviceBuffer::zeroed(stream, RAW * seeds));
        Ok(Self {
            engine: Arc::clone(engine),
            stream: stream.clone(),
            layout,
            rows,
            programs_a_block: Self::PROGRAMS_A_BLOCK[0],
            parameters,
            gradients: [weight?, scale?, alpha?],
            raw: DeviceBuffer::zeroed(stream, programs * RAW)?,
            metrics: [forward?, backward?],
        })
    }

    /// Launches blocks of so many programs from now on.
    ///
    /// # Errors
    /// 0, or more than 8.
    pub fn set_programs_a_block(&mut self, programs: u32) -> Result<(), CudaError> {
        if !(1..=8).contains(&programs) {
            let (what, legal) = ("the number of programs a block".to_owned(), "1 to 8");
            return Err(crate::Error::Value { what, value: programs.into(), legal }.into());
        }
        self.programs_a_block = programs;
        Ok(())
    }

    /// Launches that a forward pass with telemetry takes, and a backward pass.
    #[must_use]
    pub fn launches() -> [usize; 2] {
        [1 + FORWARD_METRICS.len(), 1 + BACKWARD_METRICS.len()]
    }

    /// y, the raw telemetry, and a launch for each metric of it. Queued.
    ///
    /// # Errors
    /// Matrices of another size, an element that the kernels do not have (f16), or the driver refused.
    pub fn forward<T: Element>(
        &mut self,
        x: DeviceSlice<'_, T>,
        y: &mut DeviceSliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        self.check(&[("x", x.len()), ("y", y.len())])?;
        let params = ClaimsParams { x: x.address(), out: y.address(), ..self.params() };
        let kernel = format!("kasmina_claims_forward_{}", T::DTYPE);
        self.joined(&[x.home(), y.home()], |layer| {
            layer.launch_programs(&kernel, params)?;
            layer.reduce(&layer.metrics[0], &FORWARD_METRICS)
        })
    }

    /// dL/dx, parameter gradients added to those before, and the gradient's telemetry as the forward pass has it. Queued.
    ///
    /// # Errors
    /// As for [`SourceLayer::forward`], and a layer without expansions.
    pub fn backward<T: Element>(
        &mut self,
        x: DeviceSlice<'_, T>,
        g: DeviceSlice<'_, T>,
        grad_x: &mut DeviceSliceMut<'_, T>,
    ) -> Result<(), CudaError> {
        self.check(&[("x", x.len()), ("g", g.len()), ("grad_x", grad_x.len())])?;
        if self.parameters.is_none() {
            fits("the weight", 0, self.layout.hidden())?;
        }
        let params =
            ClaimsParams { x: x.address(), g: g.address(), out: grad_x.address(), ..self.params() };
        let kernel = format!("kasmina_claims_backward_{}", T::DTYPE);
        self.joined(&[x.home(), g.home(), grad_x.home()], |layer| {
            layer.launch_programs(&kernel, params)?;
            layer.reduce(&layer.metrics[1], &BACKWARD_METRICS)
        })
    }

    /// Statistics of the latest forward pass, one a seed. Waits.
    ///
    /// # Errors
    /// A pass, or the copy, failed.
    pub fn chunk_stats(&self) -> Result<Vec<ChunkStats>, CudaError> {
        let all = self.metrics[0].to_vec()?;
        let (seeds, total) = (self.layout.seeds(), |seed| self.elements_of(seed));
        let stats = (0..seeds).map(|seed| {
            let [n, mean, m2, min, max, dead] =
                std::array::from_fn(|slot| all[slot * seeds + seed]);
            let n = n as u64;
            ChunkStats {
                n,
                dead: dead as u64,
                nonfinite: total(seed).saturating_sub(n),
                mean: mean.into(),
                m2: m2.into(),
                min,
                max,
            }
        });
        Ok(stats.collect())
    }

    /// Statistics of the latest backward pass's dL/dy, one a seed. Waits.
    ///
    /// # Errors
    /// A pass, or the copy, failed.
    pub fn gradient_stats(&self) -> Result<Vec<GradientStats>, CudaError> {
        let all = self.metrics[1].to_vec()?;
        let seeds = self.layout.seeds();
        let stats = (0..seeds).map(|seed| {
            let [n, mean, m2, max_abs] = std::array::from_fn(|slot| all[slot * seeds + seed]);
            let (mean, m2) = (f64::from(mean), f64::from(m2));
            let sum_squares = m2 + f64::from(n) * mean * mean;
            let n = n as u64;
            let nonfinite = self.elements_of(seed).saturating_sub(n);
            GradientStats { n, nonfinite, mean, m2, max_abs, sum_squares }
        });
        Ok(stats.collect())
    }

    /// Gradients of weight, scale and alpha, of all backward passes so far. Waits.
    ///
    /// # Errors
    /// A pass, or the copy, failed.
    pub fn gradients(&self) -> Result<[Vec<f32>; 3], CudaError> {
        let [weight, scale, alpha] = self.gradients.each_ref().map(DeviceBuffer::to_vec);
        Ok([weight?, scale?, alpha?])
    }

    fn elements_of(&self, seed: usize) -> u64 {
        (self.rows * self.layout.chunk_len(seed)) as u64
    }

    fn check(&self, matrices: &[(&'static str, usize)]) -> Result<(), CudaError> {
        let needed = self.rows * self.layout.hidden();
        matrices.iter().try_for_each(|(what, found)| fits(what, *found, needed))
    }

    fn params(&self) -> ClaimsParams {
        let [weight, scale, alpha] = match &self.parameters {
            None => [0; 3],
            Some(parameters) => parameters.each_ref().map(DeviceBuffer::address),
        };
        let [grad_weight, grad_scale, grad_alpha] =
            self.gradients.each_ref().map(DeviceBuffer::address);
        let raw = self.raw.address();
        let shape = geometry(self.layout, self.rows);
        ClaimsParams { raw, weight, scale, alpha, grad_weight, grad_scale, grad_alpha, ..shape }
    }

    fn launch_programs(&self, kernel: &str, params: ClaimsParams) -> Result<(), CudaError> {
        let kernel = self.engine.kernel::<Programs>(IMAGE, kernel)?;
        let config = programs(&params, self.programs_a_block);
        // SAFETY: the parameters are buffers of this layer and matrices whose sizes were checked and whose homes are joined.
        Ok(unsafe { kernel.launch(&self.stream, &config, (ByValue(params),)) }?)
    }

    fn reduce(&self, out: &DeviceBuffer<f32>, metrics: &[Metric]) -> Result<(), CudaError> {
        let kernel = self.engine.kernel::<Reduce>(IMAGE, "kasmina_claims_reduce")?;
        let ClaimsParams { rows, seeds, .. } = geometry(self.layout, self.rows);
        let config = LaunchConfig::new(seeds, THREADS);
        for (slot, metric) in (0u32..).zip(metrics) {
            let (raw, out) = (self.raw.address(), out.address());
            let arguments = (raw, out, rows, seeds, *metric as u32, slot);
            // SAFETY: `raw` has a record for each row and seed, `out` a slot of so many seeds for each metric; both live on this
            // stream.
            unsafe { kernel.launch(&self.stream, &config, arguments) }?;
        }
        Ok(())
    }

    fn joined(
        &self,
        homes: &[&Stream],
        body: impl FnOnce(&Self) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        joined(&self.stream, homes, || body(self))
    }
}

/// How a sum is added up without a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectSum {
    /// Every element by an atomic of its own.
    Elements,
    /// What a warp's elements come to by one.
    Warps,
}

/// How statistics of chunks are made without a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectChunks {
    /// A warp for each row and seed, and an atomic for each of its six numbers.
    Atomics,
    /// One thread a seed.
    Threads,
}

/// Reductions as the source system's other strategies have them, `Atomic` and `Direct`.
#[derive(Clone, Debug)]
pub struct SourceReductions {
    engine: Arc<Engine>,
    stream: Stream,
}

impl SourceReductions {
    /// On a stream.
    #[must_use]
    pub fn new(engine: &Arc<Engine>, stream: &Stream) -> Self {
        Self { engine: Arc::clone(engine), stream: stream.clone() }
    }

    /// The sum of x, as one f32. Queued; atomics begin at a zero that is part of it.
    ///
    /// # Errors
    /// An `out` of another length than 1, or the driver refused.
    pub fn sum(
        &self,
        how: DirectSum,
        x: DeviceSlice<'_, f32>,
        out: &mut DeviceBuffer<f32>,
    ) -> Result<(), CudaError> {
        fits("the sum", out.len(), 1)?;
        let name = match how {
            DirectSum::Elements => "kasmina_claims_sum_elements",
            DirectSum::Warps => "kasmina_claims_sum_warps",
        };
        let kernel = self.engine.kernel::<Sum>(IMAGE, name)?;
        let config = LaunchConfig::new(BLOCKS_EACH * self.engine.multiprocessors(), THREADS);
        out.fill_zero(&self.stream)?;
        let arguments = (x.address(), x.len() as u64, out.address());
        joined(&self.stream, &[x.home(), out.home()], || {
            // SAFETY: `x` has that many elements and `out` one; the joins order this among their other uses.
            Ok(unsafe { kernel.launch(&self.stream, &config, arguments) }?)
        })
    }

    /// Sums of every `segment` neighbouring elements, a thread each. Queued.
    ///
    /// # Errors
    /// Segments of 0, an `out` of another length than there are segments, or the driver refused.
    pub fn segment_sums(
        &self,
        x: DeviceSlice<'_, f32>,
        segment: usize,
        out: &mut DeviceBuffer<f64>,
    ) -> Result<(), CudaError> {
        if segment == 0 {
            return Err(crate::Error::Zero { what: "segment" }.into());
        }
        let segments = x.len().div_ceil(segment);
        fits("the sums", out.len(), segments)?;
        at_most("the number of segments", segments, i32::MAX as usize)?;
        let kernel = self.engine.kernel::<SegmentSums>(IMAGE, "kasmina_claims_sum_segments")?;
        let config = LaunchConfig::new((segments as u32).div_ceil(THREADS).max(1), THREADS);
        let arguments = (x.address(), x.len() as u64, segment as u64, out.address());
        joined(&self.stream, &[x.home(), out.home()], || {
            // SAFETY: `x` has that many elements and `out` one for each segment; the joins order this among their other uses.
            Ok(unsafe { kernel.launch(&self.stream, &config, arguments) }?)
        })
    }

    /// Statistics of every chunk of a dense matrix into six words a seed, for [`SourceReductions::chunk_stats`]. Queued; atomics
    /// begin at zeros that are part of it.
    ///
    /// # Errors
    /// An `out` of another length, an x of another size, or the driver refused.
    pub fn chunks(
        &self,
        how: DirectChunks,
        x: DeviceSlice<'_, f32>,
        (layout, rows): (SeedLayout, usize),
        out: &mut DeviceBuffer<f32>,
    ) -> Result<(), CudaError> {
        fits("x", x.len(), rows * layout.hidden())?;
        fits("the statistics", out.len(), RAW * layout.seeds())?;
        at_most("the number of rows times seeds", rows * layout.seeds(), i32::MAX as usize)?;
        let (x_at, raw) = (x.address(), out.address());
        let params = ClaimsParams { x: x_at, raw, ..geometry(layout, rows) };
        let (name, config) = match how {
            DirectChunks::Atomics => ("kasmina_claims_chunks_atomic", programs(&params, 8)),
            DirectChunks::Threads => {
                let config = LaunchConfig::new(params.seeds.div_ceil(LANES), LANES);
                ("kasmina_claims_chunks_thread", config)
            }
        };
        let kernel = self.engine.kernel::<Programs>(IMAGE, name)?;
        if how == DirectChunks::Atomics {
            out.fill_zero(&self.stream)?;
        }
        joined(&self.stream, &[x.home(), out.home()], || {
            // SAFETY: `x` is the matrix that the parameters say, `out` has six words a seed; the joins order this among their other
            // uses.
            Ok(unsafe { kernel.launch(&self.stream, &config, (ByValue(params),)) }?)
        })
    }

    /// What [`SourceReductions::chunks`] has written. Waits.
    ///
    /// # Errors
    /// A reduction, or the copy, failed.
    pub fn chunk_stats(
        &self,
        (layout, rows): (SeedLayout, usize),
        out: &DeviceBuffer<f32>,
    ) -> Result<Vec<ChunkStats>, CudaError> {
        let seeds = layout.seeds();
        fits("the statistics", out.len(), RAW * seeds)?;
        let all = out.to_vec()?;
        let stats = (0..seeds).map(|seed| {
            let [n, sum, squares, low, high, dead] =
                std::array::from_fn(|slot| all[slot * seeds + seed]);
            let (sum, squares) = (f64::from(sum), f64::from(squares));
            let mean = if n == 0.0 { 0.0 } else { sum / f64::from(n) };
            let n = n as u64;
            ChunkStats {
                n,
                dead: dead as u64,
                nonfinite: ((rows * layout.chunk_len(seed)) as u64).saturating_sub(n),
                mean,
                m2: squares - sum * mean,
                min: -unordered(low.to_bits()),
                max: unordered(high.to_bits()),
            }
        });
        Ok(stats.collect())
    }
}

/// The float that `ordered` of `kernels/bench_claims.cu` made these bits of; −∞ for none.
fn unordered(bits: u32) -> f32 {
    match bits {
        0 => f32::NEG_INFINITY,
        bits if bits >> 31 == 1 => f32::from_bits(bits & 0x7fff_ffff),
        bits => f32::from_bits(!bits),
    }
}

/// The shape alone. Its sides fit where rows times seeds do, which the callers check.
fn geometry(layout: SeedLayout, rows: usize) -> ClaimsParams {
    ClaimsParams {
        rows: rows as u32,
        hidden: layout.hidden() as u32,
        chunk: layout.chunk() as u32,
        seeds: layout.seeds() as u32,
        ..ClaimsParams::default()
    }
}

/// A warp for each row and seed.
fn programs(params: &ClaimsParams, a_block: u32) -> LaunchConfig {
    let programs = params.rows * params.seeds;
    LaunchConfig::new(programs.div_ceil(a_block).max(1), a_block * LANES)
}

fn joined(
    stream: &Stream,
    homes: &[&Stream],
    body: impl FnOnce() -> Result<(), CudaError>,
) -> Result<(), CudaError> {
    for home in homes {
        stream.join(home)?;
    }
    let outcome = body();
    for home in homes {
        home.join(stream)?;
    }
    outcome
}

fn fits(what: &'static str, found: usize, needed: usize) -> Result<(), CudaError> {
    if found == needed {
        return Ok(());
    }
    Err(CudaError::Shape { what, found: (1, found), needed: (1, needed) })
}

fn at_most(what: &'static str, value: usize, limit: usize) -> Result<(), CudaError> {
    if value <= limit { Ok(()) } else { Err(CudaError::TooLarge { what, value, limit }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the device makes them.
    fn ordered(x: f32) -> u32 {
        let bits = x.to_bits();
        if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
    }

    #[test]
    fn ordered_floats_come_back_and_are_in_order() {
        let ascending = [-f32::MAX, -1.5, -1e-40, -0.0, 0.0, 1e-40, 2.0, f32::MAX];
        for pair in ascending.windows(2) {
            assert!(ordered(pair[0]) < ordered(pair[1]), "{pair:?}");
        }
        for x in ascending {
            assert_eq!(unordered(ordered(x)).to_bits(), x.to_bits(), "{x}");
            assert!(ordered(x) > 0);
        }
        assert_eq!(unordered(0), f32::NEG_INFINITY);
    }

    #[test]
    fn every_row_and_seed_has_a_warp() {
        let layout = SeedLayout::new(100, 64).expect("it fits");
        let params = geometry(layout, 7);
        assert_eq!((params.rows, params.hidden, params.chunk, params.seeds), (7, 100, 64, 2));
        for (a_block, blocks) in [(1, 14), (4, 4), (8, 2)] {
            assert_eq!(programs(&params, a_block), LaunchConfig::new(blocks, a_block * 32));
        }
        assert_eq!(SourceLayer::launches(), [7, 5]);
    }
}
