//! The peers' scripts on the CPU: their reference against the oracle, and each of them against the reference.

use std::path::Path;
use std::process::Command;

use xtask::bench::peers::{oracle_files, python, scripts};

#[test]
#[ignore = "needs a Python with PyTorch and Triton, by KASMINA_PYTHON or on PATH"]
fn peers_agree_with_their_reference_and_that_with_the_oracle() {
    let folder = tempfile::tempdir().expect("a folder");
    let main = scripts::write(folder.path()).expect("the scripts");
    let mut command = Command::new(python(None));
    command.arg(main).args(["--device", "cpu", "--check-only"]);
    for file in oracle_files(folder.path()).expect("the oracle's cases") {
        command.arg("--oracle").arg(file);
    }
    let output = command.output().expect("Python runs");
    let (said, progress) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{progress}");
    // Three passes of two types by four peers: there are no graphs without a GPU.
    assert_eq!(said.matches(r#""Ok""#).count(), 24, "{said}");
    assert!(said.trim_end().ends_with(r#"{"kind": "done"}"#), "{said}");
}

#[test]
fn an_oracle_case_of_the_peers_is_a_verification_case() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = oracle_files(folder.path()).expect("the oracle's cases");
    let read = |file: &Path| xtask::verify::Case::read(file).map(|case| case.seeds.len());
    assert!(files.iter().all(|file| read(file).is_ok_and(|seeds| seeds > 1)));
}
