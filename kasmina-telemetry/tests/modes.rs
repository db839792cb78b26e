//! Sampling, scopes and their serial forms; the histogram.

use std::num::NonZeroU32;

use kasmina_telemetry::{Histogram, TelemetryError, TelemetryMode, TelemetryScope};
use proptest::prelude::*;

proptest! {
    #[test]
    fn sampling_keeps_to_its_steps_and_fraction(every in 1_u32..50, fraction in 0.01_f32..=1.0, start in 0_u64..1 << 40) {
        let mode = TelemetryMode::sampling(every, fraction).unwrap();
        let step = start * u64::from(every);
        let seeds = 20_000_u32;
        let taken = (0..seeds).filter(|&seed| mode.samples(step, seed)).count() as f64;
        let expected = f64::from(fraction) * f64::from(seeds);
        // Six standard deviations of a binomial.
        prop_assert!((taken - expected).abs() <= 6.0 * (expected * (1.0 - f64::from(fraction))).sqrt() + 1.0);
        prop_assert!(mode.samples_step(step));
        if every > 1 {
            prop_assert!(!mode.samples_step(step + 1));
            prop_assert!((0..100).all(|seed| !mode.samples(step + 1, seed)));
        }
        let json = serde_json::to_string(&mode).unwrap();
        prop_assert_eq!(serde_json::from_str::<TelemetryMode>(&json).unwrap(), mode);
    }

    /// Over many measured steps each seed has its turn, about as often as every other.
    #[test]
    fn sampling_rotates(seed in any::<u32>()) {
        let mode = TelemetryMode::sampling(4, 0.25).unwrap();
        let taken = (0..4000_u64).filter(|step| mode.samples(step * 4, seed)).count();
        prop_assert!((830..1170).contains(&taken), "{taken} of 1000 expected");
    }

    #[test]
    fn histogram_counts_every_value_in_its_bin(x in proptest::collection::vec(any::<f32>(), 0..200), cut in any::<prop::sample::Index>()) {
        let mut whole = Histogram::EMPTY;
        whole.push_slice(&x);
        let finite: Vec<f32> = x.iter().copied().filter(|x| x.is_finite()).collect();
        prop_assert_eq!(whole.count(), finite.len() as u64);
        prop_assert_eq!(whole.nonfinite(), (x.len() - finite.len()) as u64);
        for bin in whole.bins() {
            let inside = |x: f32| if bin.high <= 0.0 {
                bin.low < x && x <= bin.high
            } else if bin.low >= 0.0 {
                bin.low <= x && x < bin.high
            } else {
                bin.low < x && x < bin.high
            };
            prop_assert_eq!(bin.count, finite.iter().filter(|&&x| inside(x)).count() as u64);
        }
        let at = cut.index(x.len() + 1);
        let (mut left, mut right) = (Histogram::EMPTY, Histogram::EMPTY);
        left.push_slice(&x[..at]);
        right.push_slice(&x[at..]);
        left.merge(&right);
        prop_assert_eq!(left, whole);
    }

    #[test]
    fn quantiles_lie_in_the_right_octave(x in proptest::collection::vec(-1e6_f32..1e6, 1..300), q in 0.0_f64..=1.0) {
        let mut histogram = Histogram::EMPTY;
        histogram.push_slice(&x);
        let mut sorted: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        sorted.sort_by(f64::total_cmp);
        let got = histogram.quantile(q).unwrap();
        // The value whose bin the estimate must share.
        let rank = q * (sorted.len() - 1) as f64;
        let want = sorted[rank.floor() as usize];
        let bound = want.abs().max(2.0_f64.powi(-24));
        prop_assert!((got - want).abs() <= bound, "{got} for {want}");
        prop_assert!(got >= sorted[0] && got <= sorted[sorted.len() - 1]);
    }
}

#[test]
fn bins_rise_without_gaps() {
    let bins: Vec<_> = Histogram::EMPTY.bins().collect();
    assert_eq!(bins.len(), Histogram::BINS);
    assert!(bins.windows(2).all(|pair| pair[0].high == pair[1].low && pair[0].low < pair[1].low));
    assert_eq!(bins[0].low, f32::NEG_INFINITY);
    assert_eq!(bins[bins.len() - 1].high, f32::INFINITY);
}

#[test]
fn quantiles_of_nothing_and_of_nonsense_are_none() {
    assert_eq!(Histogram::EMPTY.quantile(0.5), None);
    let mut histogram = Histogram::EMPTY;
    histogram.push(2.5);
    assert_eq!(histogram.quantile(0.5), Some(2.5));
    for q in [-0.1, 1.1, f64::NAN] {
        assert_eq!(histogram.quantile(q), None);
    }
}

#[test]
fn bad_modes_are_refused() {
    assert_eq!(TelemetryMode::sampling(0, 0.5), Err(TelemetryError::Zero { what: "every" }));
    for fraction in [0.0, -0.5, 1.5, f32::NAN, f32::INFINITY] {
        let error = TelemetryMode::sampling(3, fraction);
        assert!(matches!(error, Err(TelemetryError::OutOfRange { what: "fraction", .. })));
        let unchecked = TelemetryMode::Sampling { every: NonZeroU32::MIN, fraction };
        assert!(unchecked.validated().is_err());
    }
    for json in [
        r#"{"sampling": {"every": 0, "fraction": 0.5}}"#,
        r#"{"sampling": {"every": 2, "fraction": 2.0}}"#,
        r#""verbose""#,
    ] {
        assert!(serde_json::from_str::<TelemetryMode>(json).is_err(), "{json}");
    }
    assert_eq!(serde_json::from_str::<TelemetryMode>(r#""debug""#).unwrap(), TelemetryMode::Debug);
}

#[test]
fn production_and_debug_measure_everything() {
    for mode in [TelemetryMode::Production, TelemetryMode::Debug] {
        assert!((0..50).all(|step| mode.samples_step(step) && mode.samples(step, 7)));
    }
    assert!(TelemetryMode::sampling(1, 1.0).unwrap().samples(u64::MAX, u32::MAX));
}

#[test]
fn scopes_cover_what_they_say() {
    let table = [
        (TelemetryScope::All, true, true),
        (TelemetryScope::DormantOnly, true, false),
        (TelemetryScope::Off, false, false),
    ];
    for (scope, dormant, other) in table {
        assert_eq!((scope.covers(true), scope.covers(false)), (dormant, other));
        let json = serde_json::to_string(&scope).unwrap();
        assert_eq!(serde_json::from_str::<TelemetryScope>(&json).unwrap(), scope);
    }
}
