//! What goes into the bundle: every package names its GPU executables in `[package.metadata.kasmina]`, and Cargo reads that.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use serde_json::Value;

use crate::workspace;

/// The package whose `doctor` and `verify` go along.
const TOOL: &str = "xtask";

/// What an executable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// This program.
    Tool,
    /// Tests, with a harness that takes libtest's arguments.
    Test,
    /// An example, which fails by its exit code.
    Example,
    /// Benches, which run with `--bench`.
    Bench,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Tool, Self::Test, Self::Example, Self::Bench];

    /// The key in `[package.metadata.kasmina]`, for what is named there.
    fn key(self) -> Option<&'static str> {
        match self {
            Self::Tool => None,
            Self::Test => Some("gpu-tests"),
            Self::Example => Some("gpu-examples"),
            Self::Bench => Some("gpu-benches"),
        }
    }

    /// Cargo's word for such a target.
    #[must_use]
    pub fn cargo(self) -> &'static str {
        match self {
            Self::Tool => "bin",
            Self::Test => "test",
            Self::Example => "example",
            Self::Bench => "bench",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tool => "tool",
            Self::Test => "test",
            Self::Example => "example",
            Self::Bench => "bench",
        })
    }
}

/// One executable to build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// What it is.
    pub kind: Kind,
    /// Its package.
    pub package: String,
    /// Cargo's name of the target.
    pub name: String,
}

impl Target {
    /// The name in the bundle, which no two targets share.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self.kind {
            Kind::Tool => self.name.clone(),
            kind => format!("{}.{kind}.{}", self.package, self.name),
        }
    }
}

/// Everything to build, and where Cargo builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Cargo's target folder.
    pub target_folder: PathBuf,
    /// By kind, package and name.
    pub targets: Vec<Target>,
    /// The names of packages by Cargo's ids, which its messages use.
    pub packages: BTreeMap<String, String>,
}

/// Why it is not known what to build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Cargo did not answer, or not in its format.
    #[error("`cargo metadata` failed: {0}")]
    Metadata(String),
    /// A package that is not there.
    #[error("there is no package {name} in this workspace; it has {}", there.join(", "))]
    NoPackage {
        /// What was asked for.
        name: String,
        /// What there is.
        there: Vec<String>,
    },
    /// A key of the table that nothing reads, or that holds something else than names.
    #[error("[package.metadata.kasmina] of {package}: {key} {problem}")]
    Key {
        /// The package.
        package: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A name without a target.
    #[error("{key} of {package} names {name:?}; its {kind} targets are {there:?}")]
    NoTarget {
        /// The package.
        package: String,
        /// The key, or `xtask` itself.
        key: &'static str,
        /// What it names.
        name: String,
        /// The kind that it must have.
        kind: &'static str,
        /// The targets of that kind.
        there: Vec<String>,
    },
    /// Nothing but the tool itself.
    #[error(
        "no package names GPU executables; write gpu-tests = [\"gpu\"] under [package.metadata.kasmina] in its Cargo.toml"
    )]
    Nothing,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    id: String,
    metadata: Option<Value>,
    targets: Vec<CargoTarget>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
    kind: Vec<String>,
}

impl Plan {
    /// Asks Cargo about the workspace at `root`. An empty `only` means every package.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn read(root: &Path, only: &[String], benches: bool) -> Result<Self, PlanError> {
        let output = workspace::cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(root)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| PlanError::Metadata(error.to_string()))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(PlanError::Metadata(reason));
        }
        Self::parse(&output.stdout, only, benches)
    }

    /// [`Plan::read`] for what `cargo metadata` wrote.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn parse(json: &[u8], only: &[String], benches: bool) -> Result<Self, PlanError> {
        let metadata: Metadata =
            serde_json::from_slice(json).map_err(|error| PlanError::Metadata(error.to_string()))?;
        let packages = &metadata.packages;
        for name in only {
            if !packages.iter().any(|package| package.name == *name) {
                let there = packages.iter().map(|package| package.name.clone()).collect();
                return Err(PlanError::NoPackage { name: name.clone(), there });
            }
        }
        let mut targets = Vec::new();
        for package in packages {
            let named = package.named()?;
            if only.is_empty() || only.contains(&package.name) {
                targets.extend(named);
            }
        }
        targets.retain(|target| benches || target.kind != Kind::Bench);
        if targets.is_empty() {
            return Err(PlanError::Nothing);
        }
        let there = packages.iter().map(|package| package.name.clone()).collect();
        let tool = packages
            .iter()
            .find(|package| package.name == TOOL)
            .ok_or(PlanError::NoPackage { name: TOOL.to_owned(), there })?;
        targets.push(tool.target(Kind::Tool, TOOL, TOOL)?);
        targets.sort();
        targets.dedup();
        let packages =
            packages.iter().map(|package| (package.id.clone(), package.name.clone())).collect();
        Ok(Self { target_folder: metadata.target_directory, targets, packages })
    }
}

impl Package {
    /// The GPU executables that the package names.
    fn named(&self) -> Result<Vec<Target>, PlanError> {
        let table = self.metadata.as_ref().and_then(|metadata| metadata.get("kasmina"));
        let Some(table) = table.and_then(Value::as_object) else { return Ok(Vec::new()) };
        let mut targets = Vec::new();
        for (key, value) in table {
            let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.key() == Some(key)) else {
                // Other tools may keep their own keys there; one that looks like ours is a slip.
                if key.starts_with("gpu") {
                    let known = Kind::ALL.into_iter().filter_map(Kind::key).collect::<Vec<_>>();
                    return Err(
                        self.bad_key(key, format!("is not known; there are {}", known.join(", ")))
                    );
                }
                continue;
            };
            let names: Vec<String> = serde_json::from_value(value.clone())
                .map_err(|error| self.bad_key(key, format!("is no list of names: {error}")))?;
            for name in names {
                targets.push(self.target(kind, kind.key().unwrap_or(TOOL), &name)?);
            }
        }
        Ok(targets)
    }

    fn bad_key(&self, key: &str, problem: String) -> PlanError {
        PlanError::Key { package: self.name.clone(), key: key.to_owned(), problem }
    }

    fn target(&self, kind: Kind, key: &'static str, name: &str) -> Result<Target, PlanError> {
        let there: Vec<String> = self
            .targets
            .iter()
            .filter(|target| target.kind.iter().any(|known| known == kind.cargo()))
            .map(|target| target.name.clone())
            .collect();
        if there.iter().any(|known| known == name) {
            return Ok(Target { kind, package: self.name.clone(), name: name.to_owned() });
        }
        Err(PlanError::NoTarget {
            package: self.name.clone(),
            key,
            name: name.to_owned(),
            kind: kind.cargo(),
            there,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace(table: Value) -> Vec<u8> {
        json!({
            "target_directory": "/t",
            "packages": [
                { "name": "alpha", "id": "id-a", "metadata": { "kasmina": table, "docs": {} }, "targets": [
                    { "name": "alpha", "kind": ["lib"] },
                    { "name": "gpu", "kind": ["test"] },
                    { "name": "driver", "kind": ["bench"] },
                    { "name": "copy", "kind": ["example"] },
                ]},
                { "name": "plain", "id": "id-p", "metadata": null, "targets": [] },
                { "name": "xtask", "id": "id-x", "metadata": null, "targets": [
                    { "name": "xtask", "kind": ["bin"] },
                ]},
            ],
        })
        .to_string()
        .into_bytes()
    }

    fn files(plan: &Plan) -> Vec<String> {
        plan.targets.iter().map(Target::file_name).collect()
    }

    #[test]
    fn what_manifests_name_is_taken_and_benches_when_asked() {
        let json = workspace(
            json!({ "gpu-tests": ["gpu"], "gpu-benches": ["driver"], "gpu-examples": ["copy"], "other": 1 }),
        );
        let plan = Plan::parse(&json, &[], false).expect("a plan");
        assert_eq!(files(&plan), ["xtask", "alpha.test.gpu", "alpha.example.copy"]);
        assert_eq!(plan.packages["id-a"], "alpha");
        let plan = Plan::parse(&json, &["alpha".to_owned()], true).expect("a plan");
        assert_eq!(
            files(&plan),
            ["xtask", "alpha.test.gpu", "alpha.example.copy", "alpha.bench.driver"]
        );
    }

    #[test]
    fn slips_are_named_and_never_pass_for_an_empty_list() {
        let fails = |table: Value, only: &[&str], parts: &[&str]| {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            let text = Plan::parse(&workspace(table), &only, true).expect_err("a slip").to_string();
            for part in parts {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
        };
        fails(
            json!({ "gpu-test": ["gpu"] }),
            &[],
            &["alpha", "gpu-test is not known", "gpu-tests"],
        );
        fails(json!({ "gpu-tests": "gpu" }), &[], &["alpha", "gpu-tests is no list"]);
        fails(json!({ "gpu-tests": ["cpu"] }), &[], &["alpha", "\"cpu\"", "[\"gpu\"]"]);
        fails(json!({ "gpu-tests": ["driver"] }), &[], &["\"driver\"", "test targets"]);
        fails(
            json!({ "gpu-tests": ["gpu"] }),
            &["beta"],
            &["no package beta", "alpha, plain, xtask"],
        );
        fails(json!({ "gpu-tests": ["gpu"] }), &["plain"], &["no package names"]);
        fails(json!({}), &[], &["no package names", "gpu-tests"]);
        let text = Plan::parse(b"{}", &[], true).expect_err("no metadata").to_string();
        assert!(text.contains("cargo metadata"), "{text}");
    }
}
