//! The GPU's subject of the soak: a layer that runs its passes on the device in every way there is, and moves to the CPU and back in the
//! middle of its life.
//!
//! `ways` runs passes and optimizer, `reports` publishes telemetry to a consumer that stalls and panics and keeps the account of it,
//! `faults` injects what goes wrong on a device.

mod faults;
mod reports;
mod ways;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use kasmina_core::cuda::{
    CudaError, CudaLayer, Engine, PersistentExecutor, PublishOutcome, SharedLayer, StepGraph,
    StepGraphOptions,
};
use kasmina_core::{
    AdamW, Command, Controller, Device, DeviceRequest, Element, Layer, LayerState, Registry,
    SeedSignals, Stability,
};
use kasmina_sys::Stream;
use kasmina_telemetry::{TelemetryMode, TelemetryScope};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::life::text;
use super::resources::DeviceMemory;
use super::subject::{Boundary, Given, Subject};
use super::tally::Tally;
use reports::Reports;

/// The device of a run, and what is counted over all its lives.
#[derive(Debug)]
pub(super) struct Gpu {
    engine: Arc<Engine>,
    /// Whether all of the device's memory may be taken for moments.
    fill: bool,
    filled: Cell<u32>,
}

impl Gpu {
    /// The first device; `fill` lets faults take all of its memory for moments.
    pub(super) fn find(fill: bool) -> Result<Rc<Self>, String> {
        let device = Device::select(DeviceRequest::Cuda(0)).map_err(text)?.device;
        let engine = device.engine().map_err(text)?.ok_or("the device is the CPU")?;
        Ok(Rc::new(Self { engine, fill, filled: Cell::new(0) }))
    }

    /// What it is called.
    pub(super) fn name(&self) -> Result<String, String> {
        self.engine.context().device().name().map_err(text)
    }

    /// What is taken of it while nothing lives: by this process's buffers, and by everything.
    pub(super) fn memory(&self) -> Result<DeviceMemory, String> {
        let context = self.engine.context();
        context.synchronize().map_err(text)?;
        context.trim_pool(0).map_err(text)?;
        let (free, total) = context.memory_info().map_err(text)?;
        let pool = context.pool_usage().map_err(text)?;
        Ok(DeviceMemory { taken: (total - free) >> 10, buffers: pool.map(|pool| pool.used) })
    }
}

/// Where the layer is.
#[derive(Debug)]
enum Place {
    Cpu(Box<Layer>),
    Gpu(SharedLayer),
}

/// A layer that moves.
#[derive(Debug)]
pub(super) struct Moving {
    // Before the stream and the layer, which they reach.
    graph: StepGraph,
    executor: Option<PersistentExecutor>,
    place: Place,
    reports: Reports,
    stream: Stream,
    /// The layer as of the last look.
    seen: LayerState,
    /// Its own, so that a life is the same on every backend.
    rng: ChaCha8Rng,
    home: Rc<Gpu>,
}

/// How often, a training step: from the device to the CPU, back, and a report in the middle of an epoch.
const LEAVES: f64 = 0.05;
const RETURNS: f64 = 0.5;
const PUBLISHES: f64 = 0.2;

impl Moving {
    fn on_device(&self) -> Option<&SharedLayer> {
        match &self.place {
            Place::Gpu(layer) => Some(layer),
            Place::Cpu(_) => None,
        }
    }

    fn bytes(&mut self) -> Result<Vec<u8>, String> {
        self.look()?.to_bytes().map_err(text)
    }

    /// To the other side: the same layer to the byte.
    fn go(&mut self) -> Result<(), String> {
        if let Some(layer) = self.on_device().cloned()
            && layer.lock().deferred_windows() > 0
        {
            // They would be lost with the device's layer.
            self.publish_waiting(&layer)?;
        }
        let before = self.bytes()?;
        self.place = match &self.place {
            Place::Cpu(layer) => {
                let layer = CudaLayer::from_layer(layer, &self.home.engine, &self.stream);
                Place::Gpu(Arc::new(Mutex::new(layer.map_err(text)?)))
            }
            Place::Gpu(layer) => Place::Cpu(Box::new(layer.lock().to_layer().map_err(text)?)),
        };
        match self.bytes()? == before {
            true => Ok(()),
            false => Err("a layer that moved is another one".to_owned()),
        }
    }

    /// Publishes what was counted so far.
    fn publish(&mut self, layer: &SharedLayer, tally: &mut Tally) -> Result<(), String> {
        self.reports.expect(self.look_at(layer)?);
        let outcome = layer.lock().publish(self.reports.transport()).map_err(text)?;
        note(outcome, tally);
        Ok(())
    }

    fn publish_waiting(&mut self, layer: &SharedLayer) -> Result<(), String> {
        self.reports.expect(self.look_at(layer)?);
        layer.lock().publish_waiting(self.reports.transport()).map(drop).map_err(text)
    }

    fn look_at(&self, layer: &SharedLayer) -> Result<LayerState, String> {
        let mut layer = layer.lock();
        layer.synchronize().map_err(text)?;
        Ok(layer.layer_state().clone())
    }
}

fn note(outcome: PublishOutcome, tally: &mut Tally) {
    tally.note("windows published");
    if matches!(outcome, PublishOutcome::Deferred { .. }) {
        tally.fault(reports::STALLS);
    }
}

impl Subject for Moving {
    type Home = Rc<Gpu>;

    const HAS_GRID: bool = true;

    fn faults(home: &Rc<Gpu>) -> &'static [&'static str] {
        faults::of(home.fill)
    }

    fn new(home: &Rc<Gpu>, layer: Layer) -> Result<Self, String> {
        let context = home.engine.context();
        let stream = Stream::new(context).map_err(text)?;
        let seen = layer.layer_state().clone();
        let drawn = crc32fast::hash(&seen.to_bytes().map_err(text)?);
        let mut new = Self {
            graph: StepGraph::new(&stream, StepGraphOptions::new()),
            executor: None,
            place: Place::Cpu(Box::new(layer)),
            reports: Reports::new(seen.lifecycle.layout().seeds())?,
            stream,
            seen,
            rng: ChaCha8Rng::seed_from_u64(drawn.into()),
            home: Rc::clone(home),
        };
        new.go()?;
        Ok(new)
    }

    fn look(&mut self) -> Result<&LayerState, String> {
        self.seen = match &self.place {
            Place::Cpu(layer) => layer.layer_state().clone(),
            Place::Gpu(layer) => self.look_at(layer)?,
        };
        Ok(&self.seen)
    }

    fn before_step(&mut self, tally: &mut Tally) -> Result<(), String> {
        self.reports.recover(tally)?;
        let (on_device, chance) = match &self.place {
            Place::Cpu(_) => (None, RETURNS),
            Place::Gpu(layer) => (Some(Arc::clone(layer)), LEAVES),
        };
        if self.rng.random_bool(chance) {
            tally.note("moves between CPU and GPU");
            self.go()
        } else if let Some(layer) = on_device
            && self.rng.random_bool(PUBLISHES)
        {
            self.publish(&layer, tally)
        } else {
            Ok(())
        }
    }

    fn set_stability(&mut self, stability: Stability) -> Result<(), String> {
        match &mut self.place {
            Place::Cpu(layer) => layer.set_stability(stability).map_err(text),
            Place::Gpu(layer) => layer.lock().set_stability(stability).map_err(text),
        }
    }

    fn set_telemetry_mode(&mut self, mode: TelemetryMode) -> Result<(), String> {
        match &mut self.place {
            Place::Cpu(layer) => layer.set_telemetry_mode(mode).map_err(text),
            Place::Gpu(layer) => layer.lock().set_telemetry_mode(mode).map_err(text),
        }
    }

    fn set_telemetry_scope(&mut self, scope: TelemetryScope) {
        match &mut self.place {
            Place::Cpu(layer) => layer.set_telemetry_scope(scope),
            Place::Gpu(layer) => layer.lock().set_telemetry_scope(scope),
        }
    }

    fn zero_gradients(&mut self) -> Result<(), String> {
        match &mut self.place {
            Place::Cpu(layer) => layer.zero_gradients(),
            Place::Gpu(layer) => return layer.lock().zero_gradients().map_err(text),
        }
        Ok(())
    }

    fn passes<T: Element>(
        &mut self,
        given: &Given<'_, T>,
        tally: &mut Tally,
    ) -> Result<(Vec<T>, Vec<T>), String> {
        self.run(given, tally)
    }

    fn optimizer_step(&mut self, optimizer: &AdamW) -> Result<Vec<usize>, String> {
        self.step_optimizer(optimizer)
    }

    fn advance_step(&mut self) -> Result<(), String> {
        match &mut self.place {
            Place::Cpu(layer) => layer.advance_step(),
            Place::Gpu(layer) => return layer.lock().advance_step().map_err(text),
        }
        Ok(())
    }

    fn command(&mut self, seed: usize, command: Command, why: &str) -> kasmina_core::Result<()> {
        match &mut self.place {
            Place::Cpu(layer) => layer.command(seed, command, why),
            Place::Gpu(layer) => layer.lock().command(seed, command, why),
        }
    }

    fn withdraw(&mut self, seed: usize) -> Option<Command> {
        match &mut self.place {
            Place::Cpu(layer) => layer.withdraw(seed),
            Place::Gpu(layer) => layer.lock().withdraw(seed),
        }
    }

    fn roll_back(&mut self, why: &str) -> kasmina_core::Result<()> {
        match &mut self.place {
            Place::Cpu(layer) => layer.roll_back(why),
            Place::Gpu(layer) => layer.lock().roll_back(why),
        }
    }

    fn record(&mut self, seed: usize, signals: SeedSignals) -> Result<(), String> {
        match &mut self.place {
            Place::Cpu(layer) => layer.record(seed, signals).map_err(text),
            Place::Gpu(layer) => layer.lock().record(seed, signals).map_err(text),
        }
    }

    fn end_epoch(
        &mut self,
        controller: Option<&mut dyn Controller>,
        tally: &mut Tally,
    ) -> Result<Boundary, String> {
        let layer = match &mut self.place {
            Place::Cpu(layer) => return Subject::end_epoch(&mut **layer, controller, tally),
            Place::Gpu(layer) => Arc::clone(layer),
        };
        if let Some(controller) = controller {
            return layer.lock().end_epoch_with(controller).map(Into::into).map_err(text);
        }
        if self.rng.random_bool(0.5) {
            return layer.lock().end_epoch().map(Into::into).map_err(text);
        }
        self.reports.expect(self.look_at(&layer)?);
        let ended = layer.lock().end_epoch_publishing(self.reports.transport()).map_err(text)?;
        note(ended.telemetry, tally);
        Ok(Boundary { outcome: ended.outcome, telemetry: None })
    }

    fn save(&mut self, path: &Path) -> Result<(), String> {
        match &mut self.place {
            Place::Cpu(layer) => layer.save(path).map_err(text),
            Place::Gpu(layer) => layer.lock().save(path).map_err(text),
        }
    }

    fn restore(&mut self, path: &Path, registry: &Registry) -> Result<(), String> {
        match &mut self.place {
            Place::Cpu(layer) => layer.restore(path, registry, "soak"),
            Place::Gpu(layer) => layer.lock().restore(path, registry, "soak"),
        }
        .map(drop)
        .map_err(text)
    }

    fn replace(&mut self, layer: Layer) -> Result<(), String> {
        match &mut self.place {
            Place::Cpu(old) => **old = layer,
            Place::Gpu(old) => return old.lock().replace(&layer).map_err(text),
        }
        Ok(())
    }

    fn inject(&mut self, fault: &'static str) -> Result<bool, String> {
        faults::inject(self, fault)
    }

    fn finish(mut self, tally: &mut Tally) -> Result<(), String> {
        self.reports.recover_for_good(tally)?;
        if let Some(layer) = self.on_device().cloned() {
            self.publish_waiting(&layer)?;
        }
        self.reports.close(tally)?;
        if let Some(executor) = self.executor.take() {
            let report = executor.report();
            tally.add("steps of the resident grid", report.submitted - report.by_launches);
            tally.add("steps of an executor by launches", report.by_launches);
            executor.stop().map_err(text)?;
        }
        let replays = self.graph.report().clone();
        tally.add("replays of graphs", replays.replays);
        self.stream.synchronize().map_err(text)
    }
}

/// Whether the layer refused a user's blueprint.
fn is_users(error: &CudaError) -> bool {
    matches!(error, CudaError::UserBlueprint { .. })
}
