//! Which device a run uses and why: everything that was looked at is kept, so a report can show it.

use std::fmt;
use std::str::FromStr;

use crate::arch::Arch;
use crate::capability::ComputeCapability;
use crate::device::{Device, DeviceInfo};
use crate::driver::Driver;
use crate::error::Error;
use crate::image::KernelImage;
use crate::unavailable::Unavailable;

/// What a user asks for: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceRequest {
    /// The first GPU on which everything fits, else the CPU.
    #[default]
    Auto,
    /// The CPU, without looking further.
    Cpu,
    /// This GPU or an error.
    Cuda(u32),
}

/// A text that asks for no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no device; write auto, cpu, cuda or cuda:N")]
pub struct ParseDeviceError(String);

impl FromStr for DeviceRequest {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| ParseDeviceError(text.to_owned())),
        }
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// What a request came to.
#[derive(Clone, Debug)]
pub enum DeviceChoice {
    /// The CPU, with the reason where a GPU had been welcome.
    Cpu {
        /// `None` where the CPU was asked for.
        because: Option<Unavailable>,
    },
    /// A GPU.
    Cuda {
        /// The device.
        device: Device,
        /// What it is.
        info: DeviceInfo,
    },
}

/// One device and whether the kernels run on it.
#[derive(Clone, Debug)]
pub struct DeviceProbe {
    /// The device.
    pub device: Device,
    /// What it is, or the question that the driver did not answer.
    pub info: Result<DeviceInfo, Error>,
    /// The code of each image that it would run, in the order given, or what is missing.
    pub code: Result<Vec<Arch>, Unavailable>,
}

/// The driver, every device and what stands in the way, for one package's kernels.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The driver or the reason for its absence.
    pub driver: Result<&'static Driver, Unavailable>,
    /// Every device, in the driver's order.
    pub devices: Vec<DeviceProbe>,
    /// Why there are no devices although there is a driver.
    pub no_devices: Option<Unavailable>,
}

/// Looks at the process's driver and every device, for the kernels of `package`.
///
/// ```
/// use kasmina_sys::{DeviceChoice, DeviceRequest};
///
/// let probe = kasmina_sys::probe(kasmina_sys::PACKAGE, &kasmina_sys::KERNELS);
/// match probe.choose(DeviceRequest::Auto)? {
///     DeviceChoice::Cuda { info, .. } => println!("{} {}", info.name, info.capability),
///     DeviceChoice::Cpu { because: Some(reason) } => println!("the CPU, because {reason}"),
///     DeviceChoice::Cpu { because: None } => println!("the CPU, as asked"),
/// }
/// # Ok::<(), kasmina_sys::Unavailable>(())
/// ```
pub fn probe(package: &str, images: &[KernelImage]) -> Probe {
    probe_driver(Driver::load(), package, images)
}

/// [`probe`], for a driver that the caller loaded or failed to load.
pub fn probe_driver(
    driver: Result<&'static Driver, Unavailable>,
    package: &str,
    images: &[KernelImage],
) -> Probe {
    let found = driver.clone().and_then(|driver| driver.devices().map_err(into_unavailable));
    let (devices, no_devices) = match found {
        Ok(devices) if devices.is_empty() => (devices, Some(Unavailable::NoDevice)),
        Ok(devices) => (devices, None),
        // Without a driver the reason is the driver's own; it is not said twice.
        Err(reason) => (Vec::new(), driver.is_ok().then_some(reason)),
    };
    let devices = devices
        .into_iter()
        .map(|device| {
            let info = device.info();
            let code = info
                .as_ref()
                .map_err(|error| into_unavailable(error.clone()))
                .and_then(|info| code_for(&device, info, package, images));
            DeviceProbe { device, info, code }
        })
        .collect();
    Probe { driver, devices, no_devices }
}

fn code_for(
    device: &Device,
    info: &DeviceInfo,
    package: &str,
    images: &[KernelImage],
) -> Result<Vec<Arch>, Unavailable> {
    if images.is_empty() {
        return Err(Unavailable::NoKernels { package: package.to_owned() });
    }
    if info.capability < ComputeCapability::MINIMUM {
        return Err(Unavailable::ComputeCapability {
            device: info.name.clone(),
            found: info.capability,
            needed: ComputeCapability::MINIMUM,
        });
    }
    let driver = device.driver().version();
    images.iter().map(|image| image.code_for(info.capability, driver)).collect()
}

/// A failed question becomes the reason not to use what it was asked about.
fn into_unavailable(error: Error) -> Unavailable {
    match error {
        Error::Unavailable(reason) => reason,
        Error::Call { call, arguments, code } => {
            Unavailable::QueryFailed { call: format!("{call}({arguments})"), code }
        }
        // Only calls are made while probing; anything else would still be told in full.
        other => {
            Unavailable::QueryFailed { call: other.to_string(), code: crate::CUresult::UNKNOWN }
        }
    }
}

impl Probe {
    /// What `request` comes to.
    ///
    /// # Errors
    /// Only where a GPU was asked for by name: the reason why it cannot be had. `auto` then gives the CPU and the
    /// reason.
    pub fn choose(&self, request: DeviceRequest) -> Result<DeviceChoice, Unavailable> {
        match request {
            DeviceRequest::Cpu => Ok(DeviceChoice::Cpu { because: None }),
            DeviceRequest::Cuda(ordinal) => self.cuda(ordinal),
            DeviceRequest::Auto => {
                let mut reasons = Vec::new();
                for ordinal in 0..self.devices.len() {
                    match self.cuda(ordinal as u32) {
                        Ok(choice) => return Ok(choice),
                        Err(reason) => reasons.push(reason),
                    }
                }
                // The first device's reason stands for all: it is the one that a user would mend first.
                let because = reasons.into_iter().next().or_else(|| self.no_gpu());
                Ok(DeviceChoice::Cpu { because })
            }
        }
    }

    fn no_gpu(&self) -> Option<Unavailable> {
        self.driver.as_ref().err().cloned().or_else(|| self.no_devices.clone())
    }

    fn cuda(&self, ordinal: u32) -> Result<DeviceChoice, Unavailable> {
        if let Some(reason) = self.no_gpu() {
            return Err(reason);
        }
        let probe = self
            .devices
            .get(ordinal as usize)
            .ok_or(Unavailable::NoSuchDevice { ordinal, count: self.devices.len() as u32 })?;
        let info = probe.info.clone().map_err(into_unavailable)?;
        probe.code.clone()?;
        Ok(DeviceChoice::Cuda { device: probe.device, info })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip_and_nonsense_is_refused() {
        for text in ["auto", "cpu", "cuda:0", "cuda:17"] {
            assert_eq!(text.parse::<DeviceRequest>().map(|r| r.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("cuda".parse(), Ok(DeviceRequest::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:99999999999", "CPU"] {
            assert!(text.parse::<DeviceRequest>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn without_a_driver_auto_is_the_cpu_with_the_reason_and_cuda_is_that_reason() {
        let reason = Unavailable::NoLibrary { library: "x".into(), reason: "gone".into() };
        let probe = probe_driver(Err(reason.clone()), "p", &[]);
        assert!(matches!(
            probe.choose(DeviceRequest::Auto),
            Ok(DeviceChoice::Cpu { because: Some(why) }) if why == reason
        ));
        assert_eq!(probe.choose(DeviceRequest::Cuda(3)).err(), Some(reason));
        assert!(matches!(
            probe.choose(DeviceRequest::Cpu),
            Ok(DeviceChoice::Cpu { because: None })
        ));
    }
}
