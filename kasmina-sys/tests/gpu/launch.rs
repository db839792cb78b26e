//! Launches on a device: every shape and everything else that a launch can ask for, from many threads too.

use std::time::Duration;

use kasmina_gpu_test::{Body, Failed, ensure, is_sanitized, not_applicable};
use kasmina_sys::{
    Context, Device, DeviceBuffer, DevicePointer, Dim3, Error, LaunchConfig, Stream,
    current_context,
};

use crate::support::{Arithmetic, Words, equal, has_clusters, open, refusal};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("launch_shapes_arrive", shapes),
    ("launch_clusters_have_their_ranks", clusters),
    ("launch_cooperative_grids_up_to_what_is_resident", cooperative),
    ("launch_programmatic_launches_overlap_and_keep_their_order", programmatic),
    ("launch_priorities_decide_who_waits", priorities),
    ("launch_threads_share_a_kernel", threads),
    ("launch_leaves_no_context_current", nothing_left_current),
    ("launch_refuses_a_stream_of_another_device", another_device),
];

fn shapes(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernel = module.kernel::<(Words,)>("trial_shape")?;
    for (grid, block) in [
        ([1, 1, 1], [1, 1, 1]),
        ([7, 1, 1], [1024, 1, 1]),
        ([3, 2, 4], [4, 2, 8]),
        ([1, 65_535, 1], [1, 1, 64]),
        ([1, 1, 65_535], [1, 32, 1]),
        ([1_000_003, 1, 1], [32, 1, 1]),
    ] {
        let (grid, block) = (Dim3::from(grid), Dim3::from(block));
        // One more, which nobody writes.
        let out = DeviceBuffer::<u32>::zeroed(&stream, grid.count() as usize + 1)?;
        // SAFETY: the kernel's parameters; it writes a word a block.
        unsafe { kernel.launch(&stream, &LaunchConfig::new(grid, block), (out.pointer(),)) }?;
        let mut expected = vec![1 + block.count() as u32; grid.count() as usize];
        expected.push(0);
        ensure(out.to_vec()? == expected, || format!("grid {grid}, block {block}"))?;
    }
    Ok(())
}

/// What `trial_cluster` writes for a grid of clusters.
fn expected_ranks(grid: [u32; 3], cluster: [u32; 3]) -> Vec<u32> {
    let size = cluster.iter().product::<u32>();
    let mut ranks = Vec::new();
    for z in 0..grid[2] {
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                let [cx, cy, cz] = [x % cluster[0], y % cluster[1], z % cluster[2]];
                ranks.push((cz * cluster[1] + cy) * cluster[0] + cx + 256 * size);
            }
        }
    }
    ranks
}

fn clusters(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernel = module.kernel::<(Words,)>("trial_cluster")?;
    if !has_clusters(device)? {
        let out = DeviceBuffer::<u32>::zeroed(&stream, 2)?;
        let config = LaunchConfig::new(2, 32).cluster(2);
        // SAFETY: the kernel's parameters; it writes a word a block.
        let refused = unsafe { kernel.launch(&stream, &config, (out.pointer(),)) };
        equal("the limit", refusal(refused)?.2, 1)?;
        return Err(not_applicable("the device has no clusters, and refused them"));
    }
    let launch = |grid: [u32; 3], cluster: [u32; 3]| -> Result<(), Failed> {
        let config = LaunchConfig::new(grid, 64).cluster(cluster);
        let out = DeviceBuffer::<u32>::zeroed(&stream, config.grid().count() as usize)?;
        // SAFETY: as above.
        unsafe { kernel.launch(&stream, &config, (out.pointer(),)) }?;
        equal(&format!("ranks in {cluster:?}"), out.to_vec()?, expected_ranks(grid, cluster))
    };
    for cluster in [[1, 1, 1], [2, 1, 1], [4, 1, 1], [8, 1, 1], [2, 2, 1], [2, 2, 2], [1, 4, 2]] {
        launch(cluster.map(|part| part * 3), cluster)?;
        let config = LaunchConfig::new(cluster, 64).cluster(cluster);
        let active = kernel.max_active_clusters(&config)?;
        let most = kernel.resident_blocks(64, 0)? / cluster.iter().product::<u32>();
        ensure((1..=most).contains(&active), || {
            format!("{cluster:?}: {active} of {most} clusters")
        })?;
    }
    let large = LaunchConfig::new(32, 64).cluster(16);
    equal("the limit", refusal(kernel.check(&large))?.2, 8)?;
    kernel.allow_non_portable_clusters()?;
    kernel.check(&large)?;
    let active = kernel.max_active_clusters(&large)?;
    println!("{active} clusters of 16 blocks");
    if active > 0 { launch([32, 1, 1], [16, 1, 1]) } else { Ok(()) }
}

fn cooperative(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernel = module.kernel::<(Words, u32, Words)>("trial_grid_sync")?;
    let config = |grid, threads, shared| {
        LaunchConfig::new(grid, threads).shared_bytes(shared).cooperative(true)
    };
    for (threads, shared) in [(32, 0), (256, 0), (1024, 0), (256, 48 << 10)] {
        let resident = kernel.resident_blocks(threads, shared)?;
        println!("{threads} threads, {shared} bytes: {resident} blocks are resident");
        let cells = DeviceBuffer::<u32>::zeroed(&stream, resident as usize + 1)?;
        let wrong = DeviceBuffer::<u32>::zeroed(&stream, 1)?;
        let arguments = (cells.pointer(), 20, wrong.pointer());
        // SAFETY: the kernel's parameters; there is a cell for each block.
        let refused =
            unsafe { kernel.launch(&stream, &config(resident + 1, threads, shared), arguments) };
        let (_, value, limit) = refusal(refused)?;
        equal("value and limit", (value, limit), (u64::from(resident) + 1, resident.into()))?;
        for grid in [1, resident] {
            // SAFETY: as above.
            unsafe { kernel.launch(&stream, &config(grid, threads, shared), arguments) }?;
            equal("blocks that came too late", wrong.to_vec()?, vec![0])?;
            let written = cells.to_vec()?[..grid as usize].iter().all(|&round| round == 20);
            ensure(written, || format!("{grid} blocks of {threads} threads did not end"))?;
        }
    }
    Ok(())
}

fn programmatic(device: Device) -> Result<(), Failed> {
    const COUNT: u32 = 1000;
    const ROUNDS: u32 = 20;
    let (stream, module) = open(device)?;
    let early = module.kernel::<(Words, u32, u32, u64, DevicePointer<u64>)>("trial_early")?;
    let late = module.kernel::<(Words, u32, Words, DevicePointer<u64>)>("trial_late")?;
    let data = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    let out = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    let ended = DeviceBuffer::<u64>::zeroed(&stream, 1)?;
    let began = DeviceBuffer::<u64>::zeroed(&stream, 1)?;
    let config = LaunchConfig::new(1, 128);
    let overlaps = |programmatic: bool| -> Result<u32, Failed> {
        let mut overlaps = 0;
        for round in 0..ROUNDS {
            let value = round * 2 + u32::from(programmatic) + 100;
            // SAFETY: the kernels' parameters; the second waits before it reads what the first writes.
            unsafe {
                // Half a millisecond, in which the second launch arrives.
                let first = (data.pointer(), COUNT, value, 1_000_000, ended.pointer());
                early.launch(&stream, &config, first)?;
                let second = (data.pointer(), COUNT, out.pointer(), began.pointer());
                late.launch(&stream, &config.programmatic(programmatic), second)?;
            }
            let copied = out.to_vec()?;
            ensure(copied.iter().all(|&word| word == value), || {
                format!("programmatic {programmatic}, round {round}: read before it was written")
            })?;
            overlaps += u32::from(began.to_vec()?[0] < ended.to_vec()?[0]);
        }
        Ok(overlaps)
    };
    equal("overlaps without the attribute", overlaps(false)?, 0)?;
    if !has_clusters(device)? {
        return Err(not_applicable("programmatic launches begin with compute capability 9.0"));
    }
    let found = overlaps(true)?;
    println!(
        "{found} of {ROUNDS} programmatic launches began before the kernel in front had ended"
    );
    // A launch of this thread can come late, a round here or there.
    if is_sanitized() {
        return Err(not_applicable(
            "a sanitizer lets no two kernels run at once; their order was right",
        ));
    }
    ensure(found >= ROUNDS / 2, || format!("only {found} of {ROUNDS} overlapped"))
}

fn priorities(device: Device) -> Result<(), Failed> {
    let (_, module) = open(device)?;
    let context = module.context();
    let range = Stream::priorities(context)?;
    println!("{range:?}");
    if range.greatest == range.least {
        return Err(not_applicable("the device has one priority"));
    }
    let kernel = module.kernel::<(u64, DevicePointer<u64>, Words)>("trial_spin")?;
    let (low, high) = (Stream::new(context)?, Stream::with_priority(context, range.greatest)?);
    equal("the stream's priority", high.priority()?, range.greatest)?;
    let second_low = Stream::new(context)?;
    let waves = 10;
    let blocks = kernel.resident_blocks(256, 0)?;
    let urgent = LaunchConfig::new(1, 256).priority(range.greatest);
    // By the stream, and by the launch's own attribute on a stream of the least priority.
    for (stream, config) in [(&high, LaunchConfig::new(1, 256)), (&second_low, urgent)] {
        let (long, short) =
            (DeviceBuffer::<u64>::zeroed(&low, 1)?, DeviceBuffer::<u64>::zeroed(stream, 1)?);
        let (count, one) =
            (DeviceBuffer::<u32>::zeroed(&low, 1)?, DeviceBuffer::<u32>::zeroed(stream, 1)?);
        low.synchronize()?;
        stream.synchronize()?;
        // SAFETY: the kernel's parameters.
        unsafe {
            // A millisecond or so each.
            let arguments = (1_500_000, long.pointer(), count.pointer());
            kernel.launch(&low, &LaunchConfig::new(blocks * waves, 256), arguments)?;
            std::thread::sleep(Duration::from_micros(500));
            kernel.launch(stream, &config, (1_000, short.pointer(), one.pointer()))?;
        }
        let (short, long) = (short.to_vec()?[0], long.to_vec()?[0]);
        equal("blocks that ran", count.to_vec()?, vec![blocks * waves])?;
        let ahead = Duration::from_nanos(long.saturating_sub(short));
        println!("the urgent kernel ended {ahead:?} before the other");
        ensure(ahead > Duration::from_millis(2), || format!("ended only {ahead:?} before"))?;
    }
    Ok(())
}

fn threads(device: Device) -> Result<(), Failed> {
    const THREADS: u32 = 8;
    const LAUNCHES: u32 = 500;
    let (_, module) = open(device)?;
    let kernel: Arithmetic = module.function("trial_add")?.typed()?;
    let outcomes: Vec<Result<Vec<u32>, Error>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS)
            .map(|thread| {
                let kernel = kernel.clone();
                scope.spawn(move || {
                    let stream = Stream::new(kernel.module().context())?;
                    let data = DeviceBuffer::<u32>::zeroed(&stream, 100)?;
                    for _ in 0..LAUNCHES {
                        let arguments = (data.pointer(), 100, thread + 1);
                        // SAFETY: the kernel's parameters; the buffer is this thread's own.
                        unsafe { kernel.launch(&stream, &LaunchConfig::new(2, 64), arguments) }?;
                    }
                    data.to_vec()
                })
            })
            .collect();
        let ended = running.into_iter().map(|thread| thread.join().expect("no panic"));
        ended.collect()
    });
    for (thread, outcome) in (0..THREADS).zip(outcomes) {
        equal("a thread's sums", outcome?, vec![LAUNCHES * (thread + 1); 100])?;
    }
    Ok(())
}

fn nothing_left_current(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernel = module.kernel::<()>("trial_nothing")?;
    let before = current_context(device)?;
    // SAFETY: a kernel without parameters that does nothing.
    unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), ()) }?;
    equal("the current context", current_context(device)?, before)?;
    stream.context().with_current(|| {
        // SAFETY: as above.
        unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), ()) }?;
        current_context(device).map(|inside| assert_eq!(inside, stream.context().raw()))
    })?;
    equal("the current context", current_context(device)?, before)?;
    Ok(stream.synchronize()?)
}

fn another_device(device: Device) -> Result<(), Failed> {
    let driver = device.driver();
    let Some(other) = (0..driver.device_count()?).find(|&ordinal| ordinal != device.ordinal())
    else {
        return Err(not_applicable("there is one device"));
    };
    let (_, module) = open(device)?;
    let stream = Stream::new(&Context::primary(driver.device(other)?)?)?;
    let kernel = module.kernel::<()>("trial_nothing")?;
    // SAFETY: a kernel without parameters that does nothing.
    let error = unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), ()) }.err();
    ensure(matches!(error, Some(Error::ForeignStream { .. })), || format!("{error:?}"))
}
