//! What several files of tests need: the trial kernels, comparisons, a way to keep a stream busy, and the search for leaks.

use std::time::Duration;

use kasmina_gpu_test::{Cases, Failed, KERNELS, ensure};
use kasmina_sys::{
    Context, Device, DeviceAttribute, DevicePointer, Error, Fatbin, Kernel, Module, Stream,
};

/// The trial kernels, which the harness's package carries.
pub(crate) fn trials() -> Result<&'static Fatbin, Failed> {
    let image = KERNELS.iter().find(|image| image.name == "trials");
    Ok(image.ok_or("the harness has no kernels named trials")?.fatbin()?)
}

/// A stream, and the trial kernels.
pub(crate) fn open(device: Device) -> Result<(Stream, Module), Failed> {
    let context = Context::primary(device)?;
    Ok((Stream::new(&context)?, Module::load(&context, trials()?)?))
}

pub(crate) type Words = DevicePointer<u32>;
/// `trial_add` and `trial_multiply`: data, count, operand.
pub(crate) type Arithmetic = Kernel<(Words, u32, u32)>;

pub(crate) fn has_clusters(device: Device) -> Result<bool, Failed> {
    Ok(device.attribute(DeviceAttribute::CLUSTER_LAUNCH)? != 0)
}

/// What a refused launch names.
pub(crate) fn refusal(result: Result<(), Error>) -> Result<(&'static str, u64, u64), Failed> {
    match result {
        Err(Error::Launch { field, value, limit, .. }) => Ok((field, value, limit)),
        other => Err(format!("not refused by the rules: {other:?}").into()),
    }
}

pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: T,
    expected: T,
) -> Result<(), Failed> {
    ensure(found == expected, || format!("{what}: {found:?}, {expected:?} is right"))
}

/// Long enough to be seen beside everything else that a test does.
pub(crate) const LONG: Duration = Duration::from_millis(60);

/// Holds up what comes later on `stream`.
pub(crate) fn hold_up(stream: &Stream) -> Result<(), Error> {
    stream.call_host(|| std::thread::sleep(LONG))
}

/// Resident memory of this process, bytes.
fn resident_memory() -> Result<u64, Failed> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).ok_or("no second number in /proc/self/statm")?;
    // SAFETY: a question without arguments that matter.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(pages.parse::<u64>()? * u64::try_from(page)?)
}

/// Runs `body` some hundred times, notes free device memory and resident host memory, and runs it 10,000 times more (or as often
/// as `KASMINA_TEST_CASES` says): neither may shrink by what even 1 KiB a round would make.
pub(crate) fn leaks_nothing(
    context: &Context,
    body: impl Fn() -> Result<(), Failed>,
) -> Result<(), Failed> {
    const ROUNDS: u32 = 10_000;
    let rounds = Cases::from_environment(ROUNDS)?.count;
    for _ in 0..rounds.min(500) {
        body()?;
    }
    context.synchronize()?;
    let (free, resident) = (context.memory_info()?.0, resident_memory()?);
    for _ in 0..rounds {
        body()?;
    }
    context.synchronize()?;
    let (free_after, resident_after) = (context.memory_info()?.0, resident_memory()?);
    let lost = free.saturating_sub(free_after);
    let grown = resident_after.saturating_sub(resident);
    println!("{rounds} rounds: {lost} bytes less on the device, {grown} more on the host");
    // Where there are few rounds, the process's own noise is what is seen.
    let limit = u64::from(rounds.max(ROUNDS)) << 10;
    ensure(lost < limit && grown < limit, || {
        format!("{rounds} rounds took {lost} bytes on the device and {grown} on the host")
    })
}
