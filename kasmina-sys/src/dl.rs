//! `dlopen` and `dlsym`, and nothing else: the only place that touches the dynamic loader.

use std::ffi::{CStr, c_void};
use std::path::Path;
use std::ptr::NonNull;

/// An opened shared library; closed on drop.
pub(crate) struct Library {
    handle: NonNull<c_void>,
}

// SAFETY: the handle is a token of the dynamic loader, which locks for itself; no thread owns it.
unsafe impl Send for Library {}
// SAFETY: as above; `dlsym` may be called from any number of threads at once.
unsafe impl Sync for Library {}

#[cfg(unix)]
impl Library {
    /// Opens `path`; the error is the dynamic loader's own text.
    ///
    /// `RTLD_NOW`, so that a library whose own needs are missing fails here and not in the middle of a call;
    /// `RTLD_LOCAL`, so that its symbols stay out of everyone else's way.
    ///
    /// # Safety
    /// Opening a library runs its initialisers: `path` must be a library that may be loaded into this process.
    pub(crate) unsafe fn open(path: &Path) -> Result<Self, String> {
        use std::os::unix::ffi::OsStrExt;

        let name = std::ffi::CString::new(path.as_os_str().as_bytes())
            .map_err(|_| "the path holds a zero byte".to_owned())?;
        // SAFETY: `name` is a C string that outlives the call; the caller vouches for the library's initialisers.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        NonNull::new(handle).map(|handle| Self { handle }).ok_or_else(last_error)
    }

    /// The address of `name`, `None` where the library does not have it.
    pub(crate) fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is open as long as `self` lives, and `name` is a C string.
        NonNull::new(unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) })
    }
}

#[cfg(unix)]
impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle came from `dlopen` and is closed once. A failure leaves the library loaded, which harms
        // nothing, so its result is not asked for.
        unsafe { libc::dlclose(self.handle.as_ptr()) };
    }
}

/// The dynamic loader's last word in this thread.
#[cfg(unix)]
#[cold]
fn last_error() -> String {
    // SAFETY: `dlerror` has no precondition; it returns null or a C string that stays valid until this thread's next
    // call of the dynamic loader, and the text is copied before that.
    let text = unsafe {
        let text = libc::dlerror();
        (!text.is_null()).then(|| CStr::from_ptr(text))
    };
    text.map_or_else(
        || "the dynamic loader gave no reason".to_owned(),
        |text| text.to_string_lossy().into_owned(),
    )
}

#[cfg(not(unix))]
impl Library {
    /// Always an error: the driver is loaded on Unix systems only.
    ///
    /// # Safety
    /// None needed; the signature is that of the other systems.
    pub(crate) unsafe fn open(_path: &Path) -> Result<Self, String> {
        Err("the CUDA driver is loaded on Linux only".to_owned())
    }

    pub(crate) fn symbol(&self, _name: &CStr) -> Option<NonNull<c_void>> {
        // There is no `Library` on these systems; the handle is read so that both have one layout.
        let _ = self.handle;
        None
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_gives_the_loaders_own_words() {
        // SAFETY: nothing is loaded, for there is no such file.
        let error = unsafe { Library::open(Path::new("/no/such/lib.so")) }.err();
        assert!(error.is_some_and(|text| text.contains("/no/such/lib.so")));
    }

    #[test]
    fn a_path_with_a_zero_byte_is_an_error() {
        // SAFETY: nothing is loaded, the path never reaches the dynamic loader.
        assert!(unsafe { Library::open(Path::new("lib\0cuda.so")) }.is_err());
    }
}
