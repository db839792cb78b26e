//! What a build script does, whole: which kernels are the crate's, whose headers they may include, and what Cargo is told.
//!
//! **Headers across crates.** A crate that has `links = "<name>"` in its manifest hands the folder of its kernels on, through
//! Cargo, to every crate that names it in `[dependencies]`; those then write `#include "header.cuh"`. It holds for crates
//! out of a registry as for neighbours in a workspace, because Cargo knows where a dependency lies and nobody else does.
//! `cargo xtask build-kernels` follows the same rule from the manifests, so both sides hash the same files.

use std::path::{Path, PathBuf};

use super::embed::embed;
use super::nvcc::Environment;
use super::sources::KernelSet;
use super::{BuildError, KERNEL_FOLDER};

/// The end of the variables through which Cargo hands on what a `links` crate says: `DEP_KASMINA_TMA_KERNEL_HEADERS`.
const HEADERS_SUFFIX: &str = "_KERNEL_HEADERS";

/// The variable that names a folder with a folder of images for each package, in the place of those beside the sources. `cargo xtask
/// simulate` sets it. What lies there is judged by the same rule: a record that fits the sources.
pub const IMAGES_VARIABLE: &str = "KASMINA_KERNEL_IMAGES";

/// The variable in which the build scripts of dependents find the headers of a crate with this `links` name.
///
/// Folders are searched in the order of these names: who computes a kernel's hash elsewhere sorts by them.
pub fn headers_variable(links: &str) -> String {
    let name: String =
        links.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }).collect();
    format!("DEP_{name}{HEADERS_SUFFIX}")
}

/// A build script's whole work: takes the crate's fresh fatbins in ([`embed`]) and tells Cargo what to watch and to hand on.
///
/// Whatever fails becomes Cargo's error message of this crate's build.
pub fn build_script() {
    match directives(&Environment::of_process()) {
        Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
        Err(error) => {
            // One directive a line is all that Cargo reads.
            error.to_string().lines().for_each(|line| println!("cargo::error={line}"));
        }
    }
}

/// Does the work and returns the lines for Cargo.
fn directives(environment: &Environment) -> Result<Vec<String>, BuildError> {
    let required = |name: &'static str| {
        environment.get(name).ok_or(BuildError::NoBuildScript { variable: name })
    };
    let package = required("CARGO_PKG_NAME")?.to_string_lossy();
    let folder = Path::new(required("CARGO_MANIFEST_DIR")?).join(KERNEL_FOLDER);
    let mut set = KernelSet::open_with(&package, &folder, header_folders(environment))?;
    if let Some(images) = environment.get(IMAGES_VARIABLE).filter(|images| !images.is_empty()) {
        set = set.with_images_in(&Path::new(images).join(&*package));
    }
    let watched = embed(&set, Path::new(required("OUT_DIR")?))?;
    let mut lines = Vec::new();
    if folder.is_dir() {
        lines.extend(
            watched.iter().map(|path| format!("cargo::rerun-if-changed={}", path.display())),
        );
        lines.push(format!("cargo::rerun-if-env-changed={IMAGES_VARIABLE}"));
        if environment.get("CARGO_MANIFEST_LINKS").is_some() {
            lines.push(format!("cargo::metadata=kernel_headers={}", folder.display()));
        }
    }
    // Without the folder nothing is said, and Cargo watches the whole package: the folder may come.
    Ok(lines)
}

/// What the dependencies handed on, in the order of the variables' names.
fn header_folders(environment: &Environment) -> Vec<PathBuf> {
    environment
        .iter()
        .filter(|(name, _)| name.starts_with("DEP_") && name.ends_with(HEADERS_SUFFIX))
        .map(|(_, folder)| PathBuf::from(folder))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Hash, PINNED_RELEASE, Record};
    use std::ffi::OsStr;
    use std::fs;

    #[test]
    fn the_variable_is_named_as_cargo_names_it() {
        assert_eq!(headers_variable("kasmina-tma"), "DEP_KASMINA_TMA_KERNEL_HEADERS");
    }

    #[test]
    fn cargo_is_told_what_to_watch_and_a_crate_with_links_hands_its_folder_on() {
        let root = tempfile::tempdir().expect("a folder");
        let (ours, theirs) = (root.path().join("kernels"), root.path().join("theirs"));
        let script = |extra: &[(&str, &OsStr)]| {
            let always = [
                ("CARGO_PKG_NAME", OsStr::new("kasmina-x")),
                ("CARGO_MANIFEST_DIR", root.path().as_os_str()),
                ("OUT_DIR", root.path().as_os_str()),
            ];
            directives(&Environment::of(always.into_iter().chain(extra.iter().copied())))
                .expect("nothing is wrong")
        };
        assert!(script(&[("CARGO_MANIFEST_LINKS", OsStr::new("x"))]).is_empty(), "no kernels yet");

        fs::create_dir(&ours).expect("a folder");
        fs::create_dir(&theirs).expect("a folder");
        let watch = |path: &Path| format!("cargo::rerun-if-changed={}", path.display());
        let variable = "cargo::rerun-if-env-changed=KASMINA_KERNEL_IMAGES".to_owned();
        assert_eq!(script(&[]), [watch(&ours), variable.clone()]);
        let handed_on = ("DEP_Y_KERNEL_HEADERS", theirs.as_os_str());
        assert_eq!(
            script(&[handed_on, ("CARGO_MANIFEST_LINKS", OsStr::new("x"))]),
            [
                watch(&ours),
                watch(&theirs),
                variable,
                format!("cargo::metadata=kernel_headers={}", ours.display())
            ]
        );
    }

    #[test]
    fn images_from_elsewhere_are_judged_by_their_own_record_and_watched() {
        let root = tempfile::tempdir().expect("a folder");
        let (kernels, elsewhere) = (root.path().join("kernels"), root.path().join("elsewhere"));
        let images = elsewhere.join("kasmina-x");
        fs::create_dir(&kernels).expect("a folder");
        fs::create_dir_all(&images).expect("a folder");
        fs::write(kernels.join("a.cu"), "// a").expect("a file");
        let embedded = |images: &OsStr| {
            let variables = [
                ("CARGO_PKG_NAME", OsStr::new("kasmina-x")),
                ("CARGO_MANIFEST_DIR", root.path().as_os_str()),
                ("OUT_DIR", root.path().as_os_str()),
                (IMAGES_VARIABLE, images),
            ];
            let lines = directives(&Environment::of(variables)).expect("nothing is wrong");
            (lines, fs::read_to_string(root.path().join("kernels.rs")).expect("it was written"))
        };
        // One beside the source, which counts only where nothing else is asked for.
        fs::write(kernels.join("a.fatbin"), "a").expect("a file");
        assert!(embedded(OsStr::new("")).1.contains("there is no record"));
        let (lines, text) = embedded(elsewhere.as_os_str());
        assert!(text.contains("ImageState::NotBuilt"), "{text}");
        assert!(
            lines.contains(&format!("cargo::rerun-if-changed={}", images.display())),
            "{lines:?}"
        );

        fs::write(images.join("a.fatbin"), "image").expect("a file");
        let set = KernelSet::open("kasmina-x", &kernels).expect("it is read");
        let archs = vec!["sm_90a".parse().expect("an architecture")];
        let record = Record {
            sources: set.units[0].hash(&archs).expect("it is read"),
            fatbin: Hash::of(b"image"),
            nvcc: PINNED_RELEASE,
            archs,
            resources: Vec::new(),
            tensors: Vec::new(),
            signatures: Vec::new(),
        };
        fs::write(images.join("a.fatbin.record"), record.to_text()).expect("a file");
        assert!(embedded(elsewhere.as_os_str()).1.contains("ImageState::Embedded"));
        fs::write(kernels.join("a.cu"), "// b").expect("a file");
        assert!(embedded(elsewhere.as_os_str()).1.contains("have changed since"));
    }

    #[test]
    fn folders_come_in_the_order_of_the_names_and_others_libraries_are_none_of_ours() {
        let environment = Environment::of([
            ("DEP_B_KERNEL_HEADERS", OsStr::new("/b")),
            ("DEP_A_KERNEL_HEADERS", OsStr::new("/a")),
            ("DEP_Z_INCLUDE", OsStr::new("/z")),
            ("KERNEL_HEADERS", OsStr::new("/k")),
        ]);
        assert_eq!(header_folders(&environment), [PathBuf::from("/a"), PathBuf::from("/b")]);
    }

    #[test]
    fn outside_a_build_script_the_missing_variable_is_named() {
        let error = directives(&Environment::default()).expect_err("there is no Cargo");
        assert!(error.to_string().contains("CARGO_PKG_NAME"), "{error}");
    }
}
