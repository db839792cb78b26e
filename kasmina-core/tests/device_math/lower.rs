//! Lowering against the plan of a layer on the CPU, bit for bit.

use kasmina_core::lower::Lowered;
use kasmina_core::{Blueprint, InitialSeed, Layer, SeedLayout, State};
use proptest::prelude::*;

use crate::shim::{ColumnProgram, same, shim};

/// `kasmina::Kind`.
pub(crate) const RESIDUAL: u32 = 0;
pub(crate) const ATTENTION: u32 = 1;
pub(crate) const EXPANSION: u32 = 2;

pub(crate) fn lower(kind: u32, parameters: &[f32], c: usize, alpha: f32) -> Vec<ColumnProgram> {
    let mut programs = vec![ColumnProgram::default(); c];
    assert_eq!(parameters.len(), c + usize::from(kind != ATTENTION));
    // SAFETY: the parameters of c columns, and c programs.
    unsafe {
        (shim().lower_pointwise)(kind, parameters.as_ptr(), c as u32, alpha, programs.as_mut_ptr());
    }
    programs
}

pub(crate) fn lower_taps(parameters: &[f32], alpha: f32) -> Vec<f32> {
    let mut taps = vec![0.0; parameters.len() - 1];
    // SAFETY: a filter's parameters are its taps and a scale.
    unsafe {
        (shim().lower_taps)(parameters.as_ptr(), taps.len() as u32, alpha, taps.as_mut_ptr());
    }
    taps
}

/// Plain weights, with zeros of both signs, subnormals and huge ones among them.
pub(crate) fn weight() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -2.0f32..2.0,
        1 => prop::sample::select(vec![0.0f32, -0.0, 1e-42, -1e-42, 1e20, -80.0, 80.0]),
    ]
}

pub(crate) fn alpha() -> impl Strategy<Value = f32> {
    prop_oneof![Just(1.0f32), 1e-6f32..1.0]
}

/// The plan of a layer with one such seed on path.
fn planned(blueprint: Blueprint, tensors: Vec<Vec<f32>>, c: usize, alpha: f32) -> Layer {
    let initial = InitialSeed {
        state: State::Fossilized,
        alpha,
        blueprint: Some(blueprint),
        parameters: Some(tensors),
        ..InitialSeed::default()
    };
    let layout = SeedLayout::new(c, c).expect("a legal shape");
    let mut layer = Layer::builder(layout).seed(0, initial).build().expect("a legal layer");
    layer.refresh_plan().expect("a known blueprint");
    layer
}

proptest! {
    #[test]
    fn programs_are_those_of_the_cpu(
        weight in prop::collection::vec(weight(), 1..50),
        scale in weight(),
        alpha in alpha(),
        kind in RESIDUAL..=EXPANSION,
    ) {
        let c = weight.len();
        let mut flat = weight.clone();
        let mut tensors = vec![weight];
        if kind != ATTENTION {
            flat.push(scale);
            tensors.push(vec![scale]);
        }
        let blueprint = match kind {
            RESIDUAL => Blueprint::Residual,
            ATTENTION => Blueprint::AttentionHead,
            _ => Blueprint::MlpExpansion,
        };
        let layer = planned(blueprint, tensors, c, alpha);
        let expected = layer.plan().programs(0..c).expect("a pointwise seed on path");
        for (i, found) in lower(kind, &flat, c, alpha).iter().enumerate() {
            let expected =
                [expected.on[i], expected.off[i], expected.bias[i], expected.polarity[i]];
            let found = [found.on, found.off, found.bias, found.polarity];
            for (found, expected) in found.into_iter().zip(expected) {
                prop_assert!(same(found, expected), "{kind}, {i}: {found:e} for {expected:e}");
            }
        }
    }

    #[test]
    fn taps_are_those_of_the_cpu(
        weight in prop::collection::vec(weight(), 1..17),
        scale in weight(),
        alpha in alpha(),
    ) {
        let mut flat = weight.clone();
        flat.push(scale);
        let blueprint = Blueprint::ConvFilter { taps: weight.len() };
        let layer = planned(blueprint, vec![weight, vec![scale]], 20, alpha);
        let plan = layer.plan().seed(0).expect("a seed on path");
        let Lowered::Stencil { taps } = &plan.path else { panic!("{plan:?}") };
        let bits = |taps: &[f32]| taps.iter().map(|t| t.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&lower_taps(&flat, alpha)), bits(taps));
    }
}

#[test]
fn damaged_weights_lower_as_on_the_cpu_would() {
    // A layer refuses such parameters at its door, but training can make them: they must not turn a branch on.
    let [program] = lower(EXPANSION, &[f32::NAN, 1.0], 1, 0.5)[..] else { panic!("one column") };
    assert!(program.polarity.is_nan() && program.on.is_nan() && program.off == 0.5);
    let programs = lower(ATTENTION, &[0.0, f32::NAN, 1.0], 3, 1.0);
    assert!(programs.iter().all(|p| p.on.is_nan() && p.off.is_nan()), "as its softmax");
}
