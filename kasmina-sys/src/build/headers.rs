//! Looking for the driver API's headers, for bindings that are made from the user's own toolkit.

use std::path::PathBuf;

use super::BuildError;
use super::install::{cache_folder, installed_headers};
use super::nvcc::Environment;

/// The headers that bindings are made from.
pub const HEADERS: [&str; 2] = ["cuda.h", "cudaTypedefs.h"];

/// Names the folder of the headers, before any other place.
const INCLUDE_VARIABLE: &str = "KASMINA_CUDA_INCLUDE";

/// The variables that decide which headers are found.
pub const HEADER_VARIABLES: [&str; 6] =
    [INCLUDE_VARIABLE, "CUDA_HOME", "CUDA_PATH", "KASMINA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"];

/// The folder with `cuda.h` and `cudaTypedefs.h`: `KASMINA_CUDA_INCLUDE`, then `include` under `CUDA_HOME` and `CUDA_PATH`,
/// `/usr/local/cuda/include`, `/usr/include`, and the pinned installation in the user's cache.
///
/// # Errors
/// [`BuildError::NoHeaders`] with what was wrong in each place; in `KASMINA_CUDA_INCLUDE` alone where that is set, because a
/// wish is not passed over.
pub fn find_headers(environment: &Environment) -> Result<PathBuf, BuildError> {
    let mut passed_by = Vec::new();
    for (place, folder) in places(environment) {
        match folder.and_then(complete) {
            Ok(folder) => return Ok(folder),
            Err(reason) => passed_by.push(format!("{place}: {reason}")),
        }
        if place == INCLUDE_VARIABLE && environment.get(place).is_some() {
            break;
        }
    }
    Err(BuildError::NoHeaders { passed_by })
}

fn places(environment: &Environment) -> [(&'static str, Result<PathBuf, String>); 6] {
    let variable =
        |name| environment.get(name).map(PathBuf::from).ok_or_else(|| "not set".to_owned());
    let cache = || cache_folder(environment).map(|cache| installed_headers(&cache));
    [
        (INCLUDE_VARIABLE, variable(INCLUDE_VARIABLE)),
        ("CUDA_HOME", variable("CUDA_HOME").map(|root| root.join("include"))),
        ("CUDA_PATH", variable("CUDA_PATH").map(|root| root.join("include"))),
        ("the usual place of a toolkit", Ok("/usr/local/cuda/include".into())),
        ("the system's headers", Ok("/usr/include".into())),
        ("the pinned installation", cache().map_err(|error| error.to_string())),
    ]
}

fn complete(folder: PathBuf) -> Result<PathBuf, String> {
    match HEADERS.iter().find(|header| !folder.join(header).is_file()) {
        Some(header) => Err(format!("there is no {header} in {}", folder.display())),
        None => Ok(folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs;

    #[test]
    fn the_first_folder_that_has_both_headers_is_taken() {
        let root = tempfile::tempdir().expect("a folder");
        let include = |place: &str, headers: &[&str]| {
            let folder = root.path().join(place).join("include");
            fs::create_dir_all(&folder).expect("a folder");
            for header in headers {
                fs::write(folder.join(header), "").expect("it is written");
            }
            root.path().join(place)
        };
        let (old, whole) = (include("old", &["cuda.h"]), include("whole", &HEADERS));
        let found =
            |pairs: &[(&str, &OsStr)]| find_headers(&Environment::of(pairs.iter().copied()));

        let environment = [("CUDA_HOME", old.as_os_str()), ("CUDA_PATH", whole.as_os_str())];
        assert_eq!(found(&environment).ok(), Some(whole.join("include")));

        let folder = old.join("include");
        let wish = [(INCLUDE_VARIABLE, folder.as_os_str()), environment[1]];
        let error = found(&wish).expect_err("a wish is not passed over").to_string();
        assert!(error.contains("no cudaTypedefs.h in") && !error.contains("CUDA_PATH"), "{error}");
    }

    #[test]
    fn the_error_names_every_place() {
        let root = tempfile::tempdir().expect("a folder");
        let environment = Environment::of([("KASMINA_CACHE_DIR", root.path().as_os_str())]);
        let Err(BuildError::NoHeaders { passed_by }) = find_headers(&environment) else {
            // This machine has a toolkit in its system folders.
            return assert!(find_headers(&environment).is_ok());
        };
        assert_eq!(passed_by.len(), 6, "{passed_by:?}");
        let text = BuildError::NoHeaders { passed_by }.to_string();
        for place in ["KASMINA_CUDA_INCLUDE", "CUDA_HOME", "/usr/local/cuda/include", "the pinned"]
        {
            assert!(text.contains(place), "{place} is not in {text}");
        }
    }
}
