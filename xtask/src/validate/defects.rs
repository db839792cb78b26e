//! Each critical defect of the earlier system, with the tests that would fail if it came back.
//!
//! The check asks the test executables themselves for their lists: a test that was renamed, deleted or marked as ignored is a
//! failure here. That the tests pass is `cargo test`'s business.

use std::collections::BTreeSet;
use std::path::Path;

use super::line::{Line, Outcome};
use super::runner::{self, Test};

/// A test: package, target (`lib` for the library's own), name.
type Named = (&'static str, &'static str, &'static str);

/// A defect in a line, and the tests that keep it away, each of them.
type Defect = (&'static str, &'static [Named]);

const CORE: &str = "kasmina-core";
const TELEMETRY: &str = "kasmina-telemetry";
const TMA: &str = "kasmina-tma";
const SYS: &str = "kasmina-sys";
const LIB: &str = "lib";

/// The list, in the order of the design.
const DEFECTS: &[Defect] = &[
    (
        "a seed is active when its code is at least GRAFTING's, culled, cancelled and rolled back included",
        &[
            (CORE, LIB, "state::tests::terminal_states_are_off_path"),
            (CORE, "do_no_harm", "what_is_not_on_path_comes_out_bit_for_bit"),
        ],
    ),
    (
        "a softmax runs over padded lanes",
        &[(CORE, "defects", "a_softmax_is_over_the_columns_of_its_chunk_and_no_padding")],
    ),
    (
        "the residual's dw and dx are wrong",
        &[
            (CORE, "oracle", "passes_agree_with_the_oracle"),
            (CORE, "candle", "gradients_are_the_slopes_of_the_loss"),
        ],
    ),
    (
        "the expansion's ds is wrong",
        &[
            (CORE, "oracle", "passes_agree_with_the_oracle"),
            (CORE, "device_math", "finalize::gradients_are_the_oracles"),
        ],
    ),
    (
        "the default kind has no gradient",
        &[(CORE, "defects", "every_kind_has_a_gradient_for_every_parameter_tensor")],
    ),
    (
        "gradients are always clipped, per row and chunk, dormant ones too",
        &[(CORE, "defects", "gradients_are_clipped_nowhere_unasked")],
    ),
    (
        "dormant activations are clamped",
        &[
            (CORE, "do_no_harm", "what_is_not_on_path_comes_out_bit_for_bit"),
            (CORE, "candle", "a_dormant_layer_hands_every_bit_on"),
        ],
    ),
    (
        "weights are indexed by seed in one path and by blueprint in the other, and shared between seeds",
        &[(CORE, "defects", "seeds_of_one_blueprint_share_no_parameters")],
    ),
    (
        "weights are buffers that no optimizer sees",
        &[
            (CORE, "defects", "an_optimizer_step_moves_every_parameter_of_every_trainable_seed"),
            (CORE, "candle", "candles_adamw_trains_a_bottleneck_between_two_linear_layers"),
        ],
    ),
    (
        "float atomics add gradients in any order",
        &[
            (CORE, "defects", "no_kernel_adds_floats_atomically"),
            (CORE, "determinism", "threads_do_not_change_a_bit"),
            (CORE, "gpu", "backward_passes_add_up_and_repeat_bit_for_bit"),
        ],
    ),
    (
        "autotuning runs add into gradients",
        &[(CORE, "gpu", "a_shape_is_measured_at_its_first_use_and_the_layer_untouched")],
    ),
    (
        "telemetry is taken of dormant seeds only",
        &[(CORE, "telemetry", "scopes_choose_seeds_by_state")],
    ),
    (
        "telemetry is computed and then dropped",
        &[
            (CORE, "telemetry", "a_report_takes_the_epoch_and_the_next_one_starts_empty"),
            (CORE, "telemetry", "steps_merge_to_what_one_large_step_gives"),
        ],
    ),
    (
        "minima are reduced with max",
        &[
            (TELEMETRY, "accumulators", "pieces_of_rows_match_two_passes"),
            (TELEMETRY, "reductions", "merging_is_commutative_and_associative"),
        ],
    ),
    (
        "masked elements count as 0 in minima and maxima",
        &[
            (TELEMETRY, "accumulators", "rows_without_a_finite_value_leave_no_trace_in_extrema"),
            (CORE, "device_math", "stats::empty_is_neutral_and_edges_count"),
        ],
    ),
    (
        "raw telemetry takes rows × seeds × 24 bytes",
        &[(CORE, "defects", "telemetry_does_not_grow_with_the_rows")],
    ),
    (
        "a host loop synchronises for each seed and metric",
        &[(CORE, "gpu", "a_training_step_does_not_wait")],
    ),
    (
        "a linear sum is called CRC-32",
        &[(CORE, LIB, "lifecycle::table::tests::the_sum_is_the_standard_crc32")],
    ),
    (
        "the checksum is recomputed before every check",
        &[(
            CORE,
            LIB,
            "lifecycle::table::tests::damage_to_any_field_of_a_row_is_found_and_stays_found",
        )],
    ),
    (
        "state is saved without its epoch",
        &[
            (CORE, "defects", "a_checkpoint_keeps_the_layers_name_and_its_epoch"),
            (CORE, "checkpoint", "a_layer_goes_on_bit_for_bit_from_the_middle_of_a_graft"),
        ],
    ),
    (
        "the name under which a state is saved is ignored",
        &[(CORE, "defects", "a_checkpoint_keeps_the_layers_name_and_its_epoch")],
    ),
    (
        "what a file does not say is silently a default",
        &[(CORE, "defects", "a_checkpoint_without_any_one_of_its_tensors_is_an_error")],
    ),
    (
        "alpha in f16 stalls at 0.5 for small steps",
        &[(CORE, "graft", "the_longest_ramp_neither_stalls_nor_falls_short")],
    ),
    (
        "blocks smaller than the chunk leave its tail unwritten",
        &[
            (CORE, LIB, "cuda::geometry::tests::every_column_is_in_one_tile_and_every_stage_fits"),
            (CORE, "do_no_harm", "outputs_larger_than_the_caches_are_the_same"),
            (CORE, "gpu", "forward_is_the_cpus_bit_for_bit_and_counts_like_f64"),
        ],
    ),
    (
        "a cut that leaves work out wins the tuning for it",
        &[(
            TELEMETRY,
            LIB,
            "tune::search::tests::a_candidate_that_fails_or_is_wrong_is_out_with_its_reason",
        )],
    ),
    (
        "tensor-map enums are wrong",
        &[
            (TMA, LIB, "data_type::tests::codes_are_the_drivers_and_round_trip"),
            (TMA, LIB, "modes::tests::codes_are_positions_and_unknown_ones_are_errors"),
        ],
    ),
    (
        "element strides are missing from the encoding",
        &[(TMA, "encode", "the_driver_is_given_what_was_asked_for")],
    ),
    (
        "strides are given in elements where bytes are wanted",
        &[(TMA, "geometry", "a_dense_tensor_gets_its_strides")],
    ),
    (
        "the box is the whole tensor",
        &[(TMA, "geometry", "tiled_maps_are_accepted_exactly_where_the_rules_allow_them")],
    ),
    (
        "ranks up to 16 are accepted",
        &[(TMA, "geometry", "tiled_maps_are_accepted_exactly_where_the_rules_allow_them")],
    ),
    (
        "a host address is given to the device",
        &[(TMA, "cache", "memory_that_is_not_ours_or_too_small_is_refused_at_every_request")],
    ),
    (
        "the key of the descriptor cache has no pointer in it",
        &[(TMA, "cache", "any_sequence_does_what_the_lists_do")],
    ),
    ("TMA is claimed for Ada", &[(TMA, "support", "ada_has_none")]),
    (
        "a persistent loop spins forever on an empty queue, with no stop signal",
        &[(
            CORE,
            LIB,
            "cuda::executor::model::every_order_of_events_runs_every_step_once_and_never_gets_stuck",
        )],
    ),
    (
        "strict mode synchronises with the host",
        &[(CORE, "defects", "strict_bounds_are_queued_without_a_wait")],
    ),
    (
        "bandwidth is off by 10¹²",
        &[("xtask", LIB, "bench::summary::tests::a_gigabyte_a_millisecond_is_a_terabyte_a_second")],
    ),
    (
        "errors are swallowed into warnings",
        &[
            (SYS, "launch", "every_call_that_fails_is_named_with_its_code_and_leaks_nothing"),
            (SYS, "graph", "what_a_drop_cannot_return_goes_to_the_hook"),
            (CORE, LIB, "cuda::tune::fallback::tests::an_error_that_is_no_refusal_ends_it"),
        ],
    ),
];

/// Runs the check.
///
/// # Errors
/// The tests could not be built or listed.
pub(super) fn check(root: &Path) -> Result<Vec<Line>, String> {
    let names = DEFECTS.iter().flat_map(|(_, names)| names.iter());
    let targets: BTreeSet<&str> = names.map(|(_, target, _)| *target).collect();
    let tests = runner::list(root, &targets)?;
    Ok(judge(DEFECTS, &tests))
}

fn judge(defects: &[Defect], tests: &BTreeSet<Test>) -> Vec<Line> {
    let line = |(what, names): &Defect| {
        Line::new(format!("not here: {what}"), Outcome::of(covered(names, tests)))
    };
    defects.iter().map(line).collect()
}

fn covered(names: &[Named], tests: &BTreeSet<Test>) -> Result<String, String> {
    let text = |(package, target, name): &Named| format!("{package} {target} {name}");
    let is_there = |named: &&Named| {
        let (package, target, name) = named;
        let test = Test {
            package: (*package).to_owned(),
            target: (*target).to_owned(),
            name: (*name).to_owned(),
        };
        !tests.contains(&test)
    };
    if names.is_empty() {
        return Err("no test covers it".to_owned());
    }
    match names.iter().find(is_there) {
        Some(absent) => Err(format!("no runner lists {}, or it is ignored", text(absent))),
        None => Ok(names.iter().map(text).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(names: &[&str]) -> BTreeSet<Test> {
        let test = |name: &&str| Test {
            package: "p".to_owned(),
            target: LIB.to_owned(),
            name: (*name).to_owned(),
        };
        names.iter().map(test).collect()
    }

    #[test]
    fn a_test_that_is_gone_and_a_defect_without_any_are_failures() {
        const BOTH: &[Defect] =
            &[("covered", &[("p", LIB, "a"), ("p", LIB, "b")]), ("forgotten", &[])];
        let outcomes = |names: &[&str]| -> Vec<Outcome> {
            let lines = judge(BOTH, &there(names));
            lines.into_iter().map(|line| line.outcome).collect()
        };
        let [whole, forgotten] = &outcomes(&["a", "b"])[..] else { panic!("two lines") };
        assert!(matches!(whole, Outcome::Passed(proof) if proof.contains("p lib b")));
        assert!(forgotten.is_failure());
        let renamed = &outcomes(&["a", "b_renamed"])[0];
        assert!(
            matches!(renamed, Outcome::Failed(found) if found.contains("p lib b")),
            "{renamed:?}"
        );
    }

    #[test]
    fn no_defect_stands_twice() {
        let names: BTreeSet<&str> = DEFECTS.iter().map(|(what, _)| *what).collect();
        assert_eq!(names.len(), DEFECTS.len());
        assert!(DEFECTS.len() > 30);
    }
}
