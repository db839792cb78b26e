//! How `.cu` files become fatbins: the one place that knows, for build scripts and for tools.
//!
//! - [`KernelSet`] is a crate's `kernels/` folder, [`Unit`] one `.cu` file with every header that it includes. A unit's
//!   hash covers those, the flags and the architectures, and needs no toolkit to compute.
//! - [`find_nvcc`] looks for a compiler and keeps the reason for each place passed by; [`install_nvcc`] brings one.
//! - [`compile`] writes `<name>.fatbin` and beside it a [`Record`] of what made it; [`status`] says whether that still holds.
//! - [`embed`] is a build script's whole work: it takes fresh fatbins into the crate and says why others were left out.
//!   It never runs a compiler.
//!
//! A crate with kernels has this in its `build.rs`:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kasmina_sys::build::{KernelSet, embed};
//!
//! let set = KernelSet::open(env!("CARGO_PKG_NAME"), "kernels".as_ref())?;
//! let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
//! for path in embed(&set, &out)? {
//!     println!("cargo::rerun-if-changed={}", path.display());
//! }
//! # Ok(())
//! # }
//! ```

mod compile;
mod embed;
mod hash;
mod install;
mod nvcc;
mod record;
mod report;
mod sources;

use std::path::PathBuf;
use std::process::ExitStatus;

pub use compile::{FLAGS, compile};
pub use embed::embed;
pub use hash::Hash;
pub use install::{PINNED_PACKAGES, PINNED_RELEASE, install_nvcc};
pub use nvcc::{Environment, Nvcc, Origin, PassedBy, Release, Search, find_nvcc};
pub use record::{Record, Status, status};
pub use report::{Resources, parse_resources};
pub use sources::{KernelSet, Unit};

/// Why kernels could not be found, compiled or taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// An include that no rule of this module can follow was seen by the compiler.
    #[error(
        "{} includes {}, which a scan of its #include \"…\" lines does not find; write the include as a plain line, so \
         that a change of that file makes the kernels stale",
        unit.display(),
        header.display()
    )]
    UntrackedHeader {
        /// The source.
        unit: PathBuf,
        /// The header that was missed.
        header: PathBuf,
    },

    /// A variable names a compiler that cannot be used.
    #[error("{variable} names {}: {reason}; point it at a working nvcc or unset it", path.display())]
    BadNvcc {
        /// The variable.
        variable: &'static str,
        /// What it names.
        path: PathBuf,
        /// What is wrong there.
        reason: String,
    },

    /// There is no folder to install into.
    #[error("no cache folder: set HOME, XDG_CACHE_HOME or KASMINA_CACHE_DIR")]
    NoCache,

    /// The installation failed.
    #[error(
        "`{command}` failed ({outcome}); it needs Python 3 with pip and a package index within reach. Or install the \
         CUDA toolkit {PINNED_RELEASE} and name its compiler in KASMINA_NVCC\n{output}"
    )]
    Install {
        /// What was run.
        command: String,
        /// How it ended.
        outcome: String,
        /// What it wrote.
        output: String,
    },

    /// nvcc refused a source.
    #[error("nvcc could not compile {} ({status})\n{output}", unit.display())]
    Compile {
        /// The source.
        unit: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        output: String,
    },

    /// A compilation for nothing.
    #[error("no architecture was asked for; name at least one, for example sm_90a")]
    NoArchitecture,

    /// Two sources of one name.
    #[error("{package} has kernels named {name} twice; names of .cu files must differ")]
    DuplicateUnit {
        /// The package.
        package: String,
        /// The name.
        name: String,
    },

    /// A file's name cannot become a Rust string and a file name again.
    #[error("{} has a name that is not plain ASCII letters, digits, '_' or '-'", path.display())]
    BadName {
        /// The file.
        path: PathBuf,
    },
}

impl BuildError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
