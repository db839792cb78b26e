//! Two stacks of the same layers, one driven by plain calls and one by a step graph, that must not differ in a bit.

use std::sync::Arc;

use kasmina_core::cuda::{
    CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Engine, Step, StepGraph, StepGraphOptions,
};
use kasmina_core::{AdamW, Element, ForwardOptions, Layer};
use kasmina_gpu_test::{Failed, ensure};
use kasmina_sys::{DeviceBuffer, Stream};

/// One stack: layers, and the matrices between them.
pub(crate) struct Stack<T: Element> {
    pub(crate) layers: Vec<CudaLayer>,
    /// The input, and each layer's output.
    pub(crate) x: Vec<DeviceBuffer<T>>,
    /// Their gradients.
    pub(crate) g: Vec<DeviceBuffer<T>>,
    pub(crate) rows: usize,
    pub(crate) hidden: usize,
}

/// The parts of a step.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) forward: bool,
    pub(crate) backward: bool,
    pub(crate) optimizer: Option<AdamW>,
    pub(crate) advance: bool,
    /// One a layer.
    pub(crate) options: Vec<ForwardOptions>,
}

impl Parts {
    /// All of them, without probes.
    pub(crate) fn all(layers: usize, optimizer: &AdamW) -> Self {
        Self {
            forward: true,
            backward: true,
            optimizer: Some(*optimizer),
            advance: true,
            options: vec![ForwardOptions::new(); layers],
        }
    }
}

impl<T: Element> Stack<T> {
    pub(crate) fn new(
        engine: &Arc<Engine>,
        stream: &Stream,
        home: &Stream,
        layers: &[Layer],
        rows: usize,
    ) -> Result<Self, Failed> {
        let hidden = layers.first().map_or(1, |layer| layer.layout().hidden());
        let memory = |_| DeviceBuffer::<T>::zeroed(home, rows * hidden);
        let count = 0..layers.len() + 1;
        let layers = layers.iter().map(|layer| CudaLayer::from_layer(layer, engine, stream));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            x: count.clone().map(memory).collect::<Result<_, _>>()?,
            g: count.map(memory).collect::<Result<_, _>>()?,
            rows,
            hidden,
        })
    }

    pub(crate) fn fill(&mut self, x: &[T], grad_y: &[T]) -> Result<(), Failed> {
        if let (Some(first), Some(last)) = (self.x.first_mut(), self.g.last_mut()) {
            first.copy_from_host(x)?;
            last.copy_from_host(grad_y)?;
        }
        Ok(())
    }

    /// The plain calls.
    pub(crate) fn plain(&mut self, parts: &Parts) -> Result<(), CudaError> {
        let Self { layers, x, g, rows, hidden } = self;
        let size = (*rows, *hidden);
        if parts.forward {
            for (i, layer) in layers.iter_mut().enumerate() {
                let (before, behind) = x.split_at_mut(i + 1);
                let (from, mut to) = (read(&before[i], size)?, write(&mut behind[0], size)?);
                layer.forward(from, &mut to, &parts.options[i])?;
            }
        }
        if parts.backward {
            for (i, layer) in layers.iter_mut().enumerate().rev() {
                let (before, behind) = g.split_at_mut(i + 1);
                let (grad_y, mut grad_x) = (read(&behind[0], size)?, write(&mut before[i], size)?);
                layer.backward(read(&x[i], size)?, grad_y, &mut grad_x, &parts.options[i])?;
            }
        }
        if let Some(optimizer) = &parts.optimizer {
            layers.iter_mut().try_for_each(|layer| layer.optimizer_step(optimizer))?;
        }
        if parts.advance {
            layers.iter_mut().try_for_each(CudaLayer::advance_step)?;
        }
        Ok(())
    }

    /// The same as one replay.
    pub(crate) fn replay(&mut self, graph: &mut StepGraph, parts: &Parts) -> Result<(), CudaError> {
        let Self { layers, x, g, rows, hidden } = self;
        let size = (*rows, *hidden);
        let mut x = x.iter_mut().map(|b| write(b, size)).collect::<Result<Vec<_>, _>>()?;
        let mut g = g.iter_mut().map(|b| write(b, size)).collect::<Result<Vec<_>, _>>()?;
        let mut step = Step::chain(layers, &mut x)?.chain_gradients(&mut g)?;
        for (i, options) in parts.options.iter().enumerate() {
            step = step.options_of(i, options);
        }
        if parts.forward {
            step = step.forward();
        }
        if parts.backward {
            step = step.backward();
        }
        if let Some(optimizer) = &parts.optimizer {
            step = step.optimizer(optimizer);
        }
        graph.replay(if parts.advance { step.advance() } else { step })
    }

    fn matrices(&self) -> Result<Vec<Vec<T>>, Failed> {
        Ok(self.x.iter().chain(&self.g).map(DeviceBuffer::to_vec).collect::<Result<_, _>>()?)
    }

    /// The layers as their checkpoints have them: everything that goes on.
    pub(crate) fn states(&mut self) -> Result<Vec<Vec<u8>>, Failed> {
        let state = |layer: &mut CudaLayer| -> Result<Vec<u8>, Failed> {
            layer.synchronize()?;
            Ok(layer.layer_state().to_bytes()?)
        };
        self.layers.iter_mut().map(state).collect()
    }
}

fn read<T: Element>(
    buffer: &DeviceBuffer<T>,
    (rows, hidden): (usize, usize),
) -> kasmina_core::Result<DeviceMatRef<'_, T>> {
    DeviceMatRef::new(buffer.as_slice(), rows, hidden, hidden)
}

fn write<T: Element>(
    buffer: &mut DeviceBuffer<T>,
    (rows, hidden): (usize, usize),
) -> kasmina_core::Result<DeviceMatMut<'_, T>> {
    DeviceMatMut::new(buffer.as_mut_slice(), rows, hidden, hidden)
}

pub(crate) struct Twins<T: Element> {
    pub(crate) plain: Stack<T>,
    pub(crate) replayed: Stack<T>,
    pub(crate) graph: StepGraph,
}

impl<T: Element> Twins<T> {
    /// The replayed stack's matrices belong to `home`.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        home: Option<&Stream>,
        layers: &[Layer],
        rows: usize,
        options: StepGraphOptions,
    ) -> Result<Self, Failed> {
        let (one, two) = (Stream::new(engine.context())?, Stream::new(engine.context())?);
        Ok(Self {
            plain: Stack::new(engine, &one, &one, layers, rows)?,
            replayed: Stack::new(engine, &two, home.unwrap_or(&two), layers, rows)?,
            graph: StepGraph::new(&two, options),
        })
    }

    pub(crate) fn fill(&mut self, x: &[T], grad_y: &[T]) -> Result<(), Failed> {
        self.plain.fill(x, grad_y)?;
        self.replayed.fill(x, grad_y)
    }

    /// The same step on both. Where one refuses the other must in the same words.
    pub(crate) fn step(&mut self, parts: &Parts) -> Result<(), Failed> {
        let a = self.plain.plain(parts).map_err(|error| error.to_string());
        let b = self.replayed.replay(&mut self.graph, parts).map_err(|error| error.to_string());
        ensure(a == b, || format!("{parts:?}: replayed {b:?}, but plain {a:?}"))
    }

    /// The same of both, to each layer.
    pub(crate) fn each<R: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        mut body: impl FnMut(usize, &mut CudaLayer) -> Result<R, Failed>,
    ) -> Result<(), Failed> {
        let layers = self.plain.layers.iter_mut().zip(&mut self.replayed.layers);
        for (i, (plain, replayed)) in layers.enumerate() {
            let (a, b) = (body(i, plain)?, body(i, replayed)?);
            ensure(a == b, || format!("{what} of layer {i}: replayed {b:?}, but plain {a:?}"))?;
        }
        Ok(())
    }

    /// Everything of both, bit for bit.
    pub(crate) fn compare(&mut self) -> Result<(), Failed> {
        let (a, b) = (self.plain.matrices()?, self.replayed.matrices()?);
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            let (a, b): (&[u8], &[u8]) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b));
            let at = a.iter().zip(b).position(|(a, b)| a != b);
            let size = size_of::<T>();
            ensure(at.is_none(), || {
                let at = at.unwrap_or(0) / size;
                format!("matrix {i} differs first in element {at}: {}", self.graph.report())
            })?;
        }
        self.each("the report", |_, layer| Ok(layer.report()))?;
        let (a, b) = (self.plain.states()?, self.replayed.states()?);
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            let at = a.iter().zip(b).position(|(a, b)| a != b);
            ensure(a == b, || {
                let [plain, replayed] = [&self.plain, &self.replayed].map(|stack| {
                    let layer = &stack.layers[i];
                    format!("{:?}, {:?}", layer.chunk_stats(), layer.lifecycle().table())
                });
                format!(
                    "layer {i}'s state differs at byte {at:?} of {} and {}: {}\nplain    {plain}\nreplayed {replayed}",
                    a.len(),
                    b.len(),
                    self.graph.report()
                )
            })?;
        }
        self.each("what the optimizer did", |_, layer| Ok(layer.take_optimizer_summaries()))
    }
}
