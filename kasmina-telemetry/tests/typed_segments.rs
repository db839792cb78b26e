//! Segments and columns of every element type on the CPU: statistics against two passes, integers exactly, 16-bit floats to the bit as
//! the same numbers in f32.

use half::{bf16, f16};
use kasmina_telemetry::{
    ChunkStats, Element, ElementStats, MatrixView, NanPolicy, ReductionOptions, ReductionStrategy,
    columns, reduce, segmented,
};
use proptest::prelude::*;

const STRATEGIES: [ReductionStrategy; 3] =
    [ReductionStrategy::Hierarchical, ReductionStrategy::Atomic, ReductionStrategy::Direct];

/// Statistics of a segment, whatever their type.
trait Stats {
    fn wide(&self) -> ElementStats<f64>;
}

impl Stats for ChunkStats {
    fn wide(&self) -> ElementStats<f64> {
        let Self { n, dead, nonfinite, mean, m2, min, max } = *self;
        ElementStats { n, dead, nonfinite, mean, m2, min: min.into(), max: max.into() }
    }
}

macro_rules! wide {
    ($($value:ty),*) => {
        $(
            impl Stats for ElementStats<$value> {
                fn wide(&self) -> ElementStats<f64> {
                    let Self { n, dead, nonfinite, mean, m2, min, max } = *self;
                    ElementStats { n, dead, nonfinite, mean, m2, min: min as f64, max: max as f64 }
                }
            }
        )*
    };
}

wide!(f64, i32, u32, i64);

/// A segment's statistics against two passes in f64.
fn check_statistics<T: Element>(got: &ElementStats<f64>, x: &[T], epsilon: f32) {
    let finite: Vec<f64> = x.iter().map(|x| x.to_f64()).filter(|x| x.is_finite()).collect();
    let epsilon = if T::FLOAT { f64::from(epsilon) } else { 0.0 };
    let dead = finite.iter().filter(|x| x.abs() <= epsilon).count();
    let counts = (finite.len() as u64, dead as u64, (x.len() - finite.len()) as u64);
    assert_eq!((got.n, got.dead, got.nonfinite), counts);
    let Some(&first) = finite.first() else {
        assert_eq!((got.mean, got.m2), (0.0, 0.0));
        return;
    };
    assert_eq!(got.min, finite.iter().copied().fold(f64::INFINITY, f64::min));
    assert_eq!(got.max, finite.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    let n = finite.len() as f64;
    let mean = first + finite.iter().map(|x| x - first).sum::<f64>() / n;
    let m2: f64 = finite.iter().map(|x| (x - mean).powi(2)).sum();
    let size = got.min.abs().max(got.max.abs());
    assert!((got.mean - mean).abs() <= 1e-13 * size, "mean {} instead of {mean}", got.mean);
    let bound = 1e-9 * m2 + n * (1e-15 * size).powi(2);
    assert!((got.m2 - m2).abs() <= bound, "m2 {} instead of {m2}", got.m2);
}

/// Everything that is found of one segment.
type Found<T> = (<T as Element>::SegmentStatistics, Option<<T as Element>::Sum>, Option<(T, T)>);

fn equal<T: Element>(x: &[T], segment: usize, options: &ReductionOptions) -> Vec<Found<T>> {
    let stats = segmented::equal(x, segment, options).unwrap();
    let sums = segmented::equal_sums(x, segment, options).unwrap();
    let extrema = segmented::equal_extrema(x, segment, options).unwrap();
    assert_eq!((stats.len(), sums.len()), (x.len().div_ceil(segment), extrema.len()));
    stats.into_iter().zip(sums).zip(extrema).map(|((a, b), c)| (a, b, c)).collect()
}

fn offsets<T: Element>(x: &[T], cuts: &[usize], options: &ReductionOptions) -> Vec<Found<T>> {
    let stats = segmented::offsets(x, cuts, options).unwrap();
    let sums = segmented::offset_sums(x, cuts, options).unwrap();
    let extrema = segmented::offset_extrema(x, cuts, options).unwrap();
    assert_eq!((stats.len(), sums.len()), (cuts.len() - 1, extrema.len()));
    stats.into_iter().zip(sums).zip(extrema).map(|((a, b), c)| (a, b, c)).collect()
}

/// The bits of what was found: of finite numbers the shortest text that reads back as the same number, of zeros the sign.
fn bits<T: Element>(found: &[Found<T>]) -> Vec<String> {
    found.iter().map(|found| format!("{found:?}")).collect()
}

/// One segment against loops, its sum and extremes against the flat reductions of it alone.
fn check<T: Element<SegmentStatistics: Stats>>(
    (stats, sum, extrema): &Found<T>,
    x: &[T],
    options: &ReductionOptions,
) {
    check_statistics(&stats.wide(), x, options.dead_epsilon);
    assert_eq!(format!("{sum:?}"), format!("{:?}", reduce::sum(x, options)));
    assert_eq!(format!("{extrema:?}"), format!("{:?}", reduce::bounds(x, options)));
}

/// Equal segments and ones between offsets, by every strategy.
fn all_of<T: Element<SegmentStatistics: Stats>>(
    x: &[T],
    segment: usize,
    cuts: &[usize],
    nan: NanPolicy,
) {
    let even: Vec<usize> = (0..=x.len() / segment).map(|i| i * segment).collect();
    for strategy in STRATEGIES {
        let options = ReductionOptions { strategy, nan, dead_epsilon: 0.5 };
        let found = equal(x, segment, &options);
        for (found, x) in found.iter().zip(x.chunks(segment)) {
            check(found, x, &options);
        }
        let between = offsets(x, &even, &options);
        let cut = offsets(x, cuts, &options);
        for (found, ends) in cut.iter().zip(cuts.windows(2)) {
            check(found, &x[ends[0]..ends[1]], &options);
        }
        // Pieces of a long segment come together in any order.
        if strategy == ReductionStrategy::Atomic && x.len() > 1 << 16 {
            continue;
        }
        // Where a segment's ends come from changes no bit, and neither do its neighbours.
        assert_eq!(bits::<T>(&between), bits::<T>(&found)[..even.len() - 1]);
        for (found, ends) in cut.iter().zip(cuts.windows(2)) {
            let alone = offsets(&x[ends[0]..ends[1]], &[0, ends[1] - ends[0]], &options);
            assert_eq!(bits::<T>(&alone), bits::<T>(std::slice::from_ref(found)));
        }
    }
}

/// What is found of 16-bit floats, and of the same numbers as f32.
fn as_f32<T: Element<Value = f32, Sum = f64, SegmentStatistics = ChunkStats>>(
    x: &[T],
    segment: usize,
    nan: NanPolicy,
) {
    let wide: Vec<f32> = x.iter().map(|x| x.value()).collect();
    for strategy in [ReductionStrategy::Hierarchical, ReductionStrategy::Direct] {
        let options = ReductionOptions { strategy, nan, ..Default::default() };
        let text = |x: &dyn std::fmt::Debug| format!("{x:?}");
        let (got, want) = (equal(x, segment, &options), equal(&wide, segment, &options));
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(text(&got.0), text(&want.0));
            assert_eq!(text(&got.1), text(&want.1));
            let values = got.2.map(|(low, high)| (low.value(), high.value()));
            assert_eq!(text(&values), text(&want.2));
        }
        let (rows, columns) = (x.len() / segment, segment);
        let used = rows * columns;
        let view = MatrixView::contiguous(&x[..used], rows, columns).unwrap();
        let wide = MatrixView::contiguous(&wide[..used], rows, columns).unwrap();
        assert_eq!(text(&columns::sums(&view, &options)), text(&columns::sums(&wide, &options)));
        assert_eq!(
            text(&columns::extrema(&view, &options)),
            text(&columns::extrema(&wide, &options))
        );
        assert_eq!(
            text(&columns::products(&view, &view, &options).unwrap()),
            text(&columns::products(&wide, &wide, &options).unwrap())
        );
        for chunk in [1, 3, 16, 40] {
            assert_eq!(
                text(&segmented::column_chunks(&view, chunk, &options).unwrap()),
                text(&segmented::column_chunks(&wide, chunk, &options).unwrap())
            );
            assert_eq!(
                text(&segmented::column_chunk_gradients(&view, chunk, &options).unwrap()),
                text(&segmented::column_chunk_gradients(&wide, chunk, &options).unwrap())
            );
        }
    }
}

/// Sorted places in so many elements, neighbours often alike in distance.
fn cuts(n: usize) -> impl Strategy<Value = Vec<usize>> {
    let loose = proptest::collection::vec(0..=n, 1..40);
    let tight = (0_usize..20, 1_usize..60)
        .prop_map(move |(step, count)| (0..=count).map(|i| (i * step).min(n)).collect());
    prop_oneof![loose, tight].prop_map(|mut cuts: Vec<usize>| {
        cuts.sort_unstable();
        cuts
    })
}

fn nan() -> impl Strategy<Value = NanPolicy> {
    prop_oneof![Just(NanPolicy::Propagate), Just(NanPolicy::Ignore)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn segments_of_integers_are_exact(
        (x, cuts) in (0_usize..700).prop_flat_map(|n| {
            (proptest::collection::vec(prop_oneof![4 => -9_i64..9, 1 => any::<i64>()], n), cuts(n))
        }),
        segment in prop_oneof![3 => 1_usize..20, 1 => 20_usize..200],
        nan in nan(),
    ) {
        all_of(&x, segment, &cuts, nan);
        all_of(&x.iter().map(|&x| x as i32).collect::<Vec<_>>(), segment, &cuts, nan);
        all_of(&x.iter().map(|&x| x as u32).collect::<Vec<_>>(), segment, &cuts, nan);
        let sums = segmented::equal_sums(&x, segment, &ReductionOptions::default()).unwrap();
        for (sum, x) in sums.iter().zip(x.chunks(segment)) {
            prop_assert_eq!(*sum, Some(x.iter().map(|&x| i128::from(x)).sum()));
        }
    }

    #[test]
    fn segments_of_floats_match_loops(
        (x, cuts) in (0_usize..700).prop_flat_map(|n| {
            let special = prop::sample::select(vec![f64::NAN, f64::INFINITY, -0.0, 0.0, 1e-40]);
            (proptest::collection::vec(prop_oneof![9 => -50.0..50.0_f64, 3 => 9.99e3..1.001e4, 1 => special], n), cuts(n))
        }),
        segment in prop_oneof![3 => 1_usize..20, 1 => 20_usize..200],
        nan in nan(),
    ) {
        let half: Vec<f16> = x.iter().map(|&x| f16::from_f64(x)).collect();
        let brain: Vec<bf16> = x.iter().map(|&x| bf16::from_f64(x)).collect();
        all_of(&x, segment, &cuts, nan);
        all_of(&x.iter().map(|&x| x as f32).collect::<Vec<_>>(), segment, &cuts, nan);
        all_of(&half, segment, &cuts, nan);
        all_of(&brain, segment, &cuts, nan);
        as_f32(&half, segment, nan);
        as_f32(&brain, segment, nan);
    }
}

/// Segments longer than a piece of work among short ones. Their sums are exact in any order.
#[test]
fn long_segments_are_brought_together() {
    let n = 200_000;
    let cuts = [0, 5, 70_000, 70_000, 199_990, n];
    let whole = |i: usize| (i * 2_654_435_761 % 20_011) as i64 - 10_000;
    let x: Vec<i64> = (0..n).map(whole).collect();
    all_of(&x, 150_000, &cuts, NanPolicy::Propagate);
    all_of(&x.iter().map(|&x| x as i32).collect::<Vec<_>>(), 150_000, &cuts, NanPolicy::Propagate);
    all_of(
        &x.iter().map(|&x| x as f64 / 8.0 + 1e8).collect::<Vec<_>>(),
        150_000,
        &cuts,
        NanPolicy::Ignore,
    );
    let sums = segmented::offset_sums(&x, &cuts, &ReductionOptions::default()).unwrap();
    let exact = |ends: &[usize]| x[ends[0]..ends[1]].iter().map(|&x| i128::from(x)).sum();
    let want: Vec<Option<i128>> =
        cuts.windows(2).map(|ends| (ends[0] < ends[1]).then(|| exact(ends))).collect();
    assert_eq!(sums, want);
}
