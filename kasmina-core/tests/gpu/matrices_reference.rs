//! Bottleneck and dense branches in f64, each number with a bound of what a kernel's may differ by: `unit` times the magnitude of
//! every term, carried through every formula.
//!
//! The one rule about edges: where a clamp or a relu may turn over within that bound, the whole gradient that it lets through or
//! not is counted as error. Nothing else is excused.

use kasmina_core::{Activation, Blueprint, Bounds, Objective};
use kasmina_oracle as oracle;

/// A number and the greatest error allowed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Near {
    pub(crate) v: f64,
    pub(crate) e: f64,
}

impl Near {
    fn exact(v: f64) -> Self {
        Self { v, e: 0.0 }
    }

    fn add(&mut self, other: Self) {
        self.v += other.v;
        self.e += other.e;
    }

    /// A product, one rounding of `unit`.
    fn times(self, other: Self, unit: f64) -> Self {
        let v = self.v * other.v;
        let e = self.v.abs() * other.e + other.v.abs() * self.e + self.e * other.e + unit * v.abs();
        Self { v, e }
    }
}

/// What is asked of one seed.
pub(crate) struct Task<'a> {
    pub(crate) blueprint: &'a Blueprint,
    pub(crate) parameters: &'a [f32],
    pub(crate) role: Result<f32, Objective>,
    pub(crate) bounds: Bounds,
    pub(crate) rows: usize,
    pub(crate) unit: f64,
}

/// What should come of it; matrices are [rows, c].
#[derive(Default)]
pub(crate) struct Expected {
    pub(crate) y: Vec<Near>,
    pub(crate) grad_x: Vec<Near>,
    pub(crate) parameters: Vec<Near>,
    pub(crate) alpha: Near,
    pub(crate) loss: Near,
}

pub(crate) fn oracle_activation(activation: Activation) -> oracle::Activation {
    match activation {
        Activation::Relu => oracle::Activation::Relu,
        Activation::Gelu => oracle::Activation::Gelu,
        Activation::Silu => oracle::Activation::Silu,
        Activation::Tanh => oracle::Activation::Tanh,
    }
}

impl Task<'_> {
    /// `x` is as it is stored; `grad_y` is not read of a reconstruction.
    pub(crate) fn run(&self, x: &[f32], grad_y: &[f32]) -> Expected {
        let c = x.len() / self.rows.max(1);
        let mut expected = Expected {
            parameters: vec![Near::default(); self.parameters.len()],
            ..Expected::default()
        };
        for row in 0..self.rows {
            let part = row * c..(row + 1) * c;
            self.row(&x[part.clone()], &grad_y[part], &mut expected);
        }
        expected
    }

    fn row(&self, raw: &[f32], grad_y: &[f32], out: &mut Expected) {
        let (c, unit) = (raw.len(), self.unit);
        let alpha = Near::exact(self.role.as_ref().map_or(1.0, |alpha| f64::from(*alpha)));
        let keep = Near::exact(1.0 - alpha.v);
        let v: Vec<_> = raw.iter().map(|x| Near::exact(self.bounds.sanitize(*x).into())).collect();
        let (width, activation, dense) = match *self.blueprint {
            Blueprint::Bottleneck { width, activation } => (width, activation, false),
            Blueprint::Dense { activation } => (c, activation, true),
            _ => return,
        };
        let act = oracle_activation(activation);
        let down = self.parameters[..width * c].iter().map(|w| f64::from(*w)).collect::<Vec<_>>();
        let rest = &self.parameters[width * c..];
        let z = self.affine(&down, &rest[..width], &v);
        let a: Vec<_> = z.iter().map(|z| self.activate(act, *z)).collect();
        let up: Vec<f64> = if dense {
            vec![]
        } else {
            rest[width..][..c * width].iter().map(|w| f64::from(*w)).collect()
        };
        // T and T − v.
        let (t, difference): (Vec<_>, Vec<_>) = if dense {
            let apart =
                |t: &Near, v: &Near| Near { v: t.v - v.v, e: t.e + unit * (t.v.abs() + v.v.abs()) };
            (a.clone(), a.iter().zip(&v).map(|(t, v)| apart(t, v)).collect())
        } else {
            let d = self.affine(&up, &rest[width + c * width..], &a);
            let t =
                |d: &Near, v: &Near| Near { v: v.v + d.v, e: d.e + unit * (d.v.abs() + v.v.abs()) };
            let t: Vec<_> = d.iter().zip(&v).map(|(d, v)| t(d, v)).collect();
            // Of an infinite v it is NaN.
            let apart = |d: &Near, t: &Near, v: &Near| {
                if v.v.is_finite() { *d } else { Near { v: t.v - v.v, ..*d } }
            };
            let d = d.iter().zip(&t).zip(&v).map(|((d, t), v)| apart(d, t, v)).collect();
            (t, d)
        };
        let y: Vec<_> = t
            .iter()
            .zip(&v)
            .map(|(t, v)| {
                let mut y = alpha.times(*t, unit);
                if keep.v != 0.0 {
                    y.add(keep.times(*v, unit));
                }
                y
            })
            .collect();
        let clamped = |y: f64| {
            if self.bounds.guarded {
                y.clamp(self.bounds.lower.into(), self.bounds.upper.into())
            } else {
                y
            }
        };
        out.y.extend(y.iter().map(|y| Near { v: clamped(y.v), e: y.e }));
        let elements = (self.rows * c) as f64;
        let g: Vec<_> = (0..c)
            .map(|i| match self.role {
                Err(Objective::Reconstruction) => {
                    let mut square = difference[i].times(difference[i], unit);
                    square.v /= elements;
                    square.e /= elements;
                    out.loss.add(square);
                    difference[i].times(Near::exact(2.0 / elements), unit)
                }
                _ => {
                    let g = self.through_clamp(f64::from(grad_y[i]), y[i]);
                    out.alpha.add(g.times(difference[i], unit));
                    g
                }
            })
            .collect();
        let grad_t: Vec<_> = g.iter().map(|g| alpha.times(*g, unit)).collect();
        let through = |g: Near, z: Near| g.times(self.slope(act, z), unit);
        let gz: Vec<_> = if dense {
            grad_t.iter().zip(&z).map(|(g, z)| through(*g, *z)).collect()
        } else {
            let ga = self.transposed(&up, &grad_t, width);
            ga.into_iter().zip(&z).map(|(g, z)| through(g, *z)).collect()
        };
        let sums = &mut out.parameters;
        for (i, gz) in gz.iter().enumerate() {
            for (j, v) in v.iter().enumerate() {
                sums[i * c + j].add(gz.times(*v, unit));
            }
            sums[width * c + i].add(gz.times(Near::exact(1.0), unit));
        }
        let mut grad = self.transposed(&down, &gz, c);
        if !dense {
            let start = width * c + width;
            for (i, g) in grad_t.iter().enumerate() {
                for (j, a) in a.iter().enumerate() {
                    sums[start + i * width + j].add(g.times(*a, unit));
                }
                sums[start + c * width + i].add(g.times(Near::exact(1.0), unit));
                grad[i].add(*g);
            }
        }
        for i in 0..c {
            if keep.v != 0.0 {
                grad[i].add(keep.times(g[i], unit));
            }
            let passes = self.bounds.passes(raw[i]);
            out.grad_x.push(if passes { grad[i] } else { Near::default() });
        }
    }

    /// M·x + b, M row-major.
    fn affine(&self, matrix: &[f64], bias: &[f32], x: &[Near]) -> Vec<Near> {
        let rows = matrix.chunks(x.len()).zip(bias);
        rows.map(|(row, bias)| {
            let mut sum = Near::exact(1.0).times(Near::exact(f64::from(*bias)), self.unit);
            row.iter().zip(x).for_each(|(m, x)| sum.add(Near::exact(*m).times(*x, self.unit)));
            sum
        })
        .collect()
    }

    /// Mᵀ·g, M row-major with `columns` columns.
    fn transposed(&self, matrix: &[f64], g: &[Near], columns: usize) -> Vec<Near> {
        let mut out = vec![Near::default(); columns];
        for (row, g) in matrix.chunks(columns).zip(g) {
            for (out, m) in out.iter_mut().zip(row) {
                out.add(Near::exact(*m).times(*g, self.unit));
            }
        }
        out
    }

    /// No activation is steeper than 1.13.
    fn activate(&self, act: oracle::Activation, z: Near) -> Near {
        let v = act.value(z.v);
        Near { v, e: 1.2 * z.e + 3.0 * self.unit * v.abs() }
    }

    /// No slope but relu's is steeper than 0.8.
    fn slope(&self, act: oracle::Activation, z: Near) -> Near {
        let v = act.derivative(z.v);
        let turns = act == oracle::Activation::Relu && z.v.abs() <= z.e;
        let e = if act == oracle::Activation::Relu { f64::from(turns) } else { z.e + 1e-6 };
        Near { v, e: e + self.unit * v.abs() }
    }

    fn through_clamp(&self, g: f64, y: Near) -> Near {
        if !self.bounds.guarded {
            return Near::exact(g);
        }
        let (lower, upper) = (f64::from(self.bounds.lower), f64::from(self.bounds.upper));
        let turns = (y.v - lower).abs() <= y.e || (y.v - upper).abs() <= y.e;
        let passes = y.v >= lower && y.v <= upper;
        Near { v: if passes { g } else { 0.0 }, e: if turns { g.abs() } else { 0.0 } }
    }
}
