//! The driver: what a program loads in the place of NVIDIA's library (`KASMINA_CUDA_LIBRARY`), over the [`machine`](crate::machine).
//!
//! It exports `cuGetProcAddress_v2` and hands out every function of `kasmina-sys`' bindings from there; their types are the bindings'
//! own, so a signature that differs does not compile. Streams are threads with queues, so what a program does not wait for really
//! may not have happened yet. Handles are numbers that are never given out twice: a stale one is an error and no accident.
//!
//! What is checked that the real driver does not check: copies and fills outside of live memory, memory that is used before its
//! allocation or after its release has come up in its stream, page-locked memory that goes while a copy is queued. Each is printed
//! and becomes the context's lasting error.

mod capture;
mod context;
mod copies;
mod device;
mod events;
mod exec;
mod graphs;
mod handles;
mod launch;
mod memory;
mod modules;
mod occupancy;
mod pools;
mod settings;
mod streams;
mod table;
mod tensor_maps;
#[cfg(test)]
mod tests;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};

use kasmina_sys::CUresult;

/// What an entry point comes to: nothing, or the code that says why not.
pub(crate) type Outcome = Result<(), CUresult>;

/// Runs an entry point. A panic is a defect of this library; it is told as such and does not unwind into the caller's frames.
pub(crate) fn answer(body: impl FnOnce() -> Outcome) -> CUresult {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => CUresult::SUCCESS,
        Ok(Err(code)) => code,
        // The panic's own message is on standard error by now.
        Err(_) => CUresult::UNKNOWN,
    }
}

/// Writes a result where the caller wants it; a null pointer is an invalid value.
///
/// # Safety
/// A pointer that is not null is to a place for a `T`.
pub(crate) unsafe fn give<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: by the caller's word.
    unsafe { to.write(value) };
    Ok(())
}

/// The elements behind a pointer of the caller's; none where the count is 0.
///
/// # Safety
/// `count` elements lie there, for as long as the slice is used.
pub(crate) unsafe fn taken<'a, T>(from: *const T, count: usize) -> Result<&'a [T], CUresult> {
    if count == 0 {
        return Ok(&[]);
    }
    if from.is_null() {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: by the caller's word.
    Ok(unsafe { std::slice::from_raw_parts(from, count) })
}
