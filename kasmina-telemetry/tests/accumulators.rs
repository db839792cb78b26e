//! The accumulators against two-pass f64 statistics, on random shapes, pieces of rows and unpleasant values.

mod support;

use kasmina_telemetry::{
    ChunkAccumulator, ChunkStats, GradientAccumulator, GradientStats, TelemetryError,
};
use proptest::prelude::*;
use support::{Noise, chunk_of, chunk_stats, gradient_stats, same_chunk, same_gradient, values};

/// Shape of a tile and its rows' values.
fn tile() -> impl Strategy<Value = (usize, usize, usize, Vec<f32>)> {
    let chunk = prop_oneof![1_usize..40, Just(1), Just(15), Just(16), Just(17), 40_usize..200];
    (1_usize..150, chunk, 1_usize..9).prop_flat_map(|(columns, chunk, rows)| {
        values(columns * rows).prop_map(move |x| (columns, chunk, rows, x))
    })
}

fn columns_of(seed: usize, chunk: usize, columns: usize) -> std::ops::Range<usize> {
    seed * chunk..columns.min((seed + 1) * chunk)
}

/// Bits, so that NaN and zeros of both signs compare too.
fn bits(stats: &[ChunkStats]) -> Vec<[u64; 7]> {
    stats
        .iter()
        .map(|s| {
            [
                s.n,
                s.dead,
                s.nonfinite,
                s.mean.to_bits(),
                s.m2.to_bits(),
                s.min.to_bits().into(),
                s.max.to_bits().into(),
            ]
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whole_rows_match_two_passes((columns, chunk, rows, x) in tile()) {
        let mut acc = ChunkAccumulator::new(columns, chunk, 1e-8).unwrap();
        let seeds = columns.div_ceil(chunk);
        prop_assert_eq!(acc.seeds(), seeds);
        let mut out = vec![ChunkStats::EMPTY; seeds];
        for row in x.chunks(columns) {
            acc.push_row(0..seeds, row);
        }
        acc.finish(&mut out);
        for (seed, got) in out.iter().enumerate() {
            let want = chunk_stats(&chunk_of(&x, columns, rows, columns_of(seed, chunk, columns)), 1e-8);
            same_chunk(got, &want)?;
        }
    }

    #[test]
    fn gradients_match_two_passes((columns, chunk, rows, x) in tile()) {
        let mut acc = GradientAccumulator::new(columns, chunk).unwrap();
        let seeds = columns.div_ceil(chunk);
        let mut out = vec![GradientStats::EMPTY; seeds];
        for row in x.chunks(columns) {
            acc.push_row(0..seeds, row);
        }
        acc.finish(&mut out);
        for (seed, got) in out.iter().enumerate() {
            let want = gradient_stats(&chunk_of(&x, columns, rows, columns_of(seed, chunk, columns)));
            same_gradient(got, &want)?;
        }
    }

    /// Rows that reach some seeds only, in several pieces, into records that already hold something.
    #[test]
    fn pieces_of_rows_match_two_passes(
        (columns, chunk, rows, x) in tile(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 12),
    ) {
        let seeds = columns.div_ceil(chunk);
        let mut acc = ChunkAccumulator::new(columns, chunk, 1e-8).unwrap();
        let mut gradients = GradientAccumulator::new(columns, chunk).unwrap();
        let mut seen: Vec<Vec<f32>> = vec![vec![1.5]; seeds];
        let mut start = ChunkStats::EMPTY;
        start.push(1.5, 1e-8);
        let mut out = vec![start; seeds];
        let mut out_gradients = vec![{ let mut g = GradientStats::EMPTY; g.push(1.5); g }; seeds];
        for (i, (a, b)) in cuts.iter().enumerate() {
            let row = &x[i % rows * columns..][..columns];
            let (a, b) = (a.index(seeds + 1), b.index(seeds + 1));
            let piece = a.min(b)..a.max(b);
            let span = (piece.start * chunk).min(columns)..(piece.end * chunk).min(columns);
            acc.push_row(piece.clone(), &row[span.clone()]);
            gradients.push_row(piece.clone(), &row[span]);
            for seed in piece {
                seen[seed].extend(&row[columns_of(seed, chunk, columns)]);
            }
            if i == 7 {
                acc.finish(&mut out);
            }
        }
        acc.finish(&mut out);
        gradients.finish(&mut out_gradients);
        for seed in 0..seeds {
            same_chunk(&out[seed], &chunk_stats(&seen[seed], 1e-8))?;
            same_gradient(&out_gradients[seed], &gradient_stats(&seen[seed]))?;
        }
    }

    #[test]
    fn grouping_rows_into_calls_changes_no_bit(
        (columns, chunk, rows, x) in tile(),
        first in any::<prop::sample::Index>(),
        pad in 0_usize..5,
    ) {
        let seeds = columns.div_ceil(chunk);
        let seeds = first.index(seeds)..seeds;
        let mut strided = Vec::new();
        for row in x.chunks(columns) {
            strided.extend_from_slice(&row[seeds.start * chunk..]);
            strided.extend(std::iter::repeat_n(f32::NAN, pad));
        }
        let width = columns - seeds.start * chunk;
        strided.truncate(strided.len() - pad);
        let mut one = ChunkAccumulator::new(columns, chunk, 1e-8).unwrap();
        let mut many = one.clone();
        for row in 0..rows {
            one.push_row(seeds.clone(), &strided[row * (width + pad)..][..width]);
        }
        many.push_rows(seeds.clone(), &strided, width + pad, rows);
        let mut out = vec![ChunkStats::EMPTY; one.seeds()];
        let mut out_many = out.clone();
        one.finish(&mut out);
        many.finish(&mut out_many);
        prop_assert_eq!(bits(&out), bits(&out_many));
        prop_assert!(out[..seeds.start].iter().all(|s| *s == ChunkStats::EMPTY));
    }
}

/// Enough rows to fold on the way, far from zero, behind an outlier.
#[test]
fn variance_survives_offset_and_outlier_over_many_rows() {
    for (columns, chunk, rows) in [(24, 3, 70_000), (40, 20, 70_000), (33, 33, 40_000)] {
        let mut noise = Noise(7);
        let mut acc = ChunkAccumulator::new(columns, chunk, 1e-8).unwrap();
        let mut gradients = GradientAccumulator::new(columns, chunk).unwrap();
        let seeds = acc.seeds();
        let mut seen = vec![Vec::new(); seeds];
        for row in 0..rows {
            let mut x: Vec<f32> = (0..columns).map(|_| (1e4 + noise.normal()) as f32).collect();
            if row == 0 {
                x.iter_mut().step_by(chunk).for_each(|x| *x = -7e4);
            }
            acc.push_row(0..seeds, &x);
            gradients.push_row(0..seeds, &x);
            for (seen, x) in seen.iter_mut().zip(x.chunks(chunk)) {
                seen.extend_from_slice(x);
            }
        }
        let mut out = vec![ChunkStats::EMPTY; seeds];
        let mut out_gradients = vec![GradientStats::EMPTY; seeds];
        acc.finish(&mut out);
        gradients.finish(&mut out_gradients);
        for seed in 0..seeds {
            let want = chunk_stats(&seen[seed], 1e-8);
            let off = out[seed].variance().unwrap() / want.variance().unwrap() - 1.0;
            assert!(off.abs() < 1e-7, "chunk {chunk}: variance off by {off:e}");
            assert_eq!((out[seed].n, out[seed].min, out[seed].max), (want.n, want.min, want.max));
            let off = out_gradients[seed].variance().unwrap() / want.variance().unwrap() - 1.0;
            assert!(off.abs() < 1e-7, "chunk {chunk}: gradient variance off by {off:e}");
        }
    }
}

#[test]
fn a_chunk_of_a_hundred_thousand_columns() {
    let mut noise = Noise(3);
    let columns = 100_003;
    let x: Vec<f32> = (0..columns * 8).map(|_| noise.normal() as f32).collect();
    let mut acc = ChunkAccumulator::new(columns, 100_000, 1e-8).unwrap();
    acc.push_rows(0..2, &x, columns, 8);
    let mut out = [ChunkStats::EMPTY; 2];
    acc.finish(&mut out);
    for (seed, got) in out.iter().enumerate() {
        let values = chunk_of(&x, columns, 8, columns_of(seed, 100_000, columns));
        same_chunk(got, &chunk_stats(&values, 1e-8)).unwrap();
    }
}

#[test]
fn a_finished_accumulator_starts_anew() {
    let mut acc = ChunkAccumulator::new(20, 20, 1e-8).unwrap();
    let mut out = [ChunkStats::EMPTY];
    acc.push_row(0..1, &[5.0; 20]);
    acc.finish(&mut out);
    let before = out;
    acc.finish(&mut out);
    assert_eq!(out, before);
    let mut again = [ChunkStats::EMPTY];
    acc.push_row(0..1, &[-1.0; 20]);
    acc.finish(&mut again);
    assert_eq!((again[0].min, again[0].max, again[0].n), (-1.0, -1.0, 20));
}

/// Enough rows to fold on the way, then a second window that must know nothing of the first.
#[test]
fn a_folded_accumulator_starts_anew() {
    for (columns, chunk) in [(18, 3), (20, 20)] {
        let mut acc = ChunkAccumulator::new(columns, chunk, 1e-8).unwrap();
        let mut gradients = GradientAccumulator::new(columns, chunk).unwrap();
        let seeds = acc.seeds();
        let width = (columns / seeds) as u64;
        for _ in 0..40_000 {
            acc.push_row(0..seeds, &vec![5.0; columns]);
            gradients.push_row(0..seeds, &vec![5.0; columns]);
        }
        let mut out = vec![ChunkStats::EMPTY; seeds];
        let mut out_gradients = vec![GradientStats::EMPTY; seeds];
        acc.finish(&mut out);
        gradients.finish(&mut out_gradients);
        assert!(out.iter().all(|s| (s.n, s.mean, s.m2) == (40_000 * width, 5.0, 0.0)));
        let mut again = vec![ChunkStats::EMPTY; seeds];
        let mut again_gradients = vec![GradientStats::EMPTY; seeds];
        acc.push_row(0..seeds, &vec![-1.0; columns]);
        gradients.push_row(0..seeds, &vec![-1.0; columns]);
        acc.finish(&mut again);
        gradients.finish(&mut again_gradients);
        assert!(again.iter().all(|s| (s.n, s.mean, s.max) == (width, -1.0, -1.0)));
        assert!(again_gradients.iter().all(|g| (g.n, g.max_abs) == (width, 1.0)));
    }
}

/// A pivot stands in for what is not finite, and must not show as an extremum.
#[test]
fn rows_without_a_finite_value_leave_no_trace_in_extrema() {
    for (columns, chunk) in [(18, 3), (20, 20), (100, 40)] {
        for sign in [1.0, -1.0] {
            let mut acc = ChunkAccumulator::new(columns, chunk, 1e-8).unwrap();
            let mut gradients = GradientAccumulator::new(columns, chunk).unwrap();
            let seeds = acc.seeds();
            for value in [f32::NAN, f32::INFINITY, 5.0 * sign, f32::NAN, 6.0 * sign] {
                acc.push_row(0..seeds, &vec![value; columns]);
                gradients.push_row(0..seeds, &vec![value; columns]);
            }
            let mut out = vec![ChunkStats::EMPTY; seeds];
            let mut out_gradients = vec![GradientStats::EMPTY; seeds];
            acc.finish(&mut out);
            gradients.finish(&mut out_gradients);
            for (chunk, gradient) in out.iter().zip(&out_gradients) {
                let extrema =
                    (chunk.min.abs().min(chunk.max.abs()), chunk.min.abs().max(chunk.max.abs()));
                assert_eq!((extrema, chunk.mean), ((5.0, 6.0), 5.5 * f64::from(sign)));
                assert_eq!(chunk.nonfinite, chunk.n / 2 * 3);
                assert_eq!((gradient.max_abs, gradient.variance()), (6.0, Some(0.25)));
            }
        }
    }
}

#[test]
fn dead_threshold_is_inclusive_and_never_takes_what_is_not_finite() {
    for (epsilon, dead) in [(1e-8, 4), (0.0, 2), (-1.0, 0), (f32::NAN, 0), (f32::INFINITY, 6)] {
        for columns in [9, 18] {
            let mut x = vec![
                0.0,
                -0.0,
                1e-8,
                f32::from_bits(1),
                1.0001e-8,
                -2.0,
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
            ];
            x.resize(columns, f32::NAN);
            let mut acc = ChunkAccumulator::new(columns, columns, epsilon).unwrap();
            acc.push_row(0..1, &x);
            let mut out = [ChunkStats::EMPTY];
            acc.finish(&mut out);
            assert_eq!((out[0].n, out[0].dead), (6, dead), "epsilon {epsilon}");
        }
    }
}

#[test]
fn negative_zero_is_reported_as_zero() {
    for columns in [3, 16, 20] {
        let mut acc = ChunkAccumulator::new(columns, columns, 1e-8).unwrap();
        acc.push_row(0..1, &vec![-0.0; columns]);
        let mut out = [ChunkStats::EMPTY];
        acc.finish(&mut out);
        assert_eq!((out[0].min.to_bits(), out[0].max.to_bits()), (0, 0));
        let mut pushed = ChunkStats::EMPTY;
        pushed.push(-0.0, 1e-8);
        assert_eq!((pushed.min.to_bits(), pushed.max.to_bits()), (0, 0));
    }
}

#[test]
fn zero_sizes_are_refused() {
    let zero = |what| Some(TelemetryError::Zero { what });
    assert_eq!(ChunkAccumulator::new(0, 4, 0.0).err(), zero("columns"));
    assert_eq!(ChunkAccumulator::new(4, 0, 0.0).err(), zero("chunk"));
    assert_eq!(GradientAccumulator::new(0, 4).err(), zero("columns"));
    assert_eq!(GradientAccumulator::new(4, 0).err(), zero("chunk"));
}

#[test]
#[should_panic(expected = "do not make 5 values")]
fn a_row_of_the_wrong_length_is_refused() {
    ChunkAccumulator::new(8, 2, 0.0).unwrap().push_row(0..4, &[0.0; 5]);
}

#[test]
#[should_panic(expected = "outside the tile")]
fn seeds_outside_the_tile_are_refused() {
    ChunkAccumulator::new(8, 2, 0.0).unwrap().push_row(3..5, &[0.0; 4]);
}
