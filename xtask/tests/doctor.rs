//! `doctor` as a user runs it, on machines played by a fake driver.
#![cfg(target_os = "linux")]

#[path = "../../kasmina-sys/tests/fake/mod.rs"]
mod fake;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use fake::Fake;
use serde_json::Value;

/// A driver that loads no modules: what a device would compute is not the point then.
fn player(defines: &[&str]) -> Fake {
    Fake::new(&[defines, &["MISSING=\"cuModuleLoadDataEx\""]].concat())
}

fn command(library: &Path, tma: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .arg("doctor")
        .args(arguments)
        .env("KASMINA_CUDA_LIBRARY", library)
        .env("KASMINA_TMA", tma)
        .env("KASMINA_CACHE_DIR", "/no/such/cache")
        .env_remove("KASMINA_AUTOTUNE");
    command
}

fn start(library: &Path, tma: &str, arguments: &[&str]) -> Output {
    command(library, tma, arguments).output().expect("it runs")
}

fn doctor(library: &Path, tma: &str, arguments: &[&str]) -> String {
    let output = start(library, tma, arguments);
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
    let fake = player(&[]);
    let report = json(&fake.library, "on");
    assert!(report["driver"]["found"].as_str().is_some_and(|text| text.contains("CUDA 13.0")));
    let device = &report["devices"][0];
    assert_eq!(device["compute_capability"], "9.0");
    assert_eq!(device["load_path"]["found"], "tensor-map");
    assert_eq!(
        ladder(device),
        [
            ("tensor-map", true, true, None),
            ("bulk", false, true, Some("tensor-map is better")),
            ("cp-async", false, true, Some("tensor-map is better")),
            ("vector16", false, true, Some("tensor-map is better")),
            ("scalar", false, true, Some("tensor-map is better")),
        ]
    );
    // That it loads no modules is a reason too, whether the kernels were built or not.
    assert!(device["self_check"]["unavailable"].is_string());
}

/// Path, chosen, possible, reason.
fn ladder(device: &Value) -> Vec<(&str, bool, bool, Option<&str>)> {
    let rungs = device["ladder"].as_array().expect("a list");
    rungs
        .iter()
        .map(|rung| {
            let flag = |key: &str| rung[key].as_bool().expect("yes or no");
            let path = rung["path"].as_str().expect("a name");
            (path, flag("chosen"), flag("possible"), rung["reason"].as_str())
        })
        .collect()
}

#[test]
fn each_rung_has_its_reason() {
    let ada = player(&["MAJOR=8", "MINOR=9"]);
    let report = json(&ada.library, "on");
    let device = &report["devices"][0];
    assert_eq!(device["load_path"]["found"], "cp-async");
    let rungs = ladder(device);
    assert_eq!(rungs.len(), 5);
    for (path, chosen, possible, reason) in &rungs[..2] {
        assert!(
            !chosen && !possible && reason.is_some_and(|text| text.contains("8.9")),
            "{path}: {reason:?}"
        );
    }
    assert_eq!(rungs[2], ("cp-async", true, true, None));
    assert_eq!(rungs[4], ("scalar", false, true, Some("cp-async is better")));

    let hopper = player(&[]);
    let report = json(&hopper.library, "off");
    let device = &report["devices"][0];
    assert_eq!(device["load_path"]["found"], "cp-async");
    assert!(device["tma"].as_str().is_some_and(|text| text.contains("KASMINA_TMA")));
    for (path, _, possible, reason) in &ladder(device)[..2] {
        assert!(
            !possible && reason.is_some_and(|text| text.contains("KASMINA_TMA")),
            "{path}: {reason:?}"
        );
    }
    let text = doctor(&hopper.library, "off", &[]);
    assert!(text.contains("tensor-map  not possible: KASMINA_TMA is"), "{text}");
    assert!(text.contains("cp-async    chosen\n"), "{text}");
}

#[test]
fn features_are_yes_no_or_what_the_driver_said() {
    let fake = player(&[]);
    let report = json(&fake.library, "on");
    let features = report["devices"][0]["features"].as_array().expect("a list");
    let names: Vec<&str> = features.iter().filter_map(|feature| feature["name"].as_str()).collect();
    assert_eq!(names, ["memory-pools", "cooperative-launch", "cluster-launch", "tensor-maps"]);
    assert_eq!(features[3]["supported"], true);
    for feature in features {
        assert_ne!(feature["supported"].is_null(), feature["reason"].is_null(), "{feature}");
    }
    let without = player(&["NO_TENSOR_MAPS"]);
    let report = json(&without.library, "on");
    assert_eq!(report["devices"][0]["features"][3]["supported"], false);
    let silent = player(&["ATTRIBUTE=4242"]);
    let report = json(&silent.library, "on");
    let reason = report["devices"][0]["features"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("4242"), "{reason}");
}

#[test]
fn every_image_of_this_executable_is_shown_with_the_code_that_would_run() {
    let fake = player(&[]);
    let report = json(&fake.library, "on");
    let names = |list: &Value| -> BTreeSet<String> {
        let list = list.as_array().expect("a list").iter();
        list.filter(|image| image.get("code").is_some() || !image["embedded"].is_null())
            .map(|image| format!("{}/{}", image["package"], image["name"]))
            .collect()
    };
    let images = names(&report["kernels"]);
    assert_eq!(names(&report["devices"][0]["code"]), images);
    assert!(images.contains("\"kasmina-sys\"/\"probe\""), "{images:?}");
    assert!(images.iter().any(|image| image.starts_with("\"kasmina-tma\"")), "{images:?}");
}

#[test]
fn a_device_that_computes_something_else_is_a_failure() {
    // This one takes the kernel and does nothing, so that zeros come back.
    let idle = Fake::new(&[]);
    let output = start(&idle.library, "on", &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let device = &report["devices"][0];
    // Without built kernels there is nothing that it could compute.
    let built = report["kernels"][0]["embedded"]["found"].is_string();
    assert_eq!(device["failed_self_check"], built, "{report}");
    assert_eq!(output.status.success(), !built);
    assert!(device["self_check"]["unavailable"].is_string(), "{device}");
}

#[test]
fn a_required_gpu_that_cannot_run_a_kernel_is_a_failure() {
    let fake = player(&["MAJOR=7"]);
    for library in [Path::new("/no/such/libcuda.so.1"), &fake.library] {
        let output = start(library, "on", &["--require-gpu"]);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("--require-gpu"));
        // The report is there all the same.
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("driver "));
    }
}

#[test]
fn autotuning_is_shown_with_its_mode_its_folder_and_what_is_wrong() {
    let fake = player(&[]);
    let report = json(&fake.library, "on");
    assert_eq!(report["autotune"]["mode"], "load");
    assert_eq!(report["autotune"]["folder"]["found"], "/no/such/cache/autotune");
    assert_eq!(report["autotune"]["problems"], Value::Array(Vec::new()));
    assert_eq!(report["devices"][0]["autotune"]["choices"], 0);
    let text = doctor(&fake.library, "on", &[]);
    assert!(text.contains("autotune    load, choices in /no/such/cache/autotune\n"), "{text}");
    assert!(text.contains("autotune    0 measured choices\n"), "{text}");

    let output = command(&fake.library, "on", &[])
        .env("KASMINA_AUTOTUNE", "always")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "it is no failure");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("KASMINA_AUTOTUNE is \"always\"").count(), 1, "{text}");

    let output = command(&fake.library, "on", &[])
        .env_remove("KASMINA_CACHE_DIR")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("HOME")
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("set KASMINA_CACHE_DIR"), "{text}");
}

/// Every key of the JSON by its path, `[]` for the elements of a list. Variants of one value stand side by side.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.insert(format!("{path}{key}"));
                keys(value, &format!("{path}{key}."), found);
            }
        }
        Value::Array(list) => {
            for value in list {
                keys(value, &format!("{}[].", path.trim_end_matches('.')), found);
            }
        }
        _ => {}
    }
}

/// The keys of schema 1. A key that goes needs another schema; a new one is added here.
const KEYS: &str = "auto auto.because auto.device autotune autotune.folder autotune.folder.* autotune.mode \
    autotune.problems devices devices[].autotune devices[].autotune.choices devices[].autotune.problems devices[].code devices[].code[].code devices[].code[].code.* \
    devices[].code[].name devices[].code[].package devices[].compute_capability devices[].failed_self_check \
    devices[].features devices[].features[].name devices[].features[].reason devices[].features[].supported \
    devices[].ladder devices[].ladder[].chosen devices[].ladder[].path devices[].ladder[].possible \
    devices[].ladder[].reason devices[].load_path devices[].load_path.* devices[].load_shape devices[].multiprocessors \
    devices[].ordinal devices[].self_check devices[].self_check.* devices[].summary devices[].summary.* devices[].tma \
    devices[].total_memory devices[].uuid devices[].uuid.* driver driver.* driver_release kernels kernels[].embedded \
    kernels[].embedded.* kernels[].file kernels[].name kernels[].package no_devices schema toolkit toolkit.found \
    toolkit.passed_by";

#[test]
fn the_keys_of_the_json_are_those_of_its_schema() {
    let fake = player(&[]);
    let report = json(&fake.library, "on");
    assert_eq!(report["schema"], 1);
    let mut found = BTreeSet::new();
    keys(&report, "", &mut found);
    // Whether something was found depends on the machine: the key says so and stands for a place.
    let found: BTreeSet<String> = found
        .into_iter()
        .map(|key| {
            key.strip_suffix(".unavailable")
                .or_else(|| key.strip_suffix(".found").filter(|rest| *rest != "toolkit"))
                .map_or(key.clone(), |place| format!("{place}.*"))
        })
        .collect();
    assert_eq!(found, KEYS.split_whitespace().map(str::to_owned).collect());
}

#[test]
fn a_device_that_does_not_answer_is_part_of_the_report() {
    let fake = player(&["ATTRIBUTE=4242"]);
    let text = doctor(&fake.library, "on", &[]);
    assert!(text.contains("unknown CUDA result (4242)"), "{text}");
    assert!(text.contains("auto        cpu"), "{text}");
}
