//! The backward pass of a stack: runs of layers from the last one to the first, one launch for as much of a run as shared memory has inputs
//! of, and one finalize step for all layers of a run.

use std::ops::Range;

use kasmina_sys::{ByValue, LaunchConfig};
use kasmina_tma::LoadPath;

use super::cut::Shape;
use super::forward::{dense, join, make_room};
use super::params::{BackwardLayer, BackwardStack, FinalizeStack, NO_PLACE};
use super::plan::Run;
use super::report::{FusedLayers, StackReport};
use super::{LayerStack, StackError, options_of};
use crate::cuda::backward::{BackwardReport, FINALIZE_THREADS, by_blocks};
use crate::cuda::error::CudaError;
use crate::cuda::job::BackwardViews;
use crate::cuda::layer::CudaLayer;
use crate::cuda::loading;
use crate::cuda::matrix::DeviceMatRef;
use crate::cuda::tune::{TuningSource, WhyTable};
use crate::cuda::variants::{Counting, StackPass, stack_image, stack_kernel};
use crate::{DType, Element, ForwardOptions};

/// What a backward kernel over several layers takes.
pub(in crate::cuda) type StackBackward = (ByValue<BackwardStack>,);
/// What the finalize step of several layers takes.
pub(in crate::cuda) type StackFinalize = (ByValue<FinalizeStack>,);

impl LayerStack {
    pub(super) fn run_backward<T: Element>(
        &mut self,
        layers: &mut [&mut CudaLayer],
        [x, grad_y, grad_x]: [DeviceMatRef<'_, T>; 3],
        options: &[ForwardOptions],
    ) -> Result<StackReport, CudaError> {
        self.check(layers, options)?;
        for (i, layer) in layers.iter_mut().enumerate() {
            layer.check_shapes(&[("x", &x), ("grad_y", &grad_y), ("grad_x", &grad_x)])?;
            layer.ready_stacked(false, options_of(options, i))?;
        }
        let (rows, stream) = (x.shape().0, self.stream.clone());
        let runs = self.runs_back(T::DTYPE, rows, layers, options)?;
        let bytes = rows * x.shape().1 * size_of::<T>();
        make_room(&mut self.gradients, &stream, (runs.len() - 1).min(2), bytes)?;
        let homes = [x.data().home(), grad_y.data().home(), grad_x.data().home()];
        join(&stream, &homes, || {
            let (mut report, mut fused, mut lists) = (StackReport::default(), 0, 0);
            let mut from = grad_y;
            for (i, run) in runs.iter().enumerate().rev() {
                let input =
                    if i == 0 { x } else { dense(&stream, &self.between[i - 1], x.shape())? };
                let to = match i {
                    0 => grad_x,
                    _ => dense(&stream, &self.gradients[i % 2 % self.gradients.len()], x.shape())?,
                };
                let views =
                    BackwardViews { x: input.view(), gradients: Some((from.view(), to.view())) };
                match run {
                    Run::Own { layer, .. } => {
                        let options = options_of(options, *layer);
                        layers[*layer].run_backward(T::DTYPE, views, &[], options)?;
                        report.add_own(run);
                    }
                    Run::Fused { layers: range, .. } => {
                        let part = &mut layers[range.clone()];
                        let options =
                            if options.len() == 1 { options } else { &options[range.clone()] };
                        let found =
                            self.fuse_back(T::DTYPE, (&mut lists, fused), part, &views, options)?;
                        fused += 1;
                        report.fused.extend(found.into_iter().map(|mut one| {
                            one.layers =
                                range.start + one.layers.start..range.start + one.layers.end;
                            one
                        }));
                    }
                }
                from = to;
            }
            Ok(report)
        })
    }

    /// The runs of the forward pass, if it was of these layers, or those of the layers as they are where one launch takes them all.
    fn runs_back(
        &self,
        dtype: DType,
        rows: usize,
        layers: &[&mut CudaLayer],
        options: &[ForwardOptions],
    ) -> Result<Vec<Run>, CudaError> {
        let passed = self.passed.as_ref().filter(|passed| passed.was(dtype, rows, layers));
        let mut runs = match passed {
            Some(passed) => passed.runs.clone(),
            None => self.runs(dtype, rows, layers, options),
        };
        if passed.is_none() && runs.len() > 1 {
            let layer = runs.get(1).map_or(0, |run| run.layers().start);
            return Err(StackError::NoForward { layer }.into());
        }
        for run in &mut runs {
            if let Run::Fused { layers: range, counting } = run {
                *counting = Counting::Off;
                for i in range.clone() {
                    let fit = layers[i].fits_backward(dtype, options_of(options, i));
                    match (fit, *counting) {
                        (Ok(Counting::Off), _) => {}
                        (Ok(own), known) if known == Counting::Off || known == own => {
                            *counting = own
                        }
                        // The layer has changed since the forward pass.
                        _ => return Err(StackError::NoForward { layer: i }.into()),
                    }
                }
            }
        }
        Ok(runs)
    }

    /// The launches over `layers`, which are a run: the last layers first. `lists` counts the pass's launches, `index` is the run's number.
    fn fuse_back(
        &mut self,
        dtype: DType,
        (lists, index): (&mut usize, usize),
        layers: &mut [&mut CudaLayer],
        views: &BackwardViews,
        options: &[ForwardOptions],
    ) -> Result<Vec<FusedLayers>, CudaError> {
        let Some((grad_y, grad_x)) = views.gradients else { return Ok(Vec::new()) };
        let mut counting = Counting::Off;
        for (i, layer) in layers.iter().enumerate() {
            match layer.fits_backward(dtype, options_of(options, i)) {
                Ok(own) if own != Counting::Off => counting = own,
                _ => {}
            }
        }
        let shape = Shape::new(StackPass::Backward, views.x, layers, dtype, counting);
        let (multiprocessors, limit) = (self.engine.multiprocessors(), self.engine.shared_bytes());
        let cut = self.cut_for(&shape, layers.len());
        let Some(room) = shape.room(cut, layers.len(), limit) else {
            return Err(CudaError::NoImage);
        };
        let all = [views.x, grad_y, grad_x];
        let mut selection = loading::select(&self.engine, dtype, &all, None)?;
        let aligned = selection.path <= LoadPath::Vector16;
        selection.path = if aligned { LoadPath::Vector16 } else { LoadPath::Scalar };

        let mut host = Vec::with_capacity(layers.len());
        for (i, layer) in layers.iter_mut().enumerate() {
            let own = shape.geometry(cut, layer.layout(), multiprocessors);
            let (params, reads) =
                layer.stacked_backward(dtype, views, own, options_of(options, i))?;
            // Places are given by launch.
            host.push(BackwardLayer {
                params,
                place: if reads { 0 } else { NO_PLACE },
                padding: 0,
            });
        }
        let Some(geometry) = host.first().map(|layer| layer.params.geometry) else {
            return Err(StackError::Empty.into());
        };
        let name = stack_kernel(StackPass::Backward, dtype, counting, cut.held);
        let kernel = self.engine.kernel::<StackBackward>(&stack_image(dtype), &name)?;
        let tile = (geometry.tile_columns, geometry.stage_rows());
        let (blocks, threads) = (geometry.blocks(), room.threads);
        let reads: Vec<bool> = host.iter().map(|layer| layer.place != NO_PLACE).collect();
        let mut found = Vec::new();
        let mut from = grad_y;
        for part in segments(&reads, room.places as usize) {
            let (list, again, places) = with_places(&host[..part.end], part.start);
            let address = self.backward.address(*lists, &self.stream, layers[0].uploads(), list)?;
            *lists += 1;
            let params = BackwardStack {
                x: views.x.address,
                grad_y: from.address,
                grad_x: grad_x.address,
                x_pitch: views.x.pitch,
                grad_y_pitch: from.pitch,
                grad_x_pitch: grad_x.pitch,
                layers: address,
                geometry,
                first: part.start as u32,
                last: part.end as u32,
                again,
                places,
                workers: room.workers,
                plans: room.plans,
                slots: room.slots,
                aligned: aligned.into(),
            };
            self.launch(&kernel, &geometry, &room, (ByValue(params),))?;
            from = grad_x;
            found.push(FusedLayers { layers: part, kernel: name.clone(), blocks, threads, tile });
        }
        self.finalize_all(index, layers, views, geometry.groups)?;
        let report = BackwardReport {
            path: Some(selection),
            kernel: Some(name),
            blocks,
            tuning: TuningSource::Table { because: WhyTable::NotTunable },
        };
        let rows = views.x.rows as usize;
        layers.iter_mut().try_for_each(|layer| layer.note_stacked_backward(rows, &report))?;
        Ok(found)
    }

    /// From column sums to gradients, for all layers of a run.
    fn finalize_all(
        &mut self,
        index: usize,
        layers: &mut [&mut CudaLayer],
        views: &BackwardViews,
        groups: u32,
    ) -> Result<(), CudaError> {
        let mut list = Vec::new();
        for layer in layers.iter_mut() {
            match layer.stacked_finalize(views, groups)? {
                Some((params, widest)) if by_blocks(&self.engine, params.count, widest) => {
                    list.push(params);
                }
                Some(_) => layer.finalize_alone(views, groups)?,
                None => {}
            }
        }
        let Some(jobs) = list.iter().map(|params| params.count).max() else { return Ok(()) };
        let count = list.len() as u32;
        let address = self.finalize.address(index, &self.stream, layers[0].uploads(), list)?;
        let kernel =
            self.engine.kernel::<StackFinalize>("stack_finalize", "kasmina_stack_finalize")?;
        let config = LaunchConfig::new(count * jobs, FINALIZE_THREADS);
        let arguments = (ByValue(FinalizeStack { layers: address, count, jobs }),);
        // SAFETY: the arguments are the kernel's; the list, the jobs and the memory that they name are the layers' and ours, freed on this stream.
        Ok(unsafe { kernel.launch(&self.stream, &config, arguments) }?)
    }
}

/// Cuts layers into as many as there are places for the inputs of those that read them, the last ones first.
fn segments(reads: &[bool], places: usize) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let (mut end, mut taken) = (reads.len(), 0);
    for (i, reads) in reads.iter().enumerate().rev() {
        if *reads && taken == places.max(1) {
            out.push(i + 1..end);
            (end, taken) = (i + 1, 0);
        }
        taken += usize::from(*reads);
    }
    out.push(0..end);
    out
}

/// The layers of a launch that takes those from `first` on back, with places for inputs; the layer whose input is the last that is computed
/// once more, and the number of places.
fn with_places(layers: &[BackwardLayer], first: usize) -> (Vec<BackwardLayer>, u32, u32) {
    let (mut list, mut again, mut places) = (layers.to_vec(), 0, 0);
    for (i, layer) in list.iter_mut().enumerate() {
        if layer.place == NO_PLACE || i < first {
            layer.place = NO_PLACE;
            continue;
        }
        (layer.place, again) = (places, i as u32);
        places += 1;
    }
    (list, again, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use proptest::prelude::*;

    #[test]
    fn a_stack_is_cut_where_its_inputs_do_not_fit() {
        assert_eq!(segments(&[true; 5], 2), [3..5, 1..3, 0..1]);
        assert_eq!(segments(&[true, false, false, true], 1), [1..4, 0..1]);
        assert_eq!(segments(&[false; 3], 1).first(), Some(&(0..3)));
    }

    proptest! {
        #[test]
        fn every_layer_is_taken_back_once_with_its_input(
            reads in prop::collection::vec(any::<bool>(), 1..130), places in 1usize..20,
        ) {
            let place = |reads: &bool| if *reads { 0 } else { NO_PLACE };
            let layer = |reads| BackwardLayer { place: place(reads), ..BackwardLayer::zeroed() };
            let layers: Vec<_> = reads.iter().map(layer).collect();
            let mut end = reads.len();
            for part in segments(&reads, places) {
                prop_assert_eq!(part.end, end);
                end = part.start;
                let (list, again, count) = with_places(&layers[..part.end], part.start);
                let wanted: Vec<usize> = part.clone().filter(|i| reads[*i]).collect();
                prop_assert!(count as usize == wanted.len() && wanted.len() <= places);
                prop_assert_eq!(again as usize, wanted.last().copied().unwrap_or(0));
                for (i, layer) in list.iter().enumerate() {
                    let place = wanted.iter().position(|one| *one == i);
                    prop_assert_eq!(layer.place, place.map_or(NO_PLACE, |place| place as u32));
                }
            }
            prop_assert_eq!(end, 0);
        }
    }
}
