//! The machine: loads images and runs their kernels.
//!
//! The threads of a grid are coroutines on one thread of the system, the one that calls [`Kernel::run`]. What runs next is drawn from
//! a seed (`KASMINA_SIMULATOR_SEED`), so a run can be had again. Grids of several streams run on as many threads beside each other.

mod abi;
mod barrier;
mod block;
mod bulk;
mod calls;
mod code;
mod copy;
mod fault;
mod grid;
mod image;
mod kernel;
mod maps;
mod mbarrier;
mod phases;
mod races;
mod random;
mod reduce;
mod run;
mod shared;
mod signals;
mod stack;
mod tensor;
mod thread;
mod warp;
mod watch;

use std::ops::Range;

pub use fault::{Fault, FaultKind};
pub use image::{Image, ImageError};
pub use kernel::{Kernel, Launch, Parameter};

/// What the machine knows of the device's memory: the driver side's book of allocations.
pub trait Memory: Sync {
    /// The live allocation that this address lies in: device memory, page-locked host memory and whatever else a kernel may touch.
    fn allocation_of(&self, address: u64) -> Option<Range<u64>>;
}
