//! The table at the end.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use crate::arms::Arm;
use crate::results::Results;
use crate::stats::Interval;

/// Accuracy and cost of every arm, and what follows from them.
pub(crate) fn render(results: &Results) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["arm", "accuracy", "95 % interval", "parameters", "updates", "MFLOP"]);
    for summary in &results.arms {
        let Interval { mean, low, high } = summary.interval;
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(summary.arm.name()),
            right(format!("{mean:.4}")),
            right(format!("{low:.4} – {high:.4}")),
            right(summary.cost.parameters.to_string()),
            right(summary.cost.updates.to_string()),
            right(format!("{:.1}", summary.cost.flops as f64 / 1e6)),
        ]);
    }
    let mut text = table.to_string();
    for (other, name) in [(Arm::Affine, "affine"), (Arm::WrongChunk, "wrong_chunk")] {
        let Interval { mean, low, high } = results.gain_over(other);
        text += &format!(
            "\nkasmina − {name}: {mean:+.4} (95 % interval {low:+.4} to {high:+.4}, paired)"
        );
    }
    let runs = results.seeds.len();
    text += &format!("\nright chunk chosen: {} of {runs}", results.chosen_correctly());
    for (promise, kept) in results.invariants() {
        text += &format!("\n{}: {}", promise, if kept { "yes" } else { "NO" });
    }
    text
}
