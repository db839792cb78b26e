//! Activations and their derivatives against the oracle's f64, over a dense sweep and the edges of f32.

use kasmina_oracle::Activation;

use crate::shim::{edges, shim};

fn run(code: u32, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut value, mut slope) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    // SAFETY: all arrays are as long as x.
    unsafe {
        (shim().activate_all)(code, x.as_ptr(), value.as_mut_ptr(), slope.as_mut_ptr(), x.len());
    }
    (value, slope)
}

/// Numbers from −100 to 100, dense near 0 and over every decade.
fn sweep() -> Vec<f32> {
    let dense = (-60_000..=60_000).map(|i| i as f32 * 2.5e-4);
    let decades = (-200_000..=20_000).map(|i| 10f32.powf(i as f32 * 1e-4));
    dense.chain(decades.flat_map(|x| [x, -x])).filter(|x| x.abs() <= 100.0).collect()
}

/// The worst |found − expected| / (|expected| + floor) of values and of derivatives. Results below the smallest
/// normal number are left out: there f32 has no relative accuracy.
fn worst(activation: Activation, code: u32, x: &[f32], floor: f64) -> (f64, f64) {
    let (value, slope) = run(code, x);
    let error = |found: f32, expected: f64| {
        let normal = expected.abs() >= f64::from(f32::MIN_POSITIVE) || expected == 0.0;
        let off = (f64::from(found) - expected).abs();
        if normal && off > 0.0 { off / (expected.abs() + floor) } else { 0.0 }
    };
    x.iter().enumerate().fold((0.0f64, 0.0f64), |(values, slopes), (i, &x)| {
        (
            values.max(error(value[i], activation.value(x.into()))),
            slopes.max(error(slope[i], slope_of(activation, x.into()))),
        )
    })
}

/// The oracle's tanh' cancels in f64 too, from |x| = 12 or so on: 1 / cosh²(x) does not.
fn slope_of(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Tanh => x.cosh().powi(-2),
        other => other.derivative(x),
    }
}

#[test]
fn errors_are_those_of_f32() {
    let all = sweep();
    assert_eq!(worst(Activation::Relu, 0, &all, 0.0), (0.0, 0.0));
    let near: Vec<f32> = all.iter().copied().filter(|x| x.abs() <= 3.0).collect();
    // Where no slope is 0.
    let right: Vec<f32> = all.iter().copied().filter(|x| *x >= -0.5).collect();
    // Which x, floor, and the limits of value and slope: a little above what was measured (in the comment). A floor
    // of 1 judges as a sum of such terms does, a floor of 0 judges the result itself.
    let any = f64::INFINITY;
    let (gelu, silu, tanh) = ((Activation::Gelu, 1), (Activation::Silu, 2), (Activation::Tanh, 3));
    let table = [
        ("gelu", gelu, &all, 1.0, (1e-7, 1e-7)), // 7.0e-8, 6.0e-8
        ("silu", silu, &all, 1.0, (2e-7, 2e-7)), // 1.3e-7, 1.0e-7
        ("tanh", tanh, &all, 1.0, (1e-7, 2e-7)), // 5.7e-8, 8.1e-8
        ("gelu near 0", gelu, &near, 0.0, (1e-6, any)), // 7.8e-7
        // The rounding of x/√2 grows with x² in the tail of erfc.
        ("gelu's tail", gelu, &all, 0.0, (2e-5, any)), // 1.2e-5
        ("gelu's slope", gelu, &right, 0.0, (any, 4e-7)), // 2.6e-7
        ("silu's slope", silu, &right, 0.0, (3e-7, 3e-7)), // 1.5e-7, 2.2e-7
        // From x = −87 on eˣ is subnormal.
        ("silu's tail", silu, &all, 0.0, (1e-5, any)), // 4.4e-6
        ("tanh, relative", tanh, &all, 0.0, (2e-7, 4e-7)), // 1.5e-7, 2.6e-7
    ];
    for (name, (activation, code), x, floor, limits) in table {
        let (value, slope) = worst(activation, code, x, floor);
        println!("{name}: {value:.1e}, slope {slope:.1e}");
        assert!(value <= limits.0 && slope <= limits.1, "{name}: {value:e}, slope {slope:e}");
    }
}

#[test]
fn edges_are_the_cpu_backends() {
    use kasmina_core::Activation;
    let x = edges();
    for code in 0..4u8 {
        let activation = Activation::try_from(code).expect("0 to 3");
        let (value, slope) = run(code.into(), &x);
        for (i, &x) in x.iter().enumerate() {
            let close = |a: f32, b: f32| {
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-6 * (b.abs() + 1.0)
            };
            assert!(close(value[i], activation.value(x)), "{activation:?} of {x:e}: {}", value[i]);
            assert!(
                close(slope[i], activation.derivative(x)),
                "{activation:?}' of {x:e}: {}",
                slope[i]
            );
        }
    }
    let (value, slope) = run(0, &[f32::NAN, -0.0, 0.0, 1e-45]);
    assert!(value[0].is_nan() && slope[0] == 0.0);
    assert_eq!((value[1].to_bits(), slope[1], slope[2], slope[3]), (0, 0.0, 0.0, 1.0));
}

/// Where 1 − tanh² is 0 in f32.
#[test]
fn tanh_has_a_slope_to_the_end() {
    let (_, slope) = run(3, &[9.0, -20.0, 40.0, 43.0]);
    for (slope, x) in slope.into_iter().zip([9.0f64, 20.0, 40.0, 43.0]) {
        let expected = x.cosh().powi(-2);
        assert!(
            (f64::from(slope) / expected - 1.0).abs() < 3e-7,
            "{x}: {slope:e} for {expected:e}"
        );
    }
}
