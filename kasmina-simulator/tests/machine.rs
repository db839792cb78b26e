//! Kernels on the machine against what they should come to, and faults by their kinds. Needs g++ and nothing else.

mod common;

use std::sync::LazyLock;

use common::{Book, image, run, shape, word};
use kasmina_simulator::machine::{FaultKind, Image, Launch, Parameter};
use kasmina_simulator::translate::{Options, Unit, build};

static IMAGE: LazyLock<Image> = LazyLock::new(|| image("machine", false));

fn numbers(count: u32) -> Vec<u32> {
    (0..count).map(|i| i.wrapping_mul(2_654_435_761) >> 25).collect()
}

#[test]
fn a_kernel_says_what_it_is() {
    let kernel = IMAGE.kernel("bulk_out").unwrap();
    let places =
        [(0, 8), (8, 8), (16, 4), (20, 4)].map(|(offset, size)| Parameter { offset, size });
    assert_eq!(kernel.parameters, places);
    assert_eq!(kernel.max_threads, 1024);
    let reverse = IMAGE.kernel("reverse").unwrap();
    assert_eq!((reverse.max_threads, reverse.registers, reverse.static_shared), (256, 128, 1024));
    let bytes = |name| IMAGE.kernel(name).unwrap().static_shared;
    assert_eq!((bytes("bulk"), bytes("product"), bytes("last_block")), (512 + 32, 0, 1));
    let (address, bytes) = IMAGE.global("counters").unwrap();
    assert_eq!(bytes, 12);
    // SAFETY: the variable is there as long as the image.
    assert_eq!(unsafe { *(address as *const [u32; 3]) }, [5, 6, 7]);
    assert!(IMAGE.global("malloc").is_none() && IMAGE.global("reverse").is_none());
    assert!(IMAGE.kernel("nothing").is_none());
}

#[test]
fn an_image_that_is_loaded_twice_has_two_of_everything() {
    let folder = tempfile::tempdir().unwrap();
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/twice.cu");
    let unit = Unit { name: "twice".to_owned(), source, include: Vec::new() };
    let bytes = std::fs::read(build(&unit, folder.path(), &Options::default()).unwrap()).unwrap();
    let images = [(), ()].map(|()| Image::load(&bytes).unwrap());
    let addresses = images.each_ref().map(|image| image.global("variable").unwrap().0);
    assert_ne!(addresses[0], addresses[1]);
    // Both have the shared memory of a template's function.
    let sizes = images.each_ref().map(|image| image.kernel("reverse").unwrap().static_shared);
    assert_eq!(sizes, [128, 128]);
}

#[test]
fn shared_memory_is_each_blocks_own() {
    let book = Book::default();
    let (input, output) = (book.array(&numbers(7 * 96)), book.array(&[0u32; 7 * 96]));
    let launch = Launch { dynamic_shared: 96 * 4, ..shape(7, 96) };
    run(&IMAGE, "reverse", &launch, &[input.argument(), output.argument()], &book).unwrap();
    let expected: Vec<u32> =
        numbers(7 * 96).chunks(96).flat_map(|block| block.iter().rev().copied()).collect();
    assert_eq!(output.read(), expected);
}

#[test]
fn lanes_exchange_values() {
    let book = Book::default();
    let values = numbers(64);
    let (input, output) = (book.array(&values), book.array(&[0u32; 12]));
    run(&IMAGE, "warps", &shape(1, 64), &[input.argument(), output.argument()], &book).unwrap();
    let expected: Vec<u32> = values
        .chunks(32)
        .flat_map(|warp| {
            let sum = warp.iter().sum();
            let odd = warp.iter().enumerate().map(|(i, value)| (value % 2) << i).sum();
            [
                sum,
                sum,
                warp[3],
                odd,
                *warp.iter().max().unwrap(),
                u32::from(warp.iter().any(|&v| v > 90)),
            ]
        })
        .collect();
    assert_eq!(output.read(), expected);
}

#[test]
fn named_barriers_pass_a_place_to_and_fro() {
    let book = Book::default();
    let output = book.array(&[9u32; 4]);
    run(&IMAGE, "named", &shape(1, 96), &[output.argument(), word(20)], &book).unwrap();
    assert_eq!(output.read(), [(0..20).map(|i| i * i).sum(), 92, 1, 0]);
}

#[test]
fn bulk_copies_come_by_mbarriers_and_go_by_groups() {
    let book = Book::default();
    let values = numbers(64 * 9);
    let expected: Vec<u32> = values.iter().map(|value| value + 1).collect();
    for (name, more) in [("bulk", vec![word(9)]), ("bulk_out", vec![word(9), word(1)])] {
        let (input, output) = (book.array(&values), book.array(&[0u32; 64 * 9]));
        let threads = if name == "bulk" { 96 } else { 64 };
        let arguments = [vec![input.argument(), output.argument()], more].concat();
        run(&IMAGE, name, &shape(1, threads), &arguments, &book).unwrap();
        assert_eq!(output.read(), expected, "{name}");
    }
}

#[test]
fn copies_that_nobody_waited_for_are_seen() {
    let book = Book::default();
    let (input, output) = (book.array(&numbers(64)), book.array(&[0u32; 64]));
    let arguments = [input.argument(), output.argument(), word(1), word(0)];
    let fault = run(&IMAGE, "bulk_out", &shape(1, 64), &arguments, &book).unwrap_err();
    assert!(
        matches!(&fault.kind, FaultKind::Undefined(why) if why.contains("wait_group")),
        "{fault}"
    );

    let (input, output) = (book.array(&numbers(4 * 32 * 8)), book.array(&[0u32; 32]));
    let sums: Vec<u32> = (0..32)
        .map(|t| {
            (0..8).map(|r| (0..4).map(|w| numbers(1024)[(r * 32 + t) * 4 + w]).sum::<u32>()).sum()
        })
        .collect();
    for waits in [1, 0] {
        let arguments = [input.argument(), output.argument(), word(8), word(waits)];
        run(&IMAGE, "async", &shape(1, 32), &arguments, &book).unwrap();
        assert_eq!(output.read() == sums, waits == 1);
    }
}

#[test]
fn copies_arrive_on_barriers_by_themselves() {
    let book = Book::default();
    let (input, output) = (book.array(&numbers(64)), book.array(&[0u32; 64]));
    run(&IMAGE, "async_arrival", &shape(1, 64), &[input.argument(), output.argument()], &book)
        .unwrap();
    let expected: Vec<u32> = numbers(64).into_iter().rev().collect();
    assert_eq!(output.read(), expected);
}

#[test]
fn a_warp_multiplies_matrices() {
    let book = Book::default();
    let bf16 = |x: f32| (x.to_bits() >> 16) as u16;
    let a: Vec<f32> = (0..256).map(|i| (i * 37 % 17) as f32 - 8.0).collect();
    let b: Vec<f32> = (0..128).map(|i| (i * 29 % 13) as f32 * 0.25).collect();
    let c: Vec<f32> = (0..128).map(|i| i as f32 * 0.5).collect();
    let halves = |values: &[f32]| values.iter().map(|&x| bf16(x)).collect::<Vec<u16>>();
    let words: Vec<u32> =
        halves(&a).chunks(2).map(|two| u32::from(two[0]) | u32::from(two[1]) << 16).collect();
    let (left, right) = (book.array(&words), book.array(&halves(&b)));
    let (add, out) = (book.array(&c), book.array(&[0f32; 128]));
    let arguments = [left.argument(), right.argument(), add.argument(), out.argument()];
    run(&IMAGE, "product", &shape(1, 32), &arguments, &book).unwrap();
    let expected: Vec<f32> = (0..128)
        .map(|i| c[i] + (0..16).map(|k| a[i / 8 * 16 + k] * b[k * 8 + i % 8]).sum::<f32>())
        .collect();
    assert_eq!(out.read(), expected);
}

#[test]
fn the_last_block_finds_what_the_others_left() {
    let book = Book::default();
    let values = numbers(32 * 40);
    let (input, parts) = (book.array(&values), book.array(&[0u32; 40]));
    let (arrived, out) = (book.array(&[0u32]), book.array(&[0u32]));
    let arguments = [input.argument(), parts.argument(), arrived.argument(), out.argument()];
    run(&IMAGE, "last_block", &shape(40, 32), &arguments, &book).unwrap();
    assert_eq!(out.read(), [values.iter().sum()]);
}

#[test]
fn cooperative_grids_meet() {
    let book = Book::default();
    let (cells, wrong) = (book.array(&[0u32; 12]), book.array(&[0u32]));
    let arguments = [cells.argument(), word(10), wrong.argument()];
    let launch = Launch { cooperative: true, ..shape(12, 64) };
    run(&IMAGE, "meeting", &launch, &arguments, &book).unwrap();
    assert_eq!((cells.read(), wrong.read()), (vec![10; 12], vec![0]));
    let fault = run(&IMAGE, "meeting", &shape(12, 64), &arguments, &book).unwrap_err();
    assert!(
        matches!(&fault.kind, FaultKind::Undefined(why) if why.contains("cooperative")),
        "{fault}"
    );
}

#[test]
fn one_copy_feeds_a_cluster() {
    let book = Book::default();
    let values = numbers(3 * 32);
    let (input, out, ready) =
        (book.array(&values), book.array(&[0u32; 12 * 32]), book.array(&[0u32; 3]));
    let launch = Launch { cluster: [4, 1, 1], ..shape(12, 32) };
    run(&IMAGE, "multicast", &launch, &[input.argument(), out.argument(), ready.argument()], &book)
        .unwrap();
    let expected: Vec<u32> = (0..12)
        .flat_map(|block| (0..32).map(move |i| (block, i)))
        .map(|(block, i)| values[block / 4 * 32 + i] + block as u32 % 4)
        .collect();
    assert_eq!(out.read(), expected);
}

// ------------------------------------------------------------------------------------------------------------------- faults

#[test]
fn a_trap_names_kernel_block_and_thread() {
    let book = Book::default();
    let fault = run(&IMAGE, "traps", &shape(3, 64), &[word(37)], &book).unwrap_err();
    assert_eq!((fault.kind, fault.block, fault.thread), (FaultKind::Trap, [1, 0, 0], [37, 0, 0]));
    assert_eq!(fault.kernel, "traps");
}

#[test]
fn a_deadlock_says_who_waits_for_what() {
    let book = Book::default();
    let fault = run(&IMAGE, "waits_for_nobody", &shape(1, 64), &[], &book).unwrap_err();
    let words = fault.to_string();
    assert!(matches!(fault.kind, FaultKind::Deadlock(_)), "{words}");
    for part in [
        "3 threads",
        "parity 0",
        "2 of 2 arrivals",
        "29 threads",
        "barrier 3",
        "KASMINA_SIMULATOR_SEED=0",
    ] {
        assert!(words.contains(part), "{part} is not in {words}");
    }
}

#[test]
fn faults_of_the_processor_are_faults_of_the_kernel() {
    let book = Book::default();
    for address in [0u64, 0x0dea_d000_0000_0000] {
        let fault =
            run(&IMAGE, "writes_to", &shape(2, 64), &[address.to_le_bytes().to_vec()], &book)
                .unwrap_err();
        assert!(matches!(fault.kind, FaultKind::IllegalAddress { .. }), "{fault}");
    }
    let words = book.array(&[0u32, 7, 0]);
    let fault = run(&IMAGE, "divides", &shape(1, 1), &[words.argument()], &book).unwrap_err();
    assert!(
        matches!(&fault.kind, FaultKind::Undefined(why) if why.contains("division")),
        "{fault}"
    );
    let fault =
        run(&IMAGE, "descends", &shape(1, 1), &[words.argument(), word(1000)], &book).unwrap_err();
    assert!(matches!(fault.kind, FaultKind::StackOverflow(_)), "{fault}");
    // And the machine is as it was.
    run(&IMAGE, "descends", &shape(1, 1), &[words.argument(), word(10)], &book).unwrap();
    assert_eq!(words.read()[1], 55);
}

#[test]
fn launches_that_do_not_fit_are_refused() {
    let book = Book::default();
    let refused = |launch: Launch, arguments: &[Vec<u8>]| {
        let fault = run(&IMAGE, "reverse", &launch, arguments, &book).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Launch(_)), "{fault}");
    };
    let pointer = 0u64.to_le_bytes().to_vec();
    let both = [pointer.clone(), pointer.clone()];
    refused(shape(1, 257), &both);
    refused(shape(0, 32), &both);
    refused(shape(1, 32), &both[..1]);
    refused(shape(1, 32), &[pointer, word(0)]);
    refused(Launch { cluster: [2, 1, 1], ..shape(3, 32) }, &both);
}

/// Nanoseconds that this thread has had of a processor.
fn processor_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the system writes where it is told.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

#[test]
fn a_barrier_costs_little() {
    let book = Book::default();
    run(&IMAGE, "rounds", &shape(1, 256), &[word(1)], &book).unwrap();
    let cost = |blocks: u32, barriers: u32| {
        let begin = processor_time();
        run(&IMAGE, "rounds", &shape(blocks, 256), &[word(barriers)], &book).unwrap();
        (processor_time() - begin) / f64::from(blocks * 256 * barriers.max(1))
    };
    let (thread, barrier) = (cost(100, 0), cost(1, 400));
    println!("{thread:.0} ns a thread, {barrier:.0} ns a thread and barrier");
    // A hundred times what it takes on an ordinary machine: this is for mistakes, not for slow machines.
    assert!(thread < 20_000.0 && barrier < 10_000.0);
}
