//! Memory: where allocations lie, which of them live, and what the machine may touch.
//!
//! There are two books. The host's says what the program has been given: it changes when a call returns. The device's says what is
//! there at this moment of the streams' work: an allocation of a pool begins to live when its stream comes to it. Memory that does
//! not live is mapped without access, every block ends at a page without access, and fresh memory is full of `POISON`.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use kasmina_sys::CUresult;
use kasmina_sys::raw::{CUdeviceptr, CUpointer_attribute as Attribute};
use parking_lot::{Mutex, RwLock};

use super::pools::Pool;
use super::settings::settings;
use super::{Outcome, answer, capture, context, give};

/// Every byte of fresh memory: NaN in every type of floats, the largest number in every unsigned one.
const POISON: u8 = 0xFF;
const PAGE: usize = 4096;
/// Allocations begin at a multiple of this, as the driver's do.
const ALIGNMENT: usize = 512;

/// What an allocation is.
#[derive(Clone)]
pub(crate) enum Kind {
    /// `cuMemAlloc`.
    Direct,
    /// Of a pool, under the handle of the stream of its birth.
    Pooled(Arc<Pool>),
    /// Page-locked memory of the host.
    Pinned,
    /// A variable of a module.
    Global,
}

/// An allocation in the host's book.
#[derive(Clone)]
struct Entry {
    bytes: usize,
    kind: Kind,
    /// None for variables of modules, which lie in their image.
    block: Option<Arc<Block>>,
}

/// Pages of this process, and behind them one without access.
pub(crate) struct Block {
    base: NonNull<u8>,
    /// Bytes without the last page.
    pub(crate) room: usize,
}

// SAFETY: the pages belong to the block; who reads and writes them is the simulated program's affair.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

/// All memory of the device, and page-locked memory of the host.
#[derive(Default)]
pub(crate) struct Memory {
    given: Mutex<Given>,
    live: RwLock<BTreeMap<u64, u64>>,
}

#[derive(Default)]
struct Given {
    entries: BTreeMap<u64, Entry>,
    /// Bytes of the device that blocks take, those in pools among them.
    taken: u64,
}

impl Block {
    /// Maps pages without access.
    fn map(bytes: usize) -> Option<Self> {
        let room = bytes.checked_next_multiple_of(PAGE)?;
        let length = room.checked_add(PAGE)?;
        // SAFETY: a new mapping wherever there is room for it.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        NonNull::new(base.cast()).map(|base| Self { base, room })
    }

    /// Where an allocation of so many bytes begins: as near to the last page as its alignment allows, which catches what reads on.
    pub(crate) fn place(&self, bytes: usize) -> u64 {
        let length = bytes.next_multiple_of(ALIGNMENT).min(self.room);
        (self.base.as_ptr().addr() + self.room - length) as u64
    }

    fn protect(&self, protection: c_int) {
        // SAFETY: the block's own pages.
        let code = unsafe { libc::mprotect(self.base.as_ptr().cast(), self.room, protection) };
        if code != 0 {
            let error = std::io::Error::last_os_error();
            context::the().end(
                CUresult::OUT_OF_MEMORY,
                &format!("the access to {} bytes cannot be changed: {error}", self.room),
            );
        }
    }

    fn open(&self) {
        self.protect(libc::PROT_READ | libc::PROT_WRITE);
        if context::the().alive().is_ok() {
            // SAFETY: the block's own pages, which can be written now.
            unsafe { self.base.as_ptr().write_bytes(POISON, self.room) };
        }
    }

    fn close(&self) {
        // The pages stay the block's: a pool hands them out again, and giving them back costs more than filling them.
        self.protect(libc::PROT_NONE);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and nobody has the block any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.room + PAGE) };
    }
}

impl Memory {
    /// A new block of the device, or `OUT_OF_MEMORY`.
    pub(crate) fn take(&self, bytes: usize) -> Result<Arc<Block>, CUresult> {
        let capacity = settings().map_err(|_| CUresult::NOT_INITIALIZED)?.capacity;
        let room = bytes.checked_next_multiple_of(PAGE).ok_or(CUresult::OUT_OF_MEMORY)? as u64;
        let mut given = self.given.lock();
        if given.taken.checked_add(room).is_none_or(|taken| taken > capacity) {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        let block = Block::map(bytes).ok_or(CUresult::OUT_OF_MEMORY)?;
        given.taken += room;
        Ok(Arc::new(block))
    }

    /// Gives a block of the device back.
    pub(crate) fn give_back(&self, block: Arc<Block>) {
        self.given.lock().taken -= block.room as u64;
        drop(block);
    }

    /// Notes in the host's book what the program is given; its address.
    pub(crate) fn enter(&self, block: &Arc<Block>, bytes: usize, kind: Kind) -> u64 {
        let address = block.place(bytes);
        let entry = Entry { bytes, kind, block: Some(Arc::clone(block)) };
        self.given.lock().entries.insert(address, entry);
        address
    }

    /// Strikes an allocation of the program out of the host's book.
    fn strike(&self, address: u64, is: impl Fn(&Kind) -> bool) -> Result<Entry, CUresult> {
        let mut given = self.given.lock();
        match given.entries.get(&address) {
            Some(entry) if is(&entry.kind) => {
                given.entries.remove(&address).ok_or(CUresult::INVALID_VALUE)
            }
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    /// Strikes an allocation of a pool out.
    pub(crate) fn strike_pooled(
        &self,
        address: u64,
    ) -> Result<(Arc<Pool>, Arc<Block>, usize), CUresult> {
        let entry = self.strike(address, |kind| matches!(kind, Kind::Pooled(_)))?;
        match (entry.kind, entry.block) {
            (Kind::Pooled(pool), Some(block)) => Ok((pool, block, entry.bytes)),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    /// An allocation begins to live: its pages can be used, and hold poison.
    pub(crate) fn begin(&self, block: &Block, bytes: usize) {
        block.open();
        self.live.write().insert(block.place(bytes), bytes as u64);
    }

    /// Whatever lives in the block ends.
    pub(crate) fn finish(&self, block: &Block) {
        let start = block.base.as_ptr().addr() as u64;
        let mut live = self.live.write();
        let found: Vec<u64> =
            live.range(start..start + block.room as u64).map(|(at, _)| *at).collect();
        for at in found {
            live.remove(&at);
        }
        drop(live);
        block.close();
    }

    /// Notes a variable of a module, which lives as long as that.
    pub(crate) fn enter_global(&self, address: u64, bytes: usize) {
        let entry = Entry { bytes, kind: Kind::Global, block: None };
        self.given.lock().entries.insert(address, entry);
        self.live.write().insert(address, bytes as u64);
    }

    /// Strikes the variable out again.
    pub(crate) fn strike_global(&self, address: u64) {
        self.given.lock().entries.remove(&address);
        self.live.write().remove(&address);
    }

    /// The allocation that the program was given around this range, as the host sees it.
    pub(crate) fn given_around(&self, address: u64, bytes: usize) -> Option<Kind> {
        let given = self.given.lock();
        let (start, entry) = given.entries.range(..=address).next_back()?;
        let end = address.checked_add(bytes as u64)?;
        (end <= start + entry.bytes as u64).then(|| entry.kind.clone())
    }

    /// Whether all of the range lives at this moment.
    pub(crate) fn is_live(&self, address: u64, bytes: usize) -> bool {
        let live = self.live.read();
        let around = live.range(..=address).next_back();
        around.is_some_and(|(start, length)| {
            address.checked_add(bytes as u64).is_some_and(|end| end <= start + length)
        })
    }

    /// Lets go of everything.
    pub(crate) fn clear(&self) {
        self.live.write().clear();
        let given = std::mem::take(&mut *self.given.lock());
        drop(given);
    }
}

impl crate::machine::Memory for Memory {
    fn allocation_of(&self, address: u64) -> Option<Range<u64>> {
        let live = self.live.read();
        let (start, bytes) = live.range(..=address).next_back()?;
        (address < start + bytes).then(|| *start..start + bytes)
    }
}

pub(crate) unsafe extern "C" fn allocate(address: *mut CUdeviceptr, bytes: usize) -> CUresult {
    answer(|| {
        let context = context::current()?;
        capture::forbid_beside(context)?;
        if bytes == 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let block = context.memory.take(bytes)?;
        context.memory.begin(&block, bytes);
        let at = context.memory.enter(&block, bytes, Kind::Direct);
        // SAFETY: the caller's place for an address.
        unsafe { give(address, at) }
    })
}

pub(crate) unsafe extern "C" fn free(address: CUdeviceptr) -> CUresult {
    answer(|| {
        let context = context::current()?;
        capture::forbid_beside(context)?;
        if address == 0 {
            return Ok(());
        }
        let entry = context
            .memory
            .strike(address, |kind| matches!(kind, Kind::Direct | Kind::Pooled(_)))?;
        let block = entry.block.ok_or(CUresult::INVALID_VALUE)?;
        // As the driver does it: whatever is queued may use the memory.
        context.streams.drain()?;
        context.memory.finish(&block);
        match entry.kind {
            Kind::Pooled(pool) => pool.free_now(block, entry.bytes),
            _ => context.memory.give_back(block),
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn allocate_host(
    to: *mut *mut c_void,
    bytes: usize,
    flags: c_uint,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        capture::forbid_beside(context)?;
        if bytes == 0 || flags > 7 {
            return Err(CUresult::INVALID_VALUE);
        }
        let block = Arc::new(Block::map(bytes).ok_or(CUresult::OUT_OF_MEMORY)?);
        context.memory.begin(&block, bytes);
        let address = context.memory.enter(&block, bytes, Kind::Pinned);
        // SAFETY: the caller's place for a pointer.
        unsafe { give(to, std::ptr::with_exposed_provenance_mut(address as usize)) }
    })
}

pub(crate) unsafe extern "C" fn free_host(memory: *mut c_void) -> CUresult {
    answer(|| {
        let context = context::current()?;
        capture::forbid_beside(context)?;
        let entry =
            context.memory.strike(memory.addr() as u64, |kind| matches!(kind, Kind::Pinned))?;
        // Nothing is waited for: a copy that is still queued meets memory that is gone, and is told of.
        entry.block.iter().for_each(|block| context.memory.finish(block));
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn info(free: *mut usize, total: *mut usize) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let capacity = settings().map_err(|_| CUresult::NOT_INITIALIZED)?.capacity;
        let taken = context.memory.given.lock().taken;
        // SAFETY: the caller's places for two integers.
        unsafe {
            give(free, capacity.saturating_sub(taken) as usize)?;
            give(total, capacity as usize)
        }
    })
}

pub(crate) unsafe extern "C" fn pointer_attribute(
    data: *mut c_void,
    attribute: Attribute,
    address: CUdeviceptr,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let kind = context.memory.given_around(address, 1).ok_or(CUresult::INVALID_VALUE)?;
        let is_host = matches!(kind, Kind::Pinned);
        // SAFETY: the caller's place for a value of the attribute's type.
        unsafe {
            match attribute {
                Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE => {
                    give(data.cast::<c_uint>(), if is_host { 1 } else { 2 })
                }
                Attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER => give(data.cast::<u64>(), address),
                Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER if is_host => {
                    give(data.cast::<u64>(), address)
                }
                Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => give(data.cast::<c_int>(), 0),
                _ => Err(CUresult::INVALID_VALUE),
            }
        }
    })
}

/// Checks that the program was given this range; memory of a pool may not live yet.
pub(crate) fn must_be_given(memory: &Memory, address: u64, bytes: usize) -> Outcome {
    memory.given_around(address, bytes).map(drop).ok_or(CUresult::INVALID_VALUE)
}
