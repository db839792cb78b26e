//! The GPU backend: streaming kernels over column programs, on any device with the kernels of this crate.
//!
//! [`Engine`] is a device with the kernels loaded, [`CudaLayer`] a layer that lives and trains there. [`Streams`] keeps one
//! layer's programs and statistics; `forward` and `backward` are its streaming passes. How a matrix is cut is in `geometry`, which
//! kernels there are and what they need in `variants`. Filters are in `stencil`, their cut in `stencil_cut`; bottleneck and dense
//! branches in `matrices`; what goes seed by seed in `seeds`.
//!
//! From the bottom up: what is on the device (`columns`, `cuts`, `streams`), the passes, the layer, what runs layers' steps otherwise
//! than by plain calls (`step_graph`, `executor`, `stack`), and `execution`, which chooses among them. Nothing knows what is above it;
//! what a layer must know of a grid that uses its memory is in `residents`.

mod backward;
mod backward_state;
mod columns;
mod cuts;
mod engine;
mod error;
pub mod execution;
pub mod executor;
mod facts;
mod forward;
mod geometry;
mod hand_over;
mod job;
mod layer;
mod loading;
mod matrices;
mod matrix;
mod matrix_work;
mod params;
mod rehearsal;
mod residents;
mod seeds;
mod stack;
mod stencil;
mod stencil_cut;
mod step_graph;
mod streams;
mod tape;
#[doc(hidden)]
pub mod testing;
mod testing_bench;
mod testing_claims;
mod testing_matrices;
#[doc(hidden)]
pub mod testing_seeds;
mod tune;
mod uploads;
mod variants;
mod whole_input;

pub use backward::{Backward, BackwardReport};
pub use engine::Engine;
pub use error::CudaError;
pub use execution::{
    Choice, ExecutionMode, ParseExecutionError, RunnerOptions, SharedPart, SharedStep, StepEnd,
    StepRun, StepRunner, StepRunnerReport, Trials, Way, WayReport,
};
pub use executor::{
    ExecutorError, ExecutorOptions, ExecutorReport, PersistentExecutor, Priority, ResidentStep,
    ResidentStepBuilder, SharedLayer, SharedMatrix, Ticket,
};
#[doc(hidden)]
pub use facts::{StreamingKernel, argument_bytes, streaming_kernels};
pub use forward::{Forward, ForwardReport};
#[cfg(feature = "candle")]
pub(crate) use layer::runs_user_blueprint;
pub use layer::{
    CudaLayer, LayerReport, LayerStep, OptimizerSummary, PublishOutcome, PublishedEpoch,
};
pub use matrix::{DeviceMatMut, DeviceMatRef};
#[doc(hidden)]
pub use rehearsal::{Found, Rehearsal};
pub use stack::{FusedLayers, LayerStack, OwnLaunches, StackCut, StackError, StackReport};
pub use step_graph::{
    Instantiation, Room, Step, StepGraph, StepGraphError, StepGraphOptions, StepGraphReport,
};
pub use streams::Streams;
#[doc(hidden)]
pub use testing_bench::{ReadOnly, TwoReadsOneWrite};
#[doc(hidden)]
pub use testing_claims::{DirectChunks, DirectSum, Expansions, SourceLayer, SourceReductions};
#[doc(hidden)]
pub use testing_matrices::{MatrixPasses, MatrixSeed};
#[doc(hidden)]
pub use tune::cache_file;
pub use tune::{
    Autotune, AutotuneMode, AutotuneReport, ParseModeError, TuneReport, TunedPass, TuningSource,
    WhyTable, inspect as inspect_autotune,
};
#[doc(hidden)]
pub use variants::{generated_sources, kernel_names, kernel_places};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
