//! A layer's part of a step that a graph replays: what goes up before it, the launches that the graph is made of, and what the
//! host knows once it is queued. Together they leave the layer as the plain calls do.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use kasmina_sys::{CopyCall, KernelCall, Link};

use super::CudaLayer;
use super::arena::is_lowered;
use super::given::{LayerStep, Phases};
use super::report::Reports;
use crate::cuda::error::CudaError;
use crate::cuda::job::BackwardViews;
use crate::cuda::seeds::{self, BLOCK_MOST};
use crate::cuda::step_graph::StepGraphError;
use crate::cuda::tape::{Phase, Piece, Placed};
use crate::layer::watched_seeds;
use crate::{Blueprint, Element, ForwardOptions, StabilityMode};

/// How often launches are written down at most before they must be the same as the last time. What is made anew the first time
/// is there the second; a third is to spare.
const ATTEMPTS: usize = 4;

/// What a step does to a layer, once everything that it needs is on its way to the device.
#[derive(Debug)]
pub(in crate::cuda) struct Ready {
    /// Seeds that are measured; `None` where the step is not.
    pub(in crate::cuda) watched: Option<Vec<Range<usize>>>,
    /// The slots that the optimizer steps.
    pub(in crate::cuda) stepping: Vec<usize>,
}

/// What the launches of a layer's passes depend on, beside the matrices.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cuda) struct Stamp {
    revision: u64,
    /// Of the engine's choices of rungs and cuts.
    tuned: u64,
    /// Address of the watched bytes, 0 where all seeds are; `None` where none is measured.
    watched: Option<u64>,
    stepping: Vec<usize>,
}

impl CudaLayer {
    /// Tells layers apart.
    pub(in crate::cuda) fn id(&self) -> u64 {
        self.streams.columns.id
    }

    /// Grows whenever launches that were written down before may not be right any more.
    pub(in crate::cuda) fn launches_revision(&self) -> u64 {
        self.streams.columns.revision()
    }

    /// What tells apart what the passes as last refreshed do: who runs and trains with what, which guards, what is measured. Values do not
    /// matter, such as alphas, nor where anything lies.
    pub(in crate::cuda) fn work_signature(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let telemetry = &self.state.telemetry;
        (self.state.stability.mode as u8).hash(&mut hasher);
        std::mem::discriminant(&telemetry.mode).hash(&mut hasher);
        std::mem::discriminant(&telemetry.scope).hash(&mut hasher);
        for slot in self.arena.iter().flat_map(|arena| &arena.slots) {
            let job = slot.job.as_ref().map(|job| (job.kind, job.width, job.role));
            (slot.seed, job, slot.work.gradients).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Brings the device up to date for a call with `options`, which cannot be refused afterwards for what it asks. Queued.
    ///
    /// # Errors
    /// A probe that is none, [`CudaError::UserBlueprint`], or the driver refused.
    pub(in crate::cuda) fn prepare_call(
        &mut self,
        options: &ForwardOptions,
    ) -> Result<(), CudaError> {
        self.landings.settle(&mut self.state.lifecycle, false)?;
        self.refresh(options)
    }

    /// Whether the layer can do this step.
    ///
    /// # Errors
    /// A matrix that is missing or does not fit.
    pub(in crate::cuda) fn check_step<T: Element>(
        &self,
        layer: usize,
        step: &LayerStep<'_, T>,
        phases: &Phases,
    ) -> Result<(), CudaError> {
        let LayerStep { x, y, grad_y, grad_x, .. } = step;
        let backward = phases.backward;
        let needed = [
            ("x", x, phases.forward || backward),
            ("y", y, phases.forward),
            ("grad_y", grad_y, backward),
            ("grad_x", grad_x, backward),
        ];
        let mut given = Vec::new();
        for (what, matrix, needed) in &needed {
            match matrix {
                Some(matrix) if *needed => given.push((*what, matrix)),
                None if *needed => return Err(StepGraphError::Missing { what, layer }.into()),
                _ => {}
            }
        }
        self.check_shapes(&given)
    }

    /// Brings the device up to date for a step. Queued.
    pub(in crate::cuda) fn ready_step<T: Element>(
        &mut self,
        step: &LayerStep<'_, T>,
        phases: &Phases,
    ) -> Result<Ready, CudaError> {
        self.streams.columns.residents.settle();
        self.landings.settle(&mut self.state.lifecycle, false)?;
        self.refresh(&step.options)?;
        let telemetry = &self.state.telemetry;
        let pass = telemetry.passes.saturating_sub(u64::from(!phases.forward));
        let watched = watched_seeds(telemetry, &self.state.lifecycle, &step.options, pass)
            .filter(|_| phases.forward || phases.backward);
        if let Some(seeds) = &watched {
            self.telemetry.watch(&mut self.streams.columns, seeds)?;
        }
        let mut stepping = Vec::new();
        if let (Some(arena), Some(_)) = (&self.arena, &phases.optimizer) {
            let served = |slot: &super::arena::Slot| phases.backward && slot.work.is_served(true);
            let steps = arena.slots.iter().enumerate();
            let steps = steps.filter(|(_, slot)| slot.has_gradients || served(slot));
            stepping.extend(steps.map(|(index, _)| index));
        }
        Ok(Ready { watched, stepping })
    }

    /// What launches that are written down now depend on.
    pub(in crate::cuda) fn stamp(&self, ready: &Ready) -> Stamp {
        let columns = &self.streams.columns;
        Stamp {
            revision: columns.revision(),
            tuned: columns.engine.tuner().revision(),
            watched: ready.watched.as_ref().map(|_| columns.watched_address()),
            stepping: ready.stepping.clone(),
        }
    }

    /// Writes down the launches of the passes and of the optimizer, and makes the memory that they need.
    pub(in crate::cuda) fn record_step<T: Element>(
        &mut self,
        layer: usize,
        step: &LayerStep<'_, T>,
        phases: &Phases,
        ready: &Ready,
    ) -> Result<(Vec<Placed>, Reports), CudaError> {
        let links = self.settled(layer, |this| {
            this.queue_passes(step, phases, ready)?;
            this.queue_optimizing(phases, ready)
        })?;
        let forward = self.report.forward.clone().filter(|_| phases.forward);
        let backward = self.report.backward.clone().filter(|_| phases.backward);
        Ok((links, Reports { forward, backward }))
    }

    /// Writes down the launches of the optimizer alone.
    pub(in crate::cuda) fn record_optimizer(
        &mut self,
        layer: usize,
        phases: &Phases,
        ready: &Ready,
    ) -> Result<Vec<Placed>, CudaError> {
        self.settled(layer, |this| this.queue_optimizing(phases, ready))
    }

    /// Writes down what `queue` launches until nothing was made anew meanwhile: one launch may have named memory that a later
    /// one then had to replace by more.
    fn settled(
        &mut self,
        layer: usize,
        mut queue: impl FnMut(&mut Self) -> Result<(), CudaError>,
    ) -> Result<Vec<Placed>, CudaError> {
        for _ in 0..ATTEMPTS {
            let before = self.streams.columns.revision();
            self.streams.columns.tape.record(Phase::Forward);
            let outcome = queue(self);
            let links = self.streams.columns.tape.take();
            outcome?;
            let ascending = links.is_sorted_by(|(a, _), (b, _)| a < b);
            if ascending && self.streams.columns.revision() == before {
                return Ok(links);
            }
        }
        Err(StepGraphError::Unsettled { layer }.into())
    }

    fn queue_passes<T: Element>(
        &mut self,
        step: &LayerStep<'_, T>,
        phases: &Phases,
        ready: &Ready,
    ) -> Result<(), CudaError> {
        let watched = ready.watched.as_deref();
        if let (true, Some(x), Some(y)) = (phases.forward, step.x, step.y) {
            self.queue_forward(x, y, false, watched)?;
        }
        if let (true, Some(x), Some(grad_y), Some(grad_x)) =
            (phases.backward, step.x, step.grad_y, step.grad_x)
        {
            self.streams.columns.tape.record(Phase::Backward);
            let gradients = Some((grad_y.view(), grad_x.view()));
            let views = BackwardViews { x: x.view(), gradients };
            if views.x.rows > 0 {
                self.queue_backward(T::DTYPE, views, watched)?;
            }
        }
        Ok(())
    }

    fn queue_optimizing(&mut self, phases: &Phases, ready: &Ready) -> Result<(), CudaError> {
        let Some(optimizer) = &phases.optimizer else { return Ok(()) };
        self.streams.columns.tape.record(Phase::Optimizer);
        if self.queue_optimizer(&ready.stepping, optimizer)? {
            self.queue_lowering(&ready.stepping)?;
        }
        Ok(())
    }

    /// Lowers the slots `stepping`, whose parameters are moved by what was queued before. The plain calls leave that to the next
    /// pass, which is not to have to look for it here.
    fn queue_lowering(&mut self, stepping: &[usize]) -> Result<(), CudaError> {
        let Some(arena) = &mut self.arena else { return Ok(()) };
        let lowered: Vec<u32> = stepping
            .iter()
            .filter_map(|index| arena.job_index(arena.slots[*index].seed))
            .filter(|index| is_lowered(&arena.host_jobs[*index]))
            .map(|index| index as u32)
            .collect();
        if lowered.is_empty() {
            return Ok(());
        }
        let columns = &self.streams.columns;
        if arena.host_lowered != lowered {
            // Cleared first, so that a failed upload is not taken for a done one.
            arena.host_lowered.clear();
            columns.changed();
            let to = &mut arena.lowered.slice_mut(..lowered.len())?;
            columns.uploads.write(&columns.stream, to, &lowered)?;
            arena.host_lowered = lowered;
        }
        let (list, count) = (arena.lowered.address(), arena.host_lowered.len() as u32);
        seeds::lower(columns, arena.job_list(), list, count)
    }

    /// What the host knows once the step is queued.
    ///
    /// # Errors
    /// The losses' way to the host could not be queued.
    pub(in crate::cuda) fn note_step(
        &mut self,
        rows: usize,
        phases: &Phases,
        ready: &Ready,
        reports: &Reports,
    ) -> Result<(), CudaError> {
        if ready.watched.is_some() {
            self.streams.note_counts();
        }
        if phases.forward {
            let telemetry = &mut self.state.telemetry;
            telemetry.passes += 1;
            telemetry.measured += u64::from(ready.watched.is_some());
        }
        self.report.follow(reports);
        let noted = if phases.backward { self.note_backward(true, rows) } else { Ok(()) };
        let steps = |arena: &super::arena::Arena| {
            ready.stepping.iter().any(|index| arena.slots[*index].trained.is_some())
        };
        if phases.optimizer.is_some() && self.arena.as_ref().is_some_and(steps) {
            self.note_stepped(&ready.stepping);
        }
        noted
    }

    /// The places where the lifecycle can put work, whatever runs now, each with something of its kind that is not to run. What
    /// the layer's user asks for beside that (other guards, histograms) is not among them.
    pub(in crate::cuda) fn room<T: Element>(
        &self,
        step: &LayerStep<'_, T>,
        phases: &Phases,
        measured: bool,
        nothing: &KernelCall,
    ) -> Vec<Placed> {
        let kinds = || self.registry().iter().map(|(_, blueprint)| blueprint);
        let filters = kinds().any(|kind| matches!(kind, Blueprint::ConvFilter { .. }));
        let is_matrix = |kind: &Blueprint| {
            matches!(kind, Blueprint::Bottleneck { .. } | Blueprint::Dense { .. })
        };
        let matrices = kinds().any(is_matrix);
        let chunk = self.layout().chunk();
        let most = |kind: &Blueprint| kind.parameters(chunk).map_or(0, |layout| layout.len());
        let large = kinds().any(|kind| most(kind) as u64 > BLOCK_MOST);
        let alone = large && !seeds::may_share(self.engine(), self.layout().seeds());
        let strict = self.state.stability.mode == StabilityMode::Strict;
        let (forward, backward) = (phases.forward, phases.backward);
        let optimizer = phases.optimizer.is_some();
        let kernels = [
            (forward && strict, Phase::Forward, Piece::StrictBounds),
            (forward, Phase::Forward, Piece::Stream),
            (forward && filters, Phase::Forward, Piece::Filters),
            (forward && matrices, Phase::Forward, Piece::Matrices),
            (backward && strict, Phase::Backward, Piece::StrictBounds),
            (backward, Phase::Backward, Piece::Stream),
            (backward, Phase::Backward, Piece::Finalize),
            (backward && filters, Phase::Backward, Piece::Filters),
            (backward && matrices, Phase::Backward, Piece::Matrices),
            (backward && matrices, Phase::Backward, Piece::MatrixMerge),
            (optimizer, Phase::Optimizer, Piece::AdamW),
            (optimizer && alone, Phase::Optimizer, Piece::AdamWAlone),
            (optimizer && large, Phase::Optimizer, Piece::AdamWMeasure),
            (optimizer && large, Phase::Optimizer, Piece::AdamWCheck),
            (optimizer && large, Phase::Optimizer, Piece::AdamWApply),
            (optimizer, Phase::Optimizer, Piece::Lower),
        ];
        let kernels = kernels
            .into_iter()
            .filter(|(there, ..)| *there)
            .map(|(_, phase, piece)| ((phase, piece), Link::Kernel(nothing.clone())));
        // Where nothing is measured, whole matrices may be copied by the driver.
        let copies = [
            (forward, Phase::Forward, step.y, step.x),
            (backward, Phase::Backward, step.grad_x, step.grad_y),
        ];
        let copies = copies.into_iter().filter_map(|(there, phase, to, from)| {
            let (to, from) = (to?, from?);
            let dense = [to, from].iter().all(|m| m.shape().0 > 0 && m.row_stride() == m.shape().1);
            let (to, from) = (to.data().address(), from.data().address());
            let copy = Link::Copy(CopyCall { to, from, bytes: size_of::<T>() });
            (there && dense && !measured).then_some(((phase, Piece::Copy), copy))
        });
        kernels.chain(copies).collect()
    }
}
