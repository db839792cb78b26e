//! f32 as the sum of two bf16: what the tensor cores are given must be the number, within what the header promises.

use half::{bf16, f16};
use proptest::prelude::*;

use crate::shim::{edges, same, shim, value};

fn split(x: &[f32]) -> Vec<(f32, f32, f32)> {
    let mut parts = [vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]];
    let [hi, lo, whole] = &mut parts;
    // SAFETY: all arrays are as long as x.
    unsafe {
        (shim().split_all)(
            x.as_ptr(),
            hi.as_mut_ptr(),
            lo.as_mut_ptr(),
            whole.as_mut_ptr(),
            x.len(),
        );
    }
    (0..x.len()).map(|i| (parts[0][i], parts[1][i], parts[2][i])).collect()
}

fn check(x: f32, (hi, lo, whole): (f32, f32, f32)) {
    if !x.is_finite() {
        assert!(same(hi, x) && lo == 0.0 && same(whole, x), "{x}: {hi} and {lo}");
        return;
    }
    assert!(hi.is_finite() && lo.is_finite(), "{x:e}: {hi:e} and {lo:e}");
    let exactly = f64::from(x) - f64::from(hi) - f64::from(lo);
    // 2^-17 of x, or half of the least bf16 there is; twice that above the largest bf16, where lo is cut off.
    let top = x.abs() > bf16::MAX.to_f32();
    let bound = f64::from(x).abs() / if top { 65_536.0 } else { 131_072.0 } + 2f64.powi(-134);
    assert!(exactly.abs() <= bound, "{x:e}: {hi:e} and {lo:e}");
    assert!((f64::from(whole) - f64::from(hi) - f64::from(lo)).abs() <= bound, "{x:e}: {whole:e}");
}

#[test]
fn edges_keep_their_value_and_their_kind() {
    let x = edges();
    x.iter().zip(split(&x)).for_each(|(x, parts)| check(*x, parts));
}

#[test]
fn every_16_bit_number_is_whole() {
    let halves = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32());
    let x: Vec<f32> =
        halves.chain((0..=u16::MAX).map(|bits| bf16::from_bits(bits).to_f32())).collect();
    for (x, (_, _, whole)) in x.iter().zip(split(&x)) {
        assert!(same(whole, *x) || *x == 0.0 && whole == 0.0, "{x:e} became {whole:e}");
    }
}

proptest! {
    #[test]
    fn any_number_is_the_sum(x in value()) {
        check(x, split(&[x])[0]);
    }

    /// What three of the four products miss.
    #[test]
    fn products_are_good_to_16_bits(a in -3.0f32..3.0, b in -3.0f32..3.0) {
        let (left, right) = (split(&[a])[0], split(&[b])[0]);
        let wide = |x: (f32, f32, f32)| (f64::from(x.0), f64::from(x.1));
        let ((ah, al), (bh, bl)) = (wide(left), wide(right));
        let exactly = f64::from(a) * f64::from(b);
        prop_assert!((ah * bh + ah * bl + al * bh - exactly).abs() <= exactly.abs() / 32_768.0 + 1e-38);
    }
}
