//! A stack by the resident grid, and by its items without it.

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
use super::super::summary::Timing;
use super::line::{LAYERS, Passes, StackLine, Way};
use super::plain::Results;

/// The grid stays between two steps of the host.
pub(super) const IDLE: Duration = Duration::from_millis(20);
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

pub(super) fn refused(error: impl Into<CudaError>) -> Failure {
    error.into().into()
}

pub(super) fn shared(bench: &Bench, layer: &Layer) -> Result<SharedLayer, Failure> {
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
