//! Measurements as lines that a program can read: what was measured, in which unit, on which device.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kasmina_sys::Device;
use serde_json::{Value, json};

use crate::failed::Failed;

/// The environment variable that names the file of measurements.
pub const RESULTS_VARIABLE: &str = "KASMINA_RESULTS";
/// The environment variable that says which commit is measured.
pub const COMMIT_VARIABLE: &str = "KASMINA_COMMIT";

/// Where the kernel module tells its release, which is not the CUDA version that the driver API tells.
const MODULE_RELEASE: &str = "/sys/module/nvidia/version";

/// One thing that was measured, any number of times.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement<'a> {
    /// What was measured; with its parameters, `encode/tiled/rank=3`, since it is all that tells results apart.
    pub name: &'a str,
    /// The unit of every value: `ns`, `GB/s`.
    pub unit: &'a str,
    /// At least one value, each finite.
    pub values: &'a [f64],
}

impl Measurement<'_> {
    /// The middle value, or the mean of the middle two; `None` where there is no value.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        if sorted.len() % 2 == 1 { Some(upper) } else { Some((sorted[middle - 1] + upper) / 2.0) }
    }

    fn check(&self) -> Result<f64, Failed> {
        if let Some(value) = self.values.iter().find(|value| !value.is_finite()) {
            return Err(format!("{}: {value} {} is no measurement", self.name, self.unit).into());
        }
        self.median().ok_or_else(|| format!("{}: there is no value", self.name).into())
    }
}

/// Prints a measurement on a line of its own, and appends it with everything that it depends on to the file that
/// `KASMINA_RESULTS` names, if any: `name`, `unit`, `median`, `values`, `device`, `compute_capability`, `cuda` (the version
/// that the driver is for), `driver` (the kernel module's release, or null), `commit` (or null), `unix_seconds`.
///
/// # Errors
/// No value, one that is not finite, a device that does not answer, or a file that cannot be written.
pub fn record(device: Device, measurement: &Measurement<'_>) -> Result<(), Failed> {
    let Measurement { name, unit, values } = *measurement;
    let median = measurement.check()?;
    println!("measured {name}: {median} {unit} (median of {})", values.len());
    let Some(path) = std::env::var_os(RESULTS_VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let driver = std::fs::read_to_string(MODULE_RELEASE).ok();
    let line = json!({
        "name": name,
        "unit": unit,
        "median": median,
        "values": values,
        "device": device.name()?,
        "compute_capability": device.capability()?.to_string(),
        "cuda": device.driver().version().to_string(),
        "driver": driver.as_deref().map(str::trim),
        "commit": std::env::var(COMMIT_VARIABLE).ok(),
        "unix_seconds": since_epoch.as_secs(),
    });
    append(Path::new(&path), &line)
}

/// Adds a line in one write, so that executables that share the file do not mix theirs.
fn append(path: &Path, line: &Value) -> Result<(), Failed> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .map_err(|error| format!("{RESULTS_VARIABLE} names {}: {error}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(values: &[f64]) -> Measurement<'_> {
        Measurement { name: "n", unit: "ns", values }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(measurement(&[3.0]).median(), Some(3.0));
        assert_eq!(measurement(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(measurement(&[4.0, 1.0, 3.0, 2.0]).median(), Some(2.5));
        assert_eq!(measurement(&[]).median(), None);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for values in [&[][..], &[1.0, f64::NAN], &[f64::INFINITY]] {
            assert!(measurement(values).check().is_err(), "{values:?}");
        }
        assert_eq!(measurement(&[1.0, 5.0]).check(), Ok(3.0));
    }

    #[test]
    fn lines_are_added_and_a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("results.jsonl");
        for name in ["a", "b\n\"c\""] {
            append(&path, &json!({ "name": name })).expect("it is written");
        }
        let text = std::fs::read_to_string(&path).expect("it is there");
        let names: Vec<Value> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).expect("a line is JSON")["name"].clone()
            })
            .collect();
        assert_eq!(names, ["a", "b\n\"c\""]);
        let error = append(folder.path(), &json!({})).expect_err("a folder is no file");
        assert!(error.message().contains("KASMINA_RESULTS"), "{error:?}");
    }
}
