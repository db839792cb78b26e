//! The blueprint kinds of section 2.2, their parameters and the four activations.

use crate::OracleError;

/// An activation function of a [`Kind::Bottleneck`] or [`Kind::Dense`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// max(z, 0), with derivative 0 at 0.
    Relu,
    /// z·Φ(z) with the exact normal distribution function, not the tanh approximation.
    Gelu,
    /// z·σ(z).
    Silu,
    /// tanh(z).
    Tanh,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Self; 4] = [Self::Relu, Self::Gelu, Self::Silu, Self::Tanh];

    /// The value at `z`.
    #[must_use]
    pub fn value(self, z: f64) -> f64 {
        match self {
            Self::Relu => relu(z),
            Self::Gelu => z * normal_cdf(z),
            Self::Silu => z * logistic(z),
            Self::Tanh => libm::tanh(z),
        }
    }

    /// The derivative at `z`. "relu'(0) = 0."
    #[must_use]
    pub fn derivative(self, z: f64) -> f64 {
        match self {
            Self::Relu => f64::from(z > 0.0),
            Self::Gelu => normal_cdf(z) + z * normal_pdf(z),
            Self::Silu => {
                let s = logistic(z);
                s + z * s * (1.0 - s)
            }
            Self::Tanh => {
                let t = libm::tanh(z);
                1.0 - t * t
            }
        }
    }
}

/// max(z, 0) that lets NaN through, as IEEE maximum does.
pub(crate) fn relu(z: f64) -> f64 {
    if z > 0.0 || z.is_nan() { z } else { 0.0 }
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-z))
}

/// Φ(z). `erfc` keeps the lower tail's relative accuracy, which 1 + erf would cancel away.
fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

fn normal_pdf(z: f64) -> f64 {
    libm::exp(-0.5 * z * z) / libm::sqrt(2.0 * std::f64::consts::PI)
}

/// A blueprint kind. `None` is a seed that owns no blueprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No blueprint: the chunk passes through.
    None,
    /// "x + s·w": `weight[c]`, `scale[1]`.
    Residual,
    /// "x ⊙ softmax(w)": `weight[c]`.
    AttentionHead,
    /// "s·relu(x ⊙ w)": `weight[c]`, `scale[1]`.
    MlpExpansion,
    /// "s·Σⱼ wⱼ·x[i−j], zero before the chunk's start": `weight[k]`, `scale[1]`, k ≤ 16.
    ConvFilter,
    /// "x + U·act(V·x + v) + u": `down` V`[r,c]`, `down_bias` v`[r]`, `up` U`[c,r]`, `up_bias` u`[c]`.
    Bottleneck {
        /// The activation between the two matrices.
        activation: Activation,
    },
    /// "act(W·x + b)": `weight` W`[c,c]` (out, in), `bias` b`[c]`.
    Dense {
        /// The activation after the matrix.
        activation: Activation,
    },
}

/// "ConvFilter{k≤16}".
pub(crate) const MAX_TAPS: usize = 16;

impl Kind {
    /// The names of the parameters, in the order in which a seed holds them.
    #[must_use]
    pub fn parameter_names(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Residual | Self::MlpExpansion | Self::ConvFilter => &["weight", "scale"],
            Self::AttentionHead => &["weight"],
            Self::Bottleneck { .. } => &["down", "down_bias", "up", "up_bias"],
            Self::Dense { .. } => &["weight", "bias"],
        }
    }

    /// The number of values of each parameter over a chunk of `c` columns. `inner` is k of a
    /// [`Kind::ConvFilter`] and r of a [`Kind::Bottleneck`]; the other kinds do not read it.
    #[must_use]
    pub fn parameter_lengths(self, c: usize, inner: usize) -> Vec<usize> {
        match self {
            Self::None => vec![],
            Self::Residual | Self::MlpExpansion => vec![c, 1],
            Self::AttentionHead => vec![c],
            Self::ConvFilter => vec![inner, 1],
            Self::Bottleneck { .. } => vec![inner * c, inner, c * inner, c],
            Self::Dense { .. } => vec![c * c, c],
        }
    }
}

/// One parameter tensor, row-major, with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// `weight`, `scale`, `bias`, `down`, `down_bias`, `up` or `up_bias`.
    pub name: String,
    /// The values.
    pub values: Vec<f64>,
}

impl Parameter {
    /// A named tensor.
    #[must_use]
    pub fn new(name: &str, values: Vec<f64>) -> Self {
        Self { name: name.to_owned(), values }
    }
}

/// Checks that `parameters` are those of `kind` over a chunk of `c` columns, by name, order and length.
pub(crate) fn check(
    kind: Kind,
    parameters: &[Parameter],
    seed: usize,
    c: usize,
) -> Result<(), OracleError> {
    let names = kind.parameter_names();
    if parameters.len() != names.len()
        || parameters.iter().zip(names).any(|(p, name)| p.name != *name)
    {
        return Err(OracleError::Parameters {
            seed,
            found: parameters.iter().map(|p| p.name.clone()).collect(),
            expected: names.to_vec(),
        });
    }
    let inner = match kind {
        Kind::ConvFilter => parameters[0].values.len(),
        Kind::Bottleneck { .. } => parameters[1].values.len(),
        _ => 1,
    };
    if inner == 0 || (kind == Kind::ConvFilter && inner > MAX_TAPS) {
        return Err(OracleError::Size {
            field: "taps or width",
            value: inner,
            limit: format!("at least 1, and at most {MAX_TAPS} taps"),
        });
    }
    for (p, expected) in parameters.iter().zip(kind.parameter_lengths(c, inner)) {
        if p.values.len() != expected {
            return Err(OracleError::Length {
                field: format!("seed {seed}'s {}", p.name),
                found: p.values.len(),
                expected,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_at_known_points() {
        // Φ(1) from tables of the normal distribution.
        assert!((Activation::Gelu.value(1.0) - 0.841_344_746_068_542_9).abs() < 1e-15);
        assert!((Activation::Silu.value(1.0) - 0.731_058_578_630_004_9).abs() < 1e-15);
        assert_eq!(Activation::Relu.value(-2.0), 0.0);
        assert_eq!(Activation::Relu.derivative(0.0), 0.0);
        for activation in Activation::ALL {
            assert_eq!(activation.value(0.0), 0.0);
            assert!(activation.value(f64::NAN).is_nan());
        }
    }

    #[test]
    fn derivatives_are_the_slopes() {
        for activation in Activation::ALL {
            for i in -40..=40 {
                let z = f64::from(i) * 0.1 + 0.013;
                let h = 1e-5;
                let slope = (activation.value(z + h) - activation.value(z - h)) / (2.0 * h);
                let told = activation.derivative(z);
                assert!((slope - told).abs() < 1e-9, "{activation:?}'({z})");
            }
        }
    }

    #[test]
    fn gelu_keeps_its_lower_tail() {
        // z·Φ(z) at −10: Φ(−10) = 7.619853024160527e-24.
        let e = -10.0 * 7.619_853_024_160_527e-24;
        assert!(((Activation::Gelu.value(-10.0) - e) / e).abs() < 1e-12);
    }
}
