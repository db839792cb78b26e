//! `cargo xtask bench` as a user calls it, on the processor, which every machine has.

use std::path::Path;
use std::process::{Command, Output};

use xtask::bench::report::{Report, SCHEMA};

fn bench(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["bench", "--device", "cpu", "--quick"]).args(arguments).current_dir(folder);
    command.output().expect("it starts")
}

#[test]
fn a_run_prints_a_table_and_writes_what_it_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = ["--json", "found.json", "--html", "page"];
    let ran = bench(&[&["--only", "32x768 f32 backward"], &files[..]].concat(), folder.path());
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{text}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(text.contains("processor   ") && text.contains("2 reads 1 write"), "{text}");
    // Known or not, it is said.
    assert!(text.contains("\nthrottling  "), "{text}");
    assert!(text.ends_with("9 measured, 0 failed\n"), "{text}");

    let page = std::fs::read_to_string(folder.path().join("page/index.html")).expect("the page");
    assert!(
        page.contains("9 measured, 0 failed") && page.contains("% of 2 reads 1 write"),
        "{page}"
    );
    assert!(folder.path().join("page/32x768-f32.svg").is_file());

    let json = std::fs::read(folder.path().join("found.json")).expect("it was written");
    let report: Report = serde_json::from_slice(&json).expect("it can be read back");
    assert_eq!((report.schema, report.rows.len(), report.ceilings.len()), (SCHEMA, 9, 2));
    for row in &report.rows {
        let measured = row.outcome.as_ref().expect("it is measured");
        assert_eq!(measured.timing.milliseconds.len(), report.header.repetitions);
        assert!(measured.terabytes_per_second > 0.0 && measured.percent > 0.0);
    }
}

#[test]
fn a_run_is_held_against_an_earlier_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let only = ["--only", "32x768 f32 backward"];
    let run = |more: &[&str]| bench(&[&only, more].concat(), folder.path());
    assert!(run(&["--json", "old.json"]).status.success());
    // Against itself, with a band that no machine's mood reaches.
    let same = run(&["--compare", "old.json", "--noise", "1000"]);
    let text = String::from_utf8_lossy(&same.stdout);
    assert!(same.status.success() && text.contains("compared: 0 slower, "), "{text}");

    // Of what was a thousand times as fast, everything is slower.
    let path = folder.path().join("old.json");
    let mut old: Report =
        serde_json::from_slice(&std::fs::read(&path).expect("written")).expect("a report");
    for row in &mut old.rows {
        let summary = row.outcome.as_mut().expect("measured").summary.as_mut().expect("timed");
        summary.median /= 1e3;
        summary.p10 /= 1e3;
        summary.p90 /= 1e3;
    }
    std::fs::write(&path, serde_json::to_string(&old).expect("JSON")).expect("it can be written");
    let slower = run(&["--compare", "old.json"]);
    let text = String::from_utf8_lossy(&slower.stdout);
    assert!(!slower.status.success() && text.contains("compared: 9 slower, 0 faster"), "{text}");

    let other = bench(&["--only", "32x768 bf16 backward", "--compare", "old.json"], folder.path());
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && said.contains("no line that was measured here"), "{said}");
    let missing = run(&["--compare", "none.json"]);
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(!missing.status.success() && said.contains("none.json cannot be read"), "{said}");
}

#[test]
fn a_run_can_be_shown_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = bench(&["--only", "32x768 f32 backward", "--json", "old.json"], folder.path());
    assert!(ran.status.success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["bench", "--show", "old.json", "--html", "page"]).current_dir(folder.path());
    let shown = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.success(), "{said}");
    assert_eq!(shown.stdout, ran.stdout);
    assert!(folder.path().join("page/32x768-f32.svg").is_file());
    std::fs::write(folder.path().join("old.json"), "7").expect("it can be written");
    let broken = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(!broken.status.success() && said.contains("old.json cannot be read"), "{said}");
}

#[test]
fn without_a_gpu_it_says_why_and_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["bench", "--quick", "--json", "numbers.json"])
        .env("KASMINA_CUDA_LIBRARY", "/no/such/libcuda.so.1")
        .current_dir(folder.path())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no GPU to measure") && said.contains("/no/such/libcuda.so.1"), "{said}");
    assert!(said.contains("--device cpu"), "{said}");
    assert!(output.stdout.is_empty() && !folder.path().join("numbers.json").exists());
}

#[test]
fn what_cannot_be_measured_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let none = bench(&["--only", "sideways"], folder.path());
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert_eq!(none.status.code(), Some(1), "{said}");
    assert!(said.contains("\"sideways\""), "{said}");
    let nowhere =
        bench(&["--only", "32x768 f32 step", "--json", "no/such/folder.json"], folder.path());
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(!nowhere.status.success() && said.contains("no/such/folder.json"), "{said}");
    let device =
        Command::new(env!("CARGO_BIN_EXE_xtask")).args(["bench", "--device", "gpu"]).output();
    let said = String::from_utf8_lossy(&device.expect("it starts").stderr).into_owned();
    assert!(said.contains("give a GPU's number, as 0, or cpu"), "{said}");
}

#[test]
fn the_claims_need_a_gpu_and_say_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["bench", "--claims", "--quick", "--json", "claims.json"]).args(arguments);
        command.env("KASMINA_CUDA_LIBRARY", "/no/such/libcuda.so.1").current_dir(folder.path());
        let output = command.output().expect("it starts");
        assert!(output.stdout.is_empty() && !folder.path().join("claims.json").exists());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&[]);
    assert!(code == Some(2) && said.contains("/no/such/libcuda.so.1"), "{said}");
    let (code, said) = run(&["--device", "cpu"]);
    assert!(code == Some(1) && said.contains("--claims and --all measure a GPU"), "{said}");
    let (code, said) = run(&["--only", "sideways"]);
    assert!(code == Some(1) && said.contains("\"sideways\""), "{said}");
    let (code, said) = run(&["--peers"]);
    assert!(code == Some(2) && said.contains("cannot be used with"), "{said}");
}
