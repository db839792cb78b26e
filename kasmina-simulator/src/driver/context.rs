//! The one context, which thread has it current, its lasting error, and everything that lives in it.

use std::cell::RefCell;
use std::ffi::{c_int, c_uint};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use kasmina_sys::CUresult;
use kasmina_sys::raw::{CUcontext, CUdevice};
use parking_lot::Mutex;

use super::capture::{self, Captures};
use super::events::Event;
use super::graphs::{Exec, Graph};
use super::handles::{Table, pointer};
use super::memory::Memory;
use super::modules::{Function, Module};
use super::pools::Pool;
use super::streams::{self, Streams};
use super::{Outcome, answer, device, give};

/// The handle of the primary context of the one device.
const HANDLE: usize = 0x100;

/// Everything of the context.
#[derive(Default)]
pub(crate) struct Context {
    /// Programs that hold it, each once a retention.
    retained: Mutex<u32>,
    /// What ended the context, 0 for nothing.
    ended: AtomicU32,
    pub(crate) streams: Streams,
    pub(crate) events: Table<Event>,
    pub(crate) memory: Memory,
    pub(crate) pools: Table<Pool>,
    pub(crate) modules: Table<Module>,
    pub(crate) functions: Table<Function>,
    pub(crate) graphs: Table<Graph>,
    pub(crate) execs: Table<Exec>,
    pub(crate) captures: Captures,
}

/// The context, current or not.
pub(crate) fn the() -> &'static Context {
    static CONTEXT: LazyLock<Context> = LazyLock::new(Context::default);
    &CONTEXT
}

thread_local! {
    static STACK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The context of the calling thread, if it is current there and nothing has ended it.
pub(crate) fn current() -> Result<&'static Context, CUresult> {
    let is_current = STACK.with_borrow(|stack| stack.last() == Some(&HANDLE));
    if !is_current || *the().retained.lock() == 0 {
        return Err(CUresult::INVALID_CONTEXT);
    }
    the().alive()?;
    Ok(the())
}

impl Context {
    /// The error that has ended it.
    pub(crate) fn alive(&self) -> Outcome {
        match self.ended.load(Ordering::Acquire) {
            0 => Ok(()),
            code => Err(CUresult(code)),
        }
    }

    /// Ends the context: the reason is printed, once, and every later call gives the code.
    pub(crate) fn end(&self, code: CUresult, reason: &str) {
        if self.ended.compare_exchange(0, code.0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            eprintln!("kasmina-simulator: {reason}");
        }
    }
}

pub(crate) unsafe extern "C" fn retain(context: *mut CUcontext, of: CUdevice) -> CUresult {
    answer(|| {
        device::known(of)?;
        *the().retained.lock() += 1;
        // SAFETY: the caller's place for a handle.
        unsafe { give(context, pointer(HANDLE)) }
    })
}

pub(crate) unsafe extern "C" fn release(of: CUdevice) -> CUresult {
    answer(|| {
        device::known(of)?;
        let mut retained = the().retained.lock();
        match *retained {
            0 => Err(CUresult::INVALID_CONTEXT),
            1 => {
                // The last share takes everything with it, once its work is done.
                let _ = the().streams.drain();
                the().streams.clear();
                the().events.clear();
                the().execs.clear();
                the().graphs.clear();
                the().functions.clear();
                the().modules.clear();
                the().pools.clear();
                the().memory.clear();
                *retained = 0;
                Ok(())
            }
            _ => {
                *retained -= 1;
                Ok(())
            }
        }
    })
}

pub(crate) unsafe extern "C" fn state(
    of: CUdevice,
    flags: *mut c_uint,
    active: *mut c_int,
) -> CUresult {
    answer(|| {
        device::known(of)?;
        // SAFETY: the caller's places for two integers.
        unsafe {
            give(flags, 0)?;
            give(active, c_int::from(*the().retained.lock() != 0))
        }
    })
}

pub(crate) unsafe extern "C" fn push(context: CUcontext) -> CUresult {
    answer(|| {
        if context.addr() != HANDLE || *the().retained.lock() == 0 {
            return Err(CUresult::INVALID_CONTEXT);
        }
        STACK.with_borrow_mut(|stack| stack.push(HANDLE));
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn pop(context: *mut CUcontext) -> CUresult {
    answer(|| {
        let popped = STACK.with_borrow_mut(Vec::pop).ok_or(CUresult::INVALID_CONTEXT)?;
        if context.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's place for a handle.
        unsafe { give(context, pointer(popped)) }
    })
}

pub(crate) unsafe extern "C" fn get_current(context: *mut CUcontext) -> CUresult {
    answer(|| {
        let top = STACK.with_borrow(|stack| stack.last().copied().unwrap_or(0));
        // SAFETY: the caller's place for a handle.
        unsafe { give(context, pointer(top)) }
    })
}

pub(crate) unsafe extern "C" fn synchronize() -> CUresult {
    answer(|| {
        let context = current()?;
        capture::forbid_beside(context)?;
        context.streams.drain()
    })
}

pub(crate) unsafe extern "C" fn priority_range(
    least: *mut c_int,
    greatest: *mut c_int,
) -> CUresult {
    answer(|| {
        current()?;
        for (to, value) in [(least, streams::LEAST), (greatest, streams::GREATEST)] {
            if !to.is_null() {
                // SAFETY: the caller's place for an integer.
                unsafe { give(to, value) }?;
            }
        }
        Ok(())
    })
}
