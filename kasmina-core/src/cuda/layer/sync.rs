//! From the device to the host's copy of the layer.

use std::collections::VecDeque;
use std::ops::Range;

use kasmina_sys::{DeviceBuffer, PinnedBuffer, PinnedKind, Stream};

use super::CudaLayer;
use super::arena::Arena;
use super::report::{OptimizerSummary, reason};
use super::work::Role;
use crate::cuda::error::CudaError;
use crate::cuda::job::SeedResult;
use crate::cuda::seeds::OptimizerRecord;
use crate::lifecycle::{Lifecycle, OptimizerState, SeedSignals};
use crate::{Objective, State};

/// Reconstruction losses on their way to the host. Each pass has its own, as the lifecycle wants the first and the least of
/// them, too; they are taken in as they arrive, and waited for where something depends on them.
#[derive(Debug, Default)]
pub(super) struct Landings {
    queue: VecDeque<Landing>,
    spare: Vec<PinnedBuffer<SeedResult>>,
    /// The slots whose results are copied: all that learn by reconstruction, and what lies between them.
    slots: Range<usize>,
}

#[derive(Debug)]
struct Landing {
    /// `None` for a pass over no rows, whose loss is 0.
    results: Option<PinnedBuffer<SeedResult>>,
    /// Seeds and their places in `results`.
    seeds: Vec<(u32, usize)>,
}

/// Buffers from the start: a page-locked allocation in the middle of a step may hold up the device.
const SPARE: usize = 4;

impl Landings {
    /// For a new arena.
    pub(super) fn new(
        stream: &Stream,
        arena: &Arena,
        lifecycle: &Lifecycle,
    ) -> Result<Self, CudaError> {
        let learns = |seed: u32| {
            let seed = seed as usize;
            let objective = lifecycle.grown(seed).map(|grown| grown.objective());
            objective == Some(Objective::Reconstruction)
                && lifecycle.state(seed).is_ok_and(|state| state == State::Training)
        };
        let first = arena.slots.iter().position(|slot| learns(slot.seed));
        let last = arena.slots.iter().rposition(|slot| learns(slot.seed));
        let (Some(first), Some(last)) = (first, last) else { return Ok(Self::default()) };
        let mut landings = Self { slots: first..last + 1, ..Self::default() };
        for _ in 0..SPARE {
            let buffer = landings.buffer(stream)?;
            landings.spare.push(buffer);
        }
        Ok(landings)
    }

    fn buffer(&self, stream: &Stream) -> Result<PinnedBuffer<SeedResult>, CudaError> {
        Ok(PinnedBuffer::zeroed(stream.context(), self.slots.len(), PinnedKind::Cached)?)
    }

    /// Whether losses are on their way.
    pub(super) fn any(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Queues the losses of the pass that was just queued, if it computes any.
    pub(super) fn push(
        &mut self,
        stream: &Stream,
        arena: &Arena,
        rows: usize,
    ) -> Result<(), CudaError> {
        let slots = arena.slots.iter().enumerate();
        let reconstructs = slots.filter(|(_, slot)| slot.work.role() == Some(Role::Reconstruction));
        let seeds: Vec<(u32, usize)> = reconstructs
            .filter_map(|(i, slot)| Some((slot.seed, i.checked_sub(self.slots.start)?)))
            .collect();
        if seeds.is_empty() {
            return Ok(());
        }
        let mut results = None;
        if rows > 0 {
            let mut buffer = match self.spare.pop() {
                Some(buffer) => buffer,
                None => self.buffer(stream)?,
            };
            arena.results.slice(self.slots.clone())?.copy_to_pinned(&mut buffer, stream)?;
            results = Some(buffer);
        }
        self.queue.push_back(Landing { results, seeds });
        Ok(())
    }

    /// Takes in what has arrived, in the order of the passes; with `wait`, everything.
    pub(super) fn settle(
        &mut self,
        lifecycle: &mut Lifecycle,
        wait: bool,
    ) -> Result<(), CudaError> {
        while let Some(front) = self.queue.front() {
            let losses: Vec<f64> = match &front.results {
                None => vec![0.0; front.seeds.len()],
                Some(results) if wait || results.is_ready()? => {
                    let results = results.as_slice()?;
                    let loss = |(_, at): &(u32, usize)| results.get(*at).map(|r| r.reconstruction);
                    front.seeds.iter().filter_map(loss).collect()
                }
                Some(_) => return Ok(()),
            };
            for ((seed, _), loss) in front.seeds.iter().zip(losses) {
                lifecycle.record_reconstruction(*seed as usize, loss);
            }
            let done = self.queue.pop_front();
            self.spare.extend(done.and_then(|landing| landing.results));
        }
        Ok(())
    }
}

/// Everything of an arena that the host may not know yet.
struct Pulled {
    /// Parameters, both moments and the optimizer's records, where it has made steps.
    steps: Option<([Vec<f32>; 3], Vec<OptimizerRecord>)>,
    /// Gradients and alpha's, where there are any.
    gradients: Option<(Vec<f32>, Vec<SeedResult>)>,
}

impl Arena {
    fn pull(&mut self, stepped: bool) -> Result<Pulled, CudaError> {
        let mut pulled = Pulled { steps: None, gradients: None };
        if stepped {
            let all = |buffer: &DeviceBuffer<f32>| buffer.to_vec();
            let numbers = [all(&self.parameters)?, all(&self.first)?, all(&self.second)?];
            let records = self.records.to_vec()?;
            // What is taken here is not to be counted again.
            let kept =
                |r: &OptimizerRecord| OptimizerRecord { updates: r.updates, ..<_>::default() };
            self.records.copy_from_host(&records.iter().map(kept).collect::<Vec<_>>())?;
            pulled.steps = Some((numbers, records));
        }
        if self.slots.iter().any(|slot| slot.has_gradients) {
            pulled.gradients = Some((self.gradients.to_vec()?, self.results.to_vec()?));
        }
        Ok(pulled)
    }
}

impl CudaLayer {
    /// Waits for everything queued, and brings it to the host: parameters, optimizer state, gradients, losses, statistics,
    /// counters. Afterwards [`CudaLayer::parameters`] and the like are those of now.
    ///
    /// # Errors
    /// Something queued before, or a copy, failed; the host's copy is as it was then, except that losses that had arrived are
    /// in it.
    pub fn synchronize(&mut self) -> Result<(), CudaError> {
        self.streams.columns.residents.settle();
        self.landings.settle(&mut self.state.lifecycle, true)?;
        if !self.telemetry_unsent {
            self.telemetry.pull(&mut self.streams, &mut self.state.telemetry)?;
            self.counted_on_host = true;
        }
        self.pull_seeds()
    }

    /// Brings what seeds own to the host: parameters, optimizer state, gradients. Waits where there may be news.
    pub(super) fn pull_seeds(&mut self) -> Result<(), CudaError> {
        if let Some(arena) = &mut self.arena {
            let pulled = arena.pull(self.stepped)?;
            self.stepped = false;
            self.take_in(pulled);
        }
        Ok(())
    }

    fn take_in(&mut self, pulled: Pulled) {
        let (Some(arena), lifecycle) = (&mut self.arena, &mut self.state.lifecycle) else { return };
        let epoch = lifecycle.epoch();
        for (index, slot) in arena.slots.iter_mut().enumerate() {
            let seed = slot.seed as usize;
            let Some(grown) = lifecycle.grown_mut(seed) else { continue };
            let mut updated = false;
            if let (Some(([parameters, first, second], records)), Some(range)) =
                (&pulled.steps, &slot.trained)
            {
                let record = &records[index];
                let values = &parameters[slot.parameters.clone()];
                let moved =
                    std::mem::take(&mut slot.lent) && bits(values) != bits(&grown.parameters);
                grown.parameters.copy_from_slice(values);
                if record.updates > 0 {
                    let n = grown.parameters.len();
                    let state = grown.optimizer.get_or_insert_with(|| OptimizerState::new(n));
                    state.first.copy_from_slice(&first[range.clone()]);
                    state.second.copy_from_slice(&second[range.clone()]);
                    state.updates = record.updates;
                }
                let stepped = record.updated > 0;
                updated = stepped || moved;
                if stepped && std::mem::take(&mut slot.norm_waits) {
                    grown.measured.record(&gradient_norm(record.norm), epoch);
                }
                if stepped || record.skipped > 0 {
                    let none = OptimizerSummary::none(seed);
                    self.summaries.entry(slot.seed).or_insert(none).add(record);
                }
                if record.skipped > 0 {
                    tracing::warn!(
                        target: "kasmina::optimizer", seed, steps = record.skipped,
                        reason = ?reason(record), "seed not updated"
                    );
                }
            }
            grown.clear_gradients();
            if let (true, Some((gradients, results)), Some(range)) =
                (slot.has_gradients, &pulled.gradients, &slot.trained)
            {
                grown.gradients.copy_from_slice(&gradients[range.clone()]);
                grown.has_gradients = true;
                grown.alpha_gradient = slot.has_alpha_gradient.then_some(results[index].alpha);
            }
            if updated {
                lifecycle.parameters_changed(seed, epoch);
            }
        }
    }

    /// Brings the parameters of one seed to the host.
    pub(super) fn pull_parameters(&mut self, seed: u32) -> Result<(), CudaError> {
        self.streams.columns.residents.settle();
        let Some(arena) = &self.arena else { return Ok(()) };
        let Some(index) = arena.find(seed) else { return Ok(()) };
        let values = arena.parameters.slice(arena.slots[index].parameters.clone())?.to_vec()?;
        if let Some(grown) = self.state.lifecycle.grown_mut(seed as usize) {
            grown.parameters.copy_from_slice(&values);
        }
        Ok(())
    }

    /// Records the gradient norms of `seeds` that the device alone knows.
    pub(super) fn pull_norms(&mut self, seeds: &[u32]) -> Result<(), CudaError> {
        let Some(arena) = &mut self.arena else { return Ok(()) };
        let waits = |seed: &u32| arena.find(*seed).filter(|index| arena.slots[*index].norm_waits);
        let indices: Vec<usize> = seeds.iter().filter_map(waits).collect();
        if indices.is_empty() {
            return Ok(());
        }
        let records = arena.records.to_vec()?;
        let lifecycle = &mut self.state.lifecycle;
        let epoch = lifecycle.epoch();
        for index in indices {
            let slot = &mut arena.slots[index];
            if let Some(grown) = lifecycle.grown_mut(slot.seed as usize)
                && records[index].updated > 0
            {
                grown.measured.record(&gradient_norm(records[index].norm), epoch);
                slot.norm_waits = false;
            }
        }
        Ok(())
    }
}

/// Parameters moved where a bit did: −0 is not 0.
fn bits(values: &[f32]) -> &[u32] {
    bytemuck::cast_slice(values)
}

fn gradient_norm(norm: f64) -> SeedSignals {
    SeedSignals { gradient_norm: Some(norm), ..SeedSignals::default() }
}
