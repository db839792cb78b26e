//! Finding, opening and starting the CUDA driver, and asking it for its functions.
//!
//! `dlsym` is used once, for `cuGetProcAddress_v2`; everything else is asked of that, with the version that is meant,
//! when it is first needed. So a driver that lacks one function lacks that function alone.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use once_cell::sync::OnceCell;

use crate::device::Device;
use crate::dl::Library;
use crate::error::{Error, check};
use crate::memory::Pools;
use crate::raw::CUresult;
use crate::raw::Functions;
use crate::unavailable::Unavailable;
use crate::version::CudaVersion;

/// The environment variable that names another driver library.
pub const LIBRARY_VARIABLE: &str = "KASMINA_CUDA_LIBRARY";

/// The driver's name on Linux. The version suffix is the ABI; the bare name belongs to the toolkit's link stub.
const LIBRARY: &str = "libcuda.so.1";

/// `cuGetProcAddress_v2` came with CUDA 12.0.
const MINIMUM: CudaVersion = CudaVersion::new(12, 0);

type GetProcAddress =
    unsafe extern "C" fn(*const c_char, *mut *mut c_void, c_int, u64, *mut c_int) -> CUresult;

/// A started CUDA driver. There is one in a process, and it stays: a CUDA driver cannot be unloaded safely.
pub struct Driver {
    // Held so that the addresses in `functions` stay valid.
    _library: Library,
    path: PathBuf,
    get_proc_address: GetProcAddress,
    version: CudaVersion,
    pub(crate) functions: Functions,
    pub(crate) pools: Pools,
}

impl Driver {
    /// The least CUDA version of a driver that can be used at all. Kernels may need a later one.
    pub const MINIMUM_VERSION: CudaVersion = MINIMUM;

    /// The process's driver: loaded and started at the first call, remembered with its outcome.
    ///
    /// Looks for `libcuda.so.1` by the dynamic loader's rules, or for the library that `KASMINA_CUDA_LIBRARY` names.
    ///
    /// # Errors
    /// The reason why there is no driver; see [`Unavailable`].
    ///
    /// ```
    /// match kasmina_sys::Driver::load() {
    ///     Ok(driver) => println!("a driver for CUDA {}", driver.version()),
    ///     Err(reason) => println!("on the CPU, because {reason}"),
    /// }
    /// ```
    pub fn load() -> Result<&'static Self, Unavailable> {
        static DRIVER: OnceCell<Result<&'static Driver, Unavailable>> = OnceCell::new();
        DRIVER
            .get_or_init(|| {
                let named = std::env::var_os(LIBRARY_VARIABLE).filter(|value| !value.is_empty());
                let path = named.map_or_else(|| PathBuf::from(LIBRARY), PathBuf::from);
                // SAFETY: the path is the system's CUDA driver, or one that whoever runs this process named as such.
                unsafe { Self::load_from(&path) }
            })
            .clone()
    }

    /// Loads and starts the driver library at `path`, unremembered. It is never unloaded again, so this is for tests
    /// with libraries of their own; programs call [`Driver::load`].
    ///
    /// # Safety
    /// The library runs code when it is opened, and its functions are called by the signatures of `cuda.h`.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub unsafe fn load_from(path: &Path) -> Result<&'static Self, Unavailable> {
        // SAFETY: the caller vouches for the library.
        let library = unsafe { Library::open(path) }
            .map_err(|reason| Unavailable::NoLibrary { library: path.to_owned(), reason })?;
        let bootstrap =
            library.symbol(c"cuGetProcAddress_v2").ok_or_else(|| Unavailable::MissingSymbol {
                name: "cuGetProcAddress_v2".to_owned(),
                needed: MINIMUM,
                found: None,
            })?;
        // SAFETY: by the caller's word this is the function of that name in `cuda.h`, whose signature this is.
        let get_proc_address =
            unsafe { std::mem::transmute::<NonNull<c_void>, GetProcAddress>(bootstrap) };
        let mut driver = Self {
            _library: library,
            path: path.to_owned(),
            get_proc_address,
            version: CudaVersion::from_raw(0),
            functions: Functions::default(),
            pools: Pools::default(),
        };
        driver.version = driver.ask_version()?;
        if driver.version < MINIMUM {
            return Err(Unavailable::DriverTooOld {
                found: driver.version,
                needed: MINIMUM,
                needed_by: "Kasmina".to_owned(),
            });
        }
        driver.start()?;
        Ok(Box::leak(Box::new(driver)))
    }

    fn ask_version(&self) -> Result<CudaVersion, Unavailable> {
        let call = self.cuDriverGetVersion()?;
        let mut raw: c_int = 0;
        // SAFETY: the pointer is to a live integer; the call needs no initialised driver.
        let code = unsafe { call(&mut raw) };
        if !code.is_success() {
            return Err(Unavailable::QueryFailed { call: "cuDriverGetVersion()".to_owned(), code });
        }
        Ok(CudaVersion::from_raw(raw))
    }

    fn start(&self) -> Result<(), Unavailable> {
        let call = self.cuInit()?;
        // SAFETY: zero is the only value that the flags may have.
        match unsafe { call(0 as c_uint) } {
            code if code.is_success() => Ok(()),
            CUresult::NO_DEVICE => Err(Unavailable::NoDevice),
            code => Err(Unavailable::InitFailed { code }),
        }
    }

    /// The CUDA version that the driver is for.
    pub fn version(&self) -> CudaVersion {
        self.version
    }

    /// What the dynamic loader was asked for.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many devices the driver sees, after `CUDA_VISIBLE_DEVICES`.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn device_count(&self) -> Result<u32, Error> {
        let call = self.cuDeviceGetCount()?;
        let mut count: c_int = 0;
        // SAFETY: the pointer is to a live integer, and the driver is initialised.
        check("cuDeviceGetCount", unsafe { call(&mut count) }, String::new)?;
        // A negative count can only come from a broken driver; none is what it then offers.
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// The device of this ordinal, counted from 0.
    ///
    /// # Errors
    /// [`Unavailable::NoDevice`] where there is none at all, [`Unavailable::NoSuchDevice`] past the last one.
    pub fn device(&'static self, ordinal: u32) -> Result<Device, Error> {
        let count = self.device_count()?;
        if count == 0 {
            return Err(Unavailable::NoDevice.into());
        }
        if ordinal >= count {
            return Err(Unavailable::NoSuchDevice { ordinal, count }.into());
        }
        Device::open(self, ordinal)
    }

    /// All devices, in the driver's order.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn devices(&'static self) -> Result<Vec<Device>, Error> {
        (0..self.device_count()?).map(|ordinal| Device::open(self, ordinal)).collect()
    }

    /// The address of the driver's function `name` in the form that it had in CUDA `version`. Not remembered here.
    ///
    /// The name is the one without suffix, `cuMemAlloc` and never `cuMemAlloc_v2`: the version chooses the form.
    ///
    /// # Errors
    /// [`Unavailable::MissingSymbol`]; the driver itself stays usable.
    #[cold]
    pub fn resolve(
        &self,
        name: &str,
        version: CudaVersion,
    ) -> Result<NonNull<c_void>, Unavailable> {
        let missing = || Unavailable::MissingSymbol {
            name: name.to_owned(),
            needed: version,
            // Before the driver has told its version there is none to name.
            found: (self.version.raw() > 0).then_some(self.version),
        };
        let c_name = CString::new(name).map_err(|_| missing())?;
        let mut address: *mut c_void = std::ptr::null_mut();
        // Zero for the default stream's classic meaning, which is what the safe layer documents.
        let flags = 0;
        // SAFETY: a C string and a live pointer; the status pointer may be null, and the outcome is told by the
        // address as well: it stays null where the symbol is missing or too new for the version.
        let code = unsafe {
            (self.get_proc_address)(
                c_name.as_ptr(),
                &mut address,
                version.raw(),
                flags,
                std::ptr::null_mut(),
            )
        };
        match NonNull::new(address) {
            Some(address) if code.is_success() => Ok(address),
            _ => Err(missing()),
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("path", &self.path).field("version", &self.version).finish()
    }
}
