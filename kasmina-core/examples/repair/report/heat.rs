//! Telemetry as the controller saw it: chunk by epoch, how far three statistics are from their baseline.

use anyhow::Result;
use kasmina_core::controller::Deviation;

use super::canvas::{Align, Canvas, Tone, picture};
use crate::grow::{CLEAN_EPOCHS, Life};

const WIDTH: f64 = 920.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 752.0;
const TOP: f64 = 50.0;
const ROW: f64 = 21.0;
const GAP: f64 = 34.0;

/// A statistic and the deviation from which it has the full colour.
struct Statistic {
    name: &'static str,
    value: fn(&Deviation) -> f64,
    full: f64,
    full_label: &'static str,
}

const STATISTICS: [Statistic; 3] = [
    Statistic {
        name: "shift of the mean",
        value: |deviation| deviation.mean_shift,
        full: 1.0,
        full_label: "1 σ",
    },
    Statistic {
        name: "change of the variance",
        value: |deviation| deviation.log_variance_ratio.abs(),
        full: 1.0,
        full_label: "×e",
    },
    Statistic {
        name: "change of the dead ratio",
        value: |deviation| deviation.dead_change.abs(),
        full: 0.5,
        full_label: "0.5",
    },
];

/// The figure; cells without a baseline are empty.
pub(super) fn figure(life: &Life) -> Result<String> {
    let epochs = &life.epochs;
    let chunks = epochs.first().map_or(0, |epoch| epoch.deviations.len());
    let block = ROW * chunks as f64;
    let bottom = TOP + 3.0 * block + 2.0 * GAP;
    let x = |epoch: f64| LEFT + epoch / epochs.len() as f64 * (RIGHT - LEFT);
    let description = "How far each chunk's statistics are from their baseline, by epoch";
    picture((WIDTH, bottom + 42.0), description, |canvas| {
        let accident = x(CLEAN_EPOCHS.into());
        canvas.dashed((accident, 4.0), (accident, TOP), Tone::Warm)?;
        let point = (accident + 7.0, 9.0);
        canvas.text(point, "the sensors drift", 12.0, Tone::Warm, Align::Left)?;
        for (index, statistic) in STATISTICS.iter().enumerate() {
            let top = TOP + (block + GAP) * index as f64;
            canvas.bold((LEFT, top - 13.0), statistic.name, 12.5, Tone::Ink, Align::Left)?;
            rows(canvas, life, statistic, top, &x)?;
            key(canvas, statistic, top)?;
            canvas.dashed((accident, top), (accident, top + block), Tone::Warm)?;
        }
        for epoch in (0..=epochs.len()).step_by(5) {
            let point = (x(epoch as f64), bottom + 16.0);
            canvas.text(point, &epoch.to_string(), 12.0, Tone::Muted, Align::Middle)?;
        }
        canvas.text((LEFT, bottom + 34.0), "epoch", 12.0, Tone::Muted, Align::Left)
    })
}

fn rows(
    canvas: &Canvas<'_>,
    life: &Life,
    statistic: &Statistic,
    top: f64,
    x: &dyn Fn(f64) -> f64,
) -> Result<()> {
    let chunks = life.epochs.first().map_or(0, |epoch| epoch.deviations.len());
    for chunk in 0..chunks {
        let (high, low) = (top + ROW * chunk as f64, top + ROW * (chunk + 1) as f64);
        let (point, label) = ((LEFT - 14.0, (high + low) / 2.0), format!("chunk {chunk}"));
        if life.chosen() == Some(chunk) {
            canvas.bold(point, &label, 12.5, Tone::Ink, Align::Right)?;
        } else {
            canvas.text(point, &label, 12.5, Tone::Muted, Align::Right)?;
        }
        for (index, epoch) in life.epochs.iter().enumerate() {
            let from = (x(index as f64) + 0.75, high + 0.75);
            let to = (x(index as f64 + 1.0) - 0.75, low - 0.75);
            canvas.rectangle(from, to, Tone::Grid, 0.5)?;
            if let Some(deviation) = &epoch.deviations[chunk] {
                let strength = ((statistic.value)(deviation) / statistic.full).clamp(0.0, 1.0);
                canvas.rectangle(from, to, Tone::Warm, strength)?;
            }
        }
    }
    Ok(())
}

/// What the colours of a statistic mean.
fn key(canvas: &Canvas<'_>, statistic: &Statistic, top: f64) -> Result<()> {
    let (left, step) = (RIGHT + 26.0, 10.0);
    for index in 0..10 {
        let from = left + step * f64::from(index);
        let strength = (f64::from(index) + 0.5) / 10.0;
        canvas.rectangle((from, top + 1.0), (from + step, top + 13.0), Tone::Warm, strength)?;
    }
    canvas.text((left, top + 26.0), "none", 12.0, Tone::Muted, Align::Left)?;
    let right = left + step * 10.0;
    canvas.text((right, top + 26.0), statistic.full_label, 12.0, Tone::Muted, Align::Right)
}
