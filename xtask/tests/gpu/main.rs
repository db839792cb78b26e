//! The parts of `cargo xtask bench` that need a GPU, on tiny shapes: every line has to come to its numbers, which it only does after its results
//! were compared. The numbers say nothing. In no bundle, whose `bin/xtask bench` measures the real shapes.

use std::process::ExitCode;
use std::sync::Arc;

use half::bf16;
use kasmina_core::cuda::{Engine, KERNELS};
use kasmina_core::{DType, Element};
use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_sys::{Device, Stream};
use xtask::bench::case::{Case, Matrices, Seeds, Work};
use xtask::bench::clock::Clock;
use xtask::bench::measure::Bench;
use xtask::bench::reductions::arena::Sizes;
use xtask::bench::reductions::line::{Quantity, ReductionLine, Scalar, Shape, Way};
use xtask::bench::reductions::measure_in;
use xtask::bench::stacks::line::{
    LatencyLine, Life, Passes, Service, StackLine, Way as StackWay, stacks,
};
use xtask::bench::throttle::Watch;

const TESTS: &[(&str, Body)] = &[
    ("filters_and_matrices_are_timed", filters_and_matrices),
    ("every_reduction_agrees_and_is_timed", every_reduction),
    ("reductions_without_memory_say_so", reductions_without_memory),
    ("every_latency_is_timed", every_latency),
    ("every_way_of_a_stack_gives_the_same_bits", every_way_of_a_stack),
    ("every_way_of_a_whole_step_gives_the_same_bits", every_way_of_a_step),
];

fn main() -> ExitCode {
    kasmina_gpu_test::main("xtask", &KERNELS, TESTS)
}

/// The fewest repetitions that have a spread, and a cache so small that two sets of matrices suffice.
fn bench(device: Device) -> Result<Bench, Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let clock = Clock::new(&stream, 3, Watch::gpu(device))?;
    Ok(Bench::new(Arc::clone(&engine), clock, 1 << 14))
}

fn filters_and_matrices(device: Device) -> Result<(), Failed> {
    fn of<T: Element>(bench: &Bench, dtype: DType) -> Result<(), Failed> {
        let matrices = Matrices { rows: 8, hidden: 64, dtype };
        let kinds =
            [Seeds::Filter1, Seeds::Filter3, Seeds::Filter16, Seeds::Bottleneck, Seeds::Dense];
        let case = |seeds, work| Case { work, seeds, chunk: 16, matrices };
        let both = |seeds| [case(seeds, Work::ForwardTelemetry), case(seeds, Work::Backward)];
        let cases: Vec<Case> = kinds.into_iter().flat_map(both).collect();
        let group = bench.group::<T>(matrices, &cases);
        ensure(group.rows.len() == cases.len() && !group.lost, || format!("{group:?}"))?;
        for row in &group.rows {
            let found = row.outcome.as_ref().map_err(|why| format!("{}: {why}", row.case))?;
            let rate = found.teraflops.is_some_and(|rate| rate > 0.0);
            ensure(rate == row.case.seeds.are_matrices(), || format!("{}: {found:?}", row.case))?;
        }
        Ok(())
    }
    let bench = bench(device)?;
    of::<f32>(&bench, DType::F32)?;
    of::<bf16>(&bench, DType::Bf16)
}

/// Every quantity of every shape, type and way, as far as there are kernels.
fn lines() -> Vec<ReductionLine> {
    use Quantity::{Bounds, Count, Extrema, Products, Statistics, Sum, Summary};
    let mut lines = Vec::new();
    for way in [Way::Hierarchical, Way::Atomic, Way::Direct] {
        let mut add = |quantities: &[Quantity], shape, scalars: &[Scalar]| {
            for &quantity in quantities {
                let line = |&scalar| ReductionLine { quantity, shape, scalar, way };
                lines.extend(scalars.iter().map(line));
            }
        };
        let all = [Scalar::F32, Scalar::Bf16, Scalar::F64, Scalar::I32, Scalar::I64];
        let flat = Shape::Flat { elements: 3000 };
        add(&[Sum, Bounds, Extrema, Summary, Count, Statistics], flat, &all);
        let floats = &all[..2];
        let segments = Shape::Segments { elements: 3000, segment: 63 };
        add(&[Sum, Bounds, Statistics], segments, floats);
        add(&[Sum], Shape::Offsets { elements: 3000, segment: 63 }, floats);
        add(&[Sum], Shape::Uneven { elements: 1024 }, floats);
        let (rows, columns) = (20, 96);
        add(&[Sum, Bounds, Products], Shape::Columns { rows, columns }, floats);
        add(&[Statistics], Shape::Chunks { rows, columns, chunk: 40 }, floats);
    }
    lines
}

/// The smallest memory: what is summed before each call is small, too.
fn sizes() -> Sizes {
    let sizes = Sizes::new(1 << 16, 0, 0);
    // Room for the smallest copy stays.
    Sizes { arena: sizes.arena - sizes.before, before: 1 << 16 }
}

fn every_reduction(device: Device) -> Result<(), Failed> {
    let found = measure_in(&bench(device)?, &lines(), sizes());
    ensure(!found.lost, || "the device is lost".to_owned())?;
    let mut failed = Vec::new();
    for row in &found.reductions.rows {
        match &row.outcome {
            Err(why) => failed.push(format!("{}: {why}", row.line)),
            Ok(times) => {
                let sound = times.worst_error <= 1.0 && times.timing.milliseconds.len() == 3;
                ensure(sound && times.percent > 0.0, || format!("{}: {times:?}", row.line))?;
            }
        }
    }
    let (count, all) = (failed.len(), found.reductions.rows.len());
    ensure(failed.is_empty(), || format!("{count} of {all} failed:\n{}", failed.join("\n")))?;
    ensure(found.reductions.copies.len() == 1, || format!("{:?}", found.reductions.copies))
}

fn reductions_without_memory(device: Device) -> Result<(), Failed> {
    let (quantity, scalar, way) = (Quantity::Sum, Scalar::F32, Way::Hierarchical);
    let line = |elements| ReductionLine { quantity, shape: Shape::Flat { elements }, scalar, way };
    let found = measure_in(&bench(device)?, &[line(1 << 30), line(1000)], sizes());
    let rows = &found.reductions.rows;
    ensure(rows[0].outcome.as_ref().is_err_and(|why| why.contains("MiB")), || format!("{rows:?}"))?;
    ensure(rows[1].outcome.is_ok(), || format!("{rows:?}"))
}

fn all_are_timed(device: Device, lines: &[StackLine]) -> Result<(), Failed> {
    let found = xtask::bench::stacks::measure(&bench(device)?, lines, &[]);
    ensure(!found.lost && !found.rows.is_empty(), || "nothing was measured".to_owned())?;
    for row in &found.rows {
        let times = row.outcome.as_ref().map_err(|why| format!("{}: {why}", row.line))?;
        ensure(times.us_a_pass > 0.0 && !times.how.is_empty(), || format!("{}", row.line))?;
    }
    Ok(())
}

fn every_latency(device: Device) -> Result<(), Failed> {
    let small = |by| LatencyLine { rows: 1, hidden: 64, chunk: 64, by };
    let lines = [Service::Launches, Service::Graph, Service::Grid].map(small);
    let found = xtask::bench::stacks::measure(&bench(device)?, &[], &lines);
    for row in &found.latencies {
        let times = row.outcome.as_ref().map_err(|why| format!("{}: {why}", row.line))?;
        ensure(times.submit > 0.0 && times.steps == 300, || format!("{}: {times:?}", row.line))?;
    }
    ensure(found.latencies.len() == 3, || format!("{found:?}"))
}

/// Those of the command, on a small shape.
fn small(life: Life, passes: Passes) -> Vec<StackLine> {
    let all = stacks(true, None).into_iter();
    let of = all.filter(|line| line.life == life && line.passes == passes);
    of.map(|line| StackLine { rows: 2, hidden: 64, chunk: 4, ..line }).collect()
}

fn every_way_of_a_stack(device: Device) -> Result<(), Failed> {
    let lines = small(Life::Residuals, Passes::Both);
    ensure(lines.iter().any(|line| line.way == StackWay::GridFromDevice), || "none".to_owned())?;
    all_are_timed(device, &lines)
}

fn every_way_of_a_step(device: Device) -> Result<(), Failed> {
    all_are_timed(device, &small(Life::Grafting, Passes::Step))
}
