//! What an executable of this harness prints and returns, with a device and without: this one starts itself again as such an
//! executable, with the driver's place taken by a fake one or by none.
#![cfg(target_os = "linux")]

#[path = "../../kasmina-sys/tests/fake/mod.rs"]
mod fake;

use std::path::Path;
use std::process::{Command, ExitCode, Output};

use fake::Fake;
use kasmina_gpu_test::{Body, Failed, Measurement, ensure, not_applicable, record};
use kasmina_sys::{Arch, CodeKind, CudaVersion, Device, Fatbin, ImageState, KernelImage};
use libtest_mimic::{Arguments, Trial};

/// Set in the executable that is tested: `tests` or `benches`.
const PLAY: &str = "KASMINA_HARNESS_PLAYS";

/// Never loaded, only chosen by its architecture.
static KERNELS: [KernelImage; 1] = [KernelImage {
    package: "played",
    name: "none",
    state: ImageState::Embedded(Fatbin {
        package: "played",
        name: "none",
        bytes: &[],
        source_hash: "",
        toolkit: CudaVersion::new(13, 0),
        archs: &[Arch::new(9, 0, CodeKind::SpecificCubin)],
    }),
}];

const PLAYED: &[(&str, Body)] = &[
    ("passes", |device| ensure(device.total_memory()? > 0, || "no memory".into())),
    ("fails", |_| Err("one < two & \"three\"".into())),
    ("panics", |_| panic!("in the middle")),
    ("does_not_apply", |_| Err(not_applicable("no such\nunit"))),
    ("measures", measures),
];

fn measures(device: Device) -> Result<(), Failed> {
    record(device, &Measurement { name: "a/b=1", unit: "ns", values: &[2.0, 1.0, 9.0] })
}

fn main() -> ExitCode {
    match std::env::var(PLAY).as_deref() {
        Ok("tests") => return kasmina_gpu_test::main("played", &KERNELS, PLAYED),
        Ok("benches") => return kasmina_gpu_test::bench_main("played", &KERNELS, PLAYED),
        _ => {}
    }
    let tests: [(&str, fn()); 8] = [
        ("without_a_gpu_every_test_is_ignored_with_the_reason", ignored_without_a_gpu),
        ("a_required_gpu_that_is_missing_fails_every_test", required_and_missing),
        ("a_requirement_that_is_neither_yes_nor_no_is_refused", bad_requirement),
        ("with_a_device_bodies_run_and_their_ends_are_told", with_a_device),
        ("measurements_are_lines_of_json", measurements),
        ("a_list_needs_no_device", list),
        ("benches_run_only_when_asked", benches),
        ("the_script_of_a_bundle_understands_every_end", bundled),
    ];
    let trials = tests.into_iter().map(|(name, body)| {
        Trial::test(name, move || {
            body();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

const NO_DRIVER: &str = "/no/such/libcuda.so.1";

fn play(what: &str, library: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().expect("this executable"))
        .args(arguments)
        .env(PLAY, what)
        .env("KASMINA_CUDA_LIBRARY", library)
        .env_remove("KASMINA_REQUIRE_GPU")
        .env_remove("KASMINA_RESULTS")
        .envs(variables.iter().copied())
        .output()
        .expect("it runs")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("it is text")
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

fn ignored_without_a_gpu() {
    for value in ["0", ""] {
        let output = play("tests", NO_DRIVER.as_ref(), &[], &[("KASMINA_REQUIRE_GPU", value)]);
        assert!(output.status.success());
        let text = out(&output);
        contains(&text, &["0 passed; 0 failed; 5 ignored"]);
        assert_eq!(
            text.matches("ignored (no CUDA driver: /no/such/libcuda.so.1").count(),
            5,
            "{text}"
        );
        contains(&String::from_utf8_lossy(&output.stderr), &["no GPU for played: no CUDA driver"]);
    }
}

fn required_and_missing() {
    let output = play("tests", NO_DRIVER.as_ref(), &["passes"], &[("KASMINA_REQUIRE_GPU", "1")]);
    assert_eq!(output.status.code(), Some(101));
    contains(
        &out(&output),
        &["0 passed; 1 failed; 0 ignored", "KASMINA_REQUIRE_GPU is 1: no CUDA driver"],
    );
}

fn bad_requirement() {
    let output = play("tests", NO_DRIVER.as_ref(), &[], &[("KASMINA_REQUIRE_GPU", "yes")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(out(&output), "");
}

fn with_a_device() {
    let fake = Fake::new(&[]);
    let output = play("tests", &fake.library, &[], &[]);
    assert_eq!(output.status.code(), Some(101));
    let text = out(&output);
    contains(
        &text,
        &[
            "test passes         ... ok\n",
            "test fails          ... FAILED\n",
            "test panics         ... FAILED\n",
            "test does_not_apply ... ignored (no such unit)\n",
            "2 passed; 2 failed; 1 ignored",
            "one < two & \"three\"",
            "in the middle",
        ],
    );
    contains(&String::from_utf8_lossy(&output.stderr), &["fails failed: one < two"]);
    // A device that the kernels are not for is as good as none.
    let older = Fake::new(&["MAJOR=8"]);
    let output = play("tests", &older.library, &[], &[]);
    contains(&out(&output), &["5 ignored", "none of which runs on compute capability 8.0"]);
}

fn measurements() {
    let fake = Fake::new(&[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("results.jsonl");
    let variables = [("KASMINA_RESULTS", file.to_str().expect("text")), ("KASMINA_COMMIT", "abc")];
    for _ in 0..2 {
        let output = play("tests", &fake.library, &["measures"], &variables);
        assert!(output.status.success());
        contains(&out(&output), &["measured a/b=1: 2 ns (median of 3)\n"]);
    }
    let text = std::fs::read_to_string(file).expect("it was written");
    assert_eq!(text.lines().count(), 2);
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        assert_eq!(value["name"], "a/b=1");
        assert_eq!(value["unit"], "ns");
        assert_eq!(value["median"], 2.0);
        assert_eq!(value["values"], serde_json::json!([2.0, 1.0, 9.0]));
        assert_eq!(value["device"], "Fake GPU");
        assert_eq!(value["compute_capability"], "9.0");
        assert_eq!(value["cuda"], "13.0");
        assert_eq!(value["commit"], "abc");
        assert!(value["unix_seconds"].as_u64() > Some(1_700_000_000));
    }
}

fn list() {
    let output = play("tests", NO_DRIVER.as_ref(), &["--list"], &[("KASMINA_REQUIRE_GPU", "1")]);
    assert!(output.status.success() && output.stderr.is_empty());
    assert_eq!(out(&output).lines().count(), PLAYED.len());
    contains(&out(&output), &["passes: test\n"]);
}

fn benches() {
    let fake = Fake::new(&[]);
    let output = play("benches", &fake.library, &["passes"], &[]);
    contains(&out(&output), &["ignored (run it with --bench)", "1 ignored"]);
    let output = play("benches", &fake.library, &["--bench", "passes"], &[]);
    contains(&out(&output), &["1 passed; 0 failed; 0 ignored"]);
}

/// The script is tested by itself with played executables; this ties its reading to what libtest-mimic writes.
fn bundled() {
    use std::os::unix::fs::PermissionsExt;

    let fake = Fake::new(&[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = |name: &str| folder.path().join(name);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/src/gpu_bundle/run.sh");
    std::fs::copy(script, place("run.sh")).expect("it is copied");
    let this = std::env::current_exe().expect("this executable");
    let start = format!("#!/bin/bash\n{PLAY}=tests exec '{}' \"$@\"\n", this.display());
    std::fs::write(place("gpu"), start).expect("it is written");
    std::fs::set_permissions(place("gpu"), PermissionsExt::from_mode(0o755)).expect("it is set");
    std::fs::write(place("bundle.tsv"), "format\t1\ntest\tplayed\tgpu\tgpu\n")
        .expect("it is written");
    let run = |library: &Path, arguments: &[&str]| {
        let output = Command::new("bash")
            .arg(place("run.sh"))
            .args(["--junit", place("junit.xml").to_str().expect("text")])
            .args(arguments)
            .env("KASMINA_CUDA_LIBRARY", library)
            .output()
            .expect("it runs");
        (
            output.status.code(),
            out(&output),
            std::fs::read_to_string(place("junit.xml")).expect("it is there"),
        )
    };
    let (code, text, xml) = run(&fake.library, &["--", "--test-threads=2"]);
    assert_eq!(code, Some(1), "{text}");
    contains(
        &text,
        &[
            "played/gpu: 2 passed, 2 failed, 1 ignored",
            "  fails: one < two & \"three\"\n",
            "  panics: ",
            "FAILED: 2 of 5",
        ],
    );
    contains(
        &xml,
        &[
            "<skipped message=\"no such unit\"/>",
            "one &lt; two &amp; &quot;three&quot;</failure>",
            "in the middle",
        ],
    );
    let (code, text, _) = run(NO_DRIVER.as_ref(), &["--no-require-gpu", "--filter", "passes"]);
    assert_eq!(code, Some(0), "{text}");
    contains(
        &text,
        &[
            "played/gpu: 0 passed, 0 failed, 1 ignored",
            "; no CUDA driver: /no/such",
            "passed: 0, ignored: 1",
        ],
    );
    let (code, text, _) = run(NO_DRIVER.as_ref(), &[]);
    assert_eq!(code, Some(1), "{text}");
    contains(&text, &["KASMINA_REQUIRE_GPU is 1: no CUDA driver", "FAILED: 5 of 5"]);
}
