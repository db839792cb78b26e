//! What a launch over a stack of layers is told, byte for byte as `kernels/stack_params.cuh` has it.

use bytemuck::{Pod, Zeroable};

use crate::cuda::geometry::Geometry;
use crate::cuda::params::BackwardParams;

/// `ForwardLayer`: one layer's forward pass; addresses are the device's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(in crate::cuda) struct ForwardLayer {
    pub(in crate::cuda) programs: u64,
    pub(in crate::cuda) flags: u64,
    pub(in crate::cuda) bounds: u64,
    /// 0: the layer is not counted.
    pub(in crate::cuda) accumulators: u64,
    pub(in crate::cuda) watched: u64,
    pub(in crate::cuda) saturated: u64,
    pub(in crate::cuda) chunk: u32,
    pub(in crate::cuda) pieces: u32,
    pub(in crate::cuda) dead_epsilon: f32,
    pub(in crate::cuda) padding: u32,
}

/// `ForwardStack`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(in crate::cuda) struct ForwardStack {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) x_pitch: u64,
    pub(super) y_pitch: u64,
    pub(super) layers: u64,
    pub(super) geometry: Geometry,
    pub(super) count: u32,
    pub(super) workers: u32,
    pub(super) plans: u32,
    pub(super) slots: u32,
    pub(super) aligned: u32,
    pub(super) stored: u32,
}

const _: () = assert!(size_of::<ForwardLayer>() == 64 && size_of::<ForwardStack>() == 40 + 64 + 24);

/// `BackwardLayer` of `kernels/stack_backward.cuh`: one layer's backward pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(in crate::cuda) struct BackwardLayer {
    pub(in crate::cuda) params: BackwardParams,
    /// Of its input in shared memory; [`NO_PLACE`] where it is not wanted.
    pub(in crate::cuda) place: u32,
    pub(in crate::cuda) padding: u32,
}

/// `kNoPlace`.
pub(super) const NO_PLACE: u32 = u32::MAX;

/// `BackwardStack` of `kernels/stack_backward.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(in crate::cuda) struct BackwardStack {
    pub(super) x: u64,
    pub(super) grad_y: u64,
    pub(super) grad_x: u64,
    pub(super) x_pitch: u64,
    pub(super) grad_y_pitch: u64,
    pub(super) grad_x_pitch: u64,
    pub(super) layers: u64,
    pub(super) geometry: Geometry,
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) again: u32,
    pub(super) places: u32,
    pub(super) workers: u32,
    pub(super) plans: u32,
    pub(super) slots: u32,
    pub(super) aligned: u32,
}

const _: () =
    assert!(size_of::<BackwardLayer>() == 192 && size_of::<BackwardStack>() == 56 + 64 + 32);

/// `FinalizeStack` of `kernels/stack_finalize.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(in crate::cuda) struct FinalizeStack {
    pub(super) layers: u64,
    pub(super) count: u32,
    pub(super) jobs: u32,
}

/// Warps of a block that prepare programs, `kPreparers`.
pub(super) const PREPARERS: u32 = 3;
