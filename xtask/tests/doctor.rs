//! `doctor` as a user runs it, on machines played by a fake driver.
#![cfg(target_os = "linux")]

#[path = "../../kasmina-sys/tests/fake/mod.rs"]
mod fake;

use std::path::Path;
use std::process::Command;

use fake::Fake;
use serde_json::Value;

fn doctor(library: &Path, tma: &str, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("doctor")
        .args(arguments)
        .env("KASMINA_CUDA_LIBRARY", library)
        .env("KASMINA_TMA", tma)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

fn json(library: &Path, tma: &str) -> Value {
    serde_json::from_str(&doctor(library, tma, &["--json"])).expect("it is JSON")
}

#[test]
fn without_a_driver_it_says_so_and_chooses_the_cpu() {
    let missing = Path::new("/no/such/libcuda.so.1");
    let report = json(missing, "on");
    let reason = report["driver"]["unavailable"].as_str().expect("there is no driver");
    assert!(reason.contains("/no/such/libcuda.so.1"), "{reason}");
    assert_eq!(report["auto"]["device"], "cpu");
    assert_eq!(report["auto"]["because"], reason);
    assert_eq!(report["devices"], Value::Array(Vec::new()));
    assert_eq!(report["kernels"][0]["name"], "probe");
    assert!(doctor(missing, "on", &[]).contains(reason));
}

#[test]
fn a_device_is_shown_with_its_rung_of_the_load_ladder() {
    let fake = Fake::new(&[]);
    let report = json(&fake.library, "on");
    assert!(report["driver"]["found"].as_str().is_some_and(|text| text.contains("CUDA 13.0")));
    let device = &report["devices"][0];
    assert_eq!(device["compute_capability"], "9.0");
    assert_eq!(device["load_path"]["found"], "tensor-map");
    assert_eq!(device["passed_by"], Value::Array(Vec::new()));
    // The fake driver loads no modules: that is a reason too, whether the kernels were built or not.
    assert!(device["self_check"]["unavailable"].is_string());
}

#[test]
fn each_rung_that_was_passed_by_has_its_reason() {
    let fake = Fake::new(&["MAJOR=8", "MINOR=9"]);
    let device = &json(&fake.library, "off")["devices"][0];
    assert_eq!(device["load_path"]["found"], "cp-async");
    let passed = device["passed_by"].as_array().expect("a list");
    assert_eq!(passed.len(), 2);
    assert!(passed[0]["reason"].as_str().is_some_and(|text| text.contains("8.9")), "{passed:?}");
    let hopper = Fake::new(&[]);
    let device = &json(&hopper.library, "off")["devices"][0];
    assert_eq!(device["load_path"]["found"], "cp-async");
    assert!(device["tma"].as_str().is_some_and(|text| text.contains("KASMINA_TMA")));
}

#[test]
fn a_device_that_does_not_answer_is_part_of_the_report() {
    let fake = Fake::new(&["ATTRIBUTE=4242"]);
    let text = doctor(&fake.library, "on", &[]);
    assert!(text.contains("unknown CUDA result (4242)"), "{text}");
    assert!(text.contains("auto        cpu"), "{text}");
}
