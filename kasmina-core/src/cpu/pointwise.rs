//! The column-program kernels on vectors of columns.
//!
//! Written on `pulp`'s vectors, which are as wide as the instruction set found at run time. Every lane is a
//! column, no lane looks at another, and no fused multiply-add is used, so every width gives the same bits.
//! Plain loops over slices would not do: with seven inputs and four outputs the compiler gives up proving that
//! they do not overlap, and it picks between two factors by gathering through pointers.

use pulp::{Arch, Simd, WithSimd};

use super::sums::{BlockColumns, BlockSums, TileSums};
use crate::Bounds;
use crate::lower::Program;

/// Rows that a backward kernel sums in f32 before they are folded into the f64 column sums.
pub(super) const BLOCK_ROWS: usize = 16;

/// Guards as vectors; see [`Bounds`] for what they do.
#[derive(Clone, Copy)]
struct Guards<S: Simd> {
    epsilon: S::f32s,
    lower: S::f32s,
    upper: S::f32s,
}

impl<S: Simd> Guards<S> {
    #[inline(always)]
    fn new(simd: S, bounds: Bounds) -> Self {
        Self {
            epsilon: simd.splat_f32s(bounds.epsilon),
            lower: simd.splat_f32s(bounds.lower),
            upper: simd.splat_f32s(bounds.upper),
        }
    }

    /// NaN → 0 and |x| < ε → 0 (a NaN fails the comparison too), then the clamp.
    #[inline(always)]
    fn sanitize<const GUARDED: bool>(&self, simd: S, x: S::f32s) -> S::f32s {
        if !GUARDED {
            return x;
        }
        let kept = simd.greater_than_or_equal_f32s(simd.abs_f32s(x), self.epsilon);
        let x = simd.select_f32s(kept, x, simd.splat_f32s(0.0));
        // No NaN is left, so that the order of the operands does not matter.
        simd.min_f32s(simd.max_f32s(x, self.lower), self.upper)
    }

    #[inline(always)]
    fn clamp<const GUARDED: bool>(&self, simd: S, y: S::f32s) -> S::f32s {
        if !GUARDED {
            return y;
        }
        let y = simd.select_f32s(simd.less_than_f32s(y, self.lower), self.lower, y);
        simd.select_f32s(simd.greater_than_f32s(y, self.upper), self.upper, y)
    }

    /// g where v passes the clamp unchanged, 0 elsewhere.
    #[inline(always)]
    fn mask<const GUARDED: bool>(&self, simd: S, v: S::f32s, g: S::f32s) -> S::f32s {
        if !GUARDED {
            return g;
        }
        let above = simd.greater_than_or_equal_f32s(v, self.lower);
        let below = simd.less_than_or_equal_f32s(v, self.upper);
        simd.select_f32s(simd.and_m32s(above, below), g, simd.splat_f32s(0.0))
    }
}

/// A vector of a program's columns.
#[derive(Clone, Copy)]
struct Columns<S: Simd> {
    on: S::f32s,
    off: S::f32s,
    bias: S::f32s,
    polarity: S::f32s,
}

impl<S: Simd> Columns<S> {
    /// Where v·p > 0, and the factor there and elsewhere.
    #[inline(always)]
    fn factor(&self, simd: S, v: S::f32s) -> (S::m32s, S::f32s) {
        let zero = simd.splat_f32s(0.0);
        let on = simd.greater_than_f32s(simd.mul_f32s(v, self.polarity), zero);
        (on, simd.select_f32s(on, self.on, self.off))
    }

    #[inline(always)]
    fn apply<const GUARDED: bool>(&self, simd: S, guards: &Guards<S>, x: S::f32s) -> S::f32s {
        let v = guards.sanitize::<GUARDED>(simd, x);
        let (_, factor) = self.factor(simd, v);
        guards.clamp::<GUARDED>(simd, simd.add_f32s(simd.mul_f32s(v, factor), self.bias))
    }
}

/// Asks for what lies a page ahead. The kernels do too much between two loads for the hardware to keep
/// enough of them in flight (measured: 10 ms without, 7 ms with, where the bytes alone take 4.4 ms).
#[inline(always)]
fn prefetch(from: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on the caches, whatever the address; SSE is the baseline.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(at + 1024).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, at);
}

/// `y = clamp(v·(v·p > 0 ? on : off) + b)` with v the sanitized x.
pub(super) fn forward_row(
    arch: Arch,
    program: Program<'_>,
    bounds: Bounds,
    x: &[f32],
    y: &mut [f32],
) {
    arch.dispatch(Forward { program, bounds, x, y });
}

// A struct, not a closure, here and below: a closure is not inlined into pulp's dispatched function and is
// then compiled for the baseline.
struct Forward<'a> {
    program: Program<'a>,
    bounds: Bounds,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.bounds.guarded {
            true => self.run::<S, true>(simd),
            false => self.run::<S, false>(simd),
        }
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn run<S: Simd, const GUARDED: bool>(self, simd: S) {
        let Self { program, bounds, x, y } = self;
        let guards = Guards::new(simd, bounds);
        let n = x.len();
        let ((on, on_end), (off, off_end)) =
            (split::<S>(program.on, n), split::<S>(program.off, n));
        let ((bias, bias_end), (sign, sign_end)) =
            (split::<S>(program.bias, n), split::<S>(program.polarity, n));
        let ((xs, x_end), (ys, y_end)) = (split::<S>(x, n), split_mut::<S>(y, n));
        for i in 0..n / S::F32_LANES {
            prefetch(x, i * S::F32_LANES);
            let columns = Columns { on: on[i], off: off[i], bias: bias[i], polarity: sign[i] };
            ys[i] = columns.apply::<GUARDED>(simd, &guards, xs[i]);
        }
        if !x_end.is_empty() {
            let columns = Columns {
                on: simd.partial_load_f32s(on_end),
                off: simd.partial_load_f32s(off_end),
                bias: simd.partial_load_f32s(bias_end),
                polarity: simd.partial_load_f32s(sign_end),
            };
            let x = simd.partial_load_f32s(x_end);
            simd.partial_store_f32s(y_end, columns.apply::<GUARDED>(simd, &guards, x));
        }
    }
}

/// What a backward kernel does with a program.
const PATH: u8 = 0;
const STRAIGHT_THROUGH: u8 = 1;
const RECONSTRUCTION: u8 = 2;

/// A program and a row to take backward through it. Sums go to a block that the caller folds after at most
/// [`BLOCK_ROWS`] rows.
pub(super) struct Backward<'a> {
    pub(super) program: Program<'a>,
    pub(super) bounds: Bounds,
    pub(super) x: &'a [f32],
    pub(super) g: &'a [f32],
}

impl Backward<'_> {
    /// Input gradient, masked where x or y was clamped or x was not finite; adds the three sums of the
    /// masked g if asked.
    pub(super) fn path(self, arch: Arch, grad_x: &mut [f32], sums: Option<BlockColumns<'_>>) {
        arch.dispatch(Pass::<PATH> { row: self, grad_x, sums });
    }

    /// The sums of a training branch (a program at alpha = 1) on the task gradient, which passes the
    /// output clamp first.
    pub(super) fn straight_through(self, arch: Arch, sums: BlockColumns<'_>) {
        arch.dispatch(Pass::<STRAIGHT_THROUGH> { row: self, grad_x: &mut [], sums: Some(sums) });
    }

    /// The sums of a training branch on T(x) − x in place of g, and of its square: the reconstruction
    /// objective. The gradient of the mean of (T(x) − x)² is these sums times 2 / (rows × c).
    pub(super) fn reconstruction(self, arch: Arch, sums: BlockColumns<'_>) {
        arch.dispatch(Pass::<RECONSTRUCTION> { row: self, grad_x: &mut [], sums: Some(sums) });
    }

    /// Input gradient of a linear program in fast mode, which needs no x; adds Σg if asked.
    pub(super) fn without_x(self, arch: Arch, grad_x: &mut [f32], sums: Option<BlockColumns<'_>>) {
        arch.dispatch(WithoutX { row: self, grad_x, sums });
    }
}

struct Pass<'a, 's, const KIND: u8> {
    row: Backward<'a>,
    grad_x: &'s mut [f32],
    sums: Option<BlockColumns<'s>>,
}

impl<const KIND: u8> WithSimd for Pass<'_, '_, KIND> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.row.bounds.guarded, self.sums.is_some()) {
            (true, true) => self.run::<S, true, true>(simd),
            (true, false) => self.run::<S, true, false>(simd),
            (false, true) => self.run::<S, false, true>(simd),
            (false, false) => self.run::<S, false, false>(simd),
        }
    }
}

impl<const KIND: u8> Pass<'_, '_, KIND> {
    #[inline(always)]
    fn run<S: Simd, const GUARDED: bool, const SUMS: bool>(self, simd: S) {
        let Self { row: Backward { program, bounds, x, g }, grad_x, sums } = self;
        let guards = Guards::new(simd, bounds);
        let n = x.len();
        let BlockColumns { g: sum_g, gx: sum_gx, gx_on: sum_on, square } = sums.unwrap_or_default();
        // Every array is cut to its length once, so that the loop below checks none.
        let lanes = S::F32_LANES;
        let whole = n / lanes;
        let ((on, on_end), (off, off_end)) =
            (split::<S>(program.on, n), split::<S>(program.off, n));
        let ((bias, bias_end), (sign, sign_end)) =
            (split::<S>(program.bias, n), split::<S>(program.polarity, n));
        let ((xs, x_end), (gs, g_end)) = (split::<S>(x, n), split::<S>(g, n));
        let (out, out_end) = split_mut::<S>(grad_x, if KIND == PATH { n } else { 0 });
        let wanted = if SUMS { n } else { 0 };
        let (sum_g, sum_g_end) = split_mut::<S>(sum_g, wanted);
        let (sum_gx, sum_gx_end) = split_mut::<S>(sum_gx, wanted);
        let (sum_on, sum_on_end) = split_mut::<S>(sum_on, wanted);
        let squares = if KIND == RECONSTRUCTION { n } else { 0 };
        let (square, square_end) = split_mut::<S>(square, squares);
        let step = Step::<S, KIND, GUARDED> { simd, guards };
        for i in 0..whole {
            prefetch(x, i * lanes);
            if KIND != RECONSTRUCTION {
                prefetch(g, i * lanes);
            }
            let columns = Columns { on: on[i], off: off[i], bias: bias[i], polarity: sign[i] };
            let (masked, gradient, product, product_on) = step.run(columns, xs[i], gs[i]);
            if KIND == PATH {
                out[i] = gradient;
            }
            if SUMS {
                sum_g[i] = simd.add_f32s(sum_g[i], masked);
                sum_gx[i] = simd.add_f32s(sum_gx[i], product);
                sum_on[i] = simd.add_f32s(sum_on[i], product_on);
            }
            if KIND == RECONSTRUCTION {
                square[i] = simd.add_f32s(square[i], simd.mul_f32s(masked, masked));
            }
        }
        if x_end.is_empty() {
            return;
        }
        let columns = Columns {
            on: simd.partial_load_f32s(on_end),
            off: simd.partial_load_f32s(off_end),
            bias: simd.partial_load_f32s(bias_end),
            polarity: simd.partial_load_f32s(sign_end),
        };
        let (x, g) = (simd.partial_load_f32s(x_end), simd.partial_load_f32s(g_end));
        let (masked, gradient, product, product_on) = step.run(columns, x, g);
        if KIND == PATH {
            simd.partial_store_f32s(out_end, gradient);
        }
        if SUMS {
            add(simd, sum_g_end, masked);
            add(simd, sum_gx_end, product);
            add(simd, sum_on_end, product_on);
        }
        if KIND == RECONSTRUCTION {
            add(simd, square_end, simd.mul_f32s(masked, masked));
        }
    }
}

/// The arithmetic of [`Pass`] on one vector of columns.
#[derive(Clone, Copy)]
struct Step<S: Simd, const KIND: u8, const GUARDED: bool> {
    simd: S,
    guards: Guards<S>,
}

impl<S: Simd, const KIND: u8, const GUARDED: bool> Step<S, KIND, GUARDED> {
    /// The gradient behind the output clamp, the gradient of x, and the first one's products with x,
    /// everywhere and where x·p > 0.
    #[inline(always)]
    fn run(
        &self,
        columns: Columns<S>,
        x: S::f32s,
        g: S::f32s,
    ) -> (S::f32s, S::f32s, S::f32s, S::f32s) {
        let Self { simd, guards } = *self;
        let v = guards.sanitize::<GUARDED>(simd, x);
        let (on, factor) = columns.factor(simd, v);
        let t = simd.add_f32s(simd.mul_f32s(v, factor), columns.bias);
        let masked = if KIND == RECONSTRUCTION {
            simd.sub_f32s(t, v)
        } else {
            guards.mask::<GUARDED>(simd, t, g)
        };
        let gradient = guards.mask::<GUARDED>(simd, x, simd.mul_f32s(masked, factor));
        let product = simd.mul_f32s(masked, v);
        (masked, gradient, product, simd.select_f32s(on, product, simd.splat_f32s(0.0)))
    }
}

/// The first `n` elements as whole vectors and the rest.
#[inline(always)]
fn split<S: Simd>(from: &[f32], n: usize) -> (&[S::f32s], &[f32]) {
    let (whole, rest) = S::as_simd_f32s(&from[..n]);
    (&whole[..n / S::F32_LANES], rest)
}

#[inline(always)]
fn split_mut<S: Simd>(from: &mut [f32], n: usize) -> (&mut [S::f32s], &mut [f32]) {
    let (whole, rest) = S::as_mut_simd_f32s(&mut from[..n]);
    (&mut whole[..n / S::F32_LANES], rest)
}

#[inline(always)]
fn add<S: Simd>(simd: S, to: &mut [f32], values: S::f32s) {
    let sum = simd.add_f32s(simd.partial_load_f32s(to), values);
    simd.partial_store_f32s(to, sum);
}

/// Moves a block's sums into the tile's totals.
pub(super) fn fold(arch: Arch, totals: &mut TileSums<'_>, block: &mut BlockSums) {
    arch.dispatch(Fold { totals: totals.values_mut(), block: block.values_mut() });
}

struct Fold<'a> {
    totals: &'a mut [f64],
    block: &'a mut [f32],
}

impl WithSimd for Fold<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (total, block) in self.totals.iter_mut().zip(self.block) {
            *total += f64::from(*block);
            *block = 0.0;
        }
    }
}

struct WithoutX<'a, 's> {
    row: Backward<'a>,
    grad_x: &'s mut [f32],
    sums: Option<BlockColumns<'s>>,
}

impl WithSimd for WithoutX<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { row: Backward { program, g, .. }, grad_x, sums } = self;
        for ((grad_x, g), on) in grad_x.iter_mut().zip(g).zip(program.on) {
            *grad_x = g * on;
        }
        if let Some(sums) = sums {
            for (sum, g) in sums.g.iter_mut().zip(g) {
                *sum += g;
            }
        }
    }
}
