//! How alpha rises: exact ends, no stalls, and a hold wherever a signal is missing or out of bounds.

use std::sync::Arc;

use kasmina_core::graft::{
    GraftSignals, GraftStep, GraftStrategy, Hold, Signal, Strategy as Graft,
};
use kasmina_core::{
    Blueprint, InitialSeed, Lifecycle, LifecycleConfig, Registry, SeedLayout, SeedSignals, State,
};
use proptest::prelude::*;

fn lifecycle(strategy: Graft, target_alpha: f32) -> Lifecycle {
    let config = LifecycleConfig { target_alpha, ..LifecycleConfig::default() };
    let layout = SeedLayout::new(8, 4).unwrap();
    let mut lifecycle = Lifecycle::new(layout, Registry::builtin(), config, 3).unwrap();
    let blueprint = Some(Blueprint::Residual);
    let seed =
        InitialSeed { state: State::Grafting, blueprint, strategy, ..InitialSeed::default() };
    lifecycle.import(1, seed).unwrap();
    lifecycle
}

fn alpha(lifecycle: &Lifecycle) -> f32 {
    lifecycle.alpha(1).unwrap()
}

const BLANK: GraftSignals = GraftSignals {
    step: 1,
    advanced: 0,
    start: 0.0,
    share: 0.0,
    loss: None,
    initial_loss: None,
    best_loss: None,
    weight_drift: None,
    gradient_norm: None,
};

proptest! {
    #[test]
    fn a_ramp_is_strictly_rising_and_ends_at_its_target(
        steps in 1u32..3000,
        target in prop_oneof![Just(1.0f32), 1e-3f32..=1.0],
    ) {
        let mut lifecycle = lifecycle(Graft::FixedRamp { steps }, target);
        for n in 1..=steps {
            let before = alpha(&lifecycle);
            prop_assert!(before < target);
            lifecycle.advance_step();
            prop_assert!(alpha(&lifecycle) > before);
            let exact = f64::from(target) * f64::from(n) / f64::from(steps);
            prop_assert!((f64::from(alpha(&lifecycle)) - exact).abs() <= 1e-7 * exact);
        }
        prop_assert_eq!(alpha(&lifecycle), target);
        lifecycle.advance_step();
        prop_assert_eq!(alpha(&lifecycle), target, "and stays there");
    }

    #[test]
    fn the_longest_ramp_neither_stalls_nor_falls_short(
        steps in 1_000_000u32..=u32::MAX,
        at in 0.0f64..1.0,
    ) {
        let ramp = Graft::FixedRamp { steps };
        let share = |advanced: u64| match ramp.advance(&GraftSignals { advanced, ..BLANK }) {
            GraftStep::Share(share) => share,
            hold => panic!("{hold:?}"),
        };
        let n = (at * f64::from(steps)) as u64;
        prop_assert!(share(n + 1) > share(n) || share(n) == 1.0);
        prop_assert_eq!(share(u64::from(steps) - 1), 1.0);
        prop_assert!(share(u64::from(steps) - 2) < 1.0);
    }

    #[test]
    fn any_strategy_stays_in_bounds_and_never_falls(
        which in 0usize..4,
        steps in 1u32..40,
        signals in prop::collection::vec(
            (prop::option::of(0.0f64..2.0), prop::option::of(0.0f64..2.0)), 1..120),
    ) {
        let strategy = [
            Graft::FixedRamp { steps },
            Graft::PerformanceLinked { steps, gain: 4.0, max_speed: 4.0 },
            Graft::DriftControlled { steps, max_drift: 0.12 },
            Graft::GradNormGated { steps, low: 0.1, high: 1.0 },
        ][which].clone();
        let mut lifecycle = lifecycle(strategy, 1.0);
        for (loss, gradient_norm) in signals {
            lifecycle.record(1, SeedSignals { loss, gradient_norm, ..SeedSignals::default() }).unwrap();
            let before = alpha(&lifecycle);
            let held = lifecycle.hold(1).is_some();
            lifecycle.advance_step();
            let after = alpha(&lifecycle);
            prop_assert!(after >= before && after <= 1.0);
            prop_assert_eq!(after == before, held || before == 1.0, "moves unless held");
        }
    }

    #[test]
    fn a_lower_loss_is_never_slower(initial in 0.1f64..10.0, a in 0.0f64..20.0, b in 0.0f64..20.0) {
        let share = |loss: f64| match Graft::performance_linked().advance(&GraftSignals {
            loss: Some(loss), initial_loss: Some(initial), ..BLANK
        }) {
            GraftStep::Share(share) => share,
            GraftStep::Hold(_) => 0.0,
        };
        prop_assert!(share(a.min(b)) >= share(a.max(b)));
        prop_assert_eq!(share(initial), 1.0 / 60.0);
    }
}

#[test]
fn unmeasured_signals_hold_the_strategies_that_need_them() {
    for (strategy, signal) in [
        (Graft::performance_linked(), Signal::Loss),
        (Graft::drift_controlled(), Signal::WeightDrift),
        (Graft::grad_norm_gated(), Signal::GradientNorm),
    ] {
        assert_eq!(strategy.advance(&BLANK), GraftStep::Hold(Hold::Unmeasured { signal }));
    }
    // A measurement serves the epoch after the one it was taken in, and no longer.
    let mut lifecycle = lifecycle(Graft::grad_norm_gated(), 1.0);
    let signals = SeedSignals { gradient_norm: Some(0.5), ..SeedSignals::default() };
    lifecycle.record(1, signals).unwrap();
    for moves in [true, true, false, false] {
        let before = alpha(&lifecycle);
        lifecycle.advance_step();
        assert_eq!(alpha(&lifecycle) > before, moves);
        assert_eq!(lifecycle.hold(1).is_some(), !moves);
        drop(lifecycle.end_epoch());
    }
}

#[test]
fn gradient_norms_at_the_limits_pass_and_beyond_them_hold() {
    let strategy = Graft::grad_norm_gated();
    let moves = |norm: f64| {
        let signals = GraftSignals { gradient_norm: Some(norm), ..BLANK };
        matches!(strategy.advance(&signals), GraftStep::Share(_))
    };
    assert!(moves(0.1) && moves(1.0) && moves(0.5));
    assert!(!moves(0.0999) && !moves(1.0001) && !moves(0.0) && !moves(f64::INFINITY));
}

#[test]
fn weight_drift_is_measured_from_the_epoch_boundary() {
    // Residual of 4 columns: w = 0, s = 1, so ‖r‖ = 1.
    let mut lifecycle = lifecycle(Graft::drift_controlled(), 1.0);
    let drift = |lifecycle: &Lifecycle| lifecycle.grown(1).unwrap().weight_drift().unwrap();
    assert_eq!(drift(&lifecycle), 0.0);
    lifecycle.set_parameters(1, &[0.06, 0.0, 0.08, 0.0, 1.0]).unwrap();
    assert!((drift(&lifecycle) - 0.1).abs() < 1e-7);
    lifecycle.advance_step();
    assert!(alpha(&lifecycle) > 0.0, "0.1 is below 0.12");
    lifecycle.set_parameters(1, &[0.12, 0.0, 0.16, 0.0, 1.0]).unwrap();
    let before = alpha(&lifecycle);
    lifecycle.advance_step();
    assert_eq!(alpha(&lifecycle), before, "0.2 is above it");
    assert!(matches!(lifecycle.hold(1), Some(Hold::Outside { signal: Signal::WeightDrift, .. })));
    drop(lifecycle.end_epoch());
    assert_eq!(drift(&lifecycle), 0.0);
    lifecycle.advance_step();
    assert!(alpha(&lifecycle) > before);
}

#[derive(Debug)]
struct Odd(f64);

impl GraftStrategy for Odd {
    fn name(&self) -> &str {
        "odd"
    }
    fn advance(&self, _: &GraftSignals) -> GraftStep {
        GraftStep::Share(self.0)
    }
}

#[test]
fn a_users_strategy_cannot_leave_the_bounds() {
    for (share, expected) in [(7.0, 0.5), (-1.0, 0.0), (0.5, 0.25), (f64::INFINITY, 0.5)] {
        let mut lifecycle = lifecycle(Graft::Custom(Arc::new(Odd(share))), 0.5);
        lifecycle.advance_step();
        assert_eq!(alpha(&lifecycle), expected);
    }
    let mut lifecycle = lifecycle(Graft::Custom(Arc::new(Odd(f64::NAN))), 0.5);
    lifecycle.advance_step();
    assert_eq!(alpha(&lifecycle), 0.0);
    assert_eq!(lifecycle.hold(1), Some(Hold::NotANumber));
}

#[test]
fn numbers_out_of_range_are_errors() {
    let nan = f64::NAN;
    for strategy in [
        Graft::FixedRamp { steps: 0 },
        Graft::PerformanceLinked { steps: 9, gain: nan, max_speed: 1.0 },
        Graft::PerformanceLinked { steps: 9, gain: 1.0, max_speed: 0.0 },
        Graft::DriftControlled { steps: 9, max_drift: -0.1 },
        Graft::DriftControlled { steps: 0, max_drift: 0.1 },
        Graft::GradNormGated { steps: 9, low: 2.0, high: 1.0 },
        Graft::GradNormGated { steps: 9, low: 0.0, high: f64::INFINITY },
    ] {
        assert!(strategy.validate().is_err(), "{strategy:?}");
    }
    for strategy in [
        Graft::default(),
        Graft::performance_linked(),
        Graft::drift_controlled(),
        Graft::grad_norm_gated(),
    ] {
        strategy.validate().unwrap();
    }
}
