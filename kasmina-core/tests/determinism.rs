//! The same bits on any number of threads, and the same plan however it came about.

mod common;

use common::{Run, SeedSpec, Spec, bits, large, run, spec};
use kasmina_core::lower::Plan;
use kasmina_core::{AdamW, Blueprint, DType, Element, ForwardOptions, Objective, Stability, State};
use proptest::prelude::*;

fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(work)
}

fn all_bits<T: Element>(run: &Run<T>) -> Vec<Vec<u8>> {
    let mut all = vec![bits(&run.y), bits(&run.grad_x)];
    for seed in 0..run.layer.layout().seeds() {
        if let Some(tensors) = run.layer.gradients(seed) {
            all.extend(tensors.map(|(_, v)| bits(v)));
        }
        all.push(format!("{:?}", run.layer.alpha_gradient(seed).map(f32::to_bits)).into_bytes());
        all.push(
            format!("{:?}", run.layer.reconstruction_loss(seed).map(f64::to_bits)).into_bytes(),
        );
        let (c, g) = (run.layer.chunk_stats()[seed], run.layer.gradient_stats()[seed]);
        all.push(
            [c.mean, c.m2, g.mean, g.m2].iter().flat_map(|v| v.to_bits().to_le_bytes()).collect(),
        );
    }
    all
}

fn compare<T: Element>(spec: &Spec) -> Result<(), TestCaseError> {
    let options = ForwardOptions::new();
    let reference = on_threads(1, || all_bits(&run::<T>(spec, &options, 0)));
    for threads in [2, 3, 7] {
        let other = on_threads(threads, || all_bits(&run::<T>(spec, &options, 0)));
        prop_assert!(reference == other, "{threads} threads differ from one");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..Default::default() })]

    #[test]
    fn threads_do_not_change_a_bit(spec in large()) {
        for_dtype!(spec.dtype, compare, &spec)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..Default::default() })]

    #[test]
    fn lowering_what_changed_is_lowering_from_scratch(spec in spec(), steps in prop::collection::vec(any::<u64>(), 1..6)) {
        let mut layer = spec.layer();
        layer.refresh_plan().expect("registered");
        for draw in steps {
            let trainable: Vec<usize> = (0..spec.seeds.len()).filter(|i| spec.seeds[*i].state.trainable()).collect();
            if trainable.is_empty() {
                break;
            }
            let seed = trainable[draw as usize % trainable.len()];
            let count: usize = layer.parameters(seed).expect("grown").map(|(_, v)| v.len()).sum();
            let values: Vec<f32> = (0..count).map(|k| ((draw >> (k % 40)) as i8) as f32 / 64.0).collect();
            layer.set_parameters(seed, &values).expect("finite");
            prop_assert_eq!(layer.refresh_plan().expect("registered"), 1, "only the changed seed is lowered");
            prop_assert_eq!(layer.plan(), &Plan::from_scratch(layer.lifecycle()).expect("registered"));
        }
        // An optimizer step changes the trainable seeds that have gradients, and lowers only those.
        let options = ForwardOptions::new();
        let Run { mut layer, .. } = run::<f32>(&Spec { dtype: DType::F32, ..spec.clone() }, &options, 0);
        let expected = (0..spec.seeds.len()).filter(|i| layer.gradients(*i).is_some()).count();
        prop_assert!(layer.optimizer_step(&AdamW::default()).skipped.is_empty());
        prop_assert_eq!(layer.refresh_plan().expect("registered"), expected);
        prop_assert_eq!(layer.plan(), &Plan::from_scratch(layer.lifecycle()).expect("registered"));
        prop_assert_eq!(layer.refresh_plan().expect("registered"), 0);
    }
}

/// One changed seed among 100,000 is lowered alone.
#[test]
fn a_hundred_thousand_seeds_lower_one_at_a_time() {
    let seeds = vec![
        SeedSpec {
            blueprint: Blueprint::Residual,
            state: State::Training,
            alpha: 0.0,
            objective: Objective::StraightThrough,
        };
        100_000
    ];
    let spec = Spec {
        rows: 2,
        hidden: 100_000,
        chunk: 1,
        dtype: DType::F32,
        stability: Stability::default(),
        seeds,
        values: 5,
        wild: false,
    };
    let mut layer = spec.layer();
    assert_eq!(layer.refresh_plan().expect("registered"), 100_000);
    layer.set_parameters(77_777, &[0.25, 2.0]).expect("finite");
    assert_eq!(layer.refresh_plan().expect("registered"), 1);
    let run = run::<f32>(&spec, &ForwardOptions::new(), 0);
    assert_eq!(bits(&run.y), bits(&spec.x::<f32>()));
    assert!((0..100_000).all(|seed| run.layer.gradients(seed).is_some()));
}
