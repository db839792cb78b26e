//! Random sizes and values for every type.

use half::{bf16, f16};
use kasmina_telemetry::ReductionStrategy;
use kasmina_telemetry::cuda::GpuElement;
use proptest::prelude::*;

/// A small generator, so that a case is its numbers alone.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        // Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// In (−1, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// What the data are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Around zero.
    Ordinary,
    /// Mean 10⁴ σ.
    Offset,
    /// NaN, infinities, zeros of both signs, denormals and the largest numbers among ordinary ones.
    Wild,
    /// The same rarely, as damaged data would have it.
    Rare,
    /// Nothing but NaN and infinities.
    Damaged,
    /// One value.
    Constant,
    /// Few different values, so that extremes tie.
    Ties,
}

pub(crate) fn kind() -> impl Strategy<Value = Kind> {
    use Kind::*;
    prop::sample::select(vec![Ordinary, Offset, Wild, Rare, Damaged, Constant, Ties])
}

pub(crate) fn strategy() -> impl Strategy<Value = ReductionStrategy> {
    use ReductionStrategy::*;
    prop::sample::select(vec![Hierarchical, Hierarchical, Atomic, Direct])
}

/// Lengths at which something begins or ends: packets, warps, strips, pieces.
pub(crate) fn length() -> impl Strategy<Value = usize> {
    let powers = (0u32..21, 0usize..3).prop_map(|(k, d)| (1_usize << k) + d - usize::from(k > 0));
    prop_oneof![
        1 => Just(0),
        3 => 0usize..70,
        2 => prop::sample::select(vec![31, 32, 33, 127, 509, 1021, 4093, 65_537, 99_991, 524_287, 1_000_003]),
        4 => powers,
        2 => 70usize..300_000,
    ]
}

/// An element type as the tests draw it.
pub(crate) trait Drawn: GpuElement {
    const INTEGER: bool;
    /// The nearest value.
    fn nearest(x: f64) -> Self;
    /// Something out of the ordinary.
    fn odd(draw: &mut Draw) -> Self;
    /// All bits.
    fn bits(self) -> u64;
}

macro_rules! floats {
    ($($type:ty, $largest:expr, $tiny:expr;)*) => {
        $(
            impl Drawn for $type {
                const INTEGER: bool = false;

                #[allow(trivial_numeric_casts, clippy::unnecessary_cast)]
                fn nearest(x: f64) -> Self {
                    Convert::<$type>::convert(x)
                }

                fn odd(draw: &mut Draw) -> Self {
                    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, $tiny, -$tiny, $largest, -$largest];
                    Self::nearest(odd[draw.below(odd.len())])
                }

                fn bits(self) -> u64 {
                    self.to_bits().into()
                }
            }
        )*
    };
}

struct Convert<T>(std::marker::PhantomData<T>);
impl Convert<f32> {
    fn convert(x: f64) -> f32 {
        x as f32
    }
}
impl Convert<f64> {
    fn convert(x: f64) -> f64 {
        x
    }
}
impl Convert<f16> {
    fn convert(x: f64) -> f16 {
        f16::from_f64(x)
    }
}
impl Convert<bf16> {
    fn convert(x: f64) -> bf16 {
        bf16::from_f64(x)
    }
}

floats! {
    f32, f64::from(f32::MAX), 1e-45;
    // Squares of differences must stay in f64.
    f64, 1e150, 5e-324;
    f16, 65_504.0, 6e-8;
    bf16, 3e38, 1e-40;
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(
            impl Drawn for $type {
                const INTEGER: bool = true;

                fn nearest(x: f64) -> Self {
                    (x * 1000.0) as $type
                }

                fn odd(draw: &mut Draw) -> Self {
                    [<$type>::MIN, <$type>::MAX, 0, <$type>::MAX - 1, draw.next() as $type][draw.below(5)]
                }

                fn bits(self) -> u64 {
                    self as u64
                }
            }
        )*
    };
}

integers!(i32, u32, i64);

/// `n` values of a kind.
pub(crate) fn values<T: Drawn>(n: usize, kind: Kind, seed: u64) -> Vec<T> {
    let mut draw = Draw(seed);
    let constant = T::nearest(draw.unit() * 5.0);
    (0..n)
        .map(|_| match kind {
            Kind::Ordinary => T::nearest(draw.unit() * 3.0),
            // A sum of uniforms is near enough to normal.
            Kind::Offset => T::nearest(1e4 + draw.unit() + draw.unit() + draw.unit()),
            Kind::Wild if draw.below(3) == 0 => T::odd(&mut draw),
            Kind::Rare if draw.below(5000) == 0 => T::odd(&mut draw),
            Kind::Wild | Kind::Rare => T::nearest(draw.unit() * 3.0),
            Kind::Damaged if !T::INTEGER => {
                let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
                T::nearest(
                    odd[if seed.is_multiple_of(2) {
                        draw.below(3)
                    } else {
                        (seed / 2 % 3) as usize
                    }],
                )
            }
            Kind::Damaged => T::odd(&mut draw),
            Kind::Constant => constant,
            Kind::Ties => T::nearest([-2.0, -0.0, 0.0, 1.0, 2.0][draw.below(5)]),
        })
        .collect()
}
