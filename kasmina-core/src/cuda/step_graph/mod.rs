//! A training step of a stack of layers as one graph: launched with one call, and changed in place when a layer changes.
//!
//! Nothing is captured. The layers' passes run as always, but their launches go onto a tape ([`Tape`](super::tape::Tape)), and
//! what is on it becomes the graph's nodes. So passes can upload, allocate and load kernels as they always do; all of that is
//! queued in front of the graph. A layer is written down anew only where something changed that its launches depend on: its
//! columns' revision says so. Programs, alphas, parameters and moments are in device memory, so they change without that.
//!
//! Read on in `step` (what a replay is given), `executable` (how a graph follows), `report`, and in `layer/step` (a layer's part).

mod executable;
mod report;
mod step;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use kasmina_sys::{ComputeCapability, Event, Stream};

pub use report::{Instantiation, StepGraphError, StepGraphReport};
pub use step::Step;

use executable::{Executable, Followed, Key, Make, Written};

use super::cuts;
use super::error::CudaError;
use super::layer::{CudaLayer, LayerStep, Phases, Ready};
use super::matrix::DeviceMatRef;
use crate::{AdamW, Element};

/// Graphs that are kept: with telemetry and without, of a training and of an evaluation step.
const KEPT: usize = 4;
/// The least that has programmatic edges.
const PROGRAMMATIC: ComputeCapability = ComputeCapability::new(9, 0);

/// For how much a graph has places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Room {
    /// For everything that a layer's lifecycle can bring about with the kinds of its registry. What does not run is skipped, and
    /// no command, graft or decay ever makes the graph anew. Other guards, histograms, or telemetry switched on may, once.
    #[default]
    Lifecycle,
    /// For what runs now, and no more. A seed that is the first or the last of its sort in its layer makes the graph anew.
    Exact,
}

/// How a [`StepGraph`] is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct StepGraphOptions {
    room: Room,
    programmatic: bool,
}

impl StepGraphOptions {
    /// Room for the lifecycle, each launch after the end of the one before.
    pub fn new() -> Self {
        Self::default()
    }

    /// For how much there are places.
    pub fn room(mut self, room: Room) -> Self {
        self.room = room;
        self
    }

    /// Lets a kernel be set up while the one before it still runs: programmatic dependent launch. It waits before it reads or
    /// writes anything, so results are the same. Such a graph has room for what runs now and no more ([`Room::Exact`]). From
    /// CUDA 12.3 and compute capability 9.0.
    pub fn programmatic(mut self, programmatic: bool) -> Self {
        self.programmatic = programmatic;
        self
    }
}

/// Replays a training step of a stack of layers with one launch. Results, statistics, counters and everything else that the layers
/// know are, bit for bit, those of the plain calls, which may come in between at any time; so may commands, epoch boundaries,
/// checkpoints and other settings. Each is seen by the next replay, of itself.
///
/// ```no_run
/// use kasmina_core::cuda::{CudaLayer, DeviceMatMut, Engine, Step, StepGraph, StepGraphOptions};
/// use kasmina_core::{AdamW, Layer, SeedLayout};
/// use kasmina_sys::{DeviceBuffer, Driver, Stream};
///
/// let engine = Engine::new(Driver::load()?.device(0)?)?;
/// let stream = Stream::new(engine.context())?;
/// let layer = Layer::builder(SeedLayout::new(768, 48)?).build()?;
/// let mut layers = [
///     CudaLayer::from_layer(&layer, &engine, &stream)?,
///     CudaLayer::from_layer(&layer, &engine, &stream)?,
/// ];
/// let memory = |_| DeviceBuffer::<f32>::zeroed(&stream, 32 * 768);
/// let mut x = (0..3).map(memory).collect::<Result<Vec<_>, _>>()?; // the input, and the layers' outputs
/// let mut g = (0..3).map(memory).collect::<Result<Vec<_>, _>>()?; // the last is dL/dy
/// let mut graph = StepGraph::new(&stream, StepGraphOptions::new());
/// for step in 0..1000 {
///     let matrix = |b| DeviceMatMut::new(DeviceBuffer::as_mut_slice(b), 32, 768, 768);
///     let mut x = x.iter_mut().map(matrix).collect::<Result<Vec<_>, _>>()?;
///     let mut g = g.iter_mut().map(matrix).collect::<Result<Vec<_>, _>>()?;
///     let optimizer = AdamW { learning_rate: 1e-3 / f64::from(step + 1), ..AdamW::default() };
///     let step = Step::chain(&mut layers, &mut x)?.chain_gradients(&mut g)?;
///     graph.replay(step.forward().backward().optimizer(&optimizer).advance())?;
/// }
/// for layer in &mut layers {
///     layer.end_epoch()?; // as ever; the next replay goes on
/// }
/// println!("{}", graph.report());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it costs
/// A step whose layers did not change costs the host one launch, and some bookkeeping a layer. Where a seed's alpha or program
/// changed there is an upload beside it. Where a layer launches something else than before, its launches are written down once more
/// (what its plain calls cost the host) and those that differ are exchanged in the graph. Where the graph has no place for one it
/// is instantiated anew, which [`StepGraphReport`] counts and explains. Matrices at other addresses, or with another number of
/// rows, are such a change too, and so are other settings of the optimizer, each step.
///
/// One stands for every kind of step: forward alone, training, measured or not. Graphs of the four kinds that were used last
/// are kept.
///
/// Dropping one waits for the stream.
#[derive(Debug)]
pub struct StepGraph {
    stream: Stream,
    options: StepGraphOptions,
    /// The latest first.
    executables: Vec<Executable>,
    /// Graphs that were replaced, and when they are done.
    retired: Vec<(Event, kasmina_sys::Chain)>,
    report: StepGraphReport,
    /// Replays that got as far as the stream.
    queued: u64,
}

impl StepGraph {
    /// For layers whose work is queued on `stream`. The first replay makes the graph.
    pub fn new(stream: &Stream, options: StepGraphOptions) -> Self {
        Self {
            stream: stream.clone(),
            options,
            executables: Vec::new(),
            retired: Vec::new(),
            report: StepGraphReport::default(),
            queued: 0,
        }
    }

    /// The stream of the replays.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// What it did so far.
    pub fn report(&self) -> &StepGraphReport {
        &self.report
    }

    /// Grows with each replay of which anything may be on the stream: an error that leaves it as it was is a refusal.
    pub(in crate::cuda) fn queued(&self) -> u64 {
        self.queued
    }

    /// Queues a step, after everything queued on the streams of its matrices so far; these wait for it. The host waits only
    /// where the plain calls would.
    ///
    /// # Errors
    /// [`CudaError::StepGraph`] and those of [`CudaLayer::forward`], [`CudaLayer::backward`] and [`CudaLayer::optimizer_step`]:
    /// nothing of the step is queued then, and the layers are as they were. [`kasmina_sys::Error::Capturing`] on a stream that
    /// somebody captures. Or the driver refused.
    pub fn replay<T: Element>(&mut self, step: Step<'_, T>) -> Result<(), CudaError> {
        self.check(&step)?;
        let Step { mut layers, parts, phases } = step;
        self.forget_done()?;
        let mut ready = Vec::with_capacity(layers.len());
        for (layer, part) in layers.iter_mut().zip(&parts) {
            ready.push(layer.ready_step(part, &phases)?);
        }
        let key = key(&layers, &ready, &phases);
        let at = self.executables.iter().position(|executable| executable.key == key);
        // Taken out: one that fails half way is not there any more.
        let mut executable = match at {
            Some(at) => self.executables.remove(at),
            None => Executable::new(key),
        };
        let queued = self.queue(&mut executable, &mut layers, &parts, &phases, &ready);
        let before = executable.take_before();
        self.retire(before)?;
        let followed = match queued {
            Ok(followed) => followed,
            Err(error) => {
                self.retire(executable.chain.take())?;
                return Err(error);
            }
        };
        let outcome = note(&executable, &mut layers, &parts, &phases, &ready);
        self.tell(&followed, &executable);
        self.executables.insert(0, executable);
        while self.executables.len() > KEPT {
            let oldest = self.executables.pop().and_then(|executable| executable.chain);
            self.retire(oldest)?;
        }
        outcome?;
        if phases.advance {
            layers.iter_mut().try_for_each(|layer| layer.advance_step())?;
        }
        Ok(())
    }

    fn check<T: Element>(&self, step: &Step<'_, T>) -> Result<(), CudaError> {
        if self.stream.is_capturing()? {
            return Err(kasmina_sys::Error::Capturing { what: "a replay of a step" }.into());
        }
        if let Some(optimizer) = &step.phases.optimizer {
            AdamW::validate(optimizer)?;
        }
        let mut ids: Vec<(u64, usize)> = Vec::with_capacity(step.layers.len());
        for (index, (layer, part)) in step.layers.iter().zip(&step.parts).enumerate() {
            if !layer.stream().same_queue(&self.stream) {
                return Err(StepGraphError::OtherStream { layer: index }.into());
            }
            let found = layer.engine().capability();
            if self.options.programmatic && found < PROGRAMMATIC {
                return Err(StepGraphError::Programmatic { found }.into());
            }
            layer.check_step(index, part, &step.phases)?;
            for home in homes(part) {
                if home.context().raw() != self.stream.context().raw() {
                    let what = "a replay of a step";
                    return Err(kasmina_sys::Error::OtherContext { what }.into());
                }
            }
            ids.push((layer.id(), index));
        }
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(StepGraphError::Twice { first: pair[0].1, second: pair[1].1 }.into()),
            None => Ok(()),
        }
    }

    /// Brings the graph to what the layers launch now, and launches it.
    fn queue<T: Element>(
        &mut self,
        executable: &mut Executable,
        layers: &mut [&mut CudaLayer],
        parts: &[LayerStep<'_, T>],
        phases: &Phases,
        ready: &[Ready],
    ) -> Result<Followed, CudaError> {
        for index in 0..layers.len() {
            self.write_down(executable, layers, index, parts, phases, ready)?;
        }
        let context = self.stream.context();
        let programmatic = self.options.programmatic;
        let followed = executable.follow(&Make { context, exact: self.exact(), programmatic })?;
        self.queued += 1;
        self.launch(executable, parts)?;
        Ok(followed)
    }

    /// Sees to it that the launches of layer `index` are written down as they are now.
    fn write_down<T: Element>(
        &mut self,
        executable: &mut Executable,
        layers: &mut [&mut CudaLayer],
        index: usize,
        parts: &[LayerStep<'_, T>],
        phases: &Phases,
        ready: &[Ready],
    ) -> Result<(), CudaError> {
        let (Some(layer), Some(step), Some(ready), Some(part)) = (
            layers.get_mut(index),
            parts.get(index),
            ready.get(index),
            executable.parts.get_mut(index),
        ) else {
            return Ok(());
        };
        let view = |matrix: &Option<DeviceMatRef<'_, T>>| matrix.as_ref().map(DeviceMatRef::view);
        let views = [view(&step.x), view(&step.y), view(&step.grad_y), view(&step.grad_x)];
        let is_written = part.written.as_ref().is_some_and(|written| {
            (written.dtype, &written.views) == (T::DTYPE, &views)
                && written.stamp == layer.stamp(ready)
        });
        if is_written && part.optimizer == phases.optimizer {
            return Ok(());
        }
        let exact = self.exact();
        part.written = None;
        if is_written {
            let anew = layer.record_optimizer(index, phases, ready)?;
            part.links.retain(|((phase, _), _)| *phase != super::tape::Phase::Optimizer);
            part.links.extend(anew);
        } else {
            (part.links, part.reports) = layer.record_step(index, step, phases, ready)?;
            part.room.clear();
            if !exact {
                let nothing = cuts::nothing(layer.engine())?;
                part.room = layer.room(step, phases, ready.watched.is_some(), &nothing);
            }
        }
        // The memory that was made for it belongs to what is written down.
        part.written = Some(Written { stamp: layer.stamp(ready), dtype: T::DTYPE, views });
        part.optimizer = phases.optimizer;
        part.is_new = true;
        self.report.recordings += 1;
        Ok(())
    }

    fn exact(&self) -> bool {
        self.options.room == Room::Exact || self.options.programmatic
    }

    fn launch<T: Element>(
        &self,
        executable: &Executable,
        parts: &[LayerStep<'_, T>],
    ) -> Result<(), CudaError> {
        let Some(chain) = &executable.chain else { return Ok(()) };
        let mut others: Vec<&Stream> = Vec::new();
        for home in parts.iter().flat_map(homes) {
            if !home.same_queue(&self.stream) && !others.iter().any(|other| other.same_queue(home))
            {
                others.push(home);
            }
        }
        for home in &others {
            self.stream.join(home)?;
        }
        // SAFETY: the links are what the layers' passes launch now, with their arguments, in the order of the plain calls. What they
        // reach belongs to the layers and is freed on this stream, or to the matrices, which are borrowed now, and whose streams
        // are joined before and after. The chain is kept until it is done: see `retire` and the drop.
        let launched = unsafe { chain.launch(&self.stream) };
        for home in others {
            if let Err(error) = home.join(&self.stream) {
                // Without a join the host waits in the home's place.
                self.stream.synchronize()?;
                launched?;
                return Err(error.into());
            }
        }
        Ok(launched?)
    }

    /// Keeps a graph that may still run until it is done.
    fn retire(&mut self, chain: Option<kasmina_sys::Chain>) -> Result<(), CudaError> {
        let Some(chain) = chain else { return Ok(()) };
        let noted = Event::new(self.stream.context())
            .and_then(|event| event.record(&self.stream).map(|()| event));
        match noted {
            Ok(event) => self.retired.push((event, chain)),
            // Nobody would know when it is done: the host waits in the note's place.
            Err(_) => self.stream.synchronize()?,
        }
        Ok(())
    }

    fn forget_done(&mut self) -> Result<(), CudaError> {
        let mut done = 0;
        while let Some((event, _)) = self.retired.get(done)
            && event.is_done()?
        {
            done += 1;
        }
        self.retired.drain(..done);
        Ok(())
    }

    fn tell(&mut self, followed: &Followed, executable: &Executable) {
        followed.tell(&mut self.report);
        self.report.replays += 1;
        let is_unchanged = followed.changed == 0 && followed.made.is_none();
        self.report.unchanged += u64::from(is_unchanged);
        (self.report.links, self.report.skipped) = executable.counts;
    }
}

impl Drop for StepGraph {
    fn drop(&mut self) {
        let runs = self.executables.iter().any(|executable| executable.chain.is_some());
        if !runs && self.retired.is_empty() {
            return;
        }
        if let Err(error) = self.stream.synchronize() {
            tracing::warn!(target: "kasmina::cuda", %error, "a step graph was dropped without knowing that it is done");
        }
    }
}

fn key(layers: &[&mut CudaLayer], ready: &[Ready], phases: &Phases) -> Key {
    let layers = layers.iter().zip(ready);
    Key {
        phases: [phases.forward, phases.backward, phases.optimizer.is_some()],
        layers: layers.map(|(layer, ready)| (layer.id(), ready.watched.is_some())).collect(),
    }
}

/// What the host knows of every layer once the step is queued.
fn note<T: Element>(
    executable: &Executable,
    layers: &mut [&mut CudaLayer],
    parts: &[LayerStep<'_, T>],
    phases: &Phases,
    ready: &[Ready],
) -> Result<(), CudaError> {
    let mut outcome = Ok(());
    let all = layers.iter_mut().zip(parts).zip(ready).zip(&executable.parts);
    for (((layer, step), ready), part) in all {
        let rows = step.x.as_ref().map_or(0, |x| x.shape().0);
        let noted = layer.note_step(rows, phases, ready, &part.reports);
        outcome = outcome.and(noted);
    }
    outcome
}

/// The streams of a layer's matrices.
fn homes<'a, T: Element>(step: &LayerStep<'a, T>) -> impl Iterator<Item = &'a Stream> {
    let matrices = [step.x, step.y, step.grad_y, step.grad_x];
    matrices.into_iter().flatten().map(|matrix| matrix.data().home())
}
