//! Compiles `fake_driver.c` into a library for one scenario and opens it. Tests of other crates take this file in by its path.

// Not every test that takes it in uses all of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};

use kasmina_sys::{CUresult, Context, Device, Driver, Stream, Unavailable};

/// A fake driver's library; its folder goes when this does, which an open library survives.
pub(crate) struct Fake {
    _folder: tempfile::TempDir,
    pub(crate) library: PathBuf,
}

/// What the library counted: see `fake_counts` in `fake_driver.c`, whose order this is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) resolved: c_int,
    pub(crate) misused: c_int,
    pub(crate) pushed: c_int,
    pub(crate) retained: c_int,
    pub(crate) allocated: c_int,
    pub(crate) streams: c_int,
    pub(crate) events: c_int,
    pub(crate) pools: c_int,
    pub(crate) pinned: c_int,
}

impl Counts {
    /// Nothing is out, and nothing was done that must not be; whatever was resolved. A pool stays, with the one share in the
    /// context that it needs.
    pub(crate) fn nothing_left(&self) -> bool {
        let zero = Self {
            resolved: self.resolved,
            misused: 0,
            pushed: 0,
            retained: self.pools.min(1),
            allocated: 0,
            streams: 0,
            events: 0,
            pools: self.pools.min(1),
            pinned: 0,
        };
        *self == zero
    }
}

impl Fake {
    /// A library of its own for each call: its counters are not shared.
    pub(crate) fn new(defines: &[&str]) -> Self {
        /// Compiled libraries by their macros: compiling is the slow part.
        static COMPILED: LazyLock<Mutex<HashMap<String, Vec<u8>>>> = LazyLock::new(Mutex::default);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let library = folder.path().join("libfake.so");
        let mut compiled = COMPILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let bytes = compiled.entry(defines.join(" ")).or_insert_with(|| {
            compile(defines, &library);
            std::fs::read(&library).expect("the compiler wrote it")
        });
        std::fs::write(&library, bytes).expect("the folder takes files");
        Self { _folder: folder, library }
    }

    pub(crate) fn load(&self) -> Result<&'static Driver, Unavailable> {
        // SAFETY: the library has no initialisers, and its functions have the signatures of `cuda.h`.
        unsafe { Driver::load_from(&self.library) }
    }

    /// The first device.
    pub(crate) fn device(&self) -> Device {
        self.load().expect("the driver starts").device(0).expect("there is a device")
    }

    /// A context of the first device.
    pub(crate) fn context(&self) -> Context {
        Context::primary(self.device()).expect("a context")
    }

    pub(crate) fn counts(&self) -> Counts {
        // SAFETY: an array of as many integers, read while no call runs.
        unsafe { self.symbol(c"fake_counts").cast::<Counts>().read() }
    }

    /// Runs what is queued still, and sees that no handle is out and that nothing was used when it must not be.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        // SAFETY: the function has this signature.
        unsafe { self.function::<unsafe extern "C" fn()>(c"fake_finish")() };
        let counts = self.counts();
        assert!(counts.nothing_left(), "{counts:?}");
    }

    /// Operations of streams that have not run yet.
    pub(crate) fn pending(&self) -> c_int {
        // SAFETY: the function has this signature.
        unsafe { self.function::<unsafe extern "C" fn() -> c_int>(c"fake_pending")() }
    }

    /// Lets calls of `name` (`*` for any) fail with `code`: after `skip` of them `times`, all where it is negative.
    pub(crate) fn fail(&self, name: &str, skip: c_int, times: c_int, code: CUresult) {
        type Fail = unsafe extern "C" fn(*const c_char, c_int, c_int, CUresult);
        let name = CString::new(name).expect("no zero byte");
        // SAFETY: the function has this signature and copies the name.
        unsafe { self.function::<Fail>(c"fake_fail")(name.as_ptr(), skip, times, code) };
    }

    /// Ends all of that.
    pub(crate) fn mend(&self) {
        // SAFETY: the function has this signature.
        unsafe { self.function::<unsafe extern "C" fn()>(c"fake_mend")() };
    }

    /// Takes a function away that was not asked for yet.
    pub(crate) fn hide(&self, name: &str) {
        let name = CString::new(name).expect("no zero byte");
        // SAFETY: the function has this signature and copies the name.
        unsafe {
            self.function::<unsafe extern "C" fn(*const c_char)>(c"fake_hide")(name.as_ptr())
        };
    }

    /// Lets somebody capture `stream` so that other threads' calls are forbidden, too.
    pub(crate) fn begin_strict(&self, stream: &Stream) {
        type Begin = unsafe extern "C" fn(*mut c_void) -> CUresult;
        let begin = self.function::<Begin>(c"fake_begin_strict");
        // The fake driver takes the calls of captures, as of all others, with a context alone.
        let begun = stream.context().with_current(|| {
            // SAFETY: the function has this signature, and the stream is alive.
            Ok(unsafe { begin(stream.raw().cast()) })
        });
        assert_eq!(begun, Ok(CUresult(0)));
    }

    /// Ends that capture; its nodes, `None` where it was spoilt.
    pub(crate) fn end_strict(&self, stream: &Stream) -> Option<usize> {
        type End = unsafe extern "C" fn(*mut c_void) -> c_int;
        let end = self.function::<End>(c"fake_end_strict");
        // SAFETY: the function has this signature, and the stream is alive.
        usize::try_from(unsafe { end(stream.raw().cast()) }).ok()
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        let path = CString::new(self.library.as_os_str().as_bytes()).expect("no zero byte");
        // SAFETY: opens the library, which stays open as drivers do, and looks up what it has.
        let address = unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!handle.is_null());
            libc::dlsym(handle, name.as_ptr())
        };
        assert!(!address.is_null(), "{name:?}");
        address
    }

    /// `F` is a function pointer of the right signature.
    fn function<F: Copy>(&self, name: &CStr) -> F {
        let address = self.symbol(name);
        assert_eq!(size_of::<F>(), size_of_val(&address));
        // SAFETY: the sizes agree, and the callers name the signature that the C file has.
        unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) }
    }
}

fn compile(defines: &[&str], library: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kasmina-sys/tests/fake_driver.c");
    let output = compiler()
        .args(["-shared", "-fPIC", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(library)
        .args(defines.iter().map(|define| format!("-DFAKE_{define}")))
        .arg(source)
        .output()
        .expect("the C compiler runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
