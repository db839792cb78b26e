//! A stack by its layers' own calls, by graphs of them, and by launches that have all layers.

use std::fmt;

use kasmina_core::cuda::{
    CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, LayerStack, Room, StackReport, Step,
    StepGraph, StepGraphOptions,
};
use kasmina_core::{AdamW, ForwardOptions};
use kasmina_sys::{CaptureMode, DeviceBuffer, Graph, GraphExec, Stream};

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
    pub(super) fn expected(&mut self, line: &StackLine) -> Result<Results, Failure> {
        self.clear()?;
        for _ in 0..steps_compared(line) {
            self.launch(line)?;
        }
        self.results()
    }

    /// Times a way; beside the times are how it ran, and what it gave.
    pub(super) fn time(
        &mut self,
        bench: &Bench,
        line: &StackLine,
    ) -> Result<(Timing, String, Results), Failure> {
        let mut how = self.how(bench, line)?;
        self.clear()?;
        for _ in 0..steps_compared(line) {
            self.once(line, &mut how)?;
        }
        let after_a_few = line.advances().then(|| self.results()).transpose()?;
        let timing = bench.clock().time(|_| self.once(line, &mut how))?;
        let results = match after_a_few {
            Some(results) => results,
            // Every step gives the same, and the last one that was timed is looked at.
            None => self.results()?,
        };
        Ok((timing, how.to_string(), results))
    }

    /// What the way needs.
    fn how(&mut self, bench: &Bench, line: &StackLine) -> Result<How, Failure> {
        let stream = bench.clock().stream();
        let graph = |options| How::Graph(Box::new(StepGraph::new(stream, options)));
        let exact = StepGraphOptions::new().room(Room::Exact);
        Ok(match line.way {
            Way::GraphWithRoom => graph(StepGraphOptions::new()),
            Way::Graph => graph(exact),
            Way::GraphProgrammatic => graph(exact.programmatic(true)),
            Way::WholeStack | Way::WholeStackCaptured => {
                let mut stack = LayerStack::new(bench.engine(), stream);
                // What goes up before a pass is there then.
                let report = self.fused(&mut stack, line.passes)?;
                if line.way == Way::WholeStack {
                    return Ok(How::Stack(Box::new(stack), report));
                }
                stream.synchronize()?;
                let mut outcome = Ok(());
                let graph = Graph::capture(stream, CaptureMode::ThreadLocal, |_| {
                    outcome = self.fused(&mut stack, line.passes).map(drop);
                    Ok(())
                });
                outcome?;
                let graph = graph?.instantiate()?;
                How::Captured { graph, stream: stream.clone(), _stack: Box::new(stack), report }
            }
            _ => How::Calls,
        })
    }

    /// One step.
    fn once(&mut self, line: &StackLine, how: &mut How) -> Result<(), CudaError> {
        match how {
            How::Calls => self.launch(line),
            How::Graph(graph) => self.replay(graph, line),
            How::Stack(stack, _) => self.pass(stack, line.passes).map(drop),
            How::Captured { graph, stream, .. } => {
                // SAFETY: the launches name memory of this, of its layers and of the stack that is kept beside the graph; whoever times waits for the stream.
                Ok(unsafe { graph.launch(stream) }?)
            }
        }
    }

    /// The passes of a stack, none of whose layers may run by launches of its own.
    fn fused(&mut self, stack: &mut LayerStack, passes: Passes) -> Result<String, Failure> {
        let reports = self.pass(stack, passes)?;
        let text: Vec<String> = reports.iter().map(ToString::to_string).collect();
        let text = text.join("; back: ");
        match reports.iter().all(|report| report.own.is_empty()) {
            true => Ok(text),
            false => Err(Failure::text(format!("not all layers share launches: {text}"))),
        }
    }

    fn pass(
        &mut self,
        stack: &mut LayerStack,
        passes: Passes,
    ) -> Result<Vec<StackReport>, CudaError> {
        let Self { layers, x, g, size } = self;
        let options = [ForwardOptions::new()];
        let mut layers: Vec<&mut CudaLayer> = layers.iter_mut().collect();
        let (Some((first, inner)), Some((to, outer))) = (x.split_first_mut(), g.split_first_mut())
        else {
            return Ok(Vec::new());
        };
        let (Some(last), Some(from)) = (inner.last_mut(), outer.last()) else {
            return Ok(Vec::new());
        };
        let first = read(first, *size)?;
        let mut reports =
            vec![stack.forward(&mut layers, first, &mut write(last, *size)?, &options)?];
        if passes == Passes::Both {
            let (from, mut to) = (read(from, *size)?, write(to, *size)?);
            reports.push(stack.backward(&mut layers, first, from, &mut to, &options)?);
        }
        Ok(reports)
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

    fn launch(&mut self, line: &StackLine) -> Result<(), CudaError> {
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
        if line.passes != Passes::Forward {
            for (i, layer) in layers.iter_mut().enumerate().rev() {
                let (before, behind) = g.split_at_mut(i + 1);
                let (grad_y, mut grad_x) =
                    (read(&behind[0], *size)?, write(&mut before[i], *size)?);
                layer.backward(read(&x[i], *size)?, grad_y, &mut grad_x, &options)?;
            }
        }
        if line.passes == Passes::Step {
            layers.iter_mut().try_for_each(|layer| layer.optimizer_step(&AdamW::default()))?;
        }
        if line.advances() {
            layers.iter_mut().try_for_each(CudaLayer::advance_step)?;
        }
        Ok(())
    }

    fn replay(&mut self, graph: &mut StepGraph, line: &StackLine) -> Result<(), CudaError> {
        let Self { layers, x, g, size } = self;
        let mut x = x.iter_mut().map(|b| write(b, *size)).collect::<Result<Vec<_>, _>>()?;
        let mut g = g.iter_mut().map(|b| write(b, *size)).collect::<Result<Vec<_>, _>>()?;
        let mut step = Step::chain(layers, &mut x)?.chain_gradients(&mut g)?.forward();
        if line.passes != Passes::Forward {
            step = step.backward();
        }
        if line.passes == Passes::Step {
            step = step.optimizer(&AdamW::default());
        }
        graph.replay(if line.advances() { step.advance() } else { step })
    }
}

/// Steps before results are compared: where a step changes the layers, the second one shows what the first has left.
fn steps_compared(line: &StackLine) -> usize {
    if line.advances() { 2 } else { 1 }
}

/// How a step is executed.
enum How {
    Calls,
    Graph(Box<StepGraph>),
    Stack(Box<LayerStack>, String),
    Captured { graph: GraphExec, stream: Stream, _stack: Box<LayerStack>, report: String },
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls => f.write_str("the layers' own calls"),
            Self::Graph(graph) => write!(f, "{}", graph.report()),
            Self::Stack(_, report) | Self::Captured { report, .. } => f.write_str(report),
        }
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
