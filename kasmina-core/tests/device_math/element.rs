//! Conversions against `Element` and the `half` crate: exhaustive over the 65,536 patterns of either type, and at
//! every place where rounding turns over.

use half::{bf16, f16};
use kasmina_core::{Bounds, Element};
use proptest::prelude::*;

use crate::shim::{self, edges, same, shim, value};

/// A storage type by its number in the shim.
trait Stored: Element {
    const TYPE: u32;
    fn of(bits: u16) -> Self;
    fn bits(self) -> u16;
}

impl Stored for f16 {
    const TYPE: u32 = 1;
    fn of(bits: u16) -> Self {
        Self::from_bits(bits)
    }
    fn bits(self) -> u16 {
        self.to_bits()
    }
}

impl Stored for bf16 {
    const TYPE: u32 = 2;
    fn of(bits: u16) -> Self {
        Self::from_bits(bits)
    }
    fn bits(self) -> u16 {
        self.to_bits()
    }
}

/// Lane by lane, and in packets.
fn widened<T: Stored>(from: &[u16]) -> [Vec<f32>; 2] {
    assert!(from.len().is_multiple_of(8));
    let mut to = [vec![0.0; from.len()], vec![0.0; from.len()]];
    // SAFETY: `to` is as long as `from`, and that is whole packets.
    unsafe {
        (shim().widen_all)(T::TYPE, from.as_ptr(), to[0].as_mut_ptr(), from.len());
        (shim().get_packets)(T::TYPE, from.as_ptr(), to[1].as_mut_ptr(), from.len() / 8);
    }
    to
}

/// The bits, and how many saturated.
type Narrowed = (Vec<u16>, u64);

fn narrowed<T: Stored>(from: &[f32]) -> [Narrowed; 2] {
    assert!(from.len().is_multiple_of(8));
    let mut to = [vec![0; from.len()], vec![0; from.len()]];
    // SAFETY: `to` is as long as `from`, and that is whole packets.
    let counts = unsafe {
        [
            (shim().narrow_all)(T::TYPE, from.as_ptr(), to[0].as_mut_ptr(), from.len()),
            (shim().put_packets)(T::TYPE, from.as_ptr(), to[1].as_mut_ptr(), from.len() / 8),
        ]
    };
    let [one, packets] = to;
    [(one, counts[0].into()), (packets, counts[1].into())]
}

fn expected<T: Stored>(from: &[f32]) -> Narrowed {
    let mut row = vec![T::of(0); from.len()];
    let count = T::narrow(from, &mut row);
    (row.into_iter().map(T::bits).collect(), count)
}

fn widens_every_pattern<T: Stored>() {
    let patterns: Vec<u16> = (0..=u16::MAX).collect();
    for wide in widened::<T>(&patterns) {
        for (bits, wide) in patterns.iter().zip(wide) {
            let expected = T::of(*bits).to_f32();
            assert_eq!(wide.to_bits(), expected.to_bits(), "{bits:#06x}");
        }
    }
}

/// Every pattern's value, the middle to the next one, and what lies just beside either.
fn narrows_at_every_turn<T: Stored>() {
    let mut values = Vec::new();
    for bits in 0..=u16::MAX {
        let wide = T::of(bits).to_f32();
        let next = T::of(bits.wrapping_add(1)).to_f32();
        let middle = ((f64::from(wide) + f64::from(next)) / 2.0) as f32;
        for x in [wide, middle] {
            values.extend([x, f32::from_bits(x.to_bits().wrapping_sub(1))]);
            values.extend([f32::from_bits(x.to_bits().wrapping_add(1)), -x]);
        }
    }
    for found in narrowed::<T>(&values) {
        let expected = expected::<T>(&values);
        for ((x, found), expected) in values.iter().zip(&found.0).zip(&expected.0) {
            assert_eq!(found, expected, "{x:e} ({:#010x})", x.to_bits());
        }
        assert_eq!(found.1, expected.1, "saturations");
        assert!(found.1 > 0);
    }
}

#[test]
fn every_pattern_widens_as_in_rust() {
    widens_every_pattern::<f16>();
    widens_every_pattern::<bf16>();
}

#[test]
fn every_rounding_decision_is_rusts() {
    narrows_at_every_turn::<f16>();
    narrows_at_every_turn::<bf16>();
}

#[test]
fn edges_narrow_as_in_rust() {
    let mut values = edges();
    values.resize(values.len().next_multiple_of(8), 0.0);
    for found in narrowed::<f16>(&values) {
        assert_eq!(found, expected::<f16>(&values));
    }
    for found in narrowed::<bf16>(&values) {
        assert_eq!(found, expected::<bf16>(&values));
    }
}

#[test]
fn f16_saturates_and_says_so() {
    let values = [1e6, -1e6, f32::INFINITY, f32::NAN, 65504.0, 65519.99, 65520.0, -f32::INFINITY];
    for (bits, saturated) in narrowed::<f16>(&values) {
        assert_eq!(saturated, 3);
        let bits: Vec<f16> = bits.into_iter().map(f16::from_bits).collect();
        assert_eq!(bits[..3], [f16::MAX, f16::MIN, f16::INFINITY]);
        assert!(bits[3].is_nan());
        assert_eq!(bits[4..], [f16::MAX, f16::MAX, f16::MAX, f16::NEG_INFINITY]);
    }
}

proptest! {
    #[test]
    fn anything_narrows_as_in_rust(values in prop::collection::vec(value(), 64)) {
        for found in narrowed::<f16>(&values) {
            prop_assert_eq!(found, expected::<f16>(&values));
        }
        for found in narrowed::<bf16>(&values) {
            prop_assert_eq!(found, expected::<bf16>(&values));
        }
    }

    /// What is only passed through keeps its bits, signalling NaNs among them.
    #[test]
    fn untouched_lanes_keep_their_bits(
        to in any::<[u16; 8]>(),
        from in any::<[u16; 8]>(),
        lanes in 0u32..256,
        x in any::<[u32; 4]>(),
    ) {
        for storage in [f16::TYPE, bf16::TYPE] {
            let (mut mixed, mut raw) = (to, [0; 8]);
            // SAFETY: a packet each, and eight lanes.
            unsafe {
                (shim().take_lanes)(
                    storage, mixed.as_mut_ptr(), from.as_ptr(), lanes, raw.as_mut_ptr(),
                );
            }
            prop_assert_eq!(raw, from);
            for lane in 0..8 {
                let taken = lanes >> lane & 1 == 1;
                prop_assert_eq!(mixed[lane], if taken { from[lane] } else { to[lane] });
            }
        }
        let x = x.map(f32::from_bits);
        let (mut through, mut taken) = ([0.0; 4], [0.0; 4]);
        // SAFETY: four floats each.
        unsafe { (shim().float_packet)(x.as_ptr(), through.as_mut_ptr(), taken.as_mut_ptr()) };
        prop_assert_eq!(through.map(f32::to_bits), x.map(f32::to_bits));
        prop_assert_eq!(taken.map(f32::to_bits), x.map(f32::to_bits));
    }
}

/// Extremes and dead elements of pairs, one by one; a NaN is passed over, and a zero extremum has either sign.
fn pairs<T: Stored>(words: &[u32], dead_epsilon: f32) {
    let (mut low, mut high, mut dead) = ([0.0f32; 2], [0.0f32; 2], [0.0f32; 2]);
    // SAFETY: the words are that many, and each result has two places.
    unsafe {
        (shim().pair_range)(
            T::TYPE,
            words.as_ptr(),
            words.len(),
            dead_epsilon,
            low.as_mut_ptr(),
            high.as_mut_ptr(),
            dead.as_mut_ptr(),
        );
    }
    for half in 0..2 {
        let values = words.iter().map(|word| T::of((word >> (16 * half)) as u16).to_f32());
        let numbers: Vec<f32> = values.filter(|v| !v.is_nan()).collect();
        assert_eq!(low[half], numbers.iter().copied().fold(f32::INFINITY, f32::min));
        assert_eq!(high[half], numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let expected = numbers.iter().filter(|v| v.abs() <= dead_epsilon).count();
        assert_eq!(dead[half] as usize, expected, "{words:x?} at {dead_epsilon:e}");
    }
}

/// Flushed as one by one, clamped then, and the greatest magnitude.
fn pair_guards<T: Stored>(words: &[u32], bounds: Bounds) {
    let own = shim::Bounds::from(bounds);
    let (mut flushed, mut clamped) = (vec![0; words.len()], vec![0.0; 2 * words.len()]);
    // SAFETY: the words are that many, and each has two places in the last.
    let greatest = unsafe {
        (shim().flush_pairs)(
            T::TYPE,
            &raw const own,
            words.as_ptr(),
            words.len(),
            flushed.as_mut_ptr(),
            clamped.as_mut_ptr(),
        );
        (shim().pair_magnitude)(T::TYPE, words.as_ptr(), words.len())
    };
    let mut expected_greatest = 0.0f32;
    for (i, clamped) in clamped.iter().enumerate() {
        let half = |words: &[u32]| T::of((words[i / 2] >> (16 * (i % 2))) as u16).to_f32();
        let x = half(words);
        let expected = if x.abs() >= bounds.epsilon { x } else { 0.0 };
        assert_eq!(half(&flushed).to_bits(), expected.to_bits(), "{x:e} at {:e}", bounds.epsilon);
        assert!(same(*clamped, bounds.sanitize(x)) || bounds.lower == 0.0 || bounds.upper == 0.0);
        let beyond = x.is_nan() || x.abs() > expected_greatest;
        expected_greatest =
            if expected_greatest.is_nan() || !beyond { expected_greatest } else { x.abs() };
    }
    assert!(
        same(greatest, expected_greatest),
        "{greatest:e}, not {expected_greatest:e}: {words:x?}"
    );
}

proptest! {
    #[test]
    fn pairs_are_guarded_as_their_elements_are(
        words in prop::collection::vec(
            prop_oneof![any::<u32>(), prop::sample::select(vec![0u32, 0x8000_8000, 1, 0x7f80_7c00, 0x0001_8001, 0xffc0_fe00])],
            1..=16,
        ),
        epsilon in prop_oneof![Just(0.0f32), Just(1e-8), 0.0f32..2.0],
        upper in prop_oneof![Just(1e6f32), 0.1f32..70.0],
    ) {
        let bounds = Bounds { guarded: true, epsilon, lower: -upper, upper };
        pair_guards::<f16>(&words, bounds);
        pair_guards::<bf16>(&words, bounds);
    }

    #[test]
    fn pairs_are_seen_as_their_elements_are(
        words in prop::collection::vec(
            prop_oneof![any::<u32>(), prop::sample::select(vec![0u32, 0x8000_8000, 1, 0x7f80_7c00, 0x0001_8001])],
            1..=64,
        ),
        dead_epsilon in prop_oneof![Just(0.0f32), Just(1e-8), 0.0f32..2.0, any::<u32>().prop_map(|b| f32::from_bits(b & 0x7f7f_ffff))],
    ) {
        pairs::<f16>(&words, dead_epsilon);
        pairs::<bf16>(&words, dead_epsilon);
    }
}
