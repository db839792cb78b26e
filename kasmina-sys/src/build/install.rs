//! The pinned compiler, from its Python packages into the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::BuildError;
use super::nvcc::{Environment, Nvcc, Origin, Release, ask_release};

/// The release that is installed where none is found.
pub const PINNED_RELEASE: Release = Release { major: 13, minor: 0, patch: 88 };

/// What has to be there for nvcc to compile: driver and assembler, its own headers, the optimizer, the runtime's headers
/// and the C++ library. Each package counts its releases for itself.
pub const PINNED_PACKAGES: [&str; 5] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
];

/// `KASMINA_CACHE_DIR`, else `kasmina` under `XDG_CACHE_HOME` or `~/.cache`.
pub(super) fn cache_folder(environment: &Environment) -> Result<PathBuf, BuildError> {
    if let Some(folder) = environment.get("KASMINA_CACHE_DIR") {
        return Ok(PathBuf::from(folder));
    }
    if let Some(folder) = environment.get("XDG_CACHE_HOME") {
        return Ok(Path::new(folder).join("kasmina"));
    }
    let home = environment.get("HOME").ok_or(BuildError::NoCache)?;
    Ok(Path::new(home).join(".cache").join("kasmina"))
}

/// Where the pinned compiler lies under a cache folder.
pub(super) fn installed_nvcc(cache: &Path) -> PathBuf {
    installation(cache).join("nvidia").join("cu13").join("bin").join("nvcc")
}

fn installation(cache: &Path) -> PathBuf {
    cache.join(format!("cuda-{PINNED_RELEASE}"))
}

/// Installs the pinned compiler with `python3 -m pip`, about 270 MiB, and says so through `progress`.
///
/// It is installed beside its place and moved there when it is whole, so an interrupted run leaves nothing that looks
/// like a compiler, and two runs at once do not disturb one another.
///
/// # Errors
/// There is no Python, no pip, no index within reach, or what was installed does not run.
pub fn install_nvcc(
    environment: &Environment,
    progress: &mut dyn FnMut(&str),
) -> Result<Nvcc, BuildError> {
    let cache = cache_folder(environment)?;
    let (place, nvcc) = (installation(&cache), installed_nvcc(&cache));
    if !nvcc.is_file() {
        fs::create_dir_all(&cache).map_err(BuildError::io(&cache))?;
        let staging = cache.join(format!("cuda-{PINNED_RELEASE}.{}.partial", std::process::id()));
        progress(&format!("installing nvcc {PINNED_RELEASE} into {}", place.display()));
        let outcome = pip_install(&staging).and_then(|()| move_into_place(&staging, &place, &nvcc));
        if outcome.is_err() {
            // Best effort: what stays behind is never taken for an installation.
            let _ = fs::remove_dir_all(&staging);
        }
        outcome?;
    }
    let release = ask_release(&nvcc).map_err(|outcome| BuildError::Install {
        command: format!("{} --version", nvcc.display()),
        outcome,
        output: format!("remove {} and try again", place.display()),
    })?;
    Ok(Nvcc { path: nvcc, release, origin: Origin::Cache })
}

fn pip_install(target: &Path) -> Result<(), BuildError> {
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        // Wheels alone, and exactly these: nothing is built and nothing else is resolved.
        .args(["--only-binary=:all:", "--no-deps", "--no-compile", "--target"])
        .arg(target)
        .args(PINNED_PACKAGES)
        .stdin(Stdio::null());
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let text = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let failed = |outcome: String, output: String| BuildError::Install {
        command: text.clone(),
        outcome,
        output,
    };
    let output = command.output().map_err(|error| failed(error.to_string(), String::new()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(output.status.to_string(), said))
}

fn move_into_place(staging: &Path, place: &Path, nvcc: &Path) -> Result<(), BuildError> {
    match fs::rename(staging, place) {
        Ok(()) => Ok(()),
        // Another run was first: its installation is as good as this one.
        Err(_) if nvcc.is_file() => {
            let _ = fs::remove_dir_all(staging);
            Ok(())
        }
        Err(source) => Err(BuildError::Io { path: place.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn the_cache_is_where_the_user_says() {
        let folder = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|&(name, value)| (name, OsStr::new(value)));
            cache_folder(&Environment::of(pairs)).ok()
        };
        assert_eq!(folder(&[]), None);
        assert_eq!(folder(&[("HOME", "/h")]), Some("/h/.cache/kasmina".into()));
        assert_eq!(folder(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some("/x/kasmina".into()));
        assert_eq!(
            folder(&[("XDG_CACHE_HOME", "/x"), ("KASMINA_CACHE_DIR", "/k")]),
            Some("/k".into())
        );
        assert_eq!(
            folder(&[("HOME", "/h"), ("XDG_CACHE_HOME", "")]),
            Some("/h/.cache/kasmina".into())
        );
    }
}
