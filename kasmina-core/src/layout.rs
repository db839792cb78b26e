//! How a layer's columns are split into chunks, one seed a chunk.

use std::ops::Range;

use crate::{Error, Result};

/// The columns of a layer in chunks: seed `i` watches columns `i·chunk .. min((i+1)·chunk, hidden)`.
///
/// ```
/// use kasmina_core::SeedLayout;
/// let layout = SeedLayout::new(100, 48)?;
/// assert_eq!(layout.seeds(), 3);
/// assert_eq!(layout.columns(2), 96..100); // the last chunk may be short
/// # Ok::<(), kasmina_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeedLayout {
    hidden: usize,
    chunk: usize,
}

impl SeedLayout {
    /// The most columns a layer may have: seeds and columns are 32-bit indices on every backend.
    pub const MAX_HIDDEN: usize = i32::MAX as usize;

    /// A layer of `hidden` columns in chunks of `chunk`, `1 ≤ chunk ≤ hidden ≤` [`Self::MAX_HIDDEN`].
    ///
    /// # Errors
    /// [`Error::Zero`] or [`Error::TooLarge`], naming the size.
    pub fn new(hidden: usize, chunk: usize) -> Result<Self> {
        if hidden == 0 {
            return Err(Error::Zero { what: "hidden" });
        }
        if chunk == 0 {
            return Err(Error::Zero { what: "chunk" });
        }
        let limit = |what, value: usize, limit: usize| {
            (value <= limit).then_some(()).ok_or(Error::TooLarge {
                what,
                value: value as u64,
                limit: limit as u64,
            })
        };
        limit("hidden", hidden, Self::MAX_HIDDEN)?;
        limit("chunk (at most hidden)", chunk, hidden)?;
        Ok(Self { hidden, chunk })
    }

    /// Columns of the layer.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Columns of every chunk but perhaps the last.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Number of seeds, `ceil(hidden / chunk)`.
    pub fn seeds(&self) -> usize {
        self.hidden.div_ceil(self.chunk)
    }

    /// The columns of a seed; empty past the last seed.
    pub fn columns(&self, seed: usize) -> Range<usize> {
        let start = seed.saturating_mul(self.chunk).min(self.hidden);
        start..start.saturating_add(self.chunk).min(self.hidden)
    }

    /// Number of columns of a seed.
    pub fn chunk_len(&self, seed: usize) -> usize {
        self.columns(seed).len()
    }

    /// `seed` if the layer has it.
    ///
    /// # Errors
    /// [`Error::NoSuchSeed`].
    pub fn check(&self, seed: usize) -> Result<usize> {
        let seeds = self.seeds();
        if seed < seeds { Ok(seed) } else { Err(Error::NoSuchSeed { seed, seeds }) }
    }
}
