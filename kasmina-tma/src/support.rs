//! Whether a device's tensor maps can be used, or the one reason why not.

use kasmina_sys::{ComputeCapability, CudaVersion, Device, DeviceAttribute, Error, Unavailable};
use thiserror::Error as ThisError;

/// The environment variable that switches the TMA off (`off`) or leaves it to the device (`on`, or unset).
pub const TMA_VARIABLE: &str = "KASMINA_TMA";

/// Tensor maps came with CUDA 12.0.
const NEEDED_VERSION: CudaVersion = CudaVersion::new(12, 0);
/// The first architecture with a TMA unit. Ada, 8.9, has none.
const NEEDED_CAPABILITY: ComputeCapability = ComputeCapability::new(9, 0);

/// Whether tensor maps can be used. As an error type, its text is the reason.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum TmaSupport {
    /// They can.
    #[error("tensor maps are supported")]
    Supported,
    /// A variable switched them off.
    #[error(
        "{TMA_VARIABLE} is {value:?}, which is not \"on\": tensor maps and bulk copies are off"
    )]
    Disabled {
        /// The variable's value.
        value: String,
    },
    /// There is no driver, or no such device.
    #[error(transparent)]
    NoDriver(#[from] Unavailable),
    /// The driver is from before tensor maps.
    #[error("the CUDA driver is for CUDA {found}; tensor maps need {needed}")]
    TooOld {
        /// What the driver reports.
        found: CudaVersion,
        /// The first with tensor maps.
        needed: CudaVersion,
    },
    /// The driver lacks the function that encodes them.
    #[error("{0}")]
    MissingSymbol(Unavailable),
    /// The device is from before the TMA.
    #[error("compute capability {found} has no TMA; tensor maps need {needed}")]
    ComputeCapability {
        /// The device's.
        found: ComputeCapability,
        /// The first with a TMA.
        needed: ComputeCapability,
    },
    /// The driver says that the device has none, whatever its capability.
    #[error("the driver says that this device has no tensor-map access")]
    NotOnThisDevice,
    /// The driver did not answer.
    #[error("the driver did not say whether tensor maps are supported: {0}")]
    Unknown(Error),
}

impl TmaSupport {
    /// Asks a device, after the variable `KASMINA_TMA`.
    pub fn detect(device: &Device) -> Self {
        let setting =
            std::env::var_os(TMA_VARIABLE).map(|value| value.to_string_lossy().into_owned());
        Self::detect_with(device, setting.as_deref())
    }

    /// [`TmaSupport::detect`] with the variable's value stated; `None` for unset.
    pub fn detect_with(device: &Device, setting: Option<&str>) -> Self {
        if let Err(disabled) = Self::check_setting(setting) {
            return disabled;
        }
        let driver = device.driver();
        if driver.version() < NEEDED_VERSION {
            return Self::TooOld { found: driver.version(), needed: NEEDED_VERSION };
        }
        match device.capability() {
            Err(error) => return Self::Unknown(error),
            Ok(found) if found < NEEDED_CAPABILITY => {
                return Self::ComputeCapability { found, needed: NEEDED_CAPABILITY };
            }
            Ok(_) => {}
        }
        match device.attribute(DeviceAttribute::TENSOR_MAP_ACCESS_SUPPORTED) {
            Err(error) => return Self::Unknown(error),
            Ok(0) => return Self::NotOnThisDevice,
            Ok(_) => {}
        }
        match driver.cuTensorMapEncodeTiled() {
            Ok(_) => Self::Supported,
            Err(missing) => Self::MissingSymbol(missing),
        }
    }

    /// What the variable's value alone says.
    ///
    /// # Errors
    /// [`TmaSupport::Disabled`] for `off` and for any value that is not `on`: a misspelt wish to switch it off is safer
    /// kept than lost.
    pub fn check_setting(setting: Option<&str>) -> Result<(), Self> {
        match setting {
            None | Some("" | "on") => Ok(()),
            Some(value) => Err(Self::Disabled { value: value.to_owned() }),
        }
    }

    /// Whether tensor maps can be used.
    pub fn is_supported(&self) -> bool {
        *self == Self::Supported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_on_and_unset_leave_it_on() {
        for setting in [None, Some(""), Some("on")] {
            assert_eq!(TmaSupport::check_setting(setting), Ok(()));
        }
        for setting in ["off", "0", "OFF", "of", "On "] {
            let disabled = TmaSupport::check_setting(Some(setting)).expect_err("it is off");
            assert!(disabled.to_string().contains(&format!("{setting:?}")), "{disabled}");
        }
    }
}
