//! `bindings` as a user runs it, with a shell script in Cargo's place: neither libclang nor a toolkit is needed. What bindgen
//! makes of the pinned headers is compared by the command itself.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Workspace(tempfile::TempDir);

impl Workspace {
    /// A workspace with `committed` bindings, and a Cargo that makes the ones in `made.rs` and then exits with `status`.
    fn new(committed: Option<&str>, made: &str, status: u8) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let workspace = Self(root);
        workspace.write("Cargo.toml", "[workspace]\nmembers = [\"kasmina-sys\"]\n");
        workspace.write("kasmina-sys/src/lib.rs", "");
        if let Some(text) = committed {
            workspace.write("kasmina-sys/src/bindings.rs", text);
        }
        workspace.write("include/cuda.h", "");
        workspace.write("include/cudaTypedefs.h", "");
        workspace.write("made.rs", made);
        workspace.write(
            "cargo",
            &format!(
                r#"#!/bin/sh
root="{root}"
[ "$1" = check ] || exit 9
case "$*" in *"--features bindgen"*) ;; *) exit 9 ;; esac
[ -n "$BINDGEN_EXTRA_CLANG_ARGS" ] && exit 9
echo "$KASMINA_CUDA_INCLUDE|$LIBCLANG_PATH" > "$root/seen"
mkdir -p "$root/out"
echo '{{"reason":"compiler-artifact","package_id":"registry+https://example.org#libc@0.2.0"}}'
if grep -q UNMADE "$root/made.rs"; then echo "no libclang" >&2; exit 101; fi
cp "$root/made.rs" "$root/out/bindings.rs"
echo '{{"reason":"build-script-executed","package_id":"registry+https://example.org#libc@0.2.0","out_dir":"/nowhere"}}'
echo '{{"reason":"build-script-executed","package_id":"path+file://'"$root"'/kasmina-sys#0.1.0","out_dir":"'"$root"'/out"}}'
exit {status}
"#,
                root = workspace.0.path().display()
            ),
        );
        let script = workspace.path("cargo");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("an executable");
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it lies below the root")).expect("a folder");
        fs::write(path, text).expect("it is written");
    }

    fn committed(&self) -> Option<String> {
        fs::read_to_string(self.path("kasmina-sys/src/bindings.rs")).ok()
    }

    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .arg("bindings")
            .args(arguments)
            .current_dir(self.path("kasmina-sys"))
            .env("CARGO", self.path("cargo"))
            .env("LIBCLANG_PATH", "/some/libclang")
            .env("BINDGEN_EXTRA_CLANG_ARGS", "-DMINE")
            .output()
            .expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (status.success(), text(&stdout) + &text(&stderr))
    }
}

const INCLUDE: [&str; 2] = ["--include", "../include"];
const CHECK: [&str; 3] = ["--check", "--include", "../include"];

#[test]
fn what_differs_fails_the_check_and_is_written_without_it() {
    let workspace = Workspace::new(Some("one\ntwo\n"), "one\n2\n", 0);
    let (passed, said) = workspace.run(&CHECK);
    assert!(!passed);
    for part in ["bindings.rs", "line 2", "  two\n", "  2\n", "cargo xtask bindings"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(workspace.committed().as_deref(), Some("one\ntwo\n"), "a check changes nothing");

    let (passed, said) = workspace.run(&INCLUDE);
    assert!(passed && said.contains("written"), "{said}");
    assert_eq!(workspace.committed().as_deref(), Some("one\n2\n"));
    assert!(workspace.run(&CHECK).0, "now they are the same");
    let seen = fs::read_to_string(workspace.path("seen")).expect("it was called");
    let (include, libclang) = seen.trim().split_once('|').expect("two parts");
    assert!(Path::new(include).is_absolute() && libclang == "/some/libclang", "{seen}");
    assert_eq!(
        fs::canonicalize(include).ok(),
        fs::canonicalize(workspace.path("include")).ok(),
        "the user's folder is taken"
    );
}

#[test]
fn a_file_that_is_gone_is_made_anew() {
    let workspace = Workspace::new(None, "one\n", 0);
    assert!(!workspace.run(&CHECK).0);
    assert!(workspace.run(&INCLUDE).0);
    assert_eq!(workspace.committed().as_deref(), Some("one\n"));
}

#[test]
fn a_crate_that_does_not_compile_gets_its_bindings_and_the_failure_is_said() {
    let workspace = Workspace::new(Some("one\n"), "two\n", 101);
    let (passed, said) = workspace.run(&INCLUDE);
    assert!(!passed && said.contains("does not compile"), "{said}");
    assert_eq!(workspace.committed().as_deref(), Some("two\n"));
    assert!(!workspace.run(&CHECK).0, "the same bytes, and still nothing that compiles");
}

#[test]
fn what_could_not_be_made_leaves_the_file_alone() {
    let workspace = Workspace::new(Some("one\n"), "UNMADE", 0);
    let (passed, said) = workspace.run(&INCLUDE);
    assert!(
        !passed && said.contains("no libclang") && said.contains("could not be made"),
        "{said}"
    );
    assert_eq!(workspace.committed().as_deref(), Some("one\n"));

    fs::remove_file(workspace.path("include/cudaTypedefs.h")).expect("it goes");
    let (passed, said) = workspace.run(&INCLUDE);
    assert!(!passed && said.contains("no cudaTypedefs.h in"), "{said}");
}

#[test]
fn outside_a_workspace_it_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["bindings", "--check"])
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("no Cargo workspace"), "{said}");
}
