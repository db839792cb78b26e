//! What can be wrong with a checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::lifecycle::IntegrityFault;

/// Why a checkpoint was not written or not read. Neither a file nor a layer is left half done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are no whole safetensors file.
    #[error("damaged or no safetensors file: {reason}")]
    Container {
        /// What the parser said.
        reason: String,
    },
    /// A safetensors file of something else.
    #[error("this safetensors file is no kasmina layer: {reason}")]
    NotALayer {
        /// What is missing.
        reason: &'static str,
    },
    /// A schema that this version does not know.
    #[error(
        "the checkpoint has schema {found}, but this version reads schemas 1 to {newest}; load it with the \
         version that wrote it, or a newer one"
    )]
    Schema {
        /// The file's schema.
        found: u32,
        /// The newest that this version reads.
        newest: u32,
    },
    /// The settings cannot be read.
    #[error("the checkpoint's settings are damaged: {reason}")]
    Metadata {
        /// What the parser said.
        reason: String,
    },
    /// A sum does not fit what it stands for.
    #[error("{what} is damaged: CRC-32 {found:08x}, but {stored:08x} was stored with it")]
    Crc {
        /// The tensor, or the settings.
        what: String,
        /// The sum in the file.
        stored: u32,
        /// The sum of what is there.
        found: u32,
    },
    /// Rows whose own sums do not fit.
    #[error("{count} of the seeds' rows are damaged; the first: {first}")]
    Integrity {
        /// How many.
        count: usize,
        /// The first.
        first: IntegrityFault,
    },
    /// A tensor is not there.
    #[error("tensor {tensor:?} is missing")]
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A tensor that does not belong into the file.
    #[error("tensor {tensor:?} does not belong into a layer's checkpoint")]
    Unexpected {
        /// Its name.
        tensor: String,
    },
    /// A tensor of another type or shape.
    #[error("tensor {tensor:?} is {found}, but {needed} is needed")]
    Tensor {
        /// Its name.
        tensor: String,
        /// Its type and shape.
        found: String,
        /// The type and shape that are needed.
        needed: String,
    },
    /// An element that is out of its range or contradicts another.
    #[error("element {index} of {tensor:?} is {value}; it must be {legal}")]
    Element {
        /// The tensor.
        tensor: &'static str,
        /// The element.
        index: usize,
        /// Its value.
        value: String,
        /// What it may be.
        legal: String,
    },
    /// A blueprint that is registered under the same name with another definition.
    #[error(
        "the checkpoint's blueprint {name:?} is {saved}, but the registry has {registered} under that name"
    )]
    BlueprintMismatch {
        /// The name.
        name: String,
        /// The definition in the file.
        saved: String,
        /// The definition in the registry.
        registered: String,
    },
    /// A user-defined blueprint or strategy that the loading program did not provide.
    #[error("the checkpoint uses the user-defined {what} {name:?}; provide it when loading")]
    NotProvided {
        /// Blueprint or strategy.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The device did not give up the state that was to be written.
    #[error("the layer cannot be fetched from the device: {0}")]
    Device(#[from] crate::cuda::CudaError),
    /// A setting or state that the engine refuses.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl CheckpointError {
    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }

    pub(super) fn element(
        tensor: &'static str,
        index: usize,
        value: impl ToString,
        legal: impl Into<String>,
    ) -> Self {
        Self::Element { tensor, index, value: value.to_string(), legal: legal.into() }
    }
}
