//! What can go wrong once there is a driver: a call that failed, with its arguments, or something unavailable.

use once_cell::sync::OnceCell;
use thiserror::Error;

use crate::raw::CUresult;
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

    /// The two sides of a copy differ in length.
    #[error("{what}: the source has {from} elements, the destination {to}; they must be equal")]
    Length {
        /// The copy that was asked for.
        what: &'static str,
        /// Elements of the source.
        from: usize,
        /// Elements of the destination.
        to: usize,
    },

    /// A range that does not lie within what it was taken of.
    #[error("the range {start}..{end} does not lie within {len} elements")]
    Range {
        /// Its first element.
        start: usize,
        /// One past its last.
        end: usize,
        /// How many there are.
        len: usize,
    },

    /// Two things that must belong to one context belong to two.
    #[error(
        "{what}: the stream is of another context than the memory; use a stream of the memory's own context"
    )]
    OtherContext {
        /// What was asked for.
        what: &'static str,
    },

    /// Host memory for a result could not be had.
    #[error("{bytes} bytes of host memory could not be allocated")]
    HostMemory {
        /// Bytes asked for.
        bytes: usize,
    },

    /// Page-locked memory that a reference may not point to.
    #[error(
        "the driver placed page-locked memory at {address:#x}, which is not a multiple of {align}, the element's alignment"
    )]
    Misaligned {
        /// Where it lies.
        address: usize,
        /// What the element type needs.
        align: usize,
    },

    /// A size in bytes that does not fit the address space.
    #[error("{elements} elements of {element_bytes} bytes do not fit in {limit} bytes")]
    TooLarge {
        /// Elements asked for.
        elements: usize,
        /// Bytes of one.
        element_bytes: usize,
        /// The greatest size.
        limit: usize,
    },

    /// A graph would do it again at every replay, with memory that may be gone by then.
    #[error("{what} cannot become part of a graph; do it outside the capture")]
    Capturing {
        /// What was asked for.
        what: &'static str,
    },

    /// A function that was queued with `Stream::call_host` panicked.
    #[error("a function called by a stream panicked")]
    HostCallPanicked,

    /// A launch that the kernel, the device or the driver's rules forbid, found before the driver was called.
    #[error("{kernel} cannot be launched: {field} is {value}, which must be {rule} {limit}{mend}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// What is wrong: a part of the configuration.
        field: &'static str,
        /// Its value.
        value: u64,
        /// How it must stand to the limit.
        rule: &'static str,
        /// The limit.
        limit: u64,
        /// What to do about it, empty where that is plain.
        mend: &'static str,
    },

    /// The types given for a kernel's arguments are not those of its parameters.
    #[error("{kernel} cannot take these arguments: {mismatch}")]
    Parameters {
        /// The kernel.
        kernel: String,
        /// What differs.
        mismatch: ParameterMismatch,
    },

    /// A kernel or graph of one context for a stream of another.
    #[error("{what} belongs to another context than {stream}; use a stream of its own context")]
    ForeignStream {
        /// What was to run.
        what: String,
        /// The stream.
        stream: String,
    },

    /// A capture that gave no graph.
    #[error("no graph of {stream}: {fault}")]
    Capture {
        /// The stream.
        stream: String,
        /// Why.
        fault: CaptureFault,
    },

    /// A kernel was to take a copy's place in a chain, or the other way round.
    #[error(
        "link {at} of the chain is of the other kind: a kernel takes a kernel's place and a copy a copy's; make the chain anew"
    )]
    Link {
        /// Which.
        at: usize,
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

/// How argument types differ from a kernel's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParameterMismatch {
    /// Too few or too many.
    #[error("it has {expected} parameters, {found} arguments were given")]
    Count {
        /// Parameters of the kernel.
        expected: usize,
        /// Types given.
        found: usize,
    },
    /// One of another size.
    #[error("parameter {index} has {expected} bytes, the type given for it has {found}")]
    Size {
        /// Which, counted from 0.
        index: usize,
        /// Bytes of the kernel's parameter.
        expected: usize,
        /// Bytes of the type.
        found: usize,
    },
}

/// Why a capture gave no graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CaptureFault {
    /// The stream is being captured already.
    #[error("it is being captured already, and a capture cannot hold another of the same stream")]
    Nested,
    /// The default stream cannot be captured.
    #[error("the default stream cannot be captured; take a stream of your own")]
    DefaultStream,
    /// Something was called meanwhile that no capture survives.
    #[error(
        "a call made meanwhile ended the capture, such as a synchronization, a query or an allocation, here or, in the \
         global mode, in another thread; do that before, or capture in a laxer mode"
    )]
    Invalidated,
    /// Another stream took up the capture's work and was not waited for.
    #[error(
        "a stream that waited for this one was not joined again; make this one wait for it last"
    )]
    Unjoined,
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
