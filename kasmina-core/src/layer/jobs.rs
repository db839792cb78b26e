//! From the lowered plan and a call's probes to the jobs that the backend runs.

use super::Probe;
use crate::cpu::{Job, Op, Role};
use crate::lifecycle::{GrownSeed, Lifecycle};
use crate::lower::{ColumnPrograms, Lowered, Plan, lower_branch};
use crate::{Error, ForwardOptions, Result};

/// A probed seed, lowered for one call.
#[derive(Debug)]
pub(super) struct Probed {
    seed: usize,
    alpha: f32,
    programs: ColumnPrograms,
    lowered: Lowered,
}

/// What a probed seed owns; an error where the probe is none that a call can be asked for.
pub(crate) fn probed_seed<'a>(lifecycle: &'a Lifecycle, probe: &Probe) -> Result<&'a GrownSeed> {
    probe.validate()?;
    let seed = lifecycle.layout().check(probe.seed)?;
    let state = lifecycle.state(seed)?;
    lifecycle.grown(seed).ok_or(Error::NoParameters { seed, state })
}

/// Checks a call's probes and lowers them.
pub(super) fn lower_probes(lifecycle: &Lifecycle, options: &ForwardOptions) -> Result<Vec<Probed>> {
    let layout = lifecycle.layout();
    let lower = |probe: &Probe| {
        let (seed, alpha) = (probe.seed, probe.alpha);
        let grown = probed_seed(lifecycle, probe)?;
        let blueprint = lifecycle.registry().get(grown.blueprint())?;
        let mut programs = ColumnPrograms::default();
        let lowered = if alpha > 0.0 {
            let c = layout.chunk_len(seed);
            lower_branch(&mut programs, c, 0, blueprint, grown.parameters(), alpha)
        } else {
            Lowered::Copy
        };
        Ok(Probed { seed, alpha, programs, lowered })
    };
    options.probes().iter().map(lower).collect()
}

/// The jobs of one call: on the output path, and training beside it. Both ascend by seed.
#[derive(Debug, Default)]
pub(super) struct Jobs<'a> {
    pub(super) path: Vec<Job<'a>>,
    pub(super) shadow: Vec<Job<'a>>,
}

impl<'a> Jobs<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        lifecycle: &'a Lifecycle,
        probed: &'a [Probed],
    ) -> Result<Self> {
        let mut jobs = Self::default();
        let mut probes = probed.iter().peekable();
        for (&seed, planned) in &plan.seeds {
            while let Some(probe) = probes.next_if(|probe| probe.seed < seed) {
                jobs.push_probe(lifecycle, probe)?;
            }
            if let Some(probe) = probes.next_if(|probe| probe.seed == seed) {
                jobs.push_probe(lifecycle, probe)?;
                continue;
            }
            let on_path_and_trainable = planned.trainable && planned.shadow.is_none();
            if planned.path != Lowered::Copy || on_path_and_trainable {
                let op = op(&planned.path, &plan.path, 0);
                let job = job(lifecycle, seed, planned.alpha, Role::Path, op)?;
                jobs.path.push(Job { trainable: planned.trainable, ..job });
            }
            if let Some((lowered, objective)) = &planned.shadow {
                let op = op(lowered, &plan.shadow, 0);
                jobs.shadow.push(job(lifecycle, seed, 1.0, Role::Shadow(*objective), op)?);
            }
        }
        for probe in probes {
            jobs.push_probe(lifecycle, probe)?;
        }
        Ok(jobs)
    }

    fn push_probe(&mut self, lifecycle: &'a Lifecycle, probe: &'a Probed) -> Result<()> {
        let origin = lifecycle.layout().columns(probe.seed).start;
        let op = op(&probe.lowered, &probe.programs, origin);
        let job = job(lifecycle, probe.seed, probe.alpha, Role::Path, op)?;
        if job.trainable || !matches!(op, Op::Copy) {
            self.path.push(job);
        }
        Ok(())
    }

    /// Whether any chunk of the output is computed, not copied.
    pub(super) fn computes(&self) -> bool {
        self.path.iter().any(|job| !matches!(job.op, Op::Copy))
    }
}

fn op<'a>(lowered: &'a Lowered, programs: &'a ColumnPrograms, origin: usize) -> Op<'a> {
    match lowered {
        Lowered::Copy => Op::Copy,
        Lowered::Pointwise => Op::Pointwise { programs, origin },
        Lowered::Stencil { taps } => Op::Stencil(taps),
        Lowered::Matrix => Op::Matrix,
    }
}

fn job<'a>(
    lifecycle: &'a Lifecycle,
    seed: usize,
    alpha: f32,
    role: Role,
    op: Op<'a>,
) -> Result<Job<'a>> {
    let state = lifecycle.state(seed)?;
    let grown = lifecycle.grown(seed).ok_or(Error::NoParameters { seed, state })?;
    Ok(Job {
        seed,
        columns: lifecycle.layout().columns(seed),
        blueprint: lifecycle.registry().get(grown.blueprint())?,
        parameters: grown.parameters(),
        alpha,
        role,
        trainable: state.trainable(),
        op,
    })
}
