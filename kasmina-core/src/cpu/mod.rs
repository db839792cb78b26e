//! The CPU backend: tiles over threads, rows through L1, telemetry fused into the same pass.
//!
//! How the work is cut depends on shapes alone and partial results are merged in the order of the
//! cuts, so every result is bit for bit the same on any number of threads.

mod backward;
mod copy;
mod forward;
mod gathered;
mod gradients;
mod job;
mod matmul;
mod pointwise;
mod stencil;
mod strict;
mod sums;
mod tile;
mod transform;

pub(crate) use backward::BackwardCall;
pub(crate) use forward::ForwardCall;
pub(crate) use gradients::{Gradients, SeedGradient};
pub(crate) use job::{Job, Op, Role};
pub(crate) use strict::input_bounds;
pub(crate) use sums::Scratch;
pub(crate) use tile::{RawMat, RawMatMut, Watch};
