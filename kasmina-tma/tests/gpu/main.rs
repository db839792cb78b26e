//! What only a device can show of tensor maps: that the driver's rules are the crate's, and that copies through maps move the
//! bytes that they should. Where there is no device with a TMA, each test is ignored with the reason.
//!
//! `KASMINA_TEST_CASES` and `KASMINA_TEST_SEED` say how many random cases each test has, and which; the default takes about a
//! minute.

mod cases;
mod changes;
mod clipping;
mod conversions;
mod fills;
mod kernels;
mod leaks;
mod oracle;
mod pixels;
mod random;
mod requests;
mod stricter;
mod tables;
mod tally;
mod tiles;

use std::process::ExitCode;

fn main() -> ExitCode {
    kasmina_gpu_test::main(
        env!("CARGO_PKG_NAME"),
        &kasmina_tma::KERNELS,
        &[
            ("the_drivers_rules_for_tiled_maps_are_ours", requests::tiled),
            ("the_drivers_rules_for_im2col_maps_are_ours", requests::im2col),
            ("the_drivers_rules_for_wide_im2col_maps_are_ours", requests::wide),
            ("bulk_copies_without_a_map_move_every_byte", tiles::bytes),
            ("plain_types_pass_every_bit", conversions::plain_types),
            ("loads_of_tiles_bring_every_byte", tiles::loads),
            ("stores_of_tiles_change_their_bytes_alone", tiles::stores),
            ("what_was_loaded_can_be_stored", tiles::round_trips),
            ("sums_through_maps_are_exact", tiles::sums),
            ("maps_in_tables_do_what_encoded_ones_do", tables::loads),
            ("maps_in_tables_store_too", tables::stores),
            ("tables_take_many_maps_at_once", tables::many_slots),
            ("misused_tables_say_so_and_stay_as_they_were", tables::misuse),
            ("graphs_see_maps_that_change_between_replays", tables::graphs),
            ("graphs_can_change_maps_themselves", tables::captured_edits),
            ("graphs_apply_patches_from_device_memory", tables::patches_in_device_memory),
            ("a_launch_can_change_a_map_and_use_it", tables::one_launch),
            ("im2col_loads_bring_every_byte", pixels::loads),
            ("im2col_loads_with_steps_bring_every_byte", pixels::strided_loads),
            ("single_precision_types_round_as_they_are_named", conversions::rounding_types),
            ("rounds_of_maps_leak_nothing", leaks::rounds),
        ],
    )
}
