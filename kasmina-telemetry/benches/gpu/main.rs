//! The GPU reductions against a device-to-device copy of the same run: microseconds, TB/s of the data read, and percent of the copy.
//!
//! `cub_reference.cu` beside this file times CUB in the same way.

mod timer;

use std::process::ExitCode;

use half::bf16;
use kasmina_gpu_test::{Body, Failed};
use kasmina_sys::{Device, DeviceBuffer};
use kasmina_telemetry::columns::Extrema;
use kasmina_telemetry::cuda::{DeviceMatrix, Flat, GpuElement, KERNELS, Launch, Reducer};
use kasmina_telemetry::{ChunkStats, ReductionOptions, ReductionStrategy};
use timer::Bench;

const BENCHES: &[(&str, Body)] = &[
    ("flat", flat),
    ("flat_quantities", flat_quantities),
    ("segments", segments),
    ("columns", columns),
    ("launches", launches),
    ("strategies", strategies),
    ("tuned", tuned),
];

fn main() -> ExitCode {
    kasmina_gpu_test::bench_main("kasmina-telemetry", &KERNELS, BENCHES)
}

/// Sum and extremes of 2^12 to 2^30 f32.
fn flat(device: Device) -> Result<(), Failed> {
    let mut bench = Bench::new(device)?;
    let options = ReductionOptions::default();
    let mut sum = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut bounds = DeviceBuffer::unwritten(bench.stream(), 1)?;
    for log in (12..=30).step_by(2) {
        let n = 1_usize << log;
        bench.time::<f32>(&format!("sum f32 2^{log}"), n, |reducer, x| {
            Ok(reducer.sum_into(x, &options, sum.as_mut_slice())?)
        })?;
        bench.time::<f32>(&format!("max f32 2^{log}"), n, |reducer, x| {
            Ok(reducer.bounds_into(x, &options, bounds.as_mut_slice())?)
        })?;
    }
    Ok(())
}

/// Every quantity, 1 GiB of f32 and of bf16.
fn flat_quantities(device: Device) -> Result<(), Failed> {
    let mut bench = Bench::new(device)?;
    quantities::<f32>(&mut bench, 1 << 28)?;
    quantities::<bf16>(&mut bench, 1 << 29)?;
    quantities::<f64>(&mut bench, 1 << 27)?;
    quantities::<i32>(&mut bench, 1 << 28)
}

fn quantities<T: GpuElement>(bench: &mut Bench, n: usize) -> Result<(), Failed> {
    let options = ReductionOptions::default();
    let name = |what: &str| format!("{what} {} {n}", T::NAME);
    let mut sum = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut extrema = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut bounds = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut summary = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut count = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut stats = DeviceBuffer::unwritten(bench.stream(), 1)?;
    bench.time::<T>(&name("sum"), n, |reducer, x| {
        Ok(reducer.sum_into(x, &options, sum.as_mut_slice())?)
    })?;
    bench.time::<T>(&name("extrema"), n, |reducer, x| {
        Ok(reducer.extrema_into(x, &options, extrema.as_mut_slice())?)
    })?;
    bench.time::<T>(&name("bounds"), n, |reducer, x| {
        Ok(reducer.bounds_into(x, &options, bounds.as_mut_slice())?)
    })?;
    bench.time::<T>(&name("summary"), n, |reducer, x| {
        Ok(reducer.summary_into(x, &options, summary.as_mut_slice())?)
    })?;
    let threshold = T::from_value(bench.threshold::<T>());
    bench.time::<T>(&name("count"), n, |reducer, x| {
        Ok(reducer.count_into(
            x,
            kasmina_telemetry::Comparison::Greater,
            threshold,
            &options,
            count.as_mut_slice(),
        )?)
    })?;
    bench.time::<T>(&name("statistics"), n, |reducer, x| {
        Ok(reducer.statistics_into(x, &options, stats.as_mut_slice())?)
    })
}

/// Segments of 2^26 f32 in all.
fn segments(device: Device) -> Result<(), Failed> {
    let mut bench = Bench::new(device)?;
    let options = ReductionOptions::default();
    let n = 1_usize << 26;
    for segment in [16, 63, 64, 256, 4096, 1 << 20] {
        let count = n.div_ceil(segment);
        let mut sums = DeviceBuffer::<f64>::unwritten(bench.stream(), count)?;
        let mut extrema = DeviceBuffer::<Extrema>::unwritten(bench.stream(), count)?;
        let mut stats = DeviceBuffer::<ChunkStats>::unwritten(bench.stream(), count)?;
        bench.time::<f32>(&format!("sums of segments of {segment}"), n, |reducer, x| {
            Ok(reducer.equal_sums_into(x, segment, &options, sums.as_mut_slice())?)
        })?;
        bench.time::<f32>(&format!("extremes of segments of {segment}"), n, |reducer, x| {
            Ok(reducer.equal_extrema_into(x, segment, &options, extrema.as_mut_slice())?)
        })?;
        bench.time::<f32>(&format!("statistics of segments of {segment}"), n, |reducer, x| {
            Ok(reducer.equal_into(x, segment, &options, stats.as_mut_slice())?)
        })?;
        let cuts: Vec<u64> = (0..=count).map(|i| (i * segment).min(n) as u64).collect();
        let cuts = DeviceBuffer::from_host(bench.stream(), &cuts)?;
        bench.time::<f32>(&format!("sums between offsets {segment} apart"), n, |reducer, x| {
            Ok(reducer.offset_sums_into(x, cuts.as_slice(), &options, sums.as_mut_slice())?)
        })?;
    }
    // Half of the data in one segment, the rest in segments of 64.
    let mut cuts: Vec<u64> = (0..n as u64 / 4).step_by(64).collect();
    cuts.extend((n as u64 * 3 / 4..=n as u64).step_by(64));
    let mut sums = DeviceBuffer::<f64>::unwritten(bench.stream(), cuts.len() - 1)?;
    let cuts = DeviceBuffer::from_host(bench.stream(), &cuts)?;
    bench.time::<f32>("sums between offsets, half in one segment, others 64", n, |reducer, x| {
        Ok(reducer.offset_sums_into(x, cuts.as_slice(), &options, sums.as_mut_slice())?)
    })
}

/// 8192 × 8192 f32 and 8192 × 16384 bf16.
fn columns(device: Device) -> Result<(), Failed> {
    let mut bench = Bench::new(device)?;
    matrix::<f32>(&mut bench, 8192, 8192)?;
    matrix::<bf16>(&mut bench, 8192, 16384)
}

fn matrix<T: kasmina_telemetry::cuda::GpuFloat>(
    bench: &mut Bench,
    rows: usize,
    columns: usize,
) -> Result<(), Failed> {
    let options = ReductionOptions::default();
    let n = rows * columns;
    let name = |what: &str| format!("column {what} {} {rows}x{columns}", T::NAME);
    let mut sums = DeviceBuffer::<f64>::unwritten(bench.stream(), columns)?;
    let mut extrema = DeviceBuffer::<Extrema>::unwritten(bench.stream(), columns)?;
    bench.time::<T>(&name("sums"), n, |reducer, x| {
        Ok(reducer.column_sums_into(
            &DeviceMatrix::contiguous(x, rows, columns)?,
            &options,
            sums.as_mut_slice(),
        )?)
    })?;
    bench.time::<T>(&name("extremes"), n, |reducer, x| {
        Ok(reducer.column_extrema_into(
            &DeviceMatrix::contiguous(x, rows, columns)?,
            &options,
            extrema.as_mut_slice(),
        )?)
    })?;
    // Both halves of twice as many rows.
    bench.time::<T>(&name("products"), 2 * n, |reducer, x| {
        let left = DeviceMatrix::contiguous(x.slice(..n)?, rows, columns)?;
        let right = DeviceMatrix::contiguous(x.slice(n..)?, rows, columns)?;
        Ok(reducer.column_products_into(&left, &right, &options, sums.as_mut_slice())?)
    })?;
    for chunk in [1, 64, 4096] {
        let mut stats =
            DeviceBuffer::<ChunkStats>::unwritten(bench.stream(), columns.div_ceil(chunk))?;
        bench.time::<T>(&name(&format!("chunks of {chunk}, statistics,")), n, |reducer, x| {
            let matrix = DeviceMatrix::contiguous(x, rows, columns)?;
            Ok(reducer.column_chunks_into(&matrix, chunk, &options, stats.as_mut_slice())?)
        })?;
    }
    Ok(())
}

/// Other launches of the flat sum.
fn launches(device: Device) -> Result<(), Failed> {
    let mut bench = Bench::new(device)?;
    let options = ReductionOptions::default();
    let mut sum = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut bounds = DeviceBuffer::unwritten(bench.stream(), 1)?;
    for log in [20, 26, 28] {
        for ahead in [4, 8] {
            for threads in [128, 256] {
                for blocks in [396, 528, 0x7fff_ffff] {
                    if log == 20 && blocks != 0x7fff_ffff {
                        continue;
                    }
                    bench.launch(Launch { threads, ahead, blocks })?;
                    let name = format!(
                        "2^{log}, {threads} threads, {ahead} ahead, at most {blocks} blocks"
                    );
                    bench.time::<f32>(
                        &format!("sum f32 {name}"),
                        1 << log,
                        |reducer: &mut Reducer, x| {
                            Ok(reducer.sum_into(x, &options, sum.as_mut_slice())?)
                        },
                    )?;
                    bench.time::<f32>(
                        &format!("max f32 {name}"),
                        1 << log,
                        |reducer: &mut Reducer, x| {
                            Ok(reducer.bounds_into(x, &options, bounds.as_mut_slice())?)
                        },
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// The default launch, and the one that was measured for the size.
fn tuned(device: Device) -> Result<(), Failed> {
    let mut bench = Bench::new(device)?;
    for log in (12..=28).step_by(4) {
        tuned_of::<f32>(&mut bench, 1 << log)?;
        tuned_of::<bf16>(&mut bench, 1 << log)?;
    }
    Ok(())
}

fn tuned_of<T: GpuElement>(bench: &mut Bench, n: usize) -> Result<(), Failed> {
    let options = ReductionOptions::default();
    let mut sum = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut bounds = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut stats = DeviceBuffer::unwritten(bench.stream(), 1)?;
    for (what, name) in
        [(Flat::Sum, "sum"), (Flat::Bounds, "max"), (Flat::Statistics, "statistics")]
    {
        let tuned = bench.tune::<T>(what, n)?;
        for (which, launch) in [("default", Launch::default()), ("tuned", tuned.launch)] {
            bench.launch(launch)?;
            bench.time::<T>(&format!("{which} {name} {} {n}", T::NAME), n, |reducer, x| {
                Ok(match what {
                    Flat::Sum => reducer.sum_into(x, &options, sum.as_mut_slice()),
                    Flat::Bounds => reducer.bounds_into(x, &options, bounds.as_mut_slice()),
                    _ => reducer.statistics_into(x, &options, stats.as_mut_slice()),
                }?)
            })?;
        }
        println!("    tuned: {}; {}", tuned.launch, tuned.source);
    }
    Ok(())
}

/// The three strategies, each against the same copy: flat, in segments, in columns.
fn strategies(device: Device) -> Result<(), Failed> {
    let mut bench = Bench::new(device)?;
    for strategy in
        [ReductionStrategy::Hierarchical, ReductionStrategy::Atomic, ReductionStrategy::Direct]
    {
        let options = ReductionOptions { strategy, ..Default::default() };
        let direct = strategy == ReductionStrategy::Direct;
        // One block over gigabytes takes seconds, and says no more.
        for log in [12, 16, 20, 24, 28].into_iter().filter(|log| !direct || *log < 28) {
            flat_strategy::<f32>(&mut bench, 1 << log, &options)?;
        }
        flat_strategy::<i64>(&mut bench, 1 << 24, &options)?;
        segment_strategy(&mut bench, &options)?;
        column_strategy(&mut bench, &options)?;
    }
    Ok(())
}

fn flat_strategy<T: GpuElement>(
    bench: &mut Bench,
    n: usize,
    options: &ReductionOptions,
) -> Result<(), Failed> {
    let name = |what: &str| format!("{:?} {what} {} {n}", options.strategy, T::NAME);
    let mut sum = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut extrema = DeviceBuffer::unwritten(bench.stream(), 1)?;
    let mut stats = DeviceBuffer::unwritten(bench.stream(), 1)?;
    bench.time::<T>(&name("sum"), n, |reducer, x| {
        Ok(reducer.sum_into(x, options, sum.as_mut_slice())?)
    })?;
    bench.time::<T>(&name("extrema"), n, |reducer, x| {
        Ok(reducer.extrema_into(x, options, extrema.as_mut_slice())?)
    })?;
    bench.time::<T>(&name("statistics"), n, |reducer, x| {
        Ok(reducer.statistics_into(x, options, stats.as_mut_slice())?)
    })
}

/// 2^26 f32 in segments of 2^20, where blocks share a segment, and 2^24 of which half are one segment, the others 64 long.
fn segment_strategy(bench: &mut Bench, options: &ReductionOptions) -> Result<(), Failed> {
    let n = 1_usize << 26;
    let name = |what: &str| format!("{:?} {what}", options.strategy);
    let mut sums = DeviceBuffer::<f64>::unwritten(bench.stream(), n >> 20)?;
    let mut stats = DeviceBuffer::<ChunkStats>::unwritten(bench.stream(), n >> 20)?;
    bench.time::<f32>(&name("sums of segments of 2^20"), n, |reducer, x| {
        Ok(reducer.equal_sums_into(x, 1 << 20, options, sums.as_mut_slice())?)
    })?;
    bench.time::<f32>(&name("statistics of segments of 2^20"), n, |reducer, x| {
        Ok(reducer.equal_into(x, 1 << 20, options, stats.as_mut_slice())?)
    })?;
    // A quarter of them, since one group of lanes alone takes tens of milliseconds.
    let n = n / 4;
    let mut cuts: Vec<u64> = (0..n as u64 / 4).step_by(64).collect();
    cuts.extend((n as u64 * 3 / 4..=n as u64).step_by(64));
    let mut sums = DeviceBuffer::<f64>::unwritten(bench.stream(), cuts.len() - 1)?;
    let cuts = DeviceBuffer::from_host(bench.stream(), &cuts)?;
    bench.time::<f32>(&name("sums between offsets, half of 2^24 in one"), n, |reducer, x| {
        Ok(reducer.offset_sums_into(x, cuts.as_slice(), options, sums.as_mut_slice())?)
    })
}

/// 8192 × 8192 f32.
fn column_strategy(bench: &mut Bench, options: &ReductionOptions) -> Result<(), Failed> {
    const SIDE: usize = 8192;
    let name = |what: &str| format!("{:?} {what} f32 {SIDE}x{SIDE}", options.strategy);
    let mut sums = DeviceBuffer::<f64>::unwritten(bench.stream(), SIDE)?;
    let mut stats = DeviceBuffer::<ChunkStats>::unwritten(bench.stream(), SIDE / 64)?;
    bench.time::<f32>(&name("column sums"), SIDE * SIDE, |reducer, x| {
        let matrix = DeviceMatrix::contiguous(x, SIDE, SIDE)?;
        Ok(reducer.column_sums_into(&matrix, options, sums.as_mut_slice())?)
    })?;
    bench.time::<f32>(&name("statistics of chunks of 64"), SIDE * SIDE, |reducer, x| {
        let matrix = DeviceMatrix::contiguous(x, SIDE, SIDE)?;
        Ok(reducer.column_chunks_into(&matrix, 64, options, stats.as_mut_slice())?)
    })
}
