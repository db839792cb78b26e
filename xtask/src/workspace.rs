//! The workspace as files: its root, and the crates in it that carry kernels, as Cargo knows them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kasmina_sys::build::{BuildError, KERNEL_FOLDER, KernelSet, headers_variable};
use serde::Deserialize;

/// Why the workspace could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// A crate's kernels could not.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Cargo would not say what is in it.
    #[error("`{command}` failed: {reason}")]
    Cargo {
        /// What was run.
        command: String,
        /// What it said.
        reason: String,
    },
}

/// The folder of the workspace that `start` lies in: the nearest one upwards whose manifest has a `[workspace]` table.
pub fn root(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .find(|folder| {
            std::fs::read_to_string(folder.join("Cargo.toml"))
                .is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
        })
        .map(Path::to_owned)
}

/// The Cargo that runs this, else the one on `PATH`.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The kernels of every member of the workspace at `root` that has any, by the crates' names.
///
/// Their headers are those of the crate itself and of its `[dependencies]` in this workspace that have `links`, as the
/// crates' build scripts get to see them (`kasmina_sys::build::build_script`).
///
/// # Errors
/// Cargo does not understand the workspace, a folder or file cannot be read, or a name cannot be used.
pub fn kernel_sets(root: &Path) -> Result<Vec<KernelSet>, WorkspaceError> {
    let packages = metadata(root)?.packages;
    let mut sets = Vec::new();
    for package in &packages {
        let folder = package.folder().join(KERNEL_FOLDER);
        let set = KernelSet::open_with(&package.name, &folder, package.headers(&packages))?;
        sets.push(set);
    }
    sets.retain(|set| !set.units.is_empty());
    sets.sort_by(|a, b| a.package.cmp(&b.package));
    Ok(sets)
}

/// A member of the workspace, and the features that can be asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The package.
    pub name: String,
    /// Its features but `default`, in order of name.
    pub features: Vec<String>,
    /// Whether it may be published.
    pub is_published: bool,
}

/// Every member of the workspace at `root`.
///
/// # Errors
/// Cargo does not understand the workspace.
pub fn members(root: &Path) -> Result<Vec<Member>, WorkspaceError> {
    let member = |package: Package| Member {
        features: package.features.into_keys().filter(|name| name != "default").collect(),
        is_published: package.publish.is_none_or(|registries| !registries.is_empty()),
        name: package.name,
    };
    Ok(metadata(root)?.packages.into_iter().map(member).collect())
}

/// What `cargo metadata` says, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    links: Option<String>,
    dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
    /// The registries that it may go to: none where it may go nowhere, `None` for any.
    publish: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    /// None for `[dependencies]`: only those get to see what a build script hands on.
    kind: Option<String>,
    /// The folder, of a dependency that lies beside.
    path: Option<PathBuf>,
}

impl Package {
    fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new(""))
    }

    fn headers(&self, packages: &[Self]) -> Vec<PathBuf> {
        let mut found: Vec<(String, PathBuf)> = self
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.is_none())
            .filter_map(|dependency| {
                let path = dependency.path.as_deref()?;
                let package = packages.iter().find(|package| package.folder() == path)?;
                let headers = package.folder().join(KERNEL_FOLDER);
                let variable = headers_variable(package.links.as_deref()?);
                headers.is_dir().then_some((variable, headers))
            })
            .collect();
        found.sort();
        found.dedup();
        found.into_iter().map(|(_, folder)| folder).collect()
    }
}

fn metadata(root: &Path) -> Result<Metadata, WorkspaceError> {
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root);
    let failed = |reason: String| WorkspaceError::Cargo {
        command: format!("cargo metadata --no-deps in {}", root.display()),
        reason,
    };
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_from_below_and_the_probe_kernel_is_in_it() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = root(&here.join("src")).expect("this is a workspace");
        assert_eq!(root, here.parent().expect("xtask lies in the workspace"));
        let sets = kernel_sets(&root).expect("it is read");
        let sys = sets.iter().find(|set| set.package == "kasmina-sys").expect("it has kernels");
        assert!(sys.units.iter().any(|unit| unit.name == "probe"));
    }

    #[test]
    fn members_have_their_features_and_say_whether_they_are_published() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let members = members(here.parent().expect("the workspace")).expect("it is read");
        let find = |name: &str| members.iter().find(|one| one.name == name).expect("a member");
        assert!(find("kasmina-core").is_published && !find("xtask").is_published);
        assert_eq!(find("kasmina-core").features, ["candle", "candle-cuda"]);
    }

    #[test]
    fn a_folder_outside_any_workspace_has_no_root() {
        assert_eq!(root(Path::new("/")), None);
    }

    #[test]
    fn a_folder_that_is_no_workspace_is_an_error_in_cargos_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = kernel_sets(folder.path()).expect_err("there is no manifest").to_string();
        assert!(error.contains("cargo metadata") && error.contains("Cargo.toml"), "{error}");
    }
}
