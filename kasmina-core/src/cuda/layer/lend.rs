//! For a layer whose parameters are variables of somebody else's on the same device, as candle's are: they come in before a
//! pass and their gradients go out after it, both queued.

use kasmina_sys::{DeviceSlice, DeviceSliceMut};

use super::CudaLayer;
use crate::cuda::error::CudaError;
use crate::layer::watched_seeds;
use crate::{Error, ForwardOptions, Result};

impl CudaLayer {
    /// Puts `values` in the place of a seed's parameters. The host learns of them at the next synchronization.
    ///
    /// # Errors
    /// [`Error::NoParameters`], a wrong length, or the driver refused.
    pub(crate) fn lend_parameters(
        &mut self,
        seed: usize,
        values: DeviceSlice<'_, f32>,
    ) -> Result<(), CudaError> {
        let (index, slot) = self.lent_slot(seed)?;
        let Some(arena) = &mut self.arena else { return Ok(()) };
        let to = &mut arena.parameters.slice_mut(slot)?;
        to.copy_from_device(values, &self.streams.columns.stream)?;
        arena.slots[index].lent = true;
        self.stepped = true;
        self.stale.moved.push(seed as u32);
        Ok(())
    }

    /// Copies a seed's parameters to `to`.
    ///
    /// # Errors
    /// As [`CudaLayer::lend_parameters`].
    pub(crate) fn parameters_to(
        &mut self,
        seed: usize,
        to: &mut DeviceSliceMut<'_, f32>,
    ) -> Result<(), CudaError> {
        let (_, slot) = self.lent_slot(seed)?;
        let Some(arena) = &self.arena else { return Ok(()) };
        let from = arena.parameters.slice(slot)?;
        Ok(to.copy_from_device(from, &self.streams.columns.stream)?)
    }

    /// Copies a trainable seed's gathered gradients to `to`; zeros where it has none. They stay.
    ///
    /// # Errors
    /// As [`CudaLayer::lend_parameters`].
    pub(crate) fn gradients_to(
        &mut self,
        seed: usize,
        to: &mut DeviceSliceMut<'_, f32>,
    ) -> Result<(), CudaError> {
        let (index, _) = self.lent_slot(seed)?;
        let stream = &self.streams.columns.stream;
        let Some(arena) = &self.arena else { return Ok(()) };
        let slot = &arena.slots[index];
        match &slot.trained {
            Some(range) if slot.has_gradients => {
                to.copy_from_device(arena.gradients.slice(range.clone())?, stream)?;
            }
            _ => to.fill_zero(stream)?,
        }
        Ok(())
    }

    /// The first seed with gathered gradients, by what the host knows without asking.
    pub(crate) fn seed_with_gradients(&self) -> Option<usize> {
        let Some(arena) = &self.arena else {
            let mut grown = self.state.lifecycle.grown_seeds();
            return grown.find(|(_, grown)| grown.gradients().is_some()).map(|(seed, _)| seed);
        };
        arena.slots.iter().find(|slot| slot.has_gradients).map(|slot| slot.seed as usize)
    }

    /// Whether a backward pass with `options` would do nothing but hand dL/dy on: nothing runs and nothing is measured.
    ///
    /// # Errors
    /// As a pass's.
    pub(crate) fn backward_is_idle(&mut self, options: &ForwardOptions) -> Result<bool, CudaError> {
        self.is_idle(options, self.state.telemetry.passes.saturating_sub(1))
    }

    /// The same of the backward pass of the next forward pass.
    ///
    /// # Errors
    /// As a pass's.
    pub(crate) fn next_backward_is_idle(
        &mut self,
        options: &ForwardOptions,
    ) -> Result<bool, CudaError> {
        self.is_idle(options, self.state.telemetry.passes)
    }

    fn is_idle(&mut self, options: &ForwardOptions, pass: u64) -> Result<bool, CudaError> {
        self.refresh(options)?;
        let runs = self.arena.as_ref().is_some_and(|arena| arena.runs(|_| true));
        let (telemetry, lifecycle) = (&self.state.telemetry, &self.state.lifecycle);
        Ok(!runs && watched_seeds(telemetry, lifecycle, options, pass).is_none())
    }

    /// A seed's place among the slots and its parameters' among all, with the device's memory made.
    fn lent_slot(&mut self, seed: usize) -> Result<(usize, std::ops::Range<usize>), CudaError> {
        let state = self.state(seed)?;
        self.streams.columns.residents.settle();
        self.ensure_arena()?;
        let index = self.arena.as_ref().and_then(|arena| arena.find(seed as u32));
        match (index, &self.arena) {
            (Some(index), Some(arena)) => Ok((index, arena.slots[index].parameters.clone())),
            _ => Err(Error::NoParameters { seed, state }.into()),
        }
    }
}
