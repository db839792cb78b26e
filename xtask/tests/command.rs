//! The command as a user runs it: exit code, table, last line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn xtask(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn carried() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

#[test]
fn the_carried_cases_pass_on_the_cpu() {
    let output = xtask(&["verify", "--backend", "cpu", carried().to_str().unwrap()]);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}");
    assert!(out.ends_with("9 passed, 0 failed\n"), "{out}");
    for column in ["case-010", "257×7", "3×3", "adaptive", "f16", "cpu", "passed"] {
        assert!(out.contains(column), "{column} in {out}");
    }
}

#[test]
fn a_case_that_expects_something_else_fails_with_its_element() {
    let directory = tempfile::tempdir().unwrap();
    let path = carried().join("case-021.safetensors");
    let mut case = xtask::verify::Case::read(&path).unwrap();
    let changed = case.seeds.iter().position(|s| s.changes_output()).unwrap();
    let k = case.columns(changed).start;
    case.expect.y[k] += 5.0;
    let wrong = directory.path().join("wrong.safetensors");
    std::fs::write(&wrong, case.encode()).unwrap();
    let output = xtask(&["verify", "--backend", "cpu", wrong.to_str().unwrap()]);
    let out = text(&output.stdout);
    assert!(!output.status.success());
    assert!(out.contains(&format!("seed {changed} y[0, {k}]: is ")), "{out}");
    assert!(out.contains("times the bound"), "{out}");
    assert!(out.ends_with("0 passed, 1 failed\n"), "{out}");
}

#[test]
fn a_damaged_file_is_a_failure_among_others() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.safetensors"), b"no").unwrap();
    std::fs::copy(carried().join("case-000.safetensors"), directory.path().join("b.safetensors"))
        .unwrap();
    std::fs::write(directory.path().join("notes.txt"), b"not a case").unwrap();
    let output = xtask(&["verify", "--backend", "cpu", directory.path().to_str().unwrap()]);
    let out = text(&output.stdout);
    assert!(!output.status.success());
    assert!(out.contains("a.safetensors: "), "{out}");
    assert!(out.ends_with("1 passed, 1 failed\n"), "{out}");
}

#[test]
fn nothing_found_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let output = xtask(&["verify", directory.path().to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("no case found"));
    let absent = directory.path().join("absent");
    let output = xtask(&["verify", absent.to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("absent"));
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_by_name_and_a_note_otherwise() {
    let one = carried().join("case-000.safetensors");
    let output = xtask(&["verify", "--backend", "cuda", one.to_str().unwrap()]);
    let there = output.status.success();
    if !there {
        let error = text(&output.stderr);
        assert!(error.contains("the cuda backend cannot run: "), "{error}");
    }
    let output = xtask(&["verify", one.to_str().unwrap()]);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}");
    assert_eq!(out.starts_with("cuda: skipped, "), !there, "{out}");
    let passed = if there { "2 passed, 0 failed\n" } else { "1 passed, 0 failed\n" };
    assert!(out.ends_with(passed), "{out}");
}

#[test]
fn made_cases_verify() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new");
    let path = path.to_str().unwrap();
    let made = xtask(&["make-cases", path, "--count", "5", "--seed", "9", "--max-elements", "200"]);
    assert!(made.status.success());
    assert!(text(&made.stdout).starts_with("5 cases, "));
    let output = xtask(&["verify", "--backend", "oracle", path]);
    assert!(output.status.success());
    assert!(text(&output.stdout).ends_with("5 passed, 0 failed\n"));
}
