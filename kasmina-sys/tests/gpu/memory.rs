//! Buffers, pools, page-locked memory and copies on a device.

use std::time::Instant;

use kasmina_gpu_test::proptest::collection::vec;
use kasmina_gpu_test::{Body, Cases, Failed, ensure, is_sanitized, not_applicable};
use kasmina_sys::{
    Allocator, CUresult, CaptureMode, Context, Device, DeviceBuffer, DevicePointer, DeviceSlice,
    DeviceSliceMut, Error, Event, Graph, GraphExec, LaunchConfig, PinnedBuffer, PinnedKind,
    PoolUsage, Stream, current_context,
};

use crate::programs::{World, step};
use crate::support::{LONG, hold_up, open};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("memory_buffers_of_every_size_round_trip", round_trip),
    ("memory_copies_of_many_sizes_and_offsets_cross_streams", copies_cross_streams),
    ("memory_random_programs_do_what_the_model_does", programs_agree),
    ("memory_the_pool_reuses_what_is_freed", pool_reuses),
    ("memory_small_blocks_give_way_to_a_large_one", small_blocks_give_way),
    ("memory_too_much_is_an_error_value", too_much),
    ("memory_pinned_of_both_kinds_reaches_host_and_device", pinned_kinds),
    ("memory_pinned_waits_for_what_is_in_flight", pinned_waits),
    ("memory_pinned_drop_waits_for_what_is_in_flight", pinned_drop_waits),
    ("memory_slices_of_foreign_memory", foreign_memory),
    ("memory_dropped_during_a_capture_is_freed_after_it", dropped_during_capture),
    ("memory_waits_beside_a_strict_capture_do_no_harm", beside_a_capture),
    ("memory_threads_hammer_one_context", threads_hammer),
    ("memory_leaves_no_context_current", no_context_left),
];

fn pattern(len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i ^ seed).wrapping_mul(0x9E37_79B1)).collect()
}

fn same<T: PartialEq>(found: &[T], expected: &[T], what: &str) -> Result<(), Failed> {
    let differing = found.iter().zip(expected).position(|(found, expected)| found != expected);
    ensure(found.len() == expected.len() && differing.is_none(), || {
        format!("{what}: {} elements, the first that differs is {differing:?}", found.len())
    })
}

/// What the pool holds once everything is done, in this test and in those before it: they share the device's pool.
pub(crate) fn usage(context: &Context) -> Result<PoolUsage, Failed> {
    context.synchronize()?;
    let why = || {
        let reason = context.allocator().why_no_pool().map(ToString::to_string);
        not_applicable(reason.unwrap_or_default())
    };
    context.pool_usage()?.ok_or_else(why)
}

fn round_trip(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    println!("{:?}", context.allocator());
    for len in [0usize, 1, 3, 255, 4096, 1_000_003, 64 << 20] {
        let host: Vec<u16> = (0..len).map(|i| (i * 40_503) as u16).collect();
        let buffer = DeviceBuffer::from_host(&stream, &host)?;
        same(&buffer.to_vec()?, &host, "a copy")?;
        let mut back = vec![1u16; len];
        let zeros = DeviceBuffer::<u16>::zeroed(&stream, len)?;
        zeros.copy_to_host(&mut back)?;
        ensure(back.iter().all(|&value| value == 0), || format!("{len} zeros differ"))?;
        buffer.close()?;
    }
    Ok(())
}

fn copies_cross_streams(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let streams = [Stream::new(&context)?, Stream::new(&context)?, Stream::default_of(&context)];
    let mut odd = 0;
    for len in [1usize, 2, 31, 1024, 65_537, 3_000_001] {
        for (home, other) in [(0, 1), (1, 0), (2, 0), (0, 2), (1, 1)] {
            odd += 1;
            let host = pattern(len + 16, odd);
            let source = DeviceBuffer::from_host(&streams[home], &host)?;
            let mut target = DeviceBuffer::<u32>::zeroed(&streams[other], len + 16)?;
            let mut landing = PinnedBuffer::<u32>::zeroed(&context, len, PinnedKind::Cached)?;
            let (from, to) = (odd as usize % 16, odd as usize * 7 % 16);
            target
                .slice_mut(to..to + len)?
                .copy_from_device(source.slice(from..from + len)?, &streams[home])?;
            drop(source);
            target.slice(to..to + len)?.copy_to_pinned(&mut landing, &streams[other])?;
            drop(target);
            same(
                landing.as_slice()?,
                &host[from..from + len],
                &format!("{len}, {home} to {other}"),
            )?;
        }
    }
    Ok(())
}

fn programs_agree(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    // 16 KiB and 1 MiB a copy: less and more than what the driver handles specially.
    for unit in [1usize << 10, 1 << 16] {
        Cases::from_environment(100)?.check(&vec(step(), 1..60), |program| {
            let mut world = World::new(context.clone(), unit)?;
            for step in &program {
                world.step(step)?;
            }
            Ok(world.check()?)
        })?;
    }
    Ok(())
}

fn pool_reuses(device: Device) -> Result<(), Failed> {
    const BYTES: usize = 32 << 20;
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    context.trim_pool(0)?;
    let empty = usage(&context)?;
    let mut addresses = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        let buffer = DeviceBuffer::<u8>::zeroed(&stream, BYTES)?;
        addresses.insert(buffer.address());
    }
    let full = usage(&context)?;
    println!("{full:?}, {} addresses", addresses.len());
    ensure(full.used == empty.used && full.used_high >= BYTES as u64, || format!("{full:?}"))?;
    let taken = full.reserved - empty.reserved;
    ensure((BYTES as u64..8 * BYTES as u64).contains(&taken), || {
        format!("a thousand buffers, one at a time: {empty:?} before, {full:?} after")
    })?;
    context.trim_pool(0)?;
    let trimmed = usage(&context)?;
    ensure(trimmed.reserved == empty.reserved, || format!("{trimmed:?}"))?;
    ensure(matches!(context.allocator(), Allocator::Pool(_)), || "no pool".to_owned())
}

fn small_blocks_give_way(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    usage(&context)?;
    context.trim_pool(0)?;
    let (free, _) = context.memory_info()?;
    let (small, large) = (free as usize / 100, free as usize / 10 * 8);
    for round in 0..2 {
        let mut blocks = Vec::new();
        for _ in 0..60 {
            blocks.push(DeviceBuffer::<u8>::unwritten(&stream, small)?);
        }
        drop(blocks);
        let whole = DeviceBuffer::<u8>::unwritten(&stream, large);
        let at = usage(&context)?;
        ensure(whole.is_ok(), || {
            format!("round {round}, {large} of {free} bytes: {whole:?}, {at:?}")
        })?;
    }
    // The pool would keep it from everything that comes later.
    usage(&context)?;
    Ok(context.trim_pool(0)?)
}

fn too_much(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let (_, total) = context.memory_info()?;
    for _ in 0..3 {
        let error = DeviceBuffer::<u8>::zeroed(&stream, total as usize + (1 << 30)).err();
        let expected = matches!(&error, Some(Error::Call { code: CUresult::OUT_OF_MEMORY, .. }));
        ensure(expected, || format!("{error:?}"))?;
    }
    // Nothing is the worse for it.
    let buffer = DeviceBuffer::from_host(&stream, &pattern(100, 1))?;
    same(&buffer.to_vec()?, &pattern(100, 1), "a buffer afterwards")
}

fn pinned_kinds(device: Device) -> Result<(), Failed> {
    const LEN: usize = 100_000;
    let (stream, module) = open(device)?;
    let context = stream.context();
    let add = module.kernel::<(DevicePointer<u32>, DevicePointer<u32>, u32)>("trial_join")?;
    for kind in [PinnedKind::Cached, PinnedKind::WriteCombined] {
        let mut pinned = PinnedBuffer::<u32>::zeroed(context, LEN, kind)?;
        ensure(pinned.as_slice()?.iter().all(|&word| word == 0), || format!("{kind:?}: not zero"))?;
        pinned.as_mut_slice()?.copy_from_slice(&pattern(LEN, 3));
        let mut buffer = DeviceBuffer::<u32>::unwritten(&stream, LEN)?;
        buffer.copy_from_pinned(&pinned, &stream)?;
        // Read by the kernel over the bus, while the host may read along.
        let arguments =
            (buffer.pointer(), DevicePointer::new(pinned.device_address()?), LEN as u32);
        // SAFETY: the kernel's parameters; both have so many elements, and `in_use_by` makes the host wait for the end.
        unsafe { add.launch(&stream, &LaunchConfig::new(64, 256), arguments) }?;
        pinned.in_use_by(&stream)?;
        let doubled: Vec<u32> = pattern(LEN, 3).iter().map(|word| word.wrapping_mul(2)).collect();
        buffer.copy_to_pinned(&mut pinned, &stream)?;
        same(pinned.as_slice()?, &doubled, &format!("{kind:?}"))?;
        println!("{kind:?}: host {:p}, device {:#x}", pinned.address(), pinned.device_address()?);
        pinned.close()?;
    }
    Ok(())
}

fn pinned_waits(device: Device) -> Result<(), Failed> {
    if is_sanitized() {
        return Err(not_applicable("under a sanitizer the host is slower than the device"));
    }
    const LEN: usize = 1 << 20;
    let context = Context::primary(device)?;
    let (stream, other) = (Stream::new(&context)?, Stream::new(&context)?);
    let mut buffer = DeviceBuffer::from_host(&stream, &pattern(LEN, 5))?;
    let mut landing = PinnedBuffer::<u32>::zeroed(&context, LEN, PinnedKind::Cached)?;
    hold_up(&stream)?;
    buffer.copy_to_pinned(&mut landing, &stream)?;
    ensure(!landing.is_ready()?, || "ready before its copy could run".to_owned())?;
    // The same buffer from another stream: after the first copy, though that stream is idle.
    buffer.copy_from_pinned(&landing, &other)?;
    let begin = Instant::now();
    same(landing.as_slice()?, &pattern(LEN, 5), "what was waited for")?;
    ensure(begin.elapsed() > LONG / 2, || format!("{:?} is no wait", begin.elapsed()))?;
    hold_up(&other)?;
    buffer.copy_from_pinned(&landing, &other)?;
    landing.as_mut_slice()?.fill(0);
    same(&buffer.to_vec()?, &pattern(LEN, 5), "what was written too late")
}

fn pinned_drop_waits(device: Device) -> Result<(), Failed> {
    if is_sanitized() {
        return Err(not_applicable("under a sanitizer the host is slower than the device"));
    }
    const LEN: usize = 1 << 20;
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let mut buffer = DeviceBuffer::<u32>::zeroed(&stream, LEN)?;
    for seed in 0..5 {
        let pinned =
            PinnedBuffer::from_slice(&context, &pattern(LEN, seed), PinnedKind::WriteCombined)?;
        hold_up(&stream)?;
        buffer.copy_from_pinned(&pinned, &stream)?;
        let begin = Instant::now();
        drop(pinned);
        ensure(begin.elapsed() > LONG / 2, || format!("{:?} is no wait", begin.elapsed()))?;
        same(&buffer.to_vec()?, &pattern(LEN, seed), "a copy from a buffer that is gone")?;
    }
    Ok(())
}

/// Memory of this driver call, given back however the test ends.
struct Foreign<'a>(&'a Context, u64);

impl Drop for Foreign<'_> {
    fn drop(&mut self) {
        let freed = self.0.with_current(|| {
            let free = self.0.device().driver().cuMemFree()?;
            // SAFETY: the address came from `cuMemAlloc`; the tests have waited for what uses it.
            Ok(unsafe { free(self.1) })
        });
        println!("foreign memory freed: {freed:?}");
    }
}

fn foreign_memory(device: Device) -> Result<(), Failed> {
    const LEN: usize = 5000;
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let mut address = 0;
    let code = context.with_current(|| {
        let allocate = device.driver().cuMemAlloc()?;
        // SAFETY: a live address and a size that is not zero.
        Ok(unsafe { allocate(&mut address, LEN * 4) })
    })?;
    ensure(code.is_success(), || format!("cuMemAlloc: {code}"))?;
    let foreign = Foreign(&context, address);
    // SAFETY: so many elements lie there, until `foreign` goes, and nothing else uses them.
    let mut all = unsafe { DeviceSliceMut::<u32>::from_raw(&stream, address, LEN) }?;
    all.copy_from_host(&pattern(LEN, 8))?;
    all.slice_mut(10..20)?.fill_u32(77, &stream)?;
    let mut expected = pattern(LEN, 8);
    expected[10..20].fill(77);
    let mut buffer = DeviceBuffer::<u32>::unwritten(&stream, LEN)?;
    // SAFETY: as above; both are only read.
    let again = unsafe { DeviceSlice::<u32>::from_raw(&stream, address, LEN) }?;
    buffer.copy_from_device(again, &stream)?;
    same(&buffer.to_vec()?, &expected, "by way of a buffer")?;
    same(&all.as_slice().to_vec()?, &expected, "at once")?;
    drop(foreign);
    Ok(())
}

fn dropped_during_capture(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let before = usage(&context)?.used;
    let mut kept = DeviceBuffer::from_host(&stream, &pattern(1000, 2))?;
    let dropped = DeviceBuffer::<u8>::zeroed(&stream, 1 << 20)?;
    let mut refused = None;
    let graph = Graph::capture(&stream, CaptureMode::ThreadLocal, |stream| {
        kept.fill_u32(9, stream)?;
        drop(dropped);
        refused = DeviceBuffer::<u8>::unwritten(stream, 1).err();
        kept.slice_mut(..5)?.fill_zero(stream)
    })?;
    ensure(matches!(refused, Some(Error::Capturing { .. })), || format!("{refused:?}"))?;
    ensure(graph.nodes()? == 2, || format!("{:?} nodes", graph.nodes()))?;
    same(&kept.to_vec()?, &pattern(1000, 2), "what a capture must not touch")?;
    drop(kept);
    let after = usage(&context)?.used;
    ensure(after == before, || format!("{before} bytes used before, {after} after"))
}

fn beside_a_capture(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let (captured, other) = (Stream::new(&context)?, Stream::new(&context)?);
    let third = Stream::new(&context)?;
    let mut earlier: Option<(Graph, GraphExec)> = None;
    for mode in [CaptureMode::ThreadLocal, CaptureMode::Global, CaptureMode::Relaxed] {
        let mut held = DeviceBuffer::<u32>::zeroed(&captured, 1000)?;
        let mut landing = PinnedBuffer::<u32>::zeroed(&context, 1000, PinnedKind::Cached)?;
        let buffer = DeviceBuffer::from_host(&other, &pattern(1000, 4))?;
        hold_up(&other)?;
        buffer.copy_to_pinned(&mut landing, &other)?;
        let mut seen = Ok(());
        let graph = Graph::capture(&captured, mode, |captured| {
            held.fill_u32(1, captured)?;
            let elsewhere = || -> Result<(), Failed> {
                landing.is_ready()?;
                same(landing.as_slice()?, &pattern(1000, 4), "page-locked memory")?;
                same(&buffer.to_vec()?, &pattern(1000, 4), "a blocking copy")?;
                // Allocations and events too, which a join or a copy may make unasked, and all that is dropped.
                let mut made = DeviceBuffer::<u32>::zeroed(&other, 1000)?;
                made.copy_from_pinned(&landing, &third)?;
                drop(PinnedBuffer::<u8>::zeroed(&context, 5000, PinnedKind::WriteCombined)?);
                made.close()?;
                Ok(Event::new(&context)?.close()?)
            };
            // In a thread of its own, in this one, and the drops in this one.
            seen = std::thread::scope(|scope| {
                scope.spawn(elsewhere).join().map_err(|_| "it panicked")?
            });
            seen = seen.clone().and_then(|()| elsewhere());
            drop((landing, buffer, earlier.take()));
            Ok(())
        })?;
        seen?;
        ensure(graph.nodes()? == 1, || format!("{mode:?}: {:?} nodes", graph.nodes()))?;
        let exec = graph.instantiate()?;
        earlier = Some((graph, exec));
    }
    Ok(())
}

fn threads_hammer(device: Device) -> Result<(), Failed> {
    const THREADS: u32 = 8;
    let context = Context::primary(device)?;
    let shared = Stream::new(&context)?;
    let source = DeviceBuffer::from_host(&shared, &pattern(10_000, 6))?;
    let work = |thread: u32| -> Result<(), Failed> {
        let own = Stream::new(&context)?;
        let mut landing = PinnedBuffer::<u32>::zeroed(&context, 10_000, PinnedKind::Cached)?;
        for round in 0..200 {
            let (home, on) = if round % 2 == 0 { (&own, &shared) } else { (&shared, &own) };
            let mut buffer = DeviceBuffer::<u32>::unwritten(home, 10_000)?;
            buffer.copy_from_device(source.as_slice(), on)?;
            buffer.slice_mut(..10)?.fill_u32(thread, home)?;
            buffer.copy_to_pinned(&mut landing, on)?;
            let mut expected = pattern(10_000, 6);
            expected[..10].fill(thread);
            same(landing.as_slice()?, &expected, "what a thread copied")?;
        }
        ensure(current_context(device)?.is_null(), || "a context was left current".to_owned())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "it panicked")?)
    })
}

fn no_context_left(device: Device) -> Result<(), Failed> {
    let before = current_context(device)?;
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let mut buffer = DeviceBuffer::<u32>::zeroed(&stream, 1000)?;
    let mut pinned = PinnedBuffer::<u32>::zeroed(&context, 1000, PinnedKind::Cached)?;
    buffer.copy_from_pinned(&pinned, &stream)?;
    buffer.copy_to_pinned(&mut pinned, &stream)?;
    pinned.as_slice()?;
    drop((buffer, pinned, stream));
    context.trim_pool(0)?;
    context.close()?;
    let after = current_context(device)?;
    ensure(before == after, || format!("{before:?} before, {after:?} after"))
}
