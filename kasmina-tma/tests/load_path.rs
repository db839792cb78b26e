//! The load ladder: what is chosen can be done, nothing better could, and every better rung has its reason.

use kasmina_sys::{ComputeCapability, Unavailable};
use kasmina_tma::{DataType, LoadPath, LoadShape, NotPossible, Reason, ShapeError, TmaSupport};
use proptest::prelude::*;

const HOPPER: ComputeCapability = ComputeCapability::new(9, 0);

fn shape(columns: u64, row_stride: u64, alignment: u64) -> LoadShape {
    LoadShape { rows: 100, columns, row_stride, data_type: DataType::F32, alignment }
}

fn chosen(capability: ComputeCapability, shape: LoadShape) -> LoadPath {
    LoadPath::select(&TmaSupport::Supported, capability, &shape, None).expect("a way").path
}

#[test]
fn each_rung_is_reached() {
    let no_maps = TmaSupport::NotOnThisDevice;
    let even = shape(64, 64, 256);
    assert_eq!(chosen(HOPPER, even), LoadPath::TensorMap);
    let select = |tma, shape| LoadPath::select(tma, HOPPER, shape, None).expect("a way").path;
    assert_eq!(select(&no_maps, &even), LoadPath::Bulk);
    // A ragged row is no whole number of 16-byte pieces.
    assert_eq!(select(&no_maps, &shape(63, 64, 256)), LoadPath::CpAsync);
    assert_eq!(chosen(ComputeCapability::new(8, 9), even), LoadPath::CpAsync);
    assert_eq!(chosen(ComputeCapability::new(7, 5), even), LoadPath::Vector16);
    assert_eq!(chosen(HOPPER, shape(63, 63, 256)), LoadPath::Scalar);
    assert_eq!(chosen(HOPPER, shape(64, 64, 8)), LoadPath::Scalar);
}

#[test]
fn switching_it_off_means_bulk_copies_too() {
    let off = TmaSupport::Disabled { value: "off".into() };
    let selection = LoadPath::select(&off, HOPPER, &shape(64, 64, 16), None).expect("a way");
    assert_eq!(selection.path, LoadPath::CpAsync);
    let reasons: Vec<_> = selection.passed_by.into_iter().map(|rung| rung.reason).collect();
    assert_eq!(reasons, [Reason::Tma(off.clone()), Reason::Tma(off)]);
}

#[test]
fn a_single_row_has_no_stride_to_keep() {
    let row = LoadShape { rows: 1, ..shape(63, 63, 16) };
    assert_eq!(chosen(HOPPER, row), LoadPath::TensorMap);
    assert_eq!(chosen(ComputeCapability::new(8, 0), row), LoadPath::CpAsync);
}

#[test]
fn a_forced_rung_is_taken_or_is_an_error_with_the_reason() {
    let select = |shape, path| LoadPath::select(&TmaSupport::Supported, HOPPER, &shape, Some(path));
    let selection = select(shape(64, 64, 16), LoadPath::CpAsync).expect("it is possible");
    assert!(selection.forced);
    assert_eq!(selection.path, LoadPath::CpAsync);
    assert!(
        selection
            .passed_by
            .iter()
            .all(|rung| rung.reason == Reason::AnotherForced(LoadPath::CpAsync))
    );
    let error = select(shape(63, 63, 16), LoadPath::Vector16).expect_err("rows are not aligned");
    assert_eq!(
        error,
        NotPossible::Forced {
            path: LoadPath::Vector16,
            reason: Box::new(Reason::Unaligned { what: "the row stride", bytes: 252 }),
        }
    );
}

#[test]
fn shapes_that_are_wrong_are_errors_whatever_is_forced() {
    let good = shape(64, 64, 16);
    let bad = [
        (LoadShape { rows: 0, ..good }, ShapeError::Empty { rows: 0, columns: 64 }),
        (LoadShape { columns: 0, ..good }, ShapeError::Empty { rows: 100, columns: 0 }),
        (
            LoadShape { row_stride: 63, ..good },
            ShapeError::Overlapping { row_stride: 63, columns: 64 },
        ),
        (LoadShape { alignment: 2, ..good }, ShapeError::Alignment { alignment: 2, element: 4 }),
        (LoadShape { alignment: 24, ..good }, ShapeError::Alignment { alignment: 24, element: 4 }),
        (
            LoadShape { rows: 1 << 40, row_stride: 1 << 30, ..good },
            ShapeError::TooLarge { rows: 1 << 40, row_stride: 1 << 30, bits: 32 },
        ),
        (
            LoadShape { row_stride: 65, data_type: DataType::U6Padded, ..good },
            ShapeError::SplitByte { row_stride: 65, bits: 6 },
        ),
    ];
    for (shape, expected) in bad {
        for forced in [None, Some(LoadPath::Scalar)] {
            let found = LoadPath::select(&TmaSupport::Supported, HOPPER, &shape, forced);
            assert_eq!(found, Err(NotPossible::Shape(expected)));
        }
    }
}

#[test]
fn names_round_trip() {
    for path in LoadPath::LADDER {
        assert_eq!(path.to_string().parse(), Ok(path));
    }
    assert!("tma".parse::<LoadPath>().is_err());
}

/// The ladder's conditions once more, from the instructions' own requirements.
fn possible(
    path: LoadPath,
    tma: &TmaSupport,
    capability: ComputeCapability,
    s: &LoadShape,
) -> bool {
    let bits = u128::from(s.data_type.bits());
    let padded = [14, 15].contains(&s.data_type.code());
    let bytes = |elements: u64| (u128::from(elements) * bits).div_ceil(8);
    let base = s.alignment >= 16;
    let stride = s.rows == 1 || bytes(s.row_stride).is_multiple_of(16);
    let row = bytes(s.columns).is_multiple_of(16);
    let off = matches!(tma, TmaSupport::Disabled { .. });
    match path {
        LoadPath::TensorMap => {
            let align = if padded { 32 } else { 16 };
            let needed = if bits < 8 { 10 } else { 9 };
            let stride_fits = s.rows == 1
                || (bytes(s.row_stride) < 1 << 40 && bytes(s.row_stride).is_multiple_of(align));
            let row_fits = bytes(s.columns).next_multiple_of(align) < 1 << 40;
            let sizes_fit = s.rows <= 1 << 32
                && s.columns <= 1 << 32
                && (!padded || s.columns.is_multiple_of(128))
                && (bits != 4 || s.columns.is_multiple_of(2));
            let fits = stride_fits && (s.rows > 1 || row_fits) && sizes_fit;
            let aligned = u128::from(s.alignment) >= align;
            *tma == TmaSupport::Supported && capability.major >= needed && aligned && fits
        }
        LoadPath::Bulk => !off && capability.major >= 9 && base && stride && row,
        LoadPath::CpAsync => capability.major >= 8 && base && stride,
        LoadPath::Vector16 => base && stride,
        LoadPath::Scalar => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_best_possible_rung_is_taken(
        rows in prop_oneof![Just(1u64), 1u64..10_000, Just(1 << 33)],
        columns in prop_oneof![1u64..300, (1u64..300).prop_map(|n| n * 16), Just((1 << 32) + 16)],
        padding in prop_oneof![Just(0u64), 0u64..20, Just(1 << 29)],
        data_type in prop::sample::select(DataType::ALL.to_vec()),
        alignment in 0u32..10,
        major in 7u16..13,
        support in 0usize..4,
        forced in prop_oneof![3 => Just(None), 1 => prop::sample::select(&LoadPath::LADDER[..]).prop_map(Some)],
    ) {
        let tma = [
            TmaSupport::Supported,
            TmaSupport::Disabled { value: "off".into() },
            TmaSupport::NotOnThisDevice,
            TmaSupport::NoDriver(Unavailable::NoDevice),
        ][support].clone();
        let capability = ComputeCapability::new(major, 0);
        let alignment = u64::from(data_type.bits().div_ceil(8)) << alignment;
        let shape = LoadShape { rows, columns, row_stride: columns + padding, data_type, alignment };
        let can = |path: &LoadPath| possible(*path, &tma, capability, &shape);
        match (LoadPath::select(&tma, capability, &shape, forced), forced) {
            (Ok(selection), None) => {
                prop_assert_eq!(Some(&selection.path), LoadPath::LADDER.iter().find(|path| can(path)));
                let passed: Vec<_> = selection.passed_by.iter().map(|rung| rung.path).collect();
                let better = LoadPath::LADDER.iter().copied().filter(|path| *path < selection.path);
                prop_assert_eq!(passed, better.collect::<Vec<_>>());
            }
            (Ok(selection), Some(wanted)) => {
                prop_assert!(selection.forced && selection.path == wanted && can(&wanted));
            }
            (Err(NotPossible::Forced { path, .. }), Some(wanted)) => {
                prop_assert!(path == wanted && !can(&wanted));
            }
            (Err(NotPossible::Shape(ShapeError::TooLarge { .. })), _) => {
                let bits = u128::from(data_type.bits());
                prop_assert!(u128::from(rows) * u128::from(shape.row_stride) * bits >= 8 << 64);
            }
            (Err(NotPossible::Shape(ShapeError::SplitByte { .. })), _) => {
                prop_assert!(rows > 1 && !(shape.row_stride * u64::from(data_type.bits())).is_multiple_of(8));
            }
            (Err(error), _) => prop_assert!(false, "{}", error),
        }
    }
}
