//! What lives in a soak: a layer of some backend. All that a life does to its layer goes through here.

use std::path::Path;

use kasmina_core::lifecycle::EpochOutcome;
use kasmina_core::{
    AdamW, Command, Controller, Element, EpochReport, ForwardOptions, Layer, LayerState, MatMut,
    MatRef, Registry, SeedSignals, Stability,
};
use kasmina_telemetry::{TelemetryMode, TelemetryReport, TelemetryScope};

use super::life::text;
use super::tally::Tally;

/// What a pair of passes is given: `rows` rows of x and of dL/dy.
#[derive(Debug)]
pub(super) struct Given<'a, T> {
    pub(super) x: &'a [T],
    pub(super) grad_y: &'a [T],
    pub(super) rows: usize,
    pub(super) options: &'a ForwardOptions,
}

/// What an epoch boundary brought; no telemetry where that goes another way.
#[derive(Debug)]
pub(super) struct Boundary {
    pub(super) outcome: EpochOutcome,
    pub(super) telemetry: Option<TelemetryReport>,
}

impl From<EpochReport> for Boundary {
    fn from(EpochReport { outcome, telemetry }: EpochReport) -> Self {
        Self { outcome, telemetry: Some(telemetry) }
    }
}

/// A layer in a soak.
pub(super) trait Subject: Sized {
    /// What all layers of a run have in common.
    type Home;
    /// Whether some lives should be such that a resident grid can run them: rows of whole packets, pointwise seeds.
    const HAS_GRID: bool;

    /// Faults of this backend alone; each has to come about at least once in a run.
    fn faults(home: &Self::Home) -> &'static [&'static str];

    /// Takes a layer in.
    fn new(home: &Self::Home, layer: Layer) -> Result<Self, String>;

    /// The layer as it is now.
    fn look(&mut self) -> Result<&LayerState, String>;

    /// Called before each training step, for what this backend may do between two.
    fn before_step(&mut self, tally: &mut Tally) -> Result<(), String>;

    /// As the layer's own methods, from here on.
    fn set_stability(&mut self, stability: Stability) -> Result<(), String>;
    fn set_telemetry_mode(&mut self, mode: TelemetryMode) -> Result<(), String>;
    fn set_telemetry_scope(&mut self, scope: TelemetryScope);
    fn zero_gradients(&mut self) -> Result<(), String>;

    /// y and dL/dx of one forward and one backward pass.
    fn passes<T: Element>(
        &mut self,
        given: &Given<'_, T>,
        tally: &mut Tally,
    ) -> Result<(Vec<T>, Vec<T>), String>;

    /// The seeds that were updated.
    fn optimizer_step(&mut self, optimizer: &AdamW) -> Result<Vec<usize>, String>;
    fn advance_step(&mut self) -> Result<(), String>;
    fn command(&mut self, seed: usize, command: Command, why: &str) -> kasmina_core::Result<()>;
    fn withdraw(&mut self, seed: usize) -> Option<Command>;
    fn roll_back(&mut self, why: &str) -> kasmina_core::Result<()>;
    fn record(&mut self, seed: usize, signals: SeedSignals) -> Result<(), String>;
    fn end_epoch(
        &mut self,
        controller: Option<&mut dyn Controller>,
        tally: &mut Tally,
    ) -> Result<Boundary, String>;
    fn save(&mut self, path: &Path) -> Result<(), String>;
    fn restore(&mut self, path: &Path, registry: &Registry) -> Result<(), String>;

    /// Another layer of the same layout in the place of this one.
    fn replace(&mut self, layer: Layer) -> Result<(), String>;

    /// Injects one of [`Subject::faults`]; whether it came about here and now. What the layer is must not change by it.
    fn inject(&mut self, fault: &'static str) -> Result<bool, String>;

    /// The end of this life; afterwards nothing of it may be left.
    fn finish(self, tally: &mut Tally) -> Result<(), String>;
}

/// y of a forward pass on the CPU.
pub(super) fn forward<T: Element>(
    layer: &mut Layer,
    given: &Given<'_, T>,
) -> Result<Vec<T>, String> {
    let (hidden, mut y) = (layer.layout().hidden(), given.x.to_vec());
    let x = MatRef::contiguous(given.x, hidden).map_err(text)?;
    let out = MatMut::contiguous(&mut y, hidden).map_err(text)?;
    layer.forward(x, out, given.options).map_err(text)?;
    Ok(y)
}

/// dL/dx of a backward pass on the CPU.
pub(super) fn backward<T: Element>(
    layer: &mut Layer,
    given: &Given<'_, T>,
) -> Result<Vec<T>, String> {
    let (hidden, mut grad_x) = (layer.layout().hidden(), given.x.to_vec());
    let view = |data| MatRef::contiguous(data, hidden).map_err(text);
    let out = MatMut::contiguous(&mut grad_x, hidden).map_err(text)?;
    layer.backward(view(given.x)?, view(given.grad_y)?, out, given.options).map_err(text)?;
    Ok(grad_x)
}

/// The CPU's.
impl Subject for Layer {
    type Home = ();
    const HAS_GRID: bool = false;

    fn faults((): &()) -> &'static [&'static str] {
        &[]
    }

    fn new((): &(), layer: Layer) -> Result<Self, String> {
        Ok(layer)
    }

    fn look(&mut self) -> Result<&LayerState, String> {
        Ok(self.layer_state())
    }

    fn before_step(&mut self, _: &mut Tally) -> Result<(), String> {
        Ok(())
    }

    fn set_stability(&mut self, stability: Stability) -> Result<(), String> {
        self.set_stability(stability).map_err(text)
    }

    fn set_telemetry_mode(&mut self, mode: TelemetryMode) -> Result<(), String> {
        self.set_telemetry_mode(mode).map_err(text)
    }

    fn set_telemetry_scope(&mut self, scope: TelemetryScope) {
        self.set_telemetry_scope(scope);
    }

    fn zero_gradients(&mut self) -> Result<(), String> {
        self.zero_gradients();
        Ok(())
    }

    fn passes<T: Element>(
        &mut self,
        given: &Given<'_, T>,
        _: &mut Tally,
    ) -> Result<(Vec<T>, Vec<T>), String> {
        Ok((forward(self, given)?, backward(self, given)?))
    }

    fn optimizer_step(&mut self, optimizer: &AdamW) -> Result<Vec<usize>, String> {
        let report = self.optimizer_step(optimizer);
        Ok(report.updated.iter().map(|update| update.seed).collect())
    }

    fn advance_step(&mut self) -> Result<(), String> {
        self.advance_step();
        Ok(())
    }

    fn command(&mut self, seed: usize, command: Command, why: &str) -> kasmina_core::Result<()> {
        self.command(seed, command, why)
    }

    fn withdraw(&mut self, seed: usize) -> Option<Command> {
        self.withdraw(seed)
    }

    fn roll_back(&mut self, why: &str) -> kasmina_core::Result<()> {
        self.roll_back(why)
    }

    fn record(&mut self, seed: usize, signals: SeedSignals) -> Result<(), String> {
        self.record(seed, signals).map_err(text)
    }

    fn end_epoch(
        &mut self,
        controller: Option<&mut dyn Controller>,
        _: &mut Tally,
    ) -> Result<Boundary, String> {
        Ok(match controller {
            Some(controller) => self.end_epoch_with(controller),
            None => self.end_epoch(),
        }
        .into())
    }

    fn save(&mut self, path: &Path) -> Result<(), String> {
        Layer::save(self, path).map_err(text)
    }

    fn restore(&mut self, path: &Path, registry: &Registry) -> Result<(), String> {
        Layer::restore(self, path, registry, "soak").map(drop).map_err(text)
    }

    fn replace(&mut self, layer: Layer) -> Result<(), String> {
        *self = layer;
        Ok(())
    }

    fn inject(&mut self, fault: &'static str) -> Result<bool, String> {
        Err(format!("the CPU knows no fault {fault:?}"))
    }

    fn finish(self, _: &mut Tally) -> Result<(), String> {
        Ok(())
    }
}
