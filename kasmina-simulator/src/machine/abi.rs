//! What an image and the machine agree on: `include/ksim_machine.h` has the same structs.

use std::ffi::{c_char, c_void};

use super::calls::CALLS;

/// Raised with every change of what is here.
pub(super) const VERSION: u32 = 1;

/// Bytes of a thread's stack, guard page included; stacks lie at multiples of it.
pub(super) const STACK_BYTES: usize = 1 << 17;

/// Where the word lies that says whose stack this is, from any place on it: below the stack's end, of every stack at another distance,
/// since they would all want the same lines of the cache.
pub(super) fn stack_word(at: usize) -> usize {
    let number = at / STACK_BYTES + 1;
    number * STACK_BYTES - 64 - number % 256 * 64
}

/// A block as its threads see it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct BlockView {
    pub(super) index: [u32; 3],
    pub(super) dim: [u32; 3],
    pub(super) grid: [u32; 3],
    pub(super) cluster_rank: u32,
    pub(super) cluster_size: u32,
    pub(super) dynamic_bytes: u32,
    pub(super) shared: *mut u8,
    pub(super) dynamic: *mut u8,
    pub(super) slots: *const u32,
}

/// A thread as it sees itself.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ThreadView {
    pub(super) index: [u32; 3],
    pub(super) lane: u32,
    pub(super) block: *const BlockView,
}

/// Works on the operands of all lanes of a warp operation together.
pub(super) type Complete = unsafe extern "C" fn(operands: *const *mut c_void, mask: u32);

/// Why a thread lets others go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(dead_code, reason = "images make them")]
pub(super) enum Spin {
    Load,
    System,
    Sleep,
    Clock,
    Atomic,
}

/// What a barrier makes of what threads bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(dead_code, reason = "images make them")]
pub(super) enum Combine {
    And,
    Or,
    Count,
}

/// What a copy does with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(dead_code, reason = "images make them")]
pub(super) enum Reduction {
    None = -1,
    Add,
    Min,
    Max,
    Inc,
    Dec,
    And,
    Or,
    Xor,
}

/// The numbers of a bulk addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(dead_code, reason = "images make them")]
pub(super) enum Number {
    U32,
    S32,
    U64,
    F32,
    F64,
}

/// Fences that are no ordinary ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(dead_code, reason = "images make them")]
pub(super) enum Fence {
    Async,
    AsyncShared,
    AsyncGlobal,
    MapRelease,
    MapAcquire,
    BarrierInit,
}

/// A field of a tensor map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(dead_code, reason = "images make them")]
pub(super) enum Field {
    Address,
    Rank,
    Size,
    Stride,
    Box,
    Step,
    Type,
    Interleave,
    Swizzle,
    Fill,
}

/// What the machine does for a thread, in the header's order.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Calls {
    pub(super) barrier: extern "C" fn(id: u32, threads: u32),
    pub(super) barrier_arrive: extern "C" fn(id: u32, threads: u32),
    pub(super) barrier_reduce: extern "C" fn(id: u32, threads: u32, how: Combine, own: u32) -> u32,
    pub(super) warp: extern "C" fn(mask: u32, operand: *mut c_void, complete: Option<Complete>),
    pub(super) grid_sync: extern "C" fn(),
    pub(super) spin: extern "C" fn(why: Spin),
    pub(super) clock: extern "C" fn() -> u64,
    pub(super) trap: extern "C" fn(),
    pub(super) undefined: extern "C" fn(what: *const c_char),
    pub(super) misaligned: extern "C" fn(address: u64, alignment: u64),
    pub(super) shared_address: extern "C" fn(pointer: *const u8) -> u32,
    pub(super) mbarrier_init: extern "C" fn(barrier: u32, arrivals: u32),
    pub(super) mbarrier_invalidate: extern "C" fn(barrier: u32),
    pub(super) mbarrier_arrive: extern "C" fn(barrier: u32, bytes: u32),
    pub(super) mbarrier_expect: extern "C" fn(barrier: u32, bytes: u32),
    pub(super) mbarrier_test: extern "C" fn(barrier: u32, parity: u32) -> u32,
    pub(super) copy: extern "C" fn(to: u32, from: u64, bytes: u32, filled: u32),
    pub(super) copy_commit: extern "C" fn(),
    pub(super) copy_wait: extern "C" fn(pending: u32),
    pub(super) copy_wait_all: extern "C" fn(),
    pub(super) copy_arrive: extern "C" fn(barrier: u32, counted: u32),
    pub(super) bulk_load: extern "C" fn(to: u32, from: u64, bytes: u32, barrier: u32, blocks: u32),
    pub(super) bulk_store:
        extern "C" fn(to: u64, from: u32, bytes: u32, how: Reduction, number: Number),
    pub(super) bulk_prefetch: extern "C" fn(from: u64, bytes: u32),
    pub(super) bulk_commit: extern "C" fn(),
    pub(super) bulk_wait: extern "C" fn(pending: u32, read: u32),
    pub(super) tensor_load: extern "C" fn(
        to: u32,
        map: u64,
        at: *const i32,
        rank: u32,
        pixel: *const u16,
        barrier: u32,
        blocks: u32,
    ),
    pub(super) tensor_store:
        extern "C" fn(map: u64, at: *const i32, rank: u32, from: u32, how: Reduction),
    pub(super) tensor_prefetch: extern "C" fn(map: u64, at: *const i32, rank: u32),
    pub(super) map_replace: extern "C" fn(map: u64, field: Field, index: u32, value: u64),
    pub(super) map_copy: extern "C" fn(to: u64, from: u32),
    pub(super) fence: extern "C" fn(fence: Fence, address: u64),
    pub(super) access: extern "C" fn(address: u64, bytes: u32, kind: u32, from: u64),
    pub(super) atomic: extern "C" fn(address: u64, bytes: u32, kind: u32, order: u32, from: u64),
    pub(super) thread_fence: extern "C" fn(order: u32),
}

/// A kernel of an image.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) name: *const c_char,
    pub(super) call: unsafe extern "C" fn(parameters: *const *mut c_void),
    pub(super) sizes: *const u32,
    pub(super) alignments: *const u32,
    pub(super) parameters: u32,
    pub(super) max_threads: u32,
    pub(super) min_blocks: u32,
    pub(super) registers: u32,
    pub(super) next: *const Entry,
}

/// A shared variable of the source.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Slot {
    pub(super) index: u32,
    pub(super) bytes: u32,
    pub(super) alignment: u32,
    reserved: u32,
}

/// What an image says of itself.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ImageTable {
    pub(super) version: u32,
    pub(super) slots: u32,
    pub(super) entries: *const Entry,
    pub(super) reports: u32,
}

/// The function of an image that gives its table.
pub(super) type Table = unsafe extern "C" fn(calls: *const Calls) -> *const ImageTable;

/// The name of that function.
pub(super) const TABLE: &std::ffi::CStr = c"ksim_image";

/// The machine's calls, for every image.
pub(super) fn calls() -> *const Calls {
    &raw const CALLS
}
