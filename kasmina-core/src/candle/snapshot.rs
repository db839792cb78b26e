//! What a backward pass must find as its forward pass left it.

use super::vars::{bits, transitions};
use super::{CandleError, CandleResult};
use crate::{BlueprintId, Layer, Stability, State};

/// Everything of a layer that its backward pass depends on. Trainable parameters are kept by value, so
/// that an optimizer may step between the two; of frozen ones a checksum is enough.
#[derive(Debug)]
pub(super) struct Snapshot {
    transitions: u64,
    stability: Stability,
    seeds: Vec<SeedSnapshot>,
}

#[derive(Debug)]
struct SeedSnapshot {
    seed: usize,
    state: State,
    alpha: f32,
    blueprint: BlueprintId,
    parameters: Parameters,
}

#[derive(Debug)]
enum Parameters {
    Trainable(Vec<f32>),
    Frozen(u32),
}

impl Snapshot {
    pub(super) fn new(layer: &Layer) -> Self {
        let table = layer.lifecycle().table();
        let seeds = layer.lifecycle().grown_seeds().map(|(seed, grown)| {
            let state = table.states()[seed];
            let parameters = grown.parameters();
            SeedSnapshot {
                seed,
                state,
                alpha: table.alphas()[seed],
                blueprint: grown.blueprint(),
                parameters: if state.trainable() {
                    Parameters::Trainable(parameters.to_vec())
                } else {
                    Parameters::Frozen(sum(parameters))
                },
            }
        });
        Self {
            transitions: transitions(layer),
            stability: layer.stability(),
            seeds: seeds.collect(),
        }
    }

    /// The seeds that get parameter gradients, ascending.
    pub(super) fn trainable_seeds(&self) -> impl Iterator<Item = usize> {
        self.trainable().map(|(seed, _)| seed)
    }

    /// The same with the values that the forward pass used.
    pub(super) fn trainable(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.seeds.iter().filter_map(|seed| match &seed.parameters {
            Parameters::Trainable(values) => Some((seed.seed, values.as_slice())),
            Parameters::Frozen(_) => None,
        })
    }

    /// Checks that the layer still is what it was, but for the values of trainable parameters.
    pub(super) fn check(&self, layer: &Layer) -> CandleResult<()> {
        let changed = |change: String| Err(CandleError::Changed { change });
        let lifecycle = layer.lifecycle();
        let table = lifecycle.table();
        for before in &self.seeds {
            let SeedSnapshot { seed, state, alpha, .. } = *before;
            let Some(grown) = lifecycle.grown(seed) else {
                return changed(format!("seed {seed} was {state} and owns no parameters now"));
            };
            let (state_now, alpha_now) = (table.states()[seed], table.alphas()[seed]);
            if state_now != state {
                return changed(format!("seed {seed} was {state} and is {state_now} now"));
            }
            if alpha_now.to_bits() != alpha.to_bits() {
                return changed(format!("alpha of seed {seed} was {alpha} and is {alpha_now} now"));
            }
            let same_parameters = match &before.parameters {
                Parameters::Trainable(values) => values.len() == grown.parameters().len(),
                Parameters::Frozen(before) => *before == sum(grown.parameters()),
            };
            if grown.blueprint() != before.blueprint || !same_parameters {
                return changed(format!("seed {seed} has grown anew"));
            }
        }
        if lifecycle.grown_seeds().len() != self.seeds.len()
            || transitions(layer) != self.transitions
        {
            return changed("seeds have changed their states".into());
        }
        if layer.stability() != self.stability {
            return changed("its stability mode was set anew".into());
        }
        Ok(())
    }
}

fn sum(parameters: &[f32]) -> u32 {
    crc32fast::hash(bytemuck::cast_slice(bits(parameters)))
}
