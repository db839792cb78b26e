//! Which lines a run is asked for.

use super::case::{self, Case, On};
use super::claims::line::{self, Line};
use super::reductions::line::{ReductionLine, reductions};
use super::stacks::line::{LatencyLine, StackLine, latencies, stacks};
use super::{Args, BenchError, Wanted};

/// The lines of a run.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) cases: Vec<Case>,
    pub(super) stacks: Vec<StackLine>,
    pub(super) latencies: Vec<LatencyLine>,
    pub(super) reductions: Vec<ReductionLine>,
    pub(super) claims: Vec<Line>,
}

impl Selection {
    /// What the arguments ask for: passes, on a GPU stacks, latencies and reductions, and claims where they are wanted.
    ///
    /// # Errors
    /// No line has the words, or claims are wanted of the processor.
    pub(super) fn of(args: &Args) -> Result<Self, BenchError> {
        if args.device == Wanted::Cpu && (args.claims || args.all) {
            return Err(BenchError::GpuOnly);
        }
        let chosen = Self::with(args, args.only.as_deref());
        if chosen.len() > 0 {
            return Ok(chosen);
        }
        let all = Self::with(args, None);
        let example = all.names().next().unwrap_or_default();
        let only = args.only.clone().unwrap_or_default();
        Err(BenchError::Nothing(only, all.len(), example))
    }

    fn with(args: &Args, only: Option<&str>) -> Self {
        let claims = if args.claims || args.all { line::lines(only) } else { Vec::new() };
        if args.claims {
            return Self { claims, ..Self::default() };
        }
        let on = args.device.on();
        let cases = case::cases(on, args.quick, only);
        if on == On::Cpu {
            return Self { cases, ..Self::default() };
        }
        let (stacks, latencies) = (stacks(args.quick, only), latencies(only));
        let reductions = reductions(args.quick, only);
        Self { cases, stacks, latencies, reductions, claims }
    }

    fn len(&self) -> usize {
        self.names().count()
    }

    /// The names of all lines.
    fn names(&self) -> impl Iterator<Item = String> {
        let cases = self.cases.iter().map(ToString::to_string);
        let stacks = self.stacks.iter().map(ToString::to_string);
        let latencies = self.latencies.iter().map(ToString::to_string);
        let claims = self.claims.iter().map(ToString::to_string);
        let reductions = self.reductions.iter().map(ToString::to_string);
        cases.chain(stacks).chain(latencies).chain(reductions).chain(claims)
    }

    /// Whether a line of that name is among them.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names().any(|own| own == name)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Result<Args, clap::Error> {
        Cli::try_parse_from(["bench"].iter().chain(words)).map(|cli| cli.args)
    }

    fn chosen(words: &[&str]) -> Result<Selection, BenchError> {
        Selection::of(&args(words).expect("it is understood"))
    }

    #[test]
    fn words_that_no_line_has_are_an_error_that_shows_a_line() {
        let error = chosen(&["--quick", "--only", "sideways"]).expect_err("no line").to_string();
        assert!(error.contains("\"sideways\"") && error.contains("8192×8192 f32"), "{error}");
        let error = chosen(&["--claims", "--only", "sideways"]).expect_err("no line").to_string();
        assert!(error.contains("\"sideways\"") && error.contains("TMA: forward"), "{error}");
    }

    #[test]
    fn a_gpu_has_stacks_beside_the_passes_and_everything_when_asked() {
        let plain = chosen(&["--quick"]).expect("lines");
        assert!(!plain.cases.is_empty() && !plain.stacks.is_empty() && !plain.latencies.is_empty());
        assert!(plain.claims.is_empty() && !plain.reductions.is_empty());
        let only = chosen(&["--quick", "--only", "reduction"]).expect("lines");
        assert_eq!(only.len(), plain.reductions.len());
        let all = chosen(&["--quick", "--all"]).expect("lines");
        assert_eq!(all.len(), plain.len() + line::lines(None).len());
        let step = chosen(&["--quick", "--only", "step"]).expect("lines");
        assert_eq!((step.cases.len(), step.stacks.len(), step.len()), (4, 8, 12));
        let latency = chosen(&["--only", "latency"]).expect("lines");
        assert_eq!((latency.latencies.len(), latency.len()), (6, 6));
        assert!(latency.has(&latency.latencies[0].to_string()) && !latency.has("forward"));
        let cpu = chosen(&["--device", "cpu"]).expect("lines");
        assert_eq!(cpu.len(), cpu.cases.len());
    }

    #[test]
    fn claims_stand_alone_or_behind_everything_else() {
        assert!(args(&["--claims", "--compare", "old.json"]).is_err());
        assert!(args(&["--claims", "--peers"]).is_err() && args(&["--claims", "--all"]).is_err());
        assert!(args(&["--all", "--compare", "old.json", "--peers"]).is_ok());
        // What belongs to peers goes with whatever measures them.
        let options = ["--python", "python3", "--peers-timeout", "9", "--cub", "./cub_reference"];
        for with in ["--all", "--peers"] {
            let asked = args(&[&[with], &options[..]].concat()).expect("it is understood");
            assert!(asked.wants_peers(), "{with}");
        }
        assert!(args(&options[..2]).is_err() && args(&options[4..]).is_err());
        assert!(!args(&["--quick"]).expect("it is understood").wants_peers());
        let claims = chosen(&["--claims", "--only", "tma bf16"]).expect("lines");
        assert_eq!((claims.claims.len(), claims.len()), (2, 2));
        for word in ["--claims", "--all"] {
            let error = chosen(&[word, "--device", "cpu"]).expect_err("there are none");
            assert!(matches!(error, BenchError::GpuOnly), "{error}");
        }
    }
}
