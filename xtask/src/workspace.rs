//! The workspace as files: its root, and the crates in it that carry kernels.

use std::path::{Path, PathBuf};

use kasmina_sys::build::{BuildError, KernelSet};

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

/// The kernels of every crate below `root` that has any, by the crates' names.
///
/// # Errors
/// A folder or file that cannot be read, or a name that cannot be used.
pub fn kernel_sets(root: &Path) -> Result<Vec<KernelSet>, BuildError> {
    let io = |source| BuildError::Io { path: root.to_owned(), source };
    let mut sets = Vec::new();
    for entry in std::fs::read_dir(root).map_err(io)? {
        let folder = entry.map_err(io)?.path();
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|_| folder.join("Cargo.toml").is_file()) {
            sets.push(KernelSet::open(&name, &folder.join("kernels"))?);
        }
    }
    sets.retain(|set| !set.units.is_empty());
    sets.sort_by(|a, b| a.package.cmp(&b.package));
    Ok(sets)
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
    fn a_folder_outside_any_workspace_has_no_root() {
        assert_eq!(root(Path::new("/")), None);
    }
}
