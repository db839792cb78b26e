//! `bench` as a user runs it where there is no GPU.

use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("bench")
        .args(arguments)
        .env("KASMINA_CUDA_LIBRARY", "/no/such/libcuda.so.1")
        .output()
        .expect("it runs")
}

#[test]
fn bench_without_a_gpu_says_why_and_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("numbers.json");
    let output = bench(&["--quick", "--json", file.to_str().expect("a path")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no GPU to measure") && said.contains("/no/such/libcuda.so.1"), "{said}");
    assert!(output.stdout.is_empty() && !file.exists());
}

#[test]
fn bench_of_no_line_is_an_error_of_another_code() {
    let output = bench(&["--only", "sideways"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("sideways"));
}
