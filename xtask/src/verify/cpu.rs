//! The CPU backend of kasmina-core, run three ways that must agree to the bit: from one matrix to another,
//! over padded rows, and in place.

use half::{bf16, f16};
use kasmina_core::{
    self as core, Blueprint, Element, ForwardOptions, InitialSeed, Layer, MatMut, MatRef,
    SeedLayout, State,
};
use kasmina_oracle::{Activation, Kind, Objective, StabilityMode};

use super::agree::{Pass, compare};
use super::backend::{Backend, BackendError};
use super::case::{Case, Seed};
use super::judge::{Outcome, Output, SeedOutcome};
use super::plane::{Plane, Storage};

/// Elements added to each row in the padded run; odd, so that rows lose their alignment.
pub(super) const PADDING: usize = 3;

/// The CPU backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu;

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn run(&self, case: &Case) -> Result<Outcome, BackendError> {
        match case.x.storage {
            Storage::F32 => run::<f32>(case),
            Storage::F16 => run::<f16>(case),
            Storage::Bf16 => run::<bf16>(case),
        }
    }
}

/// An element with its bits.
pub(super) trait Word: Element {
    fn from_word(word: u32) -> Self;
    fn to_word(self) -> u32;
}

impl Word for f32 {
    fn from_word(word: u32) -> Self {
        Self::from_bits(word)
    }
    fn to_word(self) -> u32 {
        self.to_bits()
    }
}

impl Word for f16 {
    fn from_word(word: u32) -> Self {
        Self::from_bits(word as u16)
    }
    fn to_word(self) -> u32 {
        self.to_bits().into()
    }
}

impl Word for bf16 {
    fn from_word(word: u32) -> Self {
        Self::from_bits(word as u16)
    }
    fn to_word(self) -> u32 {
        self.to_bits().into()
    }
}

/// A matrix whose rows may be padded.
pub(super) struct Matrix<T> {
    pub(super) data: Vec<T>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
}

impl<T: Word> Matrix<T> {
    /// What padding holds: an ordinary number whose bits no computation gives by chance.
    const MARK: u32 = 0x2b5a;

    pub(super) fn blank(case: &Case, padding: usize) -> Self {
        let stride = case.hidden + padding;
        Self {
            data: vec![T::from_word(Self::MARK); case.rows * stride],
            rows: case.rows,
            columns: case.hidden,
            stride,
        }
    }

    pub(super) fn of(case: &Case, plane: &Plane, padding: usize) -> Self {
        let mut matrix = Self::blank(case, padding);
        let rows = plane.bits.chunks(case.hidden);
        for (row, words) in matrix.data.chunks_mut(matrix.stride).zip(rows) {
            for (element, word) in row.iter_mut().zip(words) {
                *element = T::from_word(*word);
            }
        }
        matrix
    }

    fn view(&self) -> core::Result<MatRef<'_, T>> {
        MatRef::new(&self.data, self.rows, self.columns, self.stride)
    }

    fn view_mut(&mut self) -> core::Result<MatMut<'_, T>> {
        MatMut::new(&mut self.data, self.rows, self.columns, self.stride)
    }

    /// The matrix without its padding, and whether that is as it was.
    pub(super) fn unpadded(&self, storage: Storage) -> (Plane, bool) {
        let mut bits = Vec::with_capacity(self.rows * self.columns);
        let mut kept = true;
        for row in self.data.chunks(self.stride) {
            let words = row.iter().map(|v| v.to_word());
            bits.extend(words.clone().take(self.columns));
            kept &= words.clone().skip(self.columns).all(|w| w == Self::MARK);
        }
        (Plane { storage, bits }, kept)
    }
}

fn run<T: Word>(case: &Case) -> Result<Outcome, BackendError> {
    let plain = two_matrices::<T>(case, 0).map_err(failed("run"))?;
    let padded = two_matrices::<T>(case, PADDING).map_err(failed("run over padded rows"))?;
    let in_place = in_place::<T>(case).map_err(failed("run in place"))?;
    let mut disagreements = Vec::new();
    compare(case, "over padded rows", &plain, &padded, &mut disagreements);
    compare(case, "in place", &plain, &in_place, &mut disagreements);
    let (grad_x, seeds) = plain
        .backward
        .ok_or_else(|| failed("run backward")(core::Error::Zero { what: "backward passes" }))?;
    Ok(Outcome { y: Output::stored(plain.y), grad_x: Output::stored(grad_x), seeds, disagreements })
}

fn failed(step: &'static str) -> impl Fn(core::Error) -> BackendError {
    move |error| BackendError { backend: Cpu.name(), step, source: Box::new(error) }
}

/// Forward from x to y and backward from dL/dy to dL/dx, all rows padded alike.
fn two_matrices<T: Word>(case: &Case, padding: usize) -> core::Result<Pass> {
    let mut layer = layer(case)?;
    let options = ForwardOptions::new();
    let x = Matrix::<T>::of(case, &case.x, padding);
    let grad_y = Matrix::<T>::of(case, &case.grad_y, padding);
    let (mut y, mut grad_x) = (Matrix::blank(case, padding), Matrix::blank(case, padding));
    layer.forward(x.view()?, y.view_mut()?, &options)?;
    layer.backward(x.view()?, grad_y.view()?, grad_x.view_mut()?, &options)?;
    let (y, y_kept) = y.unpadded(case.x.storage);
    let (grad_x, grad_x_kept) = grad_x.unpadded(case.x.storage);
    Ok(Pass {
        y,
        backward: Some((grad_x, outcomes(case, &layer))),
        padding_kept: y_kept && grad_x_kept,
    })
}

/// Forward in place; backward from what that leaves, where the layer says that it can.
fn in_place<T: Word>(case: &Case) -> core::Result<Pass> {
    let mut layer = layer(case)?;
    let options = ForwardOptions::new();
    let mut x = Matrix::<T>::of(case, &case.x, PADDING);
    let legal = match layer.forward_in_place(x.view_mut()?, &options) {
        Ok(()) => true,
        Err(core::Error::InPlaceNeedsInput { .. }) => {
            layer.forward_in_place(x.view_mut()?, &options.clone().inference())?;
            false
        }
        Err(error) => return Err(error),
    };
    let (y, mut padding_kept) = x.unpadded(case.x.storage);
    let mut backward = None;
    if legal {
        let grad_y = Matrix::<T>::of(case, &case.grad_y, PADDING);
        let mut grad_x = Matrix::blank(case, PADDING);
        layer.backward(x.view()?, grad_y.view()?, grad_x.view_mut()?, &options)?;
        let (grad_x, kept) = grad_x.unpadded(case.x.storage);
        padding_kept &= kept;
        backward = Some((grad_x, outcomes(case, &layer)));
    }
    Ok(Pass { y, backward, padding_kept })
}

pub(super) fn layer(case: &Case) -> core::Result<Layer> {
    let s = &case.stability;
    let stability = core::Stability {
        mode: match s.mode {
            StabilityMode::Fast => core::StabilityMode::Fast,
            StabilityMode::Adaptive => core::StabilityMode::Adaptive,
            StabilityMode::Strict => core::StabilityMode::Strict,
        },
        epsilon: s.epsilon as f32,
        lower: s.lower as f32,
        upper: s.upper as f32,
        sigmas: s.sigmas as f32,
    };
    let mut builder = Layer::builder(SeedLayout::new(case.hidden, case.chunk)?)
        .stability(stability)
        .dead_epsilon(case.dead_epsilon as f32);
    for (i, seed) in case.seeds.iter().enumerate() {
        builder = builder.seed(i, initial(seed)?);
    }
    builder.build()
}

/// The seed as the layer holds it. States without parameters of their own drop those of the case, and a
/// GERMINATED seed of kind none gets a blueprint that it does not use: neither is on path.
fn initial(seed: &Seed) -> core::Result<InitialSeed> {
    let state = State::try_from(seed.state)?;
    let mut initial = InitialSeed {
        state,
        alpha: seed.alpha.clamp(0.0, 1.0),
        blueprint: None,
        objective: match seed.objective.unwrap_or_default() {
            Objective::StraightThrough => core::Objective::StraightThrough,
            Objective::Reconstruction => core::Objective::Reconstruction,
        },
        parameters: None,
        ..InitialSeed::default()
    };
    if !state.owns_parameters() {
        return Ok(initial);
    }
    let first = seed.parameters.first();
    let inner = first.map_or(1, |t| t.shape[0]);
    initial.blueprint = Some(match seed.kind {
        Kind::None | Kind::Residual => Blueprint::Residual,
        Kind::AttentionHead => Blueprint::AttentionHead,
        Kind::MlpExpansion => Blueprint::MlpExpansion,
        Kind::ConvFilter => Blueprint::ConvFilter { taps: inner },
        Kind::Bottleneck { activation } => {
            Blueprint::Bottleneck { width: inner, activation: activation_of(activation) }
        }
        Kind::Dense { activation } => Blueprint::Dense { activation: activation_of(activation) },
    });
    let tensors = seed.parameters.iter().map(|t| t.values.clone());
    initial.parameters = first.is_some().then(|| tensors.collect());
    Ok(initial)
}

fn activation_of(activation: Activation) -> core::Activation {
    match activation {
        Activation::Relu => core::Activation::Relu,
        Activation::Gelu => core::Activation::Gelu,
        Activation::Silu => core::Activation::Silu,
        Activation::Tanh => core::Activation::Tanh,
    }
}

pub(super) fn outcomes(case: &Case, layer: &Layer) -> Vec<SeedOutcome> {
    let or_nan = |v: Option<f64>| v.unwrap_or(f64::NAN);
    let seeds = case.seeds.iter().enumerate();
    let stats = layer.chunk_stats().iter().zip(layer.gradient_stats());
    seeds
        .zip(stats)
        .map(|((i, seed), (chunk, gradient))| SeedOutcome {
            parameters: layer.gradients(i).map(|found| {
                let found: Vec<(&str, &[f32])> = found.collect();
                // By name, so that an order of its own would not go unnoticed; absent is empty.
                let named = |name| found.iter().find(|(n, _)| *n == name);
                let widen = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect();
                let tensors = seed.parameters.iter();
                tensors.map(|t| named(t.name).map_or(vec![], |(_, v)| widen(v))).collect()
            }),
            alpha: layer.alpha_gradient(i).map(f64::from),
            reconstruction: layer.reconstruction_loss(i),
            telemetry: [
                chunk.n as f64,
                or_nan(chunk.mean()),
                or_nan(chunk.variance()),
                or_nan(chunk.min().map(f64::from)),
                or_nan(chunk.max().map(f64::from)),
                chunk.dead as f64,
                chunk.nonfinite as f64,
            ],
            grad_stats: [
                or_nan(gradient.norm()),
                or_nan(gradient.variance()),
                or_nan(gradient.max_abs().map(f64::from)),
            ],
        })
        .collect()
}
