//! What launches are told, byte for byte as `kernels/stream_geometry.cuh` has it.

use bytemuck::{Pod, Zeroable};

use super::geometry::Geometry;

/// Bits of a column's flags.
pub(crate) const COMPUTE: u8 = 1;

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
    pub(crate) partials: u64,
    pub(crate) totals: u64,
    pub(crate) watched: u64,
    pub(crate) arrivals: u64,
    pub(crate) saturated: u64,
    pub(crate) geometry: Geometry,
    pub(crate) dead_epsilon: f32,
    pub(crate) in_place: u32,
}

const _: () = assert!(size_of::<ForwardParams>() == 13 * 8 + 64 + 8, "as in stream_geometry.cuh");

/// `Bounds` of `kernels/kasmina_stability.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(crate) struct RawBounds {
    pub(crate) guarded: u32,
    pub(crate) epsilon: f32,
    pub(crate) lower: f32,
    pub(crate) upper: f32,
}
