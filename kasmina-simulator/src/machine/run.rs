//! Runs a grid: a loop that gives the processor to one thread of it after another.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::time::Duration;

use corosensei::CoroutineResult;

use super::grid::{Grid, Id};
use super::signals;
use super::stack::ThreadStack;
use super::thread::{Fiber, Waiting};
use super::{Fault, FaultKind, Kernel, Launch, Memory};

/// The most threads of a block.
const MOST_THREADS: u32 = 1024;
/// The most blocks of a cluster, where the kernel allows more than eight.
const MOST_CLUSTER: u32 = 16;
/// What parameters lie at a multiple of.
const ALIGNMENT: usize = 128;

/// The parameters of a launch, where the kernel finds them.
struct Parameters {
    begin: *mut u8,
    layout: Layout,
    places: Vec<*mut c_void>,
}

impl Parameters {
    fn new(arguments: &[Vec<u8>]) -> Option<Self> {
        let room = |bytes: usize| bytes.next_multiple_of(ALIGNMENT);
        let bytes: usize = arguments.iter().map(|argument| room(argument.len())).sum();
        let layout = Layout::from_size_align(bytes.max(ALIGNMENT), ALIGNMENT).ok()?;
        // SAFETY: the size is not zero.
        let begin = unsafe { alloc_zeroed(layout) };
        if begin.is_null() {
            return None;
        }
        let (mut places, mut at) = (Vec::new(), 0);
        for argument in arguments {
            // SAFETY: the sum of all arguments' room was allocated.
            unsafe {
                let place = begin.add(at);
                place.copy_from_nonoverlapping(argument.as_ptr(), argument.len());
                places.push(place.cast());
            }
            at += room(argument.len());
        }
        Some(Self { begin, layout, places })
    }
}

impl Drop for Parameters {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.begin, self.layout) };
    }
}

/// What the environment says of runs.
fn number_of(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

pub(super) fn run(
    kernel: &Kernel,
    launch: &Launch,
    arguments: &[Vec<u8>],
    memory: &dyn Memory,
) -> Result<(), Fault> {
    let seed = number_of("KASMINA_SIMULATOR_SEED", 0);
    let refuse = |why: String| Fault {
        kernel: kernel.name.clone(),
        block: [0; 3],
        thread: [0; 3],
        seed,
        kind: FaultKind::Launch(why),
    };
    check(kernel, launch, arguments).map_err(refuse)?;
    let parameters =
        Parameters::new(arguments).ok_or_else(|| refuse("no memory for the parameters".into()))?;
    let patience = Duration::from_secs(number_of("KASMINA_SIMULATOR_PATIENCE", 300));
    signals::prepare();
    let own = seed ^ kernel.next_run();
    let mut grid =
        Grid::new(kernel, launch, memory, seed, own, parameters.places.clone(), patience);
    let grid: *mut Grid<'_> = &raw mut grid;
    // SAFETY: the grid lives on this frame until the loop is through, and each use of the pointer ends before the next begins.
    unsafe {
        while let Some(id) = (*grid).next() {
            resume(grid, id);
        }
        give_up(&mut *grid);
        match (*grid).fault.take() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }
}

fn check(kernel: &Kernel, launch: &Launch, arguments: &[Vec<u8>]) -> Result<(), String> {
    let threads: u64 = launch.block.iter().map(|&side| u64::from(side)).product();
    let most = kernel.max_threads.min(MOST_THREADS);
    if threads == 0 || threads > u64::from(most) {
        return Err(format!("blocks of {threads} threads: {} takes 1 to {most}", kernel.name));
    }
    if launch.grid.contains(&0) {
        return Err(format!("a grid of {:?} blocks", launch.grid));
    }
    let cluster: u64 = launch.cluster.iter().map(|&side| u64::from(side)).product();
    let divides =
        launch.grid.iter().zip(launch.cluster).all(|(blocks, side)| side > 0 && blocks % side == 0);
    if cluster > u64::from(MOST_CLUSTER) || !divides {
        return Err(format!(
            "clusters of {:?} blocks in a grid of {:?}",
            launch.cluster, launch.grid
        ));
    }
    if arguments.len() != kernel.parameters.len() {
        let (given, wanted) = (arguments.len(), kernel.parameters.len());
        return Err(format!("{given} arguments for {wanted} parameters"));
    }
    for (i, (argument, parameter)) in arguments.iter().zip(&kernel.parameters).enumerate() {
        if argument.len() != parameter.size {
            let (given, wanted) = (argument.len(), parameter.size);
            return Err(format!("argument {i} of {given} bytes for a parameter of {wanted}"));
        }
    }
    Ok(())
}

/// Lets a thread run until it stops.
///
/// # Safety
/// The grid is valid, nobody else holds it, and the thread is one that `next` gave.
unsafe fn resume(grid: *mut Grid<'_>, id: Id) {
    // SAFETY: the caller's promise. While the thread runs, it holds the grid itself, and this function does not.
    unsafe {
        let fiber = (*grid).blocks.thread(id).fiber.take();
        let Some(mut fiber) = fiber.or_else(|| begin(grid, id)) else {
            let why = "the system gives no memory for a thread's stack".to_owned();
            return (*grid).fail(Some(id), FaultKind::Launch(why));
        };
        let local = &raw const (*grid).blocks.of(id).locals[id.thread as usize];
        (*grid).running = Some(id);
        signals::runs(local);
        let outcome = fiber.resume(());
        signals::runs(std::ptr::null());
        (*grid).running = None;
        match outcome {
            CoroutineResult::Yield(waiting) => {
                (*grid).blocks.thread(id).fiber = Some(fiber);
                (*grid).stopped(id, Some(waiting));
            }
            CoroutineResult::Return(()) => {
                fiber.into_stack().give_back();
                (*grid).stopped(id, None);
            }
        }
    }
}

/// Prepares a thread that has not run yet; nothing where there is no memory for its stack.
///
/// # Safety
/// As of `resume`.
unsafe fn begin(grid: *mut Grid<'_>, id: Id) -> Option<Fiber> {
    let mut stack = ThreadStack::take()?;
    // SAFETY: the caller's promise.
    let (local, call, parameters) = unsafe {
        let local = &mut (*grid).blocks.of(id).locals[id.thread as usize];
        local.grid = grid.cast();
        local.stack_middle = stack.middle();
        stack.belongs_to(&raw const local.view);
        (&raw const *local, (*grid).kernel.call, (*grid).parameters.as_ptr())
    };
    Some(Fiber::with_stack(stack, move |pause, ()| {
        // SAFETY: the record lives as long as the block, the parameters as long as the grid.
        unsafe {
            (*local).pause.set(pause);
            call(parameters);
        }
    }))
}

/// Takes the stacks of threads back that a fault has left where they were.
fn give_up(grid: &mut Grid<'_>) {
    for thread in grid.blocks.all_threads() {
        thread.waiting = Waiting::End;
        if let Some(mut fiber) = thread.fiber.take() {
            // SAFETY: what is on the stack is C++ without destructors, and calls of this crate that own nothing while they wait.
            unsafe { fiber.force_reset() };
            fiber.into_stack().give_back();
        }
    }
}
