//! The charts that say all of a run at a glance, for `docs/benchmarks.md`: passes against the ceiling, products of matrices, stacks by way,
//! reductions beside a copy and beside CUB, promises against measurements.

use kasmina_core::DType;

use super::super::case::{Case, Seeds, Work};
use super::super::claims::ClaimRow;
use super::super::claims::line::CHUNK;
use super::super::report::Report;
use super::super::row::Row;
use super::super::stacks::StackRow;
use super::super::summary::Summary;
use super::bars::{Bar, Chart, Scale};
use super::{CHARTED, reductions};

/// The passes that stand for all.
const PASSES: [(Work, Seeds); 6] = [
    (Work::ForwardTelemetry, Seeds::Dormant),
    (Work::ForwardTelemetry, Seeds::Residual),
    (Work::Backward, Seeds::ExpansionTrains),
    (Work::ForwardBackward, Seeds::ExpansionTrains),
    (Work::ForwardTelemetry, Seeds::Filter3),
    (Work::Backward, Seeds::Filter3),
];

/// Those that have something to show, with their files.
pub(super) fn charts(report: &Report) -> Vec<(&'static str, Chart)> {
    let mut all = vec![
        ("ceilings.svg", ceilings(&report.rows)),
        ("matrices.svg", matrices(&report.rows)),
        ("stacks.svg", stacks(&report.stacks)),
    ];
    if let Some(part) = &report.reductions {
        all.push(("reductions.svg", reductions::of_copy(part)));
        all.push(("cub.svg", reductions::of_cub(part)));
    }
    all.push(("claims.svg", claims(&report.claims)));
    all.into_iter().filter(|(_, chart)| !chart.bars.is_empty()).collect()
}

/// Share of the ceiling by pass, shape and type.
fn ceilings(rows: &[Row]) -> Chart {
    let bar = |row: &Row| {
        let Case { work, seeds, chunk, matrices } = row.case;
        let measured = row.outcome.as_ref().ok().filter(|_| chunk == CHARTED)?;
        let Summary { median, p10, p90 } = measured.summary?;
        let at = |time: f64| measured.percent * median / time;
        Some(Bar {
            label: format!("{work}, {seeds}, {matrices}"),
            value: measured.percent,
            spread: (at(p90), at(p10)),
            note: format!("{:.0} % of {}", measured.percent, row.case.ceiling()),
            other: matrices.dtype != DType::F32,
            promised: None,
        })
    };
    // A pass's shapes together, unlike in the table.
    let of = |pass: (Work, Seeds)| {
        rows.iter().filter(move |row| (row.case.work, row.case.seeds) == pass).filter_map(bar)
    };
    Chart {
        title: format!("share of what the device can do at best, chunk {CHARTED}"),
        unit: "% of the bytes a second of the ceiling in the same run (line: 100 %)".to_owned(),
        mark: Some(100.0),
        scale: Scale::Linear,
        // Fewer passes than two are no overview.
        bars: PASSES.into_iter().filter(|_| rows.len() > 2).flat_map(of).collect(),
    }
}

/// 10¹² operations a second of the products of matrices, by pass, shape, chunk and type.
fn matrices(rows: &[Row]) -> Chart {
    let bar = |row: &Row| {
        let Case { work, seeds, chunk, matrices } = row.case;
        let measured = row.outcome.as_ref().ok()?;
        let (rate, Summary { median, p10, p90 }) = (measured.teraflops?, measured.summary?);
        let at = |time: f64| rate * median / time;
        Some(Bar {
            label: format!("{work}, {seeds}, {matrices}, chunk {chunk}"),
            value: rate,
            spread: (at(p90), at(p10)),
            note: format!("{rate:.2}"),
            other: matrices.dtype != DType::F32,
            promised: None,
        })
    };
    Chart {
        title: "bottlenecks and dense branches".to_owned(),
        unit: "TFLOP/s of their products".to_owned(),
        mark: None,
        scale: Scale::Linear,
        bars: rows.iter().filter_map(bar).collect(),
    }
}

/// Microseconds of a layer's pass by way.
fn stacks(rows: &[StackRow]) -> Chart {
    let bar = |row: &StackRow| {
        let (line, found) = (&row.line, row.outcome.as_ref().ok()?);
        let Summary { median, p10, p90 } = found.summary?;
        let at = |time: f64| found.us_a_pass * time / median;
        Some(Bar {
            label: format!(
                "{}×{}, {}, {}: {}",
                line.rows, line.hidden, line.life, line.passes, line.way
            ),
            value: found.us_a_pass,
            spread: (at(p10), at(p90)),
            note: format!("{:.2} µs", found.us_a_pass),
            other: !line.way.stays(),
            promised: None,
        })
    };
    Chart {
        title: "48 small layers, by the way to execute them".to_owned(),
        unit: "µs of a layer's pass".to_owned(),
        mark: None,
        scale: Scale::Linear,
        bars: rows.iter().filter_map(bar).collect(),
    }
}

/// How many times as fast each line is with what was promised a gain, and what was promised.
fn claims(rows: &[ClaimRow]) -> Chart {
    let times = |percent: f64| 1.0 + percent / 100.0;
    let bar = |row: &ClaimRow| {
        let percent = row.outcome.as_ref().ok()?.percent;
        let line = &row.line;
        Some(Bar {
            // All are of one chunk, and the labels long enough.
            label: format!("{}: {}, {} against {}", line.claim, line.workload, line.on, line.off)
                .replace(&format!(", chunk {CHUNK}"), ""),
            value: times(percent.median),
            spread: (times(percent.p10), times(percent.p90)),
            note: format!("{:+.0} %", percent.median),
            other: false,
            promised: Some((times(row.promised.0), times(row.promised.1))),
        })
    };
    Chart {
        title: format!("what the source system promised, and what was measured, chunk {CHUNK}"),
        unit: "times as fast as without, by decades (line: as fast; brackets: promised)".to_owned(),
        mark: Some(1.0),
        scale: Scale::Logarithmic(0.5),
        bars: rows.iter().filter_map(bar).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::report::example;
    use super::super::super::row::Measured;
    use super::super::super::{claims, stacks};
    use super::*;

    #[test]
    fn a_run_of_everything_has_every_overview() {
        let mut report = example();
        let measured: Measured = report.rows[0].outcome.clone().expect("it is measured");
        let row = |(work, seeds), dtype| {
            let mut case = Case { work, seeds, chunk: CHARTED, ..report.rows[0].case };
            case.matrices.dtype = dtype;
            Row { case, outcome: Ok(measured.clone()) }
        };
        let types = [DType::F32, DType::Bf16];
        report.rows = types.iter().flat_map(|d| PASSES.map(|pass| row(pass, *d))).collect();
        let dense = &mut report.rows[1];
        dense.case.seeds = Seeds::Dense;
        dense.outcome.as_mut().expect("it is measured").teraflops = Some(12.5);
        (report.stacks, report.latencies) = stacks::tests::example();
        let mut part = super::super::super::reductions::tests::example();
        let large = part.rows[0].outcome.as_mut().expect("it is measured");
        large.bytes = 1 << 30;
        report.reductions = Some(part);
        report.claims = claims::tests::example();
        let all = charts(&report);
        let files: Vec<&str> = all.iter().map(|(file, _)| *file).collect();
        let expected = ["ceilings", "matrices", "stacks", "reductions", "cub", "claims"];
        assert_eq!(files, expected.map(|name| format!("{name}.svg")));
        let ceilings = &all[0].1;
        // Both types of a pass are neighbours, in two colours; one is products of matrices instead.
        assert_eq!(ceilings.bars.len(), 11);
        assert!(!ceilings.bars[0].other && ceilings.bars[1].other);
        assert!(ceilings.bars[1].label.ends_with("bf16"), "{ceilings:?}");
        assert!(all[1..].iter().all(|(_, chart)| chart.bars.len() == 1), "{all:?}");
        let svg = all[1].1.svg().expect("it can be drawn");
        assert!(svg.contains("12.50") && svg.contains("dense"), "{svg}");
        let svg = all[5].1.svg().expect("it can be drawn");
        assert!(svg.contains("+100 %") && svg.contains("brackets: promised"), "{svg}");
        let svg = all[2].1.svg().expect("it can be drawn");
        assert!(svg.contains("5.00 µs") && svg.contains("stream launches"), "{svg}");
    }

    #[test]
    fn a_run_of_one_thing_has_no_empty_overview() {
        assert!(charts(&example()).is_empty());
    }
}
