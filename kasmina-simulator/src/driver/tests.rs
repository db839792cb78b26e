//! Tests of the driver through the functions that it hands out, in the order in which a program calls them.
//!
//! There is one context a process, so all of it is one test with a part for each promise.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kasmina_sys::CUresult;
use kasmina_sys::raw::{
    CUcontext, CUevent, CUgraph, CUgraphExec, CUmemAllocationType, CUmemLocation,
    CUmemLocationType, CUmemPoolProps_v1, CUmemoryPool, CUstream, CUstreamCaptureMode,
};

use super::{capture, context, copies, device, events, exec, graphs, memory, pools, streams};

const OK: CUresult = CUresult::SUCCESS;
const BYTES: usize = 10_000;

fn ok(code: CUresult) {
    assert_eq!(code, OK);
}

/// Calls with live pointers of this test's own.
macro_rules! call {
    ($($call:tt)*) => {
        // SAFETY: handles and pointers of this test, which live as long as they are used.
        unsafe { $($call)* }
    };
}

fn stream() -> CUstream {
    let mut stream: CUstream = null_mut();
    ok(call!(streams::create(&mut stream, 1, 0)));
    stream
}

fn pool() -> CUmemoryPool {
    let properties = CUmemPoolProps_v1 {
        allocType: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        location: CUmemLocation { type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: 0 },
        ..CUmemPoolProps_v1::default()
    };
    let mut pool: CUmemoryPool = null_mut();
    ok(call!(pools::create(&mut pool, &properties)));
    pool
}

fn read(stream: CUstream, address: u64) -> Vec<u8> {
    let mut bytes = vec![0u8; BYTES];
    ok(call!(copies::to_host(bytes.as_mut_ptr().cast(), address, BYTES, stream)));
    bytes
}

static GATE: AtomicBool = AtomicBool::new(false);

/// Holds a stream up until the gate is opened.
unsafe extern "C" fn wait_at_the_gate(_: *mut c_void) {
    while !GATE.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_program_of_every_kind_of_call() {
    ok(call!(device::init(0)));
    let mut context: CUcontext = null_mut();
    assert_eq!(call!(context::synchronize()), CUresult::INVALID_CONTEXT);
    ok(call!(context::retain(&mut context, 0)));
    ok(call!(context::push(context)));

    memory_is_poisoned_and_ordered_by_streams();
    events_and_streams_wait_for_what_they_should();
    a_capture_becomes_a_graph_and_refuses_what_spoils_it();

    // The last: what it does ends the context.
    memory_that_is_gone_ends_the_context();
    let mut popped: CUcontext = null_mut();
    ok(call!(context::pop(&mut popped)));
    assert_eq!(popped, context);
    ok(call!(context::release(0)));
    assert_eq!(call!(context::release(0)), CUresult::INVALID_CONTEXT);
}

fn memory_is_poisoned_and_ordered_by_streams() {
    let (stream, pool) = (stream(), pool());
    let mut address = 0;
    ok(call!(pools::allocate(&mut address, BYTES, pool, stream)));
    assert!(address.is_multiple_of(512));
    assert_eq!(read(stream, address), [0xFF; BYTES], "fresh memory is poison");
    ok(call!(copies::fill8(address, 7, BYTES, stream)));
    ok(call!(copies::fill32(address, 0x0101_0101, BYTES / 8, stream)));
    let found = read(stream, address);
    assert!(
        found[..BYTES / 2].iter().all(|byte| *byte == 1)
            && found[BYTES / 2..].iter().all(|byte| *byte == 7)
    );
    assert_eq!(call!(copies::fill32(address + 1, 0, 1, stream)), CUresult::INVALID_VALUE);
    assert_eq!(
        call!(copies::fill8(address, 0, BYTES + 1, stream)),
        CUresult::INVALID_VALUE,
        "one byte too many"
    );
    ok(call!(pools::free(address, stream)));
    assert_eq!(call!(pools::free(address, stream)), CUresult::INVALID_VALUE, "freed twice");
    // Released and not waited for: the same stream has the block again, full of poison.
    let mut again = 0;
    ok(call!(pools::allocate(&mut again, BYTES, pool, stream)));
    assert_eq!(again, address);
    assert_eq!(read(stream, again), [0xFF; BYTES]);
    ok(call!(pools::free(again, stream)));
    ok(call!(streams::synchronize(stream)));
    let (mut before, mut after, mut total) = (0, 0, 0);
    ok(call!(memory::info(&mut before, &mut total)));
    ok(call!(pools::trim(pool, 0)));
    ok(call!(memory::info(&mut after, &mut total)));
    assert_eq!((after - before, after), (BYTES.next_multiple_of(4096), total));
    assert_eq!(call!(memory::allocate(&mut address, total + 1)), CUresult::OUT_OF_MEMORY);
    ok(call!(pools::destroy(pool)));
    ok(call!(streams::destroy(stream)));
    assert_eq!(call!(streams::synchronize(stream)), CUresult::INVALID_HANDLE, "a stale handle");
}

fn events_and_streams_wait_for_what_they_should() {
    let (first, second) = (stream(), stream());
    let (mut event, mut address): (CUevent, _) = (null_mut(), 0);
    ok(call!(events::create(&mut event, 0)));
    ok(call!(memory::allocate(&mut address, BYTES)));
    GATE.store(false, Ordering::Release);
    ok(call!(streams::call_host(first, Some(wait_at_the_gate), null_mut())));
    ok(call!(copies::fill8(address, 5, BYTES, first)));
    ok(call!(events::record(event, first)));
    assert_eq!(call!(streams::query(first)), CUresult::NOT_READY);
    assert_eq!(call!(events::query(event)), CUresult::NOT_READY);
    assert_eq!(read(second, address), [0xFF; BYTES], "another stream does not wait");
    ok(call!(events::wait_in_stream(second, event, 0)));
    assert_eq!(call!(streams::query(second)), CUresult::NOT_READY);
    GATE.store(true, Ordering::Release);
    assert_eq!(read(second, address), [5; BYTES], "told to wait, it does");
    ok(call!(events::synchronize(event)));
    let mut milliseconds = -1.0;
    ok(call!(events::elapsed(&mut milliseconds, event, event)));
    assert_eq!(milliseconds, 0.0);
    ok(call!(events::destroy(event)));
    ok(call!(memory::free(address)));
    ok(call!(streams::destroy(first)));
    ok(call!(streams::destroy(second)));
}

fn a_capture_becomes_a_graph_and_refuses_what_spoils_it() {
    let (origin, branch) = (stream(), stream());
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    let (mut event, mut graph, mut exec): (CUevent, CUgraph, CUgraphExec) =
        (null_mut(), null_mut(), null_mut());
    let mut address = 0;
    ok(call!(events::create(&mut event, 0)));
    ok(call!(memory::allocate(&mut address, BYTES)));

    ok(call!(capture::begin(origin, mode)));
    ok(call!(copies::fill8(address, 1, BYTES, origin)));
    ok(call!(events::record(event, origin)));
    assert_eq!(call!(events::wait_in_stream(branch, event, 0)), OK);
    ok(call!(copies::fill8(address, 2, BYTES / 2, branch)));
    assert_eq!(call!(capture::end(branch, &mut graph)), CUresult::STREAM_CAPTURE_UNMATCHED);
    assert_eq!(call!(capture::end(origin, &mut graph)), CUresult::STREAM_CAPTURE_INVALIDATED);

    ok(call!(capture::begin(origin, mode)));
    ok(call!(copies::fill8(address, 1, BYTES, origin)));
    ok(call!(events::record(event, origin)));
    ok(call!(events::wait_in_stream(branch, event, 0)));
    ok(call!(copies::fill8(address, 2, BYTES / 2, branch)));
    assert_eq!(call!(capture::end(origin, &mut graph)), CUresult::STREAM_CAPTURE_UNJOINED);

    ok(call!(capture::begin(origin, mode)));
    assert_eq!(call!(streams::synchronize(origin)), CUresult::STREAM_CAPTURE_UNSUPPORTED);
    assert_eq!(
        call!(copies::fill8(address, 1, BYTES, origin)),
        CUresult::STREAM_CAPTURE_INVALIDATED
    );
    assert_eq!(call!(capture::end(origin, &mut graph)), CUresult::STREAM_CAPTURE_INVALIDATED);
    assert!(graph.is_null());

    ok(call!(capture::begin(origin, mode)));
    ok(call!(copies::fill8(address, 1, BYTES, origin)));
    ok(call!(events::record(event, origin)));
    ok(call!(events::wait_in_stream(branch, event, 0)));
    ok(call!(copies::fill8(address, 2, BYTES / 2, branch)));
    ok(call!(events::record(event, branch)));
    ok(call!(events::wait_in_stream(origin, event, 0)));
    ok(call!(copies::fill8(address + BYTES as u64 - 1, 3, 1, origin)));
    assert_eq!(
        call!(events::query(event)),
        CUresult::STREAM_CAPTURE_UNSUPPORTED,
        "beside a capture of this thread"
    );
    assert_eq!(call!(capture::end(origin, &mut graph)), CUresult::STREAM_CAPTURE_INVALIDATED);

    ok(call!(capture::begin(origin, mode)));
    ok(call!(copies::fill8(address, 1, BYTES, origin)));
    ok(call!(copies::fill8(address, 2, BYTES / 2, origin)));
    ok(call!(capture::end(origin, &mut graph)));
    let mut count = 0;
    ok(call!(graphs::nodes(graph, null_mut(), &mut count)));
    assert_eq!(count, 2);
    assert_eq!(read(origin, address), [0xFF; BYTES], "nothing has run");
    ok(call!(exec::instantiate(&mut exec, graph, 0)));
    let mut nodes = [null_mut(); 2];
    ok(call!(graphs::nodes(graph, nodes.as_mut_ptr(), &mut count)));
    ok(call!(graphs::destroy(graph)));
    ok(call!(exec::launch(exec, origin)));
    let found = read(origin, address);
    assert!(
        found[..BYTES / 2].iter().all(|byte| *byte == 2)
            && found[BYTES / 2..].iter().all(|byte| *byte == 1)
    );
    // The launch that is queued keeps both nodes; the next has one.
    ok(call!(exec::set_enabled(exec, nodes[1], 0)));
    ok(call!(exec::launch(exec, branch)));
    assert_eq!(read(branch, address), [1; BYTES]);
    ok(call!(exec::destroy(exec)));
    ok(call!(memory::free(address)));
    ok(call!(events::destroy(event)));
    ok(call!(streams::destroy(origin)));
    ok(call!(streams::destroy(branch)));
}

fn memory_that_is_gone_ends_the_context() {
    let stream = stream();
    let (mut pinned, mut address) = (null_mut(), 0);
    ok(call!(memory::allocate_host(&mut pinned, BYTES, 0)));
    ok(call!(memory::allocate(&mut address, BYTES)));
    GATE.store(false, Ordering::Release);
    ok(call!(streams::call_host(stream, Some(wait_at_the_gate), null_mut())));
    ok(call!(copies::to_device(address, pinned, BYTES, stream)));
    // Nobody has waited for the copy.
    ok(call!(memory::free_host(pinned)));
    GATE.store(true, Ordering::Release);
    assert_eq!(call!(streams::synchronize(stream)), CUresult::ILLEGAL_ADDRESS);
    // For good.
    assert_eq!(call!(memory::free(address)), CUresult::ILLEGAL_ADDRESS);
    assert_eq!(call!(context::synchronize()), CUresult::ILLEGAL_ADDRESS);
}
