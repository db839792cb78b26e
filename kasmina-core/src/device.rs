//! Which device a layer runs on, and why.

use std::fmt;
use std::sync::Arc;

use kasmina_sys::{DeviceChoice, DeviceRequest, Driver, Unavailable};
use once_cell::sync::Lazy;

use crate::cuda::{CudaError, Engine};

/// Where a layer's passes run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// All cores of the rayon pool that the call is made in, with the vector instructions found.
    #[default]
    Cpu,
    /// A GPU on which the kernels of this crate run; see [`CudaLayer`](crate::cuda::CudaLayer).
    Cuda {
        /// Its number, in the driver's order.
        ordinal: u32,
    },
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

    /// What a request comes to: whether there is a driver, a device, and kernels of this crate that run on it.
    ///
    /// # Errors
    /// [`Unavailable`] where a GPU was asked for by name.
    pub fn select(request: DeviceRequest) -> Result<DeviceSelection, Unavailable> {
        let probe = kasmina_sys::probe(env!("CARGO_PKG_NAME"), &crate::cuda::KERNELS);
        Ok(match probe.choose(request)? {
            DeviceChoice::Cpu { because } => DeviceSelection { device: Self::Cpu, because },
            DeviceChoice::Cuda { device, .. } => {
                let device = Self::Cuda { ordinal: device.ordinal() };
                DeviceSelection { device, because: None }
            }
        })
    }

    /// The engine of a GPU, for its layers to share; `None` on the CPU, which needs none.
    ///
    /// # Errors
    /// The driver, the device or the kernels cannot be had, or the driver refused.
    pub fn engine(&self) -> Result<Option<Arc<Engine>>, CudaError> {
        match *self {
            Self::Cpu => Ok(None),
            Self::Cuda { ordinal } => Ok(Some(Engine::new(Driver::load()?.device(ordinal)?)?)),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda { ordinal } => write!(f, "cuda:{ordinal}"),
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

    /// Holds with a GPU and without one.
    #[test]
    fn auto_is_the_gpu_or_the_cpu_with_the_reason_that_a_gpu_by_name_is_refused_with() {
        let auto = Device::auto();
        match (Device::select(DeviceRequest::Cuda(0)), &auto.because) {
            (Ok(selection), None) => {
                assert_eq!(selection.device, Device::Cuda { ordinal: 0 });
                assert_eq!(auto, selection);
            }
            (Err(reason), Some(because)) => {
                assert_eq!(auto.device, Device::Cpu);
                assert_eq!(because.to_string(), reason.to_string());
            }
            // The first device may be one that does not fit, and a later one fit.
            (Err(_), None) => assert_ne!(auto.device, Device::Cpu),
            (Ok(selection), Some(because)) => panic!("{selection:?}, but auto says {because}"),
        }
    }

    #[test]
    fn the_cpu_is_always_there() {
        let cpu = Device::select(DeviceRequest::Cpu).expect("the CPU is always there");
        assert_eq!(cpu, DeviceSelection { device: Device::Cpu, because: None });
        assert!(cpu.device.engine().is_ok_and(|engine| engine.is_none()));
    }

    #[test]
    fn a_device_that_is_not_there_is_a_reason() {
        let far = DeviceRequest::Cuda(4_000_000);
        assert!(Device::select(far).is_err());
        assert!(Device::Cuda { ordinal: 4_000_000 }.engine().is_err());
        assert_eq!(Device::Cuda { ordinal: 3 }.to_string(), "cuda:3");
    }
}
