//! Modules: compiled code loaded into a context, and what is found in it by name.

use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::Arc;

use crate::arguments::KernelArguments;
use crate::capture::apart_from_captures;
use crate::context::Context;
use crate::error::{Error, check, report_drop_error};
use crate::function::{Function, Kernel};
use crate::image::{Fatbin, check_header};
use crate::launch::DeviceLimits;
use crate::raw::{CUdeviceptr, CUfunction, CUjit_option, CUmodule};

/// Room for what the driver's compiler writes about PTX that it refuses.
const LOG_BYTES: usize = 8192;

/// Code loaded into a context. Clones share it; the last to go unloads it, after which its kernels must not run any more.
#[derive(Clone)]
pub struct Module(Arc<Loaded>);

struct Loaded {
    context: Context,
    raw: CUmodule,
    name: String,
    limits: DeviceLimits,
}

// SAFETY: a module handle belongs to no thread; the driver locks for itself.
unsafe impl Send for Loaded {}
// SAFETY: as above; nothing here is changed after construction.
unsafe impl Sync for Loaded {}

impl Module {
    /// Loads a fatbin; the driver picks the code that suits the device, or compiles its PTX.
    ///
    /// # Errors
    /// [`Error::NotAFatbin`], or [`Error::Module`] with what the driver's compiler wrote.
    pub fn load(context: &Context, fatbin: &Fatbin) -> Result<Self, Error> {
        fatbin.check()?;
        // SAFETY: the header has been checked against the length, and the rest was made by the compiler: whoever fills the
        // fields of a `Fatbin` by hand vouches for that.
        unsafe { Self::load_image(context, fatbin.name, fatbin.bytes) }
    }

    /// Compiles PTX for the device and loads it. The text may end in a zero byte, and needs none.
    ///
    /// # Errors
    /// [`Error::NulInName`] for a zero byte inside the text, or [`Error::Module`] with what the driver's compiler wrote.
    pub fn load_ptx(context: &Context, name: &str, ptx: &str) -> Result<Self, Error> {
        let text = ptx.strip_suffix('\0').unwrap_or(ptx);
        let text = CString::new(text)
            .map_err(|_| Error::NulInName { name: format!("the PTX text of {name}") })?;
        // SAFETY: text that ends in a zero byte, which the compiler parses as far as that.
        unsafe { Self::load_image(context, name, text.as_bytes_with_nul()) }
    }

    /// Loads code from elsewhere: a fatbin, a cubin, or PTX that ends in a zero byte. The bytes are read during the call only.
    ///
    /// # Safety
    /// A fatbin or cubin is what NVIDIA's tools made, whole and unchanged. The driver follows the lengths and offsets inside it;
    /// only the outermost of them are checked here, which finds files that were cut short.
    ///
    /// # Errors
    /// [`Error::NotAFatbin`] for bytes that are none of the three, or [`Error::Module`] with what the driver's compiler wrote.
    pub unsafe fn load_raw(context: &Context, name: &str, image: &[u8]) -> Result<Self, Error> {
        check_image(image).map_err(|reason| Error::NotAFatbin { name: name.to_owned(), reason })?;
        // SAFETY: the caller vouches for what the check cannot see.
        unsafe { Self::load_image(context, name, image) }
    }

    /// # Safety
    /// `image` is a whole fatbin or cubin, or text that ends in a zero byte.
    unsafe fn load_image(context: &Context, name: &str, image: &[u8]) -> Result<Self, Error> {
        let driver = context.device().driver();
        let limits = DeviceLimits::of(context.device())?;
        // Looked up before loading: what was loaded can then always be unloaded.
        driver.cuModuleUnload()?;
        let call = driver.cuModuleLoadDataEx()?;
        let aligned = Aligned::of(image);
        let mut log = vec![0u8; LOG_BYTES];
        let mut keys = [
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // The driver takes the size by value in a pointer's place. One byte is kept back, so that the log always has an end.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), (LOG_BYTES - 1) as *mut c_void];
        let mut raw: CUmodule = std::ptr::null_mut();
        context.with_current(|| {
            // SAFETY: the caller vouches for the image; keys and values are two each, the log outlives the call, and the
            // context is current. The driver keeps a copy of the image where it loads kernels late.
            let code = unsafe {
                call(
                    &mut raw,
                    aligned.address(),
                    keys.len() as u32,
                    keys.as_mut_ptr(),
                    values.as_mut_ptr(),
                )
            };
            if code.is_success() {
                return Ok(());
            }
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]).trim().to_owned();
            Err(Error::Module { name: name.to_owned(), code, log })
        })?;
        let (context, name) = (context.clone(), name.to_owned());
        Ok(Self(Arc::new(Loaded { context, raw, name, limits })))
    }

    /// The kernel of this name.
    ///
    /// # Errors
    /// There is none (`CUDA_ERROR_NOT_FOUND`).
    pub fn function(&self, name: &str) -> Result<Function, Error> {
        let c_name = c_name(name)?;
        let call = self.context().device().driver().cuModuleGetFunction()?;
        let mut raw: CUfunction = std::ptr::null_mut();
        self.context().with_current(|| {
            // SAFETY: a live handle, a live module and a C string; the context is current.
            let code = unsafe { call(&mut raw, self.0.raw, c_name.as_ptr()) };
            check("cuModuleGetFunction", code, || format!("{name} of {}", self.0.name))
        })?;
        Function::new(self.clone(), raw, name)
    }

    /// The kernel of this name with the types of its arguments, checked against its parameters; see [`Function::typed`].
    ///
    /// # Errors
    /// There is none, or its parameters are of other sizes.
    pub fn kernel<A: KernelArguments>(&self, name: &str) -> Result<Kernel<A>, Error> {
        self.function(name)?.typed()
    }

    /// Address and size in bytes of a `__device__` or `__constant__` variable. Valid while the module is loaded.
    ///
    /// # Errors
    /// There is none (`CUDA_ERROR_NOT_FOUND`).
    pub fn global(&self, name: &str) -> Result<(CUdeviceptr, usize), Error> {
        let c_name = c_name(name)?;
        let call = self.context().device().driver().cuModuleGetGlobal()?;
        let (mut address, mut bytes): (CUdeviceptr, usize) = (0, 0);
        self.context().with_current(|| {
            // SAFETY: live integers, a live module and a C string; the context is current.
            let code = unsafe { call(&mut address, &mut bytes, self.0.raw, c_name.as_ptr()) };
            check("cuModuleGetGlobal", code, || format!("{name} of {}", self.0.name))
        })?;
        Ok((address, bytes))
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// The name that it was loaded under.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The driver's handle, valid while any clone of this module, or a [`Function`] of it, lives.
    pub fn raw(&self) -> CUmodule {
        self.0.raw
    }

    pub(crate) fn limits(&self) -> &DeviceLimits {
        &self.0.limits
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Gives this share back. The last one, functions counted, unloads the module and returns what the driver said to that.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`set_drop_error_hook`].
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn close(self) -> Result<(), Error> {
        match Arc::into_inner(self.0) {
            Some(mut loaded) => loaded.unload(),
            None => Ok(()),
        }
    }
}

impl Loaded {
    fn unload(&mut self) -> Result<(), Error> {
        // Taken first, so that a second attempt has nothing to unload.
        let raw = std::mem::replace(&mut self.raw, std::ptr::null_mut());
        if raw.is_null() {
            return Ok(());
        }
        let call = self.context.device().driver().cuModuleUnload()?;
        // Unloading could wait for what runs, which captures of other threads would forbid.
        apart_from_captures(&self.context, || {
            // SAFETY: the module was loaded once and is unloaded once, and no `Function` of it lives.
            check("cuModuleUnload", unsafe { call(raw) }, || self.name.clone())
        })
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Err(error) = self.unload() {
            report_drop_error(&error);
        }
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("name", &self.0.name).finish_non_exhaustive()
    }
}

fn c_name(name: &str) -> Result<CString, Error> {
    CString::new(name).map_err(|_| Error::NulInName { name: name.to_owned() })
}

/// An image at an address that is a multiple of 16, as fatbins and cubins are laid out for; copied where it is elsewhere.
struct Aligned<'a> {
    image: &'a [u8],
    copy: Vec<u128>,
}

impl<'a> Aligned<'a> {
    fn of(image: &'a [u8]) -> Self {
        let aligned = image.as_ptr().addr().is_multiple_of(align_of::<u128>());
        let chunks = if aligned { &[] } else { image }.chunks(size_of::<u128>());
        let copy = chunks
            .map(|chunk| {
                let mut bytes = [0; size_of::<u128>()];
                bytes[..chunk.len()].copy_from_slice(chunk);
                u128::from_ne_bytes(bytes)
            })
            .collect();
        Self { image, copy }
    }

    fn address(&self) -> *const c_void {
        if self.copy.is_empty() { self.image.as_ptr().cast() } else { self.copy.as_ptr().cast() }
    }
}

/// What the outermost lengths tell of an image whose kind its first bytes say.
fn check_image(image: &[u8]) -> Result<(), String> {
    if image.starts_with(b"\x7fELF") {
        return check_cubin(image);
    }
    match check_header(image) {
        Ok(()) => Ok(()),
        // Text begins with a directive, a comment or white space, and never with a fatbin's first byte.
        Err(_) if is_text(image) && image.last() == Some(&0) => Ok(()),
        Err(_) if is_text(image) => {
            Err("it is text, which as PTX must end in a zero byte; `Module::load_ptx` adds one"
                .into())
        }
        Err(reason) => Err(reason),
    }
}

fn is_text(image: &[u8]) -> bool {
    let text = image.strip_suffix(b"\0").unwrap_or(image);
    !text.is_empty() && !text.contains(&0) && text.is_ascii()
}

/// A cubin is a 64-bit little-endian ELF file for machine 190. Its tables of sections and segments stand last, so that they end
/// inside the bytes where the whole file is there.
fn check_cubin(image: &[u8]) -> Result<(), String> {
    const HEADER: usize = 64;
    const CUDA_MACHINE: u64 = 190;
    let Some(header) = image.get(..HEADER) else {
        return Err(format!("{} bytes long, an ELF header alone has {HEADER}", image.len()));
    };
    let number = |at: usize, bytes: usize| {
        header[at..at + bytes].iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte))
    };
    if (header[4], header[5]) != (2, 1) {
        return Err(format!(
            "an ELF file of class {} and byte order {}, a cubin has 2 and 1",
            header[4], header[5]
        ));
    }
    if number(18, 2) != CUDA_MACHINE {
        return Err(format!(
            "an ELF file for machine {}, a cubin is for {CUDA_MACHINE}",
            number(18, 2)
        ));
    }
    // Offset, and then size and count of entries.
    for (table, offset, entries) in [("segments", 32, 54), ("sections", 40, 58)] {
        let length = number(entries, 2) * number(entries + 2, 2);
        let end = number(offset, 8).checked_add(length);
        if end.is_none_or(|end| end > image.len() as u64) {
            return Err(format!(
                "cut short: its table of {table} ends past its {} bytes",
                image.len()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cubin() -> Vec<u8> {
        let mut file = vec![0u8; 64 + 2 * 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18..20].copy_from_slice(&190u16.to_le_bytes());
        // Two sections of 64 bytes behind the header, one segment of 56 behind those.
        file[40..48].copy_from_slice(&64u64.to_le_bytes());
        file[58..60].copy_from_slice(&64u16.to_le_bytes());
        file[60..62].copy_from_slice(&2u16.to_le_bytes());
        file[32..40].copy_from_slice(&192u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&1u16.to_le_bytes());
        file
    }

    #[test]
    fn a_cubin_that_was_cut_short_is_refused_at_every_length() {
        let file = cubin();
        assert_eq!(check_image(&file), Ok(()));
        for length in 0..file.len() {
            assert!(check_image(&file[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn offsets_that_overflow_and_other_machines_are_refused() {
        let wrong = |at: usize, bytes: &[u8]| {
            let mut file = cubin();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            check_image(&file).expect_err("it is wrong")
        };
        assert!(wrong(40, &u64::MAX.to_le_bytes()).contains("sections"));
        assert!(wrong(32, &[0xFF; 8]).contains("segments"));
        assert!(wrong(18, &62u16.to_le_bytes()).contains("machine 62"));
        assert!(wrong(4, &[1]).contains("class 1"));
        assert!(wrong(5, &[2]).contains("byte order 2"));
    }

    #[test]
    fn an_image_is_copied_only_where_it_lies_askew() {
        let bytes: Vec<u8> = (0..100).collect();
        for shift in 0..32 {
            let image = &bytes[shift..];
            let aligned = Aligned::of(image);
            assert!(aligned.address().addr().is_multiple_of(16));
            // SAFETY: the address is of the image or of a copy that is at least as long.
            let seen =
                unsafe { std::slice::from_raw_parts(aligned.address().cast::<u8>(), image.len()) };
            assert_eq!(seen, image);
            let in_place = image.as_ptr().addr().is_multiple_of(16);
            assert_eq!(aligned.copy.is_empty(), in_place);
        }
    }
}
