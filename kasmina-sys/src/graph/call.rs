//! A launch as a value, to be queued later as part of a graph.

use std::ffi::c_void;
use std::fmt;

use crate::arguments::KernelArguments;
use crate::function::Function;
use crate::launch::LaunchConfig;
use crate::raw::CUDA_KERNEL_NODE_PARAMS_v2;

/// What no kernel's parameter is aligned to more: a tensor map's.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq)]
struct Line([u8; 64]);

const LINE: usize = size_of::<Line>();

/// A launch that is kept: the kernel, its grid and shared memory, and a copy of its arguments. Two are equal where the same kernel
/// would be given the same bytes.
///
/// It keeps the kernel's module loaded.
#[derive(Clone)]
pub struct KernelCall {
    function: Function,
    config: LaunchConfig,
    bytes: Box<[Line]>,
    /// Where each argument begins.
    offsets: Box<[usize]>,
}

impl KernelCall {
    pub(crate) fn new<A: KernelArguments>(
        function: Function,
        config: LaunchConfig,
        arguments: A,
    ) -> Self {
        let mut end = 0usize;
        let offsets: Box<[usize]> = A::SIZES
            .iter()
            .map(|&size| {
                // The greatest power of two that divides a type's size is no less than what it is aligned to.
                let align = (1 << size.trailing_zeros()).min(LINE);
                let start = end.next_multiple_of(align);
                end = start + size;
                start
            })
            .collect();
        let mut bytes = vec![Line([0; LINE]); end.div_ceil(LINE)].into_boxed_slice();
        let to = bytes.as_mut_ptr().cast::<u8>();
        arguments.with_pointers(|pointers| {
            for ((from, size), offset) in pointers.iter().zip(A::SIZES).zip(&offsets) {
                // SAFETY: an argument's pointer is to so many initialised bytes, by the trait's contract, and the lines have
                // room for them from the offset on.
                unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.add(*offset), *size) };
            }
        });
        Self { function, config, bytes, offsets }
    }

    /// The kernel.
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Grid, blocks and shared memory.
    pub fn config(&self) -> &LaunchConfig {
        &self.config
    }

    /// The driver's form of it, handed to `body` with the list of arguments on the stack.
    pub(super) fn with_raw<R>(&self, body: impl FnOnce(&CUDA_KERNEL_NODE_PARAMS_v2) -> R) -> R {
        let start = self.bytes.as_ptr().cast::<u8>();
        let mut pointers: Vec<*mut c_void> = self
            .offsets
            .iter()
            // SAFETY: the offset of an argument within the lines. The driver reads through these alone.
            .map(|offset| unsafe { start.add(*offset) }.cast_mut().cast())
            .collect();
        let (grid, block) = (self.config.grid(), self.config.block());
        body(&CUDA_KERNEL_NODE_PARAMS_v2 {
            func: self.function.raw(),
            gridDimX: grid.x,
            gridDimY: grid.y,
            gridDimZ: grid.z,
            blockDimX: block.x,
            blockDimY: block.y,
            blockDimZ: block.z,
            sharedMemBytes: self.config.dynamic_shared_bytes(),
            kernelParams: pointers.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            // Looked at only where there is no function.
            kern: std::ptr::null_mut(),
            ctx: std::ptr::null_mut(),
        })
    }
}

impl PartialEq for KernelCall {
    fn eq(&self, other: &Self) -> bool {
        self.function.raw() == other.function.raw()
            && self.config == other.config
            && self.bytes == other.bytes
    }
}

impl fmt::Debug for KernelCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelCall")
            .field("kernel", &self.function.name())
            .field("config", &self.config)
            .field("arguments", &self.offsets.len())
            .finish_non_exhaustive()
    }
}
