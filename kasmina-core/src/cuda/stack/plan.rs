//! Which layers of a stack go into one launch.

use std::fmt;
use std::ops::Range;

use crate::cuda::variants::Counting;

/// Why a layer of a stack runs by its own launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnLaunches {
    /// A filter or a matrix runs in it.
    MixesColumns,
    /// Strict mode measures the whole input of the layer before the first element is changed.
    Strict,
    /// Debug mode counts histograms of the layer's input in a pass of their own.
    Histograms,
    /// A rung of the load ladder is forced.
    Forced,
    /// There are no rows.
    NoRows,
    /// Neither of its neighbours can share a launch with it.
    Alone,
}

impl fmt::Display for OwnLaunches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MixesColumns => {
                "a filter or matrix runs in it, which needs other columns' elements"
            }
            Self::Strict => "strict mode measures the layer's whole input first",
            Self::Histograms => "debug mode counts histograms in a pass of their own",
            Self::Forced => "a rung of the load ladder is forced",
            Self::NoRows => "there are no rows",
            Self::Alone => "neither of its neighbours can share a launch with it",
        })
    }
}

/// Layers of one launch at most: their list is kept in shared memory.
pub(super) const MOST_LAYERS: usize = 128;

/// Consecutive layers that run in one launch, or one by its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Run {
    Fused { layers: Range<usize>, counting: Counting },
    Own { layer: usize, why: OwnLaunches },
}

impl Run {
    pub(super) fn layers(&self) -> Range<usize> {
        match self {
            Self::Fused { layers, .. } => layers.clone(),
            Self::Own { layer, .. } => *layer..*layer + 1,
        }
    }
}

/// Cuts a stack into runs; of each layer `fits` says what it counts, or why it cannot share a launch. Layers that count by packets and
/// layers that count by columns have different kernels; those that do not count go with either.
pub(super) fn runs(fits: &[Result<Counting, OwnLaunches>]) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::new();
    for (i, fit) in fits.iter().enumerate() {
        let own = match fit {
            Err(why) => {
                out.push(Run::Own { layer: i, why: *why });
                continue;
            }
            Ok(counting) => *counting,
        };
        if let Some(Run::Fused { layers, counting }) = out.last_mut()
            && layers.len() < MOST_LAYERS
            && let Some(both) = together(*counting, own)
        {
            (layers.end, *counting) = (i + 1, both);
            continue;
        }
        out.push(Run::Fused { layers: i..i + 1, counting: own });
    }
    for run in &mut out {
        if let Run::Fused { layers, .. } = run
            && layers.len() == 1
        {
            *run = Run::Own { layer: layers.start, why: OwnLaunches::Alone };
        }
    }
    out
}

/// What a launch counts for layers that count so.
fn together(a: Counting, b: Counting) -> Option<Counting> {
    match (a, b) {
        (Counting::Off, other) | (other, Counting::Off) => Some(other),
        _ => (a == b).then_some(a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fused(layers: Range<usize>, counting: Counting) -> Run {
        Run::Fused { layers, counting }
    }

    #[test]
    fn what_cannot_share_a_launch_splits_the_stack() {
        use Counting::{Column, Off, Packet};
        let strict = Err(OwnLaunches::Strict);
        let found =
            runs(&[Ok(Packet), Ok(Off), strict, Ok(Packet), Ok(Packet), Ok(Column), Ok(Off)]);
        let expected = [
            fused(0..2, Packet),
            Run::Own { layer: 2, why: OwnLaunches::Strict },
            fused(3..5, Packet),
            fused(5..7, Column),
        ];
        assert_eq!(found, expected);
        let alone = |layer| Run::Own { layer, why: OwnLaunches::Alone };
        assert_eq!(runs(&[Ok(Packet)]), [alone(0)]);
        assert_eq!(runs(&[Ok(Packet), Ok(Column)]), [alone(0), alone(1)]);
        assert_eq!(runs(&[]), []);
    }

    fn fit() -> impl Strategy<Value = Result<Counting, OwnLaunches>> {
        prop_oneof![
            3 => Just(Ok(Counting::Packet)),
            2 => Just(Ok(Counting::Off)),
            1 => Just(Ok(Counting::Column)),
            1 => Just(Err(OwnLaunches::MixesColumns)),
        ]
    }

    proptest! {
        #[test]
        fn runs_are_the_stack_in_its_order_and_as_long_as_they_can_be(
            fits in prop::collection::vec(fit(), 0..400),
        ) {
            let runs = runs(&fits);
            let layers: Vec<usize> = runs.iter().flat_map(Run::layers).collect();
            prop_assert_eq!(layers, (0..fits.len()).collect::<Vec<_>>());
            for run in &runs {
                match run {
                    Run::Fused { layers, counting } => {
                        prop_assert!((2..=MOST_LAYERS).contains(&layers.len()));
                        let own: Vec<Counting> =
                            fits[layers.clone()].iter().filter_map(|fit| fit.ok()).collect();
                        prop_assert_eq!(own.len(), layers.len());
                        prop_assert!(own.iter().all(|one| one == counting || *one == Counting::Off));
                        prop_assert!(*counting == Counting::Off || own.contains(counting));
                    }
                    Run::Own { layer, why } => match fits[*layer] {
                        Err(reason) => prop_assert_eq!(reason, *why),
                        Ok(_) => prop_assert_eq!(*why, OwnLaunches::Alone),
                    },
                }
            }
            // No two neighbours could have been one.
            for pair in runs.windows(2) {
                let both = pair[0].layers().start..pair[1].layers().end;
                let all: Option<Vec<Counting>> = fits[both.clone()].iter().map(|fit| fit.ok()).collect();
                let joined = all.and_then(|all| all.into_iter().try_fold(Counting::Off, together));
                prop_assert!(joined.is_none() || both.len() > MOST_LAYERS, "{:?}", pair);
            }
        }
    }
}
