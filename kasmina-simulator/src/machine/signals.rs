//! Faults of the processor while a kernel runs: an address that is not mapped, a stack that is too small, a division by zero. The
//! kernel that caused one ends with it, as on a device; the process goes on.

use std::cell::Cell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Once;

use super::FaultKind;
use super::abi::STACK_BYTES;
use super::thread::{Local, Waiting};

const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE];
const HANDLER_STACK: usize = 64 << 10;
/// Of the processor's error code: the access was a write.
const WRITE: i64 = 2;
/// The signal is not of an address: a general protection fault, as by an address that no page can have, or misaligned data.
const OF_KERNEL: c_int = 128;

thread_local! {
    /// The thread of a grid that runs on this thread of the system.
    static RUNNING: Cell<*const Local> = const { Cell::new(ptr::null()) };
    static HANDLER: Cell<bool> = const { Cell::new(false) };
}

/// Handlers that were there before, for what happens outside of kernels.
static mut BEFORE: [MaybeUninit<libc::sigaction>; 3] = [const { MaybeUninit::uninit() }; 3];

/// Says who runs from now on; null for nobody.
pub(super) fn runs(local: *const Local) {
    RUNNING.set(local);
}

/// Makes this thread of the system ready to run kernels.
pub(super) fn prepare() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
    if HANDLER.replace(true) {
        return;
    }
    // The handler of an overflown stack needs another one. Where the thread has one, that does.
    // SAFETY: plain system calls; the stack given is leaked, so that it is there as long as the thread.
    unsafe {
        let mut old = MaybeUninit::<libc::stack_t>::zeroed();
        if libc::sigaltstack(ptr::null(), old.as_mut_ptr()) == 0
            && old.assume_init().ss_flags & libc::SS_DISABLE == 0
        {
            return;
        }
        let memory = Box::leak(vec![0u8; HANDLER_STACK].into_boxed_slice());
        let stack = libc::stack_t {
            ss_sp: memory.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: HANDLER_STACK,
        };
        libc::sigaltstack(&raw const stack, ptr::null_mut());
    }
}

fn install() {
    for (i, signal) in SIGNALS.into_iter().enumerate() {
        // SAFETY: the handler keeps to what a handler may do; what was there before is written once, before it can be read.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(signal, &raw const action, (&raw mut BEFORE[i]).cast());
        }
    }
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let local = RUNNING.get();
    if local.is_null() {
        return pass_on(signal, info, context);
    }
    // SAFETY: the system passes valid pointers, and a thread that runs has a record. The thread's stack is given up: it goes on in the
    // middle of it, in a function that never returns.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let registers = &mut context.uc_mcontext.gregs;
        let stack_pointer = registers[libc::REG_RSP as usize] as usize;
        let address = (*info).si_addr() as usize;
        let limit = (*local).stack_middle - STACK_BYTES / 2;
        let overflow = signal == libc::SIGSEGV && (limit..limit + 4096).contains(&address);
        let cause = match signal {
            libc::SIGFPE => 3,
            _ if overflow || !(limit..limit + STACK_BYTES).contains(&stack_pointer) => 2,
            _ if (*info).si_code == OF_KERNEL => 4,
            _ if registers[libc::REG_ERR as usize] & WRITE != 0 => 1,
            _ => 0,
        };
        registers[libc::REG_RDI as usize] = cause;
        registers[libc::REG_RSI as usize] = address as i64;
        registers[libc::REG_RDX as usize] = registers[libc::REG_RIP as usize];
        registers[libc::REG_RIP as usize] = die as *const () as i64;
        // As at the beginning of a function.
        registers[libc::REG_RSP as usize] = ((*local).stack_middle - 8) as i64;
    }
}

/// Where a thread goes on that the processor has stopped: the grid fails, and the thread ends here.
extern "C" fn die(cause: u64, address: u64, at: u64) {
    let local = RUNNING.get();
    // SAFETY: this is the stack of the thread that runs, and whoever held its grid on this stack has been given up.
    unsafe {
        let grid = &mut *(*local).grid;
        let place =
            grid.kernel.code.place(at).map_or_else(String::new, |place| format!(", at {place}"));
        let access = |access| FaultKind::IllegalAddress { access, address, bytes: 0, place };
        let kind = match cause {
            0 => access("a read"),
            1 => access("a write"),
            2 => FaultKind::StackOverflow(STACK_BYTES - 4096),
            3 => FaultKind::Undefined("an integer division by zero".into()),
            _ => access("an access that no memory can have (or misaligned data)"),
        };
        grid.fail(Some((*local).id), kind);
        loop {
            (*(*local).pause.get()).suspend(Waiting::End);
        }
    }
}

fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let index = SIGNALS.iter().position(|&other| other == signal).unwrap_or(0);
    // SAFETY: the actions were written before the first signal could come here; each is called as it asks for.
    unsafe {
        let before = (&raw const BEFORE[index]).cast::<libc::sigaction>().read();
        match before.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => {
                // The instruction is tried again, and dies of it.
                libc::signal(signal, libc::SIG_DFL);
            }
            handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}
