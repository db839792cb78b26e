//! A thread's running statistics against the oracle's two passes in f64: in blocks of 1 to 64, over every order of
//! values that could lead the pivot astray, and over values whose squares leave f32.

use kasmina_oracle::telemetry::{GradientStatistics, Statistics};
use kasmina_telemetry::{ChunkStats, GradientStats};
use proptest::prelude::*;

use crate::shim::{edges, shim, value};

/// 13 divides nothing: its ends are ragged.
const BLOCKS: [u32; 7] = [1, 4, 8, 13, 16, 32, 64];
const DEAD: f32 = 1e-8;

/// The contract is 1e-5; measured 2.4e-6 (`a_hostile_order_of_values`).
const VARIANCE: f64 = 4e-6;
/// Of σ; measured 3.7e-7. On top of it, what f64 itself cannot hold of a large mean.
const MEAN: f64 = 1e-6;

/// The statistics, and how many elements went the slow way.
fn run(block: u32, x: &[f32]) -> (ChunkStats, u64) {
    let mut stats = ChunkStats::EMPTY;
    // SAFETY: x, and a single record.
    let slow = unsafe { (shim().run_chunk)(block, x.as_ptr(), x.len(), DEAD, &raw mut stats) };
    (stats, slow)
}

fn run_gradient(block: u32, x: &[f32]) -> (GradientStats, u64) {
    let mut stats = GradientStats::EMPTY;
    // SAFETY: x, and a single record.
    let slow = unsafe { (shim().run_gradient)(block, x.as_ptr(), x.len(), &raw mut stats) };
    (stats, slow)
}

fn relative(found: f64, expected: f64) -> f64 {
    if found == expected { 0.0 } else { (found - expected).abs() / expected.abs() }
}

/// Checks every number; answers the worst relative error of the variance and the worst error of the mean in σ.
fn check(about: &str, x: &[f32]) -> (f64, f64) {
    let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let expected = Statistics::of(&wide, DEAD.into());
    let (mut worst, mut worst_mean) = (0.0f64, 0.0f64);
    for block in BLOCKS {
        let about = format!("{about}, {} elements in blocks of {block}", x.len());
        let (found, _) = run(block, x);
        let counts = (found.n, found.dead, found.nonfinite);
        assert_eq!(counts, (expected.n, expected.dead, expected.nonfinite), "{about}");
        let (gradient, _) = run_gradient(block, x);
        assert_eq!((gradient.n, gradient.nonfinite), (expected.n, expected.nonfinite), "{about}");
        let Some(moments) = expected.moments else {
            assert_eq!((found.min(), found.max(), found.variance()), (None, None, None));
            assert_eq!((gradient.norm(), gradient.max_abs()), (None, None));
            continue;
        };
        assert_eq!(f64::from(found.min), moments.min, "{about}");
        assert_eq!(f64::from(found.max), moments.max, "{about}");
        assert!(
            found.min.to_bits() != (-0.0f32).to_bits()
                && found.max.to_bits() != (-0.0f32).to_bits()
        );
        let want = GradientStatistics::of(&wide).expect("there are finite elements");
        assert_eq!(gradient.max_abs().map(f64::from), Some(want.max_abs), "{about}");
        let norm = gradient.norm().expect("there are finite elements");
        assert!(relative(norm, want.norm) <= VARIANCE, "{about}: norm {norm} for {}", want.norm);
        for (variance, mean) in
            [(found.variance(), found.mean), (gradient.variance(), gradient.mean)]
        {
            let variance = variance.expect("there are finite elements");
            let error = relative(variance, moments.variance);
            assert!(error <= VARIANCE, "{about}: variance {variance:e} for {:e}", moments.variance);
            let sigma = moments.variance.sqrt();
            let off = (mean - moments.mean).abs();
            assert!(
                off <= MEAN * sigma + 1e-14 * moments.mean.abs(),
                "{about}: mean {mean:e} for {:e} with sigma {sigma:e}",
                moments.mean
            );
            worst = worst.max(error);
            if sigma > 1e-9 * moments.mean.abs() {
                worst_mean = worst_mean.max(off / sigma);
            }
        }
    }
    (worst, worst_mean)
}

/// Numbers that a seed fixes.
struct Noise(u64);

impl Noise {
    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        // SplitMix64 (Steele, Lea and Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }
}

/// Orders of values, by name: `n` of them at a scale.
const ORDERS: [&str; 16] = [
    "normal far from zero",
    "normal",
    "outlier, then constant",
    "outlier, then normal",
    "zeros, then constant",
    "zeros, then far",
    "two values in turn",
    "two values in runs",
    "ramp",
    "growth",
    "walk",
    "relu",
    "cauchy",
    "last bits",
    "rare others",
    "constant",
];

fn ordered(order: usize, n: usize, noise: &mut Noise) -> Vec<f32> {
    let (a, b) = (0.1 + noise.uniform(), 0.1 + 8.0 * noise.uniform());
    let split = noise.below(n);
    let length = 1 + noise.below(300);
    let mut walk = 0.0;
    (0..n)
        .map(|i| match order {
            0 => 1e4 * b + b * noise.normal(),
            1 => noise.normal(),
            2 => {
                if i == 0 {
                    a
                } else {
                    b
                }
            }
            3 => {
                if i == 0 {
                    1e4 * b
                } else {
                    noise.normal()
                }
            }
            4 => {
                if i < split {
                    0.0
                } else {
                    b
                }
            }
            5 => {
                if i < split {
                    0.0
                } else {
                    1e4 * b + noise.normal()
                }
            }
            6 => {
                if i % 2 == 0 {
                    a
                } else {
                    -b
                }
            }
            7 => {
                if (i / length).is_multiple_of(2) {
                    a
                } else {
                    -b
                }
            }
            8 => a * i as f64,
            9 => (30.0 * i as f64 / n as f64).exp(),
            10 => {
                walk += noise.normal();
                walk
            }
            11 => noise.normal().max(0.0),
            12 => noise.normal() / noise.normal(),
            13 => 1e4 + noise.below(3) as f64 * 0.000_976_562_5,
            14 => {
                if i % length == 0 {
                    a
                } else {
                    b
                }
            }
            _ => b,
        } as f32)
        .collect()
}

#[test]
fn a_hostile_order_of_values() {
    let (mut worst, mut worst_mean) = (0.0f64, 0.0f64);
    for (order, name) in ORDERS.iter().enumerate() {
        for round in 0..24u64 {
            let mut noise = Noise(round << 8 | order as u64);
            let n = match round {
                0 => 100_000,
                1..8 => 1 + noise.below(3000),
                _ => 2 + noise.below(200),
            };
            let (variance, mean) = check(name, &ordered(order, n, &mut noise));
            (worst, worst_mean) = (worst.max(variance), worst_mean.max(mean));
        }
    }
    println!("worst error of the variance {worst:.1e}, of the mean {worst_mean:.1e} σ");
}

#[test]
fn scales_whose_squares_leave_f32() {
    for exponent in [-44, -40, -38, -30, -25, -20, -19, -18, -15, 10, 14, 15, 16, 18, 20, 30, 37] {
        for order in [0usize, 1, 2, 6, 11, 14, 15] {
            let mut noise = Noise(exponent as u64);
            let values = ordered(order, 1000, &mut noise);
            let scale = 10f64.powi(exponent);
            // Kept inside f32: the order far from zero reaches 1e5.
            let x: Vec<f32> =
                values.iter().map(|v| (f64::from(*v) * scale).clamp(-3e38, 3e38) as f32).collect();
            check(&format!("{} times 1e{exponent}", ORDERS[order]), &x);
        }
    }
    check("the largest", &[f32::MAX, -f32::MAX, f32::MAX, f32::MAX, 1.0]);
    check("subnormals", &[f32::from_bits(1), f32::from_bits(3), -f32::from_bits(9), 0.0]);
    let tiny = (0..64).map(|i| if i % 2 == 0 { 1e-30f32 } else { -1e-30 });
    check("symmetric and tiny", &tiny.clone().collect::<Vec<_>>());
    let zeros_first: Vec<f32> = std::iter::repeat_n(0.0, 64).chain(tiny).collect();
    check("dead, then tiny and symmetric", &zeros_first);
}

#[test]
fn damaged_values_anywhere() {
    let mut noise = Noise(5);
    for every in [1, 2, 7, 40, 300] {
        let mut x = ordered(0, 2000, &mut noise);
        for (i, x) in x.iter_mut().enumerate().filter(|(i, _)| i % every == every / 2) {
            *x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38, -0.0][i / every % 5];
        }
        check("damaged", &x);
    }
    check("nothing finite", &[f32::NAN; 70]);
    check("nothing", &[]);
    check("edges", &edges());
    check("zeros of both signs", &[-0.0; 20]);
}

/// The slow way is for damaged data: ordinary data must not find it often, or a kernel would crawl.
#[test]
fn ordinary_data_goes_the_fast_way() {
    for block in [8, 16, 32, 64] {
        let (mut slow, mut all) = (0, 0);
        for seed in 0..400 {
            let mut noise = Noise(seed);
            for order in [0usize, 1, 11] {
                let x = ordered(order, block as usize * 16, &mut noise);
                slow += run(block, &x).1 + run_gradient(block, &x).1;
                all += 2 * x.len() as u64;
            }
        }
        // One first block in 200 or so, of 16.
        assert!(slow as f64 <= 0.004 * all as f64, "{slow} of {all} in blocks of {block}");
    }
    for order in [4usize, 6, 7, 13, 15] {
        let x = ordered(order, 4096, &mut Noise(9));
        assert_eq!(run(32, &x).1 + run_gradient(32, &x).1, 0, "{}", ORDERS[order]);
    }
    let tiny: Vec<f32> = ordered(1, 4096, &mut Noise(9)).iter().map(|x| x * 1e-17).collect();
    assert_eq!(run_gradient(32, &tiny).1, 0, "gradients of 1e-17");
}

#[test]
fn constants_have_no_variance_at_all() {
    for constant in [0.0, 0.1, -7.3e4, 1e-20, 1e20, f32::MAX, f32::from_bits(1)] {
        for block in BLOCKS {
            let (stats, _) = run(block, &[constant; 777]);
            assert_eq!(stats.variance(), Some(0.0), "{constant:e}");
            assert_eq!(stats.mean, f64::from(constant));
            assert_eq!(run_gradient(block, &[constant; 777]).0.variance(), Some(0.0));
        }
    }
}

proptest! {
    #[test]
    fn any_values_in_any_order(x in prop::collection::vec(value(), 0..300)) {
        check("any", &x);
    }

    #[test]
    fn any_ordinary_data(
        order in 0..ORDERS.len(),
        n in 1usize..600,
        seed in any::<u64>(),
        scale in -12i32..12,
    ) {
        let x = ordered(order, n, &mut Noise(seed));
        let scaled: Vec<f32> = x.iter().map(|x| x * 10f32.powi(scale)).collect();
        check(ORDERS[order], &scaled);
    }

    /// A kernel adds elements one by one where a block takes from several packets.
    #[test]
    fn blocks_may_be_added_element_by_element(
        x in prop::collection::vec(-3.0f32..3.0, 1..33),
        far in prop_oneof![Just(0.0f32), Just(1e4)],
    ) {
        let x: Vec<f32> = x.iter().map(|x| x + far).collect();
        let mut stats = ChunkStats::EMPTY;
        // SAFETY: x, and a single record.
        let accepted = unsafe { (shim().run_loose)(x.as_ptr(), x.len(), DEAD, &raw mut stats) };
        if accepted != 0 {
            let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let expected = Statistics::of(&wide, DEAD.into());
            let moments = expected.moments.expect("finite values");
            prop_assert_eq!((stats.n, stats.dead), (expected.n, expected.dead));
            prop_assert_eq!((f64::from(stats.min), f64::from(stats.max)), (moments.min, moments.max));
            let error = relative(stats.m2 / stats.n as f64, moments.variance);
            prop_assert!(error <= 1e-5 || moments.variance < 1e-20, "{error:e}");
        }
    }
}
