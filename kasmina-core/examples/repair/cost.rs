//! What an arm spends: parameters, updates, and floating-point operations.
//!
//! A multiplication and an addition count one each, as in `Blueprint::flops_per_row`. Counted is what the
//! repair costs: forward and backward passes of updates, and passes that judge on held-back rows. Forward
//! passes of production are the same in every arm and are left out; the telemetry that rides on them is
//! counted.

use kasmina_core::Blueprint;
use serde::Serialize;

use crate::data::{CLASSES, PIXELS};
use crate::host::{BATCH, PARAMETERS};

/// Parameters an arm trains, updates it makes, operations it spends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cost {
    pub(crate) parameters: u64,
    pub(crate) updates: u64,
    pub(crate) flops: u64,
}

/// Products of the host's two matrices with one row, forward; the same again for each backward one.
const HOST_PRODUCTS: u64 = 2 * (PARAMETERS - HOST_UNITS);
/// Units of the host: its biases, and as many relus and additions.
const HOST_UNITS: u64 = 32 + CLASSES as u64;
/// One forward pass of the host on one row.
const HOST_FORWARD: u64 = HOST_PRODUCTS + 2 * HOST_UNITS;
/// Sum and sum of squares about a shift: a subtraction, two additions, a multiplication.
const TELEMETRY_PER_ROW: u64 = 4 * PIXELS as u64;

impl Cost {
    /// One update of a blueprint of `c` columns in front of the frozen host: its products forward and
    /// twice backward, and the host's forward and, for the gradient of its input, backward.
    pub(crate) fn update(blueprint: &Blueprint, c: usize) -> u64 {
        let blueprint = 3 * blueprint.flops_per_row(c);
        BATCH as u64 * (HOST_FORWARD + HOST_PRODUCTS + blueprint)
    }

    /// One update of the whole host: weight gradients for all of it, input gradients for its output layer.
    pub(crate) fn host_update() -> u64 {
        let output_layer = 2 * (32 * CLASSES) as u64;
        BATCH as u64 * (HOST_FORWARD + HOST_PRODUCTS + output_layer)
    }

    /// Judging on held-back rows: with the seed as it is, and without it.
    pub(crate) fn judgement(blueprint: &Blueprint, c: usize, rows: usize) -> u64 {
        rows as u64 * (2 * HOST_FORWARD + blueprint.flops_per_row(c))
    }

    /// Telemetry of one batch.
    pub(crate) fn telemetry() -> u64 {
        BATCH as u64 * TELEMETRY_PER_ROW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_costs_what_its_layers_cost() {
        assert_eq!(PARAMETERS, 64 * 32 + 32 + 32 * 10 + 10);
        assert_eq!(HOST_FORWARD, 2 * 64 * 32 + 2 * 32 + 2 * 32 * 10 + 2 * 10);
    }
}
