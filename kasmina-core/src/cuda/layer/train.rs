//! Training on the device: the optimizer's steps, gradients, and the end of a step.

use super::CudaLayer;
use crate::AdamW;
use crate::cuda::error::CudaError;
use crate::cuda::seeds::{self, OptimizerJobs};

impl CudaLayer {
    /// One step of the built-in optimizer on every seed with gradients; takes the gradients. Queued. What became of each seed
    /// is known after the next [`CudaLayer::synchronize`] or the end of the epoch, from
    /// [`CudaLayer::take_optimizer_summaries`]; a seed with a damaged gradient is left as it was, as on the CPU.
    ///
    /// # Errors
    /// [`CudaError::Engine`] for numbers that [`AdamW::validate`] refuses, nothing changed; or the driver refused.
    pub fn optimizer_step(&mut self, optimizer: &AdamW) -> Result<(), CudaError> {
        optimizer.validate()?;
        self.streams.columns.residents.settle();
        self.landings.settle(&mut self.state.lifecycle, false)?;
        self.ensure_arena()?;
        let Some(arena) = &self.arena else { return Ok(()) };
        let with_gradients = |index: &usize| arena.slots[*index].has_gradients;
        let stepping: Vec<usize> = (0..arena.slots.len()).filter(with_gradients).collect();
        if self.queue_optimizer(&stepping, optimizer)? {
            self.note_stepped(&stepping);
            let seeds =
                self.arena.iter().flat_map(|arena| stepping.iter().map(|i| arena.slots[*i].seed));
            self.stale.moved.extend(seeds);
        }
        Ok(())
    }

    /// Queues a step of the slots `stepping`; whether there is anything to step among them.
    pub(super) fn queue_optimizer(
        &mut self,
        stepping: &[usize],
        optimizer: &AdamW,
    ) -> Result<bool, CudaError> {
        let Some(arena) = &mut self.arena else { return Ok(false) };
        let jobs: Vec<_> = stepping.iter().filter_map(|index| arena.step(*index)).collect();
        if jobs.is_empty() {
            return Ok(false);
        }
        let columns = &self.streams.columns;
        if arena.host_steps != jobs {
            // Cleared first, so that a failed upload is not taken for a done one.
            arena.host_steps.clear();
            columns.changed();
            let to = &mut arena.steps.slice_mut(..jobs.len())?;
            columns.uploads.write(&columns.stream, to, &jobs)?;
            arena.host_steps = jobs;
        }
        let jobs = OptimizerJobs {
            list: arena.steps.address(),
            count: arena.host_steps.len() as u32,
            most: arena.host_steps.iter().map(|job| job.count).max().unwrap_or(0),
        };
        let (onto, made) = ((&columns.stream, &columns.tape), self.large.made);
        let queued = seeds::optimizer_step(&columns.engine, onto, &mut self.large, jobs, optimizer);
        if self.large.made != made {
            columns.changed();
        }
        queued.map(|()| true)
    }

    /// What the host knows of the slots `stepping` once their step is queued.
    pub(super) fn note_stepped(&mut self, stepping: &[usize]) {
        let Some(arena) = &mut self.arena else { return };
        for index in stepping {
            let slot = &mut arena.slots[*index];
            slot.has_gradients = false;
            slot.has_alpha_gradient = false;
            slot.norm_waits = true;
        }
        self.stepped = true;
        self.revision += 1;
    }

    /// Drops all gathered gradients. Queued.
    ///
    /// # Errors
    /// The driver refused.
    pub fn zero_gradients(&mut self) -> Result<(), CudaError> {
        let Some(arena) = &mut self.arena else {
            self.state.lifecycle.zero_gradients();
            return Ok(());
        };
        self.streams.columns.residents.settle();
        let stream = &self.streams.columns.stream;
        arena.gradients.fill_zero(stream)?;
        // The losses in it went to the host with their pass.
        arena.results.fill_zero(stream)?;
        for slot in &mut arena.slots {
            slot.has_gradients = false;
            slot.has_alpha_gradient = false;
        }
        Ok(())
    }

    /// Ends a training step: alpha moves on in GRAFTING seeds, steps are counted.
    ///
    /// Nothing waits, unless a GRAFTING seed's strategy looks at what the device alone knows: weight drift
    /// ([`Strategy::DriftControlled`](crate::Strategy::DriftControlled)), the optimizer's gradient norm
    /// ([`Strategy::GradNormGated`](crate::Strategy::GradNormGated)), or, for a strategy of the user's, both. Those are fetched
    /// first.
    ///
    /// # Errors
    /// Something queued before, or the copy, failed; alpha and the step are as they were then.
    pub fn advance_step(&mut self) -> Result<(), CudaError> {
        let measured: Vec<_> = self.state.lifecycle.grafts_that_measure().collect();
        if self.stepped {
            for (seed, ..) in measured.iter().filter(|(_, drift, _)| *drift) {
                self.pull_parameters(*seed)?;
            }
            let norms: Vec<u32> =
                measured.iter().filter(|(.., norm)| *norm).map(|(seed, ..)| *seed).collect();
            self.pull_norms(&norms)?;
        }
        self.state.lifecycle.advance_step();
        Ok(())
    }

    /// Replaces a seed's flat parameters, as a caller's own optimizer does. Queued.
    ///
    /// # Errors
    /// [`CudaError::Engine`] as [`Layer::set_parameters`](crate::Layer::set_parameters), the layer unchanged; or the driver
    /// refused.
    pub fn set_parameters(&mut self, seed: usize, parameters: &[f32]) -> Result<(), CudaError> {
        self.streams.columns.residents.settle();
        self.ensure_arena()?;
        self.state.lifecycle.set_parameters(seed, parameters)?;
        self.revision += 1;
        let Some(arena) = &mut self.arena else { return Ok(()) };
        let Some(index) = u32::try_from(seed).ok().and_then(|seed| arena.find(seed)) else {
            return Ok(());
        };
        let columns = &self.streams.columns;
        let to = &mut arena.parameters.slice_mut(arena.slots[index].parameters.clone())?;
        columns.uploads.write(&columns.stream, to, parameters)
    }
}
