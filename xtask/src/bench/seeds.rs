//! What the seeds of a measured layer are: the kinds, their states, and what their products cost.

use std::fmt;

use kasmina_core::{
    Activation, Blueprint, InitialSeed, SeedLayout, StabilityMode, State, Strategy,
};
use serde::{Deserialize, Serialize};

use super::buffers::values;

/// Every n-th seed of [`Seeds::OneInEight`] is not dormant.
const BUSY: usize = 8;
/// Steps of a graft: far more than are timed, so that alpha is another one in each of them, as in a real graft.
const GRAFT_STEPS: u32 = 1_000_000;
/// A bottleneck's width is its chunk's length over this, and at least 1.
const NARROWER: usize = 4;

/// What the seeds of the layer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seeds {
    /// All dormant.
    Dormant,
    /// Residual on path in every chunk, frozen, alpha 0.5.
    Residual,
    /// Residual in every chunk, FINE_TUNING and GRAFTING in turn, in the mode that guards nothing: x is not needed.
    ResidualTrains,
    /// `MlpExpansion` in every chunk, GRAFTING, guarded: x is needed.
    ExpansionTrains,
    /// One seed in eight GRAFTING, Residual and `MlpExpansion` in turn, the rest dormant.
    OneInEight,
    /// `ConvFilter` of one tap in every chunk, GRAFTING, guarded.
    #[serde(rename = "filter-1")]
    Filter1,
    /// The same of 3 taps.
    #[serde(rename = "filter-3")]
    Filter3,
    /// The same of 16 taps, the longest.
    #[serde(rename = "filter-16")]
    Filter16,
    /// `Bottleneck` of a quarter of the chunk's width in every chunk, GRAFTING, guarded.
    Bottleneck,
    /// `Dense` in every chunk, GRAFTING, guarded.
    Dense,
}

impl Seeds {
    pub(super) fn mode(self) -> StabilityMode {
        match self {
            Self::ResidualTrains => StabilityMode::Fast,
            _ => StabilityMode::Adaptive,
        }
    }

    /// The blueprint in every chunk of `c` columns that has one of its own.
    fn kind(self, c: usize) -> Option<Blueprint> {
        let activation = Activation::Relu;
        Some(match self {
            Self::Filter1 => Blueprint::ConvFilter { taps: 1 },
            Self::Filter3 => Blueprint::ConvFilter { taps: 3 },
            Self::Filter16 => Blueprint::ConvFilter { taps: 16 },
            Self::Bottleneck => Blueprint::Bottleneck { width: width(c), activation },
            Self::Dense => Blueprint::Dense { activation },
            _ => return None,
        })
    }

    /// What a seed of `c` columns begins as; `None` for a dormant one.
    ///
    /// # Errors
    /// A chunk whose parameters cannot be counted.
    pub(super) fn initial(
        self,
        seed: usize,
        c: usize,
    ) -> kasmina_core::Result<Option<InitialSeed>> {
        let strategy = Strategy::FixedRamp { steps: GRAFT_STEPS };
        let initial = InitialSeed { alpha: 0.5, strategy, ..InitialSeed::default() };
        if let Some(blueprint) = self.kind(c) {
            // Not those that it would begin with: many of them are zeros, which spare the arithmetic units power.
            let scale = 1.0 / (c as f32).sqrt();
            let layout = blueprint.parameters(c)?;
            let drawn: Vec<f32> = values(layout.len());
            let tensors = layout.tensors(&drawn);
            let scaled = |values: &[f32]| values.iter().map(|value| scale * value).collect();
            let parameters = Some(tensors.map(|(_, values)| scaled(values)).collect());
            let (state, blueprint) = (State::Grafting, Some(blueprint));
            return Ok(Some(InitialSeed { state, blueprint, parameters, ..initial }));
        }
        let even = |n: usize| n.is_multiple_of(2);
        let (state, blueprint) = match self {
            Self::Residual => (State::Fossilized, Blueprint::Residual),
            Self::ResidualTrains if even(seed) => (State::FineTuning, Blueprint::Residual),
            Self::ResidualTrains => (State::Grafting, Blueprint::Residual),
            Self::ExpansionTrains => (State::Grafting, Blueprint::MlpExpansion),
            Self::OneInEight if !seed.is_multiple_of(BUSY) => return Ok(None),
            Self::OneInEight if even(seed / BUSY) => (State::Grafting, Blueprint::Residual),
            Self::OneInEight => (State::Grafting, Blueprint::MlpExpansion),
            _ => return Ok(None),
        };
        Ok(Some(InitialSeed { state, blueprint: Some(blueprint), ..initial }))
    }

    /// Whether a seed is not dormant.
    pub(super) fn is_busy(self, seed: usize) -> bool {
        match self {
            Self::Dormant => false,
            Self::OneInEight => seed.is_multiple_of(BUSY),
            _ => true,
        }
    }

    /// Whether a backward pass needs x for what a seed computes.
    pub(super) fn needs_x(self) -> bool {
        !matches!(self, Self::Dormant | Self::Residual | Self::ResidualTrains)
    }

    /// Whether the seeds are products of matrices, whose operations count beside their bytes.
    #[must_use]
    pub fn are_matrices(self) -> bool {
        matches!(self, Self::Bottleneck | Self::Dense)
    }

    /// Additions and multiplications of the matrices' products forward: two for each weight and row. Backward there are twice as
    /// many, for dL/dx and for the weights' gradients; what a pass computes once more is not counted.
    pub(super) fn operations(self, layout: &SeedLayout, rows: usize) -> Option<u64> {
        let weights = |c: usize| match self {
            Self::Bottleneck => Some(2 * c * width(c)),
            Self::Dense => Some(c * c),
            _ => None,
        };
        let all = (0..layout.seeds()).map(|seed| weights(layout.columns(seed).len()));
        all.sum::<Option<usize>>().map(|weights| 2 * weights as u64 * rows as u64)
    }
}

fn width(c: usize) -> usize {
    (c / NARROWER).max(1)
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dormant => "dormant",
            Self::Residual => "residual on path",
            Self::ResidualTrains => "residual trains, fast",
            Self::ExpansionTrains => "expansion trains, adaptive",
            Self::OneInEight => "1 in 8 grafting",
            Self::Filter1 => "filter of 1 tap",
            Self::Filter3 => "filter of 3 taps",
            Self::Filter16 => "filter of 16 taps",
            Self::Bottleneck => "bottleneck",
            Self::Dense => "dense",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_counted_by_their_weights() {
        // Two chunks of 16 columns and one of 8.
        let layout = SeedLayout::new(40, 16).expect("it fits");
        assert_eq!(Seeds::Dense.operations(&layout, 3), Some(3 * 2 * (256 + 256 + 64)));
        // Widths 4, 4 and 2, V and U.
        let weights = 2 * (16 * 4 + 16 * 4 + 8 * 2);
        assert_eq!(Seeds::Bottleneck.operations(&layout, 3), Some(3 * 2 * weights));
        assert_eq!(Seeds::Filter16.operations(&layout, 3), None);
        assert_eq!(Seeds::OneInEight.operations(&layout, 3), None);
        assert_eq!(width(3), 1);
    }

    #[test]
    fn every_kind_has_parameters_that_are_not_its_first_ones() {
        for (seeds, expected) in [
            (Seeds::Filter1, "conv_filter"),
            (Seeds::Filter16, "conv_filter"),
            (Seeds::Bottleneck, "bottleneck"),
            (Seeds::Dense, "dense"),
        ] {
            let initial = seeds.initial(7, 24).expect("it fits").expect("it is busy");
            let kind = initial.blueprint.expect("it has one");
            assert_eq!(kind.kind(), expected);
            let parameters = initial.parameters.expect("they are given");
            let specs = kind.parameters(24).expect("it fits");
            assert_eq!(parameters.len(), specs.specs().len());
            let mut all = parameters.iter().flatten();
            assert!(all.all(|value| *value != 0.0 && value.abs() <= 1.0));
            assert!(seeds.is_busy(7) && seeds.needs_x());
        }
        for seed in 0..20 {
            let busy = Seeds::OneInEight.initial(seed, 4).expect("it fits").is_some();
            assert_eq!(busy, Seeds::OneInEight.is_busy(seed), "{seed}");
            assert!(Seeds::Dormant.initial(seed, 4).expect("it fits").is_none());
        }
    }
}
