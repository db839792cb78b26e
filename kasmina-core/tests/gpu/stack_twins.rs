//! The same layers called one by one and as a stack, over matrices that lie anywhere in memory, and how they are compared.

use std::sync::Arc;

use kasmina_core::cuda::{
    CudaLayer, DeviceMatMut, DeviceMatRef, Engine, LayerStack, StackCut, StackReport,
};
use kasmina_core::{Blueprint, Element, ForwardOptions, Layer, LayerState};
use kasmina_gpu_test::{Failed, ensure};
use kasmina_sys::{DeviceBuffer, Stream};
use kasmina_telemetry::ChunkStats;
use proptest::prelude::*;

use crate::common::{Draw, GUARD, framed, used};
use crate::layer::{self, Case};

/// Stacks are drawn from `case.values`, but for these.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) case: Case,
    pub(crate) layers: usize,
    /// Of eight layers, how many may have seeds of any kind.
    pub(crate) mixed: u64,
    pub(crate) padding: usize,
    pub(crate) offset: usize,
    pub(crate) cut: Option<(u32, u32, u32)>,
    /// Whether all layers have the case's chunk.
    pub(crate) one_chunk: bool,
}

pub(crate) fn life() -> impl Strategy<Value = Life> {
    let cut = (1u32..=64, 1u32..=32, prop::sample::select(vec![1u32, 2, 4]));
    let place = (crate::common::small(), crate::common::small());
    let rest =
        (1usize..=9, prop_oneof![2 => Just(0u64), 1 => Just(2)], place, prop::option::of(cut));
    (layer::case(), rest).prop_map(|(case, (layers, mixed, (padding, offset), cut))| Life {
        case,
        layers,
        mixed,
        padding,
        offset,
        cut,
        one_chunk: false,
    })
}

pub(crate) fn pointwise(draw: &mut Draw) -> Blueprint {
    [Blueprint::Residual, Blueprint::AttentionHead, Blueprint::MlpExpansion][draw.below(3)].clone()
}

/// Layers of one width, and mostly of one chunk.
pub(crate) fn layers(life: &Life, draw: &mut Draw) -> Result<Vec<Layer>, Failed> {
    let mut all = Vec::new();
    for _ in 0..life.layers {
        let other = draw.next().is_multiple_of(4) && !life.one_chunk;
        let chunk = if other { 1 + draw.below(life.case.hidden) } else { life.case.chunk };
        let dormant = draw.next().is_multiple_of(4);
        let owning = if dormant { 0 } else { life.case.owning };
        let case = Case { chunk, owning, values: draw.next(), ..life.case.clone() };
        let kinds = if draw.next() % 8 < life.mixed { layer::blueprint } else { pointwise };
        all.push(layer::layer_of(&case, draw, kinds)?);
    }
    Ok(all)
}

/// A matrix somewhere in memory, with guards around it.
pub(crate) struct Framed<T: Element> {
    pub(crate) memory: DeviceBuffer<T>,
    pub(crate) first: usize,
    pub(crate) shape: (usize, usize, usize),
}

impl<T: Element> Framed<T> {
    pub(crate) fn new(
        home: &Stream,
        (rows, hidden): (usize, usize),
        life: &Life,
    ) -> Result<Self, Failed> {
        let stride = hidden + life.padding;
        let inner = vec![T::from_f32(-55.0); used(rows, hidden, stride)];
        let memory = DeviceBuffer::from_host(home, &framed(&inner, life.offset))?;
        Ok(Self { memory, first: GUARD + life.offset, shape: (rows, hidden, stride) })
    }

    pub(crate) fn set(&mut self, values: &[T]) -> Result<(), Failed> {
        let (rows, hidden, stride) = self.shape;
        let mut all = self.memory.to_vec()?;
        for r in 0..rows {
            let at = self.first + r * stride;
            all[at..at + hidden].copy_from_slice(&values[r * hidden..][..hidden]);
        }
        Ok(self.memory.copy_from_host(&all)?)
    }

    pub(crate) fn read(&self) -> Result<DeviceMatRef<'_, T>, Failed> {
        let (rows, hidden, stride) = self.shape;
        let slice = self.memory.slice(self.first..self.first + used(rows, hidden, stride))?;
        Ok(DeviceMatRef::new(slice, rows, hidden, stride)?)
    }

    pub(crate) fn write(&mut self) -> Result<DeviceMatMut<'_, T>, Failed> {
        let (rows, hidden, stride) = self.shape;
        let slice = self.memory.slice_mut(self.first..self.first + used(rows, hidden, stride))?;
        Ok(DeviceMatMut::new(slice, rows, hidden, stride)?)
    }

    /// Everything, guards and padding too.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, Failed> {
        Ok(bytemuck::cast_slice(&self.memory.to_vec()?).to_vec())
    }
}

/// The same layers twice: called one by one, and as a stack.
pub(crate) struct Twins<T: Element> {
    pub(crate) plain: Vec<CudaLayer>,
    pub(crate) stacked: Vec<CudaLayer>,
    pub(crate) stack: LayerStack,
    /// The layers' inputs, and the last one's output.
    pub(crate) matrices: Vec<Framed<T>>,
    pub(crate) x: Framed<T>,
    pub(crate) y: Framed<T>,
    /// The gradients of the same.
    pub(crate) gradients: Vec<Framed<T>>,
    pub(crate) grad_x: Framed<T>,
    pub(crate) grad_y: Framed<T>,
}

impl<T: Element> Twins<T> {
    pub(crate) fn new(engine: &Arc<Engine>, layers: &[Layer], life: &Life) -> Result<Self, Failed> {
        let (one, two) = (Stream::new(engine.context())?, Stream::new(engine.context())?);
        let hidden = layers.first().map_or(1, |layer| layer.layout().hidden());
        let size = (life.case.rows, hidden);
        let on = |stream: &Stream| -> Result<Vec<CudaLayer>, Failed> {
            layers.iter().map(|layer| Ok(CudaLayer::from_layer(layer, engine, stream)?)).collect()
        };
        let elsewhere = Stream::new(engine.context())?;
        let home = if life.case.values.is_multiple_of(2) { &two } else { &elsewhere };
        let mut stack = LayerStack::new(engine, &two);
        stack.force_cut(life.cut.map(|(packets, lanes, held)| StackCut { packets, lanes, held }));
        Ok(Self {
            plain: on(&one)?,
            stacked: on(&two)?,
            stack,
            matrices: (0..=layers.len())
                .map(|_| Framed::new(&one, size, life))
                .collect::<Result<_, _>>()?,
            x: Framed::new(home, size, life)?,
            y: Framed::new(home, size, life)?,
            gradients: (0..=layers.len())
                .map(|_| Framed::new(&one, size, life))
                .collect::<Result<_, _>>()?,
            grad_x: Framed::new(home, size, life)?,
            grad_y: Framed::new(home, size, life)?,
        })
    }

    pub(crate) fn each<R: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        mut body: impl FnMut(usize, &mut CudaLayer) -> Result<R, Failed>,
    ) -> Result<(), Failed> {
        for (i, (plain, stacked)) in self.plain.iter_mut().zip(&mut self.stacked).enumerate() {
            let (a, b) = (body(i, plain)?, body(i, stacked)?);
            ensure(a == b, || format!("{what} of layer {i}: stacked {b:?}, but plain {a:?}"))?;
        }
        Ok(())
    }

    /// One pass of both on the same input.
    pub(crate) fn forward(
        &mut self,
        x: &[T],
        options: &[ForwardOptions],
    ) -> Result<StackReport, Failed> {
        self.matrices[0].set(x)?;
        self.x.set(x)?;
        for (i, layer) in self.plain.iter_mut().enumerate() {
            let (before, behind) = self.matrices.split_at_mut(i + 1);
            let own = &options[i.min(options.len() - 1)];
            layer.forward(before[i].read()?, &mut behind[0].write()?, own)?;
        }
        let mut layers: Vec<&mut CudaLayer> = self.stacked.iter_mut().collect();
        let report =
            self.stack.forward(&mut layers, self.x.read()?, &mut self.y.write()?, options)?;
        let last = self.plain.len();
        let (a, b) = (self.matrices[last].bytes()?, self.y.bytes()?);
        let at = a.iter().zip(&b).position(|(a, b)| a != b).map(|at| at / size_of::<T>());
        ensure(a == b, || {
            format!("element {at:?} of the output and its guards differs: {report}")
        })?;
        let (a, b) = (self.matrices[0].bytes()?, self.x.bytes()?);
        ensure(a == b, || format!("the input was overwritten: {report}"))?;
        Ok(report)
    }

    /// The way back of both, behind `forward`.
    pub(crate) fn backward(
        &mut self,
        grad_y: &[T],
        options: &[ForwardOptions],
    ) -> Result<StackReport, Failed> {
        let count = self.plain.len();
        self.gradients[count].set(grad_y)?;
        self.grad_y.set(grad_y)?;
        for (i, layer) in self.plain.iter_mut().enumerate().rev() {
            let (before, behind) = self.gradients.split_at_mut(i + 1);
            let own = &options[i.min(options.len() - 1)];
            let (x, from) = (self.matrices[i].read()?, behind[0].read()?);
            layer.backward(x, from, &mut before[i].write()?, own)?;
        }
        let mut layers: Vec<&mut CudaLayer> = self.stacked.iter_mut().collect();
        let (x, from) = (self.x.read()?, self.grad_y.read()?);
        let report =
            self.stack.backward(&mut layers, x, from, &mut self.grad_x.write()?, options)?;
        let (a, b) = (self.gradients[0].bytes()?, self.grad_x.bytes()?);
        let at = a.iter().zip(&b).position(|(a, b)| a != b).map(|at| at / size_of::<T>());
        ensure(a == b, || format!("element {at:?} of dL/dx and its guards differs: {report}"))?;
        Ok(report)
    }

    /// What a backward pass has left: gradients and their statistics within the rounding of sums in another order. Both go on from the plain
    /// layers then.
    pub(crate) fn compare_gradients(
        &mut self,
        report: &StackReport,
        wild: bool,
    ) -> Result<(), Failed> {
        for i in 0..self.plain.len() {
            let (a, b) = (state(&mut self.plain[i])?, state(&mut self.stacked[i])?);
            for (seed, (a, b)) in a.telemetry.gradient.iter().zip(&b.telemetry.gradient).enumerate()
            {
                let good = (a.n, a.nonfinite, a.max_abs.to_bits())
                    == (b.n, b.nonfinite, b.max_abs.to_bits())
                    && close(a.mean, b.mean, 1e-5, f64::from(a.max_abs))
                    && close(a.m2, b.m2, 1e-5, 1e-30)
                    && close(a.sum_squares, b.sum_squares, 1e-5, 1e-30);
                ensure(good, || {
                    format!(
                        "gradient statistics of seed {seed} of layer {i}: stacked {b:?}, but plain {a:?}: {report}"
                    )
                })?;
            }
            ensure(a.telemetry.saturated == b.telemetry.saturated, || {
                format!("saturated of layer {i}: {report}")
            })?;
            for seed in 0..self.plain[i].layout().seeds() {
                let (Some(a), Some(b)) = (a.lifecycle.grown(seed), b.lifecycle.grown(seed)) else {
                    continue;
                };
                let terms = (self.x.shape.0 * self.plain[i].layout().chunk_len(seed)) as f64;
                let good = match (a.gradients(), b.gradients()) {
                    (Some(a), Some(b)) => {
                        let largest = a
                            .iter()
                            .map(|v| f64::from(v.abs()))
                            .fold(0.05 * terms.sqrt(), f64::max);
                        let alike = |(a, b): (&f32, &f32)| {
                            close(f64::from(*a), f64::from(*b), 2e-4, largest)
                                || (a.is_nan() && b.is_nan())
                        };
                        // Gradients of huge inputs cancel: what is left is each order's rounding.
                        wild || a.iter().zip(b).all(alike)
                    }
                    (a, b) => a.is_none() && b.is_none(),
                };
                let alphas = a.alpha_gradient().is_some() == b.alpha_gradient().is_some();
                ensure(good && alphas, || {
                    format!(
                        "gradients of seed {seed} of layer {i}: stacked {b:?}, but plain {a:?}: {report}"
                    )
                })?;
            }
        }
        let (stream, engine) =
            (self.stacked[0].stream().clone(), Arc::clone(self.stacked[0].engine()));
        for (plain, stacked) in self.plain.iter_mut().zip(&mut self.stacked) {
            *stacked = CudaLayer::from_layer(&plain.to_layer()?, &engine, &stream)?;
        }
        Ok(())
    }

    /// Everything that the layers know: statistics of activations nearly, or bit for bit, the rest bit for bit.
    pub(crate) fn compare(&mut self, exact: bool, report: &StackReport) -> Result<(), Failed> {
        for i in 0..self.plain.len() {
            let a = state(&mut self.plain[i])?;
            let mut b = state(&mut self.stacked[i])?;
            for (seed, (a, b)) in a.telemetry.chunk.iter().zip(&b.telemetry.chunk).enumerate() {
                let good = if exact { same(a, b) } else { near(a, b) };
                ensure(good, || {
                    format!(
                        "statistics of seed {seed} of layer {i}: stacked {b:?}, but plain {a:?}: {report}"
                    )
                })?;
            }
            b.telemetry.chunk.clone_from(&a.telemetry.chunk);
            let (found, wanted) = (b.to_bytes()?, a.to_bytes()?);
            let counters = |state: &LayerState| {
                let t = &state.telemetry;
                (t.passes, t.measured, t.saturated)
            };
            ensure(found == wanted, || {
                format!(
                    "the state of layer {i} differs: {:?}, but {:?}: {report}",
                    counters(&b),
                    counters(&a)
                )
            })?;
        }
        Ok(())
    }
}

pub(crate) fn state(layer: &mut CudaLayer) -> Result<LayerState, Failed> {
    layer.synchronize()?;
    Ok(layer.layer_state().clone())
}

pub(crate) fn same(a: &ChunkStats, b: &ChunkStats) -> bool {
    bytemuck::bytes_of(a) == bytemuck::bytes_of(b)
}

pub(crate) fn close(a: f64, b: f64, share: f64, scale: f64) -> bool {
    a == b || (a - b).abs() <= share * a.abs().max(b.abs()).max(scale) || (a.is_nan() && b.is_nan())
}

/// What another cut may differ in: the last bits of sums.
pub(crate) fn near(a: &ChunkStats, b: &ChunkStats) -> bool {
    let deviation = (a.m2 / a.n.max(1) as f64).sqrt();
    (a.n, a.dead, a.nonfinite, a.min.to_bits(), a.max.to_bits())
        == (b.n, b.dead, b.nonfinite, b.min.to_bits(), b.max.to_bits())
        && close(a.mean, b.mean, 1e-5, deviation)
        && close(a.m2, b.m2, 1e-5, 1e-30)
}

pub(crate) fn values<T: Element>(count: usize, draw: &mut Draw, wild: bool) -> Vec<T> {
    (0..count).map(|_| T::from_f32(draw.value(wild))).collect()
}
