//! Loaded images.

use std::ffi::{CStr, CString, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use object::{Object, ObjectSegment};

use super::abi::{self, Entry, ImageTable, Slot, Table};
use super::code::Code;
use super::shared::RESERVED;
use super::{Kernel, Parameter};
use crate::layout::{self, Layout};

/// Registers of a multiprocessor, of which launch bounds leave a thread some.
const REGISTERS: u32 = 65536;
/// What a thread is said to have where the source does not limit it.
const USUAL_REGISTERS: u32 = 32;

/// An image that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The system's loader refused it.
    #[error("the image cannot be loaded: {0}")]
    Load(String),
    /// A shared library, but none of `translate`.
    #[error("the image is none of this simulator: it has no {0}")]
    Foreign(&'static str),
    /// Made by another version of the simulator.
    #[error(
        "the image is of version {found} of the simulator's interface, this one is {wanted}: build it anew by `cargo xtask simulate`"
    )]
    Version {
        /// The image's.
        found: u32,
        /// This library's.
        wanted: u32,
    },
}

/// A library that the system's loader has open.
#[derive(Debug)]
struct Library(NonNull<c_void>);

// SAFETY: a handle of the loader may be used and closed by any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: opened by `Image::load` and closed here alone.
        unsafe { libc::dlclose(self.0.as_ptr()) };
    }
}

/// A loaded image; unloaded when dropped. Each has variables of its own, also where two are of the same bytes.
#[derive(Debug)]
pub struct Image {
    kernels: Vec<Kernel>,
    library: Library,
}

impl Image {
    /// Loads what [`translate`](crate::translate) has built.
    ///
    /// # Errors
    /// [`ImageError`], with the loader's words.
    pub fn load(bytes: &[u8]) -> Result<Self, ImageError> {
        let (library, file) = open(bytes)?;
        let symbol = |name: &CStr| {
            // SAFETY: the handle is open and the name ends with a zero.
            NonNull::new(unsafe { libc::dlsym(library.0.as_ptr(), name.as_ptr()) })
        };
        let table = symbol(abi::TABLE).ok_or(ImageError::Foreign("table of kernels"))?;
        // SAFETY: an image's function of this name has this type, and what it answers lives as long as the image. Only the version is
        // read before it is known to be this one.
        let table: &ImageTable = unsafe {
            let table: Table = std::mem::transmute(table.as_ptr());
            &*table(abi::calls())
        };
        if table.version != abi::VERSION {
            return Err(ImageError::Version { found: table.version, wanted: abi::VERSION });
        }
        let layout =
            layout::from_bytes(bytes).ok_or(ImageError::Foreign("layout of shared memory"))?;
        let base = base_of(table).ok_or(ImageError::Foreign("place in memory"))?;
        let size = size_of(bytes).ok_or(ImageError::Foreign("segments"))?;
        let code = Arc::new(Code::new(base, size, file));
        let mut kernels = Vec::new();
        let mut next = table.entries;
        // SAFETY: entries are a list that ends with null, static in the image.
        while let Some(entry) = unsafe { next.as_ref() } {
            kernels.push(kernel(table, entry, &layout, &code)?);
            next = entry.next;
        }
        Ok(Self { kernels, library })
    }

    /// A kernel by its name.
    #[must_use]
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels().iter().find(|kernel| kernel.name == name)
    }

    /// All kernels.
    #[must_use]
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Address and size of a `__device__` or `__constant__` variable.
    #[must_use]
    pub fn global(&self, name: &str) -> Option<(u64, usize)> {
        let name = CString::new(name).ok()?;
        // SAFETY: the handle is open and the name ends with a zero; the loader writes what it is asked for where it is told.
        unsafe {
            let address = libc::dlsym(self.library.0.as_ptr(), name.as_ptr());
            if address.is_null() {
                return None;
            }
            let mut info: libc::Dl_info = std::mem::zeroed();
            let mut symbol: *mut c_void = ptr::null_mut();
            if dladdr1(address, &raw mut info, &raw mut symbol, RTLD_DL_SYMENT) == 0
                || symbol.is_null()
            {
                return None;
            }
            let symbol = &*symbol.cast::<libc::Elf64_Sym>();
            // Functions have names, too, and so have the libraries that an image stands on.
            let own = self.kernels.first().is_none_or(|kernel| {
                let mut here: libc::Dl_info = std::mem::zeroed();
                libc::dladdr(kernel.call as *const c_void, &raw mut here) != 0
                    && here.dli_fbase == info.dli_fbase
            });
            let is_variable = symbol.st_info & 0xf == STT_OBJECT;
            (own && is_variable).then_some((address as u64, symbol.st_size as usize))
        }
    }
}

const RTLD_DL_SYMENT: libc::c_int = 1;
const STT_OBJECT: u8 = 1;

unsafe extern "C" {
    fn dladdr1(
        address: *const c_void,
        info: *mut libc::Dl_info,
        extra: *mut *mut c_void,
        flags: libc::c_int,
    ) -> libc::c_int;
}

/// Opens the bytes as a library of their own: the loader would take a second file of the same path for the first one.
fn open(bytes: &[u8]) -> Result<(Library, File), ImageError> {
    let failed = |error: std::io::Error| ImageError::Load(error.to_string());
    // SAFETY: a plain system call; the name is a literal.
    let descriptor = unsafe { libc::memfd_create(c"kasmina image".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    // SAFETY: the descriptor is new and nobody else's.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(bytes).map_err(failed)?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_err(|error| ImageError::Load(error.to_string()))?;
    // SAFETY: constructors of an image only fill its table. The path ends with a zero.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    match NonNull::new(handle) {
        Some(handle) => Ok((Library(handle), file)),
        None => {
            // SAFETY: after a failure the loader has words for it, good until it is called again by this thread.
            let words = unsafe { CStr::from_ptr(libc::dlerror()) };
            Err(ImageError::Load(words.to_string_lossy().into_owned()))
        }
    }
}

/// Bytes of memory that an image takes.
fn size_of(image: &[u8]) -> Option<u64> {
    let file = object::File::parse(image).ok()?;
    file.segments().map(|segment| segment.address() + segment.size()).max()
}

/// Where the library of a table begins in memory.
fn base_of(table: &ImageTable) -> Option<u64> {
    // SAFETY: the loader writes what it knows of the address where it is told.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let known = libc::dladdr((&raw const *table).cast(), &raw mut info) != 0;
        known.then_some(info.dli_fbase as u64)
    }
}

/// Where a kernel's shared variables lie in its blocks, by their numbers, and how many bytes they take.
fn place_slots(count: u32, records: &[u64], base: u64) -> (Box<[u32]>, usize) {
    let mut places = vec![0; count.max(1) as usize];
    let mut end = RESERVED;
    for &record in records {
        // SAFETY: the layout was made with the image, and says where its records are.
        let slot = unsafe { &*((base + record) as *const Slot) };
        let begin = end.next_multiple_of(slot.alignment as usize);
        places[slot.index as usize] = begin as u32;
        end = begin + slot.bytes as usize;
    }
    (places.into_boxed_slice(), end - RESERVED)
}

fn kernel(
    table: &ImageTable,
    entry: &Entry,
    layout: &Layout,
    code: &Arc<Code>,
) -> Result<Kernel, ImageError> {
    // SAFETY: an entry's name ends with a zero, and its arrays have as many elements as it says.
    let (name, sizes, alignments) = unsafe {
        let count = entry.parameters as usize;
        let name = CStr::from_ptr(entry.name).to_string_lossy().into_owned();
        let sizes = std::slice::from_raw_parts(entry.sizes, count);
        (name, sizes, std::slice::from_raw_parts(entry.alignments, count))
    };
    let mut offset = 0usize;
    let mut parameters = Vec::new();
    for (&size, &alignment) in sizes.iter().zip(alignments) {
        offset = offset.next_multiple_of(alignment as usize);
        parameters.push(Parameter { offset, size: size as usize });
        offset += size as usize;
    }
    let bound = REGISTERS / (entry.max_threads * entry.min_blocks).max(1) / 8 * 8;
    let registers = match (entry.registers, entry.min_blocks) {
        (0, 0) => USUAL_REGISTERS,
        (0, _) => bound.min(255),
        (most, _) => most,
    };
    let records =
        layout.get(&name).ok_or(ImageError::Foreign("layout of a kernel's shared memory"))?;
    let (slots, static_shared) = place_slots(table.slots, records, code.base);
    Ok(Kernel {
        name,
        parameters,
        max_threads: entry.max_threads,
        static_shared,
        registers,
        call: entry.call,
        slots,
        runs: AtomicU64::new(0),
        reports: table.reports != 0,
        code: Arc::clone(code),
    })
}
