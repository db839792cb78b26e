#![doc = include_str!("../README.md")]

// Generated code names this crate by its own name, here as in every crate that carries kernels.
extern crate self as kasmina_sys;

pub mod arch;
mod arguments;
#[cfg(feature = "build")]
pub mod build;
mod capability;
mod capture;
mod choice;
mod context;
mod device;
mod dl;
mod driver;
mod error;
mod event;
mod function;
mod graph;
mod image;
mod launch;
mod memory;
mod module;
mod occupancy;
mod owned;
pub mod raw;
mod result;
mod self_check;
mod stream;
mod unavailable;
mod version;

pub use arch::{Arch, CodeKind};
pub use arguments::{ByValue, KernelArgument, KernelArguments};
pub use capability::{ComputeCapability, ParseCapabilityError};
pub use choice::{
    DeviceChoice, DeviceProbe, DeviceRequest, ParseDeviceError, Probe, probe, probe_driver,
};
pub use context::{Context, current_context};
pub use device::{Device, DeviceInfo, Uuid};
pub use driver::{Driver, LIBRARY_VARIABLE};
pub use error::{CaptureFault, Error, ParameterMismatch, set_drop_error_hook};
pub use event::Event;
pub use function::{Function, FunctionAttributes, Kernel, Parameter};
pub use graph::{
    CaptureMode, Chain, CopyCall, Graph, GraphExec, KernelCall, Link, Update, UpdateRefusal,
};
#[doc(hidden)]
pub use image::Aligned;
pub use image::{BUILD_COMMAND, Fatbin, ImageState, KernelImage};
pub use launch::{Dim3, LaunchConfig};
pub use memory::{
    AllocationId, AllocationWatch, Allocator, DeviceBuffer, DeviceCopy, DevicePointer, DeviceSlice,
    DeviceSliceMut, MemoryPool, NoPool, PinnedBuffer, PinnedKind, PoolUsage,
};
pub use module::Module;
pub use occupancy::BlockSuggestion;
pub use raw::{CUresult, DeviceAttribute, FunctionAttribute};
#[doc(hidden)]
pub use self_check::argument_bytes;
pub use self_check::{SelfCheck, self_check};
pub use stream::{Stream, StreamPriorities};
pub use unavailable::Unavailable;
pub use version::CudaVersion;

/// This package's name, as messages about its kernels print it.
pub const PACKAGE: &str = env!("CARGO_PKG_NAME");

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
