//! The bounds of one call; strict mode measures them on the input first.

use kasmina_telemetry::ChunkStats;

use super::tile::{RawMat, in_order, new_chunk_accumulator, tiles};
use crate::{Bounds, Element, SeedLayout, Stability, StabilityMode};

/// The bounds for the on-path chunks of a call on `x`.
pub(crate) fn input_bounds<T: Element>(
    layout: SeedLayout,
    stability: &Stability,
    x: RawMat<T>,
) -> Bounds {
    let bounds = Bounds {
        guarded: stability.mode != StabilityMode::Fast,
        epsilon: stability.epsilon,
        lower: stability.lower,
        upper: stability.upper,
    };
    if stability.mode != StabilityMode::Strict {
        return bounds;
    }
    let stats = whole_input(layout, x);
    let (Some(mean), Some(variance)) = (stats.mean(), stats.variance()) else { return bounds };
    let width = f64::from(stability.sigmas) * variance.sqrt();
    Bounds {
        lower: ((mean - width) as f32).clamp(stability.lower, stability.upper),
        upper: ((mean + width) as f32).clamp(stability.lower, stability.upper),
        ..bounds
    }
}

/// Statistics of all finite elements of `x`.
fn whole_input<T: Element>(layout: SeedLayout, x: RawMat<T>) -> ChunkStats {
    let tiles = tiles(layout, x.rows());
    let parts = in_order(&tiles, x.rows() * layout.hidden(), |tile| {
        let width = tile.columns.len();
        let mut accumulator = new_chunk_accumulator(width, width, 0.0);
        let mut wide = vec![0.0; width];
        for row in tile.rows.clone() {
            // SAFETY: the tile is inside the matrix, which nothing writes during this pass.
            let narrow = unsafe { x.row(row, tile.columns.clone()) };
            match T::as_f32(narrow) {
                Some(row) => accumulator.push_row(0..1, row),
                None => {
                    T::widen(narrow, &mut wide);
                    accumulator.push_row(0..1, &wide);
                }
            }
        }
        let mut stats = [ChunkStats::EMPTY];
        accumulator.finish(&mut stats);
        stats[0]
    });
    let mut total = ChunkStats::EMPTY;
    for part in &parts {
        total.merge(part);
    }
    total
}
