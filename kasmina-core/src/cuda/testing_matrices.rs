//! A door for the tests of the matrix passes alone: jobs with parameters of their own, and what a pass made of them.

use std::sync::Arc;

use bytemuck::Zeroable;
use kasmina_sys::{DeviceBuffer, Stream};

use super::CudaError;
use super::columns::Columns;
use super::engine::Engine;
use super::job::{
    BackwardViews, JobList, KIND_BOTTLENECK, KIND_DENSE, ROLE_PATH, ROLE_RECONSTRUCTION,
    ROLE_STRAIGHT_THROUGH, SeedJob, SeedResult,
};
use super::matrices::Matrices;
use super::matrix::{DeviceMatMut, DeviceMatRef};
use super::params::RawBounds;
use crate::{Blueprint, Bounds, Element, Objective, SeedLayout};

/// One seed with a bottleneck or dense branch.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct MatrixSeed {
    pub seed: usize,
    pub blueprint: Blueprint,
    pub parameters: Vec<f32>,
    /// On path with this alpha, if it is `Ok`; else it trains beside the path.
    pub role: Result<f32, Objective>,
    /// Whether parameter gradients are wanted.
    pub trains: bool,
}

/// What a seed has on the device.
#[derive(Debug)]
struct Owned {
    _parameters: DeviceBuffer<f32>,
    gradients: Option<DeviceBuffer<f32>>,
    result: DeviceBuffer<SeedResult>,
}

/// The matrix passes of one layer whose other seeds are dormant.
#[doc(hidden)]
#[derive(Debug)]
pub struct MatrixPasses {
    columns: Columns,
    matrices: Matrices,
    host: Vec<SeedJob>,
    device: DeviceBuffer<SeedJob>,
    owned: Vec<Owned>,
}

impl MatrixPasses {
    /// Seeds of other kinds keep their kind's number, and the passes leave them alone.
    ///
    /// # Errors
    /// Out of memory, or the driver refused.
    pub fn new(
        engine: &Arc<Engine>,
        stream: &Stream,
        layout: SeedLayout,
        bounds: Bounds,
        seeds: &[MatrixSeed],
    ) -> Result<Self, CudaError> {
        let mut columns = Columns::new(engine, stream, layout)?;
        let Bounds { guarded, epsilon, lower, upper } = bounds;
        let raw = RawBounds { guarded: guarded.into(), epsilon, lower, upper };
        columns.bounds.copy_from_host(&[raw])?;
        let (mut host, mut owned) = (Vec::new(), Vec::new());
        for seed in seeds {
            let (kind, width, activation) = match seed.blueprint {
                Blueprint::Bottleneck { width, activation } => (KIND_BOTTLENECK, width, activation),
                Blueprint::Dense { activation } => (KIND_DENSE, 0, activation),
                _ => (0, 0, crate::Activation::Relu),
            };
            let parameters = DeviceBuffer::from_host(stream, &seed.parameters)?;
            let gradients = match seed.trains {
                true => Some(DeviceBuffer::zeroed(stream, seed.parameters.len())?),
                false => None,
            };
            let result = DeviceBuffer::zeroed(stream, 1)?;
            let range = layout.columns(seed.seed);
            host.push(SeedJob {
                parameters: parameters.address(),
                gradients: gradients.as_ref().map_or(0, DeviceBuffer::address),
                result: result.address(),
                first_column: range.start as u32,
                columns: range.len() as u32,
                kind,
                width: width as u32,
                activation: activation as u32,
                role: match seed.role {
                    Ok(_) => ROLE_PATH,
                    Err(Objective::Reconstruction) => ROLE_RECONSTRUCTION,
                    Err(_) => ROLE_STRAIGHT_THROUGH,
                },
                alpha: *seed.role.as_ref().unwrap_or(&1.0),
                seed: seed.seed as u32,
                ..SeedJob::zeroed()
            });
            owned.push(Owned { _parameters: parameters, gradients, result });
        }
        let device = DeviceBuffer::from_host(stream, &host)?;
        Ok(Self { columns, matrices: Matrices::default(), host, device, owned })
    }

    fn jobs(&self) -> JobList<'_> {
        JobList { host: &self.host, device: self.device.address() }
    }

    /// y of the chunks on path; other chunks are not touched. All matrices belong to the stream that this was made with.
    ///
    /// # Errors
    /// The driver refused.
    pub fn forward<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        y: &mut DeviceMatMut<'_, T>,
    ) -> Result<(), CudaError> {
        let mut matrices = std::mem::take(&mut self.matrices);
        let outcome =
            matrices.forward(&self.columns, T::DTYPE, self.jobs(), x.view(), y.as_ref().view());
        self.matrices = matrices;
        outcome
    }

    /// The same with the result in `x` itself.
    ///
    /// # Errors
    /// As there.
    pub fn forward_in_place<T: Element>(
        &mut self,
        x: &mut DeviceMatMut<'_, T>,
    ) -> Result<(), CudaError> {
        let both = x.as_ref().view();
        let mut matrices = std::mem::take(&mut self.matrices);
        let outcome = matrices.forward(&self.columns, T::DTYPE, self.jobs(), both, both);
        self.matrices = matrices;
        outcome
    }

    /// dL/dx of the chunks on path, and gradients; without output gradients those of reconstruction alone.
    ///
    /// # Errors
    /// As there.
    pub fn backward<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        gradients: Option<(DeviceMatRef<'_, T>, &mut DeviceMatMut<'_, T>)>,
    ) -> Result<(), CudaError> {
        let gradients = gradients.map(|(grad_y, grad_x)| (grad_y.view(), grad_x.as_ref().view()));
        let views = BackwardViews { x: x.view(), gradients };
        let mut matrices = std::mem::take(&mut self.matrices);
        let outcome = matrices.backward(&self.columns, T::DTYPE, self.jobs(), views);
        self.matrices = matrices;
        outcome
    }

    /// The parameter gradients of the seed at `index` of the list; `None` if it does not train. Waits.
    ///
    /// # Errors
    /// A pass, or the copy, failed.
    pub fn gradients(&self, index: usize) -> Result<Option<Vec<f32>>, CudaError> {
        let buffer = self.owned.get(index).and_then(|owned| owned.gradients.as_ref());
        Ok(buffer.map(DeviceBuffer::to_vec).transpose()?)
    }

    /// The reconstruction loss and the gradient of alpha of the seed at `index`. Waits.
    ///
    /// # Errors
    /// As there.
    pub fn result(&self, index: usize) -> Result<Option<(f64, f32)>, CudaError> {
        let Some(owned) = self.owned.get(index) else { return Ok(None) };
        let found = owned.result.to_vec()?;
        Ok(found.first().map(|result| (result.reconstruction, result.alpha)))
    }

    /// Outputs that did not fit their type. Waits.
    ///
    /// # Errors
    /// As there.
    pub fn saturated(&self) -> Result<u64, CudaError> {
        Ok(self.columns.saturated.to_vec()?.first().copied().unwrap_or(0))
    }
}
