//! The guards against `Bounds` of the CPU backend, bit for bit, and strict mode's bounds against the oracle.

use kasmina_core::Bounds;
use kasmina_oracle as oracle;
use kasmina_telemetry::ChunkStats;
use proptest::prelude::*;

use crate::shim::{self, edges, same, shim, value};

/// Bounds of every sort: fast, default, narrow, of one point, of one sign, around a zero.
pub(crate) fn bounds() -> impl Strategy<Value = Bounds> {
    let ends = prop_oneof![
        Just((-1e6f32, 1e6f32)),
        Just((0.0, 1e6)),
        Just((-2.0, 0.0)),
        Just((0.5, 0.5)),
        Just((-f32::MAX, f32::MAX)),
        (-2.0f32..2.0, 0.0f32..2.0).prop_map(|(lower, width)| (lower, lower + width)),
    ];
    let epsilon = prop_oneof![Just(0.0f32), Just(1e-8), 0.0f32..0.5];
    (any::<bool>(), epsilon, ends).prop_map(|(guarded, epsilon, (lower, upper))| Bounds {
        guarded,
        epsilon,
        lower,
        upper,
    })
}

/// Equal bits, but for the sign of a zero where a bound is zero: the hardware's minimum and maximum order the
/// zeros, and the CPU's comparisons do not.
pub(crate) fn same_within(bounds: &Bounds, a: f32, b: f32) -> bool {
    same(a, b) || (a == 0.0 && b == 0.0 && (bounds.lower == 0.0 || bounds.upper == 0.0))
}

fn check(bounds: &Bounds, x: &[f32]) {
    let n = x.len();
    let (mut sanitized, mut clamped, mut passes) = (vec![0.0; n], vec![0.0; n], vec![0u8; n]);
    let own = shim::Bounds::from(*bounds);
    // SAFETY: all arrays are as long as x.
    unsafe {
        (shim().guard_all)(
            &raw const own,
            x.as_ptr(),
            sanitized.as_mut_ptr(),
            clamped.as_mut_ptr(),
            passes.as_mut_ptr(),
            n,
        );
    }
    for i in 0..n {
        let about = format!("{bounds:?}, x = {:e} ({:#010x})", x[i], x[i].to_bits());
        let expected = bounds.sanitize(x[i]);
        assert!(same_within(bounds, sanitized[i], expected), "{about}: {} sanitized", sanitized[i]);
        let expected = bounds.clamp(x[i]);
        assert!(same_within(bounds, clamped[i], expected), "{about}: {} clamped", clamped[i]);
        assert_eq!(passes[i] != 0, bounds.passes(x[i]), "{about}");
    }
}

fn strict(fixed: &Bounds, sigmas: f32, stats: &ChunkStats) -> shim::Bounds {
    let own = shim::Bounds::from(*fixed);
    let mut out = own;
    // SAFETY: single values.
    unsafe { (shim().strict_of)(&raw const own, sigmas, &raw const *stats, &raw mut out) };
    out
}

proptest! {
    #[test]
    fn guards_are_those_of_the_cpu(
        bounds in bounds(),
        mut x in prop::collection::vec(value(), 32),
    ) {
        x.extend(edges());
        x.extend([bounds.lower, bounds.upper, bounds.epsilon, -bounds.epsilon]);
        check(&bounds, &x);
    }

    #[test]
    fn strict_bounds_are_the_oracles(
        x in prop::collection::vec(value().prop_map(|x| if x.abs() > 1e15 { f32::NAN } else { x }), 0..40),
        scale in 1e-3f32..1e3,
        sigmas in 0.0f32..8.0,
    ) {
        let x: Vec<f32> = x.iter().map(|x| x * scale).collect();
        let mut stats = ChunkStats::EMPTY;
        x.iter().for_each(|x| stats.push(*x, 0.0));
        let fixed = Bounds { guarded: true, epsilon: 1e-8, lower: -1e4, upper: 5e3 };
        let found = strict(&fixed, sigmas, &stats);
        let stability = oracle::Stability {
            mode: oracle::StabilityMode::Strict,
            epsilon: 1e-8,
            lower: -1e4,
            upper: 5e3,
            sigmas: sigmas.into(),
        };
        let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let expected = oracle::stability::bounds(&stability, &wide);
        let size = expected.lower.abs().max(expected.upper.abs());
        prop_assert!((f64::from(found.lower) - expected.lower).abs() <= 1e-6 * size);
        prop_assert!((f64::from(found.upper) - expected.upper).abs() <= 1e-6 * size);
        prop_assert_eq!((found.guarded, found.epsilon), (1, 1e-8));
    }
}

#[test]
fn strict_bounds_without_a_finite_element_or_a_spread() {
    let fixed = Bounds { guarded: true, epsilon: 1e-8, lower: -2.0, upper: 3.0 };
    let of = |values: &[f32]| {
        let mut stats = ChunkStats::EMPTY;
        values.iter().for_each(|x| stats.push(*x, 0.0));
        let found = strict(&fixed, 6.0, &stats);
        (found.lower, found.upper)
    };
    assert_eq!(of(&[]), (-2.0, 3.0));
    assert_eq!(of(&[f32::NAN, f32::INFINITY]), (-2.0, 3.0));
    assert_eq!(of(&[0.75, 0.75]), (0.75, 0.75));
    assert_eq!(of(&[100.0, 102.0]), (3.0, 3.0), "inside the fixed ones");
    assert_eq!(of(&[f32::MAX, f32::MIN]), (-2.0, 3.0), "bounds that overflow f32");
}
