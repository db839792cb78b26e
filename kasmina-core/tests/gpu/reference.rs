//! Parameter gradients of pointwise seeds in f64: the guards and programs in f32, as they are run, every sum behind them exact to
//! f64, and beside each gradient the sum of its terms' magnitudes, by which its error is measured.

use kasmina_core::{Blueprint, Bounds};

/// A number, and how large the terms were that it is the sum of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounded {
    value: f64,
    size: f64,
}

impl Bounded {
    fn of(term: f64) -> Self {
        Self { value: term, size: term.abs() }
    }

    fn plus(self, other: Self) -> Self {
        Self { value: self.value + other.value, size: self.size + other.size }
    }

    fn minus(self, other: Self) -> Self {
        self.plus(other.times(-1.0))
    }

    fn times(self, factor: f64) -> Self {
        Self { value: self.value * factor, size: self.size * factor.abs() }
    }

    /// Whether `found` is this within the rounding of f32 sums; 0 where nothing is served.
    pub(crate) fn allows(&self, found: f64, served: bool) -> bool {
        if !served {
            return found == 0.0;
        }
        // What overflows or is no number may do so in either form, at another place of the sum.
        if !self.size.is_finite() || self.size > 1e37 {
            return !found.is_finite() || self.size > 1e37;
        }
        (found - self.value).abs() <= 1e-5 * self.size + 1e-30
    }
}

/// What a seed's gradients should be.
pub(crate) struct Wanted {
    pub(crate) parameters: Vec<Bounded>,
    pub(crate) alpha: Bounded,
    pub(crate) loss: Bounded,
}

/// One seed.
pub(crate) struct Reference<'a> {
    pub(crate) blueprint: &'a Blueprint,
    pub(crate) parameters: &'a [f32],
    pub(crate) alpha: f32,
    pub(crate) reconstructs: bool,
    pub(crate) bounds: Bounds,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    g: Bounded,
    gx: Bounded,
    gx_on: Bounded,
    square: Bounded,
}

impl Reference<'_> {
    /// From `rows × c` elements (x, g).
    pub(crate) fn gradients(
        &self,
        rows: usize,
        c: usize,
        element: impl Fn(usize, usize) -> (f32, f32),
    ) -> Wanted {
        let softmax = softmax(&self.parameters[..c]);
        let columns: Vec<Sums> = (0..c)
            .map(|i| {
                let mut sums = Sums::default();
                for row in 0..rows {
                    let (x, g) = element(row, i);
                    self.add(&mut sums, softmax[i], i, x, g);
                }
                sums
            })
            .collect();
        let elements = (rows * c).max(1) as f64;
        let factor = if self.reconstructs { 2.0 / elements } else { 1.0 };
        let blend = factor * f64::from(self.alpha);
        let sum = |terms: &mut dyn Iterator<Item = Bounded>| {
            terms.fold(Bounded::default(), Bounded::plus)
        };
        let squares = sum(&mut columns.iter().map(|column| column.square));
        let gx = sum(&mut columns.iter().map(|column| column.gx));
        let (parameters, alpha) = match self.blueprint {
            Blueprint::AttentionHead => {
                let share = |i: usize| f64::from(softmax[i]);
                let mean = sum(&mut (0..c).map(|i| columns[i].gx.times(share(i))));
                let own = |i: usize| columns[i].gx.minus(mean).times(blend * share(i));
                ((0..c).map(own).collect(), mean.minus(gx))
            }
            other => {
                let expansion = matches!(other, Blueprint::MlpExpansion);
                let scale = f64::from(self.parameters[c]);
                let own = |i: usize| if expansion { columns[i].gx_on } else { columns[i].g };
                let total = sum(&mut (0..c).map(|i| own(i).times(self.parameters[i].into())));
                let mut all: Vec<_> = (0..c).map(|i| own(i).times(blend * scale)).collect();
                all.push(total.times(blend));
                let skipped = if expansion { gx } else { Bounded::default() };
                (all, total.times(scale).minus(skipped))
            }
        };
        Wanted { parameters, alpha, loss: squares.times(1.0 / elements) }
    }

    fn add(&self, sums: &mut Sums, share: f32, i: usize, x: f32, g: f32) {
        let Bounds { guarded, epsilon, lower, upper } = self.bounds;
        let flushed = if x.abs() >= epsilon { x } else { 0.0 };
        let v = if guarded { flushed.clamp(lower, upper) } else { x };
        let (keep, alpha, w) = (1.0 - self.alpha, self.alpha, self.parameters[i]);
        let scale = self.parameters.last().copied().unwrap_or(0.0);
        let on = v * w > 0.0 && matches!(self.blueprint, Blueprint::MlpExpansion);
        let y = match self.blueprint {
            Blueprint::Residual => v + alpha * (scale * w),
            Blueprint::AttentionHead => v * (keep + alpha * share),
            _ => v * (keep + if on { alpha * (scale * w) } else { 0.0 }),
        };
        let passes = !guarded || (y >= lower && y <= upper);
        let masked = match self.reconstructs {
            true => y - v,
            false if passes => g,
            false => 0.0,
        };
        let (masked, v) = (f64::from(masked), f64::from(v));
        sums.g = sums.g.plus(Bounded::of(masked));
        sums.gx = sums.gx.plus(Bounded::of(masked * v));
        if on {
            sums.gx_on = sums.gx_on.plus(Bounded::of(masked * v));
        }
        // The device has the squares from the other sums: without the rounding of each T(x) − x, which is here.
        let rounding = 1.2e-7 * (f64::from(y).abs() + v.abs());
        let size = masked * masked + masked.abs() * rounding / 1e-5;
        sums.square = sums.square.plus(Bounded { value: masked * masked, size });
    }
}

/// In f64, rounded to f32 once.
fn softmax(w: &[f32]) -> Vec<f32> {
    let max = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = w.iter().map(|v| f64::from(v - max).exp()).sum();
    w.iter().map(|v| (f64::from(v - max).exp() / sum) as f32).collect()
}
