//! Doors for this crate's GPU tests to passes that are parts of a layer's: not for users, and without promises.

use std::sync::Arc;

use bytemuck::Zeroable;
use kasmina_sys::{DeviceBuffer, Stream};

use super::columns::Columns;
use super::engine::Engine;
use super::error::CudaError;
use super::job::{
    BackwardViews, JobList, KIND_CONV_FILTER, ROLE_PATH, ROLE_RECONSTRUCTION,
    ROLE_STRAIGHT_THROUGH, SeedJob, SeedResult, View,
};
use super::matrix::{DeviceMatMut, DeviceMatRef};
use super::params::RawBounds;
use super::stencil::Stencils;
use crate::lower::Lowered;
use crate::{Bounds, Element, Layer, Objective};

/// Places of a filter's taps, parameters or gradients in the buffers below: 16 taps and a scale, rounded up.
const SLOT: usize = 20;

/// The filters of a layer on the device, and nothing else of it.
#[derive(Debug)]
pub struct Filters {
    columns: Columns,
    stencils: Stencils,
    host: Vec<SeedJob>,
    jobs: DeviceBuffer<SeedJob>,
    // The jobs point into these.
    _taps: DeviceBuffer<f32>,
    _parameters: DeviceBuffer<f32>,
    gradients: DeviceBuffer<f32>,
    results: DeviceBuffer<SeedResult>,
}

/// What backward passes left for one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterGradients {
    /// The seed.
    pub seed: usize,
    /// Of the taps and the scale; `None` for a frozen seed.
    pub parameters: Option<Vec<f32>>,
    /// dL/dalpha.
    pub alpha: f32,
    /// The latest reconstruction loss.
    pub reconstruction: f64,
}

impl Filters {
    /// The filters of a layer's plan that are on path or train beside it, with the taps that the CPU lowered. Gradients and
    /// results begin at `start`, to which passes add.
    ///
    /// # Errors
    /// The driver refused.
    pub fn new(
        engine: &Arc<Engine>,
        stream: &Stream,
        layer: &Layer,
        bounds: Bounds,
        start: f32,
    ) -> Result<Self, CudaError> {
        let layout = layer.layout();
        let mut found = Vec::new();
        for (&seed, planned) in &layer.plan().seeds {
            let shadow = planned.shadow.as_ref().map(|(lowered, objective)| {
                let reconstructs = *objective == Objective::Reconstruction;
                let role = if reconstructs { ROLE_RECONSTRUCTION } else { ROLE_STRAIGHT_THROUGH };
                (lowered, role, 1.0)
            });
            let path = (&planned.path, ROLE_PATH, planned.alpha);
            for (lowered, role, alpha) in std::iter::once(path).chain(shadow) {
                if let Lowered::Stencil { taps } = lowered {
                    found.push((seed, taps, role, alpha, planned.trainable));
                }
            }
        }
        let slots = found.len().max(1) * SLOT;
        let (mut taps, mut parameters) = (vec![0.0f32; slots], vec![0.0f32; slots]);
        for ((seed, from, ..), slot) in found.iter().zip(0..) {
            taps[slot * SLOT..][..from.len()].copy_from_slice(from);
            let tensors = layer.parameters(*seed).into_iter().flatten();
            let flat: Vec<f32> = tensors.flat_map(|(_, values)| values.to_vec()).collect();
            parameters[slot * SLOT..][..flat.len()].copy_from_slice(&flat);
        }
        let taps = DeviceBuffer::from_host(stream, &taps)?;
        let parameters = DeviceBuffer::from_host(stream, &parameters)?;
        let gradients = DeviceBuffer::from_host(stream, &vec![start; slots])?;
        let mut result = SeedResult::zeroed();
        result.alpha = start;
        let results = DeviceBuffer::from_host(stream, &vec![result; found.len().max(1)])?;
        let host: Vec<SeedJob> = found
            .iter()
            .zip(0u64..)
            .map(|(&(seed, lowered, role, alpha, trainable), slot)| {
                let columns = layout.columns(seed);
                let offset = slot * SLOT as u64 * 4;
                SeedJob {
                    parameters: parameters.address() + offset,
                    gradients: if trainable { gradients.address() + offset } else { 0 },
                    taps: taps.address() + offset,
                    result: results.address() + slot * size_of::<SeedResult>() as u64,
                    first_column: columns.start as u32,
                    columns: columns.len() as u32,
                    kind: KIND_CONV_FILTER,
                    width: lowered.len() as u32,
                    role,
                    alpha,
                    seed: seed as u32,
                    ..SeedJob::zeroed()
                }
            })
            .collect();
        let mut columns = Columns::new(engine, stream, layout)?;
        let Bounds { guarded, epsilon, lower, upper } = bounds;
        let bounds = RawBounds { guarded: guarded.into(), epsilon, lower, upper };
        columns.bounds.copy_from_host(&[bounds])?;
        let jobs = match host.is_empty() {
            true => DeviceBuffer::zeroed(stream, 1)?,
            false => DeviceBuffer::from_host(stream, &host)?,
        };
        Ok(Self {
            columns,
            stencils: Stencils::default(),
            host,
            jobs,
            _taps: taps,
            _parameters: parameters,
            gradients,
            results,
        })
    }

    /// Whether a seed's filter is on path, so that passes write its chunk.
    pub fn writes(&self, seed: usize) -> bool {
        let found = self.host.binary_search_by_key(&seed, |job| job.seed as usize);
        found.is_ok_and(|at| self.host[at].role == ROLE_PATH)
    }

    /// y of the filters on path; other columns of `y` are left as they are.
    ///
    /// # Errors
    /// The driver refused.
    pub fn forward<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        y: &mut DeviceMatMut<'_, T>,
    ) -> Result<(), CudaError> {
        self.between(&[x, y.as_ref()], |filters, views| {
            let jobs = JobList { host: &filters.host, device: filters.jobs.address() };
            filters.stencils.forward(&filters.columns, T::DTYPE, jobs, views[0], views[1])
        })
    }

    /// The same in place.
    ///
    /// # Errors
    /// The driver refused.
    pub fn forward_in_place<T: Element>(
        &mut self,
        x: &mut DeviceMatMut<'_, T>,
    ) -> Result<(), CudaError> {
        self.between(&[x.as_ref()], |filters, views| {
            let jobs = JobList { host: &filters.host, device: filters.jobs.address() };
            filters.stencils.forward(&filters.columns, T::DTYPE, jobs, views[0], views[0])
        })
    }

    /// dL/dx of the filters on path, and all gradients; without `gradients`, those of reconstructions alone.
    ///
    /// # Errors
    /// The driver refused.
    pub fn backward<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        gradients: Option<(DeviceMatRef<'_, T>, &mut DeviceMatMut<'_, T>)>,
    ) -> Result<(), CudaError> {
        let mut matrices = vec![x];
        if let Some((grad_y, grad_x)) = &gradients {
            matrices.extend([*grad_y, grad_x.as_ref()]);
        }
        self.between(&matrices, |filters, views| {
            let gradients = match views {
                [_, grad_y, grad_x] => Some((*grad_y, *grad_x)),
                _ => None,
            };
            let jobs = JobList { host: &filters.host, device: filters.jobs.address() };
            let views = BackwardViews { x: views[0], gradients };
            filters.stencils.backward(&filters.columns, T::DTYPE, jobs, views)
        })
    }

    /// What backward passes left so far, ascending by seed. Waits for them.
    ///
    /// # Errors
    /// A pass failed.
    pub fn gradients(&self) -> Result<Vec<FilterGradients>, CudaError> {
        let (gradients, results) = (self.gradients.to_vec()?, self.results.to_vec()?);
        let of = |(slot, job): (usize, &SeedJob)| FilterGradients {
            seed: job.seed as usize,
            parameters: (job.gradients != 0)
                .then(|| gradients[slot * SLOT..][..job.width as usize + 1].to_vec()),
            alpha: results[slot].alpha,
            reconstruction: results[slot].reconstruction,
        };
        Ok(self.host.iter().enumerate().map(of).collect())
    }

    /// Values so far that did not fit their type.
    ///
    /// # Errors
    /// A pass failed.
    pub fn saturated(&self) -> Result<u64, CudaError> {
        Ok(self.columns.saturated.to_vec()?.first().copied().unwrap_or(0))
    }

    /// Queues `pass` with the stream joined to the homes of the matrices.
    fn between<T: Element>(
        &mut self,
        matrices: &[DeviceMatRef<'_, T>],
        pass: impl FnOnce(&mut Self, &[View]) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let view = |matrix: &DeviceMatRef<'_, T>| View {
            address: matrix.data().address(),
            pitch: matrix.row_stride() as u64 * size_of::<T>() as u64,
            rows: matrix.shape().0 as u32,
            columns: matrix.shape().1 as u32,
        };
        let views: Vec<View> = matrices.iter().map(view).collect();
        for matrix in matrices {
            self.columns.stream.join(matrix.data().home())?;
        }
        let outcome = pass(self, &views);
        for matrix in matrices {
            matrix.data().home().join(&self.columns.stream)?;
        }
        outcome
    }
}
