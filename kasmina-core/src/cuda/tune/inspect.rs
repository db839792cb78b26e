//! What choices lie on the disk for a device, for `doctor`: read alone, nothing is measured or changed.

use std::path::{Path, PathBuf};

use kasmina_sys::{Device, DeviceInfo};
use kasmina_telemetry::tune::{Autotune, AutotuneMode, Candidate as _, Identity, cache};

use super::choice::Candidate;
use crate::DType;
use crate::cuda::KERNELS;
use crate::cuda::variants::{backward_image, forward_image};

/// What autotuning finds for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutotuneReport {
    /// What engines would do.
    pub mode: AutotuneMode,
    /// Where choices are kept; `None` where the environment names no place.
    pub folder: Option<PathBuf>,
    /// Choices for this device, its driver and the kernels of this executable; 0 without a device.
    pub choices: usize,
    /// What is wrong with the environment or the files.
    pub problems: Vec<String>,
}

/// Looks at the environment, and at the files for `device` where one is given.
pub fn inspect(device: Option<(&Device, &DeviceInfo)>) -> AutotuneReport {
    let settings = Autotune::from_environment();
    let mut problems: Vec<String> = settings
        .problem()
        .map(|problem| format!("{problem}; it counts as load"))
        .into_iter()
        .collect();
    let mut choices = 0;
    if let (Some(folder), Some((device, info))) = (settings.folder(), device) {
        let (known, told) = kasmina_telemetry::cuda::choices_on_disk(folder, device, info);
        choices += known;
        problems.extend(told);
        for image in images() {
            let Some(identity) = identity(device, info, &image) else { continue };
            match cache::load::<Candidate>(folder, &identity) {
                Ok(found) => {
                    for (key, choice) in &found {
                        match choice.candidate.check() {
                            Ok(()) => choices += 1,
                            Err(reason) => problems.push(format!("{image}, {key}: {reason}")),
                        }
                    }
                }
                Err(problem) => problems.push(problem.to_string()),
            }
        }
    }
    let folder = settings.folder().map(Path::to_owned);
    AutotuneReport { mode: settings.mode(), folder, choices, problems }
}

/// The file that an engine keeps the choices of a fatbin in; for tests that spoil it.
#[doc(hidden)]
pub fn cache_file(folder: &Path, device: &Device, image: &str) -> Option<PathBuf> {
    let info = device.info().ok()?;
    Some(cache::file(folder, &identity(device, &info, image)?))
}

fn images() -> impl Iterator<Item = String> {
    let dtypes = [DType::F32, DType::F16, DType::Bf16];
    dtypes.into_iter().flat_map(|dtype| [forward_image(dtype), backward_image(dtype)])
}

/// Whose choices those of a fatbin are; `None` where this executable does not carry it.
pub(in crate::cuda) fn identity(
    device: &Device,
    info: &DeviceInfo,
    image: &str,
) -> Option<Identity> {
    let fatbin = KERNELS.iter().find(|known| known.name == image)?.fatbin().ok()?;
    Some(Identity::of(device, info, fatbin, env!("CARGO_PKG_VERSION")))
}
