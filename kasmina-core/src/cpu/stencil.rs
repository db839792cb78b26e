//! The filter on contiguous blocks of rows: forward, its transpose, and the lagged sums that every
//! filter gradient follows from.

/// `y[i] = Σⱼ taps[j]·x[i−j]` in each row of `c` columns, zero before the row's start.
pub(super) fn filter(taps: &[f32], c: usize, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = taps[0] * x;
        }
        for (lag, tap) in taps.iter().enumerate().skip(1).take_while(|(lag, _)| *lag < c) {
            for (y, x) in y[lag..].iter_mut().zip(x) {
                *y += tap * x;
            }
        }
    }
}

/// The transpose: `x[i] = Σⱼ taps[j]·g[i+j]`, zero past the row's end.
pub(super) fn correlate(taps: &[f32], c: usize, g: &[f32], x: &mut [f32]) {
    for (g, x) in g.chunks_exact(c).zip(x.chunks_exact_mut(c)) {
        for (x, g) in x.iter_mut().zip(g) {
            *x = taps[0] * g;
        }
        for (lag, tap) in taps.iter().enumerate().skip(1).take_while(|(lag, _)| *lag < c) {
            for (x, g) in x.iter_mut().zip(&g[lag..]) {
                *x += tap * g;
            }
        }
    }
}

/// Adds Σᵢ g[i]·x[i−lag] over all rows to each lag's sum.
pub(super) fn add_lags(lags: &mut [f64], c: usize, g: &[f32], x: &[f32]) {
    for (g, x) in g.chunks_exact(c).zip(x.chunks_exact(c)) {
        for (lag, sum) in lags.iter_mut().enumerate().take_while(|(lag, _)| *lag < c) {
            *sum += g[lag..].iter().zip(x).map(|(g, x)| f64::from(*g) * f64::from(*x)).sum::<f64>();
        }
    }
}

/// Gradients of `weight [taps]` and `scale`, and of alpha, from the lagged sums L:
/// dL/dwⱼ = alpha·s·Lⱼ, dL/ds = alpha·Σ wⱼ·Lⱼ, dL/dalpha = s·Σ wⱼ·Lⱼ − L₀.
pub(super) fn finalize(
    taps: usize,
    parameters: &[f32],
    alpha: f32,
    lags: &[f64],
) -> (Vec<f32>, f64) {
    let (alpha, scale) = (f64::from(alpha), f64::from(parameters[taps]));
    let total: f64 = parameters[..taps].iter().zip(lags).map(|(w, l)| f64::from(*w) * l).sum();
    let mut gradient: Vec<f32> = lags.iter().map(|l| (alpha * scale * l) as f32).collect();
    gradient.push((alpha * total) as f32);
    (gradient, scale * total - lags[0])
}
