//! How far the experiment has come: a bar on a terminal, elsewhere a line for every finished arm with the time it took.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::arms::Arm;

/// Told of every finished arm.
pub(crate) struct Progress {
    bar: ProgressBar,
    seeds: u64,
    /// When the last arm was finished, or the seed begun.
    since: Cell<Instant>,
}

impl Progress {
    /// Of an experiment over so many paired seeds.
    pub(crate) fn new(seeds: u64) -> Result<Self> {
        let bar = ProgressBar::new(seeds * Arm::ALL.len() as u64);
        bar.set_style(
            ProgressStyle::with_template(
                "{msg:22} {wide_bar:.cyan/blue} {pos:>4}/{len} arms · {eta} left",
            )?
            .progress_chars("━╸─"),
        );
        bar.enable_steady_tick(Duration::from_millis(200));
        Ok(Self { bar, seeds, since: Cell::new(Instant::now()) })
    }

    /// A paired seed begins.
    pub(crate) fn begin(&self, seed: u64) {
        self.bar.set_message(self.name(seed));
        self.since.set(Instant::now());
    }

    /// One of its arms is finished. The first one's time is the host's training too.
    pub(crate) fn done(&self, seed: u64, arm: Arm) {
        self.bar.inc(1);
        let took = self.since.replace(Instant::now()).elapsed();
        if self.bar.is_hidden() {
            eprintln!("{}", line(&self.name(seed), arm, took));
        }
    }

    /// All of them are.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn name(&self, seed: u64) -> String {
        format!("paired seed {} of {}", seed + 1, self.seeds)
    }
}

fn line(seed: &str, arm: Arm, took: Duration) -> String {
    format!("{seed}: {} after {:.2} s", arm.name(), took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_arm_and_its_time() {
        let text = line("paired seed 2 of 3", Arm::WrongChunk, Duration::from_millis(1234));
        assert_eq!(text, "paired seed 2 of 3: wrong_chunk after 1.23 s");
    }
}
