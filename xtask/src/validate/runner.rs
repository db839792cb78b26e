//! Cargo's test runner as a witness: the tests that executables list, and what running some of them came to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::workspace;

/// A test as its runner lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    /// The crate.
    pub(super) package: String,
    /// The test target, or `lib`.
    pub(super) target: String,
    /// The name, with its module's path.
    pub(super) name: String,
}

/// What a run of a test executable came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Tests that passed.
    pub(super) passed: usize,
    /// Tests that failed.
    pub(super) failed: usize,
    /// Tests that were ignored.
    pub(super) ignored: usize,
}

/// Builds the named targets of the whole workspace and asks each for its tests; those that are marked as ignored are left out, since
/// nothing runs them.
///
/// All packages at once, as `cargo test --workspace` has them, so that what it built is not built again.
///
/// # Errors
/// Cargo or an executable failed.
pub(super) fn list(root: &Path, targets: &BTreeSet<&str>) -> Result<BTreeSet<Test>, String> {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    for target in targets {
        match *target {
            "lib" => command.arg("--lib"),
            target => command.args(["--test", target]),
        };
    }
    let output = run(command.current_dir(root).stderr(Stdio::inherit()))?;
    let mut tests = BTreeSet::new();
    for executable in executables(&output) {
        let names = |extra: &[&str]| -> Result<BTreeSet<String>, String> {
            let mut command = Command::new(&executable.path);
            command.args(["--list", "--format", "terse"]).args(extra);
            Ok(listed(&run(command.current_dir(root))?))
        };
        let ignored = names(&["--ignored"])?;
        // Harnesses that decide at run time what they ignore list the same names for both.
        let all = names(&[])?;
        let kept = if ignored == all { BTreeSet::new() } else { ignored };
        tests.extend(all.difference(&kept).map(|name| Test {
            package: executable.package.clone(),
            target: executable.target.clone(),
            name: name.clone(),
        }));
    }
    Ok(tests)
}

/// Runs the tests of one target whose names contain one of `filters`.
///
/// # Errors
/// Nothing was run: Cargo failed before, or its output has no result.
pub(super) fn test(
    root: &Path,
    package: &str,
    target: &str,
    filters: &[&str],
) -> Result<Counts, String> {
    let mut command = workspace::cargo();
    command.args(["test", "--package", package, "--test", target, "--"]).args(filters);
    let output = command.current_dir(root).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cargo could not be started: {error}"))?;
    counts(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().last().unwrap_or_default();
        format!("cargo test -p {package} --test {target} gave no result: {last}")
    })
}

fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let text = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{text} could not be started: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{text} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

struct Executable {
    package: String,
    target: String,
    path: PathBuf,
}

#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: ArtifactTarget,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// The test executables among Cargo's messages, one JSON object a line.
fn executables(messages: &[u8]) -> Vec<Executable> {
    let executable = |artifact: Artifact| {
        let path = artifact.executable.filter(|_| artifact.profile.test)?;
        let kind = artifact.target.kind.first()?.as_str();
        let target = if kind == "lib" { "lib" } else { artifact.target.name.as_str() };
        // The folder is the package's name; ids are written in two ways.
        let folder = artifact.manifest_path.parent()?.file_name()?.to_string_lossy();
        Some(Executable { package: folder.into_owned(), target: target.to_owned(), path })
    };
    messages
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Artifact>(line).ok())
        .filter_map(executable)
        .collect()
}

/// The names in a runner's list, `name: test` a line.
fn listed(output: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// The numbers of a runner's last line.
fn counts(output: &str) -> Option<Counts> {
    let line = output.lines().rev().find(|line| line.starts_with("test result: "))?;
    let number = |word: &str| {
        let part = line.split([';', '.']).find(|part| part.trim().ends_with(word))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        ignored: number("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_numbers_are_read() {
        let line = "test a ... ok\ntest result: FAILED. 7 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; \
                    finished in 0.24s\n";
        assert_eq!(counts(line), Some(Counts { passed: 7, failed: 2, ignored: 1 }));
        assert_eq!(counts("error: could not compile"), None);
    }

    #[test]
    fn the_list_is_read_without_benches_and_counts() {
        let names = listed(b"a::b: test\nc: test\nd: benchmark\n\n2 tests, 1 benchmark\n");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a::b", "c"]);
    }

    #[test]
    fn executables_are_named_by_folder_and_target() {
        let message = |name: &str, kind: &str, test: bool, file: Option<&str>| {
            serde_json::json!({
                "reason": "compiler-artifact", "manifest_path": "/w/kasmina-x/Cargo.toml",
                "target": { "name": name, "kind": [kind] }, "profile": { "test": test },
                "executable": file,
            })
            .to_string()
        };
        let messages = [
            message("kasmina_x", "lib", false, None),
            message("kasmina_x", "lib", true, Some("/lib")),
            message("gpu", "test", true, Some("/gpu")),
            message("tool", "bin", false, Some("/tool")),
            "no json".to_owned(),
        ];
        let found = executables(messages.join("\n").as_bytes());
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.package.as_str(), one.target.as_str(), one.path.to_str()))
            .collect();
        let name = "kasmina-x";
        assert_eq!(found, [(name, "lib", Some("/lib")), (name, "gpu", Some("/gpu"))]);
    }
}
