//! Launches and replays take no memory from the heap: counted by an allocator that notes each request of this thread.
#![cfg(target_os = "linux")]

mod fake;
mod launched;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use fake::Fake;
use kasmina_sys::{ByValue, CaptureMode, DevicePointer, Error, Graph, LaunchConfig};
use launched::{Launched, stream_and_module};

thread_local! {
    static REQUESTS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every request is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        REQUESTS.set(REQUESTS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(address, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn requests_of(body: impl FnOnce() -> Result<(), Error>) -> usize {
    let before = REQUESTS.get();
    let result = body();
    let requests = REQUESTS.get() - before;
    assert_eq!(result, Ok(()));
    requests
}

#[test]
fn the_counter_counts() {
    let requests = requests_of(|| {
        drop(std::hint::black_box(vec![0u8; 100]));
        Ok(())
    });
    assert_eq!(requests, 1);
}

#[test]
fn neither_a_launch_nor_a_replay_allocates() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let kernel = module
        .kernel::<(DevicePointer<f32>, u32, ByValue<[f32; 3]>)>("sizes_8_4_12")
        .expect("it is there");
    let plain = LaunchConfig::new(128, 256);
    let full =
        plain.shared_bytes(1024).cluster(2).cooperative(true).programmatic(true).priority(-1);
    let launch = |config: &LaunchConfig| {
        let arguments = (DevicePointer::new(16), 3, ByValue([1.0, 2.0, 3.0]));
        // SAFETY: the fake driver runs nothing.
        unsafe { kernel.launch(&stream, config, arguments) }
    };
    let exec = Graph::capture(&stream, CaptureMode::default(), |_| launch(&plain))
        .and_then(|graph| graph.instantiate())
        .expect("it instantiates");
    // SAFETY: as above.
    let replay = || unsafe { exec.launch(&stream) };
    // The first calls look the functions up.
    for outcome in [launch(&full), launch(&plain), replay()] {
        assert_eq!(outcome, Ok(()));
    }
    for config in [plain, full] {
        assert_eq!(requests_of(|| (0..100).try_for_each(|_| launch(&config))), 0, "{config:?}");
    }
    assert_eq!(requests_of(|| (0..100).try_for_each(|_| replay())), 0);
    let counts = Launched::of(&fake).counts();
    assert_eq!((counts.launches, counts.graph_launches, counts.occupancy), (202, 101, 1));
}
