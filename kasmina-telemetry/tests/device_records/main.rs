//! The records that kernels merge, tested without a GPU: `kernels/reduce_records.cuh` compiles for the host as well.
//!
//! The shim is compiled when a test first asks, so that building the crate needs no C++ compiler. `-ffp-contract=off`: merging
//! gives the bits of the Rust only where nothing is fused.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use kasmina_telemetry::{ChunkStats, Moments};
use proptest::prelude::*;

/// `kasmina::reduce::Extrema<float>`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Extrema {
    low: f32,
    high: f32,
    low_at: u64,
    high_at: u64,
    nan_at: u64,
    nans: u64,
}

const NOWHERE: u64 = u64::MAX;

type MergeStatistics = unsafe extern "C" fn(*mut ChunkStats, *const ChunkStats);
type StatisticsAbout = unsafe extern "C" fn(f64, f64, f64, u64, f32, f32, *mut ChunkStats);
type NeutralStatistics = unsafe extern "C" fn(*mut ChunkStats);
type MergeIntegerSums = unsafe extern "C" fn(*mut [u64; 2], *const [u64; 2]);
type ExactSum = unsafe extern "C" fn(*const f64, u64) -> f64;
type MergeExtrema = unsafe extern "C" fn(*mut Extrema, *const Extrema);

/// The functions of `shim.cpp`.
struct Shim {
    merge_statistics: MergeStatistics,
    statistics_about: StatisticsAbout,
    neutral_statistics: NeutralStatistics,
    merge_integer_sums: MergeIntegerSums,
    merge_extrema: MergeExtrema,
    exact_sum: ExactSum,
}

fn shim() -> &'static Shim {
    static SHIM: OnceLock<Result<Shim, String>> = OnceLock::new();
    SHIM.get_or_init(compile).as_ref().unwrap_or_else(|message| panic!("{message}"))
}

fn compile() -> Result<Shim, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let library = folder.path().join("libdevice_records.so");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = compiler()
        .args([
            "-std=c++17",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-ffp-contract=off",
            "-I",
        ])
        .arg(here.join("kernels"))
        .arg("-o")
        .arg(&library)
        .arg(here.join("tests/device_records/shim.cpp"))
        .output()
        .map_err(|error| format!("the C++ compiler does not run: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let path = CString::new(library.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the library has no initialisers, and stays open for good.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(format!("{} does not open", library.display()));
    }
    let find = |name: &str| {
        let name = CString::new(name).map_err(|error| error.to_string())?;
        // SAFETY: the handle is open.
        let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
        if found.is_null() { Err(format!("shim.cpp has no {name:?}")) } else { Ok(found) }
    };
    type Symbol = *mut libc::c_void;
    let (merge_statistics, statistics_about) =
        (find("merge_statistics")?, find("statistics_about")?);
    let neutral_statistics = find("neutral_statistics")?;
    let (merge_integer_sums, merge_extrema) = (find("merge_integer_sums")?, find("merge_extrema")?);
    let exact_sum = find("exact_sum")?;
    // SAFETY: the types above repeat the declarations of shim.cpp.
    unsafe {
        Ok(Shim {
            merge_statistics: std::mem::transmute::<Symbol, MergeStatistics>(merge_statistics),
            statistics_about: std::mem::transmute::<Symbol, StatisticsAbout>(statistics_about),
            neutral_statistics: std::mem::transmute::<Symbol, NeutralStatistics>(
                neutral_statistics,
            ),
            merge_integer_sums: std::mem::transmute::<Symbol, MergeIntegerSums>(merge_integer_sums),
            merge_extrema: std::mem::transmute::<Symbol, MergeExtrema>(merge_extrema),
            exact_sum: std::mem::transmute::<Symbol, ExactSum>(exact_sum),
        })
    }
}

/// The C++ compiler that the `cc` crate finds for this machine.
fn compiler() -> Command {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cc::Build::new()
        .cpp(true)
        .cargo_metadata(false)
        .opt_level(2)
        .target(&target)
        .host(&target)
        .get_compiler()
        .to_command()
}

fn stats_of(values: &[f32]) -> ChunkStats {
    let mut stats = ChunkStats::EMPTY;
    values.iter().for_each(|&x| stats.push(x, 1e-8));
    stats
}

fn values() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        4 => -3.0_f32..3.0,
        2 => 9_999.0_f32..10_001.0,
        1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, 0.0, -0.0, 1e-45, f32::MAX]),
    ];
    proptest::collection::vec(value, 0..40)
}

fn extrema() -> impl Strategy<Value = Extrema> {
    let at = || prop_oneof![Just(NOWHERE), 0u64..6];
    (-2i8..3, -2i8..3, at(), at(), 0u64..3).prop_map(|(low, high, at, nan_at, nans)| Extrema {
        low: low.into(),
        high: high.into(),
        low_at: at,
        high_at: at,
        nan_at,
        nans,
    })
}

/// The first of the least and of the greatest: value, then place.
fn merged(a: &Extrema, b: &Extrema) -> Extrema {
    let places = |one: &Extrema| (one.low_at != NOWHERE).then_some(*one);
    let all = || [a, b].into_iter().filter_map(places);
    let low = all().min_by(|a, b| a.low.total_cmp(&b.low).then(a.low_at.cmp(&b.low_at)));
    let high = all().min_by(|a, b| b.high.total_cmp(&a.high).then(a.high_at.cmp(&b.high_at)));
    Extrema {
        low: low.map_or(a.low, |x| x.low),
        high: high.map_or(a.high, |x| x.high),
        low_at: low.map_or(NOWHERE, |x| x.low_at),
        high_at: high.map_or(NOWHERE, |x| x.high_at),
        nan_at: a.nan_at.min(b.nan_at),
        nans: a.nans + b.nans,
    }
}

fn exact_sum(values: &[f64]) -> f64 {
    // SAFETY: so many values, which the shim reads.
    unsafe { (shim().exact_sum)(values.as_ptr(), values.len() as u64) }
}

/// Σ of finite doubles rounded once, by arithmetic on whole numbers: each is mantissa · 2^place with the least place of all counted as 0.
/// `None` where they lie too far apart for 128 bits.
fn rounded_sum(values: &[f64]) -> Option<f64> {
    let parts = values.iter().filter(|x| **x != 0.0).map(|x| {
        let bits = x.to_bits();
        let biased = (bits >> 52 & 0x7ff) as i32;
        let fraction = (bits & ((1 << 52) - 1)) as i128;
        let mantissa = if biased == 0 { fraction } else { fraction | 1 << 52 };
        (if *x < 0.0 { -mantissa } else { mantissa }, biased.max(1) - 1075)
    });
    let least = parts.clone().map(|(_, place)| place).min().unwrap_or(0);
    let mut sum = 0_i128;
    for (mantissa, place) in parts {
        if place - least > 60 {
            return None;
        }
        sum += mantissa << (place - least);
    }
    // To nearest even by hand: 64 bits with all that was cut off in the last.
    let magnitude = sum.unsigned_abs();
    let cut = (128 - magnitude.leading_zeros()).saturating_sub(64);
    let sticky = u64::from(magnitude & ((1 << cut) - 1) != 0);
    let wide = ((magnitude >> cut) as u64 | sticky) as f64;
    // In two steps, since 2^-1074 alone is a denormal; both are exact where the result is.
    let exponent = least + cut as i32;
    let scaled = wide * 2_f64.powi(exponent / 2) * 2_f64.powi(exponent - exponent / 2);
    Some(if sum < 0 { -scaled } else { scaled })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_exact_sum_is_rounded_once(
        place in -1020_i32..960,
        values in proptest::collection::vec((any::<i64>(), 0_i32..8), 0..200),
    ) {
        let scale = |(mantissa, shift): &(i64, i32)| {
            (mantissa >> 12) as f64 * 2_f64.powi(place / 2) * 2_f64.powi(place - place / 2 - shift)
        };
        let values: Vec<f64> = values.iter().map(scale).collect();
        let got = exact_sum(&values);
        if let Some(want) = rounded_sum(&values) {
            prop_assert_eq!(got.to_bits(), (want + 0.0).to_bits(), "{:e} instead of {:e}", got, want);
        }
        let mut backwards = values;
        backwards.reverse();
        prop_assert_eq!(exact_sum(&backwards).to_bits(), got.to_bits());
    }

    #[test]
    fn an_exact_sum_loses_nothing_to_what_cancels(x in any::<f64>(), others in proptest::collection::vec(any::<f64>(), 0..40)) {
        // Whatever the doubles, in whatever order: each with its opposite, and x.
        let finite: Vec<f64> = others.into_iter().filter(|x| x.is_finite()).collect();
        let all: Vec<f64> = finite.iter().copied().chain([x]).chain(finite.iter().rev().map(|x| -x)).collect();
        let got = exact_sum(&all);
        prop_assert!(got == x || x.is_nan() && got.is_nan(), "{:e} instead of {:e}", got, x);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn statistics_merge_to_the_bits_of_chunk_stats(a in values(), b in values()) {
        let (a, b) = (stats_of(&a), stats_of(&b));
        let mut want = a;
        want.merge(&b);
        let mut got = a;
        // SAFETY: two records of the type that the shim takes.
        unsafe { (shim().merge_statistics)(&mut got, &b) };
        prop_assert_eq!(bytemuck::bytes_of(&got), bytemuck::bytes_of(&want));
    }

    #[test]
    fn sums_about_a_pivot_are_statistics(values in proptest::collection::vec(9_990.0_f32..10_010.0, 1..60)) {
        let pivot = f64::from(values[0]);
        let shifted = || values.iter().map(|&x| f64::from(x) - pivot);
        let want = Moments::from_values(values.iter().map(|&x| f64::from(x)));
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut got = ChunkStats::EMPTY;
        let (sum, squares) = (shifted().sum(), shifted().map(|d| d * d).sum());
        // SAFETY: a record of the type that the shim writes.
        unsafe { (shim().statistics_about)(pivot, sum, squares, values.len() as u64, low, high, &mut got) };
        prop_assert_eq!((got.n, got.min, got.max), (want.n, low, high));
        prop_assert!((got.mean - want.mean).abs() <= 1e-11);
        prop_assert!((got.m2 - want.m2).abs() <= 1e-9 * want.m2 + 1e-18, "{} instead of {}", got.m2, want.m2);
    }

    #[test]
    fn integer_sums_are_128_bits(a in any::<i128>(), b in any::<i128>()) {
        let halves = |x: i128| [x as u64, (x >> 64) as u64];
        let mut got = halves(a);
        // SAFETY: two records of the type that the shim takes.
        unsafe { (shim().merge_integer_sums)(&mut got, &halves(b)) };
        prop_assert_eq!(got, halves(a.wrapping_add(b)));
    }

    #[test]
    fn extremes_keep_the_first_place(a in extrema(), b in extrema()) {
        let mut got = a;
        // SAFETY: two records of the type that the shim takes.
        unsafe { (shim().merge_extrema)(&mut got, &b) };
        prop_assert_eq!(got, merged(&a, &b));
    }
}

#[test]
fn neutral_statistics_are_the_empty_record() {
    let mut got = stats_of(&[1.0, 2.0]);
    // SAFETY: a record of the type that the shim writes.
    unsafe { (shim().neutral_statistics)(&mut got) };
    assert_eq!(bytemuck::bytes_of(&got), bytemuck::bytes_of(&ChunkStats::EMPTY));
}

#[test]
fn exact_sums_at_the_ends_of_what_a_double_holds() {
    let (tiny, large) = (f64::from_bits(1), f64::MAX);
    assert_eq!(exact_sum(&[]).to_bits(), 0.0_f64.to_bits());
    assert_eq!(exact_sum(&[-0.0, -0.0]).to_bits(), 0.0_f64.to_bits());
    assert_eq!(exact_sum(&[tiny, tiny, -tiny]), tiny);
    assert_eq!(exact_sum(&[large, large, -large]), large, "in between it is no double");
    assert_eq!(exact_sum(&[large, large]), f64::INFINITY);
    assert_eq!(exact_sum(&[-large, -large]), f64::NEG_INFINITY);
    assert_eq!(exact_sum(&[1.0, tiny]), 1.0);
    // Half a unit in the last place goes to even, and any more of it up.
    let half = f64::EPSILON / 2.0;
    assert_eq!(exact_sum(&[1.0, half]), 1.0);
    assert_eq!(exact_sum(&[1.0 + f64::EPSILON, half]), 1.0 + 2.0 * f64::EPSILON);
    assert_eq!(exact_sum(&[1.0, half, tiny]), 1.0 + f64::EPSILON);
    assert_eq!(exact_sum(&[-1.0, -half, -tiny]), -1.0 - f64::EPSILON);
    assert_eq!(exact_sum(&[f64::INFINITY, 1.0, -large]), f64::INFINITY);
    assert!(exact_sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    assert!(exact_sum(&[f64::NAN, f64::INFINITY]).is_nan());
}
