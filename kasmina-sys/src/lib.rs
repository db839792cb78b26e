#![doc = include_str!("../README.md")]

// Generated code names this crate by its own name, here as in every crate that carries kernels.
extern crate self as kasmina_sys;

pub mod arch;
#[cfg(feature = "build")]
pub mod build;
mod capability;
mod choice;
mod context;
mod device;
mod dl;
mod driver;
mod error;
mod image;
mod memory;
mod module;
pub mod raw;
mod result;
mod self_check;
mod unavailable;
mod version;

pub use arch::{Arch, CodeKind};
pub use capability::{ComputeCapability, ParseCapabilityError};
pub use choice::{
    DeviceChoice, DeviceProbe, DeviceRequest, ParseDeviceError, Probe, probe, probe_driver,
};
pub use context::{Context, current_context};
pub use device::{Device, DeviceInfo, Uuid};
pub use driver::{Driver, LIBRARY_VARIABLE};
pub use error::{Error, set_drop_error_hook};
#[doc(hidden)]
pub use image::Aligned;
pub use image::{BUILD_COMMAND, Fatbin, ImageState, KernelImage};
pub use memory::{DeviceBuffer, DeviceCopy};
pub use module::{Function, LaunchConfig, Module};
pub use raw::{DeviceAttribute, FunctionAttribute};
pub use result::CUresult;
pub use self_check::{SelfCheck, self_check};
pub use unavailable::Unavailable;
pub use version::CudaVersion;

/// This package's name, as messages about its kernels print it.
pub const PACKAGE: &str = env!("CARGO_PKG_NAME");

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
