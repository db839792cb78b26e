//! Cargo builds the driver and the test executables, which take the simulator's images in.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use kasmina_sys::build::IMAGES_VARIABLE;

use super::Failure;
use crate::gpu_bundle::build::find;
use crate::gpu_bundle::plan::{Kind, Plan, Target};
use crate::workspace;

/// The package with the driver, and its library's file.
const DRIVER: &str = "kasmina-simulator";
const LIBRARY: &str = "libkasmina_simulator.so";

/// An executable with tests.
#[derive(Clone, Debug)]
pub(super) struct Executable {
    /// Its package.
    pub(super) package: String,
    /// The file.
    pub(super) path: PathBuf,
}

/// What was built.
#[derive(Clone, Debug)]
pub(super) struct Built {
    /// The driver.
    pub(super) library: PathBuf,
    /// By the packages' names.
    pub(super) tests: Vec<Executable>,
}

/// Builds the driver, and the GPU tests of these packages, of all where none is named.
pub(super) fn build(
    root: &Path,
    folder: &Path,
    images: &Path,
    only: &[String],
) -> Result<Built, Failure> {
    let mut plan = Plan::read(root, only, false)?;
    plan.targets.retain(|target| target.kind == Kind::Test);
    cargo(
        root,
        folder,
        images,
        &["build".to_owned(), "--package".to_owned(), DRIVER.to_owned(), "--lib".to_owned()],
    )?;
    let mut arguments = vec!["test".to_owned(), "--no-run".to_owned()];
    for Target { package, name, .. } in &plan.targets {
        arguments.extend(["--package", package, "--test", name].map(str::to_owned));
    }
    let messages = cargo(root, folder, images, &arguments)?;
    let tests = plan.targets.iter().map(|target| {
        let path = find(&messages, &plan, target).ok_or_else(|| {
            Failure::Cargo(format!("cargo built no test {} of {}", target.name, target.package))
        })?;
        Ok(Executable { package: target.package.clone(), path })
    });
    Ok(Built {
        library: folder.join("debug").join(LIBRARY),
        tests: tests.collect::<Result<_, Failure>>()?,
    })
}

/// Runs Cargo in a target folder of its own: what it builds there holds the simulator's images.
fn cargo(
    root: &Path,
    folder: &Path,
    images: &Path,
    arguments: &[String],
) -> Result<Vec<u8>, Failure> {
    let text = format!("cargo {}", arguments.join(" "));
    eprintln!("{text}");
    let output = workspace::cargo()
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .env("CARGO_TARGET_DIR", folder)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env(IMAGES_VARIABLE, images)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::Cargo(format!("`{text}` could not be started: {error}")))?;
    if !output.status.success() {
        return Err(Failure::Cargo(format!("`{text}` failed")));
    }
    Ok(output.stdout)
}
