//! The GPU backend: streaming kernels over column programs, on any device with the kernels of this crate.
//!
//! [`Engine`] is a device with the kernels loaded. [`Streams`] keeps one layer's programs and statistics on it and runs the
//! forward pass. How a matrix is cut is in `geometry`, which kernels there are in `variants`.

mod engine;
mod error;
mod forward;
mod geometry;
mod matrix;
mod params;
mod variants;

pub use engine::Engine;
pub use error::CudaError;
pub use forward::{Forward, ForwardReport, Streams};
pub use matrix::{DeviceMatMut, DeviceMatRef};
#[doc(hidden)]
pub use variants::{generated_sources, kernel_names};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
