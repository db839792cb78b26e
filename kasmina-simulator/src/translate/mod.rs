//! From a `.cu` file to an image: preprocessed, translated to plain C++ and compiled by the host's g++ into a shared library.

mod asm;
mod compile;
mod declarations;
mod ptx;
mod rewrite;
mod tokens;

use std::path::{Path, PathBuf};

/// One `.cu` file.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The file's name without the ending; also the image's.
    pub name: String,
    /// The file.
    pub source: PathBuf,
    /// Where includes are looked for after the including file's own folder.
    pub include: Vec<PathBuf>,
}

/// What an image is made for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device's compute capability, ten times the major number and the minor one: 90 or 80. 90 stands for `sm_90a`.
    pub capability: u32,
    /// Whether every access to memory is reported to the race detector, which takes ten times the time.
    pub races: bool,
    /// The compiler; `g++` where the caller knows none better.
    pub compiler: PathBuf,
    /// More definitions for the preprocessor, `NAME` or `NAME=value`.
    pub defines: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { capability: 90, races: false, compiler: "g++".into(), defines: Vec::new() }
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranslateError {
    /// A file or a program could not be used.
    #[error("{path}: {source}")]
    Io {
        /// Of what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The compiler refused the source; its words are in the text.
    #[error("{step} of {unit} failed:\n{output}")]
    Compiler {
        /// The unit's name.
        unit: String,
        /// "preprocessing" or "compilation".
        step: &'static str,
        /// What it printed.
        output: String,
    },
    /// Something in the source that the translation does not know.
    #[error("{place}: {reason}")]
    Source {
        /// File and line.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

/// Makes `NAME.so` in `out_dir` and returns its path.
///
/// # Errors
/// [`TranslateError`].
pub fn build(unit: &Unit, out_dir: &Path, options: &Options) -> Result<PathBuf, TranslateError> {
    compile::build(unit, out_dir, options)
}
