//! What a seed owns once it has germinated: parameters, gradients, optimizer moments, measurements.

use std::sync::Arc;

use super::signals::Measurements;
use crate::{BlueprintId, Objective, ParameterLayout, ParameterSpec, State};

/// Everything that lives and dies with a seed's parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct GrownSeed {
    pub(crate) blueprint: BlueprintId,
    pub(crate) objective: Objective,
    /// Shared by all seeds of one blueprint and chunk length.
    pub(crate) layout: Arc<ParameterLayout>,
    pub(crate) parameters: Vec<f32>,
    /// As long as the parameters while the state is trainable, empty otherwise.
    pub(crate) gradients: Vec<f32>,
    /// Whether a backward pass has added to the gradients since they were last consumed.
    pub(crate) has_gradients: bool,
    pub(crate) alpha_gradient: Option<f32>,
    pub(crate) reconstruction: Option<f64>,
    pub(crate) optimizer: Option<OptimizerState>,
    /// Training steps the layer had done when the seed entered its state.
    pub(crate) entered_step: u64,
    pub(crate) measured: Measurements,
    pub(crate) graft: Graft,
    /// GRAFTING only: the parameters at the last epoch boundary, from which weight drift is measured.
    pub(crate) reference: Vec<f32>,
    /// Whether the parameters may differ from the reference.
    pub(crate) moved: bool,
    /// The held-back loss with which the seed left EVALUATING.
    pub(crate) accepted_loss: Option<f64>,
}

/// First and second moments of an optimizer of the Adam family.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OptimizerState {
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
    /// Updates done; the bias corrections depend on it.
    pub(crate) updates: u64,
}

impl OptimizerState {
    /// Before the first update of `parameters` parameters.
    pub(crate) fn new(parameters: usize) -> Self {
        Self { first: vec![0.0; parameters], second: vec![0.0; parameters], updates: 0 }
    }
}

/// How far a graft has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Graft {
    /// The share of the way at which the graft began.
    pub(crate) start: f64,
    /// The share of the way now.
    pub(crate) share: f64,
    /// Steps in the graft.
    pub(crate) steps: u64,
    /// Steps on which it moved on.
    pub(crate) advanced: u64,
}

impl Graft {
    pub(crate) fn begin(start: f64) -> Self {
        Self { start, share: start, ..Self::default() }
    }
}

impl GrownSeed {
    pub(crate) fn new(
        blueprint: BlueprintId,
        objective: Objective,
        layout: Arc<ParameterLayout>,
        parameters: Vec<f32>,
    ) -> Self {
        Self {
            blueprint,
            objective,
            layout,
            parameters,
            gradients: Vec::new(),
            has_gradients: false,
            alpha_gradient: None,
            reconstruction: None,
            optimizer: None,
            entered_step: 0,
            measured: Measurements::default(),
            graft: Graft::default(),
            reference: Vec::new(),
            moved: false,
            accepted_loss: None,
        }
    }

    /// Sets everything that depends on the state up for `state`, entered after `step` training steps.
    /// `share` is where a graft begins.
    pub(crate) fn enter(&mut self, state: State, step: u64, share: f64) {
        if state == State::FineTuning {
            self.accepted_loss = self.measured.held_back.map(|measured| measured.value);
        }
        if state.trainable() {
            self.gradients.clear();
            self.gradients.resize(self.parameters.len(), 0.0);
        } else {
            self.gradients = Vec::new();
        }
        if state == State::Fossilized {
            self.optimizer = None;
        }
        let grafting = state == State::Grafting;
        self.reference = if grafting { self.parameters.clone() } else { Vec::new() };
        self.moved = false;
        self.graft = Graft::begin(if grafting { share } else { 0.0 });
        self.has_gradients = false;
        self.alpha_gradient = None;
        self.reconstruction = None;
        // Measurements belong to the state they were taken in.
        self.measured = Measurements::default();
        self.entered_step = step;
    }

    /// Forgets the gradients, as an optimizer does after using them.
    pub(crate) fn clear_gradients(&mut self) {
        self.gradients.fill(0.0);
        self.has_gradients = false;
        self.alpha_gradient = None;
    }

    /// ‖p − r‖₂ / ‖r‖₂ in f64, p the parameters and r what they were at the last epoch boundary: the
    /// relative update size, taken over an epoch. `None` unless GRAFTING; infinite if r is all zeros and
    /// p is not.
    pub fn weight_drift(&self) -> Option<f64> {
        if self.reference.len() != self.parameters.len() || self.reference.is_empty() {
            return None;
        }
        let (mut change, mut norm) = (0.0f64, 0.0f64);
        for (&p, &r) in self.parameters.iter().zip(&self.reference) {
            change += (f64::from(p) - f64::from(r)).powi(2);
            norm += f64::from(r).powi(2);
        }
        Some(if change == 0.0 { 0.0 } else { (change / norm).sqrt() })
    }

    /// The seed's blueprint.
    pub fn blueprint(&self) -> BlueprintId {
        self.blueprint
    }

    /// What the seed learns from while TRAINING.
    pub fn objective(&self) -> Objective {
        self.objective
    }

    /// Names and shapes of the parameter tensors.
    pub fn layout(&self) -> &Arc<ParameterLayout> {
        &self.layout
    }

    /// All parameters, tensor after tensor.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// The parameters tensor by tensor.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&ParameterSpec, &[f32])> {
        self.layout.tensors(&self.parameters)
    }

    /// The parameters tensor by tensor, by name.
    pub(crate) fn named_parameters(&self) -> impl ExactSizeIterator<Item = (&str, &[f32])> {
        self.tensors().map(|(spec, values)| (spec.name.as_ref(), values))
    }

    /// The same of the gathered gradients.
    pub(crate) fn named_gradients(&self) -> Option<impl ExactSizeIterator<Item = (&str, &[f32])>> {
        let tensors = self.layout.tensors(self.gradients()?);
        Some(tensors.map(|(spec, values)| (spec.name.as_ref(), values)))
    }

    /// The gradients gathered since they were last consumed, laid out like the parameters; `None` if
    /// there are none.
    pub fn gradients(&self) -> Option<&[f32]> {
        self.has_gradients.then_some(self.gradients.as_slice())
    }

    /// dL/dα, gathered with the gradients while the seed is GRAFTING or FINE_TUNING with alpha > 0.
    pub fn alpha_gradient(&self) -> Option<f32> {
        self.alpha_gradient
    }

    /// The reconstruction loss of the latest pass, if the seed's objective computes one.
    pub fn reconstruction(&self) -> Option<f64> {
        self.reconstruction
    }

    /// Updates by the built-in optimizer since the parameters were born.
    pub fn updates(&self) -> u64 {
        self.optimizer.as_ref().map_or(0, |state| state.updates)
    }

    /// The latest training loss recorded in this state, however old.
    pub fn loss(&self) -> Option<f64> {
        self.measured.loss.map(|measured| measured.value)
    }
}
