//! `report.html`: one file, no network, readable in light and dark.

mod accuracy;
mod canvas;
mod heat;
mod life;
mod timeline;

use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use kasmina_core::{Device, State, hardware};

use crate::arms::Arm;
use crate::grow::Epoch;
use crate::results::Results;
use crate::stats::Interval;

const PAGE: &str = include_str!("page.html");

/// The page.
pub(crate) fn render(results: &Results, device: &Device, took: Duration) -> Result<String> {
    let first = results.seeds.first().context("at least two paired seeds")?;
    let chosen = first.life.chosen().unwrap_or(first.drifted_chunk);
    let parts = [
        ("{{verdict}}", verdict(results)),
        ("{{figures}}", figures(results)),
        ("{{accuracy}}", accuracy::figure(results)?),
        ("{{life}}", life::figure(&first.life, chosen)?),
        ("{{heat}}", heat::figure(&first.life)?),
        ("{{timeline}}", timeline::figure(results)?),
        ("{{arms}}", arms(results)),
        ("{{transitions}}", transitions(results)),
        ("{{conditions}}", conditions(results, device, took)),
    ];
    Ok(parts.iter().fold(PAGE.to_owned(), |page, (place, text)| page.replace(place, text)))
}

/// The states a seed went through, with the epochs it ran in them.
fn state_spans(epochs: &[Epoch], seed: usize) -> Vec<(State, Range<usize>)> {
    let mut spans: Vec<(State, Range<usize>)> = Vec::new();
    for (index, epoch) in epochs.iter().enumerate() {
        let state = epoch.states[seed];
        match spans.last_mut() {
            Some((last, span)) if *last == state => span.end = index + 1,
            _ => spans.push((state, index..index + 1)),
        }
    }
    spans
}

fn percent(accuracy: f64) -> String {
    format!("{:.1} %", 100.0 * accuracy)
}

/// The result in two sentences.
fn verdict(results: &Results) -> String {
    let mean = |arm: Arm| percent(results.arm(arm).interval.mean);
    let broken: Vec<_> = results
        .invariants()
        .iter()
        .filter(|(_, kept)| !kept)
        .map(|(promise, _)| *promise)
        .collect();
    let broken = match broken.as_slice() {
        [] => "Not one bit of the classifier changes.".to_owned(),
        broken => format!("<b class=\"broken\">Not kept: {}.</b>", broken.join("; ")),
    };
    format!(
        "One chunk of sensors drifts, and a frozen classifier falls from <b>{}</b> to <b>{}</b>. The layer \
         in front of it finds the chunk by telemetry alone, grows a bottleneck there while the model keeps \
         serving, and brings it to <b class=\"ours\">{}</b>. {broken}",
        mean(Arm::Clean),
        mean(Arm::Drifted),
        mean(Arm::Kasmina),
    )
}

/// The key figures as tiles.
fn figures(results: &Results) -> String {
    let runs = results.seeds.len();
    let points = |gain: Interval| {
        let [mean, low, high] = [gain.mean, gain.low, gain.high].map(|v| 100.0 * v);
        let minus = |text: String| text.replace('-', "−");
        let interval = format!("points, 95 % interval {low:+.1} to {high:+.1}");
        (minus(format!("{mean:+.1}")), minus(interval))
    };
    let yes = |kept: bool| if kept { "yes" } else { "NO" }.to_owned();
    let (affine, affine_interval) = points(results.gain_over(Arm::Affine));
    let (wrong, wrong_interval) = points(results.gain_over(Arm::WrongChunk));
    let (tuned, tuned_interval) = points(results.gain_over(Arm::FullFinetune));
    let tiles = [
        (affine, "over affine recalibration", affine_interval),
        (wrong, "over growing on a wrong chunk", wrong_interval),
        (tuned, "over retraining the whole host", tuned_interval),
        (
            format!("{} / {runs}", results.chosen_correctly()),
            "drifted chunks found",
            "by telemetry alone".to_owned(),
        ),
        (yes(results.host_unchanged()), "host unchanged", "compared bit for bit".to_owned()),
        (
            yes(results.poison_removed()),
            "poison removed",
            "culled, not one bit left behind".to_owned(),
        ),
    ];
    tiles.iter().fold(String::new(), |mut html, (value, name, note)| {
        // Writing to a string cannot fail.
        let _ = write!(
            html,
            "<li><span class=\"value\">{value}</span><span class=\"name\">{name}</span>\
             <span class=\"note\">{note}</span></li>"
        );
        html
    })
}

fn arms(results: &Results) -> String {
    results.arms.iter().fold(String::new(), |mut html, summary| {
        let Interval { mean, low, high } = summary.interval;
        let class = if summary.arm == Arm::Kasmina { " class=\"ours\"" } else { "" };
        let _ = write!(
            html,
            "<tr{class}><th scope=\"row\">{}</th><td class=\"what\">{}</td><td>{mean:.3}</td>\
             <td>{low:.3} – {high:.3}</td><td>{}</td><td>{}</td><td>{:.0}</td></tr>",
            summary.arm.name().replace('_', " "),
            summary.arm.explanation(),
            summary.cost.parameters,
            summary.cost.updates,
            summary.cost.flops as f64 / 1e6,
        );
        html
    })
}

/// The history of the first paired seed, the poisoned one behind it.
fn transitions(results: &Results) -> String {
    let mut html = String::new();
    let Some(first) = results.seeds.first() else {
        return html;
    };
    for (name, life) in [("kasmina", &first.life), ("poisoned", &first.poisoned)] {
        for t in &life.transitions {
            let _ = write!(
                html,
                "<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}</td><td class=\"what\">{} → {}</td>\
                 <td class=\"what\">{}</td></tr>",
                t.epoch,
                t.seed,
                t.from.name().to_lowercase().replace('_', " "),
                t.to.name().to_lowercase().replace('_', " "),
                escape(&t.why),
            );
        }
    }
    html
}

fn conditions(results: &Results, device: &Device, took: Duration) -> String {
    let rows = [
        ("device", format!("{device}, {}", hardware())),
        ("processor", processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned())),
        ("threads", threads()),
        ("system", std::env::consts::OS.to_owned()),
        ("kasmina-core", env!("CARGO_PKG_VERSION").to_owned()),
        ("candle", "0.11".to_owned()),
        ("paired seeds", results.seeds.len().to_string()),
        ("took", format!("{:.1} s", took.as_secs_f64())),
    ];
    rows.iter().fold(String::new(), |mut html, (name, value)| {
        let _ = write!(html, "<dt>{name}</dt><dd>{}</dd>", escape(value));
        html
    })
}

/// What the operating system calls the processor, where it says so in the Linux way.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn threads() -> String {
    std::thread::available_parallelism().map_or_else(|_| "unknown".into(), |n| n.to_string())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_the_epochs_without_gap() {
        let states = [State::Dormant, State::Dormant, State::Training, State::Dormant];
        let epoch = |state: &State| Epoch {
            states: vec![*state],
            alpha: 0.0,
            deviations: vec![None],
            training_loss: None,
            held_back: 1.0,
            counterfactual: 1.0,
        };
        let epochs: Vec<Epoch> = states.iter().map(epoch).collect();
        let spans = state_spans(&epochs, 0);
        let found: Vec<_> = spans.into_iter().map(|(state, span)| (state, span.len())).collect();
        assert_eq!(found, [(State::Dormant, 2), (State::Training, 1), (State::Dormant, 1)]);
    }

    #[test]
    fn every_place_of_the_page_is_known() {
        let known = [
            "verdict",
            "figures",
            "accuracy",
            "life",
            "heat",
            "timeline",
            "arms",
            "transitions",
            "conditions",
        ];
        let places =
            PAGE.match_indices("{{").map(|(at, _)| PAGE[at + 2..].split("}}").next().unwrap());
        assert!(places.clone().all(|place| known.contains(&place)));
        assert_eq!(places.count(), known.len());
        assert!(
            !PAGE.contains("http://") && !PAGE.contains("https://"),
            "the page needs no network"
        );
    }
}
