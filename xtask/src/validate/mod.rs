//! `cargo xtask validate`: seven integration checks, each line with what proves it.
//!
//! A line passed, failed, or could not be checked here, with the reason and what would prove it: nothing passes for not having
//! been looked at. Each check is a module; [`mod@line`] is what they give.

mod backward;
mod components;
mod defects;
mod images;
mod importable;
pub mod line;
mod runner;
mod signatures;
mod tma;
mod tuning;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use crate::workspace;
use line::{Check, Line, Outcome, print};

/// Arguments of `cargo xtask validate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of the crates' feature sets only the smallest and the largest, and no unpublished crate
    #[arg(long)]
    quick: bool,
    /// Only this check; may be given again
    #[arg(long, value_enum, value_name = "CHECK")]
    only: Vec<Check>,
}

/// Runs the command. Lines that could not be checked are no failure.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    let root = std::env::current_dir().ok().and_then(|here| workspace::root(&here));
    let Some(root) = root else {
        eprintln!("error: this folder lies in no Cargo workspace; run this inside the project");
        return ExitCode::FAILURE;
    };
    let lines = run(args, &root);
    if let Err(error) = print(&lines, &mut std::io::stdout().lock()) {
        eprintln!("error: could not write: {error}");
        return ExitCode::FAILURE;
    }
    code(&lines)
}

fn code(lines: &[(Check, Line)]) -> ExitCode {
    let failed = lines.iter().any(|(_, line)| line.outcome.is_failure());
    if failed || lines.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(args: &Args, root: &Path) -> Vec<(Check, Line)> {
    let images = images::images(root);
    let mut lines = Vec::new();
    for check in Check::ALL {
        if !args.only.is_empty() && !args.only.contains(&check) {
            continue;
        }
        let started = Instant::now();
        let found = match (check, &images) {
            (Check::Tuning, Ok(images)) => Ok(tuning::check(root, images)),
            (Check::Signatures, Ok(images)) => Ok(signatures::check(root, images)),
            (Check::Tma, Ok(images)) => Ok(tma::check(root, images)),
            (Check::Tuning | Check::Signatures | Check::Tma, Err(error)) => Err(error.clone()),
            (Check::Backward, _) => Ok(backward::check()),
            (Check::Importable, _) => importable::check(root, args.quick),
            (Check::Components, _) => Ok(components::check()),
            (Check::Defects, _) => defects::check(root),
        };
        let found = found
            .unwrap_or_else(|error| vec![Line::new("the check itself", Outcome::Failed(error))]);
        // What takes minutes says how far it is.
        let seconds = started.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stderr(), "{check}: {} lines in {seconds:.1} s", found.len());
        lines.extend(found.into_iter().map(|line| (check, line)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_line_and_no_line_at_all_are_failures() {
        let line = |outcome| (Check::Tma, Line::new("w", outcome));
        let passed = line(Outcome::Passed("p".into()));
        let open = line(Outcome::NotChecked("r".into()));
        let failed = line(Outcome::Failed("f".into()));
        let text = |lines: &[(Check, Line)]| format!("{:?}", code(lines));
        let [success, failure] = [ExitCode::SUCCESS, ExitCode::FAILURE].map(|c| format!("{c:?}"));
        assert_eq!(text(&[passed.clone(), open.clone()]), success);
        assert_eq!(text(&[passed, open, failed]), failure);
        assert_eq!(text(&[]), failure);
    }

    #[test]
    fn a_check_that_cannot_run_is_a_failed_line() {
        let args = Args { quick: true, only: vec![Check::Signatures, Check::Importable] };
        let folder = tempfile::tempdir().expect("a folder");
        let lines = run(&args, folder.path());
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|(_, line)| line.outcome.is_failure()), "{lines:?}");
    }
}
