//! What one call asks of one seed, and how the streaming passes see the jobs of a tile.

use std::ops::Range;

use crate::lower::{ColumnPrograms, Program};
use crate::{Blueprint, Objective};

/// How a job's branch runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op<'a> {
    /// Alpha is 0: the chunk is copied and its gradients are 0.
    Copy,
    /// Column programs; those of column `c` stand at `c − origin`.
    Pointwise { programs: &'a ColumnPrograms, origin: usize },
    /// Blended taps.
    Stencil(&'a [f32]),
    /// The blueprint on its parameters.
    Matrix,
}

impl Op<'_> {
    /// Whether the streaming pass leaves the chunk to the gathered pass.
    pub(super) fn is_gathered(&self) -> bool {
        matches!(self, Op::Stencil(_) | Op::Matrix)
    }
}

/// Whether a job changes the output or only trains beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// y = clamp(alpha·T(x) + (1 − alpha)·x).
    Path,
    /// The training branch of a TRAINING seed at alpha = 1.
    Shadow(Objective),
}

/// One seed's part of a call. Lists of jobs ascend by seed; a seed has at most one job a role.
#[derive(Clone, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) seed: usize,
    pub(crate) columns: Range<usize>,
    pub(crate) blueprint: &'a Blueprint,
    pub(crate) parameters: &'a [f32],
    pub(crate) alpha: f32,
    pub(crate) role: Role,
    pub(crate) trainable: bool,
    pub(crate) op: Op<'a>,
}

impl Job<'_> {
    /// Whether the backward pass of this on-path job reads x.
    pub(crate) fn backward_needs_x(&self, guarded: bool) -> bool {
        match self.op {
            Op::Copy => false,
            Op::Stencil(_) | Op::Matrix => true,
            Op::Pointwise { programs, origin } => {
                let sums_need_x = self.trainable && self.blueprint.sums_need_x();
                let columns = self.columns.start - origin..self.columns.end - origin;
                guarded || sums_need_x || !programs.view(columns).is_linear()
            }
        }
    }
}

/// What the streaming pass does with consecutive columns of a tile.
#[derive(Clone, Debug)]
pub(super) enum Stretch<'a> {
    Copy,
    Pointwise {
        program: Program<'a>,
        /// Whether parameter gradients want the column sums.
        sums: bool,
        /// Whether backward has to read x.
        needs_x: bool,
    },
    /// Left to the gathered pass.
    Gathered,
}

/// The columns of a tile from left to right, as (tile-local columns, what to do); neighbours that
/// are treated alike are one stretch.
pub(super) fn stretches<'a>(
    jobs: &[Job<'a>],
    tile: &Range<usize>,
    guarded: bool,
) -> Vec<(Range<usize>, Stretch<'a>)> {
    let mut out: Vec<(Range<usize>, Stretch<'a>)> = Vec::new();
    let mut at = tile.start;
    let first = jobs.partition_point(|job| job.columns.end <= tile.start);
    let mut source: Option<(*const ColumnPrograms, usize, bool, bool)> = None;
    for job in &jobs[first..] {
        if job.columns.start >= tile.end {
            break;
        }
        if matches!(job.op, Op::Copy) {
            continue;
        }
        let columns = job.columns.start.max(tile.start)..job.columns.end.min(tile.end);
        let local = columns.start - tile.start..columns.end - tile.start;
        if columns.start > at {
            out.push((at - tile.start..local.start, Stretch::Copy));
            source = None;
        }
        at = columns.end;
        let Op::Pointwise { programs, origin } = job.op else {
            out.push((local, Stretch::Gathered));
            source = None;
            continue;
        };
        let program = programs.view(columns.start - origin..columns.end - origin);
        let sums = job.trainable;
        let needs_x = job.backward_needs_x(guarded);
        let key = (std::ptr::from_ref(programs), origin, sums, needs_x);
        match out.last_mut() {
            Some((range, Stretch::Pointwise { program, .. })) if source == Some(key) => {
                range.end = local.end;
                let start = tile.start + range.start - origin;
                *program = programs.view(start..tile.start + range.end - origin);
            }
            _ => out.push((local, Stretch::Pointwise { program, sums, needs_x })),
        }
        source = Some(key);
    }
    if at < tile.end {
        out.push((at - tile.start..tile.end - tile.start, Stretch::Copy));
    }
    out
}
