//! Chains on a device: links exchanged and skipped while launches are queued, and links that begin early.

use kasmina_gpu_test::{Body, Failed, ensure, is_sanitized, not_applicable};
use kasmina_sys::{
    Chain, CopyCall, Device, DeviceBuffer, DevicePointer, Error, LaunchConfig, Link, Stream,
};

use crate::support::{Arithmetic, Words, equal, has_clusters, hold_up, leaks_nothing, open};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("chain_links_are_exchanged_and_skipped", exchanged),
    ("chain_what_is_queued_runs_as_it_was_queued", queued),
    ("chain_links_that_begin_early_wait", early),
    ("chain_rounds_leak_nothing", leak_nothing),
];

const COUNT: usize = 5000;

fn link(kernel: &Arithmetic, data: &DeviceBuffer<u32>, operand: u32) -> Result<Link, Error> {
    let arguments = (data.pointer(), data.len() as u32, operand);
    Ok(Link::Kernel(kernel.call(&LaunchConfig::new(16, 256), arguments)?))
}

fn copy(to: &DeviceBuffer<u32>, from: &DeviceBuffer<u32>) -> Link {
    Link::Copy(CopyCall { to: to.address(), from: from.address(), bytes: to.bytes() })
}

/// Launches a chain whose buffers the caller keeps.
fn launch(chain: &Chain, stream: &Stream) -> Result<(), Error> {
    // SAFETY: the kernels' parameters, and buffers of this stream that nobody else uses.
    unsafe { chain.launch(stream) }
}

fn all(what: &str, data: &DeviceBuffer<u32>, expected: u32) -> Result<(), Failed> {
    let words = data.to_vec()?;
    let wrong = words.iter().find(|&&word| word != expected);
    ensure(wrong.is_none(), || format!("{what}: {wrong:?}, {expected} is right"))
}

fn exchanged(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let add: Arithmetic = module.kernel("trial_add")?;
    let multiply: Arithmetic = module.kernel("trial_multiply")?;
    let join = module.kernel::<(Words, Words, u32)>("trial_join")?;
    let mut a = DeviceBuffer::<u32>::zeroed(&stream, COUNT)?;
    let b = DeviceBuffer::<u32>::zeroed(&stream, COUNT)?;
    let links = vec![link(&add, &a, 3)?, link(&multiply, &a, 5)?, copy(&b, &a)];
    let mut chain = Chain::new(stream.context(), links, false)?;
    chain.upload(&stream)?;
    launch(&chain, &stream)?;
    all("(0 + 3)·5", &a, 15)?;
    all("its copy", &b, 15)?;

    // The first is skipped; the second is another kernel, with other parameters, and adds the copy.
    equal("skipped", chain.enable(0, false)?, true)?;
    let pair = (a.pointer(), b.pointer(), COUNT as u32);
    chain.set(1, &Link::Kernel(join.call(&LaunchConfig::new(8, 128), pair)?))?;
    launch(&chain, &stream)?;
    all("15 + 15", &a, 30)?;
    all("its copy", &b, 30)?;

    // While it is skipped a link can become another; and a copy can go the other way.
    a.fill_u32(7, &stream)?;
    chain.set(0, &link(&multiply, &a, 2)?)?;
    chain.enable(1, false)?;
    chain.set(2, &copy(&a, &b))?;
    launch(&chain, &stream)?;
    all("what was copied back", &a, 30)?;
    chain.enable(0, true)?;
    chain.enable(2, false)?;
    launch(&chain, &stream)?;
    all("30·2", &a, 60)?;
    // Nothing is left that runs.
    chain.enable(0, false)?;
    launch(&chain, &stream)?;
    all("nothing ran", &a, 60)
}

fn queued(device: Device) -> Result<(), Failed> {
    const ROUNDS: u32 = 40;
    let (stream, module) = open(device)?;
    let add: Arithmetic = module.kernel("trial_add")?;
    let a = DeviceBuffer::<u32>::zeroed(&stream, COUNT)?;
    let b = DeviceBuffer::<u32>::zeroed(&stream, COUNT)?;
    let links = vec![link(&add, &a, 0)?, link(&add, &b, 1)?];
    let mut chain = Chain::new(stream.context(), links, false)?;
    launch(&chain, &stream)?;
    stream.synchronize()?;
    // None of these has begun when the next is queued.
    hold_up(&stream)?;
    let (mut of_a, mut of_b) = (0, 1);
    for round in 0..ROUNDS {
        chain.set(0, &link(&add, &a, round)?)?;
        chain.enable(1, round % 3 == 0)?;
        launch(&chain, &stream)?;
        of_a += round;
        of_b += u32::from(round % 3 == 0);
    }
    all("each operand once", &a, of_a)?;
    all("each third", &b, of_b)
}

fn early(device: Device) -> Result<(), Failed> {
    const WORDS: usize = 1000;
    let (stream, module) = open(device)?;
    let early = module.kernel::<(Words, u32, u32, u64, DevicePointer<u64>)>("trial_early")?;
    let late = module.kernel::<(Words, u32, Words, DevicePointer<u64>)>("trial_late")?;
    let data = DeviceBuffer::<u32>::zeroed(&stream, WORDS)?;
    let out = DeviceBuffer::<u32>::zeroed(&stream, WORDS)?;
    let ended = DeviceBuffer::<u64>::zeroed(&stream, 1)?;
    let began = DeviceBuffer::<u64>::zeroed(&stream, 1)?;
    let config = LaunchConfig::new(1, 128);
    // A fifth of a millisecond.
    let write = |value| -> Result<Link, Error> {
        let arguments = (data.pointer(), WORDS as u32, value, 200_000, ended.pointer());
        Ok(Link::Kernel(early.call(&config, arguments)?))
    };
    let read = (data.pointer(), WORDS as u32, out.pointer(), began.pointer());
    let read = Link::Kernel(late.call(&config, read)?);
    let overlaps = |programmatic: bool| -> Result<u32, Failed> {
        let links = vec![write(1)?, read.clone()];
        let mut chain = Chain::new(stream.context(), links, programmatic)?;
        let mut overlaps = 0;
        for value in 2..22 {
            chain.set(0, &write(value)?)?;
            launch(&chain, &stream)?;
            all("what the first wrote", &out, value)?;
            overlaps += u32::from(began.to_vec()?[0] < ended.to_vec()?[0]);
        }
        Ok(overlaps)
    };
    equal("overlaps without such edges", overlaps(false)?, 0)?;
    if is_sanitized() {
        return Err(not_applicable("the sanitizer runs one kernel at a time"));
    }
    if !has_clusters(device)? {
        return Err(not_applicable("programmatic edges begin with compute capability 9.0"));
    }
    let found = overlaps(true)?;
    ensure(found > 0, || "no link began early".to_owned())
}

fn leak_nothing(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let add: Arithmetic = module.kernel("trial_add")?;
    let a = DeviceBuffer::<u32>::zeroed(&stream, COUNT)?;
    let b = DeviceBuffer::<u32>::zeroed(&stream, COUNT)?;
    leaks_nothing(stream.context(), || {
        let links = vec![link(&add, &a, 1)?, copy(&b, &a)];
        let mut chain = Chain::new(stream.context(), links, false)?;
        chain.set(0, &link(&add, &a, 2)?)?;
        chain.enable(1, false)?;
        launch(&chain, &stream)?;
        Ok(stream.synchronize()?)
    })
}
