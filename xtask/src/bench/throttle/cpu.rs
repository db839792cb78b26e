//! A processor's counters of thermal events, where Linux lists them.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use super::ThrottleError;

const FILES: [&str; 2] = ["core_throttle_count", "package_throttle_count"];

/// The counters of all processors.
#[derive(Debug)]
pub(super) struct Counters {
    files: Vec<PathBuf>,
    last: Cell<u64>,
}

impl Counters {
    /// Those below a folder of processors.
    pub(super) fn find(folder: &Path) -> Result<Self, ThrottleError> {
        let cpus = fs::read_dir(folder).into_iter().flatten().flatten();
        let files = cpus.flat_map(|cpu| {
            let of = cpu.path().join("thermal_throttle");
            FILES.map(|name| of.join(name))
        });
        let files: Vec<PathBuf> = files.filter(|file| file.is_file()).collect();
        if files.is_empty() {
            return Err(ThrottleError::NoCounters(folder.display().to_string()));
        }
        let counters = Self { files, last: Cell::new(0) };
        counters.last.set(counters.sum());
        Ok(counters)
    }

    /// Whether any has counted since it was asked last.
    pub(super) fn counted(&self) -> bool {
        let now = self.sum();
        self.last.replace(now) != now
    }

    fn sum(&self) -> u64 {
        let one = |file: &PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
        self.files.iter().filter_map(one).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_move_are_seen_once() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(Counters::find(folder.path()), Err(ThrottleError::NoCounters(_))));
        let of = folder.path().join("cpu0/thermal_throttle");
        fs::create_dir_all(&of).expect("a folder");
        fs::write(of.join(FILES[0]), "7\n").expect("a file");
        let counters = Counters::find(folder.path()).expect("there is one");
        assert!(!counters.counted());
        fs::write(of.join(FILES[0]), "8\n").expect("a file");
        assert!(counters.counted() && !counters.counted());
    }
}
