//! The claims as a table: promised beside measured.

use std::io::{self, Write};

use super::super::report::table;
use super::super::summary::Summary;
use super::super::throttle::note;
use super::ClaimRow;
use super::gain::{Gain, Percent};

const COLUMNS: [&str; 9] = [
    "claim",
    "workload",
    "off",
    "on",
    "promised %",
    "measured % (p10 to p90)",
    "off µs",
    "on µs",
    "measured against promised",
];

/// Writes the table, how the numbers come about, and what failed.
///
/// # Errors
/// When `out` does.
pub fn write(rows: &[ClaimRow], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", table(&COLUMNS, COLUMNS.len(), rows.iter().map(cells)))?;
    writeln!(
        out,
        "measured: time off / time on − 1, over all pairs of times; µs: medians; both sides of a line agreed before they were timed"
    )?;
    writeln!(
        out,
        "ceiling: of a pass a device copy, or two reads and one write; of a reduction as many bytes as a copy moves in the time"
    )?;
    for row in rows {
        let of = format!("{}, {}", row.line.claim, row.line.workload);
        match &row.outcome {
            Err(why) => writeln!(out, "FAILED {}: {why}", row.line)?,
            Ok(Gain { off, on, disagreement, .. }) => writeln!(
                out,
                "{of}: off by {}; on by {}; they differ by {disagreement:.2} of what is allowed",
                off.how, on.how
            )?,
        }
        if let Some(text) = note(&row.line, &row.throttled) {
            writeln!(out, "{text}")?;
        }
    }
    Ok(())
}

/// Percent with their sign; of large ones no digits that nobody believes.
pub(super) fn percent(percent: &Percent) -> String {
    let Percent { median, p10, p90 } = percent;
    format!("{median:+.0} ({p10:+.0} to {p90:+.0})")
}

/// A row's outcome while others are still measured.
pub(super) fn in_short(row: &ClaimRow) -> String {
    match &row.outcome {
        Ok(gain) => format!("{} %", percent(&gain.percent)),
        Err(why) => format!("FAILED, {why}"),
    }
}

fn cells(row: &ClaimRow) -> Vec<String> {
    let line = &row.line;
    let mut cells = vec![line.claim.to_string(), line.workload.to_string()];
    cells.extend([line.off, line.on].map(|way| way.to_string()));
    cells.push(promised(row));
    match &row.outcome {
        Err(_) => cells.push("FAILED".to_owned()),
        Ok(gain) => {
            cells.push(percent(&gain.percent));
            let us = |summary: &Summary| format!("{:.2}", 1e3 * summary.median);
            cells.extend([us(&gain.summaries.0), us(&gain.summaries.1), gain.reason.clone()]);
        }
    }
    cells
}

/// What was promised, as it is shown.
pub(in super::super) fn promised(row: &ClaimRow) -> String {
    let (least, most) = row.promised;
    format!("{least:.0}–{most:.0}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn promised_stands_beside_measured() {
        let mut out = Vec::new();
        write(&example(), &mut out).expect("it can be written");
        let text = String::from_utf8(out).expect("it is text");
        let line = text.lines().find(|line| line.trim_start().starts_with("TMA ")).expect("a line");
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            words.ends_with(
                "30–50 +100 (+100 to +100) 200.00 100.00 more than promised: what is off is not bound by memory, 40 % of the ceiling off, 80 % on"
            ),
            "{words}"
        );
        assert!(text.contains("off by so; on by so; they differ by 0.25 of what is allowed"));
        assert!(text.contains("FAILED together: "), "{text}");
        assert!(text.contains("resident grid against a program a row and seed: no <memory>"));
    }

    #[test]
    fn losses_have_their_sign() {
        let lost = Percent { median: -20.4, p10: -31.0, p90: 0.2 };
        assert_eq!(percent(&lost), "-20 (-31 to +0)");
        let short: Vec<String> = example().iter().map(in_short).collect();
        assert_eq!(short, ["+100 (+100 to +100) %", "FAILED, no <memory>"]);
    }
}
