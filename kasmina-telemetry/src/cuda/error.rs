//! What can go wrong on the GPU.

use kasmina_sys::Unavailable;

use crate::{ReductionStrategy, TelemetryError};

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
    /// This reduction has one strategy on the GPU.
    #[error("{found:?} was asked for, but this reduction runs with {needed:?} alone on the GPU")]
    Strategy {
        /// The strategy asked for.
        found: ReductionStrategy,
        /// The one there is.
        needed: ReductionStrategy,
    },
}
