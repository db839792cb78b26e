//! Checkpoints as a user meets them: whole, damaged, hostile, of other versions.

use std::sync::Arc;

use kasmina_core::checkpoint::{self, CheckpointError, Extensions};
use kasmina_core::graft::{GraftSignals, GraftStep, GraftStrategy, Strategy as Graft};
use kasmina_core::lifecycle::Cause;
use kasmina_core::{
    Activation, AdamW, Blueprint, Command, ForwardOptions, Germination, InitialSeed, Layer,
    LayerState, LifecycleConfig, MatMut, MatRef, Objective, ParameterSpec, Registry, SeedLayout,
    SeedSignals, State, UserBlueprint,
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

/// A small file, for tests that load it once for every byte.
fn small() -> Vec<u8> {
    let mut layer = Layer::builder(SeedLayout::new(3, 2).unwrap())
        .registry(Registry::empty())
        .seed(
            0,
            InitialSeed {
                state: State::Grafting,
                alpha: 0.25,
                blueprint: Some(Blueprint::Residual),
                ..InitialSeed::default()
            },
        )
        .build()
        .unwrap();
    let x = [0.5f32, -1.0, f32::NAN];
    let mut y = [0.0; 3];
    layer
        .forward(
            MatRef::contiguous(&x, 3).unwrap(),
            MatMut::contiguous(&mut y, 3).unwrap(),
            &ForwardOptions::new(),
        )
        .unwrap();
    layer.command(0, Command::Cull, "harm").unwrap();
    layer.layer_state().to_bytes().unwrap()
}

/// Loads a small file; its registry holds what it brings and nothing else, so that it saves the same again.
fn reload_small(bytes: &[u8]) -> Result<LayerState, CheckpointError> {
    LayerState::from_bytes(bytes, &Registry::empty())
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = small();
    for length in 0..bytes.len() {
        assert!(
            reload_small(&bytes[..length]).is_err(),
            "{length} of {} bytes were taken",
            bytes.len()
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(reload_small(&longer).is_err(), "a byte more than the header says");
}

#[test]
fn every_flipped_byte_is_an_error_or_changes_nothing() {
    let bytes = small();
    let mut harmless = 0;
    for at in 0..bytes.len() {
        for mask in [1u8 << (at % 8), 0x20, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= mask;
            if let Ok(state) = reload_small(&damaged) {
                assert!(state.to_bytes().unwrap() == bytes, "byte {at} ^ {mask:#x} went unnoticed");
                harmless += 1;
            }
        }
    }
    // White space that pads the header, and the case of a digit of a sum, mean nothing.
    assert!(harmless < 40, "{harmless} flips are harmless");
}

/// The parts of a safetensors file: header JSON and data.
fn split(bytes: &[u8]) -> (serde_json::Value, Vec<u8>) {
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + n]).unwrap(), bytes[8 + n..].to_vec())
}

fn join(header: &serde_json::Value, data: &[u8]) -> Vec<u8> {
    let mut json = serde_json::to_vec(header).unwrap();
    while !json.len().is_multiple_of(8) {
        json.push(b' ');
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    bytes.extend(data);
    bytes
}

/// The settings' JSON, changed, with the sum that fits it: what a hostile writer would do.
fn with_settings(bytes: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let (mut header, data) = split(bytes);
    let entry = header["__metadata__"]["kasmina"].as_str().unwrap().to_owned();
    let mut parts = entry.splitn(4, ' ');
    let schema = parts.by_ref().nth(1).unwrap();
    let mut settings = serde_json::from_str(parts.nth(1).unwrap()).unwrap();
    change(&mut settings);
    let json = settings.to_string();
    let sum = crc32fast::hash(json.as_bytes());
    header["__metadata__"]["kasmina"] = format!("layer {schema} {sum:08x} {json}").into();
    join(&header, &data)
}

/// One tensor's bytes changed, with sums that fit, the row's too if asked.
fn with_tensor(bytes: &[u8], name: &str, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let (header, mut data) = split(bytes);
    let offset = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize;
    let range = offset(0)..offset(1);
    change(&mut data[range.clone()]);
    let sum = crc32fast::hash(&data[range]);
    with_settings(&join(&header, &data), |settings| settings["tensors"][name] = sum.into())
}

#[test]
fn hostile_headers_are_errors() {
    let bytes = small();
    let (header, data) = split(&bytes);
    let with = |change: fn(&mut serde_json::Value)| {
        let mut header = header.clone();
        change(&mut header);
        join(&header, &data)
    };
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a header of 2^64 bytes", [u64::MAX.to_le_bytes().as_slice(), b"{}"].concat()),
        ("a header of 100 MB", [100_000_000u64.to_le_bytes().as_slice(), b"{}"].concat()),
        ("no JSON", [2u64.to_le_bytes().as_slice(), b"\xff\xfe"].concat()),
        ("nested JSON", {
            let json = "[".repeat(100_000);
            [(json.len() as u64).to_le_bytes().as_slice(), json.as_bytes()].concat()
        }),
        (
            "overlapping tensors",
            with(|h| {
                let other = h["seed.state"]["data_offsets"].clone();
                h["seed.alpha"]["data_offsets"] = other;
            }),
        ),
        (
            "offsets past the end",
            with(|h| h["seed.alpha"]["data_offsets"][1] = (1u64 << 62).into()),
        ),
        (
            "offsets in reverse",
            with(|h| h["seed.alpha"]["data_offsets"] = serde_json::json!([9, 1])),
        ),
        (
            "a shape that overflows",
            with(|h| {
                h["active.value"]["shape"] = serde_json::json!([u64::MAX, u64::MAX]);
            }),
        ),
        ("another type", with(|h| h["seed.alpha"]["dtype"] = "I32".into())),
        ("another rank", with(|h| h["seed.state"]["shape"] = serde_json::json!([2, 1]))),
        ("a tensor less", with(|h| drop(h.as_object_mut().unwrap().remove("text.bytes")))),
        (
            "a tensor renamed",
            with(|h| {
                let alpha = h.as_object_mut().unwrap().remove("seed.alpha").unwrap();
                h["seed.alpha2"] = alpha;
            }),
        ),
        (
            "an empty tensor more",
            with(|h| {
                let end = h["seed.state"]["data_offsets"][1].clone();
                h["more"] =
                    serde_json::json!({"dtype": "U8", "shape": [0], "data_offsets": [end, end]});
            }),
        ),
        ("no metadata", with(|h| drop(h.as_object_mut().unwrap().remove("__metadata__")))),
        ("other metadata", with(|h| h["__metadata__"] = serde_json::json!({"format": "pt"}))),
        ("other text", with(|h| h["__metadata__"]["kasmina"] = "model 2 00000000 {}".into())),
        ("no schema", with(|h| h["__metadata__"]["kasmina"] = "layer x 00000000 {}".into())),
        ("an empty entry", with(|h| h["__metadata__"]["kasmina"] = "layer 2".into())),
    ];
    for (what, bytes) in hostile {
        assert!(reload_small(&bytes).is_err(), "{what} was taken");
    }
}

#[test]
fn newer_schemas_are_named() {
    let (mut header, data) = split(&small());
    header["__metadata__"]["kasmina"] = "layer 3 00000000 something new".into();
    let error = reload_small(&join(&header, &data)).unwrap_err();
    assert!(matches!(error, CheckpointError::Schema { found: 3, newest: 2 }), "{error}");
    header["__metadata__"] =
        serde_json::json!({"format": "kasmina-layer", "schema": "7", "state": "{}"});
    let error = reload_small(&join(&header, &data)).unwrap_err();
    assert!(matches!(error, CheckpointError::Schema { found: 7, newest: 2 }), "{error}");
}

#[test]
fn hostile_settings_are_errors() {
    let bytes = small();
    assert!(
        reload_small(&with_settings(&bytes, |_| ())).is_ok(),
        "the tool itself changes nothing"
    );
    type Change = fn(&mut serde_json::Value);
    let hostile: [(&str, Change); 18] = [
        ("hidden 0", |s| s["hidden"] = 0.into()),
        ("hidden 2^31", |s| s["hidden"] = (1u64 << 31).into()),
        ("a layout of two thousand million seeds", |s| {
            s["hidden"] = i32::MAX.into();
            s["chunk"] = 1.into();
        }),
        ("chunk over hidden", |s| s["chunk"] = 4.into()),
        ("a negative epoch", |s| s["epoch"] = (-1).into()),
        ("a field less", |s| drop(s.as_object_mut().unwrap().remove("step"))),
        ("a field more", |s| s["more"] = 1.into()),
        ("alpha's target 0", |s| s["lifecycle"]["target_alpha"] = 0.0.into()),
        ("a history without room", |s| s["lifecycle"]["history_limit"] = 0.into()),
        ("bounds in reverse", |s| s["stability"]["lower"] = 2e6.into()),
        ("an unknown mode", |s| s["telemetry"]["mode"] = "loud".into()),
        ("a sampling fraction of 2", |s| {
            s["telemetry"]["mode"] = serde_json::json!({"sampling": {"every": 1, "fraction": 2.0}});
        }),
        ("debug mode without histograms", |s| s["telemetry"]["mode"] = "debug".into()),
        ("no blueprints", |s| s["blueprints"] = serde_json::json!([])),
        ("a filter of 99 taps", |s| {
            s["blueprints"][0]["template"] = serde_json::json!({"conv_filter": {"taps": 99}});
        }),
        ("a bottleneck too wide for any memory", |s| {
            s["blueprints"][0]["name"] = "wide".into();
            s["blueprints"][0]["template"] =
                serde_json::json!({"bottleneck": {"width": 2147483647u32, "activation": "relu"}});
        }),
        ("a ramp of no steps", |s| {
            s["strategies"][0] = serde_json::json!({"fixed_ramp": {"steps": 0}})
        }),
        ("a strategy nobody has", |s| {
            let strategies = s["strategies"].as_array_mut().unwrap();
            strategies.push(serde_json::json!({"fixed_ramp": {"steps": 7}}));
        }),
    ];
    for (what, change) in hostile {
        let error = reload_small(&with_settings(&bytes, change)).expect_err(what);
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn contradictions_between_columns_are_errors() {
    let bytes = small();
    let f32s = |v: f32| v.to_le_bytes();
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        (
            "a parameter NaN",
            with_tensor(&bytes, "active.parameters", |b| {
                b[..4].copy_from_slice(&f32s(f32::NAN));
            }),
        ),
        ("an unknown objective", with_tensor(&bytes, "active.objective", |b| b[0] = 9)),
        ("unknown bits", with_tensor(&bytes, "active.present", |b| b[1] = 0xff)),
        ("moments that are not there", with_tensor(&bytes, "active.present", |b| b[0] |= 4)),
        ("another seed", with_tensor(&bytes, "active.seed", |b| b[0] = 1)),
        (
            "a share of 2",
            with_tensor(&bytes, "active.graft_share", |b| {
                b[..8].copy_from_slice(&2f64.to_le_bytes());
            }),
        ),
        ("a step in the future", with_tensor(&bytes, "active.entered_step", |b| b[0] = 9)),
        ("a command that is none", with_tensor(&bytes, "waiting.command", |b| b[0] = 10)),
        ("an illegal command", with_tensor(&bytes, "waiting.command", |b| b[0] = 6)),
        ("a text that is none", with_tensor(&bytes, "waiting.why", |b| b[0] = 7)),
        ("a text that is no text", with_tensor(&bytes, "text.bytes", |b| b[0] = 0xff)),
        ("texts in reverse", with_tensor(&bytes, "text.offset", |b| b[0] = 1)),
        ("more dead than there are", with_tensor(&bytes, "chunk.dead", |b| b[0] = 200)),
        ("a count that would overflow", with_tensor(&bytes, "chunk.nonfinite", |b| b[7] = 0xff)),
        (
            "a minimum over the maximum",
            with_tensor(&bytes, "chunk.min", |b| {
                b[..4].copy_from_slice(&f32s(9.0));
            }),
        ),
        ("a negative m2", with_tensor(&bytes, "chunk.m2", |b| b[7] |= 0x80)),
        ("a row changed without its sum", with_tensor(&bytes, "seed.alpha", |b| b[0] ^= 1)),
    ];
    for (what, bytes) in hostile {
        assert!(reload_small(&bytes).is_err(), "{what} was taken");
    }
    // Rows with sums that fit, written by someone who knows how.
    use kasmina_core::lifecycle::SeedRow;
    let state = reload_small(&bytes).unwrap();
    let row = state.lifecycle.table().get(0).unwrap();
    let rows = [
        ("a NaN alpha", SeedRow { alpha: f32::NAN, ..row }),
        ("alpha over 1", SeedRow { alpha: 1.5, ..row }),
        ("alpha off path", SeedRow { state: State::Training, ..row }),
        ("parameters in a dormant seed", SeedRow { state: State::Dormant, alpha: 0.0, ..row }),
        ("an unknown blueprint", SeedRow { blueprint: 7, ..row }),
        ("an unknown strategy", SeedRow { strategy: 7, ..row }),
        ("the future", SeedRow { entered_epoch: 5, ..row }),
        ("an embargo on path", SeedRow { embargo_until: 1, ..row }),
    ];
    for (what, row) in rows {
        let mut forged = bytes.clone();
        let mut column = |name: &str, value: &[u8]| {
            forged = with_tensor(&forged, name, |b| b[..value.len()].copy_from_slice(value));
        };
        column("seed.state", &[row.state.code()]);
        column("seed.blueprint", &row.blueprint.to_le_bytes());
        column("seed.strategy", &row.strategy.to_le_bytes());
        column("seed.alpha", &row.alpha.to_le_bytes());
        column("seed.entered_epoch", &row.entered_epoch.to_le_bytes());
        column("seed.embargo_until", &row.embargo_until.to_le_bytes());
        column("seed.crc32", &row.crc32(0).to_le_bytes());
        let error = reload_small(&forged).expect_err(what);
        assert!(
            !matches!(error, CheckpointError::Crc { .. } | CheckpointError::Integrity { .. }),
            "{what}: {error}"
        );
    }
}

#[derive(Debug)]
struct Own(&'static str);

impl UserBlueprint for Own {
    fn kind(&self) -> &str {
        self.0
    }
    fn parameters(&self, c: usize) -> Vec<ParameterSpec> {
        vec![ParameterSpec::new("w", [c])]
    }
    fn initialise(&self, _: usize, _: &mut dyn rand::RngCore, values: &mut [f32]) {
        values.fill(0.5);
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
        gx: &mut [f32],
        _: Option<&mut [f32]>,
    ) {
        gx.copy_from_slice(g);
    }
    fn flops_per_row(&self, _: usize) -> u64 {
        0
    }
}

#[derive(Debug)]
struct Late;

impl GraftStrategy for Late {
    fn name(&self) -> &str {
        "late"
    }
    fn advance(&self, signals: &GraftSignals) -> GraftStep {
        GraftStep::Share(if signals.step > 5 { 1.0 } else { 0.0 })
    }
}

#[test]
fn user_defined_things_are_found_by_name_and_missed_by_name() {
    let mut registry = Registry::builtin();
    let own = registry.register_user(Arc::new(Own("own"))).unwrap();
    let mut layer =
        Layer::builder(SeedLayout::new(4, 2).unwrap()).registry(registry.clone()).build().unwrap();
    let germination = Germination::new(own).strategy(Graft::Custom(Arc::new(Late)));
    layer.command(0, Command::Germinate(germination.clone()), "").unwrap();
    drop(layer.end_epoch());
    layer.command(1, Command::Germinate(germination), "").unwrap();
    let bytes = layer.layer_state().to_bytes().unwrap();

    let strategies: [Arc<dyn GraftStrategy>; 1] = [Arc::new(Late)];
    let late = &strategies;
    let load = |registry: &Registry, strategies| {
        LayerState::from_bytes_with(&bytes, Extensions { registry, strategies })
    };
    let state = load(&registry, late).unwrap();
    assert!(state.to_bytes().unwrap() == bytes);
    let missing = |result: Result<LayerState, CheckpointError>| match result.unwrap_err() {
        CheckpointError::NotProvided { what, name } => format!("{what} {name}"),
        other => panic!("{other}"),
    };
    assert_eq!(missing(load(&Registry::builtin(), late)), "blueprint own");
    assert_eq!(missing(load(&registry, &[])), "strategy late");
    let mut other = Registry::builtin();
    other.register("own", Blueprint::Residual).unwrap();
    assert_eq!(missing(load(&other, late)), "blueprint own");
    let mut other = Registry::empty();
    other.register("residual", Blueprint::AttentionHead).unwrap();
    other.register_user(Arc::new(Own("own"))).unwrap();
    assert!(matches!(load(&other, late), Err(CheckpointError::BlueprintMismatch { .. })));
}

#[test]
fn ids_of_the_loading_registry_stay_what_they_are() {
    let mut registry = Registry::empty();
    registry.register("a", Blueprint::Residual).unwrap();
    let b = registry.register("b", Blueprint::AttentionHead).unwrap();
    let mut layer =
        Layer::builder(SeedLayout::new(4, 2).unwrap()).registry(registry).build().unwrap();
    layer.command(1, Command::Germinate(Germination::new(b)), "").unwrap();
    drop(layer.end_epoch());
    let bytes = layer.layer_state().to_bytes().unwrap();

    let mut other = Registry::empty();
    let b = other.register("b", Blueprint::AttentionHead).unwrap();
    let state = LayerState::from_bytes(&bytes, &other).unwrap();
    assert_eq!(state.lifecycle.grown(1).unwrap().blueprint(), b);
    assert_eq!(state.lifecycle.table().blueprints()[1], b.index());
    assert_eq!(state.lifecycle.history().iter().next().unwrap().blueprint, Some(b));
    assert_eq!(state.lifecycle.verify(), Ok(()));
    assert!(state.lifecycle.registry().find("a").is_ok(), "and the file's others are added");
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
    use kasmina_core::{
        Blueprint, ForwardOptions, InitialSeed, MatMut, MatRef, Registry, SeedLayout, State,
    };
    let grafting = InitialSeed {
        state: State::Grafting,
        alpha: 0.5,
        blueprint: Some(Blueprint::Residual),
        parameters: Some(vec![vec![1.0; 4], vec![2.0]]),
        ..InitialSeed::default()
    };
    let layout = SeedLayout::new(8, 4).expect("legal");
    let mut layer = kasmina_core::Layer::builder(layout).seed(1, grafting).build().expect("legal");
    let y = |layer: &mut kasmina_core::Layer| {
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
