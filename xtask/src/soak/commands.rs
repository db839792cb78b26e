//! What is asked of a layer in the soak: random commands, legal and not, and the epoch boundary; the table and the engine have to
//! answer the same.

use kasmina_core::graft::Strategy;
use kasmina_core::{
    Blueprint, Command, Controller, Decision, Germination, HeuristicController, Lifecycle,
    Objective, SeedSignals,
};
use kasmina_oracle::lifecycle::Command as Verb;
use kasmina_telemetry::TelemetryReport;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::life::{Life, text};
use super::subject::{Boundary, Subject};
use super::tally::Tally;

impl<S: Subject> Life<S> {
    /// A random command to a random seed, legal or not: engine and table have to say the same.
    pub(super) fn command(
        &mut self,
        rng: &mut ChaCha8Rng,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let seeds = self.layout.seeds();
        match rng.random_range(0..80) {
            0 if rng.random_bool(0.25) => {
                let (ours, theirs) =
                    (self.replay.model.roll_back(), self.subject.roll_back("soak"));
                return same("a roll-back", ours, theirs.is_ok());
            }
            1 | 2 => {
                let seed = rng.random_range(0..seeds);
                let ours = self.replay.model.withdraw(seed);
                return same("a withdrawal", ours, self.subject.withdraw(seed).is_some());
            }
            3 | 4 => {
                let seed = rng.random_range(0..seeds);
                let signals = SeedSignals::loss(f64::from(rng.random_range(0.0f32..2.0)));
                let owns = self.subject.look()?.lifecycle.grown(seed).is_some();
                return same("a record", owns, self.subject.record(seed, signals).is_ok());
            }
            _ => {}
        }
        let seed = if rng.random_bool(0.02) { seeds } else { rng.random_range(0..seeds) };
        // Mostly what leads on, or nothing would ever be grown.
        let state = self.replay.model.seeds.get(seed).map_or(0, |seed| seed.state);
        let verb = match (rng.random_bool(0.8), state) {
            (true, state) if usize::from(state) < ON.len() => ON[usize::from(state)],
            (true, _) => Verb::Reset,
            (false, _) => match rng.random_range(0..ON.len() + OFF.len()) {
                i if i < ON.len() => ON[i],
                i => OFF[i - ON.len()],
            },
        };
        let (command, ramp) = self.spell(verb, rng)?;
        let legal = self.replay.model.command(seed, verb, ramp);
        let accepted = self.subject.command(seed, command, "soak");
        if let Err(error) = &accepted {
            tally.refused += 1;
            let names_it = error.to_string().contains(&format!("seed {seed}"));
            if !names_it && !matches!(error, kasmina_core::Error::RollBackPending) {
                return Err(format!("a refusal names no seed: {error}"));
            }
        }
        tally.commands += 1;
        same(&format!("{verb:?} to seed {seed} in state {state}"), legal, accepted.is_ok())
    }

    fn spell(
        &mut self,
        verb: Verb,
        rng: &mut ChaCha8Rng,
    ) -> Result<(Command, Option<u32>), String> {
        Ok((
            match verb {
                Verb::Germinate => return self.germination(rng),
                Verb::Promote => Command::Promote,
                Verb::Graft => Command::Graft,
                Verb::Stabilize => Command::Stabilize,
                Verb::Evaluate => Command::Evaluate,
                Verb::FineTune => Command::FineTune,
                Verb::Fossilize => Command::Fossilize,
                Verb::Cull => Command::Cull,
                Verb::Cancel => Command::Cancel,
                Verb::Reset | Verb::RollBack => Command::Reset,
            },
            None,
        ))
    }

    fn germination(&mut self, rng: &mut ChaCha8Rng) -> Result<(Command, Option<u32>), String> {
        let registry = self.subject.look()?.lifecycle.registry();
        let fits = |blueprint: &Blueprint| {
            use Blueprint::{AttentionHead, MlpExpansion, Residual};
            !self.pointwise || matches!(blueprint, Residual | AttentionHead | MlpExpansion)
        };
        let all = registry.iter().filter(|(_, blueprint)| fits(blueprint));
        let names: Vec<&str> = all.map(|(name, _)| name).collect();
        let blueprint = registry.find(names[rng.random_range(0..names.len())]).map_err(text)?;
        let steps = rng.random_range(1..6);
        let (strategy, ramp) = match rng.random_range(0..5) {
            0 => (Strategy::performance_linked(), None),
            1 => (Strategy::DriftControlled { steps, max_drift: 0.12 }, None),
            2 => (Strategy::GradNormGated { steps, low: 0.01, high: 10.0 }, None),
            _ => (Strategy::FixedRamp { steps }, Some(steps)),
        };
        let objective = if rng.random_bool(0.3) && !self.pointwise {
            Objective::Reconstruction
        } else {
            Objective::StraightThrough
        };
        let germination = Germination::new(blueprint).strategy(strategy).objective(objective);
        Ok((Command::Germinate(germination), ramp))
    }

    /// The boundary, with the heuristic controller now and then; its decisions are given to the table, too.
    pub(super) fn end_epoch(
        &mut self,
        rng: &mut ChaCha8Rng,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let mut decided = Vec::new();
        let Boundary { outcome, telemetry } = if rng.random_bool(0.3) {
            let mut recording = Recording { inner: &mut self.controller, decided: &mut decided };
            self.subject.end_epoch(Some(&mut recording), tally)?
        } else {
            self.subject.end_epoch(None, tally)?
        };
        let mut refused = 0;
        for Decision { seed, command, .. } in decided {
            let (verb, ramp) = verb(&command);
            refused += usize::from(!self.replay.model.command(seed, verb, ramp));
        }
        refused += self.replay.model.end_epoch().len();
        if outcome.refused.len() != refused {
            let found = outcome.refused.len();
            return Err(format!(
                "{found} commands were refused at the boundary, the table says {refused}"
            ));
        }
        tally.transitions += outcome.transitions.len();
        if let Some(telemetry) = telemetry {
            telemetry.check().map_err(text)?;
            let mut sink = Vec::new();
            kasmina_telemetry::write_open_metrics(&telemetry, &mut sink).map_err(text)?;
            tally.digest(&sink);
        }
        for state in self.replay.model.seeds.iter().map(|seed| seed.state) {
            tally.seen[usize::from(state)] += 1;
        }
        self.agree()
    }
}

/// The command that leads on from each state of a life, by code.
const ON: [Verb; 7] = [
    Verb::Germinate,
    Verb::Promote,
    Verb::Graft,
    Verb::Stabilize,
    Verb::Evaluate,
    Verb::FineTune,
    Verb::Fossilize,
];
/// Those that may come in any state.
const OFF: [Verb; 3] = [Verb::Cull, Verb::Cancel, Verb::Reset];

/// The table's name of a command, and the fixed ramp that it brings.
fn verb(command: &Command) -> (Verb, Option<u32>) {
    let verb = match command {
        Command::Germinate(germination) => {
            let ramp = match germination.strategy {
                Strategy::FixedRamp { steps } => Some(steps),
                _ => None,
            };
            return (Verb::Germinate, ramp);
        }
        Command::Promote => Verb::Promote,
        Command::Graft => Verb::Graft,
        Command::Stabilize => Verb::Stabilize,
        Command::Evaluate => Verb::Evaluate,
        Command::FineTune => Verb::FineTune,
        Command::Fossilize => Verb::Fossilize,
        Command::Cull => Verb::Cull,
        Command::Cancel => Verb::Cancel,
        Command::Reset => Verb::Reset,
    };
    (verb, None)
}

fn same(what: &str, table: bool, engine: bool) -> Result<(), String> {
    if table == engine {
        return Ok(());
    }
    let word = |legal| if legal { "legal" } else { "illegal" };
    Err(format!("{what} is {} by the table, and the engine has it {}", word(table), word(engine)))
}

/// A controller whose decisions are kept.
struct Recording<'a> {
    inner: &'a mut HeuristicController,
    decided: &'a mut Vec<Decision>,
}

impl Controller for Recording<'_> {
    fn decide(&mut self, lifecycle: &Lifecycle, report: &TelemetryReport) -> Vec<Decision> {
        let decisions = self.inner.decide(lifecycle, report);
        self.decided.clone_from(&decisions);
        decisions
    }
}
