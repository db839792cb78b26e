//! How many blocks and clusters of a kernel a device holds at once.

use std::ffi::c_int;

use crate::error::{Error, check};
use crate::function::Function;
use crate::launch::LaunchConfig;
use crate::raw::{CUoccupancy_flags, DeviceAttribute};

/// A launch that fills the device, as the driver computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSuggestion {
    /// The least number of blocks that fills it.
    pub grid: u32,
    /// Threads of a block.
    pub block: u32,
}

impl Function {
    /// Blocks of `threads` threads with `shared_bytes` of dynamic shared memory that one multiprocessor holds at once; 0 where
    /// not even one fits.
    ///
    /// # Errors
    /// The driver refused, for instance a block of no threads.
    pub fn max_active_blocks(&self, threads: u32, shared_bytes: u32) -> Result<u32, Error> {
        let context = self.module().context();
        let call =
            context.device().driver().cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags()?;
        let mut blocks: c_int = 0;
        let c_threads = to_int(threads);
        let flags = CUoccupancy_flags::CU_OCCUPANCY_DEFAULT.0;
        context.with_current(|| {
            // SAFETY: a live integer and a live kernel; the context is current.
            let code =
                unsafe { call(&mut blocks, self.raw(), c_threads, shared_bytes as usize, flags) };
            check("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", code, || {
                format!("{}, {threads} threads, {shared_bytes} bytes", self.name())
            })
        })?;
        Ok(u32::try_from(blocks).unwrap_or(0))
    }

    /// Blocks that the whole device holds at once: what a cooperative grid may have.
    ///
    /// # Errors
    /// Those of [`Function::max_active_blocks`].
    pub fn resident_blocks(&self, threads: u32, shared_bytes: u32) -> Result<u32, Error> {
        let of_one = self.max_active_blocks(threads, shared_bytes)?;
        Ok(of_one.saturating_mul(self.module().limits().multiprocessors))
    }

    /// Clusters of this configuration that the whole device holds at once. Less than the blocks would suggest: the blocks of a
    /// cluster share a group of multiprocessors.
    ///
    /// # Errors
    /// [`Error::Launch`] for a configuration that cannot be launched, or the driver refused.
    pub fn max_active_clusters(&self, config: &LaunchConfig) -> Result<u32, Error> {
        self.check(config)?;
        let context = self.module().context();
        let call = context.device().driver().cuOccupancyMaxActiveClusters()?;
        let mut clusters: c_int = 0;
        config.with_raw(std::ptr::null_mut(), |raw| {
            context.with_current(|| {
                // SAFETY: a live integer, a live kernel and a live configuration; the context is current.
                let code = unsafe { call(&mut clusters, self.raw(), raw) };
                check("cuOccupancyMaxActiveClusters", code, || {
                    format!("{}, {config:?}", self.name())
                })
            })
        })?;
        Ok(u32::try_from(clusters).unwrap_or(0))
    }

    /// The block size that keeps most threads resident, with `shared_bytes` of dynamic shared memory whatever the size; at most
    /// `limit` threads where one is given.
    ///
    /// # Errors
    /// The driver refused.
    pub fn suggested_block(
        &self,
        shared_bytes: u32,
        limit: Option<u32>,
    ) -> Result<BlockSuggestion, Error> {
        let context = self.module().context();
        let call = context.device().driver().cuOccupancyMaxPotentialBlockSize()?;
        let (mut grid, mut block): (c_int, c_int) = (0, 0);
        // 0 stands for no limit.
        let c_limit = limit.map_or(0, |limit| to_int(limit.max(1)));
        context.with_current(|| {
            // SAFETY: live integers and a live kernel; without a callback the driver takes the size as it is given.
            let code = unsafe {
                call(&mut grid, &mut block, self.raw(), None, shared_bytes as usize, c_limit)
            };
            check("cuOccupancyMaxPotentialBlockSize", code, || {
                format!("{}, {shared_bytes} bytes, limit {limit:?}", self.name())
            })
        })?;
        let count = |value| u32::try_from(value).unwrap_or(0);
        Ok(BlockSuggestion { grid: count(grid), block: count(block) })
    }

    /// Dynamic shared memory that each of `blocks` blocks of `threads` threads can have when that many share a multiprocessor,
    /// bytes.
    ///
    /// # Errors
    /// The driver refused, for instance because so many blocks do not fit at all.
    pub fn available_shared_memory(&self, blocks: u32, threads: u32) -> Result<usize, Error> {
        let context = self.module().context();
        let call = context.device().driver().cuOccupancyAvailableDynamicSMemPerBlock()?;
        let mut bytes = 0usize;
        context.with_current(|| {
            // SAFETY: a live integer and a live kernel; the context is current.
            let code = unsafe { call(&mut bytes, self.raw(), to_int(blocks), to_int(threads)) };
            check("cuOccupancyAvailableDynamicSMemPerBlock", code, || {
                format!("{}, {blocks} blocks, {threads} threads", self.name())
            })
        })?;
        // A driver (580.159.04, on an H200) divides the multiprocessor's memory and forgets what the system keeps of it for
        // each block: of the 116,736 bytes that it gave to each of two blocks only one block had room.
        let asked = u32::try_from(bytes).unwrap_or(u32::MAX);
        if self.max_active_blocks(threads, asked)? >= blocks {
            return Ok(bytes);
        }
        let kept = context.device().attribute(DeviceAttribute::RESERVED_SHARED_MEMORY_PER_BLOCK)?;
        Ok(bytes.saturating_sub(usize::try_from(kept).unwrap_or(0)))
    }
}

/// The driver's integers are signed; what does not fit is more than any device has.
fn to_int(value: u32) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}
