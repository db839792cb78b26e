//! What elements are computed with: five types of values, and how they are summed.

use std::fmt::Debug;

/// A value that reductions compute with: f32, of the 16-bit floats too, f64, i32, u32 or i64.
pub trait Scalar: Copy + Debug + PartialOrd + Send + Sync + 'static {
    /// Σ of any number of them.
    type Sum;
    /// Σ of as many as one lane takes: 2^16 at most.
    type Lane: Copy + Default + Send + Sync;
    /// Whether it can be NaN or infinite.
    const FLOAT: bool;
    /// Zero.
    const ZERO: Self;
    /// No value is less: the greatest of none.
    const LEAST: Self;
    /// No value is greater: the least of none.
    const GREATEST: Self;

    /// As f64; an i64 of more than 53 bits is rounded.
    fn wide(self) -> f64;
    /// No NaN.
    fn is_number(self) -> bool;
    /// Neither NaN nor infinite.
    fn is_finite(self) -> bool;
    /// The largest value that is dead under this threshold.
    fn dead_up_to(epsilon: f32) -> Self;
    /// Whether |x| is at most this; of integers, whether it is 0.
    fn is_dead(self, most: Self) -> bool;
    /// Itself, with −0.0 as +0.0.
    fn positive_zero(self) -> Self;
    /// As a summand.
    fn summand(self) -> Self::Lane;
    /// a + b.
    fn add(a: Self::Lane, b: Self::Lane) -> Self::Lane;
    /// What a lane has, as a sum.
    fn sum(lane: Self::Lane) -> Self::Sum;
}

macro_rules! floats {
    ($($type:ty),*) => {
        $(
            impl Scalar for $type {
                type Sum = f64;
                type Lane = f64;
                const FLOAT: bool = true;
                const ZERO: Self = 0.0;
                const LEAST: Self = <$type>::NEG_INFINITY;
                const GREATEST: Self = <$type>::INFINITY;

                #[inline(always)]
                fn wide(self) -> f64 {
                    f64::from(self)
                }

                #[inline(always)]
                fn is_number(self) -> bool {
                    !self.is_nan()
                }

                #[inline(always)]
                fn is_finite(self) -> bool {
                    self.abs() < <$type>::INFINITY
                }

                #[inline(always)]
                fn dead_up_to(epsilon: f32) -> Self {
                    // Infinity is not finite, so it is never dead.
                    if epsilon == f32::INFINITY { <$type>::MAX } else { epsilon.into() }
                }

                #[inline(always)]
                fn is_dead(self, most: Self) -> bool {
                    self.abs() <= most
                }

                #[inline(always)]
                fn positive_zero(self) -> Self {
                    self + 0.0
                }

                #[inline(always)]
                fn summand(self) -> f64 {
                    f64::from(self)
                }

                #[inline(always)]
                fn add(a: f64, b: f64) -> f64 {
                    a + b
                }

                #[inline(always)]
                fn sum(lane: f64) -> f64 {
                    lane
                }
            }
        )*
    };
}

macro_rules! integers {
    ($($type:ty, $lane:ty;)*) => {
        $(
            impl Scalar for $type {
                type Sum = i128;
                type Lane = $lane;
                const FLOAT: bool = false;
                const ZERO: Self = 0;
                const LEAST: Self = <$type>::MIN;
                const GREATEST: Self = <$type>::MAX;

                #[inline(always)]
                fn wide(self) -> f64 {
                    self as f64
                }

                #[inline(always)]
                fn is_number(self) -> bool {
                    true
                }

                #[inline(always)]
                fn is_finite(self) -> bool {
                    true
                }

                #[inline(always)]
                fn dead_up_to(_: f32) -> Self {
                    0
                }

                #[inline(always)]
                fn is_dead(self, most: Self) -> bool {
                    self == most
                }

                #[inline(always)]
                fn positive_zero(self) -> Self {
                    self
                }

                #[inline(always)]
                fn summand(self) -> $lane {
                    self.into()
                }

                #[inline(always)]
                fn add(a: $lane, b: $lane) -> $lane {
                    a + b
                }

                #[inline(always)]
                fn sum(lane: $lane) -> i128 {
                    lane.into()
                }
            }
        )*
    };
}

floats!(f32, f64);
integers! {
    i32, i64;
    u32, i64;
    i64, i128;
}
