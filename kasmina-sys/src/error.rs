//! What can go wrong once there is a driver: a call that failed, with its arguments, or something unavailable.

use once_cell::sync::OnceCell;
use thiserror::Error;

use crate::result::CUresult;
use crate::unavailable::Unavailable;

/// An error of the safe layer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The driver, a device, a symbol or a kernel cannot be had.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),

    /// A call of the driver failed.
    #[error("{call}({arguments}) returned {code}")]
    Call {
        /// The function of the driver API.
        call: &'static str,
        /// The arguments that matter, as text.
        arguments: String,
        /// What it returned.
        code: CUresult,
    },

    /// The driver refused a module; `log` is what its compiler wrote.
    #[error("loading module {name} returned {code}{}", log_text(.log))]
    Module {
        /// The module's name.
        name: String,
        /// What `cuModuleLoadDataEx` returned.
        code: CUresult,
        /// The driver's error log, empty where it wrote none.
        log: String,
    },

    /// Bytes that are no fatbin.
    #[error("module {name} is no fatbin: {reason}")]
    NotAFatbin {
        /// The module's name.
        name: String,
        /// Which part of its header is wrong, with the value and what it should be.
        reason: String,
    },

    /// A name that C cannot hold.
    #[error("the name {name:?} holds a zero byte, which C takes for its end")]
    NulInName {
        /// The name.
        name: String,
    },

    /// Host and device lengths differ.
    #[error(
        "{what}: the host slice has {host} elements, the device buffer {device}; they must be equal"
    )]
    Length {
        /// The copy that was asked for.
        what: &'static str,
        /// Elements on the host.
        host: usize,
        /// Elements on the device.
        device: usize,
    },

    /// A buffer whose size in bytes does not fit the address space.
    #[error(
        "a device buffer of {elements} elements of {element_bytes} bytes does not fit in {limit} bytes"
    )]
    TooLarge {
        /// Elements asked for.
        elements: usize,
        /// Bytes of one.
        element_bytes: usize,
        /// The greatest size.
        limit: usize,
    },

    /// The device computed something else than the host.
    #[error(
        "self-check on {device}: {what} came back as {found:#x}, {expected:#x} is right; do not trust this device"
    )]
    SelfCheck {
        /// The device's name.
        device: String,
        /// Which value.
        what: &'static str,
        /// What the device wrote.
        found: u32,
        /// What the host computed.
        expected: u32,
    },
}

fn log_text(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": {log}") }
}

/// Turns a result code into an [`Error::Call`]. The arguments are only formatted where the call failed.
pub(crate) fn check(
    call: &'static str,
    code: CUresult,
    arguments: impl FnOnce() -> String,
) -> Result<(), Error> {
    if code.is_success() {
        return Ok(());
    }
    Err(Error::Call { call, arguments: arguments(), code })
}

static DROP_HOOK: OnceCell<fn(&Error)> = OnceCell::new();

/// Sets who hears of errors that a `Drop` cannot return; without a hook they go to standard error.
///
/// The first caller wins. Returns whether that was this one. A hook must not panic: it runs inside `Drop`.
pub fn set_drop_error_hook(hook: fn(&Error)) -> bool {
    DROP_HOOK.set(hook).is_ok()
}

#[cold]
pub(crate) fn report_drop_error(error: &Error) {
    match DROP_HOOK.get() {
        Some(hook) => hook(error),
        None => eprintln!("kasmina-sys: error while releasing: {error}"),
    }
}
