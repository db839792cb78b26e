//! The oracles of the GPU tests against worked examples, and their random cases against the crate's own rules. Needs no GPU.

#![allow(dead_code, reason = "the GPU tests use the rest")]

#[path = "gpu/cases.rs"]
mod cases;
#[path = "gpu/changes.rs"]
mod changes;
#[path = "gpu/clipping.rs"]
mod clipping;
#[path = "gpu/fills.rs"]
mod fills;
#[path = "gpu/kernels.rs"]
mod kernels;
#[path = "gpu/oracle.rs"]
mod oracle;
#[path = "gpu/pixels.rs"]
mod pixels;
#[path = "gpu/random.rs"]
mod random;
#[path = "gpu/requests.rs"]
mod requests;
#[path = "gpu/stricter.rs"]
mod stricter;
#[path = "gpu/tally.rs"]
mod tally;
#[path = "gpu/tiles.rs"]
mod tiles;

use kasmina_gpu_test::ensure;
use kasmina_sys::ComputeCapability;
use kasmina_tma::{DataType, OobFill};
use oracle::{Element, Pitch, Pixels, Slot, Tensor, column, slot_bytes, swizzled, taken, tile};
use proptest::prelude::*;

/// Rows of 16-byte pieces as the CUDA programming guide draws them for the 128-byte swizzle.
#[test]
fn the_128_byte_swizzle_is_the_one_in_the_manual() {
    let drawn: [[usize; 8]; 8] = [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [1, 0, 3, 2, 5, 4, 7, 6],
        [2, 3, 0, 1, 6, 7, 4, 5],
        [3, 2, 1, 0, 7, 6, 5, 4],
        [4, 5, 6, 7, 0, 1, 2, 3],
        [5, 4, 7, 6, 1, 0, 3, 2],
        [6, 7, 4, 5, 2, 3, 0, 1],
        [7, 6, 5, 4, 3, 2, 1, 0],
    ];
    for (line, places) in drawn.iter().enumerate() {
        for (piece, &place) in places.iter().enumerate() {
            assert_eq!(swizzled(128, line * 128 + piece * 16 + 5), line * 128 + place * 16 + 5);
        }
    }
}

/// The narrower ones, four rows of 32 and of 64 bytes: `Swizzle<1, 4, 3>` and `Swizzle<2, 4, 3>` in CUTLASS's terms.
#[test]
fn the_narrower_swizzles_stay_within_their_span() {
    let places = |span: usize, line: usize| -> Vec<usize> {
        (0..8).map(|piece| swizzled(span, line * 128 + piece * 16) % 128 / 16).collect()
    };
    assert_eq!(places(32, 0), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(places(32, 1), [1, 0, 3, 2, 5, 4, 7, 6]);
    assert_eq!(places(32, 2), places(32, 0));
    assert_eq!(places(64, 1), [1, 0, 3, 2, 5, 4, 7, 6]);
    assert_eq!(places(64, 2), [2, 3, 0, 1, 6, 7, 4, 5]);
    assert_eq!(places(64, 3), [3, 2, 1, 0, 7, 6, 5, 4]);
    assert_eq!(places(64, 4), places(64, 0));
}

proptest! {
    #[test]
    fn a_swizzle_is_its_own_inverse_and_an_exclusive_or(
        span in prop::sample::select(vec![32usize, 64, 128]),
        offset in 0usize..1 << 20,
    ) {
        let place = swizzled(span, offset);
        prop_assert_eq!(swizzled(span, place), offset);
        prop_assert_eq!(place / span, offset / span, "it stays in its span");
        // The formula that kasmina_tma.cuh has.
        prop_assert_eq!(place, offset ^ ((offset >> 3) & (span - 16)));
    }

    #[test]
    fn every_place_of_a_tile_is_in_its_slot_and_taken_once(
        span in prop::sample::select(vec![0usize, 32, 64, 128]),
        pieces in 1usize..=8,
        rows in 1usize..40,
        pitch in prop::sample::select(Pitch::ALL.to_vec()),
    ) {
        let row = pieces * 16;
        prop_assume!(span == 0 || row <= span);
        let slot = slot_bytes(span, row, row * rows);
        let mut places: Vec<usize> = (0..row * rows).map(|at| pitch.place(span, row, at)).collect();
        prop_assert!(places.iter().all(|&place| place < slot));
        places.sort_unstable();
        prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
        if row == span {
            prop_assert!((0..row * rows).all(|at| Pitch::Packed.place(span, row, at) == Pitch::Spread.place(span, row, at)));
        }
    }
}

fn matrix() -> Tensor {
    // Three rows of five 2-byte elements, 16 bytes apart.
    Tensor { element: 2, sizes: vec![5, 3], strides: vec![16] }
}

#[test]
fn a_tile_walks_its_box_and_leaves_the_tensor() {
    assert_eq!(matrix().bytes(), 2 * 16 + 5 * 2);
    let found = tile(&matrix(), &[3, 2], &[1, 1], &[-1, 1]);
    assert_eq!(found, [None, Some(16), Some(18), None, Some(32), Some(34)]);
    let found = tile(&matrix(), &[2, 2], &[1, 1], &[4, 2]);
    assert_eq!(found, [Some(40), None, None, None]);
}

#[test]
fn steps_skip_elements_but_not_along_the_innermost_dimension() {
    assert_eq!(taken(&[3, 5], &[7, 2]), [3, 3]);
    assert_eq!(taken(&[3, 4], &[1, 2]), [3, 2]);
    let found = tile(&matrix(), &[1, 3], &[4, 2], &[1, 0]);
    assert_eq!(found, [Some(2), Some(34)]);
}

/// Images of 4 × 4 pixels numbered from 1, and one channel: the loads that the Triton tutorial on im2col prints.
fn image(images: usize) -> Tensor {
    Tensor { element: 4, sizes: vec![1, 4, 4, images], strides: vec![4, 16, 64] }
}

fn seen(images: usize, corner: i32, pixels: usize, at: [i32; 4], offsets: [u16; 2]) -> Vec<usize> {
    let (lower, upper) = (vec![corner; 2], vec![corner; 2]);
    let window = Pixels { lower, upper, channels: 1, pixels, steps: vec![1; 4] };
    column(&image(images), &window, &at, &offsets)
        .into_iter()
        .map(|offset| offset.map_or(0, |offset| offset / 4 + 1))
        .collect()
}

#[test]
fn columns_of_pixels_are_those_that_a_device_was_seen_to_load() {
    let all: Vec<usize> = (1..=16).collect();
    assert_eq!(seen(1, 0, 16, [0; 4], [0, 0]), all);
    assert_eq!(
        seen(1, -1, 16, [0, -1, -1, 0], [0, 0]),
        [0, 0, 0, 0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11]
    );
    assert_eq!(seen(1, -1, 16, [0, -1, -1, 0], [1, 1]), all);
    assert_eq!(
        seen(2, 0, 16, [0, 3, 1, 0], [0, 0]),
        [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]
    );
    assert_eq!(
        seen(2, -1, 16, [0, 2, 1, 0], [0, 0]),
        [7, 0, 9, 10, 11, 0, 0, 0, 0, 0, 17, 18, 19, 0, 21, 22]
    );
}

#[test]
fn a_judge_sees_every_byte() {
    let memory: Vec<u8> = (1..=32).collect();
    let slot = || {
        let bytes = memory.chunks(4).map(Element::Bytes);
        let elements = bytes.chain((0..4).map(|_| Element::Fill)).collect();
        Slot { elements, element: 4, span: 32, row: 16, poison: 0xee }
    };
    let zeros = |bytes: &[u8]| match bytes.iter().all(|&byte| byte == 0) {
        true => Ok(()),
        false => Err(format!("{bytes:?} is not zero")),
    };
    for pitch in Pitch::ALL {
        let mut right = vec![0xee; slot_bytes(32, 16, 48)];
        for at in 0..48 {
            right[pitch.place(32, 16, at)] = memory.get(at).copied().unwrap_or(0);
        }
        assert_eq!(slot().judge(&right, pitch, zeros), Ok(()));
        for at in 0..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 0x40;
            assert!(slot().judge(&wrong, pitch, zeros).is_err(), "{pitch:?}, byte {at}");
        }
    }
}

/// What a device would leave in shared memory, were the oracle right about it; zeros or a NaN stand outside.
fn ideal(slot: &Slot<'_>, bytes: usize, nan: Option<&[u8]>) -> Vec<u8> {
    let mut seen = vec![slot.poison; bytes];
    for (i, element) in slot.elements.iter().enumerate() {
        let start = Pitch::Packed.place(slot.span, slot.row, i * slot.element);
        let zeros = vec![0; slot.element];
        let bytes = match element {
            Element::Bytes(bytes) => bytes,
            Element::Fill => nan.unwrap_or(&zeros),
        };
        seen[start..start + slot.element].copy_from_slice(bytes);
    }
    seen
}

fn nan(data_type: DataType, fill: OobFill) -> Option<Vec<u8>> {
    let bytes = match data_type {
        DataType::F16 | DataType::Bf16 => vec![0xff, 0x7f],
        DataType::F64 => vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        _ => vec![0xff, 0xff, 0xff, 0x7f],
    };
    (fill == OobFill::Nan).then_some(bytes)
}

#[test]
fn every_case_keeps_to_the_rules_and_stays_in_its_memory() {
    let mut random = random::Random::new(11);
    let (mut judge, mut ragged, mut outside, mut narrow) = (tiles::Judge::default(), 0, 0, 0);
    tiles::each_wish(2, |wish, variant| {
        let wish = tiles_wish(wish, variant);
        let case = cases::Case::draw(&mut random, wish);
        let geometry = case.geometry()?;
        case.request(0x7000_0000_0000)?;
        let bytes = case.box_bytes() as u64;
        ensure((geometry.box_bytes(), geometry.transaction_bytes()) == (bytes, bytes), || {
            format!("{case:?}")
        })?;
        let memory = case.memory(&mut random);
        for at in &case.tiles {
            let first = at[0] as i64 * case.tensor.element as i64;
            ensure(first % 16 == 0, || format!("a tile begins at byte {first}: {case:?}"))?;
        }
        let slot_bytes = case.copies().slot_bytes;
        // What a block has without asking for more.
        ensure(slot_bytes + 1024 <= 47 << 10, || format!("{slot_bytes} bytes: {case:?}"))?;
        let nan = nan(case.data_type, case.fill);
        let mut slots = Vec::new();
        for at in &case.tiles {
            let slot = case.slot(&memory, at);
            let fills = slot.elements.iter().filter(|it| matches!(it, Element::Fill)).count();
            ragged += u32::from(fills > 0 && fills < slot.elements.len());
            outside += u32::from(fills == slot.elements.len());
            slots.extend(ideal(&slot, slot_bytes, nan.as_deref()));
        }
        narrow += u32::from(case.span() > case.row());
        judge.check(&case, &memory, &slots)
    })
    .expect("the judge agrees with itself");
    assert!(ragged > 1000 && outside > 1000 && narrow > 100, "{ragged}, {outside}, {narrow}");
}

/// As the tests of loads and of stores wish for them, in turn.
fn tiles_wish(wish: cases::Wish, variant: u32) -> cases::Wish {
    cases::Wish { full_rows: false, disjoint: variant == 0, steps: variant == 1, ..wish }
}

#[test]
fn tiles_side_by_side_write_no_element_twice() {
    let mut random = random::Random::new(12);
    tiles::each_wish(1, |wish, _| {
        let wish = cases::Wish { disjoint: true, steps: false, ..wish };
        let case = cases::Case::draw(&mut random, wish);
        let mut places: Vec<usize> =
            case.tiles.iter().flat_map(|at| case.elements(at)).flatten().collect();
        places.sort_unstable();
        ensure(places.windows(2).all(|pair| pair[0] < pair[1]), || format!("{case:?}"))?;
        ensure(!places.is_empty(), || format!("nothing is stored: {case:?}"))
    })
    .expect("grids do not overlap");
}

#[test]
fn every_image_keeps_to_the_rules_and_stays_in_its_memory() {
    let mut random = random::Random::new(13);
    let (mut fills, mut filled, mut whole) = (fills::Fills::default(), 0, 0);
    for data_type in random::WHOLE_BYTES {
        for swizzle in cases::SWIZZLES {
            for (rank, steps) in
                [(3, false), (3, true), (4, false), (4, true), (5, false), (5, true)]
            {
                let image = pixels::Image::draw(&mut random, data_type, swizzle, rank, steps);
                image.geometry().unwrap_or_else(|why| panic!("{why}: {image:?}"));
                let memory = image.memory(&mut random);
                let copies = image.copies();
                assert!(copies.slot_bytes + 1024 <= 47 << 10, "{image:?}");
                let nan = nan(data_type, image.fill);
                for (at, offsets) in &image.columns {
                    assert_eq!(at[0] as usize * image.tensor.element % 16, 0, "{at:?}: {image:?}");
                    let slot = image.slot(&memory, at, offsets);
                    let outside = slot.elements.iter().any(|it| matches!(it, Element::Fill));
                    (filled, whole) = (filled + u32::from(outside), whole + u32::from(!outside));
                    let seen = ideal(&slot, copies.slot_bytes, nan.as_deref());
                    let check = |bytes: &[u8]| fills.check(data_type, image.fill, bytes);
                    slot.judge(&seen, Pitch::Packed, check)
                        .unwrap_or_else(|why| panic!("{why}: {image:?}"));
                }
            }
        }
    }
    assert!(filled > 100 && whole > 50, "{filled}, {whole}");
}

#[test]
fn stores_are_clipped_in_one_way_or_fail() {
    use clipping::{Clipping, Clippings};
    let case = cases::Case {
        data_type: DataType::F16,
        swizzle: kasmina_tma::Swizzle::None,
        fill: OobFill::Zero,
        l2_promotion: kasmina_tma::L2Promotion::None,
        tensor: matrix(),
        sides: vec![8, 1],
        steps: vec![1, 1],
        start: 16,
        tiles: vec![vec![0, 1]],
    };
    let left = |clipping| {
        let mut memory = vec![0xee; 80];
        case.store(&mut memory, &[0, 1], &[1; 16], clipping);
        memory
    };
    assert_eq!(left(Clipping::Elements)[30..50], [&[0xee; 2][..], &[1; 10], &[0xee; 8]].concat());
    assert_eq!(left(Clipping::Pieces)[30..50], [&[0xee; 2][..], &[1; 16], &[0xee; 2]].concat());
    let zeroed = [&[0xee; 2][..], &[1; 10], &[0; 6], &[0xee; 2]].concat();
    assert_eq!(left(Clipping::ZeroedPieces)[30..50], zeroed);
    let wrong = |_: &[u8]| Err("wrong".into());
    for first in Clipping::ALL {
        for second in Clipping::ALL {
            let mut clippings = Clippings::default();
            for seen in [first, second] {
                clippings.check(&left(seen), left, wrong).expect("one of the answers");
            }
            assert_eq!(clippings.finish("both").is_ok(), first == second, "{first:?}, {second:?}");
        }
    }
    assert!(Clippings::default().check(&[0; 80], left, wrong).is_err());
}

#[test]
fn requests_begin_legal_where_a_device_has_all_kinds() {
    let newest = ComputeCapability::new(10, 0);
    for kind in [requests::Kind::Tiled, requests::Kind::Im2col, requests::Kind::Wide] {
        for data_type in DataType::ALL {
            for rank in kind.least_rank()..=5 {
                let base = kind.base(rank, data_type, 0x7f00_0000_0000);
                let verdict = base.ours(newest);
                assert_eq!(verdict, requests::Verdict::Legal, "{kind:?}, {data_type}, rank {rank}");
            }
        }
    }
}

#[test]
fn every_stricter_rule_refuses_what_shows_it() {
    let hopper = ComputeCapability::new(9, 0);
    let mut shown = 0;
    for (i, it) in stricter::STRICTER.iter().enumerate() {
        for kind in [requests::Kind::Tiled, requests::Kind::Im2col, requests::Kind::Wide] {
            let base = kind.base(3, DataType::F32, 0x7f00_0000_0000);
            for raw in (it.witnesses)(kind, hopper, &base) {
                assert_eq!(raw.ours(hopper).stricter(), Some(i), "{}: {raw:?}", it.name);
                shown |= 1 << i;
            }
        }
    }
    let silent: Vec<&str> = (stricter::STRICTER.iter().enumerate())
        .filter(|(i, _)| shown & 1 << i == 0)
        .map(|(_, it)| it.name)
        .collect();
    assert_eq!(silent, ["a pixel box of negative sides"], "these rules have nothing to show");
}
