//! Passes of a layer as items of a resident grid: everything that a pass does but its launch.

use kasmina_tma::LoadPath;

use super::CudaLayer;
use super::pass::{is_filter, is_matrix};
use super::work::Role;
use crate::cuda::backward::BackwardViews;
use crate::cuda::error::CudaError;
use crate::cuda::executor::{Residents, resident_tuning};
use crate::cuda::forward::side;
use crate::cuda::geometry::{Geometry, Machine};
use crate::cuda::job::View;
use crate::cuda::loading;
use crate::cuda::params::{BackwardParams, FinalizeParams, ForwardParams};
use crate::cuda::variants::{BackwardVariant, Counting, ForwardVariant};
use crate::layer::watched_seeds;
use crate::{DType, ForwardOptions, StabilityMode};

/// A forward pass, ready for a worker.
pub(in crate::cuda) struct ResidentForward {
    pub(in crate::cuda) counting: Counting,
    pub(in crate::cuda) params: ForwardParams,
}

/// A backward pass and its finalize step.
pub(in crate::cuda) struct ResidentBackward {
    pub(in crate::cuda) counting: Counting,
    pub(in crate::cuda) params: BackwardParams,
    pub(in crate::cuda) finalize: Option<FinalizeParams>,
}

/// Accumulators that are to be moved to the seeds' totals.
pub(in crate::cuda) struct ResidentCollect {
    pub(in crate::cuda) accumulators: u64,
    pub(in crate::cuda) totals: u64,
    pub(in crate::cuda) geometry: Geometry,
    pub(in crate::cuda) of_gradients: bool,
}

impl CudaLayer {
    /// Why passes of the layer as it is now are not for a resident grid, if they are not. Brings programs and jobs up to date.
    ///
    /// # Errors
    /// As a pass.
    pub(in crate::cuda) fn not_resident(
        &mut self,
        dtype: DType,
        views: &[View],
        in_place: bool,
        options: &ForwardOptions,
    ) -> Result<Option<String>, CudaError> {
        let needed = (views.first().map_or(0, |x| x.rows as usize), self.layout().hidden());
        side("the number of rows", needed.0)?;
        for view in views {
            let found = (view.rows as usize, view.columns as usize);
            if found != needed {
                return Err(CudaError::Shape { what: "a matrix of the step", found, needed });
            }
        }
        self.landings.settle(&mut self.state.lifecycle, false)?;
        self.refresh(options)?;
        if in_place && !options.is_inference() {
            self.check_in_place()?;
        }
        if needed.0 == 0 {
            return Ok(Some("it has no rows".to_owned()));
        }
        let path = loading::select(&self.streams.columns.engine, dtype, views, None)?.path;
        if path > LoadPath::Vector16 {
            return Ok(Some("rows do not begin at multiples of 16 bytes".to_owned()));
        }
        if self.telemetry.histograms.is_some() {
            return Ok(Some("debug mode counts histograms in a pass of their own".to_owned()));
        }
        let Some(arena) = &self.arena else { return Ok(None) };
        let beside = |job: &_| is_filter(job) || is_matrix(job);
        if arena.runs(beside) {
            return Ok(Some(
                "a filter or matrix runs in it, which has kernels of its own".to_owned(),
            ));
        }
        if self.state.stability.mode == StabilityMode::Strict && arena.runs(|_| true) {
            return Ok(Some("strict mode measures the whole input first".to_owned()));
        }
        if arena.slots.iter().any(|slot| slot.work.role() == Some(Role::Reconstruction)) {
            return Ok(Some(
                "a seed learns by reconstruction, whose losses go to the host".to_owned(),
            ));
        }
        Ok(None)
    }

    /// A forward pass that `not_resident` has nothing against; the layer has made it afterwards.
    pub(in crate::cuda) fn resident_forward(
        &mut self,
        dtype: DType,
        (x, y, in_place): (View, View, bool),
        options: &ForwardOptions,
        machine: Machine,
    ) -> Result<ResidentForward, CudaError> {
        let pass = self.state.telemetry.passes;
        let watched = watched_seeds(&self.state.telemetry, &self.state.lifecycle, options, pass);
        if let Some(seeds) = &watched {
            self.telemetry.watch(&mut self.streams.columns, seeds)?;
        }
        let computes = self.arena.as_ref().is_some_and(|arena| arena.runs(|_| true));
        self.queue_bounds(dtype, x, computes)?;
        let counting = loading::counting(&self.streams.columns, dtype, watched.is_some());
        let variant = ForwardVariant { dtype, path: LoadPath::Vector16, counting, computes: true };
        let dead_epsilon = self.state.telemetry.dead_epsilon;
        let tuning = resident_tuning(self.layout(), dtype);
        let params = self.streams.forward_params(
            variant,
            machine,
            tuning,
            (x, y, in_place),
            dead_epsilon,
        )?;
        self.state.telemetry.passes += 1;
        self.state.telemetry.measured += u64::from(watched.is_some());
        Ok(ResidentForward { counting, params })
    }

    /// A backward pass that `not_resident` has nothing against; the layer has made it afterwards.
    pub(in crate::cuda) fn resident_backward(
        &mut self,
        dtype: DType,
        [x, grad_y, grad_x]: [View; 3],
        options: &ForwardOptions,
        machine: Machine,
    ) -> Result<ResidentBackward, CudaError> {
        let pass = self.state.telemetry.passes.saturating_sub(1);
        let watched = watched_seeds(&self.state.telemetry, &self.state.lifecycle, options, pass);
        if let Some(seeds) = &watched {
            self.telemetry.watch(&mut self.streams.columns, seeds)?;
        }
        let computes = self.arena.as_ref().is_some_and(|arena| arena.runs(|_| true));
        self.queue_bounds(dtype, x, computes)?;
        let counting = loading::counting(&self.streams.columns, dtype, watched.is_some());
        let variant = BackwardVariant { dtype, path: LoadPath::Vector16, counting };
        let views = BackwardViews { x, gradients: Some((grad_y, grad_x)) };
        let tuning = resident_tuning(self.layout(), dtype);
        let params = self.streams.backward_params(variant, machine, tuning, &views)?;
        let groups = params.geometry.groups;
        let mut finalize = None;
        if let Some(arena) = &mut self.arena {
            let jobs = arena.job_list();
            finalize =
                self.streams.finalize_params(&views, jobs, groups)?.map(|(params, _)| params);
            for slot in &mut arena.slots {
                slot.has_gradients |= slot.work.is_served(true);
                slot.has_alpha_gradient |= slot.work.gives_alpha();
            }
        }
        Ok(ResidentBackward { counting, params, finalize })
    }

    /// What the passes have counted and not yet moved to the totals.
    pub(in crate::cuda) fn resident_collect(&self) -> Vec<ResidentCollect> {
        self.streams.counted()
    }

    /// The steps of executors that use this layer.
    pub(in crate::cuda) fn residents(&self) -> &Residents {
        &self.streams.columns.residents
    }
}
