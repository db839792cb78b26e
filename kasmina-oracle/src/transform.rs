//! T(x) of section 2.2 for one row of one chunk, and its derivative applied backwards.
//!
//! Each kind is written twice, as its formula and as its chain rule, next to each other.

use crate::kind::{Activation, Kind, relu};
use crate::layer::OracleSeed;

/// T(x) of one row; `x` holds the chunk's c columns.
pub(crate) fn apply(seed: &OracleSeed, x: &[f64]) -> Vec<f64> {
    let c = x.len();
    match seed.kind {
        Kind::None => x.to_vec(),
        // "x + s·w"
        Kind::Residual => {
            let (w, s) = (seed.known("weight"), seed.scale());
            (0..c).map(|i| x[i] + s * w[i]).collect()
        }
        // "x ⊙ softmax(w)"
        Kind::AttentionHead => {
            let p = softmax(seed.known("weight"));
            (0..c).map(|i| x[i] * p[i]).collect()
        }
        // "s·relu(x ⊙ w)"
        Kind::MlpExpansion => {
            let (w, s) = (seed.known("weight"), seed.scale());
            (0..c).map(|i| s * relu(x[i] * w[i])).collect()
        }
        // "s·Σⱼ wⱼ·x[i−j], zero before the chunk's start"
        Kind::ConvFilter => {
            let (w, s) = (seed.known("weight"), seed.scale());
            (0..c).map(|i| s * convolve(w, x, i)).collect()
        }
        // "x + U·act(V·x + v) + u"
        Kind::Bottleneck { activation } => {
            let (up, up_bias) = (seed.known("up"), seed.known("up_bias"));
            let z = affine(seed.known("down"), x, seed.known("down_bias"));
            let h: Vec<f64> = z.iter().map(|z| activation.value(*z)).collect();
            let out = affine(up, &h, up_bias);
            (0..c).map(|i| x[i] + out[i]).collect()
        }
        // "act(W·x + b)"
        Kind::Dense { activation } => affine(seed.known("weight"), x, seed.known("bias"))
            .iter()
            .map(|z| activation.value(*z))
            .collect(),
    }
}

/// Adds dL/dparameters of one row to `sums`, which holds one vector a parameter in the seed's order,
/// and returns dL/dx, given `g` = dL/dT.
pub(crate) fn pull_back(
    seed: &OracleSeed,
    x: &[f64],
    g: &[f64],
    sums: &mut [Vec<f64>],
) -> Vec<f64> {
    let c = x.len();
    match seed.kind {
        Kind::None => g.to_vec(),
        // dw = s·g, ds = Σ g·w, dx = g
        Kind::Residual => {
            let (w, s) = (seed.known("weight"), seed.scale());
            for i in 0..c {
                sums[0][i] += s * g[i];
                sums[1][0] += g[i] * w[i];
            }
            g.to_vec()
        }
        // With p = softmax(w): dwᵢ = pᵢ·(gᵢxᵢ − Σₖ gₖxₖpₖ), dx = g ⊙ p
        Kind::AttentionHead => {
            let p = softmax(seed.known("weight"));
            let mean: f64 = (0..c).map(|k| g[k] * x[k] * p[k]).sum();
            for i in 0..c {
                sums[0][i] += p[i] * (g[i] * x[i] - mean);
            }
            (0..c).map(|i| g[i] * p[i]).collect()
        }
        // Over x·w > 0 only ("relu'(0) = 0"): dw = s·g·x, ds = Σ g·x·w, dx = s·g·w
        Kind::MlpExpansion => {
            let (w, s) = (seed.known("weight"), seed.scale());
            let mut dx = vec![0.0; c];
            for i in (0..c).filter(|i| x[*i] * w[*i] > 0.0) {
                sums[0][i] += s * g[i] * x[i];
                sums[1][0] += g[i] * x[i] * w[i];
                dx[i] = s * g[i] * w[i];
            }
            dx
        }
        // dwⱼ = s·Σᵢ gᵢ·x[i−j], ds = Σᵢ gᵢ·Σⱼ wⱼ·x[i−j], dx[m] = s·Σⱼ wⱼ·g[m+j]
        Kind::ConvFilter => {
            let (w, s) = (seed.known("weight"), seed.scale());
            let mut dx = vec![0.0; c];
            for i in 0..c {
                sums[1][0] += g[i] * convolve(w, x, i);
                for j in 0..w.len().min(i + 1) {
                    sums[0][j] += s * g[i] * x[i - j];
                    dx[i - j] += s * w[j] * g[i];
                }
            }
            dx
        }
        // With z = V·x + v and h = act(z): du = g, dU = g·hᵀ, dz = (Uᵀ·g) ⊙ act'(z), dv = dz,
        // dV = dz·xᵀ, dx = g + Vᵀ·dz
        Kind::Bottleneck { activation } => {
            let (down, up) = (seed.known("down"), seed.known("up"));
            let z = affine(down, x, seed.known("down_bias"));
            let h: Vec<f64> = z.iter().map(|z| activation.value(*z)).collect();
            let dz = through(activation, &z, &transposed(up, g, z.len()));
            add_outer(&mut sums[0], &dz, x);
            add(&mut sums[1], &dz);
            add_outer(&mut sums[2], g, &h);
            add(&mut sums[3], g);
            let mut dx = transposed(down, &dz, c);
            add(&mut dx, g);
            dx
        }
        // With z = W·x + b: dz = g ⊙ act'(z), db = dz, dW = dz·xᵀ, dx = Wᵀ·dz
        Kind::Dense { activation } => {
            let w = seed.known("weight");
            let dz = through(activation, &affine(w, x, seed.known("bias")), g);
            add_outer(&mut sums[0], &dz, x);
            add(&mut sums[1], &dz);
            transposed(w, &dz, c)
        }
    }
}

/// V·x + v or W·x + b before the activation, for the kinds that have one.
pub(crate) fn pre_activation(seed: &OracleSeed, x: &[f64]) -> Option<(Activation, Vec<f64>)> {
    match seed.kind {
        Kind::Bottleneck { activation } => {
            let z = affine(seed.known("down"), x, seed.known("down_bias"));
            Some((activation, z))
        }
        Kind::Dense { activation } => {
            let z = affine(seed.known("weight"), x, seed.known("bias"));
            Some((activation, z))
        }
        _ => None,
    }
}

/// exp(wᵢ) / Σ exp(wⱼ), shifted by the largest w so that nothing overflows.
fn softmax(w: &[f64]) -> Vec<f64> {
    let top = w.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = w.iter().map(|w| libm::exp(w - top)).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

/// Σⱼ wⱼ·x[i−j] over the taps that reach back no further than the chunk's start.
fn convolve(w: &[f64], x: &[f64], i: usize) -> f64 {
    (0..w.len().min(i + 1)).map(|j| w[j] * x[i - j]).sum()
}

/// M·x + b, M row-major.
fn affine(matrix: &[f64], x: &[f64], bias: &[f64]) -> Vec<f64> {
    matrix
        .chunks(x.len())
        .zip(bias)
        .map(|(row, b)| row.iter().zip(x).map(|(m, x)| m * x).sum::<f64>() + b)
        .collect()
}

/// Mᵀ·v, M row-major with `columns` columns.
fn transposed(matrix: &[f64], v: &[f64], columns: usize) -> Vec<f64> {
    let mut out = vec![0.0; columns];
    for (row, v) in matrix.chunks(columns).zip(v) {
        for (out, m) in out.iter_mut().zip(row) {
            *out += m * v;
        }
    }
    out
}

fn through(activation: Activation, z: &[f64], g: &[f64]) -> Vec<f64> {
    z.iter().zip(g).map(|(z, g)| g * activation.derivative(*z)).collect()
}

fn add(sum: &mut [f64], v: &[f64]) {
    for (sum, v) in sum.iter_mut().zip(v) {
        *sum += v;
    }
}

fn add_outer(sum: &mut [f64], left: &[f64], right: &[f64]) {
    for (row, l) in sum.chunks_mut(right.len()).zip(left) {
        for (sum, r) in row.iter_mut().zip(right) {
            *sum += l * r;
        }
    }
}
