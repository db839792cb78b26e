//! What the machine does for threads: the functions that images call, each on the stack of the thread that calls it.

use std::ffi::{CStr, c_char, c_void};

use super::FaultKind;
use super::abi::{Calls, Combine, Complete, Fence, Field, Number, Reduction, Spin, stack_word};
use super::barrier::BARRIERS;
use super::bulk::Named;
use super::grid::{Grid, Id, Step};
use super::races::Atomic;
use super::thread::{Local, Waiting};
use super::warp::{LANES, Meeting};

/// For every image.
pub(super) static CALLS: Calls = Calls {
    barrier,
    barrier_arrive,
    barrier_reduce,
    warp,
    grid_sync,
    spin,
    clock,
    trap,
    undefined,
    misaligned,
    shared_address,
    mbarrier_init,
    mbarrier_invalidate,
    mbarrier_arrive,
    mbarrier_expect,
    mbarrier_test,
    copy,
    copy_commit,
    copy_wait,
    copy_wait_all,
    copy_arrive,
    bulk_load,
    bulk_store,
    bulk_prefetch,
    bulk_commit,
    bulk_wait,
    tensor_load,
    tensor_store,
    tensor_prefetch,
    map_replace,
    map_copy,
    fence,
    access,
    atomic,
    thread_fence,
};

/// The thread that calls: what lies behind its stack.
fn local() -> &'static Local {
    let at: usize;
    // SAFETY: reads a register.
    unsafe {
        std::arch::asm!("mov {}, rsp", out(reg) at, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: only threads of a grid call into this file, and each stack has the thread's own record there. It lives as long as the
    // thread, and nothing here keeps it for longer than a call.
    unsafe { &**(stack_word(at) as *const *const Local) }
}

/// Does a call with the grid at hand, and waits where it says so. Answers the result.
fn call(body: impl FnOnce(&mut Grid<'static>, Id) -> Step) -> u64 {
    let local = local();
    // SAFETY: one thread of a grid runs at a time, and nobody else holds the grid while one does.
    let grid = unsafe { &mut *local.grid };
    let step = body(grid, local.id);
    if grid.fault.is_some() {
        pause(local, Waiting::End);
    }
    match step {
        Step::Go(result) => result,
        Step::Park(waiting) => {
            grid.blocks.thread(local.id).waiting = waiting;
            pause(local, waiting);
            // SAFETY: as above; the grid was not held over the pause.
            let grid = unsafe { &mut *local.grid };
            grid.blocks.thread(local.id).result
        }
    }
}

/// Gives the processor back to the grid. Comes back when the thread is woken; at the grid's end, never.
fn pause(local: &Local, waiting: Waiting) {
    // SAFETY: the pointer is to the pause on this very stack, as long as the thread runs.
    unsafe { (*local.pause.get()).suspend(waiting) };
}

/// The same for calls that neither wait nor answer.
fn act(body: impl FnOnce(&mut Grid<'static>, Id)) {
    call(|grid, id| {
        body(grid, id);
        Step::Go(0)
    });
}

// ---------------------------------------------------------------------------------------------------------------- barriers

fn meet(id: u32, threads: u32, waits: bool, how: Option<Combine>, own: bool) -> u32 {
    let result = call(|grid, me| {
        let (count, warps) = {
            let block = grid.block(me);
            (block.threads(), block.threads().next_multiple_of(LANES))
        };
        if id as usize >= BARRIERS || !threads.is_multiple_of(LANES) || threads > warps {
            let why = format!(
                "barrier {id} for {threads} threads in a block of {count}: there are {BARRIERS} barriers, for whole warps of the block"
            );
            grid.fail(Some(me), FaultKind::Undefined(why));
            return Step::Go(0);
        }
        let block = grid.block(me);
        let present = block.live;
        let barrier = &mut block.barriers[id as usize];
        // The whole block may be said in two ways at the barrier of `__syncthreads`. At others a number is a number: threads that have
        // arrived without waiting and are gone by now have come all the same.
        let wanted = if threads == count && id == 0 { 0 } else { threads };
        if let Err(why) = barrier.arrive(me.thread, wanted, waits, own) {
            grid.fail(Some(me), FaultKind::Undefined(format!("{why} (barrier {id})")));
            return Step::Go(0);
        }
        let done = barrier.complete(present);
        grid.tell(|races| races.barrier_come(me, id));
        let Some(mut done) = done else {
            return if waits { Step::Park(Waiting::Barrier { id, how }) } else { Step::Go(0) };
        };
        grid.tell(|races| races.barrier_end(me.block, id as usize, &done.waiting));
        done.waiting.retain(|&thread| thread != me.thread);
        let own = how.map_or(0, |how| u64::from(done.result(how)));
        grid.release(me.block, done);
        Step::Go(own)
    });
    result as u32
}

extern "C" fn barrier(id: u32, threads: u32) {
    meet(id, threads, true, None, true);
}

extern "C" fn barrier_arrive(id: u32, threads: u32) {
    meet(id, threads, false, None, true);
}

extern "C" fn barrier_reduce(id: u32, threads: u32, how: Combine, own: u32) -> u32 {
    meet(id, threads, true, Some(how), own != 0)
}

extern "C" fn grid_sync() {
    call(Grid::grid_sync);
}

extern "C" fn warp(mask: u32, operand: *mut c_void, complete: Option<Complete>) {
    let mut last: Option<Box<Meeting>> = None;
    call(|grid, me| {
        let warp = &mut grid.block(me).warps[(me.thread / LANES) as usize];
        match warp.arrive(me.thread % LANES, mask, operand, complete) {
            Ok(Some(meeting)) => {
                last = Some(Box::new(meeting));
                Step::Go(0)
            }
            Ok(None) => Step::Park(Waiting::Warp { mask }),
            Err(why) => {
                grid.fail(Some(me), FaultKind::Undefined(why));
                Step::Go(0)
            }
        }
    });
    // Where the last lane to come has exited instead, one that waited does what it would have done.
    let mut meeting = last;
    if meeting.is_none() {
        act(|grid, me| meeting = grid.blocks.thread(me).meeting.take());
    }
    let Some(meeting) = meeting else { return };
    if let Some(complete) = meeting.complete {
        act(|grid, _| grid.completing = true);
        // SAFETY: each operand is on the stack of a lane that waits, or of this one, and all are of the same operation.
        unsafe { complete(meeting.operands.as_ptr(), meeting.arrived) };
    }
    act(|grid, me| {
        grid.completing = false;
        let first = me.thread / LANES * LANES;
        let lanes =
            (0..LANES).filter(|&lane| meeting.arrived >> lane & 1 != 0).map(|lane| first + lane);
        // Of all operations of a warp, __syncwarp alone orders memory.
        grid.tell(|races| match meeting.complete {
            None => races.meet(me.block, lanes.clone()),
            Some(_) => races.exchange(me.block, lanes.clone()),
        });
        for thread in lanes.filter(|&thread| thread != me.thread) {
            grid.wake(Id { block: me.block, thread }, 0);
        }
    });
}

// -------------------------------------------------------------------------------------------------------- time and faults

extern "C" fn spin(why: Spin) {
    call(|grid, _| match why {
        // Others change the word now and then between two instructions, as they would.
        Spin::Atomic if !grid.random.once_in(8) => Step::Go(0),
        _ => Step::Park(Waiting::Others(why)),
    });
}

extern "C" fn clock() -> u64 {
    call(|grid, _| Step::Go(grid.clock()))
}

extern "C" fn trap() {
    act(|grid, me| grid.fail(Some(me), FaultKind::Trap));
}

extern "C" fn undefined(what: *const c_char) {
    // SAFETY: images pass literals.
    let what = unsafe { CStr::from_ptr(what) }.to_string_lossy().into_owned();
    act(|grid, me| grid.fail(Some(me), FaultKind::Undefined(what)));
}

extern "C" fn misaligned(address: u64, alignment: u64) {
    let kind = FaultKind::MisalignedAddress { access: "an access", address, alignment };
    act(|grid, me| grid.fail(Some(me), kind));
}

// ----------------------------------------------------------------------------------------------------------- shared memory

extern "C" fn shared_address(pointer: *const u8) -> u32 {
    let address = call(|grid, me| match grid.block(me).shared.address_of(pointer) {
        Some(address) => Step::Go(u64::from(address)),
        None => {
            let why = format!("{pointer:p} taken for a place in the block's shared memory");
            grid.fail(Some(me), FaultKind::Undefined(why));
            Step::Go(0)
        }
    });
    address as u32
}

// --------------------------------------------------------------------------------------------------------------- mbarriers

extern "C" fn mbarrier_init(barrier: u32, arrivals: u32) {
    act(|grid, me| grid.mbarrier_init(me, barrier, arrivals));
}

extern "C" fn mbarrier_invalidate(barrier: u32) {
    act(|grid, me| grid.mbarrier_invalidate(me, barrier));
}

extern "C" fn mbarrier_arrive(barrier: u32, bytes: u32) {
    act(|grid, me| grid.mbarrier_arrive(me, barrier, bytes));
}

extern "C" fn mbarrier_expect(barrier: u32, bytes: u32) {
    act(|grid, me| grid.mbarrier_expect(me, barrier, bytes));
}

extern "C" fn mbarrier_test(barrier: u32, parity: u32) -> u32 {
    let over = call(|grid, me| grid.mbarrier_test(me, barrier, parity));
    if over != 0 {
        act(|grid, me| grid.tell(|races| races.mbarrier_waited(me, barrier)));
    }
    over as u32
}

// ------------------------------------------------------------------------------------------------------------------ copies

extern "C" fn copy(to: u32, from: u64, bytes: u32, filled: u32) {
    act(|grid, me| grid.copy(me, to, from, bytes, filled));
}

extern "C" fn copy_commit() {
    act(|grid, me| grid.copy_commit(me));
}

extern "C" fn copy_wait(pending: u32) {
    act(|grid, me| grid.copy_wait(me, pending as usize, false));
}

extern "C" fn copy_wait_all() {
    act(|grid, me| grid.copy_wait(me, 0, true));
}

extern "C" fn copy_arrive(barrier: u32, counted: u32) {
    act(|grid, me| grid.copy_arrive(me, barrier, counted != 0));
}

extern "C" fn bulk_load(to: u32, from: u64, bytes: u32, barrier: u32, blocks: u32) {
    act(|grid, me| grid.bulk_load(me, to, from, bytes, barrier, blocks));
}

extern "C" fn bulk_store(to: u64, from: u32, bytes: u32, how: Reduction, number: Number) {
    act(|grid, me| grid.bulk_store(me, to, from, bytes, how, number));
}

extern "C" fn bulk_prefetch(from: u64, bytes: u32) {
    act(|grid, me| grid.bulk_prefetch(me, from, bytes));
}

extern "C" fn bulk_commit() {
    act(|grid, me| grid.bulk_commit(me));
}

extern "C" fn bulk_wait(pending: u32, read: u32) {
    act(|grid, me| grid.bulk_wait(me, pending, read != 0));
}

extern "C" fn tensor_load(
    to: u32,
    map: u64,
    at: *const i32,
    rank: u32,
    pixel: *const u16,
    barrier: u32,
    blocks: u32,
) {
    // SAFETY: an image passes as many coordinates as it says, and two fewer offsets or none.
    let (at, pixel) = unsafe {
        let offsets =
            (!pixel.is_null()).then(|| std::slice::from_raw_parts(pixel, rank as usize - 2));
        (std::slice::from_raw_parts(at, rank as usize), offsets)
    };
    act(|grid, me| grid.tensor_load(me, to, &Named { map, at, pixel }, barrier, blocks));
}

extern "C" fn tensor_store(map: u64, at: *const i32, rank: u32, from: u32, how: Reduction) {
    // SAFETY: an image passes as many coordinates as it says.
    let at = unsafe { std::slice::from_raw_parts(at, rank as usize) };
    act(|grid, me| grid.tensor_store(me, map, at, from, how));
}

extern "C" fn tensor_prefetch(map: u64, at: *const i32, rank: u32) {
    // SAFETY: an image passes as many coordinates as it says.
    let at = unsafe { std::slice::from_raw_parts(at, rank as usize) };
    act(|grid, me| grid.tensor_prefetch(me, map, at));
}

extern "C" fn map_replace(map: u64, field: Field, index: u32, value: u64) {
    act(|grid, me| grid.map_replace(me, map, field, index, value));
}

extern "C" fn map_copy(to: u64, from: u32) {
    act(|grid, me| grid.map_copy(me, to, from));
}

extern "C" fn fence(_: Fence, _: u64) {}

// ---------------------------------------------------------------------------------------------- of images that report accesses

extern "C" fn access(address: u64, bytes: u32, kind: u32, from: u64) {
    act(|grid, me| grid.access(me, address, u64::from(bytes), kind, from));
}

extern "C" fn atomic(address: u64, bytes: u32, kind: u32, order: u32, from: u64) {
    let kind = match kind {
        0 => Atomic::Load,
        1 => Atomic::Store,
        _ => Atomic::Change,
    };
    act(|grid, me| grid.atomic(me, address, u64::from(bytes), kind, order, from));
}

extern "C" fn thread_fence(_: u32) {
    act(|grid, me| grid.tell(|races| races.fence(me)));
}
