//! Where, when and of what the numbers are.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kasmina_sys::{Device, DeviceAttribute, Error};
use serde::{Deserialize, Serialize};

use super::throttle::RunClocks;

/// Where the driver's kernel module tells its release, which is not the CUDA version that the driver is for.
const MODULE_RELEASE: &str = "/sys/module/nvidia/version";
/// Set by a bundle's `run.sh`, and at build time by whoever wants it in the executable.
const COMMIT_VARIABLE: &str = "KASMINA_COMMIT";

/// What the numbers depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// What ran the passes.
    pub machine: Machine,
    /// Year, month and day, UTC.
    pub date: String,
    /// The commit, or `unknown`.
    pub commit: String,
    /// How it was called.
    pub command: String,
    /// Times of every case.
    pub repetitions: usize,
    /// What is known of the machine's clocks during the run; `None` in files of before it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<RunClocks>,
}

/// What ran the passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Machine {
    /// A GPU.
    Gpu(Gpu),
    /// The processor.
    Cpu(Cpu),
}

/// A GPU and its driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// The device's name.
    pub device: String,
    /// `major.minor`.
    pub compute_capability: String,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of the second-level cache.
    pub l2_bytes: u32,
    /// Bytes.
    pub total_memory: u64,
    /// The greatest clock of the multiprocessors in MHz, where the driver tells.
    pub clock_mhz: Option<u32>,
    /// The greatest clock of the memory in MHz, where the driver tells.
    pub memory_clock_mhz: Option<u32>,
    /// The CUDA version that the driver is for.
    pub cuda: String,
    /// The release of the driver's kernel module.
    pub driver: Option<String>,
}

/// A processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// The model's name, or its architecture where the system does not tell.
    pub model: String,
    /// Threads that the passes run on.
    pub threads: usize,
    /// Bytes of all caches of the last level together, where the system tells.
    pub cache_bytes: Option<u64>,
}

impl Header {
    /// The header of a run on `machine`, now.
    #[must_use]
    pub fn now(machine: Machine, repetitions: usize) -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let words: Vec<String> =
            std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        let command = format!("xtask {}", words.join(" "));
        Self { machine, date: date(seconds), commit: commit(), command, repetitions, clocks: None }
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            machine: Machine::Gpu(Gpu {
                device: "GPU".to_owned(),
                compute_capability: "9.0".to_owned(),
                multiprocessors: 132,
                l2_bytes: 50 << 20,
                total_memory: 1 << 30,
                clock_mhz: Some(1980),
                memory_clock_mhz: None,
                cuda: "13.0".to_owned(),
                driver: Some("580.1".to_owned()),
            }),
            date: "2025-01-01".to_owned(),
            commit: "unknown".to_owned(),
            command: "xtask bench".to_owned(),
            repetitions: 31,
            clocks: None,
        }
    }
}

impl Gpu {
    /// What the driver tells of a device.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn of(device: Device) -> Result<Self, Error> {
        let info = device.info()?;
        let mhz = |attribute| {
            let kilohertz = u32::try_from(device.attribute(attribute).ok()?).ok()?;
            // Some drivers answer 0 for what they do not tell.
            Some(kilohertz / 1000).filter(|mhz| *mhz > 0)
        };
        Ok(Self {
            device: info.name,
            compute_capability: info.capability.to_string(),
            multiprocessors: info.multiprocessors,
            l2_bytes: info.l2_cache,
            total_memory: info.total_memory,
            clock_mhz: mhz(DeviceAttribute::CLOCK_RATE),
            memory_clock_mhz: mhz(DeviceAttribute::MEMORY_CLOCK_RATE),
            cuda: device.driver().version().to_string(),
            driver: std::fs::read_to_string(MODULE_RELEASE).ok().map(|r| r.trim().to_owned()),
        })
    }
}

impl Cpu {
    /// What the system tells of the processor that runs this.
    #[must_use]
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            model: model(&info).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            threads: rayon::current_num_threads(),
            cache_bytes: last_level(Path::new("/sys/devices/system/cpu")),
        }
    }
}

fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// All caches of the highest level that Linux lists for its processors in a folder, each once.
fn last_level(folder: &Path) -> Option<u64> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let caches = entries(folder).flat_map(|cpu| entries(&cpu.path().join("cache")));
    let known: BTreeSet<(u32, String, u64)> = caches
        .filter_map(|cache| {
            let text = |name| std::fs::read_to_string(cache.path().join(name)).ok();
            let level = text("level")?.trim().parse().ok()?;
            // Those that share it all list it, with the same sharers.
            Some((level, text("shared_cpu_list")?, bytes(text("size")?.trim())?))
        })
        .collect();
    let highest = known.last()?.0;
    Some(known.iter().filter(|(level, ..)| *level == highest).map(|(.., bytes)| bytes).sum())
}

/// `32768K` or `32M`, as Linux writes the size of a cache.
fn bytes(text: &str) -> Option<u64> {
    let shift = match text.bytes().last()? {
        b'K' => 10,
        b'M' => 20,
        _ => return None,
    };
    text[..text.len() - 1].parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl Machine {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Gpu(gpu) => &gpu.device,
            Self::Cpu(cpu) => &cpu.model,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu(gpu) => gpu.fmt(f),
            Self::Cpu(Cpu { model, threads, cache_bytes }) => {
                write!(f, "processor   {model}, {threads} threads")?;
                if let Some(bytes) = cache_bytes {
                    write!(f, ", {} MiB of last-level cache", bytes >> 20)?;
                }
                writeln!(f)
            }
        }
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "device      {}, compute capability {}, {} SMs, {} MiB L2, {:.1} GiB",
            self.device,
            self.compute_capability,
            self.multiprocessors,
            self.l2_bytes >> 20,
            self.total_memory as f64 / f64::from(1 << 30),
        )?;
        let clocks = [("multiprocessors", self.clock_mhz), ("memory", self.memory_clock_mhz)];
        let known = clocks.iter().filter_map(|(what, mhz)| Some(format!("{what} {} MHz", (*mhz)?)));
        let known: Vec<String> = known.collect();
        if !known.is_empty() {
            writeln!(f, "clocks      at most {}", known.join(", "))?;
        }
        write!(f, "driver      for CUDA {}", self.cuda)?;
        if let Some(release) = &self.driver {
            write!(f, ", release {release}")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.machine.fmt(f)?;
        self.clocks.as_ref().map_or(Ok(()), |clocks| clocks.fmt(f))?;
        writeln!(f, "date        {}", self.date)?;
        writeln!(f, "commit      {}", self.commit)?;
        writeln!(f, "command     {}, {} repetitions", self.command, self.repetitions)
    }
}

/// What is known of the commit: what the environment says, what the bundle around this executable says, what was said when it
/// was built.
fn commit() -> String {
    let said = std::env::var(COMMIT_VARIABLE).ok();
    let bundled = || {
        let executable = std::env::current_exe().ok()?;
        let table = std::fs::read_to_string(bundle_table(&executable)?).ok()?;
        commit_of(&table)
    };
    said.filter(|commit| !commit.is_empty())
        .or_else(bundled)
        .or_else(|| option_env!("KASMINA_COMMIT").map(str::to_owned))
        .filter(|commit| !commit.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Where the table of a bundle lies whose `bin` holds the executable.
fn bundle_table(executable: &Path) -> Option<std::path::PathBuf> {
    Some(executable.parent()?.parent()?.join("bundle.tsv"))
}

fn commit_of(table: &str) -> Option<String> {
    let commit = table.lines().find_map(|line| line.strip_prefix("commit\t"))?;
    (!commit.is_empty()).then(|| commit.to_owned())
}

/// The day of a time in seconds since 1970, in the Gregorian calendar; by H. Hinnant's `civil_from_days`.
fn date(seconds: u64) -> String {
    // Days since the first of March of the year 0: years then end with their leap day.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_709_164_800, "2024-02-29"),
            (1_735_689_599, "2024-12-31"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn the_commit_of_a_bundle_is_found() {
        assert_eq!(commit_of("format\t1\ncommit\tabc-dirty\n"), Some("abc-dirty".to_owned()));
        assert_eq!(commit_of("format\t1\ncommit\t\n"), None);
        assert_eq!(commit_of(""), None);
        let table = bundle_table(Path::new("/b/bin/xtask"));
        assert_eq!(table.as_deref(), Some(Path::new("/b/bundle.tsv")));
    }

    #[test]
    fn clocks_that_are_not_known_are_left_out() {
        let text = Header::example().to_string();
        assert!(text.contains("at most multiprocessors 1980 MHz\n"), "{text}");
        let Machine::Gpu(gpu) = Header::example().machine else { panic!("the example is a GPU") };
        assert!(!Gpu { clock_mhz: None, ..gpu }.to_string().contains("clocks"));
    }

    #[test]
    fn caches_that_processors_share_count_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let all =
            [(0, 1, "0", "32K"), (0, 3, "0-1", "32M"), (1, 3, "0-1", "32M"), (2, 3, "2", "32M")];
        for (cpu, level, shared, size) in all {
            let cache = folder.path().join(format!("cpu{cpu}/cache/index{level}"));
            std::fs::create_dir_all(&cache).expect("a folder");
            for (name, text) in [
                ("level", level.to_string()),
                ("shared_cpu_list", shared.into()),
                ("size", size.into()),
            ] {
                std::fs::write(cache.join(name), text + "\n").expect("a file");
            }
        }
        assert_eq!(last_level(folder.path()), Some(64 << 20));
        assert_eq!(last_level(&folder.path().join("none")), None);
    }

    #[test]
    fn what_linux_tells_of_a_processor_is_understood() {
        let info = "processor\t: 0\nmodel name\t: AMD EPYC 9654\nflags\t: fpu\n";
        assert_eq!(model(info).as_deref(), Some("AMD EPYC 9654"));
        assert_eq!(model("flags : fpu"), None);
        let sizes = ["32K", "1024K", "32M", "", "K", "many"].map(bytes);
        assert_eq!(sizes, [Some(32 << 10), Some(1 << 20), Some(32 << 20), None, None, None]);
        let here = Cpu::here();
        assert!(here.threads > 0 && !here.model.is_empty());
        let text = Machine::Cpu(Cpu { cache_bytes: Some(32 << 20), ..here }).to_string();
        assert!(
            text.starts_with("processor   ") && text.ends_with(", 32 MiB of last-level cache\n")
        );
    }
}
