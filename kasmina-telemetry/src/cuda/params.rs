//! What kernels are told, byte for byte as `kernels/reduce_*.cuh` have it.

use bytemuck::{Pod, Zeroable};

use super::cut::PieceCut;
use crate::{NanPolicy, ReductionOptions};

/// `Settings`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct Settings {
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) least_whole: i64,
    pub(super) most_whole: i64,
    pub(super) outside: u32,
    pub(super) dead_epsilon: f32,
    pub(super) propagate: u32,
    pub(super) compact: u32,
}

impl Settings {
    pub(super) fn new(options: &ReductionOptions) -> Self {
        Self {
            least: 0.0,
            most: 0.0,
            least_whole: 0,
            most_whole: 0,
            outside: 0,
            dead_epsilon: options.dead_epsilon,
            propagate: (options.nan == NanPolicy::Propagate).into(),
            compact: 0,
        }
    }
}

/// `PieceParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct PieceParams {
    pub(super) x: u64,
    pub(super) lead: u64,
    pub(super) elements: u64,
    pub(super) segment: u64,
    pub(super) segments: u64,
    pub(super) large: u64,
    pub(super) pieces: u64,
    pub(super) partials: u64,
    pub(super) arrivals: u64,
    pub(super) out: u64,
    pub(super) settings: Settings,
    pub(super) large_strip: u32,
    pub(super) small_strip: u32,
}

/// `SegmentParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct SegmentParams {
    pub(super) x: u64,
    pub(super) lead: u64,
    pub(super) elements: u64,
    /// With offsets, the pieces that the queue has room for.
    pub(super) segment: u64,
    pub(super) segments: u64,
    pub(super) offsets: u64,
    pub(super) out: u64,
    pub(super) head: u64,
    pub(super) queue: u64,
    pub(super) partials: u64,
    pub(super) arrivals: u64,
    pub(super) limit: u64,
    pub(super) settings: Settings,
}

/// `ColumnParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct ColumnParams {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) rows: u64,
    pub(super) columns: u64,
    pub(super) x_stride: u64,
    pub(super) y_stride: u64,
    pub(super) partials: u64,
    pub(super) out: u64,
    pub(super) chunk: u64,
    pub(super) block_rows: u64,
    pub(super) blocks: u64,
    pub(super) tiles: u64,
    pub(super) settings: Settings,
    pub(super) across: u32,
    pub(super) run: u32,
}

impl PieceCut {
    /// A kernel's parameters with this cut, and nothing else yet.
    pub(super) fn params(&self) -> PieceParams {
        PieceParams {
            large: self.large,
            pieces: self.pieces,
            large_strip: self.large_strip as u32,
            small_strip: self.small_strip as u32,
            ..Zeroable::zeroed()
        }
    }
}

const _: () = assert!(
    size_of::<Settings>() == 48
        && size_of::<PieceParams>() == 136
        && std::mem::offset_of!(PieceParams, settings) == 80
        && std::mem::offset_of!(PieceParams, large_strip) == 128
        && size_of::<SegmentParams>() == 144
        && std::mem::offset_of!(SegmentParams, limit) == 88
        && size_of::<ColumnParams>() == 152
        && std::mem::offset_of!(ColumnParams, settings) == 96,
    "as in kernels/reduce_pieces.cuh, reduce_groups.cuh and reduce_columns.cuh"
);
