//! Reductions over the rows of a matrix.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use kasmina_telemetry::cuda::{DeviceMatrix, Engine, GpuFloat, Reducer};
use kasmina_telemetry::{NanPolicy, ReductionOptions, ReductionStrategy};
use proptest::prelude::*;

use crate::oracle::{check_chunk, check_extrema, check_sum};
use crate::values::{Drawn, Kind, kind, strategy, values};

pub(crate) const TESTS: &[(&str, Body)] =
    &[("column_reductions_match_the_oracle", columns), ("columns_repeat_bit_by_bit", repeat)];

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    columns: usize,
    padding: usize,
    offset: usize,
    chunk: usize,
    dtype: usize,
    kind: Kind,
    seed: u64,
    ignore: bool,
    strategy: ReductionStrategy,
}

fn case() -> impl Strategy<Value = Case> {
    let columns =
        prop_oneof![3 => 1usize..40, 3 => (1usize..40).prop_map(|n| n * 8), 2 => 40usize..1500];
    let rows =
        prop_oneof![1 => Just(0usize), 3 => 1usize..40, 3 => 40usize..1000, 1 => 1000usize..20_000];
    let small =
        || prop_oneof![3 => Just(0usize), 2 => (1usize..4).prop_map(|n| n * 8), 2 => 1usize..20];
    let chunk =
        prop_oneof![2 => 1usize..70, 2 => (0u32..11).prop_map(|k| 1 << k), 1 => Just(usize::MAX)];
    let shape = (rows, columns, small(), small(), chunk);
    (shape, 0usize..3, kind(), any::<u64>(), any::<bool>(), strategy()).prop_map(
        |((rows, columns, padding, offset, chunk), dtype, kind, seed, ignore, strategy)| Case {
            rows: rows.min(600_000 / columns),
            columns,
            padding,
            offset,
            chunk,
            dtype,
            kind,
            seed,
            ignore,
            strategy,
        },
    )
}

fn columns(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(400)?.check(&case(), |case| match case.dtype {
        0 => column_case::<f32>(&engine, &case),
        1 => column_case::<f16>(&engine, &case),
        _ => column_case::<bf16>(&engine, &case),
    })
}

fn column_case<T: Drawn + GpuFloat>(engine: &Arc<Engine>, case: &Case) -> Result<(), Failed> {
    let Case { rows, columns, padding, offset, .. } = *case;
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(engine, &stream);
    let nan = if case.ignore { NanPolicy::Ignore } else { NanPolicy::Propagate };
    let options = ReductionOptions { nan, strategy: case.strategy, ..Default::default() };
    let stride = columns + padding;
    let used = if rows == 0 { 0 } else { (rows - 1) * stride + columns };
    let framed = |seed| {
        let mut all = vec![T::nearest(f64::NAN); offset];
        all.extend(values::<T>(used, case.kind, seed));
        all
    };
    let (left, right) = (framed(case.seed), framed(!case.seed));
    let (x, y) =
        (DeviceBuffer::from_host(&stream, &left)?, DeviceBuffer::from_host(&stream, &right)?);
    let x = DeviceMatrix::new(x.slice(offset..)?, rows, columns, stride)?;
    let y = DeviceMatrix::new(y.slice(offset..)?, rows, columns, stride)?;
    let sums = reducer.column_sums(&x, &options)?;
    let products = reducer.column_products(&x, &y, &options)?;
    let extrema = reducer.column_extrema(&x, &options)?;
    let chunks = reducer.column_chunks(&x, case.chunk, &options)?;
    let column = |all: &[T], column: usize| -> Vec<T> {
        (0..rows).map(|row| all[offset + row * stride + column]).collect()
    };
    for c in 0..columns {
        let wide: Vec<f64> = column(&left, c).iter().map(|x| x.to_f64()).collect();
        let other = column(&right, c);
        check_sum(&format!("sum of column {c}"), sums[c], &wide, &options)?;
        check_extrema(&format!("extremes of column {c}"), extrema[c], &column(&left, c), nan)?;
        let factors = || wide.iter().zip(other.iter().map(|x| x.to_f64()));
        // Zero times infinity is a NaN of the arithmetic, which shows under either policy.
        let arithmetic = factors().any(|(x, y)| !x.is_nan() && !y.is_nan() && (x * y).is_nan());
        if arithmetic {
            ensure(products[c].is_some_and(f64::is_nan), || {
                format!("product {c}: {:?}", products[c])
            })?;
        } else {
            let all: Vec<f64> = factors().map(|(x, y)| x * y).collect();
            check_sum(&format!("products of column {c}"), products[c], &all, &options)?;
        }
    }
    ensure(chunks.len() == columns.div_ceil(case.chunk), || format!("{} chunks", chunks.len()))?;
    for (seed, stats) in chunks.iter().enumerate() {
        let first = seed * case.chunk;
        let width = case.chunk.min(columns - first);
        let values: Vec<T> = (0..rows)
            .flat_map(|row| left[offset + row * stride + first..][..width].iter().copied())
            .collect();
        check_chunk(&format!("chunk {seed}"), stats, &values, options.dead_epsilon)?;
    }
    Ok(())
}

fn repeat(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(&engine, &stream);
    use ReductionStrategy::{Atomic, Direct, Hierarchical};
    let (rows, columns) = (3001, 1024);
    let buffer = DeviceBuffer::from_host(&stream, &values::<f32>(rows * columns, Kind::Offset, 2))?;
    let x = DeviceMatrix::contiguous(buffer.as_slice(), rows, columns)?;
    let mut first = [None, None, None];
    for run in 0..300 {
        let strategy = [Hierarchical, Atomic, Direct][run % 3];
        let options = ReductionOptions { strategy, ..Default::default() };
        let sums = reducer.column_sums(&x, &options)?;
        let products = reducer.column_products(&x, &x, &options)?;
        let chunks = reducer.column_chunks(&x, 48, &options)?;
        let bits: Vec<u64> = sums
            .iter()
            .chain(&products)
            .map(|x| x.unwrap_or(-1.0).to_bits())
            .chain(chunks.iter().flat_map(|x| [x.mean.to_bits(), x.m2.to_bits()]))
            .collect();
        match &first[run % 3] {
            None => first[run % 3] = Some(bits),
            Some(first) => {
                ensure(*first == bits, || format!("run {run}, {strategy:?}, differs"))?;
            }
        }
    }
    Ok(())
}
