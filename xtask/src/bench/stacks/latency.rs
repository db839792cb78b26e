//! How long one small step takes, from the host's call to a result that the host may use.

use std::time::Instant;

use kasmina_core::ForwardOptions;
use kasmina_core::cuda::{
    ExecutionMode, ExecutorOptions, PersistentExecutor, ResidentStepBuilder, RunnerOptions,
    SharedLayer, SharedMatrix, SharedStep, StepEnd, StepRunner, Way,
};

use super::super::measure::{Bench, Failure};
use super::super::summary::{Timing, percentile};
use super::Latency;
use super::line::{LatencyLine, Service};
use super::resident::{IDLE, refused, shared};

const WARM_UP: usize = 40;

/// Times `steps` of one layer's forward pass, each queued when the one before was there.
pub(super) fn latency(bench: &Bench, line: &LatencyLine, steps: usize) -> Result<Latency, Failure> {
    let stream = bench.clock().stream();
    let layer = shared(bench, &line.layer().map_err(refused)?)?;
    let matrix = || SharedMatrix::<f32>::zeroed(stream, line.rows, line.hidden);
    let (x, y) = (matrix()?, matrix()?);
    match line.by {
        Service::Launches => by_runner(bench, ExecutionMode::Launch, (layer, [x, y]), steps),
        Service::Graph => by_runner(bench, ExecutionMode::Graph, (layer, [x, y]), steps),
        Service::Grid => by_grid(bench, (layer, [x, y]), steps),
    }
}

type Small = (SharedLayer, [SharedMatrix<f32>; 2]);

fn by_grid(bench: &Bench, (layer, [x, y]): Small, steps: usize) -> Result<Latency, Failure> {
    let mut step = ResidentStepBuilder::new();
    step.forward(&layer, &x, &y, &ForwardOptions::new()).map_err(refused)?;
    let step = step.build().map_err(refused)?;
    let executor = PersistentExecutor::new(bench.engine(), ExecutorOptions::new().idle(IDLE))?;
    let found =
        sample(steps, || Ok(executor.submit(&step)?), |ticket| ticket.wait().map_err(refused))?;
    let report = executor.report();
    if report.by_launches > 0 {
        return Err(Failure::text(format!("the grid did not run it: {report}")));
    }
    Ok(found)
}

/// By a runner that is told how.
fn by_runner(
    bench: &Bench,
    mode: ExecutionMode,
    (layer, matrices): Small,
    steps: usize,
) -> Result<Latency, Failure> {
    let step = SharedStep::forward(&[layer], &matrices).map_err(refused)?;
    let options = RunnerOptions::new().mode(mode);
    let mut runner = StepRunner::new(bench.engine(), bench.clock().stream(), options);
    let end = StepEnd::new();
    let found = sample(steps, || Ok(runner.run(&step, &end)?), |run| Ok(run.wait()?))?;
    // A mode that is asked for may be impossible.
    let ways = runner.report().ways;
    let asked = |way| {
        matches!(
            (mode, way),
            (ExecutionMode::Launch, Way::Launch) | (ExecutionMode::Graph, Way::Graph)
        )
    };
    match ways.iter().find(|way| way.steps > 0 && !asked(way.way)) {
        None => Ok(found),
        Some(other) => {
            Err(Failure::text(format!("{} steps went another way: {}", other.steps, other.way)))
        }
    }
}

/// Times what queues a step and what waits for it.
fn sample<T>(
    steps: usize,
    mut queue: impl FnMut() -> Result<T, Failure>,
    wait: impl Fn(&T) -> Result<(), Failure>,
) -> Result<Latency, Failure> {
    let (mut whole, mut submits) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + steps {
        let begun = Instant::now();
        let step = queue()?;
        let submitted = begun.elapsed();
        wait(&step)?;
        if round >= WARM_UP {
            whole.push(begun.elapsed().as_secs_f64() * 1e3);
            submits.push(submitted.as_secs_f64() * 1e3);
        }
    }
    summarized(whole, submits).ok_or_else(|| Failure::text("nothing was timed".to_owned()))
}

/// The numbers of latencies in milliseconds; `None` of none.
fn summarized(whole: Vec<f64>, mut submits: Vec<f64>) -> Option<Latency> {
    let steps = whole.len();
    let timing = Timing { milliseconds: whole, launches: 1 };
    let summary = timing.summary()?;
    let mut sorted = timing.milliseconds;
    sorted.sort_by(f64::total_cmp);
    submits.sort_by(f64::total_cmp);
    let (p99, p999) = (percentile(&sorted, 0.99)?, percentile(&sorted, 0.999)?);
    let submit = percentile(&submits, 0.5)?;
    Some(Latency { summary, p99, p999, submit, steps, throttled: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_their_tails() {
        let whole: Vec<f64> = (0..=1000).rev().map(f64::from).collect();
        let latency = summarized(whole, vec![3.0, 1.0, 2.0]).expect("some");
        assert_eq!((latency.summary.median, latency.p99, latency.p999), (500.0, 990.0, 999.0));
        assert_eq!((latency.submit, latency.steps), (2.0, 1001));
        assert_eq!(summarized(Vec::new(), Vec::new()), None);
    }
}
