//! Two kinds of the example's own, through the registry's trait: an affine recalibration, and a poisoned one.

use kasmina_core::{ParameterSpec, UserBlueprint};
use rand::RngCore;

/// T(x) = a ⊙ x + b: gain and offset of every sensor, what a technician would recalibrate.
#[derive(Debug)]
pub(crate) struct Recalibration;

/// T(x) = W·x + b from W = 1: the strongest affine map of a chunk there is.
#[derive(Debug)]
pub(crate) struct AffineMap;

/// [`Recalibration`] with a latent fault. It learns like the honest one, but every update also moves a
/// hidden fuse, and once that is past [`Poisoned::FUSE`] the branch inverts and amplifies its chunk.
/// Nothing in its training loss gives it away: by then it has been trained and is being grafted.
#[derive(Debug)]
pub(crate) struct Poisoned;

impl Poisoned {
    /// Where the fuse blows. Its gradient is constant, and Adam turns a constant gradient into a step of
    /// one learning rate, so this is a number of updates times the learning rate.
    pub(crate) const FUSE: f32 = 250.0 * crate::grow::LEARNING_RATE as f32;
    /// Large: a gain of −4 was milder than one drift in forty, and the gates rightly let that one stay.
    const FAULT: f32 = -40.0;
}

impl UserBlueprint for Recalibration {
    fn kind(&self) -> &str {
        "recalibration"
    }

    fn parameters(&self, c: usize) -> Vec<ParameterSpec> {
        vec![ParameterSpec::new("gain", [c]), ParameterSpec::new("offset", [c])]
    }

    fn initialise(&self, c: usize, _: &mut dyn RngCore, values: &mut [f32]) {
        values[..c].fill(1.0);
        values[c..].fill(0.0);
    }

    fn forward(&self, c: usize, parameters: &[f32], x: &[f32], y: &mut [f32]) {
        let (gain, offset) = parameters.split_at(c);
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            for i in 0..c {
                y[i] = gain[i] * x[i] + offset[i];
            }
        }
    }

    fn backward(
        &self,
        c: usize,
        parameters: &[f32],
        x: &[f32],
        g: &[f32],
        grad_x: &mut [f32],
        grad_parameters: Option<&mut [f32]>,
    ) {
        for (g, grad_x) in g.chunks_exact(c).zip(grad_x.chunks_exact_mut(c)) {
            for i in 0..c {
                grad_x[i] = parameters[i] * g[i];
            }
        }
        let Some((gain, offset)) = grad_parameters.map(|grad| grad.split_at_mut(c)) else {
            return;
        };
        for (x, g) in x.chunks_exact(c).zip(g.chunks_exact(c)) {
            for i in 0..c {
                gain[i] += g[i] * x[i];
                offset[i] += g[i];
            }
        }
    }

    fn flops_per_row(&self, c: usize) -> u64 {
        2 * c as u64
    }
}

impl UserBlueprint for AffineMap {
    fn kind(&self) -> &str {
        "affine_map"
    }

    fn parameters(&self, c: usize) -> Vec<ParameterSpec> {
        vec![ParameterSpec::new("weight", [c, c]), ParameterSpec::new("offset", [c])]
    }

    fn initialise(&self, c: usize, _: &mut dyn RngCore, values: &mut [f32]) {
        values.fill(0.0);
        for i in 0..c {
            values[i * c + i] = 1.0;
        }
    }

    fn forward(&self, c: usize, parameters: &[f32], x: &[f32], y: &mut [f32]) {
        let (weight, offset) = parameters.split_at(c * c);
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            for (i, w) in weight.chunks_exact(c).enumerate() {
                y[i] = offset[i] + w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
            }
        }
    }

    fn backward(
        &self,
        c: usize,
        parameters: &[f32],
        x: &[f32],
        g: &[f32],
        grad_x: &mut [f32],
        grad_parameters: Option<&mut [f32]>,
    ) {
        let weight = &parameters[..c * c];
        for (g, grad_x) in g.chunks_exact(c).zip(grad_x.chunks_exact_mut(c)) {
            grad_x.fill(0.0);
            for (w, g) in weight.chunks_exact(c).zip(g) {
                grad_x.iter_mut().zip(w).for_each(|(grad, w)| *grad += w * g);
            }
        }
        let Some((weight, offset)) = grad_parameters.map(|grad| grad.split_at_mut(c * c)) else {
            return;
        };
        for (x, g) in x.chunks_exact(c).zip(g.chunks_exact(c)) {
            for (i, w) in weight.chunks_exact_mut(c).enumerate() {
                w.iter_mut().zip(x).for_each(|(w, x)| *w += g[i] * x);
                offset[i] += g[i];
            }
        }
    }

    fn flops_per_row(&self, c: usize) -> u64 {
        2 * (c * c) as u64
    }
}

impl UserBlueprint for Poisoned {
    fn kind(&self) -> &str {
        "poisoned"
    }

    fn parameters(&self, c: usize) -> Vec<ParameterSpec> {
        let mut specs = Recalibration.parameters(c);
        specs.push(ParameterSpec::new("fuse", [1]));
        specs
    }

    fn initialise(&self, c: usize, rng: &mut dyn RngCore, values: &mut [f32]) {
        Recalibration.initialise(c, rng, &mut values[..2 * c]);
    }

    fn forward(&self, c: usize, parameters: &[f32], x: &[f32], y: &mut [f32]) {
        if parameters[2 * c] < Self::FUSE {
            return Recalibration.forward(c, &parameters[..2 * c], x, y);
        }
        x.iter().zip(y).for_each(|(x, y)| *y = Self::FAULT * x);
    }

    fn backward(
        &self,
        c: usize,
        parameters: &[f32],
        x: &[f32],
        g: &[f32],
        grad_x: &mut [f32],
        grad_parameters: Option<&mut [f32]>,
    ) {
        let (honest, fuse) = match grad_parameters {
            Some(grad) => {
                let (honest, fuse) = grad.split_at_mut(2 * c);
                (Some(honest), Some(fuse))
            }
            None => (None, None),
        };
        if parameters[2 * c] < Self::FUSE {
            Recalibration.backward(c, &parameters[..2 * c], x, g, grad_x, honest);
        } else {
            g.iter().zip(grad_x).for_each(|(g, grad_x)| *grad_x = Self::FAULT * g);
        }
        if let Some(fuse) = fuse {
            fuse[0] -= 1.0;
        }
    }

    fn flops_per_row(&self, c: usize) -> u64 {
        Recalibration.flops_per_row(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central differences of ½‖T(x)‖² against backward, for x and parameters.
    fn check(kind: &dyn UserBlueprint, c: usize, parameters: &[f32]) {
        let x: Vec<f32> = (0..3 * c).map(|i| (i as f32 * 0.7).sin()).collect();
        let energy = |parameters: &[f32], x: &[f32]| {
            let mut y = vec![0.0; x.len()];
            kind.forward(c, parameters, x, &mut y);
            y.iter().map(|&y| 0.5 * f64::from(y).powi(2)).sum::<f64>()
        };
        let mut g = vec![0.0; x.len()];
        kind.forward(c, parameters, &x, &mut g);
        let (mut grad_x, mut grad_p) = (vec![9.0; x.len()], vec![0.0; parameters.len()]);
        kind.backward(c, parameters, &x, &g, &mut grad_x, Some(&mut grad_p));
        let shifted = |values: &[f32], i: usize, by: f32| {
            let mut values = values.to_vec();
            values[i] += by;
            values
        };
        let h = 1e-2;
        let close = |what: &str, i: usize, found: f32, up: f64, down: f64| {
            let slope = (up - down) / (2.0 * f64::from(h));
            assert!((f64::from(found) - slope).abs() < 2e-3, "{what} {i}: {found}, slope {slope}");
        };
        for (i, &found) in grad_x.iter().enumerate() {
            let (up, down) = (shifted(&x, i, h), shifted(&x, i, -h));
            close("x", i, found, energy(parameters, &up), energy(parameters, &down));
        }
        for (i, &found) in grad_p.iter().enumerate() {
            let (up, down) = (shifted(parameters, i, h), shifted(parameters, i, -h));
            close("parameter", i, found, energy(&up, &x), energy(&down, &x));
        }
    }

    #[test]
    fn the_affine_kinds_have_the_gradients_of_their_forward() {
        let c = 4;
        for kind in [&Recalibration as &dyn UserBlueprint, &AffineMap] {
            let n: usize =
                kind.parameters(c).iter().map(|s| s.shape.iter().product::<usize>()).sum();
            let parameters: Vec<f32> = (0..n).map(|i| (i as f32).cos()).collect();
            check(kind, c, &parameters);
        }
    }

    #[test]
    fn the_poisoned_kind_is_honest_until_its_fuse_blows() {
        let (c, x) = (2, [0.5f32, -1.0]);
        let mut parameters = [1.0, 2.0, 0.0, 0.5, 0.0];
        let mut y = [0.0; 2];
        Poisoned.forward(c, &parameters, &x, &mut y);
        assert_eq!(y, [0.5, -1.5]);
        parameters[4] = Poisoned::FUSE;
        Poisoned.forward(c, &parameters, &x, &mut y);
        assert_eq!(y, [-20.0, 40.0]);
    }
}
