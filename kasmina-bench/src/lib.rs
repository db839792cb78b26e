#![doc = include_str!("../README.md")]

use std::time::Instant;

use kasmina_gpu_test::Failed;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Repetitions of each measurement; the median of them is what counts.
pub const REPEATS: usize = 41;

/// Nanoseconds of the host's clock for one of `count` calls that `body` makes, `REPEATS` times after one that warms up.
/// `after` runs off the clock, to drain what was queued.
///
/// # Errors
/// `body`'s or `after`'s.
pub fn host_nanoseconds(
    count: usize,
    mut body: impl FnMut() -> Result<(), Failed>,
    mut after: impl FnMut() -> Result<(), Failed>,
) -> Result<Vec<f64>, Failed> {
    let mut values = Vec::with_capacity(REPEATS);
    for repeat in 0..=REPEATS {
        let started = Instant::now();
        body()?;
        let elapsed = started.elapsed();
        after()?;
        if repeat > 0 {
            values.push(elapsed.as_nanos() as f64 / count as f64);
        }
    }
    Ok(values)
}
