//! How flat reductions are launched: what there is to choose, and who chooses.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::CudaError;
use super::quantity::Flat;
use crate::tune::{Candidate, Key};

/// How flat reductions are launched. Results are the same bits for every choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Threads of a block: 32, 64, 128 or 256.
    pub threads: u32,
    /// 16-byte loads that a thread has under way: 4 or 8. Sums and extremes alone have a choice; other reductions take 4.
    pub ahead: u32,
    /// The most blocks, at least 1; fewer than pieces of the data make blocks take several each.
    pub blocks: u32,
}

impl Default for Launch {
    fn default() -> Self {
        Self { threads: 256, ahead: 4, blocks: MOST_BLOCKS }
    }
}

/// A block for each piece.
const MOST_BLOCKS: u32 = 0x7fff_ffff;

impl Launch {
    pub(super) fn check(&self) -> Result<(), CudaError> {
        let wrong = |what, value, limit| Err(CudaError::Launch { what, value, limit });
        if ![32, 64, 128, 256].contains(&self.threads) {
            return wrong("threads", self.threads, "32, 64, 128 or 256");
        }
        if ![4, 8].contains(&self.ahead) {
            return wrong("ahead", self.ahead, "4 or 8");
        }
        if !(1..=MOST_BLOCKS).contains(&self.blocks) {
            return wrong("blocks", self.blocks, "1 to 2^31 - 1");
        }
        Ok(())
    }

    /// What is worth a try for a reduction of so many pieces, the default first.
    pub(super) fn candidates(what: Flat, pieces: u64, multiprocessors: u32) -> Vec<Self> {
        let aheads: &[u32] = if what.has_eight() { &[4, 8] } else { &[4] };
        let mut all = vec![Self::default()];
        for threads in [256, 128, 64] {
            for &ahead in aheads {
                for each in [u32::MAX, 8, 4, 2] {
                    let blocks = multiprocessors.saturating_mul(each).min(MOST_BLOCKS);
                    let launch = Self { threads, ahead, blocks };
                    // More blocks than pieces are as many as pieces.
                    let limits = each == u32::MAX || u64::from(blocks) < pieces;
                    if limits && !all.contains(&launch) {
                        all.push(launch);
                    }
                }
            }
        }
        all
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads, {} loads under way, ", self.threads, self.ahead)?;
        match self.blocks {
            MOST_BLOCKS => f.write_str("a block a piece"),
            blocks => write!(f, "at most {blocks} blocks"),
        }
    }
}

impl Candidate for Launch {
    fn check(&self) -> Result<(), String> {
        Self::check(self).map_err(|error| error.to_string())
    }
}

/// What a measured launch holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaunchKey {
    pub(super) what: Flat,
    /// The element's name.
    pub(super) dtype: &'static str,
    /// The least power of two that is not less than the elements, as its exponent.
    pub(super) bits: u32,
    /// Elements between a 16-byte boundary and the first.
    pub(super) lead: u64,
}

impl LaunchKey {
    pub(super) fn new(what: Flat, dtype: &'static str, elements: u64, lead: u64) -> Self {
        let bits = elements.max(1).checked_next_power_of_two().map_or(64, u64::trailing_zeros);
        Self { what, dtype, bits, lead }
    }
}

impl fmt::Display for LaunchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, dtype, bits, lead } = self;
        write!(f, "flat {}, {dtype}, up to 2^{bits} elements, {lead} past a packet", what.name())
    }
}

impl Key for LaunchKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_possible_different_and_begin_with_the_default() {
        for what in [Flat::Sum, Flat::Statistics] {
            for pieces in [1, 100, 5000] {
                let all = Launch::candidates(what, pieces, 132);
                assert_eq!(all[0], Launch::default());
                for (i, launch) in all.iter().enumerate() {
                    assert_eq!(launch.check(), Ok(()));
                    assert!(!all[..i].contains(launch), "{launch} is there twice");
                    assert!(launch.ahead == 4 || what.has_eight(), "{launch}");
                    assert!(launch.blocks == MOST_BLOCKS || u64::from(launch.blocks) < pieces);
                }
            }
        }
    }

    #[test]
    fn sizes_share_a_choice_up_to_the_next_power_of_two() {
        let key = |elements| LaunchKey::new(Flat::Sum, "f32", elements, 0).bits;
        assert_eq!([0, 1, 2, 3, 1024, 1025].map(key), [0, 0, 1, 2, 10, 11]);
        assert_eq!(key(u64::MAX), 64);
    }

    #[test]
    fn what_a_file_says_is_checked() {
        let launch: Launch =
            serde_json::from_str(r#"{"threads": 96, "ahead": 4, "blocks": 7}"#).expect("numbers");
        let reason = Candidate::check(&launch).expect_err("96 threads");
        assert!(reason.contains("`threads` is 96"), "{reason}");
    }
}
