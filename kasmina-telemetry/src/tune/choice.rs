//! What can be chosen, and what is kept of a choice.

use std::fmt;
use std::hash::Hash;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A way to launch.
pub trait Candidate:
    Clone + fmt::Debug + fmt::Display + PartialEq + Serialize + DeserializeOwned
{
    /// Whether its numbers are such that anything can be launched with them at all: what comes from a file is nobody's word.
    ///
    /// # Errors
    /// The number that is impossible, and the limit.
    fn check(&self) -> Result<(), String>;
}

/// What a choice holds for, beside device, driver and kernels; files have it as its text.
pub trait Key: Clone + fmt::Debug + fmt::Display + Eq + Hash {
    /// Whether measuring is worth it.
    fn is_tunable(&self) -> bool {
        true
    }

    /// Whether the caller said how it is to run, as far as callers can.
    fn is_forced(&self) -> bool {
        false
    }
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial<C> {
    /// The candidate.
    pub candidate: C,
    /// The median; `None` where it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<f64>,
    /// Why it is out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// The best candidate for a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice<C> {
    /// The candidate.
    pub candidate: C,
    /// Its median.
    pub milliseconds: f64,
    /// The median of what the tables would have done.
    pub table_milliseconds: f64,
    /// Seconds since 1970.
    pub when: u64,
    /// Everything that was tried.
    pub trials: Vec<Trial<C>>,
}

impl<C> Choice<C> {
    /// How many were tried, and how many of these are out.
    pub fn counts(&self) -> (usize, usize) {
        (self.trials.len(), self.trials.iter().filter(|trial| trial.failed.is_some()).count())
    }
}
