//! Takes this crate's built kernels in. Runs no compiler; see `src/build/mod.rs`, which is compiled in here because a crate
//! cannot be its own build dependency.

// Only `embed` is used here, and what is public in the library is not reachable from outside a build script.
#![allow(dead_code, unused_imports, unreachable_pub)]

#[path = "src/arch.rs"]
mod arch;
#[path = "src/build/mod.rs"]
mod build;
#[path = "src/capability.rs"]
mod capability;
#[path = "src/version.rs"]
mod version;

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let set = build::KernelSet::open(env!("CARGO_PKG_NAME"), Path::new("kernels"))?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("Cargo sets OUT_DIR")?);
    for path in build::embed(&set, &out)? {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    Ok(())
}
