//! What random lives of stacks draw alike: the layers of a stack, and a step's values, probes and optimizer.

use kasmina_core::cuda::CudaLayer;
use kasmina_core::{AdamW, Element, ForwardOptions, Layer};
use kasmina_gpu_test::Failed;

use crate::common::Draw;
use crate::layer::{self, Case};
use crate::layer_pair::ADAMW;
use crate::step_twins::{Parts, Stack};

/// The layers of a stack: the first has the case's chunks, the others their own.
pub(crate) fn layers(
    case: &Case,
    count: usize,
    draw: &mut Draw,
    make: impl Fn(&Case, &mut Draw) -> Result<Layer, Failed>,
) -> Result<Vec<Layer>, Failed> {
    let mut layers = Vec::new();
    for _ in 0..count {
        let chunk = 1 + draw.below(case.hidden);
        let chunk = if layers.is_empty() { case.chunk } else { chunk };
        let case = Case { chunk, values: draw.next(), ..case.clone() };
        layers.push(make(&case, draw)?);
    }
    Ok(layers)
}

/// A whole step and what it is fed with.
pub(crate) struct DrawnStep<T> {
    pub(crate) x: Vec<T>,
    pub(crate) grad_y: Vec<T>,
    pub(crate) parts: Parts,
}

/// One of so many steps has probes.
pub(crate) fn step<T: Element>(
    stack: &Stack<T>,
    wild: bool,
    probed: u64,
    draw: &mut Draw,
) -> DrawnStep<T> {
    let n = stack.rows * stack.hidden;
    let x = (0..n).map(|_| T::from_f32(draw.value(wild))).collect();
    let grad_y = (0..n).map(|_| T::from_f32(draw.unit())).collect();
    let probing = draw.next().is_multiple_of(probed);
    let mut of = |layer: &CudaLayer| match probing {
        true => layer::options(&layer.last_synchronized(), draw),
        false => ForwardOptions::new(),
    };
    let options = stack.layers.iter().map(&mut of).collect();
    let rate = [1e-2, 3e-3, 1e-3][draw.below(3)];
    let optimizer = AdamW { learning_rate: rate, ..ADAMW };
    let parts = Parts { options, ..Parts::all(stack.layers.len(), &optimizer) };
    DrawnStep { x, grad_y, parts }
}
