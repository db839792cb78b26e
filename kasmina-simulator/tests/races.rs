//! The race detector: kernels that have a race are found, with both places, and their twins stay silent. Needs g++ and nothing else.

mod common;

use std::sync::LazyLock;

use common::{Book, image, run, shape, word};
use kasmina_simulator::machine::{Fault, FaultKind, Image, Launch};

static IMAGE: LazyLock<Image> = LazyLock::new(|| image("races", true));

/// The fault of a race, and that it names both accesses by their lines.
fn assert_race(fault: Fault) {
    let words = fault.to_string();
    assert!(matches!(fault.kind, FaultKind::Race(_)), "{words}");
    assert!(words.contains("unordered") && words.contains("block ["), "{words}");
}

/// A kernel of one block and an output, which is right with 0 or with the last number, and has a race with the others.
fn judge(name: &str, threads: u32, wrong: &[u32], right: u32, inputs: usize) {
    let book = Book::default();
    for &how in wrong.iter().chain([&right]) {
        let arrays: Vec<_> = (0..=inputs).map(|_| book.array(&[0u32; 128])).collect();
        let mut arguments: Vec<Vec<u8>> = arrays.iter().map(common::Array::argument).collect();
        arguments.push(word(how));
        let outcome = run(&IMAGE, name, &shape(1, threads), &arguments, &book);
        match outcome {
            Ok(()) => assert!(how == right, "{name} {how} has a race that was not found"),
            Err(fault) if how == right => panic!("{name} has no race: {fault}"),
            Err(fault) => assert_race(fault),
        }
    }
}

#[test]
fn barriers_order() {
    judge("barrier", 64, &[0], 1, 0);
    judge("rounds", 64, &[0], 1, 0);
    judge("named", 128, &[0], 1, 0);
    judge("arrival", 64, &[0], 1, 0);
}

#[test]
fn of_a_warps_operations_only_syncwarp_orders() {
    judge("warp", 32, &[0], 1, 0);
    judge("handed", 32, &[0], 1, 0);
}

#[test]
fn bytes_are_told_apart() {
    judge("halves", 64, &[0], 1, 0);
}

#[test]
fn blocks_are_ordered_by_flags_and_fences() {
    let book = Book::default();
    for right in [0, 1] {
        let (data, ready, out) =
            (book.array(&[0u32; 32]), book.array(&[0u64]), book.array(&[0u32; 32]));
        let arguments = [data.argument(), ready.argument(), out.argument(), word(right)];
        let launch = Launch { cooperative: true, ..shape(2, 32) };
        let outcome = run(&IMAGE, "flag", &launch, &arguments, &book);
        match outcome {
            Ok(()) => assert_eq!((right, out.read()), (1, vec![5; 32])),
            Err(fault) if right == 1 => panic!("{fault}"),
            Err(fault) => assert_race(fault),
        }
        let (data, ready, out) = (book.array(&[0u32]), book.array(&[0u64]), book.array(&[0u32]));
        let arguments = [data.argument(), ready.argument(), out.argument(), word(right)];
        let launch = Launch { cooperative: true, ..shape(2, 1) };
        match run(&IMAGE, "fences", &launch, &arguments, &book) {
            Ok(()) => assert_eq!((right, out.read()), (1, vec![5])),
            Err(fault) if right == 1 => panic!("{fault}"),
            Err(fault) => assert_race(fault),
        }
    }
}

#[test]
fn blocks_are_not_ordered_by_coming_one_after_the_other() {
    let book = Book::default();
    let sum = book.array(&[0u32]);
    assert_race(
        run(&IMAGE, "additions", &shape(40, 1), &[sum.argument(), word(0)], &book).unwrap_err(),
    );
    let sum = book.array(&[0u32]);
    run(&IMAGE, "additions", &shape(40, 1), &[sum.argument(), word(1)], &book).unwrap();
    assert_eq!(sum.read(), [40]);
}

#[test]
fn mbarriers_order_what_arrived_and_what_was_copied() {
    judge("bulk", 32, &[1, 2], 0, 1);
    judge("arrivals", 128, &[0], 1, 0);
    judge("made", 64, &[0], 1, 0);
}

#[test]
fn copies_are_done_for_whoever_waits() {
    judge("async", 32, &[1, 2], 0, 1);
    judge("stored", 32, &[0], 1, 0);
}

#[test]
fn a_race_names_both_lines() {
    let book = Book::default();
    let out = book.array(&[0u32; 64]);
    let fault =
        run(&IMAGE, "barrier", &shape(1, 64), &[out.argument(), word(0)], &book).unwrap_err();
    let words = fault.to_string();
    assert_eq!(words.matches("races.cu:").count(), 2, "{words}");
    assert!(words.contains("shared 0x4") && words.contains("KASMINA_SIMULATOR_SEED"), "{words}");
}

#[test]
fn an_access_outside_of_every_allocation_is_found() {
    let book = Book::default();
    for right in [0, 1, 2] {
        let words = book.array(&[0u32; 32]);
        let launch = Launch { dynamic_shared: 128, ..shape(1, 32) };
        let outcome =
            run(&IMAGE, "behind", &launch, &[words.argument(), word(32), word(right)], &book);
        match (right, outcome) {
            (0, outcome) => outcome.unwrap(),
            (_, Ok(())) => panic!("nothing was found"),
            (_, Err(fault)) => {
                let is_access = matches!(fault.kind, FaultKind::IllegalAddress { bytes: 4, .. });
                assert!(is_access && fault.to_string().contains("races.cu:"), "{fault}");
            }
        }
    }
    let words = book.array(&[0u32; 4]);
    let fault =
        run(&IMAGE, "crooked", &shape(1, 1), &[words.argument(), word(0)], &book).unwrap_err();
    assert!(matches!(fault.kind, FaultKind::MisalignedAddress { alignment: 8, .. }), "{fault}");
    run(&IMAGE, "crooked", &shape(1, 1), &[words.argument(), word(1)], &book).unwrap();
}
