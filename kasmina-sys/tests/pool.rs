//! Where device memory comes from, on a fake driver: the device's pool, which all contexts share, or plain allocation.
#![cfg(target_os = "linux")]

mod fake;

use std::sync::Barrier;

use fake::Fake;
use kasmina_sys::raw::CUmemoryPool;
use kasmina_sys::{
    Allocator, CUresult, Context, DeviceBuffer, Error, NoPool, PinnedBuffer, PinnedKind, Stream,
    Unavailable,
};

#[test]
fn without_pools_the_reason_is_kept_and_plain_allocation_serves() {
    let missing = |name: &str| {
        let fake = Fake::new(&[]);
        let context = fake.context();
        fake.hide(name);
        (fake, context)
    };
    for name in ["cuMemPoolCreate", "cuMemPoolDestroy", "cuMemFreeAsync", "cuMemAllocFromPoolAsync"]
    {
        let (fake, context) = missing(name);
        let reason = context.allocator().why_no_pool();
        let expected = matches!(
            reason,
            Some(NoPool::Driver(Unavailable::MissingSymbol { name: found, .. })) if found == name
        );
        assert!(expected, "{reason:?}");
        let stream = Stream::new(&context).expect("a stream");
        let buffer = DeviceBuffer::from_host(&stream, &[1u8, 2]).expect("it fits");
        assert_eq!(buffer.to_vec(), Ok(vec![1, 2]));
        assert_eq!((context.pool_usage(), context.trim_pool(0)), (Ok(None), Ok(())));
        drop((buffer, stream, context));
        fake.assert_nothing_left();
    }
    let fake = Fake::new(&["POOLS=0"]);
    let context = fake.context();
    assert_eq!(context.allocator().why_no_pool(), Some(&NoPool::Device { ordinal: 0 }));
    let fake = Fake::new(&[]);
    let context_without = fake.context();
    fake.fail("cuMemPoolSetAttribute", 0, 1, CUresult(4242));
    let reason = context_without.allocator().why_no_pool();
    assert!(matches!(reason, Some(NoPool::Refused(Error::Call { .. }))), "{reason:?}");
    drop((context, context_without));
    fake.assert_nothing_left();
}

#[test]
fn a_driver_that_could_not_free_is_not_asked_to_allocate() {
    let fake = Fake::new(&["POOLS=0"]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    fake.hide("cuMemFree");
    fake.hide("cuMemFreeHost");
    let error = DeviceBuffer::<u8>::zeroed(&stream, 1).err();
    assert!(matches!(error, Some(Error::Unavailable(Unavailable::MissingSymbol { .. }))));
    let error = PinnedBuffer::<u8>::zeroed(&context, 1, PinnedKind::Cached).err();
    assert!(matches!(error, Some(Error::Unavailable(Unavailable::MissingSymbol { .. }))));
    assert_eq!((fake.counts().allocated, fake.counts().pinned), (0, 0));
}

#[test]
fn the_pool_keeps_what_is_freed_and_gives_it_back_when_asked() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let usage = || context.pool_usage().expect("it answers").expect("there is a pool");
    let buffer = DeviceBuffer::<u8>::zeroed(&stream, 1 << 20).expect("it fits");
    assert_eq!((usage().used, usage().reserved), (1 << 20, 1 << 20));
    drop(buffer);
    stream.synchronize().expect("it is done");
    assert_eq!((usage().used, usage().reserved), (0, 1 << 20));
    let again = DeviceBuffer::<u8>::zeroed(&stream, 1 << 20).expect("it fits");
    assert_eq!((usage().reserved, usage().reserved_high), (1 << 20, 1 << 20));
    drop(again);
    stream.synchronize().expect("it is done");
    context.trim_pool(0).expect("it trims");
    assert_eq!((usage().reserved, usage().used_high), (0, 1 << 20));
    assert!(matches!(context.allocator(), Allocator::Pool(_)));
}

#[test]
fn memory_that_the_pool_keeps_does_not_stand_in_the_way_of_another_size() {
    let fake = Fake::new(&["CAPACITY=(1 << 20)"]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    for _ in 0..3 {
        let small: Vec<_> = (0..8)
            .map(|_| DeviceBuffer::<u8>::unwritten(&stream, 1 << 17).expect("an eighth"))
            .collect();
        drop(small);
        DeviceBuffer::<u8>::unwritten(&stream, 1 << 20).expect("all of it");
    }
    let whole = DeviceBuffer::<u8>::unwritten(&stream, 1 << 20).expect("all of it");
    let error = DeviceBuffer::<u8>::unwritten(&stream, 1).err();
    assert!(matches!(error, Some(Error::Call { code: CUresult::OUT_OF_MEMORY, .. })), "{error:?}");
    drop((whole, stream, context));
    fake.assert_nothing_left();
}

fn pool_of(context: &Context) -> Option<CUmemoryPool> {
    match context.allocator() {
        Allocator::Pool(pool) => Some(pool.raw()),
        _ => None,
    }
}

#[test]
fn contexts_of_a_device_share_its_pool_which_stays() {
    let fake = Fake::new(&[]);
    // One driver, as programs have it: each `Fake::context` opens another.
    let device = fake.device();
    let context = || Context::primary(device).expect("a context");
    let (first, second) = (context(), context());
    assert!(pool_of(&first).is_some());
    assert_eq!(pool_of(&first), pool_of(&second));
    let stream = Stream::new(&first).expect("a stream");
    DeviceBuffer::<u8>::zeroed(&stream, 1 << 20).and_then(DeviceBuffer::close).expect("it fits");
    // The free is queued still, on a stream that is gone before it is done.
    assert!(fake.pending() > 0);
    drop(stream);
    assert_eq!((first.close(), second.close()), (Ok(()), Ok(())));
    fake.assert_nothing_left();
    let counts = fake.counts();
    assert_eq!((counts.pools, counts.retained), (1, 1));
    // Whoever comes later finds it, and in it what was freed.
    let third = context();
    let usage = third.pool_usage().expect("it answers").expect("there is a pool");
    assert_eq!((usage.used, usage.reserved), (0, 1 << 20));
    drop(third);
    fake.assert_nothing_left();
    assert_eq!(fake.counts().pools, 1);
}

#[test]
fn a_context_without_memory_of_the_device_goes_for_good() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let pinned = PinnedBuffer::<u8>::zeroed(&context, 9, PinnedKind::Cached).expect("it fits");
    drop((Stream::new(&context), pinned, context));
    assert_eq!((fake.counts().pools, fake.counts().retained), (0, 0));
    fake.assert_nothing_left();
}

#[test]
fn a_pool_that_was_refused_is_tried_again_by_the_next_context() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    fake.fail("cuMemPoolCreate", 0, 1, CUresult(4242));
    assert_eq!(pool_of(&context), None);
    let next = Context::primary(context.device()).expect("a context");
    assert!(pool_of(&next).is_some());
    // The choice of a context stands: its buffers are freed as they were allocated.
    assert_eq!(pool_of(&context), None);
    drop((context, next));
    fake.assert_nothing_left();
}

#[test]
fn of_threads_that_need_the_first_pool_one_makes_it() {
    const THREADS: usize = 8;
    let fake = Fake::new(&[]);
    let device = fake.device();
    let together = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let context = Context::primary(device).expect("a context");
                together.wait();
                let stream = Stream::new(&context).expect("a stream");
                DeviceBuffer::<u8>::zeroed(&stream, 100).expect("it fits");
            });
        }
    });
    assert_eq!(fake.counts().pools, 1);
    fake.assert_nothing_left();
}
