//! Bulk copies, with and without tensor maps: of no thread's order, done at a drawn moment or when somebody waits for them.

use super::FaultKind;
use super::abi::{Number, Reduction};
use super::grid::{Grid, Id};
use super::races::{Knowledge, Manner};
use super::reduce;
use super::tensor::{self, Segment, Tile};
use super::watch::{CHANGED, READ, WRITTEN};
use crate::tensor_map::TensorMap;

/// A copy under way.
#[derive(Debug)]
pub(super) struct Bulk {
    /// The thread that started it.
    owner: Id,
    /// Of a store, the group of the thread that it belongs to.
    group: u64,
    work: Work,
    /// What its thread knew when it started it, for the race detector.
    knowledge: Option<Box<Knowledge>>,
}

/// What is left to do of a copy.
#[derive(Debug)]
enum Work {
    /// From global memory to the same shared address of these live blocks, counted on the mbarrier at the same address of each.
    Load { to: u32, from: Place, barrier: u32, blocks: Vec<u32> },
    /// From shared memory, which has not been read yet.
    Store { to: Place, from: u32, how: Reduction },
    /// What was read from shared memory, to global memory.
    Written { to: Place, bytes: Vec<u8>, how: Reduction },
}

/// The global side of a copy.
#[derive(Clone, Debug)]
enum Place {
    Bytes { address: u64, bytes: u32, number: Number },
    Tile(Box<Tile>),
}

/// A box, or pixels, as an instruction names them: the address of a map, coordinates, and the place in the filter.
#[derive(Debug)]
pub(super) struct Named<'a> {
    pub(super) map: u64,
    pub(super) at: &'a [i32],
    pub(super) pixel: Option<&'a [u16]>,
}

impl Grid<'_> {
    // ------------------------------------------------------------------------------------------------------------ starting

    pub(super) fn bulk_load(
        &mut self,
        id: Id,
        to: u32,
        from: u64,
        bytes: u32,
        barrier: u32,
        mask: u32,
    ) {
        if !self.bulk_is_aligned(id, from, to, bytes) {
            return;
        }
        if !self.is_allocated(from, u64::from(bytes)) {
            return self.illegal(id, "a read by a bulk copy", from, u64::from(bytes));
        }
        let from = Place::Bytes { address: from, bytes, number: Number::U32 };
        self.start_load(id, to, from, bytes, barrier, mask);
    }

    pub(super) fn bulk_store(
        &mut self,
        id: Id,
        to: u64,
        from: u32,
        bytes: u32,
        how: Reduction,
        number: Number,
    ) {
        if !self.bulk_is_aligned(id, to, from, bytes) {
            return;
        }
        if !self.is_allocated(to, u64::from(bytes)) {
            return self.illegal(id, "a write by a bulk copy", to, u64::from(bytes));
        }
        self.start_store(id, Place::Bytes { address: to, bytes, number }, from, bytes, how);
    }

    pub(super) fn bulk_prefetch(&mut self, id: Id, from: u64, bytes: u32) {
        self.bulk_is_aligned(id, from, 0, bytes);
    }

    pub(super) fn tensor_load(&mut self, id: Id, to: u32, from: &Named, barrier: u32, mask: u32) {
        let Some(tile) = self.tile(id, from, to) else { return };
        let bytes = tile.bytes();
        self.start_load(id, to, Place::Tile(Box::new(tile)), bytes, barrier, mask);
    }

    pub(super) fn tensor_store(&mut self, id: Id, map: u64, at: &[i32], from: u32, how: Reduction) {
        let Some(tile) = self.tile(id, &Named { map, at, pixel: None }, from) else { return };
        if let Some(negative) = at.iter().find(|&&at| at < 0) {
            let why =
                format!("a bulk tensor store at the coordinate {negative}: none may be negative");
            return self.fail(Some(id), FaultKind::IllegalInstruction(why));
        }
        let bytes = tile.bytes();
        self.start_store(id, Place::Tile(Box::new(tile)), from, bytes, how);
    }

    pub(super) fn tensor_prefetch(&mut self, id: Id, map: u64, at: &[i32]) {
        self.tile(id, &Named { map, at, pixel: None }, 0);
    }

    fn bulk_is_aligned(&mut self, id: Id, global: u64, shared: u32, bytes: u32) -> bool {
        for address in [global, u64::from(shared), u64::from(bytes)] {
            if address % 16 != 0 {
                let kind = FaultKind::MisalignedAddress {
                    access: "a bulk copy's address or size",
                    address,
                    alignment: 16,
                };
                self.fail(Some(id), kind);
                return false;
            }
        }
        true
    }

    /// What a tensor copy moves; the fault where the hardware refuses it.
    fn tile(&mut self, id: Id, named: &Named, shared: u32) -> Option<Tile> {
        let map = self.map_at(id, named.map)?;
        match tensor::tile(map, named.at, named.pixel, shared) {
            Ok(tile) => Some(tile),
            Err(why) => {
                self.fail(Some(id), FaultKind::IllegalInstruction(why));
                None
            }
        }
    }

    /// The tensor map at an address that a thread names.
    fn map_at(&mut self, id: Id, address: u64) -> Option<TensorMap> {
        if !address.is_multiple_of(64) {
            let kind =
                FaultKind::MisalignedAddress { access: "a tensor map", address, alignment: 64 };
            self.fail(Some(id), kind);
            return None;
        }
        if !self.is_parameter(address, 128) && !self.is_allocated(address, 128) {
            self.illegal(id, "a read of a tensor map", address, 128);
            return None;
        }
        // SAFETY: these bytes are a parameter or lie in a live allocation.
        let bytes = unsafe { (address as *const [u8; 128]).read() };
        let map = TensorMap::from_bytes(&bytes);
        if map.is_none() {
            let why = format!("no tensor map at {address:#x}");
            self.fail(Some(id), FaultKind::IllegalInstruction(why));
        }
        map
    }

    fn start_load(&mut self, id: Id, to: u32, from: Place, bytes: u32, barrier: u32, mask: u32) {
        let (cluster, size) = {
            let block = self.blocks.of(id);
            (block.cluster, block.view.cluster_size)
        };
        let mut blocks = Vec::new();
        if mask == 0 {
            blocks.push(id.block);
        } else {
            for rank in 0..16 {
                if mask >> rank & 1 == 0 {
                    continue;
                }
                match self.blocks.in_cluster(cluster, rank) {
                    Some(block) => blocks.push(block),
                    None => {
                        let why = format!(
                            "a multicast to block {rank} of a cluster of {size}, which is not there (any more)"
                        );
                        return self.fail(Some(id), FaultKind::Undefined(why));
                    }
                }
            }
        }
        for &block in &blocks {
            let room = self
                .blocks
                .get(block)
                .is_some_and(|block| block.shared.at(to, bytes as usize).is_some());
            if !room {
                return self.illegal(
                    id,
                    "a bulk copy to shared memory",
                    u64::from(to),
                    u64::from(bytes),
                );
            }
            if self.mbarrier(Id { block, thread: id.thread }, barrier).is_none() {
                return;
            }
        }
        let knowledge = self.knowledge(id);
        let work = Work::Load { to, from, barrier, blocks };
        self.bulk.push(Bulk { owner: id, group: 0, work, knowledge });
    }

    fn start_store(&mut self, id: Id, to: Place, from: u32, bytes: u32, how: Reduction) {
        if self.blocks.of(id).shared.at(from, bytes as usize).is_none() {
            return self.illegal(
                id,
                "a bulk copy from shared memory",
                u64::from(from),
                u64::from(bytes),
            );
        }
        let thread = self.blocks.thread(id);
        let group = thread.bulk_groups;
        match thread.bulk_reads.back_mut() {
            Some((last, stores)) if *last == group => *stores += 1,
            _ => thread.bulk_reads.push_back((group, 1)),
        }
        let knowledge = self.knowledge(id);
        self.bulk.push(Bulk { owner: id, group, work: Work::Store { to, from, how }, knowledge });
    }

    pub(super) fn bulk_commit(&mut self, id: Id) {
        self.blocks.thread(id).bulk_groups += 1;
    }

    // ------------------------------------------------------------------------------------------------------------ ending

    /// Does what groups of the thread but its `pending` newest have left to do: with `read`, only their reading of shared memory.
    pub(super) fn bulk_wait(&mut self, id: Id, pending: u32, read: bool) {
        let thread = self.blocks.thread(id);
        let end = thread.bulk_groups.saturating_sub(u64::from(pending));
        thread.bulk_reads.retain(|&(group, _)| group >= end);
        let mut at = 0;
        while at < self.bulk.len() {
            let bulk = &self.bulk[at];
            let mine =
                bulk.owner == id && bulk.group < end && !matches!(bulk.work, Work::Load { .. });
            let done = mine && !(read && matches!(bulk.work, Work::Written { .. }));
            if done {
                // A store that was read goes to the end and comes again where all of it is waited for.
                self.advance(at);
            } else {
                at += 1;
            }
        }
        self.tell(|races| {
            let time = races.engine_done(id.block);
            races.engine_waited(id, time);
        });
    }

    /// Lets what a block has stored arrive in global memory.
    pub(super) fn complete_writes(&mut self, block: u32) {
        let written =
            |bulk: &Bulk| bulk.owner.block == block && matches!(bulk.work, Work::Written { .. });
        while let Some(index) = self.bulk.iter().position(written) {
            self.advance(index);
        }
    }

    fn knowledge(&mut self, id: Id) -> Option<Box<Knowledge>> {
        self.races.as_mut().map(|races| Box::new(races.knowledge(id)))
    }

    /// An access of the copy engine, by that of the live block `place`.
    fn note_engine(&mut self, copy: &Bulk, place: u32, address: u64, bytes: usize, manner: Manner) {
        if let Some(knowledge) = &copy.knowledge {
            let bytes = bytes as u64;
            self.watch(copy.owner, |races| races.engine(place, knowledge, address, bytes, manner));
        }
    }

    /// One step of a drawn copy. False if there is none.
    pub(super) fn complete_bulk(&mut self) -> bool {
        if self.bulk.is_empty() {
            return false;
        }
        let index = self.random.below(self.bulk.len());
        self.advance(index);
        true
    }

    /// What a block leaves behind that would read or write its shared memory after its end.
    pub(super) fn unfinished_bulk(&self, block: u32) -> Option<String> {
        let threads = &self.blocks.get(block)?.threads;
        if threads.iter().any(|thread| !thread.bulk_reads.is_empty()) {
            return Some("a block ended before its bulk stores were waited for (at least cp.async.bulk.wait_group.read)".into());
        }
        let loads = |bulk: &Bulk| matches!(&bulk.work, Work::Load { blocks, .. } if blocks.contains(&block));
        self.bulk
            .iter()
            .any(loads)
            .then(|| "a block ended while a bulk copy to its shared memory was under way".into())
    }

    fn advance(&mut self, index: usize) {
        let mut copy = self.bulk.swap_remove(index);
        match &copy.work {
            Work::Load { to, from, barrier, blocks } => {
                self.load(&copy, *to, from, *barrier, blocks)
            }
            Work::Store { to, from, how } => {
                let bytes = self.read_shared(&copy, to, *from);
                copy.work = Work::Written { to: to.clone(), bytes, how: *how };
                self.bulk.push(copy);
            }
            Work::Written { to, bytes, how } => self.write(&copy, to, bytes, *how),
        }
    }

    fn load(&mut self, copy: &Bulk, to: u32, from: &Place, barrier: u32, blocks: &[u32]) {
        for segment in segments(from, false) {
            let Some(content) = self.read_global(copy, from, segment) else { return };
            for (at, piece) in placed(from, to, segment.shared, &content) {
                for &block in blocks {
                    let place =
                        self.blocks.get(block).and_then(|block| block.shared.at(at, piece.len()));
                    if let Some(to) = place {
                        // SAFETY: the piece lies in the block's shared memory.
                        unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), to, piece.len()) };
                        self.note_engine(copy, block, to as u64, piece.len(), WRITTEN);
                    }
                }
            }
        }
        let bytes = match from {
            Place::Bytes { bytes, .. } => *bytes,
            Place::Tile(tile) => tile.bytes(),
        };
        for &block in blocks {
            self.tell(|races| {
                let time = races.engine_done(block);
                races.engine_arrives(block, barrier, time);
            });
            self.mbarrier_came(Id { block, thread: copy.owner.thread }, barrier, bytes);
        }
    }

    /// The bytes that a load brings for a segment.
    fn read_global(&mut self, copy: &Bulk, from: &Place, segment: Segment) -> Option<Vec<u8>> {
        let mut content = vec![0; segment.bytes as usize];
        if let Some(address) = segment.global {
            if !self.is_allocated(address, u64::from(segment.bytes)) {
                self.illegal(
                    copy.owner,
                    "a read by a bulk tensor copy",
                    address,
                    u64::from(segment.bytes),
                );
                return None;
            }
            // SAFETY: the bytes lie in a live allocation.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    address as *const u8,
                    content.as_mut_ptr(),
                    content.len(),
                )
            };
            self.note_engine(copy, copy.owner.block, address, content.len(), READ);
        } else if let Place::Tile(tile) = from {
            tile.fill(&mut content);
        }
        if let Place::Tile(tile) = from {
            tile.convert(&mut content);
        }
        Some(content)
    }

    /// The segments of a store, one behind the other, as shared memory has them.
    fn read_shared(&mut self, copy: &Bulk, to: &Place, from: u32) -> Vec<u8> {
        let mut all = Vec::new();
        for Segment { shared, bytes, .. } in segments(to, true) {
            let whole = vec![0u8; bytes as usize];
            for (at, piece) in placed(to, from, shared, &whole) {
                let place = self
                    .blocks
                    .get(copy.owner.block)
                    .and_then(|block| block.shared.at(at, piece.len()));
                match place {
                    Some(from) => {
                        // SAFETY: the piece lies in the block's shared memory.
                        all.extend_from_slice(unsafe {
                            std::slice::from_raw_parts(from, piece.len())
                        });
                        self.note_engine(copy, copy.owner.block, from as u64, piece.len(), READ);
                    }
                    None => all.extend_from_slice(piece),
                }
            }
        }
        all
    }

    fn write(&mut self, copy: &Bulk, to: &Place, content: &[u8], how: Reduction) {
        let mut rest = content;
        for Segment { global, bytes, .. } in segments(to, true) {
            let (own, others) = rest.split_at(bytes as usize);
            rest = others;
            let Some(address) = global else { continue };
            if !self.is_allocated(address, u64::from(bytes)) {
                return self.illegal(
                    copy.owner,
                    "a write by a bulk tensor copy",
                    address,
                    u64::from(bytes),
                );
            }
            let number = match to {
                Place::Bytes { number, .. } => reduce::Kind::of_number(*number),
                Place::Tile(tile) => reduce::Kind::of_type(tile.map.data_type),
            };
            // SAFETY: the bytes lie in a live allocation.
            if let Err(why) = unsafe { reduce::store(address, own, how, number) } {
                return self.fail(Some(copy.owner), FaultKind::IllegalInstruction(why));
            }
            let manner = if how == Reduction::None { WRITTEN } else { CHANGED };
            self.note_engine(copy, copy.owner.block, address, own.len(), manner);
        }
    }
}

/// What a copy moves, piece by piece; a store by a map moves a little more than a load.
fn segments(place: &Place, stores: bool) -> Vec<Segment> {
    match place {
        Place::Bytes { address, bytes, .. } => {
            vec![Segment { shared: 0, global: Some(*address), bytes: *bytes }]
        }
        Place::Tile(tile) if stores => tile.store_segments(),
        Place::Tile(tile) => tile.segments(),
    }
}

/// A segment's bytes by the shared addresses at which they lie: pieces of at most 16 bytes, swizzled as the map says.
fn placed<'a>(
    place: &'a Place,
    base: u32,
    offset: u32,
    content: &'a [u8],
) -> impl Iterator<Item = (u32, &'a [u8])> {
    let span = match place {
        Place::Bytes { .. } => 0,
        Place::Tile(tile) => tile.span(),
    };
    let mut at = base + offset;
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = rest.len().min(16 - at as usize % 16);
        let (piece, others) = rest.split_at(length);
        let address = if span == 0 { at } else { at ^ ((at >> 3) & (span - 16)) };
        at += length as u32;
        rest = others;
        Some((address, piece))
    })
}
