//! The branches that need their whole chunk, on contiguous blocks of rows: T(x) and its
//! vector-Jacobian products, for bottleneck, dense and user-defined kinds.

use super::matmul::{Operand, matmul};
use crate::{Activation, Blueprint};

/// Buffers of one task, kept from block to block.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// Pre-activations, `[n, width]`.
    hidden: Vec<f32>,
    /// Activations, later their gradients, `[n, width]`.
    activated: Vec<f32>,
    /// Gradient of the pre-activations, `[n, width]`.
    grad_hidden: Vec<f32>,
}

/// The parameters of a bottleneck: V `[r, c]`, v `[r]`, U `[c, r]`, u `[c]`.
struct Bottleneck<'a> {
    down: &'a [f32],
    down_bias: &'a [f32],
    up: &'a [f32],
    up_bias: &'a [f32],
}

impl<'a> Bottleneck<'a> {
    fn new(c: usize, width: usize, parameters: &'a [f32]) -> Self {
        let (down, rest) = parameters.split_at(width * c);
        let (down_bias, rest) = rest.split_at(width);
        let (up, up_bias) = rest.split_at(c * width);
        Self { down, down_bias, up, up_bias }
    }
}

/// t = T(x) for a block `x [n, c]`. The workspace remembers what [`vjp`] needs of the block.
pub(super) fn forward(
    blueprint: &Blueprint,
    c: usize,
    parameters: &[f32],
    x: &[f32],
    t: &mut [f32],
    work: &mut Workspace,
) {
    let n = x.len() / c;
    match blueprint {
        Blueprint::Bottleneck { width, activation } => {
            let p = Bottleneck::new(c, *width, parameters);
            fill_rows(&mut work.hidden, n, p.down_bias);
            matmul(
                &mut work.hidden,
                Operand::new(x, n, c),
                Operand::new(p.down, *width, c).t(),
                true,
            );
            activate(*activation, &work.hidden, &mut work.activated);
            t.copy_from_slice(x);
            add_rows(t, p.up_bias);
            let activated = Operand::new(&work.activated, n, *width);
            matmul(t, activated, Operand::new(p.up, c, *width).t(), true);
        }
        Blueprint::Dense { activation } => {
            let (weight, bias) = parameters.split_at(c * c);
            fill_rows(&mut work.hidden, n, bias);
            matmul(&mut work.hidden, Operand::new(x, n, c), Operand::new(weight, c, c).t(), true);
            for (t, h) in t.iter_mut().zip(&work.hidden) {
                *t = activation.value(*h);
            }
        }
        Blueprint::User(user) => user.forward(c, parameters, x, t),
        other => unreachable!("{} is no matrix kind", other.kind()),
    }
}

/// Given g = dL/dT on the block of the last [`forward`], overwrites `grad_x` with (dT/dx)ᵀ·g and adds
/// to `grad_parameters`.
#[expect(clippy::too_many_arguments, reason = "one call, one place")]
pub(super) fn vjp(
    blueprint: &Blueprint,
    c: usize,
    parameters: &[f32],
    x: &[f32],
    g: &[f32],
    grad_x: &mut [f32],
    grad_parameters: Option<&mut [f32]>,
    work: &mut Workspace,
) {
    let n = x.len() / c;
    match blueprint {
        Blueprint::Bottleneck { width, activation } => {
            let width = *width;
            let p = Bottleneck::new(c, width, parameters);
            work.grad_hidden.resize(n * width, 0.0);
            let up = Operand::new(p.up, c, width);
            matmul(&mut work.grad_hidden, Operand::new(g, n, c), up, false);
            scale_by_derivative(*activation, &work.hidden, &mut work.grad_hidden);
            let grad_hidden = Operand::new(&work.grad_hidden, n, width);
            if let Some(gradient) = grad_parameters {
                let (down, rest) = gradient.split_at_mut(width * c);
                let (down_bias, rest) = rest.split_at_mut(width);
                let (up, up_bias) = rest.split_at_mut(c * width);
                matmul(down, grad_hidden.t(), Operand::new(x, n, c), true);
                add_column_sums(down_bias, &work.grad_hidden);
                let activated = Operand::new(&work.activated, n, width);
                matmul(up, Operand::new(g, n, c).t(), activated, true);
                add_column_sums(up_bias, g);
            }
            grad_x.copy_from_slice(g);
            matmul(grad_x, grad_hidden, Operand::new(p.down, width, c), true);
        }
        Blueprint::Dense { activation } => {
            let (weight, _) = parameters.split_at(c * c);
            work.grad_hidden.clear();
            work.grad_hidden.extend_from_slice(g);
            scale_by_derivative(*activation, &work.hidden, &mut work.grad_hidden);
            let grad_hidden = Operand::new(&work.grad_hidden, n, c);
            if let Some(gradient) = grad_parameters {
                let (grad_weight, grad_bias) = gradient.split_at_mut(c * c);
                matmul(grad_weight, grad_hidden.t(), Operand::new(x, n, c), true);
                add_column_sums(grad_bias, &work.grad_hidden);
            }
            matmul(grad_x, grad_hidden, Operand::new(weight, c, c), false);
        }
        Blueprint::User(user) => user.backward(c, parameters, x, g, grad_x, grad_parameters),
        other => unreachable!("{} is no matrix kind", other.kind()),
    }
}

fn activate(activation: Activation, hidden: &[f32], activated: &mut Vec<f32>) {
    activated.clear();
    activated.extend(hidden.iter().map(|h| activation.value(*h)));
}

fn scale_by_derivative(activation: Activation, hidden: &[f32], gradient: &mut [f32]) {
    for (g, h) in gradient.iter_mut().zip(hidden) {
        *g *= activation.derivative(*h);
    }
}

/// `n` copies of a bias, to add a product onto.
fn fill_rows(out: &mut Vec<f32>, n: usize, bias: &[f32]) {
    out.clear();
    for _ in 0..n {
        out.extend_from_slice(bias);
    }
}

fn add_rows(out: &mut [f32], bias: &[f32]) {
    for row in out.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

/// Adds the column sums of a `[n, out.len()]` block, each summed in f64.
fn add_column_sums(out: &mut [f32], block: &[f32]) {
    let mut sums = vec![0.0f64; out.len()];
    for row in block.chunks_exact(out.len()) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out += sum as f32;
    }
}
