//! A stack by the resident grid, and how long one small step takes there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kasmina_core::cuda::executor::launch_plainly;
use kasmina_core::cuda::{
    CudaError, CudaLayer, ExecutorOptions, PersistentExecutor, ResidentStep, ResidentStepBuilder,
    SharedLayer, SharedMatrix,
};
use kasmina_core::{ForwardOptions, Layer};
use kasmina_sys::{CaptureMode, Graph, Stream};
use parking_lot::Mutex;

use super::super::buffers::values;
use super::super::measure::{Bench, Failure};
use super::super::summary::{Timing, percentile};
use super::Latency;
use super::line::{LAYERS, LatencyLine, Passes, StackLine, Way};
use super::plain::Results;

/// The grid stays between two steps of the host.
const IDLE: Duration = Duration::from_millis(20);
/// Steps that are submitted before they are waited for together.
const QUEUED: usize = 8;
const WARM_UP: usize = 5;

/// Layers and matrices that the grid reaches. Dropped, the grid has gone.
pub(super) struct Resident {
    executor: PersistentExecutor,
    layers: Vec<SharedLayer>,
    x: Vec<SharedMatrix<f32>>,
    g: Vec<SharedMatrix<f32>>,
}

fn refused(error: impl Into<CudaError>) -> Failure {
    error.into().into()
}

fn shared(bench: &Bench, layer: &Layer) -> Result<SharedLayer, Failure> {
    let layer = CudaLayer::from_layer(layer, bench.engine(), bench.clock().stream())?;
    Ok(Arc::new(Mutex::new(layer)))
}

impl Resident {
    pub(super) fn new(bench: &Bench, line: &StackLine) -> Result<Self, Failure> {
        let stream = bench.clock().stream();
        let layer = line.layer().map_err(refused)?;
        let layers = (0..LAYERS).map(|_| shared(bench, &layer)).collect::<Result<_, _>>()?;
        let drawn = values::<f32>(line.rows * line.hidden);
        let matrices = || -> Result<Vec<SharedMatrix<f32>>, Failure> {
            let one = |_| -> Result<_, Failure> {
                let matrix = SharedMatrix::zeroed(stream, line.rows, line.hidden)?;
                matrix.write(&drawn)?;
                Ok(matrix)
            };
            (0..=LAYERS).map(one).collect()
        };
        let (x, g) = (matrices()?, matrices()?);
        let executor = PersistentExecutor::new(bench.engine(), ExecutorOptions::new().idle(IDLE))?;
        if let Some(why) = executor.report().why_no_grid {
            return Err(Failure::text(format!("there is no grid: {why}")));
        }
        Ok(Self { executor, layers, x, g })
    }

    fn step(&self, passes: Passes) -> Result<ResidentStep, Failure> {
        let (mut step, options) = (ResidentStepBuilder::new(), ForwardOptions::new());
        for (layer, x) in self.layers.iter().zip(self.x.windows(2)) {
            step.forward(layer, &x[0], &x[1], &options).map_err(refused)?;
        }
        if passes == Passes::Both {
            for (layer, (x, g)) in
                self.layers.iter().zip(self.x.iter().zip(self.g.windows(2))).rev()
            {
                step.backward(layer, x, &g[1], &g[0], &options).map_err(refused)?;
            }
        }
        step.build().map_err(refused)
    }

    /// Times steps; beside the times are what the executor says, and what came out.
    pub(super) fn time(
        &mut self,
        bench: &Bench,
        line: &StackLine,
    ) -> Result<(Timing, String, Results), Failure> {
        let step = self.step(line.passes)?;
        let (last, first) = (self.x.last(), self.g.first());
        let results: Vec<&SharedMatrix<f32>> = last.into_iter().chain(first).collect();
        let zeros = vec![0.0; line.rows * line.hidden];
        results.iter().try_for_each(|matrix| matrix.write(&zeros))?;
        let timing = match line.way {
            Way::Items => self.items(bench, &step)?,
            Way::ItemsCaptured => self.items_captured(bench, &step)?,
            Way::GridFromDevice => self.handed_over(bench, &step)?,
            Way::Grid => self.submitted(&step, QUEUED, bench.clock().repetitions())?,
            _ => self.submitted(&step, 1, bench.clock().repetitions())?,
        };
        let report = self.executor.report();
        if report.by_launches > 0 {
            return Err(Failure::text(format!("the grid did not run it: {report}")));
        }
        let found: Vec<Vec<f32>> =
            results.iter().map(|matrix| matrix.read()).collect::<Result<_, _>>()?;
        let found: Results = found.try_into().unwrap_or_default();
        Ok((timing, report.to_string(), found))
    }

    /// On the host's clock, for there is none beside the grid; so many in a row.
    fn submitted(
        &self,
        step: &ResidentStep,
        launches: usize,
        repetitions: usize,
    ) -> Result<Timing, Failure> {
        let mut milliseconds = Vec::new();
        for round in 0..WARM_UP + repetitions {
            let begun = Instant::now();
            for _ in 1..launches {
                let _later = self.executor.submit(step)?;
            }
            self.executor.submit(step)?.wait().map_err(refused)?;
            self.executor.drain()?;
            if round >= WARM_UP {
                milliseconds.push(begun.elapsed().as_secs_f64() * 1e3 / launches as f64);
            }
        }
        Ok(Timing { milliseconds, launches })
    }

    /// On the stream's clock: a kernel of it hands the step over, and waits.
    fn handed_over(&self, bench: &Bench, step: &ResidentStep) -> Result<Timing, Failure> {
        self.executor.prepare(step)?;
        // SAFETY: layers, matrices and executor are kept by this and the step by the caller, who leaves them alone; `on_stream` waits.
        on_stream(bench, |stream| unsafe { self.executor.launch_on(step, stream) })
    }

    /// A launch for each of the step's items. No grid has been started yet, as these ways come first.
    fn items(&self, bench: &Bench, step: &ResidentStep) -> Result<Timing, Failure> {
        self.executor.prepare(step)?;
        // SAFETY: as above.
        on_stream(bench, |stream| unsafe { launch_plainly(&self.executor, step, stream) })
    }

    /// The same as a graph.
    fn items_captured(&self, bench: &Bench, step: &ResidentStep) -> Result<Timing, Failure> {
        self.executor.prepare(step)?;
        let stream = bench.clock().stream();
        // Before the capture, so that the modules are loaded.
        // SAFETY: as above, and it is waited for here.
        let launched = unsafe { launch_plainly(&self.executor, step, stream) };
        stream.synchronize()?;
        launched?;
        let mut captured = Ok(());
        let graph = Graph::capture(stream, CaptureMode::ThreadLocal, |stream| {
            // SAFETY: nothing runs yet; the graph does not outlive this call, and its replays are waited for.
            captured = unsafe { launch_plainly(&self.executor, step, stream) };
            Ok(())
        });
        captured?;
        let graph = graph?.instantiate()?;
        // SAFETY: as above.
        on_stream(bench, |stream| Ok(unsafe { graph.launch(stream) }?))
    }
}

/// Times what is queued on the clock's stream. Nothing of it runs any more afterwards, whatever failed.
fn on_stream(
    bench: &Bench,
    queue: impl Fn(&Stream) -> Result<(), CudaError>,
) -> Result<Timing, Failure> {
    let (clock, stream) = (bench.clock(), bench.clock().stream());
    let timing = clock.time(|_| queue(stream));
    if timing.is_err() {
        // Its error is the one that is told already, or comes from what was queued before it.
        drop(stream.synchronize());
    }
    Ok(timing?)
}

/// Times `steps` submissions of one layer's forward pass, one after the other.
pub(super) fn latency(bench: &Bench, line: &LatencyLine, steps: usize) -> Result<Latency, Failure> {
    let stream = bench.clock().stream();
    let layer = shared(bench, &line.layer().map_err(refused)?)?;
    let matrix = || SharedMatrix::<f32>::zeroed(stream, line.rows, line.hidden);
    let (x, y) = (matrix()?, matrix()?);
    let mut step = ResidentStepBuilder::new();
    step.forward(&layer, &x, &y, &ForwardOptions::new()).map_err(refused)?;
    let step = step.build().map_err(refused)?;
    let executor = PersistentExecutor::new(bench.engine(), ExecutorOptions::new().idle(IDLE))?;
    let (mut whole, mut submits) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP * QUEUED + steps {
        let begun = Instant::now();
        let ticket = executor.submit(&step)?;
        let submitted = begun.elapsed();
        ticket.wait().map_err(refused)?;
        if round >= WARM_UP * QUEUED {
            whole.push(begun.elapsed().as_secs_f64() * 1e3);
            submits.push(submitted.as_secs_f64() * 1e3);
        }
    }
    let report = executor.report();
    if report.by_launches > 0 {
        return Err(Failure::text(format!("the grid did not run it: {report}")));
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
