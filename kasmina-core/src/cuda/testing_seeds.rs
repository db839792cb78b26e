//! A door for this crate's GPU tests to the kernels that go seed by seed and to those that read the whole input. No part of the
//! public interface.

use std::ops::Range;
use std::sync::Arc;

use kasmina_sys::{DeviceBuffer, Stream};
use kasmina_telemetry::Histogram;

use super::columns::Columns;
use super::engine::Engine;
use super::error::CudaError;
use super::job::{
    JobList, KIND_ATTENTION_HEAD, KIND_BOTTLENECK, KIND_CONV_FILTER, KIND_DENSE,
    KIND_MLP_EXPANSION, KIND_RESIDUAL, ROLE_PATH, SeedJob, SeedResult,
};
use super::matrix::DeviceMatRef;
use super::params::RawBounds;
use super::seeds::{self, LargeSeeds, OptimizerJob, OptimizerJobs, OptimizerRecord, StrictScratch};
use super::tape::Tape;
use crate::lifecycle::OptimizerState;
use crate::optimizer::SkipReason;
use crate::{
    AdamW, Blueprint, Bounds, Element, InitialSeed, Lifecycle, LifecycleConfig, Registry,
    SeedLayout, State,
};

/// A seed to be lowered.
#[derive(Clone, Debug)]
pub struct LoweredSeed {
    /// Which.
    pub seed: usize,
    /// A built-in kind.
    pub blueprint: Blueprint,
    /// Flat, in the blueprint's order.
    pub parameters: Vec<f32>,
    /// In (0, 1].
    pub alpha: f32,
}

/// Floats from one filter's taps to the next: a filter may write 16 of them.
pub const TAPS_PITCH: usize = 20;

/// One layer's columns on the device.
#[derive(Debug)]
pub struct SeedsDoor {
    columns: Columns,
    strict: StrictScratch,
}

impl SeedsDoor {
    /// A layer whose columns are all copied.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        engine: &Arc<Engine>,
        stream: &Stream,
        layout: SeedLayout,
    ) -> Result<Self, CudaError> {
        let columns = Columns::new(engine, stream, layout)?;
        Ok(Self { columns, strict: StrictScratch::default() })
    }

    /// Lowers the jobs of `list` that `changed` names into programs and taps that were `poison` before, and returns both:
    /// programs by column, and [`TAPS_PITCH`] floats for each job.
    ///
    /// # Errors
    /// The driver refused.
    pub fn lower(
        &mut self,
        list: &[LoweredSeed],
        changed: &[u32],
        poison: f32,
    ) -> Result<(Vec<[f32; 4]>, Vec<f32>), CudaError> {
        let (stream, layout) = (self.columns.stream.clone(), self.columns.layout);
        let flat: Vec<f32> = list.iter().flat_map(|job| job.parameters.iter().copied()).collect();
        let parameters = DeviceBuffer::from_host(&stream, &flat)?;
        let taps = DeviceBuffer::from_host(&stream, &vec![poison; list.len() * TAPS_PITCH])?;
        self.columns.programs.copy_from_host(&vec![[poison; 4]; layout.hidden()])?;
        let mut offset = 0;
        let host: Vec<SeedJob> = list
            .iter()
            .enumerate()
            .map(|(i, job)| {
                let (kind, width) = match job.blueprint {
                    Blueprint::Residual => (KIND_RESIDUAL, 0),
                    Blueprint::AttentionHead => (KIND_ATTENTION_HEAD, 0),
                    Blueprint::MlpExpansion => (KIND_MLP_EXPANSION, 0),
                    Blueprint::ConvFilter { taps } => (KIND_CONV_FILTER, taps as u32),
                    Blueprint::Bottleneck { .. } => (KIND_BOTTLENECK, 0),
                    // User kinds have no kernels and are never given.
                    _ => (KIND_DENSE, 0),
                };
                let columns = layout.columns(job.seed);
                let address = parameters.address() + offset * 4;
                offset += job.parameters.len() as u64;
                SeedJob {
                    parameters: address,
                    gradients: 0,
                    taps: match kind {
                        KIND_CONV_FILTER => taps.address() + (i * TAPS_PITCH * 4) as u64,
                        _ => 0,
                    },
                    result: 0,
                    first_column: columns.start as u32,
                    columns: columns.len() as u32,
                    kind,
                    width,
                    activation: 0,
                    role: ROLE_PATH,
                    alpha: job.alpha,
                    seed: job.seed as u32,
                }
            })
            .collect();
        let device = DeviceBuffer::from_host(&stream, &host)?;
        let indices = DeviceBuffer::from_host(&stream, changed)?;
        let jobs = JobList { host: &host, device: device.address() };
        seeds::lower(&self.columns, jobs, indices.address(), changed.len() as u32)?;
        Ok((self.columns.programs.to_vec()?, taps.to_vec()?))
    }

    /// Strict mode's bounds for `x`.
    ///
    /// # Errors
    /// The driver refused.
    pub fn strict_bounds<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        fixed: Bounds,
        sigmas: f32,
    ) -> Result<Option<Bounds>, CudaError> {
        let Bounds { guarded, epsilon, lower, upper } = fixed;
        let fixed = RawBounds { guarded: guarded.into(), epsilon, lower, upper };
        self.columns.stream.join(x.data().home())?;
        let scratch = &mut self.strict;
        seeds::strict_bounds(&self.columns, scratch, T::DTYPE, x.view(), fixed, sigmas)?;
        x.data().home().join(&self.columns.stream)?;
        let found = self.columns.bounds.to_vec()?;
        Ok(found.first().map(|raw| {
            let RawBounds { guarded, epsilon, lower, upper } = *raw;
            Bounds { guarded: guarded != 0, epsilon, lower, upper }
        }))
    }

    /// Who is measured from now on, a byte a seed; `None` for all.
    ///
    /// # Errors
    /// The copy failed.
    pub fn watch(&mut self, watched: Option<&[u8]>) -> Result<(), CudaError> {
        let stream = &self.columns.stream;
        self.columns.watched =
            watched.map(|bytes| DeviceBuffer::from_host(stream, bytes)).transpose()?;
        Ok(())
    }

    /// Counts `x` into the histograms from `first` on, one a seed.
    ///
    /// # Errors
    /// A shape that does not fit, or the driver refused.
    pub fn count_histograms<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        histograms: &mut DeviceBuffer<Histogram>,
        first: usize,
    ) -> Result<(), CudaError> {
        let stream = &self.columns.stream;
        let out = histograms.slice_mut(first..first + self.columns.layout.seeds())?;
        stream.join(x.data().home())?;
        stream.join(out.home())?;
        seeds::count_histograms(&self.columns, T::DTYPE, x.view(), out.address())?;
        x.data().home().join(stream)?;
        Ok(out.home().join(stream)?)
    }
}

/// What the optimizer has put on record of a seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// Since the parameters were born.
    pub updates: u64,
    /// The latest update's gradient norm.
    pub norm: f64,
    /// Updates, clipped ones among them, and steps that changed nothing.
    pub counts: [u32; 3],
    /// Why the first of those did not: 1 a gradient that is not finite, 2 an overflow.
    pub verdict: u32,
    /// The parameter to blame.
    pub index: u32,
}

/// Memory of an optimizer step: the seeds' parameters, with whatever lies between them.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerMemory {
    /// Parameters.
    pub parameters: Vec<f32>,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
    /// Gradients.
    pub gradients: Vec<f32>,
}

/// Seeds on the device and their optimizer.
#[derive(Debug)]
pub struct OptimizerDoor {
    engine: Arc<Engine>,
    stream: Stream,
    parameters: DeviceBuffer<f32>,
    first: DeviceBuffer<f32>,
    second: DeviceBuffer<f32>,
    gradients: DeviceBuffer<f32>,
    results: DeviceBuffer<SeedResult>,
    records: DeviceBuffer<OptimizerRecord>,
    jobs: DeviceBuffer<OptimizerJob>,
    most: u64,
    large: LargeSeeds,
}

impl OptimizerDoor {
    /// Seeds whose parameters lie at `ranges` of `memory`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        engine: &Arc<Engine>,
        stream: &Stream,
        memory: &OptimizerMemory,
        ranges: &[Range<usize>],
    ) -> Result<Self, CudaError> {
        let parameters = DeviceBuffer::from_host(stream, &memory.parameters)?;
        let first = DeviceBuffer::from_host(stream, &memory.first)?;
        let second = DeviceBuffer::from_host(stream, &memory.second)?;
        let gradients = DeviceBuffer::from_host(stream, &memory.gradients)?;
        let results = DeviceBuffer::from_host(stream, &vec![SeedResult::default(); ranges.len()])?;
        let records = DeviceBuffer::zeroed(stream, ranges.len())?;
        let jobs: Vec<_> = ranges
            .iter()
            .enumerate()
            .map(|(i, range)| {
                let start = range.start as u64 * 4;
                OptimizerJob {
                    parameters: parameters.address() + start,
                    first: first.address() + start,
                    second: second.address() + start,
                    gradients: gradients.address() + start,
                    result: results.address() + (i * size_of::<SeedResult>()) as u64,
                    record: records.address() + (i * size_of::<OptimizerRecord>()) as u64,
                    count: range.len() as u64,
                }
            })
            .collect();
        Ok(Self {
            jobs: DeviceBuffer::from_host(stream, &jobs)?,
            most: jobs.iter().map(|job| job.count).max().unwrap_or(0),
            large: LargeSeeds::default(),
            engine: Arc::clone(engine),
            stream: stream.clone(),
            parameters,
            first,
            second,
            gradients,
            results,
            records,
        })
    }

    /// One step with these gradients, each seed's alpha gradient being `alpha` before.
    ///
    /// # Errors
    /// The driver refused.
    pub fn step(&mut self, adamw: &AdamW, gradients: &[f32], alpha: f32) -> Result<(), CudaError> {
        self.gradients.copy_from_host(gradients)?;
        let mut result = SeedResult::default();
        result.alpha = alpha;
        self.results.copy_from_host(&vec![result; self.results.len()])?;
        let (list, count) = (self.jobs.address(), self.jobs.len() as u32);
        let jobs = OptimizerJobs { list, count, most: self.most };
        let onto = (&self.stream, &Tape::default());
        seeds::optimizer_step(&self.engine, onto, &mut self.large, jobs, adamw)
    }

    /// The memory now.
    ///
    /// # Errors
    /// A kernel, or the copy, failed.
    pub fn memory(&self) -> Result<OptimizerMemory, CudaError> {
        Ok(OptimizerMemory {
            parameters: self.parameters.to_vec()?,
            first: self.first.to_vec()?,
            second: self.second.to_vec()?,
            gradients: self.gradients.to_vec()?,
        })
    }

    /// Each seed's record, and its alpha gradient.
    ///
    /// # Errors
    /// A kernel, or the copy, failed.
    pub fn records(&self) -> Result<Vec<(Recorded, f32)>, CudaError> {
        let results = self.results.to_vec()?;
        let of = |(record, result): (OptimizerRecord, SeedResult)| {
            let OptimizerRecord {
                updates, norm, updated, clipped, skipped, verdict, index, ..
            } = record;
            let counts = [updated, clipped, skipped];
            (Recorded { updates, norm, counts, verdict, index }, result.alpha)
        };
        Ok(self.records.to_vec()?.into_iter().zip(results).map(of).collect())
    }
}

/// One step of the CPU's optimizer on one seed: in `state` the parameters and both moments after `updates` updates. Answers the
/// gradient norm and whether it was clipped.
///
/// # Errors
/// Parameters that no seed can have.
pub fn cpu_step(
    adamw: &AdamW,
    state: [&mut [f32]; 3],
    updates: u64,
    gradients: &[f32],
) -> crate::Result<Result<(f64, bool), SkipReason>> {
    let [parameters, first, second] = state;
    let layout = SeedLayout::new(parameters.len(), parameters.len())?;
    let config = LifecycleConfig::default();
    let mut lifecycle = Lifecycle::new(layout, Registry::builtin(), config, 0)?;
    // The kind with as many parameters as columns.
    let initial = InitialSeed {
        state: State::Training,
        blueprint: Some(Blueprint::AttentionHead),
        parameters: Some(vec![parameters.to_vec()]),
        ..InitialSeed::default()
    };
    lifecycle.import(0, initial)?;
    if let Some(grown) = lifecycle.grown_mut(0) {
        grown.gradients.copy_from_slice(gradients);
        grown.has_gradients = true;
        grown.optimizer =
            Some(OptimizerState { first: first.to_vec(), second: second.to_vec(), updates });
    }
    let report = adamw.step(&mut lifecycle);
    if let Some(grown) = lifecycle.grown_mut(0) {
        parameters.copy_from_slice(&grown.parameters);
        if let Some(state) = &grown.optimizer {
            first.copy_from_slice(&state.first);
            second.copy_from_slice(&state.second);
        }
    }
    Ok(match (report.updated.first(), report.skipped.first()) {
        (Some(update), _) => Ok((update.gradient_norm, update.clipped)),
        (None, Some(skipped)) => Err(skipped.reason),
        (None, None) => Err(SkipReason::InvalidSettings),
    })
}
