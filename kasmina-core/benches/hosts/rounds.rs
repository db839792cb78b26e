//! Times of several variants, taken in rounds, and what one costs more than another.

use std::fmt;
use std::time::Instant;

use anyhow::{Context, Result};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The rounds that `KASMINA_BENCH_ROUNDS` asks for.
pub(crate) fn asked() -> Result<Option<usize>> {
    let Some(text) = std::env::var_os("KASMINA_BENCH_ROUNDS") else { return Ok(None) };
    let rounds = text.to_str().and_then(|text| text.parse().ok()).filter(|&rounds| rounds > 0);
    let rounds =
        rounds.with_context(|| format!("KASMINA_BENCH_ROUNDS is {text:?}, not a number from 1"));
    rounds.map(Some)
}

/// Seconds of every variant in every round; the first variant is what the others are compared with.
pub(crate) struct Rounds(Vec<Vec<f64>>);

/// How much longer a variant takes than the first, in percent of that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    median: f64,
    /// Of the median, from 2,000 resamplings of the rounds.
    interval: (f64, f64),
}

impl Rounds {
    /// Times `step` of each variant in each round, in an order drawn anew: each variant comes after each other one, as what was
    /// done before leaves caches and the allocator behind. A tenth of the rounds comes before, untimed.
    pub(crate) fn take(
        rounds: usize,
        variants: usize,
        mut step: impl FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let warm = rounds / 10 + 1;
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut order: Vec<usize> = (0..variants).collect();
        let mut times = Vec::with_capacity(rounds);
        for round in 0..warm + rounds {
            let mut seconds = vec![0.0; variants];
            order.shuffle(&mut rng);
            for &variant in &order {
                let started = Instant::now();
                step(variant)?;
                seconds[variant] = started.elapsed().as_secs_f64();
            }
            if round >= warm {
                times.push(seconds);
            }
        }
        Ok(Self(times))
    }

    /// Median of the first variant.
    pub(crate) fn milliseconds(&self) -> f64 {
        1e3 * median(self.0.iter().map(|seconds| seconds[0]).collect())
    }

    /// What `variant` costs: the median of its rounds' ratios.
    pub(crate) fn share(&self, variant: usize) -> Share {
        let percent: Vec<f64> =
            self.0.iter().map(|seconds| 100.0 * (seconds[variant] / seconds[0] - 1.0)).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut medians: Vec<f64> = (0..2000)
            .map(|_| {
                let drawn = (0..percent.len()).map(|_| percent[rng.random_range(0..percent.len())]);
                median(drawn.collect())
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        Share { median: median(percent), interval: (medians[49], medians[1949]) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.interval;
        f.pad(&format!("{:+.2} % ({low:+.2} to {high:+.2})", self.median))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n % 2 == 1 { values[n / 2] } else { f64::midpoint(values[n / 2 - 1], values[n / 2]) }
}
