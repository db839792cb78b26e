//! A stack by its layers' own calls, and by graphs of them.

use kasmina_core::ForwardOptions;
use kasmina_core::cuda::{
    CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Room, Step, StepGraph, StepGraphOptions,
};
use kasmina_sys::DeviceBuffer;

use super::super::buffers::values;
use super::super::measure::{Bench, Failure};
use super::super::summary::Timing;
use super::line::{LAYERS, Passes, StackLine, Way};

/// What came out: the last y and the first dL/dx.
pub(super) type Results = [Vec<f32>; 2];

/// Whether two stacks gave the same bits.
pub(super) fn same(a: &Results, b: &Results) -> bool {
    let bits = |results: &Results| -> Vec<u32> {
        results.iter().flatten().map(|value| value.to_bits()).collect()
    };
    bits(a) == bits(b)
}

/// The layers, x of each and the last y, dL/dx of each and the last dL/dy.
pub(super) struct Plain {
    layers: Vec<CudaLayer>,
    x: Vec<DeviceBuffer<f32>>,
    g: Vec<DeviceBuffer<f32>>,
    size: (usize, usize),
}

fn read(
    buffer: &DeviceBuffer<f32>,
    size: (usize, usize),
) -> kasmina_core::Result<DeviceMatRef<'_, f32>> {
    DeviceMatRef::new(buffer.as_slice(), size.0, size.1, size.1)
}

fn write(
    buffer: &mut DeviceBuffer<f32>,
    size: (usize, usize),
) -> kasmina_core::Result<DeviceMatMut<'_, f32>> {
    DeviceMatMut::new(buffer.as_mut_slice(), size.0, size.1, size.1)
}

impl Plain {
    pub(super) fn new(bench: &Bench, line: &StackLine) -> Result<Self, Failure> {
        let (engine, stream) = (bench.engine(), bench.clock().stream());
        let layer = line.layer().map_err(CudaError::from)?;
        let layers = (0..LAYERS).map(|_| CudaLayer::from_layer(&layer, engine, stream));
        let layers = layers.collect::<Result<_, _>>()?;
        let drawn = values::<f32>(line.rows * line.hidden);
        let memory = || -> Result<Vec<DeviceBuffer<f32>>, kasmina_sys::Error> {
            (0..=LAYERS).map(|_| DeviceBuffer::from_host(stream, &drawn)).collect()
        };
        Ok(Self { layers, x: memory()?, g: memory()?, size: (line.rows, line.hidden) })
    }

    /// What the layers' own calls give.
    pub(super) fn expected(&mut self, passes: Passes) -> Result<Results, Failure> {
        self.clear()?;
        self.launch(passes)?;
        self.results()
    }

    /// Times a way; beside the times are how it ran, and what it gave.
    pub(super) fn time(
        &mut self,
        bench: &Bench,
        line: &StackLine,
    ) -> Result<(Timing, String, Results), Failure> {
        let options = match line.way {
            Way::GraphWithRoom => Some(StepGraphOptions::new()),
            Way::Graph => Some(StepGraphOptions::new().room(Room::Exact)),
            Way::GraphProgrammatic => {
                Some(StepGraphOptions::new().room(Room::Exact).programmatic(true))
            }
            _ => None,
        };
        let mut graph = options.map(|options| StepGraph::new(bench.clock().stream(), options));
        self.clear()?;
        let passes = line.passes;
        let mut once = |_| match &mut graph {
            Some(graph) => self.replay(graph, passes),
            None => self.launch(passes),
        };
        once(0)?;
        let timing = bench.clock().time(once)?;
        let how = match &graph {
            Some(graph) => graph.report().to_string(),
            None => "the layers' own calls".to_owned(),
        };
        drop(graph);
        Ok((timing, how, self.results()?))
    }

    /// Zeros where results come, so that none of another way is taken for this one's.
    fn clear(&mut self) -> Result<(), Failure> {
        let stream = self.layers.first().map(|layer| layer.stream().clone());
        let Some(stream) = stream else { return Ok(()) };
        if let Some(last) = self.x.last_mut() {
            last.fill_zero(&stream)?;
        }
        if let Some(first) = self.g.first_mut() {
            first.fill_zero(&stream)?;
        }
        Ok(())
    }

    fn results(&self) -> Result<Results, Failure> {
        let all = |buffer: Option<&DeviceBuffer<f32>>| {
            buffer.map_or(Ok(Vec::new()), DeviceBuffer::to_vec)
        };
        Ok([all(self.x.last())?, all(self.g.first())?])
    }

    fn launch(&mut self, passes: Passes) -> Result<(), CudaError> {
        let Self { layers, x, g, size } = self;
        let options = ForwardOptions::new();
        for (i, layer) in layers.iter_mut().enumerate() {
            let (before, behind) = x.split_at_mut(i + 1);
            layer.forward(
                read(&before[i], *size)?,
                &mut write(&mut behind[0], *size)?,
                &options,
            )?;
        }
        if passes == Passes::Both {
            for (i, layer) in layers.iter_mut().enumerate().rev() {
                let (before, behind) = g.split_at_mut(i + 1);
                let (grad_y, mut grad_x) =
                    (read(&behind[0], *size)?, write(&mut before[i], *size)?);
                layer.backward(read(&x[i], *size)?, grad_y, &mut grad_x, &options)?;
            }
        }
        Ok(())
    }

    fn replay(&mut self, graph: &mut StepGraph, passes: Passes) -> Result<(), CudaError> {
        let Self { layers, x, g, size } = self;
        let mut x = x.iter_mut().map(|b| write(b, *size)).collect::<Result<Vec<_>, _>>()?;
        let mut g = g.iter_mut().map(|b| write(b, *size)).collect::<Result<Vec<_>, _>>()?;
        let step = Step::chain(layers, &mut x)?.chain_gradients(&mut g)?.forward();
        graph.replay(match passes {
            Passes::Forward => step,
            Passes::Both => step.backward(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_compared_and_not_values() {
        let results = |value: f32| [vec![value], Vec::new()];
        assert!(same(&results(f32::NAN), &results(f32::NAN)));
        assert!(!same(&results(0.0), &results(-0.0)));
    }
}
