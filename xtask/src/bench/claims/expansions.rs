//! The layers that claims are measured on: an expansion that trains in every chunk, or none, the same in both designs.

use kasmina_core::cuda::Expansions;
use kasmina_core::{Blueprint, InitialSeed, Layer, SeedLayout, State};

use super::super::buffers::values;

/// Parameters without a pattern, with alpha between the two given. Of a `number` each, so that no two layers are alike.
pub(super) fn draw(layout: SeedLayout, alpha: (f32, f32), number: usize) -> Expansions {
    let (hidden, seeds) = (layout.hidden(), layout.seeds());
    // From −1 to 1.
    let all = values::<f32>((number + 1) * (hidden + 2 * seeds));
    let own = &all[all.len() - hidden - 2 * seeds..];
    let (weight, rest) = own.split_at(hidden);
    let (scale, alphas) = rest.split_at(seeds);
    let (low, high) = alpha;
    Expansions {
        weight: weight.iter().map(|v| 2.0 * v).collect(),
        scale: scale.iter().map(|v| 1.0 + 0.5 * v).collect(),
        alpha: alphas.iter().map(|v| low + (high - low) * 0.5 * (v + 1.0)).collect(),
    }
}

/// Our layer with them, or all dormant; guarded, as the source's.
///
/// # Errors
/// None in fact: the parameters fit the layout.
pub(super) fn layer(
    layout: SeedLayout,
    expansions: Option<&Expansions>,
) -> kasmina_core::Result<Layer> {
    let mut builder = Layer::builder(layout);
    let all = expansions.map(|all| (all.weight.chunks(layout.chunk()), &all.scale, &all.alpha));
    let seeds = all.into_iter().flat_map(|(weight, scale, alpha)| weight.zip(scale).zip(alpha));
    for (seed, ((weight, scale), alpha)) in seeds.enumerate() {
        let initial = InitialSeed {
            state: State::Grafting,
            alpha: *alpha,
            blueprint: Some(Blueprint::MlpExpansion),
            parameters: Some(vec![weight.to_vec(), vec![*scale]]),
            ..InitialSeed::default()
        };
        builder = builder.seed(seed, initial);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_designs_have_the_same_parameters() {
        let layout = SeedLayout::new(100, 64).expect("it fits");
        let drawn = draw(layout, (0.25, 0.75), 0);
        assert_ne!(drawn, draw(layout, (0.25, 0.75), 1));
        assert!(drawn.alpha.iter().all(|alpha| (0.25..0.75).contains(alpha)));
        assert!(drawn.scale.iter().all(|scale| (0.5..1.5).contains(scale)));
        let layer = layer(layout, Some(&drawn)).expect("they fit");
        for seed in 0..2 {
            let columns = layout.columns(seed);
            let named: Vec<_> = layer.parameters(seed).expect("it has some").collect();
            assert_eq!(named[0].1, &drawn.weight[columns]);
            assert_eq!(named[1].1, &[drawn.scale[seed]]);
            assert_eq!(layer.alpha(seed), Ok(drawn.alpha[seed]));
        }
        let dormant = super::layer(layout, None).expect("it fits");
        assert_eq!(dormant.state(0), Ok(State::Dormant));
    }
}
