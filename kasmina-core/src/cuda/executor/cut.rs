//! Which items of a step wait for which: from what they read and write, and how they are cut.
//!
//! Every worker does the blocks of its own rank, item after item. So where two items are cut alike, block b of the later one finds what
//! block b of the earlier one has left, and nobody waits. Else it waits for the earlier item's tiles that have columns of its own; a layer
//! never mixes the columns of two tiles.

use super::records::{Item, KIND_BACKWARD, KIND_FINALIZE, KIND_FORWARD, NO_COUNTER, Wait};
use crate::cuda::geometry::Geometry;
use crate::cuda::params::{BackwardParams, ForwardParams};

/// Something that items read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Access {
    /// Addresses: those of a matrix, or of something whose address stands for it.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) writes: bool,
}

impl Access {
    pub(super) fn conflicts(&self, other: &Self) -> bool {
        (self.writes || other.writes) && self.start < other.end && other.start < self.end
    }
}

/// Whether any of some accesses conflicts with any of others; both ascending.
pub(super) fn conflict(a: &[Access], b: &[Access]) -> bool {
    let mut from = 0;
    for access in a {
        // They end before everything to come begins.
        while from < b.len() && b[from].end <= access.start {
            from += 1;
        }
        let near = b[from..].iter().take_while(|other| other.start < access.end);
        if near.into_iter().any(|other| access.conflicts(other)) {
            return true;
        }
    }
    false
}

/// How an item is cut, if it is by tiles.
fn geometry(item: &Item) -> Option<Geometry> {
    match item.kind {
        KIND_FORWARD => Some(item.params::<ForwardParams>().geometry),
        KIND_BACKWARD => Some(item.params::<BackwardParams>().geometry),
        _ => None,
    }
}

/// Whether block b of one has the elements of block b of the other, for every b.
fn alike(a: &Geometry, b: &Geometry) -> bool {
    let tiles = |g: &Geometry| (g.rows, g.columns, g.tile_columns, g.tiles, g.groups);
    tiles(a) == tiles(b) && (a.groups == 1 || a.stage_rows() == b.stage_rows())
}

/// Gives every item its counters and waits; answers the list of waits that items cannot keep themselves, and the number of counters.
pub(super) fn link(items: &mut [Item], accesses: &[Vec<Access>]) -> (Vec<Wait>, u32) {
    let cuts: Vec<Option<Geometry>> = items.iter().map(geometry).collect();
    let mut waits_for: Vec<Vec<usize>> = vec![Vec::new(); items.len()];
    for later in 0..items.len() {
        for earlier in 0..later {
            let touch =
                accesses[later].iter().any(|a| accesses[earlier].iter().any(|b| a.conflicts(b)));
            let free = match (&cuts[earlier], &cuts[later]) {
                (Some(a), Some(b)) => alike(a, b),
                _ => false,
            };
            if touch && !free && items[earlier].blocks > 0 {
                waits_for[later].push(earlier);
            }
        }
    }
    let mut counters = 0;
    for waits in &waits_for {
        for earlier in waits {
            if items[*earlier].counter == NO_COUNTER {
                items[*earlier].counter = counters;
                counters += cuts[*earlier].map_or(1, |g| g.tiles);
            }
        }
    }
    let mut list = Vec::new();
    for (later, waits) in waits_for.iter().enumerate() {
        let by_column = cuts[later].is_some() || items[later].kind == KIND_FINALIZE;
        let of = |earlier: &usize| {
            let item = &items[*earlier];
            let counter = item.counter;
            match &cuts[*earlier] {
                None => Wait { counter, counters: 1, arrivals: item.blocks, tile_columns: 0 },
                Some(g) => {
                    let tile_columns = if by_column { g.tile_columns } else { 0 };
                    Wait { counter, counters: g.tiles, arrivals: g.groups, tile_columns }
                }
            }
        };
        let waits: Vec<Wait> = waits.iter().map(of).collect();
        items[later].set_waits(&waits, &mut list);
    }
    (list, counters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn access() -> impl Strategy<Value = Access> {
        (0u64..40, 0u64..6, any::<bool>()).prop_map(|(start, len, writes)| Access {
            start,
            end: start + len,
            writes,
        })
    }

    proptest! {
        #[test]
        fn a_sweep_finds_what_comparing_all_finds(
            mut a in prop::collection::vec(access(), 0..12),
            mut b in prop::collection::vec(access(), 0..12),
        ) {
            a.sort();
            b.sort();
            let all = a.iter().any(|a| b.iter().any(|b| a.conflicts(b)));
            prop_assert_eq!(conflict(&a, &b), all);
        }
    }
}
