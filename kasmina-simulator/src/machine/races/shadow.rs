//! What is remembered of memory: for each four bytes, who wrote and read them last.

use std::collections::HashMap;

use super::clock::{Event, Knowledge};

const WORD: u64 = 4;
const PAGE_WORDS: usize = 64;
const PAGE_BYTES: u64 = WORD * PAGE_WORDS as u64;
/// Reads of a word that are kept before repeated ones are looked for.
const MANY: usize = 32;

/// An access to some bytes of a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) event: Event,
    /// Where in the image's code; 0 for the machine's own.
    pub(super) from: u64,
    mask: u8,
    pub(super) writes: bool,
    pub(super) atomic: bool,
}

/// What an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Manner {
    pub(in super::super) writes: bool,
    pub(in super::super) atomic: bool,
}

#[derive(Debug, Default)]
struct Cell {
    writes: Vec<Access>,
    reads: Vec<Access>,
    /// The next length of `reads` at which repeated ones are looked for.
    limit: usize,
}

/// The memory of a grid.
#[derive(Debug, Default)]
pub(super) struct Shadow(HashMap<u64, Box<[Cell; PAGE_WORDS]>>);

impl Shadow {
    /// Forgets a range, which is somebody else's from now on.
    pub(super) fn forget(&mut self, begin: u64, bytes: u64) {
        let pages = begin / PAGE_BYTES..=(begin + bytes) / PAGE_BYTES;
        self.0.retain(|page, _| !pages.contains(page));
    }

    /// Notes an access of `event` by someone who knows as much as `knowledge`. Answers an earlier one that is not ordered.
    pub(super) fn access(
        &mut self,
        address: u64,
        bytes: u64,
        manner: Manner,
        event: Event,
        knowledge: &Knowledge,
        from: u64,
    ) -> Option<(u64, Access)> {
        let end = address + bytes;
        let mut word = address / WORD;
        let mut found = None;
        while word * WORD < end {
            let first = address.max(word * WORD) - word * WORD;
            let last = end.min((word + 1) * WORD) - word * WORD;
            let mask = ((1u8 << last) - 1) & !((1u8 << first) - 1);
            let page = self
                .0
                .entry(word / PAGE_WORDS as u64)
                .or_insert_with(|| Box::new(std::array::from_fn(|_| Cell::default())));
            let cell = &mut page[word as usize % PAGE_WORDS];
            let access = Access { event, from, mask, writes: manner.writes, atomic: manner.atomic };
            if let Some(other) = cell.access(access, knowledge) {
                found = found.or(Some((word * WORD + first, other)));
            }
            word += 1;
        }
        found
    }
}

impl Cell {
    fn access(&mut self, new: Access, knowledge: &Knowledge) -> Option<Access> {
        let meets = |old: &Access| old.mask & new.mask != 0 && !(old.atomic && new.atomic);
        let races = |old: &&Access| meets(old) && !knowledge.knows(old.event);
        let mut found = self.writes.iter().find(races).copied();
        if !new.writes {
            if let Some(last) = self.reads.last_mut()
                && last.event == new.event
                && last.atomic == new.atomic
            {
                last.mask |= new.mask;
                last.from = new.from;
                return found;
            }
            if self.reads.len() >= self.limit.max(MANY) {
                self.drop_repeated_reads();
            }
            self.reads.push(new);
            return found;
        }
        let read = |old: &&Access| meets(old) && !knowledge.knows_read(old.event);
        found = found.or_else(|| self.reads.iter().find(read).copied());
        // Whoever is ordered after this write is ordered after what it is ordered after.
        let cover = |old: &mut Access, known: bool| {
            if known {
                old.mask &= !new.mask;
            }
            old.mask != 0
        };
        self.writes.retain_mut(|old| cover(old, knowledge.knows(old.event)));
        self.reads.retain_mut(|old| cover(old, knowledge.knows_read(old.event)));
        self.writes.push(new);
        found
    }

    /// Keeps a thread's last read of each manner and the same bytes.
    fn drop_repeated_reads(&mut self) {
        let mut kept: Vec<Access> = Vec::new();
        let mut places: HashMap<(u32, u16, bool, u8), usize> = HashMap::new();
        for read in self.reads.drain(..) {
            let key = (read.event.block, read.event.component, read.atomic, read.mask);
            match places.get(&key) {
                Some(&place) => kept[place] = read,
                None => {
                    places.insert(key, kept.len());
                    kept.push(read);
                }
            }
        }
        self.limit = kept.len() * 2;
        self.reads = kept;
    }
}
