#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod adamw;
mod backward;
mod error;
mod forward;
mod kind;
mod layer;
pub mod lifecycle;
pub mod margin;
pub mod stability;
pub mod telemetry;
mod transform;

pub use backward::{Backward, SeedGradients};
pub use error::OracleError;
pub use forward::{Forward, Probe};
pub use kind::{Activation, Kind, Parameter};
pub use layer::{Objective, OracleLayer, OracleSeed, Stability, StabilityMode};
