//! Which rung of the load ladder and which cut a streaming pass runs with: the tables' own, or what was measured here.
//!
//! `variants` has the kernels and `geometry` the hand-made [`Tuning`](super::geometry::Tuning)s; without a measurement these
//! are the choice. A measurement is found by its `key` in memory or in the `cache` on disk; `candidates` says what can be
//! tried, `search` which of them wins, `measure` runs them on memory of its own, and `tuner` is what an engine remembers.
//! All candidates give the same outputs bit for bit. Column sums and statistics are added up in the order of the cut, so
//! their last bits are those of a choice: `KASMINA_AUTOTUNE=off` makes them the same on every machine of a kind.

mod candidates;
mod choice;
mod decide;
mod fallback;
mod inspect;
mod key;
mod measure;
mod room;
mod source;
mod variant;

pub use inspect::{AutotuneReport, inspect};
pub use kasmina_telemetry::tune::{Autotune, AutotuneMode, ParseModeError};
pub use source::{TuneReport, TunedPass, TuningSource, WhyTable};

pub(super) use decide::{decide, run, tune_for_report};
pub(super) use inspect::identity;
pub(super) use key::{Key, Pass, Work};
pub(super) use variant::Variant;

pub(super) use kasmina_telemetry::tune::Identity;

/// What an engine remembers of choices.
pub(super) type Tuner = kasmina_telemetry::tune::Tuner<Key, choice::Candidate>;
type Decision = kasmina_telemetry::tune::Decision<choice::Candidate>;

#[doc(hidden)]
pub use inspect::cache_file;
