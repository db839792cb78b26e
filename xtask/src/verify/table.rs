//! The report of a run: a row a case and backend, the failures in full, the count last.

use std::io::{self, Write};
use std::path::Path;

use comfy_table::{CellAlignment, Table, TableComponent, presets};
use kasmina_oracle::StabilityMode;

use super::backend::Backend;
use super::case::Case;
use super::error::CaseError;
use super::judge::{Failure, judge};

/// Failures printed of one case; the rest are counted.
const SHOWN: usize = 12;

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    name: String,
    backend: String,
    storage: String,
    shape: String,
    seeds: String,
    mode: String,
    worst: String,
    failures: Vec<String>,
}

impl Row {
    /// A file that is not a case.
    #[must_use]
    pub fn refused(file: &Path, error: &CaseError) -> Self {
        let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned());
        let absent = || "-".to_owned();
        Self {
            name: stem.unwrap_or_else(absent),
            backend: absent(),
            storage: absent(),
            shape: absent(),
            seeds: absent(),
            mode: absent(),
            worst: absent(),
            failures: vec![error.to_string()],
        }
    }

    /// Runs a case on a backend and judges it.
    #[must_use]
    pub fn judged(case: &Case, backend: &dyn Backend) -> Self {
        let (worst, failures) = match backend.run(case) {
            Err(error) => ("-".to_owned(), vec![error.to_string()]),
            Ok(outcome) => {
                let verdict = judge(case, &outcome);
                let failures = verdict.failures.iter().map(Failure::to_string);
                (ratio(verdict.worst), failures.collect())
            }
        };
        let mode = match case.stability.mode {
            StabilityMode::Fast => "fast",
            StabilityMode::Adaptive => "adaptive",
            StabilityMode::Strict => "strict",
        };
        Self {
            name: case.name.clone(),
            backend: backend.name().to_owned(),
            storage: case.x.storage.name().to_owned(),
            shape: format!("{}×{}", case.rows, case.hidden),
            seeds: format!("{}×{}", case.seeds.len(), case.chunk),
            mode: mode.to_owned(),
            worst,
            failures,
        }
    }
}

/// A ratio in three places, or its power of ten where those would all be zero.
fn ratio(ratio: f64) -> String {
    if ratio == 0.0 || (1e-3..1e4).contains(&ratio) {
        format!("{ratio:.3}")
    } else {
        format!("{ratio:.0e}")
    }
}

/// All lines.
#[derive(Debug, Clone, Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a line.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Lines with a failure.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.rows.iter().filter(|r| !r.failures.is_empty()).count()
    }

    /// Writes the table, then every failure with its element, value, expectation and bound, then
    /// `N passed, N failed`.
    ///
    /// # Errors
    /// When `out` does.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        // A rule under the header only; rules between rows would double the length.
        table.remove_style(TableComponent::HorizontalLines);
        table.remove_style(TableComponent::MiddleIntersections);
        table.set_header([
            "case",
            "backend",
            "dtype",
            "rows×hidden",
            "seeds×chunk",
            "mode",
            "worst error/bound",
            "result",
        ]);
        for row in &self.rows {
            let result = if row.failures.is_empty() { "passed" } else { "FAILED" };
            table.add_row([
                &row.name,
                &row.backend,
                &row.storage,
                &row.shape,
                &row.seeds,
                &row.mode,
                &row.worst,
                result,
            ]);
        }
        for right in [3, 4, 6] {
            if let Some(column) = table.column_mut(right) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(out, "{table}")?;
        for row in self.rows.iter().filter(|r| !r.failures.is_empty()) {
            writeln!(out, "{} ({}):", row.name, row.backend)?;
            for failure in row.failures.iter().take(SHOWN) {
                writeln!(out, "  {failure}")?;
            }
            let more = row.failures.len().saturating_sub(SHOWN);
            if more > 0 {
                writeln!(out, "  and {more} more")?;
            }
        }
        let failed = self.failed();
        writeln!(out, "{} passed, {failed} failed", self.rows.len() - failed)
    }
}
