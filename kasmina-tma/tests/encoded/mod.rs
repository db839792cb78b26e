//! What the fake driver noted of tensor maps: the variables that `fake_tensor_map.h` shows.

// Not every test that takes it in uses all of it.
#![allow(dead_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;

use crate::fake::Fake;

/// `struct tensor_map_call`: the arguments of the last encoding that succeeded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) address: u64,
    pub(crate) sizes: [u64; 5],
    pub(crate) strides: [u64; 4],
    pub(crate) kind: u32,
    pub(crate) data_type: u32,
    pub(crate) rank: u32,
    pub(crate) sides: [u32; 5],
    pub(crate) lower: [i32; 3],
    pub(crate) upper: [i32; 3],
    pub(crate) channels: u32,
    pub(crate) pixels: u32,
    pub(crate) steps: [u32; 5],
    pub(crate) interleave: u32,
    pub(crate) swizzle: u32,
    pub(crate) l2_promotion: u32,
    pub(crate) oob_fill: u32,
    pub(crate) mode: u32,
}

/// `fake_tensor_map_counts`: calls that succeeded, and those with a map that cannot be written.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MapCounts {
    pub(crate) wrong: c_int,
    pub(crate) tiled: c_int,
    pub(crate) im2col: c_int,
    pub(crate) im2col_wide: c_int,
    pub(crate) replaced: c_int,
}

pub(crate) fn last_call(fake: &Fake) -> Call {
    // SAFETY: the variable is of the struct that `Call` repeats, and no call runs.
    unsafe { symbol(fake, c"fake_tensor_map_call").cast::<Call>().read() }
}

pub(crate) fn map_counts(fake: &Fake) -> MapCounts {
    // SAFETY: the variable is an array of as many integers, and no call runs.
    unsafe { symbol(fake, c"fake_tensor_map_counts").cast::<MapCounts>().read() }
}

fn symbol(fake: &Fake, name: &CStr) -> *mut c_void {
    let path = CString::new(fake.library.as_os_str().as_bytes()).expect("no zero byte");
    // SAFETY: opens the library that the driver keeps open, and looks up what it has.
    let address = unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!handle.is_null());
        let address = libc::dlsym(handle, name.as_ptr());
        libc::dlclose(handle);
        address
    };
    assert!(!address.is_null(), "{name:?}");
    address
}
