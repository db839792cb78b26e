//! What a backward pass must find as its forward pass left it. Parameters of seeds that learn are in the graph by value; for the
//! others the layer counts its own changes, so nothing is compared.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::super::vars::transitions_of;
use super::super::{CandleError, CandleResult};
use super::tensor::{cuda_error, new_storage, tensor_of, with_flat};
use crate::cuda::CudaLayer;
use crate::{BlueprintId, Stability, State};

/// Everything of a layer that its backward pass depends on.
#[derive(Debug)]
pub(super) struct Snapshot {
    transitions: u64,
    revision: u64,
    stability: Stability,
    seeds: Vec<SeedSnapshot>,
    packed: usize,
}

#[derive(Debug)]
struct SeedSnapshot {
    seed: usize,
    state: State,
    alpha: f32,
    blueprint: BlueprintId,
    /// In the packed parameters, if the seed learns.
    packed: Option<Range<usize>>,
}

impl Snapshot {
    /// Of a layer as it is; `is_packed`: whether there are packed parameters.
    pub(super) fn new(layer: &CudaLayer, is_packed: bool) -> Self {
        let lifecycle = layer.lifecycle();
        let table = lifecycle.table();
        let mut end = 0;
        let seeds = lifecycle.grown_seeds().map(|(seed, grown)| {
            let state = table.states()[seed];
            let learns = is_packed && state.trainable();
            let packed = learns.then(|| {
                let start = end;
                end += grown.parameters().len();
                start..end
            });
            let (alpha, blueprint) = (table.alphas()[seed], grown.blueprint());
            SeedSnapshot { seed, state, alpha, blueprint, packed }
        });
        let seeds: Vec<_> = seeds.collect();
        let transitions = transitions_of(lifecycle);
        let revision = layer.parameters_revision();
        Self { transitions, revision, stability: layer.stability(), seeds, packed: end }
    }

    /// The seeds that learn and their places in the packed parameters.
    pub(super) fn packed_seeds(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        self.seeds.iter().filter_map(|seed| Some((seed.seed, seed.packed.clone()?)))
    }

    /// Checks that the layer still is what it was, but for the values of variables.
    pub(super) fn check(&self, layer: &CudaLayer) -> CandleResult<()> {
        let changed = |change: String| Err(CandleError::Changed { change });
        let lifecycle = layer.lifecycle();
        let table = lifecycle.table();
        for SeedSnapshot { seed, state, alpha, blueprint, .. } in &self.seeds {
            let Some(grown) = lifecycle.grown(*seed) else {
                return changed(format!("seed {seed} was {state} and owns no parameters now"));
            };
            let (state_now, alpha_now) = (table.states()[*seed], table.alphas()[*seed]);
            if state_now != *state {
                return changed(format!("seed {seed} was {state} and is {state_now} now"));
            }
            if alpha_now.to_bits() != alpha.to_bits() {
                return changed(format!("alpha of seed {seed} was {alpha} and is {alpha_now} now"));
            }
            if grown.blueprint() != *blueprint {
                return changed(format!("seed {seed} has grown anew"));
            }
        }
        if lifecycle.grown_seeds().len() != self.seeds.len()
            || transitions_of(lifecycle) != self.transitions
        {
            return changed("seeds have changed their states".into());
        }
        if layer.parameters_revision() != self.revision {
            return changed("parameters were changed in the layer".into());
        }
        if layer.stability() != self.stability {
            return changed("its stability mode was set anew".into());
        }
        Ok(())
    }

    /// Gives the layer the packed parameters.
    pub(super) fn lend(&self, layer: &mut CudaLayer, packed: &Tensor) -> CandleResult<()> {
        let stream = layer.stream().clone();
        with_flat(&stream, packed, |values| {
            for (seed, range) in self.packed_seeds() {
                layer.lend_parameters(seed, values.slice(range).map_err(cuda_error)?)?;
            }
            Ok(())
        })
    }

    /// The gradients of the packed parameters.
    pub(super) fn take_gradients(
        &self,
        layer: &mut CudaLayer,
        device: &Device,
    ) -> CandleResult<Tensor> {
        let stream = layer.stream().clone();
        let storage = new_storage::<f32>(device, &stream, self.packed, |mut all| {
            for (seed, range) in self.packed_seeds() {
                layer.gradients_to(seed, &mut all.slice_mut(range).map_err(cuda_error)?)?;
            }
            Ok(())
        })?;
        Ok(tensor_of(storage, self.packed.into()))
    }
}
