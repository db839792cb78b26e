//! The forward pass of a stack: runs of layers, the matrices between them, and one launch for a run.

use kasmina_sys::{
    ByValue, DeviceBuffer, DeviceSlice, Kernel, KernelArguments, LaunchConfig, Stream,
};
use kasmina_tma::LoadPath;

use super::cut::{Room, Shape};
use super::params::ForwardStack;
use super::plan::{OwnLaunches, Run, runs};
use super::report::{FusedLayers, StackReport};
use super::{LayerStack, Passed, StackCut, StackError, options_of};
use crate::cuda::error::CudaError;
use crate::cuda::forward::ForwardReport;
use crate::cuda::geometry::Geometry;
use crate::cuda::layer::CudaLayer;
use crate::cuda::loading;
use crate::cuda::matrix::DeviceMatRef;
use crate::cuda::tune::{TuningSource, WhyTable};
use crate::cuda::variants::{Counting, StackPass, stack_image, stack_kernel};
use crate::{DType, Element, ForwardOptions};

/// What a kernel over several layers takes.
pub(in crate::cuda) type StackForward = (ByValue<ForwardStack>,);

/// Cuts that are remembered: training and evaluation batches alternate.
const CUTS: usize = 16;

impl LayerStack {
    /// `y` is written: the callers hold it exclusively, or it is `x` itself, which they do.
    pub(super) fn run_forward<T: Element>(
        &mut self,
        layers: &mut [&mut CudaLayer],
        x: DeviceMatRef<'_, T>,
        y: DeviceMatRef<'_, T>,
        in_place: bool,
        options: &[ForwardOptions],
    ) -> Result<StackReport, CudaError> {
        self.check(layers, options)?;
        for (i, layer) in layers.iter_mut().enumerate() {
            layer.check_shapes(&[("x", &x), ("y", &y)])?;
            layer.ready_stacked(in_place, options_of(options, i))?;
        }
        let (runs, stream) =
            (self.runs(T::DTYPE, x.shape().0, layers, options), self.stream.clone());
        let bytes = x.shape().0 * x.shape().1 * size_of::<T>();
        self.passed = None;
        make_room(&mut self.between, &stream, runs.len() - 1, bytes)?;
        // What a run leaves, and the next one finds.
        let mut places = vec![x];
        for kept in &self.between[..runs.len() - 1] {
            places.push(dense(&stream, kept, x.shape())?);
        }
        places.push(y);
        let passed = Passed::new(T::DTYPE, x.shape().0, layers, &runs);
        let report = join(&stream, &[x.data().home(), y.data().home()], || {
            let mut report = StackReport::default();
            let mut fused = 0;
            for (i, run) in runs.iter().enumerate() {
                let (from, to) = (places[i], places[i + 1]);
                let alike = in_place && runs.len() == 1;
                match run {
                    Run::Own { layer, .. } => {
                        layers[*layer].forward_into(
                            from,
                            to,
                            alike,
                            options_of(options, *layer),
                        )?;
                        report.add_own(run);
                    }
                    Run::Fused { layers: range, counting } => {
                        let part = &mut layers[range.clone()];
                        let options =
                            if options.len() == 1 { options } else { &options[range.clone()] };
                        let mut found =
                            self.fuse(fused, part, *counting, (from, to, alike), options)?;
                        fused += 1;
                        found.layers = range.clone();
                        report.fused.push(found);
                    }
                }
            }
            Ok(report)
        })?;
        self.passed = Some(passed);
        Ok(report)
    }

    /// How layers that are ready for a pass go into launches.
    pub(super) fn runs(
        &self,
        dtype: DType,
        rows: usize,
        layers: &[&mut CudaLayer],
        options: &[ForwardOptions],
    ) -> Vec<Run> {
        let fit = |(i, layer): (usize, &&mut CudaLayer)| match rows {
            0 => Err(OwnLaunches::NoRows),
            _ => layer.fits_forward(dtype, options_of(options, i)),
        };
        runs(&layers.iter().enumerate().map(fit).collect::<Vec<_>>())
    }

    /// One launch over `layers`, the `index`-th of the pass.
    fn fuse<T: Element>(
        &mut self,
        index: usize,
        layers: &mut [&mut CudaLayer],
        counting: Counting,
        (x, y, in_place): (DeviceMatRef<'_, T>, DeviceMatRef<'_, T>, bool),
        options: &[ForwardOptions],
    ) -> Result<FusedLayers, CudaError> {
        let dtype = T::DTYPE;
        let (from, to) = (x.view(), y.view());
        let shape = Shape::new(StackPass::Forward, from, layers, dtype, counting);
        let (multiprocessors, limit) = (self.engine.multiprocessors(), self.engine.shared_bytes());
        let cut = self.cut_for(&shape, layers.len());
        let Some(room) = shape.room(cut, layers.len(), limit) else {
            return Err(CudaError::NoImage);
        };
        let mut selection = loading::select(&self.engine, dtype, &[from, to], None)?;
        let aligned = selection.path <= LoadPath::Vector16;
        selection.path = if aligned { LoadPath::Vector16 } else { LoadPath::Scalar };

        let mut host = Vec::with_capacity(layers.len());
        let (mut computes, mut geometry) = (false, None);
        for (i, layer) in layers.iter_mut().enumerate() {
            let own = shape.geometry(cut, layer.layout(), multiprocessors);
            let (record, changes) =
                layer.stacked_forward(dtype, from, own, options_of(options, i))?;
            host.push(record);
            computes |= changes;
            geometry.get_or_insert(own);
        }
        let Some(geometry) = geometry else { return Err(StackError::Empty.into()) };
        let counted: Vec<bool> = host.iter().map(|layer| layer.accumulators != 0).collect();
        let list = self.forward.address(index, &self.stream, layers[0].uploads(), host)?;
        let params = ForwardStack {
            x: from.address,
            y: to.address,
            x_pitch: from.pitch,
            y_pitch: to.pitch,
            layers: list,
            geometry,
            count: layers.len() as u32,
            workers: room.workers,
            plans: room.plans,
            slots: room.slots,
            aligned: aligned.into(),
            stored: (computes || !in_place).into(),
        };
        let name = stack_kernel(StackPass::Forward, dtype, counting, cut.held);
        let kernel = self.engine.kernel::<StackForward>(&stack_image(dtype), &name)?;
        self.launch(&kernel, &geometry, &room, (ByValue(params),))?;
        let blocks = geometry.blocks();
        let report = ForwardReport {
            path: selection,
            kernel: Some(name.clone()),
            blocks,
            tuning: TuningSource::Table { because: WhyTable::NotTunable },
        };
        for (layer, counted) in layers.iter_mut().zip(counted) {
            layer.note_stacked_forward(counted, &report);
        }
        let tile = (geometry.tile_columns, geometry.stage_rows());
        Ok(FusedLayers { layers: 0..0, kernel: name, blocks, threads: room.threads, tile })
    }

    pub(super) fn launch<A: KernelArguments>(
        &self,
        kernel: &Kernel<A>,
        geometry: &Geometry,
        room: &Room,
        arguments: A,
    ) -> Result<(), CudaError> {
        let config =
            LaunchConfig::new(geometry.blocks(), room.threads).shared_bytes(room.shared_bytes);
        // SAFETY: the arguments are the kernel's; every address in them is of memory that lives until the kernel is done: the layers' and
        // the list are freed on this stream, and the matrices' streams are joined with it; the layout of the shared memory is what `room`
        // counts.
        Ok(unsafe { kernel.launch(&self.stream, &config, arguments) }?)
    }

    /// The cut for a shape, worked out once.
    pub(super) fn cut_for(&mut self, shape: &Shape, layers: usize) -> StackCut {
        let (multiprocessors, limit) = (self.engine.multiprocessors(), self.engine.shared_bytes());
        if let Some(cut) = self.cut.filter(|cut| shape.allows(*cut, layers, limit)) {
            return cut;
        }
        let known = self.cuts.iter().find(|((of, count), _)| of == shape && *count == layers);
        if let Some((_, cut)) = known {
            return *cut;
        }
        let cut = shape.cut(layers, multiprocessors, limit);
        self.cuts.truncate(CUTS - 1);
        self.cuts.insert(0, ((shape.clone(), layers), cut));
        cut
    }
}

/// Sees to it that there are `count` matrices of `bytes` bytes.
pub(super) fn make_room(
    matrices: &mut Vec<DeviceBuffer<u8>>,
    stream: &Stream,
    count: usize,
    bytes: usize,
) -> Result<(), CudaError> {
    for i in 0..count {
        if matrices.get(i).is_none_or(|kept| kept.len() < bytes) {
            let matrix = DeviceBuffer::unwritten(stream, bytes)?;
            match matrices.get_mut(i) {
                Some(kept) => *kept = matrix,
                None => matrices.push(matrix),
            }
        }
    }
    Ok(())
}

/// A matrix between two runs, without padding.
pub(super) fn dense<'a, T: Element>(
    stream: &'a Stream,
    kept: &DeviceBuffer<u8>,
    (rows, columns): (usize, usize),
) -> Result<DeviceMatRef<'a, T>, CudaError> {
    // SAFETY: the buffer has as many bytes at least, and is freed on this stream, on which everything that uses the matrix is queued.
    let elements = unsafe { DeviceSlice::from_raw(stream, kept.address(), rows * columns) }?;
    Ok(DeviceMatRef::new(elements, rows, columns, columns)?)
}

/// Runs `body`, which queues a use of memory of `homes` on `stream`, after everything queued on them so far and before whatever is queued
/// on them from now on, also where it fails half way.
pub(super) fn join<R>(
    stream: &Stream,
    homes: &[&Stream],
    body: impl FnOnce() -> Result<R, CudaError>,
) -> Result<R, CudaError> {
    for home in homes {
        if home.context().raw() != stream.context().raw() {
            return Err(kasmina_sys::Error::OtherContext { what: "a pass of a stack" }.into());
        }
        stream.join(home)?;
    }
    let outcome = body();
    for home in homes {
        if let Err(error) = home.join(stream) {
            // Without a join the host waits in the home's place.
            stream.synchronize()?;
            return outcome.and(Err(error.into()));
        }
    }
    outcome
}
