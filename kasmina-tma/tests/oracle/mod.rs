//! A tensor map as a caller may ask for it, legal or not, and the driver's rules stated a second time: one plain
//! conjunction for each kind, written from the text of `cuda.h` 13.0 and not from the builder. The GPU tests take this
//! file in by its path and ask the driver itself.

// Not every test that takes it in uses all of it.
#![allow(dead_code)]

use kasmina_tma::{
    DataType, Field, Geometry, Interleave, L2Promotion, OobFill, Swizzle, TensorMapRequest,
    Violation, WideMode,
};
use proptest::prelude::*;

/// What the text leaves open, as the builder decides it; see `src/unstated.rs` for each. Stated again: a change has to be
/// made in both places.
pub(crate) mod open {
    pub(crate) const NULL_ADDRESS_REFUSED: bool = true;
    pub(crate) const ZERO_STRIDES_REFUSED: bool = false;
    pub(crate) const OVERLAPPING_STRIDES_REFUSED: bool = false;
    pub(crate) const IGNORED_ELEMENT_STRIDE_MUST_BE_1: bool = true;
    pub(crate) const ADDRESS_BITS: u32 = 57;
    pub(crate) const MAX_BOX_BYTES: i128 = 233_472;
    pub(crate) const PIXEL_BITS: u32 = 31;
    pub(crate) const BOX_LARGER_THAN_TENSOR_REFUSED: bool = false;
    pub(crate) const IM2COL_CHANNELS_FILL_16_BYTES: bool = true;
    pub(crate) const EMPTY_COLUMNS_REFUSED: bool = true;
    pub(crate) const EVERY_PIXEL_BOX_SIDE_CHECKED: bool = true;
    pub(crate) const IGNORED_PIXELS_CHECKED: bool = false;
    pub(crate) const WIDE_INTERLEAVE_32_NEEDS_SWIZZLE_32: bool = true;
    pub(crate) const END_CHECKED: bool = true;
}

/// Everything that a caller can say.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) kind: Kind,
    pub(crate) data_type: DataType,
    pub(crate) address: u64,
    pub(crate) sizes: Vec<u64>,
    pub(crate) strides: Vec<u64>,
    pub(crate) steps: Vec<u32>,
    pub(crate) interleave: Interleave,
    pub(crate) swizzle: Swizzle,
    pub(crate) l2_promotion: L2Promotion,
    pub(crate) fill: OobFill,
}

/// The part that differs.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Tiled { sides: Vec<u32> },
    Im2col { lower: Vec<i32>, upper: Vec<i32>, channels: u32, pixels: u32 },
    Wide { lower: i32, upper: i32, channels: u32, pixels: u32, mode: WideMode },
}

impl Raw {
    pub(crate) fn geometry(&self) -> Result<Geometry, Violation> {
        macro_rules! common {
            ($builder:expr) => {
                $builder
                    .sizes(&self.sizes)
                    .strides(&self.strides)
                    .element_strides(&self.steps)
                    .interleave(self.interleave)
                    .swizzle(self.swizzle)
                    .l2_promotion(self.l2_promotion)
                    .oob_fill(self.fill)
            };
        }
        match &self.kind {
            Kind::Tiled { sides } => {
                common!(Geometry::tiled(self.data_type)).box_sides(sides).build()
            }
            Kind::Im2col { lower, upper, channels, pixels } => {
                common!(Geometry::im2col(self.data_type))
                    .corners(lower, upper)
                    .channels_per_pixel(*channels)
                    .pixels_per_column(*pixels)
                    .build()
            }
            Kind::Wide { lower, upper, channels, pixels, mode } => {
                common!(Geometry::im2col_wide(self.data_type))
                    .corners(*lower, *upper)
                    .channels_per_pixel(*channels)
                    .pixels_per_column(*pixels)
                    .mode(*mode)
                    .build()
            }
        }
    }

    pub(crate) fn request(&self) -> Result<TensorMapRequest, Violation> {
        self.geometry()?.at(self.address)
    }

    /// Bits of an element, by the comments in the header's enum.
    pub(crate) fn bits(&self) -> i128 {
        [8, 16, 32, 32, 64, 64, 16, 32, 64, 16, 32, 32, 32, 4, 4, 6][self.data_type.code() as usize]
    }

    /// `16U4_ALIGN16B` or `16U6_ALIGN16B`.
    fn aligned_16(&self) -> bool {
        [14, 15].contains(&self.data_type.code())
    }

    fn span(&self) -> i128 {
        [i128::MAX, 32, 64, 128, 128, 128, 128][self.swizzle.code() as usize]
    }

    /// Whether the driver's text allows it.
    pub(crate) fn is_legal(&self) -> bool {
        self.common_is_legal()
            && match &self.kind {
                Kind::Tiled { sides } => self.tiled_is_legal(sides),
                Kind::Im2col { lower, upper, channels, pixels } => {
                    self.im2col_is_legal(lower, upper, *channels, *pixels)
                }
                Kind::Wide { lower, upper, channels, pixels, mode } => {
                    self.wide_is_legal(*lower, *upper, *channels, *pixels, *mode)
                }
            }
    }

    fn common_is_legal(&self) -> bool {
        let rank = self.sizes.len();
        let code = self.data_type.code();
        let interleave = self.interleave.code();
        if !(1..=5).contains(&rank)
            || (self.strides.len(), self.steps.len()) != (rank - 1, rank)
            || (interleave != 0 && rank < 3)
        {
            return false;
        }
        let align = if interleave == 2 || self.aligned_16() { 32 } else { 16 };
        let mut end = i128::from(self.address) + i128::from(self.sizes[0]) * self.bits() / 8;
        for i in 1..rank {
            // Sizes and strides that are wrong anyway may be anything.
            let outer = i128::from(self.sizes[i]) - 1;
            end = end.saturating_add(outer.saturating_mul(i128::from(self.strides[i - 1])));
        }
        let covers = |i: usize| {
            let below = match i {
                0 => i128::from(self.sizes[0]) * self.bits() / 8,
                _ => i128::from(self.strides[i - 1]).saturating_mul(i128::from(self.sizes[i])),
            };
            i128::from(self.strides[i]) >= below
        };
        let one_step = interleave == 0 && open::IGNORED_ELEMENT_STRIDE_MUST_BE_1;
        (self.address != 0 || !open::NULL_ADDRESS_REFUSED)
            && self.address >> open::ADDRESS_BITS == 0
            && self.address.is_multiple_of(align)
            && self.sizes.iter().all(|size| (1..=1u64 << 32).contains(size))
            && (!self.aligned_16() || self.sizes[0].is_multiple_of(128))
            && (code != 13 || self.sizes[0].is_multiple_of(2))
            && self.strides.iter().all(|stride| stride.is_multiple_of(align) && *stride < 1 << 40)
            && (!open::ZERO_STRIDES_REFUSED || self.strides.iter().all(|stride| *stride != 0))
            && (!open::OVERLAPPING_STRIDES_REFUSED || (0..rank - 1).all(covers))
            && self.steps.iter().all(|step| (1..=8).contains(step))
            && (!one_step || self.steps[0] == 1)
            && (code != 15 || interleave == 0)
            && (self.fill.code() == 0 || (6..=12).contains(&code))
            && (!open::END_CHECKED || end <= 1 << 64)
    }

    /// Swizzles of tiled and usual im2col maps.
    fn swizzle_is_legal(&self) -> bool {
        let swizzle = self.swizzle.code();
        (self.interleave.code() != 2 || swizzle == 1)
            && (self.data_type.code() != 15 || [0, 3, 4, 6].contains(&swizzle))
            && (self.data_type.code() != 14 || [0, 3, 4].contains(&swizzle))
    }

    fn tiled_is_legal(&self, sides: &[u32]) -> bool {
        sides.len() == self.sizes.len()
            && sides.iter().all(|side| (1..=256).contains(side))
            && (!open::BOX_LARGER_THAN_TENSOR_REFUSED
                || sides.iter().zip(&self.sizes).all(|(side, size)| u64::from(*side) <= *size))
            && (!self.aligned_16() || sides[0] == 128)
            && (self.interleave.code() != 0
                || (i128::from(sides[0]) * self.bits() % 128 == 0
                    && i128::from(sides[0]) * self.bits() <= self.span().saturating_mul(8)))
            && self.fits(sides.iter().zip(&self.steps).map(|(side, step)| side / step))
            && self.swizzle_is_legal()
    }

    /// Whether so many elements along each dimension, as the driver counts them, are within its limit.
    fn fits(&self, counted: impl Iterator<Item = u32>) -> bool {
        let bits = if self.aligned_16() { 8 } else { self.bits() };
        let bits = counted.fold(bits, |bits, side| bits.saturating_mul(side.into()));
        bits <= open::MAX_BOX_BYTES * 8
    }

    fn im2col_is_legal(&self, lower: &[i32], upper: &[i32], channels: u32, pixels: u32) -> bool {
        let rank = self.sizes.len();
        if rank < 3 || lower.len() != rank - 2 || upper.len() != rank - 2 {
            return false;
        }
        let range = self.corners();
        lower.iter().chain(upper).all(|corner| range.contains(corner))
            && (0..rank - 2).all(|i| self.side_is_legal(i, lower[i], upper[i]))
            && self.column_is_legal(channels, Some(pixels))
            && self.fits([channels, pixels].into_iter())
            && self.swizzle_is_legal()
    }

    fn wide_is_legal(
        &self,
        lower: i32,
        upper: i32,
        channels: u32,
        pixels: u32,
        mode: WideMode,
    ) -> bool {
        let swizzle = self.swizzle.code();
        let counted = mode.code() == 0 || open::IGNORED_PIXELS_CHECKED;
        let loaded = if mode.code() == 1 { 128 } else { pixels };
        self.sizes.len() >= 3
            && self.corners().contains(&lower)
            && self.corners().contains(&upper)
            && self.side_is_legal(0, lower, upper)
            && (1..self.sizes.len() - 2).all(|i| self.side_is_legal(i, 0, 0))
            && self.fits([channels, loaded].into_iter())
            && self.column_is_legal(channels, counted.then_some(pixels))
            && [2, 3, 4].contains(&swizzle)
            && (![14, 15].contains(&self.data_type.code()) || [3, 4].contains(&swizzle))
            && (self.interleave.code() != 2
                || !open::WIDE_INTERLEAVE_32_NEEDS_SWIZZLE_32
                || swizzle == 1)
    }

    /// Of ranks 3 to 5.
    fn corners(&self) -> std::ops::RangeInclusive<i32> {
        [-32768..=32767, -128..=127, -16..=15][self.sizes.len() - 3].clone()
    }

    fn side_is_legal(&self, i: usize, lower: i32, upper: i32) -> bool {
        let end = i128::from(self.sizes[i + 1]) + i128::from(upper);
        end < 1 << open::PIXEL_BITS
            && (!open::EVERY_PIXEL_BOX_SIDE_CHECKED || end > i128::from(lower))
    }

    fn column_is_legal(&self, channels: u32, pixels: Option<u32>) -> bool {
        let least = u32::from(open::EMPTY_COLUMNS_REFUSED);
        let inner = i128::from(channels) * self.bits();
        (least..=256).contains(&channels)
            && pixels.is_none_or(|pixels| (least..=1024).contains(&pixels))
            && (!self.aligned_16() || channels == 128)
            && (self.interleave.code() != 0
                || ((inner % 128 == 0 || !open::IM2COL_CHANNELS_FILL_16_BYTES)
                    && inner <= self.span().saturating_mul(8)))
    }

    /// The value that a violation speaks of, as this request has it.
    pub(crate) fn value_of(&self, field: Field) -> Option<i128> {
        let (lower, upper, channels, pixels) = match &self.kind {
            Kind::Tiled { .. } => (vec![], vec![], 0, 0),
            Kind::Im2col { lower, upper, channels, pixels } => {
                (lower.clone(), upper.clone(), *channels, *pixels)
            }
            Kind::Wide { lower, upper, channels, pixels, .. } => {
                (vec![*lower], vec![*upper], *channels, *pixels)
            }
        };
        let sides = if let Kind::Tiled { sides } = &self.kind { &sides[..] } else { &[] };
        Some(match field {
            Field::Rank => self.sizes.len() as i128,
            Field::StrideCount => self.strides.len() as i128,
            Field::BoxCount => sides.len() as i128,
            Field::ElementStrideCount => self.steps.len() as i128,
            Field::LowerCornerCount => lower.len() as i128,
            Field::UpperCornerCount => upper.len() as i128,
            Field::Address => self.address.into(),
            Field::Size(i) => self.sizes[i].into(),
            Field::Stride(i) => self.strides[i].into(),
            Field::Box(i) => sides[i].into(),
            Field::ElementStride(i) => self.steps[i].into(),
            Field::LowerCorner(i) => lower[i].into(),
            Field::UpperCorner(i) => upper[i].into(),
            Field::ChannelsPerPixel => channels.into(),
            Field::PixelsPerColumn => pixels.into(),
            Field::Interleave => self.interleave.code().into(),
            Field::Swizzle => self.swizzle.code().into(),
            Field::OobFill => self.fill.code().into(),
            _ => return None,
        })
    }
}

/// Usually `n`, now and then a length that does not fit the rank.
fn length(n: usize) -> impl Strategy<Value = usize> {
    prop_oneof![24 => Just(n), 1 => 0..=6usize]
}

fn several<S: Strategy + Clone>(n: usize, of: S) -> impl Strategy<Value = Vec<S::Value>>
where
    S::Value: Clone,
{
    length(n).prop_flat_map(move |n| prop::collection::vec(of.clone(), n))
}

fn size() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![
        4 => 1u64..5000,
        8 => (1u64..64).prop_map(|n| n * 128),
        1 => prop_oneof![Just((1u64 << 31) - 1), Just(1 << 31), Just(1 << 32)],
        1 => prop_oneof![Just(0u64), Just((1 << 32) + 1), Just((1 << 32) + 128), Just(u64::MAX)],
    ]
}

fn stride() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![
        12 => (1u64..1 << 20).prop_map(|n| n * 32),
        2 => (1u64..1 << 20).prop_map(|n| n * 16),
        1 => prop_oneof![
            Just(0u64), Just((1 << 40) - 32), Just(1 << 40), Just(24), Just(u64::MAX - 15)
        ],
    ]
}

fn step() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![24 => Just(1u32), 8 => 1u32..=8, 1 => prop_oneof![Just(0u32), Just(9)]]
}

/// The innermost one is mostly what it has to be without interleave.
fn steps(rank: usize) -> impl Strategy<Value = Vec<u32>> {
    (several(rank, step()), 0..8).prop_map(|(mut steps, innermost)| {
        if let (Some(first), 1..) = (steps.first_mut(), innermost) {
            *first = 1;
        }
        steps
    })
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => (1u64..1 << 40).prop_map(|n| n * 32),
        2 => (1u64..1 << 40).prop_map(|n| n * 16),
        1 => prop_oneof![Just(0u64), Just(8), Just((1 << 57) - 32), Just(1 << 57), Just(u64::MAX - 15)],
    ]
}

fn side() -> impl Strategy<Value = u32> + Clone {
    prop_oneof![
        6 => (1u32..=8).prop_map(|n| n * 16),
        6 => 1u32..=8,
        3 => Just(128u32),
        3 => 1u32..=256,
        1 => prop_oneof![Just(0u32), Just(257), Just(u32::MAX)],
    ]
}

fn corner(rank: usize) -> impl Strategy<Value = i32> + Clone {
    let far = [32_767, 127, 15][rank.clamp(3, 5) - 3];
    prop_oneof![
        12 => -3i32..=3,
        3 => -far - 1..=far,
        1 => prop_oneof![Just(far), Just(-far - 1), Just(far + 1), Just(-far - 2), Just(i32::MAX), Just(i32::MIN)],
    ]
}

fn pixels() -> impl Strategy<Value = u32> {
    prop_oneof![10 => 1u32..=1024, 1 => prop_oneof![Just(0u32), Just(1024), Just(1025)]]
}

fn kind(rank: usize, which: usize) -> BoxedStrategy<Kind> {
    let spatial = rank.saturating_sub(2);
    match which {
        0 => several(rank, side()).prop_map(|sides| Kind::Tiled { sides }).boxed(),
        1 => (several(spatial, corner(rank)), several(spatial, corner(rank)), side(), pixels())
            .prop_map(|(lower, upper, channels, pixels)| Kind::Im2col {
                lower,
                upper,
                channels,
                pixels,
            })
            .boxed(),
        _ => (corner(rank), corner(rank), side(), pixels(), prop::sample::select(WideMode::ALL))
            .prop_map(|(lower, upper, channels, pixels, mode)| Kind::Wide {
                lower,
                upper,
                channels,
                pixels,
                mode,
            })
            .boxed(),
    }
}

/// Requests of one kind (0 tiled, 1 im2col, 2 wide): mostly legal values, with the edges of every rule among them.
pub(crate) fn raw(which: usize) -> impl Strategy<Value = Raw> {
    let rank = if which == 0 {
        (1..=5usize).boxed()
    } else {
        prop_oneof![20 => 3..=5usize, 1 => 1..=2usize].boxed()
    };
    let swizzle = if which == 2 {
        prop_oneof![8 => prop::sample::select(&Swizzle::ALL[2..5]), 1 => prop::sample::select(Swizzle::ALL)].boxed()
    } else {
        prop_oneof![2 => Just(Swizzle::None), 2 => prop::sample::select(Swizzle::ALL)].boxed()
    };
    rank.prop_flat_map(move |rank| {
        (
            (several(rank, size()), several(rank - 1, stride()), steps(rank), kind(rank, which)),
            prop::sample::select(DataType::ALL.to_vec()),
            address(),
            prop_oneof![6 => Just(Interleave::None), 1 => prop::sample::select(Interleave::ALL)],
            swizzle.clone(),
            prop::sample::select(L2Promotion::ALL),
            prop_oneof![6 => Just(OobFill::Zero), 1 => Just(OobFill::Nan)],
        )
    })
    .prop_map(
        |(
            (sizes, strides, steps, kind),
            data_type,
            address,
            interleave,
            swizzle,
            l2_promotion,
            fill,
        )| Raw {
            kind,
            data_type,
            address,
            sizes,
            strides,
            steps,
            interleave,
            swizzle,
            l2_promotion,
            fill,
        },
    )
}
