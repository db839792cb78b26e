//! Modules: images as the crates embed them, the kernels in them, and what is known and allowed of each.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use kasmina_sys::CUresult;
use kasmina_sys::raw::{
    CUdeviceptr, CUfunction, CUfunction_attribute as Attribute, CUjit_option, CUmodule,
};
use parking_lot::Mutex;

use super::handles::{fresh, pointer};
use super::{answer, context, device, give, taken};
use crate::machine::{Image, Kernel};

/// First word of a fatbin.
const FATBIN: u32 = 0xBA55_ED50;
/// Its header: the word, version and header's length, the length of the rest.
const HEADER: usize = 16;
const ELF: &[u8; 4] = b"\x7fELF";

/// A loaded image.
pub(crate) struct Module {
    image: Image,
    functions: Mutex<HashMap<String, usize>>,
    globals: Mutex<Vec<u64>>,
}

/// A kernel of a module.
pub(crate) struct Function {
    module: Arc<Module>,
    name: String,
    /// Bytes of dynamic shared memory that a launch may have.
    max_dynamic: AtomicU32,
    carveout: AtomicI32,
    wide_clusters: AtomicBool,
}

impl Function {
    /// The kernel.
    pub(crate) fn kernel(&self) -> &Kernel {
        // Looked up when the function was made, of an image that does not change.
        self.module.image.kernel(&self.name).expect("an image keeps its kernels")
    }

    /// Bytes of dynamic shared memory that a launch may have.
    pub(crate) fn max_dynamic(&self) -> u32 {
        self.max_dynamic.load(Ordering::Relaxed)
    }

    /// Whether it was allowed clusters of more than 8 blocks.
    pub(crate) fn has_wide_clusters(&self) -> bool {
        self.wide_clusters.load(Ordering::Relaxed)
    }

    fn static_shared(&self) -> u32 {
        u32::try_from(self.kernel().static_shared).unwrap_or(u32::MAX)
    }
}

/// The bytes that an image consists of, by its header, or why this driver does not take it.
///
/// # Safety
/// An image that is whole, as the driver's interface asks for.
unsafe fn image_at<'a>(image: *const c_void) -> Result<&'a [u8], (CUresult, &'static str)> {
    // SAFETY: every kind of image has four bytes.
    let head = unsafe { image.cast::<[u8; 4]>().read_unaligned() };
    if u32::from_le_bytes(head) != FATBIN {
        let is_text = head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
        return Err(if is_text {
            (CUresult::JIT_COMPILER_NOT_FOUND, "the simulator does not compile PTX")
        } else {
            (CUresult::INVALID_IMAGE, "neither a fatbin nor text")
        });
    }
    // SAFETY: a fatbin has a header.
    let length = unsafe { image.cast::<u8>().add(8).cast::<u64>().read_unaligned() };
    let length =
        usize::try_from(length).map_err(|_| (CUresult::INVALID_IMAGE, "a length beyond memory"))?;
    // SAFETY: so many bytes follow the header of a whole one.
    let body = unsafe { std::slice::from_raw_parts(image.cast::<u8>().add(HEADER), length) };
    if !body.starts_with(ELF) {
        return Err((
            CUresult::NO_BINARY_FOR_GPU,
            "code for a GPU: build the simulator's images by `cargo xtask simulate`",
        ));
    }
    Ok(body)
}

/// Writes the reason into the caller's log, if it asked for one.
///
/// # Safety
/// Options as `cuModuleLoadDataEx` takes them.
unsafe fn log(
    reason: &str,
    count: c_uint,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
) -> Result<(), CUresult> {
    // SAFETY: by the caller's word.
    let (options, values) =
        unsafe { (taken(options, count as usize)?, taken(values, count as usize)?) };
    let value = |wanted: CUjit_option| {
        options.iter().position(|option| *option == wanted).map(|at| values[at])
    };
    let buffer = value(CUjit_option::CU_JIT_ERROR_LOG_BUFFER);
    let room = value(CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
    let (Some(buffer), Some(room)) = (buffer, room) else { return Ok(()) };
    // The size stands in a pointer's place.
    let length = reason.len().min(room.addr().saturating_sub(1));
    if !buffer.is_null() && room.addr() > 0 {
        // SAFETY: the caller's buffer has that much room.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(reason.as_ptr(), length);
            buffer.cast::<u8>().add(length).write(0);
        }
    }
    Ok(())
}

pub(crate) unsafe extern "C" fn load(
    module: *mut CUmodule,
    image: *const c_void,
    count: c_uint,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        if image.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: the caller's image.
        let loaded = unsafe { image_at(image) }.map_err(|(code, reason)| (code, reason.to_owned()));
        let loaded = loaded.and_then(|bytes| {
            Image::load(bytes).map_err(|error| (CUresult::INVALID_IMAGE, error.to_string()))
        });
        match loaded {
            Ok(image) => {
                let handle = fresh();
                let made = Module { image, functions: Mutex::default(), globals: Mutex::default() };
                context.modules.add(handle, Arc::new(made));
                // SAFETY: the caller's place for a handle.
                unsafe { give(module, pointer(handle)) }
            }
            Err((code, reason)) => {
                // SAFETY: the caller's options.
                unsafe { log(&reason, count, options, values) }?;
                Err(code)
            }
        }
    })
}

pub(crate) unsafe extern "C" fn unload(module: CUmodule) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let module = context.modules.remove(module)?;
        for handle in module.functions.lock().values() {
            // Its handle is as stale as the module's; queued launches keep what they run.
            let _ = context.functions.remove(pointer::<c_void>(*handle));
        }
        module.globals.lock().iter().for_each(|address| context.memory.strike_global(*address));
        Ok(())
    })
}

/// # Safety
/// Null or a C string.
unsafe fn text<'a>(name: *const c_char) -> Result<&'a str, CUresult> {
    if name.is_null() {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: a C string of the caller's.
    unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| CUresult::NOT_FOUND)
}

pub(crate) unsafe extern "C" fn function(
    function: *mut CUfunction,
    module: CUmodule,
    name: *const c_char,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let module = context.modules.get(module)?;
        // SAFETY: the caller's string.
        let name = unsafe { text(name) }?;
        let kernel = module.image.kernel(name).ok_or(CUresult::NOT_FOUND)?;
        let mut functions = module.functions.lock();
        let handle = *functions.entry(name.to_owned()).or_insert_with(|| {
            let declared = u32::try_from(kernel.static_shared).unwrap_or(u32::MAX);
            let made = Function {
                module: Arc::clone(&module),
                name: name.to_owned(),
                max_dynamic: AtomicU32::new(device::SHARED_DEFAULT.saturating_sub(declared)),
                carveout: AtomicI32::new(-1),
                wide_clusters: AtomicBool::new(false),
            };
            let handle = fresh();
            context.functions.add(handle, Arc::new(made));
            handle
        });
        // SAFETY: the caller's place for a handle.
        unsafe { give(function, pointer(handle)) }
    })
}

pub(crate) unsafe extern "C" fn global(
    address: *mut CUdeviceptr,
    bytes: *mut usize,
    module: CUmodule,
    name: *const c_char,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let module = context.modules.get(module)?;
        // SAFETY: the caller's string.
        let (at, size) = module.image.global(unsafe { text(name) }?).ok_or(CUresult::NOT_FOUND)?;
        let mut globals = module.globals.lock();
        if !globals.contains(&at) {
            globals.push(at);
            context.memory.enter_global(at, size);
        }
        if !address.is_null() {
            // SAFETY: the caller's place for an address.
            unsafe { give(address, at) }?;
        }
        if bytes.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's place for an integer.
        unsafe { give(bytes, size) }
    })
}

pub(crate) unsafe extern "C" fn attribute(
    value: *mut c_int,
    attribute: Attribute,
    function: CUfunction,
) -> CUresult {
    answer(|| {
        let function = context::current()?.functions.get(function)?;
        let (major, minor) = device::capability();
        let found = match attribute {
            Attribute::MAX_THREADS_PER_BLOCK => function.kernel().max_threads,
            Attribute::SHARED_SIZE_BYTES => function.static_shared(),
            Attribute::CONST_SIZE_BYTES | Attribute::LOCAL_SIZE_BYTES => 0,
            Attribute::NUM_REGS => function.kernel().registers,
            // As of an image that was compiled for this very device.
            Attribute::PTX_VERSION | Attribute::BINARY_VERSION => 10 * major + minor,
            Attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES => function.max_dynamic(),
            Attribute::NON_PORTABLE_CLUSTER_SIZE_ALLOWED => u32::from(function.has_wide_clusters()),
            Attribute::PREFERRED_SHARED_MEMORY_CARVEOUT => {
                let carveout = function.carveout.load(Ordering::Relaxed);
                // SAFETY: the caller's place for an integer.
                return unsafe { give(value, carveout) };
            }
            _ => return Err(CUresult::INVALID_VALUE),
        };
        // SAFETY: the caller's place for an integer.
        unsafe { give(value, c_int::try_from(found).unwrap_or(c_int::MAX)) }
    })
}

pub(crate) unsafe extern "C" fn set_attribute(
    function: CUfunction,
    attribute: Attribute,
    value: c_int,
) -> CUresult {
    answer(|| {
        let function = context::current()?.functions.get(function)?;
        match attribute {
            Attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES => {
                let room = device::shared_per_block().saturating_sub(function.static_shared());
                let bytes = u32::try_from(value).ok().filter(|bytes| *bytes <= room);
                function
                    .max_dynamic
                    .store(bytes.ok_or(CUresult::INVALID_VALUE)?, Ordering::Relaxed);
            }
            Attribute::PREFERRED_SHARED_MEMORY_CARVEOUT if (-1..=100).contains(&value) => {
                function.carveout.store(value, Ordering::Relaxed);
            }
            Attribute::NON_PORTABLE_CLUSTER_SIZE_ALLOWED if device::is_hopper() => {
                function.wide_clusters.store(value != 0, Ordering::Relaxed);
            }
            _ => return Err(CUresult::INVALID_VALUE),
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn parameter(
    function: CUfunction,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CUresult {
    answer(|| {
        let function = context::current()?.functions.get(function)?;
        let parameter = function.kernel().parameters.get(index).ok_or(CUresult::INVALID_VALUE)?;
        // SAFETY: the caller's place for an integer.
        unsafe { give(offset, parameter.offset) }?;
        if size.is_null() {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { give(size, parameter.size) }
    })
}
