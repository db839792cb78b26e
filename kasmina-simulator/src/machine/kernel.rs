//! A kernel of an image, and launches of it.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::code::Code;
use super::{Fault, Memory, run};

/// Where a parameter lies among a kernel's, as `cuFuncGetParamInfo` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Bytes before it.
    pub offset: usize,
    /// Bytes of it.
    pub size: usize,
}

/// A `__global__` function of an image.
#[derive(Debug)]
#[non_exhaustive]
pub struct Kernel {
    /// As `cuModuleGetFunction` asks for it.
    pub name: String,
    /// In the order of the source.
    pub parameters: Vec<Parameter>,
    /// The most threads of a block: of `__launch_bounds__`, else 1024.
    pub max_threads: u32,
    /// Bytes of shared memory that it declares with a size.
    pub static_shared: usize,
    /// Registers of a thread, which this machine does not have: the most that the launch bounds leave, or a number of the usual size.
    pub registers: u32,
    pub(super) call: unsafe extern "C" fn(parameters: *const *mut c_void),
    /// Where each of the image's shared variables lies in this kernel's blocks; 0 where it has none of it.
    pub(super) slots: Box<[u32]>,
    pub(super) runs: AtomicU64,
    /// Whether it reports every access to memory.
    pub(super) reports: bool,
    pub(super) code: Arc<Code>,
}

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster; ones for none.
    pub cluster: [u32; 3],
    /// Bytes of shared memory beside the declared ones.
    pub dynamic_shared: u32,
    /// Whether all blocks are there at once.
    pub cooperative: bool,
}

impl Launch {
    pub(super) fn cluster_blocks(&self) -> u64 {
        self.cluster.iter().map(|&side| u64::from(side)).product()
    }

    pub(super) fn clusters(&self) -> u64 {
        self.grid.iter().map(|&side| u64::from(side)).product::<u64>() / self.cluster_blocks()
    }

    /// The indices of a block by its cluster and its rank there.
    pub(super) fn block_of(&self, cluster: u64, rank: u32) -> [u32; 3] {
        let across: [u64; 3] = std::array::from_fn(|d| u64::from(self.grid[d] / self.cluster[d]));
        let [x, y, _] = self.cluster;
        let place = [
            cluster % across[0],
            cluster / across[0] % across[1],
            cluster / (across[0] * across[1]),
        ];
        let within = [rank % x, rank / x % y, rank / (x * y)];
        std::array::from_fn(|d| place[d] as u32 * self.cluster[d] + within[d])
    }
}

impl Kernel {
    /// Runs a grid to its end on the calling thread. `arguments` are the parameters' bytes.
    ///
    /// # Errors
    /// What the grid died of; memory is then as the threads have left it.
    pub fn run(
        &self,
        launch: &Launch,
        arguments: &[Vec<u8>],
        memory: &dyn Memory,
    ) -> Result<(), Fault> {
        run::run(self, launch, arguments, memory)
    }

    /// A number that is another one for each run of each kernel, and the same ones when a program is run again.
    pub(super) fn next_run(&self) -> u64 {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let name = self.name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        name.wrapping_add(run.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}
