//! The builders against the driver's rules, which `oracle` states a second time; and what follows from a geometry.

mod oracle;

use kasmina_sys::ComputeCapability;
use kasmina_tma::{
    DataType, Direction, Field, Geometry, GeometryBuilder, Interleave, Limit, Swizzle, Tiled,
    Violation, WideMode, Window,
};
use oracle::{Kind, Raw, raw};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn check(raw: &Raw) -> Result<(), TestCaseError> {
    let built = raw.request();
    prop_assert_eq!(built.is_ok(), raw.is_legal(), "{:?}", built);
    match built {
        Ok(request) => keeps_what_it_was_given(raw, request.geometry(), request.address()),
        Err(violation) => names_what_is_wrong(raw, &violation),
    }
}

fn keeps_what_it_was_given(raw: &Raw, it: &Geometry, address: u64) -> Result<(), TestCaseError> {
    prop_assert_eq!(address, raw.address);
    prop_assert_eq!(it.sizes(), &raw.sizes[..]);
    prop_assert_eq!(it.strides(), &raw.strides[..]);
    prop_assert_eq!(it.element_strides(), &raw.steps[..]);
    prop_assert_eq!((it.rank(), it.data_type()), (raw.sizes.len(), raw.data_type));
    prop_assert_eq!((it.swizzle(), it.interleave()), (raw.swizzle, raw.interleave));
    prop_assert_eq!((it.oob_fill(), it.l2_promotion()), (raw.fill, raw.l2_promotion));
    let elements = match (&raw.kind, it.window()) {
        (Kind::Tiled { sides }, Window::Tiled { .. }) => {
            prop_assert_eq!(it.box_sides(), &sides[..]);
            let step = |i: usize| {
                let ignored = i == 0 && raw.interleave == Interleave::None;
                if ignored { 1 } else { raw.steps[i] as usize }
            };
            sides
                .iter()
                .enumerate()
                .map(|(i, &side)| (0..side).step_by(step(i)).count() as u64)
                .product::<u64>()
        }
        (
            Kind::Im2col { lower, upper, channels, pixels },
            Window::Im2col { lower: l, upper: u, channels: c, pixels: p },
        ) => {
            prop_assert_eq!((&l[..lower.len()], &u[..upper.len()]), (&lower[..], &upper[..]));
            prop_assert_eq!((c, p), (channels, pixels));
            u64::from(*channels) * u64::from(*pixels)
        }
        (
            Kind::Wide { lower, upper, channels, pixels, mode },
            Window::Im2colWide { lower: l, upper: u, channels: c, pixels: p, mode: m },
        ) => {
            prop_assert_eq!((l, u, c, p, m), (lower, upper, channels, pixels, mode));
            let pixels = if *mode == WideMode::Columns128 { 128 } else { *pixels };
            u64::from(*channels) * u64::from(pixels)
        }
        (kind, window) => return Err(TestCaseError::fail(format!("{kind:?} became {window:?}"))),
    };
    let padded = [14, 15].contains(&raw.data_type.code());
    let shared = if padded { 8 } else { raw.bits() as u64 };
    prop_assert_eq!(it.box_bytes(), (elements * shared).div_ceil(8));
    prop_assert_eq!(it.transaction_bytes(), (elements * raw.bits() as u64).div_ceil(8));
    let last: u128 = raw.sizes[1..]
        .iter()
        .zip(&raw.strides)
        .map(|(&size, &stride)| (u128::from(size) - 1) * u128::from(stride))
        .sum();
    let row = u128::from(raw.sizes[0]) * raw.bits() as u128 / 8;
    prop_assert_eq!(u128::from(it.footprint()), (last + row).min(u128::from(u64::MAX)));
    Ok(())
}

fn names_what_is_wrong(raw: &Raw, violation: &Violation) -> Result<(), TestCaseError> {
    prop_assert!(!violation.limit.holds(violation.value), "{}", violation);
    if let Some(value) = raw.value_of(violation.field) {
        prop_assert_eq!(violation.value, value);
    }
    let text = violation.to_string();
    prop_assert!(text.contains(&violation.field.to_string()), "{}", text);
    prop_assert!(text.contains(&violation.value.to_string()), "{}", text);
    prop_assert!(text.contains(&violation.limit.to_string()), "{}", text);
    Ok(())
}

/// Runs the property for one kind, and sees that neither side of it was empty.
fn agrees(which: usize) {
    let (legal, illegal) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(6000) })
        .run(&raw(which), |raw| {
            let side = if raw.is_legal() { &legal } else { &illegal };
            side.set(side.get() + 1);
            check(&raw)
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(legal.get() > 300 && illegal.get() > 300, "{} and {}", legal.get(), illegal.get());
}

#[test]
fn tiled_maps_are_accepted_exactly_where_the_rules_allow_them() {
    agrees(0);
}

#[test]
fn im2col_maps_are_accepted_exactly_where_the_rules_allow_them() {
    agrees(1);
}

#[test]
fn wide_im2col_maps_are_accepted_exactly_where_the_rules_allow_them() {
    agrees(2);
}

fn matrix() -> GeometryBuilder<Tiled> {
    Geometry::tiled(DataType::F32).sizes(&[4096, 100]).box_sides(&[32, 8])
}

#[test]
fn a_dense_tensor_gets_its_strides() {
    let dense = Geometry::tiled(DataType::Bf16)
        .sizes(&[64, 10, 3])
        .box_sides(&[64, 1, 1])
        .build()
        .expect("it is legal");
    assert_eq!(dense.strides(), [128, 1280]);
    assert_eq!(dense.footprint(), 64 * 10 * 3 * 2);
    let packed = Geometry::tiled(DataType::U6Padded)
        .sizes(&[256, 10])
        .box_sides(&[128, 1])
        .build()
        .expect("it is legal");
    assert_eq!((packed.strides(), packed.footprint()), (&[192u64][..], 1920));
}

#[test]
fn dense_strides_past_every_limit_are_a_violation_and_no_overflow() {
    let violation = Geometry::tiled(DataType::F64)
        .sizes(&[1 << 32; 5])
        .box_sides(&[2; 5])
        .build()
        .expect_err("its strides are too long");
    assert_eq!(violation.field, Field::Stride(1));
    assert_eq!((violation.value, violation.limit), (1 << 67, Limit::Below(1 << 40)));
}

#[test]
fn a_violation_reads_as_a_sentence() {
    let text =
        |builder: GeometryBuilder<Tiled>| builder.build().expect_err("it is illegal").to_string();
    assert_eq!(
        text(matrix().strides(&[100])),
        "stride[0] in bytes is 100, it must be a multiple of 16"
    );
    assert_eq!(
        text(matrix().box_sides(&[3, 8])),
        "the inner box in bytes is 12, it must be a multiple of 16"
    );
    assert_eq!(
        text(matrix().swizzle(Swizzle::Span64)),
        "the inner box in bytes is 128, it must be at most 64 (the swizzle's span)"
    );
    assert_eq!(
        text(matrix().strides(&[])),
        "the number of strides is 0, it must be 1 (one fewer than sizes)"
    );
    let padded = Geometry::tiled(DataType::U4Padded).sizes(&[128]).box_sides(&[128]);
    assert_eq!(
        text(padded.swizzle(Swizzle::Span64)),
        "the swizzle code is 2, it must be one of 0, 3, 4 for padded 4-bit elements"
    );
    let pixels = Geometry::im2col(DataType::F16)
        .sizes(&[64, 9, 9, 2])
        .corners(&[-129, 0], &[0, 0])
        .channels_per_pixel(64)
        .pixels_per_column(32)
        .build();
    assert_eq!(
        pixels.expect_err("the corner is too far").to_string(),
        "lower_corner[0] is -129, it must be at least -128 at this rank"
    );
}

#[test]
fn an_address_is_checked_with_the_geometry_it_is_for() {
    let geometry = matrix().build().expect("it is legal");
    assert_eq!(geometry.at(0x1000).map(|request| request.address()), Ok(0x1000));
    assert_eq!(geometry.at(0).map_err(|violation| violation.field), Err(Field::Address));
    assert_eq!(
        geometry.at(0x1008).map_err(|violation| violation.limit),
        Err(Limit::MultipleOf(16))
    );
    assert!(geometry.at((1 << 57) - 16).is_ok());
    assert_eq!(
        geometry.at(1 << 57).map_err(|violation| violation.limit),
        Err(Limit::Below(1 << 57))
    );
    let large = matrix().sizes(&[4096, 1 << 32]).strides(&[(1 << 32) - 1024]).build();
    let large = large.expect("it is legal");
    let end = u64::MAX - large.footprint() + 1;
    assert!(end < 1 << 57 && large.at(end).is_ok(), "the last byte has the last address");
    assert_eq!(large.at(end + 16).map_err(|violation| violation.field), Err(Field::End));
    let packed = Geometry::tiled(DataType::U4Padded).sizes(&[128]).box_sides(&[128]).build();
    let packed = packed.expect("it is legal");
    assert!(packed.at(0x1010).is_err() && packed.at(0x1020).is_ok());
}

#[test]
fn shared_memory_is_counted_for_all_stages_at_the_swizzles_alignment() {
    let plain = matrix().box_sides(&[20, 3]).build().expect("it is legal");
    // 240 bytes, at multiples of 128.
    assert_eq!(plain.shared_memory(4, 1024), Ok(1024));
    assert_eq!(
        plain.shared_memory(5, 1024),
        Err(Violation {
            field: Field::SharedMemory,
            value: 1280,
            limit: Limit::AtMost(1024),
            reason: "(what one block can have)",
        })
    );
    let swizzled = matrix().swizzle(Swizzle::Span128).build().expect("it is legal");
    assert_eq!(swizzled.shared_memory(3, 232_448), Ok(3072));
    assert_eq!(swizzled.shared_memory(0, 232_448).map_err(|v| v.field), Err(Field::Stages));
    let large = matrix().box_sides(&[228, 256]).build().expect("it is legal");
    assert_eq!(large.box_bytes(), 233_472);
    assert!(large.shared_memory(u32::MAX, u32::MAX).is_err());
}

#[test]
fn a_box_fits_in_shared_memory_with_its_element_strides() {
    let tall = |sides: [u32; 5], steps: [u32; 5]| {
        let box_of = Geometry::tiled(DataType::F64).sizes(&[256; 5]).box_sides(&sides);
        let built = box_of.element_strides(&steps).build();
        built.map(|it| it.box_bytes()).map_err(|violation| violation.to_string())
    };
    let refused =
        |bytes: u64| Err(format!("the box in bytes is {bytes}, it must be at most 233472"));
    assert_eq!(tall([256; 5], [1; 5]), refused(8 << 40));
    assert_eq!(tall([2, 255, 4, 4, 4], [1; 5]), refused(261_120));
    assert!(tall([2, 255, 4, 4, 4], [1, 3, 1, 1, 1]).is_ok());
    let bytes = |sides: [u32; 4], step| {
        let of_bytes = Geometry::tiled(DataType::U8).sizes(&[4096; 4]).box_sides(&sides);
        let built = of_bytes.element_strides(&[1, step, 1, 1]).build();
        built.map(|it| it.box_bytes()).map_err(|violation| violation.to_string())
    };
    // What the driver was seen to take and to refuse. It rounds down, the load rounds up.
    assert_eq!(bytes([16, 64, 76, 3], 1), Ok(233_472));
    assert_eq!(bytes([48, 7, 139, 5], 1), refused(233_520));
    assert_eq!(bytes([16, 31, 194, 5], 2), Ok(248_320));
    assert_eq!(bytes([16, 64, 229, 2], 2), refused(234_496));
    let column = |channels, pixels| {
        let column = Geometry::im2col(DataType::U8).sizes(&[4096; 3]).corners(&[0], &[0]);
        column.channels_per_pixel(channels).pixels_per_column(pixels).build().is_ok()
    };
    assert!(column(256, 912) && !column(240, 973));
    let text = tall([4, 4, 4, 4, 4], [2, 1, 1, 1, 1]).expect_err("the TMA has no such stride");
    assert_eq!(text, "element_stride[0] is 2, it must be 1 without interleave");
}

#[test]
fn pixel_boxes_end_where_the_driver_can_count() {
    let image = |width: u64, upper: i32| {
        let image = Geometry::im2col(DataType::F16).sizes(&[64, width, 2]).corners(&[0], &[upper]);
        image.channels_per_pixel(8).pixels_per_column(8).build().map(|_| ())
    };
    assert_eq!(image((1 << 31) - 1, 0), Ok(()));
    assert_eq!(image((1 << 31) + 5, -6), Ok(()));
    let text = image(1 << 31, 0).map_err(|violation| violation.to_string());
    let expected = "the end of pixel_box[0] is 2147483648, it must be less than 2147483648 (size + upper corner)";
    assert_eq!(text, Err(expected.to_owned()));
    let wide = |sizes: &[u64], lower| {
        let wide = Geometry::im2col_wide(DataType::F16).sizes(sizes).corners(lower, 0);
        let wide = wide.channels_per_pixel(32).pixels_per_column(8).swizzle(Swizzle::Span64);
        wide.build().map(|_| ()).map_err(|violation| violation.field)
    };
    assert_eq!(wide(&[64, 9, 2], -32_768), Ok(()));
    assert_eq!(wide(&[64, 9, 9, 2], -129), Err(Field::LowerCorner(0)));
    assert_eq!(wide(&[64, 1, 1 << 31, 2], 0), Err(Field::PixelBoxEnd(1)));
}

#[test]
fn what_came_after_hopper_needs_a_later_device() {
    let hopper = ComputeCapability::new(9, 0);
    let blackwell = ComputeCapability::new(10, 0);
    let plain = matrix().build().expect("it is legal");
    assert_eq!(plain.check_capability(hopper), Ok(()));
    assert!(plain.check_capability(ComputeCapability::new(8, 9)).is_err(), "Ada has no TMA");
    let atoms = matrix().swizzle(Swizzle::Span128Atom32).build();
    let packed = Geometry::tiled(DataType::U4Packed).sizes(&[64]).box_sides(&[64]).build();
    let wide = Geometry::im2col_wide(DataType::F16)
        .sizes(&[64, 9, 2])
        .channels_per_pixel(32)
        .pixels_per_column(4)
        .swizzle(Swizzle::Span64)
        .build();
    for geometry in [atoms, packed, wide] {
        let geometry = geometry.expect("it is legal");
        let violation = geometry.check_capability(hopper).expect_err("Hopper has it not");
        assert_eq!(violation.field, Field::ComputeCapability);
        assert_eq!(geometry.check_capability(blackwell), Ok(()));
    }
}

#[test]
fn padded_elements_go_one_way() {
    let direction = |data_type, swizzle| {
        let builder = Geometry::tiled(data_type).sizes(&[128]).box_sides(&[128]);
        builder.swizzle(swizzle).build().map(|geometry| geometry.direction())
    };
    assert_eq!(direction(DataType::U4Padded, Swizzle::Span128), Ok(Direction::LoadOnly));
    assert_eq!(direction(DataType::U6Padded, Swizzle::Span128), Ok(Direction::Both));
    assert_eq!(direction(DataType::U6Padded, Swizzle::Span128Atom64), Ok(Direction::StoreOnly));
    assert_eq!(direction(DataType::U8, Swizzle::Span128), Ok(Direction::Both));
}
