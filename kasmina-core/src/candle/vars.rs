//! One candle variable a parameter tensor, kept in agreement with the layer.
//!
//! Both sides may change: candle's optimizers write the variables, the lifecycle and the built-in
//! optimizer write the layer. The values on which both last agreed tell which side moved.

use std::collections::BTreeMap;

use bytemuck::cast_slice;
use candle_core::{CpuStorage, Device, Storage, Var};

use super::{CandleError, CandleResult};
use crate::lifecycle::{Cause, GrownSeed, Lifecycle};
use crate::{BlueprintId, Error, Layer, State};

/// A seed's parameters as variables.
#[derive(Debug)]
pub(super) struct SeedVars {
    blueprint: BlueprintId,
    /// `seed3.down`, …
    pub(super) names: Vec<String>,
    pub(super) vars: Vec<Var>,
    /// The flat values on which variables and layer last agreed.
    agreed: Vec<f32>,
}

/// The variables of all seeds that own parameters.
#[derive(Debug, Default)]
pub(super) struct Variables {
    pub(super) seeds: BTreeMap<usize, SeedVars>,
    reborn: Reborn,
}

/// How much of a layer's history was looked at for seeds that were born again.
#[derive(Debug, Default)]
pub(super) struct Reborn {
    seen: u64,
}

impl Variables {
    /// Brings variables and layer into agreement, seed by seed; a seed in error does not keep the
    /// others from it. Returns the first error.
    pub(super) fn sync(&mut self, layer: &mut Layer) -> CandleResult<()> {
        self.reborn.forget(layer.lifecycle(), &mut self.seeds);
        self.seeds.retain(|&seed, _| layer.lifecycle().grown(seed).is_some());
        let grown: Vec<usize> = layer.lifecycle().grown_seeds().map(|(seed, _)| seed).collect();
        let mut first_error = Ok(());
        for seed in grown {
            let synced = self.sync_seed(seed, layer);
            first_error = first_error.and(synced);
        }
        first_error
    }

    /// Sets every variable to the layer's value.
    pub(super) fn reload(&mut self, layer: &Layer) -> CandleResult<()> {
        for (&seed, vars) in &mut self.seeds {
            if let Some(grown) = layer.lifecycle().grown(seed) {
                vars.write(grown)?;
            }
        }
        Ok(())
    }

    fn sync_seed(&mut self, seed: usize, layer: &mut Layer) -> CandleResult<()> {
        let state = layer.state(seed)?;
        let Some(grown) = layer.lifecycle().grown(seed) else {
            return Ok(());
        };
        let known = self.seeds.get_mut(&seed).filter(|vars| vars.fits(grown));
        let Some(vars) = known else {
            self.seeds.insert(seed, SeedVars::new(seed, grown)?);
            return Ok(());
        };
        let moved = vars.read_if_changed()?;
        let layer_moved = bits(grown.parameters()) != bits(&vars.agreed);
        match moved {
            None if layer_moved => vars.write(grown)?,
            None => {}
            Some(values) if bits(&values) == bits(grown.parameters()) => vars.agreed = values,
            Some(_) if layer_moved => return Err(CandleError::Conflict { seed }),
            Some(_) if !state.trainable() && state != State::Germinated => {
                return Err(Error::Frozen { seed, state }.into());
            }
            Some(values) => {
                layer.set_parameters(seed, &values)?;
                vars.agreed = values;
            }
        }
        Ok(())
    }
}

impl Reborn {
    /// A seed that was culled and germinated again, or restored, is another one: it gets new variables,
    /// so that no optimizer goes on with the moments of the old.
    pub(super) fn forget<V>(&mut self, lifecycle: &Lifecycle, seeds: &mut BTreeMap<usize, V>) {
        let history = lifecycle.history();
        let total = transitions_of(lifecycle);
        let new = total.checked_sub(self.seen).and_then(|new| usize::try_from(new).ok());
        self.seen = total;
        match new {
            Some(new) if new <= history.len() => {
                for entry in history.iter().rev().take(new) {
                    if entry.to == State::Germinated || entry.cause == Cause::Restore {
                        seeds.remove(&(entry.seed as usize));
                    }
                }
            }
            // Another layer stands in the first one's place, or the history forgot what happened.
            _ => seeds.clear(),
        }
    }
}

impl SeedVars {
    fn new(seed: usize, grown: &GrownSeed) -> CandleResult<Self> {
        let mut names = Vec::new();
        let mut vars = Vec::new();
        for (spec, values) in grown.tensors() {
            names.push(format!("seed{seed}.{}", spec.name));
            vars.push(Var::from_slice(values, spec.shape.as_slice(), &Device::Cpu)?);
        }
        let agreed = grown.parameters().to_vec();
        Ok(Self { blueprint: grown.blueprint(), names, vars, agreed })
    }

    /// Whether these are variables of the same blueprint and sizes.
    fn fits(&self, grown: &GrownSeed) -> bool {
        let specs = grown.layout().specs();
        self.blueprint == grown.blueprint()
            && self.vars.len() == specs.len()
            && specs.iter().zip(&self.vars).all(|(spec, var)| var.dims() == spec.shape)
    }

    /// The variables' flat values, if any bit differs from what was agreed.
    fn read_if_changed(&self) -> CandleResult<Option<Vec<f32>>> {
        let mut changed = false;
        let mut at = 0;
        for var in &self.vars {
            changed |= with_values(var, |values| {
                let agreed = &self.agreed[at..at + values.len()];
                at += values.len();
                bits(values) != bits(agreed)
            })?;
        }
        if !changed {
            return Ok(None);
        }
        let mut all = Vec::with_capacity(self.agreed.len());
        for var in &self.vars {
            with_values(var, |values| all.extend_from_slice(values))?;
        }
        Ok(Some(all))
    }

    /// Sets the variables to the layer's values; they stay the same variables.
    fn write(&mut self, grown: &GrownSeed) -> CandleResult<()> {
        for (var, (spec, values)) in self.vars.iter().zip(grown.tensors()) {
            let shape = spec.shape.as_slice();
            var.set(&candle_core::Tensor::from_slice(values, shape, &Device::Cpu)?)?;
        }
        self.agreed.clear();
        self.agreed.extend_from_slice(grown.parameters());
        Ok(())
    }
}

/// Transitions the layer has made since it was built.
pub(super) fn transitions(layer: &Layer) -> u64 {
    transitions_of(layer.lifecycle())
}

pub(super) fn transitions_of(lifecycle: &Lifecycle) -> u64 {
    let history = lifecycle.history();
    history.dropped() + history.len() as u64
}

/// Equality of parameters is equality of bits: −0 is not 0, and a NaN equals itself.
pub(super) fn bits(values: &[f32]) -> &[u32] {
    cast_slice(values)
}

/// Runs `f` on a variable's values. Variables are contiguous f32 on the CPU, because they are made here
/// and candle's `set` keeps shape and type.
fn with_values<R>(var: &Var, f: impl FnOnce(&[f32]) -> R) -> CandleResult<R> {
    let (storage, layout) = var.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(f(&values[start..end])),
        _ => {
            let what = "a parameter's variable";
            Err(CandleError::DType { what, found: var.dtype() })
        }
    }
}
