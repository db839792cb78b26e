//! `build-kernels` as a user runs it, in a small workspace and with a shell script in nvcc's place.
#![cfg(unix)]

#[path = "../../kasmina-sys/tests/fake_nvcc/mod.rs"]
mod fake_nvcc;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn workspace() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let kernels = root.path().join("some-crate/kernels");
    fs::create_dir_all(&kernels).expect("a folder");
    let write = |path: &Path, text: &str| fs::write(path, text).expect("it is written");
    write(&root.path().join("Cargo.toml"), "[workspace]\nmembers = [\"some-crate\"]\n");
    write(&root.path().join("some-crate/Cargo.toml"), "[package]\nname = \"some-crate\"\n");
    write(&kernels.join("tile.cu"), "int tile;\n");
    fake_nvcc::fake_nvcc(root.path(), "13.0.88");
    root
}

fn build_kernels(root: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("build-kernels")
        .args(arguments)
        .current_dir(root.join("some-crate"))
        .env("KASMINA_NVCC", root.join("bin/nvcc"))
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_builds_once_and_shows_what_each_kernel_takes() {
    let root = workspace();
    let first = build_kernels(root.path(), &[]);
    let shown = text(&first.stdout);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(shown.contains("some-crate/tile: built for sm_80, sm_90a"), "{shown}");
    for part in ["sm_90a", "40", "128", "KASMINA_NVCC"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(root.path().join("some-crate/kernels/tile.fatbin").is_file());
    assert!(text(&build_kernels(root.path(), &[]).stdout).contains("tile: fresh"));
    let other = build_kernels(root.path(), &["--arch", "sm_90a,compute_90"]);
    assert!(text(&other.stdout).contains("built for sm_90a, compute_90 in"));
}

#[test]
fn check_fails_on_spills_and_names_the_kernel_also_when_it_is_fresh() {
    let root = workspace();
    for _ in 0..2 {
        let checked = build_kernels(root.path(), &["--check"]);
        assert!(!checked.status.success());
        let said = text(&checked.stderr);
        assert!(said.contains("k for sm_90a (4 B stored, 4 B loaded)"), "{said}");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let root = workspace();
    let wrong = build_kernels(root.path(), &["--arch", "sm_9"]);
    assert!(text(&wrong.stderr).contains("sm_9"), "{}", text(&wrong.stderr));
    fs::write(root.path().join("some-crate/kernels/tile.cu"), "BROKEN").expect("it is written");
    let broken = build_kernels(root.path(), &[]);
    assert!(!broken.status.success());
    assert!(text(&broken.stderr).contains("broken on purpose"), "{}", text(&broken.stderr));
    let outside = build_kernels(root.path(), &["--help"]);
    assert!(outside.status.success());
}
