//! One candle variable a parameter tensor, on the device, and which side's values count.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Device, Tensor, Var};

use super::super::CandleResult;
use super::super::vars::{Reborn, transitions_of};
use super::tensor::{cuda_error, new_storage, tensor_of, with_flat};
use crate::cuda::CudaLayer;
use crate::lifecycle::GrownSeed;
use crate::{BlueprintId, State};

/// A seed's parameters as variables.
#[derive(Debug)]
struct SeedVars {
    blueprint: BlueprintId,
    /// `seed3.down`, …
    names: Vec<String>,
    vars: Vec<Var>,
    /// Whether the variables' values counted when last looked at.
    lends: bool,
}

/// The variables of all seeds that own parameters.
#[derive(Debug, Default)]
pub(super) struct Variables {
    seeds: BTreeMap<usize, SeedVars>,
    reborn: Reborn,
    /// Transitions and own changes of the layer that the variables have; `None` before the first look.
    seen: Option<(u64, u64)>,
}

/// The latest gradients of seeds that learn, whose norms the host has not asked for.
#[derive(Debug, Default)]
pub(super) struct Norms(BTreeMap<usize, (Tensor, Range<usize>)>);

/// Whether a seed's variables are the truth of its parameters.
fn lends(state: State) -> bool {
    state.trainable() || state == State::Germinated
}

impl Variables {
    /// Makes variables of new seeds, drops those of seeds that are gone, and takes the layer's values where they count. Waits where a
    /// seed is new.
    pub(super) fn sync(&mut self, layer: &mut CudaLayer, device: &Device) -> CandleResult<()> {
        let seen = (transitions_of(layer.lifecycle()), layer.parameters_revision());
        if self.seen == Some(seen) {
            return Ok(());
        }
        self.reborn.forget(layer.lifecycle(), &mut self.seeds);
        let moved = self.seen.is_some_and(|(_, revision)| revision != seen.1);
        let grown: Vec<usize> = layer.lifecycle().grown_seeds().map(|(seed, _)| seed).collect();
        self.seeds.retain(|seed, _| grown.binary_search(seed).is_ok());
        for seed in grown {
            let lends = lends(layer.state(seed)?);
            let Some(grown) = layer.lifecycle().grown(seed) else { continue };
            let known = self.seeds.get_mut(&seed).filter(|vars| vars.fits(grown));
            let thawed = known.as_ref().is_some_and(|vars| lends && !vars.lends);
            let is_new = known.is_none();
            let vars = match known {
                Some(vars) => vars,
                None => {
                    let vars = SeedVars::new(seed, grown, device)?;
                    self.seeds.entry(seed).insert_entry(vars).into_mut()
                }
            };
            vars.lends = lends;
            if moved || thawed || is_new {
                vars.write(seed, layer, device)?;
            }
        }
        self.seen = Some(seen);
        Ok(())
    }

    /// Gives the layer the variables' values where these count. Returns those of the seeds that learn as one vector that the graph
    /// can trace back to them; `None` if there are none.
    pub(super) fn lend(&self, layer: &mut CudaLayer) -> CandleResult<Option<Tensor>> {
        let mut places = Vec::new();
        let mut learning: Vec<Tensor> = Vec::new();
        let mut end = 0;
        for (&seed, vars) in self.seeds.iter().filter(|(_, vars)| vars.lends) {
            let flat = vars.vars.iter().map(|var| var.flatten_all());
            let flat = flat.collect::<candle_core::Result<Vec<_>>>()?;
            let len: usize = flat.iter().map(Tensor::elem_count).sum();
            if layer.state(seed)?.trainable() {
                places.push((seed, end..end + len));
                end += len;
                learning.extend(flat);
            } else {
                lend(layer, &packed(&flat)?, &[(seed, 0..len)])?;
            }
        }
        if learning.is_empty() {
            return Ok(None);
        }
        let packed = packed(&learning)?;
        lend(layer, &packed, &places)?;
        Ok(Some(packed))
    }

    /// Sets every variable to the layer's value.
    pub(super) fn reload(&mut self, layer: &mut CudaLayer, device: &Device) -> CandleResult<()> {
        self.sync(layer, device)?;
        for (&seed, vars) in &self.seeds {
            vars.write(seed, layer, device)?;
        }
        Ok(())
    }

    /// The variables of seeds that learn.
    pub(super) fn trainable(&self, layer: &CudaLayer) -> impl Iterator<Item = &Var> {
        let learns = |seed: usize| layer.state(seed).is_ok_and(State::trainable);
        let seeds = self.seeds.iter().filter(move |(seed, _)| learns(**seed));
        seeds.flat_map(|(_, seed)| &seed.vars)
    }

    /// All variables by name.
    pub(super) fn named(&self) -> Vec<(String, Var)> {
        let seeds = self.seeds.values();
        seeds.flat_map(|s| s.names.iter().cloned().zip(s.vars.iter().cloned())).collect()
    }
}

impl SeedVars {
    fn new(seed: usize, grown: &GrownSeed, device: &Device) -> CandleResult<Self> {
        let (mut names, mut vars) = (Vec::new(), Vec::new());
        for (spec, values) in grown.tensors() {
            names.push(format!("seed{seed}.{}", spec.name));
            vars.push(Var::from_slice(values, spec.shape.as_slice(), device)?);
        }
        Ok(Self { blueprint: grown.blueprint(), names, vars, lends: false })
    }

    /// Whether these are variables of the same blueprint and sizes.
    fn fits(&self, grown: &GrownSeed) -> bool {
        let specs = grown.layout().specs();
        self.blueprint == grown.blueprint()
            && self.vars.len() == specs.len()
            && specs.iter().zip(&self.vars).all(|(spec, var)| var.dims() == spec.shape)
    }

    /// Sets the variables to the layer's values; they stay the same variables.
    fn write(&self, seed: usize, layer: &mut CudaLayer, device: &Device) -> CandleResult<()> {
        let len: usize = self.vars.iter().map(|var| var.elem_count()).sum();
        let stream = layer.stream().clone();
        let storage = new_storage::<f32>(device, &stream, len, |mut all| {
            Ok(layer.parameters_to(seed, &mut all)?)
        })?;
        let all = tensor_of(storage, len.into());
        let mut start = 0;
        for var in &self.vars {
            var.set(&all.narrow(0, start, var.elem_count())?.reshape(var.shape())?)?;
            start += var.elem_count();
        }
        Ok(())
    }
}

/// One vector of several, in memory of its own: a later write to a variable must not reach it.
fn packed(flat: &[Tensor]) -> candle_core::Result<Tensor> {
    match flat {
        [one] => one.copy(),
        all => Tensor::cat(all, 0),
    }
}

/// Gives the layer the parts of `packed` that are its seeds' parameters.
fn lend(
    layer: &mut CudaLayer,
    packed: &Tensor,
    places: &[(usize, Range<usize>)],
) -> CandleResult<()> {
    let stream = layer.stream().clone();
    with_flat(&stream, packed, |values| {
        for (seed, range) in places {
            layer.lend_parameters(*seed, values.slice(range.clone()).map_err(cuda_error)?)?;
        }
        Ok(())
    })
}

impl Norms {
    /// Keeps the gradients of a pass until somebody asks for their norms, or the next pass has others.
    pub(super) fn wait_in(
        &mut self,
        gradients: &Tensor,
        seeds: impl Iterator<Item = (usize, Range<usize>)>,
    ) {
        for (seed, range) in seeds {
            self.0.insert(seed, (gradients.clone(), range));
        }
    }

    /// The norms of the seeds that are `wanted`. Waits, where there are some.
    pub(super) fn take(
        &mut self,
        wanted: impl Fn(usize) -> bool,
    ) -> CandleResult<Vec<(usize, f64)>> {
        let mut norms = Vec::new();
        while let Some((seed, (gradients, range))) = self
            .0
            .iter()
            .find(|(seed, _)| wanted(**seed))
            .map(|(seed, waits)| (*seed, waits.clone()))
        {
            let values = gradients.narrow(0, range.start, range.len())?.to_vec1::<f32>()?;
            let square: f64 = values.iter().map(|&g| f64::from(g).powi(2)).sum();
            // A norm that is not a number is the worst, as with losses.
            norms.push((seed, if square.is_nan() { f64::INFINITY } else { square.sqrt() }));
            self.0.remove(&seed);
        }
        Ok(norms)
    }
}
