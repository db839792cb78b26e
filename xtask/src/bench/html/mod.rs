//! `--html DIR`: a run as a page that needs nothing else, and its charts as files for other documents.

mod bars;
mod overview;
mod reductions;

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use super::case::{Matrices, Seeds};
use super::claims::line::Claim;
use super::claims::{ClaimRow, table};
use super::peers::Peers;
use super::report::Report;
use super::row::Row;
use super::summary::Summary;
use bars::{Bar, Chart, Scale};

const PAGE: &str = include_str!("page.html");
/// The chunk that charts show; the tables have all.
const CHARTED: usize = 64;

/// Writes `index.html` and the charts into `folder`, which is made if it is not there.
///
/// # Errors
/// A file cannot be written.
pub fn write(report: &Report, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut sections = String::new();
    for chart in charts(report) {
        let svg = chart.svg.map_err(io::Error::other)?;
        fs::write(folder.join(&chart.file), &svg)?;
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(sections, "<figure>{svg}</figure>");
    }
    let mut text = Vec::new();
    report.write(&mut text)?;
    let text = escaped(&String::from_utf8_lossy(&text));
    let page = PAGE
        .replace("{{title}}", &escaped(report.header.machine.name()))
        .replace("{{charts}}", &sections)
        .replace("{{text}}", &text);
    fs::write(folder.join("index.html"), page)
}

struct Drawn {
    file: String,
    svg: Result<String, String>,
}

/// Overviews of everything, one a shape and type, one a claim, and one for the peers.
fn charts(report: &Report) -> Vec<Drawn> {
    let overviews = overview::charts(report).into_iter();
    let mut drawn: Vec<Drawn> =
        overviews.map(|(file, chart)| Drawn { file: file.to_owned(), svg: chart.svg() }).collect();
    let passes = report
        .rows
        .chunk_by(|a, b| a.case.matrices == b.case.matrices)
        .filter_map(|rows| Some((rows.first()?.case.matrices, ceilings(rows)?)));
    drawn.extend(passes.map(|(matrices, chart)| Drawn { file: file(&matrices), svg: chart.svg() }));
    for rows in report.claims.chunk_by(|a, b| a.line.claim == b.line.claim) {
        let Some(row) = rows.first() else { continue };
        if let Some(chart) = claim(row, rows) {
            drawn.push(Drawn { file: claim_file(row.line.claim), svg: chart.svg() });
        }
    }
    if let Some(Ok(peers)) = &report.peers {
        let chart = peers_chart(report, peers);
        drawn.push(Drawn { file: "peers.svg".to_owned(), svg: chart.svg() });
    }
    drawn
}

fn file(matrices: &Matrices) -> String {
    format!("{}x{}-{}.svg", matrices.rows, matrices.hidden, matrices.dtype)
}

/// How much of its ceiling each pass of some matrices reaches; `None` if nothing of them was measured.
fn ceilings(rows: &[Row]) -> Option<Chart> {
    let matrices = rows.first()?.case.matrices;
    let shown = |row: &&Row| row.case.chunk == CHARTED;
    let bars: Vec<Bar> = rows.iter().filter(shown).filter_map(bar).collect();
    let title = format!("{matrices}, chunk {CHARTED}");
    let unit = "% of the bytes a second of the ceiling in the same run (line: 100 %)".to_owned();
    let (mark, scale) = (Some(100.0), Scale::Linear);
    (!bars.is_empty()).then_some(Chart { title, unit, mark, scale, bars })
}

fn bar(row: &Row) -> Option<Bar> {
    let measured = row.outcome.as_ref().ok()?;
    let Summary { median, p10, p90 } = measured.summary?;
    let at = |time: f64| measured.percent * median / time;
    Some(Bar {
        label: format!("{}, {}", row.case.work, row.case.seeds),
        value: measured.percent,
        spread: (at(p90), at(p10)),
        note: format!("{:.0} % of {}", measured.percent, row.case.ceiling()),
        other: false,
        promised: None,
    })
}

fn claim_file(claim: Claim) -> String {
    format!("claims-{}.svg", claim.to_string().replace(' ', "-").to_lowercase())
}

/// How many times as fast each line of a claim is with it; `None` if nothing of it was measured.
fn claim(first: &ClaimRow, rows: &[ClaimRow]) -> Option<Chart> {
    let bar = |row: &ClaimRow| {
        let percent = row.outcome.as_ref().ok()?.percent;
        let times = |percent: f64| 1.0 + percent / 100.0;
        Some(Bar {
            label: format!("{}: {} against {}", row.line.workload, row.line.on, row.line.off),
            value: times(percent.median),
            spread: (times(percent.p10), times(percent.p90)),
            note: format!("{:+.0} %", percent.median),
            other: false,
            promised: None,
        })
    };
    let bars: Vec<Bar> = rows.iter().filter_map(bar).collect();
    let promised = table::promised(first);
    (!bars.is_empty()).then(|| Chart {
        title: format!("{}, promised {promised} %", first.line.claim),
        unit: "times as fast as without (line: as fast)".to_owned(),
        mark: Some(1.0),
        scale: Scale::Linear,
        bars,
    })
}

/// How many times as long the peers take.
fn peers_chart(report: &Report, peers: &Peers) -> Chart {
    let bars = peers.rows.iter().filter_map(|row| {
        let numbers = row.outcome.as_ref().ok()?;
        let (ratio, Summary { median, p10, p90 }) = (numbers.ratio?, numbers.summary?);
        let case = &row.case;
        let seeds = if case.seeds == Seeds::Dormant { ", dormant" } else { "" };
        Some(Bar {
            label: format!(
                "{}{seeds}, {}, chunk {}: {}",
                case.work, case.matrices.dtype, case.chunk, row.peer
            ),
            value: ratio,
            spread: (ratio * p10 / median, ratio * p90 / median),
            note: format!("{ratio:.1} ×"),
            other: true,
            promised: None,
        })
    });
    Chart {
        title: format!("peers on {}", report.header.machine.name()),
        unit: "times as long as Kasmina (line: as long)".to_owned(),
        mark: Some(1.0),
        scale: Scale::Linear,
        bars: bars.collect(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::example;
    use super::*;

    #[test]
    fn the_page_has_the_table_and_a_chart_for_each_kind_of_matrix() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut report = example();
        // The one that was measured, at the chunk that is charted.
        report.rows[0].case.chunk = CHARTED;
        report.rows[1].outcome = Err("no <memory>".to_owned());
        let to = folder.path().join("made");
        write(&report, &to).expect("it can be written");
        let page = fs::read_to_string(to.join("index.html")).expect("the page");
        assert!(page.contains("1 measured, 1 failed") && !page.contains("{{"), "{page}");
        assert!(page.contains("no &lt;memory&gt;") && page.matches("<svg").count() == 1);
        let svg = fs::read_to_string(to.join("1000x1000-f32.svg")).expect("the chart");
        assert!(svg.contains("80 % of copy") && page.contains(&svg));
    }

    #[test]
    fn a_claim_has_a_chart_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut report = example();
        report.rows.clear();
        report.claims = super::super::claims::tests::example();
        write(&report, folder.path()).expect("it can be written");
        let page = fs::read_to_string(folder.path().join("index.html")).expect("the page");
        // The overview and one claim: the other claim's line failed.
        assert!(page.matches("<svg").count() == 2 && page.contains("promised %"), "{page}");
        let svg = fs::read_to_string(folder.path().join("claims-tma.svg")).expect("the chart");
        assert!(svg.contains("TMA, promised 30–50 %") && svg.contains("+100 %"), "{svg}");
        assert_eq!(claim_file(Claim::Backward), "claims-shared-memory-backward.svg");
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let mut report = example();
        report.rows.remove(0);
        assert!(charts(&report).is_empty());
        report.peers = Some(Err("no Python".to_owned()));
        assert!(charts(&report).is_empty());
    }
}
