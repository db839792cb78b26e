//! A line of the passes, and a ceiling: what was measured of each.

use serde::{Deserialize, Serialize};

use super::buffers::Count;
use super::case::{Case, Ceiling, Matrices};
use super::summary::{Summary, Timing, terabytes_per_second};

/// A ceiling.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CeilingRow {
    /// Which.
    pub kind: Ceiling,
    /// Of which matrices.
    #[serde(flatten)]
    pub matrices: Matrices,
    /// Bytes read and written.
    pub bytes: u64,
    /// Blocks of the grid, or threads, that were best; `None` for the driver's copy.
    pub blocks: Option<u32>,
    /// The times.
    pub timing: Timing,
    /// What is shown of them.
    pub summary: Option<Summary>,
}

/// A case and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Which.
    #[serde(flatten)]
    pub case: Case,
    /// The numbers, or why there are none.
    pub outcome: Result<Measured, String>,
}

/// The numbers of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Bytes read and written, as [`Case::bytes`] counts them.
    pub bytes: u64,
    /// The times.
    pub timing: Timing,
    /// What is shown of them.
    pub summary: Option<Summary>,
    /// 10¹² bytes a second at the median time.
    pub terabytes_per_second: f64,
    /// Of the ceiling's bytes a second.
    pub percent: f64,
    /// Additions and multiplications of the products of matrices, as [`Case::operations`] counts them; `None` where there are none.
    pub operations: Option<u64>,
    /// 10¹² of them a second at the median time.
    pub teraflops: Option<f64>,
    /// Sets of matrices that were gone round.
    pub sets: usize,
    /// Whether they were enough for a cold second-level cache; else the device's memory was too small for them.
    pub cold_cache: bool,
    /// The kernels of the streaming passes; `copy` where the driver's did it.
    pub kernels: Vec<String>,
    /// What held the clocks back meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttled: Vec<String>,
}

impl CeilingRow {
    /// A ceiling from its times.
    #[must_use]
    pub fn new(kind: Ceiling, matrices: Matrices, timing: Timing, blocks: Option<u32>) -> Self {
        let (bytes, summary) = (kind.bytes(&matrices), timing.summary());
        Self { kind, matrices, bytes, blocks, timing, summary }
    }

    /// At the median time; 0 where nothing was timed.
    #[must_use]
    pub fn bytes_per_millisecond(&self) -> f64 {
        self.summary.map_or(0.0, |summary| self.bytes as f64 / summary.median)
    }
}

impl Row {
    /// A case that could not be measured.
    #[must_use]
    pub fn failed(case: Case, why: &str) -> Self {
        Self { case, outcome: Err(why.to_owned()) }
    }
}

impl Measured {
    /// The numbers of a case that moves `bytes` and multiplies matrices by so many `operations`, beside a ceiling in bytes a millisecond.
    #[must_use]
    pub fn new(
        bytes: u64,
        operations: Option<u64>,
        timing: Timing,
        ceiling: f64,
        sets: Count,
        kernels: Vec<String>,
    ) -> Self {
        let summary = timing.summary();
        let median = summary.map_or(f64::NAN, |summary| summary.median);
        let percent = 100.0 * bytes as f64 / median / ceiling;
        let terabytes_per_second = terabytes_per_second(bytes, median);
        // 10⁹ a millisecond are 10¹² a second.
        let teraflops = operations.map(|operations| operations as f64 / median / 1e9);
        Self {
            bytes,
            timing,
            summary,
            terabytes_per_second,
            percent,
            operations,
            teraflops,
            sets: sets.sets,
            cold_cache: sets.cold,
            kernels,
            throttled: Vec::new(),
        }
    }
}
