//! How a step goes each way, and what becomes of it where the way refuses it.

use std::sync::Arc;

use super::done::StepRun;
use super::runner::StepRunner;
use super::step::{SharedStep, StepEnd};
use super::way::Way;
use crate::Element;
use crate::cuda::error::CudaError;
use crate::cuda::{PersistentExecutor, ResidentStep};

/// Why a grid is not tried for backward passes.
const OTHER_SUMS: &str = "a grid sums parameter gradients in another order, and what is learned is not to depend on measured times; \
                          RunnerOptions::sums_may_differ allows it";

/// What became of a step.
pub(super) enum Ran {
    Done(StepRun),
    /// It ran by launches, for a reason.
    Launched(StepRun, String),
}

impl StepRunner {
    /// Why each way cannot be, as far as that is known without trying.
    pub(super) fn excluded<T: Element>(
        &mut self,
        step: &SharedStep<T>,
    ) -> Result<[Option<String>; 3], CudaError> {
        if step.has_backward() && !self.options.sums_may_differ {
            return Ok([None, None, Some(OTHER_SUMS.to_owned())]);
        }
        let resident = match step.resident() {
            Ok(resident) => resident,
            Err(error) => return Ok([None, None, Some(error.to_string())]),
        };
        // What the layers have against it, before a grid is made.
        let reason = match resident.why_launched()? {
            Some(reason) => Some(reason),
            None => match self.executor() {
                Ok(executor) => executor.why_not(),
                Err(error) if error.is_sticky() => return Err(error),
                Err(error) => Some(error.to_string()),
            },
        };
        Ok([None, None, reason])
    }

    fn executor(&mut self) -> Result<Arc<PersistentExecutor>, CudaError> {
        if let Some(executor) = &self.executor {
            return Ok(Arc::clone(executor));
        }
        let made = PersistentExecutor::new(&self.engine, self.options.executor.clone())?;
        Ok(Arc::clone(self.executor.insert(Arc::new(made))))
    }

    /// Runs the step that way, or by launches where it is not possible.
    pub(super) fn go<T: Element>(
        &mut self,
        way: Way,
        step: &SharedStep<T>,
        end: &StepEnd,
    ) -> Result<Ran, CudaError> {
        if way != Way::Persistent {
            self.leave_grid()?;
        }
        let ran = match way {
            Way::Launch => Ran::Done(self.launch(step, end)?),
            Way::Graph => self.replay(step, end)?,
            Way::Persistent => self.submit(step, end)?,
        };
        let run = match &ran {
            Ran::Done(run) | Ran::Launched(run, _) => run.clone(),
        };
        self.counts[run.way().index()] += 1;
        for stream in step.layers_streams().iter().filter(|_| !run.is_on_grid()) {
            if !self.queued_on.iter().any(|known| known.same_queue(stream)) {
                self.queued_on.push(stream.clone());
            }
        }
        self.last = Some(run);
        Ok(ran)
    }

    /// What follows is queued on streams, which do not wait for a grid, and wants the multiprocessors.
    fn leave_grid(&mut self) -> Result<(), CudaError> {
        let Some(last) = self.last.take_if(|last| last.is_on_grid()) else { return Ok(()) };
        if let Some(executor) = &self.executor {
            executor.let_grid_go();
        }
        last.wait()
    }

    fn launch<T: Element>(
        &self,
        step: &SharedStep<T>,
        end: &StepEnd,
    ) -> Result<StepRun, CudaError> {
        step.launch(end)?;
        Ok(StepRun::on_streams(Way::Launch, step.layers_streams()))
    }

    fn replay<T: Element>(
        &mut self,
        step: &SharedStep<T>,
        end: &StepEnd,
    ) -> Result<Ran, CudaError> {
        let before = self.graph.queued();
        let graph = &mut self.graph;
        match step.with_graph_step(end, |step| graph.replay(step)) {
            Ok(()) => Ok(Ran::Done(StepRun::on_streams(Way::Graph, step.layers_streams()))),
            Err(error) if error.is_sticky() || self.graph.queued() != before => Err(error),
            // Nothing of it was queued. What is wrong with the step itself launches refuse as well.
            Err(error) => Ok(Ran::Launched(self.launch(step, end)?, error.to_string())),
        }
    }

    fn submit<T: Element>(
        &mut self,
        step: &SharedStep<T>,
        end: &StepEnd,
    ) -> Result<Ran, CudaError> {
        let reason = match (step.resident(), self.executor()) {
            (Err(error), _) => error.to_string(),
            (_, Err(error)) if error.is_sticky() => return Err(error),
            (_, Err(error)) => error.to_string(),
            (Ok(resident), Ok(executor)) => match executor.why_not() {
                Some(reason) => reason,
                None => return self.submit_to(&executor, resident, step, end),
            },
        };
        self.leave_grid()?;
        Ok(Ran::Launched(self.launch(step, end)?, reason))
    }

    fn submit_to<T: Element>(
        &self,
        executor: &PersistentExecutor,
        resident: &ResidentStep,
        step: &SharedStep<T>,
        end: &StepEnd,
    ) -> Result<Ran, CudaError> {
        let ticket = executor.submit(resident)?;
        let why_launched = ticket.why_launched();
        let on_grid = why_launched.is_none();
        if end.optimizer.is_some() {
            // Its kernels want the multiprocessors, and gradients that are there.
            if on_grid {
                executor.let_grid_go();
                ticket.wait()?;
            }
            step.launch_end(end)?;
            let way = if on_grid { Way::Persistent } else { Way::Launch };
            let run = StepRun::on_streams(way, step.layers_streams());
            return Ok(why_launched.map_or(Ran::Done(run.clone()), |why| Ran::Launched(run, why)));
        }
        step.launch_end(end)?;
        Ok(match why_launched {
            None => Ran::Done(StepRun::on_grid(ticket)),
            Some(reason) => {
                Ran::Launched(StepRun::on_streams(Way::Launch, step.layers_streams()), reason)
            }
        })
    }
}
