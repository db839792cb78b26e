//! The reductions on a GPU, with the names and results of [`reduce`](crate::reduce), [`segmented`](crate::segmented) and
//! [`columns`](crate::columns).
//!
//! [`Engine`] is a device with the kernels loaded; a [`Reducer`] queues reductions on one stream and keeps their scratch memory.
//! Every reduction comes in two forms: `…_into` queues it and leaves the result in device memory, the other waits and returns it.
//!
//! ```no_run
//! use kasmina_sys::{DeviceBuffer, Driver, Stream};
//! use kasmina_telemetry::ReductionOptions;
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
//! same data give the same bits in every run, with every [`Launch`], and on every device. No float is added atomically.

mod columns;
mod cut;
mod element;
mod engine;
mod error;
mod flat;
mod matrix;
mod params;
mod records;
mod reducer;
mod segments;

pub use element::{GpuElement, GpuFloat};
pub use engine::Engine;
pub use error::CudaError;
pub use matrix::DeviceMatrix;
pub use records::{BoundsRecord, CountRecord, ExtremaRecord, FloatSum, IntegerSum, SummaryRecord};
pub use reducer::{Launch, Reducer};
pub use segments::{NO_SUM_BITS, is_no_sum};

/// Bytes of each argument that a kernel of this crate is launched with, for checks against what the compiler said; `None` for a
/// name that the host never launches.
#[doc(hidden)]
pub fn argument_bytes(kernel: &str) -> Option<&'static [usize]> {
    use kasmina_sys::{ByValue, KernelArguments};

    let rest = kernel.strip_prefix("kasmina_")?;
    Some(match rest.split('_').next()? {
        "flat" | "pieces" => <(ByValue<params::PieceParams>,)>::SIZES,
        "plain" | "ragged" | "queued" => <(ByValue<params::SegmentParams>,)>::SIZES,
        "columns" | "merge" => <(ByValue<params::ColumnParams>,)>::SIZES,
        _ => return None,
    })
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
