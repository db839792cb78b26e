//! NVML, the driver's own library of what a device is doing, opened by name: nothing needs it to be there.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};

use super::{Clocks, Seen, ThrottleError};

const LIBRARY: &CStr = c"libnvidia-ml.so.1";
/// `nvmlClockType_t`.
const MULTIPROCESSORS: c_int = 1;
const MEMORY: c_int = 2;

type Handle = *mut c_void;
type Init = unsafe extern "C" fn() -> c_uint;
type HandleByUuid = unsafe extern "C" fn(*const c_char, *mut Handle) -> c_uint;
type Reasons = unsafe extern "C" fn(Handle, *mut c_ulonglong) -> c_uint;
type ClockInfo = unsafe extern "C" fn(Handle, c_int, *mut c_uint) -> c_uint;

/// One device, as NVML knows it. The library stays open for the life of the process.
#[derive(Debug)]
pub(super) struct Nvml {
    device: Handle,
    reasons: Reasons,
    clock: ClockInfo,
}

/// What the codes mean that users meet; the others are in `nvml.h`.
pub(super) fn meaning(code: u32) -> &'static str {
    match code {
        3 => ", not supported on this device",
        4 => ", no permission",
        6 => ", no such device",
        9 => ", the driver is not loaded",
        15 => ", the device is lost",
        18 => ", library and driver are of different versions",
        _ => "",
    }
}

fn check(call: &'static str, code: c_uint) -> Result<(), ThrottleError> {
    if code == 0 { Ok(()) } else { Err(ThrottleError::Call { call, code }) }
}

/// An open library.
struct Library(*mut c_void);

impl Library {
    fn open(name: &CStr) -> Result<Self, ThrottleError> {
        // SAFETY: the name ends with a zero; opening NVML runs initialisers that ask nothing of this process.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if !handle.is_null() {
            return Ok(Self(handle));
        }
        // SAFETY: the text, if there is one, is valid until the next call of the loader in this thread.
        let text = unsafe { libc::dlerror().as_ref().map(|text| CStr::from_ptr(text)) };
        let why = text.map_or_else(|| "no reason given".into(), CStr::to_string_lossy).into_owned();
        Err(ThrottleError::NoLibrary { library: name.to_string_lossy().into_owned(), why })
    }

    /// The address of the first of `names` that is there.
    fn symbol(&self, names: &[&CStr]) -> Result<*mut c_void, ThrottleError> {
        for name in names {
            // SAFETY: the library is open, and the name ends with a zero.
            let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
            if !address.is_null() {
                return Ok(address);
            }
        }
        let symbol = names.first().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Err(ThrottleError::NoSymbol { library: LIBRARY.to_string_lossy().into_owned(), symbol })
    }
}

impl Nvml {
    /// The device of that identity, `GPU-…`.
    pub(super) fn open(uuid: &str) -> Result<Self, ThrottleError> {
        let library = Library::open(LIBRARY)?;
        let init = library.symbol(&[c"nvmlInit_v2"])?;
        let by_uuid = library.symbol(&[c"nvmlDeviceGetHandleByUUID"])?;
        // The same under its name before CUDA 12.2.
        let names = [
            c"nvmlDeviceGetCurrentClocksEventReasons",
            c"nvmlDeviceGetCurrentClocksThrottleReasons",
        ];
        let reasons = library.symbol(&names)?;
        let clock = library.symbol(&[c"nvmlDeviceGetClockInfo"])?;
        // SAFETY: each address is of the function whose type in `nvml.h` is the one that it gets here.
        let (init, by_uuid, reasons, clock) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Init>(init),
                std::mem::transmute::<*mut c_void, HandleByUuid>(by_uuid),
                std::mem::transmute::<*mut c_void, Reasons>(reasons),
                std::mem::transmute::<*mut c_void, ClockInfo>(clock),
            )
        };
        // SAFETY: it takes nothing, and is counted: shutting down is left to the process's end.
        check("nvmlInit_v2", unsafe { init() })?;
        let uuid = CString::new(uuid).map_err(|e| ThrottleError::NoIdentity(e.to_string()))?;
        let mut device: Handle = std::ptr::null_mut();
        // SAFETY: a text that ends with a zero, and a live pointer for the handle.
        check("nvmlDeviceGetHandleByUUID", unsafe { by_uuid(uuid.as_ptr(), &mut device) })?;
        let nvml = Self { device, reasons, clock };
        // Now rather than while something is timed.
        nvml.look()?;
        Ok(nvml)
    }

    /// What holds clocks back at this moment, and what they are.
    pub(super) fn look(&self) -> Result<Seen, ThrottleError> {
        let mut reasons: c_ulonglong = 0;
        // SAFETY: a handle of this library, and a live pointer.
        let code = unsafe { (self.reasons)(self.device, &mut reasons) };
        check("nvmlDeviceGetCurrentClocksEventReasons", code)?;
        let mhz = |which| -> Result<u32, ThrottleError> {
            let mut mhz: c_uint = 0;
            // SAFETY: as above.
            check("nvmlDeviceGetClockInfo", unsafe { (self.clock)(self.device, which, &mut mhz) })?;
            Ok(mhz)
        };
        let (multiprocessor_mhz, memory_mhz) = (mhz(MULTIPROCESSORS)?, mhz(MEMORY)?);
        Ok(Seen { reasons, clocks: Some(Clocks { multiprocessor_mhz, memory_mhz }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_and_a_function_that_is_not_are_told_apart() {
        let error = Library::open(c"libkasmina-has-none.so").map(drop).expect_err("there is none");
        assert!(matches!(&error, ThrottleError::NoLibrary { .. }), "{error}");
        assert!(error.to_string().contains("libkasmina-has-none.so"), "{error}");
        // The C library itself is always there, and is not NVML.
        let library = Library::open(c"libc.so.6").expect("the C library");
        let error = library.symbol(&[c"nvmlInit_v2"]).expect_err("it is not NVML");
        assert!(error.to_string().contains("has no nvmlInit_v2; update the driver"), "{error}");
    }
}
