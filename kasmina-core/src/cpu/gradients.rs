//! What a backward pass is given beside x, and what it gives a seed.

use super::tile::{RawMat, RawMatMut};

/// What one call found out about one seed.
#[derive(Clone, Debug)]
pub(crate) struct SeedGradient {
    pub(crate) seed: usize,
    /// Flat, in the parameters' order; `None` for a seed that is on path but frozen.
    pub(crate) parameters: Vec<f32>,
    /// dL/dalpha of an on-path branch with alpha above 0.
    pub(crate) alpha: Option<f64>,
    /// The mean of (T(x) − x)², for the reconstruction objective.
    pub(crate) reconstruction: Option<f64>,
}

/// The output gradient and where the input gradient goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gradients<T> {
    pub(crate) y: RawMat<T>,
    pub(crate) x: RawMatMut<T>,
}
