//! One line of the report: what was asked, how it came out, and what proves it.

use std::fmt;
use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};

/// The checks, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Check {
    /// Tuning tables consistent
    Tuning,
    /// Kernel signatures compatible with the host structs
    Signatures,
    /// TMA kernels present and functional
    Tma,
    /// Optimized backward integrated
    Backward,
    /// Everything importable: each crate alone, each feature set
    Importable,
    /// Components available
    Components,
    /// Each critical defect covered by a named test
    Defects,
}

impl Check {
    /// Every check.
    pub const ALL: [Self; 7] = [
        Self::Tuning,
        Self::Signatures,
        Self::Tma,
        Self::Backward,
        Self::Importable,
        Self::Components,
        Self::Defects,
    ];
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tuning => "tuning",
            Self::Signatures => "signatures",
            Self::Tma => "tma",
            Self::Backward => "backward",
            Self::Importable => "importable",
            Self::Components => "components",
            Self::Defects => "defects",
        })
    }
}

/// How a line came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds; what proves it.
    Passed(String),
    /// It does not; what was found.
    Failed(String),
    /// It could not be looked at here; why, and what would.
    NotChecked(String),
}

impl Outcome {
    /// Passed with a proof, or failed with what was found.
    pub fn of(result: Result<String, String>) -> Self {
        match result {
            Ok(proof) => Self::Passed(proof),
            Err(found) => Self::Failed(found),
        }
    }

    /// Whether it failed.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// One line of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What is asked.
    pub what: String,
    /// How it came out.
    pub outcome: Outcome,
}

impl Line {
    /// A line.
    pub fn new(what: impl Into<String>, outcome: Outcome) -> Self {
        Self { what: what.into(), outcome }
    }
}

/// A table of all lines, and the counts last.
///
/// # Errors
/// The writer's.
pub fn print(lines: &[(Check, Line)], out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(160);
    table.set_header(["check", "line", "result", "what proves it, or why not"]);
    let (mut passed, mut failed, mut open) = (0, 0, 0);
    for (check, line) in lines {
        let (count, result, text) = match &line.outcome {
            Outcome::Passed(proof) => (&mut passed, "passed", proof),
            Outcome::Failed(found) => (&mut failed, "FAILED", found),
            Outcome::NotChecked(reason) => (&mut open, "not checked", reason),
        };
        *count += 1;
        table.add_row([&check.to_string(), line.what.as_str(), result, text.as_str()]);
    }
    writeln!(out, "{table}")?;
    writeln!(out, "{passed} passed, {failed} failed, {open} not checked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_shown_with_its_result_and_counted() {
        let lines = [
            (Check::Tma, Line::new("a", Outcome::Passed("the proof".into()))),
            (Check::Tma, Line::new("b", Outcome::Failed("the finding".into()))),
            (Check::Defects, Line::new("c", Outcome::NotChecked("the reason".into()))),
        ];
        let mut out = Vec::new();
        print(&lines, &mut out).expect("memory can be written");
        let text = String::from_utf8(out).expect("text");
        for word in ["tma", "defects", "the proof", "FAILED", "the finding", "the reason"] {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert!(text.ends_with("1 passed, 1 failed, 1 not checked\n"), "{text}");
    }
}
