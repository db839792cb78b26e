//! `cargo xtask gpu-bundle`: GPU tests, benches and examples as one folder that runs on a machine with a driver and no Rust.
//!
//! [`plan`] reads from the manifests what goes in, [`build`] has Cargo make it, [`contents`] describes it for readers and for
//! `run.sh`, which is a file of its own here. This module does one after the other and puts the folder together.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub mod build;
pub mod contents;
pub mod plan;

use build::{Built, CargoError, Strip};
use contents::{Contents, Kernel};
use kasmina_sys::build::{Status, status};
use plan::{Plan, PlanError};

use crate::workspace::{self, WorkspaceError};

/// What runs the bundle.
pub const RUN_SCRIPT: &str = include_str!("run.sh");

/// The file by which a folder is known to be a bundle, and may be made anew.
const MARK: &str = "bundle.tsv";

/// Arguments of `cargo xtask gpu-bundle`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder to make, gpu-bundle in Cargo's target folder unless given; an older bundle there is replaced
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Take the benches too
    #[arg(long)]
    benches: bool,
    /// Fail when the folder is larger
    #[arg(long, value_name = "MIB", default_value_t = 96)]
    max_mib: u64,
    /// Only what this package names; may be given again
    #[arg(long, value_name = "NAME")]
    package: Vec<String>,
    /// The verification cases to take along, those of the project's tests unless given
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The manifests do not say what to take.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Cargo did not build it.
    #[error(transparent)]
    Cargo(#[from] CargoError),
    /// The workspace or its kernels cannot be read.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// Started elsewhere.
    #[error("{0} lies in no Cargo workspace; run this inside the project")]
    NoWorkspace(PathBuf),
    /// Executables would carry no kernels, or those of other sources.
    #[error("the GPU kernels are not ready: {0}; run `{command}` and try again", command = kasmina_sys::BUILD_COMMAND)]
    Kernels(String),
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{} is there and is no bundle; name another folder with --out", .0.display())]
    Occupied(PathBuf),
    /// No cases.
    #[error("{} holds no *.safetensors file; name a folder of verification cases with --cases", .0.display())]
    NoCases(PathBuf),
    /// More than is allowed.
    #[error(
        "the bundle has {mib:.1} MiB, {max} are allowed; the largest: {largest}; leave packages out with --package, or raise --max-mib"
    )]
    TooLarge {
        /// Its size.
        mib: f64,
        /// What is allowed, in MiB.
        max: u64,
        /// The largest files with their sizes.
        largest: String,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { path, source }
}

/// Runs the command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    match run(args, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the bundle and says on `out` what is in it.
///
/// # Errors
/// See [`BundleError`]. A bundle that was there before stays as it is then.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), BundleError> {
    let here = std::env::current_dir().map_err(io_at(".".as_ref()))?;
    let root = workspace::root(&here).ok_or(BundleError::NoWorkspace(here))?;
    let plan = Plan::read(&root, &args.package, args.benches)?;
    let folder = args.out.clone().unwrap_or_else(|| plan.target_folder.join("gpu-bundle"));
    if folder.exists() && !folder.join(MARK).is_file() {
        return Err(BundleError::Occupied(folder));
    }
    let cases = find_cases(args.cases.as_deref().unwrap_or(&root.join("xtask/tests/cases")))?;
    let kernels = fresh_kernels(&root)?;
    let strip = Strip::find();
    let built = build::build(&root, &plan, &strip)?;

    // Beside the place, so that it can be moved there in one step when nothing can fail any more.
    let partial = folder.with_extension("partial");
    let contents = fill(&partial, &root, kernels, &built, &cases, &strip)
        .and_then(|contents| check_size(&contents, args.max_mib).map(|()| contents))
        .and_then(|contents| replace(&partial, &folder).map(|()| contents));
    let contents = match contents {
        Ok(contents) => contents,
        Err(error) => {
            // What went wrong is the message; a leftover folder is replaced by the next attempt.
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
    };
    contents.print(&folder, out).map_err(io_at("the output".as_ref()))
}

/// Every kernel of the workspace, all of them fresh.
fn fresh_kernels(root: &Path) -> Result<Vec<Kernel>, BundleError> {
    let (mut kernels, mut missing) = (Vec::new(), Vec::new());
    for set in workspace::kernel_sets(root)? {
        for unit in &set.units {
            let name = format!("{}/{}", set.package, unit.name);
            match status(unit).map_err(WorkspaceError::from)? {
                Status::Fresh(record) => {
                    kernels.push(Kernel::new(&set.package, &unit.name, &record))
                }
                Status::Stale { reason } => missing.push(format!("{name} is stale ({reason})")),
                Status::NotBuilt => missing.push(format!("{name} was not built")),
            }
        }
    }
    if missing.is_empty() { Ok(kernels) } else { Err(BundleError::Kernels(missing.join(", "))) }
}

fn find_cases(folder: &Path) -> Result<Vec<PathBuf>, BundleError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_at(folder))? {
        let path = entry.map_err(io_at(folder))?.path();
        if path.extension().is_some_and(|ending| ending == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err(BundleError::NoCases(folder.to_owned())) } else { Ok(files) }
}

/// Copies everything into `folder`, which is made anew.
fn fill(
    folder: &Path,
    root: &Path,
    kernels: Vec<Kernel>,
    built: &[Built],
    cases: &[PathBuf],
    strip: &Strip,
) -> Result<Contents, BundleError> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(io_at(folder))?;
    }
    for name in ["bin", "cases"] {
        let path = folder.join(name);
        fs::create_dir_all(&path).map_err(io_at(&path))?;
    }
    let mut contents = Contents::new(root, kernels);
    for executable in built {
        let target = &executable.target;
        let file = format!("bin/{}", target.file_name());
        let to = folder.join(&file);
        fs::copy(&executable.path, &to).map_err(io_at(&executable.path))?;
        strip.run(&to)?;
        let bytes = fs::read(&to).map_err(io_at(&to))?;
        contents.add_executable(target, file, &bytes);
    }
    for case in cases {
        let Some(name) = case.file_name() else { continue };
        let to = folder.join("cases").join(name);
        let bytes = fs::copy(case, &to).map_err(io_at(case))?;
        contents.add_case(bytes);
    }
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(io_at(&path))
    };
    write("manifest.json", &contents.to_json())?;
    write("run.sh", RUN_SCRIPT)?;
    make_executable(&folder.join("run.sh"))?;
    write(MARK, &contents.to_table())?;
    Ok(contents)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<(), BundleError> {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(io_at(path))
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> Result<(), BundleError> {
    Ok(())
}

fn check_size(contents: &Contents, max: u64) -> Result<(), BundleError> {
    let bytes = contents.total_bytes();
    if bytes <= max.saturating_mul(1 << 20) {
        return Ok(());
    }
    let mib = bytes as f64 / f64::from(1 << 20);
    Err(BundleError::TooLarge { mib, max, largest: contents.largest(3) })
}

/// Puts the finished folder in its place.
fn replace(partial: &Path, folder: &Path) -> Result<(), BundleError> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(io_at(folder))?;
    }
    fs::rename(partial, folder).map_err(io_at(folder))
}
