//! From the lifecycle and a call's options to what the device runs: jobs, flags and programs of the seeds that changed.

use std::ops::Range;

use super::CudaLayer;
use super::arena::{Arena, is_lowered};
use super::work::Work;
use crate::cuda::error::CudaError;
use crate::cuda::job::{JobList, SeedJob};
use crate::cuda::seeds;
use crate::layer::probed_seed;
use crate::lifecycle::Lifecycle;
use crate::{ForwardOptions, StabilityMode};

/// Changed jobs with at most so many unchanged ones between them go up in one copy: 4 KiB cost less than a second copy.
const GAP: usize = 64;

/// What is stale on the device.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// Everything.
    pub(super) all: bool,
    /// Seeds whose work may be another; in any order, maybe more than once.
    pub(super) seeds: Vec<u32>,
    /// Seeds whose parameters were moved by the device itself; the same.
    pub(super) moved: Vec<u32>,
    /// Seeds that the last call probed: their work is not their own.
    probed: Vec<u32>,
    /// Whether the flags are those of a mode that guards.
    guarded: bool,
}

/// A slot's new work.
struct Derived {
    slot: usize,
    work: Work,
    job: Option<SeedJob>,
    flags: u8,
}

impl CudaLayer {
    /// Brings the device's jobs, flags and programs up to date for a call. Nothing waits.
    ///
    /// # Errors
    /// A probe that is none, [`CudaError::UserBlueprint`], or the driver refused.
    pub(super) fn refresh(&mut self, options: &ForwardOptions) -> Result<(), CudaError> {
        for probe in options.probes() {
            probed_seed(&self.state.lifecycle, probe)?;
        }
        self.ensure_arena()?;
        let Some(arena) = &mut self.arena else { return Ok(()) };
        let (lifecycle, stale) = (&mut self.state.lifecycle, &mut self.stale);
        let guarded = self.state.stability.mode != StabilityMode::Fast;
        stale.seeds.extend(lifecycle.take_dirty());
        stale.seeds.extend(options.probes().iter().map(|probe| probe.seed as u32));
        stale.seeds.extend(&stale.probed);
        let all = stale.all || stale.guarded != guarded;
        if all {
            stale.seeds.clear();
            stale.seeds.extend(arena.slots.iter().map(|slot| slot.seed));
        }
        sort(&mut stale.seeds);
        sort(&mut stale.moved);
        if stale.seeds.is_empty() && stale.moved.is_empty() && !all {
            return Ok(());
        }
        // A refusal leaves everything as it was, and the seeds are looked at again in the next call.
        let derived = derive(arena, lifecycle, options, &stale.seeds, guarded)?;
        self.streams.columns.residents.settle();
        // From here on an error leaves the device with half of the changes.
        stale.all = true;
        let streams = &mut self.streams;
        let columns = &mut streams.columns;
        let (mut new_set, mut new_flags, mut new_jobs) = (all, all, Vec::new());
        let mut new_launches = all;
        for Derived { slot, work, job, flags } in derived {
            let slot = &mut arena.slots[slot];
            new_set |= slot.job.is_some() != job.is_some();
            if slot.job != job {
                new_launches |= !same_launches(slot.job.as_ref(), job.as_ref());
                new_jobs.extend(job);
            }
            (slot.work, slot.job) = (work, job);
            if columns.host_flags[slot.columns.start] != flags {
                columns.host_flags[slot.columns.clone()].fill(flags);
                new_flags = true;
            }
        }
        if new_launches || new_flags {
            columns.changed();
        }
        if new_flags {
            let (flags, stream) = (&mut columns.flags, &columns.stream);
            columns.uploads.write(stream, &mut flags.as_mut_slice(), &columns.host_flags)?;
            columns.generation += 1;
        }
        if new_set {
            arena.host_jobs = arena.slots.iter().filter_map(|slot| slot.job).collect();
            let to = &mut arena.jobs.slice_mut(..arena.host_jobs.len())?;
            columns.uploads.write(&columns.stream, to, &arena.host_jobs)?;
        } else {
            let mut places = Vec::with_capacity(new_jobs.len());
            for job in new_jobs {
                if let Some(at) = arena.job_index(job.seed) {
                    arena.host_jobs[at] = job;
                    places.push(at);
                }
            }
            for range in runs(&places) {
                let to = &mut arena.jobs.slice_mut(range.clone())?;
                columns.uploads.write(&columns.stream, to, &arena.host_jobs[range])?;
            }
        }
        let mut lowered: Vec<u32> = stale
            .seeds
            .iter()
            .chain(&stale.moved)
            .filter_map(|seed| arena.job_index(*seed))
            .filter(|index| is_lowered(&arena.host_jobs[*index]))
            .map(|index| index as u32)
            .collect();
        sort(&mut lowered);
        if !lowered.is_empty() {
            if arena.host_changed != lowered {
                // Cleared first, so that a failed upload is not taken for a done one.
                arena.host_changed.clear();
                let to = &mut arena.changed.slice_mut(..lowered.len())?;
                columns.uploads.write(&columns.stream, to, &lowered)?;
                arena.host_changed = lowered;
            }
            let (list, count) = (arena.changed.address(), arena.host_changed.len() as u32);
            seeds::lower(columns, arena.job_list(), list, count)?;
        }
        stale.all = false;
        stale.guarded = guarded;
        stale.seeds.clear();
        stale.moved.clear();
        stale.probed.clear();
        stale.probed.extend(options.probes().iter().map(|probe| probe.seed as u32));
        Ok(())
    }
}

impl Arena {
    /// The jobs as the kernels take them.
    pub(super) fn job_list(&self) -> JobList<'_> {
        JobList { host: &self.host_jobs, device: self.jobs.address() }
    }
}

fn derive(
    arena: &Arena,
    lifecycle: &Lifecycle,
    options: &ForwardOptions,
    seeds: &[u32],
    guarded: bool,
) -> Result<Vec<Derived>, CudaError> {
    let one = |slot: usize| {
        let seed = arena.slots[slot].seed as usize;
        let probe = options.probes().iter().find(|probe| probe.seed == seed);
        let row = lifecycle.table().row(seed);
        let objective = lifecycle.grown(seed).map_or_else(Default::default, |g| g.objective());
        let work = Work::of(row.state, row.alpha, objective, probe.map(|probe| probe.alpha));
        let flags = work.flags(&arena.slots[slot].blueprint, guarded);
        Ok(Derived { slot, work, job: arena.job(slot, &work)?, flags })
    };
    // A seed that owns nothing any more went with the old arena.
    seeds.iter().filter_map(|seed| arena.find(*seed)).map(one).collect()
}

/// Whether two jobs of a seed are served by the same launches: alpha is in the job alone.
fn same_launches(a: Option<&SeedJob>, b: Option<&SeedJob>) -> bool {
    let without_alpha = |job: &SeedJob| SeedJob { alpha: 0.0, ..*job };
    a.map(without_alpha) == b.map(without_alpha)
}

fn sort(seeds: &mut Vec<u32>) {
    seeds.sort_unstable();
    seeds.dedup();
}

/// Ascending places as few ranges, near neighbours in one.
fn runs(places: &[usize]) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for &at in places {
        match out.last_mut() {
            Some(last) if at <= last.end + GAP => last.end = at + 1,
            _ => out.push(at..at + 1),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_alpha_is_no_other_launch() {
        let job =
            SeedJob { columns: 8, alpha: 0.25, gradients: 64, ..bytemuck::Zeroable::zeroed() };
        let same = |other: SeedJob| same_launches(Some(&job), Some(&other));
        assert!(same(SeedJob { alpha: 0.5, ..job }));
        for other in [
            SeedJob { gradients: 0, ..job },
            SeedJob { kind: 4, ..job },
            SeedJob { role: 1, ..job },
            SeedJob { width: 3, ..job },
        ] {
            assert!(!same(other), "{other:?}");
        }
        assert!(!same_launches(Some(&job), None) && same_launches(None, None));
    }

    #[test]
    fn near_neighbours_go_up_together() {
        assert!(runs(&[]).is_empty());
        assert_eq!(runs(&[3, 4, 5]), vec![3..6]);
        let expected = vec![0..GAP + 1, 3 * GAP..3 * GAP + 2];
        assert_eq!(runs(&[0, GAP, 3 * GAP, 3 * GAP + 1]), expected);
    }
}
