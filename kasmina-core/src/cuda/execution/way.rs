//! The ways to execute a step, and what a user asks for.

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

/// The environment variable of [`ExecutionMode`].
const MODE_VARIABLE: &str = "KASMINA_EXECUTION";

/// A way to execute a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// The layers' own calls, a launch for each kernel.
    Launch,
    /// A [`StepGraph`](crate::cuda::StepGraph), one launch a step.
    Graph,
    /// A [`PersistentExecutor`](crate::cuda::PersistentExecutor): the passes by a resident grid, the optimizer by launches behind it.
    Persistent,
}

impl Way {
    /// All of them, the simplest first.
    pub const ALL: [Self; 3] = [Self::Launch, Self::Graph, Self::Persistent];

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Launch => "launch",
            Self::Graph => "graph",
            Self::Persistent => "persistent",
        })
    }
}

/// How a [`StepRunner`](super::StepRunner) executes its steps. Outputs and input gradients do not depend on it, nor
/// does anything on launches or graphs; a grid's sums over rows may differ from theirs in the last bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExecutionMode {
    /// [`Way::Launch`], always.
    Launch,
    /// [`Way::Graph`]; steps that no graph replays are launched, and the report says why.
    Graph,
    /// [`Way::Persistent`]; steps that no grid runs are launched, and the report says why.
    Persistent,
    /// Whichever of these is measured to be the fastest, on the steps themselves.
    #[default]
    Auto,
}

impl ExecutionMode {
    /// The way that is asked for; `None` where it is to be found.
    pub fn way(self) -> Option<Way> {
        match self {
            Self::Launch => Some(Way::Launch),
            Self::Graph => Some(Way::Graph),
            Self::Persistent => Some(Way::Persistent),
            Self::Auto => None,
        }
    }

    /// The mode that `KASMINA_EXECUTION` names (`launch`, `graph`, `persistent` or `auto`), which is `auto` where it is not set. A
    /// value that is no mode counts as `auto`, and comes back beside it.
    pub fn from_environment() -> (Self, Option<ParseExecutionError>) {
        Self::of(std::env::var_os(MODE_VARIABLE))
    }

    fn of(value: Option<OsString>) -> (Self, Option<ParseExecutionError>) {
        match value.filter(|value| !value.is_empty()).map(|text| text.to_string_lossy().parse()) {
            None => (Self::Auto, None),
            Some(Ok(mode)) => (mode, None),
            Some(Err(problem)) => (Self::Auto, Some(problem)),
        }
    }
}

impl fmt::Display for ExecutionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way() {
            Some(way) => way.fmt(f),
            None => f.pad("auto"),
        }
    }
}

/// A text that is no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("KASMINA_EXECUTION is {0:?}; write launch, graph, persistent or auto")]
pub struct ParseExecutionError(String);

impl FromStr for ExecutionMode {
    type Err = ParseExecutionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Launch, Self::Graph, Self::Persistent, Self::Auto]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| ParseExecutionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_a_mode_and_anything_else_is_auto_with_the_reason() {
        for (text, mode) in [
            ("launch", ExecutionMode::Launch),
            ("graph", ExecutionMode::Graph),
            ("persistent", ExecutionMode::Persistent),
            ("auto", ExecutionMode::Auto),
            ("", ExecutionMode::Auto),
        ] {
            assert_eq!(ExecutionMode::of(Some(text.into())), (mode, None), "{text}");
        }
        assert_eq!(ExecutionMode::of(None), (ExecutionMode::Auto, None));
        for text in ["Graph", "on", " auto", "launch,graph"] {
            let (mode, problem) = ExecutionMode::of(Some(text.into()));
            let problem = problem.expect("it is no mode").to_string();
            assert_eq!(mode, ExecutionMode::Auto);
            assert!(problem.contains(text) && problem.contains("persistent"), "{problem}");
        }
    }
}
