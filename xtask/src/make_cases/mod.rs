//! `cargo xtask make-cases DIR`: writes random cases, with expectations from the oracle, for `verify`.
//!
//! The stored cases pin the semantics; fresh ones reach the sizes, kinds and inputs that those do not.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod draw;

pub(crate) use draw::expect;
pub use draw::{Draw, DrawError, Limits};

/// Arguments of `cargo xtask make-cases`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory to write to; made if it is not there
    directory: PathBuf,
    /// How many cases to write
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Seed of the random numbers; the same seed gives the same files
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most elements of x in a case
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    max_elements: u32,
}

/// Why not all cases were written.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A path cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// No case could be drawn.
    #[error(transparent)]
    Draw(#[from] DrawError),
}

/// Runs the command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    match make(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(args: &Args) -> Result<(), MakeError> {
    let directory = &args.directory;
    std::fs::create_dir_all(directory).map_err(|e| failed(directory, e))?;
    let limits = Limits { elements: args.max_elements as usize };
    let mut bytes = 0;
    for index in 0..args.count {
        let case = Draw::new(args.seed, index as u64, limits).case()?;
        let path = directory.join(format!("{}.safetensors", case.name));
        let encoded = case.encode();
        bytes += encoded.len();
        std::fs::write(&path, encoded).map_err(|e| failed(&path, e))?;
    }
    let mut out = std::io::stdout().lock();
    let (count, directory) = (args.count, directory.display());
    writeln!(out, "{count} cases, {bytes} bytes, in {directory}")
        .map_err(|e| failed(Path::new("standard output"), e))
}

fn failed(path: &Path, source: std::io::Error) -> MakeError {
    MakeError::Write { path: path.display().to_string(), source }
}
