//! Fresh cases: what the generator draws covers the format, repeats by seed, and passes on the CPU backend.

use std::collections::BTreeSet;

use kasmina_oracle::{StabilityMode, lifecycle};
use xtask::make_cases::{Draw, Limits};
use xtask::verify::judge::judge;
use xtask::verify::plane::Storage;
use xtask::verify::{Backend, Case, Cpu, Oracle};

const SMALL: Limits = Limits { elements: 600 };

fn made(seed: u64, index: u64) -> Case {
    Draw::new(seed, index, SMALL).case().unwrap()
}

#[test]
fn the_draw_covers_the_format() {
    let mut covered = BTreeSet::new();
    let mut nonfinite = 0;
    for index in 0..300 {
        let case = made(7, index);
        let storage = case.x.storage.name();
        covered.insert(format!("{:?} {storage}", case.stability.mode));
        nonfinite += usize::from(case.x.values().iter().any(|v| !v.is_finite()));
        for seed in &case.seeds {
            covered.insert(format!("{:?} in state {}", seed.kind, seed.state));
            covered.insert(format!("{:?} {:?}", seed.kind, seed.objective));
        }
    }
    let kinds = 4 + 4 + 4;
    for mode in [StabilityMode::Fast, StabilityMode::Adaptive, StabilityMode::Strict] {
        for storage in Storage::ALL {
            assert!(covered.contains(&format!("{mode:?} {}", storage.name())));
        }
    }
    for state in 0..=lifecycle::LAST {
        let end = format!("in state {state}");
        let found = covered.iter().filter(|c| c.ends_with(&end) && !c.starts_with("None"));
        assert_eq!(found.count(), kinds, "kinds in state {state}");
    }
    assert!(nonfinite > 30, "{nonfinite} of 300 cases hold NaN or infinity");
}

#[test]
fn a_seed_repeats_and_a_file_reads_back() {
    for index in 0..10 {
        let case = made(3, index);
        let bytes = case.encode();
        assert_eq!(bytes, made(3, index).encode());
        assert_eq!(bytes, Case::parse("again", &bytes).unwrap().encode());
        assert_ne!(bytes, made(4, index).encode());
    }
}

#[test]
fn fresh_cases_agree_with_the_oracle_they_come_from() {
    for index in 0..60 {
        let case = made(5, index);
        let verdict = judge(&case, &Oracle.run(&case).unwrap());
        assert!(verdict.passed(), "{}: {:?}", case.name, verdict.failures);
    }
}

#[test]
fn fresh_cases_pass_on_the_cpu() {
    for index in 0..200 {
        let case = made(11, index);
        let verdict = judge(&case, &Cpu.run(&case).unwrap());
        let failures: Vec<String> = verdict.failures.iter().map(ToString::to_string).collect();
        assert!(verdict.passed(), "{}: {failures:#?}", case.name);
    }
}
