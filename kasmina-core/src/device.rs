//! Which device a layer runs on, and why.

use std::fmt;

use kasmina_sys::{DeviceChoice, DeviceRequest, Unavailable};
use once_cell::sync::Lazy;

/// Where a layer's passes run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// All cores of the rayon pool that the call is made in, with the vector instructions found.
    #[default]
    Cpu,
}

/// A chosen device, with the reason where a GPU had been welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSelection {
    /// The device.
    pub device: Device,
    /// Why it is no GPU; `None` where the CPU was asked for.
    pub because: Option<Unavailable>,
}

impl Device {
    /// The GPU when everything fits, else the CPU and the reason.
    ///
    /// ```
    /// let selection = kasmina_core::Device::auto();
    /// if let Some(reason) = &selection.because {
    ///     println!("running on {} because {reason}", selection.device);
    /// }
    /// ```
    pub fn auto() -> DeviceSelection {
        Self::select(DeviceRequest::Auto)
            .unwrap_or_else(|because| DeviceSelection { device: Self::Cpu, because: Some(because) })
    }

    /// What a request comes to. Layers have no GPU backend in this version (the streaming kernels of
    /// [`cuda`](crate::cuda) are used without one), so a GPU that is there is passed by with
    /// [`Unavailable::NoKernels`].
    ///
    /// # Errors
    /// [`Unavailable`] where a GPU was asked for by name.
    pub fn select(request: DeviceRequest) -> Result<DeviceSelection, Unavailable> {
        let package = env!("CARGO_PKG_NAME");
        match kasmina_sys::probe(package, &[]).choose(request)? {
            DeviceChoice::Cpu { because } => Ok(DeviceSelection { device: Self::Cpu, because }),
            DeviceChoice::Cuda { .. } => {
                Err(Unavailable::NoKernels { package: package.to_owned() })
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
        }
    }
}

/// The processor as reports name it: architecture and the vector instructions in use.
pub fn hardware() -> &'static str {
    static NAME: Lazy<String> = Lazy::new(|| {
        // pulp's name of the instruction set, without the list of what belongs to it.
        let set = format!("{:?}", pulp::Arch::new());
        let set = set.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        format!("cpu {} {set}", std::env::consts::ARCH)
    });
    &NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_by_name_is_an_error_with_a_reason_and_auto_is_the_cpu_with_it() {
        let reason = Device::select(DeviceRequest::Cuda(0)).expect_err("no kernels in this crate");
        let selection = Device::auto();
        assert_eq!(selection.device, Device::Cpu);
        assert_eq!(selection.because.map(|r| r.to_string()), Some(reason.to_string()));
        let cpu = Device::select(DeviceRequest::Cpu).expect("the CPU is always there");
        assert_eq!(cpu.because, None);
    }
}
