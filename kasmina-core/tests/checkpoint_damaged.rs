//! Checkpoints that are damaged, contradict themselves, or were written to do harm: each is an error before anything is built.

use kasmina_core::checkpoint::CheckpointError;
use kasmina_core::{
    Blueprint, Command, ForwardOptions, InitialSeed, Layer, LayerState, MatMut, MatRef, Registry,
    SeedLayout, State,
};

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
