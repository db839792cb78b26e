//! The judge must be able to fail: each quantity of an outcome, moved out of its tolerance, is named, and
//! moved within it is not.

use std::path::Path;

use kasmina_oracle::lifecycle;
use xtask::make_cases::{Draw, Limits};
use xtask::verify::judge::{Outcome, judge};
use xtask::verify::plane::Storage;
use xtask::verify::{Backend, Case, Oracle};

fn case(number: &str) -> Case {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    Case::read(&directory.join(format!("case-{number}.safetensors"))).unwrap()
}

/// What a faultless backend would give: the oracle's results rounded to storage, copies as they are.
fn faultless(case: &Case) -> Outcome {
    Oracle.run(case).unwrap().stored(case)
}

fn elements(case: &Case, i: usize) -> Vec<usize> {
    let rows = 0..case.rows;
    rows.flat_map(|r| case.columns(i).map(move |c| (r, c)))
        .map(|(r, c)| r * case.hidden + c)
        .collect()
}

fn fails_at(case: &Case, outcome: &Outcome) -> String {
    let verdict = judge(case, outcome);
    assert!(!verdict.passed(), "this should have failed");
    assert!(verdict.worst > 1.0);
    verdict.failures[0].to_string()
}

#[test]
fn faultless_outcomes_pass() {
    for number in ["000", "001", "003", "004", "010", "013", "014", "016", "021"] {
        let case = case(number);
        let verdict = judge(&case, &faultless(&case));
        assert!(verdict.passed(), "{number}: {:?}", verdict.failures);
    }
}

#[test]
fn a_copy_is_judged_by_its_bits() {
    let case = case("003");
    let i = (0..case.seeds.len()).find(|i| !case.seeds[*i].changes_output()).unwrap();
    let k = elements(&case, i)[0];
    let mut outcome = faultless(&case);
    let Some(plane) = &mut outcome.y.stored else { unreachable!() };
    plane.bits[k] ^= 1;
    assert!(fails_at(&case, &outcome).contains(&format!("seed {i} y[0,")));
    let mut outcome = faultless(&case);
    let Some(plane) = &mut outcome.grad_x.stored else { unreachable!() };
    plane.bits[k] ^= 0x8000;
    assert!(fails_at(&case, &outcome).contains("grad_x"));
}

#[test]
fn a_copied_nan_keeps_its_payload() {
    let mut case = case("000");
    case.x.bits[3] = 0x7fc0_1234;
    let mut outcome = faultless(&case);
    let Some(plane) = &mut outcome.y.stored else { unreachable!() };
    assert_eq!(plane.bits[3], 0x7fc0_1234);
    plane.bits[3] = 0x7fc0_0000;
    assert!(fails_at(&case, &outcome).contains("y[0, 3]"));
}

#[test]
fn an_element_is_allowed_its_tolerance_and_no_more() {
    let case = case("021");
    let i = (0..case.seeds.len()).find(|i| case.seeds[*i].changes_output()).unwrap();
    let chunk = elements(&case, i);
    let e = &case.expect.y;
    let rms = (chunk.iter().map(|k| e[*k] * e[*k]).sum::<f64>() / chunk.len() as f64).sqrt();
    let k = chunk[chunk.len() / 2];
    for (part, passes) in [(0.9, true), (1.1, false), (f64::NAN, false), (f64::INFINITY, false)] {
        // t = 2e-3 for f16
        let mut outcome = faultless(&case);
        outcome.y.values[k] = e[k] + part * 2e-3 * (e[k].abs() + rms);
        assert_eq!(judge(&case, &outcome).passed(), passes, "{part} of the bound");
    }
}

#[test]
fn gradients_are_judged_by_norm_and_presence() {
    let case = case("016");
    let trained =
        (0..case.seeds.len()).find(|i| lifecycle::trainable(case.seeds[*i].state)).unwrap();
    let change = |f: &dyn Fn(&mut Outcome)| {
        let mut outcome = faultless(&case);
        f(&mut outcome);
        outcome
    };
    let wrong = change(&|o| o.seeds[trained].parameters.as_mut().unwrap()[0][0] += 1e-2);
    assert!(fails_at(&case, &wrong).contains("gradient of"));
    let nan = change(&|o| o.seeds[trained].parameters.as_mut().unwrap()[0][0] = f64::NAN);
    assert!(fails_at(&case, &nan).contains("gradient of"));
    let absent = change(&|o| o.seeds[trained].parameters = None);
    assert!(fails_at(&case, &absent).contains("number of values"));
    let short = change(&|o| o.seeds[trained].parameters.as_mut().unwrap()[0].clear());
    assert!(fails_at(&case, &short).contains("number of values"));
    let no_alpha = change(&|o| o.seeds[trained].alpha = None);
    assert!(fails_at(&case, &no_alpha).contains("gradient of alpha"));
    let close = change(&|o| o.seeds[trained].parameters.as_mut().unwrap()[0][0] *= 1.0 + 1e-6);
    assert!(judge(&case, &close).passed());
}

#[test]
fn gradients_where_none_belong_fail() {
    let case = case("000");
    let mut outcome = faultless(&case);
    outcome.seeds[0].alpha = Some(0.0);
    assert!(fails_at(&case, &outcome).contains("gradient of alpha"));
    let mut outcome = faultless(&case);
    outcome.seeds[0].reconstruction = Some(0.0);
    assert!(fails_at(&case, &outcome).contains("reconstruction"));
}

#[test]
fn a_frozen_seed_with_parameter_gradients_fails() {
    let case = case("021");
    let frozen =
        (0..case.seeds.len()).find(|i| !lifecycle::trainable(case.seeds[*i].state)).unwrap();
    let mut outcome = faultless(&case);
    let zeros = case.seeds[frozen].parameters.iter().map(|t| vec![0.0; t.values.len()]);
    outcome.seeds[frozen].parameters = Some(zeros.collect());
    assert!(fails_at(&case, &outcome).contains("gradient of"));
}

#[test]
fn reconstruction_is_judged() {
    let case = case("013");
    let mut outcome = faultless(&case);
    let loss = outcome.seeds[1].reconstruction.as_mut().unwrap();
    *loss *= 1.01;
    assert!(fails_at(&case, &outcome).contains("seed 1 reconstruction"));
}

#[test]
fn every_statistic_is_judged() {
    let case = case("014");
    for k in 0..7 {
        let mut outcome = faultless(&case);
        outcome.seeds[0].telemetry[k] = outcome.seeds[0].telemetry[k] * 1.001 + 1e-3;
        assert!(fails_at(&case, &outcome).contains("telemetry"), "{k}");
    }
    for k in 0..3 {
        let mut outcome = faultless(&case);
        outcome.seeds[0].grad_stats[k] *= 1.0 + 3e-5;
        assert!(fails_at(&case, &outcome).contains("gradient"), "{k}");
        let mut outcome = faultless(&case);
        outcome.seeds[0].grad_stats[k] *= 1.0 + 3e-6;
        assert!(judge(&case, &outcome).passed());
    }
}

#[test]
fn an_empty_statistic_is_nan_and_nothing_else() {
    // A chunk without a finite element: made, because no carried case has one.
    let mut case = Draw::new(1, 0, Limits { elements: 64 }).case().unwrap();
    let nan = match case.x.storage {
        Storage::F32 => f32::NAN.to_bits(),
        Storage::F16 => u32::from(half::f16::NAN.to_bits()),
        Storage::Bf16 => u32::from(half::bf16::NAN.to_bits()),
    };
    case.seeds.iter_mut().for_each(|s| s.state = lifecycle::DORMANT);
    case.x.bits.fill(nan);
    let mut expect = faultless(&case);
    for (seed, outcome) in case.expect.seeds.iter_mut().zip(&expect.seeds) {
        (seed.parameters, seed.alpha, seed.reconstruction) = (None, None, None);
        seed.telemetry = outcome.telemetry;
    }
    assert!(judge(&case, &expect).passed());
    expect.seeds[0].telemetry[1] = 0.0;
    assert!(fails_at(&case, &expect).contains("telemetry mean"));
}

#[test]
fn sizes_that_are_not_the_cases_fail() {
    let case = case("001");
    let mut outcome = faultless(&case);
    outcome.seeds.pop();
    assert!(fails_at(&case, &outcome).contains("number of seeds"));
    let mut outcome = faultless(&case);
    outcome.y.values.pop();
    assert!(fails_at(&case, &outcome).contains("number of elements of y"));
}
