//! Runs steps, in the way that was asked for or that is measured to be the fastest.

use std::sync::Arc;
use std::time::Instant;

use kasmina_sys::{ComputeCapability, CudaVersion, Stream};

use super::chooser::Turn;
use super::done::StepRun;
use super::kinds::{Kinds, Seen};
use super::options::RunnerOptions;
use super::report::StepRunnerReport;
use super::step::{Kind, SharedStep, StepEnd};
use super::way::{ExecutionMode, Way};
use super::ways::Ran;
use crate::cuda::error::CudaError;
use crate::cuda::{Engine, PersistentExecutor, Room, SharedLayer, StepGraph, StepGraphOptions};
use crate::{AdamW, Element};

/// Runs training steps of shared layers by launches, as a graph, by a resident grid, or by whichever of these is measured to be the
/// fastest. What a step computes does not depend on the way, but for the last bits of a grid's sums
/// ([`RunnerOptions::sums_may_differ`]), so trying costs nothing but time: it is done on the caller's own steps.
///
/// Steps run in the order of the calls. Layers may be used otherwise between two of them: commands, epoch boundaries, passes, checkpoints.
///
/// ```no_run
/// use std::sync::Arc;
/// use kasmina_core::cuda::{CudaLayer, Engine, RunnerOptions, SharedMatrix, SharedStep, StepEnd, StepRunner};
/// use kasmina_core::{AdamW, Layer, SeedLayout};
/// use kasmina_sys::{Driver, Stream};
/// use parking_lot::Mutex;
///
/// let engine = Engine::new(Driver::load()?.device(0)?)?;
/// let stream = Stream::new(engine.context())?;
/// let layer = Layer::builder(SeedLayout::new(768, 48)?).build()?;
/// let shared = || Ok::<_, Box<dyn std::error::Error>>(Arc::new(Mutex::new(CudaLayer::from_layer(&layer, &engine, &stream)?)));
/// let layers = [shared()?, shared()?];
/// let matrix = |_| SharedMatrix::<f32>::zeroed(&stream, 32, 768);
/// let x = (0..3).map(matrix).collect::<Result<Vec<_>, _>>()?; // the input, and the layers' outputs
/// let g = (0..3).map(matrix).collect::<Result<Vec<_>, _>>()?; // the last is dL/dy
/// let step = SharedStep::both(&layers, &x, &g)?;
///
/// let mut runner = StepRunner::new(&engine, &stream, RunnerOptions::new());
/// for i in 0..1000 {
///     let optimizer = AdamW { learning_rate: 1e-3 / f64::from(i + 1), ..AdamW::default() };
///     let run = runner.run(&step, &StepEnd::new().optimizer(&optimizer).advance())?;
///     run.wait()?; // before the next input is written
/// }
/// println!("{}", runner.report());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # How `Auto` decides
/// By the time that a step takes the caller: blocks of steps are timed from the first call to the end of the last step on the device, with
/// whatever the caller does between them, and the least median counts ([`Trials`](super::Trials) says how many steps that takes). Only the
/// first timed step of a block waits for what was before it, and only the last is waited for; all other steps are queued as ever. A way that
/// refuses a step is dropped with its reason, and the step is launched.
///
/// Each kind of step (which layers and passes, how many rows and what follows) has a way of its own. What runs in a layer may change: seeds
/// begin or cease to run, other guards, other telemetry. Then the search is made again, [`Trials::again_after`](super::Trials::again_after)
/// steps after the last one at the earliest.
#[derive(Debug)]
pub struct StepRunner {
    pub(super) engine: Arc<Engine>,
    pub(super) options: RunnerOptions,
    pub(super) graph: StepGraph,
    pub(super) executor: Option<Arc<PersistentExecutor>>,
    kinds: Kinds<Kind>,
    pub(super) last: Option<StepRun>,
    /// Where steps were queued, each stream once.
    pub(super) queued_on: Vec<Stream>,
    /// When the block that is timed began.
    clock: Option<Instant>,
    pub(super) counts: [u64; 3],
    /// Why a step was launched that was asked to go another way, the last time.
    refused: [Option<String>; 3],
}

impl StepRunner {
    /// For layers on the device of `engine`. Graphs are replayed on `stream`, which is that of the layers.
    pub fn new(engine: &Arc<Engine>, stream: &Stream, options: RunnerOptions) -> Self {
        if let Some(problem) = &options.problem {
            tracing::warn!(target: "kasmina::execution", %problem, "steps are executed as by `auto`");
        }
        let graph = options.graph.unwrap_or_else(|| best_graph(engine));
        Self {
            engine: Arc::clone(engine),
            graph: StepGraph::new(stream, graph),
            executor: None,
            kinds: Kinds::new(options.trials),
            options,
            last: None,
            queued_on: Vec::new(),
            clock: None,
            counts: [0; 3],
            refused: [None, None, None],
        }
    }

    /// Shares an executor with others in place of making one: two grids would wait for one another.
    #[must_use]
    pub fn with_executor(mut self, executor: &Arc<PersistentExecutor>) -> Self {
        self.executor = Some(Arc::clone(executor));
        self
    }

    /// Queues a step, after every earlier one of this runner and after everything queued on the streams of its layers and matrices so
    /// far.
    ///
    /// # Errors
    /// As [`StepGraph::replay`]: a step that no way can run, of which nothing is queued then. A step before it, or this one, that was lost
    /// on a grid, which is not used any more then. Or the driver refused.
    pub fn run<T: Element>(
        &mut self,
        step: &SharedStep<T>,
        end: &StepEnd,
    ) -> Result<StepRun, CudaError> {
        if let Some(optimizer) = &end.optimizer {
            AdamW::validate(optimizer)?;
        }
        for stream in step.streams() {
            if stream.is_capturing()? {
                return Err(kasmina_sys::Error::Capturing { what: "a step of a runner" }.into());
            }
        }
        match self.options.mode.way() {
            Some(way) => self.run_asked(way, step, end),
            None => self.run_tried(step, end),
        }
    }

    /// Waits until every step so far is done.
    ///
    /// # Errors
    /// One of them did not run to its end.
    pub fn wait(&self) -> Result<(), CudaError> {
        // A step on the grid is the last of those there, which end in their order.
        self.last.as_ref().filter(|last| last.is_on_grid()).map_or(Ok(()), StepRun::wait)?;
        Ok(self.queued_on.iter().try_for_each(Stream::synchronize)?)
    }

    /// What has run so far, which way the kind of step that ran last goes, and why.
    pub fn report(&self) -> StepRunnerReport {
        let mode = self.options.mode;
        let auto = mode == ExecutionMode::Auto;
        let kind = self.kinds.latest().filter(|_| auto);
        let chooser = kind.map(|kind| &kind.chooser);
        StepRunnerReport {
            way: self.last.as_ref().map(StepRun::way),
            graph: self.graph.report().clone(),
            executor: self.executor.as_ref().map(|executor| executor.report()),
            ..StepRunnerReport::new(mode, self.counts, &self.refused, chooser)
        }
    }

    fn run_asked<T: Element>(
        &mut self,
        way: Way,
        step: &SharedStep<T>,
        end: &StepEnd,
    ) -> Result<StepRun, CudaError> {
        match self.go(way, step, end)? {
            Ran::Done(run) => Ok(run),
            Ran::Launched(run, reason) => {
                self.refused[way.index()] = Some(reason);
                Ok(run)
            }
        }
    }

    fn run_tried<T: Element>(
        &mut self,
        step: &SharedStep<T>,
        end: &StepEnd,
    ) -> Result<StepRun, CudaError> {
        let (at, begins) = self.kinds.visit(step.kind(end));
        if begins {
            let excluded = self.excluded(step)?;
            self.kinds.at(at).chooser.begin(excluded);
        }
        let turn = self.kinds.at(at).chooser.next();
        if turn.starts {
            self.settle()?;
            self.clock = Some(Instant::now());
        }
        let ran = self.go(turn.way, step, end).and_then(|ran| self.time(ran, turn));
        let chooser = &mut self.kinds.at(at).chooser;
        let run = match ran {
            Ok((Ran::Done(run), cost)) => {
                chooser.ran(cost);
                run
            }
            Ok((Ran::Launched(run, reason), _)) => {
                chooser.refused(turn.way, reason);
                run
            }
            Err(error) => {
                self.clock = None;
                if let Some(reason) = self.executor.as_ref().and_then(|executor| executor.why_not())
                {
                    chooser.refused(Way::Persistent, reason);
                }
                return Err(error);
            }
        };
        if has_changed(&mut self.kinds.at(at).seen, step.layers()) {
            self.kinds.at(at).chooser.changed();
        }
        Ok(run)
    }

    /// Microseconds a step of the block, where this was its end.
    fn time(&mut self, ran: Ran, turn: Turn) -> Result<(Ran, Option<f64>), CudaError> {
        let Some(begun) = self.clock.take_if(|_| turn.ends) else { return Ok((ran, None)) };
        self.settle()?;
        let steps = f64::from(self.options.trials.steps);
        Ok((ran, Some(begun.elapsed().as_secs_f64() * 1e6 / steps)))
    }

    /// Waits until every step so far is done. One that is lost is told of once.
    fn settle(&mut self) -> Result<(), CudaError> {
        let settled = self.wait();
        if settled.is_err() {
            self.last = None;
        }
        settled
    }
}

impl Drop for StepRunner {
    fn drop(&mut self) {
        // An executor of others goes on; its grid is to leave what follows the multiprocessors.
        if let (Some(executor), Some(_)) =
            (&self.executor, self.last.take_if(|last| last.is_on_grid()))
        {
            executor.let_grid_go();
        }
    }
}

/// Whether the layers do other work than when they were last looked at.
fn has_changed(seen: &mut Vec<Seen>, layers: &[SharedLayer]) -> bool {
    seen.resize(layers.len(), Seen::default());
    let mut changed = false;
    for (layer, seen) in layers.iter().zip(seen) {
        let layer = layer.lock();
        let now = Some((layer.id(), layer.launches_revision()));
        if seen.at != now {
            let work = layer.work_signature();
            changed |= seen.at.is_some() && seen.work != work;
            *seen = Seen { at: now, work };
        }
    }
    changed
}

/// The fastest of the graphs in every row of `docs/benchmarks.md`, where the device and the driver make it.
fn best_graph(engine: &Engine) -> StepGraphOptions {
    let driver = engine.context().device().driver().version();
    let programmatic =
        engine.capability() >= ComputeCapability::new(9, 0) && driver >= CudaVersion::new(12, 3);
    StepGraphOptions::new().room(Room::Exact).programmatic(programmatic)
}
