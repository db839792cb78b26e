//! How the matrix passes are cut: pure arithmetic over the job list, and the structs of `kernels/matrix_params.cuh`, byte for byte.
//!
//! The cuts decide in which order gradients are added up, so they depend on the shapes and on which seeds train, never on the
//! device: the same layer gives the same bits everywhere.

use bytemuck::{Pod, Zeroable};

use super::job::{KIND_BOTTLENECK, KIND_DENSE, ROLE_PATH, ROLE_RECONSTRUCTION, SeedJob};

/// Rows of a block at most: a tile of the products.
const BLOCK_ROWS: u32 = 64;
/// Elements of a plane at most, but at least one row: very wide chunks have blocks of fewer rows.
const PLANE_ELEMENTS: u64 = 1 << 20;
/// Items of all jobs that add nothing up, together, roughly: enough for any device, and a list that stays small.
const ITEMS: usize = 1 << 16;
/// Parts of a job that trains, at most: each has parameter gradients of its own until they are merged.
const MAX_PARTS: u64 = 32;
/// Floats of all parts' gradients, unless one part a job is more: 64 MiB.
const PARTIAL_FLOATS: u64 = 1 << 24;
/// Parameters that a block of the merge kernel adds up.
const MERGE_SPAN: u64 = 4096;
/// `kNone`, `kNoPartial`.
const NONE: u32 = u32::MAX;
const NO_PARTIAL: u64 = u64::MAX;

/// Planes of scratch memory: (with the chunk's columns, with a bottleneck's rows of V).
const FORWARD_PLANES: (u64, u64) = (2, 1);
const BACKWARD_PLANES: (u64, u64) = (3, 3);

/// `Item`: some rows of one job.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct Item {
    partial: u64,
    job: u32,
    first_row: u32,
    end_row: u32,
    block_rows: u32,
    sums: u32,
    padding: u32,
}

/// `ItemSums`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct ItemSums {
    alpha: f64,
    square: f64,
}

/// `MergeItem`: some parameters of one job.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub(super) struct MergeItem {
    partial: u64,
    first: u64,
    total: u64,
    job: u32,
    count: u32,
    parts: u32,
    sums: u32,
}

/// `MatrixParams`; addresses are the device's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct MatrixParams {
    pub(super) x: u64,
    pub(super) grad_y: u64,
    pub(super) out: u64,
    pub(super) x_pitch: u64,
    pub(super) grad_y_pitch: u64,
    pub(super) out_pitch: u64,
    pub(super) jobs: u64,
    pub(super) items: u64,
    pub(super) bounds: u64,
    pub(super) scratch: u64,
    pub(super) slice: u64,
    pub(super) partials: u64,
    pub(super) sums: u64,
    pub(super) saturated: u64,
    pub(super) rows: u32,
    pub(super) count: u32,
}

/// `MergeParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct MergeParams {
    pub(super) jobs: u64,
    pub(super) items: u64,
    pub(super) partials: u64,
    pub(super) sums: u64,
    pub(super) rows: u32,
    pub(super) padding: u32,
}

const _: () = assert!(size_of::<Item>() == 32 && size_of::<ItemSums>() == 16);
const _: () = assert!(size_of::<MergeItem>() == 40 && size_of::<MergeParams>() == 40);
const _: () = assert!(size_of::<MatrixParams>() == 14 * 8 + 8);

/// Which jobs a pass serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    Backward {
        /// Whether there are gradients of the output; without them only reconstruction is served.
        gradients: bool,
    },
}

/// What of a job the cuts depend on: it stays while alpha and parameters change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    job: u32,
    kind: u32,
    columns: u32,
    width: u32,
    role: u32,
    trains: bool,
}

/// The shares of the jobs that `pass` serves, in their order.
pub(super) fn shares(jobs: &[SeedJob], pass: Pass) -> impl Iterator<Item = Share> + '_ {
    // Lists are as long as the layer has seeds, which are counted in u32.
    let numbered = (0u32..).zip(jobs).filter(move |(_, job)| serves(pass, job));
    numbered.map(|(index, job)| Share {
        job: index,
        kind: job.kind,
        columns: job.columns,
        width: if job.kind == KIND_DENSE { 0 } else { job.width },
        role: job.role,
        trains: job.gradients != 0,
    })
}

fn serves(pass: Pass, job: &SeedJob) -> bool {
    if !matches!(job.kind, KIND_BOTTLENECK | KIND_DENSE) || job.columns == 0 {
        return false;
    }
    match pass {
        Pass::Forward => job.role == ROLE_PATH,
        Pass::Backward { gradients } => gradients || job.role == ROLE_RECONSTRUCTION,
    }
}

impl Share {
    /// Parameters of the seed.
    fn parameters(&self) -> u64 {
        let (c, r) = (u64::from(self.columns), u64::from(self.width));
        if self.kind == KIND_DENSE { c * c + c } else { 2 * r * c + r + c }
    }

    fn block_rows(&self) -> u32 {
        let widest = u64::from(self.columns.max(self.width));
        // At most 64.
        (PLANE_ELEMENTS / widest).clamp(1, BLOCK_ROWS.into()) as u32
    }

    /// Floats of scratch memory that a block of rows takes.
    fn scratch(&self, (wide, narrow): (u64, u64)) -> u64 {
        let row = wide * u64::from(self.columns) + narrow * u64::from(self.width);
        u64::from(self.block_rows()) * row
    }

    /// Whether a backward pass leaves more of it than dL/dx.
    fn is_merged(&self) -> bool {
        self.trains || self.role == ROLE_RECONSTRUCTION
    }
}

/// The work of one pass over one shape.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Work {
    pub(super) items: Vec<Item>,
    pub(super) merges: Vec<MergeItem>,
    /// Floats of a block of threads' slice of scratch memory.
    pub(super) slice: u64,
    /// Floats of all parts' gradients.
    pub(super) partials: u64,
    /// Items whose elements are added up.
    pub(super) sums: u32,
}

impl Work {
    /// Cuts the rows of every share into items; those of a job that trains are its parts.
    pub(super) fn cut(shares: &[Share], pass: Pass, rows: u32) -> Self {
        let backward = pass != Pass::Forward;
        let planes = if backward { BACKWARD_PLANES } else { FORWARD_PLANES };
        let parts = if backward { parts_of_each(shares) } else { 1 };
        let most = (ITEMS / shares.len().max(1)).max(1);
        let mut work = Self::default();
        for share in shares {
            let merged = backward && share.is_merged();
            let block_rows = share.block_rows();
            let pieces = pieces(rows, block_rows, if merged { parts as usize } else { most });
            let total = if merged && share.trains { share.parameters() } else { 0 };
            if merged {
                work.merge(share, total, pieces.len() as u32);
            }
            for (first_row, end_row) in pieces {
                let item = Item {
                    partial: if total == 0 { NO_PARTIAL } else { work.partials },
                    job: share.job,
                    first_row,
                    end_row,
                    block_rows,
                    sums: if merged { work.sums } else { NONE },
                    padding: 0,
                };
                work.items.push(item);
                work.partials += total;
                work.sums += u32::from(merged);
            }
            work.slice = work.slice.max(share.scratch(planes));
        }
        work
    }

    /// What adds up the `parts` items that come next.
    fn merge(&mut self, share: &Share, total: u64, parts: u32) {
        let mut first = 0;
        loop {
            let count = (total - first).min(MERGE_SPAN);
            self.merges.push(MergeItem {
                partial: self.partials,
                first,
                total,
                job: share.job,
                // At most the span.
                count: count as u32,
                parts,
                sums: if first == 0 { self.sums } else { NONE },
            });
            first += count;
            if first == total {
                return;
            }
        }
    }
}

/// Parts that the rows of a job that trains are cut into: fewer where the parameters of all are many.
fn parts_of_each(shares: &[Share]) -> u64 {
    let all: u64 = shares.iter().filter(|share| share.trains).map(Share::parameters).sum();
    let fit = (PARTIAL_FLOATS / all.max(1)).clamp(1, MAX_PARTS);
    // A power of two, so that it seldom changes as seeds come and go.
    1 << fit.ilog2()
}

/// Cuts rows into at most `most` pieces of whole blocks, as equal as can be.
fn pieces(rows: u32, block_rows: u32, most: usize) -> Vec<(u32, u32)> {
    let blocks = u64::from(rows.div_ceil(block_rows));
    let count = blocks.min(most as u64);
    // Rows fit u32, and so does a multiple of the block that is held to them.
    let cut = |piece: u64| (blocks * piece / count * u64::from(block_rows)).min(rows.into()) as u32;
    (0..count).map(|piece| (cut(piece), cut(piece + 1))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::job::{KIND_CONV_FILTER, ROLE_STRAIGHT_THROUGH};
    use super::*;

    fn job() -> impl Strategy<Value = SeedJob> {
        let kind = prop::sample::select(vec![KIND_CONV_FILTER, KIND_BOTTLENECK, KIND_DENSE]);
        let role =
            prop::sample::select(vec![ROLE_PATH, ROLE_STRAIGHT_THROUGH, ROLE_RECONSTRUCTION]);
        (kind, role, 1u32..2000, 1u32..300, any::<bool>()).prop_map(
            |(kind, role, columns, width, trains)| SeedJob {
                columns,
                kind,
                width,
                role,
                gradients: u64::from(trains || role != ROLE_PATH),
                ..Zeroable::zeroed()
            },
        )
    }

    proptest! {
        #[test]
        fn every_row_of_every_job_has_one_item(
            jobs in prop::collection::vec(job(), 0..40), rows in 0u32..10_000, gradients in any::<bool>(),
        ) {
            for pass in [Pass::Forward, Pass::Backward { gradients }] {
                let all: Vec<_> = shares(&jobs, pass).collect();
                let work = Work::cut(&all, pass, rows);
                let (mut partials, mut sums) = (0, 0);
                for share in &all {
                    let own = |item: &&Item| item.job == share.job;
                    let mut at = 0;
                    for item in work.items.iter().filter(own) {
                        prop_assert!(item.first_row == at && item.end_row > at && item.end_row <= rows);
                        prop_assert!(item.first_row % item.block_rows == 0);
                        prop_assert!(share.scratch((1, 0)) <= work.slice);
                        at = item.end_row;
                    }
                    prop_assert_eq!(at, rows);
                    let parts = work.items.iter().filter(own).count() as u32;
                    let merges: Vec<_> = work.merges.iter().filter(|m| m.job == share.job).collect();
                    let merged = pass != Pass::Forward && share.is_merged();
                    prop_assert_eq!(merges.is_empty(), !merged);
                    let mut first = 0;
                    for (i, merge) in merges.iter().enumerate() {
                        prop_assert_eq!((merge.first, merge.parts), (first, parts));
                        prop_assert_eq!(merge.sums, if i == 0 { sums } else { NONE });
                        prop_assert_eq!(merge.partial, partials);
                        first += u64::from(merge.count);
                    }
                    if merged {
                        let total = if share.trains { share.parameters() } else { 0 };
                        prop_assert_eq!(first, total);
                        for item in work.items.iter().filter(own) {
                            prop_assert_eq!(item.sums, sums);
                            prop_assert_eq!(item.partial, if total == 0 { NO_PARTIAL } else { partials });
                            sums += 1;
                            partials += total;
                        }
                    }
                }
                prop_assert_eq!((work.sums, work.partials), (sums, partials));
                let least: u64 = all.iter().filter(|s| s.trains).map(Share::parameters).sum();
                prop_assert!(work.partials <= PARTIAL_FLOATS.max(least));
                prop_assert!(work.items.len() <= ITEMS + all.len() * MAX_PARTS as usize);
            }
        }
    }

    #[test]
    fn without_gradients_only_reconstruction_is_served() {
        let roles = [ROLE_PATH, ROLE_STRAIGHT_THROUGH, ROLE_RECONSTRUCTION];
        let jobs: Vec<_> = roles
            .map(|role| SeedJob { columns: 4, kind: KIND_DENSE, role, ..Zeroable::zeroed() })
            .into();
        let served = |pass| shares(&jobs, pass).map(|share| share.job).collect::<Vec<_>>();
        assert_eq!(served(Pass::Forward), [0]);
        assert_eq!(served(Pass::Backward { gradients: true }), [0, 1, 2]);
        assert_eq!(served(Pass::Backward { gradients: false }), [2]);
    }

    #[test]
    fn huge_chunks_have_small_blocks_and_many_parameters_few_parts() {
        let share = |columns| Share {
            job: 0,
            kind: KIND_DENSE,
            columns,
            width: 0,
            role: ROLE_PATH,
            trains: true,
        };
        assert_eq!([64, 16_384, 32_768, 4_000_000].map(|c| share(c).block_rows()), [64, 64, 32, 1]);
        assert_eq!(parts_of_each(&[share(64)]), 32);
        assert_eq!(parts_of_each(&[share(1000)]), 16);
        assert_eq!(parts_of_each(&vec![share(64); 1000]), 4);
        assert_eq!(parts_of_each(&[share(10_000)]), 1);
        assert_eq!(parts_of_each(&[]), 32);
    }
}
