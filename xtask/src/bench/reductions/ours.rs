//! Our reductions: a line's result on the host, and its time.

use bytemuck::Pod;
use half::bf16;
use kasmina_sys::{DeviceBuffer, DeviceSlice};
use kasmina_telemetry::columns::Extrema;
use kasmina_telemetry::cuda::{DeviceMatrix, Flat, GpuElement, GpuFloat, Launch};
use kasmina_telemetry::{ChunkStats, Comparison, ReductionOptions, ReductionStrategy};

use super::super::measure::Failure;
use super::super::summary::Timing;
use super::arena::Arena;
use super::line::{Quantity, ReductionLine, Scalar, Shape, Way};
use super::reference::{self, Expected, Pattern};

/// The numbers of each result, in the order of [`Expected::fields`].
pub(super) type Results = Vec<Vec<f64>>;

/// What became of a line.
pub(super) struct Ours {
    pub(super) timing: Timing,
    /// The largest error of a result over its bound.
    pub(super) worst_error: f64,
    /// How it was launched, where that was measured.
    pub(super) launch: Option<String>,
    /// The first number of each result, for a peer to be compared with.
    pub(super) results: Vec<f64>,
}

/// Compares a line's results with what has to come out, and times it.
pub(super) fn line(
    arena: &mut Arena<'_>,
    line: &ReductionLine,
    expected: &[Expected],
) -> Result<Ours, Failure> {
    match line.scalar {
        Scalar::F32 => float::<f32>(arena, line, expected),
        Scalar::Bf16 => float::<bf16>(arena, line, expected),
        Scalar::F64 => flat::<f64>(arena, line, expected),
        Scalar::I32 => flat::<i32>(arena, line, expected),
        Scalar::I64 => flat::<i64>(arena, line, expected),
    }
}

/// What has to come out of a line.
pub(super) fn expected(pattern: &Pattern, line: &ReductionLine) -> Vec<Expected> {
    match line.scalar {
        Scalar::F32 => reference::expected::<f32>(pattern, line),
        Scalar::Bf16 => reference::expected::<bf16>(pattern, line),
        Scalar::F64 => reference::expected::<f64>(pattern, line),
        Scalar::I32 => reference::expected::<i32>(pattern, line),
        Scalar::I64 => reference::expected::<i64>(pattern, line),
    }
}

fn options(line: &ReductionLine) -> ReductionOptions {
    let strategy = match line.way {
        Way::Hierarchical | Way::Tuned => ReductionStrategy::Hierarchical,
        Way::Atomic => ReductionStrategy::Atomic,
        Way::Direct => ReductionStrategy::Direct,
    };
    ReductionOptions { strategy, ..ReductionOptions::default() }
}

/// A line that has no kernels in its type.
fn no_kernels(line: &ReductionLine) -> Failure {
    Failure::text(format!("{} have no {} there", line.subject(), line.quantity))
}

/// A sum as f64.
trait Wide {
    fn wide(self) -> f64;
}

impl Wide for f64 {
    fn wide(self) -> f64 {
        self
    }
}

impl Wide for i128 {
    fn wide(self) -> f64 {
        self as f64
    }
}

/// What is left of the work when the results have been compared.
struct Compared<'a, 'b> {
    arena: &'a mut Arena<'b>,
    worst_error: f64,
    launch: Option<String>,
    results: Vec<f64>,
}

impl<'a, 'b> Compared<'a, 'b> {
    /// Nothing is timed that does not agree.
    fn new(
        arena: &'a mut Arena<'b>,
        line: &ReductionLine,
        found: &Results,
        expected: &[Expected],
    ) -> Result<Self, Failure> {
        let worst_error = reference::judge(line, found, expected).map_err(Failure::text)?;
        let results = found.iter().filter_map(|fields| fields.last().copied()).collect();
        Ok(Self { arena, worst_error, launch: None, results })
    }

    /// Times what queues the reduction of so many elements.
    fn time<T: GpuElement>(
        self,
        elements: usize,
        call: impl FnMut(DeviceSlice<'_, T>) -> Result<(), Failure>,
    ) -> Result<Ours, Failure> {
        let timing = self.arena.time(elements, call)?;
        let Self { worst_error, launch, results, .. } = self;
        Ok(Ours { timing, worst_error, launch, results })
    }
}

/// All elements at once.
fn flat<T: GpuElement + Pod>(
    arena: &mut Arena<'_>,
    line: &ReductionLine,
    expected: &[Expected],
) -> Result<Ours, Failure>
where
    T::Sum: Wide,
{
    let Shape::Flat { elements } = line.shape else { return Err(no_kernels(line)) };
    let (options, stream) = (options(line), arena.stream().clone());
    let mut reducer = arena.reducer();
    let x = arena.first::<T>(elements)?;
    let what = match line.quantity {
        Quantity::Sum => Flat::Sum,
        Quantity::Bounds => Flat::Bounds,
        Quantity::Extrema => Flat::Extrema,
        Quantity::Summary => Flat::Summary,
        Quantity::Count => Flat::Count,
        Quantity::Statistics => Flat::Statistics,
        Quantity::Products => return Err(no_kernels(line)),
    };
    let mut launch = None;
    if line.way == Way::Tuned {
        let tuned = reducer.tune(what, x)?;
        launch = Some(format!("{}; {}", tuned.launch, tuned.source));
    } else {
        reducer.set_launch(Launch::default())?;
    }
    let threshold = Pattern::threshold::<T>();
    let wide = |value: T::Value| T::from_value(value).to_f64();
    let found: Option<Vec<f64>> = match what {
        Flat::Sum => reducer.sum(x, &options)?.map(|sum| vec![sum.wide()]),
        Flat::Bounds => reducer.bounds(x, &options)?.map(|(a, b)| vec![a.to_f64(), b.to_f64()]),
        Flat::Extrema => reducer.extrema(x, &options)?.map(|((least, at), (greatest, to))| {
            vec![least.to_f64(), greatest.to_f64(), at as f64, to as f64]
        }),
        Flat::Summary => reducer.summary(x, &options)?.map(|all| {
            let extremes = [all.min.to_f64(), all.max.to_f64()];
            let places = [all.arg_min as f64, all.arg_max as f64];
            [&[all.sum.wide(), all.sum_squares][..], &extremes, &places].concat()
        }),
        Flat::Count => {
            Some(vec![reducer.count(x, Comparison::Greater, threshold, &options)? as f64])
        }
        Flat::Statistics => reducer
            .statistics(x, &options)?
            .map(|all| vec![all.n as f64, all.mean, all.m2, wide(all.min), wide(all.max)]),
    };
    let compared = Compared::new(arena, line, &found.into_iter().collect(), expected)?;
    let compared = Compared { launch, ..compared };
    match what {
        Flat::Sum => {
            let mut out = DeviceBuffer::unwritten(&stream, 1)?;
            compared
                .time(elements, |x| Ok(reducer.sum_into::<T>(x, &options, out.as_mut_slice())?))
        }
        Flat::Bounds => {
            let mut out = DeviceBuffer::unwritten(&stream, 1)?;
            compared.time(elements, |x| {
                Ok(reducer.bounds_into::<T>(x, &options, out.as_mut_slice())?)
            })
        }
        Flat::Extrema => {
            let mut out = DeviceBuffer::unwritten(&stream, 1)?;
            compared.time(elements, |x| {
                Ok(reducer.extrema_into::<T>(x, &options, out.as_mut_slice())?)
            })
        }
        Flat::Summary => {
            let mut out = DeviceBuffer::unwritten(&stream, 1)?;
            compared.time(elements, |x| {
                Ok(reducer.summary_into::<T>(x, &options, out.as_mut_slice())?)
            })
        }
        Flat::Count => {
            let mut out = DeviceBuffer::unwritten(&stream, 1)?;
            compared.time(elements, |x| {
                let greater = Comparison::Greater;
                Ok(reducer.count_into::<T>(x, greater, threshold, &options, out.as_mut_slice())?)
            })
        }
        Flat::Statistics => {
            let mut out = DeviceBuffer::unwritten(&stream, 1)?;
            compared.time(elements, |x| {
                Ok(reducer.statistics_into::<T>(x, &options, out.as_mut_slice())?)
            })
        }
    }
}

/// A type that has kernels for every shape.
fn float<T: GpuFloat + Pod>(
    arena: &mut Arena<'_>,
    line: &ReductionLine,
    expected: &[Expected],
) -> Result<Ours, Failure>
where
    T::Sum: Wide,
{
    match line.shape {
        Shape::Flat { .. } => flat::<T>(arena, line, expected),
        Shape::Segments { elements, segment } => {
            segments::<T>(arena, line, expected, (elements, segment))
        }
        Shape::Offsets { .. } | Shape::Uneven { .. } => offsets::<T>(arena, line, expected),
        Shape::Columns { rows, columns } => by_column::<T>(arena, line, expected, (rows, columns)),
        Shape::Chunks { rows, columns, chunk } => {
            chunks::<T>(arena, line, expected, (rows, columns, chunk))
        }
    }
}

fn sums(found: Vec<Option<f64>>) -> Results {
    found.into_iter().map(|sum| vec![sum.unwrap_or(f64::NAN)]).collect()
}

fn extremes(found: Vec<Option<Extrema>>) -> Results {
    let both = |found: Extrema| vec![found.min.into(), found.max.into()];
    found.into_iter().map(|found| found.map_or_else(|| vec![f64::NAN; 2], both)).collect()
}

fn statistics(found: Vec<ChunkStats>) -> Results {
    let all = |s: ChunkStats| vec![s.n as f64, s.mean, s.m2, s.min.into(), s.max.into()];
    found.into_iter().map(all).collect()
}

/// Segments of one length.
fn segments<T: GpuFloat>(
    arena: &mut Arena<'_>,
    line: &ReductionLine,
    expected: &[Expected],
    (elements, segment): (usize, usize),
) -> Result<Ours, Failure> {
    let (options, stream) = (options(line), arena.stream().clone());
    let mut reducer = arena.reducer();
    let (x, count) = (arena.first::<T>(elements)?, elements.div_ceil(segment));
    match line.quantity {
        Quantity::Sum => {
            let found = sums(reducer.equal_sums(x, segment, &options)?);
            let mut out = DeviceBuffer::<f64>::unwritten(&stream, count)?;
            Compared::new(arena, line, &found, expected)?.time(elements, |x| {
                Ok(reducer.equal_sums_into::<T>(x, segment, &options, out.as_mut_slice())?)
            })
        }
        Quantity::Bounds => {
            let found = extremes(reducer.equal_extrema(x, segment, &options)?);
            let mut out = DeviceBuffer::<Extrema>::unwritten(&stream, count)?;
            Compared::new(arena, line, &found, expected)?.time(elements, |x| {
                Ok(reducer.equal_extrema_into::<T>(x, segment, &options, out.as_mut_slice())?)
            })
        }
        Quantity::Statistics => {
            let found = statistics(reducer.equal(x, segment, &options)?);
            let mut out = DeviceBuffer::<ChunkStats>::unwritten(&stream, count)?;
            Compared::new(arena, line, &found, expected)?.time(elements, |x| {
                Ok(reducer.equal_into::<T>(x, segment, &options, out.as_mut_slice())?)
            })
        }
        _ => Err(no_kernels(line)),
    }
}

/// Sums of segments between offsets.
fn offsets<T: GpuFloat>(
    arena: &mut Arena<'_>,
    line: &ReductionLine,
    expected: &[Expected],
) -> Result<Ours, Failure> {
    let (Some(cuts), Quantity::Sum) = (line.shape.cuts(), line.quantity) else {
        return Err(no_kernels(line));
    };
    let (options, stream) = (options(line), arena.stream().clone());
    let (mut reducer, elements) = (arena.reducer(), line.shape.elements());
    let mut out = DeviceBuffer::<f64>::unwritten(&stream, cuts.len() - 1)?;
    let cuts = DeviceBuffer::from_host(&stream, &cuts)?;
    let x = arena.first::<T>(elements)?;
    let found = sums(reducer.offset_sums(x, cuts.as_slice(), &options)?);
    Compared::new(arena, line, &found, expected)?.time(elements, |x| {
        Ok(reducer.offset_sums_into::<T>(x, cuts.as_slice(), &options, out.as_mut_slice())?)
    })
}

fn matrix<T: GpuFloat>(
    x: DeviceSlice<'_, T>,
    (rows, columns): (usize, usize),
) -> Result<DeviceMatrix<'_, T>, Failure> {
    let matrix = DeviceMatrix::contiguous(x, rows, columns);
    matrix.map_err(|error| kasmina_telemetry::cuda::CudaError::from(error).into())
}

/// Each column of a matrix, or of two that are multiplied, one behind the other.
fn by_column<T: GpuFloat>(
    arena: &mut Arena<'_>,
    line: &ReductionLine,
    expected: &[Expected],
    shape: (usize, usize),
) -> Result<Ours, Failure> {
    let (options, stream) = (options(line), arena.stream().clone());
    let (mut reducer, n) = (arena.reducer(), shape.0 * shape.1);
    match line.quantity {
        Quantity::Sum => {
            let found = sums(reducer.column_sums(&matrix(arena.first::<T>(n)?, shape)?, &options)?);
            let mut out = DeviceBuffer::<f64>::unwritten(&stream, shape.1)?;
            Compared::new(arena, line, &found, expected)?.time::<T>(n, |x| {
                Ok(reducer.column_sums_into(&matrix(x, shape)?, &options, out.as_mut_slice())?)
            })
        }
        Quantity::Bounds => {
            let x = matrix(arena.first::<T>(n)?, shape)?;
            let found = extremes(reducer.column_extrema(&x, &options)?);
            let mut out = DeviceBuffer::<Extrema>::unwritten(&stream, shape.1)?;
            Compared::new(arena, line, &found, expected)?.time::<T>(n, |x| {
                Ok(reducer.column_extrema_into(&matrix(x, shape)?, &options, out.as_mut_slice())?)
            })
        }
        Quantity::Products => {
            let x = arena.first::<T>(2 * n)?;
            let (left, right) = (matrix(x.slice(..n)?, shape)?, matrix(x.slice(n..)?, shape)?);
            let found = sums(reducer.column_products(&left, &right, &options)?);
            let mut out = DeviceBuffer::<f64>::unwritten(&stream, shape.1)?;
            Compared::new(arena, line, &found, expected)?.time::<T>(2 * n, |x| {
                let (left, right) = (matrix(x.slice(..n)?, shape)?, matrix(x.slice(n..)?, shape)?);
                Ok(reducer.column_products_into(&left, &right, &options, out.as_mut_slice())?)
            })
        }
        _ => Err(no_kernels(line)),
    }
}

/// Statistics of chunks of columns.
fn chunks<T: GpuFloat>(
    arena: &mut Arena<'_>,
    line: &ReductionLine,
    expected: &[Expected],
    (rows, columns, chunk): (usize, usize, usize),
) -> Result<Ours, Failure> {
    if line.quantity != Quantity::Statistics {
        return Err(no_kernels(line));
    }
    let (options, stream, shape) = (options(line), arena.stream().clone(), (rows, columns));
    let (mut reducer, n) = (arena.reducer(), rows * columns);
    let x = matrix(arena.first::<T>(n)?, shape)?;
    let found = statistics(reducer.column_chunks(&x, chunk, &options)?);
    let mut out = DeviceBuffer::<ChunkStats>::unwritten(&stream, columns.div_ceil(chunk))?;
    Compared::new(arena, line, &found, expected)?.time::<T>(n, |x| {
        Ok(reducer.column_chunks_into(&matrix(x, shape)?, chunk, &options, out.as_mut_slice())?)
    })
}
