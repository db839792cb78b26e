//! `--claims`: what the source system promised of each of its optimizations, measured on against off in one run.
//!
//! [`line`](mod@line) says what is held against what, `passes`, `reductions` and `steps` measure it, after `agree` has found
//! that both sides compute the same; [`gain`] makes the percent of the times, and `reason` says why they are not those promised.

use serde::{Deserialize, Serialize};

mod agree;
mod expansions;
pub mod gain;
pub mod line;
mod passes;
mod reason;
mod reductions;
mod steps;
pub mod table;

use super::measure::{Bench, Failure};
use gain::{Found, Gain};
use line::{Line, Workload};

/// A line and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClaimRow {
    /// What is held against what.
    #[serde(flatten)]
    pub line: Line,
    /// What was promised, in percent.
    pub promised: (f64, f64),
    /// The numbers, or why there are none.
    pub outcome: Result<Gain, String>,
    /// What held the clocks back meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttled: Vec<String>,
}

impl ClaimRow {
    fn new(line: Line, outcome: Result<Found, Failure>) -> Self {
        let promised = line.claim.promised();
        let gain = |found: Found| {
            let gain = Gain::new(found, promised);
            gain.ok_or_else(|| "nothing was timed".to_owned())
        };
        let outcome = outcome.map_err(|why| why.text).and_then(gain);
        Self { line, promised, outcome, throttled: Vec::new() }
    }
}

/// Measures `lines`, and shows `done` the rows so far after each, always in the order of the lines. What fails is in the rows; after
/// the device was lost nothing else is tried.
///
/// # Errors
/// Those of `done`, which end it.
pub fn measure<E>(
    bench: &Bench,
    lines: &[Line],
    mut done: impl FnMut(Vec<ClaimRow>) -> Result<(), E>,
) -> Result<(), E> {
    let mut rows: Vec<Option<ClaimRow>> = vec![None; lines.len()];
    let (mut lost, mut stacks, mut reductions) = (false, steps::Stacks::default(), None);
    // The resident grid comes last: while it stays, it shares the device with whatever else runs.
    let mut order: Vec<(usize, &Line)> = lines.iter().enumerate().collect();
    order.sort_by_key(|(_, line)| line.needs_grid());
    for (place, line) in order {
        let (outcome, throttled) = bench.clock().watch().during(|| match line.workload {
            _ if lost => Err(Failure::text("the device was lost before".to_owned())),
            Workload::Pass(case) => passes::line(bench, &case, line.off, line.on),
            Workload::Steps(steps) => stacks.line(bench, steps, line.off, line.on),
            Workload::Sum { .. } | Workload::Segments { .. } | Workload::Chunks { .. } => {
                reductions::line(bench, &mut reductions, line)
            }
        });
        lost |= outcome.as_ref().is_err_and(|why| why.lost);
        let row = ClaimRow { throttled, ..ClaimRow::new(*line, outcome) };
        eprintln!("{line}: {}", table::in_short(&row));
        rows[place] = Some(row);
        done(rows.iter().flatten().cloned().collect())?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::summary::Timing;
    use super::gain::Side;
    use super::*;

    /// One row that was measured, half as fast off as on, and one that failed.
    pub(in super::super) fn example() -> Vec<ClaimRow> {
        let all = line::lines(None);
        let side = |ms, launches| Side {
            timing: Timing { milliseconds: vec![ms; 31], launches: 1 },
            launches,
            how: "so".to_owned(),
        };
        let found =
            Found { off: side(0.2, 7), on: side(0.1, 1), floor: Some(0.08), disagreement: 0.25 };
        let failed = Failure::text("no <memory>".to_owned());
        vec![ClaimRow::new(all[0], Ok(found)), ClaimRow::new(all[all.len() - 1], Err(failed))]
    }

    #[test]
    fn a_row_survives_its_json() {
        let json = serde_json::to_value(example()).expect("it is JSON");
        assert_eq!(json[0]["claim"], "tma");
        assert_eq!(json[0]["promised"], serde_json::json!([30.0, 50.0]));
        let gain = &json[0]["outcome"]["Ok"];
        assert_eq!(gain["percent"]["median"], 100.0);
        assert_eq!(gain["off"]["timing"]["milliseconds"].as_array().map(Vec::len), Some(31));
        assert!(gain["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
        assert_eq!(json[1]["outcome"]["Err"], "no <memory>");
        let back: Vec<ClaimRow> = serde_json::from_value(json).expect("it can be read back");
        assert_eq!(back[0].line, example()[0].line);
        assert_eq!(back[1].line, example()[1].line);
    }
}
