//! The oracle's gradients against central differences of its own forward pass, over every kind, state,
//! stability mode and objective, away from the kinks (`OracleLayer::margin`).

use kasmina_oracle::stability::Bounds;
use kasmina_oracle::{
    Activation, Kind, Objective, OracleLayer, OracleSeed, Parameter, Probe, Stability,
    StabilityMode, lifecycle,
};
use proptest::prelude::*;

const STEP: f64 = 1e-6;
/// Second differences of the activations times STEP², and rounding of L over STEP.
const TOLERANCE: f64 = 2e-7;

fn kinds() -> impl Strategy<Value = Kind> {
    let activation = prop::sample::select(Activation::ALL.to_vec());
    prop_oneof![
        Just(Kind::Residual),
        Just(Kind::AttentionHead),
        Just(Kind::MlpExpansion),
        Just(Kind::ConvFilter),
        activation.clone().prop_map(|activation| Kind::Bottleneck { activation }),
        activation.prop_map(|activation| Kind::Dense { activation }),
    ]
}

fn stabilities() -> impl Strategy<Value = Stability> {
    use StabilityMode::{Adaptive, Fast, Strict};
    // Tight enough that a draw of [-2, 2] is flushed and clamped now and then.
    prop::sample::select(vec![Fast, Adaptive, Strict]).prop_map(|mode| Stability {
        mode,
        epsilon: 0.1,
        lower: -1.7,
        upper: 1.6,
        sigmas: 1.3,
    })
}

fn values(n: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-2.0..2.0, n)
}

/// x, of which some elements are not finite.
fn inputs(n: usize) -> impl Strategy<Value = Vec<f64>> {
    let special = prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    let flushed = -0.09..0.09;
    prop::collection::vec(prop_oneof![16 => -2.0..2.0, 1 => special, 2 => flushed], n)
}

#[derive(Debug, Clone)]
struct Case {
    layer: OracleLayer,
    x: Vec<f64>,
    g: Vec<f64>,
}

/// Seed 0 is under test, seed 1 is dormant and one column shorter.
fn cases() -> impl Strategy<Value = Case> {
    let objective =
        prop::sample::select(vec![Objective::StraightThrough, Objective::Reconstruction]);
    let sizes = (1..4usize, 2..6usize, 1..7usize);
    (kinds(), 0..=lifecycle::LAST, stabilities(), objective, sizes, 0.1..1.2).prop_flat_map(
        |(kind, state, stability, objective, (rows, c, inner), alpha)| {
            let hidden = 2 * c - 1;
            let params: Vec<_> = kind.parameter_lengths(c, inner).into_iter().map(values).collect();
            (params, inputs(rows * hidden), values(rows * hidden)).prop_map(
                move |(params, x, g)| {
                    // Fast mode promises nothing about NaN and Inf on path.
                    let keep = |x: f64| x.is_finite() || stability.mode != StabilityMode::Fast;
                    let x = x.into_iter().map(|x| if keep(x) { x } else { 0.5 }).collect();
                    let names = kind.parameter_names().iter();
                    let params = names.zip(params).map(|(n, v)| Parameter::new(n, v)).collect();
                    let seed = OracleSeed { kind, state, alpha, objective, params };
                    let seeds = vec![seed, OracleSeed::dormant()];
                    let layer = OracleLayer { rows, hidden, chunk: c, stability, seeds };
                    Case { layer, x, g }
                },
            )
        },
    )
}

fn dot(g: &[f64], y: &[f64]) -> f64 {
    let terms = g.iter().zip(y).filter(|(_, y)| y.is_finite());
    terms.map(|(g, y)| g * y).sum()
}

/// Whether no step of a difference crosses a kink.
fn smooth(layer: &OracleLayer, x: &[f64]) -> bool {
    // Of x·w under relu; 0 itself, where a flush puts x, is treated apart.
    let far = |v: &f64| *v == 0.0 || v.abs() > 1e-3;
    let mlp = layer.seeds[0].kind == Kind::MlpExpansion;
    let weights = &layer.seeds[0].params[0].values;
    layer.margin(x, &Probe::none()).unwrap() > 1e-3 && (!mlp || x.iter().chain(weights).all(far))
}

/// "Strict bounds are constants to the gradient": the same layer with the bounds of the call fixed.
fn frozen(layer: &OracleLayer, bounds: Bounds) -> OracleLayer {
    let mut layer = layer.clone();
    if layer.stability.mode == StabilityMode::Strict {
        layer.stability.mode = StabilityMode::Adaptive;
        (layer.stability.lower, layer.stability.upper) = (bounds.lower, bounds.upper);
    }
    layer
}

/// The loss whose gradient the seed's parameters get.
fn loss(layer: &OracleLayer, x: &[f64], g: &[f64]) -> f64 {
    let mut layer = layer.clone();
    let seed = &mut layer.seeds[0];
    if seed.state == lifecycle::TRAINING {
        if seed.objective == Objective::Reconstruction {
            return layer.backward(x, g).unwrap().seeds[0].reconstruction.unwrap();
        }
        // "as if α = 1"
        (seed.state, seed.alpha) = (lifecycle::FINE_TUNING, 1.0);
    }
    dot(g, &layer.forward(x).unwrap().y)
}

fn slope(mut at: impl FnMut(f64) -> f64) -> f64 {
    (at(STEP) - at(-STEP)) / (2.0 * STEP)
}

fn close(told: f64, slope: f64) -> bool {
    (told - slope).abs() <= TOLERANCE * (1.0 + slope.abs() + told.abs())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn parameters_and_alpha(case in cases()) {
        let Case { layer, x, g } = case;
        prop_assume!(smooth(&layer, &x));
        let told = layer.backward(&x, &g).unwrap().seeds[0].clone();
        let state = layer.seeds[0].state;
        prop_assert_eq!(told.parameters.is_some(), lifecycle::trainable(state));
        let path = lifecycle::on_path(state);
        prop_assert_eq!(told.alpha.is_some(), path && lifecycle::trainable(state));
        let reconstructs = layer.seeds[0].objective == Objective::Reconstruction;
        prop_assert_eq!(told.reconstruction.is_some(), reconstructs && state == lifecycle::TRAINING);

        let bounds = layer.forward(&x).unwrap().bounds;
        let layer = frozen(&layer, bounds);
        for (p, gradient) in told.parameters.iter().flatten().enumerate() {
            for (k, told) in gradient.values.iter().enumerate() {
                let slope = slope(|h| {
                    let mut layer = layer.clone();
                    layer.seeds[0].params[p].values[k] += h;
                    loss(&layer, &x, &g)
                });
                prop_assert!(close(*told, slope), "{}[{k}]: {told}, slope {slope}", gradient.name);
            }
        }
        if let Some(told) = told.alpha.filter(|_| layer.seeds[0].alpha < 1.0) {
            let slope = slope(|h| {
                let mut layer = layer.clone();
                layer.seeds[0].alpha += h;
                loss(&layer, &x, &g)
            });
            prop_assert!(close(told, slope), "alpha: {told}, slope {slope}");
        }
    }

    #[test]
    fn input(case in cases()) {
        let Case { layer, x, g } = case;
        prop_assume!(smooth(&layer, &x));
        let told = layer.backward(&x, &g).unwrap().grad_x;
        let bounds = layer.forward(&x).unwrap().bounds;
        let mut layer = frozen(&layer, bounds);
        let sanitizes = layer.stability.mode != StabilityMode::Fast;
        let seed = layer.seeds[0].clone();
        let path = lifecycle::on_path(seed.state);
        // "straight through where it was flushed": the slope at 0, had nothing been flushed.
        let flushed = |x: f64| sanitizes && path && x.abs() < layer.stability.epsilon;
        let at: Vec<f64> = x.iter().map(|x| if flushed(*x) { 0.0 } else { *x }).collect();
        layer.stability.epsilon = 0.0;
        for k in 0..x.len() {
            let chunk = usize::from(k % layer.hidden >= layer.chunk);
            if !(path && chunk == 0) {
                prop_assert_eq!(told[k].to_bits(), g[k].to_bits(), "element {} is a copy", k);
                continue;
            }
            if !x[k].is_finite() {
                prop_assert_eq!(told[k], 0.0, "element {} is not finite", k);
                continue;
            }
            let slope = slope(|h| {
                let mut x = at.clone();
                x[k] += h;
                dot(&g, &layer.forward(&x).unwrap().y)
            });
            if seed.kind == Kind::MlpExpansion && at[k] == 0.0 {
                // A kink that the flush moved x onto: relu'(0) = 0 leaves the direct term.
                let alpha = seed.alpha.min(1.0);
                prop_assert!(close(told[k], (1.0 - alpha) * g[k]) || bounds.lower > 0.0 || bounds.upper < 0.0);
                continue;
            }
            prop_assert!(close(told[k], slope), "grad_x[{k}]: {}, slope {slope}", told[k]);
        }
    }

    #[test]
    fn probes_are_the_layer_with_that_alpha(case in cases(), alpha in 0.0..1.0) {
        let Case { layer, x, g } = case;
        let probe = Probe(vec![(0, alpha)]);
        let mut there = layer.clone();
        let state = layer.seeds[0].state;
        // A state on path that is as trainable as the probed one.
        there.seeds[0].state = if lifecycle::trainable(state) { lifecycle::GRAFTING } else { lifecycle::EVALUATING };
        there.seeds[0].alpha = alpha;
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(
            bits(&layer.forward_probed(&x, &probe).unwrap().y),
            bits(&there.forward(&x).unwrap().y)
        );
        let (a, b) = (layer.backward_probed(&x, &g, &probe).unwrap(), there.backward(&x, &g).unwrap());
        prop_assert_eq!(bits(&a.grad_x), bits(&b.grad_x));
        prop_assert_eq!(a.seeds, b.seeds);
    }
}
