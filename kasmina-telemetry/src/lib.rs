#![doc = include_str!("../README.md")]

mod accumulator;
pub mod columns;
pub mod cuda;
mod element;
mod error;
mod fold;
mod histogram;
#[cfg(feature = "http")]
pub mod http;
mod json_lines;
mod lanes;
mod matrix;
mod mode;
mod moments;
mod narrow;
mod open_metrics;
mod overhead;
pub mod reduce;
mod report;
mod runs;
mod scalar;
pub mod segmented;
mod stats;
mod strategy;
pub mod transport;
pub mod tune;
mod wide;

pub use accumulator::{ChunkAccumulator, GradientAccumulator};
pub use element::{Comparison, Element, ElementStats};
pub use error::TelemetryError;
pub use histogram::{Bin, Histogram};
pub use json_lines::write_json_lines;
pub use matrix::MatrixView;
pub use mode::{TelemetryMode, TelemetryScope};
pub use moments::Moments;
pub use open_metrics::{
    OPEN_METRICS_CONTENT_TYPE, PROMETHEUS_TEXT_CONTENT_TYPE, write_open_metrics,
    write_open_metrics_of, write_prometheus_text_of,
};
pub use overhead::{OverheadPass, OverheadRound, OverheadSubject, TelemetryOverhead};
pub use report::{MergeRefused, SeedReport, TelemetryReport};
pub use stats::{ChunkStats, GradientStats};
pub use strategy::{NanPolicy, ReductionOptions, ReductionStrategy};
