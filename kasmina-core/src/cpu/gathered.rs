//! Branches that mix the columns of a chunk: filters and matrices. Each task gathers blocks of rows of
//! one chunk into contiguous f32, runs the branch, and writes the chunk back.

use std::ops::Range;

use super::gradients::{Gradients, SeedGradient};
use super::job::{Job, Op, Role};
use super::stencil;
use super::tile::{RawMat, RawMatMut, in_order};
use super::transform::{self, Workspace};
use crate::{Blueprint, Bounds, Element, Objective};

/// Elements of a gathered block at most (but at least one row).
const BLOCK_ELEMENTS: usize = 32 * 1024;
/// Rows of a gathered block at most.
const BLOCK_ROWS: usize = 256;
/// Parts a chunk's rows are cut into at most: each holds partial parameter gradients of its own.
const MAX_PARTS: usize = 8;

/// A task: some rows of one job.
struct Part {
    job: usize,
    rows: Range<usize>,
}

fn block_rows(c: usize) -> usize {
    (BLOCK_ELEMENTS / c).clamp(1, BLOCK_ROWS)
}

/// Cuts every gathered job's rows into parts of whole blocks; the cuts depend on shapes alone.
fn parts(jobs: &[&Job<'_>], rows: usize) -> Vec<Part> {
    let mut out = Vec::new();
    for (job, spec) in jobs.iter().enumerate() {
        let block = block_rows(spec.columns.len());
        let blocks = rows.div_ceil(block);
        let count = blocks.min(MAX_PARTS);
        for part in 0..count {
            let cut = |part: usize| (blocks * part / count * block).min(rows);
            out.push(Part { job, rows: cut(part)..cut(part + 1) });
        }
    }
    out
}

/// The jobs' work, in elements that cost a multiplication and an addition each.
fn work(jobs: &[&Job<'_>], rows: usize) -> usize {
    let row: u64 = jobs.iter().map(|job| job.blueprint.flops_per_row(job.columns.len()) / 2).sum();
    usize::try_from(row).unwrap_or(usize::MAX).saturating_mul(rows)
}

fn blocks(rows: Range<usize>, c: usize) -> impl Iterator<Item = Range<usize>> {
    let (step, end) = (block_rows(c), rows.end);
    rows.step_by(step).map(move |start| start..(start + step).min(end))
}

/// Reads a block `[n, c]` of a matrix as f32.
///
/// # Safety
/// As [`RawMat::row`] for every row of the block.
unsafe fn gather<T: Element>(
    from: RawMat<T>,
    rows: Range<usize>,
    columns: &Range<usize>,
    block: &mut Vec<f32>,
) {
    let c = columns.len();
    block.resize(rows.len() * c, 0.0);
    for (row, wide) in rows.zip(block.chunks_exact_mut(c)) {
        // SAFETY: by the caller's promise.
        T::widen(unsafe { from.row(row, columns.clone()) }, wide);
    }
}

/// Writes a block back; returns how many values saturated.
///
/// # Safety
/// As [`RawMatMut::row_mut`] for every row of the block.
unsafe fn scatter<T: Element>(
    to: RawMatMut<T>,
    rows: Range<usize>,
    columns: &Range<usize>,
    block: &[f32],
) -> u64 {
    rows.zip(block.chunks_exact(columns.len()))
        .map(|(row, wide)| {
            // SAFETY: by the caller's promise.
            T::narrow(wide, unsafe { to.row_mut(row, columns.clone()) })
        })
        .sum()
}

/// Runs the gathered on-path branches; returns how many outputs saturated.
pub(super) fn forward<T: Element>(
    jobs: &[Job<'_>],
    x: RawMat<T>,
    y: RawMatMut<T>,
    bounds: Bounds,
) -> u64 {
    let jobs: Vec<_> = jobs.iter().filter(|job| job.op.is_gathered()).collect();
    if jobs.is_empty() {
        return 0;
    }
    let parts = parts(&jobs, x.rows());
    in_order(&parts, work(&jobs, x.rows()), |part| {
        forward_part(jobs[part.job], part.rows.clone(), x, y, bounds)
    })
    .iter()
    .sum()
}

fn forward_part<T: Element>(
    job: &Job<'_>,
    rows: Range<usize>,
    x: RawMat<T>,
    y: RawMatMut<T>,
    bounds: Bounds,
) -> u64 {
    let c = job.columns.len();
    let (mut v, mut out, mut work) = (Vec::new(), Vec::new(), Workspace::default());
    let mut saturated = 0;
    for block in blocks(rows, c) {
        // SAFETY: the block is inside the matrix, and this task alone touches the chunk's rows.
        unsafe { gather(x, block.clone(), &job.columns, &mut v) };
        v.iter_mut().for_each(|x| *x = bounds.sanitize(*x));
        out.resize(v.len(), 0.0);
        match job.op {
            Op::Stencil(taps) => stencil::filter(taps, c, &v, &mut out),
            _ => {
                transform::forward(job.blueprint, c, job.parameters, &v, &mut out, &mut work);
                for (t, v) in out.iter_mut().zip(&v) {
                    *t = blend(job.alpha, *t, *v);
                }
            }
        }
        out.iter_mut().for_each(|y| *y = bounds.clamp(*y));
        // SAFETY: as above.
        saturated += unsafe { scatter(y, block, &job.columns, &out) };
    }
    saturated
}

/// alpha·T(x) + (1 − alpha)·x.
fn blend(alpha: f32, t: f32, v: f32) -> f32 {
    alpha * t + (1.0 - alpha) * v
}

/// Partial results of one part.
struct Partial {
    parameters: Vec<f32>,
    lags: Vec<f64>,
    alpha: f64,
    square: f64,
    saturated: u64,
}

/// Runs the gathered branches backward; returns their gradients and how many input gradients saturated.
pub(super) fn backward<T: Element>(
    jobs: &[&Job<'_>],
    x: RawMat<T>,
    gradients: Option<Gradients<T>>,
    bounds: Bounds,
) -> (Vec<SeedGradient>, u64) {
    let jobs: Vec<_> = jobs
        .iter()
        .copied()
        .filter(|job| gradients.is_some() || job.role == Role::Shadow(Objective::Reconstruction))
        .collect();
    let parts = parts(&jobs, x.rows());
    let partials = in_order(&parts, work(&jobs, x.rows()), |part| {
        backward_part(jobs[part.job], part.rows.clone(), x, gradients, bounds)
    });
    let saturated = partials.iter().map(|partial| partial.saturated).sum();
    let mut found = Vec::new();
    let mut at = 0;
    for (index, job) in jobs.iter().enumerate() {
        let count = parts[at..].iter().take_while(|part| part.job == index).count();
        let own = &partials[at..at + count];
        at += count;
        if job.trainable {
            found.push(merge(job, own, x.rows()));
        }
    }
    (found, saturated)
}

/// Merges the partial results of one job in the order of its parts.
fn merge(job: &Job<'_>, partials: &[Partial], rows: usize) -> SeedGradient {
    let mut parameters = vec![0.0f64; job.parameters.len()];
    let mut lags = vec![0.0f64; partials.first().map_or(0, |p| p.lags.len())];
    let (mut alpha, mut square) = (0.0, 0.0);
    for partial in partials {
        for (total, value) in parameters.iter_mut().zip(&partial.parameters) {
            *total += f64::from(*value);
        }
        for (total, value) in lags.iter_mut().zip(&partial.lags) {
            *total += value;
        }
        alpha += partial.alpha;
        square += partial.square;
    }
    let mut parameters: Vec<f32> = parameters.iter().map(|v| *v as f32).collect();
    if let (Blueprint::ConvFilter { taps }, false) = (job.blueprint, lags.is_empty()) {
        (parameters, alpha) = stencil::finalize(*taps, job.parameters, job.alpha, &lags);
    }
    let elements = (rows * job.columns.len()).max(1) as f64;
    SeedGradient {
        seed: job.seed,
        parameters,
        alpha: (job.role == Role::Path).then_some(alpha),
        reconstruction: (job.role == Role::Shadow(Objective::Reconstruction))
            .then(|| square / elements),
    }
}

fn backward_part<T: Element>(
    job: &Job<'_>,
    rows: Range<usize>,
    x: RawMat<T>,
    gradients: Option<Gradients<T>>,
    bounds: Bounds,
) -> Partial {
    let c = job.columns.len();
    let elements = (x.rows() * c).max(1) as f64;
    let reconstruct = job.role == Role::Shadow(Objective::Reconstruction);
    let stencil_taps = match job.op {
        Op::Stencil(taps) => Some(taps),
        _ => None,
    };
    let mut partial = Partial {
        parameters: vec![
            0.0;
            if job.trainable && stencil_taps.is_none() {
                job.parameters.len()
            } else {
                0
            }
        ],
        lags: vec![0.0; if job.trainable { stencil_taps.map_or(0, <[f32]>::len) } else { 0 }],
        alpha: 0.0,
        square: 0.0,
        saturated: 0,
    };
    let (mut raw, mut v, mut t, mut g) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut grad_t, mut grad_x) = (Vec::new(), Vec::new());
    let mut work = Workspace::default();
    for block in blocks(rows, c) {
        // SAFETY: the block is inside the matrix, which nothing writes during the call.
        unsafe { gather(x, block.clone(), &job.columns, &mut raw) };
        v.clear();
        v.extend(raw.iter().map(|x| bounds.sanitize(*x)));
        t.resize(v.len(), 0.0);
        match stencil_taps {
            Some(taps) => stencil::filter(taps, c, &v, &mut t),
            None => transform::forward(job.blueprint, c, job.parameters, &v, &mut t, &mut work),
        }
        match gradients {
            // SAFETY: as above, for the output gradient.
            Some(gradients) if !reconstruct => unsafe {
                gather(gradients.y, block.clone(), &job.columns, &mut g);
            },
            _ => g.resize(v.len(), 0.0),
        }
        // A stencil's taps are blended already; its `t` is the output itself.
        let alpha = job.alpha;
        let output = |t: f32, v: f32| if stencil_taps.is_some() { t } else { blend(alpha, t, v) };
        if reconstruct {
            for ((g, t), v) in g.iter_mut().zip(&t).zip(&v) {
                let residual = f64::from(*t) - f64::from(*v);
                partial.square += residual * residual;
                *g = (2.0 * residual / elements) as f32;
            }
        } else {
            for ((g, t), v) in g.iter_mut().zip(&t).zip(&v) {
                if !bounds.passes(output(*t, *v)) {
                    *g = 0.0;
                }
            }
        }
        let write = (job.role == Role::Path).then_some(gradients).flatten();
        if write.is_none() && !job.trainable {
            continue;
        }
        grad_x.resize(v.len(), 0.0);
        if let Some(taps) = stencil_taps {
            if job.trainable {
                stencil::add_lags(&mut partial.lags, c, &g, &v);
            }
            stencil::correlate(taps, c, &g, &mut grad_x);
        } else {
            if job.trainable {
                let products = g.iter().zip(&t).zip(&v);
                partial.alpha += products
                    .map(|((g, t), v)| f64::from(*g) * (f64::from(*t) - f64::from(*v)))
                    .sum::<f64>();
            }
            grad_t.clear();
            grad_t.extend(g.iter().map(|g| alpha * g));
            let parameters = job.trainable.then_some(partial.parameters.as_mut_slice());
            transform::vjp(
                job.blueprint,
                c,
                job.parameters,
                &v,
                &grad_t,
                &mut grad_x,
                parameters,
                &mut work,
            );
            for (grad_x, g) in grad_x.iter_mut().zip(&g) {
                *grad_x += (1.0 - alpha) * g;
            }
        }
        if let Some(gradients) = write {
            for (grad_x, raw) in grad_x.iter_mut().zip(&raw) {
                if !bounds.passes(*raw) {
                    *grad_x = 0.0;
                }
            }
            // SAFETY: the block is inside the matrix, and this task alone writes the chunk's rows.
            partial.saturated += unsafe { scatter(gradients.x, block, &job.columns, &grad_x) };
        }
    }
    partial
}
