//! Activation functions of the bottleneck and dense blueprints, with their derivatives.

use serde::{Deserialize, Serialize};

/// An elementwise activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Activation {
    /// max(x, 0); its derivative at 0 is 0.
    Relu = 0,
    /// x·Φ(x) with the exact normal distribution Φ (Hendrycks & Gimpel 2016), not the tanh form.
    #[default]
    Gelu = 1,
    /// x·σ(x).
    Silu = 2,
    /// tanh(x).
    Tanh = 3,
}

impl TryFrom<u8> for Activation {
    type Error = crate::Error;

    fn try_from(code: u8) -> Result<Self, Self::Error> {
        match code {
            0 => Ok(Self::Relu),
            1 => Ok(Self::Gelu),
            2 => Ok(Self::Silu),
            3 => Ok(Self::Tanh),
            _ => Err(crate::Error::UnknownCode { what: "activation", code: code.into(), last: 3 }),
        }
    }
}

impl Activation {
    /// The activation's name, such as `"gelu"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Gelu => "gelu",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
        }
    }

    /// act(x).
    #[inline]
    pub fn value(self, x: f32) -> f32 {
        match self {
            Self::Relu => {
                if x > 0.0 || x.is_nan() {
                    x
                } else {
                    0.0
                }
            }
            Self::Gelu => x * normal_cdf(x),
            Self::Silu => x * sigmoid(x),
            Self::Tanh => x.tanh(),
        }
    }

    /// d act(x) / dx.
    #[inline]
    pub fn derivative(self, x: f32) -> f32 {
        match self {
            Self::Relu => {
                if x > 0.0 {
                    1.0
                } else {
                    0.0
                }
            }
            Self::Gelu => {
                let density = (-0.5 * x * x).exp()
                    * std::f32::consts::FRAC_2_SQRT_PI
                    * (0.5 * std::f32::consts::FRAC_1_SQRT_2);
                normal_cdf(x) + x * density
            }
            Self::Silu => {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }
            Self::Tanh => {
                // In f64, because 1 − tanh² cancels where tanh saturates: in f32 it is 0 from x = 9 on.
                let t = f64::from(x).tanh();
                (1.0 - t * t) as f32
            }
        }
    }
}

/// Φ(x), through erfc: 1 + erf cancels in the left tail.
#[inline]
fn normal_cdf(x: f32) -> f32 {
    0.5 * libm::erfcf(-x * std::f32::consts::FRAC_1_SQRT_2)
}

#[inline]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
