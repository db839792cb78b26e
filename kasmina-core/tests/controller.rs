//! The heuristic controller: it finds the chunk that changed and walks it to the end by readiness.

use kasmina_core::controller::{
    Baseline, Controller, Decision, HeuristicConfig, HeuristicController, Thresholds,
};
use kasmina_core::graft::Strategy as Graft;
use kasmina_core::{Command, Lifecycle, LifecycleConfig, Registry, SeedLayout, SeedSignals, State};
use kasmina_telemetry::{ChunkStats, TelemetryReport};
use proptest::prelude::*;

const SEEDS: usize = 8;

fn lifecycle() -> Lifecycle {
    let layout = SeedLayout::new(8 * SEEDS, 8).unwrap();
    Lifecycle::new(layout, Registry::builtin(), LifecycleConfig::default(), 1).unwrap()
}

fn controller() -> HeuristicController {
    HeuristicController::new(HeuristicConfig::new(&Registry::builtin()).unwrap()).unwrap()
}

/// Statistics of normal values with the given mean and deviation, and some noise of their own.
fn stats(mean: f64, sigma: f64, noise: f64) -> ChunkStats {
    let n = 4000;
    let mean = mean + noise * sigma * 0.01;
    let variance = (sigma * (1.0 + noise * 0.01)).powi(2);
    ChunkStats {
        n,
        dead: 40,
        nonfinite: 0,
        mean,
        m2: variance * n as f64,
        min: (mean - 3.0 * sigma) as f32,
        max: (mean + 3.0 * sigma) as f32,
    }
}

fn report(epoch: u64, chunk: Vec<ChunkStats>) -> TelemetryReport {
    TelemetryReport { epoch, chunk, ..TelemetryReport::default() }
}

/// All chunks as usual in `epoch`; every chunk has its own level.
fn usual(epoch: u64) -> Vec<ChunkStats> {
    let noise = |seed: usize| ((epoch as usize * 7 + seed * 3) as f64).sin();
    (0..SEEDS).map(|seed| stats(seed as f64, 1.0 + seed as f64, noise(seed))).collect()
}

fn trained() -> HeuristicController {
    let mut controller = controller();
    let lifecycle = lifecycle();
    for epoch in 0..3 {
        assert!(!controller.has_baseline());
        assert_eq!(controller.decide(&lifecycle, &report(epoch, usual(epoch))), []);
    }
    assert!(controller.has_baseline());
    controller
}

fn germinated(decisions: &[Decision]) -> Vec<usize> {
    let germinates = |d: &&Decision| matches!(d.command, Command::Germinate(_));
    decisions.iter().filter(germinates).map(|d| d.seed).collect()
}

fn give(lifecycle: &mut Lifecycle, decisions: Vec<Decision>) {
    for Decision { seed, command, why } in decisions {
        lifecycle.command(seed, command, why).unwrap();
    }
    let outcome = lifecycle.end_epoch();
    assert!(outcome.refused.is_empty());
}

#[test]
fn usual_epochs_decide_nothing() {
    let (mut controller, lifecycle) = (trained(), lifecycle());
    for epoch in 3..60 {
        assert_eq!(controller.decide(&lifecycle, &report(epoch, usual(epoch))), []);
    }
}

proptest! {
    /// The chunk whose statistics moved most is found, whichever it is and however they moved.
    #[test]
    fn the_chunk_that_changed_is_chosen(sick in 0..SEEDS, how in 0usize..4, slight in 0..SEEDS) {
        prop_assume!(slight != sick);
        let (mut controller, lifecycle) = (trained(), lifecycle());
        let drifted = |epoch: u64| {
            let mut chunk = usual(epoch);
            let (level, sigma) = (sick as f64, 1.0 + sick as f64);
            chunk[sick] = match how {
                0 => stats(level + sigma, sigma, 0.0),
                1 => stats(level, 2.0 * sigma, 0.0),
                2 => ChunkStats { dead: 2000, ..chunk[sick] },
                _ => ChunkStats { nonfinite: 400, ..chunk[sick] },
            };
            let (level, sigma) = (slight as f64, 1.0 + slight as f64);
            chunk[slight] = stats(level + 0.15 * sigma, sigma, 0.0);
            report(epoch, chunk)
        };
        prop_assert_eq!(controller.decide(&lifecycle, &drifted(3)), [], "one epoch may be an accident");
        let decisions = controller.decide(&lifecycle, &drifted(4));
        prop_assert_eq!(germinated(&decisions), [sick]);
        prop_assert!(decisions[0].why.contains("times what counts"));
    }

    /// No report, however odd, makes it panic or decide on what was not measured.
    #[test]
    fn odd_reports_are_survived(
        values in prop::collection::vec((0u64..3, any::<f64>(), any::<f64>(), 0u64..3), 0..20),
    ) {
        let (mut controller, lifecycle) = (trained(), lifecycle());
        let chunk: Vec<_> = values
            .iter()
            .map(|&(n, mean, m2, nonfinite)| ChunkStats { n, mean, m2, nonfinite, ..ChunkStats::EMPTY })
            .collect();
        let measured = |seed: usize| chunk.get(seed).is_some_and(|s| s.n + s.nonfinite > 0);
        for epoch in 3..6 {
            for decision in controller.decide(&lifecycle, &report(epoch, chunk.clone())) {
                prop_assert!(measured(decision.seed));
            }
        }
    }
}

#[test]
fn chunks_that_were_not_measured_are_left_alone() {
    let (mut controller, lifecycle) = (trained(), lifecycle());
    for epoch in 3..9 {
        let empty = vec![ChunkStats::EMPTY; SEEDS];
        assert_eq!(controller.decide(&lifecycle, &report(epoch, empty)), []);
        assert_eq!(controller.decide(&lifecycle, &report(epoch, Vec::new())), []);
    }
}

/// One epoch of a run in which chunk 5 has drifted: signals, steps, decisions.
fn epoch(
    controller: &mut HeuristicController,
    lifecycle: &mut Lifecycle,
    signals: impl Fn(State) -> SeedSignals,
) {
    let state = lifecycle.state(5).unwrap();
    for n in 0..60 {
        if lifecycle.grown(5).is_some() {
            lifecycle.record(5, SeedSignals::loss(2.0 / f64::from(n + 1))).unwrap();
            lifecycle.record(5, signals(state)).unwrap();
        }
        lifecycle.advance_step();
    }
    let now = u64::from(lifecycle.epoch()) + 3;
    let mut chunk = usual(now);
    chunk[5] = stats(5.0 + 4.0, 6.0, 0.0);
    let decisions = controller.decide(lifecycle, &report(now, chunk));
    give(lifecycle, decisions);
}

#[test]
fn a_useful_seed_is_walked_to_fossilized_and_then_left_alone() {
    let (mut controller, mut lifecycle) = (trained(), lifecycle());
    for _ in 0..20 {
        epoch(&mut controller, &mut lifecycle, |_| SeedSignals::evaluation(0.3, 0.6));
    }
    let path: Vec<_> = lifecycle.history().iter().map(|t| (t.seed, t.to)).collect();
    assert_eq!(
        path,
        [
            (5, State::Germinated),
            (5, State::Training),
            (5, State::Grafting),
            (5, State::Stabilization),
            (5, State::Evaluating),
            (5, State::FineTuning),
            (5, State::Fossilized),
        ]
    );
    let bottleneck = lifecycle.registry().find("bottleneck").unwrap();
    assert_eq!(lifecycle.grown(5).unwrap().blueprint(), bottleneck);
    assert!(lifecycle.history().iter().all(|t| !t.why.is_empty()));
}

#[test]
fn a_harmful_seed_is_culled_tried_again_after_its_embargo_and_given_up() {
    let (mut controller, mut lifecycle) = (trained(), lifecycle());
    for _ in 0..80 {
        epoch(&mut controller, &mut lifecycle, |state| match state {
            State::Evaluating => SeedSignals::evaluation(0.9, 0.6),
            _ => SeedSignals::default(),
        });
    }
    let to = |state| lifecycle.history().iter().filter(|t| t.to == state).count();
    assert_eq!((to(State::Germinated), to(State::Culled), to(State::Dormant)), (3, 3, 2));
    assert_eq!(lifecycle.state(5).unwrap(), State::Culled, "three attempts, then it stays");
    let grown: Vec<_> = lifecycle
        .history()
        .iter()
        .filter(|t| t.to == State::Germinated)
        .map(|t| lifecycle.registry().name(t.blueprint.unwrap()).unwrap())
        .collect();
    assert_eq!(grown, ["bottleneck", "dense", "dense"]);
    // Culled at the end of epoch e, reset at the earliest at the end of epoch e + 6.
    let epochs = |state| {
        let entries = lifecycle.history().iter().filter(move |t| t.to == state);
        entries.map(|t| t.epoch).collect::<Vec<_>>()
    };
    assert!(epochs(State::Culled).iter().zip(epochs(State::Dormant)).all(|(c, d)| d == c + 6));
}

#[test]
fn no_more_than_the_allowed_number_grow_at_once() {
    for max_growing in [0, 1, 3] {
        let config = HeuristicConfig {
            max_growing,
            confirmations: 1,
            ..HeuristicConfig::new(&Registry::builtin()).unwrap()
        };
        let baseline = trained().baseline().clone();
        let mut controller = HeuristicController::with_baseline(config, baseline).unwrap();
        let mut lifecycle = lifecycle();
        let sick = || (0..SEEDS).map(|s| stats(s as f64 + 50.0, 1.0, 0.0)).collect();
        let decisions = controller.decide(&lifecycle, &report(3, sick()));
        assert_eq!(germinated(&decisions).len(), max_growing);
        give(&mut lifecycle, decisions);
        assert!(germinated(&controller.decide(&lifecycle, &report(4, sick()))).is_empty());
    }
}

#[test]
fn severity_chooses_the_strategy_and_affine_only_where_allowed() {
    let registry = Registry::builtin();
    let affine = registry.find("residual").unwrap();
    let config = HeuristicConfig {
        affine: Some(affine),
        confirmations: 1,
        ..HeuristicConfig::new(&registry).unwrap()
    };
    let choose = |mean: f64, sigma: f64| {
        let baseline = trained().baseline().clone();
        let mut controller = HeuristicController::with_baseline(config.clone(), baseline).unwrap();
        let mut chunk = usual(3);
        chunk[2] = stats(2.0 + mean, 3.0 * sigma, 0.0);
        match controller.decide(&lifecycle(), &report(3, chunk)).remove(0).command {
            Command::Germinate(germination) => germination,
            other => panic!("{other}"),
        }
    };
    let slight = choose(1.0, 1.0);
    assert_eq!((slight.blueprint, slight.strategy), (affine, Graft::default()));
    let severe = choose(9.0, 1.0);
    assert_eq!((severe.blueprint, severe.strategy), (affine, Graft::drift_controlled()));
    assert_ne!(choose(1.0, 2.0).blueprint, affine, "the spread has changed too");
}

#[test]
fn a_baseline_can_be_kept() {
    let baseline = trained().baseline().clone();
    let json = serde_json::to_string(&baseline).unwrap();
    assert_eq!(serde_json::from_str::<Baseline>(&json).unwrap(), baseline);
    let thresholds = Thresholds::default();
    let deviation = baseline.deviation(3, &usual(9)[3], &thresholds).unwrap();
    assert!(deviation.score < 1.0);
    assert!(baseline.deviation(SEEDS, &usual(9)[3], &thresholds).is_none());
}

#[test]
fn rules_out_of_range_are_errors() {
    let good = HeuristicConfig::new(&Registry::builtin()).unwrap();
    assert!(HeuristicConfig::new(&Registry::empty()).is_err());
    let thresholds = |t: Thresholds| HeuristicConfig { thresholds: t, ..good.clone() };
    for bad in [
        HeuristicConfig { baseline_epochs: 0, ..good.clone() },
        HeuristicConfig { blueprints: Vec::new(), ..good.clone() },
        HeuristicConfig { strategy: Graft::FixedRamp { steps: 0 }, ..good.clone() },
        HeuristicConfig { severe: f64::NAN, ..good.clone() },
        thresholds(Thresholds { mean: 0.0, ..Thresholds::default() }),
        thresholds(Thresholds { noise: -1.0, ..Thresholds::default() }),
    ] {
        assert!(HeuristicController::new(bad).is_err());
    }
}
