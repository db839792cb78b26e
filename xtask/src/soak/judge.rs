//! One pass of the engine against the f64 oracle, and one optimizer step.
//!
//! Each pass is replayed from the parameters that the engine had before it, so errors cannot hide each other. What a pass is
//! allowed is, as in `kasmina-core/tests/oracle.rs`, a rounding of the storage type, and four times what the oracle's own result
//! moves when every parameter is off by 16 units of f32's rounding: sums that cancel and steep activations have no relative
//! accuracy in f32. Calls within 1e-4 of a kink (a clamp, a relu) may turn over by rounding alone; those are counted and not judged.

use kasmina_core::{
    Activation, AdamW, Blueprint, DType, LayerState, Objective, Stability, StabilityMode,
};
use kasmina_oracle as oracle;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Results closer than this to a kink are not judged; relative, see `OracleLayer::margin`.
const MARGIN: f64 = 1e-4;
/// Largest relative change of a parameter: 16 units of f32's rounding. And the changes are drawn: their effects' factor.
const SHAKE: f64 = 16.0 / (1u64 << 24) as f64;
const FACTOR: f64 = 4.0;
const SHAKEN: usize = 6;

/// The oracle's layer in the state that the engine's is in.
pub(super) fn mirror(layer: &LayerState, rows: usize) -> Result<oracle::OracleLayer, String> {
    let layout = layer.lifecycle.layout();
    let seeds =
        (0..layout.seeds()).map(|seed| mirror_seed(layer, seed)).collect::<Result<_, _>>()?;
    Ok(oracle::OracleLayer {
        rows,
        hidden: layout.hidden(),
        chunk: layout.chunk(),
        stability: mirror_stability(layer.stability),
        seeds,
    })
}

fn mirror_stability(stability: Stability) -> oracle::Stability {
    oracle::Stability {
        mode: match stability.mode {
            StabilityMode::Fast => oracle::StabilityMode::Fast,
            StabilityMode::Adaptive => oracle::StabilityMode::Adaptive,
            StabilityMode::Strict => oracle::StabilityMode::Strict,
        },
        epsilon: stability.epsilon.into(),
        lower: stability.lower.into(),
        upper: stability.upper.into(),
        sigmas: stability.sigmas.into(),
    }
}

fn mirror_seed(layer: &LayerState, seed: usize) -> Result<oracle::OracleSeed, String> {
    let lifecycle = &layer.lifecycle;
    let state = lifecycle.state(seed).map_err(|error| error.to_string())?;
    let Some(grown) = lifecycle.grown(seed) else {
        return Ok(oracle::OracleSeed { state: state.code(), ..oracle::OracleSeed::dormant() });
    };
    let blueprint =
        lifecycle.registry().get(grown.blueprint()).map_err(|error| error.to_string())?;
    let mut params: Vec<oracle::Parameter> = grown
        .tensors()
        .map(|(spec, values)| {
            oracle::Parameter::new(&spec.name, values.iter().map(|v| f64::from(*v)).collect())
        })
        .collect();
    if matches!(blueprint, Blueprint::User(_)) {
        // The user's kind of this soak is a residual whose scale is fixed.
        params.push(oracle::Parameter::new("scale", vec![1.0]));
    }
    Ok(oracle::OracleSeed {
        kind: kind(blueprint),
        state: state.code(),
        alpha: lifecycle.alpha(seed).map_err(|error| error.to_string())?.into(),
        objective: match grown.objective() {
            Objective::Reconstruction => oracle::Objective::Reconstruction,
            _ => oracle::Objective::StraightThrough,
        },
        params,
    })
}

fn kind(blueprint: &Blueprint) -> oracle::Kind {
    let act = |activation: &Activation| match activation {
        Activation::Relu => oracle::Activation::Relu,
        Activation::Gelu => oracle::Activation::Gelu,
        Activation::Silu => oracle::Activation::Silu,
        Activation::Tanh => oracle::Activation::Tanh,
    };
    match blueprint {
        Blueprint::Residual | Blueprint::User(_) => oracle::Kind::Residual,
        Blueprint::AttentionHead => oracle::Kind::AttentionHead,
        Blueprint::MlpExpansion => oracle::Kind::MlpExpansion,
        Blueprint::ConvFilter { .. } => oracle::Kind::ConvFilter,
        Blueprint::Bottleneck { activation, .. } => {
            oracle::Kind::Bottleneck { activation: act(activation) }
        }
        Blueprint::Dense { activation } => oracle::Kind::Dense { activation: act(activation) },
    }
}

/// What a pass of the engine was given and gave, in f64.
pub(super) struct Pass<'a> {
    pub(super) x: &'a [f64],
    pub(super) grad_y: &'a [f64],
    pub(super) y: &'a [f64],
    pub(super) grad_x: &'a [f64],
    pub(super) dtype: DType,
    pub(super) probe: &'a oracle::Probe,
}

/// What became of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Agreed; the largest error as a share of what is allowed.
    Agreed(f64),
    /// Too close to a kink for f32.
    Kink,
}

type Passes = (Vec<f64>, oracle::Backward);

/// Judges a pass; `before` is the mirror from before it, `after` the engine with the gradients.
pub(super) fn judge(
    before: &oracle::OracleLayer,
    after: &LayerState,
    pass: &Pass<'_>,
    rng: &mut ChaCha8Rng,
) -> Result<Verdict, String> {
    let refused = |error: oracle::OracleError| format!("the oracle refuses the layer: {error}");
    if before.margin(pass.x, pass.probe).map_err(refused)? <= MARGIN {
        return Ok(Verdict::Kink);
    }
    let passes = |layer: &oracle::OracleLayer| -> Result<Passes, oracle::OracleError> {
        let y = layer.forward_probed(pass.x, pass.probe)?.y;
        Ok((y, layer.backward_probed(pass.x, pass.grad_y, pass.probe)?))
    };
    let expected = passes(before).map_err(refused)?;
    let mut shaken = Vec::new();
    for _ in 0..SHAKEN {
        let mut layer = before.clone();
        let parameters = layer.seeds.iter_mut().flat_map(|seed| &mut seed.params);
        for value in parameters.flat_map(|parameter| &mut parameter.values) {
            *value *= 1.0 + SHAKE * rng.random_range(-1.0..1.0);
        }
        shaken.push(passes(&layer).map_err(refused)?);
    }
    let all = Judge { layer: before, dtype: pass.dtype, shaken: &shaken };
    let mut worst = all.matrix("y", pass.y, &expected.0, |passes| &passes.0)?;
    let grad_x = &expected.1.grad_x;
    worst = worst.max(all.matrix("grad_x", pass.grad_x, grad_x, |passes| &passes.1.grad_x)?);
    worst = worst.max(all.parameters(after, pass, &expected)?);
    Ok(Verdict::Agreed(worst))
}

struct Judge<'a> {
    layer: &'a oracle::OracleLayer,
    dtype: DType,
    shaken: &'a [Passes],
}

impl Judge<'_> {
    fn allows(&self, distance: impl Fn(&Passes) -> f64) -> f64 {
        FACTOR * self.shaken.iter().map(distance).fold(0.0, f64::max)
    }

    fn matrix(
        &self,
        what: &str,
        found: &[f64],
        expected: &[f64],
        of: impl Fn(&Passes) -> &Vec<f64>,
    ) -> Result<f64, String> {
        let (rounding, limit, step) = match self.dtype {
            DType::F32 => (2e-5, f64::from(f32::MAX), 1e-20),
            DType::F16 => (2e-3, 65504.0, 1.0 / f64::from(1 << 24)),
            DType::Bf16 => (1.6e-2, f64::from(f32::MAX), 1e-20),
        };
        let mut worst = 0.0f64;
        for i in 0..self.layer.seeds.len() {
            let size = rounding * rms(self.layer.chunk_values(expected, i).into_iter());
            for r in 0..self.layer.rows {
                let columns = self.layer.columns(i);
                let row =
                    r * self.layer.hidden + columns.start..r * self.layer.hidden + columns.end;
                let moved = self.allows(|shaken| {
                    let pairs = of(shaken)[row.clone()].iter().zip(&expected[row.clone()]);
                    rms(pairs.map(|(s, e)| s - e))
                });
                for k in row {
                    let (a, e) = (found[k], expected[k]);
                    let e = if e.is_finite() { e.clamp(-limit, limit) } else { e };
                    if a == e || (a.is_nan() && e.is_nan()) {
                        continue;
                    }
                    let share = (a - e).abs() / (rounding * e.abs() + size + moved + step);
                    if share.is_nan() || share > 1.0 {
                        let state = self.layer.seeds[i].state;
                        return Err(format!(
                            "{what}: seed {i} in state {state}, row {r}, element {k}: {a} instead of {e}"
                        ));
                    }
                    worst = worst.max(share);
                }
            }
        }
        Ok(worst)
    }

    /// ‖a − e‖ of each parameter's gradient, and of dL/dα, with the tolerances of `kasmina-core/tests/oracle.rs`.
    fn parameters(
        &self,
        after: &LayerState,
        pass: &Pass<'_>,
        expected: &Passes,
    ) -> Result<f64, String> {
        let bounds = oracle::stability::bounds(&self.layer.stability, pass.x);
        let mut worst = 0.0f64;
        for (i, seed) in expected.1.seeds.iter().enumerate() {
            let gradients = gradients(after, i);
            let Some(wanted) = &seed.parameters else {
                if gradients.iter().flatten().flatten().any(|g| *g != 0.0) {
                    return Err(format!("seed {i} has gradients and is frozen"));
                }
                continue;
            };
            let gradients = gradients.ok_or_else(|| format!("seed {i} has no gradients"))?;
            let sane: Vec<f64> = self
                .layer
                .chunk_values(pass.x, i)
                .iter()
                .map(|x| oracle::stability::sanitize_input(&self.layer.stability, bounds, *x).value)
                .filter(|x| x.is_finite())
                .collect();
            let size = norm(&self.layer.chunk_values(pass.grad_y, i)) * norm(&sane);
            for (p, (found, wanted)) in gradients.iter().zip(wanted).enumerate() {
                let moved = self.allows(|shaken| match &shaken.1.seeds[i].parameters {
                    Some(all) => distance(&all[p].values, &wanted.values),
                    None => f64::INFINITY,
                });
                let bound = 1e-4 * norm(&wanted.values) + 1e-6 * size + moved + 1e-12;
                let share = distance(found, &wanted.values) / bound;
                if share.is_nan() || share > 1.0 {
                    return Err(format!(
                        "seed {i}: the gradient of {} is {share:.2} times what is allowed off: {found:?} for {:?}",
                        wanted.name, wanted.values
                    ));
                }
                worst = worst.max(share);
            }
        }
        Ok(worst)
    }
}

/// The gradient of each of a seed's parameters; `None` if it has none.
fn gradients(layer: &LayerState, seed: usize) -> Option<Vec<Vec<f64>>> {
    let grown = layer.lifecycle.grown(seed)?;
    let mut flat = grown.gradients()?;
    let each = grown.tensors().map(|(_, values)| {
        let (own, others) = flat.split_at(values.len());
        flat = others;
        wide(own)
    });
    Some(each.collect())
}

/// The oracle's optimizer beside the engine's: its moments are its own for as long as a seed has its parameters, its parameters
/// those that the engine had before the step.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments(std::collections::BTreeMap<usize, oracle::adamw::Moments>);

impl Moments {
    /// Forgets what belongs to parameters that are gone.
    pub(super) fn keep(&mut self, mut lives: impl FnMut(usize) -> bool) {
        self.0.retain(|seed, _| lives(*seed));
    }

    /// One update of a seed, and the engine's judged by it. Moments are f32 in the engine, each rounding is forgotten at the rate of
    /// its β: 10 roundings of m and 1000 of v at the defaults, so a direction is off by less than 1e-4 of 1 + |direction|.
    pub(super) fn update(
        &mut self,
        seed: usize,
        adamw: &AdamW,
        gradients: &[f64],
        before: &[f64],
        after: &[f64],
    ) -> Result<f64, String> {
        let settings = oracle::adamw::AdamW {
            learning_rate: adamw.learning_rate,
            beta1: adamw.beta1,
            beta2: adamw.beta2,
            epsilon: adamw.epsilon,
            weight_decay: adamw.weight_decay,
            clip_norm: adamw.clip_norm,
        };
        let moments =
            self.0.entry(seed).or_insert_with(|| oracle::adamw::Moments::new(before.len()));
        let mut expected = before.to_vec();
        settings.step(&mut expected, gradients, moments);
        let mut worst = 0.0f64;
        for (k, ((e, a), b)) in expected.iter().zip(after).zip(before).enumerate() {
            let moved = (e - b).abs() / adamw.learning_rate;
            let bound = 1e-4 * adamw.learning_rate * (1.0 + moved) + 2e-7 * e.abs();
            let share = (a - e).abs() / bound;
            if share.is_nan() || share > 1.0 {
                return Err(format!(
                    "seed {seed}, parameter {k}: {a} after the update, {e} expected"
                ));
            }
            worst = worst.max(share);
        }
        Ok(worst)
    }
}

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

fn rms(values: impl Iterator<Item = f64>) -> f64 {
    let finite: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    norm(&finite) / (finite.len().max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_that_is_off_is_named() {
        let adamw = AdamW::new(0.01);
        let after = |direction: f64| [1.0 - 0.01 * (direction + 0.01)];
        let judge = |after: &[f64]| Moments::default().update(3, &adamw, &[0.5], &[1.0], after);
        // The first direction is g / (|g| + ε).
        assert!(judge(&after(1.0)).is_ok());
        let error = judge(&after(1.01)).expect_err("a hundredth off");
        assert!(error.contains("seed 3, parameter 0"), "{error}");
        assert!(judge(&[f64::NAN]).is_err());
    }
}
