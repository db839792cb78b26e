//! What the process holds: resident memory, open files, threads; and whether that has come to rest.

use std::fs;

/// One look at the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) epoch: usize,
    /// Resident memory, KiB.
    pub(super) resident: u64,
    pub(super) files: usize,
    pub(super) threads: usize,
}

/// Bytes of a page where the system does not say: the common one.
const PAGE: u64 = 4096;
/// What resident memory may grow by from the second quarter of a run to the last: the allocator keeps what it was given, and asks for
/// more when sizes come in a new order.
const GROWTH: f64 = 0.05;
const GROWTH_KIB: u64 = 4 << 10;

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
        })
    }
}

/// Whether nothing leaks: memory on a plateau, files and threads as many as after the first quarter.
pub(super) fn judge(samples: &[Sample]) -> Result<String, String> {
    let quarter = samples.len() / 4;
    if quarter == 0 {
        return Err(format!("{} samples are too few to see a leak", samples.len()));
    }
    let early = median(&samples[quarter..2 * quarter]);
    let late = median(&samples[samples.len() - quarter..]);
    let most = early + GROWTH_KIB.max((early as f64 * GROWTH) as u64);
    if late > most {
        return Err(format!(
            "resident memory grew from {early} KiB in the second quarter to {late} in the last, over {most}"
        ));
    }
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
    Ok(format!(
        "resident {early} KiB in the second quarter, {late} in the last; {} files open, {} threads throughout",
        files.0, threads.0
    ))
}

fn median(samples: &[Sample]) -> u64 {
    let mut all: Vec<u64> = samples.iter().map(|sample| sample.resident).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Fn(usize) -> u64) -> Vec<Sample> {
        (0..100)
            .map(|epoch| Sample { epoch, resident: resident(epoch), files: 5, threads: 3 })
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
    fn the_process_can_be_looked_at() {
        if cfg!(target_os = "linux") {
            let sample = Sample::take(0).expect("there is /proc");
            assert!(sample.resident > 1000 && sample.files > 2 && sample.threads > 0);
        }
    }
}
