//! The reductions of kasmina-telemetry on the GPU, beside a copy in the same run and beside CUB.
//!
//! [`line`](mod@line) says what is measured, [`arena`] keeps the data cold and times, `ours` queues our kernels, `reference` says what
//! has to come out, [`cub`] has CUB do the same in a process of its own, and [`table`] shows it.

use serde::{Deserialize, Serialize};

pub mod arena;
mod conversation;
pub mod cub;
pub mod line;
mod ours;
mod reference;
pub mod table;

use super::measure::{Bench, Failure};
use super::summary::{Summary, Timing, terabytes_per_second};
use arena::{Arena, CopyRow, Sizes};
use line::{Quantity, ReductionLine, Scalar, Shape};
use reference::{Expected, Pattern, within};

/// Of Σ|x|, as much may a sum be off that was made of f32 additions: a thread of CUB's has up to some thousand one after the other, each off
/// by 2⁻²⁴ at most.
const CUBS_SUM: f64 = 1e-4;

/// All that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reductions {
    /// The memory that was gone round.
    pub sizes: Sizes,
    /// The copies that lines are compared with, one a size.
    pub copies: Vec<CopyRow>,
    /// One a line.
    pub rows: Vec<ReductionRow>,
    /// What CUB was, or why it was not run; `None` where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cub: Option<Result<cub::Software, String>>,
}

/// A line and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReductionRow {
    /// Which.
    #[serde(flatten)]
    pub line: ReductionLine,
    /// The numbers, or why there are none.
    pub outcome: Result<ReductionTimes, String>,
    /// CUB's, or why there are none; `None` where CUB has no such reduction, or was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cub: Option<Result<CubTimes, String>>,
}

/// The numbers of a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReductionTimes {
    /// Bytes read.
    pub bytes: u64,
    /// The times.
    pub timing: Timing,
    /// What is shown of them.
    pub summary: Option<Summary>,
    /// 10¹² bytes a second at the median time.
    pub terabytes_per_second: f64,
    /// Of the bytes a second of a copy that moves about as many.
    pub percent: f64,
    /// The largest error of a result over its bound.
    pub worst_error: f64,
    /// How it was launched, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<String>,
    /// What held the clocks back meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttled: Vec<String>,
}

/// CUB's numbers of a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CubTimes {
    /// The times.
    pub timing: Timing,
    /// What is shown of them.
    pub summary: Option<Summary>,
    /// Its median time over ours; `None` where ours failed.
    pub ratio: Option<f64>,
    /// The largest error of a result over its bound.
    pub worst_error: f64,
}

impl Reductions {
    /// Lines of ours that could not be measured.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.rows.iter().filter(|row| row.outcome.is_err()).count()
    }

    /// Lines at which CUB failed. One that is not there did not.
    #[must_use]
    pub fn cub_failed(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.cub, Some(Err(_)))).count()
    }
}

/// What has to come out, kept from one line to the next, which often has the same data.
#[derive(Debug)]
struct Oracle {
    pattern: Pattern,
    last: Option<((Shape, Scalar, bool), Vec<Expected>)>,
}

impl Oracle {
    fn of(&mut self, line: &ReductionLine) -> &[Expected] {
        let key = (line.shape, line.scalar, line.quantity == Quantity::Products);
        if self.last.as_ref().is_none_or(|(known, _)| *known != key) {
            self.last = Some((key, ours::expected(&self.pattern, line)));
        }
        self.last.as_ref().map_or(&[], |(_, expected)| expected)
    }
}

/// Our lines, measured, and what CUB's results are to be compared with.
#[derive(Debug)]
pub struct Measured {
    /// What is to be shown.
    pub reductions: Reductions,
    /// Whether the device is lost, and nothing more can be measured.
    pub lost: bool,
    oracle: Oracle,
    /// The last number of each result, by row: a sum, or the greatest value. Empty where it failed or CUB has no such line.
    results: Vec<Vec<f64>>,
}

/// Measures our lines. What fails is in the rows.
#[must_use]
pub fn measure(bench: &Bench, lines: &[ReductionLine]) -> Measured {
    let largest = lines.iter().map(ReductionLine::bytes).max().unwrap_or(0) as u64;
    let free = bench.engine().context().memory_info().map_or(0, |(free, _)| free);
    measure_in(bench, lines, Sizes::new(largest, bench.l2(), free))
}

/// The same in memory of these sizes.
#[must_use]
pub fn measure_in(bench: &Bench, lines: &[ReductionLine], sizes: Sizes) -> Measured {
    eprintln!("reductions: {} lines", lines.len());
    let mut oracle = Oracle { pattern: Pattern::new(), last: None };
    let mut arena = Arena::new(bench, sizes, &oracle.pattern);
    let mut lost = arena.as_ref().is_err_and(|why| why.lost);
    let (mut rows, mut all_results) = (Vec::new(), Vec::new());
    for line in lines {
        let (found, throttled) = bench.clock().watch().during(|| match &mut arena {
            _ if lost => Err(Failure::text("the device was lost before".to_owned())),
            Err(why) => Err(Failure::text(why.text.clone())),
            Ok(arena) => match sizes.refuse(line) {
                Some(why) => Err(Failure::text(why)),
                None => one(arena, &mut oracle, line),
            },
        });
        lost |= found.as_ref().is_err_and(|why| why.lost);
        let (outcome, results) = match found {
            Ok((times, results)) => (Ok(ReductionTimes { throttled, ..times }), results),
            Err(why) => (Err(why.text), Vec::new()),
        };
        all_results.push(if line.has_cub() { results } else { Vec::new() });
        rows.push(ReductionRow { line: *line, outcome, cub: None });
    }
    let copies = arena.map_or_else(|_| Vec::new(), |arena| arena.copies);
    let reductions = Reductions { sizes, copies, rows, cub: None };
    Measured { reductions, lost, oracle, results: all_results }
}

/// Compares and times a line; beside the numbers is the last of each result.
fn one(
    arena: &mut Arena<'_>,
    oracle: &mut Oracle,
    line: &ReductionLine,
) -> Result<(ReductionTimes, Vec<f64>), Failure> {
    let bytes = line.bytes() as u64;
    let copy = arena.copy(bytes)?;
    let found = ours::line(arena, line, oracle.of(line))?;
    let summary = found.timing.summary();
    let median = summary.map_or(f64::NAN, |summary| summary.median);
    let times = ReductionTimes {
        bytes,
        timing: found.timing,
        summary,
        terabytes_per_second: terabytes_per_second(bytes, median),
        percent: 100.0 * bytes as f64 / median / copy,
        worst_error: found.worst_error,
        launch: found.launch,
        throttled: Vec::new(),
    };
    Ok((times, found.results))
}

impl Measured {
    /// Has CUB do the same where it can, in the same sizes of memory. Its results are compared with f64 and with ours.
    pub fn ask_cub(&mut self, options: &cub::Options) {
        let Self { reductions, oracle, results, .. } = self;
        let rows = reductions.rows.iter_mut().zip(results);
        // A line for which there is no memory is none of CUB's either.
        let fits = |line: &ReductionLine| line.has_cub() && reductions.sizes.refuse(line).is_none();
        let mut rows: Vec<(&mut ReductionRow, &mut Vec<f64>)> =
            rows.filter(|(row, _)| fits(&row.line)).collect();
        let lines: Vec<ReductionLine> = rows.iter().map(|(row, _)| row.line).collect();
        let found = cub::run(options, &reductions.sizes, &lines, |place, found| {
            let (row, ours) = &rows[place];
            judge_cub(&row.line, found, oracle.of(&row.line), ours)
        });
        let (software, found) = match found {
            Ok(found) => found,
            Err(why) => return reductions.cub = Some(Err(why.to_string())),
        };
        for ((row, _), found) in rows.iter_mut().zip(found) {
            let ours = row.outcome.as_ref().ok().and_then(|times| times.summary);
            row.cub = Some(found.map(|(timing, worst_error)| {
                let summary = timing.summary();
                let ratio = summary.zip(ours).map(|(cub, ours)| cub.median / ours.median);
                CubTimes { timing, summary, ratio, worst_error }
            }));
        }
        reductions.cub = Some(Ok(software));
    }
}

/// The largest error of CUB's results over its bound: against f64, and against ours where there are some.
fn judge_cub(
    line: &ReductionLine,
    found: &[f32],
    expected: &[Expected],
    ours: &[f64],
) -> Result<f64, String> {
    if found.len() != expected.len() {
        return Err(format!("{} results instead of {}", found.len(), expected.len()));
    }
    let mut worst = 0.0f64;
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let (name, value, bound) = match line.quantity {
            Quantity::Sum => ("sum", expected.sum, CUBS_SUM * expected.magnitude),
            _ => ("max", expected.max.0, 0.0),
        };
        let found = f64::from(*found);
        let against = |whose: &str| format!("{name} of result {i} beside {whose}");
        worst = worst.max(within(|| against("f64"), found, value, bound)?);
        if let Some(ours) = ours.get(i) {
            worst = worst.max(within(|| against("ours"), found, *ours, bound)?);
        }
    }
    Ok(worst)
}

#[cfg(test)]
pub(super) mod tests {
    use super::line::Way;
    use super::*;

    /// A flat sum beside CUB, a maximum at which CUB failed, statistics that it has not, and one that failed.
    pub(in super::super) fn example() -> Reductions {
        let timing = |ms: f64| Timing { milliseconds: vec![ms; 31], launches: 1 };
        let line = |quantity, shape| ReductionLine {
            quantity,
            shape,
            scalar: Scalar::F32,
            way: Way::Hierarchical,
        };
        let times = |bytes: u64| ReductionTimes {
            bytes,
            summary: timing(0.004).summary(),
            timing: timing(0.004),
            terabytes_per_second: terabytes_per_second(bytes, 0.004),
            percent: 25.0,
            worst_error: 0.25,
            launch: None,
            throttled: Vec::new(),
        };
        let cub = CubTimes {
            summary: timing(0.006).summary(),
            timing: timing(0.006),
            ratio: Some(1.5),
            worst_error: 0.1,
        };
        let row = |line: ReductionLine, outcome, cub| ReductionRow { line, outcome, cub };
        let flat = Shape::Flat { elements: 4096 };
        let segments = Shape::Segments { elements: 4096, segment: 64 };
        let rows = vec![
            row(line(Quantity::Sum, flat), Ok(times(16384)), Some(Ok(cub))),
            row(line(Quantity::Bounds, flat), Ok(times(16384)), Some(Err("max is 1".to_owned()))),
            row(line(Quantity::Statistics, segments), Ok(times(16384)), None),
            row(line(Quantity::Sum, segments), Err("no <memory>".to_owned()), None),
        ];
        let copy =
            CopyRow { bytes: 64 << 20, summary: timing(0.016).summary(), timing: timing(0.016) };
        let software = cub::Software { cub: "3.0.2".to_owned(), toolkit: "13.0".to_owned() };
        let sizes = Sizes { arena: 1 << 30, before: 256 << 20 };
        Reductions { sizes, copies: vec![copy], rows, cub: Some(Ok(software)) }
    }

    #[test]
    fn a_part_survives_its_json() {
        let json = serde_json::to_value(example()).expect("it is JSON");
        let row = &json["rows"][0];
        assert_eq!((&row["quantity"], &row["dtype"]), (&"sum".into(), &"f32".into()));
        assert_eq!(row["shape"]["flat"]["elements"], 4096);
        assert_eq!(row["cub"]["Ok"]["ratio"], 1.5);
        assert!(json["rows"][2].get("cub").is_none());
        assert_eq!(json["cub"]["Ok"]["toolkit"], "13.0");
        let back: Reductions = serde_json::from_value(json).expect("it can be read back");
        assert_eq!(back, example());
        assert_eq!((back.failed(), back.cub_failed()), (1, 1));
    }

    #[test]
    fn cubs_results_are_held_against_both() {
        let mut oracle = Oracle { pattern: Pattern::new(), last: None };
        let line = |quantity| ReductionLine {
            quantity,
            shape: Shape::Segments { elements: 1000, segment: 300 },
            scalar: Scalar::F32,
            way: Way::Hierarchical,
        };
        let sum = line(Quantity::Sum);
        let expected = oracle.of(&sum).to_vec();
        let ours: Vec<f64> = expected.iter().map(|e| e.sum).collect();
        let mut found: Vec<f32> = ours.iter().map(|sum| *sum as f32).collect();
        let worst = judge_cub(&sum, &found, &expected, &ours).expect("rounded once");
        assert!(worst > 0.0 && worst < 0.01, "{worst}");
        // Ours that are wrong would show, too.
        let wrong: Vec<f64> = ours.iter().map(|sum| sum + 1.0).collect();
        let error = judge_cub(&sum, &found, &expected, &wrong).expect_err("they differ");
        assert!(error.contains("sum of result 0 beside ours"), "{error}");
        found[3] *= 1.001;
        let error = judge_cub(&sum, &found, &expected, &ours).expect_err("it is off");
        assert!(error.contains("sum of result 3 beside f64"), "{error}");
        assert!(judge_cub(&sum, &found[1..], &expected, &ours).is_err());
        let max = line(Quantity::Bounds);
        let exact: Vec<f32> = expected.iter().map(|e| e.max.0 as f32).collect();
        assert_eq!(judge_cub(&max, &exact, &expected, &[]), Ok(0.0));
        let other: Vec<f32> = exact.iter().map(|x| x.next_up()).collect();
        assert!(judge_cub(&max, &other, &expected, &[]).is_err());
    }

    #[test]
    fn what_has_to_come_out_is_kept_for_lines_of_the_same_data() {
        let mut oracle = Oracle { pattern: Pattern::new(), last: None };
        let mut line = ReductionLine {
            quantity: Quantity::Sum,
            shape: Shape::Columns { rows: 4, columns: 8 },
            scalar: Scalar::Bf16,
            way: Way::Atomic,
        };
        let sums = oracle.of(&line)[0].sum;
        line.quantity = Quantity::Bounds;
        assert_eq!(oracle.of(&line)[0].sum, sums);
        line.quantity = Quantity::Products;
        assert_ne!(oracle.of(&line)[0].sum, sums);
    }
}
