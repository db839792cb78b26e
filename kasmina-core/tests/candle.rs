//! The layer as a candle module: what it computes, where its gradients go, what it refuses.

#![cfg(feature = "candle")]

use candle_core::{DType, Device, Module, Tensor, Var, WithDType};
use candle_nn::{AdamW, Linear, Optimizer, ParamsAdamW};
use half::{bf16, f16};
use kasmina_core::candle::{CandleError, KasminaLayer};
use kasmina_core::graft::Strategy;
use kasmina_core::{
    Activation, Blueprint, Command, Element, Error, ForwardOptions, Germination, InitialSeed,
    Layer, MatMut, MatRef, Objective, SeedLayout, State,
};

const HIDDEN: usize = 20;

/// Five seeds of four columns, one of every role: on path and trained, trained beside the path, kept,
/// dormant, being blended in.
fn layer() -> Layer {
    let bottleneck = Blueprint::Bottleneck { width: 3, activation: Activation::Gelu };
    let parameters = |blueprint: &Blueprint| {
        let layout = blueprint.parameters(4).unwrap();
        let values: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 1.7).sin() * 0.5).collect();
        Some(layout.tensors(&values).map(|(_, tensor)| tensor.to_vec()).collect::<Vec<_>>())
    };
    let seed = |state, alpha, blueprint: Blueprint| InitialSeed {
        state,
        alpha,
        parameters: parameters(&blueprint),
        blueprint: Some(blueprint),
        ..InitialSeed::default()
    };
    Layer::builder(SeedLayout::new(HIDDEN, 4).unwrap())
        .seed(0, seed(State::FineTuning, 0.7, bottleneck.clone()))
        .seed(1, seed(State::Training, 0.0, Blueprint::Dense { activation: Activation::Tanh }))
        .seed(2, seed(State::Fossilized, 1.0, Blueprint::Residual))
        .seed(4, seed(State::Grafting, 0.25, Blueprint::AttentionHead))
        .build()
        .unwrap()
}

fn values(n: usize, phase: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.61 + phase).sin()).collect()
}

fn tensor(rows: usize, phase: f32) -> Tensor {
    Tensor::from_vec(values(rows * HIDDEN, phase), (rows, HIDDEN), &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Equality that forgives candle's own addition of a gradient to 0: −0 becomes 0.
#[track_caller]
fn assert_same(found: &[f32], needed: &[f32]) {
    let unsigned = |values: &[f32]| bits(&values.iter().map(|v| v + 0.0).collect::<Vec<_>>());
    assert_eq!(unsigned(found), unsigned(needed));
}

/// ⟨y, w⟩: a loss whose gradient at y is w.
fn weighed(y: &Tensor, w: &Tensor) -> Tensor {
    (y * w).unwrap().sum_all().unwrap()
}

fn check_against_the_layer<T: Element + WithDType>(dtype: DType) {
    let rows = 7;
    let (x, w) = (tensor(rows, 0.3), tensor(rows, 1.1));
    let (x, w) = (x.to_dtype(dtype).unwrap(), w.to_dtype(dtype).unwrap());
    let x = Var::from_tensor(&x).unwrap();
    let module = KasminaLayer::new(layer());
    let y = module.forward(&x).unwrap();
    let grads = weighed(&y, &w).backward().unwrap();

    let mut alone = layer();
    let input: Vec<T> = x.flatten_all().unwrap().to_vec1().unwrap();
    let grad_y: Vec<T> = w.flatten_all().unwrap().to_vec1().unwrap();
    let zero = <T as Element>::from_f32(0.0);
    let (mut out, mut grad_x) = (vec![zero; input.len()], vec![zero; input.len()]);
    let x_ref = MatRef::contiguous(&input, HIDDEN).unwrap();
    let options = ForwardOptions::new();
    alone.forward(x_ref, MatMut::contiguous(&mut out, HIDDEN).unwrap(), &options).unwrap();
    let grad_y = MatRef::contiguous(&grad_y, HIDDEN).unwrap();
    let grad_x_mut = MatMut::contiguous(&mut grad_x, HIDDEN).unwrap();
    alone.backward(x_ref, grad_y, grad_x_mut, &options).unwrap();

    let wide = |values: &[T]| values.iter().map(|&v| Element::to_f32(v)).collect::<Vec<_>>();
    assert_eq!(bits(&flat(&y)), bits(&wide(&out)));
    assert_same(&flat(grads.get(&x).unwrap()), &wide(&grad_x));
    let mut compared = 0;
    for (name, var) in module.named_vars().unwrap() {
        let (seed, tensor) = name.strip_prefix("seed").unwrap().split_once('.').unwrap();
        let seed: usize = seed.parse().unwrap();
        let needed = alone.gradients(seed).and_then(|mut all| {
            all.find(|(name, _)| *name == tensor).map(|(_, gradient)| gradient.to_vec())
        });
        match needed {
            Some(needed) => {
                assert_same(&flat(grads.get(&var).unwrap()), &needed);
                compared += 1;
            }
            None => assert!(grads.get(&var).is_none(), "{name} is frozen"),
        }
    }
    assert_eq!(compared, 4 + 2 + 1, "bottleneck, dense and attention");
    assert_eq!(module.vars().unwrap().len(), compared);
}

#[test]
fn values_and_gradients_are_the_layers_own_in_every_type() {
    check_against_the_layer::<f32>(DType::F32);
    check_against_the_layer::<f16>(DType::F16);
    check_against_the_layer::<bf16>(DType::BF16);
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let (x, w) = (tensor(5, 0.2), tensor(5, 0.9));
    let loss = |module: &KasminaLayer, x: &Tensor| {
        f64::from(weighed(&module.forward(x).unwrap(), &w).to_scalar::<f32>().unwrap())
    };
    let module = KasminaLayer::new(layer());
    let x = Var::from_tensor(&x).unwrap();
    let grads = weighed(&module.forward(&x).unwrap(), &w).backward().unwrap();
    // Seed 1 trains beside the path: the loss does not depend on it.
    let on_path = |name: &str| !name.starts_with("seed1") && !name.starts_with("seed2");
    let mut vars = module.named_vars().unwrap();
    vars.retain(|(name, _)| on_path(name));
    vars.push(("x".into(), x.clone()));
    let h = 5e-3;
    for (name, var) in vars {
        let gradient = flat(grads.get(&var).unwrap());
        let at = flat(&var);
        for index in 0..at.len() {
            let shifted = |by: f32| {
                let mut values = at.clone();
                values[index] += by;
                let values = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
                var.set(&values).unwrap();
                loss(&module, &x)
            };
            let slope = (shifted(h) - shifted(-h)) / (2.0 * f64::from(h));
            shifted(0.0);
            let found = f64::from(gradient[index]);
            assert!((found - slope).abs() < 3e-3, "{name}[{index}]: {found}, slope {slope}");
        }
    }
}

#[test]
fn a_dormant_layer_hands_every_bit_on() {
    let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, 3e38, 1e-9, -7.5];
    let x: Vec<f32> = strange.iter().copied().cycle().take(6 * HIDDEN).collect();
    let x = Tensor::from_vec(x, (2, 3, HIDDEN), &Device::Cpu).unwrap();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let x = x.to_dtype(dtype).unwrap();
        let module =
            KasminaLayer::new(Layer::builder(SeedLayout::new(HIDDEN, 7).unwrap()).build().unwrap());
        let y = module.forward(&x).unwrap();
        assert_eq!((y.dims(), y.dtype()), (x.dims(), dtype));
        // Every half value is exact in f32, and NaN payloads survive the same conversion alike.
        assert_eq!(bits(&flat(&y)), bits(&flat(&x)));
    }
}

#[test]
fn rows_may_lie_anywhere() {
    let plain = KasminaLayer::new(layer());
    let wide =
        Tensor::from_vec(values(6 * 2 * HIDDEN, 0.4), (6, 2 * HIDDEN), &Device::Cpu).unwrap();
    let cube = Tensor::from_vec(values(24 * HIDDEN, 0.8), (4, 6, HIDDEN), &Device::Cpu).unwrap();
    let layouts = [
        ("columns of a wider tensor", wide.narrow(1, 5, HIDDEN).unwrap()),
        ("one row of every block", cube.narrow(1, 2, 1).unwrap()),
        ("some rows of every block", cube.narrow(1, 1, 3).unwrap()),
        (
            "every other column",
            wide.reshape((6, HIDDEN, 2)).unwrap().narrow(2, 1, 1).unwrap().squeeze(2).unwrap(),
        ),
        ("transposed", tensor(HIDDEN, 0.1).t().unwrap()),
        ("leading dimensions swapped", cube.transpose(0, 1).unwrap()),
        ("a broadcast row", tensor(1, 0.5).broadcast_as((5, HIDDEN)).unwrap()),
        ("one row without leading dimension", tensor(1, 0.5).squeeze(0).unwrap()),
        ("no rows", tensor(3, 0.5).narrow(0, 1, 0).unwrap()),
    ];
    for (what, x) in layouts {
        let copy = x.copy().unwrap().contiguous().unwrap();
        let w =
            Tensor::from_vec(values(copy.elem_count(), 1.3), copy.dims(), &Device::Cpu).unwrap();
        let (a, b) = (Var::from_tensor(&copy).unwrap(), Var::from_tensor(&copy).unwrap());
        let needed = plain.forward(&a).unwrap();
        let found = plain.forward(&x).unwrap();
        assert_eq!(bits(&flat(&found)), bits(&flat(&needed)), "{what}");
        // A gradient of dL/dy that is no contiguous tensor either: the sum's is a broadcast.
        let grads = needed.sum_all().unwrap().backward().unwrap();
        let ones = weighed(&plain.forward(&b).unwrap(), &w.ones_like().unwrap());
        let grads_b = ones.backward().unwrap();
        assert_same(&flat(grads.get(&a).unwrap()), &flat(grads_b.get(&b).unwrap()));
    }
}

#[test]
fn forwards_before_a_backward_keep_their_options_and_parameters() {
    let (x, w) = (tensor(4, 0.2), tensor(4, 0.7));
    let options = [
        ForwardOptions::new(),
        ForwardOptions::new().probe(1, 1.0),
        ForwardOptions::new().probe(0, 0.0).probe(4, 1.0),
    ];
    let fresh = |options: &ForwardOptions| {
        let module = KasminaLayer::new(layer());
        let loss = weighed(&module.forward_with(&x, options).unwrap(), &w);
        let grads = loss.backward().unwrap();
        let vars = module.vars().unwrap();
        vars.iter().map(|var| flat(grads.get(var).unwrap())).collect::<Vec<_>>()
    };
    let module = KasminaLayer::new(layer());
    let forwards: Vec<_> = options
        .iter()
        .map(|options| weighed(&module.forward_with(&x, options).unwrap(), &w))
        .collect();
    // An optimizer's step in between: the passes still belong to the values they ran with.
    let vars = module.vars().unwrap();
    for var in &vars {
        var.set(&(var.as_tensor() * 2.0).unwrap()).unwrap();
    }
    module.sync().unwrap();
    for (loss, options) in forwards.iter().zip(&options).rev() {
        let grads = loss.backward().unwrap();
        for (var, needed) in vars.iter().zip(fresh(options)) {
            assert_same(&flat(grads.get(var).unwrap()), &needed);
        }
    }
    // And the layer is where the step left it.
    let doubled = flat(&vars[0]);
    let guard = module.layer();
    let (_, down) = guard.parameters(0).unwrap().next().unwrap();
    assert_eq!(down, doubled);
    assert_eq!(guard.gradients(0).map(|gradients| gradients.len()), None, "candle has them");
}

#[test]
fn a_layer_that_changed_has_no_backward_pass() {
    type Change = fn(&mut Layer);
    let changes: [(Change, &str); 4] = [
        (|layer| layer.advance_step(), "alpha of seed 4 was 0.25"),
        (
            |layer| {
                layer.command(1, Command::Graft, "now").unwrap();
                let _ = layer.end_epoch();
            },
            "seed 1 was TRAINING and is GRAFTING now",
        ),
        (
            |layer| {
                layer.command(0, Command::Cull, "harm").unwrap();
                let _ = layer.end_epoch();
            },
            "seed 0 was FINE_TUNING and owns no parameters now",
        ),
        (
            |layer| {
                let fast = kasmina_core::Stability::new(kasmina_core::StabilityMode::Fast);
                layer.set_stability(fast).unwrap();
            },
            "stability",
        ),
    ];
    for (change, part) in changes {
        let module = KasminaLayer::new(layer());
        let y = module.forward(&tensor(3, 0.1)).unwrap();
        change(&mut module.layer());
        let error = y.sum_all().unwrap().backward().unwrap_err().to_string();
        assert!(error.contains("between forward and backward") && error.contains(part), "{error}");
        // The next pass is a good one.
        module.forward(&tensor(3, 0.1)).unwrap().sum_all().unwrap().backward().unwrap();
    }
}

#[test]
fn gradients_have_one_owner() {
    let module = KasminaLayer::new(layer());
    let (x, w) = (values(2 * HIDDEN, 0.3), values(2 * HIDDEN, 0.5));
    let y = module.forward(&tensor(2, 0.3)).unwrap().sum_all().unwrap();
    {
        let mut layer = module.layer();
        let (x, w) =
            (MatRef::contiguous(&x, HIDDEN).unwrap(), MatRef::contiguous(&w, HIDDEN).unwrap());
        let mut grad_x = vec![0.0; 2 * HIDDEN];
        let grad_x = MatMut::contiguous(&mut grad_x, HIDDEN).unwrap();
        layer.backward(x, w, grad_x, &ForwardOptions::new()).unwrap();
    }
    let error = y.backward().unwrap_err().to_string();
    assert!(error.contains("seed 0 already holds gradients"), "{error}");
    assert!(module.layer().gradients(0).is_some(), "they are still there");
    module.layer().zero_gradients();
    y.backward().unwrap();
    assert!(module.layer().lifecycle().grown_seeds().all(|(_, seed)| seed.gradients().is_none()));
}

/// A layer with one seed germinated and promoted.
fn training(objective: Objective) -> KasminaLayer {
    let mut layer = Layer::builder(SeedLayout::new(8, 4).unwrap()).rng_seed(3).build().unwrap();
    let bottleneck = layer.registry().find("bottleneck").unwrap();
    let strategy = Strategy::FixedRamp { steps: 2 };
    let germination = Germination::new(bottleneck).objective(objective).strategy(strategy);
    layer.command(1, Command::Germinate(germination), "test").unwrap();
    let _ = layer.end_epoch();
    layer.command(1, Command::Promote, "test").unwrap();
    let _ = layer.end_epoch();
    KasminaLayer::new(layer)
}

fn adam(module: &KasminaLayer) -> AdamW {
    let settings = ParamsAdamW { lr: 1e-2, weight_decay: 0.0, ..ParamsAdamW::default() };
    AdamW::new(module.vars().unwrap(), settings).unwrap()
}

#[test]
fn candles_adamw_trains_a_bottleneck_between_two_linear_layers() {
    let var = |shape: (usize, usize), phase| {
        let values = values(shape.0 * shape.1, phase);
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let (before, after) = (var((8, 6), 0.2), var((3, 8), 0.9));
    let before_layer = Linear::new(before.as_tensor().clone(), None);
    let after_layer = Linear::new(after.as_tensor().clone(), None);
    let x = Tensor::from_vec(values(32 * 6, 0.5), (32, 6), &Device::Cpu).unwrap();
    let target = Tensor::from_vec(values(32 * 3, 2.5), (32, 3), &Device::Cpu).unwrap();

    let module = training(Objective::Probe);
    let vars = module.vars().unwrap();
    let mut optimizer = adam(&module);
    let loss = |options: &ForwardOptions| {
        let hidden = before_layer.forward(&x).unwrap();
        let y = after_layer.forward(&module.forward_with(&hidden, options).unwrap()).unwrap();
        (y - &target).unwrap().sqr().unwrap().mean_all().unwrap()
    };
    let number = |loss: &Tensor| loss.to_scalar::<f32>().unwrap();
    let probe = ForwardOptions::new().probe(1, 1.0);
    let (served, first) = (number(&loss(&ForwardOptions::new())), number(&loss(&probe)));
    for _ in 0..60 {
        let loss = loss(&probe);
        let grads = loss.backward().unwrap();
        assert!(grads.get(&before).is_some() && grads.get(&after).is_some(), "both linear layers");
        optimizer.step(&grads).unwrap();
        module.layer().advance_step();
    }
    assert!(number(&loss(&probe)) < 0.7 * first, "{} from {first}", number(&loss(&probe)));
    // What is served never changed.
    assert_eq!(number(&loss(&ForwardOptions::new())), served);

    // Through a graft the variables stay the same, and the last step is not lost on the way.
    module.layer().command(1, Command::Graft, "test").unwrap();
    let last: Vec<_> = vars.iter().map(|var| flat(var)).collect();
    let _ = module.layer().end_epoch();
    let grafting = module.vars().unwrap();
    assert!(grafting.iter().zip(&vars).all(|(new, old)| new.id() == old.id()));
    assert_eq!(grafting.iter().map(|var| flat(var)).collect::<Vec<_>>(), last);
    assert_eq!(module.layer().lifecycle().grown(1).unwrap().parameters(), last.concat());
    // Stabilization freezes them: no variables for an optimizer, and no gradient for them.
    for _ in 0..2 {
        module.layer().advance_step();
    }
    module.layer().command(1, Command::Stabilize, "test").unwrap();
    let _ = module.layer().end_epoch();
    assert!(module.vars().unwrap().is_empty());
    assert_eq!(module.named_vars().unwrap().len(), 4);
    let grads = loss(&ForwardOptions::new()).backward().unwrap();
    assert!(vars.iter().all(|var| grads.get(var).is_none()));
}

#[test]
fn objectives_beside_the_task_reach_the_optimizer() {
    let x = Tensor::from_vec(values(16 * 8, 0.5), (16, 8), &Device::Cpu).unwrap();
    for objective in [Objective::StraightThrough, Objective::Reconstruction] {
        let module = training(objective);
        // Start away from the identity, so that there is something to reconstruct.
        let up = &module.vars().unwrap()[2];
        up.set(&(up.ones_like().unwrap() * 0.1).unwrap()).unwrap();
        let grads = module.forward(&x).unwrap().sum_all().unwrap().backward().unwrap();
        let vars = module.vars().unwrap();
        let moved = |var: &Var| flat(grads.get(var).unwrap()).iter().any(|g| *g != 0.0);
        assert!(vars.iter().all(moved), "{objective:?}");
    }
    // Probe alone: a plain pass gives nothing.
    let module = training(Objective::Probe);
    let grads = module.forward(&x).unwrap().sum_all().unwrap().backward().unwrap();
    for var in module.vars().unwrap() {
        assert!(flat(grads.get(&var).unwrap()).iter().all(|g| *g == 0.0));
    }
}

#[test]
fn the_gradient_norm_is_recorded_for_gates_and_strategies() {
    let mut layer = Layer::builder(SeedLayout::new(8, 4).unwrap()).build().unwrap();
    let bottleneck = layer.registry().find("bottleneck").unwrap();
    // A ramp that never moves unless the norm is measured.
    let strategy = Strategy::GradNormGated { steps: 1, low: 0.0, high: f64::MAX };
    let germination = Germination::new(bottleneck).strategy(strategy);
    for command in [Command::Germinate(germination), Command::Promote, Command::Graft] {
        layer.command(0, command, "test").unwrap();
        let _ = layer.end_epoch();
    }
    let module = KasminaLayer::new(layer);
    module.layer().advance_step();
    assert_eq!(module.layer().alpha(0).unwrap(), 0.0);
    let x = Tensor::from_vec(values(16, 0.5), (2, 8), &Device::Cpu).unwrap();
    let options = ForwardOptions::new().probe(0, 1.0);
    module.forward_with(&x, &options).unwrap().sum_all().unwrap().backward().unwrap();
    module.layer().advance_step();
    assert_eq!(module.layer().alpha(0).unwrap(), 1.0);
}

#[test]
fn a_seed_that_germinates_anew_has_new_variables() {
    let module = training(Objective::StraightThrough);
    let old = module.vars().unwrap();
    let again = {
        let layer = module.layer();
        let bottleneck = layer.registry().find("bottleneck").unwrap();
        Command::Germinate(Germination::new(bottleneck))
    };
    // All while one guard is held, so that the module sees only the end of it.
    let mut layer = module.layer();
    for command in [Command::Cancel, Command::Reset, again, Command::Promote] {
        layer.command(1, command, "test").unwrap();
        let _ = layer.end_epoch();
    }
    drop(layer);
    let new = module.vars().unwrap();
    assert_eq!(new.len(), old.len());
    assert!(new.iter().zip(&old).all(|(new, old)| new.id() != old.id()));
}

#[test]
fn inference_has_no_graph() {
    let module = KasminaLayer::new(layer());
    let x = Var::from_tensor(&tensor(3, 0.2)).unwrap();
    let y = module.forward_with(&x, &ForwardOptions::new().inference()).unwrap();
    assert!(!y.track_op());
    assert_eq!(bits(&flat(&y)), bits(&flat(&module.forward(&x).unwrap())));
}

#[test]
fn bad_tensors_are_named() {
    let module = KasminaLayer::new(layer());
    let forward = |x: &Tensor| module.forward_with(x, &ForwardOptions::new()).unwrap_err();
    let scalar = Tensor::new(1f32, &Device::Cpu).unwrap();
    assert!(matches!(forward(&scalar), CandleError::Scalar { hidden: HIDDEN, .. }));
    let narrow = Tensor::zeros((3, HIDDEN - 1), DType::F32, &Device::Cpu).unwrap();
    let error = forward(&narrow);
    assert!(error.to_string().contains("[3, 19]") && error.to_string().contains("20"), "{error}");
    for dtype in [DType::F64, DType::U8, DType::I64] {
        let x = Tensor::zeros((3, HIDDEN), dtype, &Device::Cpu).unwrap();
        let error = forward(&x);
        assert!(matches!(error, CandleError::DType { found, .. } if found == dtype));
        assert!(error.to_string().contains("to_dtype"), "{error}");
    }
    let x = tensor(2, 0.1);
    let refused = |options| module.forward_with(&x, &options).unwrap_err();
    assert!(matches!(
        refused(ForwardOptions::new().probe(3, 1.0)),
        CandleError::Engine(Error::NoParameters { seed: 3, .. })
    ));
    assert!(matches!(
        refused(ForwardOptions::new().probe(0, 1.5)),
        CandleError::Engine(Error::Value { .. })
    ));
    // As a candle error it says the same.
    let error = Module::forward(&module, &narrow).unwrap_err().to_string();
    assert!(error.contains("[3, 19]"), "{error}");
}

#[test]
fn bad_values_in_variables_are_named_and_can_be_taken_back() {
    let module = KasminaLayer::new(layer());
    let vars = module.named_vars().unwrap();
    let find = |name: &str| vars.iter().find(|(known, _)| known == name).unwrap().1.clone();
    let x = tensor(2, 0.1);
    let forward = || module.forward_with(&x, &ForwardOptions::new());
    let good = flat(&forward().unwrap());
    let write =
        |var: &Var, value: f64| var.set(&var.ones_like().unwrap().affine(value, 0.0).unwrap());

    let down = find("seed0.down");
    write(&down, f64::NAN).unwrap();
    assert!(matches!(forward(), Err(CandleError::Engine(Error::Value { .. }))));
    // The layer is within reach, to cull the seed, say.
    assert_eq!(module.layer().state(0).unwrap(), State::FineTuning);
    module.reload_vars().unwrap();
    assert_eq!(flat(&forward().unwrap()), good);

    let kept = find("seed2.weight");
    write(&kept, 3.0).unwrap();
    let frozen = CandleError::Engine(Error::Frozen { seed: 2, state: State::Fossilized });
    assert_eq!(forward().unwrap_err().to_string(), frozen.to_string());
    module.reload_vars().unwrap();
    assert_eq!(flat(&forward().unwrap()), good);

    // Both sides moved while the guard was held.
    {
        let mut layer = module.layer();
        write(&down, 0.5).unwrap();
        let parameters = vec![0.25; layer.lifecycle().grown(0).unwrap().parameters().len()];
        layer.set_parameters(0, &parameters).unwrap();
    }
    assert!(matches!(forward(), Err(CandleError::Conflict { seed: 0 })));
    module.reload_vars().unwrap();
    forward().unwrap();
    assert!(flat(&down).iter().all(|&value| value == 0.25), "the layer's are kept");
}

#[test]
fn clones_share_the_layer() {
    let module = KasminaLayer::new(layer());
    let probing = module.with_options(ForwardOptions::new().probe(0, 0.0).without_telemetry());
    let x = tensor(2, 0.4);
    let direct = module.forward_with(&x, &ForwardOptions::new().probe(0, 0.0)).unwrap();
    assert_eq!(flat(&probing.forward(&x).unwrap()), flat(&direct));
    probing.layer().advance_step();
    assert_eq!(module.layer().lifecycle().step(), 1);
}
