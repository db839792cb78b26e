//! Steps of many small layers, by every way to execute them: what a launch costs where it costs more than the work.
//!
//! [`line`](mod@line) says what is measured, `plain` are the layers' own calls, graphs and whole-stack kernels, `resident` the grid that stays; [`table`] shows it.
//! All ways of a stack have to give the same bits before they are timed.

mod latency;
pub mod line;
mod plain;
mod resident;
pub mod table;

use kasmina_sys::ComputeCapability;
use serde::{Deserialize, Serialize};

use super::measure::{Bench, Failure};
use super::summary::{Summary, Timing};
use line::{LatencyLine, StackLine, Way};
use plain::Plain;
use resident::Resident;

/// A line and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StackRow {
    /// Which.
    #[serde(flatten)]
    pub line: StackLine,
    /// The numbers, or why there are none.
    pub outcome: Result<StackTimes, String>,
}

/// The numbers of a stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StackTimes {
    /// Of whole steps.
    pub timing: Timing,
    /// What is shown of them.
    pub summary: Option<Summary>,
    /// Microseconds of a layer's pass, or of its part in a whole step: the median over layers and passes.
    pub us_a_pass: f64,
    /// How the way says that it ran.
    pub how: String,
    /// What held the clocks back meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttled: Vec<String>,
}

/// A line of latencies and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyRow {
    /// Which.
    #[serde(flatten)]
    pub line: LatencyLine,
    /// The numbers, or why there are none.
    pub outcome: Result<Latency, String>,
}

/// How long a step takes from the call that queues it until its result is there, on the host's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// From the call that queues it to the return of `wait`, milliseconds.
    pub summary: Summary,
    /// A hundredth takes longer, milliseconds.
    pub p99: f64,
    /// A thousandth takes longer, milliseconds.
    pub p999: f64,
    /// The call that queues it alone: its median, milliseconds.
    pub submit: f64,
    /// Steps that were timed.
    pub steps: usize,
    /// What held the clocks back meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttled: Vec<String>,
}

impl StackTimes {
    fn new(line: &StackLine, timing: Timing, how: String) -> Self {
        let summary = timing.summary();
        let passes = (line::LAYERS * line.passes.count()) as f64;
        let us_a_pass = summary.map_or(f64::NAN, |summary| 1e3 * summary.median / passes);
        Self { timing, summary, us_a_pass, how, throttled: Vec::new() }
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Measured {
    /// One a line.
    pub rows: Vec<StackRow>,
    /// One a line of latencies.
    pub latencies: Vec<LatencyRow>,
    /// Whether the device is lost, and nothing more can be measured.
    pub lost: bool,
}

/// Measures stacks, those of the same layers one after the other. What fails is in the rows.
#[must_use]
pub fn measure(bench: &Bench, stacks: &[StackLine], latencies: &[LatencyLine]) -> Measured {
    let mut measured = Measured::default();
    let stacks: Vec<StackLine> =
        stacks.iter().copied().filter(|line| line.way.is_possible(capability(bench))).collect();
    for lines in stacks.chunk_by(|a, b| a.layers() == b.layers()) {
        let Some(first) = lines.first() else { continue };
        eprintln!("{}: {} lines", first.layers(), lines.len());
        let mut group = Group::default();
        for line in lines {
            let (outcome, throttled) = if measured.lost {
                (Err(Failure::text("the device was lost before".to_owned())), Vec::new())
            } else {
                bench.clock().watch().during(|| group.time(bench, line))
            };
            measured.lost |= outcome.as_ref().is_err_and(|why| why.lost);
            let outcome = outcome.map(|times| StackTimes { throttled, ..times });
            let outcome = outcome.map_err(|why| why.text);
            measured.rows.push(StackRow { line: *line, outcome });
        }
    }
    for line in latencies {
        eprintln!("{line}");
        let steps = bench.clock().repetitions() * line::STEPS_A_REPETITION;
        let (outcome, throttled) = if measured.lost {
            (Err(Failure::text("the device was lost before".to_owned())), Vec::new())
        } else {
            bench.clock().watch().during(|| latency::latency(bench, line, steps))
        };
        measured.lost |= outcome.as_ref().is_err_and(|why| why.lost);
        let outcome = outcome.map(|latency| Latency { throttled, ..latency });
        let outcome = outcome.map_err(|why| why.text);
        measured.latencies.push(LatencyRow { line: *line, outcome });
    }
    measured
}

/// The device's; the least of all where the driver does not tell.
fn capability(bench: &Bench) -> ComputeCapability {
    let found = bench.engine().context().device().capability();
    found.unwrap_or(ComputeCapability::new(0, 0))
}

/// The same layers in both forms, made for the first line that needs them.
#[derive(Default)]
struct Group {
    plain: Option<Plain>,
    resident: Option<Resident>,
    /// The last y and the first dL/dx of the layers' own calls, forward alone and with the way back.
    expected: Vec<(line::Passes, plain::Results)>,
}

impl Group {
    fn time(&mut self, bench: &Bench, line: &StackLine) -> Result<StackTimes, Failure> {
        let expected = self.expected(bench, line)?;
        let (timing, how, found) = match line.way {
            Way::Items | Way::ItemsCaptured | Way::Grid | Way::GridWaited | Way::GridFromDevice => {
                let resident = match &mut self.resident {
                    Some(resident) => resident,
                    none => none.insert(Resident::new(bench, line)?),
                };
                resident.time(bench, line)?
            }
            _ => {
                // A grid that stays would share the device with it.
                self.resident = None;
                if line.advances() {
                    Plain::new(bench, line)?.time(bench, line)?
                } else {
                    self.plain(bench, line)?.time(bench, line)?
                }
            }
        };
        if !plain::same(&found, &expected) {
            return Err(Failure::text(format!("it does not give the bits of {}", Way::Launches)));
        }
        Ok(StackTimes::new(line, timing, how))
    }

    fn plain(&mut self, bench: &Bench, line: &StackLine) -> Result<&mut Plain, Failure> {
        Ok(match &mut self.plain {
            Some(plain) => plain,
            none => none.insert(Plain::new(bench, line)?),
        })
    }

    fn expected(&mut self, bench: &Bench, line: &StackLine) -> Result<plain::Results, Failure> {
        let known = self.expected.iter().find(|(passes, _)| *passes == line.passes);
        if let Some((_, results)) = known {
            return Ok(results.clone());
        }
        let results = if line.advances() {
            Plain::new(bench, line)?.expected(line)?
        } else {
            self.plain(bench, line)?.expected(line)?
        };
        self.expected.push((line.passes, results.clone()));
        Ok(results)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One stack that was measured and one that failed, and a latency.
    pub(in super::super) fn example() -> (Vec<StackRow>, Vec<LatencyRow>) {
        let lines = line::stacks(true, None);
        let timing = Timing { milliseconds: vec![0.24; 31], launches: 1 };
        let measured = StackTimes::new(&lines[0], timing, "so".to_owned());
        let measured = StackTimes { throttled: vec!["the power limit".to_owned()], ..measured };
        let rows = vec![
            StackRow { line: lines[0], outcome: Ok(measured) },
            StackRow { line: lines[1], outcome: Err("no <memory>".to_owned()) },
        ];
        let summary = Summary { median: 0.015, p10: 0.014, p90: 0.017 };
        let latency = Latency {
            summary,
            p99: 0.022,
            p999: 0.036,
            submit: 0.005,
            steps: 3100,
            throttled: Vec::new(),
        };
        let line = line::latencies(None)[2];
        (rows, vec![LatencyRow { line, outcome: Ok(latency) }])
    }

    #[test]
    fn a_step_is_divided_by_its_layers_and_passes() {
        let lines = line::stacks(true, None);
        let times = |line: &StackLine| {
            let timing = Timing { milliseconds: vec![0.48; 3], launches: 1 };
            StackTimes::new(line, timing, String::new()).us_a_pass
        };
        let of = |passes| lines.iter().find(|line| line.passes == passes).expect("a line");
        assert!((times(of(line::Passes::Forward)) - 10.0).abs() < 1e-9);
        assert!((times(of(line::Passes::Both)) - 5.0).abs() < 1e-9);
        assert!((times(of(line::Passes::Step)) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn rows_survive_their_json() {
        let (rows, latencies) = example();
        let json = serde_json::to_value(&rows).expect("it is JSON");
        assert_eq!(json[0]["way"], "launches");
        assert_eq!(json[0]["outcome"]["Ok"]["throttled"][0], "the power limit");
        let back: Vec<StackRow> = serde_json::from_value(json).expect("it can be read back");
        assert_eq!((back[0].line, back[1].line), (rows[0].line, rows[1].line));
        assert_eq!(back[0].outcome, rows[0].outcome);
        let json = serde_json::to_value(&latencies).expect("it is JSON");
        let back: Vec<LatencyRow> = serde_json::from_value(json).expect("it can be read back");
        assert_eq!(back[0].outcome, latencies[0].outcome);
    }
}
