//! A build script's part: fresh fatbins are taken into the crate, and for others the reason is.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::BuildError;
use super::record::{Record, Status, status};
use super::sources::KernelSet;
use crate::arch::{Arch, CodeKind};

/// Writes `kernels.rs` and the fresh fatbins into `out`, a build script's `OUT_DIR`, and returns the paths whose change makes
/// the build script run again. The crate takes it in with `include!(concat!(env!("OUT_DIR"), "/kernels.rs"));`, which gives
/// it `pub static KERNELS: [kasmina_sys::KernelImage; N]`, one for each `.cu` file in the order of their names.
///
/// Runs no compiler: what was not built beforehand is left out with its reason.
///
/// # Errors
/// A file that cannot be read or written.
pub fn embed(set: &KernelSet, out: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let mut images = String::new();
    for unit in &set.units {
        let state = match status(unit)? {
            Status::NotBuilt => "kasmina_sys::ImageState::NotBuilt".to_owned(),
            Status::Stale { reason } => {
                format!("kasmina_sys::ImageState::Stale {{ reason: {reason:?} }}")
            }
            Status::Fresh(record) => {
                // The bytes that were checked are the ones that are compiled in, whatever happens to the file meanwhile.
                let (from, to) = (unit.fatbin_path(), out.join(format!("{}.fatbin", unit.name)));
                fs::copy(&from, &to).map_err(BuildError::io(from))?;
                fatbin_literal(&set.package, &unit.name, &record)
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            images,
            "    kasmina_sys::KernelImage {{ package: {:?}, name: {:?}, state: {state} }},",
            set.package, unit.name
        );
    }
    let text = format!(
        "/// The GPU kernels of this package, one image for each `.cu` file.\n\
         pub static KERNELS: [kasmina_sys::KernelImage; {}] = [\n{images}];\n",
        set.units.len()
    );
    let path = out.join("kernels.rs");
    fs::write(&path, text).map_err(BuildError::io(path))?;
    // Whole folders: a fatbin that appears or goes must be seen too, and Cargo looks into folders.
    let elsewhere =
        set.units.first().map(|unit| &unit.images).filter(|images| **images != set.folder);
    let folders = std::iter::once(&set.folder).chain(&set.include).chain(elsewhere);
    Ok(folders.filter(|folder| folder.is_dir()).cloned().collect())
}

fn fatbin_literal(package: &str, name: &str, record: &Record) -> String {
    let archs: String = record.archs.iter().map(|arch| arch_literal(*arch)).collect();
    let toolkit = record.nvcc.cuda().raw();
    let hash = record.sources;
    format!(
        "kasmina_sys::ImageState::Embedded(kasmina_sys::Fatbin {{ package: {package:?}, name: {name:?}, bytes: \
         &kasmina_sys::Aligned(*include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.fatbin\"))).0, source_hash: \"{hash}\", \
         toolkit: kasmina_sys::CudaVersion::from_raw({toolkit}), archs: &[{archs}] }})"
    )
}

fn arch_literal(arch: Arch) -> String {
    let kind = match arch.kind {
        CodeKind::Cubin => "Cubin",
        CodeKind::SpecificCubin => "SpecificCubin",
        CodeKind::Ptx => "Ptx",
    };
    let (major, minor) = (arch.capability.major, arch.capability.minor);
    format!("kasmina_sys::Arch::new({major}, {minor}, kasmina_sys::CodeKind::{kind}), ")
}
