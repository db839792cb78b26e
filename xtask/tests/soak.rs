//! The soak as a command: its own process, because it limits the size of files for moments and replaces the panic hook.

use std::process::Command;

/// A short run's output, which must have succeeded.
fn soak(seed: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["soak", "--quick", "--seed", seed])
        .output()
        .expect("the command starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(errors.is_empty(), "the injected panics are silent: {errors}");
    text
}

fn digest(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("digest ")).expect("a digest")
}

#[test]
fn a_run_passes_and_its_seed_repeats_it() {
    let first = soak("5");
    assert!(first.contains("leaks: ") && first.contains("coverage: every state and every fault"));
    assert_eq!(digest(&soak("5")), digest(&first));
    assert_ne!(digest(&soak("6")), digest(&first));
}

#[test]
fn too_few_epochs_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["soak", "--epochs", "3"])
        .output()
        .expect("the command starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && errors.contains("3 is not in 8.."), "{errors}");
}

#[test]
fn without_a_gpu_it_says_why_and_runs_nothing() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("soak").args(arguments).env("KASMINA_CUDA_LIBRARY", "/no/such/libcuda.so.1");
        let output = command.output().expect("the command starts");
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["--backend", "cuda", "--quick"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("no GPU for the soak") && said.contains("/no/such/libcuda.so.1"),
        "{said}"
    );
    assert!(said.contains("--backend cpu"), "{said}");
    let (code, said) = run(&["--fill-memory"]);
    assert!(code == Some(1) && said.contains("give --backend cuda with it"), "{said}");
}
