//! The trait by which a user adds a blueprint of their own.

use std::fmt;

use rand::RngCore;

use super::ParameterSpec;

/// A user-defined transformation of one chunk, run on the CPU backend.
///
/// Matrices are contiguous and row-major: `x`, `y` and gradients are `[rows, c]` with
/// `rows = x.len() / c`. The engine calls `forward` and `backward` on blocks of rows, on several
/// threads at once, and blends, guards and masks around them; the methods see sanitized input only.
/// Both must be pure functions of their arguments, or runs stop being reproducible.
pub trait UserBlueprint: Send + Sync + fmt::Debug {
    /// The kind's name; a checkpoint finds the kind again under the name it was registered by.
    fn kind(&self) -> &str;

    /// The parameter tensors of a seed with `c` columns.
    fn parameters(&self, c: usize) -> Vec<ParameterSpec>;

    /// Fills the flat parameters of a new seed. NaN or infinite values are refused at germination.
    fn initialise(&self, c: usize, rng: &mut dyn RngCore, values: &mut [f32]);

    /// y = T(x); `y` is to be overwritten.
    fn forward(&self, c: usize, parameters: &[f32], x: &[f32], y: &mut [f32]);

    /// Given g = dL/dT, overwrites `grad_x` with (dT/dx)ᵀg, and adds to `grad_parameters`
    /// where the seed is trainable.
    fn backward(
        &self,
        c: usize,
        parameters: &[f32],
        x: &[f32],
        g: &[f32],
        grad_x: &mut [f32],
        grad_parameters: Option<&mut [f32]>,
    );

    /// Floating-point operations of one forward pass of one row.
    fn flops_per_row(&self, c: usize) -> u64;
}
