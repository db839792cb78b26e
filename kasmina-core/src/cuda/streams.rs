//! One layer's column programs and statistics on the device, on which the streaming passes run.

use std::sync::Arc;

use kasmina_sys::{DeviceBuffer, Stream};
use kasmina_telemetry::{ChunkStats, GradientStats};

use super::backward_state::BackwardState;
use super::columns::Columns;
use super::cuts::{self, Cuts};
use super::engine::Engine;
use super::error::CudaError;
use super::geometry::Geometry;
use super::matrix::side;
use super::params::{COMPUTE, RawBounds, RawGradientStats};
use crate::lower::{Lowered, Plan};
use crate::{Bounds, SeedLayout};

/// One layer on the device: its column programs, what they do to which columns, and the statistics gathered so far. All of it
/// belongs to one stream, on which passes are queued; nothing waits for the host.
#[derive(Debug)]
pub struct Streams {
    pub(super) columns: Columns,
    /// Of activations, one entry a seed.
    pub(super) totals: DeviceBuffer<ChunkStats>,
    /// Of output gradients, one entry a seed.
    pub(super) gradient_totals: DeviceBuffer<RawGradientStats>,
    pub(super) backward: BackwardState,
    pub(super) cuts: Cuts<ChunkStats>,
}

/// Accumulators that are to be moved to the seeds' totals.
pub(super) struct Counted {
    pub(super) accumulators: u64,
    pub(super) totals: u64,
    pub(super) geometry: Geometry,
    pub(super) of_gradients: bool,
}

impl Streams {
    /// A layer whose columns are all copied, with empty statistics.
    ///
    /// # Errors
    /// Out of memory, or more columns than the kernels take.
    pub fn new(
        engine: &Arc<Engine>,
        stream: &Stream,
        layout: SeedLayout,
    ) -> Result<Self, CudaError> {
        side("the number of columns", layout.hidden())?;
        let columns = Columns::new(engine, stream, layout)?;
        let totals = DeviceBuffer::unwritten(stream, layout.seeds())?;
        let gradient_totals = DeviceBuffer::unwritten(stream, layout.seeds())?;
        cuts::empty(&columns, &totals)?;
        cuts::empty(&columns, &gradient_totals)?;
        let (backward, cuts) = (BackwardState::default(), Cuts::default());
        Ok(Self { columns, totals, gradient_totals, backward, cuts })
    }

    /// Replaces all programs by those of a lowered layer.
    ///
    /// # Errors
    /// [`CudaError::NotStreamed`] for a seed on path whose branch mixes columns, the programs unchanged; or the copy failed.
    pub fn set_plan(&mut self, plan: &Plan) -> Result<(), CudaError> {
        let mut flags = vec![0u8; self.columns.layout.hidden()];
        for (&seed, planned) in &plan.seeds {
            match planned.path {
                Lowered::Copy => {}
                Lowered::Pointwise => flags[self.columns.layout.columns(seed)].fill(COMPUTE),
                Lowered::Stencil { .. } | Lowered::Matrix => {
                    return Err(CudaError::NotStreamed { seed });
                }
            }
        }
        let identity = [1.0, 1.0, 0.0, 1.0];
        let packed: Vec<[f32; 4]> = match plan.programs(0..self.columns.layout.hidden()) {
            None => vec![identity; self.columns.layout.hidden()],
            Some(all) => {
                let columns = all.on.iter().zip(all.off).zip(all.bias.iter().zip(all.polarity));
                columns.map(|((on, off), (bias, polarity))| [*on, *off, *bias, *polarity]).collect()
            }
        };
        self.columns.programs.copy_from_host(&packed)?;
        self.columns.flags.copy_from_host(&flags)?;
        self.columns.host_flags = flags;
        self.columns.generation += 1;
        Ok(())
    }

    /// Sets the guards of the passes from now on.
    ///
    /// # Errors
    /// The copy failed.
    pub fn set_bounds(&mut self, bounds: Bounds) -> Result<(), CudaError> {
        let Bounds { guarded, epsilon, lower, upper } = bounds;
        let raw = RawBounds { guarded: guarded.into(), epsilon, lower, upper };
        Ok(self.columns.bounds.copy_from_host(&[raw])?)
    }

    /// The statistics gathered so far, one entry a seed. Waits for the passes queued before.
    ///
    /// # Errors
    /// A pass, or the copy, failed.
    pub fn stats(&mut self) -> Result<Vec<ChunkStats>, CudaError> {
        self.collect()?;
        Ok(self.totals.to_vec()?)
    }

    /// The statistics of output gradients gathered so far, one entry a seed. Waits for the passes queued before.
    ///
    /// # Errors
    /// A pass, or the copy, failed.
    pub fn gradient_stats(&mut self) -> Result<Vec<GradientStats>, CudaError> {
        self.collect()?;
        Ok(self.gradient_totals.to_vec()?.into_iter().map(GradientStats::from).collect())
    }

    /// Starts the statistics of activations and of gradients anew. Queued.
    ///
    /// # Errors
    /// The driver refused.
    pub fn clear_stats(&mut self) -> Result<(), CudaError> {
        self.collect()?;
        cuts::empty(&self.columns, &self.totals)?;
        cuts::empty(&self.columns, &self.gradient_totals)
    }

    /// Moves what the passes have counted to `totals` and `gradient_totals`. Queued.
    pub(super) fn collect(&mut self) -> Result<(), CudaError> {
        self.cuts.collect(&self.columns, &self.totals)?;
        self.backward.collect(&self.columns, &self.gradient_totals)
    }

    /// What the passes have counted and not yet moved to `totals` and `gradient_totals`.
    pub(super) fn counted(&self) -> Vec<Counted> {
        let of = |totals: u64, of_gradients: bool| {
            move |(accumulators, geometry)| Counted { accumulators, totals, geometry, of_gradients }
        };
        let chunks = self.cuts.counted().map(of(self.totals.address(), false));
        let gradients = self.backward.counted().map(of(self.gradient_totals.address(), true));
        chunks.chain(gradients).collect()
    }

    /// Notes that the passes of a graph have counted.
    pub(super) fn note_counts(&mut self) {
        self.cuts.note_counts();
        self.backward.note_counts();
    }

    /// Outputs so far that did not fit their type. Waits for the passes queued before.
    ///
    /// # Errors
    /// A pass, or the copy, failed.
    pub fn saturated(&self) -> Result<u64, CudaError> {
        Ok(self.columns.saturated.to_vec()?.first().copied().unwrap_or(0))
    }

    pub(super) fn check_shape(
        &self,
        what: &'static str,
        found: (usize, usize),
        rows: usize,
    ) -> Result<(), CudaError> {
        let needed = (rows, self.columns.layout.hidden());
        if found == needed { Ok(()) } else { Err(CudaError::Shape { what, found, needed }) }
    }
}
