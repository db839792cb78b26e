//! The engine against the f64 oracle: every kind × state × storage type × stability mode.

mod common;

use common::{Spec, large, run, spec};
use kasmina_core::{
    Activation, Blueprint, DType, Element, ForwardOptions, Stability, StabilityMode,
};
use kasmina_oracle as oracle;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Relative rounding of the storage type, on top of f32 arithmetic.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2e-5,
        DType::F16 => 2e-3,
        DType::Bf16 => 1.6e-2,
    }
}

fn wide<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| f64::from(v.to_f32())).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// y and what the backward pass gives.
type Passes = (Vec<f64>, oracle::Backward);

/// The oracle's results, and how far they move when every parameter is off by what f32 products of 90 terms may be off by.
///
/// A sum that cancels and an activation far from 0 (tanh's derivative at a product of 10⁴) have no relative accuracy in f32: the
/// rounded product is the exact product of slightly other weights. The oracle itself says what such weights change.
struct Expected {
    y: Vec<f64>,
    backward: oracle::Backward,
    shaken: Vec<Passes>,
}

impl Expected {
    /// Largest relative change of a parameter: 16 units of f32's rounding.
    const SHAKE: f64 = 16.0 / (1u64 << 24) as f64;
    /// The changes are drawn, and the largest of their effects may have come out small.
    const MARGIN: f64 = 4.0;

    fn new(spec: &Spec, x: &[f64], grad_y: &[f64], probe: &oracle::Probe) -> Self {
        let passes = |layer: &oracle::OracleLayer| {
            let y = layer.forward_probed(x, probe).expect("a valid layer").y;
            (y, layer.backward_probed(x, grad_y, probe).expect("a valid layer"))
        };
        let reference = spec.oracle();
        let (y, backward) = passes(&reference);
        let mut rng = ChaCha8Rng::seed_from_u64(spec.values);
        let shaken = std::iter::repeat_with(|| {
            let mut layer = reference.clone();
            let parameters = layer.seeds.iter_mut().flat_map(|seed| &mut seed.params);
            for value in parameters.flat_map(|parameter| &mut parameter.values) {
                *value *= 1.0 + Self::SHAKE * rng.random_range(-1.0..1.0);
            }
            passes(&layer)
        })
        .take(8)
        .collect();
        Self { y, backward, shaken }
    }

    /// What the largest of the distances between a result and the shaken ones allows.
    fn allows(&self, distance: impl Fn(&Passes) -> f64) -> f64 {
        Self::MARGIN * self.shaken.iter().map(distance).fold(0.0, f64::max)
    }
}

fn rms(values: impl Iterator<Item = f64>) -> f64 {
    let finite: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    norm(&finite) / (finite.len().max(1) as f64).sqrt()
}

fn distance(a: &[f64], e: &[f64]) -> f64 {
    norm(&a.iter().zip(e).map(|(a, e)| a - e).collect::<Vec<_>>())
}

/// |a − e| ≤ t·(|e| + rms(e over the chunk's finite elements)) + what shaken parameters change in this row of the chunk,
/// + a step of the storage type.
fn check_matrix(
    what: &str,
    spec: &Spec,
    computed: &[f64],
    all: &Expected,
    of: impl Fn(&Passes) -> &[f64],
    expected: &[f64],
) -> Result<(), TestCaseError> {
    let t = tolerance(spec.dtype);
    // The largest finite value, and the step between the smallest ones.
    let (limit, step) = match spec.dtype {
        DType::F16 => (65504.0, 1.0 / f64::from(1 << 24)),
        DType::F32 | DType::Bf16 => (f64::from(f32::MAX), 1e-20),
    };
    let reference = spec.oracle();
    for i in 0..spec.seeds.len() {
        let size = t * rms(reference.chunk_values(expected, i).into_iter());
        for r in 0..spec.rows {
            let columns = reference.columns(i);
            let row = r * spec.hidden + columns.start..r * spec.hidden + columns.end;
            let moved = all.allows(|shaken| {
                rms(of(shaken)[row.clone()].iter().zip(&expected[row.clone()]).map(|(s, e)| s - e))
            });
            for k in row {
                let (a, e) = (computed[k], expected[k]);
                let e = if e.is_finite() { e.clamp(-limit, limit) } else { e };
                let same = a == e || (a.is_nan() && e.is_nan());
                prop_assert!(
                    same || (a - e).abs() <= t * e.abs() + size + moved + step,
                    "{what}: seed {i} ({:?}), row {r}, column {}: {a} instead of {e}",
                    spec.seeds[i],
                    k % spec.hidden
                );
            }
        }
    }
    Ok(())
}

fn check<T: Element>(spec: &Spec, options: &ForwardOptions) -> Result<(), TestCaseError> {
    let reference = spec.oracle();
    let (x, grad_y) = (wide(&spec.x::<T>()), wide(&spec.grad_y::<T>()));
    let probe =
        oracle::Probe(options.probes().iter().map(|p| (p.seed, f64::from(p.alpha))).collect());
    // Where a clamp or a relu turns over within f32 rounding, the two may take different sides.
    prop_assume!(reference.margin(&x, &probe).expect("a valid layer") > 1e-4);
    let computed = run::<T>(spec, options, 3);
    let all = Expected::new(spec, &x, &grad_y, &probe);
    check_matrix("y", spec, &wide(&computed.y), &all, |s| &s.0, &all.y)?;
    let grad_x = &all.backward.grad_x;
    check_matrix("grad_x", spec, &wide(&computed.grad_x), &all, |s| &s.1.grad_x, grad_x)?;
    let bounds = oracle::stability::bounds(&reference.stability, &x);
    for (i, expected) in all.backward.seeds.iter().enumerate() {
        let about = format!("seed {i}: {:?}", spec.seeds[i]);
        let layer = &computed.layer;
        let gradients = layer.gradients(i).map(|tensors| {
            tensors.map(|(name, v)| (name.to_owned(), v.to_vec())).collect::<Vec<_>>()
        });
        prop_assert_eq!(gradients.is_some(), expected.parameters.is_some(), "{}", &about);
        let size = {
            let g = norm(&reference.chunk_values(&grad_y, i));
            let sane: Vec<f64> = reference
                .chunk_values(&x, i)
                .iter()
                .map(|v| oracle::stability::sanitize_input(&reference.stability, bounds, *v).value)
                .filter(|v| v.is_finite())
                .collect();
            g * norm(&sane)
        };
        let close = |what: &str, a: &[f64], e: &[f64], moved: f64| {
            let error = distance(a, e);
            let bound = 1e-4 * norm(e) + 1e-6 * size + moved + 1e-12;
            prop_assert!(error <= bound, "{about}: {what}: {error} > {bound}; {a:?} {e:?}");
            Ok(())
        };
        for (p, (computed, expected)) in
            gradients.iter().flatten().zip(expected.parameters.iter().flatten()).enumerate()
        {
            prop_assert_eq!(&computed.0, &expected.name);
            let moved = all.allows(|shaken| {
                let parameters = shaken.1.seeds[i].parameters.as_ref().expect("the same seeds");
                distance(&parameters[p].values, &expected.values)
            });
            close(&computed.0, &wide(&computed.1), &expected.values, moved)?;
        }
        prop_assert_eq!(layer.alpha_gradient(i).is_some(), expected.alpha.is_some(), "{}", &about);
        if let (Some(a), Some(e)) = (layer.alpha_gradient(i), expected.alpha) {
            let alpha = |shaken: &Passes| shaken.1.seeds[i].alpha.expect("the same seeds");
            close("alpha", &[a.into()], &[e], all.allows(|shaken| (alpha(shaken) - e).abs()))?;
        }
        let loss = layer.reconstruction_loss(i);
        prop_assert_eq!(loss.is_some(), expected.reconstruction.is_some(), "{}", &about);
        if let (Some(a), Some(e)) = (loss, expected.reconstruction) {
            let loss = |shaken: &Passes| shaken.1.seeds[i].reconstruction.expect("the same seeds");
            let moved = all.allows(|shaken| (loss(shaken) - e).abs());
            close("reconstruction", &[a], &[e], moved)?;
        }
    }
    check_telemetry(spec, &reference, &computed.layer, &x, &grad_y)
}

fn check_telemetry(
    spec: &Spec,
    reference: &oracle::OracleLayer,
    layer: &kasmina_core::Layer,
    x: &[f64],
    grad_y: &[f64],
) -> Result<(), TestCaseError> {
    for i in 0..spec.seeds.len() {
        let expected =
            oracle::telemetry::Statistics::of(&reference.chunk_values(x, i), f64::from(1e-8f32));
        let found = &layer.chunk_stats()[i];
        prop_assert_eq!(
            (found.n, found.dead, found.nonfinite),
            (expected.n, expected.dead, expected.nonfinite)
        );
        match expected.moments {
            None => prop_assert_eq!(found.mean(), None),
            Some(e) => {
                let (mean, variance) =
                    (found.mean().unwrap_or(f64::NAN), found.variance().unwrap_or(f64::NAN));
                prop_assert_eq!(found.min().map(f64::from), Some(e.min));
                prop_assert_eq!(found.max().map(f64::from), Some(e.max));
                prop_assert!((mean - e.mean).abs() <= 1e-5 * (e.mean.abs() + e.variance.sqrt()));
                prop_assert!((variance - e.variance).abs() <= 1e-5 * e.variance + 1e-12);
            }
        }
        let expected =
            oracle::telemetry::GradientStatistics::of(&reference.chunk_values(grad_y, i))
                .expect("finite gradients");
        let found = &layer.gradient_stats()[i];
        let near = |a: Option<f64>, e: f64| (a.unwrap_or(f64::NAN) - e).abs() <= 1e-5 * e + 1e-12;
        prop_assert!(near(found.norm(), expected.norm));
        prop_assert!(near(found.variance(), expected.variance));
        prop_assert_eq!(found.max_abs().map(f64::from), Some(expected.max_abs));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_global_rejects: 20_000, ..Default::default() })]

    #[test]
    fn passes_agree_with_the_oracle(spec in spec()) {
        for_dtype!(spec.dtype, check, &spec, &ForwardOptions::new())?;
    }

    #[test]
    fn probed_passes_agree_with_the_oracle(spec in spec(), draw in any::<u64>()) {
        let mut options = ForwardOptions::new();
        for (i, seed) in spec.seeds.iter().enumerate() {
            let bits = draw.rotate_left(7 * i as u32);
            if seed.state.owns_parameters() && bits % 3 == 0 {
                options = options.probe(i, [0.0, 0.3, 1.0][(bits >> 8) as usize % 3]);
            }
        }
        for_dtype!(spec.dtype, check, &spec, &options)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..Default::default() })]

    /// Matrices of many tiles. Nothing may turn over within rounding in half a million elements, so there
    /// are no guards here and no relu.
    #[test]
    fn many_tiles_agree_with_the_oracle(mut spec in large()) {
        spec.stability = Stability::new(StabilityMode::Fast);
        for seed in &mut spec.seeds {
            if let Blueprint::Bottleneck { activation, .. } | Blueprint::Dense { activation } =
                &mut seed.blueprint
                && *activation == Activation::Relu
            {
                *activation = Activation::Silu;
            }
        }
        for_dtype!(spec.dtype, check, &spec, &ForwardOptions::new())?;
    }
}

/// Fast mode lets non-finite values through the formulas as IEEE arithmetic has it.
#[test]
fn fast_mode_does_not_guard() {
    let spec = Spec {
        rows: 1,
        hidden: 3,
        chunk: 3,
        dtype: DType::F32,
        stability: kasmina_core::Stability::new(StabilityMode::Fast),
        seeds: vec![common::SeedSpec {
            blueprint: kasmina_core::Blueprint::Residual,
            state: kasmina_core::State::Fossilized,
            alpha: 1.0,
            objective: kasmina_core::Objective::StraightThrough,
        }],
        values: 3,
        wild: false,
    };
    let mut layer = spec.layer();
    let x = [f32::NAN, f32::INFINITY, 1e-30];
    let mut y = [0.0f32; 3];
    let view = kasmina_core::MatRef::contiguous(&x, 3).expect("a view");
    let out = kasmina_core::MatMut::contiguous(&mut y, 3).expect("a view");
    layer.forward(view, out, &ForwardOptions::new()).expect("forward");
    assert!(y[0].is_nan());
    assert_eq!(y[1], f32::INFINITY);
}
