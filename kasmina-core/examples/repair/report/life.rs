//! One seed's life: losses on a logarithmic scale above, alpha below, the states behind both.

use anyhow::Result;
use kasmina_core::State;

use super::canvas::{Align, Canvas, Tone, picture};
use super::state_spans;
use crate::grow::{CLEAN_EPOCHS, Epoch, Life};

const WIDTH: f64 = 920.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 752.0;
const STATES: f64 = 62.0;
const LOSS: (f64, f64) = (67.0, 330.0);
const ALPHA: (f64, f64) = (354.0, 440.0);

/// The figure.
pub(super) fn figure(life: &Life, seed: usize) -> Result<String> {
    let epochs = &life.epochs;
    let x = |epoch: f64| LEFT + epoch / epochs.len() as f64 * (RIGHT - LEFT);
    let description = "Loss and alpha through the life of the grown seed";
    picture((WIDTH, 478.0), description, |canvas| {
        states(canvas, epochs, seed, &x)?;
        losses(canvas, epochs, &x)?;
        alpha(canvas, epochs, &x)?;
        let accident = x(CLEAN_EPOCHS.into());
        canvas.dashed((accident, STATES - 58.0), (accident, ALPHA.1), Tone::Warm)?;
        let label = (accident - 7.0, STATES - 53.0);
        canvas.text(label, "the sensors drift", 12.0, Tone::Warm, Align::Right)?;
        for epoch in (0..=epochs.len()).step_by(5) {
            let point = (x(epoch as f64), ALPHA.1 + 15.0);
            canvas.text(point, &epoch.to_string(), 12.0, Tone::Muted, Align::Middle)?;
        }
        canvas.text((LEFT, ALPHA.1 + 33.0), "epoch", 12.0, Tone::Muted, Align::Left)
    })
}

/// Bands of the states with their names. A name that does not fit over its band is raised, every other
/// one further, with a line down to it.
fn states(
    canvas: &Canvas<'_>,
    epochs: &[Epoch],
    seed: usize,
    x: &dyn Fn(f64) -> f64,
) -> Result<()> {
    let mut level = 0;
    for (state, span) in state_spans(epochs, seed) {
        let (from, to) = (x(span.start as f64), x(span.end as f64));
        let tone = Tone::State(state);
        if state != State::Dormant {
            canvas.rectangle((from, STATES), (to, STATES + 5.0), tone, 1.0)?;
            for panel in [LOSS, ALPHA] {
                canvas.rectangle((from, panel.0), (to, panel.1), tone, 0.10)?;
            }
        }
        let name = state.name().to_lowercase().replace('_', " ");
        let fits = to - from > 6.6 * name.len() as f64;
        level = if fits { 0 } else { 1 + level % 2 };
        let middle = (from + to) / 2.0;
        let height = STATES - 10.0 - 16.0 * f64::from(level);
        if level > 0 {
            canvas.line(&[(middle, height + 8.0), (middle, STATES)], Tone::Muted, 0.75)?;
        }
        canvas.text((middle, height), &name, 11.5, Tone::Muted, Align::Middle)?;
    }
    Ok(())
}

fn losses(canvas: &Canvas<'_>, epochs: &[Epoch], x: &dyn Fn(f64) -> f64) -> Result<()> {
    let positive = |loss: f64| (loss.is_finite() && loss > 0.0).then_some(loss);
    let all = epochs
        .iter()
        .flat_map(|epoch| [Some(epoch.held_back), Some(epoch.counterfactual), epoch.training_loss]);
    let (low, high) = all
        .flatten()
        .filter_map(positive)
        .fold((f64::INFINITY, 0.0f64), |(low, high), loss| (low.min(loss), high.max(loss)));
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let y = |loss: f64| LOSS.1 - (loss.log10() - low) / (high - low) * (LOSS.1 - LOSS.0);
    for power in low as i32..=high as i32 {
        let loss = 10f64.powi(power);
        canvas.line(&[(LEFT, y(loss)), (RIGHT, y(loss))], Tone::Grid, 1.0)?;
        let label = (LEFT - 10.0, y(loss));
        canvas.text(label, &loss.to_string(), 12.0, Tone::Muted, Align::Right)?;
    }
    canvas.text((LEFT - 10.0, LOSS.0 - 22.0), "loss", 12.0, Tone::Muted, Align::Right)?;
    type Series = (fn(&Epoch) -> Option<f64>, Tone, f64, &'static str);
    let series: [Series; 3] = [
        (|epoch| Some(epoch.counterfactual), Tone::Warm, 2.0, "held-back, without seed"),
        (|epoch| epoch.training_loss, Tone::Muted, 1.5, "training"),
        (|epoch| Some(epoch.held_back), Tone::Accent, 2.5, "held-back, as served"),
    ];
    for (value, tone, width, name) in series {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (index, epoch) in epochs.iter().enumerate() {
            match value(epoch).and_then(positive) {
                // A value belongs to its epoch's end.
                Some(loss) => points.push((x(index as f64 + 1.0), y(loss))),
                None => {
                    canvas.line(&std::mem::take(&mut points), tone, width)?;
                }
            }
        }
        canvas.line(&points, tone, width)?;
        if let Some(&end) = points.last() {
            canvas.dot(end, 3.0, tone, 1.0)?;
            canvas.text((end.0 + 9.0, end.1), name, 12.0, tone, Align::Left)?;
        }
    }
    Ok(())
}

fn alpha(canvas: &Canvas<'_>, epochs: &[Epoch], x: &dyn Fn(f64) -> f64) -> Result<()> {
    let y = |alpha: f64| ALPHA.1 - alpha * (ALPHA.1 - ALPHA.0);
    for tick in [0.0, 0.5, 1.0] {
        canvas.line(&[(LEFT, y(tick)), (RIGHT, y(tick))], Tone::Grid, 1.0)?;
        let label = (LEFT - 10.0, y(tick));
        canvas.text(label, &tick.to_string(), 12.0, Tone::Muted, Align::Right)?;
    }
    let points: Vec<(f64, f64)> = std::iter::once((x(0.0), y(0.0)))
        .chain(epochs.iter().enumerate().map(|(i, e)| (x(i as f64 + 1.0), y(e.alpha.into()))))
        .collect();
    let mut area = points.clone();
    area.extend([(x(epochs.len() as f64), y(0.0)), (x(0.0), y(0.0))]);
    canvas.polygon(&area, Tone::Accent, 0.16)?;
    canvas.line(&points, Tone::Accent, 2.5)?;
    let end = (RIGHT + 9.0, points.last().map_or(y(0.0), |point| point.1));
    canvas.text(end, "alpha", 12.0, Tone::Accent, Align::Left)
}
