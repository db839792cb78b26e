//! What the tests of the streaming passes share: random shapes and values, guards around matrices, comparison bit by bit.

use std::collections::BTreeSet;

use kasmina_core::{Bounds, Element, Stability, StabilityMode};
use kasmina_gpu_test::{Failed, ensure};
use kasmina_tma::LoadPath;
use proptest::prelude::*;

/// A guard of this many elements around every matrix.
pub(crate) const GUARD: usize = 64;

/// Rows, hidden and chunk.
pub(crate) fn sizes() -> impl Strategy<Value = (usize, usize, usize)> {
    let hidden =
        prop_oneof![4 => 1usize..300, 3 => (1usize..80).prop_map(|n| n * 16), 2 => 300usize..5000];
    let rows = prop_oneof![3 => 1usize..40, 2 => 40usize..400, 1 => 0usize..3000];
    (rows, hidden).prop_flat_map(|(rows, hidden)| {
        let rows = rows.min(4_000_000 / hidden);
        let chunk = prop_oneof![3 => 1..=hidden, 3 => (0u32..10).prop_map(move |k| (1 << k).min(hidden)), 1 => Just(hidden)];
        (Just(rows), Just(hidden), chunk)
    })
}

/// Padding of rows, or elements by which a matrix begins past an aligned address.
pub(crate) fn small() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0usize), 2 => (1usize..8).prop_map(|n| n * 8), 1 => 1usize..20]
}

/// A rung to force, or none.
pub(crate) fn rung() -> impl Strategy<Value = Option<LoadPath>> {
    prop_oneof![1 => Just(None), 4 => prop::sample::select(LoadPath::LADDER.to_vec()).prop_map(Some)]
}

/// A small generator, so that a case is its numbers alone.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        // Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Less than `n`, or 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// In (−1, 1).
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn value(&mut self, wild: bool) -> f32 {
        match self.next() % 64 {
            0 if wild => f32::NAN,
            1 if wild => f32::INFINITY,
            2 if wild => f32::NEG_INFINITY,
            3 if wild => 3e7,
            4 if wild => -1e-30,
            5 => 0.0,
            6 => -0.0,
            _ => self.unit() * 3.0,
        }
    }
}

/// What lies where nothing may be written.
pub(crate) fn poison<T: Element>() -> T {
    T::from_f32(-77.0)
}

/// The elements, with guards and `offset` more in front and behind.
pub(crate) fn framed<T: Element>(inner: &[T], offset: usize) -> Vec<T> {
    let mut all = vec![poison(); GUARD + offset];
    all.extend_from_slice(inner);
    all.resize(all.len() + GUARD, poison());
    all
}

/// Elements from a matrix's first to its last.
pub(crate) fn used(rows: usize, columns: usize, stride: usize) -> usize {
    if rows == 0 { 0 } else { (rows - 1) * stride + columns }
}

/// Bits; where `computed` says so of an element, all NaN are one: their payload is the processor's choice.
pub(crate) fn bits<T: Element>(values: &[T], computed: impl Fn(usize) -> bool) -> Vec<u32> {
    let of = |(i, v): (usize, &T)| match size_of::<T>() {
        _ if v.to_f32().is_nan() && computed(i) => u32::MAX,
        4 => u32::from_ne_bytes(bytemuck::bytes_of(v).try_into().unwrap_or_default()),
        _ => u16::from_ne_bytes(bytemuck::bytes_of(v).try_into().unwrap_or_default()).into(),
    };
    values.iter().enumerate().map(of).collect()
}

pub(crate) fn bounds(stability: Stability) -> Bounds {
    Bounds {
        guarded: stability.mode != StabilityMode::Fast,
        epsilon: stability.epsilon,
        lower: stability.lower,
        upper: stability.upper,
    }
}

pub(crate) fn same(what: &str, found: &[u32], want: &[u32]) -> Result<(), Failed> {
    match found.iter().zip(want).position(|(found, want)| found != want) {
        None => ensure(found.len() == want.len(), || format!("{what}: lengths differ")),
        Some(at) => Err(format!(
            "{what}: element {at} of {} is {:#x}, {:#x} is right; {} differ",
            want.len(),
            found[at],
            want[at],
            found.iter().zip(want).filter(|(a, b)| a != b).count(),
        )
        .into()),
    }
}

/// Whether every kernel of the table that `part` names is in `seen`, those for bulk copies only where the device has them.
pub(crate) fn all_launched(
    part: impl Fn(&str) -> bool,
    has_bulk: bool,
    seen: &BTreeSet<String>,
) -> Result<(), Failed> {
    let missing: Vec<_> = kasmina_core::cuda::kernel_names()
        .into_iter()
        .filter(|name| part(name) && (has_bulk || !name.contains("_bulk_")) && !seen.contains(name))
        .collect();
    ensure(missing.is_empty(), || format!("not launched: {missing:?}"))
}
