//! What a call that tunes tells.

use std::fmt;

pub use kasmina_telemetry::tune::{TuningSource, WhyTable};

/// What one pass was tuned to.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedPass {
    /// The pass, and all that the choice depends on.
    pub shape: String,
    /// The kernel.
    pub kernel: String,
    /// Rung and cut.
    pub choice: String,
    /// Times, or why it stayed with the table's choice.
    pub source: TuningSource,
    /// Every candidate that failed, with the reason.
    pub failed: Vec<String>,
}

/// What a call of [`CudaLayer::tune`](super::super::CudaLayer::tune) came to.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct TuneReport {
    /// Every pass that streams; the driver's own copies are not tuned.
    pub passes: Vec<TunedPass>,
    /// What stood in the way of keeping the choices for other processes.
    pub problems: Vec<String>,
}

impl fmt::Display for TuneReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.passes.is_empty() {
            return f.write_str("nothing is streamed that could be tuned");
        }
        for (i, pass) in self.passes.iter().enumerate() {
            let end = if i > 0 { "\n" } else { "" };
            write!(f, "{end}{}: {}, {}; {}", pass.shape, pass.kernel, pass.choice, pass.source)?;
            for failed in &pass.failed {
                write!(f, "\n  out: {failed}")?;
            }
        }
        self.problems.iter().try_for_each(|problem| write!(f, "\n  not kept: {problem}"))
    }
}
