//! The mergeable records: pushes and merges are those of kasmina-telemetry, bit for bit.

use kasmina_telemetry::{ChunkStats, GradientStats};
use proptest::prelude::*;

use crate::shim::{edges, shim, value};

fn chunk_bits(s: &ChunkStats) -> [u64; 7] {
    let extremes = [s.min, s.max].map(|x| u64::from(x.to_bits()));
    [s.n, s.dead, s.nonfinite, s.mean.to_bits(), s.m2.to_bits(), extremes[0], extremes[1]]
}

fn gradient_bits(s: &GradientStats) -> [u64; 6] {
    let max = u64::from(s.max_abs.to_bits());
    [s.n, s.nonfinite, s.mean.to_bits(), s.m2.to_bits(), max, s.sum_squares.to_bits()]
}

fn of(x: &[f32], dead_epsilon: f32) -> [(ChunkStats, GradientStats); 2] {
    let mut own = (ChunkStats::EMPTY, GradientStats::EMPTY);
    // SAFETY: single records, and x.
    unsafe {
        (shim().empty_stats)(&raw mut own.0, &raw mut own.1);
        (shim().push_chunk)(&raw mut own.0, x.as_ptr(), x.len(), dead_epsilon);
        (shim().push_gradient)(&raw mut own.1, x.as_ptr(), x.len());
    }
    let mut expected = (ChunkStats::EMPTY, GradientStats::EMPTY);
    for x in x {
        expected.0.push(*x, dead_epsilon);
        expected.1.push(*x);
    }
    [own, expected]
}

proptest! {
    #[test]
    fn records_are_those_of_the_telemetry_crate(
        a in prop::collection::vec(value(), 0..30),
        b in prop::collection::vec(value(), 0..30),
        dead_epsilon in prop_oneof![
            Just(1e-8f32), Just(0.0), Just(-1.0), Just(f32::NAN), Just(f32::INFINITY), 0.0f32..1.0
        ],
    ) {
        let [(mut chunk, mut gradient), (mut want_chunk, mut want_gradient)] = of(&a, dead_epsilon);
        prop_assert_eq!(chunk_bits(&chunk), chunk_bits(&want_chunk));
        prop_assert_eq!(gradient_bits(&gradient), gradient_bits(&want_gradient));
        let [(other_chunk, other_gradient), _] = of(&b, dead_epsilon);
        // SAFETY: single records.
        unsafe {
            (shim().merge_chunk)(&raw mut chunk, &raw const other_chunk);
            (shim().merge_gradient)(&raw mut gradient, &raw const other_gradient);
        }
        want_chunk.merge(&other_chunk);
        want_gradient.merge(&other_gradient);
        prop_assert_eq!(chunk_bits(&chunk), chunk_bits(&want_chunk));
        prop_assert_eq!(gradient_bits(&gradient), gradient_bits(&want_gradient));
    }
}

#[test]
fn empty_is_neutral_and_edges_count() {
    let [(chunk, gradient), (want_chunk, want_gradient)] = of(&edges(), 1e-8);
    assert_eq!(chunk_bits(&chunk), chunk_bits(&want_chunk));
    assert_eq!(gradient_bits(&gradient), gradient_bits(&want_gradient));
    let [(empty_chunk, empty_gradient), _] = of(&[], 1e-8);
    assert_eq!(chunk_bits(&empty_chunk), chunk_bits(&ChunkStats::EMPTY));
    assert_eq!(gradient_bits(&empty_gradient), gradient_bits(&GradientStats::EMPTY));
    for (left, right) in [(chunk, empty_chunk), (empty_chunk, chunk)] {
        let mut merged = left;
        // SAFETY: single records.
        unsafe { (shim().merge_chunk)(&raw mut merged, &raw const right) };
        assert_eq!(chunk_bits(&merged), chunk_bits(&chunk));
    }
    for (left, right) in [(gradient, empty_gradient), (empty_gradient, gradient)] {
        let mut merged = left;
        // SAFETY: single records.
        unsafe { (shim().merge_gradient)(&raw mut merged, &raw const right) };
        assert_eq!(gradient_bits(&merged), gradient_bits(&gradient));
    }
}

#[test]
fn a_zero_extremum_is_positive() {
    let [(chunk, _), _] = of(&[-0.0, -0.0], 0.0);
    assert_eq!((chunk.min.to_bits(), chunk.max.to_bits(), chunk.dead), (0, 0, 2));
}
