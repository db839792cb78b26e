//! What a call asks of a seed, from its state alone: the rules by which jobs and column flags exist.

use crate::cuda::job::{
    KIND_ATTENTION_HEAD, KIND_BOTTLENECK, KIND_CONV_FILTER, KIND_DENSE, KIND_MLP_EXPANSION,
    KIND_RESIDUAL, ROLE_PATH, ROLE_RECONSTRUCTION, ROLE_STRAIGHT_THROUGH,
};
use crate::cuda::params::{COMPUTE, NEEDS_X, RECONSTRUCTION, STRAIGHT_THROUGH, SUM_G, SUM_GX};
use crate::{Blueprint, Objective, State};

/// What a branch that runs is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It changes the output.
    Path,
    /// It trains beside the output, on the task loss.
    StraightThrough,
    /// It trains beside the output, on its distance from the input.
    Reconstruction,
}

/// A branch that runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Branch {
    pub(super) role: Role,
    /// The blend, in (0, 1]; 1 beside the output.
    pub(super) alpha: f32,
}

/// One seed's part of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// `None`: the chunk is copied, and nothing is computed for it.
    pub(super) branch: Option<Branch>,
    /// Whether a backward pass gives the parameters gradients; zeros, where there is no branch.
    pub(super) gradients: bool,
}

impl Role {
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Path => ROLE_PATH,
            Self::StraightThrough => ROLE_STRAIGHT_THROUGH,
            Self::Reconstruction => ROLE_RECONSTRUCTION,
        }
    }
}

impl Work {
    /// The work of a seed that owns parameters; `probe` is the alpha that a call asks for instead, for which the seed's own
    /// training branch rests.
    pub(super) fn of(state: State, alpha: f32, objective: Objective, probe: Option<f32>) -> Self {
        let beside = |role| Self { branch: Some(Branch { role, alpha: 1.0 }), gradients: true };
        match (probe, state, objective) {
            (Some(alpha), ..) => Self::on_path(alpha, state.trainable()),
            (None, State::Training, Objective::StraightThrough) => beside(Role::StraightThrough),
            (None, State::Training, Objective::Reconstruction) => beside(Role::Reconstruction),
            (None, state, _) if state.on_path() => Self::on_path(alpha, state.trainable()),
            (None, ..) => Self::default(),
        }
    }

    fn on_path(alpha: f32, trainable: bool) -> Self {
        let alpha = alpha.clamp(0.0, 1.0);
        let branch = (alpha > 0.0).then_some(Branch { role: Role::Path, alpha });
        Self { branch, gradients: trainable }
    }

    pub(super) fn role(&self) -> Option<Role> {
        self.branch.map(|branch| branch.role)
    }

    /// Whether the output depends on the branch.
    pub(super) fn is_on_path(&self) -> bool {
        self.role() == Some(Role::Path)
    }

    /// Whether a backward pass with an output gradient also finds dL/dalpha.
    pub(super) fn gives_alpha(&self) -> bool {
        self.gradients && self.is_on_path()
    }

    /// Whether a backward pass gives the seed gradients; without an output gradient only reconstruction is served.
    pub(super) fn is_served(&self, with_output_gradient: bool) -> bool {
        self.gradients && (with_output_gradient || self.role() == Some(Role::Reconstruction))
    }

    /// Bits of `params` of the seed's columns.
    pub(super) fn flags(&self, blueprint: &Blueprint, guarded: bool) -> u8 {
        let Some(branch) = self.branch.filter(|_| is_pointwise(blueprint)) else { return 0 };
        match branch.role {
            Role::StraightThrough => STRAIGHT_THROUGH,
            Role::Reconstruction => RECONSTRUCTION,
            Role::Path => {
                let sums = match blueprint {
                    _ if !self.gradients => 0,
                    Blueprint::Residual => SUM_G,
                    _ => SUM_GX,
                };
                let x = if self.needs_x(blueprint, guarded) { NEEDS_X } else { 0 };
                COMPUTE | sums | x
            }
        }
    }

    /// Whether the backward pass of a branch on path reads x. An expansion counts as bent whatever its parameters, which are
    /// not looked at here: only one whose weights are all zero is not.
    pub(super) fn needs_x(&self, blueprint: &Blueprint, guarded: bool) -> bool {
        let bent = !matches!(blueprint, Blueprint::Residual | Blueprint::AttentionHead);
        self.is_on_path() && (guarded || bent || (self.gradients && blueprint.sums_need_x()))
    }
}

/// Whether the streaming passes run the blueprint, by column programs.
pub(super) fn is_pointwise(blueprint: &Blueprint) -> bool {
    matches!(blueprint, Blueprint::Residual | Blueprint::AttentionHead | Blueprint::MlpExpansion)
}

/// Kind, width and activation of a blueprint as jobs have them; `None` for a user's own.
pub(super) fn kind(blueprint: &Blueprint) -> Option<(u32, u32, u32)> {
    Some(match blueprint {
        Blueprint::Residual => (KIND_RESIDUAL, 0, 0),
        Blueprint::AttentionHead => (KIND_ATTENTION_HEAD, 0, 0),
        Blueprint::MlpExpansion => (KIND_MLP_EXPANSION, 0, 0),
        Blueprint::ConvFilter { taps } => (KIND_CONV_FILTER, *taps as u32, 0),
        // Widths are checked to fit 31 bits where they are registered.
        Blueprint::Bottleneck { width, activation } => {
            (KIND_BOTTLENECK, *width as u32, *activation as u32)
        }
        Blueprint::Dense { activation } => (KIND_DENSE, 0, *activation as u32),
        Blueprint::User(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;

    const OBJECTIVES: [Objective; 3] =
        [Objective::StraightThrough, Objective::Reconstruction, Objective::Probe];

    fn states() -> impl Iterator<Item = State> {
        (0..=10).map(|code| State::try_from(code).expect("0 to 10"))
    }

    #[test]
    fn only_a_seed_on_path_with_alpha_changes_the_output() {
        for state in states() {
            for objective in OBJECTIVES {
                for alpha in [0.0, 1e-30, 0.5, 1.0] {
                    let work = Work::of(state, alpha, objective, None);
                    assert_eq!(
                        work.is_on_path(),
                        state.on_path() && alpha > 0.0,
                        "{state} {alpha}"
                    );
                    if let Some(branch) = work.branch.filter(|branch| branch.role != Role::Path) {
                        assert_eq!((state, branch.alpha), (State::Training, 1.0));
                    }
                    assert!(!work.gradients || state.trainable(), "{state}");
                }
            }
        }
    }

    #[test]
    fn training_follows_its_objective_and_a_probe_replaces_it() {
        let of = |objective, probe| Work::of(State::Training, 0.0, objective, probe);
        let beside = |role| Work { branch: Some(Branch { role, alpha: 1.0 }), gradients: true };
        assert_eq!(of(Objective::StraightThrough, None), beside(Role::StraightThrough));
        assert_eq!(of(Objective::Reconstruction, None), beside(Role::Reconstruction));
        assert_eq!(of(Objective::Probe, None), Work::default());
        for objective in OBJECTIVES {
            let on_path = Branch { role: Role::Path, alpha: 0.25 };
            let expected = Work { branch: Some(on_path), gradients: true };
            assert_eq!(of(objective, Some(0.25)), expected);
            assert_eq!(of(objective, Some(0.0)), Work { branch: None, gradients: true });
        }
        let frozen = Work::of(State::Fossilized, 1.0, Objective::Probe, Some(0.5));
        assert!(frozen.is_on_path() && !frozen.gradients && !frozen.gives_alpha());
    }

    #[test]
    fn at_alpha_zero_a_trainable_seed_has_gradients_that_are_zero() {
        for state in [State::Grafting, State::FineTuning] {
            let work = Work::of(state, 0.0, Objective::Probe, None);
            assert_eq!(work, Work { branch: None, gradients: true });
            assert!(work.is_served(true) && !work.is_served(false) && !work.gives_alpha());
        }
        let work = Work::of(State::Stabilization, 0.0, Objective::Probe, None);
        assert_eq!(work, Work::default());
    }

    #[test]
    fn without_an_output_gradient_only_reconstruction_is_served() {
        for objective in OBJECTIVES {
            let work = Work::of(State::Training, 0.0, objective, None);
            assert_eq!(work.is_served(false), objective == Objective::Reconstruction);
            assert_eq!(work.is_served(true), objective != Objective::Probe);
        }
    }

    #[test]
    fn flags_say_what_the_passes_have_to_read() {
        let path =
            |gradients| Work { branch: Some(Branch { role: Role::Path, alpha: 0.5 }), gradients };
        let table = [
            (Blueprint::Residual, false, false, COMPUTE),
            (Blueprint::Residual, true, false, COMPUTE | SUM_G),
            (Blueprint::Residual, true, true, COMPUTE | SUM_G | NEEDS_X),
            (Blueprint::AttentionHead, false, false, COMPUTE),
            (Blueprint::AttentionHead, false, true, COMPUTE | NEEDS_X),
            (Blueprint::AttentionHead, true, false, COMPUTE | SUM_GX | NEEDS_X),
            (Blueprint::MlpExpansion, false, false, COMPUTE | NEEDS_X),
            (Blueprint::MlpExpansion, true, true, COMPUTE | SUM_GX | NEEDS_X),
            // Left to kernels of their own, which read x always.
            (Blueprint::ConvFilter { taps: 3 }, true, true, 0),
            (Blueprint::Dense { activation: Activation::Gelu }, true, true, 0),
        ];
        for (blueprint, gradients, guarded, flags) in table {
            let work = path(gradients);
            assert_eq!(
                work.flags(&blueprint, guarded),
                flags,
                "{blueprint:?} {gradients} {guarded}"
            );
            assert_eq!(
                work.needs_x(&blueprint, guarded),
                flags & NEEDS_X != 0 || !is_pointwise(&blueprint)
            );
        }
        let shadow = |objective| Work::of(State::Training, 0.0, objective, None);
        let flags = |objective| shadow(objective).flags(&Blueprint::Residual, true);
        assert_eq!(flags(Objective::StraightThrough), STRAIGHT_THROUGH);
        assert_eq!(flags(Objective::Reconstruction), RECONSTRUCTION);
        assert_eq!(flags(Objective::Probe), 0);
        assert!(!shadow(Objective::StraightThrough).needs_x(&Blueprint::MlpExpansion, true));
    }
}
