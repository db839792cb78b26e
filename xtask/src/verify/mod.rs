//! `cargo xtask verify FILE|DIR…`: runs verification cases on backends and judges what they compute.
//!
//! [`Case::parse`] reads a case with distrust, a [`Backend`] runs it, [`judge()`](judge::judge) compares by the
//! tolerances of the format, and this module finds the files, prints the table and decides the exit code.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod agree;
pub mod backend;
pub mod case;
pub(crate) mod container;
pub mod cpu;
pub mod cuda;
pub mod encode;
pub mod error;
pub mod judge;
pub mod plane;
pub mod seeds;
pub mod table;

pub use backend::{Backend, BackendError, Oracle};
pub use case::Case;
pub use cpu::Cpu;
pub use cuda::Cuda;
pub use error::{CaseError, Problem};

use kasmina_core::{Device, DeviceRequest};

use table::{Report, Row};

/// Arguments of `cargo xtask verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Case files, or directories of `*.safetensors` case files
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Which backends run the cases; `all` is the CPU, and the GPU where there is one
    #[arg(long, value_enum, default_value_t = Choice::All)]
    backend: Choice,
}

/// The values of `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The CPU backend
    Cpu,
    /// The GPU backend; an error where there is none
    Cuda,
    /// The CPU backend, and the GPU backend where there is one
    All,
    /// The f64 oracle: judges the case files themselves
    Oracle,
}

/// Runs the command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match run(args, &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why no case was run.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A path does not exist or cannot be listed.
    #[error("{path}: {source}")]
    Path {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The paths hold no case.
    #[error("no case found: {0} holds no *.safetensors file")]
    NothingFound(String),
    /// The backend that was asked for is not there.
    #[error("the cuda backend cannot run: {0}")]
    NoCuda(String),
    /// The report cannot be written.
    #[error("the report cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs every case on every chosen backend and writes the table to `out`. True if nothing failed.
///
/// # Errors
/// Paths that hold no case, and a backend that was asked for by name and is not there.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<bool, VerifyError> {
    let files = find(&args.paths)?;
    let backends = backends(args.backend, out)?;
    let mut report = Report::default();
    for file in &files {
        match Case::read(file) {
            Err(error) => report.add(Row::refused(file, &error)),
            Ok(case) => {
                for backend in &backends {
                    report.add(Row::judged(&case, backend.as_ref()));
                }
            }
        }
    }
    report.write(out)?;
    Ok(report.failed() == 0)
}

/// The backends of a choice. `all` says on `out` why the GPU is left out, where it is.
fn backends(choice: Choice, out: &mut dyn Write) -> Result<Vec<Box<dyn Backend>>, VerifyError> {
    Ok(match choice {
        Choice::Oracle => vec![Box::new(Oracle)],
        Choice::Cpu => vec![Box::new(Cpu)],
        Choice::Cuda => vec![Box::new(cuda().map_err(VerifyError::NoCuda)?)],
        Choice::All => match cuda() {
            Ok(cuda) => vec![Box::new(Cpu), Box::new(cuda)],
            Err(reason) => {
                writeln!(out, "cuda: skipped, {reason}")?;
                vec![Box::new(Cpu)]
            }
        },
    })
}

/// The GPU backend on the first device, or why there is none.
fn cuda() -> Result<Cuda, String> {
    let selection = Device::select(DeviceRequest::Cuda(0)).map_err(|reason| reason.to_string())?;
    let backend = Cuda::new(selection.device).map_err(|error| error.to_string())?;
    backend.ok_or_else(|| format!("{} is no GPU", selection.device))
}

/// The files named, and the `*.safetensors` files of the directories named, each directory in order of name.
///
/// # Errors
/// A path that cannot be read, or no file at all.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, VerifyError> {
    let failed =
        |path: &Path, source| VerifyError::Path { path: path.display().to_string(), source };
    let mut files = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(|e| failed(path, e))?;
        if !metadata.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|e| failed(path, e))? {
            let entry = entry.map_err(|e| failed(path, e))?.path();
            if entry.extension().is_some_and(|e| e == "safetensors") {
                found.push(entry);
            }
        }
        found.sort_unstable();
        files.append(&mut found);
    }
    if files.is_empty() {
        let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        return Err(VerifyError::NothingFound(names.join(", ")));
    }
    Ok(files)
}
