//! Section 2.5: what happens to the input and output of a chunk on path, and which gradients pass.

use crate::telemetry::Moments;
use crate::{Stability, StabilityMode};

/// The bounds of one call; infinite in fast mode, where nothing is clamped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
}

/// The bounds that hold for a call with the whole input `x`.
///
/// "`Strict`: bounds = mean ± 6σ over the finite elements of this call's whole input, intersected
/// with \[lo,hi\]". σ is the population's. Where the two intervals do not meet, the nearer end of
/// \[lo,hi\] is both bounds; an input without a finite element narrows nothing.
#[must_use]
pub fn bounds(stability: &Stability, x: &[f64]) -> Bounds {
    let Stability { lower, upper, .. } = *stability;
    match stability.mode {
        StabilityMode::Fast => Bounds { lower: f64::NEG_INFINITY, upper: f64::INFINITY },
        StabilityMode::Adaptive => Bounds { lower, upper },
        StabilityMode::Strict => match Moments::of(x) {
            None => Bounds { lower, upper },
            Some(m) => {
                let width = stability.sigmas * m.variance.sqrt();
                Bounds {
                    lower: (m.mean - width).clamp(lower, upper),
                    upper: (m.mean + width).clamp(lower, upper),
                }
            }
        },
    }
}

/// A value after stability, and whether the gradient passes to what it was before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sanitized {
    /// The value that goes on.
    pub value: f64,
    /// Whether its gradient does.
    pub passes: bool,
}

/// An input element on path: "NaN→0, |x|<ε→0, clamp to \[lo,hi\]"; gradients are "masked to 0 where x
/// … was clamped or x was not finite; straight through where it was flushed".
#[must_use]
pub fn sanitize_input(stability: &Stability, bounds: Bounds, x: f64) -> Sanitized {
    if stability.mode == StabilityMode::Fast {
        return Sanitized { value: x, passes: true };
    }
    let known = if x.is_nan() { 0.0 } else { x };
    let flushed = if known.abs() < stability.epsilon { 0.0 } else { known };
    let value = flushed.clamp(bounds.lower, bounds.upper);
    Sanitized { value, passes: x.is_finite() && value == flushed }
}

/// An output element on path: "the same clamp on y", and no gradient where it moved the value.
#[must_use]
pub fn clamp_output(stability: &Stability, bounds: Bounds, y: f64) -> Sanitized {
    if stability.mode == StabilityMode::Fast {
        return Sanitized { value: y, passes: true };
    }
    let value = y.clamp(bounds.lower, bounds.upper);
    Sanitized { value, passes: value == y }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTIVE: Stability = Stability {
        mode: StabilityMode::Adaptive,
        epsilon: 1e-3,
        lower: -2.0,
        upper: 3.0,
        sigmas: 6.0,
    };

    #[test]
    fn the_table_of_inputs() {
        let b = bounds(&ADAPTIVE, &[]);
        for (x, value, passes) in [
            (1.0, 1.0, true),
            (-2.0, -2.0, true),
            (3.0, 3.0, true),
            (3.5, 3.0, false),
            (-9.0, -2.0, false),
            (9e-4, 0.0, true),
            (1e-3, 1e-3, true),
            (f64::NAN, 0.0, false),
            (f64::INFINITY, 3.0, false),
            (f64::NEG_INFINITY, -2.0, false),
        ] {
            let s = sanitize_input(&ADAPTIVE, b, x);
            assert_eq!((s.value, s.passes), (value, passes), "x = {x}");
        }
    }

    #[test]
    fn fast_changes_nothing() {
        let fast = Stability { mode: StabilityMode::Fast, ..ADAPTIVE };
        let b = bounds(&fast, &[1.0]);
        for x in [f64::INFINITY, -1e300, 1e-12] {
            let s = sanitize_input(&fast, b, x);
            assert_eq!((s.value, s.passes), (x, true));
            let s = clamp_output(&fast, b, x);
            assert_eq!((s.value, s.passes), (x, true));
        }
        assert!(sanitize_input(&fast, b, f64::NAN).value.is_nan());
    }

    #[test]
    fn strict_bounds_see_finite_elements_only_and_stay_within_the_fixed_ones() {
        let strict = Stability { mode: StabilityMode::Strict, sigmas: 1.0, ..ADAPTIVE };
        // Mean 1, population σ 1.
        let b = bounds(&strict, &[0.0, f64::NAN, 2.0, f64::INFINITY]);
        assert_eq!((b.lower, b.upper), (0.0, 2.0));
        let b = bounds(&strict, &[0.0, 8.0]);
        assert_eq!((b.lower, b.upper), (0.0, 3.0));
        let b = bounds(&strict, &[100.0, 102.0]);
        assert_eq!((b.lower, b.upper), (3.0, 3.0));
        let b = bounds(&strict, &[f64::NAN]);
        assert_eq!((b.lower, b.upper), (-2.0, 3.0));
    }
}
