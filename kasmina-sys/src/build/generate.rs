//! bindgen over `cuda.h` and `cudaTypedefs.h` of one toolkit. Compiled into the build script alone, under the feature
//! `bindgen`: that way users' own bindings and the committed ones (`cargo xtask bindings`) come from the same code.

use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bindgen::callbacks::{EnumVariantValue, ItemInfo, ParseCallbacks};

use crate::bindings::{CONSTANTS, FLAGS, FUNCTIONS, HEADER, PREFIXES, functions};
use crate::build::{BuildError, Environment, HEADER_VARIABLES, HEADERS, find_headers};

/// The build script's part: writes `bindings.rs` into `OUT_DIR`, from the headers that [`find_headers`] finds.
pub(crate) fn build_script() {
    for variable in
        HEADER_VARIABLES.iter().chain(&["LIBCLANG_PATH", "CC", "BINDGEN_EXTRA_CLANG_ARGS"])
    {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Err(error) = write_bindings(&Environment::of_process()) {
        error.to_string().lines().for_each(|line| println!("cargo::error={line}"));
    }
}

fn write_bindings(environment: &Environment) -> Result<(), BuildError> {
    let include = find_headers(environment)?;
    for header in HEADERS {
        println!("cargo::rerun-if-changed={}", include.join(header).display());
    }
    let out =
        environment.get("OUT_DIR").ok_or(BuildError::NoBuildScript { variable: "OUT_DIR" })?;
    let path = Path::new(out).join("bindings.rs");
    std::fs::write(&path, bindings(&include)?).map_err(|source| BuildError::Io { path, source })
}

/// Makes the bindings from the headers in `include`, as the text of a Rust file.
///
/// They are made for 64-bit Linux whatever the host is, so that everyone makes the same ones. libclang is loaded from where
/// `LIBCLANG_PATH` says, else from the system; it needs the C compiler's own headers, which `cc` is asked for.
///
/// # Errors
/// [`BuildError::Bindings`]: no libclang, no C compiler, a header that lacks a function of the table.
pub(crate) fn bindings(include: &Path) -> Result<String, BuildError> {
    let failed = |reason: String| BuildError::Bindings { include: include.to_owned(), reason };
    let results = Arc::new(Mutex::new(Vec::new()));
    let mut builder = bindgen::Builder::default()
        .header_contents("driver.h", "#include <cuda.h>\n#include <cudaTypedefs.h>\n")
        .clang_args(["-x", "c", "--target=x86_64-unknown-linux-gnu"])
        .clang_arg(format!("-I{}", include.display()))
        .clang_arg("-isystem")
        .clang_arg(compiler_headers().map_err(&failed)?.display().to_string())
        .default_enum_style(bindgen::EnumVariation::NewType {
            is_bitfield: false,
            is_global: false,
        })
        // The header's comments are NVIDIA's text.
        .generate_comments(false)
        .disable_header_comment()
        .layout_tests(true)
        .sort_semantically(true)
        .use_core()
        .ctypes_prefix("::core::ffi")
        .derive_default(true)
        .derive_hash(true)
        .derive_eq(true)
        .derive_ord(true)
        .no_debug("cudaError_enum")
        .must_use_type("cudaError_enum")
        .parse_callbacks(Box::new(Names { results: Arc::clone(&results) }));
    for (name, version) in FUNCTIONS {
        builder = builder.allowlist_type(format!("PFN_{name}_v{version}"));
    }
    for name in FLAGS {
        builder = builder.allowlist_type(name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(name);
    }
    let types = generate(builder).map_err(&failed)?;
    for (name, version) in FUNCTIONS {
        if !types.contains(&format!("pub type PFN_{name}_v{version} ")) {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            let missing = format!("cudaTypedefs.h has no {name} as of CUDA {major}.{minor}");
            return Err(failed(missing));
        }
    }
    // A poisoned lock still holds the names: they are pushed whole.
    let results = results.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    Ok(format!("{HEADER}{types}{}{}", functions(), result_names(results)))
}

/// Runs bindgen, which panics where it finds no libclang: its words become the error's.
fn generate(builder: bindgen::Builder) -> Result<String, String> {
    let printing = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| builder.generate()));
    std::panic::set_hook(printing);
    match outcome {
        Ok(made) => made.map(|bindings| bindings.to_string()).map_err(|error| error.to_string()),
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .map_or("bindgen panicked", String::as_str)
            .to_owned()),
    }
}

fn result_names(mut results: Vec<(u64, String)>) -> String {
    results.sort();
    // `cuda.h` has no two names for one code; were there ever, the first by name is kept, so that searching is unambiguous.
    results.dedup_by_key(|(code, _)| *code);
    let lines: String = results
        .iter()
        .map(|(code, name)| format!("    (CUresult({code}), \"{name}\"),\n"))
        .collect();
    format!("pub(crate) const RESULT_NAMES: &[(CUresult, &str)] = &[\n{lines}];\n")
}

/// The folder of `stddef.h` and its kin, which belong to a compiler and which libclang's Python package lacks.
fn compiler_headers() -> Result<PathBuf, String> {
    let cc = std::env::var_os("CC").unwrap_or_else(|| OsString::from("cc"));
    let name = cc.to_string_lossy().into_owned();
    // `CC` may be a command with arguments, `ccache cc`.
    let mut words = name.split_whitespace();
    let output = Command::new(words.next().unwrap_or("cc"))
        .args(words)
        .arg("-print-file-name=include")
        .output()
        .map_err(|error| format!("the C compiler {name} does not run: {error}"))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if folder.join("stddef.h").is_file() {
        return Ok(folder);
    }
    Err(format!("the C compiler {name} has no stddef.h in {}", folder.display()))
}

/// Gives types their typedef's name and constants their short one, and notes the names of the result codes.
#[derive(Debug)]
struct Names {
    results: Arc<Mutex<Vec<(u64, String)>>>,
}

/// An enum's `CUstreamCaptureMode_enum` is `CUstreamCaptureMode` in all signatures. Structs keep their tag: `CUstream_st`
/// is what a `CUstream` points to.
fn typedef_name(tag: &str) -> Option<&str> {
    if tag == "cudaError_enum" {
        return Some("CUresult");
    }
    tag.strip_suffix("_enum")
}

impl ParseCallbacks for Names {
    fn item_name(&self, item: ItemInfo<'_>) -> Option<String> {
        typedef_name(item.name).map(str::to_owned)
    }

    fn enum_variant_name(
        &self,
        enum_name: Option<&str>,
        variant: &str,
        value: EnumVariantValue,
    ) -> Option<String> {
        let tag = enum_name?.trim_start_matches("enum ");
        let name = typedef_name(tag).unwrap_or(tag);
        if name == "CUresult" {
            let code = match value {
                EnumVariantValue::Signed(code) => u64::try_from(code).ok()?,
                EnumVariantValue::Unsigned(code) => code,
                EnumVariantValue::Boolean(_) => return None,
            };
            if let Ok(mut results) = self.results.lock() {
                results.push((code, variant.to_owned()));
            }
        }
        let (_, prefixes) = PREFIXES.iter().find(|(of, _)| *of == name)?;
        prefixes.iter().find_map(|prefix| variant.strip_prefix(prefix)).map(str::to_owned)
    }
}
