//! Lowering: from lifecycle states and parameters to what the streaming kernels run.
//!
//! Residual, attention head, expansion and identity are all, per column,
//! `y = x·(x·p > 0 ? on : off) + b`, blended by alpha included. They lower to a [`ColumnPrograms`];
//! a filter lowers to taps; bottleneck, dense and user kinds keep their matrices and are marked so.
//! A seed is lowered again only when it changed, and no other seed is touched then.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::lifecycle::{GrownSeed, Lifecycle};
use crate::{Blueprint, Objective, Result, SeedLayout, State};

/// Four floats a column, as four arrays: `y = x·(x·polarity > 0 ? on : off) + bias`.
/// The identity is {1, 1, 0, 1}, and columns that are the identity are copied, not computed.
///
/// `polarity` is the sign of the weight, not the weight: only the sign matters, and a product with
/// ±1 cannot underflow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnPrograms {
    on: Vec<f32>,
    off: Vec<f32>,
    bias: Vec<f32>,
    polarity: Vec<f32>,
}

/// The programs of some consecutive columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Program<'a> {
    /// Factor where x·polarity > 0.
    pub on: &'a [f32],
    /// Factor elsewhere.
    pub off: &'a [f32],
    /// Added last.
    pub bias: &'a [f32],
    /// Sign of the branch's weight: −1, 0 or 1.
    pub polarity: &'a [f32],
}

impl<'a> Program<'a> {
    /// The program of a part of the columns.
    pub(crate) fn slice(&self, range: Range<usize>) -> Program<'a> {
        Program {
            on: &self.on[range.clone()],
            off: &self.off[range.clone()],
            bias: &self.bias[range.clone()],
            polarity: &self.polarity[range],
        }
    }

    /// Whether every column is linear in x, so that its input gradient does not depend on x.
    pub(crate) fn is_linear(&self) -> bool {
        self.on.iter().zip(self.off).all(|(on, off)| on == off)
    }
}

impl ColumnPrograms {
    /// The identity on `columns` columns.
    pub fn identity(columns: usize) -> Self {
        Self {
            on: vec![1.0; columns],
            off: vec![1.0; columns],
            bias: vec![0.0; columns],
            polarity: vec![1.0; columns],
        }
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.on.len()
    }

    /// The programs of a range of columns.
    pub fn view(&self, range: Range<usize>) -> Program<'_> {
        Program { on: &self.on, off: &self.off, bias: &self.bias, polarity: &self.polarity }
            .slice(range)
    }

    fn set(&mut self, column: usize, [on, off, bias, polarity]: [f32; 4]) {
        self.on[column] = on;
        self.off[column] = off;
        self.bias[column] = bias;
        self.polarity[column] = polarity;
    }

    fn reset(&mut self, range: Range<usize>) {
        for column in range {
            self.set(column, [1.0, 1.0, 0.0, 1.0]);
        }
    }

    /// Lowers `(1 − alpha)·x + alpha·T(x)` of a pointwise kind into the columns from `start`.
    /// Returns `false`, leaving the columns alone, if the kind is not pointwise.
    pub(crate) fn lower(
        &mut self,
        start: usize,
        blueprint: &Blueprint,
        parameters: &[f32],
        alpha: f32,
    ) -> bool {
        let keep = 1.0 - alpha;
        match blueprint {
            Blueprint::Residual => {
                let (weight, scale) = parameters.split_at(parameters.len() - 1);
                for (i, w) in weight.iter().enumerate() {
                    self.set(start + i, [1.0, 1.0, alpha * (scale[0] * w), 1.0]);
                }
            }
            Blueprint::AttentionHead => {
                for (i, p) in softmax(parameters).enumerate() {
                    let factor = keep + alpha * p;
                    self.set(start + i, [factor, factor, 0.0, 1.0]);
                }
            }
            Blueprint::MlpExpansion => {
                let (weight, scale) = parameters.split_at(parameters.len() - 1);
                for (i, &w) in weight.iter().enumerate() {
                    let polarity = if w == 0.0 { 0.0 } else { w.signum() };
                    self.set(start + i, [keep + alpha * (scale[0] * w), keep, 0.0, polarity]);
                }
            }
            _ => return false,
        }
        true
    }
}

/// softmax(w), shifted by the maximum so that nothing overflows, summed in f64.
pub(crate) fn softmax(w: &[f32]) -> impl Iterator<Item = f32> + '_ {
    let max = w.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = w.iter().map(|v| f64::from(v - max).exp()).sum();
    w.iter().map(move |v| (f64::from(v - max).exp() / sum) as f32)
}

/// What became of one branch.
#[derive(Clone, Debug, PartialEq)]
pub enum Lowered {
    /// The chunk is copied.
    Copy,
    /// The chunk has column programs.
    Pointwise,
    /// The chunk is filtered: `y[i] = Σⱼ taps[j]·x[i−j]`, zero before the chunk's start.
    Stencil {
        /// The taps, scaled and blended by alpha.
        taps: Vec<f32>,
    },
    /// The branch runs on its parameters as they are: bottleneck, dense, user-defined.
    Matrix,
}

/// One seed that is not simply copied, or that trains.
#[derive(Clone, Debug, PartialEq)]
pub struct SeedPlan {
    /// What the output path does, blended by alpha.
    pub path: Lowered,
    /// The blend in force on the path; 0 if the seed is off path.
    pub alpha: f32,
    /// The training branch at alpha = 1 that leaves the output alone, with its objective.
    pub shadow: Option<(Lowered, Objective)>,
    /// Whether parameter gradients are computed.
    pub trainable: bool,
}

/// Everything the kernels need to know of a layer's seeds. Seeds without an entry are copied.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    layout: SeedLayout,
    pub(crate) path: ColumnPrograms,
    pub(crate) shadow: ColumnPrograms,
    pub(crate) seeds: BTreeMap<usize, SeedPlan>,
}

impl Plan {
    /// The plan of a layer whose seeds are all dormant.
    pub fn new(layout: SeedLayout) -> Self {
        Self {
            layout,
            path: ColumnPrograms::default(),
            shadow: ColumnPrograms::default(),
            seeds: BTreeMap::new(),
        }
    }

    /// Lowers every seed of a lifecycle from scratch.
    ///
    /// # Errors
    /// [`Error::UnregisteredBlueprint`](crate::Error::UnregisteredBlueprint).
    pub fn from_scratch(lifecycle: &Lifecycle) -> Result<Self> {
        let mut plan = Self::new(lifecycle.layout());
        for (seed, _) in lifecycle.grown_seeds() {
            plan.lower_seed(lifecycle, seed)?;
        }
        Ok(plan)
    }

    /// Lowers the seeds that changed since the last call, and only those; returns how many.
    ///
    /// # Errors
    /// [`Error::UnregisteredBlueprint`](crate::Error::UnregisteredBlueprint).
    pub fn refresh(&mut self, lifecycle: &mut Lifecycle) -> Result<usize> {
        let dirty = lifecycle.take_dirty();
        for &seed in &dirty {
            self.lower_seed(lifecycle, seed as usize)?;
        }
        Ok(dirty.len())
    }

    /// The column programs of the output path for a range of columns; `None` while no column has one.
    pub fn programs(&self, columns: Range<usize>) -> Option<Program<'_>> {
        (columns.end <= self.path.columns()).then(|| self.path.view(columns))
    }

    /// The plan of a seed; `None` means that its chunk is copied and nothing trains.
    pub fn seed(&self, seed: usize) -> Option<&SeedPlan> {
        self.seeds.get(&seed)
    }

    fn lower_seed(&mut self, lifecycle: &Lifecycle, seed: usize) -> Result<()> {
        let columns = self.layout.columns(seed);
        if let Some(old) = self.seeds.remove(&seed) {
            if old.path == Lowered::Pointwise {
                self.path.reset(columns.clone());
            }
            if matches!(old.shadow, Some((Lowered::Pointwise, _))) {
                self.shadow.reset(columns.clone());
            }
        }
        let Some(grown) = lifecycle.grown(seed) else { return Ok(()) };
        let blueprint = lifecycle.registry().get(grown.blueprint())?;
        let state = lifecycle.state(seed)?;
        let alpha = if state.on_path() { lifecycle.alpha(seed)?.clamp(0.0, 1.0) } else { 0.0 };
        let path = self.lower_branch(false, columns.start, blueprint, grown, alpha);
        let shadow = match (state, grown.objective()) {
            (State::Training, Objective::Probe) => None,
            (State::Training, objective) => {
                Some((self.lower_branch(true, columns.start, blueprint, grown, 1.0), objective))
            }
            _ => None,
        };
        let trainable = state.trainable();
        // A frozen or waiting seed at alpha 0 needs no entry; a trainable one has gradients to report.
        if path != Lowered::Copy || shadow.is_some() || (trainable && state.on_path()) {
            self.seeds.insert(seed, SeedPlan { path, alpha, shadow, trainable });
        }
        Ok(())
    }

    fn lower_branch(
        &mut self,
        shadow: bool,
        start: usize,
        blueprint: &Blueprint,
        grown: &GrownSeed,
        alpha: f32,
    ) -> Lowered {
        if alpha <= 0.0 {
            return Lowered::Copy;
        }
        let programs = if shadow { &mut self.shadow } else { &mut self.path };
        let hidden = self.layout.hidden();
        lower_branch(programs, hidden, start, blueprint, grown.parameters(), alpha)
    }
}

/// Lowers one branch at an alpha above 0, into `programs` (made on first use) if it is pointwise.
pub(crate) fn lower_branch(
    programs: &mut ColumnPrograms,
    columns: usize,
    start: usize,
    blueprint: &Blueprint,
    parameters: &[f32],
    alpha: f32,
) -> Lowered {
    match blueprint {
        Blueprint::Residual | Blueprint::AttentionHead | Blueprint::MlpExpansion => {
            if programs.columns() == 0 {
                *programs = ColumnPrograms::identity(columns);
            }
            programs.lower(start, blueprint, parameters, alpha);
            Lowered::Pointwise
        }
        Blueprint::ConvFilter { taps } => {
            let scale = parameters[*taps];
            let mut taps: Vec<f32> =
                parameters[..*taps].iter().map(|w| alpha * (scale * w)).collect();
            taps[0] += 1.0 - alpha;
            Lowered::Stencil { taps }
        }
        Blueprint::Bottleneck { .. } | Blueprint::Dense { .. } | Blueprint::User(_) => {
            Lowered::Matrix
        }
    }
}
