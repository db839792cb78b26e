//! Device memory of the seeds that own parameters: one buffer for each kind of number, all seeds one after the other.
//!
//! It is made from the host's copy of the layer, and made anew whenever a seed changes its state. Between two such times no
//! address in it changes, so that jobs are written once.

use std::ops::Range;

use kasmina_sys::{DeviceBuffer, Stream};

use super::work::{Work, kind};
use crate::cuda::error::CudaError;
use crate::cuda::job::{KIND_CONV_FILTER, SeedJob, SeedResult};
use crate::cuda::seeds::{OptimizerJob, OptimizerRecord};
use crate::lifecycle::{GrownSeed, Lifecycle};
use crate::{Blueprint, MAX_TAPS, State};

/// A seed's numbers begin at multiples of this many floats, so that they can be read by packets of 16 bytes.
const ALIGNMENT: usize = 4;

/// One seed, and what the host knows of it without asking the device.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) seed: u32,
    pub(super) columns: Range<usize>,
    pub(super) blueprint: Blueprint,
    /// In `Arena::parameters`.
    pub(super) parameters: Range<usize>,
    /// In the gradients and both moments; `None` while frozen.
    pub(super) trained: Option<Range<usize>>,
    taps: Option<usize>,
    /// As of the last call.
    pub(super) work: Work,
    pub(super) job: Option<SeedJob>,
    /// Whether a backward pass has added to the gradients since they were last consumed, and to alpha's.
    pub(super) has_gradients: bool,
    pub(super) has_alpha_gradient: bool,
    /// Whether the device knows a later gradient norm than the host.
    pub(super) norm_waits: bool,
    /// Whether its parameters were written by others since the host last saw them.
    pub(super) lent: bool,
}

/// What the device holds for the seeds that own parameters.
#[derive(Debug)]
pub(super) struct Arena {
    /// Ascending by seed.
    pub(super) slots: Vec<Slot>,
    pub(super) parameters: DeviceBuffer<f32>,
    pub(super) gradients: DeviceBuffer<f32>,
    pub(super) first: DeviceBuffer<f32>,
    pub(super) second: DeviceBuffer<f32>,
    taps: DeviceBuffer<f32>,
    /// One a slot, as the records.
    pub(super) results: DeviceBuffer<SeedResult>,
    pub(super) records: DeviceBuffer<OptimizerRecord>,
    /// Room for a job a slot, an index a slot, and an optimizer's job a slot.
    pub(super) jobs: DeviceBuffer<SeedJob>,
    pub(super) changed: DeviceBuffer<u32>,
    pub(super) steps: DeviceBuffer<OptimizerJob>,
    /// Room for an index a slot: what a graph lowers behind the optimizer.
    pub(super) lowered: DeviceBuffer<u32>,
    /// What the device was last given of these.
    pub(super) host_jobs: Vec<SeedJob>,
    pub(super) host_changed: Vec<u32>,
    pub(super) host_steps: Vec<OptimizerJob>,
    pub(super) host_lowered: Vec<u32>,
}

/// Offsets of the numbers of seeds laid out one after the other.
#[derive(Default)]
struct Layout {
    end: usize,
}

impl Layout {
    fn place(&mut self, len: usize) -> Range<usize> {
        let start = self.end;
        self.end = (start + len).next_multiple_of(ALIGNMENT);
        start..start + len
    }
}

impl Arena {
    /// Copies what the seeds own to the device. Waits.
    ///
    /// # Errors
    /// Out of memory, or the copy failed.
    pub(super) fn new(stream: &Stream, lifecycle: &Lifecycle) -> Result<Self, CudaError> {
        let slots = slots(lifecycle)?;
        let (mut parameters, mut gradients) = (Vec::new(), Vec::new());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let (mut results, mut records) = (Vec::new(), Vec::new());
        for (slot, (_, grown)) in slots.iter().zip(lifecycle.grown_seeds()) {
            put(&mut parameters, &slot.parameters, &grown.parameters);
            let optimizer = grown.optimizer.as_ref();
            if let Some(range) = &slot.trained {
                put(&mut gradients, range, &grown.gradients);
                let moments = optimizer.map(|o| (o.first.as_slice(), o.second.as_slice()));
                let (m, v) = moments.unwrap_or_default();
                put(&mut first, range, m);
                put(&mut second, range, v);
            }
            let alpha = grown.alpha_gradient.unwrap_or(0.0);
            results.push(SeedResult::new(grown.reconstruction.unwrap_or(0.0), alpha));
            records.push(OptimizerRecord {
                updates: optimizer.map_or(0, |state| state.updates),
                ..OptimizerRecord::default()
            });
        }
        let taps = slots.iter().filter(|slot| slot.taps.is_some()).count() * MAX_TAPS;
        let n = slots.len();
        Ok(Self {
            parameters: DeviceBuffer::from_host(stream, &parameters)?,
            gradients: DeviceBuffer::from_host(stream, &gradients)?,
            first: DeviceBuffer::from_host(stream, &first)?,
            second: DeviceBuffer::from_host(stream, &second)?,
            taps: DeviceBuffer::zeroed(stream, taps)?,
            results: DeviceBuffer::from_host(stream, &results)?,
            records: DeviceBuffer::from_host(stream, &records)?,
            jobs: DeviceBuffer::zeroed(stream, n)?,
            changed: DeviceBuffer::zeroed(stream, n)?,
            steps: DeviceBuffer::zeroed(stream, n)?,
            lowered: DeviceBuffer::zeroed(stream, n)?,
            slots,
            host_jobs: Vec::new(),
            host_changed: Vec::new(),
            host_steps: Vec::new(),
            host_lowered: Vec::new(),
        })
    }

    /// The index of a seed's slot.
    pub(super) fn find(&self, seed: u32) -> Option<usize> {
        self.slots.binary_search_by_key(&seed, |slot| slot.seed).ok()
    }

    /// The index of a seed's job among those that run.
    pub(super) fn job_index(&self, seed: u32) -> Option<usize> {
        self.host_jobs.binary_search_by_key(&seed, |job| job.seed).ok()
    }

    /// The job of a slot for `work`.
    ///
    /// # Errors
    /// [`CudaError::UserBlueprint`].
    pub(super) fn job(&self, index: usize, work: &Work) -> Result<Option<SeedJob>, CudaError> {
        let slot = &self.slots[index];
        let Some(branch) = work.branch else { return Ok(None) };
        let (kind, width, activation) =
            kind(&slot.blueprint).ok_or(CudaError::UserBlueprint { seed: slot.seed as usize })?;
        let gradients = slot.trained.as_ref().filter(|_| work.gradients);
        Ok(Some(SeedJob {
            parameters: at(&self.parameters, slot.parameters.start),
            gradients: gradients.map_or(0, |range| at(&self.gradients, range.start)),
            taps: slot.taps.map_or(0, |start| at(&self.taps, start)),
            result: at(&self.results, index),
            // Columns are counted in 31 bits everywhere.
            first_column: slot.columns.start as u32,
            columns: slot.columns.len() as u32,
            kind,
            width,
            activation,
            role: branch.role.code(),
            alpha: branch.alpha,
            seed: slot.seed,
        }))
    }

    /// The optimizer's job of a slot; `None` while frozen.
    pub(super) fn step(&self, index: usize) -> Option<OptimizerJob> {
        let slot = &self.slots[index];
        let range = slot.trained.as_ref()?;
        Some(OptimizerJob {
            parameters: at(&self.parameters, slot.parameters.start),
            first: at(&self.first, range.start),
            second: at(&self.second, range.start),
            gradients: at(&self.gradients, range.start),
            result: at(&self.results, index),
            record: at(&self.records, index),
            count: range.len() as u64,
        })
    }

    /// Whether any job that runs is of one of the kinds.
    pub(super) fn runs(&self, is: impl Fn(&SeedJob) -> bool) -> bool {
        self.host_jobs.iter().any(is)
    }
}

/// Whether lowering has something to do for a job: matrices run on their parameters as they are.
pub(super) fn is_lowered(job: &SeedJob) -> bool {
    job.is_pointwise() || job.kind == KIND_CONV_FILTER
}

/// The seeds that own parameters and where their numbers go.
fn slots(lifecycle: &Lifecycle) -> Result<Vec<Slot>, CudaError> {
    let (mut parameters, mut trained, mut filters) = (Layout::default(), Layout::default(), 0);
    let slot = |(seed, grown): (usize, &GrownSeed)| {
        let blueprint = lifecycle.registry().get(grown.blueprint())?.clone();
        let n = grown.parameters().len();
        let taps = matches!(blueprint, Blueprint::ConvFilter { .. }).then(|| {
            filters += 1;
            (filters - 1) * MAX_TAPS
        });
        Ok(Slot {
            seed: seed as u32,
            columns: lifecycle.layout().columns(seed),
            blueprint,
            parameters: parameters.place(n),
            trained: lifecycle.state(seed).is_ok_and(State::trainable).then(|| trained.place(n)),
            taps,
            work: Work::default(),
            job: None,
            has_gradients: grown.has_gradients,
            has_alpha_gradient: grown.alpha_gradient.is_some(),
            norm_waits: false,
            lent: false,
        })
    };
    lifecycle.grown_seeds().map(slot).collect()
}

/// Puts a seed's numbers in their place, zeros where there are none.
fn put(all: &mut Vec<f32>, range: &Range<usize>, values: &[f32]) {
    all.resize(range.end.next_multiple_of(ALIGNMENT), 0.0);
    // A seed without optimizer state has no moments yet.
    if values.len() == range.len() {
        all[range.clone()].copy_from_slice(values);
    }
}

fn at<T: kasmina_sys::DeviceCopy>(buffer: &DeviceBuffer<T>, index: usize) -> u64 {
    buffer.address() + (index * size_of::<T>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InitialSeed, Layer, SeedLayout};

    #[test]
    fn every_seed_has_its_own_place() {
        let states = [State::Training, State::Fossilized, State::Dormant, State::Grafting];
        let kinds = [
            Blueprint::ConvFilter { taps: 3 },
            Blueprint::Residual,
            Blueprint::Residual,
            Blueprint::ConvFilter { taps: 16 },
        ];
        let mut builder = Layer::builder(SeedLayout::new(21, 6).unwrap());
        for (seed, (state, blueprint)) in states.into_iter().zip(kinds).enumerate() {
            let blueprint = state.owns_parameters().then_some(blueprint);
            builder =
                builder.seed(seed, InitialSeed { state, blueprint, ..InitialSeed::default() });
        }
        let layer = builder.build().unwrap();
        let slots = slots(layer.lifecycle()).unwrap();
        let places: Vec<_> = slots
            .iter()
            .map(|s| (s.seed, s.columns.clone(), s.parameters.clone(), s.trained.clone(), s.taps))
            .collect();
        let expected = [
            (0, 0..6, 0..4, Some(0..4), Some(0)),
            (1, 6..12, 4..11, None, None),
            (3, 18..21, 12..29, Some(4..21), Some(16)),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn numbers_are_put_where_they_belong() {
        let mut all = Vec::new();
        put(&mut all, &(0..3), &[1.0, 2.0, 3.0]);
        put(&mut all, &(4..6), &[]);
        put(&mut all, &(8..9), &[9.0]);
        assert_eq!(all, [1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0]);
    }
}
