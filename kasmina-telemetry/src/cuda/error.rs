//! What can go wrong on the GPU.

use kasmina_sys::Unavailable;

use crate::TelemetryError;

/// An error of a reduction on a GPU. Nothing was written where it comes before the launch, as all but the driver's own do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// This crate was compiled without its GPU kernels' folder.
    #[error(
        "kasmina-telemetry was compiled without the kernels of {image}; compile it from its whole package"
    )]
    NoImage {
        /// The fatbin that is missing.
        image: String,
    },
    /// The driver, the device or the kernels cannot be had.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A call of the driver failed, or the safe layer refused it.
    #[error(transparent)]
    Driver(#[from] kasmina_sys::Error),
    /// What the CPU refuses, too.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Elements that do not lie at multiples of their size.
    #[error(
        "`{what}` begins at {address:#x}, but a multiple of the element's {element} bytes is needed"
    )]
    Misaligned {
        /// Name of the argument.
        what: &'static str,
        /// Where it begins.
        address: u64,
        /// Bytes of an element.
        element: usize,
    },
    /// More threads or loads under way than the kernels are made for.
    #[error("`{what}` is {value}, but {limit} is needed")]
    Launch {
        /// Which part of the launch.
        what: &'static str,
        /// The value given.
        value: u32,
        /// What is accepted.
        limit: &'static str,
    },
    /// Too little memory is free to measure on.
    #[error("{needed} bytes are needed to measure on, and {allowed} may be taken of what is free")]
    NoRoom {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that may be taken.
        allowed: u64,
    },
    /// A reduction in a captured stream needs more scratch memory than there is.
    #[error(
        "the stream is being captured, and {needed} bytes of scratch memory are needed where {have} are; queue the same reduction \
         once before the capture"
    )]
    GrowsWhileCaptured {
        /// Bytes that are needed.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// A reduction that waits for its result, in a captured stream.
    #[error(
        "the stream is being captured, and nothing can be waited for; use the form that ends in _into"
    )]
    WaitsWhileCaptured,
}
