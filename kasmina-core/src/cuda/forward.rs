//! The streaming forward pass.

use std::sync::Arc;

use kasmina_sys::{ByValue, DeviceSliceMut, LaunchConfig};
use kasmina_tma::{LoadPath, Selection, TensorMap};

use super::engine::ForwardKernel;
use super::error::CudaError;
use super::geometry::{Geometry, Needs, Tuning};
use super::job::View;
use super::loading;
use super::matrix::{DeviceMatMut, DeviceMatRef, side};
use super::params::{COMPUTE, ForwardParams};
use super::streams::Streams;
use super::tape::Piece;
use super::tune::{self, Key, Pass, TuneReport, TuningSource, Variant, Work};
use super::variants::{Counting, ForwardVariant, element_bytes};
use crate::{DType, Element};

/// How one pass is to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forward {
    /// Whether the input is counted into the seeds' statistics.
    pub measured: bool,
    /// |x| up to this is dead.
    pub dead_epsilon: f32,
    /// Force a rung of the load ladder.
    pub path: Option<LoadPath>,
}

/// How a pass ran.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ForwardReport {
    /// The way that x is loaded, and why not a better one.
    pub path: Selection,
    /// The kernel; `None` where the driver's own copy did it, or nothing had to be done.
    pub kernel: Option<String>,
    /// Blocks that were launched.
    pub blocks: u32,
    /// Where the rung and the cut came from.
    pub tuning: TuningSource,
}

impl Streams {
    /// y = layer(x), both `[rows, hidden]`, each with its own row stride. Queued, not waited for.
    ///
    /// # Errors
    /// A shape that does not fit, a rung that is not possible, or the driver refused.
    pub fn forward<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        y: &mut DeviceMatMut<'_, T>,
        options: &Forward,
    ) -> Result<ForwardReport, CudaError> {
        let output = y.as_ref();
        self.run(x, output, false, options)
    }

    /// The same with the result in `x` itself: tiles that nothing changes are only read, and that only where they are counted.
    ///
    /// # Errors
    /// As for [`Streams::forward`].
    pub fn forward_in_place<T: Element>(
        &mut self,
        x: &mut DeviceMatMut<'_, T>,
        options: &Forward,
    ) -> Result<ForwardReport, CudaError> {
        let both = x.as_ref();
        self.run(both, both, true, options)
    }

    /// `y` is written: the callers hold it exclusively, or it is `x` itself, which they do.
    pub(super) fn run<T: Element>(
        &mut self,
        x: DeviceMatRef<'_, T>,
        y: DeviceMatRef<'_, T>,
        in_place: bool,
        options: &Forward,
    ) -> Result<ForwardReport, CudaError> {
        let (rows, columns) = x.shape();
        self.check_shape("x", x.shape(), rows)?;
        self.check_shape("y", y.shape(), rows)?;
        side("the number of rows", rows)?;
        let computes = self.columns.any(COMPUTE);
        let counting = loading::counting(&self.columns, T::DTYPE, options.measured);
        let views = [x.view(), y.view()];
        let path = loading::select(&self.columns.engine, T::DTYPE, &views, options.path)?;
        if rows == 0 {
            return Ok(self.idle(path));
        }
        if counting == Counting::Off && !computes {
            if in_place {
                return Ok(self.idle(path));
            }
            if x.row_stride() == columns && y.row_stride() == columns {
                self.copy(&x, &y)?;
                return Ok(self.idle(path));
            }
        }
        let pass = if in_place { Pass::InPlace } else { Pass::Forward };
        let what = (counting, Work::forward(computes));
        let key =
            Key::new(pass, T::DTYPE, what, self.columns.layout, &views, (path.path, options.path));
        let homes = [x.data().home(), y.data().home()];
        let decision = tune::decide(&self.columns, &key, &views, &homes);
        let engine = Arc::clone(&self.columns.engine);
        let ran = tune::run(&engine, &key, &views, path, decision, |variant, candidate| {
            // The key is a forward pass's, and so are its kernels.
            let Variant::Forward(variant) = variant else { return Err(CudaError::NoImage) };
            self.launch(*variant, candidate.tuning, x, y, in_place, options)
        })?;
        let (kernel, blocks) = (Some(ran.variant.name()), ran.result.blocks());
        Ok(ForwardReport { path: ran.path, kernel, blocks, tuning: ran.source })
    }

    /// Measures, on memory of its own, which rungs and cuts passes over `rows` dense rows run best with as the columns are now,
    /// and keeps them, whatever the mode: forward, in place, and backward. `measured` as for the passes; `forced` is the one rung
    /// that is to be tuned for. Waits.
    ///
    /// # Errors
    /// More rows than the kernels take, a rung that is not possible, a stream that is being captured, or the device is lost.
    /// That something could not be measured is part of the report.
    pub fn tune(
        &mut self,
        dtype: DType,
        rows: usize,
        measured: bool,
        forced: Option<LoadPath>,
    ) -> Result<TuneReport, CudaError> {
        side("the number of rows", rows)?;
        if self.columns.stream.is_capturing()? {
            return Err(kasmina_sys::Error::Capturing { what: "tuning" }.into());
        }
        self.columns.stream.synchronize()?;
        let layout = self.columns.layout;
        let pitch = layout.hidden() as u64 * u64::from(element_bytes(dtype));
        // As an allocator gives them: address 0 stands for any multiple of what matters.
        let view = View { address: 0, pitch, rows: rows as u32, columns: layout.hidden() as u32 };
        let flags = self.columns.all_flags();
        let counting = loading::counting(&self.columns, dtype, measured);
        let mut report = TuneReport::default();
        let forward = Work::forward(flags & COMPUTE != 0);
        for (pass, work) in [
            (Pass::Forward, forward),
            (Pass::InPlace, forward),
            (Pass::Backward, Work::backward(flags)),
        ] {
            if rows == 0 || (work == Work::Copy && counting == Counting::Off) {
                continue;
            }
            let views = [view; 3];
            let path = loading::select(&self.columns.engine, dtype, &views, forced)?.path;
            let key = Key::new(pass, dtype, (counting, work), layout, &views, (path, forced));
            tune::tune_for_report(&self.columns, &key, &views, &mut report);
        }
        self.columns.engine.context().synchronize()?;
        report.problems = self.columns.engine.autotune_problems();
        Ok(report)
    }

    /// Launches one kernel with one cut; returns the cut.
    pub(super) fn launch<T: Element>(
        &mut self,
        variant: ForwardVariant,
        tuning: Tuning,
        x: DeviceMatRef<'_, T>,
        y: DeviceMatRef<'_, T>,
        in_place: bool,
        options: &Forward,
    ) -> Result<Geometry, CudaError> {
        let kernel = self.columns.engine.forward(variant)?;
        let machine = self.columns.engine.machine(variant.blocks());
        let needs = Needs { tuning, ..variant.needs() };
        let (rows, bytes) = (x.view().rows, variant.element_bytes());
        let layout = self.columns.layout;
        let geometry = Geometry::new(rows, layout, bytes, variant.path, machine, needs);
        let places = (x.view(), y.view(), in_place);
        let params = self.forward_params(variant, geometry, places, options.dead_epsilon)?;
        let shared = variant.shared_bytes(&geometry);
        let config = LaunchConfig::new(geometry.blocks(), variant.threads()).shared_bytes(shared);
        let homes = [x.data().home(), y.data().home()];
        let maps = match variant.path {
            LoadPath::TensorMap => (self.map(&x, &geometry)?, self.map(&y, &geometry)?),
            _ => (TensorMap::ZERO, TensorMap::ZERO),
        };
        // Kernels are not joined with their buffers' streams by themselves; what is written down, whoever launches it joins.
        let joined = if self.columns.tape.is_recording() { &homes[..0] } else { &homes[..] };
        for home in joined {
            self.columns.stream.join(home)?;
        }
        let launched = match &kernel {
            // SAFETY: the parameters are the kernel's; every address in them is of memory that lives until the kernel is done,
            // as its frees are queued on streams that are joined with this one, before and after; the layout of the shared
            // memory is what `shared_bytes` counts.
            ForwardKernel::BulkTensor(kernel) => unsafe {
                let arguments = (maps.0, maps.1, ByValue(params));
                self.columns.launch(Piece::Stream, kernel, &config, arguments)
            },
            // SAFETY: as above.
            ForwardKernel::Plain(kernel) => unsafe {
                self.columns.launch(Piece::Stream, kernel, &config, (ByValue(params),))
            },
        };
        for home in joined {
            home.join(&self.columns.stream)?;
        }
        launched?;
        Ok(geometry)
    }

    /// What a launch of `variant` is told, the cut made ready for it; `places` are x, y, and whether they are the same.
    pub(super) fn forward_params(
        &mut self,
        variant: ForwardVariant,
        geometry: Geometry,
        (x, y, in_place): (View, View, bool),
        dead_epsilon: f32,
    ) -> Result<ForwardParams, CudaError> {
        let counts = variant.counting != Counting::Off;
        let cut = self.cuts.prepare(&self.columns, geometry, counts, &self.totals)?;
        Ok(ForwardParams {
            x: x.address,
            y: y.address,
            x_pitch: x.pitch,
            y_pitch: y.pitch,
            programs: self.columns.programs.address(),
            flags: self.columns.flags.address(),
            tile_flags: cut.tile_flags(),
            bounds: self.columns.bounds.address(),
            accumulators: cut.accumulators(),
            pace: cut.pace(),
            watched: self.columns.watched_address(),
            saturated: self.columns.saturated.address(),
            geometry,
            dead_epsilon,
            in_place: in_place.into(),
        })
    }

    /// The accumulators of a cut in which a launch over several layers counts.
    pub(super) fn stacked_accumulators(&mut self, geometry: Geometry) -> Result<u64, CudaError> {
        let cut = self.cuts.prepare(&self.columns, geometry, true, &self.totals)?;
        Ok(cut.accumulators())
    }

    /// A map of the tiles of `matrix`.
    fn map<T: Element>(
        &self,
        matrix: &DeviceMatRef<'_, T>,
        geometry: &Geometry,
    ) -> Result<TensorMap, CudaError> {
        let map = loading::tile_map(T::DTYPE, matrix.view(), geometry)?;
        let bound = match matrix.data().watch() {
            Some(_) => self.columns.engine.maps().get(matrix.data(), &map)?,
            // Nobody tells when memory of someone else's goes, so its maps are made anew each time.
            None => kasmina_tma::BoundTensorMap::encode(matrix.data(), &map)?,
        };
        // SAFETY: the matrix is borrowed until the kernel is queued, and its memory is freed after it.
        Ok(unsafe { bound.unbound() })
    }

    /// The driver's copy of a whole, dense matrix.
    fn copy<T: Element>(
        &self,
        x: &DeviceMatRef<'_, T>,
        y: &DeviceMatRef<'_, T>,
    ) -> Result<(), CudaError> {
        let elements = x.shape().0 * x.shape().1;
        let (to, from) = (y.data().address(), x.data().address());
        if self.columns.tape.copy(to, from, elements * size_of::<T>()) {
            return Ok(());
        }
        let from = x.data().slice(..elements)?;
        // SAFETY: the caller holds `y` exclusively for this call.
        let mut to =
            unsafe { DeviceSliceMut::from_raw(y.data().home(), y.data().address(), elements) }?;
        Ok(to.copy_from_device(from, &self.columns.stream)?)
    }

    fn idle(&self, path: Selection) -> ForwardReport {
        ForwardReport { path, kernel: None, blocks: 0, tuning: TuningSource::NOTHING_STREAMED }
    }
}
