//! Forward and backward passes of a layer.

use std::ops::Range;

use kasmina_telemetry::{Histogram, TelemetryMode};
use rayon::prelude::*;

use super::jobs::{Jobs, Probed, lower_probes};
use super::{Layer, LayerState, TelemetryState};
use crate::cpu::{
    BackwardCall, ForwardCall, Gradients, Job, RawMat, RawMatMut, Scratch, SeedGradient, Watch,
    input_bounds,
};
use crate::lifecycle::Lifecycle;
use crate::lower::Plan;
use crate::{
    Bounds, Element, Error, ForwardOptions, MatMut, MatRef, Result, SeedLayout, Stability,
    StabilityMode, State,
};

impl Layer {
    /// y = layer(x): chunks on path are transformed and blended, all others come out bit for bit.
    /// `x` and `y` are `[rows, hidden]`, each with its own row stride. Measures x as the telemetry
    /// mode says.
    ///
    /// # Errors
    /// [`Error::Shape`] if a matrix does not fit, and for probes [`Error::Value`],
    /// [`Error::NoSuchSeed`] and [`Error::NoParameters`]. The layer is unchanged then.
    pub fn forward<T: Element>(
        &mut self,
        x: MatRef<'_, T>,
        mut y: MatMut<'_, T>,
        options: &ForwardOptions,
    ) -> Result<()> {
        self.check_shape("x", x.shape(), x.rows())?;
        self.check_shape("y", y.shape(), x.rows())?;
        let (x, y) = (RawMat::new(x), RawMatMut::new(&mut y));
        self.forward_raw(x, y, false, options)
    }

    /// The same with the result in `x` itself. Chunks that are not on path cost one read with
    /// telemetry, and nothing without it.
    ///
    /// # Errors
    /// As [`Layer::forward`], and [`Error::InPlaceNeedsInput`] if a backward pass would need an input
    /// that this overwrites; [`ForwardOptions::inference`] lifts that.
    pub fn forward_in_place<T: Element>(
        &mut self,
        mut x: MatMut<'_, T>,
        options: &ForwardOptions,
    ) -> Result<()> {
        let shape = x.shape();
        self.check_shape("x", shape, shape.0)?;
        let y = RawMatMut::new(&mut x);
        self.forward_raw(y.as_input(), y, true, options)
    }

    fn forward_raw<T: Element>(
        &mut self,
        x: RawMat<T>,
        y: RawMatMut<T>,
        in_place: bool,
        options: &ForwardOptions,
    ) -> Result<()> {
        let probed = lower_probes(&self.state.lifecycle, options)?;
        self.refresh_plan()?;
        let LayerState { lifecycle, stability, telemetry, .. } = &mut self.state;
        let lowered = LoweredLayer { plan: &self.plan, lifecycle, stability, probed: &probed };
        lowered.forward(telemetry, x, y, in_place, options)
    }

    /// Given the x of a forward pass and dL/dy, writes dL/dx and adds parameter gradients to every
    /// trainable seed; all three matrices are `[rows, hidden]`. `options` are those of the forward pass.
    /// Gradients add up over calls until an optimizer step takes them or
    /// [`Layer::zero_gradients`] drops them.
    ///
    /// After an in-place forward, `x` is the buffer it left: the chunks that backward needs are intact.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn backward<T: Element>(
        &mut self,
        x: MatRef<'_, T>,
        grad_y: MatRef<'_, T>,
        mut grad_x: MatMut<'_, T>,
        options: &ForwardOptions,
    ) -> Result<()> {
        self.check_shape("x", x.shape(), x.rows())?;
        self.check_shape("grad_y", grad_y.shape(), x.rows())?;
        self.check_shape("grad_x", grad_x.shape(), x.rows())?;
        let gradients = Gradients { y: RawMat::new(grad_y), x: RawMatMut::new(&mut grad_x) };
        self.backward_raw(RawMat::new(x), Some(gradients), options)
    }

    /// Serves the [`Objective::Reconstruction`](crate::Objective::Reconstruction) of TRAINING seeds on
    /// `x [rows, hidden]` without a task loss; [`Layer::backward`] includes this.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn reconstruct<T: Element>(&mut self, x: MatRef<'_, T>) -> Result<()> {
        self.check_shape("x", x.shape(), x.rows())?;
        self.backward_raw(RawMat::new(x), None, &ForwardOptions::new())
    }

    fn backward_raw<T: Element>(
        &mut self,
        x: RawMat<T>,
        gradients: Option<Gradients<T>>,
        options: &ForwardOptions,
    ) -> Result<()> {
        let probed = lower_probes(&self.state.lifecycle, options)?;
        self.refresh_plan()?;
        let LayerState { lifecycle, stability, telemetry, .. } = &mut self.state;
        let lowered = LoweredLayer { plan: &self.plan, lifecycle, stability, probed: &probed };
        let found = lowered.backward(telemetry, &mut self.scratch, x, gradients, options)?;
        for gradient in found {
            add_gradient(lifecycle, gradient);
        }
        Ok(())
    }

    /// Lowers what changed since the last call; returns how many seeds were lowered.
    ///
    /// # Errors
    /// [`Error::UnregisteredBlueprint`], if the registry lost an entry.
    pub fn refresh_plan(&mut self) -> Result<usize> {
        self.plan.refresh(&mut self.state.lifecycle)
    }

    pub(super) fn check_shape(
        &self,
        what: &'static str,
        found: (usize, usize),
        rows: usize,
    ) -> Result<()> {
        let needed = (rows, self.layout().hidden());
        if found == needed { Ok(()) } else { Err(Error::Shape { what, found, needed }) }
    }
}

/// A layer with everything lowered for a call. A pass over it changes nothing but the telemetry and the
/// buffers that it is given, so that its cost can be measured beside the layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoweredLayer<'a> {
    pub(super) plan: &'a Plan,
    pub(super) lifecycle: &'a Lifecycle,
    pub(super) stability: &'a Stability,
    pub(super) probed: &'a [Probed],
}

impl LoweredLayer<'_> {
    pub(super) fn forward<T: Element>(
        &self,
        telemetry: &mut TelemetryState,
        x: RawMat<T>,
        y: RawMatMut<T>,
        in_place: bool,
        options: &ForwardOptions,
    ) -> Result<()> {
        let Self { plan, lifecycle, stability, probed } = *self;
        let jobs = Jobs::new(plan, lifecycle, probed)?;
        if in_place && !options.is_inference() {
            check_in_place(&jobs.path, stability, lifecycle)?;
        }
        let layout = lifecycle.layout();
        let pass = telemetry.passes;
        telemetry.passes += 1;
        let watched = watched_seeds(telemetry, lifecycle, options, pass);
        let watch =
            watched.as_deref().map(|seeds| Watch { seeds, dead_epsilon: telemetry.dead_epsilon });
        // Histograms first: in place, the pass overwrites what they count.
        if let (Some(histograms), Some(watch)) = (&mut telemetry.histograms, watch) {
            count(histograms, layout, x, watch.seeds);
        }
        let bounds = call_bounds(layout, stability, x, jobs.computes());
        let call = ForwardCall { layout, x, y, in_place, bounds, jobs: &jobs.path, watch };
        telemetry.measured += u64::from(watch.is_some());
        telemetry.saturated += call.run(&mut telemetry.chunk);
        Ok(())
    }

    /// The parameter gradients found, for the caller to hand to the seeds.
    pub(super) fn backward<T: Element>(
        &self,
        telemetry: &mut TelemetryState,
        scratch: &mut Scratch,
        x: RawMat<T>,
        gradients: Option<Gradients<T>>,
        options: &ForwardOptions,
    ) -> Result<Vec<SeedGradient>> {
        let Self { plan, lifecycle, stability, probed } = *self;
        let jobs = Jobs::new(plan, lifecycle, probed)?;
        let layout = lifecycle.layout();
        let pass = telemetry.passes.saturating_sub(1);
        let watched = watched_seeds(telemetry, lifecycle, options, pass);
        let watch = watched.as_deref().map(|seeds| Watch { seeds, dead_epsilon: 0.0 });
        let bounds = call_bounds(layout, stability, x, jobs.computes() || !jobs.shadow.is_empty());
        let (path, shadow) = (jobs.path.as_slice(), jobs.shadow.as_slice());
        let call = BackwardCall { layout, x, gradients, bounds, path, shadow, watch };
        let (found, saturated) = call.run(&mut telemetry.gradient, scratch);
        telemetry.saturated += saturated;
        Ok(found)
    }
}

/// Bounds of a call; without a computed chunk nothing is guarded, and strict mode measures nothing.
fn call_bounds<T: Element>(
    layout: SeedLayout,
    stability: &Stability,
    x: RawMat<T>,
    computes: bool,
) -> Bounds {
    if computes {
        return input_bounds(layout, stability, x);
    }
    Bounds { guarded: false, epsilon: 0.0, lower: f32::NEG_INFINITY, upper: f32::INFINITY }
}

/// An in-place pass that trains must leave what backward reads.
fn check_in_place(path: &[Job<'_>], stability: &Stability, lifecycle: &Lifecycle) -> Result<()> {
    let guarded = stability.mode != StabilityMode::Fast;
    match path.iter().find(|job| job.backward_needs_x(guarded)) {
        None => Ok(()),
        Some(job) => {
            let state = lifecycle.state(job.seed)?;
            Err(Error::InPlaceNeedsInput { seed: job.seed, state })
        }
    }
}

/// The seeds that this pass measures, as ascending ranges; `None` if it measures none.
pub(crate) fn watched_seeds(
    telemetry: &TelemetryState,
    lifecycle: &Lifecycle,
    options: &ForwardOptions,
    pass: u64,
) -> Option<Vec<Range<usize>>> {
    let seeds = lifecycle.layout().seeds();
    let (mode, scope) = (telemetry.mode, telemetry.scope);
    let off = !scope.covers(true);
    if off || !options.is_measured() || !mode.samples_step(pass) {
        return None;
    }
    let every_seed = !matches!(mode, TelemetryMode::Sampling { .. });
    if scope.covers(false) && every_seed {
        return Some(std::iter::once(0..seeds).collect());
    }
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (seed, state) in lifecycle.table().states().iter().enumerate() {
        let dormant = *state == State::Dormant;
        if !scope.covers(dormant) || !mode.samples(pass, seed as u32) {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.end == seed => last.end += 1,
            _ => ranges.push(seed..seed + 1),
        }
    }
    (!ranges.is_empty()).then_some(ranges)
}

/// Counts the watched chunks into their histograms; debug mode pays a pass of its own for that.
fn count<T: Element>(
    histograms: &mut [Histogram],
    layout: SeedLayout,
    x: RawMat<T>,
    seeds: &[Range<usize>],
) {
    let watched = |seed: usize| {
        let at = seeds.partition_point(|range| range.end <= seed);
        seeds.get(at).is_some_and(|range| range.contains(&seed))
    };
    histograms.par_iter_mut().enumerate().filter(|(seed, _)| watched(*seed)).for_each(
        |(seed, histogram)| {
            x.for_each_row(layout.columns(seed), |row| {
                row.iter().for_each(|value| histogram.push(value.to_f32()));
            })
        },
    );
}

/// Hands a seed what a backward pass found; gradients add up.
fn add_gradient(lifecycle: &mut Lifecycle, gradient: SeedGradient) {
    let Some(grown) = lifecycle.grown_mut(gradient.seed) else { return };
    for (total, new) in grown.gradients.iter_mut().zip(&gradient.parameters) {
        *total += new;
    }
    grown.has_gradients = true;
    if let Some(alpha) = gradient.alpha {
        grown.alpha_gradient = Some(grown.alpha_gradient.unwrap_or(0.0) + alpha as f32);
    }
    if let Some(loss) = gradient.reconstruction {
        lifecycle.record_reconstruction(gradient.seed, loss);
    }
}
