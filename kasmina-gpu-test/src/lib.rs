#![doc = include_str!("../README.md")]

mod cases;
mod failed;
mod harness;
mod held;
mod measurement;

pub use cases::{CASES_VARIABLE, Cases, SEED_VARIABLE};
pub use failed::{Failed, ensure, not_applicable};
pub use harness::{Body, REQUIRE_VARIABLE, SANITIZER_VARIABLE, bench_main, is_sanitized, main};
pub use held::without_waiting;
pub use measurement::{COMMIT_VARIABLE, Measurement, RESULTS_VARIABLE, record};
pub use proptest;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
