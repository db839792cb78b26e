//! Where a pass's rung and cut came from, as reports show it.

use std::fmt;

use super::choice::Choice;

/// Why a pass ran with the rung of the ladder and the cut of the table that it ran with.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TuningSource {
    /// The table's own.
    Table {
        /// Why nothing that was measured.
        because: WhyTable,
    },
    /// A measurement of an earlier process.
    Cached {
        /// Its median.
        milliseconds: f64,
        /// The table's, measured beside it.
        table_milliseconds: f64,
    },
    /// A measurement of this process.
    Tuned {
        /// Its median.
        milliseconds: f64,
        /// The table's, measured beside it.
        table_milliseconds: f64,
        /// How many rungs and cuts were tried.
        tried: usize,
        /// How many of them failed; logs at level debug say why.
        failed: usize,
    },
    /// The caller asked for the rung, and its cut is the table's.
    Forced,
    /// What should have run was refused, and this is the next that was not.
    FellBack {
        /// What was refused, and why.
        reason: String,
    },
}

/// Why a pass ran with the table's own choice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyTable {
    /// Nothing was streamed, and nothing had to be chosen.
    NothingStreamed,
    /// Autotuning is off.
    Off,
    /// Nothing was measured for this shape.
    NotMeasured,
    /// This pass is not tuned: it is no use of the kernels that is worth it.
    NotTunable,
    /// A resident grid ran it, which cuts for its own blocks.
    Resident,
    /// Measuring failed, or could not be tried.
    Unmeasurable {
        /// Why.
        reason: String,
    },
    /// What was measured cannot run here.
    Dropped {
        /// Why.
        reason: String,
    },
}

impl TuningSource {
    /// There was nothing to choose for.
    pub const NOTHING_STREAMED: Self = Self::Table { because: WhyTable::NothingStreamed };

    /// A choice from the disk.
    pub fn cached<C>(choice: &Choice<C>) -> Self {
        let Choice { milliseconds, table_milliseconds, .. } = *choice;
        Self::Cached { milliseconds, table_milliseconds }
    }

    /// A choice that was measured just now.
    pub fn tuned<C>(choice: &Choice<C>) -> Self {
        let Choice { milliseconds, table_milliseconds, .. } = *choice;
        let (tried, failed) = choice.counts();
        Self::Tuned { milliseconds, table_milliseconds, tried, failed }
    }
}

impl fmt::Display for TuningSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table { because } => write!(f, "the table's choice: {because}"),
            Self::Cached { milliseconds, table_milliseconds } => {
                write!(
                    f,
                    "measured earlier, {milliseconds:.4} ms, the table's choice {table_milliseconds:.4} ms"
                )
            }
            Self::Tuned { milliseconds, table_milliseconds, tried, failed } => write!(
                f,
                "measured, {milliseconds:.4} ms, the table's choice {table_milliseconds:.4} ms; {tried} tried, {failed} failed"
            ),
            Self::Forced => f.write_str("as asked, with the table's cut"),
            Self::FellBack { reason } => write!(f, "the next that runs, because {reason}"),
        }
    }
}

impl fmt::Display for WhyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingStreamed => f.write_str("nothing was streamed"),
            Self::Off => f.write_str("autotuning is off"),
            Self::NotMeasured => f.write_str("nothing was measured for this shape"),
            Self::NotTunable => f.write_str("such a pass is not tuned"),
            Self::Resident => f.write_str("a resident grid cuts for its own blocks"),
            Self::Unmeasurable { reason } => write!(f, "it could not be measured: {reason}"),
            Self::Dropped { reason } => write!(f, "what was measured does not run here: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_says_why() {
        let dropped = WhyTable::Dropped { reason: "stages are 0".to_owned() };
        for (source, words) in [
            (TuningSource::NOTHING_STREAMED, "nothing was streamed"),
            (TuningSource::Table { because: WhyTable::Off }, "off"),
            (TuningSource::Table { because: dropped }, "stages are 0"),
            (TuningSource::Cached { milliseconds: 1.5, table_milliseconds: 2.0 }, "1.5000 ms"),
            (TuningSource::FellBack { reason: "it broke".to_owned() }, "it broke"),
        ] {
            assert!(source.to_string().contains(words), "{source}");
        }
    }
}
