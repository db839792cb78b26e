//! A subject that lies in one way: what a soak must notice, whichever backend it comes from.

use std::path::Path;
use std::sync::Arc;

use kasmina_core::{
    AdamW, Command, Controller, Element, Layer, LayerState, Registry, SeedSignals, Stability,
};
use kasmina_telemetry::{TelemetryMode, TelemetryScope};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::faults::Shelf;
use super::life::{self, Life, text};
use super::subject::{Boundary, Given, Subject, forward};
use super::tally::Tally;
use super::user::Shift;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    None,
    /// One element of y is off by a thousandth.
    Output,
    /// The same of dL/dx.
    Gradient,
    /// A pass is counted twice.
    Count,
    /// Updates are not told.
    Update,
    /// Every command is accepted.
    Command,
    /// Steps do not advance.
    Step,
    /// The end of a checkpoint is missing.
    Checkpoint,
}

struct Liar {
    layer: Layer,
    lie: Lie,
}

fn bent<T: Element>(mut values: Vec<T>, bend: bool) -> Vec<T> {
    if let Some(value) = values.last_mut().filter(|_| bend) {
        // Of a size that every value has to be away from.
        *value = T::from_f32(value.to_f32() * 1.001 + 0.05);
    }
    values
}

impl Subject for Liar {
    type Home = Lie;
    const HAS_GRID: bool = false;

    fn faults(_: &Lie) -> &'static [&'static str] {
        &[]
    }

    fn new(lie: &Lie, layer: Layer) -> Result<Self, String> {
        Ok(Self { layer, lie: *lie })
    }

    fn look(&mut self) -> Result<&LayerState, String> {
        self.layer.look()
    }

    fn before_step(&mut self, tally: &mut Tally) -> Result<(), String> {
        self.layer.before_step(tally)
    }

    fn set_stability(&mut self, stability: Stability) -> Result<(), String> {
        Subject::set_stability(&mut self.layer, stability)
    }

    fn set_telemetry_mode(&mut self, mode: TelemetryMode) -> Result<(), String> {
        Subject::set_telemetry_mode(&mut self.layer, mode)
    }

    fn set_telemetry_scope(&mut self, scope: TelemetryScope) {
        self.layer.set_telemetry_scope(scope);
    }

    fn zero_gradients(&mut self) -> Result<(), String> {
        Subject::zero_gradients(&mut self.layer)
    }

    fn passes<T: Element>(
        &mut self,
        given: &Given<'_, T>,
        tally: &mut Tally,
    ) -> Result<(Vec<T>, Vec<T>), String> {
        if self.lie == Lie::Count {
            let _again = forward(&mut self.layer, given)?;
        }
        let (y, grad_x) = self.layer.passes(given, tally)?;
        Ok((bent(y, self.lie == Lie::Output), bent(grad_x, self.lie == Lie::Gradient)))
    }

    fn optimizer_step(&mut self, optimizer: &AdamW) -> Result<Vec<usize>, String> {
        let updated = Subject::optimizer_step(&mut self.layer, optimizer)?;
        Ok(if self.lie == Lie::Update { Vec::new() } else { updated })
    }

    fn advance_step(&mut self) -> Result<(), String> {
        if self.lie == Lie::Step { Ok(()) } else { Subject::advance_step(&mut self.layer) }
    }

    fn command(&mut self, seed: usize, command: Command, why: &str) -> kasmina_core::Result<()> {
        let said = Subject::command(&mut self.layer, seed, command, why);
        if self.lie == Lie::Command { Ok(()) } else { said }
    }

    fn withdraw(&mut self, seed: usize) -> Option<Command> {
        self.layer.withdraw(seed)
    }

    fn roll_back(&mut self, why: &str) -> kasmina_core::Result<()> {
        self.layer.roll_back(why)
    }

    fn record(&mut self, seed: usize, signals: SeedSignals) -> Result<(), String> {
        Subject::record(&mut self.layer, seed, signals)
    }

    fn end_epoch(
        &mut self,
        controller: Option<&mut dyn Controller>,
        tally: &mut Tally,
    ) -> Result<Boundary, String> {
        Subject::end_epoch(&mut self.layer, controller, tally)
    }

    fn save(&mut self, path: &Path) -> Result<(), String> {
        Subject::save(&mut self.layer, path)?;
        if self.lie == Lie::Checkpoint {
            let bytes = std::fs::read(path).map_err(text)?;
            std::fs::write(path, &bytes[..bytes.len() - 1]).map_err(text)?;
        }
        Ok(())
    }

    fn restore(&mut self, path: &Path, registry: &Registry) -> Result<(), String> {
        Subject::restore(&mut self.layer, path, registry)
    }

    fn replace(&mut self, layer: Layer) -> Result<(), String> {
        Subject::replace(&mut self.layer, layer)
    }

    fn inject(&mut self, fault: &'static str) -> Result<bool, String> {
        self.layer.inject(fault)
    }

    fn finish(self, tally: &mut Tally) -> Result<(), String> {
        self.layer.finish(tally)
    }
}

/// Some lives without the faults that limit the whole process.
fn live(lie: Lie) -> Result<(), String> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut tally = Tally::default();
    let user = Arc::new(Shift::default());
    let registry = life::registry(&user)?;
    let mut shelf = Shelf::new(registry.clone(), Liar::faults(&lie))?;
    for _ in 0..4 {
        let mut life = Life::<Liar>::draw(&lie, &mut rng, &registry, &user)?;
        for _ in 0..15 {
            for _ in 0..3 {
                life.step(&mut rng, &mut tally)?;
            }
            life.end_epoch(&mut rng, &mut tally)?;
            shelf.save(&mut life, &mut tally)?;
        }
        life.subject.finish(&mut tally)?;
        shelf.next_life();
    }
    Ok(())
}

#[test]
fn an_honest_subject_passes_and_every_lie_is_noticed() {
    live(Lie::None).expect("it does not lie");
    for (lie, words) in [
        (Lie::Output, &["chunk was changed", "y: seed"][..]),
        (Lie::Gradient, &["chunk was changed", "grad_x: seed"]),
        (Lie::Count, &["counted"]),
        (Lie::Update, &["was left alone"]),
        (Lie::Command, &["by the table, and the engine has it legal"]),
        (Lie::Step, &["alpha of seed", "by the table"]),
        (Lie::Checkpoint, &["safetensors"]),
    ] {
        let error = live(lie).expect_err("it lies");
        assert!(words.iter().any(|words| error.contains(words)), "{lie:?}: {error}");
    }
}
