//! Optimized backward integrated: random layers through the backend's own backward pass against the f64 oracle until every kind has
//! had parameter gradients in every storage type, and a layer that learns by what that pass gives.

use std::collections::BTreeSet;

use kasmina_core::{
    Activation, AdamW, Blueprint, Device, DeviceRequest, ForwardOptions, InitialSeed, Layer,
    MatMut, MatRef, SeedLayout, State,
};
use kasmina_oracle::Kind;

use super::line::{Line, Outcome};
use crate::make_cases::{Draw, Limits};
use crate::verify::judge::judge;
use crate::verify::plane::Storage;
use crate::verify::{Backend, Case, Cpu, Cuda};

/// Drawn until everything was covered, and at most so many.
const MOST_CASES: u64 = 400;
const SEED: u64 = 20_240;
const LIMITS: Limits = Limits { elements: 1_500 };

/// Runs the check.
pub(super) fn check() -> Vec<Line> {
    vec![
        Line::new("the CPU's backward pass agrees with the oracle", Outcome::of(agrees(&Cpu))),
        Line::new("a layer learns by its gradients", Outcome::of(learns())),
        Line::new("the GPU's backward pass agrees with the oracle", on_gpu()),
    ]
}

fn on_gpu() -> Outcome {
    let selection = match Device::select(DeviceRequest::Cuda(0)) {
        Ok(selection) => selection,
        Err(reason) => {
            let proof = "`cargo xtask verify --backend cuda` on a machine with a GPU proves it";
            return Outcome::NotChecked(format!("{reason}; {proof}"));
        }
    };
    match Cuda::new(selection.device) {
        Ok(Some(backend)) => Outcome::of(agrees(&backend)),
        Ok(None) => Outcome::NotChecked(format!("{} is no GPU", selection.device)),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// A kind and the storage type that it had gradients in.
type Covered = (&'static str, &'static str);

fn agrees(backend: &dyn Backend) -> Result<String, String> {
    let mut open: BTreeSet<Covered> =
        KINDS.iter().flat_map(|kind| STORAGES.map(|storage| (*kind, storage))).collect();
    let (wanted, mut cases, mut worst) = (open.len(), 0, 0.0f64);
    for index in 0..MOST_CASES {
        let case = Draw::new(SEED, index, LIMITS).case().map_err(|error| error.to_string())?;
        let covered: Vec<Covered> = covered(&case);
        // Most draws bring something new at first and few at the end.
        if cases > 20 && !covered.iter().any(|one| open.contains(one)) {
            continue;
        }
        let outcome = backend.run(&case).map_err(|error| format!("{}: {error}", case.name))?;
        let verdict = judge(&case, &outcome);
        if let Some(failure) = verdict.failures.first() {
            return Err(format!("{}: {failure}", case.name));
        }
        worst = worst.max(verdict.worst);
        open.retain(|one| !covered.contains(one));
        cases += 1;
        if open.is_empty() && cases >= 20 {
            return Ok(format!(
                "{cases} random layers on the {}: 6 kinds × 3 storage types trained ({wanted} pairs), worst error {worst:.3} of \
                 its bound",
                backend.name()
            ));
        }
    }
    Err(format!("{MOST_CASES} draws trained no {open:?}"))
}

const KINDS: [&str; 6] =
    ["residual", "attention head", "expansion", "filter", "bottleneck", "dense"];
const STORAGES: [&str; 3] = ["f32", "f16", "bf16"];

fn covered(case: &Case) -> Vec<Covered> {
    let storage = match case.x.storage {
        Storage::F32 => "f32",
        Storage::F16 => "f16",
        Storage::Bf16 => "bf16",
    };
    let seeds = case.seeds.iter().zip(&case.expect.seeds);
    let trained = seeds.filter(|(_, expect)| expect.parameters.is_some());
    trained
        .filter_map(|(seed, _)| {
            let kind = match seed.kind {
                Kind::Residual => KINDS[0],
                Kind::AttentionHead => KINDS[1],
                Kind::MlpExpansion => KINDS[2],
                Kind::ConvFilter => KINDS[3],
                Kind::Bottleneck { .. } => KINDS[4],
                Kind::Dense { .. } => KINDS[5],
                _ => return None,
            };
            Some((kind, storage))
        })
        .collect()
}

/// A bottleneck on path learns a target by forward, backward and the built-in optimizer.
fn learns() -> Result<String, String> {
    const ROWS: usize = 32;
    const HIDDEN: usize = 8;
    const STEPS: usize = 200;
    let mut layer = SeedLayout::new(HIDDEN, HIDDEN)
        .and_then(|layout| {
            let bottleneck = Blueprint::Bottleneck { width: 4, activation: Activation::Tanh };
            let seed = InitialSeed {
                state: State::FineTuning,
                alpha: 1.0,
                blueprint: Some(bottleneck),
                ..InitialSeed::default()
            };
            Layer::builder(layout).rng_seed(1).seed(0, seed).build()
        })
        .map_err(|error| error.to_string())?;
    let x: Vec<f32> = (0..ROWS * HIDDEN).map(|i| (i as f32 * 0.61).sin()).collect();
    let target: Vec<f32> = x.iter().map(|x| x + 0.5 * (2.0 * x).tanh() + 0.25).collect();
    let (mut y, mut grad_x) = (vec![0.0f32; x.len()], vec![0.0f32; x.len()]);
    let mut losses = Vec::new();
    for _ in 0..STEPS {
        let step =
            |layer: &mut Layer, y: &mut [f32], grad_x: &mut [f32]| -> kasmina_core::Result<f64> {
                let options = ForwardOptions::new();
                layer.forward(
                    MatRef::contiguous(&x, HIDDEN)?,
                    MatMut::contiguous(y, HIDDEN)?,
                    &options,
                )?;
                let grad_y: Vec<f32> = y.iter().zip(&target).map(|(y, t)| y - t).collect();
                let loss = grad_y.iter().map(|e| f64::from(e * e)).sum::<f64>() / x.len() as f64;
                let (x, grad_y) =
                    (MatRef::contiguous(&x, HIDDEN)?, MatRef::contiguous(&grad_y, HIDDEN)?);
                layer.backward(x, grad_y, MatMut::contiguous(grad_x, HIDDEN)?, &options)?;
                Ok(loss)
            };
        losses.push(step(&mut layer, &mut y, &mut grad_x).map_err(|error| error.to_string())?);
        let report = layer.optimizer_step(&AdamW::new(0.02));
        if report.updated.len() != 1 {
            return Err(format!("the optimizer updated {} seeds of 1", report.updated.len()));
        }
    }
    let (first, last) = (losses[0], losses[STEPS - 1]);
    let text = format!("loss {first:.4} to {last:.4} in {STEPS} steps of a bottleneck");
    if last < 0.2 * first { Ok(text) } else { Err(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::BackendError;
    use crate::verify::judge::Outcome as Computed;

    /// The CPU with one fault in what it hands on.
    struct Faulty(fn(&mut Computed));

    impl Backend for Faulty {
        fn name(&self) -> &'static str {
            "faulty"
        }
        fn run(&self, case: &Case) -> Result<Computed, BackendError> {
            let mut computed = Cpu.run(case)?;
            (self.0)(&mut computed);
            Ok(computed)
        }
    }

    #[test]
    fn wrong_missing_and_dropped_gradients_are_found() {
        agrees(&Faulty(|_| ())).expect("without a fault it agrees");
        let faults: [fn(&mut Computed); 3] = [
            |computed| {
                for seed in &mut computed.seeds {
                    for value in seed.parameters.iter_mut().flatten().flatten() {
                        *value = *value * 1.01 + 0.1;
                    }
                }
            },
            |computed| computed.seeds.iter_mut().for_each(|seed| seed.parameters = None),
            |computed| {
                computed.seeds.iter_mut().for_each(|seed| seed.alpha = seed.alpha.map(|a| -a - 1.0))
            },
        ];
        for fault in faults {
            agrees(&Faulty(fault)).expect_err("a fault");
        }
    }

    #[test]
    fn it_learns() {
        learns().expect("it does");
    }
}
