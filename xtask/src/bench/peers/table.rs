//! The peers, each beside ours.

use std::io::{self, Write};

use super::super::report::{case_cells, table, times};
use super::Peers;
use super::protocol::PeerRow;

const COLUMNS: [&str; 10] = [
    "pass",
    "seeds",
    "rows×hidden",
    "dtype",
    "chunk",
    "peer",
    "median µs",
    "p10 µs",
    "p90 µs",
    "ratio to Kasmina",
];
/// The first column of times.
const NUMBERS: usize = 6;

impl Peers {
    /// Peers that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.rows.iter().filter(|row| row.outcome.is_err()).count()
    }

    /// Writes the table, and what failed.
    ///
    /// # Errors
    /// When `out` does.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let software = &self.software;
        let triton = software.triton.as_deref().unwrap_or("none");
        writeln!(
            out,
            "peers: Python {}, PyTorch {}, Triton {triton}",
            software.python, software.torch
        )?;
        write_rows(&self.rows, out)?;
        let failed = self.failed();
        writeln!(out, "peers: {} measured, {failed} failed", self.rows.len() - failed)
    }
}

/// Writes a table of peers, and what failed of them.
///
/// # Errors
/// When `out` does.
pub(in super::super) fn write_rows(rows: &[PeerRow], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", table(&COLUMNS, NUMBERS, rows.iter().map(cells)))?;
    writeln!(out, "ratio: the peer's median over Kasmina's of the same line above")?;
    for row in rows {
        let name = format!("{}: {}", row.case, row.peer);
        match &row.outcome {
            Err(why) => writeln!(out, "FAILED {name}: {why}")?,
            Ok(numbers) if !numbers.cold_cache => {
                writeln!(out, "maybe warm {name}: only {} sets of matrices fit", numbers.sets)?;
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

fn cells(row: &PeerRow) -> Vec<String> {
    let mut cells = case_cells(&row.case);
    match &row.outcome {
        Err(_) => cells.extend([row.peer.to_string(), "FAILED".to_owned()]),
        Ok(numbers) => {
            let note = numbers.note.iter().map(|note| format!(" ({note})"));
            cells.push(row.peer.to_string() + &note.collect::<String>());
            cells.extend(times(numbers.summary));
            cells.push(numbers.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use kasmina_core::DType;

    use super::super::super::case::{Case, Matrices, Seeds, Work};
    use super::super::super::summary::Timing;
    use super::super::protocol::{Peer, PeerNumbers, Software};
    use super::*;

    #[test]
    fn a_peer_stands_beside_its_ratio_and_a_failure_beside_its_reason() {
        let matrices = Matrices { rows: 8, hidden: 64, dtype: DType::F32 };
        let work = Work::ForwardTelemetry;
        let case = Case { work, seeds: Seeds::Residual, chunk: 16, matrices };
        let timing = Timing { milliseconds: vec![0.5; 31], launches: 1 };
        let numbers = PeerNumbers {
            summary: timing.summary(),
            timing,
            ratio: Some(3.25),
            worst_error: 0.1,
            sets: 3,
            cold_cache: true,
            note: Some("2 warps a program".to_owned()),
        };
        let row = |peer, outcome| PeerRow { case, peer, outcome };
        let rows = vec![
            row(Peer::Triton, Ok(numbers)),
            row(Peer::Compiled, Err("no compiler".to_owned())),
        ];
        let software =
            Software { python: "3.12".to_owned(), torch: "2.11".to_owned(), triton: None };
        let peers = Peers { software, rows };
        let mut out = Vec::new();
        peers.write(&mut out).expect("it can be written");
        let text = String::from_utf8(out).expect("it is text");
        let line = text.lines().find(|line| line.contains("warps")).expect("its line");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(line.contains("forward + telemetry") && line.contains("8×64"), "{line}");
        assert_eq!(words[words.len() - 4..], ["500.00", "500.00", "500.00", "3.25"]);
        assert!(
            text.contains(
                "FAILED forward + telemetry, residual on path, 8×64 f32, chunk 16: PyTorch, compiled: no compiler"
            ),
            "{text}"
        );
        assert!(text.ends_with("peers: 1 measured, 1 failed\n"), "{text}");
    }
}
