//! Pools: allocations and releases that are work of a stream.
//!
//! A block whose release is queued can be had at once by the next allocation on the same stream, and by others once the stream has
//! come to it.

use std::sync::Arc;

use kasmina_sys::CUresult;
use kasmina_sys::raw::{
    CUdeviceptr, CUmemAllocationType, CUmemLocationType, CUmemPool_attribute as Attribute,
    CUmemPoolProps_v1, CUmemoryPool, CUstream,
};
use parking_lot::Mutex;

use super::handles::{fresh, pointer};
use super::memory::{Block, Kind};
use super::streams::Op;
use super::{answer, capture, context, device, give};

/// A pool.
pub(crate) struct Pool(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// Blocks that nobody uses.
    free: Vec<Arc<Block>>,
    /// Blocks whose release is queued on a stream: its handle and the number of the release.
    queued: Vec<(usize, u64, Arc<Block>)>,
    releases: u64,
    used: u64,
    used_high: u64,
    reserved: u64,
    reserved_high: u64,
    /// What stays with the pool when the host synchronizes; kept because it can be asked for.
    threshold: u64,
}

impl Held {
    /// The block that fits best, of the free ones or of those that `stream` will have released by then.
    fn pick(&mut self, bytes: usize, stream: usize) -> Option<Arc<Block>> {
        // Half of a block may be wasted, and of small ones all but a page.
        let fits =
            |block: &Block| block.room >= bytes && block.room / 2 <= bytes.next_multiple_of(4096);
        let queued = self
            .queued
            .iter()
            .enumerate()
            .filter(|(_, (of, _, block))| *of == stream && fits(block));
        if let Some((at, _)) = queued.min_by_key(|(_, (_, _, block))| block.room) {
            return Some(self.queued.swap_remove(at).2);
        }
        let free = self.free.iter().enumerate().filter(|(_, block)| fits(block));
        let at = free.min_by_key(|(_, block)| block.room)?.0;
        Some(self.free.swap_remove(at))
    }

    fn use_more(&mut self, bytes: usize) {
        self.used += bytes as u64;
        self.used_high = self.used_high.max(self.used);
    }
}

impl Pool {
    /// The stream has come to a release; the block is free unless a later allocation of the stream has it.
    pub(crate) fn take_back(&self, block: &Arc<Block>, number: u64) {
        let mut held = self.0.lock();
        if let Some(at) = held.queued.iter().position(|(_, of, _)| *of == number) {
            held.queued.swap_remove(at);
            held.free.push(Arc::clone(block));
        }
    }

    /// A release that no stream stands for.
    pub(crate) fn free_now(&self, block: Arc<Block>, bytes: usize) {
        let mut held = self.0.lock();
        held.used -= bytes as u64;
        held.free.push(block);
    }
}

pub(crate) unsafe extern "C" fn create(
    pool: *mut CUmemoryPool,
    properties: *const CUmemPoolProps_v1,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        // SAFETY: null or the caller's properties.
        let properties = unsafe { properties.as_ref() }.ok_or(CUresult::INVALID_VALUE)?;
        let on_device = properties.location.type_ == CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        if properties.allocType != CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED || !on_device
        {
            return Err(CUresult::INVALID_VALUE);
        }
        device::known(properties.location.id)?;
        let handle = fresh();
        context.pools.add(handle, Arc::new(Pool(Mutex::default())));
        // SAFETY: the caller's place for a handle.
        unsafe { give(pool, pointer(handle)) }
    })
}

pub(crate) unsafe extern "C" fn destroy(pool: CUmemoryPool) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let pool = context.pools.remove(pool)?;
        let mut held = pool.0.lock();
        // What is in use stays with its owners.
        let free = std::mem::take(&mut held.free);
        held.reserved -= free.iter().map(|block| block.room as u64).sum::<u64>();
        free.into_iter().for_each(|block| context.memory.give_back(block));
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn trim(pool: CUmemoryPool, keep: usize) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let pool = context.pools.get(pool)?;
        let mut held = pool.0.lock();
        while held.reserved > keep as u64 {
            let Some(block) = held.free.pop() else { break };
            held.reserved -= block.room as u64;
            context.memory.give_back(block);
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn set(
    pool: CUmemoryPool,
    attribute: Attribute,
    value: *mut std::ffi::c_void,
) -> CUresult {
    answer(|| {
        let pool = context::current()?.pools.get(pool)?;
        let mut held = pool.0.lock();
        match attribute {
            Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD if !value.is_null() => {
                // SAFETY: this attribute's value is an integer of 64 bits.
                held.threshold = unsafe { value.cast::<u64>().read() };
                Ok(())
            }
            Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH => {
                held.reserved_high = held.reserved;
                Ok(())
            }
            Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH => {
                held.used_high = held.used;
                Ok(())
            }
            _ => Err(CUresult::INVALID_VALUE),
        }
    })
}

pub(crate) unsafe extern "C" fn get(
    pool: CUmemoryPool,
    attribute: Attribute,
    value: *mut std::ffi::c_void,
) -> CUresult {
    answer(|| {
        let pool = context::current()?.pools.get(pool)?;
        let held = pool.0.lock();
        let found = match attribute {
            Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD => held.threshold,
            Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT => held.reserved,
            Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH => held.reserved_high,
            Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT => held.used,
            Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH => held.used_high,
            _ => return Err(CUresult::INVALID_VALUE),
        };
        // SAFETY: these attributes' values are integers of 64 bits.
        unsafe { give(value.cast(), found) }
    })
}

pub(crate) unsafe extern "C" fn allocate(
    address: *mut CUdeviceptr,
    bytes: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let (pool, stream) = (context.pools.get(pool)?, context.streams.get(stream)?);
        if bytes == 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        // It would be a node of the graph, which this driver does not have.
        capture::forbid_on(context, &stream)?;
        capture::forbid_beside(context)?;
        let block = {
            let mut held = pool.0.lock();
            let block = match held.pick(bytes, stream.handle()) {
                Some(block) => block,
                None => {
                    let block = context.memory.take(bytes)?;
                    held.reserved += block.room as u64;
                    held.reserved_high = held.reserved_high.max(held.reserved);
                    block
                }
            };
            held.use_more(bytes);
            block
        };
        stream.queue(Op::Birth(Arc::clone(&block), bytes));
        let at = context.memory.enter(&block, bytes, Kind::Pooled(pool));
        // SAFETY: the caller's place for an address.
        unsafe { give(address, at) }
    })
}

pub(crate) unsafe extern "C" fn free(address: CUdeviceptr, stream: CUstream) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let stream = context.streams.get(stream)?;
        capture::forbid_on(context, &stream)?;
        capture::forbid_beside(context)?;
        let (pool, block, bytes) = context.memory.strike_pooled(address)?;
        // Noted and queued in one step: who gets the block from the pool queues behind the release.
        stream.queue_with(|| {
            let number = {
                let mut held = pool.0.lock();
                held.used -= bytes as u64;
                held.releases += 1;
                let number = held.releases;
                held.queued.push((stream.handle(), number, Arc::clone(&block)));
                number
            };
            Op::Death(block, pool, number)
        });
        Ok(())
    })
}
