//! What launches are told, byte for byte as `kernels/stream_geometry.cuh` has it.

use bytemuck::{Pod, Zeroable};
use kasmina_telemetry::GradientStats;

use super::geometry::Geometry;

/// Bits of a column's flags: it has a program that is not the identity.
pub(crate) const COMPUTE: u8 = 1;
/// A backward pass wants Σg.
pub(crate) const SUM_G: u8 = 2;
/// A backward pass reads x.
pub(crate) const NEEDS_X: u8 = 4;
/// Copied, but its program is a training branch: sums of the task gradient.
pub(crate) const STRAIGHT_THROUGH: u8 = 8;
/// Copied, but its program is a training branch: sums of T(x) − x.
pub(crate) const RECONSTRUCTION: u8 = 16;
/// A backward pass wants Σg·x and Σg·x over x·p > 0.
pub(crate) const SUM_GX: u8 = 32;

/// `ForwardParams`; addresses are the device's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct ForwardParams {
    pub(crate) x: u64,
    pub(crate) y: u64,
    pub(crate) x_pitch: u64,
    pub(crate) y_pitch: u64,
    pub(crate) programs: u64,
    pub(crate) flags: u64,
    pub(crate) tile_flags: u64,
    pub(crate) bounds: u64,
    pub(crate) accumulators: u64,
    pub(crate) pace: u64,
    pub(crate) watched: u64,
    pub(crate) saturated: u64,
    pub(crate) geometry: Geometry,
    pub(crate) dead_epsilon: f32,
    pub(crate) in_place: u32,
}

const _: () = assert!(size_of::<ForwardParams>() == 12 * 8 + 64 + 8, "as in stream_geometry.cuh");

/// `BackwardParams` of `kernels/stream_backward_task.cuh`; addresses are the device's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct BackwardParams {
    pub(crate) x: u64,
    /// 0: only reconstruction sums are wanted.
    pub(crate) grad_y: u64,
    pub(crate) grad_x: u64,
    pub(crate) x_pitch: u64,
    pub(crate) grad_y_pitch: u64,
    pub(crate) grad_x_pitch: u64,
    pub(crate) programs: u64,
    pub(crate) flags: u64,
    pub(crate) tile_flags: u64,
    pub(crate) bounds: u64,
    pub(crate) sums: u64,
    pub(crate) accumulators: u64,
    pub(crate) pace: u64,
    pub(crate) watched: u64,
    pub(crate) saturated: u64,
    pub(crate) geometry: Geometry,
}

const _: () = assert!(size_of::<BackwardParams>() == 15 * 8 + 64, "as in stream_backward_task.cuh");

/// `FinalizeParams` of `kernels/finalize.cu`; addresses are the device's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct FinalizeParams {
    pub(crate) jobs: u64,
    pub(crate) programs: u64,
    pub(crate) sums: u64,
    pub(crate) rows: u64,
    pub(crate) count: u32,
    pub(crate) columns: u32,
    pub(crate) groups: u32,
    pub(crate) has_gradients: u32,
}

const _: () = assert!(size_of::<FinalizeParams>() == 48, "as in finalize.cu");

/// Σg, Σg·x and Σg·x over x·p > 0 of a column: `ColumnTotals` of `kernels/kasmina_program.cuh`.
pub(crate) type ColumnTotals = [f64; 3];

/// `Bounds` of `kernels/kasmina_stability.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(crate) struct RawBounds {
    pub(crate) guarded: u32,
    pub(crate) epsilon: f32,
    pub(crate) lower: f32,
    pub(crate) upper: f32,
}

/// [`GradientStats`] as the device writes it: the same bytes, the padding named.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(crate) struct RawGradientStats {
    n: u64,
    nonfinite: u64,
    mean: f64,
    m2: f64,
    max_abs: f32,
    padding: u32,
    sum_squares: f64,
}

const _: () = assert!(size_of::<RawGradientStats>() == size_of::<GradientStats>());

impl From<GradientStats> for RawGradientStats {
    fn from(stats: GradientStats) -> Self {
        let GradientStats { n, nonfinite, mean, m2, max_abs, sum_squares } = stats;
        Self { n, nonfinite, mean, m2, max_abs, padding: 0, sum_squares }
    }
}

impl From<RawGradientStats> for GradientStats {
    fn from(raw: RawGradientStats) -> Self {
        let RawGradientStats { n, nonfinite, mean, m2, max_abs, sum_squares, .. } = raw;
        Self { n, nonfinite, mean, m2, max_abs, sum_squares }
    }
}
