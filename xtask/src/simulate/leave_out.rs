//! The tests that a simulation does not run, each with the reason.

/// A test and why it is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its package.
    pub package: &'static str,
    /// Its name.
    pub test: &'static str,
    /// Why it would be meaningless or take too long here.
    pub reason: &'static str,
    /// Whether `--quick` alone leaves it out.
    pub only_quick: bool,
}

impl LeftOut {
    const fn always(package: &'static str, test: &'static str, reason: &'static str) -> Self {
        Self { package, test, reason, only_quick: false }
    }

    const fn quick(package: &'static str, test: &'static str, reason: &'static str) -> Self {
        Self { package, test, reason, only_quick: true }
    }
}

/// All of them. `--all` runs them nevertheless.
pub const LEFT_OUT: &[LeftOut] = &[
    LeftOut::always(
        "kasmina-sys",
        "launch_ptx_is_compiled_and_its_errors_are_told",
        "the simulator does not compile PTX",
    ),
    LeftOut::always(
        "kasmina-tma",
        "the_drivers_rules_for_tiled_maps_are_ours",
        "compares the crate's rules with NVIDIA's driver, and the simulator's are its own",
    ),
    LeftOut::always(
        "kasmina-tma",
        "the_drivers_rules_for_im2col_maps_are_ours",
        "compares the crate's rules with NVIDIA's driver, and the simulator's are its own",
    ),
    LeftOut::always(
        "kasmina-tma",
        "the_drivers_rules_for_wide_im2col_maps_are_ours",
        "compares the crate's rules with NVIDIA's driver, and the simulator's are its own",
    ),
    LeftOut::always(
        "kasmina-core",
        "a_grid_that_cannot_come_is_given_up_in_time",
        "kernels do not compete for multiprocessors here: the resident grid always comes",
    ),
    LeftOut::always(
        "kasmina-core",
        "a_step_that_outlasts_the_watchdog_is_told",
        "the blocks of a grid take turns on one thread, so none waits by the clock while another works",
    ),
    LeftOut::always(
        "kasmina-core",
        "a_hundred_thousand_filters",
        "minutes of work: 100,000 seeds with a filter each",
    ),
    LeftOut::always(
        "kasmina-telemetry",
        "every_launch_and_every_run_gives_the_same_bits",
        "every launch of the tuner's list a hundred times over: more than five minutes",
    ),
    LeftOut::always(
        "kasmina-telemetry",
        "segments_repeat_bit_by_bit",
        "a hundred runs over large inputs: more than five minutes",
    ),
    LeftOut::always(
        "kasmina-telemetry",
        "columns_repeat_bit_by_bit",
        "a hundred runs over large inputs: more than two minutes",
    ),
    LeftOut::always(
        "kasmina-telemetry",
        "captured_reductions_replay_to_the_same_bits",
        "many replays over large inputs: more than two minutes",
    ),
    LeftOut::always(
        "kasmina-telemetry",
        "ten_thousand_rounds_of_reductions_keep_their_memory",
        "ten thousand rounds: minutes",
    ),
    LeftOut::always(
        "kasmina-telemetry",
        "tuned_launches_are_kept_found_again_and_give_the_same_bits",
        "tunes, which runs every candidate on large inputs: minutes",
    ),
    LeftOut::always(
        "kasmina-core",
        "a_grid_that_is_lost_is_survived",
        "kernels do not compete for multiprocessors here: the grid always comes and is not lost",
    ),
    LeftOut::always(
        "kasmina-core",
        "a_runner_has_the_bits_of_plain_calls_through_random_lives",
        "asks that every way was gone at least once, which takes more lives than the two that are drawn here",
    ),
    LeftOut::always(
        "kasmina-core",
        "a_boundary_of_a_hundred_thousand_seeds_in_time",
        "judges time; more than a minute of work",
    ),
    LeftOut::always(
        "kasmina-core",
        "matrix_branches_of_many_rows_and_seeds",
        "more than a minute of work; it was not waited for",
    ),
    LeftOut::always(
        "kasmina-core",
        "a_choice_comes_back_from_the_disk_and_gives_the_same_bits",
        "tunes, which runs every candidate on large inputs: more than a minute; it was not waited for",
    ),
    LeftOut::always(
        "kasmina-core",
        "a_choice_that_cannot_run_is_dropped_and_survived",
        "tunes: more than a minute; it was not waited for",
    ),
    LeftOut::always(
        "kasmina-core",
        "a_shape_is_measured_at_its_first_use_and_the_layer_untouched",
        "tunes: more than a minute; it was not waited for",
    ),
    LeftOut::always(
        "kasmina-telemetry",
        "a_captured_stream_is_not_measured",
        "tunes: more than a minute; it was not waited for",
    ),
    LeftOut::always(
        "kasmina-telemetry",
        "damaged_choices_are_told_and_not_used",
        "tunes: more than a minute; it was not waited for",
    ),
    LeftOut::quick(
        "kasmina-core",
        "a_life_of_every_kind_makes_no_graph_anew",
        "passes, in 52 s of a core",
    ),
    LeftOut::quick(
        "kasmina-core",
        "steps_stand_in_line_with_streams_and_graphs",
        "passes, in 48 s of a core",
    ),
    LeftOut::quick(
        "kasmina-core",
        "programmatic_replays_are_the_plain_calls",
        "passes, in 35 s of a core",
    ),
    LeftOut::quick(
        "kasmina-core",
        "a_runner_tries_decides_and_keeps_to_it",
        "passes, in 35 s of a core",
    ),
    LeftOut::quick(
        "kasmina-core",
        "backward_of_a_hundred_thousand_seeds",
        "passes, in 28 s of a core",
    ),
    LeftOut::quick(
        "kasmina-core",
        "a_runner_may_use_the_grid_for_what_sums_nothing",
        "passes, in 26 s of a core",
    ),
    LeftOut::quick(
        "kasmina-core",
        "filters_of_wide_chunks_of_every_tap_count_and_type",
        "passes, in 20 s of a core",
    ),
    LeftOut::quick(
        "kasmina-core",
        "an_exact_graph_is_made_anew_where_its_launches_change",
        "passes, in 19 s of a core",
    ),
    LeftOut::quick(
        "kasmina-telemetry",
        "one_huge_segment_among_small_ones",
        "passes, in 14 s of a core",
    ),
];
