//! Kasmina's engine: a layer that watches its activations chunk by chunk and grows a small trainable
//! transformation wherever a chunk needs one.
//!
//! The crate reads from the outside in:
//!
//! - [`SeedLayout`] splits a layer's columns into chunks, one *seed* a chunk.
//! - [`State`] and [`Command`] are the lifecycle; [`Lifecycle`] owns every transition and its side effects.
//! - [`Blueprint`] is what a seed can grow into; [`Registry`] names them, user-defined kinds included.
//! - [`lower`] compiles states and parameters into column programs, stencils and matrices.
//! - [`Layer`] runs forward and backward over them, with telemetry fused in.

mod activation;
mod blueprint;
#[cfg(feature = "candle")]
pub mod candle;
mod command;
mod cpu;
pub mod cuda;
mod device;
mod element;
mod error;
mod layer;
mod layout;
pub mod lower;
mod matrix;
mod stability;
mod state;

pub mod checkpoint;
pub mod controller;
pub mod graft;
pub mod lifecycle;
pub mod optimizer;

pub use activation::Activation;
pub use blueprint::{
    Blueprint, BlueprintId, MAX_TAPS, ParameterLayout, ParameterSpec, Registry, UserBlueprint,
};
pub use command::{Command, Germination, Objective};
pub use controller::{Controller, Decision, HeuristicController};
pub use device::{Device, DeviceSelection, hardware};
pub use element::{DType, Element};
pub use error::{Error, Result};
pub use graft::Strategy;
pub use kasmina_sys::{DeviceRequest, Unavailable};
pub use layer::{
    EpochReport, ForwardOptions, Layer, LayerBuilder, LayerState, OverheadOptions, Probe,
    TelemetryState,
};
pub use layout::SeedLayout;
pub use lifecycle::{InitialSeed, Lifecycle, LifecycleConfig, Readiness, SeedSignals};
pub use matrix::{MatMut, MatRef};
pub use optimizer::AdamW;
pub use stability::{Bounds, Stability, StabilityMode};
pub use state::State;

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
