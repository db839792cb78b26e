//! Looking for nvcc, and keeping the reason for each place that was passed by.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::BuildError;
use super::install::{cache_folder, installed_nvcc};
use crate::version::CudaVersion;

/// The variables that decide, as a value: tests state theirs instead of changing the process's.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The process's own.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// A stated one.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a OsStr)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// A variable's value; an empty one counts as unset.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Every variable with a value whose name is text, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.0
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .filter_map(|(name, value)| Some((name.to_str()?, value.as_os_str())))
    }
}

/// Where a compiler was found, in the order of looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `KASMINA_NVCC` names it.
    Variable,
    /// Under `CUDA_HOME`.
    CudaHome,
    /// Under `CUDA_PATH`.
    CudaPath,
    /// On `PATH`.
    Path,
    /// The pinned installation in the user's cache.
    Cache,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Variable => "KASMINA_NVCC",
            Self::CudaHome => "CUDA_HOME",
            Self::CudaPath => "CUDA_PATH",
            Self::Path => "PATH",
            Self::Cache => "the pinned installation",
        })
    }
}

/// A release of the toolkit: 13.0.88.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
    /// Build.
    pub patch: u16,
}

impl Release {
    /// The first that knows every architecture of `Arch::DEFAULT`.
    pub const OLDEST: Self = Self { major: 12, minor: 8, patch: 0 };

    /// The release as the driver counts versions.
    pub fn cuda(self) -> CudaVersion {
        CudaVersion::new(self.major, self.minor)
    }

    /// Reads `13.0.88`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse::<u16>().ok());
        let release = Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        (parts.next().is_none() && release.minor < 100).then_some(release)
    }

    /// Finds `V13.0.88` in what `nvcc --version` writes.
    fn in_output(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || c == ',')
            .find_map(|word| Self::parse(word.strip_prefix('V')?))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A working compiler.
#[derive(Clone, Debug)]
pub struct Nvcc {
    /// The executable.
    pub path: PathBuf,
    /// Its release.
    pub release: Release,
    /// How it was found.
    pub origin: Origin,
}

/// A place that was looked at and not taken.
#[derive(Clone, Debug)]
pub struct PassedBy {
    /// Which place.
    pub origin: Origin,
    /// Why it was not taken.
    pub reason: String,
}

/// The outcome of a search.
#[derive(Clone, Debug)]
pub struct Search {
    /// The compiler, if there is one.
    pub found: Option<Nvcc>,
    /// Every place before it.
    pub passed_by: Vec<PassedBy>,
}

/// Looks in `KASMINA_NVCC`, `CUDA_HOME`, `CUDA_PATH`, `PATH` and the pinned installation, in this order.
///
/// A compiler from any place but the first must be of a release between 12.8, which knows every architecture that is
/// built, and 13.0: PTX of later ones cannot be loaded by a driver for 13.0. One named by `KASMINA_NVCC` is taken as it is.
///
/// # Errors
/// [`BuildError::BadNvcc`] where `KASMINA_NVCC` is set and no working compiler is there: a wish is not passed over.
pub fn find_nvcc(environment: &Environment) -> Result<Search, BuildError> {
    let mut passed_by = Vec::new();
    if let Some(value) = environment.get("KASMINA_NVCC") {
        let path = PathBuf::from(value);
        let release = ask_release(&path).map_err(|reason| BuildError::BadNvcc {
            variable: "KASMINA_NVCC",
            path: path.clone(),
            reason,
        })?;
        let found = Some(Nvcc { path, release, origin: Origin::Variable });
        return Ok(Search { found, passed_by });
    }
    passed_by.push(PassedBy { origin: Origin::Variable, reason: "not set".into() });

    for (origin, place) in places(environment) {
        let verdict = place.and_then(|path| {
            let release = ask_release(&path)?;
            suitable(release).map_err(|why| format!("{}: {why}", path.display()))?;
            Ok(Nvcc { path, release, origin })
        });
        match verdict {
            Ok(nvcc) => {
                return Ok(Search { found: Some(nvcc), passed_by });
            }
            Err(reason) => passed_by.push(PassedBy { origin, reason }),
        }
    }
    Ok(Search { found: None, passed_by })
}

/// Each place after `KASMINA_NVCC` with the compiler it should have, or why it can have none.
fn places(environment: &Environment) -> Vec<(Origin, Result<PathBuf, String>)> {
    let home = |name| {
        let root = environment.get(name).ok_or_else(|| "not set".to_owned())?;
        let path = Path::new(root).join("bin").join("nvcc");
        if path.is_file() { Ok(path) } else { Err(format!("{} is not there", path.display())) }
    };
    let on_path = || {
        let folders = environment.get("PATH").ok_or_else(|| "not set".to_owned())?;
        std::env::split_paths(folders)
            .map(|folder| folder.join("nvcc"))
            .find(|path| path.is_file())
            .ok_or_else(|| "no nvcc on it".to_owned())
    };
    let cached = || {
        let folder = cache_folder(environment).map_err(|error| error.to_string())?;
        let path = installed_nvcc(&folder);
        if path.is_file() { Ok(path) } else { Err(format!("{} is not there", path.display())) }
    };
    vec![
        (Origin::CudaHome, home("CUDA_HOME")),
        (Origin::CudaPath, home("CUDA_PATH")),
        (Origin::Path, on_path()),
        (Origin::Cache, cached()),
    ]
}

fn suitable(release: Release) -> Result<(), String> {
    let newest = super::PINNED_RELEASE;
    if release < Release::OLDEST {
        return Err(format!("release {release} is older than {}", Release::OLDEST));
    }
    if release.cuda() > newest.cuda() {
        return Err(format!(
            "release {release} is later than {}, whose drivers could not load its PTX",
            newest.cuda()
        ));
    }
    Ok(())
}

/// Runs `nvcc --version`.
pub(super) fn ask_release(path: &Path) -> Result<Release, String> {
    let output = Command::new(path)
        .arg("--version")
        .output()
        .map_err(|error| format!("{} does not run: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("`{} --version` failed ({})", path.display(), output.status));
    }
    Release::in_output(&text)
        .ok_or_else(|| format!("`{} --version` names no release", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_out_of_nvccs_own_words() {
        let text = "nvcc: NVIDIA (R) Cuda compiler driver\nBuilt on Wed_Aug_20\n\
                    Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler.1_0\n";
        assert_eq!(Release::in_output(text), Some(Release { major: 13, minor: 0, patch: 88 }));
        for text in ["", "V13", "V13.0", "Vx.0.1", "V13.0.88.1", "release 13.0"] {
            assert_eq!(Release::in_output(text), None, "{text:?}");
        }
    }

    #[test]
    fn releases_outside_the_window_are_passed_by() {
        let release = |text| Release::parse(text).expect("a release");
        assert!(suitable(release("12.8.61")).is_ok());
        assert!(suitable(release("13.0.99")).is_ok());
        assert!(suitable(release("12.6.85")).is_err());
        assert!(suitable(release("13.1.2")).is_err());
    }
}
