//! AdamW: the same bits as the formula written out in Rust, the oracle's step, and nothing touched where it fails.

use kasmina_oracle::adamw;
use proptest::prelude::*;

use crate::shim::{AdamW, AdamWReport, shim};

const UPDATED: u32 = 0;
const NON_FINITE_GRADIENT: u32 = 1;
const OVERFLOW: u32 = 2;

const DEFAULT: AdamW = AdamW {
    learning_rate: 1e-3,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 0.01,
    clip_norm: f64::INFINITY,
};

/// One seed's parameters and moments.
#[derive(Clone, Debug, PartialEq)]
struct Seed {
    parameters: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Seed {
    fn new(parameters: &[f32]) -> Self {
        let zeros = vec![0.0; parameters.len()];
        Self { parameters: parameters.to_vec(), first: zeros.clone(), second: zeros }
    }

    fn step(&mut self, adamw: &AdamW, updates: u64, gradients: &[f32]) -> AdamWReport {
        assert_eq!(self.parameters.len(), gradients.len());
        let mut report = AdamWReport::default();
        // SAFETY: all arrays have the same length.
        unsafe {
            (shim().adamw_seed)(
                &raw const *adamw,
                updates,
                gradients.len() as u32,
                self.parameters.as_mut_ptr(),
                self.first.as_mut_ptr(),
                self.second.as_mut_ptr(),
                gradients.as_ptr(),
                &raw mut report,
            );
        }
        report
    }

    /// `AdamW::update` of src/optimizer.rs, written out again.
    fn rust_step(&mut self, adamw: &AdamW, updates: u64, gradients: &[f32]) -> f64 {
        let norm = gradients.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let scale = if norm > adamw.clip_norm { adamw.clip_norm / norm } else { 1.0 };
        let correction = |beta: f64| {
            if beta == 0.0 { 1.0 } else { -(beta.ln() * updates as f64).exp_m1() }
        };
        let (correct1, correct2) = (correction(adamw.beta1), correction(adamw.beta2));
        for (i, g) in gradients.iter().enumerate() {
            let (p, g) = (f64::from(self.parameters[i]), f64::from(*g) * scale);
            let m = adamw.beta1 * f64::from(self.first[i]) + (1.0 - adamw.beta1) * g;
            let v = adamw.beta2 * f64::from(self.second[i]) + (1.0 - adamw.beta2) * g * g;
            let direction = (m / correct1) / ((v / correct2).sqrt() + adamw.epsilon);
            let p = p - adamw.learning_rate * (direction + adamw.weight_decay * p);
            (self.parameters[i], self.first[i], self.second[i]) = (p as f32, m as f32, v as f32);
        }
        norm
    }
}

fn settings() -> impl Strategy<Value = AdamW> {
    let beta = || prop_oneof![Just(0.0f64), Just(0.9), Just(0.999), 0.0f64..0.99999];
    let clip = prop_oneof![Just(f64::INFINITY), Just(1e9), 0.01f64..3.0];
    (0.0f64..0.3, beta(), beta(), 0.0f64..0.2, clip).prop_map(
        |(learning_rate, beta1, beta2, weight_decay, clip_norm)| AdamW {
            learning_rate,
            beta1,
            beta2,
            weight_decay,
            clip_norm,
            ..DEFAULT
        },
    )
}

proptest! {
    #[test]
    fn steps_are_those_of_the_cpu_and_of_the_oracle(
        adamw in settings(),
        start in prop::collection::vec(-2.0f32..2.0, 1..20),
        gradients in prop::collection::vec(prop::collection::vec(-3.0f32..3.0, 20), 1..30),
    ) {
        let n = start.len();
        let (mut own, mut rust) = (Seed::new(&start), Seed::new(&start));
        let judge = adamw::AdamW {
            learning_rate: adamw.learning_rate,
            beta1: adamw.beta1,
            beta2: adamw.beta2,
            epsilon: adamw.epsilon,
            weight_decay: adamw.weight_decay,
            clip_norm: adamw.clip_norm.is_finite().then_some(adamw.clip_norm),
        };
        let mut exact: Vec<f64> = start.iter().map(|p| f64::from(*p)).collect();
        let mut moments = adamw::Moments::new(n);
        for (t, g) in gradients.iter().enumerate() {
            let g = &g[..n];
            let report = own.step(&adamw, t as u64 + 1, g);
            let norm = rust.rust_step(&adamw, t as u64 + 1, g);
            prop_assert_eq!(report.verdict, UPDATED);
            prop_assert_eq!(report.norm, norm);
            prop_assert_eq!(report.clipped != 0, norm > adamw.clip_norm);
            prop_assert_eq!(&own, &rust, "step {}", t + 1);
            let wide: Vec<f64> = g.iter().map(|g| f64::from(*g)).collect();
            judge.step(&mut exact, &wide, &mut moments);
        }
        for (p, e) in own.parameters.iter().zip(&exact) {
            // f32 storage between the steps; an update is at most a few learning rates.
            let limit = 1e-6 * gradients.len() as f64 * (1.0 + e.abs());
            prop_assert!((f64::from(*p) - e).abs() <= limit, "{} for {}", p, e);
        }
    }

    #[test]
    fn a_damaged_update_changes_nothing_and_names_the_first(
        n in 1usize..12,
        at in 0usize..12,
        second in 0usize..12,
        bad in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX]),
    ) {
        let at = at.min(n - 1);
        let mut seed = Seed::new(&vec![0.5; n]);
        prop_assert_eq!(seed.step(&DEFAULT, 1, &vec![0.1; n]).verdict, UPDATED);
        let before = seed.clone();
        let mut gradients = vec![0.1; n];
        gradients[at] = bad;
        gradients[at.max(second.min(n - 1))] = bad;
        let report = seed.step(&DEFAULT, 2, &gradients);
        let verdict = if bad.is_finite() { OVERFLOW } else { NON_FINITE_GRADIENT };
        prop_assert_eq!((report.verdict, report.index as usize), (verdict, at));
        prop_assert_eq!((report.norm, report.clipped), (0.0, 0));
        prop_assert_eq!(seed, before);
    }
}

#[test]
fn overflow_of_a_parameter_is_refused() {
    let wild = AdamW { learning_rate: 1e300, ..DEFAULT };
    let mut seed = Seed::new(&[0.0, 1.0]);
    let report = seed.step(&wild, 1, &[0.0, 1.0]);
    assert_eq!((report.verdict, report.index), (OVERFLOW, 1));
    assert_eq!(seed, Seed::new(&[0.0, 1.0]));
    assert_eq!(Seed::new(&[]).step(&DEFAULT, 1, &[]).verdict, UPDATED);
}

#[test]
fn the_bias_correction_does_not_cancel() {
    for beta in [0.0, 0.5, 0.9, 0.999, 1.0 - 1e-9] {
        for t in [1u64, 2, 1000] {
            // 1 − βᵗ = (1 − β)·Σ βᵏ, which has no difference of near equals but the first.
            let sum: f64 = (0..t as i32).map(|k| f64::powi(beta, k)).sum();
            // SAFETY: two numbers.
            let found = unsafe { (shim().correction)(beta, t) };
            assert!((found / ((1.0 - beta) * sum) - 1.0).abs() < 1e-13, "{beta} {t}");
        }
    }
}
