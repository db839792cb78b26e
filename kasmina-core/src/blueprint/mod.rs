//! Blueprints: the transformations a seed can grow into, their parameters, and what they cost.
//!
//! A [`Blueprint`] is a template; every seed owns its own parameters, one flat `Vec<f32>` cut up by a
//! [`ParameterLayout`]. c is the length of the seed's chunk throughout.

mod init;
mod registry;
mod user;

pub(crate) use init::check_finite;

use std::borrow::Cow;
use std::sync::Arc;

pub use registry::{BlueprintId, Registry};
pub use user::UserBlueprint;

use crate::{Activation, Error, Result};

/// The longest convolution filter.
pub const MAX_TAPS: usize = 16;

/// A template of a trainable transformation T of one chunk x of length c.
#[derive(Clone, Debug)]
pub enum Blueprint {
    /// T(x) = x + s·w. Parameters `weight [c]`, `scale`.
    Residual,
    /// T(x) = x ⊙ softmax(w). Parameter `weight [c]`.
    AttentionHead,
    /// T(x) = s·relu(x ⊙ w). Parameters `weight [c]`, `scale`.
    MlpExpansion,
    /// T(x)ᵢ = s·Σⱼ wⱼ·xᵢ₋ⱼ, zero before the chunk's start. Parameters `weight [taps]`, `scale`.
    ConvFilter {
        /// Number of taps, 1 to [`MAX_TAPS`].
        taps: usize,
    },
    /// T(x) = x + U·act(V·x + v) + u. Parameters `down [width, c]` (V), `down_bias [width]` (v),
    /// `up [c, width]` (U), `up_bias [c]` (u); U and u start at 0, so it starts as the identity.
    Bottleneck {
        /// Rows of V.
        width: usize,
        /// The activation between the two matrices.
        activation: Activation,
    },
    /// T(x) = act(W·x + b). Parameters `weight [c, c]` (output × input), `bias [c]`.
    Dense {
        /// The activation of the output.
        activation: Activation,
    },
    /// A kind defined by the user; it runs on the CPU backend.
    User(Arc<dyn UserBlueprint>),
}

/// One parameter tensor of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Its name, such as `"weight"`.
    pub name: Cow<'static, str>,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
}

impl ParameterSpec {
    /// A parameter tensor of the given name and shape.
    pub fn new(name: impl Into<Cow<'static, str>>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into() }
    }

    /// Number of elements, `None` if it overflows.
    fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }
}

/// The parameter tensors of one seed in the order in which they lie in its flat storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterLayout {
    specs: Vec<ParameterSpec>,
    offsets: Vec<usize>,
}

impl ParameterLayout {
    pub(crate) fn new(specs: Vec<ParameterSpec>) -> Result<Self> {
        let mut offsets = vec![0];
        let mut end = 0usize;
        for spec in &specs {
            end = spec.elements().and_then(|n| end.checked_add(n)).ok_or(Error::TooLarge {
                what: "a seed's parameter count",
                value: u64::MAX,
                limit: usize::MAX as u64,
            })?;
            offsets.push(end);
        }
        Ok(Self { specs, offsets })
    }

    /// Number of parameters in all tensors together.
    pub fn len(&self) -> usize {
        self.offsets[self.specs.len()]
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensors.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// Where tensor `index` lies in the flat storage.
    pub fn range(&self, index: usize) -> std::ops::Range<usize> {
        self.offsets[index]..self.offsets[index + 1]
    }

    /// The tensors with their part of `values`, which is as long as the layout.
    pub fn tensors<'a>(
        &'a self,
        values: &'a [f32],
    ) -> impl ExactSizeIterator<Item = (&'a ParameterSpec, &'a [f32])> {
        self.specs.iter().enumerate().map(move |(i, spec)| (spec, &values[self.range(i)]))
    }
}

impl Blueprint {
    /// The kind's name, such as `"conv_filter"`; for a user kind the name it gives itself.
    pub fn kind(&self) -> &str {
        match self {
            Self::Residual => "residual",
            Self::AttentionHead => "attention_head",
            Self::MlpExpansion => "mlp_expansion",
            Self::ConvFilter { .. } => "conv_filter",
            Self::Bottleneck { .. } => "bottleneck",
            Self::Dense { .. } => "dense",
            Self::User(user) => user.kind(),
        }
    }

    /// Whether the kind can represent more than an affine map of its chunk.
    pub fn adds_capacity(&self) -> bool {
        !matches!(self, Self::Residual | Self::AttentionHead | Self::ConvFilter { .. })
    }

    /// Whether the parameter gradients of a pointwise kind are sums over x: the residual's are sums of g alone.
    pub(crate) fn sums_need_x(&self) -> bool {
        !matches!(self, Self::Residual)
    }

    /// Checks the template's own numbers.
    ///
    /// # Errors
    /// [`Error::Zero`] or [`Error::TooLarge`] for `taps` outside 1 to 16 or a zero `width`.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::ConvFilter { taps: 0 } => Err(Error::Zero { what: "taps" }),
            Self::ConvFilter { taps } if taps > MAX_TAPS => {
                Err(Error::TooLarge { what: "taps", value: taps as u64, limit: MAX_TAPS as u64 })
            }
            Self::Bottleneck { width: 0, .. } => Err(Error::Zero { what: "bottleneck width" }),
            Self::Bottleneck { width, .. } if width > i32::MAX as usize => Err(Error::TooLarge {
                what: "bottleneck width",
                value: width as u64,
                limit: i32::MAX as u64,
            }),
            _ => Ok(()),
        }
    }

    /// The parameter tensors of a seed whose chunk has `c` columns.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if their number overflows.
    pub fn parameters(&self, c: usize) -> Result<ParameterLayout> {
        fn spec<const RANK: usize>(name: &'static str, shape: [usize; RANK]) -> ParameterSpec {
            ParameterSpec::new(name, shape)
        }
        ParameterLayout::new(match self {
            Self::Residual | Self::MlpExpansion => vec![spec("weight", [c]), spec("scale", [1])],
            Self::AttentionHead => vec![spec("weight", [c])],
            Self::ConvFilter { taps } => vec![spec("weight", [*taps]), spec("scale", [1])],
            Self::Bottleneck { width, .. } => vec![
                spec("down", [*width, c]),
                spec("down_bias", [*width]),
                spec("up", [c, *width]),
                spec("up_bias", [c]),
            ],
            Self::Dense { .. } => vec![spec("weight", [c, c]), spec("bias", [c])],
            Self::User(user) => user.parameters(c),
        })
    }

    /// Floating-point operations of one forward pass of one row as the streaming kernels run it:
    /// a multiplication and an addition count one each, a comparison none, an activation one.
    /// The blend by alpha is lowered into the program of the pointwise kinds and the filter.
    pub fn flops_per_row(&self, c: usize) -> u64 {
        let c = c as u64;
        match self {
            Self::Residual | Self::AttentionHead | Self::MlpExpansion => 2 * c,
            Self::ConvFilter { taps } => 2 * c * *taps as u64,
            Self::Bottleneck { width, .. } => {
                let width = *width as u64;
                // Two products, two biases and the activation, the skip, and the blend.
                4 * width * c + 2 * width + 2 * c + 3 * c
            }
            Self::Dense { .. } => 2 * c * c + 2 * c + 3 * c,
            Self::User(user) => user.flops_per_row(c as usize) + 3 * c,
        }
    }
}

impl PartialEq for Blueprint {
    /// Templates are equal if they make the same branch; user kinds if they are the same object.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Residual, Self::Residual)
            | (Self::AttentionHead, Self::AttentionHead)
            | (Self::MlpExpansion, Self::MlpExpansion) => true,
            (Self::ConvFilter { taps: a }, Self::ConvFilter { taps: b }) => a == b,
            (
                Self::Bottleneck { width: a, activation: p },
                Self::Bottleneck { width: b, activation: q },
            ) => a == b && p == q,
            (Self::Dense { activation: p }, Self::Dense { activation: q }) => p == q,
            (Self::User(a), Self::User(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}
