//! The pinned compiler, headers and libclang, from their Python packages into the user's cache.

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

/// The libclang that reads headers for bindgen, so that everyone makes the same bindings.
pub const PINNED_LIBCLANG: &str = "libclang==18.1.1";

/// Where the pinned compiler lies under a cache folder.
pub(super) fn installed_nvcc(cache: &Path) -> PathBuf {
    toolkit(cache).join("bin").join("nvcc")
}

/// Where the pinned toolkit's headers lie under a cache folder.
pub(super) fn installed_headers(cache: &Path) -> PathBuf {
    toolkit(cache).join("include")
}

fn toolkit(cache: &Path) -> PathBuf {
    cache.join(format!("cuda-{PINNED_RELEASE}")).join("nvidia").join("cu13")
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
    let nvcc = install_toolkit(environment, progress)?.join("bin").join("nvcc");
    let release = ask_release(&nvcc).map_err(|outcome| BuildError::Install {
        command: format!("{} --version", nvcc.display()),
        outcome,
        output: "remove the installation and try again".to_owned(),
    })?;
    Ok(Nvcc { path: nvcc, release, origin: Origin::Cache })
}

/// Installs the same packages as [`install_nvcc`], in the same way, and returns the folder of their headers: those of exactly
/// the pinned release, whatever toolkit is on this machine.
///
/// # Errors
/// There is no Python, no pip, or no index within reach.
pub fn install_headers(
    environment: &Environment,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    Ok(install_toolkit(environment, progress)?.join("include"))
}

/// Installs [`PINNED_LIBCLANG`] in the same way and returns the folder of the library, as `LIBCLANG_PATH` wants it.
///
/// # Errors
/// There is no Python, no pip, or no index within reach.
pub fn install_libclang(
    environment: &Environment,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    let cache = cache_folder(environment)?;
    let name = PINNED_LIBCLANG.replace("==", "-");
    let folder = cache.join(&name).join("clang").join("native");
    let witness = folder.join("libclang.so");
    install(&cache, &name, &witness, &[PINNED_LIBCLANG], progress)?;
    Ok(folder)
}

fn install_toolkit(
    environment: &Environment,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    let cache = cache_folder(environment)?;
    let name = format!("cuda-{PINNED_RELEASE}");
    install(&cache, &name, &installed_nvcc(&cache), &PINNED_PACKAGES, progress)?;
    Ok(toolkit(&cache))
}

/// Puts `packages` into `cache/name`, unless the file `witness`, which lies in it, is there already.
fn install(
    cache: &Path,
    name: &str,
    witness: &Path,
    packages: &[&str],
    progress: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    if witness.is_file() {
        return Ok(());
    }
    fs::create_dir_all(cache).map_err(BuildError::io(cache))?;
    let place = cache.join(name);
    let staging = cache.join(format!("{name}.{}.partial", std::process::id()));
    progress(&format!("installing {name} into {}", place.display()));
    let outcome =
        pip_install(&staging, packages).and_then(|()| move_into_place(&staging, &place, witness));
    if outcome.is_err() {
        // Best effort: what stays behind is never taken for an installation.
        let _ = fs::remove_dir_all(&staging);
    }
    outcome
}

fn pip_install(target: &Path, packages: &[&str]) -> Result<(), BuildError> {
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        // Wheels alone, and exactly these: nothing is built and nothing else is resolved.
        .args(["--only-binary=:all:", "--no-deps", "--no-compile", "--target"])
        .arg(target)
        .args(packages)
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

fn move_into_place(staging: &Path, place: &Path, witness: &Path) -> Result<(), BuildError> {
    match fs::rename(staging, place) {
        Ok(()) => Ok(()),
        // Another run was first: its installation is as good as this one.
        Err(_) if witness.is_file() => {
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
