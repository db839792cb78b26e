//! The flat reductions of every element type on the CPU, against loops, and each by itself against all at once.

use half::{bf16, f16};
use kasmina_telemetry::{Comparison, Element, NanPolicy, ReductionOptions, reduce};
use proptest::prelude::*;

fn check<T: Element>(x: &[T], ignore: bool, near: impl Fn(T::Sum, T::Sum) -> bool) {
    let nan = if ignore { NanPolicy::Ignore } else { NanPolicy::Propagate };
    let options = ReductionOptions { nan, ..ReductionOptions::default() };
    let numbers: Vec<(usize, T)> =
        (0..).zip(x.iter().copied()).filter(|(_, x)| !x.is_nan()).collect();
    let got = reduce::summary(x, &options);
    match (x.iter().position(|x| x.is_nan()), got) {
        (Some(at), Some(got)) if !ignore => {
            assert!(got.min.is_nan() && got.max.is_nan() && got.sum_squares.is_nan());
            assert_eq!((got.arg_min, got.arg_max, got.count), (at, at, x.len() as u64));
        }
        (_, Some(got)) => {
            let sum = numbers.iter().fold(T::Sum::default(), |sum, x| T::add(sum, x.1.to_sum()));
            assert!(near(got.sum, sum), "{:?} instead of {sum:?}", got.sum);
            let least = numbers.iter().fold(numbers[0], |a, &b| if b.1 < a.1 { b } else { a });
            let most = numbers.iter().fold(numbers[0], |a, &b| if b.1 > a.1 { b } else { a });
            assert_eq!(
                (got.arg_min, got.min, got.arg_max, got.max),
                (least.0, least.1, most.0, most.1)
            );
            assert_eq!(got.count, numbers.len() as u64);
        }
        (_, None) => assert!(numbers.is_empty()),
    }
    one_by_one(x, &options);
    for &threshold in x.iter().take(3) {
        for comparison in [Comparison::Less, Comparison::NotEqual, Comparison::GreaterOrEqual] {
            let want = x.iter().filter(|&&x| comparison.holds(x, threshold)).count() as u64;
            assert_eq!(reduce::count(x, comparison, threshold), want);
        }
    }
    let stats = reduce::statistics(x, &options);
    assert_eq!(stats.is_some(), !x.is_empty());
    if let Some(stats) = stats {
        let finite: Vec<f64> = x.iter().map(|x| x.to_f64()).filter(|x| x.is_finite()).collect();
        assert_eq!(
            (stats.n, stats.nonfinite),
            (finite.len() as u64, (x.len() - finite.len()) as u64)
        );
        if let (Some(mean), Some(variance)) = (stats.mean(), stats.variance()) {
            let n = finite.len() as f64;
            let want = finite.iter().sum::<f64>() / n;
            let size = finite.iter().fold(0.0_f64, |a, x| a.max(x.abs()));
            assert!((mean - want).abs() <= 1e-9 * size, "{mean} instead of {want}");
            let want = finite.iter().map(|x| (x - want).powi(2)).sum::<f64>() / n;
            assert!(
                (variance - want).abs() <= 1e-9 * (want + size * size * 1e-6),
                "{variance} instead of {want}"
            );
        }
    }
}

/// What is found alone is what is found with the rest.
fn one_by_one<T: Element>(x: &[T], options: &ReductionOptions) {
    let all = reduce::summary(x, options);
    let same = |a: Option<T>, b: Option<T>| match (a, b) {
        (Some(a), Some(b)) => a == b || a.is_nan() && b.is_nan(),
        (a, b) => a.is_none() && b.is_none(),
    };
    let bounds = reduce::bounds(x, options);
    assert!(same(bounds.map(|b| b.0), all.map(|s| s.min)), "{bounds:?} beside {all:?}");
    assert!(same(bounds.map(|b| b.1), all.map(|s| s.max)), "{bounds:?} beside {all:?}");
    let sum = |sum: Option<T::Sum>| format!("{sum:?}");
    assert_eq!(sum(reduce::sum(x, options)), sum(all.map(|s| s.sum)));
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (a.abs() + b.abs() + 1e6) || a == b || a.is_nan() && b.is_nan()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn integers_are_summed_exactly(
        x in proptest::collection::vec(prop_oneof![4 => -9_i64..9, 1 => any::<i64>()], 0..300),
        ignore in any::<bool>(),
    ) {
        check(&x, ignore, |a, b| a == b);
        let narrow: Vec<i32> = x.iter().map(|&x| x as i32).collect();
        check(&narrow, ignore, |a, b| a == b);
        let positive: Vec<u32> = x.iter().map(|&x| x as u32).collect();
        check(&positive, ignore, |a, b| a == b);
    }

    #[test]
    fn floats_of_every_width_match_a_loop(
        x in proptest::collection::vec(
            prop_oneof![9 => -50.0..50.0_f64, 1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, -0.0, 0.0, 1e-40])],
            0..300,
        ),
        ignore in any::<bool>(),
    ) {
        check(&x, ignore, close);
        check(&x.iter().map(|&x| x as f32).collect::<Vec<_>>(), ignore, close);
        check(&x.iter().map(|&x| f16::from_f64(x)).collect::<Vec<_>>(), ignore, close);
        check(&x.iter().map(|&x| bf16::from_f64(x)).collect::<Vec<_>>(), ignore, close);
    }
}

/// Pieces come together in order, so the first of equal extremes is found.
#[test]
fn ties_across_pieces_go_to_the_first() {
    let mut x = vec![5_i32; 200_000];
    x[70_000] = -1;
    x[190_000] = -1;
    let summary = reduce::summary(&x, &ReductionOptions::default()).unwrap();
    assert_eq!((summary.arg_min, summary.arg_max, summary.sum), (70_000, 0, 5 * 199_998 - 2));
}
