//! Why the GPU, or one call of its driver, cannot be had: a value that says what was found, what is needed and what
//! mends it. `doctor`, logs and error texts all print the same one.

use std::path::PathBuf;

use thiserror::Error;

use crate::arch::Arch;
use crate::capability::ComputeCapability;
use crate::raw::CUresult;
use crate::version::CudaVersion;

/// A reason not to use CUDA. Never a panic, and never more than the thing that was asked for: a missing symbol makes
/// one call unavailable, not the driver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The dynamic loader found no driver library.
    #[error(
        "no CUDA driver: {library} could not be opened ({reason}); install the NVIDIA driver, or name its library in \
         KASMINA_CUDA_LIBRARY"
    )]
    NoLibrary {
        /// What was asked of the dynamic loader.
        library: PathBuf,
        /// What the dynamic loader said.
        reason: String,
    },

    /// The library is there, one function of it is not.
    #[error(
        "the CUDA driver has no {name} as of CUDA {needed}{}; update the NVIDIA driver to one for CUDA {needed} or later",
        found_version(*.found)
    )]
    MissingSymbol {
        /// The function's name.
        name: String,
        /// The CUDA version whose form of the function was asked for.
        needed: CudaVersion,
        /// The driver's version, where the driver could still say it.
        found: Option<CudaVersion>,
    },

    /// The driver works but belongs to an older CUDA.
    #[error(
        "the CUDA driver is for CUDA {found}, {needed_by} needs CUDA {needed} or later; update the NVIDIA driver"
    )]
    DriverTooOld {
        /// What the driver reports.
        found: CudaVersion,
        /// The least that would do.
        needed: CudaVersion,
        /// Who needs it.
        needed_by: String,
    },

    /// `cuInit` did not succeed.
    #[error("the CUDA driver did not start: cuInit returned {code}; {}", init_advice(*.code))]
    InitFailed {
        /// What `cuInit` returned.
        code: CUresult,
    },

    /// The driver did not answer a question that must be answered before a device can be used.
    #[error(
        "the CUDA driver's {call} returned {code}; see the system log for the driver's own message"
    )]
    QueryFailed {
        /// The call with its arguments.
        call: String,
        /// What it returned.
        code: CUresult,
    },

    /// The driver runs and sees no device.
    #[error(
        "the CUDA driver sees no device; check that one is fitted, passed through to this container, and not hidden by \
         CUDA_VISIBLE_DEVICES"
    )]
    NoDevice,

    /// An ordinal past the last device.
    #[error("there is no CUDA device {ordinal}; this machine has {count}, counted from 0")]
    NoSuchDevice {
        /// What was asked for.
        ordinal: u32,
        /// How many devices there are.
        count: u32,
    },

    /// The device's architecture is older than any code for it.
    #[error("{device} has compute capability {found}; Kasmina's kernels need {needed} or later")]
    ComputeCapability {
        /// The device's name.
        device: String,
        /// Its capability.
        found: ComputeCapability,
        /// The least that would do.
        needed: ComputeCapability,
    },

    /// This version of a package has no GPU kernels for what was asked of it.
    #[error("{package} has no GPU kernels for this in this version; it runs on the CPU")]
    NoKernels {
        /// The package.
        package: String,
    },

    /// The package was compiled on a machine where its kernels had not been.
    #[error(
        "the GPU kernels of {package} ({kernel}) were not built; run `{command}` and compile again"
    )]
    KernelsNotBuilt {
        /// The package that carries the kernels.
        package: String,
        /// Which of its fatbins.
        kernel: String,
        /// The command that mends it.
        command: &'static str,
    },

    /// There is a fatbin, and it is not what its sources would give today.
    #[error(
        "the GPU kernels of {package} ({kernel}) are stale: {reason}; run `{command}` and compile again"
    )]
    KernelsStale {
        /// The package that carries the kernels.
        package: String,
        /// Which of its fatbins.
        kernel: String,
        /// What differs.
        reason: String,
        /// The command that mends it.
        command: &'static str,
    },

    /// The fatbin holds code for other architectures.
    #[error(
        "the GPU kernels of {package} ({kernel}) hold {}, none of which runs on compute capability {found}; run \
         `{command}` and compile again",
        list(.built)
    )]
    NoCodeFor {
        /// The package that carries the kernels.
        package: String,
        /// Which of its fatbins.
        kernel: String,
        /// The device's capability.
        found: ComputeCapability,
        /// What the fatbin holds.
        built: Vec<Arch>,
        /// The command that mends it.
        command: &'static str,
    },
}

fn found_version(found: Option<CudaVersion>) -> String {
    found.map_or_else(String::new, |version| format!(" (it is for CUDA {version})"))
}

fn list(archs: &[Arch]) -> String {
    if archs.is_empty() {
        return "no code".to_owned();
    }
    archs.iter().map(Arch::to_string).collect::<Vec<_>>().join(", ")
}

/// What to do about a failed `cuInit`, for the codes whose cause is known.
fn init_advice(code: CUresult) -> &'static str {
    match code {
        CUresult::STUB_LIBRARY => {
            "the library found is the toolkit's link stub, put the driver's own first on the loader's path"
        }
        CUresult::SYSTEM_DRIVER_MISMATCH => {
            "the library and the kernel module are of different driver versions, reload the module or restart"
        }
        CUresult::SYSTEM_NOT_READY => {
            "the system is not ready, check the fabric manager and persistence services"
        }
        CUresult::COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "this device does not take the compatibility package, use the driver's own library"
        }
        CUresult::OPERATING_SYSTEM | CUresult::NOT_PERMITTED => {
            "check the permissions of the /dev/nvidia* files"
        }
        _ => "check that `nvidia-smi` works and see the system log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::CodeKind;

    #[test]
    fn each_text_names_what_was_found_what_is_needed_and_what_to_do() {
        let old = Unavailable::DriverTooOld {
            found: CudaVersion::new(11, 4),
            needed: CudaVersion::new(12, 0),
            needed_by: "kasmina-sys".into(),
        };
        let missing = Unavailable::MissingSymbol {
            name: "cuFancy".into(),
            needed: CudaVersion::new(12, 0),
            found: Some(CudaVersion::new(11, 4)),
        };
        let other = Unavailable::NoCodeFor {
            package: "p".into(),
            kernel: "k".into(),
            found: ComputeCapability::new(9, 0),
            built: vec![Arch::new(12, 0, CodeKind::Cubin)],
            command: "mend it",
        };
        for (value, parts) in [
            (old, ["11.4", "12.0", "update"]),
            (missing, ["cuFancy", "(it is for CUDA 11.4)", "update"]),
            (Unavailable::InitFailed { code: CUresult(4242) }, ["4242", "cuInit", "nvidia-smi"]),
            (other, ["9.0", "sm_120", "mend it"]),
        ] {
            let text = value.to_string();
            for part in parts {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
        }
    }
}
