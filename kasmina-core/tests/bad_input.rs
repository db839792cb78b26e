//! Every public constructor and call refuses bad input with an error that names value and limit, and
//! leaves the layer as it was.

use kasmina_core::{
    Activation, Blueprint, Command, Error, ForwardOptions, Germination, InitialSeed, Layer, MatMut,
    MatRef, Objective, Registry, SeedLayout, Stability, StabilityMode, State,
};
use kasmina_telemetry::TelemetryMode;

fn layer() -> Layer {
    Layer::builder(SeedLayout::new(8, 4).expect("legal")).build().expect("legal")
}

/// The error's text holds every part.
#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T, impl std::fmt::Display>, parts: &[&str]) {
    let text = result.map_err(|error| error.to_string()).expect_err("must be refused");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn layouts() {
    says(SeedLayout::new(0, 1), &["hidden", "0"]);
    says(SeedLayout::new(4, 0), &["chunk", "0"]);
    says(SeedLayout::new(4, 5), &["chunk", "5", "4"]);
    says(SeedLayout::new(usize::MAX, 1), &["hidden", "2147483647"]);
    let largest =
        SeedLayout::new(SeedLayout::MAX_HIDDEN, SeedLayout::MAX_HIDDEN).expect("the limit");
    assert_eq!(largest.seeds(), 1);
    assert!(largest.columns(7).is_empty());
}

#[test]
fn matrices() {
    let data = [0.0f32; 10];
    says(MatRef::new(&data, 2, 0, 4), &["columns", "0"]);
    says(MatRef::new(&data, 2, 4, 3), &["row stride", "3", "columns"]);
    says(MatRef::new(&data, 3, 4, 4), &["[3, 4]", "10", "12"]);
    says(MatRef::new(&data, usize::MAX, 4, usize::MAX), &["overflow"]);
    says(MatRef::contiguous(&data, 4), &["10", "12"]);
    assert!(MatRef::new(&data, 2, 4, 6).is_ok(), "the last row needs no padding");
    assert!(MatRef::new(&data, 0, 4, 4).is_ok(), "no rows is a matrix");
    assert!(MatMut::new(&mut [0.0f32; 3], 1, 4, 4).is_err());
}

#[test]
fn shapes_of_a_call() {
    let mut layer = layer();
    let (x, mut y) = ([1.0f32; 16], [7.0f32; 16]);
    let options = ForwardOptions::new();
    let narrow = MatRef::contiguous(&x, 4).expect("a view");
    says(
        layer.forward(narrow, MatMut::contiguous(&mut y, 8).expect("a view"), &options),
        &["x is [4, 4]", "[4, 8]"],
    );
    let x = MatRef::contiguous(&x, 8).expect("a view");
    let short = MatMut::contiguous(&mut y[..8], 8).expect("a view");
    says(layer.forward(x, short, &options), &["y is [1, 8]", "[2, 8]"]);
    assert_eq!(y, [7.0; 16]);
    assert_eq!(layer.chunk_stats()[0].n, 0, "a refused call is not measured");
}

#[test]
fn probes() {
    let mut layer = layer();
    let (x, mut y) = ([1.0f32; 8], [7.0f32; 8]);
    let mut forward = |options: ForwardOptions| {
        let x = MatRef::contiguous(&x, 8).expect("a view");
        layer.forward(x, MatMut::contiguous(&mut y, 8).expect("a view"), &options)
    };
    says(forward(ForwardOptions::new().probe(0, 0.5)), &["seed 0", "DORMANT", "no parameters"]);
    says(forward(ForwardOptions::new().probe(9, 0.5)), &["seed 9", "0 to 1"]);
    says(forward(ForwardOptions::new().probe(0, 1.5)), &["1.5", "[0, 1]"]);
    says(forward(ForwardOptions::new().probe(0, f32::NAN)), &["NaN", "[0, 1]"]);
}

#[test]
fn builders() {
    let builder = || Layer::builder(SeedLayout::new(8, 4).expect("legal"));
    let stability = |change: fn(&mut Stability)| {
        let mut stability = Stability::new(StabilityMode::Adaptive);
        change(&mut stability);
        builder().stability(stability).build()
    };
    says(stability(|s| s.epsilon = -1.0), &["epsilon", "-1"]);
    says(stability(|s| s.upper = f32::INFINITY), &["upper", "inf"]);
    says(stability(|s| s.lower = 2e6), &["upper", "lower"]);
    says(stability(|s| s.sigmas = f32::NAN), &["sigmas", "NaN"]);
    says(builder().dead_epsilon(f32::NAN).build(), &["dead_epsilon", "NaN"]);
    says(builder().snr_epsilon(-1.0).build(), &["snr_epsilon", "-1"]);
    let every = std::num::NonZeroU32::MIN;
    let sampling = TelemetryMode::Sampling { every, fraction: 0.0 };
    says(builder().telemetry_mode(sampling).build(), &["fraction", "0"]);
    says(layer().set_telemetry_mode(sampling), &["fraction", "0"]);

    let seed = |index, initial| builder().seed(index, initial).build();
    let residual = || Some(Blueprint::Residual);
    let with = |state, blueprint, parameters| InitialSeed {
        state,
        blueprint,
        parameters,
        ..InitialSeed::default()
    };
    says(seed(2, InitialSeed::default()), &["seed 2", "0 to 1"]);
    says(seed(0, with(State::Grafting, None, None)), &["GRAFTING", "blueprint"]);
    says(seed(0, with(State::Culled, residual(), None)), &["CULLED", "no parameters"]);
    let tensors = vec![vec![0.0; 4], vec![f32::NAN]];
    says(seed(0, with(State::Training, residual(), Some(tensors))), &["scale", "NaN", "finite"]);
    let tensors = vec![vec![0.0; 3], vec![1.0]];
    says(seed(0, with(State::Training, residual(), Some(tensors))), &["weight", "3", "4"]);
    let alpha = InitialSeed { alpha: 2.0, ..with(State::Fossilized, residual(), None) };
    says(seed(0, alpha), &["alpha", "2"]);
}

#[test]
fn blueprints_and_registries() {
    let mut registry = Registry::builtin();
    says(registry.register("a", Blueprint::ConvFilter { taps: 0 }), &["taps", "0"]);
    says(registry.register("a", Blueprint::ConvFilter { taps: 17 }), &["taps", "17", "16"]);
    let activation = Activation::Relu;
    says(registry.register("a", Blueprint::Bottleneck { width: 0, activation }), &["width", "0"]);
    says(registry.register("residual", Blueprint::AttentionHead), &["residual", "already"]);
    says(registry.find("ghost"), &["ghost", "residual", "dense"]);
    let huge = Blueprint::Dense { activation };
    says(huge.parameters(usize::MAX / 2), &["parameter count"]);
    says(Activation::try_from(4), &["4", "0 to 3"]);
    says(Objective::try_from(3), &["3", "0 to 2"]);
    says(State::try_from(11), &["11", "0 to 10"]);
}

#[test]
fn commands_and_parameters() {
    let mut layer = layer();
    let id = layer.registry().find("residual").expect("built in");
    says(layer.command(5, Command::Promote, "x"), &["seed 5", "0 to 1"]);
    says(layer.command(0, Command::Promote, "x"), &["seed 0", "DORMANT", "promote", "GERMINATED"]);
    says(layer.roll_back("x"), &["roll"]);
    says(layer.set_parameters(0, &[1.0]), &["seed 0", "DORMANT"]);
    layer.command(0, Command::Germinate(Germination::new(id)), "x").expect("legal");
    says(
        layer.command(0, Command::Germinate(Germination::new(id)), "x"),
        &["seed 0", "germinate", "waiting"],
    );
    layer.end_epoch();
    says(layer.set_parameters(0, &[1.0]), &["seed 0", "1", "5"]);
    says(layer.set_parameters(0, &[f32::NAN; 5]), &["NaN", "finite"]);
    let before: Vec<f32> =
        layer.parameters(0).expect("grown").flat_map(|(_, v)| v.to_vec()).collect();
    assert_eq!(before, [0.0, 0.0, 0.0, 0.0, 1.0], "refused parameters change nothing");
    assert!(matches!(layer.state(9), Err(Error::NoSuchSeed { seed: 9, seeds: 2 })));
}

/// No rows is legal everywhere and measures nothing.
#[test]
fn no_rows() {
    let mut layer = layer();
    let empty: [f32; 0] = [];
    let view = || MatRef::new(&empty, 0, 8, 8).expect("a view");
    let options = ForwardOptions::new();
    layer
        .forward(view(), MatMut::new(&mut [], 0, 8, 8).expect("a view"), &options)
        .expect("forward");
    let out = MatMut::new(&mut [], 0, 8, 8).expect("a view");
    layer.backward(view(), view(), out, &options).expect("backward");
    assert_eq!(layer.chunk_stats()[1].mean(), None);
    assert_eq!(layer.end_epoch().telemetry.seed(1).and_then(|seed| seed.variance), None);
}
