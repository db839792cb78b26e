//! Cargo builds the executables of a plan, and says where they lie; line tables are taken out of the copies.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::plan::{Kind, Plan, Target};
use crate::workspace;

/// An executable that Cargo built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// What was asked for.
    pub target: Target,
    /// The file.
    pub path: PathBuf,
}

/// Why something was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CargoError {
    /// It could not be started.
    #[error("`{command}` could not be started: {source}")]
    Start {
        /// What was to run.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// It failed; what it said stands on the terminal already.
    #[error("`{command}` failed{reason}")]
    Failed {
        /// What was run.
        command: String,
        /// What it said, where that did not go to the terminal.
        reason: String,
    },
    /// It built something else.
    #[error("`{command}` built no {kind} {name} of {package}")]
    Missing {
        /// What was run.
        command: String,
        /// What was expected.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its package.
        package: String,
    },
}

/// How line tables are taken out: of 33 MiB of this program they are 28. Symbols stay, for the names in backtraces, and are
/// less than 1 MiB of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strip {
    /// This program takes them out of the copy.
    Program(PathBuf),
    /// There is none: rustc leaves them out, which costs a build of everything.
    Rustc,
}

impl Strip {
    /// The first of `strip` and `llvm-strip` on `PATH`.
    #[must_use]
    pub fn find() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .flat_map(|folder| ["strip", "llvm-strip"].map(|name| folder.join(name)))
            .find(|file| file.is_file())
            .map_or(Self::Rustc, Self::Program)
    }

    /// Strips `file` in place.
    ///
    /// # Errors
    /// The program failed.
    pub fn run(&self, file: &Path) -> Result<(), CargoError> {
        let Self::Program(program) = self else { return Ok(()) };
        let mut command = Command::new(program);
        command.arg("--strip-debug").arg(file).stdin(Stdio::null());
        let text = format!("{} --strip-debug {}", program.display(), file.display());
        let output = command
            .output()
            .map_err(|source| CargoError::Start { command: text.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let reason = format!(": {}", String::from_utf8_lossy(&output.stderr).trim());
        Err(CargoError::Failed { command: text, reason })
    }
}

/// Builds every target in release, a kind at a time.
///
/// # Errors
/// See [`CargoError`].
pub fn build(root: &Path, plan: &Plan, strip: &Strip) -> Result<Vec<Built>, CargoError> {
    let mut built = Vec::new();
    for kind in [Kind::Tool, Kind::Test, Kind::Example, Kind::Bench] {
        let wanted: Vec<&Target> =
            plan.targets.iter().filter(|target| target.kind == kind).collect();
        if wanted.is_empty() {
            continue;
        }
        let arguments = arguments(kind, &wanted);
        let text = format!("cargo {}", arguments.join(" "));
        eprintln!("{text}");
        let artifacts = cargo(root, &arguments, &text, strip)?;
        for target in wanted {
            let path = find(&artifacts, plan, target).ok_or_else(|| CargoError::Missing {
                command: text.clone(),
                kind,
                name: target.name.clone(),
                package: target.package.clone(),
            })?;
            built.push(Built { target: target.clone(), path });
        }
    }
    Ok(built)
}

fn arguments(kind: Kind, wanted: &[&Target]) -> Vec<String> {
    let start: &[&str] = match kind {
        Kind::Tool | Kind::Example => &["build", "--release"],
        Kind::Test => &["test", "--release", "--no-run"],
        Kind::Bench => &["bench", "--no-run"],
    };
    let mut arguments: Vec<String> = start.iter().map(ToString::to_string).collect();
    arguments.push("--message-format=json-render-diagnostics".to_owned());
    // In sets: two packages may each have a target of one name, which Cargo takes once for both.
    let packages: BTreeSet<&str> = wanted.iter().map(|target| target.package.as_str()).collect();
    let names: BTreeSet<&str> = wanted.iter().map(|target| target.name.as_str()).collect();
    arguments
        .extend(packages.into_iter().flat_map(|name| ["--package".to_owned(), name.to_owned()]));
    arguments.extend(
        names.into_iter().flat_map(|name| [format!("--{}", kind.cargo()), name.to_owned()]),
    );
    arguments
}

/// Runs Cargo and returns what it wrote for programs; what it wrote for people goes to the terminal.
fn cargo(
    root: &Path,
    arguments: &[String],
    text: &str,
    strip: &Strip,
) -> Result<Vec<u8>, CargoError> {
    let mut command = workspace::cargo();
    command.args(arguments).current_dir(root).stdin(Stdio::null()).stderr(Stdio::inherit());
    if *strip == Strip::Rustc {
        command.env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
        command.env("CARGO_PROFILE_BENCH_STRIP", "debuginfo");
    }
    let output = command
        .output()
        .map_err(|source| CargoError::Start { command: text.to_owned(), source })?;
    if !output.status.success() {
        return Err(CargoError::Failed { command: text.to_owned(), reason: String::new() });
    }
    Ok(output.stdout)
}

#[derive(Deserialize)]
struct Artifact {
    package_id: String,
    target: ArtifactTarget,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    name: String,
    kind: Vec<String>,
}

/// The executable of `target` among Cargo's messages, one JSON object a line; other messages have other fields.
pub(crate) fn find(messages: &[u8], plan: &Plan, target: &Target) -> Option<PathBuf> {
    messages
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Artifact>(line).ok())
        .filter(|artifact| {
            plan.packages.get(&artifact.package_id) == Some(&target.package)
                && artifact.target.name == target.name
                && artifact.target.kind.iter().any(|kind| kind == target.kind.cargo())
        })
        .find_map(|artifact| artifact.executable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn target(package: &str, name: &str) -> Target {
        Target { kind: Kind::Test, package: package.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn one_call_builds_targets_of_one_name_in_two_packages() {
        let targets = [target("a", "gpu"), target("b", "gpu"), target("b", "maps")];
        let text = arguments(Kind::Test, &targets.iter().collect::<Vec<_>>()).join(" ");
        assert!(text.ends_with("--package a --package b --test gpu --test maps"), "{text}");
        assert!(text.starts_with("test --release --no-run"), "{text}");
    }

    #[test]
    fn executables_are_told_apart_by_package_name_and_kind() {
        let message = |id: &str, name: &str, kind: &str, file: Option<&str>| {
            json!({
                "reason": "compiler-artifact", "package_id": id, "executable": file,
                "target": { "name": name, "kind": [kind] },
            })
            .to_string()
        };
        let messages = [
            message("id-b", "gpu", "test", Some("/b")),
            message("id-a", "gpu", "lib", None),
            message("id-a", "gpu", "bench", Some("/bench")),
            "not json".to_owned(),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            message("id-a", "gpu", "test", Some("/a")),
        ]
        .join("\n");
        let plan = Plan {
            target_folder: PathBuf::new(),
            targets: Vec::new(),
            packages: [("id-a", "a"), ("id-b", "b")]
                .map(|(id, name)| (id.to_owned(), name.to_owned()))
                .into(),
        };
        assert_eq!(find(messages.as_bytes(), &plan, &target("a", "gpu")), Some("/a".into()));
        assert_eq!(find(messages.as_bytes(), &plan, &target("b", "gpu")), Some("/b".into()));
        assert_eq!(find(messages.as_bytes(), &plan, &target("a", "other")), None);
    }
}
