//! A hit allocates nothing: counted by an allocator of this test's own, alone in its process.
#![cfg(target_os = "linux")]

#[path = "../../kasmina-sys/tests/fake/mod.rs"]
mod fake;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use fake::Fake;
use kasmina_sys::{DeviceBuffer, Stream};
use kasmina_tma::{DataType, DescriptorCache, Geometry};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is the system allocator's; counting touches a cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_hit_allocates_nothing() {
    const HITS: u32 = 10_000;
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let buffer = DeviceBuffer::<f32>::zeroed(&stream, 64 * 16).expect("memory");
    let geometry = Geometry::tiled(DataType::F32).sizes(&[64, 16]).box_sides(&[32, 8]).build();
    let geometry = geometry.expect("it is legal");
    let cache = DescriptorCache::new();
    cache.get(buffer.as_slice(), &geometry).expect("there is a map");

    let before = ALLOCATIONS.with(Cell::get);
    let start = Instant::now();
    for _ in 0..HITS {
        cache.get(buffer.as_slice(), &geometry).expect("there is a map");
    }
    let elapsed = start.elapsed();
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
    assert_eq!(cache.stats().hits, u64::from(HITS));
    println!("{:.0} ns a hit", elapsed.as_nanos() as f64 / f64::from(HITS));
}
