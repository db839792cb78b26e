//! What a stream or a graph has the device do: kernels, copies, fills, and calls of the host.

use std::ffi::c_void;
use std::sync::Arc;

use kasmina_sys::CUresult;

use super::context;
use super::modules::Function;
use crate::machine::{FaultKind, Launch};

/// Work of the device.
#[derive(Clone)]
pub(crate) enum Work {
    /// A launch.
    Kernel(KernelCall),
    /// A copy.
    Copy(Copy),
    /// A fill.
    Fill(Fill),
    /// A call of the host.
    Host(HostCall),
}

/// A launch with everything that it takes.
#[derive(Clone)]
pub(crate) struct KernelCall {
    pub(crate) function: Arc<Function>,
    pub(crate) launch: Launch,
    pub(crate) arguments: Arc<Vec<Vec<u8>>>,
}

/// One end of a copy.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Memory of the device, or page-locked memory of the host.
    Known(u64),
    /// Other memory of the host, whose owner vouches for it until the copy is done.
    Host(usize),
    /// Bytes that were taken from the host when the copy was queued.
    Staged(Arc<Vec<u8>>),
}

/// A copy.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) to: Place,
    pub(crate) from: Place,
    pub(crate) bytes: usize,
}

/// A fill with a pattern of 1 or 4 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(crate) to: u64,
    pub(crate) value: [u8; 4],
    pub(crate) width: usize,
    pub(crate) bytes: usize,
}

/// A function of the program's.
#[derive(Clone, Copy)]
pub(crate) struct HostCall {
    pub(crate) function: unsafe extern "C" fn(*mut c_void),
    pub(crate) data: usize,
}

impl Work {
    /// Does it, on the thread of a stream. What goes wrong ends the context.
    pub(crate) fn perform(&self) {
        match self {
            Self::Kernel(call) => call.perform(),
            Self::Copy(copy) => copy.perform(),
            Self::Fill(fill) => fill.perform(),
            // SAFETY: the program has queued this function with this argument.
            Self::Host(call) => unsafe {
                (call.function)(std::ptr::with_exposed_provenance_mut(call.data))
            },
        }
    }

    /// The kind, as graphs compare it.
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Kernel(_) => 0,
            Self::Copy(_) => 1,
            Self::Fill(_) => 2,
            Self::Host(_) => 3,
        }
    }
}

impl KernelCall {
    fn perform(&self) {
        let context = context::the();
        let Err(fault) = self.function.kernel().run(&self.launch, &self.arguments, &context.memory)
        else {
            return;
        };
        let code = match &fault.kind {
            FaultKind::IllegalAddress { .. } => CUresult::ILLEGAL_ADDRESS,
            FaultKind::MisalignedAddress { .. } => CUresult::MISALIGNED_ADDRESS,
            FaultKind::IllegalInstruction(_) => CUresult::ILLEGAL_INSTRUCTION,
            _ => CUresult::LAUNCH_FAILED,
        };
        context.end(code, &fault.to_string());
    }
}

/// The pointer to a range of memory that the device knows; ends the context where it is not there.
fn known(what: &str, address: u64, bytes: usize) -> Option<*mut u8> {
    let context = context::the();
    if context.memory.is_live(address, bytes) {
        return Some(std::ptr::with_exposed_provenance_mut(address as usize));
    }
    let reason = format!(
        "{what} of {bytes} bytes at {address:#x}: the memory is not there when the stream comes to it. It was released, belongs to \
         another stream that nobody has waited for, or ends earlier"
    );
    context.end(CUresult::ILLEGAL_ADDRESS, &reason);
    None
}

impl Place {
    fn pointer(&self, what: &str, bytes: usize) -> Option<*mut u8> {
        match self {
            Self::Known(address) => known(what, *address, bytes),
            Self::Host(address) => Some(std::ptr::with_exposed_provenance_mut(*address)),
            // Only ever read.
            Self::Staged(staged) => (staged.len() >= bytes).then(|| staged.as_ptr().cast_mut()),
        }
    }
}

impl Copy {
    fn perform(&self) {
        let to = self.to.pointer("a copy to memory", self.bytes);
        let from = self.from.pointer("a copy from memory", self.bytes);
        if let (Some(to), Some(from)) = (to, from) {
            // SAFETY: both ends have so many bytes: they live by the device's book, or the program vouches for them.
            unsafe { std::ptr::copy(from, to, self.bytes) };
        }
    }
}

impl Fill {
    fn perform(&self) {
        let Some(to) = known("a fill", self.to, self.bytes) else { return };
        let [value, ..] = self.value;
        if self.width == 1 || self.value == [value; 4] {
            // SAFETY: so many bytes live there.
            unsafe { to.write_bytes(value, self.bytes) };
            return;
        }
        let word = u32::from_ne_bytes(self.value);
        for at in 0..self.bytes / 4 {
            // SAFETY: as above; the address was checked to be a multiple of 4.
            unsafe { to.cast::<u32>().add(at).write(word) };
        }
    }
}
