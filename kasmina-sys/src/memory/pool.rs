//! Where device memory comes from: the device's pool, whose allocations and frees are work of a stream, or the driver's plain
//! allocation where there are no pools.
//!
//! There is one pool a device, made at the first need and kept for the life of the process together with a share in the
//! primary context. A pool of each context's own would have to be taken apart with it, while frees are still queued, and that
//! corrupts the driver's heap (580.159.04: of five loops of a C program that did so, four died of SIGSEGV within 1,000 rounds;
//! with a synchronization before each destruction all lived). Whoever comes later finds the pool filled, too. What it costs is
//! that the primary context stays, as it does
//! for programs that use the CUDA runtime.

use std::collections::HashMap;
use std::fmt;

use parking_lot::Mutex;

use crate::capture::apart_from_captures;
use crate::context::Context;
use crate::device::Device;
use crate::error::{Error, check};
use crate::raw::{
    CUdevice, CUdeviceptr, CUmemAllocationHandleType, CUmemAllocationType, CUmemLocation,
    CUmemLocationType, CUmemPool_attribute, CUmemPoolProps_v1, CUmemoryPool, CUresult, CUstream,
    DeviceAttribute,
};
use crate::stream::Stream;
use crate::unavailable::Unavailable;

/// Where the buffers of a context come from.
#[derive(Debug)]
#[non_exhaustive]
pub enum Allocator {
    /// This crate's pool of the device, which all its contexts of the process share. Allocating and freeing wait for nobody, and
    /// what was freed is kept for the next buffer; [`Context::trim_pool`] gives it back.
    Pool(MemoryPool),
    /// `cuMemAlloc` and `cuMemFree`, which may wait for the device; a buffer's home is synchronized before it is freed.
    Direct(NoPool),
}

/// Why a context has no pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoPool {
    /// The device has none.
    #[error("device {ordinal} has no memory pools")]
    Device {
        /// The device's ordinal.
        ordinal: u32,
    },
    /// The driver lacks a function that a pool needs.
    #[error(transparent)]
    Driver(Unavailable),
    /// The driver refused to make one.
    #[error("no memory pool could be made: {0}")]
    Refused(Error),
}

/// What a pool holds, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// Held by the pool, used or not.
    pub reserved: u64,
    /// The most that was ever held.
    pub reserved_high: u64,
    /// Held by buffers, those included whose free no stream has come to yet.
    pub used: u64,
    /// The most that was ever held by buffers.
    pub used_high: u64,
}

impl Allocator {
    pub(crate) fn choose(context: &Context) -> Self {
        match MemoryPool::of(context) {
            Ok(pool) => Self::Pool(pool),
            Err(reason) => Self::Direct(reason),
        }
    }

    /// Why it is not a pool, `None` where it is one.
    pub fn why_no_pool(&self) -> Option<&NoPool> {
        match self {
            Self::Pool(_) => None,
            Self::Direct(reason) => Some(reason),
        }
    }
}

/// The memory pool of one device.
#[derive(Clone, Copy)]
pub struct MemoryPool(CUmemoryPool);

// SAFETY: a pool handle belongs to no thread; the driver locks for itself.
unsafe impl Send for MemoryPool {}
// SAFETY: as above; nothing here is changed after construction.
unsafe impl Sync for MemoryPool {}

/// The pools of one driver's devices, each with the share in the primary context that keeps it usable.
#[derive(Default)]
pub(crate) struct Pools(Mutex<HashMap<CUdevice, (MemoryPool, Context)>>);

impl MemoryPool {
    /// The pool of the context's device, made where there is none yet.
    fn of(context: &Context) -> Result<Self, NoPool> {
        let device = context.device();
        // Held while one is made: of two threads that need the first pool, one makes it.
        let mut pools = device.driver().pools.0.lock();
        if let Some(&(pool, _)) = pools.get(&device.handle()) {
            return Ok(pool);
        }
        let pool = Self::create(context)?;
        pools.insert(device.handle(), (pool, context.clone()));
        Ok(pool)
    }

    fn create(context: &Context) -> Result<Self, NoPool> {
        let device = context.device();
        match device.attribute(DeviceAttribute::MEMORY_POOLS_SUPPORTED) {
            Ok(0) => return Err(NoPool::Device { ordinal: device.ordinal() }),
            Ok(_) => {}
            Err(Error::Unavailable(missing)) => return Err(NoPool::Driver(missing)),
            Err(error) => return Err(NoPool::Refused(error)),
        }
        let driver = device.driver();
        // All of them before creating: a pool that cannot be used to the end is worse than none.
        driver.cuMemPoolDestroy().map_err(NoPool::Driver)?;
        driver.cuMemAllocFromPoolAsync().map_err(NoPool::Driver)?;
        driver.cuMemFreeAsync().map_err(NoPool::Driver)?;
        driver.cuMemPoolSetAttribute().map_err(NoPool::Driver)?;
        let call = driver.cuMemPoolCreate().map_err(NoPool::Driver)?;
        let properties = CUmemPoolProps_v1 {
            allocType: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: CUmemLocation {
                type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
                id: device.handle(),
            },
            ..CUmemPoolProps_v1::default()
        };
        let mut raw: CUmemoryPool = std::ptr::null_mut();
        let made = apart_from_captures(context, || {
            // SAFETY: a live handle and live properties, whose unused fields are zero as the header asks.
            let code = unsafe { call(&mut raw, &properties) };
            check("cuMemPoolCreate", code, || format!("device {}", device.ordinal()))?;
            let pool = Self(raw);
            match pool.keep_everything(device) {
                Ok(()) => Ok(pool),
                Err(error) => {
                    // The first failure is the one that explains things.
                    let _ = pool.destroy(device);
                    Err(error)
                }
            }
        });
        made.map_err(NoPool::Refused)
    }

    /// By default a pool returns what is free at each synchronization, and the next step of a training loop allocates it again.
    fn keep_everything(&self, device: Device) -> Result<(), Error> {
        let call = device.driver().cuMemPoolSetAttribute()?;
        let mut threshold = u64::MAX;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: a live pool, and a live integer of the type that this attribute has.
        let code = unsafe { call(self.0, attribute, (&raw mut threshold).cast()) };
        check("cuMemPoolSetAttribute", code, || format!("release threshold {threshold}"))
    }

    /// The driver's handle, valid for the life of the process.
    pub fn raw(&self) -> CUmemoryPool {
        self.0
    }

    pub(crate) fn usage(&self, device: Device) -> Result<PoolUsage, Error> {
        let call = device.driver().cuMemPoolGetAttribute()?;
        let ask = |attribute: CUmemPool_attribute| -> Result<u64, Error> {
            let mut value = 0u64;
            // SAFETY: a live pool, and a live integer of the type that these attributes have.
            let code = unsafe { call(self.0, attribute, (&raw mut value).cast()) };
            check("cuMemPoolGetAttribute", code, || format!("attribute {}", attribute.0))?;
            Ok(value)
        };
        Ok(PoolUsage {
            reserved: ask(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?,
            reserved_high: ask(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?,
            used: ask(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?,
            used_high: ask(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
        })
    }

    pub(crate) fn trim(&self, device: Device, keep_bytes: u64) -> Result<(), Error> {
        let call = device.driver().cuMemPoolTrimTo()?;
        let keep = usize::try_from(keep_bytes).unwrap_or(usize::MAX);
        // SAFETY: a live pool.
        check("cuMemPoolTrimTo", unsafe { call(self.0, keep) }, || format!("{keep} bytes"))
    }

    /// For one that was just made, and that nothing was allocated from.
    fn destroy(self, device: Device) -> Result<(), Error> {
        let call = device.driver().cuMemPoolDestroy()?;
        // SAFETY: the pool was made by the caller, who destroys it once and hands it to nobody.
        check("cuMemPoolDestroy", unsafe { call(self.0) }, || format!("pool {:p}", self.0))
    }
}

impl fmt::Debug for MemoryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryPool").field(&self.0).finish()
    }
}

/// `bytes` (not zero) of device memory that is there for whatever comes later on `home`.
pub(super) fn allocate(home: &Stream, bytes: usize) -> Result<CUdeviceptr, Error> {
    let context = home.context();
    // One switch of contexts for all the calls below. An allocation on a stream of its own does nothing to a capture on another.
    apart_from_captures(context, || {
        // The allocation would become a node of the graph, and the address be good during its replays alone.
        if home.is_capturing()? {
            return Err(Error::Capturing { what: "an allocation" });
        }
        home.free_parked();
        let Allocator::Pool(pool) = context.allocator() else {
            return allocate_direct(context, bytes);
        };
        match allocate_from(pool, home, bytes) {
            Err(Error::Call { code: CUresult::OUT_OF_MEMORY, .. }) => {
                // Freed memory that does not suit stays with the pool until it is given back.
                home.drain()?;
                context.trim_pool(0)?;
                allocate_from(pool, home, bytes)
            }
            outcome => outcome,
        }
    })
}

fn allocate_from(pool: &MemoryPool, home: &Stream, bytes: usize) -> Result<CUdeviceptr, Error> {
    let call = home.context().device().driver().cuMemAllocFromPoolAsync()?;
    let mut address: CUdeviceptr = 0;
    home.context().with_current(|| {
        // SAFETY: a live address, a size that is not zero, a live pool and a live stream.
        let code = unsafe { call(&mut address, bytes, pool.0, home.raw()) };
        check("cuMemAllocFromPoolAsync", code, || format!("{bytes} bytes, {home}"))
    })?;
    Ok(address)
}

fn allocate_direct(context: &Context, bytes: usize) -> Result<CUdeviceptr, Error> {
    let driver = context.device().driver();
    // Looked up before allocating: what was allocated can then always be freed.
    driver.cuMemFree()?;
    let call = driver.cuMemAlloc()?;
    let mut address: CUdeviceptr = 0;
    context.with_current(|| {
        // SAFETY: the pointer is to a live address, the size is not zero, and the context is current.
        let code = unsafe { call(&mut address, bytes) };
        check("cuMemAlloc", code, || format!("{bytes} bytes"))
    })?;
    Ok(address)
}

/// Frees what [`allocate`] gave, after everything queued on `home` so far. The stream is not being captured.
pub(crate) fn free_on(
    context: &Context,
    home: CUstream,
    address: CUdeviceptr,
) -> Result<(), Error> {
    let driver = context.device().driver();
    match context.allocator() {
        Allocator::Pool(_) => {
            let call = driver.cuMemFreeAsync()?;
            // Also where the stream has nothing to do with any capture, a strict one forbids the call (CUDA 13.0).
            apart_from_captures(context, || {
                // SAFETY: the address came from this device's pool and is freed once, on the stream it was allocated on.
                let code = unsafe { call(address, home) };
                check("cuMemFreeAsync", code, || format!("address {address:#x}"))
            })
        }
        Allocator::Direct(_) => {
            let (wait, free) = (driver.cuStreamSynchronize()?, driver.cuMemFree()?);
            apart_from_captures(context, || {
                // SAFETY: a live stream.
                let code = unsafe { wait(home) };
                check("cuStreamSynchronize", code, || format!("before freeing {address:#x}"))
                    // Memory that may be in use must leak; this makes sure that it is.
                    .or_else(|error| context.synchronize().map_err(|_| error))?;
                // SAFETY: the address came from `cuMemAlloc`, is freed once, and its stream is done with it.
                check("cuMemFree", unsafe { free(address) }, || format!("address {address:#x}"))
            })
        }
    }
}
