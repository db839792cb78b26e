//! The builder against the driver's rules, stated a second time as one plain conjunction.

use kasmina_sys::ComputeCapability;
use kasmina_tma::{
    DataType, Field, Interleave, L2Promotion, Limit, OobFill, Swizzle, TensorMapBuilder,
    TensorMapRequest, Violation,
};
use proptest::prelude::*;

/// Everything that a caller can say.
#[derive(Clone, Debug)]
struct Raw {
    data_type: DataType,
    address: u64,
    sizes: Vec<u64>,
    strides: Vec<u64>,
    sides: Vec<u32>,
    steps: Vec<u32>,
    interleave: Interleave,
    swizzle: Swizzle,
    fill: OobFill,
}

impl Raw {
    fn builder(&self) -> TensorMapBuilder {
        TensorMapRequest::tiled(self.data_type, self.address)
            .sizes(&self.sizes)
            .strides(&self.strides)
            .box_sides(&self.sides)
            .element_strides(&self.steps)
            .interleave(self.interleave)
            .swizzle(self.swizzle)
            .oob_fill(self.fill)
    }

    /// The rules, written from the text of the driver's documentation and not from the builder.
    fn is_legal(&self) -> bool {
        let rank = self.sizes.len();
        let interleaved = self.interleave.code() != 0;
        let width = [1u128, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4][self.data_type.code() as usize];
        let align = if self.interleave.code() == 2 { 32 } else { 16 };
        let inner = *self.sides.first().unwrap_or(&0) as u128 * width;
        let span = [u128::MAX, 32, 64, 128, 128, 128, 128][self.swizzle.code() as usize];
        let end = || {
            let mut end = self.address as u128 + self.sizes[0] as u128 * width;
            for i in 1..rank {
                end += (self.sizes[i] as u128 - 1) * self.strides[i - 1] as u128;
            }
            end
        };
        (if interleaved { 3..=5 } else { 1..=5 }).contains(&rank)
            && (self.strides.len(), self.sides.len(), self.steps.len()) == (rank - 1, rank, rank)
            && self.address != 0
            && self.address.is_multiple_of(align)
            && self.sizes.iter().all(|size| (1..=1u64 << 32).contains(size))
            && self.strides.iter().all(|stride| stride.is_multiple_of(align) && *stride < 1 << 40)
            && self.sides.iter().all(|side| (1..=256).contains(side))
            && self.steps.iter().all(|step| (1..=8).contains(step))
            && (interleaved || (inner.is_multiple_of(16) && inner <= span))
            && (self.interleave.code() != 2 || self.swizzle.code() == 1)
            && (self.fill.code() == 0 || [6, 7, 8, 9, 10, 11, 12].contains(&self.data_type.code()))
            && end() <= 1 << 64
    }

    /// The value that a violation speaks of, as this request has it.
    fn value_of(&self, field: Field) -> Option<u128> {
        Some(match field {
            Field::Rank => self.sizes.len() as u128,
            Field::StrideCount => self.strides.len() as u128,
            Field::BoxCount => self.sides.len() as u128,
            Field::ElementStrideCount => self.steps.len() as u128,
            Field::Address => self.address.into(),
            Field::Size(i) => self.sizes[i].into(),
            Field::Stride(i) => self.strides[i].into(),
            Field::Box(i) => self.sides[i].into(),
            Field::ElementStride(i) => self.steps[i].into(),
            Field::Swizzle => self.swizzle.code().into(),
            Field::OobFill => self.fill.code().into(),
            _ => return None,
        })
    }
}

/// Mostly legal values, with the edges of every rule among them.
fn raw() -> impl Strategy<Value = Raw> {
    let size = prop_oneof![
        8 => 1u64..5000,
        1 => Just(1u64 << 32),
        1 => prop_oneof![Just(0u64), Just((1 << 32) + 1), Just(u64::MAX)],
    ];
    let stride = prop_oneof![
        8 => (1u64..1 << 20).prop_map(|n| n * 32),
        2 => (1u64..1 << 20).prop_map(|n| n * 16),
        1 => prop_oneof![Just(0u64), Just((1 << 40) - 32), Just(1 << 40), Just(24), Just(u64::MAX - 15)],
    ];
    let side = prop_oneof![
        6 => (1u32..=8).prop_map(|n| n * 16),
        3 => 1u32..=256,
        1 => prop_oneof![Just(0u32), Just(257), Just(u32::MAX)],
    ];
    let step = prop_oneof![12 => Just(1u32), 4 => 1u32..=8, 1 => prop_oneof![Just(0u32), Just(9)]];
    let address = prop_oneof![
        10 => (1u64..1 << 40).prop_map(|n| n * 32),
        2 => (1u64..1 << 40).prop_map(|n| n * 16),
        1 => prop_oneof![Just(0u64), Just(8), Just(u64::MAX - 15), Just(u64::MAX - 4095)],
    ];
    (1usize..=5)
        .prop_flat_map(move |rank| {
            // Now and then a length that does not fit the rank, or a rank that does not fit anything.
            let length = |n: usize| prop_oneof![20 => Just(n), 1 => 0..=6usize];
            (
                length(rank).prop_flat_map({
                    let size = size.clone();
                    move |n| prop::collection::vec(size.clone(), n)
                }),
                length(rank - 1).prop_flat_map({
                    let stride = stride.clone();
                    move |n| prop::collection::vec(stride.clone(), n)
                }),
                length(rank).prop_flat_map({
                    let side = side.clone();
                    move |n| prop::collection::vec(side.clone(), n)
                }),
                length(rank).prop_flat_map({
                    let step = step.clone();
                    move |n| prop::collection::vec(step.clone(), n)
                }),
            )
        })
        .prop_flat_map(move |(sizes, strides, sides, steps)| {
            (
                (Just(sizes), Just(strides), Just(sides), Just(steps)),
                prop::sample::select(DataType::ALL.to_vec()),
                address.clone(),
                prop_oneof![4 => Just(Interleave::None), 1 => prop::sample::select(Interleave::ALL)],
                prop_oneof![2 => Just(Swizzle::None), 2 => prop::sample::select(Swizzle::ALL)],
                prop_oneof![4 => Just(OobFill::Zero), 1 => Just(OobFill::Nan)],
            )
        })
        .prop_map(|((sizes, strides, sides, steps), data_type, address, interleave, swizzle, fill)| {
            Raw { data_type, address, sizes, strides, sides, steps, interleave, swizzle, fill }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_builder_accepts_what_the_rules_allow_and_nothing_else(raw in raw()) {
        let built = raw.builder().build();
        prop_assert_eq!(built.is_ok(), raw.is_legal(), "{:?}", built);
    }

    #[test]
    fn a_violation_names_the_field_its_value_and_a_limit_that_it_breaks(raw in raw()) {
        if let Err(violation) = raw.builder().build() {
            prop_assert!(!violation.limit.holds(violation.value), "{}", violation);
            if let Some(value) = raw.value_of(violation.field) {
                prop_assert_eq!(violation.value, value);
            }
            let text = violation.to_string();
            prop_assert!(text.contains(&violation.value.to_string()), "{}", text);
            prop_assert!(text.contains(&violation.limit.to_string()), "{}", text);
        }
    }

    #[test]
    fn a_legal_request_keeps_what_it_was_given(raw in raw()) {
        if let Ok(request) = raw.builder().l2_promotion(L2Promotion::Bytes256).build() {
            prop_assert_eq!(request.sizes(), &raw.sizes[..]);
            prop_assert_eq!(request.strides(), &raw.strides[..]);
            prop_assert_eq!(request.box_sides(), &raw.sides[..]);
            prop_assert_eq!(request.element_strides(), &raw.steps[..]);
            prop_assert_eq!((request.rank(), request.address()), (raw.sizes.len(), raw.address));
            prop_assert_eq!((request.swizzle(), request.interleave()), (raw.swizzle, raw.interleave));
            prop_assert_eq!((request.oob_fill(), request.data_type()), (raw.fill, raw.data_type));
            prop_assert_eq!(request.l2_promotion(), L2Promotion::Bytes256);
            let mut bytes = u64::from(raw.data_type.bytes());
            for i in 0..raw.sides.len() {
                let ignored = i == 0 && raw.interleave == Interleave::None;
                let step = if ignored { 1 } else { raw.steps[i] as usize };
                bytes *= (0..raw.sides[i]).step_by(step).count() as u64;
            }
            prop_assert_eq!(request.box_bytes(), bytes);
        }
    }
}

fn matrix() -> TensorMapBuilder {
    TensorMapRequest::tiled(DataType::F32, 0x1000).sizes(&[4096, 100]).box_sides(&[32, 8])
}

#[test]
fn a_dense_tensor_gets_its_strides() {
    let request = TensorMapRequest::tiled(DataType::Bf16, 0x1000)
        .sizes(&[64, 10, 3])
        .box_sides(&[64, 1, 1])
        .build()
        .expect("it is legal");
    assert_eq!(request.strides(), [128, 1280]);
}

#[test]
fn dense_strides_past_every_limit_are_a_violation_and_no_overflow() {
    let violation = TensorMapRequest::tiled(DataType::F64, 0x1000)
        .sizes(&[1 << 32; 5])
        .box_sides(&[2; 5])
        .build()
        .expect_err("its strides are too long");
    assert_eq!(violation.field, Field::Stride(1));
    assert_eq!((violation.value, violation.limit), (1 << 67, Limit::Below(1 << 40)));
}

#[test]
fn a_violation_reads_as_a_sentence() {
    let text = |builder: TensorMapBuilder| builder.build().expect_err("it is illegal").to_string();
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
    let huge = TensorMapRequest::tiled(DataType::F64, 16)
        .sizes(&[256; 5])
        .box_sides(&[256; 5])
        .build()
        .expect("the driver's rules allow it");
    assert!(huge.shared_memory(u32::MAX, u32::MAX).is_err());
}

#[test]
fn larger_swizzle_atoms_need_a_later_device() {
    let hopper = ComputeCapability::new(9, 0);
    let plain = matrix().build().expect("it is legal");
    let atoms = matrix().swizzle(Swizzle::Span128Atom32).build().expect("it is legal");
    assert_eq!(plain.check_capability(hopper), Ok(()));
    assert!(plain.check_capability(ComputeCapability::new(8, 9)).is_err(), "Ada has no TMA");
    assert!(atoms.check_capability(hopper).is_err());
    assert_eq!(atoms.check_capability(ComputeCapability::new(10, 0)), Ok(()));
}
