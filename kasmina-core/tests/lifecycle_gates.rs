//! Readiness: nothing passes on a signal that was not measured, and harm is seen where it was.

use kasmina_core::graft::Signal;
use kasmina_core::lifecycle::{Missing, Verdict};
use kasmina_core::{
    Blueprint, Command, InitialSeed, Lifecycle, LifecycleConfig, Objective, Readiness, Registry,
    SeedLayout, SeedSignals, State,
};
use proptest::prelude::*;

fn at(state: State, alpha: f32) -> Lifecycle {
    let layout = SeedLayout::new(4, 4).unwrap();
    let config = LifecycleConfig::default();
    let mut lifecycle = Lifecycle::new(layout, Registry::builtin(), config, 1).unwrap();
    let blueprint = state.owns_parameters().then_some(Blueprint::Residual);
    lifecycle.import(0, InitialSeed { state, alpha, blueprint, ..InitialSeed::default() }).unwrap();
    lifecycle
}

fn steps(lifecycle: &mut Lifecycle, n: usize) {
    (0..n).for_each(|_| lifecycle.advance_step());
}

fn ready(lifecycle: &Lifecycle) -> Option<Command> {
    match lifecycle.readiness(0).unwrap() {
        Readiness::Ready(Verdict { command, .. }) => Some(command),
        _ => None,
    }
}

fn harmful(lifecycle: &Lifecycle) -> Option<Command> {
    match lifecycle.readiness(0).unwrap() {
        Readiness::Harmful(Verdict { command, .. }) => Some(command),
        _ => None,
    }
}

fn missing(lifecycle: &Lifecycle) -> Vec<Missing> {
    match lifecycle.readiness(0).unwrap() {
        Readiness::Waiting(missing) => missing,
        other => panic!("{other:?}"),
    }
}

#[test]
fn states_without_a_way_on_are_settled() {
    for state in [State::Dormant, State::Fossilized, State::RolledBack] {
        assert_eq!(at(state, 1.0).readiness(0).unwrap(), Readiness::Settled);
    }
    assert_eq!(ready(&at(State::Germinated, 0.0)), Some(Command::Promote));
    assert_eq!(ready(&at(State::Cancelled, 0.0)), Some(Command::Reset));
}

#[test]
fn training_needs_steps_and_a_loss_that_fell() {
    let mut lifecycle = at(State::Training, 0.0);
    steps(&mut lifecycle, 49);
    lifecycle.record(0, SeedSignals::loss(1.0)).unwrap();
    lifecycle.record(0, SeedSignals::loss(0.5)).unwrap();
    assert_eq!(missing(&lifecycle), [Missing::Steps { done: 49, needed: 50 }]);
    steps(&mut lifecycle, 1);
    assert_eq!(ready(&lifecycle), Some(Command::Graft));
    lifecycle.record(0, SeedSignals::loss(0.99)).unwrap();
    assert!(matches!(missing(&lifecycle)[..], [Missing::LossFall { .. }]));
    // Stale after one more whole epoch: unmeasured is neither good nor bad.
    lifecycle.record(0, SeedSignals::loss(0.5)).unwrap();
    drop(lifecycle.end_epoch());
    assert_eq!(ready(&lifecycle), Some(Command::Graft));
    drop(lifecycle.end_epoch());
    assert_eq!(missing(&lifecycle), [Missing::Unmeasured { signal: Signal::Loss }]);
    steps(&mut lifecycle, 5000);
    assert_eq!(harmful(&lifecycle), None, "patience ends only on a measured loss");
    lifecycle.record(0, SeedSignals::loss(1.0)).unwrap();
    assert_eq!(harmful(&lifecycle), Some(Command::Cancel));
}

#[test]
fn grafting_needs_its_target_and_stabilization_its_steps() {
    let mut lifecycle = at(State::Grafting, 0.0);
    steps(&mut lifecycle, 29);
    assert!(matches!(missing(&lifecycle)[..], [Missing::Alpha { hold: None, .. }]));
    steps(&mut lifecycle, 1);
    assert_eq!(ready(&lifecycle), Some(Command::Stabilize));
    lifecycle.command(0, Command::Stabilize, "").unwrap();
    drop(lifecycle.end_epoch());
    steps(&mut lifecycle, 19);
    assert_eq!(missing(&lifecycle), [Missing::Steps { done: 19, needed: 20 }]);
    steps(&mut lifecycle, 1);
    assert_eq!(ready(&lifecycle), Some(Command::Evaluate));
    lifecycle.record(0, SeedSignals::evaluation(1.2, 1.0)).unwrap();
    assert_eq!(harmful(&lifecycle), Some(Command::Cull), "20 % worse is harm already");
}

#[test]
fn evaluation_compares_two_measurements_and_takes_neither_for_granted() {
    let mut lifecycle = at(State::Evaluating, 1.0);
    assert_eq!(missing(&lifecycle).len(), 2);
    let half = SeedSignals { held_back_loss: Some(0.1), ..SeedSignals::default() };
    lifecycle.record(0, half).unwrap();
    assert_eq!(missing(&lifecycle), [Missing::Unmeasured { signal: Signal::CounterfactualLoss }]);
    for (actual, without, command, harm) in [
        (0.5, 1.0, Some(Command::FineTune), None),
        (1.0, 1.0, Some(Command::FineTune), None),
        (1.001, 1.0, None, Some(Command::Cull)),
        (f64::INFINITY, 1.0, None, Some(Command::Cull)),
        (f64::INFINITY, f64::INFINITY, None, None),
        (5.0, f64::INFINITY, Some(Command::FineTune), None),
    ] {
        lifecycle.record(0, SeedSignals::evaluation(actual, without)).unwrap();
        assert_eq!(ready(&lifecycle), command, "{actual} against {without}");
        assert_eq!(harmful(&lifecycle), harm, "{actual} against {without}");
    }
}

#[test]
fn fine_tuning_must_not_lose_what_evaluation_accepted() {
    let mut lifecycle = at(State::Evaluating, 1.0);
    lifecycle.record(0, SeedSignals::evaluation(0.5, 1.0)).unwrap();
    lifecycle.command(0, Command::FineTune, "").unwrap();
    drop(lifecycle.end_epoch());
    steps(&mut lifecycle, 50);
    let unmeasured = [Missing::Unmeasured { signal: Signal::HeldBackLoss }];
    assert_eq!(
        missing(&lifecycle),
        unmeasured,
        "measurements belong to the state they were taken in"
    );
    let held_back = |loss| SeedSignals { held_back_loss: Some(loss), ..SeedSignals::default() };
    lifecycle.record(0, held_back(0.509)).unwrap();
    assert_eq!(ready(&lifecycle), Some(Command::Fossilize));
    lifecycle.record(0, held_back(0.52)).unwrap();
    assert!(matches!(missing(&lifecycle)[..], [Missing::LossLimit { .. }]));
    lifecycle.record(0, SeedSignals::evaluation(1.1, 1.0)).unwrap();
    assert_eq!(harmful(&lifecycle), Some(Command::Cull));
}

#[test]
fn a_culled_seed_waits_out_its_embargo() {
    let mut lifecycle = at(State::Training, 0.0);
    lifecycle.command(0, Command::Cull, "").unwrap();
    for _ in 0..6 {
        assert!(lifecycle.command(0, Command::Reset, "").is_err());
        drop(lifecycle.end_epoch());
    }
    assert_eq!(ready(&lifecycle), Some(Command::Reset), "after 5 whole epochs");
    lifecycle.command(0, Command::Reset, "").unwrap();
}

#[test]
fn a_recorded_loss_that_is_no_number_is_refused() {
    let mut lifecycle = at(State::Training, 0.0);
    assert!(lifecycle.record(0, SeedSignals::loss(f64::NAN)).is_err());
    assert!(lifecycle.record(0, SeedSignals::loss(f64::NEG_INFINITY)).is_err());
    let norm = SeedSignals { gradient_norm: Some(-1.0), ..SeedSignals::default() };
    assert!(lifecycle.record(0, norm).is_err());
    assert!(lifecycle.record(1, SeedSignals::default()).is_err());
    assert_eq!(lifecycle.grown(0).unwrap().loss(), None);
    assert!(at(State::Dormant, 0.0).record(0, SeedSignals::loss(1.0)).is_err());
    assert_eq!(lifecycle.grown(0).unwrap().objective(), Objective::StraightThrough);
}

proptest! {
    /// Whatever was measured, a state that is to be judged is never ready without its measurements.
    #[test]
    fn none_is_never_healthy(
        state in prop::sample::select(&[State::Training, State::Evaluating, State::FineTuning][..]),
        loss in prop::option::of(0.0f64..2.0),
        held_back_loss in prop::option::of(0.0f64..2.0),
        counterfactual_loss in prop::option::of(0.0f64..2.0),
    ) {
        let mut lifecycle = at(state, 1.0);
        lifecycle.record(0, SeedSignals { loss: loss.map(|_| 2.0), ..SeedSignals::default() }).unwrap();
        lifecycle.record(0, SeedSignals { loss, held_back_loss, counterfactual_loss, gradient_norm: None }).unwrap();
        steps(&mut lifecycle, 3000);
        let complete = match state {
            State::Training => loss.is_some(),
            _ => held_back_loss.is_some() && counterfactual_loss.is_some(),
        };
        let decided = ready(&lifecycle).is_some() || harmful(&lifecycle).is_some();
        prop_assert!(complete || !decided);
        prop_assert!(ready(&lifecycle).is_none() || harmful(&lifecycle).is_none());
    }
}
