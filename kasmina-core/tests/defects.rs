//! Defects that an earlier system of this kind had, each shown to be absent where no other test says so by name.
//!
//! `cargo xtask validate` holds the list of them all with the tests that cover each.

use std::path::{Path, PathBuf};

use kasmina_core::checkpoint::CheckpointError;
use kasmina_core::{
    Activation, AdamW, Blueprint, ForwardOptions, InitialSeed, Layer, LayerState, MatMut, MatRef,
    Objective, Registry, SeedLayout, Stability, StabilityMode, State,
};
use kasmina_telemetry::TelemetryMode;
use safetensors::SafeTensors;

const HIDDEN: usize = 22;
const CHUNK: usize = 8;
const ROWS: usize = 5;

fn kinds() -> [Blueprint; 6] {
    [
        Blueprint::Residual,
        Blueprint::AttentionHead,
        Blueprint::MlpExpansion,
        Blueprint::ConvFilter { taps: 3 },
        Blueprint::Bottleneck { width: 2, activation: Activation::Gelu },
        Blueprint::Dense { activation: Activation::Silu },
    ]
}

/// Values that repeat nowhere and are far from 0.
fn values(len: usize, from: usize) -> Vec<f32> {
    (0..len).map(|i| 1.5 + (0.37 * (i + from) as f32).sin()).collect()
}

fn seed(state: State, blueprint: Blueprint) -> InitialSeed {
    InitialSeed { state, blueprint: Some(blueprint), alpha: 1.0, ..InitialSeed::default() }
}

/// Three seeds of 8, 8 and 6 columns, all of one kind and state.
fn layer(state: State, blueprint: &Blueprint) -> Layer {
    let mut builder = Layer::builder(SeedLayout::new(HIDDEN, CHUNK).expect("legal"));
    for i in 0..3 {
        builder = builder.seed(i, seed(state, blueprint.clone()));
    }
    builder.build().expect("legal")
}

/// y and dL/dx.
fn passes(layer: &mut Layer, x: &[f32], grad_y: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let view = |data| MatRef::contiguous(data, HIDDEN).expect("a view");
    let (mut y, mut grad_x) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    let options = ForwardOptions::new();
    let out = MatMut::contiguous(&mut y, HIDDEN).expect("a view");
    layer.forward(view(x), out, &options).expect("forward");
    let out = MatMut::contiguous(&mut grad_x, HIDDEN).expect("a view");
    layer.backward(view(x), view(grad_y), out, &options).expect("backward");
    (y, grad_x)
}

fn flat_gradients(layer: &Layer, seed: usize) -> Vec<f32> {
    layer.lifecycle().grown(seed).and_then(|grown| grown.gradients()).unwrap_or_default().to_vec()
}

/// Σ y/x is Σ softmax(w), which is 1 over the columns that there are, in a short last chunk as in a whole one.
#[test]
fn a_softmax_is_over_the_columns_of_its_chunk_and_no_padding() {
    let mut layer = layer(State::FineTuning, &Blueprint::AttentionHead);
    for seed in 0..3 {
        let columns = layer.layout().chunk_len(seed);
        // Far below 0: padding of weight 0 would take nearly all of the softmax.
        let weights: Vec<f32> = values(columns, seed).iter().map(|w| w - 30.0).collect();
        layer.set_parameters(seed, &weights).expect("they fit");
    }
    let x = values(ROWS * HIDDEN, 3);
    let (y, _) = passes(&mut layer, &x, &x);
    for row in 0..ROWS {
        for seed in 0..3 {
            let columns = layer.layout().columns(seed);
            let sum: f32 = columns.map(|c| row * HIDDEN + c).map(|i| y[i] / x[i]).sum();
            assert!((sum - 1.0).abs() < 1e-5, "row {row}, seed {seed}: {sum}");
        }
    }
}

#[test]
fn every_kind_has_a_gradient_for_every_parameter_tensor() {
    let (x, grad_y) = (values(ROWS * HIDDEN, 1), values(ROWS * HIDDEN, 40));
    for kind in kinds() {
        let mut layer = layer(State::FineTuning, &kind);
        // Away from what fresh parameters are: U = 0 gives V no gradient.
        for i in 0..3 {
            let count = layer.lifecycle().grown(i).expect("grown").parameters().len();
            let fresh: Vec<f32> = values(count, i).iter().map(|w| 0.3 * w).collect();
            layer.set_parameters(i, &fresh).expect("they fit");
        }
        passes(&mut layer, &x, &grad_y);
        for i in 0..3 {
            let mut gradients = layer.gradients(i).expect("a gradient").peekable();
            assert!(gradients.peek().is_some());
            for (name, gradient) in gradients {
                let all = gradient.iter().all(|g| *g != 0.0 && g.is_finite());
                assert!(all, "{kind:?}, seed {i}, {name}: {gradient:?}");
            }
        }
    }
}

/// In fast mode the gradient of 2^k·g is 2^k times that of g, to the bit: no clip anywhere, on path or dormant.
#[test]
fn gradients_are_clipped_nowhere_unasked() {
    const LARGE: f32 = 1_048_576.0;
    assert_eq!(AdamW::default().clip_norm, None);
    let x = values(ROWS * HIDDEN, 1);
    let small = values(ROWS * HIDDEN, 9);
    let large: Vec<f32> = small.iter().map(|g| LARGE * g).collect();
    for state in [State::Dormant, State::Training, State::FineTuning] {
        let run = |grad_y: &[f32]| {
            let mut builder = Layer::builder(SeedLayout::new(HIDDEN, CHUNK).expect("legal"))
                .stability(Stability::new(StabilityMode::Fast));
            for i in 0..3 {
                if state != State::Dormant {
                    builder = builder.seed(i, seed(state, Blueprint::MlpExpansion));
                }
            }
            let mut layer = builder.build().expect("legal");
            let (_, grad_x) = passes(&mut layer, &x, grad_y);
            (grad_x, flat_gradients(&layer, 1))
        };
        let (expected, found) = (run(&small), run(&large));
        let scaled = |values: &[f32]| values.iter().map(|g| LARGE * g).collect::<Vec<_>>();
        assert_eq!(found.0, scaled(&expected.0), "{state:?}");
        assert_eq!(found.1, scaled(&expected.1), "{state:?}");
    }
}

/// What is written to one seed changes that seed alone, forward and backward by the same index.
#[test]
fn seeds_of_one_blueprint_share_no_parameters() {
    let (x, grad_y) = (values(ROWS * HIDDEN, 1), values(ROWS * HIDDEN, 40));
    for kind in kinds() {
        let run = |changed: Option<usize>| {
            let mut layer = layer(State::FineTuning, &kind);
            if let Some(i) = changed {
                let count = layer.lifecycle().grown(i).expect("grown").parameters().len();
                layer.set_parameters(i, &values(count, 11)).expect("they fit");
            }
            let (y, grad_x) = passes(&mut layer, &x, &grad_y);
            let gradients: Vec<_> = (0..3).map(|i| flat_gradients(&layer, i)).collect();
            (y, grad_x, gradients)
        };
        let before = run(None);
        for changed in 0..3 {
            let after = run(Some(changed));
            for i in 0..3 {
                let columns = SeedLayout::new(HIDDEN, CHUNK).expect("legal").columns(i);
                let chunk = |m: &[f32]| -> Vec<u32> {
                    let rows = m.chunks(HIDDEN);
                    rows.flat_map(|row| row[columns.clone()].iter().map(|v| v.to_bits())).collect()
                };
                let same = (chunk(&before.0), &before.2[i]) == (chunk(&after.0), &after.2[i]);
                let passed = chunk(&before.1) == chunk(&after.1);
                let about = format!("{kind:?}: seed {changed} was changed, seed {i}");
                if i == changed {
                    assert!(!same, "{about} is as before");
                } else {
                    assert!(same && passed, "{about} is another");
                }
            }
        }
    }
}

#[test]
fn an_optimizer_step_moves_every_parameter_of_every_trainable_seed() {
    let (x, grad_y) = (values(ROWS * HIDDEN, 1), values(ROWS * HIDDEN, 40));
    for kind in kinds() {
        let mut layer = layer(State::FineTuning, &kind);
        let parameters = |layer: &Layer, i: usize| {
            layer.lifecycle().grown(i).expect("grown").parameters().to_vec()
        };
        for i in 0..3 {
            let count = parameters(&layer, i).len();
            let fresh: Vec<f32> = values(count, i).iter().map(|w| 0.3 * w).collect();
            layer.set_parameters(i, &fresh).expect("they fit");
        }
        let before: Vec<_> = (0..3).map(|i| parameters(&layer, i)).collect();
        passes(&mut layer, &x, &grad_y);
        let report = layer.optimizer_step(&AdamW::new(0.01));
        assert_eq!(report.updated.len(), 3, "{kind:?}");
        for (i, before) in before.iter().enumerate() {
            let after = parameters(&layer, i);
            assert!(before.iter().zip(&after).all(|(b, a)| b != a), "{kind:?}, seed {i}");
        }
    }
}

/// The state after one row and after ten thousand is as large: nothing is kept by row.
#[test]
fn telemetry_does_not_grow_with_the_rows() {
    let bytes = |rows: usize| {
        let mut layer = Layer::builder(SeedLayout::new(HIDDEN, CHUNK).expect("legal"))
            .telemetry_mode(TelemetryMode::Debug)
            .build()
            .expect("legal");
        let x = values(rows * HIDDEN, 0);
        passes(&mut layer, &x, &x);
        assert_eq!(layer.chunk_stats()[2].n, (rows * 6) as u64);
        let file = layer.layer_state().to_bytes().expect("it is whole");
        let tensors = SafeTensors::deserialize(&file).expect("a container");
        tensors.tensors().iter().map(|(_, tensor)| tensor.data().len()).sum::<usize>()
    };
    assert_eq!(bytes(1), bytes(10_000));
}

/// There is no default for what a file does not say.
#[test]
fn a_checkpoint_without_any_one_of_its_tensors_is_an_error() {
    let mut layer = layer(State::Grafting, &Blueprint::Residual);
    let x = values(ROWS * HIDDEN, 0);
    passes(&mut layer, &x, &x);
    let file = layer.layer_state().to_bytes().expect("it is whole");
    let (_, header) = SafeTensors::read_metadata(&file).expect("a container");
    let tensors = SafeTensors::deserialize(&file).expect("a container").tensors();
    assert!(tensors.len() > 10);
    let registry = Registry::builtin();
    let load = |without: Option<&str>| -> Result<LayerState, CheckpointError> {
        let kept = tensors.iter().filter(|(name, _)| Some(name.as_str()) != without);
        let kept = kept.map(|(name, tensor)| (name.clone(), tensor));
        let bytes = safetensors::serialize(kept, header.metadata().clone()).expect("a container");
        LayerState::from_bytes(&bytes, &registry)
    };
    load(None).expect("all of them are enough");
    for (name, _) in &tensors {
        let error = load(Some(name)).expect_err(name).to_string();
        assert!(error.contains(name.as_str()), "{name}: {error}");
    }
}

/// Which layer of a model a file is of, and when it was written, come back with it.
#[test]
fn a_checkpoint_keeps_the_layers_name_and_its_epoch() {
    let mut layer = Layer::builder(SeedLayout::new(HIDDEN, CHUNK).expect("legal"))
        .name("encoder.3")
        .seed(
            0,
            InitialSeed {
                objective: Objective::Reconstruction,
                ..seed(State::Training, Blueprint::Residual)
            },
        )
        .build()
        .expect("legal");
    for _ in 0..3 {
        layer.end_epoch();
    }
    layer.advance_step();
    let file = layer.layer_state().to_bytes().expect("it is whole");
    let state = LayerState::from_bytes(&file, &Registry::builtin()).expect("it loads");
    assert_eq!(state.name, "encoder.3");
    assert_eq!((state.lifecycle.epoch(), state.lifecycle.step()), (3, 1));
    assert_eq!(state.lifecycle.grown(0).expect("grown").objective(), Objective::Reconstruction);
}

/// Strict bounds are computed on the device and read there. What the host queues for them neither waits nor copies back.
#[test]
fn strict_bounds_are_queued_without_a_wait() {
    const WAITS: [&str; 5] = ["synchronize(", ".to_vec()", "copy_to_host", ".wait(", "is_idle("];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda");
    let text = std::fs::read_to_string(folder.join("whole_input.rs")).expect("a source");
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    assert!(code.contains("pub(super) fn strict_bounds("));
    let found: Vec<_> = WAITS.iter().filter(|wait| code.contains(**wait)).collect();
    assert!(found.is_empty(), "whole_input.rs waits: {found:?}");
    let text = std::fs::read_to_string(folder.join("layer/pass.rs")).expect("a source");
    let (_, arm) = text.split_once("StabilityMode::Strict").expect("the layer has strict bounds");
    let (arm, _) = arm.split_once("strict_bounds(").expect("they are computed there");
    assert!(WAITS.iter().all(|wait| !arm.contains(wait)), "the layer waits before: {arm}");
}

fn kernel_sources() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let folders = ["kasmina-core", "kasmina-telemetry", "kasmina-tma", "kasmina-sys"];
    let mut files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|name| std::fs::read_dir(workspace.join(name).join("kernels")))
        .flatten()
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|end| end == "cu" || end == "cuh"))
        .collect();
    files.sort();
    files
}

/// The last argument of every call of `name` in `text`.
fn last_arguments<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(name) {
        let rest = &text[at + name.len()..];
        let Some(rest) = rest.strip_prefix('(') else { continue };
        let (mut depth, mut comma) = (1, 0);
        for (i, c) in rest.char_indices() {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 1 => comma = i + 1,
                _ => {}
            }
            if depth == 0 {
                found.push(rest[comma..i].trim());
                break;
            }
        }
    }
    found
}

/// A sum of floats by atomics depends on the order of arrival. Counts and bit patterns do not.
#[test]
fn no_kernel_adds_floats_atomically() {
    let is_count = |argument: &str, text: &str| {
        ["1u", "1ull"].contains(&argument)
            || argument.starts_with("static_cast<unsigned long long>(")
            || text.contains(&format!("uint32_t {argument} ="))
    };
    let mut files = kernel_sources();
    // The earlier system's design, to be measured against: in no path of a layer.
    files.retain(|path| !path.ends_with("bench_claims.cu"));
    let mut adds = 0;
    for path in &files {
        let text = std::fs::read_to_string(path).expect("a source");
        for argument in last_arguments(&text, "atomicAdd") {
            assert!(is_count(argument, &text), "{}: atomicAdd of {argument}", path.display());
            adds += 1;
        }
        for line in text.lines().filter(|line| line.contains("atom.") || line.contains("red.")) {
            let float = [".add.f", ".add.noftz"].iter().any(|kind| line.contains(kind));
            assert!(!float, "{}: {line}", path.display());
        }
    }
    assert!(files.len() > 50 && adds > 3, "{} files, {adds} additions", files.len());
    assert_eq!(
        last_arguments("atomicAdd(p + f(1, 2), g[i, 2]); atomicAdd(x,1.0f)", "atomicAdd"),
        ["g[i, 2]", "1.0f"]
    );
    assert!(!is_count("1.0f", "") && !is_count("sum", "float sum = 0;"));
}
