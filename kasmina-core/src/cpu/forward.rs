//! The forward pass: one streaming pass over the matrix with telemetry fused in, then the gathered
//! branches in their own chunks.

use kasmina_telemetry::ChunkStats;

use super::copy::{STREAM_BYTES, copy_row, finish_stream};
use super::gathered;
use super::job::{Job, Stretch, stretches};
use super::pointwise::{self, BLOCK_ROWS};
use super::tile::{
    Block, RawMat, RawMatMut, Tile, TileWatch, Watch, in_order, merge_chunks,
    new_chunk_accumulator, tiles,
};
use crate::{Bounds, Element, SeedLayout};

/// One forward pass. In place, `x` and `y` are the same memory.
#[derive(Debug)]
pub(crate) struct ForwardCall<'a, T> {
    pub(crate) layout: SeedLayout,
    pub(crate) x: RawMat<T>,
    pub(crate) y: RawMatMut<T>,
    pub(crate) in_place: bool,
    pub(crate) bounds: Bounds,
    pub(crate) jobs: &'a [Job<'a>],
    pub(crate) watch: Option<Watch<'a>>,
}

impl<T: Element> ForwardCall<'_, T> {
    /// Runs the pass, merges what it measured into `stats` (one entry a seed), and returns how many
    /// outputs saturated.
    pub(crate) fn run(&self, stats: &mut [ChunkStats]) -> u64 {
        if self.in_place && self.watch.is_none() && self.jobs.is_empty() {
            return 0;
        }
        let tiles = tiles(self.layout, self.x.rows());
        let parts =
            in_order(&tiles, self.x.rows() * self.layout.hidden(), |tile| self.run_tile(tile));
        merge_chunks(stats, tiles.iter().zip(parts.iter().map(|(stats, _)| stats.as_slice())));
        let streamed: u64 = parts.iter().map(|(_, saturated)| saturated).sum();
        streamed + gathered::forward(self.jobs, self.x, self.y, self.bounds)
    }

    fn run_tile(&self, tile: &Tile) -> (Vec<ChunkStats>, u64) {
        let arch = pulp::Arch::new();
        let width = tile.columns.len();
        let stretches = stretches(self.jobs, &tile.columns, self.bounds.guarded);
        let computes = stretches.iter().any(|(_, s)| matches!(s, Stretch::Pointwise { .. }));
        let watch = self
            .watch
            .map(|watch| (TileWatch::new(watch, tile), watch.dead_epsilon))
            .filter(|(watch, _)| !watch.is_empty());
        if self.in_place && !computes && watch.is_none() {
            return (Vec::new(), 0);
        }
        let mut accumulator =
            watch.as_ref().map(|(_, dead)| new_chunk_accumulator(width, tile.chunk, *dead));
        let output_bytes = self.x.rows() * self.layout.hidden() * size_of::<T>();
        let stream = !self.in_place && output_bytes >= STREAM_BYTES;
        // In place, a row that is computed on is read from a copy: what is written aliases it.
        let widen = (watch.is_some() || computes) && (T::DTYPE != crate::DType::F32)
            || self.in_place && computes;
        // In place, other tasks may write other columns of the rows that this one reads.
        let shared = self.in_place && !self.jobs.is_empty();
        let mut wide = vec![0.0f32; if widen { BLOCK_ROWS * width } else { 0 }];
        let mut out = vec![0.0f32; if computes { width } else { 0 }];
        let mut saturated = 0;
        for start in tile.rows.clone().step_by(BLOCK_ROWS) {
            let rows = start..tile.rows.end.min(start + BLOCK_ROWS);
            if widen {
                for (row, wide) in rows.clone().zip(wide.chunks_exact_mut(width)) {
                    // SAFETY: the tile is inside the matrix; this task alone writes it, further down.
                    T::widen(unsafe { self.x.row(row, tile.columns.clone()) }, wide);
                }
            }
            for (k, row) in rows.clone().enumerate() {
                for (local, stretch) in &stretches {
                    let columns = tile.columns.start + local.start..tile.columns.start + local.end;
                    match stretch {
                        Stretch::Gathered => {}
                        Stretch::Copy if self.in_place => {}
                        Stretch::Copy => {
                            // SAFETY: inside the tile, which is this task's; x and y are two matrices.
                            let (from, to) = unsafe {
                                (self.x.row(row, columns.clone()), self.y.row_mut(row, columns))
                            };
                            copy_row(to, from, stream);
                        }
                        Stretch::Pointwise { program, .. } => {
                            let out = &mut out[local.clone()];
                            let from = if widen {
                                &wide[k * width..][local.clone()]
                            } else {
                                // SAFETY: as above.
                                f32_row(unsafe { self.x.row(row, columns.clone()) })
                            };
                            pointwise::forward_row(arch, *program, self.bounds, from, out);
                            // SAFETY: inside the tile, and no slice of x is alive.
                            let to = unsafe { self.y.row_mut(row, columns) };
                            match T::as_f32_mut(to) {
                                Some(to) => copy_row(to, out, stream),
                                None => saturated += T::narrow(out, to),
                            }
                        }
                    }
                }
            }
            // Last, so that the rows come from memory in the order of the copy, and from the cache here
            // (measured at 4096 columns in chunks of 256: half the time of the other order).
            if let (Some((watch, _)), Some(accumulator)) = (&watch, &mut accumulator) {
                if widen {
                    let block = Block { data: &wide, stride: width };
                    watch.chunks(accumulator, block, rows.len());
                } else if shared {
                    for row in rows {
                        // SAFETY: inside the tile, which nothing writes.
                        let data = f32_row(unsafe { self.x.row(row, tile.columns.clone()) });
                        watch.chunks(accumulator, Block { data, stride: width }, 1);
                    }
                } else {
                    // SAFETY: inside the matrix, which nothing writes during the call.
                    let (data, stride) =
                        unsafe { self.x.block(rows.clone(), tile.columns.clone()) };
                    let block = Block { data: f32_row(data), stride };
                    watch.chunks(accumulator, block, rows.len());
                }
            }
        }
        finish_stream(stream);
        let mut stats = Vec::new();
        if let Some(mut accumulator) = accumulator {
            stats.resize(tile.seeds.len(), ChunkStats::EMPTY);
            accumulator.finish(&mut stats);
        }
        (stats, saturated)
    }
}

fn f32_row<T: Element>(row: &[T]) -> &[f32] {
    T::as_f32(row).expect("rows of other types are widened first")
}
