//! Checkpoints as a user meets them: a layer goes on where it was, and comes back after a roll-back.

use kasmina_core::checkpoint::{self, CheckpointError};
use kasmina_core::graft::Strategy as Graft;
use kasmina_core::lifecycle::Cause;
use kasmina_core::{
    Activation, AdamW, Blueprint, Command, ForwardOptions, Germination, InitialSeed, Layer,
    LayerState, LifecycleConfig, MatMut, MatRef, Objective, Registry, SeedLayout, SeedSignals,
    State,
};
use kasmina_telemetry::TelemetryMode;
use proptest::prelude::*;

const HIDDEN: usize = 22;
const CHUNK: usize = 4;
const ROWS: usize = 6;

/// One seed in every state, two of them grafting; the last chunk is short.
fn builder(mode: TelemetryMode) -> kasmina_core::LayerBuilder {
    let mut builder = Layer::builder(SeedLayout::new(HIDDEN, CHUNK).unwrap())
        .name("encoder")
        .rng_seed(5)
        .telemetry_mode(mode)
        .lifecycle(LifecycleConfig { stabilization_steps: 1, ..LifecycleConfig::default() });
    let seed =
        |state, blueprint, alpha| InitialSeed { state, blueprint, alpha, ..InitialSeed::default() };
    let bottleneck = Blueprint::Bottleneck { width: 3, activation: Activation::Silu };
    builder = builder
        .seed(0, seed(State::Grafting, Some(bottleneck.clone()), 0.3))
        .seed(
            1,
            InitialSeed {
                objective: Objective::Reconstruction,
                ..seed(State::Training, Some(bottleneck), 0.0)
            },
        )
        .seed(3, seed(State::Culled, None, 0.0))
        .seed(
            4,
            InitialSeed {
                strategy: Graft::drift_controlled(),
                ..seed(State::Grafting, Some(Blueprint::Residual), 0.5)
            },
        )
        .seed(5, seed(State::Fossilized, Some(Blueprint::ConvFilter { taps: 2 }), 1.0));
    builder
}

fn batch(step: usize) -> (Vec<f32>, Vec<f32>) {
    let value = |i: usize, k: usize| ((i * 37 + step * 101 + k * 17) as f32 * 0.7).sin();
    (
        (0..ROWS * HIDDEN).map(|i| value(i, 1)).collect(),
        (0..ROWS * HIDDEN).map(|i| value(i, 2)).collect(),
    )
}

/// One training step; returns the outputs.
fn train(layer: &mut Layer, step: usize) -> Vec<f32> {
    let (x, g) = batch(step);
    let (mut y, mut grad_x) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    let options = ForwardOptions::new();
    let mat = |m| MatRef::contiguous(m, HIDDEN).unwrap();
    layer.forward(mat(&x), MatMut::contiguous(&mut y, HIDDEN).unwrap(), &options).unwrap();
    layer
        .backward(mat(&x), mat(&g), MatMut::contiguous(&mut grad_x, HIDDEN).unwrap(), &options)
        .unwrap();
    if !step.is_multiple_of(3) {
        // Every third step gathers gradients without using them.
        let _ = layer.optimizer_step(&AdamW::new(0.02));
    }
    if layer.lifecycle().grown(0).is_some() {
        layer.record(0, SeedSignals::loss(1.0 / (step + 1) as f64)).unwrap();
    }
    layer.advance_step();
    y.extend(grad_x);
    y
}

fn mid_graft(mode: TelemetryMode) -> Layer {
    let mut layer = builder(mode).build().unwrap();
    (0..4).for_each(|step| drop(train(&mut layer, step)));
    let dense = layer.registry().find("dense").unwrap();
    layer.command(2, Command::Germinate(Germination::new(dense)), "it is sick").unwrap();
    drop(layer.end_epoch());
    (4..7).for_each(|step| drop(train(&mut layer, step)));
    layer.command(2, Command::Promote, "it is ready").unwrap();
    layer
}

fn reload(bytes: &[u8]) -> Result<LayerState, CheckpointError> {
    LayerState::from_bytes(bytes, &Registry::builtin())
}

#[test]
fn a_layer_goes_on_bit_for_bit_from_the_middle_of_a_graft() {
    for mode in [TelemetryMode::Production, TelemetryMode::Debug] {
        let mut layer = mid_graft(mode);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layer.safetensors");
        layer.save(&path).unwrap();
        let mut loaded = Layer::load(&path, &Registry::builtin()).unwrap();
        assert_eq!(loaded.name(), "encoder");
        for step in 7..30 {
            let bits = |y: Vec<f32>| y.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(train(&mut layer, step)), bits(train(&mut loaded, step)));
            if step % 10 == 0 {
                let (a, b) = (layer.end_epoch(), loaded.end_epoch());
                assert_eq!(a.outcome.transitions, b.outcome.transitions);
                assert_eq!(a.telemetry.chunk, b.telemetry.chunk);
                assert_eq!(a.telemetry.gradient, b.telemetry.gradient);
                assert_eq!(a.telemetry.histograms, b.telemetry.histograms);
            }
        }
        let bytes = |layer: &Layer| layer.layer_state().to_bytes().unwrap();
        assert!(bytes(&layer) == bytes(&loaded), "the files agree to the last bit");
        assert_eq!(layer.state(2).unwrap(), State::Training, "the waiting command came along");
    }
}

#[test]
fn saving_what_was_loaded_gives_the_same_file() {
    for mode in [TelemetryMode::Debug, TelemetryMode::sampling(3, 0.3).unwrap()] {
        let mut layer = mid_graft(mode);
        layer.roll_back("waits too").unwrap();
        let bytes = layer.layer_state().to_bytes().unwrap();
        assert!(bytes == reload(&bytes).unwrap().to_bytes().unwrap());
        assert_eq!(reload(&bytes).unwrap().lifecycle.waiting_roll_back(), Some("waits too"));
    }
}

#[test]
fn a_roll_back_is_undone_by_restoring_and_history_tells_both() {
    let mut state = mid_graft(TelemetryMode::Production).layer_state().clone();
    let bytes = state.to_bytes().unwrap();
    let lifecycle = &mut state.lifecycle;
    let parameters = lifecycle.grown(0).unwrap().parameters().to_vec();
    lifecycle.roll_back("the loss exploded").unwrap();
    drop(lifecycle.end_epoch());
    assert_eq!(lifecycle.state(0).unwrap(), State::RolledBack);
    assert!(lifecycle.grown(0).is_none());
    let before = lifecycle.history().len();
    lifecycle.take_dirty();

    let saved = LayerState::from_bytes(&bytes, lifecycle.registry()).unwrap().lifecycle;
    let other = SeedLayout::new(HIDDEN, CHUNK + 1).unwrap();
    let mut other = Layer::builder(other).build().unwrap().layer_state().lifecycle.clone();
    assert!(other.restore(saved.clone(), "").is_err(), "another layout");
    lifecycle.command(3, Command::Reset, "").unwrap_err();
    let outcome = lifecycle.restore(saved, "back to the last good epoch").unwrap();
    let restored: Vec<_> = outcome.transitions.iter().map(|t| (t.seed, t.from, t.to)).collect();
    assert_eq!(
        restored,
        [
            (0, State::RolledBack, State::Grafting),
            (1, State::RolledBack, State::Training),
            (2, State::Training, State::Germinated),
            (4, State::RolledBack, State::Grafting),
        ]
    );
    assert_eq!(lifecycle.history().len(), before + 4);
    assert!(lifecycle.history().iter().skip(before).all(|t| t.cause == Cause::Restore));
    assert_eq!(lifecycle.grown(0).unwrap().parameters(), parameters);
    assert_eq!(lifecycle.verify(), Ok(()));
    let dirty = lifecycle.take_dirty();
    assert!([0, 1, 2, 4].iter().all(|seed| dirty.contains(seed)), "what changed is lowered anew");
    lifecycle.advance_step();
    assert!(lifecycle.alpha(0).unwrap() > 0.0, "and grafts on");
}

#[test]
fn saving_replaces_and_loading_a_missing_file_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layer.safetensors");
    let error = Layer::load(&path, &Registry::builtin()).unwrap_err().to_string();
    assert!(error.contains("layer.safetensors"), "{error}");
    let mut layer = builder(TelemetryMode::Production).build().unwrap();
    layer.save(&path).unwrap();
    let first = std::fs::read(&path).unwrap();
    drop(train(&mut layer, 0));
    checkpoint::save(layer.layer_state(), &path).unwrap();
    assert_ne!(std::fs::read(&path).unwrap(), first);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

/// A walk of commands, most of them legal.
fn walk(layer: &mut Layer, acts: &[(usize, u8)]) {
    for &(seed, act) in acts {
        let seed = seed % 6;
        let dense = layer.registry().find("dense").unwrap();
        let strategy = Graft::FixedRamp { steps: u32::from(act) + 1 };
        let command = match act % 12 {
            0 => Command::Germinate(Germination::new(dense).strategy(strategy)),
            1 => Command::Promote,
            2 => Command::Graft,
            3 => Command::Stabilize,
            4 => Command::Evaluate,
            5 => Command::FineTune,
            6 => Command::Fossilize,
            7 => Command::Cull,
            8 => Command::Reset,
            9 => {
                let signals = SeedSignals::evaluation(f64::from(act), f64::INFINITY);
                let _ = layer.record(seed, signals);
                continue;
            }
            10 => {
                drop(train(layer, seed));
                continue;
            }
            _ => {
                drop(layer.end_epoch());
                continue;
            }
        };
        let _ = layer.command(seed, command, format!("because {}", act % 3));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_state_round_trips(acts in prop::collection::vec((0usize..6, any::<u8>()), 0..60)) {
        let mut layer = builder(TelemetryMode::Debug).build().unwrap();
        walk(&mut layer, &acts);
        let bytes = layer.layer_state().to_bytes().unwrap();
        let state = reload(&bytes).unwrap();
        prop_assert!(state.to_bytes().unwrap() == bytes);
        prop_assert_eq!(state.lifecycle.table(), layer.lifecycle().table());
        prop_assert_eq!(state.lifecycle.history(), layer.lifecycle().history());
        for (seed, grown) in layer.lifecycle().grown_seeds() {
            prop_assert_eq!(state.lifecycle.grown(seed).unwrap().parameters(), grown.parameters());
            prop_assert_eq!(state.lifecycle.strategy(seed), layer.lifecycle().strategy(seed));
            prop_assert_eq!(state.lifecycle.readiness(seed).unwrap(), layer.readiness(seed).unwrap());
        }
    }
}

/// A rolled-back layer comes back by `Layer::restore`, and computes again what it computed when it was saved.
#[test]
fn restoring_a_file_undoes_a_roll_back() {
    let grafting = InitialSeed {
        state: State::Grafting,
        alpha: 0.5,
        blueprint: Some(Blueprint::Residual),
        parameters: Some(vec![vec![1.0; 4], vec![2.0]]),
        ..InitialSeed::default()
    };
    let layout = SeedLayout::new(8, 4).expect("legal");
    let mut layer = Layer::builder(layout).seed(1, grafting).build().expect("legal");
    let y = |layer: &mut Layer| {
        let mut y = [0.0f32; 8];
        let (x, out) = (MatRef::contiguous(&[1.0f32; 8], 8), MatMut::contiguous(&mut y, 8));
        let options = ForwardOptions::new();
        layer.forward(x.expect("a view"), out.expect("a view"), &options).expect("forward");
        y
    };
    let blended = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0];
    assert_eq!(y(&mut layer), blended);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("layer.safetensors");
    layer.save(&path).expect("saved");

    layer.roll_back("the loss exploded").expect("a seed to roll back");
    layer.end_epoch();
    assert_eq!(layer.state(1).expect("a seed"), State::RolledBack);
    assert_eq!(y(&mut layer), [1.0; 8]);
    let why = "back to the last good epoch";
    let outcome = layer.restore(&path, &Registry::builtin(), why).expect("restored");
    assert_eq!(outcome.transitions.len(), 1);
    assert_eq!(layer.state(1).expect("a seed"), State::Grafting);
    assert_eq!(y(&mut layer), blended);
    let states: Vec<_> = layer.lifecycle().history().of(1).map(|entry| entry.to).collect();
    assert_eq!(states, [State::RolledBack, State::Grafting]);
}
