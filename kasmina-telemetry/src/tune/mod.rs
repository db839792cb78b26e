//! Which of several ways to launch a kernel is fastest here: measured once, kept on the disk, and told with its reason.
//!
//! This crate tunes its flat reductions by it, and kasmina-core its layers' passes. What is tried and how it is run belongs to them; here is
//! what both share: the settings ([`Autotune`]), the files ([`cache`]), the search ([`search()`]), and what an engine remembers
//! ([`Tuner`]).

pub mod cache;
mod choice;
mod file;
mod mode;
mod search;
mod source;
#[cfg(test)]
mod testing;
mod tuner;

pub use cache::Identity;
pub use choice::{Candidate, Choice, Key, Trial};
pub use mode::{Autotune, AutotuneMode, ParseModeError};
pub use search::{Failure, Runner, search};
pub use source::{TuningSource, WhyTable};
pub use tuner::{Asked, Decision, Tuner};
