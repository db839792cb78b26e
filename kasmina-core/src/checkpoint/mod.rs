//! Checkpoints: a layer's whole state in one safetensors file.
//!
//! The file holds a fixed number of tensors, however many seeds there are: one column for each field of the
//! seeds' rows, one packed tensor for the parameters of all grown seeds in ascending order, and so on. Its
//! `__metadata__` has one entry, `kasmina`, with the text `layer <schema> <crc32> <json>`; the JSON holds
//! the settings and a CRC-32 of every tensor, and the CRC-32 before it is that of the JSON. One entry, because
//! the order of several would not be fixed, and equal states are to give equal files.
//!
//! Writing goes through a temporary file ([`save`]); reading trusts nothing ([`LayerState::from_bytes`]).

mod assemble;
mod columns;
mod error;
mod file;
mod grown;
mod meta;
mod migrate;
mod pack;
mod raw;
mod rows;
mod schema;
mod telemetry;
mod text;

use std::path::Path;
use std::sync::Arc;

pub use error::CheckpointError;

use crate::graft::GraftStrategy;
use crate::{LayerState, Registry};

type Result<T, E = CheckpointError> = std::result::Result<T, E>;

/// What a checkpoint needs from the program that loads it: user-defined things are saved by name.
#[derive(Clone, Copy, Debug)]
pub struct Extensions<'a> {
    /// Blueprints; those of the file that are not in it are added, user-defined ones must be in it.
    pub registry: &'a Registry,
    /// User-defined graft strategies.
    pub strategies: &'a [Arc<dyn GraftStrategy>],
}

impl<'a> Extensions<'a> {
    /// A registry, and no user-defined strategies.
    pub fn new(registry: &'a Registry) -> Self {
        Self { registry, strategies: &[] }
    }
}

impl<'a> From<&'a Registry> for Extensions<'a> {
    fn from(registry: &'a Registry) -> Self {
        Self::new(registry)
    }
}

impl LayerState {
    /// The state as the bytes of a checkpoint file. Equal states give equal bytes.
    ///
    /// # Errors
    /// [`CheckpointError`] if the state is one that could not be loaded again: a damaged row, a parameter
    /// that is not finite, a setting out of range.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        pack::pack(self)
    }

    /// A state from the bytes of a checkpoint file of this schema or an older one. Ids of blueprints that
    /// are in `registry` stay what they are there.
    ///
    /// # Errors
    /// [`CheckpointError`], naming what is damaged, contradictory, too new, or not registered. Nothing is
    /// allocated by what the file claims, only by what it holds.
    pub fn from_bytes(bytes: &[u8], registry: &Registry) -> Result<Self, CheckpointError> {
        Self::from_bytes_with(bytes, Extensions::new(registry))
    }

    /// As [`LayerState::from_bytes`], with user-defined strategies too.
    ///
    /// # Errors
    /// As [`LayerState::from_bytes`].
    pub fn from_bytes_with(
        bytes: &[u8],
        extensions: Extensions<'_>,
    ) -> Result<Self, CheckpointError> {
        assemble::assemble(schema::read(bytes)?, extensions)
    }
}

/// Writes a checkpoint: to a temporary file in the same folder, synced, renamed over `path`, and the folder
/// synced. A failure or a crash at any point leaves a whole file at `path`: the old one, or, once renamed,
/// the new one. A failure leaves no temporary file; a crash may leave one, `.<name>.<process>.<n>.tmp`.
///
/// # Errors
/// [`CheckpointError::Io`] with the path and what the system said, and those of [`LayerState::to_bytes`].
pub fn save(state: &LayerState, path: &Path) -> Result<(), CheckpointError> {
    file::replace(path, &state.to_bytes()?, &mut |_| Ok(()))
}

/// Reads a checkpoint.
///
/// # Errors
/// [`CheckpointError::Io`], and those of [`LayerState::from_bytes`].
pub fn load(path: &Path, registry: &Registry) -> Result<LayerState, CheckpointError> {
    load_with(path, Extensions::new(registry))
}

/// Reads a checkpoint with user-defined strategies.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, extensions: Extensions<'_>) -> Result<LayerState, CheckpointError> {
    let bytes = std::fs::read(path).map_err(|source| CheckpointError::io(path, "read", source))?;
    LayerState::from_bytes_with(&bytes, extensions)
}
