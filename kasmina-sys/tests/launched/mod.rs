//! What the fake driver noted of launches and graphs: the variables and functions that `fake_launch.h` shows.

// Not every test that takes it in uses all of it.
#![allow(dead_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kasmina_sys::{CUresult, Context, Error, Module, Stream};

use crate::fake::Fake;

/// The open library of one fake driver, which is never closed.
#[derive(Clone, Copy)]
pub(crate) struct Launched {
    library: *mut c_void,
}

// SAFETY: a handle that any thread may look symbols up in.
unsafe impl Send for Launched {}
// SAFETY: as above.
unsafe impl Sync for Launched {}

/// What lives and what was called.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaunchCounts {
    pub(crate) modules: c_int,
    pub(crate) graphs: c_int,
    pub(crate) execs: c_int,
    pub(crate) launches: c_int,
    pub(crate) graph_launches: c_int,
    pub(crate) updates: c_int,
    pub(crate) uploads: c_int,
    pub(crate) nodes_run: c_int,
    pub(crate) occupancy: c_int,
}

/// `fake_launch`: the last launch, as the kernel would see it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LastLaunch {
    kernel: [c_char; 64],
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
    attribute_count: u32,
    attribute_id: [u32; 8],
    attribute_value: [[u8; 64]; 8],
    argument_count: u32,
    argument_misalignment: [u32; 24],
    pub(crate) stream: u64,
    argument_bytes: u64,
    arguments: [u8; 4096],
}

impl LastLaunch {
    pub(crate) fn kernel(&self) -> String {
        // SAFETY: the fake driver ends the name inside the array.
        unsafe { CStr::from_ptr(self.kernel.as_ptr()) }.to_string_lossy().into_owned()
    }

    /// Attributes by the driver's number, with the first three words of each.
    pub(crate) fn attributes(&self) -> Vec<(u32, [u32; 3])> {
        let word = |value: &[u8; 64], at: usize| {
            u32::from_ne_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]])
        };
        (0..self.attribute_count as usize)
            .map(|i| {
                let value = &self.attribute_value[i];
                (self.attribute_id[i], [0, 4, 8].map(|at| word(value, at)))
            })
            .collect()
    }

    /// All arguments, one behind the other.
    pub(crate) fn arguments(&self) -> Vec<u8> {
        self.arguments[..self.argument_bytes as usize].to_vec()
    }

    /// Bytes by which each argument missed its natural alignment.
    pub(crate) fn misalignment(&self) -> &[u32] {
        &self.argument_misalignment[..self.argument_count as usize]
    }
}

impl Launched {
    pub(crate) fn of(fake: &Fake) -> Self {
        Self::at(&fake.library)
    }

    fn at(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
        // SAFETY: opens the library that is open already.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null());
        Self { library }
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the library is open.
        let found = unsafe { libc::dlsym(self.library, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?}");
        found
    }

    pub(crate) fn counts(&self) -> LaunchCounts {
        // SAFETY: an array of as many integers; no call runs.
        unsafe { self.symbol(c"fake_launch_counts").cast::<LaunchCounts>().read() }
    }

    pub(crate) fn last(&self) -> LastLaunch {
        // SAFETY: the struct of that layout; no call runs.
        unsafe { self.symbol(c"fake_launch").cast::<LastLaunch>().read() }
    }

    pub(crate) fn spoil_captures(&self) {
        // SAFETY: the function of that name and signature.
        unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(
                self.symbol(c"fake_spoil_captures"),
            )();
        }
    }

    pub(crate) fn capturing(&self) -> i32 {
        // SAFETY: the function of that name and signature.
        unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(
                self.symbol(c"fake_capturing"),
            )()
        }
    }

    /// What the last launch of a graph that was put together by hand ran.
    pub(crate) fn ran(&self) -> String {
        // SAFETY: text with an end; no call runs.
        unsafe { CStr::from_ptr(self.symbol(c"fake_ran").cast::<c_char>()) }
            .to_string_lossy()
            .into_owned()
    }

    /// The reason that the next updates are refused with, 0 for none but their own.
    pub(crate) fn refuse_updates(&self, reason: i32) {
        // SAFETY: an integer; no call runs.
        unsafe { self.symbol(c"fake_update_result").cast::<c_int>().write(reason) }
    }
}

/// A stream and a module on a fake driver.
pub(crate) fn stream_and_module(fake: &Fake) -> (Stream, Module) {
    let device = fake.load().expect("the driver starts").device(0).expect("a device");
    let context = Context::primary(device).expect("a context");
    let stream = Stream::new(&context).expect("a stream");
    let module = Module::load_ptx(&context, "text", "// nothing").expect("it loads");
    (stream, module)
}

/// Lets each of the driver's `calls` fail once in `all`, which makes them all: the error has to name it, and nothing may be left.
pub(crate) fn each_failure_is_named_and_leaks_nothing(
    fake: &Fake,
    calls: &[&str],
    all: impl Fn() -> Result<(), Error>,
) {
    let launched = Launched::of(fake);
    for &name in calls {
        assert_eq!(all(), Ok(()), "before {name}");
        fake.fail(name, 0, -1, CUresult(4242));
        let error = all().err();
        let Some(Error::Call { call, code, .. }) = &error else { panic!("{name}: {error:?}") };
        assert_eq!((*call, *code), (name, CUresult(4242)));
        fake.mend();
        let counts = launched.counts();
        assert_eq!((counts.graphs, counts.execs), (0, 0), "{name}");
        assert_eq!((launched.capturing(), fake.counts().pushed), (0, 0), "{name}");
    }
    assert_eq!(all(), Ok(()));
}
