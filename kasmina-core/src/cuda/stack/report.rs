//! How a stack's pass ran.

use std::fmt;
use std::ops::Range;

use super::plan::{OwnLaunches, Run};

/// Layers that ran in one launch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FusedLayers {
    /// Their places in the stack.
    pub layers: Range<usize>,
    /// The kernel.
    pub kernel: String,
    /// Blocks that were launched.
    pub blocks: u32,
    /// Threads of each.
    pub threads: u32,
    /// Columns of a block's tile, and rows that it has at a time.
    pub tile: (u32, u32),
}

/// How a pass of a [`LayerStack`](super::LayerStack) ran: what went into one launch, and why the rest did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct StackReport {
    /// The launches over several layers.
    pub fused: Vec<FusedLayers>,
    /// Layers that ran by their own launches, each with the reason.
    pub own: Vec<(usize, OwnLaunches)>,
}

impl StackReport {
    /// Layers that shared a launch.
    pub fn fused_layers(&self) -> usize {
        self.fused.iter().map(|run| run.layers.len()).sum()
    }

    pub(super) fn add_own(&mut self, run: &Run) {
        if let Run::Own { layer, why } = run {
            self.own.push((*layer, *why));
        }
    }
}

impl fmt::Display for StackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} layers in {} launches", self.fused_layers(), self.fused.len())?;
        for FusedLayers { layers, kernel, blocks, threads, tile } in &self.fused {
            write!(
                f,
                "; {}..{}: {kernel}, {blocks} blocks of {threads} threads, tiles of {} columns and {} rows",
                layers.start, layers.end, tile.0, tile.1
            )?;
        }
        for (layer, why) in &self.own {
            write!(f, "; layer {layer} by its own launches: {why}")?;
        }
        Ok(())
    }
}
