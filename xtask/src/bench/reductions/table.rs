//! Reductions as a table, ours beside CUB's.

use std::io::{self, Write};

use super::super::report::{table, times};
use super::super::throttle::note;
use super::{ReductionRow, Reductions};

const COLUMNS: [&str; 10] = [
    "quantity",
    "of",
    "way",
    "median µs",
    "p10 µs",
    "p90 µs",
    "TB/s",
    "% of copy",
    "CUB, median µs",
    "ratio of CUB",
];
/// The first column of numbers.
const NUMBERS: usize = 3;

/// Writes the table, how the numbers come about, and what failed.
///
/// # Errors
/// When `out` does.
pub fn write(reductions: &Reductions, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", table(&COLUMNS, NUMBERS, reductions.rows.iter().map(cells)))?;
    writeln!(
        out,
        "reductions: each call alone, behind a sum of {} MiB of other data; compared with f64 before it was timed; bytes: what is read, beside a copy that moves \
         about as many",
        reductions.sizes.before >> 20
    )?;
    for copy in &reductions.copies {
        let rate = copy.bytes_per_millisecond() / 1e9;
        writeln!(out, "a copy that moves {} MiB: {rate:.3} TB/s", copy.bytes >> 20)?;
    }
    match &reductions.cub {
        None => {}
        Some(Ok(software)) => writeln!(
            out,
            "CUB {} of CUDA {}: sums of f32 in f32 (ours in f64), the greatest alone (ours the least, too); ratio: CUB's median over ours",
            software.cub, software.toolkit
        )?,
        Some(Err(why)) => writeln!(out, "CUB: not run, because {why}")?,
    }
    for row in &reductions.rows {
        if let Err(why) = &row.outcome {
            writeln!(out, "FAILED {}: {why}", row.line)?;
        }
        if let Some(Err(why)) = &row.cub {
            writeln!(out, "FAILED {}: CUB: {why}", row.line)?;
        }
        let Ok(found) = &row.outcome else { continue };
        if let Some(launch) = &found.launch {
            writeln!(out, "{}: {launch}", row.line)?;
        }
        if let Some(text) = note(&row.line, &found.throttled) {
            writeln!(out, "{text}")?;
        }
    }
    Ok(())
}

fn cells(row: &ReductionRow) -> Vec<String> {
    let line = &row.line;
    let mut cells = vec![line.quantity.to_string(), line.subject(), line.way.to_string()];
    match &row.outcome {
        Err(_) => cells.extend(["FAILED", "", "", "", ""].map(str::to_owned)),
        Ok(found) => {
            cells.extend(times(found.summary));
            cells.push(format!("{:.3}", found.terabytes_per_second));
            cells.push(format!("{:.1}", found.percent));
        }
    }
    match &row.cub {
        None => cells.push("-".to_owned()),
        Some(Err(_)) => cells.push("FAILED".to_owned()),
        Some(Ok(found)) => {
            let [median, ..] = times(found.summary);
            let ratio = found.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            cells.extend([median, ratio]);
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    fn text(reductions: &Reductions) -> String {
        let mut out = Vec::new();
        write(reductions, &mut out).expect("it can be written");
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn cub_stands_beside_ours_and_what_failed_below() {
        let text = text(&example());
        let words = |start: &str| -> String {
            let line = text.lines().find(|line| line.trim_start().starts_with(start));
            line.expect(start).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            words("sum    "),
            "sum 4096 f32 hierarchical 4.00 4.00 4.00 0.004 25.0 6.00 1.50"
        );
        assert!(words("least").ends_with("25.0 FAILED"), "{text}");
        assert!(words("statistics").ends_with("25.0 -"), "{text}");
        let failed = "FAILED reduction, sum, 4096 f32 in segments of 64, hierarchical: no <memory>";
        assert!(text.contains(failed), "{text}");
        assert!(
            text.contains("least and greatest, 4096 f32, hierarchical: CUB: max is 1"),
            "{text}"
        );
        assert!(text.contains("a copy that moves 64 MiB: 4.194 TB/s"), "{text}");
        assert!(text.contains("CUB 3.0.2 of CUDA 13.0"), "{text}");
    }

    #[test]
    fn a_cub_that_is_not_there_is_told_of() {
        let mut reductions = example();
        reductions.cub = Some(Err("no nvcc: PATH: no nvcc on it".to_owned()));
        assert!(
            text(&reductions).contains("\nCUB: not run, because no nvcc: PATH: no nvcc on it\n")
        );
        reductions.cub = None;
        assert!(!text(&reductions).contains("not run"));
    }
}
