//! What can go wrong on the GPU.

use kasmina_sys::Unavailable;
use kasmina_tma::{EncodeError, LoadPath, NotPossible, Violation};

/// An error of the GPU backend. After one, what was on the device before the call is as it was, unless the device itself
/// failed ([`kasmina_sys::Error::Call`] with a code that says so).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// This crate was compiled without its GPU kernels' folder.
    #[error(
        "kasmina-core was compiled without the forward kernels; compile it from its whole package"
    )]
    NoImage,
    /// The driver, the device or the kernels cannot be had.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A call of the driver failed, or the safe layer refused it.
    #[error(transparent)]
    Driver(#[from] kasmina_sys::Error),
    /// The shape cannot be loaded in the way that was asked for.
    #[error(transparent)]
    Path(#[from] NotPossible),
    /// A tensor map could not be made.
    #[error(transparent)]
    Map(#[from] EncodeError),
    /// A tensor map's geometry broke a rule.
    #[error("a tile's tensor map breaks a rule: {0}")]
    Geometry(#[from] Violation),
    /// A branch that mixes the columns of its chunk has no column programs.
    #[error(
        "seed {seed} is on path with a branch that mixes columns; the streaming kernels do not run it"
    )]
    NotStreamed {
        /// The seed.
        seed: usize,
    },
    /// A bulk rung was forced for rows that end within a packet.
    #[error(
        "{path} was asked for and is not possible: a row has {columns} columns, which is no multiple of {per_packet}, and bulk \
         stores write whole packets of 16 bytes"
    )]
    RaggedRows {
        /// The rung.
        path: LoadPath,
        /// Columns of a row.
        columns: usize,
        /// Columns of a packet.
        per_packet: usize,
    },
    /// More rows or columns than the kernels count.
    #[error("{what} is {value}; the GPU kernels take at most {limit}")]
    TooLarge {
        /// Which.
        what: &'static str,
        /// What was given.
        value: usize,
        /// The greatest.
        limit: usize,
    },
    /// Two matrices of a call disagree, or one does not fit the layer.
    #[error("{what} is [{}, {}], but [{}, {}] is needed", found.0, found.1, needed.0, needed.1)]
    Shape {
        /// Which matrix.
        what: &'static str,
        /// Its rows and columns.
        found: (usize, usize),
        /// What is needed.
        needed: (usize, usize),
    },
}
