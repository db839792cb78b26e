//! Every paired seed's lifecycle as a bar: the chosen chunk's states by epoch.

use anyhow::Result;
use kasmina_core::State;

use super::canvas::{Align, Canvas, Tone, picture};
use super::state_spans;
use crate::arms::PairedSeed;
use crate::grow::{CLEAN_EPOCHS, Life};
use crate::results::Results;

const WIDTH: f64 = 920.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 82.0;
const ROW: f64 = 22.0;
const BAR: f64 = 15.0;
const GAP: f64 = 26.0;
/// Paired seeds shown; the first of many stand for all.
const SHOWN: usize = 12;

/// The figure: Kasmina's lives above, the poisoned ones below.
pub(super) fn figure(results: &Results) -> Result<String> {
    let seeds = &results.seeds[..results.seeds.len().min(SHOWN)];
    let lives = || seeds.iter().flat_map(|seed| [&seed.life, &seed.poisoned]);
    let epochs = lives().map(|life| life.epochs.len()).max().unwrap_or(1) + 1;
    let x = |epoch: f64| LEFT + epoch / epochs as f64 * (RIGHT - LEFT);
    let block = ROW * seeds.len() as f64;
    let (second, bottom) = (TOP + block + GAP, TOP + 2.0 * block + GAP);
    picture((WIDTH, bottom + 42.0), "States of the chosen seed by epoch", |canvas| {
        for epoch in (0..=epochs).step_by(5) {
            let at = x(epoch as f64);
            canvas.line(&[(at, TOP - 4.0), (at, bottom)], Tone::Grid, 1.0)?;
            let point = (at, bottom + 14.0);
            canvas.text(point, &epoch.to_string(), 12.0, Tone::Muted, Align::Middle)?;
        }
        canvas.text((LEFT, bottom + 32.0), "epoch", 12.0, Tone::Muted, Align::Left)?;
        let block = |name, top: f64, life: fn(&PairedSeed) -> &Life| -> Result<()> {
            canvas.bold((0.0, top + ROW / 2.0), name, 13.0, Tone::Ink, Align::Left)?;
            for (index, seed) in seeds.iter().enumerate() {
                let y = top + ROW * (index as f64 + 0.5);
                let label = format!("{index}");
                canvas.text((LEFT - 12.0, y), &label, 12.0, Tone::Muted, Align::Right)?;
                bar(canvas, life(seed), y, &x)?;
            }
            Ok(())
        };
        block("kasmina", TOP, |seed| &seed.life)?;
        block("poisoned", second, |seed| &seed.poisoned)?;
        let accident = x(CLEAN_EPOCHS.into());
        canvas.dashed((accident, TOP - 28.0), (accident, bottom), Tone::Warm)?;
        let point = (accident + 7.0, TOP - 23.0);
        canvas.text(point, "the sensors drift", 12.0, Tone::Warm, Align::Left)?;
        key(canvas)
    })
}

fn bar(canvas: &Canvas<'_>, life: &Life, y: f64, x: &dyn Fn(f64) -> f64) -> Result<()> {
    let Some(chosen) = life.chosen() else {
        return Ok(());
    };
    for (state, span) in state_spans(&life.epochs, chosen) {
        let (from, to) = (x(span.start as f64), x(span.end as f64));
        segment(canvas, state, from, to, y)?;
    }
    let Some(end) = life.end() else { return Ok(()) };
    // The state that ends a life is entered at its last boundary: an epoch of it closes the bar.
    let last = life.epochs.len() as f64;
    segment(canvas, end, x(last), x(last + 1.0), y)?;
    let text = format!("chunk {chosen}, {}", end.name().to_lowercase());
    canvas.text((x(last + 1.0) + 8.0, y), &text, 12.0, Tone::Muted, Align::Left)
}

fn segment(canvas: &Canvas<'_>, state: State, from: f64, to: f64, y: f64) -> Result<()> {
    let (top, low) = (y - BAR / 2.0, y + BAR / 2.0);
    canvas.rectangle((from, top), (to - 1.0, low), Tone::State(state), 1.0)
}

/// The states in the order of a life.
fn key(canvas: &Canvas<'_>) -> Result<()> {
    let mut left = 0.0;
    for state in State::ALL.into_iter().filter(|state| state.code() <= State::Culled.code()) {
        canvas.rectangle((left, 5.0), (left + 11.0, 16.0), Tone::State(state), 1.0)?;
        let name = state.name().to_lowercase().replace('_', " ");
        canvas.text((left + 17.0, 10.5), &name, 12.0, Tone::Muted, Align::Left)?;
        left += 41.0 + 6.8 * name.len() as f64;
    }
    Ok(())
}
