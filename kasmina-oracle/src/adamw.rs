//! One step of AdamW in f64, with the norm clipping of section 2.4.
//!
//! Loshchilov and Hutter, *Decoupled Weight Decay Regularization* (2019), algorithm 2, with the
//! schedule multiplier at 1: the decay is lr·λ·θ, apart from the moments.

/// The settings. "optional per-seed norm clipping of parameter gradients, off by default".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// λ.
    pub weight_decay: f64,
    /// Largest norm of all the seed's parameter gradients together, if any.
    pub clip_norm: Option<f64>,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
            clip_norm: None,
        }
    }
}

/// The moments of one seed's parameters, all tensors one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// First moment, uncorrected.
    pub first: Vec<f64>,
    /// Second moment, uncorrected.
    pub second: Vec<f64>,
    /// Steps taken.
    pub steps: u32,
}

impl Moments {
    /// Before the first step, for `n` values.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self { first: vec![0.0; n], second: vec![0.0; n], steps: 0 }
    }
}

impl AdamW {
    /// Takes one step: `parameters` and `moments` move along `gradients`. Values beyond the shortest
    /// of the slices are left alone.
    pub fn step(&self, parameters: &mut [f64], gradients: &[f64], moments: &mut Moments) {
        // Scale all gradients of the seed alike so that their joint norm is at most the limit.
        let norm = gradients.iter().map(|g| g * g).sum::<f64>().sqrt();
        let shrink = match self.clip_norm {
            Some(limit) if norm > limit => limit / norm,
            _ => 1.0,
        };
        moments.steps += 1;
        let t = f64::from(moments.steps);
        // 1 − βᵗ: the moments start at 0 and are that much too small.
        let correct1 = 1.0 - libm::pow(self.beta1, t);
        let correct2 = 1.0 - libm::pow(self.beta2, t);
        for (((p, g), m), v) in
            parameters.iter_mut().zip(gradients).zip(&mut moments.first).zip(&mut moments.second)
        {
            let g = g * shrink;
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
            let direction = (*m / correct1) / ((*v / correct2).sqrt() + self.epsilon);
            *p -= self.learning_rate * (direction + self.weight_decay * *p);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_goes_by_the_sign() {
        // After one step m̂ = g and v̂ = g², so the direction is g/(|g|+ε), whatever the size of g.
        let adamw = AdamW { weight_decay: 0.0, ..AdamW::default() };
        let mut p = [1.0, 1.0, 1.0];
        adamw.step(&mut p, &[1e-3, -50.0, 0.0], &mut Moments::new(3));
        assert!((p[0] - (1.0 - 1e-3 * 1e-3 / (1e-3 + 1e-8))).abs() < 1e-15);
        assert!((p[1] - 1.001).abs() < 1e-12);
        assert_eq!(p[2], 1.0);
    }

    #[test]
    fn decay_is_apart_from_the_moments() {
        let mut p = [2.0];
        AdamW::default().step(&mut p, &[0.0], &mut Moments::new(1));
        assert!((p[0] - 2.0 * (1.0 - 1e-3 * 0.01)).abs() < 1e-15);
    }

    #[test]
    fn two_steps_by_hand() {
        let adamw =
            AdamW { learning_rate: 0.1, weight_decay: 0.0, epsilon: 0.0, ..AdamW::default() };
        let mut p = [0.0];
        let mut moments = Moments::new(1);
        adamw.step(&mut p, &[1.0], &mut moments);
        adamw.step(&mut p, &[3.0], &mut moments);
        // m = 0.9·0.1 + 0.1·3 = 0.39, /0.19; v = 0.999·0.001 + 0.001·9 = 0.009999, /0.001999.
        let second: f64 = (0.39 / 0.19) / (0.009_999_f64 / 0.001_999).sqrt();
        assert!((p[0] + 0.1 + 0.1 * second).abs() < 1e-12);
    }

    #[test]
    fn clipping_shrinks_all_alike_and_only_above_the_limit() {
        let clipped = AdamW { clip_norm: Some(1.0), ..AdamW::default() };
        let mut moments = Moments::new(2);
        clipped.step(&mut [0.0, 0.0], &[3.0, 4.0], &mut moments);
        assert!((moments.first[0] - 0.1 * 0.6).abs() < 1e-15);
        assert!((moments.first[1] - 0.1 * 0.8).abs() < 1e-15);
        let mut moments = Moments::new(2);
        clipped.step(&mut [0.0, 0.0], &[0.3, 0.4], &mut moments);
        assert!((moments.first[0] - 0.1 * 0.3).abs() < 1e-15);
    }
}
