//! What is not on path comes out bit for bit; in place is out of place; strides and probes change
//! nothing that they should not.

mod common;

use common::{Run, Spec, bits, run, spec};
use kasmina_core::{Element, Error, ForwardOptions, MatMut, MatRef};
use proptest::prelude::*;

/// Seeds whose chunk must come out untouched.
fn untouched(spec: &Spec) -> impl Iterator<Item = usize> + '_ {
    (0..spec.seeds.len()).filter(|&i| {
        let seed = &spec.seeds[i];
        !seed.state.on_path() || seed.alpha == 0.0
    })
}

fn chunk_bits<T: Element>(spec: &Spec, matrix: &[T], seed: usize) -> Vec<u8> {
    let columns = spec.layout().columns(seed);
    matrix.chunks(spec.hidden).flat_map(|row| bits(&row[columns.clone()])).collect()
}

/// Inputs with every kind of NaN: quiet, signalling, with payloads.
fn with_nans<T: Element>(spec: &Spec) -> Vec<T> {
    let mut x = spec.x::<T>();
    let size = size_of::<T>();
    for (k, value) in x.iter_mut().enumerate().filter(|(k, _)| k % 7 == 3) {
        let pattern: u32 = match size {
            4 => 0x7f80_0001 + (k as u32) * 3 + ((k as u32 & 1) << 31),
            _ if T::DTYPE == kasmina_core::DType::F16 => 0x7c01 + (k as u32 % 0x3ff),
            _ => 0x7f81 + (k as u32 % 0x7e),
        };
        let bytes = pattern.to_le_bytes();
        *value = *bytemuck::from_bytes::<T>(&bytes[..size].to_vec()[..]);
    }
    x
}

fn copies<T: Element>(spec: &Spec) -> Result<(), TestCaseError> {
    let (x, grad_y) = (with_nans::<T>(spec), with_nans::<T>(spec));
    let (mut y, mut grad_x) = (vec![T::from_f32(1.0); x.len()], vec![T::from_f32(1.0); x.len()]);
    let mut layer = spec.layer();
    let options = ForwardOptions::new();
    let view = |v| MatRef::contiguous(v, spec.hidden).expect("whole rows");
    layer
        .forward(view(&x), MatMut::contiguous(&mut y, spec.hidden).expect("whole rows"), &options)
        .expect("forward");
    let out = MatMut::contiguous(&mut grad_x, spec.hidden).expect("whole rows");
    layer.backward(view(&x), view(&grad_y), out, &options).expect("backward");
    for seed in untouched(spec) {
        prop_assert_eq!(
            chunk_bits(spec, &x, seed),
            chunk_bits(spec, &y, seed),
            "y of seed {}",
            seed
        );
        prop_assert_eq!(
            chunk_bits(spec, &grad_y, seed),
            chunk_bits(spec, &grad_x, seed),
            "grad_x of seed {}",
            seed
        );
    }
    Ok(())
}

fn in_place<T: Element>(spec: &Spec) -> Result<(), TestCaseError> {
    let x = with_nans::<T>(spec);
    let view = |v| MatRef::contiguous(v, spec.hidden).expect("whole rows");
    let mut y = vec![T::from_f32(1.0); x.len()];
    let mut apart = spec.layer();
    let out = MatMut::contiguous(&mut y, spec.hidden).expect("whole rows");
    apart.forward(view(&x), out, &ForwardOptions::new()).expect("forward");

    let mut inside = x.clone();
    let mut together = spec.layer();
    let target = MatMut::contiguous(&mut inside, spec.hidden).expect("whole rows");
    together.forward_in_place(target, &ForwardOptions::new().inference()).expect("forward");
    prop_assert_eq!(bits(&y), bits(&inside));
    prop_assert_eq!(apart.chunk_stats(), together.chunk_stats());

    // Where the layer allows it with a backward pass to follow, that pass finds what it needs.
    let mut inside = x.clone();
    let mut training = spec.layer();
    let target = MatMut::contiguous(&mut inside, spec.hidden).expect("whole rows");
    match training.forward_in_place(target, &ForwardOptions::new()) {
        Err(Error::InPlaceNeedsInput { seed, state }) => {
            prop_assert!(state.on_path() && spec.seeds[seed].alpha > 0.0);
            prop_assert_eq!(bits(&x), bits(&inside), "refused calls change nothing");
        }
        Err(other) => return Err(TestCaseError::fail(other.to_string())),
        Ok(()) => {
            let grad_y = spec.grad_y::<T>();
            let (mut a, mut b) = (grad_y.clone(), grad_y.clone());
            let options = ForwardOptions::new();
            let out = MatMut::contiguous(&mut a, spec.hidden).expect("whole rows");
            apart.backward(view(&x), view(&grad_y), out, &options).expect("backward");
            let out = MatMut::contiguous(&mut b, spec.hidden).expect("whole rows");
            training.backward(view(&inside), view(&grad_y), out, &options).expect("backward");
            prop_assert_eq!(bits(&a), bits(&b));
            for seed in 0..spec.seeds.len() {
                prop_assert_eq!(gradients(&apart, seed), gradients(&training, seed));
            }
        }
    }
    Ok(())
}

fn gradients(layer: &kasmina_core::Layer, seed: usize) -> Option<Vec<u32>> {
    let tensors = layer.gradients(seed)?;
    Some(tensors.flat_map(|(_, v)| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>()).collect())
}

fn strides<T: Element>(spec: &Spec) -> Result<(), TestCaseError> {
    let options = ForwardOptions::new();
    let Run { y, grad_x, layer } = run::<T>(spec, &options, 0);
    let padded = run::<T>(spec, &options, 5);
    prop_assert_eq!(bits(&y), bits(&padded.y));
    prop_assert_eq!(bits(&grad_x), bits(&padded.grad_x));
    prop_assert_eq!(layer.chunk_stats(), padded.layer.chunk_stats());
    prop_assert_eq!(layer.gradient_stats(), padded.layer.gradient_stats());
    Ok(())
}

/// A probe changes its own chunk for one call, and nothing of the layer.
fn probes<T: Element>(spec: &Spec) -> Result<(), TestCaseError> {
    let Some(seed) = (0..spec.seeds.len()).find(|i| spec.seeds[*i].state.owns_parameters()) else {
        return Ok(());
    };
    let plain = run::<T>(spec, &ForwardOptions::new(), 0);
    let without = run::<T>(spec, &ForwardOptions::new().probe(seed, 0.0), 0);
    let x = spec.x::<T>();
    prop_assert_eq!(chunk_bits(spec, &x, seed), chunk_bits(spec, &without.y, seed));
    for other in (0..spec.seeds.len()).filter(|other| *other != seed) {
        prop_assert_eq!(chunk_bits(spec, &plain.y, other), chunk_bits(spec, &without.y, other));
    }
    prop_assert_eq!(without.layer.plan(), plain.layer.plan());
    // Probing at the alpha it has anyway is what it does anyway.
    if spec.seeds[seed].state.on_path() {
        let same = run::<T>(spec, &ForwardOptions::new().probe(seed, spec.seeds[seed].alpha), 0);
        prop_assert_eq!(bits(&same.y), bits(&plain.y));
        prop_assert_eq!(bits(&same.grad_x), bits(&plain.grad_x));
        prop_assert_eq!(gradients(&same.layer, seed), gradients(&plain.layer, seed));
    }
    Ok(())
}

/// In fast mode, y(alpha) = (1 − alpha)·y(0) + alpha·y(1).
fn blends(spec: &Spec, alpha: f32) -> Result<(), TestCaseError> {
    for seed in (0..spec.seeds.len()).filter(|i| spec.seeds[*i].state.owns_parameters()) {
        let at = |alpha| run::<f32>(spec, &ForwardOptions::new().probe(seed, alpha), 0).y;
        let (zero, one, between) = (at(0.0), at(1.0), at(alpha));
        for ((zero, one), y) in zero.iter().zip(&one).zip(&between) {
            let (zero, one) = (f64::from(*zero), f64::from(*one));
            let expected = (1.0 - f64::from(alpha)) * zero + f64::from(alpha) * one;
            let bound = 1e-5 * (zero.abs() + one.abs() + 1.0);
            prop_assert!((f64::from(*y) - expected).abs() <= bound, "{y} instead of {expected}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

    #[test]
    fn what_is_not_on_path_comes_out_bit_for_bit(spec in spec()) {
        for_dtype!(spec.dtype, copies, &spec)?;
    }

    #[test]
    fn in_place_is_out_of_place(spec in spec()) {
        for_dtype!(spec.dtype, in_place, &spec)?;
    }

    #[test]
    fn a_row_stride_changes_nothing(spec in spec()) {
        for_dtype!(spec.dtype, strides, &spec)?;
    }

    #[test]
    fn a_probe_changes_one_chunk_of_one_call(spec in spec()) {
        for_dtype!(spec.dtype, probes, &spec)?;
    }

    #[test]
    fn blending_is_linear_in_alpha(mut spec in spec(), alpha in 0.0f32..1.0) {
        spec.stability = kasmina_core::Stability::new(kasmina_core::StabilityMode::Fast);
        spec.dtype = kasmina_core::DType::F32;
        spec.wild = false;
        blends(&spec, alpha)?;
    }
}

/// An output too large for the caches is written past them; in place it is not, and the bits are the same.
#[test]
fn outputs_larger_than_the_caches_are_the_same() {
    use kasmina_core::{Blueprint, DType, Objective, Stability, State};
    let seed = |k: usize| common::SeedSpec {
        blueprint: [Blueprint::Residual, Blueprint::MlpExpansion][k % 2].clone(),
        state: [State::Dormant, State::FineTuning, State::Culled][k % 3],
        alpha: 0.5,
        objective: Objective::StraightThrough,
    };
    // 8.6 MB of rows that begin at every alignment.
    let (rows, hidden, chunk) = (1024, 2101usize, 50);
    let seeds = (0..hidden.div_ceil(chunk)).map(seed).collect();
    let (dtype, stability) = (DType::F32, Stability::default());
    let spec = Spec { rows, hidden, chunk, dtype, stability, seeds, values: 11, wild: true };
    let apart = run::<f32>(&spec, &ForwardOptions::new(), 0);
    let mut inside = spec.x::<f32>();
    let target = MatMut::contiguous(&mut inside, hidden).expect("whole rows");
    spec.layer().forward_in_place(target, &ForwardOptions::new().inference()).expect("forward");
    assert!(bits(&apart.y) == bits(&inside));
    let (x, grad_y) = (spec.x::<f32>(), spec.grad_y::<f32>());
    for seed in untouched(&spec) {
        assert!(chunk_bits(&spec, &x, seed) == chunk_bits(&spec, &apart.y, seed));
        assert!(chunk_bits(&spec, &grad_y, seed) == chunk_bits(&spec, &apart.grad_x, seed));
    }
    // Backward, row by row, is what a small backward of the same row is; the sums are another matter.
    let row = 777 * hidden..778 * hidden;
    let (mut y, mut grad_x) = (vec![0.0f32; hidden], vec![0.0f32; hidden]);
    let mut layer = spec.layer();
    let view = |v| MatRef::contiguous(v, hidden).expect("whole rows");
    let out = MatMut::contiguous(&mut y, hidden).expect("whole rows");
    layer.forward(view(&x[row.clone()]), out, &ForwardOptions::new()).expect("forward");
    let out = MatMut::contiguous(&mut grad_x, hidden).expect("whole rows");
    let (x, grad_y) = (view(&x[row.clone()]), view(&grad_y[row.clone()]));
    layer.backward(x, grad_y, out, &ForwardOptions::new()).expect("backward");
    assert!(bits(&y) == bits(&apart.y[row.clone()]));
    assert!(bits(&grad_x) == bits(&apart.grad_x[row]));
}
