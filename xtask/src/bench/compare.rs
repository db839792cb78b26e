//! `--compare OLD.json`: has anything become slower than it was, beyond what times scatter by?

use std::io::{self, Write};

use super::header::Machine;
use super::report::{OLDEST_SCHEMA, Report, SCHEMA, table};
use super::row::CeilingRow;
use super::summary::Summary;

/// What an earlier run and this one say of each other.
#[derive(Debug)]
pub struct Comparison {
    changes: Vec<Change>,
    /// How much slower counts, in percent.
    band: f64,
    /// Lines that the earlier run measured and this one failed at, with the reason.
    lost: Vec<(String, String)>,
    /// Lines that only this run has.
    new: usize,
    /// Lines that only the earlier run has, as a selection leaves them out.
    left_out: usize,
    /// Ceilings that moved by more than the band: the machine was in another state.
    ceilings: Vec<String>,
    /// What else differs between the two.
    notes: Vec<String>,
}

/// A line of a run that can be compared: a pass, a stack, a latency, a reduction.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is called, the same in every run.
    pub name: String,
    /// Its times, or why there are none.
    pub outcome: Result<Summary, String>,
}

/// All lines of a run that can be compared. Claims are ratios within a run, and peers are others' code: no lines of these.
#[must_use]
pub fn lines(report: &Report) -> Vec<Line> {
    let timed = |summary: Option<Summary>| summary.ok_or_else(|| "nothing was timed".to_owned());
    let passes = report.rows.iter().map(|row| Line {
        name: row.case.to_string(),
        outcome: row.outcome.as_ref().map_err(Clone::clone).and_then(|found| timed(found.summary)),
    });
    let stacks = report.stacks.iter().map(|row| Line {
        name: row.line.to_string(),
        outcome: row.outcome.as_ref().map_err(Clone::clone).and_then(|found| timed(found.summary)),
    });
    let latencies = report.latencies.iter().map(|row| Line {
        name: row.line.to_string(),
        outcome: row.outcome.as_ref().map_err(Clone::clone).map(|found| found.summary),
    });
    let reductions = report.reductions.iter().flat_map(|part| &part.rows).map(|row| Line {
        name: row.line.to_string(),
        outcome: row.outcome.as_ref().map_err(Clone::clone).and_then(|found| timed(found.summary)),
    });
    passes.chain(stacks).chain(latencies).chain(reductions).collect()
}

/// A line in both runs.
#[derive(Clone, Debug)]
struct Change {
    name: String,
    old: Summary,
    new: Summary,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Slower,
    Faster,
    /// Within the band, or times that scatter so much that they overlap.
    Same,
}

/// Why two runs cannot be compared.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// Another form of the file.
    #[error(
        "it has schema {found}, and this command reads {oldest} to {newest}; {}",
        if found > newest { "show it by the command that wrote it, or a later one" } else { "measure again with the older commit and this command" }
    )]
    Schema {
        /// The file's.
        found: u32,
        /// The oldest that is read.
        oldest: u32,
        /// Ours.
        newest: u32,
    },
    /// Times of two machines say nothing of the code.
    #[error("it was measured on {old}, and this is {new}; compare runs of one machine")]
    OtherMachine {
        /// The file's.
        old: String,
        /// Ours.
        new: String,
    },
    /// Not one line is in both.
    #[error("no line that was measured here is in it")]
    NothingInCommon,
}

/// Whether times on both say something of each other.
///
/// # Errors
/// [`CompareError::OtherMachine`].
pub fn same_machine(old: &Machine, new: &Machine) -> Result<(), CompareError> {
    if old.name() == new.name() {
        return Ok(());
    }
    Err(CompareError::OtherMachine { old: old.name().to_owned(), new: new.name().to_owned() })
}

impl Change {
    fn new(name: String, old: Summary, new: Summary, band: f64) -> Self {
        let beyond = |slow: &Summary, fast: &Summary| {
            slow.median > fast.median * (1.0 + band / 100.0) && slow.p10 > fast.p90
        };
        let verdict = match (beyond(&new, &old), beyond(&old, &new)) {
            (true, _) => Verdict::Slower,
            (_, true) => Verdict::Faster,
            _ => Verdict::Same,
        };
        Self { name, old, new, verdict }
    }

    fn percent(&self) -> f64 {
        100.0 * (self.new.median / self.old.median - 1.0)
    }
}

impl Comparison {
    /// Compares two runs. A line is slower if its median is by more than `band` percent, and nine tenths of its times are longer
    /// than nine tenths of the old ones.
    ///
    /// # Errors
    /// See [`CompareError`].
    pub fn new(old: &Report, new: &Report, band: f64) -> Result<Self, CompareError> {
        let machines = (&old.header.machine, &new.header.machine);
        same_machine(machines.0, machines.1)?;
        let (before, now) = (lines(old), lines(new));
        let find = |lines: &[Line], name: &str| -> Option<Line> {
            lines.iter().find(|line| line.name == name).cloned()
        };
        let (mut changes, mut lost, mut added) = (Vec::new(), Vec::new(), 0);
        for line in &now {
            let old = find(&before, &line.name).and_then(|line| line.outcome.ok());
            match (old, &line.outcome) {
                (Some(old), Ok(new)) => {
                    changes.push(Change::new(line.name.clone(), old, *new, band));
                }
                (Some(_), Err(why)) => lost.push((line.name.clone(), why.clone())),
                (None, _) => added += 1,
            }
        }
        if changes.is_empty() && lost.is_empty() {
            return Err(CompareError::NothingInCommon);
        }
        let left_out = before.iter().filter(|line| find(&now, &line.name).is_none()).count();
        let ceilings = new.ceilings.iter().filter_map(|row| {
            let same =
                |other: &&CeilingRow| other.kind == row.kind && other.matrices == row.matrices;
            let old = old.ceilings.iter().find(same)?.summary?.median;
            let percent = 100.0 * (row.summary?.median / old - 1.0);
            (percent.abs() > band)
                .then(|| format!("{} of {}: {percent:+.1} %", row.kind, row.matrices))
        });
        let mut notes = Vec::new();
        if machines.0 != machines.1 {
            notes.push(format!("then: {}", machines.0.to_string().trim().replace('\n', "; ")));
            notes.push(format!("now:  {}", machines.1.to_string().trim().replace('\n', "; ")));
        }
        for (when, report) in [("then", old), ("now", new)] {
            let held = report.header.clocks.as_ref().map_or(&[][..], |clocks| &clocks.reasons);
            if !held.is_empty() {
                notes.push(format!("{when} clocks were held back by {}", held.join(", ")));
            }
        }
        let ceilings = ceilings.collect();
        Ok(Self { changes, band, lost, new: added, left_out, ceilings, notes })
    }

    /// Reads the earlier run.
    ///
    /// # Errors
    /// It is not the JSON of a run, or one that this command does not read.
    pub fn read(json: &str) -> Result<Report, Box<dyn std::error::Error + Send + Sync>> {
        // First the number alone, as all the rest may look different.
        #[derive(serde::Deserialize)]
        struct Schema {
            schema: u32,
        }
        let Schema { schema: found } = serde_json::from_str(json)?;
        let (oldest, newest) = (OLDEST_SCHEMA, SCHEMA);
        if !(oldest..=newest).contains(&found) {
            return Err(CompareError::Schema { found, oldest, newest }.into());
        }
        Ok(serde_json::from_str(json)?)
    }

    /// Lines that are slower, or that cannot be measured any more.
    #[must_use]
    pub fn regressions(&self) -> usize {
        self.count(Verdict::Slower) + self.lost.len()
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.changes.iter().filter(|change| change.verdict == verdict).count()
    }

    /// Writes what changed, and how much did not.
    ///
    /// # Errors
    /// When `out` does.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for note in &self.notes {
            writeln!(out, "{note}")?;
        }
        for ceiling in &self.ceilings {
            writeln!(out, "the machine was in another state: {ceiling}")?;
        }
        let mut changed: Vec<&Change> =
            self.changes.iter().filter(|change| change.verdict != Verdict::Same).collect();
        changed.sort_by(|a, b| b.percent().total_cmp(&a.percent()));
        if !changed.is_empty() {
            let columns = ["line", "then µs", "now µs", "change", ""];
            let rows = changed.iter().map(|change| {
                let mut cells = vec![change.name.clone()];
                cells.extend([change.old, change.new].map(|s| format!("{:.2}", 1e3 * s.median)));
                cells.push(format!("{:+.1} %", change.percent()));
                cells.push(format!("{:?}", change.verdict).to_lowercase());
                cells
            });
            writeln!(out, "{}", table(&columns, 1, rows))?;
        }
        for (line, why) in &self.lost {
            writeln!(out, "FAILED {line}: {why}")?;
        }
        writeln!(
            out,
            "compared: {} slower, {} faster, {} within {} % or their scatter, {} fail that did not; {} new, {} not measured now",
            self.count(Verdict::Slower),
            self.count(Verdict::Faster),
            self.count(Verdict::Same),
            self.band,
            self.lost.len(),
            self.new,
            self.left_out,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::Header;
    use super::super::report::example;
    use super::super::throttle::RunClocks;
    use super::*;

    fn text(comparison: &Comparison) -> String {
        let mut out = Vec::new();
        comparison.write(&mut out).expect("it can be written");
        String::from_utf8(out).expect("it is text")
    }

    /// The example with its measured line `factor` times as slow, and times that scatter by `scatter` of that.
    fn scaled(factor: f64, scatter: f64) -> Report {
        let mut report = example();
        let measured = report.rows[0].outcome.as_mut().expect("it is measured");
        let summary = measured.summary.as_mut().expect("it is timed");
        let median = factor * summary.median;
        *summary = Summary { median, p10: median * (1.0 - scatter), p90: median * (1.0 + scatter) };
        report
    }

    #[test]
    fn slower_is_beyond_the_band_and_the_scatter() {
        let verdict = |factor, scatter| {
            let comparison = Comparison::new(&example(), &scaled(factor, scatter), 5.0);
            comparison.expect("they can be compared").changes[0].verdict
        };
        assert_eq!(verdict(1.2, 0.01), Verdict::Slower);
        assert_eq!(verdict(1.04, 0.0), Verdict::Same);
        assert_eq!(verdict(1.2, 0.3), Verdict::Same);
        assert_eq!(verdict(0.8, 0.01), Verdict::Faster);
        assert_eq!(verdict(1.0, 0.0), Verdict::Same);
    }

    #[test]
    fn the_text_names_the_lines() {
        let slower = Comparison::new(&example(), &scaled(1.5, 0.0), 5.0).expect("one machine");
        assert_eq!(slower.regressions(), 1);
        let shown = text(&slower);
        assert!(shown.contains("+50.0 %") && shown.contains("slower"), "{shown}");
        let mut failing = example();
        failing.rows[0].outcome = Err("no memory".to_owned());
        let lost = Comparison::new(&example(), &failing, 5.0).expect("one machine");
        assert_eq!(lost.regressions(), 1);
        assert!(text(&lost).contains("chunk 16: no memory"), "{}", text(&lost));
        let same = Comparison::new(&example(), &example(), 5.0).expect("one machine");
        assert_eq!(same.regressions(), 0);
        // The line that fails in both is as new as one that the old run did not have.
        assert_eq!(
            text(&same),
            "compared: 0 slower, 0 faster, 1 within 5 % or their scatter, 0 fail that did not; 1 new, 0 not measured now\n"
        );
    }

    #[test]
    fn stacks_and_latencies_are_compared_too() {
        let (stacks, latencies) = super::super::stacks::tests::example();
        let old = Report { stacks, latencies, ..example() };
        let (stacks, latencies) = super::super::stacks::tests::example();
        let mut new = Report { stacks, latencies, ..example() };
        let same = Comparison::new(&old, &new, 5.0).expect("one machine");
        assert_eq!((same.regressions(), same.count(Verdict::Same)), (0, 3));
        let latency = new.latencies[0].outcome.as_mut().expect("it is measured");
        latency.summary = Summary { median: 0.03, p10: 0.029, p90: 0.031 };
        new.stacks[0].outcome = Err("no grid".to_owned());
        let clocks = RunClocks { reasons: vec!["heat".to_owned()], ..RunClocks::default() };
        new.header.clocks = Some(clocks);
        let slower = Comparison::new(&old, &new, 5.0).expect("one machine");
        assert_eq!(slower.regressions(), 2);
        let text = text(&slower);
        assert!(
            text.contains("latency of the resident grid") && text.contains("+100.0 %"),
            "{text}"
        );
        assert!(text.contains("stream launches: no grid"), "{text}");
        assert!(text.contains("now clocks were held back by heat"), "{text}");
    }

    #[test]
    fn reductions_are_compared_and_cub_is_not() {
        let with = || {
            let reductions = Some(super::super::reductions::tests::example());
            Report { reductions, ..example() }
        };
        let same = Comparison::new(&with(), &with(), 5.0).expect("one machine");
        assert_eq!((same.regressions(), same.count(Verdict::Same)), (0, 4));
        let mut new = with();
        let rows = &mut new.reductions.as_mut().expect("it is there").rows;
        rows[0].cub = Some(Err("max is 1".to_owned()));
        rows[2].outcome = Err("no kernels".to_owned());
        let times = rows[1].outcome.as_mut().expect("it is measured");
        times.summary = Some(Summary { median: 0.008, p10: 0.008, p90: 0.009 });
        let slower = Comparison::new(&with(), &new, 5.0).expect("one machine");
        assert_eq!(slower.regressions(), 2);
        let text = text(&slower);
        assert!(
            text.contains("least and greatest, 4096 f32") && text.contains("+100.0 %"),
            "{text}"
        );
        assert!(text.contains("segments of 64, hierarchical: no kernels"), "{text}");
        // A run of before there were any.
        let new = Comparison::new(&example(), &with(), 5.0).expect("one machine");
        assert!(new.regressions() == 0 && new.new == 5, "{new:?}");
    }

    #[test]
    fn a_ceiling_that_moved_is_told_of() {
        let mut other = example();
        other.ceilings[0].summary = Some(Summary { median: 0.003, p10: 0.003, p90: 0.003 });
        let text = text(&Comparison::new(&example(), &other, 5.0).expect("one machine"));
        assert!(text.contains("another state: copy of 1000×1000 f32: +50.0 %"), "{text}");
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        let mut elsewhere = example();
        let Machine::Gpu(gpu) = &mut elsewhere.header.machine else { panic!("it is a GPU") };
        gpu.device = "another".to_owned();
        let error = Comparison::new(&elsewhere, &example(), 5.0).expect_err("two machines");
        assert!(matches!(error, CompareError::OtherMachine { .. }), "{error}");
        let empty = Report { rows: Vec::new(), header: Header::example(), ..example() };
        let error = Comparison::new(&empty, &example(), 5.0).expect_err("nothing in common");
        assert_eq!(error, CompareError::NothingInCommon);
        let read = |json: &str| Comparison::read(json).expect_err("not a run").to_string();
        let old = read(r#"{"schema":1,"header":{}}"#);
        assert!(old.contains("schema 1, and this command reads 2 to 3; measure again"), "{old}");
        let later = read(r#"{"schema":4,"rows":[{"work":"tea"}]}"#);
        assert!(
            later.contains("schema 4") && later.contains("the command that wrote it"),
            "{later}"
        );
        // What the command before this one wrote.
        let mut older = serde_json::to_value(example()).expect("it is JSON");
        older["schema"] = 2.into();
        let measured = older["rows"][0]["outcome"]["Ok"].as_object_mut().expect("measured");
        measured.remove("operations").and(measured.remove("teraflops")).expect("they are new");
        assert_eq!(Comparison::read(&older.to_string()).expect("it is read").rows.len(), 2);
        assert!(read("7").contains("invalid type") && read("").contains("EOF"));
        let json = serde_json::to_string(&example()).expect("it is JSON");
        assert_eq!(Comparison::read(&json).expect("its own").rows.len(), 2);
    }
}
