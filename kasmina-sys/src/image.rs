//! Compiled kernels that a package carries inside itself, or the reason why it carries none.

use crate::arch::{Arch, CodeKind};
use crate::capability::ComputeCapability;
use crate::error::Error;
use crate::unavailable::Unavailable;
use crate::version::CudaVersion;

/// The command that builds kernels, as every message about absent or stale ones names it.
pub const BUILD_COMMAND: &str = "cargo xtask build-kernels";

/// One fatbin of a package, as its build script found it when the package was compiled.
#[derive(Clone, Debug)]
pub struct KernelImage {
    /// The package that carries the kernels.
    pub package: &'static str,
    /// The fatbin's name: that of its `.cu` file without the ending.
    pub name: &'static str,
    /// What was found.
    pub state: ImageState,
}

/// What a build script found beside a `.cu` file.
#[derive(Clone, Debug)]
pub enum ImageState {
    /// No fatbin.
    NotBuilt,
    /// A fatbin that its sources would not give today; it was left out.
    Stale {
        /// What differs.
        reason: &'static str,
    },
    /// A fatbin made from the sources that stood beside it.
    Embedded(Fatbin),
}

/// The bytes of a fatbin and where they came from.
#[derive(Clone, Debug)]
pub struct Fatbin {
    /// The package that carries it.
    pub package: &'static str,
    /// The fatbin's name.
    pub name: &'static str,
    /// The file, aligned to 16 bytes.
    pub bytes: &'static [u8],
    /// Hash over sources, headers, flags and architectures; caches of anything measured with these kernels key on it.
    pub source_hash: &'static str,
    /// The toolkit that compiled it.
    pub toolkit: CudaVersion,
    /// The code it holds.
    pub archs: &'static [Arch],
}

impl KernelImage {
    /// The fatbin.
    ///
    /// # Errors
    /// [`Unavailable::KernelsNotBuilt`] or [`Unavailable::KernelsStale`], with the command that mends it.
    pub fn fatbin(&self) -> Result<&Fatbin, Unavailable> {
        let (package, kernel) = (self.package.to_owned(), self.name.to_owned());
        match &self.state {
            ImageState::Embedded(fatbin) => Ok(fatbin),
            ImageState::NotBuilt => {
                Err(Unavailable::KernelsNotBuilt { package, kernel, command: BUILD_COMMAND })
            }
            ImageState::Stale { reason } => Err(Unavailable::KernelsStale {
                package,
                kernel,
                reason: (*reason).to_owned(),
                command: BUILD_COMMAND,
            }),
        }
    }

    /// The code of this image that a device would run, under a driver for CUDA `driver`.
    ///
    /// # Errors
    /// The image is absent or stale, holds nothing for the device, or needs a later driver.
    pub fn code_for(
        &self,
        device: ComputeCapability,
        driver: CudaVersion,
    ) -> Result<Arch, Unavailable> {
        let fatbin = self.fatbin()?;
        let code = Arch::best_for(device, fatbin.archs).ok_or_else(|| Unavailable::NoCodeFor {
            package: self.package.to_owned(),
            kernel: self.name.to_owned(),
            found: device,
            built: fatbin.archs.to_vec(),
            command: BUILD_COMMAND,
        })?;
        // Machine code loads under any driver of its major version; PTX needs a compiler at least as new as itself.
        let needed = match code.kind {
            CodeKind::Ptx => fatbin.toolkit,
            CodeKind::Cubin | CodeKind::SpecificCubin => {
                CudaVersion::from_raw(fatbin.toolkit.major() * 1000)
            }
        };
        if driver < needed {
            return Err(Unavailable::DriverTooOld {
                found: driver,
                needed,
                needed_by: format!("the {code} code of {} ({})", self.package, self.name),
            });
        }
        Ok(code)
    }
}

impl Fatbin {
    /// Checks the header before the driver sees the bytes, whose parser trusts the length in it.
    ///
    /// # Errors
    /// [`Error::NotAFatbin`] naming the field, its value and what it must be.
    pub fn check(&self) -> Result<(), Error> {
        check_header(self.bytes)
            .map_err(|reason| Error::NotAFatbin { name: self.name.to_owned(), reason })
    }
}

/// First word of a fatbin, little-endian.
const MAGIC: u32 = 0xBA55_ED50;
/// Magic, version and header length, then the length of the rest.
const HEADER: usize = 16;

pub(crate) fn check_header(bytes: &[u8]) -> Result<(), String> {
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return Err(format!("{} bytes long, the header alone has {HEADER}", bytes.len()));
    };
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if word(0) != MAGIC {
        return Err(format!(
            "it begins with {:#010x}, a fatbin begins with {MAGIC:#010x}",
            word(0)
        ));
    }
    // The upper half of the second word is the header's own length.
    let header_length = word(4) >> 16;
    if header_length as usize != HEADER {
        return Err(format!(
            "its header says that it is {header_length} bytes long, {HEADER} is known"
        ));
    }
    let length = u64::from(word(8)) | u64::from(word(12)) << 32;
    if length != body.len() as u64 {
        return Err(format!("its header says that {length} bytes follow, {} do", body.len()));
    }
    Ok(())
}

/// Lays bytes out at a 16-byte boundary: generated code wraps `include_bytes!` in it.
#[doc(hidden)]
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Aligned<T: ?Sized>(pub T);

#[cfg(test)]
mod tests {
    use super::*;

    const ARCHS: &[Arch] = &[Arch::new(8, 0, CodeKind::Cubin), Arch::new(8, 0, CodeKind::Ptx)];

    fn image(state: ImageState) -> KernelImage {
        KernelImage { package: "kasmina-x", name: "probe", state }
    }

    fn embedded() -> KernelImage {
        image(ImageState::Embedded(Fatbin {
            package: "kasmina-x",
            name: "probe",
            bytes: &[],
            source_hash: "",
            toolkit: CudaVersion::new(13, 1),
            archs: ARCHS,
        }))
    }

    #[test]
    fn absent_and_stale_images_name_the_command() {
        for state in [ImageState::NotBuilt, ImageState::Stale { reason: "flags differ" }] {
            let reason = image(state).fatbin().expect_err("there is none").to_string();
            assert!(reason.contains("kasmina-x") && reason.contains(BUILD_COMMAND), "{reason}");
        }
    }

    #[test]
    fn machine_code_needs_the_major_version_and_ptx_the_whole_one() {
        let image = embedded();
        let (ampere, hopper) = (ComputeCapability::new(8, 6), ComputeCapability::new(9, 0));
        let driver = CudaVersion::new(13, 0);
        assert_eq!(image.code_for(ampere, driver).map(|a| a.kind), Ok(CodeKind::Cubin));
        assert!(matches!(
            image.code_for(hopper, driver),
            Err(Unavailable::DriverTooOld { needed, .. }) if needed == CudaVersion::new(13, 1)
        ));
        assert!(matches!(
            image.code_for(ampere, CudaVersion::new(12, 9)),
            Err(Unavailable::DriverTooOld { needed, .. }) if needed == CudaVersion::new(13, 0)
        ));
        assert!(matches!(
            image.code_for(ComputeCapability::new(7, 5), driver),
            Err(Unavailable::NoCodeFor { .. })
        ));
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let mut good = vec![0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        good.extend([1, 2, 3, 4]);
        assert_eq!(check_header(&good), Ok(()));
        for cut in 0..good.len() {
            assert!(check_header(&good[..cut]).is_err(), "cut at {cut}");
        }
        // Every byte but the version's two matters.
        for at in (0..16).filter(|at| !(4..6).contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(check_header(&bad).is_err(), "byte {at}");
        }
    }
}
