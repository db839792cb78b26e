//! Passes of a layer in one launch with its neighbours: everything that a pass does but its launch.

use kasmina_telemetry::TelemetryMode;
use kasmina_tma::LoadPath;

use super::CudaLayer;
use super::pass::{is_filter, is_matrix};
use crate::cuda::backward::BackwardReport;
use crate::cuda::error::CudaError;
use crate::cuda::forward::ForwardReport;
use crate::cuda::geometry::Geometry;
use crate::cuda::job::{BackwardViews, ROLE_PATH, SeedJob, View};
use crate::cuda::loading;
use crate::cuda::params::{
    BackwardParams, FinalizeParams, ForwardParams, NEEDS_X, RECONSTRUCTION, STRAIGHT_THROUGH,
};
use crate::cuda::stack::{ForwardLayer, OwnLaunches};
use crate::cuda::uploads::Uploads;
use crate::cuda::variants::{BackwardVariant, Counting, ForwardVariant};
use crate::layer::watched_seeds;
use crate::{DType, ForwardOptions, StabilityMode};

impl CudaLayer {
    /// Brings the device up to date for a forward pass and checks what the pass itself would.
    ///
    /// # Errors
    /// As a pass.
    pub(in crate::cuda) fn ready_stacked(
        &mut self,
        in_place: bool,
        options: &ForwardOptions,
    ) -> Result<(), CudaError> {
        self.landings.settle(&mut self.state.lifecycle, false)?;
        self.refresh(options)?;
        if in_place && !options.is_inference() { self.check_in_place() } else { Ok(()) }
    }

    /// What a forward pass of the layer as it is now counts, or why it cannot share a launch: in that pass, or in the backward pass that may
    /// follow.
    pub(in crate::cuda) fn fits_forward(
        &self,
        dtype: DType,
        options: &ForwardOptions,
    ) -> Result<Counting, OwnLaunches> {
        self.fits(options.is_inference())?;
        let telemetry = &self.state.telemetry;
        let pass = telemetry.passes;
        let watched = watched_seeds(telemetry, &self.state.lifecycle, options, pass);
        if watched.is_some() && telemetry.mode == TelemetryMode::Debug {
            return Err(OwnLaunches::Histograms);
        }
        Ok(loading::counting(&self.streams.columns, dtype, watched.is_some()))
    }

    /// The same of a backward pass.
    pub(in crate::cuda) fn fits_backward(
        &self,
        dtype: DType,
        options: &ForwardOptions,
    ) -> Result<Counting, OwnLaunches> {
        self.fits(false)?;
        let telemetry = &self.state.telemetry;
        let pass = telemetry.passes.saturating_sub(1);
        let watched = watched_seeds(telemetry, &self.state.lifecycle, options, pass);
        Ok(loading::counting(&self.streams.columns, dtype, watched.is_some()))
    }

    /// What stands against sharing a launch, telemetry aside; `forward_alone` leaves out what only a backward pass does.
    fn fits(&self, forward_alone: bool) -> Result<(), OwnLaunches> {
        let runs = |wanted: &dyn Fn(&SeedJob) -> bool| {
            let there = |job: &SeedJob| (!forward_alone || job.role == ROLE_PATH) && wanted(job);
            self.arena.as_ref().is_some_and(|arena| arena.runs(there))
        };
        if self.forced.is_some() {
            return Err(OwnLaunches::Forced);
        }
        if runs(&|job| is_filter(job) || is_matrix(job)) {
            return Err(OwnLaunches::MixesColumns);
        }
        if self.state.stability.mode == StabilityMode::Strict && runs(&|_| true) {
            return Err(OwnLaunches::Strict);
        }
        Ok(())
    }

    /// Its part of a launch that `fits_forward` has nothing against, and whether the layer changes anything; queues what goes up before.
    /// [`CudaLayer::note_stacked_forward`] is to follow.
    ///
    /// # Errors
    /// Out of memory, or the driver refused.
    pub(in crate::cuda) fn stacked_forward(
        &mut self,
        dtype: DType,
        x: View,
        geometry: Geometry,
        options: &ForwardOptions,
    ) -> Result<(ForwardLayer, bool), CudaError> {
        self.streams.columns.residents.settle();
        let pass = self.state.telemetry.passes;
        let watched = watched_seeds(&self.state.telemetry, &self.state.lifecycle, options, pass);
        if let Some(seeds) = &watched {
            self.telemetry.watch(&mut self.streams.columns, seeds)?;
        }
        let computes =
            self.arena.as_ref().is_some_and(|arena| arena.runs(|job| job.role == ROLE_PATH));
        self.queue_bounds(dtype, x, computes)?;
        let accumulators = match watched {
            Some(_) => self.streams.stacked_accumulators(geometry)?,
            None => 0,
        };
        let columns = &self.streams.columns;
        let layer = ForwardLayer {
            programs: columns.programs.address(),
            flags: columns.flags.address(),
            bounds: columns.bounds.address(),
            accumulators,
            watched: columns.watched_address(),
            saturated: columns.saturated.address(),
            chunk: geometry.chunk,
            pieces: geometry.pieces,
            dead_epsilon: self.state.telemetry.dead_epsilon,
            padding: 0,
        };
        Ok((layer, computes))
    }

    /// What a launch of its own with the cut of a stack is told; the layer has made the pass then.
    ///
    /// # Errors
    /// As a pass.
    pub(in crate::cuda) fn apart_forward(
        &mut self,
        variant: ForwardVariant,
        geometry: Geometry,
        (x, y): (View, View),
        options: &ForwardOptions,
    ) -> Result<ForwardParams, CudaError> {
        let (record, _) = self.stacked_forward(variant.dtype, x, geometry, options)?;
        let dead_epsilon = self.state.telemetry.dead_epsilon;
        self.state.telemetry.passes += 1;
        self.state.telemetry.measured += u64::from(record.accumulators != 0);
        self.streams.forward_params(variant, geometry, (x, y, false), dead_epsilon)
    }

    /// The layer has made a forward pass.
    pub(in crate::cuda) fn note_stacked_forward(&mut self, counted: bool, report: &ForwardReport) {
        self.state.telemetry.passes += 1;
        self.state.telemetry.measured += u64::from(counted);
        if self.report.forward.as_ref() != Some(report) {
            self.report.forward = Some(report.clone());
        }
    }

    /// Its part of a launch of the backward pass, and whether that reads the layer's input; queues what goes up before. `fits_backward` has
    /// nothing against it; [`CudaLayer::note_stacked_backward`] is to follow.
    ///
    /// # Errors
    /// Out of memory, or the driver refused.
    pub(in crate::cuda) fn stacked_backward(
        &mut self,
        dtype: DType,
        views: &BackwardViews,
        geometry: Geometry,
        options: &ForwardOptions,
    ) -> Result<(BackwardParams, bool), CudaError> {
        self.streams.columns.residents.settle();
        let pass = self.state.telemetry.passes.saturating_sub(1);
        let watched = watched_seeds(&self.state.telemetry, &self.state.lifecycle, options, pass);
        if let Some(seeds) = &watched {
            self.telemetry.watch(&mut self.streams.columns, seeds)?;
        }
        let any = self.arena.as_ref().is_some_and(|arena| arena.runs(|_| true));
        self.queue_bounds(dtype, views.x, any)?;
        let counting = loading::counting(&self.streams.columns, dtype, watched.is_some());
        let variant = BackwardVariant { dtype, path: LoadPath::CpAsync, counting };
        let mut params = self.streams.backward_params(variant, geometry, views)?;
        if counting == Counting::Off {
            params.accumulators = 0;
        }
        let reads = self.streams.columns.any(NEEDS_X | STRAIGHT_THROUGH | RECONSTRUCTION);
        Ok((params, reads))
    }

    /// What the finalize step is told behind a launch with `groups` groups, and the widest seed that it is for; `None` where none wants one.
    ///
    /// # Errors
    /// Out of memory.
    pub(in crate::cuda) fn stacked_finalize(
        &mut self,
        views: &BackwardViews,
        groups: u32,
    ) -> Result<Option<(FinalizeParams, u32)>, CudaError> {
        let Some(arena) = &self.arena else { return Ok(None) };
        self.streams.finalize_params(views, arena.job_list(), groups)
    }

    /// The finalize step by its own launch.
    ///
    /// # Errors
    /// The driver refused.
    pub(in crate::cuda) fn finalize_alone(
        &mut self,
        views: &BackwardViews,
        groups: u32,
    ) -> Result<(), CudaError> {
        let Some(arena) = &self.arena else { return Ok(()) };
        self.streams.finalize(views, arena.job_list(), groups)
    }

    /// The layer has made a backward pass over `rows` rows.
    ///
    /// # Errors
    /// Losses' way to the host could not be queued.
    pub(in crate::cuda) fn note_stacked_backward(
        &mut self,
        rows: usize,
        report: &BackwardReport,
    ) -> Result<(), CudaError> {
        if self.report.backward.as_ref() != Some(report) {
            self.report.backward = Some(report.clone());
        }
        self.note_backward(true, rows)
    }

    /// The same of a pass that left no report.
    ///
    /// # Errors
    /// As [`CudaLayer::note_stacked_backward`].
    pub(in crate::cuda) fn note_backward_apart(&mut self, rows: usize) -> Result<(), CudaError> {
        self.note_backward(true, rows)
    }

    /// For what goes up while passes are queued.
    pub(in crate::cuda) fn uploads(&self) -> &Uploads {
        &self.streams.columns.uploads
    }
}
