//! What the grown seeds of a file own: packed tensors handed out seed by seed, in ascending order.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::raw::{Active, VALUES, present};
use super::rows::{Clock, code};
use super::{CheckpointError, Result};
use crate::lifecycle::{
    Graft, GrownSeed, Measured, Measurements, OptimizerState, SeedRow, SeedTable, checked_layout,
};
use crate::{BlueprintId, Objective, ParameterLayout, Registry, SeedLayout, State};

/// A packed tensor, handed out seed by seed.
struct Packed {
    tensor: &'static str,
    values: std::vec::IntoIter<f32>,
}

impl Packed {
    fn new(tensor: &'static str, values: Vec<f32>) -> Self {
        Self { tensor, values: values.into_iter() }
    }

    fn take(&mut self, len: usize, seed: usize) -> Result<Vec<f32>> {
        let left = self.values.len();
        if len > left {
            return Err(CheckpointError::Tensor {
                tensor: self.tensor.into(),
                found: format!("at its end after {left} of seed {seed}'s elements"),
                needed: format!("{len} elements"),
            });
        }
        Ok(self.values.by_ref().take(len).collect())
    }

    fn take_finite(&mut self, len: usize, seed: usize) -> Result<Vec<f32>> {
        let values = self.take(len, seed)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => {
                let legal = format!("finite (counted within seed {seed})");
                Err(CheckpointError::element(self.tensor, index, values[index], legal))
            }
        }
    }

    fn finish(self) -> Result<()> {
        match self.values.len() {
            0 => Ok(()),
            left => Err(CheckpointError::Tensor {
                tensor: self.tensor.into(),
                found: format!("longer than its seeds need by {left} elements"),
                needed: "what the seeds' blueprints need".into(),
            }),
        }
    }
}

pub(super) fn grown(
    mut active: Active,
    table: &SeedTable,
    layout: SeedLayout,
    registry: &Registry,
    clock: Clock,
) -> Result<BTreeMap<u32, Box<GrownSeed>>> {
    let owners = (0..table.len()).filter(|&seed| table.states()[seed].owns_parameters());
    if !owners.eq(active.seed.iter().map(|&seed| seed as usize)) {
        return Err(CheckpointError::Tensor {
            tensor: "active.seed".into(),
            found: "another list of seeds".into(),
            needed: "exactly the seeds whose state owns parameters, ascending".into(),
        });
    }
    let mut packed = PackedColumns {
        parameters: Packed::new("active.parameters", std::mem::take(&mut active.parameters)),
        gradients: active.gradients.take().map(|v| Packed::new("active.gradients", v)),
        reference: active.reference.take().map(|v| Packed::new("active.reference", v)),
        first: Packed::new("active.first_moment", std::mem::take(&mut active.first)),
        second: Packed::new("active.second_moment", std::mem::take(&mut active.second)),
    };
    let mut layouts: BTreeMap<(u16, usize), Arc<ParameterLayout>> = BTreeMap::new();
    let mut grown = BTreeMap::new();
    for i in 0..active.seed.len() {
        let seed = active.seed[i] as usize;
        let row = table.row(seed);
        let c = layout.chunk_len(seed);
        let shape = match layouts.get(&(row.blueprint, c)) {
            Some(shape) => Arc::clone(shape),
            None => {
                let blueprint = registry.get(BlueprintId(row.blueprint))?;
                let shape = Arc::new(checked_layout(blueprint, c)?);
                layouts.insert((row.blueprint, c), Arc::clone(&shape));
                shape
            }
        };
        let one = grown_seed(&active, i, &row, shape, &mut packed, clock)?;
        grown.insert(active.seed[i], Box::new(one));
    }
    let PackedColumns { parameters, gradients, reference, first, second } = packed;
    let rest = gradients.into_iter().chain(reference);
    [parameters, first, second].into_iter().chain(rest).try_for_each(Packed::finish)?;
    Ok(grown)
}

struct PackedColumns {
    parameters: Packed,
    gradients: Option<Packed>,
    reference: Option<Packed>,
    first: Packed,
    second: Packed,
}

fn grown_seed(
    active: &Active,
    i: usize,
    row: &SeedRow,
    layout: Arc<ParameterLayout>,
    packed: &mut PackedColumns,
    clock: Clock,
) -> Result<GrownSeed> {
    let (seed, n, state) = (active.seed[i] as usize, layout.len(), row.state);
    let bits = active.present[i];
    let has = |bit: u16| bits & bit != 0;
    if bits & !present::ALL != 0 {
        return Err(CheckpointError::element(
            "active.present",
            i,
            bits,
            format!("made of the bits {:#x}", present::ALL),
        ));
    }
    if has(present::GRADIENTS) && !state.trainable() {
        return Err(CheckpointError::element(
            "active.present",
            i,
            bits,
            format!("without gradients in {state}"),
        ));
    }
    if has(present::OPTIMIZER) && state == State::Fossilized {
        return Err(CheckpointError::element(
            "active.present",
            i,
            bits,
            format!("without optimizer state in {state}"),
        ));
    }
    if has(present::OPTIMIZER) != (active.updates[i] > 0) {
        let legal = "more than 0 exactly where there are optimizer moments";
        return Err(CheckpointError::element("active.updates", i, active.updates[i], legal));
    }
    let objective = code("active.objective", i, active.objective[i], Objective::try_from)?;
    let measured = values(active, i, clock)?;
    let mut seed_state = GrownSeed::new(
        BlueprintId(row.blueprint),
        objective,
        layout,
        packed.parameters.take_finite(n, seed)?,
    );
    if state.trainable() {
        // Gradients may hold anything that a backward pass gave; whoever uses them looks at them.
        seed_state.gradients = match &mut packed.gradients {
            Some(gradients) => gradients.take(n, seed)?,
            None => vec![0.0; n],
        };
    }
    if state == State::Grafting {
        seed_state.reference = match &mut packed.reference {
            Some(reference) => reference.take_finite(n, seed)?,
            None => seed_state.parameters.clone(),
        };
    }
    if has(present::OPTIMIZER) {
        let first = packed.first.take_finite(n, seed)?;
        let second = packed.second.take_finite(n, seed)?;
        if let Some(index) = second.iter().position(|&v| v < 0.0) {
            let legal = format!("at least 0 (counted within seed {seed})");
            return Err(CheckpointError::element(
                "active.second_moment",
                index,
                second[index],
                legal,
            ));
        }
        seed_state.optimizer = Some(OptimizerState { first, second, updates: active.updates[i] });
    }
    seed_state.has_gradients = has(present::GRADIENTS);
    seed_state.alpha_gradient = has(present::ALPHA_GRADIENT).then_some(active.alpha_gradient[i]);
    seed_state.entered_step = clock.step("active.entered_step", i, active.entered_step[i])?;
    seed_state.reconstruction = measured.reconstruction;
    seed_state.accepted_loss = measured.accepted;
    seed_state.measured = measured.measurements;
    let [start, share] = [active.graft_share[2 * i], active.graft_share[2 * i + 1]];
    for value in [start, share] {
        if !(0.0..=1.0).contains(&value) {
            return Err(CheckpointError::element(
                "active.graft_share",
                i,
                value,
                "between 0 and 1",
            ));
        }
    }
    let [steps, advanced] = [active.graft_steps[2 * i], active.graft_steps[2 * i + 1]];
    seed_state.graft = Graft { start, share, steps, advanced };
    Ok(seed_state)
}

struct Values {
    reconstruction: Option<f64>,
    accepted: Option<f64>,
    measurements: Measurements,
}

/// The numbers that may be absent.
fn values(active: &Active, i: usize, clock: Clock) -> Result<Values> {
    let value = |column: usize| {
        let there = active.present[i] & (present::VALUE_0 << column) != 0;
        let value = active.value[i * VALUES + column];
        // Reconstruction is a report of what was; the others are decided by.
        if there && column > 0 && (value.is_nan() || value == f64::NEG_INFINITY) {
            let legal = "a number or +∞";
            return Err(CheckpointError::element(
                "active.value",
                i * VALUES + column,
                value,
                legal,
            ));
        }
        Ok(there.then_some(value))
    };
    let measured = |column: usize| -> Result<Option<Measured>> {
        let index = 4 * i + column - 2;
        let epoch = active.measured_epoch[index];
        let Some(value) = value(column)? else {
            return Ok(None);
        };
        clock.epoch("active.measured_epoch", index, epoch)?;
        Ok(Some(Measured { value, epoch }))
    };
    Ok(Values {
        reconstruction: value(0)?,
        accepted: value(1)?,
        measurements: Measurements {
            loss: measured(2)?,
            held_back: measured(3)?,
            counterfactual: measured(4)?,
            gradient_norm: measured(5)?,
            initial_loss: value(6)?,
            best_loss: value(7)?,
        },
    })
}
