//! The backward pass: one streaming pass for input gradients, gradient statistics and the column sums
//! of pointwise kinds, then the gathered branches, then the finalize step.

use std::ops::Range;

use kasmina_telemetry::GradientStats;
use rayon::prelude::*;

use super::copy::{STREAM_BYTES, copy_row, finish_stream};
use super::gathered;
use super::gradients::{Gradients, SeedGradient};
use super::job::{Job, Op, Role, Stretch, stretches};
use super::pointwise::{self, BLOCK_ROWS, Backward};
use super::sums::{self, BlockSums, Scratch, TileSums};
use super::tile::{
    Block, RawMat, Tile, TileWatch, Watch, is_parallel, merge_gradients, new_gradient_accumulator,
    tiles,
};
use crate::lower::Program;
use crate::{Bounds, Element, Objective, SeedLayout};

/// One backward pass; without gradients, only reconstruction objectives are served.
#[derive(Debug)]
pub(crate) struct BackwardCall<'a, T> {
    pub(crate) layout: SeedLayout,
    pub(crate) x: RawMat<T>,
    pub(crate) gradients: Option<Gradients<T>>,
    pub(crate) bounds: Bounds,
    /// On-path jobs, ascending.
    pub(crate) path: &'a [Job<'a>],
    /// Training branches that leave the output alone, ascending.
    pub(crate) shadow: &'a [Job<'a>],
    pub(crate) watch: Option<Watch<'a>>,
}

/// A training branch over some tile-local columns.
type ShadowStretch<'a> = (Objective, Range<usize>, Program<'a>);

/// What a tile found, beside its column sums.
struct TileResult {
    stats: Vec<GradientStats>,
    saturated: u64,
}

/// Buffers of a task, kept from tile to tile.
#[derive(Default)]
struct Buffers {
    x: Vec<f32>,
    g: Vec<f32>,
    out: Vec<f32>,
    block: BlockSums,
}

impl<T: Element> BackwardCall<'_, T> {
    /// Runs the pass, merges gradient statistics into `stats`, and returns every seed's gradients
    /// and how many input gradients saturated.
    pub(crate) fn run(
        &self,
        stats: &mut [GradientStats],
        scratch: &mut Scratch,
    ) -> (Vec<SeedGradient>, u64) {
        let summed = |job: &&Job<'_>| self.is_summed(job);
        let squares = self.shadow.iter().filter(summed).any(|job| job.role == RECONSTRUCTION);
        let sums = squares || self.path.iter().chain(self.shadow).any(|job| self.is_summed(job));
        let streams = self.gradients.is_some() || sums;
        let tiles = if streams { tiles(self.layout, self.x.rows()) } else { Vec::new() };
        let mut sums = scratch.tiles(tiles.iter().map(|tile| tile.columns.len()), sums, squares);
        let run = |buffers: &mut Buffers, (tile, sums)| self.run_tile(tile, sums, buffers);
        let elements = self.x.rows() * self.layout.hidden();
        let parts: Vec<TileResult> = if is_parallel(tiles.len(), elements) {
            tiles.par_iter().zip(&mut sums).map_init(Buffers::default, run).collect()
        } else {
            let mut buffers = Buffers::default();
            tiles.iter().zip(&mut sums).map(|item| run(&mut buffers, item)).collect()
        };
        merge_gradients(stats, tiles.iter().zip(parts.iter().map(|part| part.stats.as_slice())));
        let saturated: u64 = parts.iter().map(|part| part.saturated).sum();

        sums::merge(&tiles, &mut sums);
        let jobs: Vec<&Job<'_>> =
            self.path.iter().chain(self.shadow).filter(|job| self.is_served(job)).collect();
        let pointwise = jobs.iter().filter(|job| self.is_summed(job));
        let mut found: Vec<_> =
            pointwise.map(|job| self.finalize_job(job, &tiles, &sums)).collect();
        let branches: Vec<_> = jobs.iter().copied().filter(|job| job.op.is_gathered()).collect();
        let (gathered, more) = gathered::backward(&branches, self.x, self.gradients, self.bounds);
        found.extend(gathered);
        // At alpha 0 the output does not depend on the parameters.
        let idle = jobs.iter().filter(|job| job.trainable && matches!(job.op, Op::Copy));
        found.extend(idle.map(|job| SeedGradient {
            seed: job.seed,
            parameters: vec![0.0; job.parameters.len()],
            alpha: None,
            reconstruction: None,
        }));
        (found, saturated + more)
    }

    /// Whether the call has what a job needs: without gradients only reconstruction is served.
    fn is_served(&self, job: &Job<'_>) -> bool {
        self.gradients.is_some() || job.role == RECONSTRUCTION
    }

    /// Whether the streaming pass sums for a job.
    fn is_summed(&self, job: &Job<'_>) -> bool {
        job.trainable && matches!(job.op, Op::Pointwise { .. }) && self.is_served(job)
    }

    fn run_tile(&self, tile: &Tile, sums: &mut TileSums<'_>, buffers: &mut Buffers) -> TileResult {
        let arch = pulp::Arch::new();
        let columns =
            |local: &Range<usize>| tile.columns.start + local.start..tile.columns.start + local.end;
        let path = stretches(self.path, &tile.columns, self.bounds.guarded);
        let shadows = self.shadow_stretches(tile);
        let width = tile.columns.len();
        let watch = self
            .watch
            .filter(|_| self.gradients.is_some())
            .map(|watch| TileWatch::new(watch, tile))
            .filter(|watch| !watch.is_empty());
        let mut accumulator = watch.is_some().then(|| new_gradient_accumulator(width, tile.chunk));
        let bytes = self.x.rows() * self.layout.hidden() * size_of::<T>();
        let stream = bytes >= STREAM_BYTES;
        let Buffers { x: wide_x, g: wide_g, out, block } = buffers;
        out.resize(width, 0.0);
        block.clear(sums);
        let mut saturated = 0;
        for start in tile.rows.clone().step_by(BLOCK_ROWS) {
            let rows = start..tile.rows.end.min(start + BLOCK_ROWS);
            for row in rows.clone() {
                for (local, stretch) in &path {
                    let Some(gradients) = &self.gradients else { break };
                    let columns = columns(local);
                    // SAFETY: inside the tile; nothing writes grad_y, and this task alone writes the tile
                    // of grad_x.
                    let (g, to) = unsafe {
                        (
                            gradients.y.row(row, columns.clone()),
                            gradients.x.row_mut(row, columns.clone()),
                        )
                    };
                    match stretch {
                        Stretch::Gathered => {}
                        Stretch::Copy => copy_row(to, g, stream),
                        Stretch::Pointwise { program, sums, needs_x } => {
                            let sums = sums.then(|| block.columns(local));
                            let out = &mut out[..local.len()];
                            let g = widened(g, wide_g);
                            if *needs_x {
                                // SAFETY: inside the matrix, which nothing writes during the call.
                                let x = widened(unsafe { self.x.row(row, columns) }, wide_x);
                                self.kernel(*program, x, g).path(arch, out, sums);
                            } else {
                                self.kernel(*program, g, g).without_x(arch, out, sums);
                            }
                            match T::as_f32_mut(to) {
                                Some(to) => copy_row(to, out, stream),
                                None => saturated += T::narrow(out, to),
                            }
                        }
                    }
                }
                for (objective, local, program) in &shadows {
                    // SAFETY: inside the matrices, which nothing writes during the call.
                    let x = widened(unsafe { self.x.row(row, columns(local)) }, wide_x);
                    let sums = block.columns(local);
                    match (objective, &self.gradients) {
                        (Objective::StraightThrough, Some(gradients)) => {
                            // SAFETY: as above.
                            let g = unsafe { gradients.y.row(row, columns(local)) };
                            self.kernel(*program, x, widened(g, wide_g))
                                .straight_through(arch, sums);
                        }
                        // The scale 2/(rows·c) is the seed's and is applied in the finalize step.
                        _ => self.kernel(*program, x, x).reconstruction(arch, sums),
                    }
                }
            }
            pointwise::fold(arch, sums, block);
            // After the copy, as in the forward pass.
            if let (Some(watch), Some(accumulator), Some(gradients)) =
                (&watch, &mut accumulator, &self.gradients)
            {
                // SAFETY: the tile is inside the matrix, which nothing writes during the call.
                let g = unsafe { gradients.y.block(rows.clone(), tile.columns.clone()) };
                let g = widened_block(g, rows.len(), width, wide_g);
                watch.gradients(accumulator, g, rows.len());
            }
        }
        finish_stream(stream);
        let mut stats = Vec::new();
        if let Some(mut accumulator) = accumulator {
            stats.resize(tile.seeds.len(), GradientStats::EMPTY);
            accumulator.finish(&mut stats);
        }
        TileResult { stats, saturated }
    }

    fn kernel<'b>(&self, program: Program<'b>, x: &'b [f32], g: &'b [f32]) -> Backward<'b> {
        Backward { program, bounds: self.bounds, x, g }
    }

    /// The pointwise training branches of a tile that this call serves.
    fn shadow_stretches(&self, tile: &Tile) -> Vec<ShadowStretch<'_>> {
        let mut out = Vec::new();
        // Runs of one objective, so that a stretch has one.
        for jobs in self.shadow.chunk_by(|a, b| a.role == b.role) {
            let Role::Shadow(objective) = jobs[0].role else { continue };
            if !self.is_served(&jobs[0]) {
                continue;
            }
            let jobs_columns = jobs[0].columns.start..jobs[jobs.len() - 1].columns.end;
            if jobs_columns.start >= tile.columns.end || jobs_columns.end <= tile.columns.start {
                continue;
            }
            for (local, stretch) in stretches(jobs, &tile.columns, true) {
                if let Stretch::Pointwise { program, .. } = stretch {
                    out.push((objective, local, program));
                }
            }
        }
        out
    }

    /// Parameter and alpha gradients of a pointwise kind from the merged column sums.
    fn finalize_job(&self, job: &Job<'_>, tiles: &[Tile], merged: &[TileSums<'_>]) -> SeedGradient {
        let sums = sums::of_columns(tiles, merged, &job.columns);
        let mut scale = 1.0;
        let mut reconstruction = None;
        if job.role == RECONSTRUCTION {
            let elements = (self.x.rows() * job.columns.len()).max(1) as f64;
            reconstruction = Some(sums.square.iter().sum::<f64>() / elements);
            scale = 2.0 / elements;
        }
        let (parameters, alpha) =
            sums::finalize(job.blueprint, job.parameters, job.alpha, &sums, scale);
        let alpha = (job.role == Role::Path).then_some(alpha);
        SeedGradient { seed: job.seed, parameters, alpha, reconstruction }
    }
}

const RECONSTRUCTION: Role = Role::Shadow(Objective::Reconstruction);

/// A row as f32: itself, or widened into `wide`.
fn widened<'a, T: Element>(row: &'a [T], wide: &'a mut Vec<f32>) -> &'a [f32] {
    if let Some(row) = T::as_f32(row) {
        return row;
    }
    wide.resize(row.len().max(wide.len()), 0.0);
    let wide = &mut wide[..row.len()];
    T::widen(row, wide);
    wide
}

/// Rows of `n` columns as f32: themselves, or widened one after the other into `wide`.
fn widened_block<'a, T: Element>(
    (data, stride): (&'a [T], usize),
    rows: usize,
    n: usize,
    wide: &'a mut Vec<f32>,
) -> Block<'a> {
    if let Some(data) = T::as_f32(data) {
        return Block { data, stride };
    }
    wide.resize(rows * n, 0.0);
    for (row, wide) in wide.chunks_exact_mut(n).enumerate() {
        T::widen(&data[row * stride..][..n], wide);
    }
    Block { data: wide, stride: n }
}
