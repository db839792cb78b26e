//! What the process holds: resident memory, open files, threads, memory of a device; and whether that has come to rest.

use std::{fmt, fs};

/// One look at the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) epoch: usize,
    /// Resident memory, KiB.
    pub(super) resident: u64,
    pub(super) files: usize,
    pub(super) threads: usize,
    /// Where there is a device.
    pub(super) device: Option<DeviceMemory>,
}

/// Memory of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DeviceMemory {
    /// What is taken of it, by whomever, KiB.
    pub(super) taken: u64,
    /// Bytes of this process's buffers; `None` where the device has no pools.
    pub(super) buffers: Option<u64>,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, resident, files, threads, device } = self;
        write!(
            f,
            "epoch {epoch:>5}: {resident:>7} KiB resident, {files} files, {threads} threads"
        )?;
        let Some(DeviceMemory { taken, buffers }) = device else { return Ok(()) };
        write!(f, ", {taken} KiB of the device")?;
        buffers.map_or(Ok(()), |bytes| write!(f, ", {bytes} bytes in buffers"))
    }
}

/// Bytes of a page where the system does not say: the common one.
const PAGE: u64 = 4096;
/// What resident memory may grow by from the second quarter of a run to the last: the allocator keeps what it was given, and asks for
/// more when sizes come in a new order.
const GROWTH: f64 = 0.05;
const GROWTH_KIB: u64 = 4 << 10;
/// The same of the device, whose driver gives it out in pieces of this size and loads kernels at their first use.
const DEVICE_GROWTH_KIB: u64 = 32 << 10;

impl Sample {
    /// `None` where there is no /proc.
    pub(super) fn take(epoch: usize) -> Option<Self> {
        let statm = fs::read_to_string("/proc/self/statm").ok()?;
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        let count = |folder: &str| Some(fs::read_dir(folder).ok()?.count());
        Some(Self {
            epoch,
            resident: pages * PAGE / 1024,
            files: count("/proc/self/fd")?,
            threads: count("/proc/self/task")?,
            device: None,
        })
    }
}

/// Whether nothing leaks: memory on a plateau, files and threads as many as after the first quarter.
pub(super) fn judge(samples: &[Sample]) -> Result<String, String> {
    let quarter = samples.len() / 4;
    if quarter == 0 {
        let few = samples.len();
        return Err(format!("{few} samples are too few to see a leak; give it more --epochs"));
    }
    let (early, late) =
        grown("resident memory", samples, |sample| Some(sample.resident), GROWTH_KIB)?;
    let taken = |sample: &Sample| Some(sample.device?.taken);
    let device = grown("the device's memory", samples, taken, DEVICE_GROWTH_KIB)?;
    let settled = &samples[quarter..];
    let range = |of: fn(&Sample) -> usize| {
        let all = || settled.iter().map(of);
        (all().min().unwrap_or(0), all().max().unwrap_or(0))
    };
    let files = range(|sample| sample.files);
    if files.0 != files.1 {
        return Err(format!("between {} and {} files are open", files.0, files.1));
    }
    let threads = range(|sample| sample.threads);
    if threads.0 != threads.1 {
        return Err(format!("there are between {} and {} threads", threads.0, threads.1));
    }
    let buffers = range(|sample| {
        sample.device.and_then(|device| device.buffers).map_or(0, |bytes| bytes as usize)
    });
    if buffers.0 != buffers.1 {
        return Err(format!(
            "between {} and {} bytes of the device are in buffers while nothing lives",
            buffers.0, buffers.1
        ));
    }
    let mut text = format!(
        "resident {early} KiB in the second quarter, {late} in the last; {} files open, {} threads throughout",
        files.0, threads.0
    );
    if samples.iter().any(|sample| sample.device.is_some()) {
        let (early, late) = device;
        text += &format!(
            "; of the device {early} KiB in the second quarter, {late} in the last, {} bytes in buffers throughout",
            buffers.0
        );
    }
    Ok(text)
}

/// Medians of the second quarter and of the last; an error if the last is too large. What no sample knows is 0.
fn grown(
    what: &str,
    samples: &[Sample],
    of: impl Fn(&Sample) -> Option<u64>,
    allowed: u64,
) -> Result<(u64, u64), String> {
    let quarter = samples.len() / 4;
    let median = |samples: &[Sample]| {
        let mut all: Vec<u64> = samples.iter().map(|sample| of(sample).unwrap_or(0)).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(0)
    };
    let early = median(&samples[quarter..2 * quarter]);
    let late = median(&samples[samples.len() - quarter..]);
    let most = early + allowed.max((early as f64 * GROWTH) as u64);
    if late > most {
        let shared = samples.iter().any(|sample| sample.device.is_some());
        let others = if shared { "; what other programs take of a device counts, too" } else { "" };
        return Err(format!(
            "{what} grew from {early} KiB in the second quarter to {late} in the last, over {most}{others}"
        ));
    }
    Ok((early, late))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Fn(usize) -> u64) -> Vec<Sample> {
        (0..100)
            .map(|epoch| Sample {
                epoch,
                resident: resident(epoch),
                files: 5,
                threads: 3,
                device: None,
            })
            .collect()
    }

    #[test]
    fn a_plateau_passes_and_a_slope_does_not() {
        assert!(judge(&samples(|epoch| 40_000 + 5_000 * (epoch.min(20) as u64) / 20)).is_ok());
        let error = judge(&samples(|epoch| 40_000 + 100 * epoch as u64)).expect_err("it grows");
        assert!(error.contains("resident memory grew"), "{error}");
        assert!(judge(&[]).is_err());
    }

    #[test]
    fn one_file_or_thread_left_open_is_seen() {
        let mut leaky = samples(|_| 40_000);
        leaky[80].files = 6;
        assert!(judge(&leaky).is_err_and(|error| error.contains("files")));
        let mut leaky = samples(|_| 40_000);
        leaky[90].threads = 4;
        assert!(judge(&leaky).is_err_and(|error| error.contains("threads")));
    }

    #[test]
    fn memory_of_a_device_is_held_to_account() {
        let with = |taken: &dyn Fn(usize) -> u64, buffers: &dyn Fn(usize) -> u64| {
            let mut all = samples(|_| 40_000);
            for (i, sample) in all.iter_mut().enumerate() {
                let buffers = Some(buffers(i));
                sample.device = Some(DeviceMemory { taken: taken(i), buffers });
            }
            judge(&all)
        };
        let still = with(&|_| 600_000, &|i| if i < 20 { 0 } else { 4096 }).expect("at rest");
        assert!(still.contains("4096 bytes in buffers"), "{still}");
        let error = with(&|i| 600_000 + 2_000 * i as u64, &|_| 0).expect_err("it grows");
        assert!(error.contains("the device's memory grew"), "{error}");
        let error = with(&|_| 600_000, &|i| if i == 70 { 256 } else { 0 }).expect_err("a buffer");
        assert!(error.contains("between 0 and 256 bytes"), "{error}");
        let shown = Sample {
            device: Some(DeviceMemory { taken: 7, buffers: Some(9) }),
            ..samples(|_| 40_000)[0]
        };
        assert!(shown.to_string().ends_with("7 KiB of the device, 9 bytes in buffers"));
    }

    #[test]
    fn the_process_can_be_looked_at() {
        if cfg!(target_os = "linux") {
            let sample = Sample::take(0).expect("there is /proc");
            assert!(sample.resident > 1000 && sample.files > 2 && sample.threads > 0);
        }
    }
}
