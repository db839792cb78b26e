//! Passes of a layer as items of a resident grid: everything that a pass does but its launch.

use kasmina_telemetry::{ChunkStats, TelemetryMode, TelemetryScope};
use kasmina_tma::{LoadPath, Selection};

use super::CudaLayer;
use super::pass::{is_filter, is_matrix};
use super::report::Reports;
use super::work::Role;
use crate::cuda::backward::BackwardReport;
use crate::cuda::error::CudaError;
use crate::cuda::forward::ForwardReport;
use crate::cuda::geometry::{Geometry, Machine, Needs, PACKET_BYTES};
use crate::cuda::job::{BackwardViews, View};
use crate::cuda::loading;
use crate::cuda::matrix::side;
use crate::cuda::params::{BackwardParams, FinalizeParams, ForwardParams};
use crate::cuda::residents::{BLOCK_THREADS, GRID, RECORD_BYTES, Residents};
use crate::cuda::streams::Counted;
use crate::cuda::tune::{TuningSource, WhyTable};
use crate::cuda::variants::{BackwardVariant, Counting, ForwardVariant, element_bytes};
use crate::layer::watched_seeds;
use crate::{DType, ForwardOptions, Stability, StabilityMode};

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

/// What items of a layer depend on beside their matrices.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cuda) struct ResidentStamp {
    revision: u64,
    mode: TelemetryMode,
    scope: TelemetryScope,
    stability: Stability,
}

/// Bytes of a matrix above which a launch costs less than the grid's plain loads lose.
const MOST_BYTES: usize = 4 << 20;

/// How a grid loads, whatever else would be possible.
fn selection(path: LoadPath) -> Selection {
    Selection { path, forced: false, passed_by: Vec::new() }
}

/// Rows that a thread takes at a time: as many in both passes, so that a block of one has the elements of a block of the other. 16-bit
/// backward has shared memory for no more.
fn lane_rows(dtype: DType) -> u32 {
    if dtype == DType::F32 { 2 } else { 1 }
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
        let bytes = needed.0 * needed.1 * element_bytes(dtype) as usize;
        if bytes > MOST_BYTES {
            return Ok(Some(format!(
                "a matrix of {bytes} bytes (more than {MOST_BYTES}) is better launched, by kernels with a multiprocessor's whole memory"
            )));
        }
        let path = loading::select(&self.streams.columns.engine, dtype, views, None)?.path;
        if path > LoadPath::CpAsync {
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

    /// A forward pass that `not_resident` has nothing against. [`CudaLayer::note_resident_forward`] is to follow.
    pub(in crate::cuda) fn resident_forward(
        &mut self,
        dtype: DType,
        (x, y, in_place): (View, View, bool),
        options: &ForwardOptions,
        machine: Machine,
    ) -> Result<ResidentForward, CudaError> {
        let pass = self.state.telemetry.passes;
        let counting = self.watch(dtype, x, options, pass)?;
        let path = LoadPath::CpAsync;
        let variant = ForwardVariant { dtype, path, counting, computes: true };
        let needs = Needs { lane_rows: lane_rows(dtype), ..variant.needs() };
        let geometry = self.cut(x.rows, (dtype, counting), path, machine, needs);
        let dead_epsilon = self.state.telemetry.dead_epsilon;
        let places = (x, y, in_place);
        let params = self.streams.forward_params(variant, geometry, places, dead_epsilon)?;
        let forward = Some(ForwardReport {
            path: selection(path),
            kernel: Some(GRID.to_owned()),
            blocks: geometry.blocks(),
            tuning: TuningSource::Table { because: WhyTable::Resident },
        });
        self.on_grid[0] = Reports { forward, backward: None };
        Ok(ResidentForward { counting, params })
    }

    /// A backward pass that `not_resident` has nothing against. [`CudaLayer::note_resident_backward`] is to follow.
    pub(in crate::cuda) fn resident_backward(
        &mut self,
        dtype: DType,
        [x, grad_y, grad_x]: [View; 3],
        options: &ForwardOptions,
        machine: Machine,
    ) -> Result<ResidentBackward, CudaError> {
        let pass = self.state.telemetry.passes.saturating_sub(1);
        let counting = self.watch(dtype, x, options, pass)?;
        let path = LoadPath::CpAsync;
        let variant = BackwardVariant { dtype, path, counting };
        let needs = Needs { lane_rows: lane_rows(dtype), ..variant.needs() };
        let geometry = self.cut(x.rows, (dtype, counting), path, machine, needs);
        let views = BackwardViews { x, gradients: Some((grad_y, grad_x)) };
        let params = self.streams.backward_params(variant, geometry, &views)?;
        let groups = params.geometry.groups;
        let backward = Some(BackwardReport {
            path: Some(selection(path)),
            kernel: Some(GRID.to_owned()),
            blocks: geometry.blocks(),
            tuning: TuningSource::Table { because: WhyTable::Resident },
        });
        self.on_grid[1] = Reports { forward: None, backward };
        let mut finalize = None;
        if let Some(arena) = &self.arena {
            let jobs = arena.job_list();
            finalize =
                self.streams.finalize_params(&views, jobs, groups)?.map(|(params, _)| params);
        }
        Ok(ResidentBackward { counting, params, finalize })
    }

    /// What is counted in a pass; tells the device who is watched, and the guards.
    fn watch(
        &mut self,
        dtype: DType,
        x: View,
        options: &ForwardOptions,
        pass: u64,
    ) -> Result<Counting, CudaError> {
        let watched = watched_seeds(&self.state.telemetry, &self.state.lifecycle, options, pass);
        if let Some(seeds) = &watched {
            self.telemetry.watch(&mut self.streams.columns, seeds)?;
        }
        let computes = self.arena.as_ref().is_some_and(|arena| arena.runs(|_| true));
        self.queue_bounds(dtype, x, computes)?;
        Ok(loading::counting(&self.streams.columns, dtype, watched.is_some()))
    }

    fn cut(
        &self,
        rows: u32,
        (dtype, counting): (DType, Counting),
        path: LoadPath,
        machine: Machine,
        needs: Needs,
    ) -> Geometry {
        let units =
            if counting == Counting::Column { PACKET_BYTES / element_bytes(dtype) } else { 1 };
        let records = RECORD_BYTES / (units * size_of::<ChunkStats>() as u32);
        let threads = BLOCK_THREADS.min(records);
        Geometry::resident(rows, self.layout(), element_bytes(dtype), path, machine, needs, threads)
    }

    /// The layer has made a forward pass.
    pub(in crate::cuda) fn note_resident_forward(&mut self, counted: bool) {
        self.state.telemetry.passes += 1;
        self.state.telemetry.measured += u64::from(counted);
        self.report.follow(&self.on_grid[0]);
        self.streams.note_counts();
    }

    /// The layer has made a backward pass over `rows` rows.
    ///
    /// # Errors
    /// None that a pass for the grid has: it has no losses to fetch.
    pub(in crate::cuda) fn note_resident_backward(&mut self, rows: u32) -> Result<(), CudaError> {
        self.report.follow(&self.on_grid[1]);
        self.streams.note_counts();
        self.note_backward(true, rows as usize)
    }

    /// Forward passes so far, and those of them that were measured.
    pub(in crate::cuda) fn passes_counted(&self) -> [u64; 2] {
        [self.state.telemetry.passes, self.state.telemetry.measured]
    }

    /// Sets these numbers back, where passes were counted that did not run.
    pub(in crate::cuda) fn count_passes_as(&mut self, [passes, measured]: [u64; 2]) {
        let telemetry = &mut self.state.telemetry;
        (telemetry.passes, telemetry.measured) = (passes, measured);
    }

    /// What items of the layer depend on beside their matrices, the device brought up to date; `None` where every pass is another.
    ///
    /// # Errors
    /// As a pass.
    pub(in crate::cuda) fn resident_stamp(&mut self) -> Result<Option<ResidentStamp>, CudaError> {
        self.landings.settle(&mut self.state.lifecycle, false)?;
        self.refresh(&ForwardOptions::new())?;
        let telemetry = &self.state.telemetry;
        if matches!(telemetry.mode, TelemetryMode::Sampling { .. }) {
            return Ok(None);
        }
        Ok(Some(ResidentStamp {
            revision: self.streams.columns.revision(),
            mode: telemetry.mode,
            scope: telemetry.scope,
            stability: self.state.stability,
        }))
    }

    /// What the passes have counted and not yet moved to the totals.
    pub(in crate::cuda) fn resident_collect(&self) -> Vec<Counted> {
        self.streams.counted()
    }

    /// The steps of executors that use this layer.
    pub(in crate::cuda) fn residents(&self) -> &Residents {
        &self.streams.columns.residents
    }
}
