//! What the candle module refuses, and why.

use candle_core::DType;

use crate::Error;

/// `Result` with a [`CandleError`].
pub type CandleResult<T> = std::result::Result<T, CandleError>;

/// What a [`KasminaLayer`](super::KasminaLayer) refuses. Candle's own `Result`s carry its text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CandleError {
    /// A tensor without dimensions.
    #[error("{what} is a scalar; its last dimension must be the layer's {hidden} columns")]
    Scalar {
        /// The tensor's name.
        what: &'static str,
        /// Columns of the layer.
        hidden: usize,
    },
    /// A tensor whose last dimension is not the layer's width.
    #[error("{what} has shape {shape:?}; its last dimension must be the layer's {hidden} columns")]
    Width {
        /// The tensor's name.
        what: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Columns of the layer.
        hidden: usize,
    },
    /// A storage type that the layer does not take.
    #[error("{what} holds {}; the layer takes f32, f16 and bf16, so convert it with `to_dtype`", found.as_str())]
    DType {
        /// The tensor's name.
        what: &'static str,
        /// Its storage type.
        found: DType,
    },
    /// A tensor on a device that the layer does not reach.
    #[error("{what} is on {found}; the module runs on the CPU, so move it with `to_device`")]
    Device {
        /// The tensor's name.
        what: &'static str,
        /// Where it is.
        found: &'static str,
    },
    /// A tensor that is not on the layer's own device.
    #[error(
        "{what} is on {found}; the layer takes tensors of the candle device that it was made with, {needed}: move it with \
         `to_device`, or make both with clones of one `Device`"
    )]
    OtherDevice {
        /// The tensor's name.
        what: &'static str,
        /// Where it is.
        found: String,
        /// Where the layer is.
        needed: String,
    },
    /// The layer is no longer what the forward pass saw, so its backward pass would be another one's.
    #[error(
        "the layer changed between forward and backward ({change}); run the forward pass again"
    )]
    Changed {
        /// The first difference found.
        change: String,
    },
    /// The layer holds gradients that did not come through candle, and a backward pass would mix with them.
    #[error(
        "seed {seed} already holds gradients gathered outside candle; take them with \
         `Layer::optimizer_step` or drop them with `Layer::zero_gradients` first"
    )]
    GradientsWaiting {
        /// The first such seed.
        seed: usize,
    },
    /// Variables and layer were both changed since they last agreed.
    #[error(
        "the parameters of seed {seed} were changed in the layer and in its variables; keep the \
         layer's with `KasminaLayer::reload_vars`, or change only one of the two"
    )]
    Conflict {
        /// The seed.
        seed: usize,
    },
    /// The GPU's refusal.
    #[error(transparent)]
    Cuda(#[from] crate::cuda::CudaError),
    /// The layer's own refusal.
    #[error(transparent)]
    Engine(#[from] Error),
    /// Candle's own refusal.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<CandleError> for candle_core::Error {
    fn from(error: CandleError) -> Self {
        match error {
            CandleError::Candle(error) => error,
            error => Self::wrap(error),
        }
    }
}
