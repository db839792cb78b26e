//! Allocation from the pool, copies through pinned memory, events.

use cudarc::driver as peer;
use kasmina_bench::host_nanoseconds;
use kasmina_gpu_test::{Body, Failed};
use kasmina_sys::{Context, Device, DeviceBuffer, Event, PinnedBuffer, PinnedKind, Stream};

use super::row;

pub(crate) const BENCHES: &[(&str, Body)] = &[
    ("allocate_and_free", allocate_and_free),
    ("copy_through_pinned_memory", copies),
    ("record_an_event", events),
];

const ROUNDS: usize = 200;

fn allocate_and_free(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let theirs = peer::CudaContext::new(device.ordinal() as usize)?.new_stream()?;
    for (name, bytes) in [("4 KiB", 4usize << 10), ("1 MiB", 1 << 20), ("256 MiB", 256 << 20)] {
        let ours = || -> Result<(), Failed> {
            for _ in 0..ROUNDS {
                DeviceBuffer::<u8>::unwritten(&stream, bytes)?.close()?;
            }
            Ok(())
        };
        let values = host_nanoseconds(ROUNDS, ours, || Ok(stream.synchronize()?))?;
        row(device, &format!("allocate and free/{name}/kasmina"), "ns", &values)?;
        let peer = || -> Result<(), Failed> {
            for _ in 0..ROUNDS {
                // SAFETY: nobody reads what was never written.
                drop(unsafe { theirs.alloc::<u8>(bytes) }?);
            }
            Ok(())
        };
        let values = host_nanoseconds(ROUNDS, peer, || Ok(theirs.synchronize()?))?;
        row(device, &format!("allocate and free/{name}/cudarc"), "ns", &values)?;
    }
    Ok(())
}

fn copies(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let their_context = peer::CudaContext::new(device.ordinal() as usize)?;
    let theirs = their_context.new_stream()?;
    for (name, bytes) in [("4 KiB", 4usize << 10), ("64 MiB", 64 << 20)] {
        let mut pinned = PinnedBuffer::<u8>::zeroed(&context, bytes, PinnedKind::Cached)?;
        let mut buffer = DeviceBuffer::<u8>::zeroed(&stream, bytes)?;
        let values = host_nanoseconds(
            1,
            || {
                buffer.copy_from_pinned(&pinned, &stream)?;
                Ok(stream.synchronize()?)
            },
            || Ok(()),
        )?;
        row(device, &format!("copy to the device and wait/{name}/kasmina"), "ns", &values)?;
        let values = host_nanoseconds(
            1,
            || {
                buffer.copy_to_pinned(&mut pinned, &stream)?;
                Ok(stream.synchronize()?)
            },
            || Ok(()),
        )?;
        row(device, &format!("copy to the host and wait/{name}/kasmina"), "ns", &values)?;

        // SAFETY: zeros are written before anything reads it.
        let mut pinned = unsafe { their_context.alloc_pinned::<u8>(bytes) }?;
        pinned.as_mut_slice()?.fill(0);
        let mut buffer = theirs.alloc_zeros::<u8>(bytes)?;
        let values = host_nanoseconds(
            1,
            || {
                theirs.memcpy_htod(&pinned, &mut buffer)?;
                Ok(theirs.synchronize()?)
            },
            || Ok(()),
        )?;
        row(device, &format!("copy to the device and wait/{name}/cudarc"), "ns", &values)?;
        let values = host_nanoseconds(
            1,
            || {
                theirs.memcpy_dtoh(&buffer, &mut pinned)?;
                Ok(theirs.synchronize()?)
            },
            || Ok(()),
        )?;
        row(device, &format!("copy to the host and wait/{name}/cudarc"), "ns", &values)?;
    }
    Ok(())
}

fn events(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let event = Event::new(&context)?;
    let values = host_nanoseconds(
        ROUNDS,
        || (0..ROUNDS).try_for_each(|_| Ok(event.record(&stream)?)),
        || Ok(stream.synchronize()?),
    )?;
    row(device, "record an event/kasmina", "ns", &values)?;
    let theirs = peer::CudaContext::new(device.ordinal() as usize)?.new_stream()?;
    let event = theirs.record_event(None)?;
    let values = host_nanoseconds(
        ROUNDS,
        || (0..ROUNDS).try_for_each(|_| Ok(event.record(&theirs)?)),
        || Ok(theirs.synchronize()?),
    )?;
    row(device, "record an event/cudarc", "ns", &values)
}
