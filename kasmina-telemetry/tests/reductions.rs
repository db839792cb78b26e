//! Flat, segmented and column reductions against plain f64 loops; strategies against each other; and the
//! same bits on any number of threads.

mod support;

use kasmina_telemetry::{
    ChunkStats, MatrixView, Moments, NanPolicy, ReductionOptions, ReductionStrategy,
    TelemetryError, columns, reduce, segmented,
};
use proptest::prelude::*;
use support::{
    Noise, chunk_of, chunk_stats, gradient_stats, same_chunk, same_gradient, same_moments, value,
    values,
};

const STRATEGIES: [ReductionStrategy; 3] =
    [ReductionStrategy::Hierarchical, ReductionStrategy::Atomic, ReductionStrategy::Direct];

fn options(strategy: ReductionStrategy, nan: NanPolicy) -> ReductionOptions {
    ReductionOptions { strategy, nan, dead_epsilon: 1e-8 }
}

fn near(got: f64, want: f64, scale: f64) -> Result<(), TestCaseError> {
    let same = (got - want).abs() <= 1e-12 * scale || got == want || got.is_nan() && want.is_nan();
    prop_assert!(same, "{got} instead of {want} at scale {scale}");
    Ok(())
}

/// A matrix in a longer stride.
fn matrix() -> impl Strategy<Value = (usize, usize, usize, Vec<f32>)> {
    (0_usize..12, 1_usize..70, 0_usize..4).prop_flat_map(|(rows, columns, pad)| {
        let stride = columns + pad;
        values(rows * stride).prop_map(move |x| (rows, columns, stride, x))
    })
}

/// The flat reductions, one value after the other.
fn check_flat(x: &[f32], strategy: ReductionStrategy, nan: NanPolicy) -> Result<(), TestCaseError> {
    let options = options(strategy, nan);
    let got = reduce::summary(x, &options);
    let numbers: Vec<(usize, f32)> =
        (0..).zip(x.iter().copied()).filter(|(_, x)| !x.is_nan()).collect();
    let first_nan = x.iter().position(|x| x.is_nan());
    if let (NanPolicy::Propagate, Some(at)) = (nan, first_nan) {
        let got = got.expect("there are values");
        prop_assert!(got.sum.is_nan() && got.sum_squares.is_nan());
        prop_assert!(got.min.is_nan() && got.max.is_nan());
        prop_assert_eq!((got.arg_min, got.arg_max), (at, at));
        return Ok(());
    }
    let Some(got) = got else {
        prop_assert!(numbers.is_empty());
        prop_assert_eq!(reduce::arg_min(x, &options), None);
        return Ok(());
    };
    prop_assert_eq!(got.count, numbers.len() as u64);
    let mut least = numbers[0];
    let mut greatest = numbers[0];
    for &(i, x) in &numbers {
        if x < least.1 {
            least = (i, x);
        }
        if x > greatest.1 {
            greatest = (i, x);
        }
    }
    prop_assert_eq!((got.arg_min, got.min), least);
    prop_assert_eq!((got.arg_max, got.max), greatest);
    let wide = || numbers.iter().map(|&(_, x)| f64::from(x));
    near(got.sum, wide().sum(), wide().map(f64::abs).sum())?;
    let squares: f64 = wide().map(|x| x * x).sum();
    near(got.sum_squares, squares, squares)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn merging_is_commutative_and_associative(
        a in proptest::collection::vec(value(), 0..30),
        b in proptest::collection::vec(value(), 0..30),
        c in proptest::collection::vec(value(), 0..30),
    ) {
        let of = |values: &[f32]| {
            let mut stats = ChunkStats::EMPTY;
            values.iter().for_each(|&x| stats.push(x, 1e-8));
            stats
        };
        let merge = |left: &ChunkStats, right: &ChunkStats| {
            let mut all = *left;
            all.merge(right);
            all
        };
        let (sa, sb, sc) = (of(&a), of(&b), of(&c));
        same_chunk(&merge(&sa, &sb), &merge(&sb, &sa))?;
        let left = merge(&merge(&sa, &sb), &sc);
        let right = merge(&sa, &merge(&sb, &sc));
        same_chunk(&left, &right)?;
        let all: Vec<f32> = a.iter().chain(&b).chain(&c).copied().collect();
        same_chunk(&left, &chunk_stats(&all, 1e-8))?;
        let finite = all.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x));
        let moments = Moments::from_values(finite);
        same_moments((moments.mean, moments.m2), (left.mean, left.m2), left.n)?;
    }

    #[test]
    fn flat_reductions_match_a_loop(x in (0_usize..70).prop_flat_map(values)) {
        for strategy in STRATEGIES {
            for nan in [NanPolicy::Propagate, NanPolicy::Ignore] {
                check_flat(&x, strategy, nan)?;
            }
            match reduce::statistics(&x, &options(strategy, NanPolicy::Propagate)) {
                Some(stats) => same_chunk(&stats.into(), &chunk_stats(&x, 1e-8))?,
                None => prop_assert!(x.is_empty()),
            }
        }
    }

    #[test]
    fn segments_match_two_passes(
        (x, cuts, segment) in (0_usize..300).prop_flat_map(|n| {
            (values(n), proptest::collection::vec(0..=n, 1..12), 1_usize..80)
        }),
    ) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        for strategy in STRATEGIES {
            let options = options(strategy, NanPolicy::Propagate);
            let got = segmented::offsets(&x, &cuts, &options).unwrap();
            prop_assert_eq!(got.len(), cuts.len() - 1);
            for (got, ends) in got.iter().zip(cuts.windows(2)) {
                same_chunk(got, &chunk_stats(&x[ends[0]..ends[1]], 1e-8))?;
            }
            let got = segmented::equal(&x, segment, &options).unwrap();
            prop_assert_eq!(got.len(), x.len().div_ceil(segment));
            for (got, values) in got.iter().zip(x.chunks(segment)) {
                same_chunk(got, &chunk_stats(values, 1e-8))?;
            }
        }
    }

    #[test]
    fn column_chunks_match_two_passes((rows, columns, stride, x) in matrix(), chunk in 1_usize..90) {
        let view = MatrixView::new(&x, rows, columns, stride).unwrap();
        for strategy in STRATEGIES {
            let options = options(strategy, NanPolicy::Propagate);
            let got = segmented::column_chunks(&view, chunk, &options).unwrap();
            let gradients = segmented::column_chunk_gradients(&view, chunk, &options).unwrap();
            prop_assert_eq!(got.len(), columns.div_ceil(chunk));
            prop_assert_eq!(gradients.len(), got.len());
            for (seed, (got, gradient)) in got.iter().zip(&gradients).enumerate() {
                let own = seed * chunk..columns.min((seed + 1) * chunk);
                let values = chunk_of(&x, stride, rows, own);
                same_chunk(got, &chunk_stats(&values, 1e-8))?;
                same_gradient(gradient, &gradient_stats(&values))?;
            }
        }
    }

    #[test]
    fn column_reductions_match_a_loop((rows, columns, stride, x) in matrix(), other in values(12 * 80)) {
        let view = MatrixView::new(&x, rows, columns, stride).unwrap();
        let right = MatrixView::new(&other, rows, columns, 80).unwrap();
        for strategy in STRATEGIES {
            for nan in [NanPolicy::Propagate, NanPolicy::Ignore] {
                let options = options(strategy, nan);
                let sums = columns::sums(&view, &options);
                let extrema = columns::extrema(&view, &options);
                let products = columns::products(&view, &right, &options).unwrap();
                prop_assert_eq!((sums.len(), extrema.len(), products.len()), (columns, columns, columns));
                for column in 0..columns {
                    let x = chunk_of(&x, stride, rows, column..column + 1);
                    let y = chunk_of(&other, 80, rows, column..column + 1);
                    let kept: Vec<f32> =
                        x.iter().copied().filter(|x| nan == NanPolicy::Propagate || !x.is_nan()).collect();
                    let wide = || kept.iter().map(|&x| f64::from(x));
                    prop_assert_eq!(sums[column].is_some(), !kept.is_empty());
                    if let Some(sum) = sums[column] {
                        near(sum, wide().sum(), wide().map(f64::abs).sum())?;
                    }
                    let want = reduce::summary(&x, &options);
                    prop_assert_eq!(extrema[column].is_some(), want.is_some());
                    if let (Some(got), Some(want)) = (extrema[column], want) {
                        near(got.min.into(), want.min.into(), 0.0)?;
                        near(got.max.into(), want.max.into(), 0.0)?;
                    }
                    let pairs = || x.iter().zip(&y)
                        .filter(|(x, y)| nan == NanPolicy::Propagate || !(x.is_nan() || y.is_nan()))
                        .map(|(&x, &y)| f64::from(x) * f64::from(y));
                    prop_assert_eq!(products[column].is_some(), pairs().next().is_some());
                    if let Some(product) = products[column] {
                        near(product, pairs().sum(), pairs().map(f64::abs).sum())?;
                    }
                }
            }
        }
    }
}

/// Sizes around the pieces that work is cut into.
#[test]
fn long_slices_match_a_loop() {
    let mut noise = Noise(11);
    let x: Vec<f32> = (0..300_000).map(|_| (1e4 + noise.normal()) as f32).collect();
    for n in [65_535, 65_536, 65_537, 131_072, 200_003] {
        for strategy in STRATEGIES {
            check_flat(&x[..n], strategy, NanPolicy::Propagate).unwrap();
            let got = reduce::statistics(&x[..n], &options(strategy, NanPolicy::Ignore)).unwrap();
            same_chunk(&got.into(), &chunk_stats(&x[..n], 1e-8)).unwrap();
        }
    }
    // Ties across pieces go to the first, and so does the first NaN.
    let mut ties = vec![1.0_f32; 200_000];
    ties[70_000] = -2.0;
    ties[199_999] = -2.0;
    for strategy in STRATEGIES {
        let options = options(strategy, NanPolicy::Propagate);
        assert_eq!(reduce::arg_min(&ties, &options), Some(70_000));
        assert_eq!(reduce::arg_max(&ties, &options), Some(0));
        let mut with_nan = ties.clone();
        with_nan[150_000] = f32::NAN;
        with_nan[190_000] = f32::NAN;
        assert_eq!(reduce::arg_max(&with_nan, &options), Some(150_000));
    }
}

/// One huge segment among small ones, and a matrix of several tiles and blocks.
#[test]
fn uneven_segments_and_large_matrices_match_two_passes() {
    let mut noise = Noise(5);
    let x: Vec<f32> = (0..700 * 700).map(|_| (1e4 + noise.normal()) as f32).collect();
    let offsets = [0, 3, 3, 300_000, 300_064, 490_000];
    let view = MatrixView::contiguous(&x, 700, 700).unwrap();
    for strategy in STRATEGIES {
        let options = options(strategy, NanPolicy::Propagate);
        let got = segmented::offsets(&x, &offsets, &options).unwrap();
        for (got, ends) in got.iter().zip(offsets.windows(2)) {
            same_chunk(got, &chunk_stats(&x[ends[0]..ends[1]], 1e-8)).unwrap();
        }
        for chunk in [1, 7, 64, 333, 700] {
            let got = segmented::column_chunks(&view, chunk, &options).unwrap();
            for (seed, got) in got.iter().enumerate() {
                let own = seed * chunk..700.min((seed + 1) * chunk);
                same_chunk(got, &chunk_stats(&chunk_of(&x, 700, 700, own), 1e-8)).unwrap();
            }
        }
    }
}

/// Everything that is promised to be reproducible, as bits.
fn fingerprint(x: &[f32], view: &MatrixView<'_>, strategy: ReductionStrategy) -> Vec<u64> {
    let options = options(strategy, NanPolicy::Ignore);
    let mut bits = Vec::new();
    let mut put = |stats: &[ChunkStats]| {
        for s in stats {
            let extrema = u64::from(s.min.to_bits()) << 32 | u64::from(s.max.to_bits());
            bits.extend([s.n, s.dead, s.nonfinite, s.mean.to_bits(), s.m2.to_bits(), extrema]);
        }
    };
    for chunk in [1, 13, 16, 100, 999] {
        put(&segmented::column_chunks(view, chunk, &options).unwrap());
    }
    put(&segmented::equal(x, 64, &options).unwrap());
    put(&segmented::equal(x, 250_000, &options).unwrap());
    put(&[reduce::statistics(x, &options).unwrap().into()]);
    let summary = reduce::summary(x, &options).unwrap();
    bits.extend([summary.sum.to_bits(), summary.sum_squares.to_bits(), summary.arg_min as u64]);
    let sums = columns::sums(view, &options);
    let products = columns::products(view, view, &options).unwrap();
    bits.extend(sums.iter().chain(&products).map(|x| x.unwrap().to_bits()));
    let gradients = segmented::column_chunk_gradients(view, 10, &options).unwrap();
    bits.extend(gradients.iter().map(|g| g.sum_squares.to_bits()));
    bits
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let mut noise = Noise(23);
    let x: Vec<f32> = (0..999 * 401).map(|_| noise.normal() as f32).collect();
    let view = MatrixView::contiguous(&x, 401, 999).unwrap();
    for strategy in [ReductionStrategy::Hierarchical, ReductionStrategy::Direct] {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| fingerprint(&x, &view, strategy))
        };
        let one = on(1);
        for threads in [2, 3, 7] {
            assert_eq!(on(threads), one, "{strategy:?} on {threads} threads");
        }
    }
}

#[test]
fn bad_shapes_are_refused() {
    let x = [1.0_f32; 10];
    let options = ReductionOptions::default();
    let zero = |what| Some(TelemetryError::Zero { what });
    assert_eq!(segmented::equal(&x, 0, &options).err(), zero("segment"));
    assert_eq!(MatrixView::new(&x, 2, 0, 5).err(), zero("columns"));
    let view = MatrixView::contiguous(&x, 2, 5).unwrap();
    assert_eq!(segmented::column_chunks(&view, 0, &options).err(), zero("chunk"));
    let length =
        |what, actual, expected| Some(TelemetryError::WrongLength { what, actual, expected });
    assert_eq!(segmented::offsets(&x, &[], &options).err(), length("offsets", 0, 1));
    assert_eq!(MatrixView::new(&x, 3, 4, 5).err(), length("data", 10, 14));
    assert_eq!(MatrixView::contiguous(&x, 1, 9).err(), length("data", 10, 9));
    let bad = |index, value, low| Some(TelemetryError::BadOffset { index, value, low, high: 10 });
    assert_eq!(segmented::offsets(&x, &[0, 5, 4], &options).err(), bad(2, 4, 5));
    assert_eq!(segmented::offsets(&x, &[0, 11], &options).err(), bad(1, 11, 0));
    assert!(matches!(MatrixView::new(&x, 2, 5, 4), Err(TelemetryError::StrideTooShort { .. })));
    assert!(matches!(
        MatrixView::new(&x, usize::MAX, 2, usize::MAX),
        Err(TelemetryError::ShapeOverflow { .. })
    ));
    let wide = MatrixView::contiguous(&x, 1, 10).unwrap();
    assert!(matches!(
        columns::products(&view, &wide, &options),
        Err(TelemetryError::ShapeMismatch { .. })
    ));
}

#[test]
fn nothing_gives_none() {
    let options = ReductionOptions::default();
    assert_eq!(reduce::summary::<f32>(&[], &options), None);
    assert_eq!(reduce::statistics::<f32>(&[], &options), None);
    assert_eq!(segmented::equal::<f32>(&[], 5, &options).unwrap(), []);
    assert_eq!(segmented::offsets::<f32>(&[], &[0, 0], &options).unwrap(), [ChunkStats::EMPTY]);
    let empty = MatrixView::<f32>::contiguous(&[], 0, 3).unwrap();
    assert_eq!(columns::sums(&empty, &options), [None; 3]);
    assert_eq!(columns::extrema(&empty, &options), [None; 3]);
    for strategy in STRATEGIES {
        let options = self::options(strategy, NanPolicy::Propagate);
        let stats = segmented::column_chunks(&empty, 2, &options).unwrap();
        assert_eq!(stats, [ChunkStats::EMPTY; 2]);
    }
    let nan = [f32::NAN; 3];
    let ignoring = self::options(ReductionStrategy::Hierarchical, NanPolicy::Ignore);
    assert_eq!(reduce::summary(&nan, &ignoring), None);
    let column = MatrixView::contiguous(&nan, 3, 1).unwrap();
    assert_eq!(columns::sums(&column, &ignoring), [None]);
}
