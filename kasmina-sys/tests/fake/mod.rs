//! Compiles `fake_driver.c` into a library for one scenario and opens it. Tests of other crates take this file in by its path.

// Not every test that takes it in uses all of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use kasmina_sys::{Driver, Unavailable};

/// A fake driver's library; its folder goes when this does, which an open library survives.
pub(crate) struct Fake {
    _folder: tempfile::TempDir,
    pub(crate) library: PathBuf,
}

/// What the library counted: see `fake_counts` in `fake_driver.c`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) resolved: i32,
    pub(crate) retained: i32,
    pub(crate) pushed: i32,
    pub(crate) allocated: i32,
    pub(crate) misused: i32,
}

impl Fake {
    /// A library of its own for each call: its counters are not shared.
    pub(crate) fn new(defines: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let library = folder.path().join(format!("libfake{number}.so"));
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../kasmina-sys/tests/fake_driver.c");
        let output = compiler()
            .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&library)
            .args(defines.iter().map(|define| format!("-DFAKE_{define}")))
            .arg(source)
            .output()
            .expect("the C compiler runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { _folder: folder, library }
    }

    pub(crate) fn load(&self) -> Result<&'static Driver, Unavailable> {
        // SAFETY: the library has no initialisers, and its functions have the signatures of `cuda.h`.
        unsafe { Driver::load_from(&self.library) }
    }

    pub(crate) fn counts(&self) -> Counts {
        use std::os::unix::ffi::OsStrExt;

        let path =
            std::ffi::CString::new(self.library.as_os_str().as_bytes()).expect("no zero byte");
        // SAFETY: opens the library that is open already, and reads its array of five integers while no call runs.
        let [resolved, retained, pushed, allocated, misused] = unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!handle.is_null());
            let counts = libc::dlsym(handle, c"fake_counts".as_ptr()).cast::<[i32; 5]>();
            assert!(!counts.is_null());
            let value = counts.read();
            libc::dlclose(handle);
            value
        };
        Counts { resolved, retained, pushed, allocated, misused }
    }
}

/// The C compiler that the `cc` crate finds for this machine.
fn compiler() -> Command {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cc::Build::new()
        .cargo_metadata(false)
        .opt_level(0)
        .target(&target)
        .host(&target)
        .get_compiler()
        .to_command()
}
