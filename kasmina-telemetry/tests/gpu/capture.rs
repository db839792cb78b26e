//! Reductions in CUDA graphs, and memory that is used again.

use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_sys::{CaptureMode, Device, DeviceBuffer, DeviceCopy, Graph, Stream};
use kasmina_telemetry::columns::Extrema;
use kasmina_telemetry::cuda::{
    CountRecord, CudaError, DeviceMatrix, Engine, FloatSum, GpuElement, Reducer,
};
use kasmina_telemetry::{ChunkStats, Comparison, ReductionOptions, ReductionStrategy};

use crate::values::{Kind, values};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("captured_reductions_replay_to_the_same_bits", replay),
    ("what_cannot_be_captured_is_refused_and_spoils_nothing", refused),
    ("ten_thousand_rounds_of_reductions_keep_their_memory", rounds),
];

const ALL: [ReductionStrategy; 3] =
    [ReductionStrategy::Hierarchical, ReductionStrategy::Atomic, ReductionStrategy::Direct];
/// Large enough for several pieces, blocks of rows, and a queue.
const ROWS: usize = 1500;
const COLUMNS: usize = 512;
const N: usize = ROWS * COLUMNS;
const SEGMENT: usize = 64;
const LONG: usize = 1 << 18;
const CHUNK: usize = 48;

/// One result of each reduction, on the device.
struct Results {
    sum: DeviceBuffer<FloatSum>,
    summary: DeviceBuffer<<f32 as GpuElement>::Summary>,
    bounds: DeviceBuffer<<f32 as GpuElement>::Bounds>,
    count: DeviceBuffer<CountRecord>,
    statistics: DeviceBuffer<<f32 as GpuElement>::Statistics>,
    segments: DeviceBuffer<ChunkStats>,
    long: DeviceBuffer<f64>,
    between: DeviceBuffer<f64>,
    columns: DeviceBuffer<f64>,
    extrema: DeviceBuffer<Extrema>,
    chunks: DeviceBuffer<ChunkStats>,
}

impl Results {
    fn new(stream: &Stream, cuts: usize) -> Result<Self, Failed> {
        Ok(Self {
            sum: DeviceBuffer::zeroed(stream, 1)?,
            summary: DeviceBuffer::zeroed(stream, 1)?,
            bounds: DeviceBuffer::zeroed(stream, 1)?,
            count: DeviceBuffer::zeroed(stream, 1)?,
            statistics: DeviceBuffer::zeroed(stream, 1)?,
            segments: DeviceBuffer::zeroed(stream, N.div_ceil(SEGMENT))?,
            long: DeviceBuffer::zeroed(stream, N.div_ceil(LONG))?,
            between: DeviceBuffer::zeroed(stream, cuts - 1)?,
            columns: DeviceBuffer::zeroed(stream, COLUMNS)?,
            extrema: DeviceBuffer::zeroed(stream, COLUMNS)?,
            chunks: DeviceBuffer::zeroed(stream, COLUMNS.div_ceil(CHUNK))?,
        })
    }

    /// Queues all of them.
    fn queue(
        &mut self,
        reducer: &mut Reducer,
        x: &DeviceBuffer<f32>,
        cuts: &DeviceBuffer<u64>,
        options: &ReductionOptions,
    ) -> Result<(), CudaError> {
        let slice = x.as_slice();
        let matrix = DeviceMatrix::contiguous(slice, ROWS, COLUMNS)?;
        reducer.sum_into(slice, options, self.sum.as_mut_slice())?;
        reducer.summary_into(slice, options, self.summary.as_mut_slice())?;
        reducer.bounds_into(slice, options, self.bounds.as_mut_slice())?;
        reducer.count_into(slice, Comparison::Greater, 1e4, options, self.count.as_mut_slice())?;
        reducer.statistics_into(slice, options, self.statistics.as_mut_slice())?;
        reducer.equal_into(slice, SEGMENT, options, self.segments.as_mut_slice())?;
        reducer.equal_sums_into(slice, LONG, options, self.long.as_mut_slice())?;
        reducer.offset_sums_into(slice, cuts.as_slice(), options, self.between.as_mut_slice())?;
        reducer.column_sums_into(&matrix, options, self.columns.as_mut_slice())?;
        reducer.column_extrema_into(&matrix, options, self.extrema.as_mut_slice())?;
        reducer.column_chunks_into(&matrix, CHUNK, options, self.chunks.as_mut_slice())
    }

    /// All of them as bytes.
    fn bytes(&self) -> Result<Vec<u8>, Failed> {
        fn of<R: DeviceCopy>(all: &mut Vec<u8>, buffer: &DeviceBuffer<R>) -> Result<(), Failed> {
            all.extend_from_slice(bytemuck::cast_slice(&buffer.to_vec()?));
            Ok(())
        }
        let mut all = Vec::new();
        of(&mut all, &self.sum)?;
        of(&mut all, &self.summary)?;
        of(&mut all, &self.bounds)?;
        of(&mut all, &self.count)?;
        of(&mut all, &self.statistics)?;
        of(&mut all, &self.segments)?;
        of(&mut all, &self.long)?;
        of(&mut all, &self.between)?;
        of(&mut all, &self.columns)?;
        of(&mut all, &self.extrema)?;
        of(&mut all, &self.chunks)?;
        Ok(all)
    }
}

/// Offsets with one long segment, which goes on the queue.
fn cuts() -> Vec<u64> {
    let mut cuts: Vec<u64> = (0..1000).map(|i| i * 70).collect();
    cuts.extend([600_000, N as u64]);
    cuts
}

/// Captures what `body` queues; its own error, where it has one.
fn capture(
    stream: &Stream,
    body: impl FnOnce() -> Result<(), CudaError>,
) -> Result<Result<Graph, kasmina_sys::Error>, CudaError> {
    let mut own = None;
    let graph = Graph::capture(stream, CaptureMode::ThreadLocal, |_| {
        own = body().err();
        Ok(())
    });
    own.map_or(Ok(graph), Err)
}

fn replay(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    for strategy in ALL {
        let options = ReductionOptions { strategy, ..Default::default() };
        let stream = Stream::new(engine.context())?;
        let mut reducer = Reducer::new(&engine, &stream);
        let mut x = DeviceBuffer::from_host(&stream, &values::<f32>(N, Kind::Offset, 1))?;
        let cuts = DeviceBuffer::from_host(&stream, &cuts())?;
        let mut results = Results::new(&stream, cuts.len())?;
        let mut plain = Results::new(&stream, cuts.len())?;
        plain.queue(&mut reducer, &x, &cuts, &options)?;
        let first = plain.bytes()?;
        let graph = capture(&stream, || results.queue(&mut reducer, &x, &cuts, &options))??;
        let exec = graph.instantiate()?;
        ensure(results.bytes()? != first, || "the capture ran what it recorded".to_owned())?;
        let before = engine.context().pool_usage()?;
        for run in 0..30 {
            // Other data from time to time, and other reductions with the same scratch memory in between.
            if run % 10 == 5 {
                x.copy_from_host(&values::<f32>(N, Kind::Wild, run))?;
            }
            plain.queue(&mut reducer, &x, &cuts, &options)?;
            // SAFETY: data, results, offsets and the reducer's scratch memory live, and are used on this stream alone.
            unsafe { exec.launch(&stream) }?;
            let (got, want) = (results.bytes()?, plain.bytes()?);
            ensure(got == want, || {
                let at = got.iter().zip(&want).position(|(a, b)| a != b);
                format!("{strategy:?}, run {run}: bytes from {at:?} of {} differ", got.len())
            })?;
            ensure(run >= 5 || got == first, || format!("{strategy:?}, run {run}: not the first"))?;
        }
        let after = engine.context().pool_usage()?;
        ensure(after.map(|pool| pool.used) == before.map(|pool| pool.used), || {
            format!("{strategy:?}: {before:?} before, {after:?} after")
        })?;
        // The reducer grows, and what the graph uses stays.
        let large = DeviceBuffer::<f32>::zeroed(&stream, 1 << 24)?;
        let sums = reducer.equal_sums(large.as_slice(), 1 << 14, &options)?;
        ensure(sums.iter().all(|sum| *sum == Some(0.0)), || "sums of zeros".to_owned())?;
        let want = plain.bytes()?;
        // SAFETY: as above.
        unsafe { exec.launch(&stream) }?;
        ensure(results.bytes()? == want, || format!("{strategy:?}: not after growth"))?;
    }
    Ok(())
}

fn refused(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let x = DeviceBuffer::from_host(&stream, &values::<f32>(N, Kind::Offset, 1))?;
    let options = ReductionOptions::default();
    let mut sum = DeviceBuffer::zeroed(&stream, 1)?;
    let mut reducer = Reducer::new(&engine, &stream);
    let grows = capture(&stream, || reducer.sum_into(x.as_slice(), &options, sum.as_mut_slice()));
    ensure(matches!(grows, Err(CudaError::GrowsWhileCaptured { have: 0, .. })), || {
        format!("{:?}", grows.map(|graph| graph.is_ok()))
    })?;
    let waits = capture(&stream, || reducer.sum(x.as_slice(), &options).map(|_| ()));
    ensure(matches!(waits, Err(CudaError::WaitsWhileCaptured)), || {
        format!("{:?}", waits.map(|graph| graph.is_ok()))
    })?;
    ensure(reducer.sum(x.as_slice(), &options)?.is_some(), || "no sum afterwards".to_owned())?;
    // Memory is there now, and a capture goes through.
    let graph = capture(&stream, || reducer.sum_into(x.as_slice(), &options, sum.as_mut_slice()))??;
    ensure(graph.nodes()? == 1, || format!("{:?} nodes", graph.nodes()))
}

/// Resident bytes of this process.
fn resident() -> Result<u64, Failed> {
    let statm = std::fs::read_to_string("/proc/self/statm").map_err(|error| error.to_string())?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.ok_or("statm has no second number")? * 4096)
}

fn rounds(device: Device) -> Result<(), Failed> {
    const ROUNDS: usize = 10_000;
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(&engine, &stream);
    let x = DeviceBuffer::from_host(&stream, &values::<f32>(N, Kind::Ordinary, 1))?;
    let cuts = DeviceBuffer::from_host(&stream, &cuts())?;
    let mut results = Results::new(&stream, cuts.len())?;
    let mut early = None;
    for round in 0..ROUNDS {
        let strategy = ALL[usize::from(round % 16 == 0)];
        let options = ReductionOptions { strategy, ..Default::default() };
        results.queue(&mut reducer, &x, &cuts, &options)?;
        if round % 250 == 249 {
            stream.synchronize()?;
        }
        if ![ROUNDS / 10, ROUNDS - 1].contains(&round) {
            continue;
        }
        stream.synchronize()?;
        let pool = engine.context().pool_usage()?.map_or(0, |pool| pool.reserved);
        let (free, _) = engine.context().memory_info()?;
        let now = (pool, free, resident()?);
        if round < ROUNDS - 1 {
            early = Some(now);
        } else {
            let (pool, free, resident) = early.ok_or("no round")?;
            ensure(now.0 <= pool && now.1 + (2 << 20) >= free, || {
                format!("device memory: {pool} of the pool and {free} free, then {now:?}")
            })?;
            ensure(now.2 <= resident + (2 << 20), || {
                format!("{resident} bytes resident, then {}", now.2)
            })?;
            println!(
                "    10,000 rounds: pool {pool} then {} B, resident {resident} then {} B",
                now.0, now.2
            );
        }
    }
    Ok(())
}
