//! A key and a candidate for this module's tests.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Candidate, Choice, Key};

/// One number; more than 100 is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Way(pub(super) u32);

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "way {}", self.0)
    }
}

impl Candidate for Way {
    fn check(&self) -> Result<(), String> {
        if self.0 > 100 {
            Err(format!("ways are {}; they must be 0 to 100", self.0))
        } else {
            Ok(())
        }
    }
}

/// A kernel, and whether its way is forced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kernel {
    pub(super) forced: bool,
    pub(super) tunable: bool,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {} {}", self.forced, self.tunable)
    }
}

impl Key for Kernel {
    fn is_tunable(&self) -> bool {
        self.tunable
    }

    fn is_forced(&self) -> bool {
        self.forced
    }
}

pub(super) fn choice(way: u32) -> Choice<Way> {
    Choice {
        candidate: Way(way),
        milliseconds: 1.0,
        table_milliseconds: 2.0,
        when: 0,
        trials: vec![],
    }
}
