//! Things made and dropped over and over, which must leave nothing behind: memory, page-locked memory, contexts.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr::NonNull;

use kasmina_gpu_test::{Body, Failed, ensure, not_applicable};
use kasmina_sys::{
    CUresult, CaptureMode, Context, CudaVersion, Device, DeviceBuffer, Event, Graph, LaunchConfig,
    PinnedBuffer, PinnedKind, Stream,
};

use crate::memory::usage;
use crate::support::{leaks_nothing, open};

/// Comes before everything that allocates.
pub(crate) const FIRST: &[(&str, Body)] = &[("contexts_begin_anew", contexts_begin_anew)];

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("memory_rounds_of_buffers_leak_nothing", buffers_leak_nothing),
    ("memory_rounds_of_pinned_memory_leak_nothing", pinned_leaks_nothing),
    ("memory_rounds_of_contexts_leak_nothing", contexts_leak_nothing),
];

/// Open files, sockets and device handles of this process.
fn open_files() -> Result<usize, Failed> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// [`leaks_nothing`], and no file of the process stays open either. The driver opens some on its first use of a thing; more than
/// that cannot hide in 8.
fn and_no_files(context: &Context, body: impl Fn() -> Result<(), Failed>) -> Result<(), Failed> {
    body()?;
    let before = open_files()?;
    leaks_nothing(context, body)?;
    let after = open_files()?;
    ensure(after <= before + 8, || format!("{before} open files before, {after} after"))
}

fn buffers_leak_nothing(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let (home, other) = (Stream::new(&context)?, Stream::new(&context)?);
    let before = usage(&context)?.used;
    and_no_files(&context, || {
        let mut buffer = DeviceBuffer::<u32>::zeroed(&home, 100_000)?;
        let mut second = DeviceBuffer::<u32>::unwritten(&other, 1000)?;
        second.copy_from_device(buffer.slice(5..1005)?, &other)?;
        buffer.slice_mut(..1000)?.copy_from_device(second.as_slice(), &home)?;
        Ok(buffer.close()?)
    })?;
    let now = usage(&context)?;
    ensure(now.used == before, || format!("{before} bytes used before, {now:?}"))
}

fn pinned_leaks_nothing(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let buffer = DeviceBuffer::<u32>::zeroed(&stream, 5000)?;
    and_no_files(&context, || {
        for kind in [PinnedKind::Cached, PinnedKind::WriteCombined] {
            let mut pinned = PinnedBuffer::<u32>::zeroed(&context, 5000, kind)?;
            buffer.copy_to_pinned(&mut pinned, &stream)?;
            pinned.close()?;
        }
        Ok(())
    })
}

/// Contexts of which none is the last, so that what a share in one costs is what is seen; the pool is the device's.
fn contexts_leak_nothing(device: Device) -> Result<(), Failed> {
    let held = Context::primary(device)?;
    let before = usage(&held)?.used;
    and_no_files(&held, || {
        let context = Context::primary(device)?;
        let stream = Stream::new(&context)?;
        // Nobody waits: the free is still queued when its stream goes.
        DeviceBuffer::<u8>::zeroed(&stream, 1 << 16)?.close()?;
        stream.close()?;
        Ok(context.close()?)
    })?;
    let now = usage(&held)?;
    ensure(now.used == before, || format!("{before} bytes used before, {now:?}"))
}

/// Contexts that go for good, with everything that was made in them: few, because the driver takes long to make one. Once
/// there is a pool of the device none of them goes any more, so this comes before all other tests.
fn contexts_begin_anew(device: Device) -> Result<(), Failed> {
    const ROUNDS: u32 = 10;
    let active = || -> Result<bool, Failed> {
        type State = unsafe extern "C" fn(c_int, *mut c_uint, *mut c_int) -> CUresult;
        let address =
            device.driver().resolve("cuDevicePrimaryCtxGetState", CudaVersion::new(7, 0))?;
        // SAFETY: the function of that name in `cuda.h` has this signature.
        let ask = unsafe { std::mem::transmute::<NonNull<c_void>, State>(address) };
        let (mut flags, mut active) = (0, 0);
        // SAFETY: a device of this driver and two live integers.
        let code = unsafe { ask(device.handle(), &mut flags, &mut active) };
        ensure(code.is_success(), || format!("cuDevicePrimaryCtxGetState: {code}"))?;
        Ok(active != 0)
    };
    if active()? {
        return Err(not_applicable("the primary context is in use already; run this test alone"));
    }
    for round in 0..ROUNDS {
        let (stream, module) = open(device)?;
        let context = stream.context().clone();
        let kernel = module.kernel::<()>("trial_nothing")?;
        let event = Event::new(&context)?;
        let pinned = PinnedBuffer::<u32>::zeroed(&context, 1000, PinnedKind::Cached)?;
        // SAFETY: a kernel without parameters that does nothing; the module outlives the wait.
        unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), ()) }?;
        event.record(&stream)?;
        let graph = Graph::capture(&stream, CaptureMode::ThreadLocal, |stream| {
            // SAFETY: as above.
            unsafe { kernel.launch(stream, &LaunchConfig::new(1, 32), ()) }
        })?;
        let exec = graph.instantiate()?;
        stream.synchronize()?;
        // In an order in which each next one is the last that holds the context but one.
        drop((context, kernel, module, exec, stream, pinned, graph));
        ensure(active()?, || "gone while an event was left".to_owned())?;
        drop(event);
        ensure(!active()?, || format!("round {round}: the context stayed"))?;
    }
    Ok(())
}
