//! What a kernel takes of a device: its attributes, shared memory, and how many of its blocks fit.

use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_sys::{Device, DeviceAttribute, DeviceBuffer, Error, LaunchConfig};

use crate::support::{Words, equal, open, refusal};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("launch_attributes_say_what_the_source_says", attributes),
    ("launch_dynamic_shared_memory_up_to_the_limit", shared_memory),
    ("launch_occupancy_is_plausible", occupancy),
];

fn attributes(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let function = module.function("trial_declared")?;
    let found = function.attributes()?;
    println!("{found:?}");
    equal("threads", found.max_threads, 256)?;
    equal("declared shared memory", found.static_shared_bytes, 4096)?;
    equal("local memory", found.local_bytes, 0)?;
    ensure(found.registers > 0, || "no registers".into())?;
    let capability = device.capability()?;
    let major = u32::from(capability.major);
    equal("the machine code's major architecture", found.binary_version / 10, major)?;
    // And the limit that follows from them.
    let kernel = function.typed::<(Words, Words)>()?;
    let words = DeviceBuffer::<u32>::from_host(&stream, &(0..257).collect::<Vec<_>>())?;
    let out = DeviceBuffer::<u32>::zeroed(&stream, 257)?;
    let arguments = (words.pointer(), out.pointer());
    // SAFETY: the kernel's parameters; it reads and writes a word a thread.
    let refused = unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 257), arguments) };
    equal("the limit", refusal(refused)?.2, 256)?;
    // SAFETY: as above.
    unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 256), arguments) }?;
    let expected: Vec<u32> = (0..256).rev().chain([0]).collect();
    equal("the words turned round", out.to_vec()?, expected)
}

fn shared_memory(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernel = module.kernel::<(Words, u32)>("trial_shared")?;
    let limit = device.attribute(DeviceAttribute::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    let limit = u32::try_from(limit)?;
    let launch = |bytes: u32| -> Result<Vec<u32>, Error> {
        let out = DeviceBuffer::<u32>::zeroed(&stream, 3)?;
        let config = LaunchConfig::new(3, 256).shared_bytes(bytes);
        // SAFETY: the kernel's parameters; a word a block, and as much shared memory as it counts on.
        unsafe { kernel.launch(&stream, &config, (out.pointer(), bytes / 4)) }?;
        out.to_vec()
    };
    let check = |bytes: u32| -> Result<(), Failed> {
        let sum = |block: u32| {
            (0..bytes / 4).fold(0u32, |sum, i| sum.wrapping_add(i.wrapping_mul(7) + block))
        };
        equal(&format!("sums over {bytes} bytes"), launch(bytes)?, vec![sum(0), sum(1), sum(2)])
    };
    check(0)?;
    check(48 << 10)?;
    let before = (48 << 10) + 4;
    equal("before allowing it", refusal(launch(before).map(drop))?.1, before.into())?;
    equal("above the device", refusal(kernel.allow_shared_memory(limit + 1))?.2, limit.into())?;
    for bytes in [64 << 10, limit - 4, limit] {
        kernel.allow_shared_memory(bytes)?;
        check(bytes)?;
        equal("above what is allowed", refusal(launch(bytes + 4).map(drop))?.2, bytes.into())?;
    }
    // A kernel that declares some can have that much less.
    let declared = module.function("trial_declared")?;
    equal(
        "beside what is declared",
        refusal(declared.allow_shared_memory(limit - 4095))?.2,
        u64::from(limit) - 4096,
    )?;
    declared.allow_shared_memory(limit - 4096)?;
    kernel.prefer_shared_carveout(Some(100))?;
    check(limit)?;
    kernel.prefer_shared_carveout(None)?;
    Ok(())
}

fn occupancy(device: Device) -> Result<(), Failed> {
    let (_, module) = open(device)?;
    let kernel = module.function("trial_shared")?;
    let most = device.attribute(DeviceAttribute::MAX_THREADS_PER_MULTIPROCESSOR)?;
    let most = u32::try_from(most)?;
    let limit = device.attribute(DeviceAttribute::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    let limit = u32::try_from(limit)?;
    kernel.allow_shared_memory(limit)?;
    for threads in [32, 64, 256, 1024] {
        let mut before = u32::MAX;
        for shared in [0, 8 << 10, 32 << 10, 96 << 10, limit] {
            let blocks = kernel.max_active_blocks(threads, shared)?;
            ensure(blocks >= 1 && blocks * threads <= most && blocks <= before, || {
                format!(
                    "{blocks} blocks of {threads} threads with {shared} bytes, {before} with less"
                )
            })?;
            before = blocks;
        }
        for blocks in [1, 2] {
            if blocks * threads > most {
                continue;
            }
            let bytes = kernel.available_shared_memory(blocks, threads)?;
            let fit = kernel.max_active_blocks(threads, u32::try_from(bytes)?)?;
            ensure(fit >= blocks, || format!("{bytes} bytes for {blocks} blocks, {fit} fit"))?;
        }
    }
    equal("one block with all memory", kernel.max_active_blocks(32, limit)?, 1)?;
    equal("a block that cannot be", kernel.max_active_blocks(1056, 0).unwrap_or(0), 0)?;
    let free = kernel.suggested_block(0, None)?;
    let held = kernel.suggested_block(0, Some(96))?;
    println!("suggested: {free:?}, at most 96 threads: {held:?}");
    let plausible = free.block % 32 == 0 && (32..=1024).contains(&free.block) && free.grid >= 1;
    ensure(plausible && (1..=96).contains(&held.block), || format!("{free:?}, {held:?}"))
}
