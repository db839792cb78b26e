//! What a reader of the formulas expects of a layer as a whole: copies, blending, refusals.

use kasmina_oracle::{
    Activation, Kind, Objective, OracleError, OracleLayer, OracleSeed, Parameter, Probe, Stability,
    StabilityMode, lifecycle,
};

fn residual(state: u8, alpha: f64) -> OracleSeed {
    OracleSeed {
        kind: Kind::Residual,
        state,
        alpha,
        objective: Objective::StraightThrough,
        params: vec![Parameter::new("weight", vec![1.0, 2.0]), Parameter::new("scale", vec![0.5])],
    }
}

fn layer(seeds: Vec<OracleSeed>, mode: StabilityMode) -> OracleLayer {
    OracleLayer {
        rows: 2,
        hidden: seeds.len() * 2,
        chunk: 2,
        stability: Stability { mode, ..Stability::default() },
        seeds,
    }
}

const MODES: [StabilityMode; 3] =
    [StabilityMode::Fast, StabilityMode::Adaptive, StabilityMode::Strict];

fn bits(v: &[f64]) -> Vec<u64> {
    v.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn off_path_and_alpha_zero_are_copies_in_every_mode() {
    let payload = f64::from_bits(0x7ff8_0000_0000_beef);
    let x = [payload, -0.0, f64::INFINITY, 1e300];
    let g = [1e300, -0.0, 1e-300, 3.0];
    for mode in MODES {
        for state in 0..=lifecycle::LAST {
            for alpha in [0.0, -3.0, 0.7] {
                if alpha > 0.0 && lifecycle::on_path(state) {
                    continue;
                }
                let layer = layer(vec![residual(state, alpha)], mode);
                assert_eq!(bits(&layer.forward(&x).unwrap().y), bits(&x));
                let backward = layer.backward(&x, &g).unwrap();
                assert_eq!(bits(&backward.grad_x), bits(&g));
                if lifecycle::on_path(state) && lifecycle::trainable(state) {
                    let zeros = backward.seeds[0].parameters.as_ref().unwrap();
                    assert!(zeros.iter().all(|p| p.values.iter().all(|v| *v == 0.0)));
                }
            }
        }
    }
}

#[test]
fn alpha_is_clamped_to_one() {
    let x = [1.0, 2.0, 3.0, 4.0];
    let one = layer(vec![residual(lifecycle::FOSSILIZED, 1.0)], StabilityMode::Adaptive);
    let more = layer(vec![residual(lifecycle::FOSSILIZED, 7.0)], StabilityMode::Adaptive);
    assert_eq!(one.forward(&x).unwrap(), more.forward(&x).unwrap());
    assert_eq!(one.forward(&x).unwrap().y, [1.5, 3.0, 3.5, 5.0]);
}

#[test]
fn the_convolution_starts_at_its_chunk() {
    let conv = OracleSeed {
        kind: Kind::ConvFilter,
        params: vec![
            Parameter::new("weight", vec![1.0, 10.0, 100.0]),
            Parameter::new("scale", vec![2.0]),
        ],
        ..residual(lifecycle::FOSSILIZED, 1.0)
    };
    let layer = layer(vec![residual(lifecycle::DORMANT, 0.0), conv], StabilityMode::Fast);
    let y = layer.forward(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).unwrap().y;
    assert_eq!(y, [1.0, 2.0, 6.0, 68.0, 5.0, 6.0, 14.0, 156.0]);
}

#[test]
fn a_bottleneck_at_birth_is_the_identity() {
    let bottleneck = OracleSeed {
        kind: Kind::Bottleneck { activation: Activation::Gelu },
        params: vec![
            Parameter::new("down", vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            Parameter::new("down_bias", vec![1.0, 2.0, 3.0]),
            Parameter::new("up", vec![0.0; 6]),
            Parameter::new("up_bias", vec![0.0; 2]),
        ],
        ..residual(lifecycle::GRAFTING, 1.0)
    };
    let layer = layer(vec![bottleneck], StabilityMode::Adaptive);
    let x = [0.1, -0.2, 0.3, 0.4];
    assert_eq!(layer.forward(&x).unwrap().y, x);
}

#[test]
fn refusals_name_what_is_wrong() {
    let x = [1.0, 2.0, 3.0, 4.0];
    let good = layer(vec![residual(lifecycle::GRAFTING, 0.5)], StabilityMode::Adaptive);
    let refused = |change: &dyn Fn(&mut OracleLayer)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad.forward(&x).unwrap_err().to_string()
    };
    for (message, part) in [
        (refused(&|l| l.rows = 0), "rows is 0"),
        (refused(&|l| l.rows = usize::MAX), "rows × hidden"),
        (refused(&|l| l.chunk = 3), "chunk is 3"),
        (refused(&|l| l.chunk = 0), "chunk is 0"),
        (refused(&|l| l.seeds.clear()), "number of seeds is 0"),
        (refused(&|l| l.seeds[0].state = 11), "code 11"),
        (refused(&|l| l.seeds[0].alpha = f64::NAN), "alpha is NaN"),
        (refused(&|l| l.stability.lower = 2e6), "lower is 2000000"),
        (refused(&|l| l.stability.epsilon = -1.0), "epsilon is -1"),
        (refused(&|l| l.seeds[0].kind = Kind::None), "kind is none"),
        (refused(&|l| l.seeds[0].kind = Kind::AttentionHead), "weight"),
        (refused(&|l| l.seeds[0].params[0].values.push(0.0)), "holds 3 values; 2"),
        (refused(&|l| l.rows = 3), "x holds 4 values; 6"),
    ] {
        assert!(message.contains(part), "{message:?} should say {part:?}");
    }
    assert_eq!(
        good.forward_probed(&x, &Probe(vec![(1, 0.5)])),
        Err(OracleError::NoSuchSeed { seed: 1, last: 0 })
    );
}
