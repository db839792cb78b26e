//! Accuracy of every arm: each paired seed a dot, the mean with its interval on top.

use anyhow::Result;

use super::canvas::{Align, Canvas, Tone, picture};
use crate::arms::Arm;
use crate::results::{ArmSummary, Results};
use crate::stats::Interval;

const WIDTH: f64 = 920.0;
const ROW: f64 = 40.0;
const TOP: f64 = 30.0;
/// Where the two scales stand: everything, and the upper end enlarged.
const WHOLE: (f64, f64) = (146.0, 450.0);
const ENLARGED: (f64, f64) = (490.0, 812.0);
/// Where the enlarged scale begins.
const UPPER_END: f64 = 0.8;

/// A stretch of accuracies and where it is drawn.
struct Scale {
    from: f64,
    place: (f64, f64),
    step: f64,
}

impl Scale {
    fn x(&self, accuracy: f64) -> f64 {
        let share = (accuracy - self.from) / (1.0 - self.from);
        self.place.0 + share.clamp(0.0, 1.0) * (self.place.1 - self.place.0)
    }

    fn covers(&self, accuracy: f64) -> bool {
        accuracy >= self.from
    }
}

/// From best to worst as they are meant to come out.
const ORDER: [Arm; 9] = [
    Arm::Clean,
    Arm::Kasmina,
    Arm::FullFinetune,
    Arm::AffineMap,
    Arm::Affine,
    Arm::RandomChunk,
    Arm::WrongChunk,
    Arm::Poisoned,
    Arm::Drifted,
];

/// The figure.
pub(super) fn figure(results: &Results) -> Result<String> {
    let bottom = TOP + ROW * ORDER.len() as f64;
    let all = results.arms.iter().flat_map(|arm| &arm.accuracies).copied();
    let least = all.chain(results.arms.iter().map(|arm| arm.interval.low)).fold(1.0, f64::min);
    let scales = [
        Scale { from: ((least * 5.0).floor() / 5.0).max(0.0), place: WHOLE, step: 0.2 },
        Scale { from: UPPER_END, place: ENLARGED, step: 0.05 },
    ];
    picture((WIDTH, bottom + 42.0), "Test accuracy of every arm", |canvas| {
        for scale in &scales {
            axis(canvas, scale, bottom)?;
        }
        let title = (ENLARGED.0, TOP - 16.0);
        canvas.text(title, "the upper end, enlarged", 12.0, Tone::Muted, Align::Left)?;
        canvas.text((WIDTH - 56.0, TOP - 16.0), "mean", 12.0, Tone::Muted, Align::Middle)?;
        for (index, arm) in ORDER.into_iter().enumerate() {
            let y = TOP + ROW * (index as f64 + 0.5);
            if arm == Arm::Kasmina {
                let band = ((0.0, y - ROW / 2.0), (WIDTH, y + ROW / 2.0));
                canvas.rectangle(band.0, band.1, Tone::Accent, 0.09)?;
            }
            row(canvas, results.arm(arm), y, &scales)?;
        }
        Ok(())
    })
}

fn axis(canvas: &Canvas<'_>, scale: &Scale, bottom: f64) -> Result<()> {
    let ticks = ((1.0 - scale.from) / scale.step).round() as usize;
    for tick in 0..=ticks {
        let accuracy = scale.from + tick as f64 * scale.step;
        let x = scale.x(accuracy);
        canvas.line(&[(x, TOP), (x, bottom)], Tone::Grid, 1.0)?;
        let decimals = if scale.step < 0.1 { 2 } else { 1 };
        let label = format!("{accuracy:.decimals$}");
        canvas.text((x, bottom + 14.0), &label, 12.0, Tone::Muted, Align::Middle)?;
    }
    let name = (scale.place.0, bottom + 33.0);
    canvas.text(name, "test accuracy", 12.0, Tone::Muted, Align::Left)
}

fn row(canvas: &Canvas<'_>, summary: &ArmSummary, y: f64, scales: &[Scale]) -> Result<()> {
    let ours = summary.arm == Arm::Kasmina;
    let tone = match summary.arm {
        Arm::Kasmina => Tone::Accent,
        Arm::Drifted | Arm::Poisoned => Tone::Warm,
        _ => Tone::Ink,
    };
    let name = summary.arm.name().replace('_', " ");
    let mean = format!("{:.3}", summary.interval.mean);
    let (label, value) = ((WHOLE.0 - 18.0, y), (WIDTH - 56.0, y));
    if ours {
        canvas.bold(label, &name, 14.0, tone, Align::Right)?;
        canvas.bold(value, &mean, 15.0, tone, Align::Middle)?;
    } else {
        canvas.text(label, &name, 14.0, Tone::Ink, Align::Right)?;
        canvas.text(value, &mean, 15.0, Tone::Ink, Align::Middle)?;
    }
    scales.iter().try_for_each(|scale| marks(canvas, summary, y, scale, tone))
}

/// The dots, the interval and the mean, as far as the scale covers them.
fn marks(
    canvas: &Canvas<'_>,
    summary: &ArmSummary,
    y: f64,
    scale: &Scale,
    tone: Tone,
) -> Result<()> {
    // Dots a little apart in height, in the order of the seeds, so that equal ones show.
    let n = summary.accuracies.len().max(2) as f64;
    for (index, &accuracy) in summary.accuracies.iter().enumerate() {
        let lift = (index as f64 / (n - 1.0) - 0.5) * 20.0;
        if scale.covers(accuracy) {
            canvas.dot((scale.x(accuracy), y + lift), 3.0, tone, 0.4)?;
        }
    }
    let Interval { mean, low, high } = summary.interval;
    if scale.covers(high) {
        let (left, right) = (scale.x(low), scale.x(high));
        canvas.line(&[(left, y), (right, y)], tone, 2.5)?;
        for end in [low, high].into_iter().filter(|&end| scale.covers(end)) {
            let x = scale.x(end);
            canvas.line(&[(x, y - 5.0), (x, y + 5.0)], tone, 2.5)?;
        }
    }
    if scale.covers(mean) {
        canvas.dot((scale.x(mean), y), 6.5, Tone::Paper, 1.0)?;
        canvas.dot((scale.x(mean), y), 4.5, tone, 1.0)?;
    }
    Ok(())
}
