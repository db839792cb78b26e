//! A file of schema 1, as an earlier version wrote it, loads as the layer that it was.
//!
//! `tests/data/layer-schema-1.safetensors` is that file. [`file`] below writes the schema byte for byte and
//! made it; run this test with `KASMINA_WRITE_FIXTURES=1` to make it anew.

use kasmina_core::checkpoint::CheckpointError;
use kasmina_core::graft::Strategy;
use kasmina_core::lifecycle::{Cause, LifecycleConfig};
use kasmina_core::{Activation, Blueprint, LayerState, Registry, StabilityMode, State};
use serde_json::{Value, json};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/layer-schema-1.safetensors");

/// One row of schema 1: counters, where schema 2 has epochs.
#[derive(Clone, Copy)]
struct Row {
    state: State,
    blueprint: u16,
    strategy: u16,
    alpha: f32,
    epochs_in_state: u32,
    last_update_epoch: u32,
    embargo: u32,
}

const NONE: Row = Row {
    state: State::Dormant,
    blueprint: u16::MAX,
    strategy: u16::MAX,
    alpha: 0.0,
    epochs_in_state: 9,
    last_update_epoch: 0,
    embargo: 0,
};

/// Epoch 9, step 900. Seeds: dormant · training with moments · grafting · culled · fossilized (short chunk).
const ROWS: [Row; 5] = [
    NONE,
    Row {
        state: State::Training,
        blueprint: 1,
        strategy: 2,
        epochs_in_state: 2,
        last_update_epoch: 9,
        ..NONE
    },
    Row {
        state: State::Grafting,
        blueprint: 0,
        strategy: 0,
        alpha: 0.5,
        epochs_in_state: 1,
        ..NONE
    },
    Row { state: State::Culled, epochs_in_state: 3, embargo: 2, ..NONE },
    Row {
        state: State::Fossilized,
        blueprint: 0,
        strategy: 2,
        alpha: 1.0,
        epochs_in_state: 0,
        last_update_epoch: 7,
        ..NONE
    },
];

impl Row {
    fn crc32(&self, seed: u32) -> u32 {
        let mut bytes = Vec::new();
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(seed.to_le_bytes());
        bytes.push(self.state.code());
        bytes.extend(self.blueprint.to_le_bytes());
        bytes.extend(self.strategy.to_le_bytes());
        bytes.extend(self.alpha.to_le_bytes());
        bytes.extend(self.epochs_in_state.to_le_bytes());
        bytes.extend(self.last_update_epoch.to_le_bytes());
        bytes.extend(self.embargo.to_le_bytes());
        crc32fast::hash(&bytes)
    }
}

/// Parameters of the active seeds: bottleneck of width 1 on 4 columns, residual on 4, residual on 2.
fn parameters() -> Vec<f32> {
    (0..13 + 5 + 3).map(|i| (i as f32 - 7.0) / 8.0).collect()
}

fn moment(scale: f32) -> Vec<f32> {
    (0..13).map(|i| scale * (i as f32 + 1.0)).collect()
}

fn state() -> Value {
    json!({
        "hidden": 18, "chunk": 4, "epoch": 9, "step": 900, "rng_seed": 77, "germinations": 4,
        "target_alpha": 1.0, "stabilization_steps": 12, "embargo_epochs": 5, "dead_epsilon": 1e-6,
        "stability": {"mode": "strict", "epsilon": 1e-7, "lower": -100.0, "upper": 100.0, "sigmas": 4.0},
        "blueprints": [
            {"name": "residual", "template": "residual"},
            {"name": "narrow", "template": {"bottleneck": {"width": 1, "activation": "tanh"}}},
        ],
        "strategies": [
            {"fixed_ramp": {"steps": 10}},
            {"grad_norm_gated": {"steps": 10, "low": 0.1, "high": 1.0}},
            {"drift_controlled": {"steps": 20, "max_drift": 0.12}},
        ],
        "history": [
            {"epoch": 2, "seed": 4, "from": "DORMANT", "to": "GERMINATED", "why": "mean off by 3 sigma"},
            {"epoch": 5, "seed": 3, "from": "EVALUATING", "to": "CULLED", "why": "worse than without"},
        ],
    })
}

/// A file of schema 1: tensors by alignment as safetensors wants them, metadata in three entries.
fn file(rows: &[Row], schema: &str, state: &Value) -> Vec<u8> {
    fn bytes<const N: usize, T: Copy>(
        values: impl IntoIterator<Item = T>,
        le: fn(T) -> [u8; N],
    ) -> Vec<u8> {
        values.into_iter().flat_map(le).collect()
    }
    let active = [1u32, 2, 4];
    let tensors: Vec<(&str, &str, Vec<u8>)> = vec![
        ("active.steps_in_state", "U64", bytes([180u64, 5, 0], u64::to_le_bytes)),
        ("active.updates", "U64", bytes([150u64, 0, 0], u64::to_le_bytes)),
        ("active.parameters", "F32", bytes(parameters(), f32::to_le_bytes)),
        ("active.first_moment", "F32", bytes(moment(0.01), f32::to_le_bytes)),
        ("active.second_moment", "F32", bytes(moment(0.001), f32::to_le_bytes)),
        ("active.seed", "U32", bytes(active, u32::to_le_bytes)),
        ("seed.alpha", "F32", bytes(rows.iter().map(|r| r.alpha), f32::to_le_bytes)),
        ("seed.crc32", "U32", {
            bytes(rows.iter().enumerate().map(|(i, r)| r.crc32(i as u32)), u32::to_le_bytes)
        }),
        ("seed.embargo", "U32", bytes(rows.iter().map(|r| r.embargo), u32::to_le_bytes)),
        (
            "seed.epochs_in_state",
            "U32",
            bytes(rows.iter().map(|r| r.epochs_in_state), u32::to_le_bytes),
        ),
        (
            "seed.last_update_epoch",
            "U32",
            bytes(rows.iter().map(|r| r.last_update_epoch), u32::to_le_bytes),
        ),
        ("seed.blueprint", "U16", bytes(rows.iter().map(|r| r.blueprint), u16::to_le_bytes)),
        ("seed.strategy", "U16", bytes(rows.iter().map(|r| r.strategy), u16::to_le_bytes)),
        ("active.objective", "U8", vec![1, 0, 0]),
        ("seed.state", "U8", rows.iter().map(|r| r.state.code()).collect()),
    ];
    let mut header = serde_json::Map::new();
    let metadata = json!({"format": "kasmina-layer", "schema": schema, "state": state.to_string()});
    header.insert("__metadata__".into(), metadata);
    let mut data = Vec::new();
    for (name, dtype, bytes) in tensors {
        let size = [("U64", 8), ("F32", 4), ("U32", 4), ("U16", 2), ("U8", 1)];
        let size = size.iter().find(|(name, _)| *name == dtype).unwrap().1;
        let offsets = [data.len(), data.len() + bytes.len()];
        let shape = [bytes.len() / size];
        header
            .insert(name.into(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend(bytes);
    }
    let mut json = serde_json::to_vec(&header).unwrap();
    while !json.len().is_multiple_of(8) {
        json.push(b' ');
    }
    [(json.len() as u64).to_le_bytes().as_slice(), &json, &data].concat()
}

fn load(bytes: &[u8]) -> Result<LayerState, CheckpointError> {
    LayerState::from_bytes(bytes, &Registry::builtin())
}

#[test]
fn the_stored_file_loads_as_the_layer_that_it_was() {
    let generated = file(&ROWS, "1", &state());
    if std::env::var_os("KASMINA_WRITE_FIXTURES").is_some() {
        std::fs::write(FIXTURE, &generated).unwrap();
    }
    let stored = std::fs::read(FIXTURE).unwrap();
    assert!(stored == generated, "the stored file is not what its generator makes");

    let mut loaded = load(&stored).unwrap();
    assert_eq!(loaded.name, "layer");
    assert_eq!((loaded.stability.mode, loaded.stability.sigmas), (StabilityMode::Strict, 4.0));
    assert_eq!((loaded.telemetry.dead_epsilon, loaded.telemetry.passes), (1e-6, 0));
    assert!(loaded.telemetry.chunk.len() == 5 && loaded.telemetry.chunk.iter().all(|s| s.n == 0));

    let lifecycle = &mut loaded.lifecycle;
    assert_eq!((lifecycle.layout().hidden(), lifecycle.layout().chunk()), (18, 4));
    assert_eq!((lifecycle.epoch(), lifecycle.step()), (9, 900));
    let defaults = LifecycleConfig::default();
    assert_eq!(*lifecycle.config(), LifecycleConfig { stabilization_steps: 12, ..defaults });
    assert_eq!(lifecycle.verify(), Ok(()));
    for (seed, row) in ROWS.iter().enumerate() {
        let found = lifecycle.table().get(seed).unwrap();
        assert_eq!((found.state, found.alpha), (row.state, row.alpha));
        assert_eq!(found.entered_epoch, 9 - row.epochs_in_state);
        assert_eq!(found.last_update_epoch, row.last_update_epoch);
        assert_eq!(lifecycle.epochs_in_state(seed).unwrap(), row.epochs_in_state);
    }
    assert_eq!(lifecycle.table().embargoes(), [0, 0, 0, 11, 0], "2 epochs are left in epoch 9");

    let names: Vec<_> = lifecycle
        .grown_seeds()
        .map(|(seed, grown)| (seed, lifecycle.registry().name(grown.blueprint()).unwrap()))
        .collect();
    assert_eq!(names, [(1, "narrow"), (2, "residual"), (4, "residual")]);
    let narrow = Blueprint::Bottleneck { width: 1, activation: Activation::Tanh };
    assert_eq!(*lifecycle.registry().get(lifecycle.grown(1).unwrap().blueprint()).unwrap(), narrow);
    let all: Vec<f32> =
        lifecycle.grown_seeds().flat_map(|(_, grown)| grown.parameters().to_vec()).collect();
    assert_eq!(all, parameters());
    assert_eq!(lifecycle.grown(1).unwrap().updates(), 150);
    assert!(lifecycle.grown(1).unwrap().gradients().is_none());
    assert_eq!(lifecycle.steps_in_state(1).unwrap(), 180);
    assert_eq!(lifecycle.strategy(2), Some(&Strategy::FixedRamp { steps: 10 }));
    assert_eq!(
        lifecycle.strategy(4),
        Some(&Strategy::DriftControlled { steps: 20, max_drift: 0.12 })
    );

    let causes: Vec<_> = lifecycle.history().iter().map(|t| (t.epoch, t.seed, t.cause)).collect();
    assert_eq!(causes, [(2, 4, Cause::Germinate), (5, 3, Cause::Cull)]);
    assert_eq!(&*lifecycle.history().iter().nth(1).unwrap().why, "worse than without");

    // It goes on from its alpha, at the speed of its ramp, and ends at the target.
    for n in 1..=5 {
        lifecycle.advance_step();
        assert_eq!(lifecycle.alpha(2).unwrap(), (0.5 + f64::from(n) / 10.0) as f32);
    }
    assert_eq!(lifecycle.alpha(2).unwrap(), 1.0);
}

#[test]
fn what_was_migrated_is_saved_in_the_new_schema() {
    let migrated = load(&std::fs::read(FIXTURE).unwrap()).unwrap();
    let bytes = migrated.to_bytes().unwrap();
    let again = load(&bytes).unwrap();
    assert!(again.to_bytes().unwrap() == bytes);
    assert_eq!(again.lifecycle.table(), migrated.lifecycle.table());
    assert!(String::from_utf8_lossy(&bytes[..4096]).contains("layer 2 "));
}

#[test]
fn damaged_files_of_schema_1_are_errors() {
    let changed = |change: fn(&mut [Row; 5])| {
        let mut rows = ROWS;
        change(&mut rows);
        file(&rows, "1", &state())
    };
    let with_state = |change: fn(&mut Value)| {
        let mut state = state();
        change(&mut state);
        file(&ROWS, "1", &state)
    };
    let hostile = [
        ("no number", file(&ROWS, "one", &state())),
        ("schema 0", file(&ROWS, "0", &state())),
        ("a state that began before the run", changed(|r| r[1].epochs_in_state = 10)),
        ("alpha off path", changed(|r| r[1].alpha = 0.5)),
        ("a NaN alpha", changed(|r| r[2].alpha = f32::NAN)),
        ("an embargo without a cull", changed(|r| r[0].embargo = 1)),
        ("a blueprint that is none", changed(|r| r[2].blueprint = 2)),
        ("a strategy that is none", changed(|r| r[2].strategy = 3)),
        ("parameters for a dormant seed", changed(|r| r[1].state = State::Dormant)),
        ("a target of 0", with_state(|s| s["target_alpha"] = 0.0.into())),
        ("a field more", with_state(|s| s["more"] = 1.into())),
        ("another layout", with_state(|s| s["chunk"] = 3.into())),
        ("fewer steps than a seed has done", with_state(|s| s["step"] = 100.into())),
        ("an unknown state", with_state(|s| s["history"][0]["to"] = "GROWING".into())),
    ];
    for (what, bytes) in hostile {
        assert!(load(&bytes).is_err(), "{what} was taken");
    }
    // A flipped bit in a row.
    let good = file(&ROWS, "1", &state());
    let crcs = good.len() - 5 * (4 * 4 + 2 * 2 + 1) - 3;
    let mut flipped = good.clone();
    flipped[crcs] ^= 1;
    assert!(matches!(load(&flipped), Err(CheckpointError::Integrity { count: 1, .. })));
    for length in 0..good.len() {
        assert!(load(&good[..length]).is_err());
    }
}
