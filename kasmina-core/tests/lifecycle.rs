//! Random walks through the lifecycle, against a second lifecycle written from the command table alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kasmina_core::graft::Strategy as GraftStrategy;
use kasmina_core::lifecycle::Cause;
use kasmina_core::{
    Command, Error, Germination, InitialSeed, LayerState, Lifecycle, LifecycleConfig,
    ParameterSpec, Registry, SeedLayout, Stability, State, TelemetryState, UserBlueprint,
};
use proptest::prelude::*;

const SEEDS: usize = 4;
const RAMP: u32 = 3;
const SETTLE: u64 = 2;
const EMBARGO: u32 = 2;

/// A user's blueprint that counts how often parameters are born, and fails when told to.
#[derive(Debug, Default)]
struct Counting {
    births: AtomicUsize,
    poison: std::sync::atomic::AtomicBool,
}

impl UserBlueprint for Counting {
    fn kind(&self) -> &str {
        "counting"
    }
    fn parameters(&self, c: usize) -> Vec<ParameterSpec> {
        vec![ParameterSpec::new("weight", [c])]
    }
    fn initialise(&self, _: usize, rng: &mut dyn rand::RngCore, values: &mut [f32]) {
        self.births.fetch_add(1, Ordering::Relaxed);
        for value in values.iter_mut() {
            *value = rng.next_u32() as f32 / u32::MAX as f32;
        }
        if self.poison.load(Ordering::Relaxed) {
            values[0] = f32::NAN;
        }
    }
    fn forward(&self, _: usize, _: &[f32], x: &[f32], y: &mut [f32]) {
        y.copy_from_slice(x);
    }
    fn backward(
        &self,
        _: usize,
        _: &[f32],
        _: &[f32],
        g: &[f32],
        grad_x: &mut [f32],
        _: Option<&mut [f32]>,
    ) {
        grad_x.copy_from_slice(g);
    }
    fn flops_per_row(&self, _: usize) -> u64 {
        0
    }
}

/// The command table, written down once more: name, from, to.
const TABLE: &[(&str, u8, u8)] = &[
    ("germinate", 0, 1),
    ("promote", 1, 2),
    ("graft", 2, 3),
    ("stabilize", 3, 4),
    ("evaluate", 4, 5),
    ("fine_tune", 5, 6),
    ("fossilize", 6, 7),
    ("cull", 2, 8),
    ("cull", 3, 8),
    ("cull", 4, 8),
    ("cull", 5, 8),
    ("cull", 6, 8),
    ("cancel", 1, 9),
    ("cancel", 2, 9),
    ("reset", 8, 0),
    ("reset", 9, 0),
];

const NAMES: [&str; 10] = [
    "germinate",
    "promote",
    "graft",
    "stabilize",
    "evaluate",
    "fine_tune",
    "fossilize",
    "cull",
    "cancel",
    "reset",
];

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ModelSeed {
    state: u8,
    /// Steps of the graft that made alpha what it is.
    ramp: u32,
    steps: u64,
    entered_epoch: u32,
    embargo_until: u32,
    waiting: Option<&'static str>,
}

#[derive(Clone, Debug, Default)]
struct Model {
    seeds: [ModelSeed; SEEDS],
    epoch: u32,
    roll_back: bool,
    births: usize,
    transitions: usize,
}

impl Model {
    fn target(&self, seed: usize, name: &str) -> Option<u8> {
        let s = &self.seeds[seed];
        let &(.., to) = TABLE.iter().find(|&&(n, from, _)| n == name && from == s.state)?;
        let allowed = match name {
            "stabilize" => s.ramp >= RAMP,
            "evaluate" => s.steps >= SETTLE,
            "reset" => s.state != 8 || self.epoch >= s.embargo_until,
            _ => true,
        };
        allowed.then_some(to)
    }

    fn command(&mut self, seed: usize, name: &'static str) -> bool {
        let ok = self.seeds[seed].waiting.is_none()
            && !(self.roll_back && (2..=6).contains(&self.seeds[seed].state))
            && self.target(seed, name).is_some();
        if ok {
            self.seeds[seed].waiting = Some(name);
        }
        ok
    }

    fn enter(&mut self, seed: usize, to: u8) {
        let s = &mut self.seeds[seed];
        let on_path = [3, 4, 5, 6, 7].contains(&to);
        s.ramp = if on_path && to != 3 { s.ramp } else { 0 };
        s.state = to;
        s.steps = 0;
        s.entered_epoch = self.epoch + 1;
        s.embargo_until = if to == 8 { self.epoch + 1 + EMBARGO } else { 0 };
        self.transitions += 1;
        self.births += usize::from(to == 1);
    }

    /// The seeds whose commands are refused.
    fn end_epoch(&mut self) -> Vec<usize> {
        let waiting = self.seeds.map(|s| s.waiting);
        self.seeds.iter_mut().for_each(|s| s.waiting = None);
        if self.roll_back {
            for seed in 0..SEEDS {
                if [2, 3, 4, 5, 6].contains(&self.seeds[seed].state) {
                    self.enter(seed, 10);
                }
            }
        }
        self.roll_back = false;
        let mut refused = Vec::new();
        for (seed, name) in waiting.into_iter().enumerate() {
            let Some(name) = name else { continue };
            match self.target(seed, name) {
                Some(to) => self.enter(seed, to),
                None => refused.push(seed),
            }
        }
        self.epoch += 1;
        refused
    }

    fn step(&mut self) {
        for s in &mut self.seeds {
            s.ramp += u32::from(s.state == 3 && s.ramp < RAMP);
            s.steps += u64::from((1..=7).contains(&s.state));
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Command(usize, &'static str),
    Step,
    EndEpoch,
    RollBack,
    Withdraw(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..SEEDS, prop::sample::select(&NAMES[..])).prop_map(|(s, n)| Act::Command(s, n)),
        // Forward more often than chance, or no walk gets far.
        6 => (0..SEEDS, prop::sample::select(&NAMES[..7])).prop_map(|(s, n)| Act::Command(s, n)),
        4 => Just(Act::Step),
        4 => Just(Act::EndEpoch),
        1 => Just(Act::RollBack),
        1 => (0..SEEDS).prop_map(Act::Withdraw),
    ]
}

fn build(name: &str, lifecycle: &Lifecycle) -> Command {
    match name {
        "germinate" => {
            let blueprint = lifecycle.registry().find("counting").unwrap();
            let strategy = GraftStrategy::FixedRamp { steps: RAMP };
            Command::Germinate(Germination::new(blueprint).strategy(strategy))
        }
        "promote" => Command::Promote,
        "graft" => Command::Graft,
        "stabilize" => Command::Stabilize,
        "evaluate" => Command::Evaluate,
        "fine_tune" => Command::FineTune,
        "fossilize" => Command::Fossilize,
        "cull" => Command::Cull,
        "cancel" => Command::Cancel,
        _ => Command::Reset,
    }
}

fn lifecycle(counting: &Arc<Counting>) -> Lifecycle {
    let mut registry = Registry::builtin();
    registry.register_user(counting.clone()).unwrap();
    let config = LifecycleConfig {
        stabilization_steps: SETTLE,
        embargo_epochs: EMBARGO,
        ..LifecycleConfig::default()
    };
    let layout = SeedLayout::new(4 * SEEDS - 1, 4).unwrap();
    Lifecycle::new(layout, registry, config, 11).unwrap()
}

/// Everything about a lifecycle, as bytes.
fn image(lifecycle: &Lifecycle) -> Vec<u8> {
    let layout = lifecycle.layout();
    LayerState {
        name: String::new(),
        lifecycle: lifecycle.clone(),
        stability: Stability::default(),
        telemetry: TelemetryState::new(layout),
    }
    .to_bytes()
    .unwrap()
}

fn agree(lifecycle: &Lifecycle, model: &Model, counting: &Counting) {
    assert_eq!(lifecycle.verify(), Ok(()));
    assert_eq!(lifecycle.epoch(), model.epoch);
    assert_eq!(lifecycle.history().len(), model.transitions);
    assert_eq!(counting.births.load(Ordering::Relaxed), model.births);
    for (seed, s) in model.seeds.iter().enumerate() {
        let row = lifecycle.table().get(seed).unwrap();
        let state = State::try_from(s.state).unwrap();
        assert_eq!(row.state, state);
        assert_eq!(row.alpha, s.ramp as f32 / RAMP as f32, "alpha of seed {seed} in {state}");
        assert_eq!((row.entered_epoch, row.embargo_until), (s.entered_epoch, s.embargo_until));
        assert_eq!(lifecycle.epochs_in_state(seed).unwrap(), model.epoch - s.entered_epoch);
        let owns = (1..=7).contains(&s.state);
        assert_eq!(lifecycle.steps_in_state(seed).unwrap(), if owns { s.steps } else { 0 });
        assert_eq!(lifecycle.grown(seed).is_some(), owns);
        assert_eq!(row.blueprint != u16::MAX, owns);
        assert_eq!(lifecycle.strategy(seed).is_some(), owns);
        assert_eq!(lifecycle.waiting(seed).map(|command| command.name()), s.waiting);
        if let Some(grown) = lifecycle.grown(seed) {
            assert_eq!(grown.parameters().len(), lifecycle.layout().chunk_len(seed));
            assert_eq!(grown.weight_drift().is_some(), s.state == 3);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn walks_agree_with_the_table(acts in prop::collection::vec(act(), 1..120)) {
        let counting = Arc::new(Counting::default());
        let mut lifecycle = lifecycle(&counting);
        let mut model = Model::default();
        for act in acts {
            match act {
                Act::Command(seed, name) => {
                    let before = image(&lifecycle);
                    let command = build(name, &lifecycle);
                    let result = lifecycle.command(seed, command, "why");
                    let refused = result.is_err();
                    prop_assert_eq!(!refused, model.command(seed, name), "{} in {:?}", name, result);
                    if refused {
                        prop_assert!(before == image(&lifecycle), "a refused command left a trace");
                    }
                    prop_assert!(lifecycle.take_dirty().is_empty(), "commands wait");
                }
                Act::Step => {
                    let alphas = lifecycle.table().alphas().to_vec();
                    lifecycle.advance_step();
                    model.step();
                    let now = lifecycle.table().alphas();
                    let moved: Vec<_> =
                        (0..SEEDS as u32).filter(|&s| now[s as usize] != alphas[s as usize]).collect();
                    prop_assert_eq!(lifecycle.take_dirty(), moved);
                }
                Act::EndEpoch => {
                    let before = model.seeds;
                    let refused = model.end_epoch();
                    let outcome = lifecycle.end_epoch();
                    prop_assert_eq!(outcome.epoch + 1, model.epoch);
                    let found: Vec<_> = outcome.refused.iter().map(|r| r.seed).collect();
                    prop_assert_eq!(found, refused);
                    let changed: Vec<_> =
                        (0..SEEDS).filter(|&s| before[s].state != model.seeds[s].state).collect();
                    let mut seen: Vec<_> =
                        outcome.transitions.iter().map(|t| t.seed as usize).collect();
                    seen.sort_unstable();
                    prop_assert_eq!(&seen, &changed, "each transition exactly once");
                    let dirty: Vec<_> =
                        lifecycle.take_dirty().into_iter().map(|s| s as usize).collect();
                    prop_assert_eq!(&dirty, &changed);
                    for t in &outcome.transitions {
                        let seed = t.seed as usize;
                        prop_assert_eq!(t.from.code(), before[seed].state);
                        prop_assert_eq!(t.to.code(), model.seeds[seed].state);
                        prop_assert_eq!(t.cause == Cause::RollBack, t.to == State::RolledBack);
                        // Gradients and measurements start over with the state.
                        if let Some(grown) = lifecycle.grown(seed) {
                            prop_assert!(grown.gradients().is_none() && grown.loss().is_none());
                        }
                    }
                }
                Act::RollBack => {
                    let possible = !model.roll_back
                        && model.seeds.iter().any(|s| [2, 3, 4, 5, 6].contains(&s.state));
                    prop_assert_eq!(lifecycle.roll_back("harm").is_ok(), possible);
                    model.roll_back |= possible;
                }
                Act::Withdraw(seed) => {
                    let name = lifecycle.withdraw(seed).map(|command| command.name());
                    prop_assert_eq!(name, model.seeds[seed].waiting.take());
                }
            }
            agree(&lifecycle, &model, &counting);
        }
    }
}

#[test]
fn every_pair_of_state_and_command_is_as_in_the_table() {
    for state in State::ALL {
        let legal =
            |name: &str| TABLE.iter().any(|&(n, from, _)| n == name && from == state.code());
        for name in NAMES {
            let mut lifecycle = lifecycle(&Arc::new(Counting::default()));
            let blueprint =
                lifecycle.registry().get(lifecycle.registry().find("counting").unwrap());
            let blueprint = state.owns_parameters().then(|| blueprint.unwrap().clone());
            let seed = InitialSeed { state, alpha: 1.0, blueprint, ..InitialSeed::default() };
            lifecycle.import(1, seed).unwrap();
            // Enough of everything: embargo over, settled.
            (0..3).for_each(|_| lifecycle.advance_step());
            (0..3).for_each(|_| drop(lifecycle.end_epoch()));
            let command = build(name, &lifecycle);
            match lifecycle.command(1, command, "") {
                Ok(()) => assert!(legal(name), "{name} in {state}"),
                Err(Error::IllegalCommand { seed: 1, state: at, command, .. }) => {
                    assert!(!legal(name), "{name} in {state}");
                    assert_eq!((at, command), (state, name));
                }
                Err(other) => panic!("{name} in {state}: {other}"),
            }
        }
    }
}

#[test]
fn a_birth_that_fails_is_refused_reported_and_leaves_no_trace() {
    let counting = Arc::new(Counting::default());
    let mut lifecycle = lifecycle(&counting);
    let command = build("germinate", &lifecycle);
    let healthy = {
        let mut other = lifecycle.clone();
        drop(other.end_epoch());
        other.command(2, command.clone(), "").unwrap();
        drop(other.end_epoch());
        other.grown(2).unwrap().parameters().to_vec()
    };
    lifecycle.command(2, command.clone(), "").unwrap();
    counting.poison.store(true, Ordering::Relaxed);
    let outcome = lifecycle.end_epoch();
    assert!(outcome.transitions.is_empty());
    assert_eq!(outcome.refused.len(), 1);
    assert!(matches!(&outcome.refused[0].error, Error::Value { value, .. } if value.is_nan()));
    assert_eq!(lifecycle.state(2).unwrap(), State::Dormant);
    assert!(lifecycle.history().is_empty() && lifecycle.take_dirty().is_empty());
    // The random stream has not moved either.
    counting.poison.store(false, Ordering::Relaxed);
    lifecycle.command(2, command, "").unwrap();
    drop(lifecycle.end_epoch());
    assert_eq!(lifecycle.grown(2).unwrap().parameters(), healthy);
}

#[test]
fn parameters_depend_on_the_turn_of_the_germination_alone() {
    let grow = |seeds: [usize; 2]| {
        let mut lifecycle = lifecycle(&Arc::new(Counting::default()));
        for seed in seeds {
            let command = build("germinate", &lifecycle);
            lifecycle.command(seed, command, "").unwrap();
            drop(lifecycle.end_epoch());
        }
        seeds.map(|seed| lifecycle.grown(seed).unwrap().parameters().to_vec())
    };
    let [first, second] = grow([0, 1]);
    assert_ne!(first, second);
    assert_eq!(grow([2, 0]), [first, second], "wherever they grow");
}

#[test]
fn commands_to_seeds_that_a_roll_back_takes_are_reported() {
    let mut lifecycle = lifecycle(&Arc::new(Counting::default()));
    for seed in 0..2 {
        let command = build("germinate", &lifecycle);
        lifecycle.command(seed, command, "").unwrap();
    }
    drop(lifecycle.end_epoch());
    assert!(matches!(lifecycle.roll_back("nothing grows"), Err(Error::NothingToRollBack)));
    lifecycle.command(0, Command::Promote, "").unwrap();
    drop(lifecycle.end_epoch());
    lifecycle.command(0, Command::Graft, "").unwrap();
    lifecycle.command(1, Command::Promote, "").unwrap();
    lifecycle.roll_back("the loss exploded").unwrap();
    let outcome = lifecycle.end_epoch();
    let refused: Vec<_> = outcome.refused.iter().map(|r| (r.seed, r.command.name())).collect();
    assert_eq!(refused, [(0, "graft")]);
    assert_eq!(lifecycle.state(0).unwrap(), State::RolledBack);
    assert_eq!(lifecycle.state(1).unwrap(), State::Training, "GERMINATED is not rolled back");
    assert_eq!(&*outcome.transitions[0].why, "the loss exploded");
    for name in NAMES {
        let command = build(name, &lifecycle);
        assert!(
            lifecycle.command(0, command, "").is_err(),
            "ROLLED_BACK is left by restoring only"
        );
    }
}

#[test]
fn contradictory_initial_seeds_are_errors_and_leave_no_trace() {
    use kasmina_core::Blueprint;
    let residual = Some(Blueprint::Residual);
    let good = InitialSeed {
        state: State::Grafting,
        alpha: 0.25,
        blueprint: residual.clone(),
        parameters: Some(vec![vec![0.5; 4], vec![1.0]]),
        ..InitialSeed::default()
    };
    let with = |change: fn(&mut InitialSeed)| {
        let mut seed = good.clone();
        change(&mut seed);
        seed
    };
    let bad = [
        with(|s| s.alpha = f32::NAN),
        with(|s| s.alpha = 1.5),
        with(|s| s.alpha = -0.1),
        with(|s| s.blueprint = None),
        with(|s| s.state = State::Culled),
        with(|s| (s.state, s.blueprint) = (State::Dormant, None)),
        with(|s| s.strategy = GraftStrategy::FixedRamp { steps: 0 }),
        with(|s| s.blueprint = Some(Blueprint::ConvFilter { taps: 17 })),
        with(|s| s.parameters = Some(vec![vec![0.5; 4]])),
        with(|s| s.parameters = Some(vec![vec![0.5; 3], vec![1.0]])),
        with(|s| s.parameters = Some(vec![vec![0.5, 0.5, f32::INFINITY, 0.5], vec![1.0]])),
    ];
    let mut lifecycle = lifecycle(&Arc::new(Counting::default()));
    let before = image(&lifecycle);
    for seed in bad {
        assert!(lifecycle.import(0, seed.clone()).is_err(), "{seed:?}");
        assert!(before == image(&lifecycle), "{seed:?} left a trace");
    }
    assert!(lifecycle.import(SEEDS, good.clone()).is_err());
    lifecycle.import(0, good.clone()).unwrap();
    assert_eq!(lifecycle.alpha(0).unwrap(), 0.25);
    assert!(lifecycle.import(0, good).is_err(), "twice");
    // The graft goes on from where it was set up: 0.25 + n/30.
    lifecycle.advance_step();
    assert_eq!(lifecycle.alpha(0).unwrap(), (0.25 + 1.0 / 30.0) as f32);
}

#[test]
fn parameters_are_written_only_where_they_may_change() {
    for state in State::ALL.into_iter().filter(|state| state.owns_parameters()) {
        let mut lifecycle = lifecycle(&Arc::new(Counting::default()));
        let blueprint = Some(kasmina_core::Blueprint::AttentionHead);
        lifecycle.import(0, InitialSeed { state, blueprint, ..InitialSeed::default() }).unwrap();
        lifecycle.take_dirty();
        assert!(matches!(
            lifecycle.set_parameters(1, &[]),
            Err(Error::NoParameters { seed: 1, .. })
        ));
        let may = state.trainable() || state == State::Germinated;
        assert_eq!(lifecycle.set_parameters(0, &[0.5; 4]).is_ok(), may, "{state}");
        assert_eq!(lifecycle.take_dirty().len(), usize::from(may));
        assert!(lifecycle.set_parameters(0, &[0.5; 3]).is_err());
        assert!(lifecycle.set_parameters(0, &[0.5, f32::NAN, 0.5, 0.5]).is_err());
        assert!(lifecycle.take_dirty().is_empty());
        if may {
            assert_eq!(lifecycle.grown(0).unwrap().parameters(), [0.5; 4]);
        }
    }
}

/// Counts the lifecycle's events.
#[derive(Default)]
struct Events(AtomicUsize);

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "kasmina::lifecycle"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn every_transition_is_one_event() {
    let events = Arc::new(Events::default());
    let count = || events.0.load(Ordering::Relaxed);
    tracing::dispatcher::with_default(&tracing::Dispatch::new(events.clone()), || {
        let mut lifecycle = lifecycle(&Arc::new(Counting::default()));
        for seed in 0..3 {
            let command = build("germinate", &lifecycle);
            lifecycle.command(seed, command, "").unwrap();
        }
        assert_eq!(count(), 0, "commands wait");
        drop(lifecycle.end_epoch());
        assert_eq!(count(), 3);
        drop(lifecycle.end_epoch());
        assert_eq!(count(), 3);
    });
}
