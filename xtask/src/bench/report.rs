//! What was measured, as a table and as JSON.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, TableComponent, presets};
use serde::{Deserialize, Serialize};

use super::case::{Case, Matrices};
use super::claims::{self, ClaimRow};
use super::header::Header;
use super::peers::Peers;
use super::peers::protocol::PeerRow;
use super::reductions::{self, Reductions};
use super::row::{CeilingRow, Measured, Row};
use super::stacks::{self, LatencyRow, StackRow};
use super::summary::Summary;
use super::throttle::note;

/// Of the JSON: a key that goes or means something else counts it up, and so does a new kind of line, which an older command could not
/// read; a new key does not.
pub const SCHEMA: u32 = 3;
/// The oldest that is still read: it has no filters, matrices, reductions, whole-stack launches or steps handed over on the device.
pub const OLDEST_SCHEMA: u32 = 2;

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`], or of a file that was read an older one.
    pub schema: u32,
    /// Where and how.
    pub header: Header,
    /// One a shape, type and kind that was needed.
    pub ceilings: Vec<CeilingRow>,
    /// One a case.
    pub rows: Vec<Row>,
    /// Steps of many small layers by every way to execute them; empty where none was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<StackRow>,
    /// How long a submitted step takes; empty where it was not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latencies: Vec<LatencyRow>,
    /// The reductions, beside CUB; `None` where none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reductions: Option<Reductions>,
    /// What candle takes for the same on a processor, or why it was not measured; `None` where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candle: Option<Result<Vec<PeerRow>, String>>,
    /// What others take for the same, or why it was not measured; `None` where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Result<Peers, String>>,
    /// What the source system promised beside what is gained; empty where it was not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimRow>,
}

const COLUMNS: [&str; 12] = [
    "pass",
    "seeds",
    "rows×hidden",
    "dtype",
    "chunk",
    "median µs",
    "p10 µs",
    "p90 µs",
    "TB/s",
    "% of ceiling",
    "TFLOP/s",
    "timed together",
];
/// The first column of numbers.
const NUMBERS: usize = 4;

impl Report {
    /// Lines that could not be measured.
    #[must_use]
    pub fn failed(&self) -> usize {
        let claims = self.claims.iter().filter(|row| row.outcome.is_err()).count();
        let stacks = self.stacks.iter().filter(|row| row.outcome.is_err()).count();
        let latencies = self.latencies.iter().filter(|row| row.outcome.is_err()).count();
        let reductions = self.reductions.as_ref().map_or(0, Reductions::failed);
        let passes = self.rows.iter().filter(|row| row.outcome.is_err()).count();
        passes + stacks + latencies + reductions + claims
    }

    /// Lines, measured or not.
    fn lines(&self) -> usize {
        let reductions = self.reductions.as_ref().map_or(0, |part| part.rows.len());
        self.rows.len() + self.stacks.len() + self.latencies.len() + reductions + self.claims.len()
    }

    /// Whether nothing that was begun failed. Peers that are not there did not.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let peers = self.peers.iter().flatten().map(Peers::failed).sum::<usize>();
        let peers = peers + self.reductions.as_ref().map_or(0, Reductions::cub_failed);
        let candle = self.candle.iter().flatten().flatten();
        self.failed() + peers + candle.filter(|row| row.outcome.is_err()).count() == 0
    }

    /// Writes where and how it was measured, the table, and what failed.
    ///
    /// # Errors
    /// When `out` does.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}", self.header)?;
        if !self.rows.is_empty() {
            self.write_rows(out)?;
        }
        stacks::table::write(&self.stacks, &self.latencies, out)?;
        if let Some(reductions) = &self.reductions {
            reductions::table::write(reductions, out)?;
        }
        if !self.claims.is_empty() {
            claims::table::write(&self.claims, out)?;
        }
        match &self.candle {
            None => {}
            Some(Ok(rows)) => {
                writeln!(out, "candle's operations:")?;
                super::peers::table::write_rows(rows, out)?;
            }
            Some(Err(why)) => writeln!(out, "candle: not run, because {why}")?,
        }
        match &self.peers {
            None => {}
            Some(Ok(peers)) => peers.write(out)?,
            Some(Err(why)) => writeln!(out, "peers: not run, because {why}")?,
        }
        let failed = self.failed();
        let measured = self.lines() - failed;
        writeln!(out, "{measured} measured, {failed} failed")
    }

    /// The table of the cases, and what failed of them.
    fn write_rows(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.table())?;
        writeln!(
            out,
            "bytes: forward x and y, in place x alone; backward g and grad_x, and x where gradients need it; forward + backward and a step both; parameters not counted"
        )?;
        writeln!(
            out,
            "TFLOP/s: of the products of matrices, 2 operations a weight and row forward, 4 backward; what is computed once more is not counted"
        )?;
        writeln!(
            out,
            "timed together: launches in a row whose time was divided by their number, where one is under 20 µs"
        )?;
        for row in &self.rows {
            match &row.outcome {
                Err(why) => writeln!(out, "FAILED {}: {why}", row.case)?,
                Ok(measured) if !measured.cold_cache => {
                    let Measured { sets, .. } = measured;
                    writeln!(out, "maybe warm {}: only {sets} sets of matrices fit", row.case)?;
                }
                Ok(_) => {}
            }
            let throttled = row.outcome.as_ref().map_or(&[][..], |measured| &measured.throttled);
            if let Some(text) = note(&row.case, throttled) {
                writeln!(out, "{text}")?;
            }
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut rows = Vec::new();
        let mut shown: Option<Matrices> = None;
        for row in &self.rows {
            let matrices = row.case.matrices;
            // Ceilings stand before the first case of their matrices.
            if shown.replace(matrices) != Some(matrices) {
                let of = self.ceilings.iter().filter(|ceiling| ceiling.matrices == matrices);
                rows.extend(of.map(ceiling_cells));
            }
            rows.push(cells(row));
        }
        table(&COLUMNS, NUMBERS, rows)
    }
}

/// A table whose columns from `numbers` on are numbers.
pub(super) fn table(
    columns: &[&str],
    numbers: usize,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    // A rule under the header only, as in the other tables of these commands.
    table.remove_style(TableComponent::HorizontalLines);
    table.remove_style(TableComponent::MiddleIntersections);
    table.set_header(columns);
    for row in rows {
        table.add_row(row);
    }
    for right in numbers..columns.len() {
        if let Some(column) = table.column_mut(right) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The cells that say what a line is of.
pub(super) fn case_cells(case: &Case) -> Vec<String> {
    let Case { work, seeds, chunk, matrices } = case;
    let mut cells = vec![work.to_string(), seeds.to_string()];
    cells.extend([shape(matrices), matrices.dtype.to_string(), chunk.to_string()]);
    cells
}

fn cells(row: &Row) -> Vec<String> {
    let mut cells = case_cells(&row.case);
    match &row.outcome {
        Err(_) => cells.push("FAILED".to_owned()),
        Ok(measured) => {
            cells.extend(times(measured.summary));
            cells.push(format!("{:.3}", measured.terabytes_per_second));
            cells.push(format!("{:.1} of {}", measured.percent, row.case.ceiling()));
            let rate = measured.teraflops.map(|rate| format!("{rate:.2}"));
            cells.push(rate.unwrap_or_else(|| "-".to_owned()));
            cells.push(measured.timing.launches.to_string());
        }
    }
    cells
}

fn ceiling_cells(row: &CeilingRow) -> Vec<String> {
    let mut cells = vec![row.kind.to_string(), "-".to_owned(), shape(&row.matrices)];
    cells.extend([row.matrices.dtype.to_string(), "-".to_owned()]);
    cells.extend(times(row.summary));
    cells.push(format!("{:.3}", row.bytes_per_millisecond() / 1e9));
    cells.extend(["ceiling", "-"].map(str::to_owned));
    cells.push(row.timing.launches.to_string());
    cells
}

fn shape(matrices: &Matrices) -> String {
    format!("{}×{}", matrices.rows, matrices.hidden)
}

/// Median, p10 and p90 in microseconds.
pub(super) fn times(summary: Option<Summary>) -> [String; 3] {
    let text = |of: fn(&Summary) -> f64| {
        summary.as_ref().map_or_else(|| "-".to_owned(), |s| format!("{:.2}", 1e3 * of(s)))
    };
    [text(|s| s.median), text(|s| s.p10), text(|s| s.p90)]
}

/// One line that was measured, and one that failed.
#[cfg(test)]
pub(super) fn example() -> Report {
    use kasmina_core::DType;

    use super::buffers::Count;
    use super::case::{Ceiling, Seeds, Work};
    use super::summary::Timing;

    let matrices = Matrices { rows: 1000, hidden: 1000, dtype: DType::F32 };
    let timing = |ms: f64, launches| Timing { milliseconds: vec![ms; 31], launches };
    let ceiling = CeilingRow::new(Ceiling::Copy, matrices, timing(0.002, 20), None);
    let case = Case { work: Work::Forward, seeds: Seeds::Dormant, chunk: 16, matrices };
    let bytes = case.bytes().expect("it fits");
    let rate = ceiling.bytes_per_millisecond();
    let sets = Count { sets: 9, cold: true };
    let kernels = vec!["copy".to_owned()];
    let measured = Measured::new(bytes, None, timing(0.0025, 20), rate, sets, kernels);
    let rows = vec![
        Row { case, outcome: Ok(measured) },
        Row::failed(Case { chunk: 64, ..case }, "no memory"),
    ];
    let (header, ceilings) = (Header::example(), vec![ceiling]);
    let (stacks, latencies, claims) = (Vec::new(), Vec::new(), Vec::new());
    let (reductions, candle, peers) = (None, None, None);
    let schema = SCHEMA;
    Report { schema, header, ceilings, rows, stacks, latencies, reductions, candle, peers, claims }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_ceiling_first_and_percent_of_it() {
        let mut out = Vec::new();
        example().write(&mut out).expect("it can be written");
        let text = String::from_utf8(out).expect("it is text");
        let line = |start: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.trim_start().starts_with(start));
            line.expect(start).split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(
            line("copy").join(" "),
            "copy - 1000×1000 f32 - 2.00 2.00 2.00 4.000 ceiling - 20"
        );
        assert_eq!(
            line("forward").join(" "),
            "forward dormant 1000×1000 f32 16 2.50 2.50 2.50 3.200 80.0 of copy - 20"
        );
        assert!(text.contains("FAILED forward, dormant, 1000×1000 f32, chunk 64: no memory"));
        assert!(text.ends_with("1 measured, 1 failed\n") && !text.contains("peer"));
        let ceiling = text.find("copy ").expect("the ceiling");
        assert!(ceiling < text.find("forward   ").expect("the case"), "{text}");
    }

    #[test]
    fn peers_that_are_not_there_are_told_of_and_no_failure() {
        let mut report = example();
        report.rows.truncate(1);
        report.peers = Some(Err("python3 has no PyTorch".to_owned()));
        let mut out = Vec::new();
        report.write(&mut out).expect("it can be written");
        let text = String::from_utf8(out).expect("it is text");
        assert!(text.contains("\npeers: not run, because python3 has no PyTorch\n"), "{text}");
        assert!(report.is_whole());
        let json = serde_json::to_value(&report).expect("it is JSON");
        assert_eq!(json["peers"]["Err"], "python3 has no PyTorch");
    }

    #[test]
    fn a_candle_that_is_not_there_is_told_of_and_lines_that_were_held_back_are() {
        let mut report = example();
        report.rows.truncate(1);
        report.candle = Some(Err("this xtask was built without it".to_owned()));
        let measured = report.rows[0].outcome.as_mut().expect("it is measured");
        measured.throttled = vec!["the power limit".to_owned()];
        let mut out = Vec::new();
        report.write(&mut out).expect("it can be written");
        let text = String::from_utf8(out).expect("it is text");
        assert!(
            text.contains("\ncandle: not run, because this xtask was built without it\n"),
            "{text}"
        );
        let held = "THROTTLED forward, dormant, 1000×1000 f32, chunk 16: clocks held back by the power limit";
        assert!(text.contains(held) && report.is_whole(), "{text}");
        let json = serde_json::to_value(&report).expect("it is JSON");
        assert_eq!(json["rows"][0]["outcome"]["Ok"]["throttled"][0], "the power limit");
    }

    #[test]
    fn reductions_count_among_the_lines_and_cub_among_the_peers() {
        let mut report = example();
        report.rows.truncate(1);
        report.reductions = Some(reductions::tests::example());
        let mut out = Vec::new();
        report.write(&mut out).expect("it can be written");
        let text = String::from_utf8(out).expect("it is text");
        assert!(text.ends_with("4 measured, 1 failed\n") && !report.is_whole(), "{text}");
        let part = report.reductions.as_mut().expect("it is there");
        part.rows.pop();
        // CUB's own failure.
        assert!(report.failed() == 0 && !report.is_whole());
        let part = report.reductions.as_mut().expect("it is there");
        part.rows.iter_mut().for_each(|row| row.cub = None);
        part.cub = Some(Err("no nvcc".to_owned()));
        assert!(report.is_whole());
        let json = serde_json::to_value(&report).expect("it is JSON");
        assert_eq!(json["reductions"]["cub"]["Err"], "no nvcc");
        assert_eq!(json["schema"], 3);
    }

    #[test]
    fn claims_stand_alone_or_behind_the_table() {
        let written = |report: &Report| {
            let mut out = Vec::new();
            report.write(&mut out).expect("it can be written");
            String::from_utf8(out).expect("it is text")
        };
        let claims = claims::tests::example();
        let mut report = Report { claims, ..example() };
        let text = written(&report);
        assert!(
            text.ends_with("2 measured, 2 failed\n") && text.contains("% of ceiling"),
            "{text}"
        );
        report.rows.clear();
        let text = written(&report);
        assert!(text.ends_with("1 measured, 1 failed\n") && !report.is_whole(), "{text}");
        assert!(!text.contains("% of ceiling") && text.contains("promised %"), "{text}");
        report.claims.truncate(1);
        assert!(report.is_whole());
        let json = serde_json::to_value(&report).expect("it is JSON");
        assert_eq!(json["claims"].as_array().map(Vec::len), Some(1));
        // A run without them is as it was.
        let json = serde_json::to_value(example()).expect("it is JSON");
        assert!(json.get("claims").is_none());
        let back: Report = serde_json::from_value(json).expect("it can be read back");
        assert!(back.claims.is_empty());
    }

    #[test]
    fn the_json_has_every_number() {
        let json = serde_json::to_value(example()).expect("it is JSON");
        let row = &json["rows"][0];
        assert_eq!(row["work"], "forward");
        assert_eq!(row["seeds"], "dormant");
        assert_eq!((&row["rows"], &row["dtype"]), (&1000.into(), &"f32".into()));
        let measured = &row["outcome"]["Ok"];
        assert_eq!(measured["timing"]["milliseconds"].as_array().map(Vec::len), Some(31));
        assert_eq!(measured["bytes"], 8_000_000);
        assert_eq!(json["rows"][1]["outcome"]["Err"], "no memory");
        assert_eq!(json["ceilings"][0]["kind"], "copy");
        assert_eq!(json["header"]["machine"]["multiprocessors"], 132);
    }
}
