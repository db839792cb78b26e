//! Which passes are the CPU's for a blueprint of a user's own, asked before anything goes to the device.

use super::work::{Work, kind};
use crate::ForwardOptions;
use crate::lifecycle::Lifecycle;

/// Whether a call with `options` runs a branch of a user's own, which only the CPU does. The device's job for such a seed is
/// [`CudaError::UserBlueprint`](crate::cuda::CudaError::UserBlueprint).
pub(crate) fn runs_user_blueprint(lifecycle: &Lifecycle, options: &ForwardOptions) -> bool {
    lifecycle.grown_seeds().any(|(seed, grown)| {
        let probe = options.probes().iter().find(|probe| probe.seed == seed);
        let row = lifecycle.table().row(seed);
        let alpha = probe.map(|probe| probe.alpha);
        let runs = Work::of(row.state, row.alpha, grown.objective(), alpha).branch.is_some();
        let known = lifecycle.registry().get(grown.blueprint());
        runs && known.is_ok_and(|blueprint| kind(blueprint).is_none())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Blueprint, InitialSeed, Layer, ParameterSpec, SeedLayout, State, UserBlueprint};

    #[derive(Debug)]
    struct Identity;

    impl UserBlueprint for Identity {
        fn kind(&self) -> &str {
            "identity"
        }
        fn parameters(&self, _: usize) -> Vec<ParameterSpec> {
            vec![ParameterSpec::new("unused", [1])]
        }
        fn initialise(&self, _: usize, _: &mut dyn rand::RngCore, _: &mut [f32]) {}
        fn forward(&self, _: usize, _: &[f32], x: &[f32], y: &mut [f32]) {
            y.copy_from_slice(x);
        }
        fn backward(
            &self,
            _: usize,
            _: &[f32],
            _: &[f32],
            g: &[f32],
            grad_x: &mut [f32],
            _: Option<&mut [f32]>,
        ) {
            grad_x.copy_from_slice(g);
        }
        fn flops_per_row(&self, _: usize) -> u64 {
            0
        }
    }

    #[test]
    fn it_counts_where_it_runs_and_nowhere_else() {
        let of = |blueprint: Blueprint, state, alpha| {
            let blueprint = Some(blueprint);
            let initial = InitialSeed { state, alpha, blueprint, ..InitialSeed::default() };
            let layout = SeedLayout::new(12, 4).unwrap();
            Layer::builder(layout).seed(1, initial).build().unwrap()
        };
        let user = || Blueprint::User(Arc::new(Identity));
        let (plain, probed) = (ForwardOptions::new(), ForwardOptions::new().probe(1, 1.0));
        let rests = ForwardOptions::new().probe(1, 0.0);
        let runs = |layer: &Layer, options| runs_user_blueprint(layer.lifecycle(), options);
        let on_path = of(user(), State::FineTuning, 1.0);
        assert!(runs(&on_path, &plain) && runs(&on_path, &probed) && !runs(&on_path, &rests));
        let waiting = of(user(), State::Germinated, 0.0);
        assert!(!runs(&waiting, &plain) && runs(&waiting, &probed));
        let builtin = of(Blueprint::Residual, State::FineTuning, 1.0);
        assert!(!runs(&builtin, &plain) && !runs(&builtin, &probed));
    }
}
