//! Stacks and latencies as tables.

use std::io::{self, Write};

use super::super::report::{table, times};
use super::super::throttle::note;
use super::{LatencyRow, StackRow};

const COLUMNS: [&str; 10] = [
    "passes",
    "seeds",
    "rows×hidden",
    "chunk",
    "way",
    "µs a pass",
    "step, median µs",
    "p10 µs",
    "p90 µs",
    "timed together",
];
/// The first column of numbers.
const NUMBERS: usize = 5;

const LATENCY_COLUMNS: [&str; 9] = [
    "rows×hidden",
    "chunk",
    "by",
    "call to result, median µs",
    "p10 µs",
    "p90 µs",
    "p99 µs",
    "p99.9 µs",
    "the call alone, median µs",
];

/// Writes both tables, how the numbers come about, and what failed.
///
/// # Errors
/// When `out` does.
pub fn write(stacks: &[StackRow], latencies: &[LatencyRow], out: &mut dyn Write) -> io::Result<()> {
    if !stacks.is_empty() {
        writeln!(out, "{}", table(&COLUMNS, NUMBERS, stacks.iter().map(stack_cells)))?;
        writeln!(
            out,
            "steps of {} layers, f32, telemetry on; µs a pass: the median over layers and passes; all ways gave the bits of stream launches; \
             the grid on the host's clock, the others on the device's",
            super::line::LAYERS
        )?;
    }
    if !latencies.is_empty() {
        writeln!(out, "{}", table(&LATENCY_COLUMNS, 3, latencies.iter().map(latency_cells)))?;
        let steps = latencies.iter().find_map(|row| Some(row.outcome.as_ref().ok()?.steps));
        if let Some(steps) = steps {
            writeln!(
                out,
                "one layer forward, {steps} steps, each submitted when the one before was there"
            )?;
        }
    }
    let failed =
        stacks.iter().filter_map(|row| Some((row.line.to_string(), row.outcome.as_ref().err()?)));
    let late = latencies
        .iter()
        .filter_map(|row| Some((row.line.to_string(), row.outcome.as_ref().err()?)));
    for (line, why) in failed.chain(late) {
        writeln!(out, "FAILED {line}: {why}")?;
    }
    let held =
        stacks.iter().filter_map(|row| note(&row.line, &row.outcome.as_ref().ok()?.throttled));
    let late =
        latencies.iter().filter_map(|row| note(&row.line, &row.outcome.as_ref().ok()?.throttled));
    for line in held.chain(late) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn stack_cells(row: &StackRow) -> Vec<String> {
    let line = &row.line;
    let mut cells = vec![line.passes.to_string(), line.life.to_string()];
    cells.extend([format!("{}×{}", line.rows, line.hidden), line.chunk.to_string()]);
    cells.push(line.way.to_string());
    match &row.outcome {
        Err(_) => cells.push("FAILED".to_owned()),
        Ok(found) => {
            cells.push(format!("{:.2}", found.us_a_pass));
            cells.extend(times(found.summary));
            cells.push(found.timing.launches.to_string());
        }
    }
    cells
}

fn latency_cells(row: &LatencyRow) -> Vec<String> {
    let line = &row.line;
    let mut cells = vec![format!("{}×{}", line.rows, line.hidden), line.chunk.to_string()];
    cells.push(line.by.to_string());
    match &row.outcome {
        Err(_) => cells.push("FAILED".to_owned()),
        Ok(found) => {
            cells.extend(times(Some(found.summary)));
            let us = [found.p99, found.p999, found.submit].map(|ms| format!("{:.2}", 1e3 * ms));
            cells.extend(us);
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn ways_stand_beside_each_other_and_what_went_wrong_below() {
        let (stacks, latencies) = example();
        let mut out = Vec::new();
        write(&stacks, &latencies, &mut out).expect("it can be written");
        let text = String::from_utf8(out).expect("it is text");
        let words = |start: &str| -> String {
            let line = text.lines().find(|line| line.trim_start().starts_with(start));
            line.expect(start).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            words("forward"),
            "forward dormant 32×768 48 stream launches 5.00 240.00 240.00 240.00 1"
        );
        assert_eq!(words("1×64"), "1×64 64 the resident grid 15.00 14.00 17.00 22.00 36.00 5.00");
        assert!(text.contains("graph with room: no <memory>\n"), "{text}");
        assert!(text.contains("stream launches: clocks held back by the power limit"), "{text}");
        assert!(text.contains("3100 steps"), "{text}");
        let mut nothing = Vec::new();
        write(&[], &[], &mut nothing).expect("it can be written");
        assert!(nothing.is_empty());
    }
}
