//! Reductions: ours against atomics and against one thread for each segment.

use kasmina_core::cuda::{CudaError, DirectChunks, DirectSum, SourceReductions};
use kasmina_core::{DType, SeedLayout};
use kasmina_sys::{DeviceBuffer, DeviceSlice, Stream};
use kasmina_telemetry::cuda::{DeviceMatrix, Engine, FloatSum, Reducer};
use kasmina_telemetry::{ChunkStats, ReductionOptions};

use super::super::buffers::{Sets, values};
use super::super::case::{Ceiling, Matrices};
use super::super::measure::{Bench, Failure};
use super::super::summary::Timing;
use super::agree::Judge;
use super::gain::{Found, Side};
use super::line::{CHUNK, Line, Way, Workload};

/// All of them reduce this matrix, or its elements in a row.
const MATRICES: Matrices = Matrices { rows: 4096, hidden: 4096, dtype: DType::F32 };

/// What all lines need, made for the first of them.
pub(super) struct Reductions {
    sets: Sets<f32>,
    /// Bytes a millisecond that the driver's copy moves.
    ceiling: f64,
    reducer: Reducer,
    source: SourceReductions,
}

/// Measures a line.
pub(super) fn line(
    bench: &Bench,
    made: &mut Option<Reductions>,
    line: &Line,
) -> Result<Found, Failure> {
    let reductions = match made {
        Some(made) => made,
        None => made.insert(Reductions::new(bench)?),
    };
    match line.workload {
        Workload::Sum { .. } => reductions.sum(bench, line.off),
        Workload::Segments { segment, .. } => reductions.segments(bench, segment),
        Workload::Chunks { .. } => reductions.chunks(bench, line.off),
        Workload::Pass(_) | Workload::Steps(_) => {
            Err(Failure::text(format!("{} is no reduction", line.workload)))
        }
    }
}

impl Reductions {
    fn new(bench: &Bench) -> Result<Self, Failure> {
        let mut sets = bench.sets::<f32>(MATRICES)?;
        let ceiling = bench.ceiling(Ceiling::Copy, MATRICES, &mut sets, &mut Vec::new())?;
        let stream = bench.clock().stream();
        let engine = Engine::new(stream.context().device())?;
        let reducer = Reducer::new(&engine, stream);
        let source = SourceReductions::new(bench.engine(), stream);
        Ok(Self { sets, ceiling, reducer, source })
    }

    /// Each is measured against reading its elements once.
    fn found(&self, [off, on]: [(Timing, usize, &str); 2], judge: &Judge) -> Found {
        let side = |(timing, launches, how): (Timing, usize, &str)| Side {
            timing,
            launches,
            how: how.to_owned(),
        };
        let floor = Some(MATRICES.bytes() as f64 / self.ceiling);
        Found { off: side(off), on: side(on), floor, disagreement: judge.worst() }
    }

    fn sum(&mut self, bench: &Bench, off: Way) -> Result<Found, Failure> {
        let (clock, stream) = (bench.clock(), bench.clock().stream());
        let (how, name) = match off {
            Way::AtomicElements => (DirectSum::Elements, "a fill and kasmina_claims_sum_elements"),
            _ => (DirectSum::Warps, "a fill and kasmina_claims_sum_warps"),
        };
        let mut total = DeviceBuffer::<f32>::zeroed(stream, 1)?;
        let mut record = DeviceBuffer::<FloatSum>::zeroed(stream, 1)?;
        let options = ReductionOptions::default();
        let mut judge = Judge::default();
        self.source.sum(how, self.sets.set(0)?.x, &mut total)?;
        self.reducer.sum_into(self.sets.set(0)?.x, &options, record.as_mut_slice())?;
        let (found, expected) = (one(&total)?, one(&record)?.sum);
        let all = values::<f32>(MATRICES.rows * MATRICES.hidden);
        let magnitude = all.iter().map(|x| f64::from(x.abs())).sum();
        let name_of = || "the sum".to_owned();
        judge.sum(name_of, found.into(), expected, magnitude).map_err(Failure::text)?;
        let Self { sets, reducer, source, .. } = self;
        let off = clock
            .time_by::<Failure>(|turn| Ok(source.sum(how, sets.set(turn)?.x, &mut total)?))?;
        let on = clock.time_by::<Failure>(|turn| {
            Ok(reducer.sum_into(sets.set(turn)?.x, &options, record.as_mut_slice())?)
        })?;
        Ok(self.found([(off, 2, name), (on, 1, "Reducer::sum_into")], &judge))
    }

    fn segments(&mut self, bench: &Bench, segment: usize) -> Result<Found, Failure> {
        let (clock, stream) = (bench.clock(), bench.clock().stream());
        let elements = MATRICES.rows * MATRICES.hidden;
        let (mut a, mut b) = (sums(stream, elements, segment)?, sums(stream, elements, segment)?);
        let options = ReductionOptions::default();
        let mut judge = Judge::default();
        self.source.segment_sums(self.sets.set(0)?.x, segment, &mut a)?;
        let x = self.sets.set(0)?.x;
        self.reducer.equal_sums_into(x, segment, &options, b.as_mut_slice())?;
        let (found, expected, all) = (a.to_vec()?, b.to_vec()?, values::<f32>(elements));
        for (i, (part, (found, expected))) in
            all.chunks(segment).zip(found.into_iter().zip(expected)).enumerate()
        {
            let magnitude = part.iter().map(|x| f64::from(x.abs())).sum();
            let name = || format!("the sum of segment {i}");
            judge.sum(name, found, expected, magnitude).map_err(Failure::text)?;
        }
        let Self { sets, reducer, source, .. } = self;
        let off = clock.time_by::<Failure>(|turn| {
            Ok(source.segment_sums(sets.set(turn)?.x, segment, &mut a)?)
        })?;
        let on = clock.time_by::<Failure>(|turn| {
            let x = sets.set(turn)?.x;
            Ok(reducer.equal_sums_into(x, segment, &options, b.as_mut_slice())?)
        })?;
        let names = ["kasmina_claims_sum_segments", "Reducer::equal_sums_into"];
        Ok(self.found([(off, 1, names[0]), (on, 1, names[1])], &judge))
    }

    fn chunks(&mut self, bench: &Bench, off: Way) -> Result<Found, Failure> {
        let (clock, stream) = (bench.clock(), bench.clock().stream());
        let Matrices { rows, hidden, .. } = MATRICES;
        let layout = SeedLayout::new(hidden, CHUNK).map_err(CudaError::from)?;
        let seeds = layout.seeds();
        let (how, launches, name) = match off {
            Way::AtomicRows => {
                (DirectChunks::Atomics, 2, "a fill and kasmina_claims_chunks_atomic")
            }
            _ => (DirectChunks::Threads, 1, "kasmina_claims_chunks_thread"),
        };
        let mut raw = DeviceBuffer::<f32>::zeroed(stream, 6 * seeds)?;
        let mut stats = DeviceBuffer::<ChunkStats>::unwritten(stream, seeds)?;
        let options = ReductionOptions::default();
        let mut judge = Judge::default();
        let Self { sets, reducer, source, .. } = self;
        source.chunks(how, sets.set(0)?.x, (layout, rows), &mut raw)?;
        let found = source.chunk_stats((layout, rows), &raw)?;
        let mut ours = |stats: &mut DeviceBuffer<ChunkStats>, x: DeviceSlice<'_, f32>| {
            let matrix = DeviceMatrix::contiguous(x, rows, hidden)
                .map_err(kasmina_telemetry::cuda::CudaError::from)?;
            let queued = reducer.column_chunks_into(&matrix, CHUNK, &options, stats.as_mut_slice());
            queued.map_err(Failure::from)
        };
        ours(&mut stats, sets.set(0)?.x)?;
        judge.chunks(&found, &stats.to_vec()?).map_err(Failure::text)?;
        let off = clock.time_by::<Failure>(|turn| {
            Ok(source.chunks(how, sets.set(turn)?.x, (layout, rows), &mut raw)?)
        })?;
        let on = clock.time_by::<Failure>(|turn| ours(&mut stats, sets.set(turn)?.x))?;
        let found = [(off, launches, name), (on, 1, "Reducer::column_chunks_into")];
        Ok(self.found(found, &judge))
    }
}

fn sums(stream: &Stream, elements: usize, segment: usize) -> Result<DeviceBuffer<f64>, Failure> {
    Ok(DeviceBuffer::zeroed(stream, elements.div_ceil(segment))?)
}

/// The one element. Waits.
fn one<T: kasmina_sys::DeviceCopy>(buffer: &DeviceBuffer<T>) -> Result<T, Failure> {
    let first = buffer.to_vec()?.into_iter().next();
    first.ok_or_else(|| Failure::text("the result has no element".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::line::lines;
    use super::*;

    #[test]
    fn every_reduction_is_of_the_matrix() {
        for line in lines(None) {
            let elements = match line.workload {
                Workload::Sum { elements } | Workload::Segments { elements, .. } => elements,
                Workload::Chunks { matrices, chunk } => {
                    assert_eq!((matrices, chunk), (MATRICES, CHUNK));
                    matrices.rows * matrices.hidden
                }
                Workload::Pass(_) | Workload::Steps(_) => continue,
            };
            assert_eq!(elements, MATRICES.rows * MATRICES.hidden, "{line}");
        }
    }
}
