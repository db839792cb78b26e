//! Initial parameters of every kind, from an explicit random stream.

use rand::{Rng, RngCore};

use super::Blueprint;
use crate::{Error, Result};

impl Blueprint {
    /// Fresh parameters for a seed with `c` columns, drawn from `rng` alone.
    ///
    /// Every kind that can starts as the identity or next to it, so that grafting begins gently:
    /// residual w = 0, s = 1; filter w = (1, 0, …) with small noise, s = 1; expansion w near 1, s = 1;
    /// bottleneck U = u = 0 with V, v uniform in ±1/√c (the fan-in bound of LeCun et al. 1998, which
    /// the common linear layers use); dense likewise with b = 0; attention w near 0, a flat softmax.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the parameter count overflows; [`Error::Value`] if a user-defined kind
    /// fills in a NaN or an infinity.
    pub fn initialise(&self, c: usize, rng: &mut dyn RngCore) -> Result<Vec<f32>> {
        let layout = self.parameters(c)?;
        let mut values = vec![0.0f32; layout.len()];
        let fan_in = 1.0 / (c as f32).sqrt();
        let mut uniform = |range: &mut [f32], center: f32, spread: f32| {
            for value in range {
                *value = center + spread * rng.random_range(-1.0f32..=1.0);
            }
        };
        match self {
            Self::Residual => values[c] = 1.0,
            Self::AttentionHead => uniform(&mut values, 0.0, 0.01),
            Self::MlpExpansion => {
                uniform(&mut values[..c], 1.0, 0.05);
                values[c] = 1.0;
            }
            Self::ConvFilter { taps } => {
                uniform(&mut values[..*taps], 0.0, 0.02);
                values[0] += 1.0;
                values[*taps] = 1.0;
            }
            Self::Bottleneck { .. } => {
                uniform(&mut values[layout.range(0)], 0.0, fan_in);
                uniform(&mut values[layout.range(1)], 0.0, fan_in);
            }
            Self::Dense { .. } => uniform(&mut values[layout.range(0)], 0.0, fan_in),
            Self::User(user) => {
                user.initialise(c, rng, &mut values);
                check_finite(user.kind(), &values)?;
            }
        }
        Ok(values)
    }
}

/// Parameters must be finite when a seed takes them over.
pub(crate) fn check_finite(what: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::Value {
            what: format!("parameter {index} of {what}"),
            value: values[index].into(),
            legal: "finite",
        }),
    }
}
