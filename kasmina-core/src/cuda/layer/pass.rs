//! Forward and backward passes: everything queued, nothing waited for.

use std::ops::Range;

use kasmina_sys::Stream;

use super::CudaLayer;
use super::work::is_pointwise;
use crate::cuda::backward::Backward;
use crate::cuda::error::CudaError;
use crate::cuda::forward::Forward;
use crate::cuda::job::{
    BackwardViews, KIND_BOTTLENECK, KIND_CONV_FILTER, KIND_DENSE, ROLE_PATH, ROLE_RECONSTRUCTION,
    SeedJob, View,
};
use crate::cuda::matrix::{DeviceMatMut, DeviceMatRef, side};
use crate::cuda::params::RawBounds;
use crate::cuda::seeds;
use crate::layer::watched_seeds;
use crate::{DType, Element, Error, ForwardOptions, StabilityMode};

impl CudaLayer {
    /// y = layer(x), as [`Layer::forward`](crate::Layer::forward). Queued on the layer's stream, after everything queued on the
    /// streams of both matrices so far; these wait for it.
    ///
    /// # Errors
    /// [`CudaError::Shape`] and [`CudaError::TooLarge`] for a matrix that does not fit, [`CudaError::Engine`] for a probe that is
    /// none, [`CudaError::UserBlueprint`] for a user-defined blueprint that would run: nothing is changed then. Or the driver
    /// refused, or an earlier pass failed.
    pub fn forward<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        y: &mut DeviceMatMut<'_, T>,
        options: &ForwardOptions,
    ) -> Result<(), CudaError> {
        self.forward_into(x, y.as_ref(), false, options)
    }

    /// The same with the result in `x` itself.
    ///
    /// # Errors
    /// As [`CudaLayer::forward`], and [`Error::InPlaceNeedsInput`] (within [`CudaError::Engine`]) if a backward pass would need
    /// an input that this overwrites; [`ForwardOptions::inference`] lifts that.
    pub fn forward_in_place<T: Element>(
        &mut self,
        x: &mut DeviceMatMut<'_, T>,
        options: &ForwardOptions,
    ) -> Result<(), CudaError> {
        let both = x.as_ref();
        self.forward_into(both, both, true, options)
    }

    /// Counts x's statistics as a forward pass does, where that would hand every element on as it is: no seed is on path, and no
    /// probe is. Reads x once, or not at all where nothing is measured, and writes nothing, so that x can be its own result.
    /// `false`, with nothing done, where something runs on path. Queued, as a forward pass is.
    ///
    /// # Errors
    /// As [`CudaLayer::forward`].
    pub fn observe<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        options: &ForwardOptions,
    ) -> Result<bool, CudaError> {
        self.check_shapes(&[("x", &x)])?;
        self.refresh(options)?;
        if self.arena.as_ref().is_some_and(|arena| arena.runs(is_on_path)) {
            return Ok(false);
        }
        // In place, what nothing changes is not written; so nothing that a backward pass reads is overwritten.
        self.forward_into(x, x, true, &options.clone().inference())?;
        Ok(true)
    }

    /// `y` is written: the callers hold it exclusively, or it is `x` itself, which they do.
    pub(in crate::cuda) fn forward_into<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        y: DeviceMatRef<'_, T>,
        in_place: bool,
        options: &ForwardOptions,
    ) -> Result<(), CudaError> {
        self.check_shapes(&[("x", &x), ("y", &y)])?;
        self.landings.settle(&mut self.state.lifecycle, false)?;
        self.refresh(options)?;
        if in_place && !options.is_inference() {
            self.check_in_place()?;
        }
        let pass = self.state.telemetry.passes;
        let watched = watched_seeds(&self.state.telemetry, &self.state.lifecycle, options, pass);
        self.joined(&[x.data().home(), y.data().home()], |layer| {
            layer.queue_forward(x, y, in_place, watched.as_deref())
        })?;
        self.state.telemetry.passes += 1;
        self.state.telemetry.measured += u64::from(watched.is_some());
        Ok(())
    }

    pub(super) fn queue_forward<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        y: DeviceMatRef<'_, T>,
        in_place: bool,
        watched: Option<&[Range<usize>]>,
    ) -> Result<(), CudaError> {
        let (from, to) = (x.view(), y.view());
        let dead_epsilon = self.state.telemetry.dead_epsilon;
        let forward = Forward { measured: watched.is_some(), dead_epsilon, path: self.forced };
        if from.rows == 0 {
            self.report.forward = Some(self.streams.run(x, y, in_place, &forward)?);
            return Ok(());
        }
        if let Some(seeds) = watched {
            self.telemetry.watch(&mut self.streams.columns, seeds)?;
            // Before the pass: in place, it overwrites what they count.
            if let Some(histograms) = &self.telemetry.histograms {
                let columns = &self.streams.columns;
                seeds::count_histograms(columns, T::DTYPE, from, histograms.address())?;
            }
        }
        let computes = self.arena.as_ref().is_some_and(|arena| arena.runs(is_on_path));
        self.queue_bounds(T::DTYPE, from, computes)?;
        self.report.forward = Some(self.streams.run(x, y, in_place, &forward)?);
        let Some(arena) = &self.arena else { return Ok(()) };
        let (columns, jobs) = (&self.streams.columns, arena.job_list());
        if arena.runs(|job| is_on_path(job) && is_filter(job)) {
            self.stencils.forward(columns, T::DTYPE, jobs, from, to)?;
        }
        if arena.runs(|job| is_on_path(job) && is_matrix(job)) {
            self.matrices.forward(columns, T::DTYPE, jobs, from, to)?;
        }
        Ok(())
    }

    /// Given the x of a forward pass and dL/dy, writes dL/dx and adds parameter gradients to every trainable seed, as
    /// [`Layer::backward`](crate::Layer::backward). Queued, as a forward pass is.
    ///
    /// # Errors
    /// As [`CudaLayer::forward`].
    pub fn backward<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        grad_y: DeviceMatRef<'_, T>,
        grad_x: &mut DeviceMatMut<'_, T>,
        options: &ForwardOptions,
    ) -> Result<(), CudaError> {
        let grad_x = grad_x.as_ref();
        self.check_shapes(&[("x", &x), ("grad_y", &grad_y), ("grad_x", &grad_x)])?;
        let homes = [x.data().home(), grad_y.data().home(), grad_x.data().home()];
        let gradients = Some((grad_y.view(), grad_x.view()));
        self.run_backward(T::DTYPE, BackwardViews { x: x.view(), gradients }, &homes, options)
    }

    /// Serves the [`Objective::Reconstruction`](crate::Objective::Reconstruction) of TRAINING seeds on `x` without a task loss;
    /// [`CudaLayer::backward`] includes this. Queued, as a forward pass is.
    ///
    /// # Errors
    /// As [`CudaLayer::forward`].
    pub fn reconstruct<T: Element>(&mut self, x: DeviceMatRef<'_, T>) -> Result<(), CudaError> {
        self.check_shapes(&[("x", &x)])?;
        let views = BackwardViews { x: x.view(), gradients: None };
        self.run_backward(T::DTYPE, views, &[x.data().home()], &ForwardOptions::new())
    }

    pub(in crate::cuda) fn run_backward(
        &mut self,
        dtype: DType,
        views: BackwardViews,
        homes: &[&Stream],
        options: &ForwardOptions,
    ) -> Result<(), CudaError> {
        self.landings.settle(&mut self.state.lifecycle, false)?;
        self.refresh(options)?;
        let pass = self.state.telemetry.passes.saturating_sub(1);
        let watched = watched_seeds(&self.state.telemetry, &self.state.lifecycle, options, pass)
            .filter(|_| views.gradients.is_some());
        if views.x.rows > 0 {
            self.joined(homes, |layer| layer.queue_backward(dtype, views, watched.as_deref()))?;
        }
        self.note_backward(views.gradients.is_some(), views.x.rows as usize)
    }

    /// What the host knows once a backward pass is queued, and the losses' way to it.
    pub(super) fn note_backward(
        &mut self,
        with_gradient: bool,
        rows: usize,
    ) -> Result<(), CudaError> {
        let Some(arena) = &mut self.arena else { return Ok(()) };
        // What is there follows from the states; the values stay on the device.
        for slot in &mut arena.slots {
            slot.has_gradients |= slot.work.is_served(with_gradient);
            slot.has_alpha_gradient |= with_gradient && slot.work.gives_alpha();
        }
        self.landings.push(&self.streams.columns.stream, arena, rows)
    }

    pub(super) fn queue_backward(
        &mut self,
        dtype: DType,
        views: BackwardViews,
        watched: Option<&[Range<usize>]>,
    ) -> Result<(), CudaError> {
        if let Some(seeds) = watched {
            self.telemetry.watch(&mut self.streams.columns, seeds)?;
        }
        let any = self.arena.as_ref().is_some_and(|arena| arena.runs(|_| true));
        self.queue_bounds(dtype, views.x, any)?;
        let Some(arena) = &self.arena else { return Ok(()) };
        let with_gradient = views.gradients.is_some();
        let served = |job: &SeedJob| with_gradient || job.role == ROLE_RECONSTRUCTION;
        if with_gradient || arena.runs(|job| served(job) && job.is_pointwise()) {
            let options = Backward { measured: watched.is_some(), path: self.forced };
            let report = self.streams.backward(dtype, views, arena.job_list(), &options)?;
            self.report.backward = Some(report);
        }
        let (columns, jobs) = (&self.streams.columns, arena.job_list());
        if arena.runs(|job| served(job) && is_filter(job)) {
            self.stencils.backward(columns, dtype, jobs, views)?;
        }
        if arena.runs(|job| served(job) && is_matrix(job)) {
            self.matrices.backward(columns, dtype, jobs, views)?;
        }
        Ok(())
    }

    /// Sees to it that the device has the bounds of a call on `x`; where nothing is computed, none are measured.
    pub(super) fn queue_bounds(
        &mut self,
        dtype: DType,
        x: View,
        computes: bool,
    ) -> Result<(), CudaError> {
        let stability = self.state.stability;
        let fixed = RawBounds {
            guarded: (stability.mode != StabilityMode::Fast).into(),
            epsilon: stability.epsilon,
            lower: stability.lower,
            upper: stability.upper,
        };
        let columns = &mut self.streams.columns;
        if stability.mode == StabilityMode::Strict {
            if computes {
                self.bounds = None;
                seeds::strict_bounds(columns, &mut self.strict, dtype, x, fixed, stability.sigmas)?;
            }
            return Ok(());
        }
        if self.bounds != Some(fixed) {
            self.bounds = None;
            columns.residents.settle();
            let to = &mut columns.bounds.as_mut_slice();
            columns.uploads.write(&columns.stream, to, &[fixed])?;
            self.bounds = Some(fixed);
        }
        Ok(())
    }

    /// Runs `body`, which queues a use of memory of `homes`, after everything queued on them so far and before whatever is
    /// queued on them from now on, also where it fails half way.
    fn joined<R>(
        &mut self,
        homes: &[&Stream],
        body: impl FnOnce(&mut Self) -> Result<R, CudaError>,
    ) -> Result<R, CudaError> {
        let stream = self.streams.columns.stream.clone();
        self.streams.columns.residents.settle();
        for home in homes {
            if home.context().raw() != stream.context().raw() {
                let what = "a pass of a layer";
                return Err(kasmina_sys::Error::OtherContext { what }.into());
            }
            stream.join(home)?;
        }
        let outcome = body(self);
        for home in homes {
            if let Err(error) = home.join(&stream) {
                // Without a join the host waits in the home's place.
                stream.synchronize()?;
                return outcome.and(Err(error.into()));
            }
        }
        outcome
    }

    /// An in-place pass that trains must leave what backward reads.
    pub(super) fn check_in_place(&self) -> Result<(), CudaError> {
        let guarded = self.state.stability.mode != StabilityMode::Fast;
        let Some(arena) = &self.arena else { return Ok(()) };
        let mut slots = arena.slots.iter();
        match slots.find(|slot| slot.work.needs_x(&slot.blueprint, guarded)) {
            None => Ok(()),
            Some(slot) => {
                let seed = slot.seed as usize;
                let state = self.state.lifecycle.state(seed)?;
                Err(Error::InPlaceNeedsInput { seed, state }.into())
            }
        }
    }

    pub(in crate::cuda) fn check_shapes<T: Element>(
        &self,
        matrices: &[(&'static str, &DeviceMatRef<'_, T>)],
    ) -> Result<(), CudaError> {
        let rows = matrices.first().map_or(0, |(_, x)| x.shape().0);
        side("the number of rows", rows)?;
        let needed = (rows, self.layout().hidden());
        for (what, matrix) in matrices {
            if matrix.shape() != needed {
                return Err(CudaError::Shape { what, found: matrix.shape(), needed });
            }
        }
        Ok(())
    }

    /// Counts the branches beside the stream for the report.
    pub(super) fn count_branches(&self) -> (usize, usize) {
        let Some(arena) = &self.arena else { return (0, 0) };
        let running = arena.slots.iter().filter(|slot| slot.job.is_some());
        let beside = running.filter(|slot| !is_pointwise(&slot.blueprint)).count();
        let filters = arena.host_jobs.iter().filter(|job| is_filter(job)).count();
        (filters, beside - filters)
    }
}

fn is_on_path(job: &SeedJob) -> bool {
    job.role == ROLE_PATH
}

pub(super) fn is_filter(job: &SeedJob) -> bool {
    job.kind == KIND_CONV_FILTER
}

pub(super) fn is_matrix(job: &SeedJob) -> bool {
    matches!(job.kind, KIND_BOTTLENECK | KIND_DENSE)
}
