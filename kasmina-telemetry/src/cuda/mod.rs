//! The reductions on a GPU, with the names and results of [`reduce`](crate::reduce), [`segmented`](crate::segmented) and
//! [`columns`](crate::columns).
//!
//! [`Engine`] is a device with the kernels loaded; a [`Reducer`] queues reductions on one stream and keeps their scratch memory.
//! Every reduction comes in two forms: `…_into` queues it and leaves the result in device memory, the other waits and returns it.
//!
//! ```no_run
//! use kasmina_telemetry::ReductionOptions;
//! use kasmina_telemetry::cuda::sys::{DeviceBuffer, Driver, Stream};
//! use kasmina_telemetry::cuda::{CudaError, Engine, Reducer};
//!
//! fn main() -> Result<(), CudaError> {
//!     let engine = Engine::new(Driver::load()?.device(0)?)?;
//!     let stream = Stream::new(engine.context())?;
//!     let mut reducer = Reducer::new(&engine, &stream);
//!     let x = DeviceBuffer::from_host(&stream, &[3.0_f32, -1.0, 2.0])?;
//!     let summary = reducer.summary(x.as_slice(), &ReductionOptions::default())?.expect("there are values");
//!     assert_eq!((summary.sum, summary.arg_min, summary.max), (4.0, 1, 3.0));
//!     Ok(())
//! }
//! ```
//!
//! # The same bits
//!
//! A sum is built in a tree whose shape follows from the number of elements, their type and the address modulo 16 alone: the
//! same data give the same bits in every run, with every [`Launch`], in every replay of a captured graph, and on every device. No float is
//! added atomically.
//!
//! # Strategies
//!
//! By [`Hierarchical`](crate::ReductionStrategy::Hierarchical), what several blocks find of one result is merged in a tree by the block
//! that comes last. By [`Atomic`](crate::ReductionStrategy::Atomic) each block folds what it finds into the result's cells as it comes:
//! integers added, maxima of keys in the order of the values, places by compare and swap, and f64 sums as fixed-point numbers of 2144 bits,
//! which are rounded once, at the end. So the order of arrival does not matter, and a sum is even the nearest to that of the blocks' sums.
//! By [`Direct`](crate::ReductionStrategy::Direct) one block has all of a flat reduction or a long segment, one group of lanes a
//! shorter segment or one between offsets, and one block all rows of its columns: nothing meets. It is as accurate as n / 2^9 additions
//! in f64, takes at most 2^34 elements of a result (2^32 between offsets), and is as slow as one multiprocessor. Where one worker takes a result anyway, all
//! three run the same kernel.

mod columns;
mod cut;
mod element;
mod engine;
mod error;
mod flat;
mod launch;
mod matrix;
mod params;
mod quantity;
mod records;
mod reducer;
mod segments;
mod tuning;

/// The driver's safe layer, whose streams and memory reductions take.
#[doc(no_inline)]
pub use kasmina_sys as sys;

pub use element::{GpuElement, GpuFloat};
pub use engine::Engine;
pub use error::CudaError;
pub use launch::Launch;
pub use matrix::DeviceMatrix;
pub use quantity::Flat;
pub use records::{
    BoundsRecord, CountRecord, ExtremaRecord, FloatSum, IntegerSum, SegmentBounds, SegmentSum,
    SummaryRecord,
};
pub use reducer::Reducer;
pub use segments::{NO_SUM_BITS, is_no_sum};
pub use tuning::TunedLaunch;
#[doc(hidden)]
pub use tuning::choices_on_disk;

/// Bytes of each argument that a kernel of this crate is launched with, for checks against what the compiler said; `None` for a
/// name that the host never launches.
#[doc(hidden)]
pub fn argument_bytes(kernel: &str) -> Option<&'static [usize]> {
    use kasmina_sys::{ByValue, KernelArguments};

    let rest = kernel.strip_prefix("kasmina_")?;
    let rest = rest.strip_prefix("atomic_").unwrap_or(rest);
    Some(match rest.split('_').next()? {
        "flat" | "pieces" => <(ByValue<params::PieceParams>,)>::SIZES,
        "plain" | "ragged" | "queued" | "folded" => <(ByValue<params::SegmentParams>,)>::SIZES,
        "columns" | "merge" | "collect" => <(ByValue<params::ColumnParams>,)>::SIZES,
        _ => return None,
    })
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
