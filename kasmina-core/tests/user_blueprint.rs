//! A kind that a user defines runs, trains, blends and is found again by a checkpoint like a built-in one.

use std::sync::Arc;

use kasmina_core::{
    AdamW, Blueprint, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, Objective, ParameterSpec,
    Registry, SeedLayout, State, UserBlueprint,
};
use rand::RngCore;

/// T(x)ᵢ = wᵢ·xᵢ + b: an attention head's shape without the softmax, and a shared offset.
#[derive(Debug)]
struct GainAndOffset;

impl UserBlueprint for GainAndOffset {
    fn kind(&self) -> &str {
        "gain_and_offset"
    }

    fn parameters(&self, c: usize) -> Vec<ParameterSpec> {
        vec![ParameterSpec::new("gain", [c]), ParameterSpec::new("offset", [1])]
    }

    fn initialise(&self, c: usize, _: &mut dyn RngCore, values: &mut [f32]) {
        values[..c].fill(1.0);
    }

    fn forward(&self, c: usize, p: &[f32], x: &[f32], y: &mut [f32]) {
        for (k, (y, x)) in y.iter_mut().zip(x).enumerate() {
            *y = p[k % c] * x + p[c];
        }
    }

    fn backward(
        &self,
        c: usize,
        p: &[f32],
        x: &[f32],
        g: &[f32],
        grad_x: &mut [f32],
        grad_parameters: Option<&mut [f32]>,
    ) {
        for (k, (grad_x, g)) in grad_x.iter_mut().zip(g).enumerate() {
            *grad_x = p[k % c] * g;
        }
        if let Some(gradient) = grad_parameters {
            for (k, (x, g)) in x.iter().zip(g).enumerate() {
                gradient[k % c] += g * x;
                gradient[c] += g;
            }
        }
    }

    fn flops_per_row(&self, c: usize) -> u64 {
        2 * c as u64
    }
}

fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.register_user(Arc::new(GainAndOffset)).expect("a new name");
    registry
}

fn layer(state: State, alpha: f32, objective: Objective) -> Layer {
    let registry = registry();
    let id = registry.find("gain_and_offset").expect("registered");
    let blueprint = registry.get(id).expect("registered").clone();
    assert!(matches!(blueprint, Blueprint::User(_)));
    let initial = InitialSeed {
        state,
        alpha,
        blueprint: Some(blueprint),
        objective,
        parameters: Some(vec![vec![3.0, -1.0], vec![0.5]]),
        ..InitialSeed::default()
    };
    let layout = SeedLayout::new(4, 2).expect("legal");
    Layer::builder(layout).registry(registry).seed(1, initial).build().expect("legal")
}

const X: [f32; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];

fn run(layer: &mut Layer) -> ([f32; 8], [f32; 8]) {
    let (mut y, mut grad_x) = ([0.0; 8], [0.0; 8]);
    let options = ForwardOptions::new();
    let view = |v| MatRef::contiguous(v, 4).expect("whole rows");
    layer
        .forward(view(&X), MatMut::contiguous(&mut y, 4).expect("whole rows"), &options)
        .expect("forward");
    let out = MatMut::contiguous(&mut grad_x, 4).expect("whole rows");
    layer.backward(view(&X), view(&[1.0; 8]), out, &options).expect("backward");
    (y, grad_x)
}

fn gradients(layer: &Layer) -> Vec<(String, Vec<f32>)> {
    let tensors = layer.gradients(1).expect("trainable");
    tensors.map(|(name, v)| (name.to_owned(), v.to_vec())).collect()
}

#[test]
fn it_blends_and_its_gradients_carry_alpha() {
    let mut layer = layer(State::Grafting, 0.5, Objective::default());
    let (y, grad_x) = run(&mut layer);
    // Half of (3x + 0.5, −x + 0.5) and half of x.
    assert_eq!(y, [1.0, 2.0, 6.25, 0.25, 5.0, 6.0, 14.25, 0.25]);
    assert_eq!(grad_x, [1.0, 1.0, 2.0, 0.0, 1.0, 1.0, 2.0, 0.0]);
    let expected = [("gain".to_owned(), vec![5.0, 6.0]), ("offset".to_owned(), vec![2.0])];
    assert_eq!(gradients(&layer), expected);
    // Σ g·(T(x) − x) = (2·3 + 0.5) + (−2·4 + 0.5) + (2·7 + 0.5) + (−2·8 + 0.5)
    assert_eq!(layer.alpha_gradient(1), Some(-2.0));
}

#[test]
fn it_trains_in_the_shadow() {
    let mut layer = layer(State::Training, 0.0, Objective::Reconstruction);
    let (y, grad_x) = run(&mut layer);
    assert_eq!((y, grad_x), (X, [1.0; 8]));
    let residuals = [6.5f64, -7.5, 14.5, -15.5];
    let loss = residuals.iter().map(|r| r * r).sum::<f64>() / 4.0;
    assert_eq!(layer.reconstruction_loss(1), Some(loss));
    let offset = residuals.iter().map(|r| 2.0 * r / 4.0).sum::<f64>() as f32;
    assert_eq!(gradients(&layer)[1].1, [offset]);
    for _ in 0..200 {
        let report = layer.optimizer_step(&AdamW { learning_rate: 0.05, ..AdamW::default() });
        assert!(report.skipped.is_empty());
        run(&mut layer);
    }
    assert!(layer.reconstruction_loss(1).expect("trained") < 0.2 * loss);
}

#[test]
fn a_checkpoint_finds_it_by_name_or_says_what_is_missing() {
    let mut layer = layer(State::Fossilized, 1.0, Objective::default());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("layer.safetensors");
    layer.save(&path).expect("saved");
    let mut loaded = Layer::load(&path, &registry()).expect("registered");
    assert_eq!(run(&mut loaded), run(&mut layer));
    let error = Layer::load(&path, &Registry::builtin()).expect_err("not registered");
    assert!(error.to_string().contains("gain_and_offset"), "{error}");
}
