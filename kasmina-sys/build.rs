//! Takes this crate's built kernels in. Runs no compiler; see `src/build/mod.rs`, which is compiled in here because a crate
//! cannot be its own build dependency. Under the feature `bindgen` it also makes the bindings from the toolkit on this machine.

// Little of it is used here, and what is public in the library is not reachable from outside a build script.
#![allow(dead_code, unused_imports, unreachable_pub)]

#[path = "src/arch.rs"]
mod arch;
#[cfg(feature = "bindgen")]
#[path = "src/build/bindings.rs"]
mod bindings;
#[path = "src/build/mod.rs"]
mod build;
#[path = "src/capability.rs"]
mod capability;
#[cfg(feature = "bindgen")]
#[path = "src/build/generate.rs"]
mod generate;
#[path = "src/version.rs"]
mod version;

fn main() {
    build::build_script();
    #[cfg(feature = "bindgen")]
    generate::build_script();
}
