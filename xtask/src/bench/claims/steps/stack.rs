//! A stack of layers in one of the designs, launch by launch.

use kasmina_core::Element;
use kasmina_core::cuda::{CudaError, SourceLayer};
use kasmina_sys::DeviceBuffer;

use super::super::super::buffers::values;
use super::super::super::case::Matrices;
use super::super::super::measure::{Bench, Failure};
use super::super::agree::Judge;
use super::super::expansions;
use super::super::line::Way;
use super::super::passes::{Design, same_gradients, widened};

/// Alphas small enough for values to go through dozens of layers and neither vanish nor grow.
pub(super) const ALPHA: (f32, f32) = (0.02, 0.06);

/// The layers, x of each and the last y, dL/dx of each and the last dL/dy.
pub(super) struct Stack<T: Element> {
    layers: Vec<Design>,
    activations: Vec<DeviceBuffer<T>>,
    gradients: Vec<DeviceBuffer<T>>,
    matrices: Matrices,
}

impl<T: Element> Stack<T> {
    /// A stack that has not run.
    pub(super) fn new(
        bench: &Bench,
        way: Way,
        layers: usize,
        matrices: Matrices,
    ) -> Result<Self, CudaError> {
        let (layout, stream) = (super::layout(matrices)?, bench.clock().stream());
        let design = |number| {
            let expansions = expansions::draw(layout, ALPHA, number);
            Design::new(bench, way, (layout, matrices.rows), Some(&expansions))
        };
        let layers = (0..layers).map(design).collect::<Result<Vec<_>, _>>()?;
        let elements = matrices.rows * matrices.hidden;
        let zeros = || {
            let all = (0..=layers.len()).map(|_| DeviceBuffer::<T>::zeroed(stream, elements));
            all.collect::<Result<Vec<_>, _>>()
        };
        let (mut activations, mut gradients) = (zeros()?, zeros()?);
        let drawn = values::<T>(elements);
        for buffer in activations.first_mut().into_iter().chain(gradients.last_mut()) {
            buffer.copy_from_host(&drawn)?;
        }
        Ok(Self { layers, activations, gradients, matrices })
    }

    /// Queues all passes.
    pub(super) fn run(&mut self) -> Result<(), CudaError> {
        let shape = (self.matrices.rows, self.matrices.hidden);
        for (layer, at) in self.layers.iter_mut().zip(0..) {
            let (before, after) = self.activations.split_at_mut(at + 1);
            let (Some(x), Some(y)) = (before.last(), after.first_mut()) else { continue };
            layer.forward(x.as_slice(), &mut y.as_mut_slice(), shape)?;
        }
        for (at, layer) in self.layers.iter_mut().enumerate().rev() {
            let (before, after) = self.gradients.split_at_mut(at + 1);
            let (Some(to), Some(g)) = (before.last_mut(), after.first()) else { continue };
            let x = self.activations[at].as_slice();
            layer.backward(x, g.as_slice(), &mut to.as_mut_slice(), shape)?;
        }
        Ok(())
    }

    pub(super) fn set_programs(&mut self, programs: u32) -> Result<(), CudaError> {
        self.layers.iter_mut().try_for_each(|layer| layer.set_programs(programs))
    }

    /// Launches of a run: each pass's, and what finalizes our gradients.
    pub(super) fn launches(&self) -> usize {
        let each = |layer: &Design| match layer {
            Design::Source(_) => SourceLayer::launches().into_iter().sum(),
            Design::Ours(_) => 3,
        };
        self.layers.iter().map(each).sum()
    }

    /// The last y and the first dL/dx. Waits.
    pub(super) fn results(&self) -> Result<[Vec<f32>; 2], CudaError> {
        let read = |buffer: Option<&DeviceBuffer<T>>| -> Result<Vec<f32>, CudaError> {
            Ok(widened(&buffer.map_or(Ok(Vec::new()), DeviceBuffer::to_vec)?))
        };
        Ok([read(self.activations.last())?, read(self.gradients.first())?])
    }

    /// Compares what has come out of both after one run: matrices, and the first layer's gradients and their statistics.
    pub(super) fn compare(
        &mut self,
        expected: &mut Self,
        judge: &mut Judge,
    ) -> Result<(), Failure> {
        let dtype = self.matrices.dtype;
        let names = ["the last layer's y", "the first layer's dL/dx"];
        for ((name, a), e) in names.into_iter().zip(self.results()?).zip(expected.results()?) {
            judge.elements(name, dtype, &a, &e).map_err(Failure::text)?;
        }
        let layout = super::layout(self.matrices)?;
        // The last layer's: of all, its dL/dy is what both were given.
        let last = (self.layers.last_mut(), expected.layers.last_mut());
        if let (Some(a), Some(e)) = last {
            let ((a_stats, a), (e_stats, e)) = (a.gradients()?, e.gradients()?);
            judge.gradients(&a_stats, &e_stats).map_err(Failure::text)?;
            same_gradients(judge, layout, (&a, &e), &e_stats).map_err(Failure::text)?;
        }
        Ok(())
    }

    /// Its matrices' shape.
    pub(super) fn matrices(&self) -> Matrices {
        self.matrices
    }

    /// How many layers.
    pub(super) fn len(&self) -> usize {
        self.layers.len()
    }
}
