//! How `.cu` files become fatbins: the one place that knows, for build scripts and for tools.
//!
//! - [`KernelSet`] is a crate's `kernels/` folder, [`Unit`] one `.cu` file with every header that it includes. A unit's
//!   hash covers those, the flags and the architectures, and needs no toolkit to compute.
//! - [`find_nvcc`] looks for a compiler and keeps the reason for each place passed by; [`install_nvcc`] brings one.
//! - [`compile`] writes `<name>.fatbin` and beside it a [`Record`] of what made it; [`status`] says whether that still holds.
//! - [`build_script`] is a build script's whole work: it takes fresh fatbins into the crate ([`embed`]), says why others were
//!   left out, and hands the crate's headers on to its dependents. It never runs a compiler.
//!
//! A crate with kernels has `include!(concat!(env!("OUT_DIR"), "/kernels.rs"));` in its library, this crate with the feature
//! `build` among its `[build-dependencies]`, and a `build.rs` whose `main` is
//!
//! ```no_run
//! kasmina_sys::build::build_script();
//! ```

// The build script takes this and `generate.rs` in by itself, under the feature `bindgen`.
#[cfg(test)]
mod bindings;
mod compile;
mod embed;
mod hash;
mod headers;
mod install;
mod nvcc;
mod ptx;
mod record;
mod report;
mod script;
mod signature;
mod sources;

use std::path::PathBuf;
use std::process::ExitStatus;

use crate::arch::Arch;

pub use compile::{FLAGS, compile};
pub use embed::embed;
pub use hash::Hash;
pub use headers::{HEADER_VARIABLES, HEADERS, find_headers};
pub use install::{
    PINNED_LIBCLANG, PINNED_PACKAGES, PINNED_RELEASE, install_headers, install_libclang,
    install_nvcc,
};
pub use nvcc::{Environment, Nvcc, Origin, PassedBy, Release, Search, find_nvcc};
pub use ptx::{TensorUse, without_bulk_tensor};
pub use record::{Record, Status, status};
pub use report::{Resources, parse_resources};
pub use script::{IMAGES_VARIABLE, build_script, headers_variable};
pub use signature::Signature;
pub use sources::{KernelSet, Unit};

/// The folder of a crate's kernels, beside its manifest.
pub const KERNEL_FOLDER: &str = "kernels";

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

    /// A build script's work was asked for outside of one.
    #[error("{variable} is not set; call this from a build.rs, to which Cargo gives it")]
    NoBuildScript {
        /// The variable.
        variable: &'static str,
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

    /// There are no headers to make bindings from.
    #[error(
        "the driver API's headers were not found; install the CUDA toolkit, 12.8 or later, and name its include folder in \
         KASMINA_CUDA_INCLUDE\n  {}",
        passed_by.join("\n  ")
    )]
    NoHeaders {
        /// Every place that was looked at, with what was wrong there.
        passed_by: Vec<String>,
    },

    /// The bindings could not be made.
    #[error(
        "no bindings from {}: {reason}; they need the headers of CUDA 12.8 or later (KASMINA_CUDA_INCLUDE), a C compiler, and \
         libclang (LIBCLANG_PATH)",
        include.display()
    )]
    Bindings {
        /// The folder of the headers.
        include: PathBuf,
        /// What was wrong.
        reason: String,
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

    /// The compiler did not leave what is read to judge its code.
    #[error(
        "nvcc {release} left no {what} of {} for {arch}; releases from {} to {PINNED_RELEASE} are known to",
        unit.display(),
        Release::OLDEST
    )]
    Unreported {
        /// The source.
        unit: PathBuf,
        /// The compiler's release.
        release: Release,
        /// The code in question.
        arch: Arch,
        /// What is missing.
        what: String,
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
