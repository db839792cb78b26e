//! The accident: one chunk of sensors drifts, c → tanh(2·c·R), and mixes its channels while it does.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use kasmina_core::SeedLayout;

use crate::data::{PIXELS, Rows};

/// A fixed nonlinear drift of one chunk.
#[derive(Clone, Debug)]
pub(crate) struct Drift {
    pub(crate) chunk: usize,
    layout: SeedLayout,
    /// R, c×c row-major, normal with standard deviation 1/√c.
    mixing: Vec<f32>,
}

impl Drift {
    /// A drift of a random chunk with a random R.
    pub(crate) fn random(layout: SeedLayout, rng: &mut ChaCha8Rng) -> Self {
        let chunk = rng.random_range(0..layout.seeds());
        let c = layout.chunk_len(chunk);
        let scale = 1.0 / (c as f32).sqrt();
        let mixing = (0..c * c).map(|_| scale * normal(rng)).collect();
        Self { chunk, layout, mixing }
    }

    /// The rows as the drifted sensors deliver them.
    pub(crate) fn apply(&self, rows: &Rows) -> Rows {
        let mut drifted = rows.clone();
        let columns = self.layout.columns(self.chunk);
        let c = columns.len();
        for row in drifted.pixels.chunks_exact_mut(PIXELS) {
            let chunk = &mut row[columns.clone()];
            let clean = chunk.to_vec();
            for (j, sensor) in chunk.iter_mut().enumerate() {
                let mixed: f32 = (0..c).map(|i| clean[i] * self.mixing[i * c + j]).sum();
                *sensor = (2.0 * mixed).tanh();
            }
        }
        drifted
    }
}

/// A standard normal number (Box & Muller 1958).
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    // 1 − u is in (0, 1], so the logarithm is finite.
    let (u, v): (f32, f32) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn only_the_drifted_chunk_changes() {
        let layout = SeedLayout::new(PIXELS, 16).unwrap();
        let rows = Rows { pixels: vec![0.5; 3 * PIXELS], labels: vec![0; 3] };
        for seed in 0..8 {
            let drift = Drift::random(layout, &mut ChaCha8Rng::seed_from_u64(seed));
            let drifted = drift.apply(&rows);
            for (i, (new, old)) in drifted.pixels.iter().zip(&rows.pixels).enumerate() {
                let inside = layout.columns(drift.chunk).contains(&(i % PIXELS));
                assert_eq!(inside, new != old, "pixel {i}");
            }
        }
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let rng = &mut ChaCha8Rng::seed_from_u64(5);
        let values: Vec<f64> = (0..20_000).map(|_| normal(rng).into()).collect();
        let mean = values.iter().sum::<f64>() / 2e4;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 2e4;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
