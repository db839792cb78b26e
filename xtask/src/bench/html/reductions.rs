//! The charts of reductions: how much of a copy's speed they reach, and how many times as fast as CUB they are.

use super::super::reductions::line::Way;
use super::super::reductions::{ReductionRow, Reductions};
use super::super::summary::Summary;
use super::bars::{Bar, Chart, Scale};

/// Below as many bytes a reduction takes as long as its launch, and a share of the memory's speed says little.
const LARGE: u64 = 64 << 20;

/// Share of the bytes a second of a copy, of what is large, as a user gets it.
pub(super) fn of_copy(reductions: &Reductions) -> Chart {
    let bar = |row: &ReductionRow| {
        let found = row.outcome.as_ref().ok().filter(|found| found.bytes >= LARGE)?;
        let Summary { median, p10, p90 } = found.summary?;
        let at = |time: f64| found.percent * median / time;
        (row.line.way == Way::Hierarchical).then(|| Bar {
            label: format!("{}, {}", row.line.quantity, row.line.subject()),
            value: found.percent,
            spread: (at(p90), at(p10)),
            note: format!("{:.0} %", found.percent),
            other: false,
            promised: None,
        })
    };
    Chart {
        title: "reductions beside a copy".to_owned(),
        unit: "% of the bytes a second of a copy that moves about as many (line: 100 %)".to_owned(),
        mark: Some(100.0),
        scale: Scale::Linear,
        bars: reductions.rows.iter().filter_map(bar).collect(),
    }
}

/// CUB's time over ours.
pub(super) fn of_cub(reductions: &Reductions) -> Chart {
    let bar = |row: &ReductionRow| {
        let cub = row.cub.as_ref()?.as_ref().ok()?;
        let ours = row.outcome.as_ref().ok()?.summary?;
        let ratio = cub.ratio?;
        Some(Bar {
            label: format!("{}, {}", row.line.quantity, row.line.subject()),
            value: ratio,
            spread: (ratio * ours.median / ours.p90, ratio * ours.median / ours.p10),
            note: format!("{ratio:.2} ×"),
            other: false,
            promised: None,
        })
    };
    Chart {
        title: "reductions beside CUB".to_owned(),
        unit: "times as fast as CUB, by decades (line: as fast)".to_owned(),
        mark: Some(1.0),
        scale: Scale::Logarithmic(0.5),
        bars: reductions.rows.iter().filter_map(bar).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reductions::tests::example;
    use super::*;

    #[test]
    fn cubs_ratios_are_drawn_where_there_are_some() {
        let chart = of_cub(&example());
        assert_eq!(chart.bars.len(), 1);
        let svg = chart.svg().expect("it can be drawn");
        assert!(svg.contains("1.50 ×") && svg.contains("sum, 4096 f32"), "{svg}");
    }

    #[test]
    fn only_what_is_large_and_default_stands_beside_the_copy() {
        let mut part = example();
        assert!(of_copy(&part).bars.is_empty());
        for row in &mut part.rows {
            if let Ok(found) = &mut row.outcome {
                found.bytes = LARGE;
            }
        }
        part.rows[1].line.way = Way::Atomic;
        let chart = of_copy(&part);
        let labels: Vec<&str> = chart.bars.iter().map(|bar| bar.label.as_str()).collect();
        assert_eq!(labels, ["sum, 4096 f32", "statistics, 4096 f32 in segments of 64"]);
        assert_eq!(chart.bars[0].note, "25 %");
    }
}
