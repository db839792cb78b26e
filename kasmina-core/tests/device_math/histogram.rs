//! Histograms as a block counts them, against the host's, byte for byte.

use kasmina_telemetry::Histogram;
use proptest::prelude::*;

use crate::shim::{edges, shim, value};

/// Adds `x` to `histogram` in parts of `part`.
fn count(histogram: &mut Histogram, x: &[f32], part: usize) {
    for part in x.chunks(part) {
        // SAFETY: a histogram, and as many values as are said.
        unsafe { (shim().count_histogram)(&raw mut *histogram, part.as_ptr(), part.len()) };
    }
}

fn bytes(histogram: &Histogram) -> &[u8] {
    bytemuck::bytes_of(histogram)
}

proptest! {
    #[test]
    fn counts_are_the_hosts(
        mut x in prop::collection::vec(value(), 0..400),
        part in 1usize..100,
        with_edges in any::<bool>(),
    ) {
        if with_edges {
            x.extend(edges());
        }
        let (mut found, mut wanted) = (Histogram::EMPTY, Histogram::EMPTY);
        count(&mut found, &x, part);
        x.iter().for_each(|&x| wanted.push(x));
        prop_assert_eq!(bytes(&found), bytes(&wanted));
        let mut at_once = Histogram::EMPTY;
        at_once.push_slice(&x);
        prop_assert_eq!(bytes(&found), bytes(&at_once));
    }

    #[test]
    fn integers_in_the_order_of_the_numbers(
        x in prop::collection::vec(value().prop_filter("a number", |x| !x.is_nan()), 2..100),
    ) {
        let (mut keys, mut back) = (vec![0u32; x.len()], vec![0.0f32; x.len()]);
        // SAFETY: all arrays are as long as x.
        unsafe {
            (shim().order_all)(x.as_ptr(), keys.as_mut_ptr(), back.as_mut_ptr(), x.len());
        }
        for i in 0..x.len() {
            // −0 is +0 from here on.
            prop_assert_eq!(back[i].to_bits(), (x[i] + 0.0).to_bits());
            for j in 0..x.len() {
                prop_assert_eq!(keys[i] < keys[j], x[i] < x[j]);
            }
        }
    }
}

#[test]
fn every_exponent_and_sign_has_the_hosts_bin() {
    let around = [0u32, 1, 0x0040_0000, 0x007f_ffff];
    let all = (0..512u32).flat_map(|top| around.map(|low| f32::from_bits(top << 23 | low)));
    for x in all {
        let (mut found, mut wanted) = (Histogram::EMPTY, Histogram::EMPTY);
        count(&mut found, &[x], 1);
        wanted.push(x);
        assert_eq!(bytes(&found), bytes(&wanted), "{x:e}");
    }
}

#[test]
fn nothing_is_the_same_nothing() {
    let mut found: Histogram = bytemuck::Zeroable::zeroed();
    // SAFETY: a histogram.
    unsafe { (shim().empty_histogram)(&raw mut found) };
    assert_eq!(bytes(&found), bytes(&Histogram::EMPTY));
}
