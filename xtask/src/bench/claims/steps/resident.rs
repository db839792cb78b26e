//! The small layers' step without a launch for each operation: as a graph, and by the resident grid.

use std::sync::Arc;
use std::time::Duration;

use kasmina_core::ForwardOptions;
use kasmina_core::cuda::executor::launch_plainly;
use kasmina_core::cuda::{
    CudaError, CudaLayer, ExecutorOptions, PersistentExecutor, ResidentStep, ResidentStepBuilder,
    SharedLayer, SharedMatrix,
};
use kasmina_sys::{CaptureMode, Graph, GraphExec, Stream};

use super::super::super::buffers::values;
use super::super::super::measure::{Bench, Failure};
use super::super::agree::Judge;
use super::super::expansions;
use super::stack::{ALPHA, Stack};

/// How long the grid stays without work, and how long it is waited for until it has gone.
const IDLE: Duration = Duration::from_millis(5);
const GONE: Duration = Duration::from_millis(50);

/// The step of a stack's layers, forward and back, on matrices of its own.
pub(super) struct Resident {
    /// Before what it replays.
    graph: GraphExec,
    executor: PersistentExecutor,
    step: ResidentStep,
    first: SharedMatrix<f32>,
    /// What our passes make of the same: the last y and the first dL/dx.
    expected: [Vec<f32>; 2],
    results: [SharedMatrix<f32>; 2],
    judge: Judge,
    stream: Stream,
    /// Whether the grid may be on the device.
    stays: bool,
}

impl Resident {
    /// Layers with the parameters of those of `like`, which has run. No grid is on the device afterwards.
    pub(super) fn new(bench: &Bench, like: &mut Stack<f32>) -> Result<Self, Failure> {
        let (engine, stream) = (bench.engine(), bench.clock().stream());
        let (matrices, layers) = (like.matrices(), like.len());
        let layout = super::layout(matrices)?;
        let matrix = || SharedMatrix::<f32>::zeroed(stream, matrices.rows, matrices.hidden);
        let all = || (0..=layers).map(|_| matrix()).collect::<Result<Vec<_>, _>>();
        let (activations, gradients) = (all()?, all()?);
        let (Some(first), Some(last), Some(grad), Some(given)) =
            (activations.first(), activations.last(), gradients.first(), gradients.last())
        else {
            return Err(Failure::text("there are no layers".to_owned()));
        };
        let drawn = values::<f32>(matrices.rows * matrices.hidden);
        first.write(&drawn)?;
        given.write(&drawn)?;
        let shared = |number| -> Result<SharedLayer, Failure> {
            let expansions = expansions::draw(layout, ALPHA, number);
            let layer = expansions::layer(layout, Some(&expansions)).map_err(CudaError::from)?;
            let layer = CudaLayer::from_layer(&layer, engine, stream)?;
            Ok(Arc::new(parking_lot::Mutex::new(layer)))
        };
        let shared = (0..layers).map(shared).collect::<Result<Vec<_>, _>>()?;
        let (mut step, options) = (ResidentStepBuilder::new(), ForwardOptions::new());
        let refused = |error| Failure::from(CudaError::from(error));
        for (i, layer) in shared.iter().enumerate() {
            step.forward(layer, &activations[i], &activations[i + 1], &options).map_err(refused)?;
        }
        for (i, layer) in shared.iter().enumerate().rev() {
            step.backward(layer, &activations[i], &gradients[i + 1], &gradients[i], &options)
                .map_err(refused)?;
        }
        let step = step.build().map_err(refused)?;
        let executor = PersistentExecutor::new(engine, ExecutorOptions::new().idle(IDLE))?;
        executor.prepare(&step)?;
        // Before the capture, so that the modules are loaded.
        // SAFETY: what the step reaches is kept, and the stream is waited for.
        let launched = unsafe { launch_plainly(&executor, &step, stream) };
        stream.synchronize()?;
        launched?;
        let mut captured = Ok(());
        let graph = Graph::capture(stream, CaptureMode::ThreadLocal, |stream| {
            // SAFETY: step and executor stay in the value below with the graph, the step keeps its layers, and nobody changes these.
            captured = unsafe { launch_plainly(&executor, &step, stream) };
            Ok(())
        });
        captured?;
        let graph = graph?.instantiate()?;
        let (first, results) = (first.clone(), [last.clone(), grad.clone()]);
        let (expected, judge) = (like.results()?, Judge::default());
        let stream = stream.clone();
        let stays = true;
        let mut resident =
            Self { graph, executor, step, first, expected, results, judge, stream, stays };
        resident.clear();
        resident.check("the graph", Self::launch_graph)?;
        Ok(resident)
    }

    /// Waits until the grid has left the device, if it was there.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.stays) {
            std::thread::sleep(GONE);
        }
    }

    /// Queues the graph.
    pub(super) fn launch_graph(&self) -> Result<(), CudaError> {
        // SAFETY: this keeps all that the graph reaches until it is dropped, which waits for the stream first.
        Ok(unsafe { self.graph.launch(&self.stream) }?)
    }

    /// Queues the kernel that hands the step to the grid and waits for it.
    pub(super) fn launch_on_grid(&self) -> Result<(), CudaError> {
        // SAFETY: this keeps them until it is dropped, which waits for the stream first, and leaves them alone meanwhile.
        unsafe { self.executor.launch_on(&self.step, &self.stream) }
    }

    /// Sees that the grid computes the same, too.
    pub(super) fn check_grid(&mut self) -> Result<(), Failure> {
        self.stays = true;
        self.check("the grid", Self::launch_on_grid)
    }

    fn check(
        &mut self,
        who: &str,
        launch: impl FnOnce(&Self) -> Result<(), CudaError>,
    ) -> Result<(), Failure> {
        let (rows, columns) = self.first.shape();
        let zeros = vec![0.0; rows * columns];
        self.results.iter().try_for_each(|matrix| matrix.write(&zeros))?;
        launch(self)?;
        self.stream.synchronize()?;
        let names = ["last y", "first dL/dx"];
        for ((name, matrix), expected) in names.into_iter().zip(&self.results).zip(&self.expected) {
            let found = matrix.read()?;
            self.judge
                .elements(&format!("{who}'s {name}"), kasmina_core::DType::F32, &found, expected)
                .map_err(Failure::text)?;
        }
        Ok(())
    }

    /// How far it was from our passes.
    pub(super) fn disagreement(&self) -> f64 {
        self.judge.worst()
    }

    /// What the executor says of itself.
    pub(super) fn report(&self) -> String {
        self.executor.report().to_string()
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // What is queued reaches the step's memory. An error here has been told of by whoever waited before.
        drop(self.stream.synchronize());
    }
}
