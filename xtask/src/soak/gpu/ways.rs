//! Passes and optimizer steps in every way that a layer has on the device: its own calls, a graph, a resident grid.

use std::time::Duration;

use kasmina_core::cuda::{
    CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, ExecutorOptions, LayerStep,
    PersistentExecutor, ResidentStepBuilder, SharedMatrix, Step,
};
use kasmina_core::{AdamW, Element};
use kasmina_sys::DeviceBuffer;
use rand::Rng;

use super::super::life::text;
use super::super::subject::{Given, backward, forward};
use super::super::tally::Tally;
use super::{Moving, Place, faults, is_users};

/// The grid goes soon: whatever is launched beside it waits for that.
const IDLE: Duration = Duration::from_micros(200);

/// y and dL/dx.
type Found<T> = (Vec<T>, Vec<T>);

#[derive(Clone, Copy)]
enum Way {
    Calls,
    Graph,
    Grid,
}

impl Moving {
    /// Both passes, on the device where it can be; a user's blueprint takes the layer to the CPU.
    pub(super) fn run<T: Element>(
        &mut self,
        given: &Given<'_, T>,
        tally: &mut Tally,
    ) -> Result<Found<T>, String> {
        let way = match self.rng.random_range(0..3) {
            0 => Way::Graph,
            // A step is many passes and has no probes.
            1 if given.options.probes().is_empty() => Way::Grid,
            _ => Way::Calls,
        };
        if self.on_device().is_some() {
            let (found, name) = match way {
                Way::Graph => {
                    (self.attempt(tally, |life| life.by_graph(given))?, "passes by graphs")
                }
                Way::Grid => {
                    (self.attempt(tally, |life| life.by_grid(given))?, "passes by executors")
                }
                Way::Calls => return self.by_calls(given, tally),
            };
            if let Some(found) = found {
                tally.note(name);
                return Ok(found);
            }
        }
        let layer = self.on_cpu()?;
        let y = forward(layer, given)?;
        tally.note("passes on the CPU");
        Ok((y, backward(self.on_cpu()?, given)?))
    }

    fn on_cpu(&mut self) -> Result<&mut kasmina_core::Layer, String> {
        match &mut self.place {
            Place::Cpu(layer) => Ok(layer),
            Place::Gpu(_) => Err("a layer that moved to the CPU is not there".to_owned()),
        }
    }

    /// What `body` finds on the device; `None` if that refuses a user's blueprint, which must not have changed anything: then the
    /// layer is on the CPU.
    fn attempt<R>(
        &mut self,
        tally: &mut Tally,
        body: impl FnOnce(&mut Self) -> Result<R, CudaError>,
    ) -> Result<Option<R>, String> {
        let before = self.bytes()?;
        match body(self) {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_users(&error) => {
                if self.bytes()? != before {
                    return Err(format!("a refusal changed the layer: {error}"));
                }
                tally.fault(faults::USERS);
                self.go()?;
                Ok(None)
            }
            Err(error) => Err(text(error)),
        }
    }

    /// By the layer's own calls. A blueprint of the user's that learns without being on path is refused in the backward pass alone.
    fn by_calls<T: Element>(
        &mut self,
        given: &Given<'_, T>,
        tally: &mut Tally,
    ) -> Result<Found<T>, String> {
        let Some(y) = self.attempt(tally, |life| life.forward_by_calls(given))? else {
            let y = forward(self.on_cpu()?, given)?;
            tally.note("passes on the CPU");
            return Ok((y, backward(self.on_cpu()?, given)?));
        };
        let grad_x = match self.attempt(tally, |life| life.backward_by_calls(given))? {
            Some(grad_x) => grad_x,
            None => backward(self.on_cpu()?, given)?,
        };
        tally.note("passes by calls");
        Ok((y, grad_x))
    }

    fn forward_by_calls<T: Element>(&self, given: &Given<'_, T>) -> Result<Vec<T>, CudaError> {
        let (x, mut y) = (self.upload(given.x)?, self.upload(given.x)?);
        self.layer(|layer| {
            let (rows, hidden) = shape(layer, given);
            let x = DeviceMatRef::new(x.as_slice(), rows, hidden, hidden)?;
            let mut y = DeviceMatMut::new(y.as_mut_slice(), rows, hidden, hidden)?;
            layer.forward(x, &mut y, given.options)
        })?;
        Ok(y.to_vec()?)
    }

    fn backward_by_calls<T: Element>(&self, given: &Given<'_, T>) -> Result<Vec<T>, CudaError> {
        let (x, grad_y) = (self.upload(given.x)?, self.upload(given.grad_y)?);
        let mut grad_x = self.upload(given.x)?;
        self.layer(|layer| {
            let (rows, hidden) = shape(layer, given);
            let view = |data| DeviceMatRef::new(data, rows, hidden, hidden);
            let (x, grad_y) = (view(x.as_slice())?, view(grad_y.as_slice())?);
            let mut grad_x = DeviceMatMut::new(grad_x.as_mut_slice(), rows, hidden, hidden)?;
            layer.backward(x, grad_y, &mut grad_x, given.options)
        })?;
        Ok(grad_x.to_vec()?)
    }

    /// Both passes as one replay.
    fn by_graph<T: Element>(&mut self, given: &Given<'_, T>) -> Result<Found<T>, CudaError> {
        let (x, grad_y) = (self.upload(given.x)?, self.upload(given.grad_y)?);
        let (mut y, mut grad_x) = (self.upload(given.x)?, self.upload(given.x)?);
        let Place::Gpu(layer) = &self.place else { return Err(CudaError::NoImage) };
        let layer = &mut *layer.lock();
        let (rows, hidden) = shape(layer, given);
        {
            let view = |data| DeviceMatRef::new(data, rows, hidden, hidden);
            let (x, grad_y) = (view(x.as_slice())?, view(grad_y.as_slice())?);
            let mut y = DeviceMatMut::new(y.as_mut_slice(), rows, hidden, hidden)?;
            let mut grad_x = DeviceMatMut::new(grad_x.as_mut_slice(), rows, hidden, hidden)?;
            let part = LayerStep::new(x).y(&mut y).gradients(grad_y, &mut grad_x);
            let parts = vec![part.options(given.options.clone())];
            let step = Step::apart(std::slice::from_mut(layer), parts)?;
            self.graph.replay(step.forward().backward())?;
        }
        Ok((y.to_vec()?, grad_x.to_vec()?))
    }

    /// Both passes as a step of the resident grid, or by an executor's launches where the grid cannot.
    fn by_grid<T: Element>(&mut self, given: &Given<'_, T>) -> Result<Found<T>, CudaError> {
        let Place::Gpu(layer) = &self.place else { return Err(CudaError::NoImage) };
        let hidden = layer.lock().layout().hidden();
        let matrix = |values: &[T]| -> Result<SharedMatrix<T>, CudaError> {
            let matrix = SharedMatrix::zeroed(&self.stream, given.rows, hidden)?;
            matrix.write(values)?;
            Ok(matrix)
        };
        let (x, grad_y) = (matrix(given.x)?, matrix(given.grad_y)?);
        let (y, grad_x) = (matrix(given.x)?, matrix(given.x)?);
        let mut step = ResidentStepBuilder::new();
        step.forward(layer, &x, &y, given.options)?;
        step.backward(layer, &x, &grad_y, &grad_x, given.options)?;
        let step = step.build()?;
        let executor = match &mut self.executor {
            Some(executor) => executor,
            none => {
                let options = ExecutorOptions::new().idle(IDLE);
                none.insert(PersistentExecutor::new(&self.home.engine, options)?)
            }
        };
        executor.submit(&step)?.wait()?;
        Ok((y.read()?, grad_x.read()?))
    }

    /// The optimizer's step by the layer's call or by a graph's; the seeds that it updated.
    pub(super) fn step_optimizer(&mut self, optimizer: &AdamW) -> Result<Vec<usize>, String> {
        let by_graph = self.rng.random_bool(0.3);
        match &mut self.place {
            Place::Cpu(layer) => {
                let report = layer.optimizer_step(optimizer);
                return Ok(report.updated.iter().map(|update| update.seed).collect());
            }
            Place::Gpu(_) if by_graph => {
                let before = self.bytes()?;
                match self.optimizer_by_graph(optimizer) {
                    // A replay refuses a blueprint of the user's that was probed away in the passes. The layer's call runs none.
                    Err(error) if is_users(&error) => {
                        if self.bytes()? != before {
                            return Err(format!("a refusal changed the layer: {error}"));
                        }
                        self.layer(|layer| layer.optimizer_step(optimizer)).map_err(text)?;
                    }
                    other => other.map_err(text)?,
                }
            }
            Place::Gpu(layer) => layer.lock().optimizer_step(optimizer).map_err(text)?,
        }
        self.layer(|layer| {
            layer.synchronize()?;
            let all = layer.take_optimizer_summaries();
            Ok(all.iter().filter(|one| one.updates > 0).map(|one| one.seed).collect())
        })
        .map_err(text)
    }

    fn optimizer_by_graph(&mut self, optimizer: &AdamW) -> Result<(), CudaError> {
        let Place::Gpu(layer) = &self.place else { return Err(CudaError::NoImage) };
        let layer = &mut *layer.lock();
        let hidden = layer.layout().hidden();
        // Without passes nothing reads it.
        let x = DeviceBuffer::<f32>::zeroed(&self.stream, hidden)?;
        let part = LayerStep::new(DeviceMatRef::new(x.as_slice(), 1, hidden, hidden)?);
        let step = Step::apart(std::slice::from_mut(layer), vec![part])?;
        self.graph.replay(step.optimizer(optimizer))
    }

    /// The layer on the device.
    pub(super) fn layer<R>(
        &self,
        body: impl FnOnce(&mut CudaLayer) -> Result<R, CudaError>,
    ) -> Result<R, CudaError> {
        match &self.place {
            Place::Gpu(layer) => body(&mut layer.lock()),
            // Callers have seen that it is there.
            Place::Cpu(_) => Err(CudaError::NoImage),
        }
    }

    fn upload<T: Element>(&self, values: &[T]) -> Result<DeviceBuffer<T>, CudaError> {
        Ok(DeviceBuffer::from_host(&self.stream, values)?)
    }
}

fn shape<T>(layer: &CudaLayer, given: &Given<'_, T>) -> (usize, usize) {
    (given.rows, layer.layout().hidden())
}
