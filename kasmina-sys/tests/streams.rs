//! What a user sees of streams, events and captures, on a fake driver that runs everything as late as it may.
#![cfg(target_os = "linux")]

mod fake;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use fake::Fake;
use kasmina_sys::{
    CUresult, DeviceBuffer, Error, Event, PinnedBuffer, PinnedKind, Stream, StreamPriorities,
    set_drop_error_hook,
};

#[test]
fn streams_have_the_priority_they_were_given() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let range = Stream::priorities(&context).expect("it answers");
    assert_eq!(range, StreamPriorities { least: 0, greatest: -5 });
    for (asked, given) in [(0, 0), (-3, -3), (range.greatest, -5), (-100, -5), (100, 0)] {
        let stream = Stream::with_priority(&context, asked).expect("a stream");
        assert_eq!(stream.priority(), Ok(given));
    }
    drop(context);
    fake.assert_nothing_left();
}

#[test]
fn the_last_share_destroys_an_own_stream_and_none_a_foreign_one() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let own = Stream::new(&context).expect("a stream");
    // SAFETY: a stream of the context, which outlives the borrowed one.
    let borrowed = unsafe { Stream::from_raw(&context, own.raw()) };
    assert!(borrowed.same_queue(&own));
    assert!(!Stream::default_of(&context).same_queue(&own));
    let buffer = DeviceBuffer::from_host(&borrowed, &[1u16, 2, 3]).expect("it fits");
    assert_eq!(buffer.to_vec(), Ok(vec![1, 2, 3]));
    drop(buffer);
    assert_eq!(borrowed.close(), Ok(()));
    assert_eq!(fake.counts().streams, 1);
    let share = own.clone();
    assert_eq!(own.close(), Ok(()));
    assert_eq!(fake.counts().streams, 1);
    fake.fail("cuStreamDestroy", 0, 1, CUresult(4242));
    assert!(matches!(share.close(), Err(Error::Call { code: CUresult(4242), .. })));
    fake.mend();
    assert_eq!(fake.counts().misused, 0);
}

#[test]
fn a_foreign_streams_owner_stays_as_long_as_something_made_on_it() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let theirs = Stream::new(&context).expect("a stream");
    let raw = theirs.raw();
    // SAFETY: a stream of the context, which lives as long as the value that is handed over.
    let ours = unsafe { Stream::from_owner(&context, raw, Arc::new(theirs)) };
    let buffer = DeviceBuffer::from_host(&ours, &[1u16, 2, 3]).expect("it fits");
    drop(ours);
    assert_eq!(fake.counts().streams, 1, "the buffer is freed on it");
    assert_eq!(buffer.to_vec(), Ok(vec![1, 2, 3]));
    drop(buffer);
    assert_eq!(fake.counts().streams, 0);
    drop(context);
    fake.assert_nothing_left();
}

#[test]
fn a_join_orders_what_comes_after_and_nothing_else() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let (a, b) = (Stream::new(&context).expect("one"), Stream::new(&context).expect("two"));
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |stream: &Stream, what: &'static str| {
        let order = Arc::clone(&order);
        stream.call_host(move || order.lock().expect("no panic").push(what)).expect("it is queued");
    };
    note(&a, "a1");
    b.join(&a).expect("it is queued");
    note(&a, "a2");
    note(&b, "b1");
    assert_eq!(b.is_idle(), Ok(false));
    b.synchronize().expect("it is done");
    assert_eq!(*order.lock().expect("no panic"), ["a1", "b1"]);
    // The fake driver moves on by one with each question.
    while !a.is_idle().expect("it answers") {}
    assert_eq!(*order.lock().expect("no panic"), ["a1", "b1", "a2"]);
    // A stream is joined to itself as it is.
    a.join(&a.clone()).expect("nothing is done");
    assert_eq!(fake.pending(), 0);
    drop((a, b, context));
    fake.assert_nothing_left();
}

#[test]
fn events_mark_time_and_say_when_they_are_passed() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let (start, end) = (Event::timed(&context).expect("one"), Event::timed(&context).expect("two"));
    assert_eq!((start.is_done(), start.synchronize()), (Ok(true), Ok(())), "never recorded");
    start.record(&stream).expect("it is queued");
    stream.call_host(|| {}).expect("it is queued");
    end.record(&stream).expect("it is queued");
    let early = end.milliseconds_since(&start).err();
    assert!(matches!(early, Some(Error::Call { code: CUresult::NOT_READY, .. })), "{early:?}");
    assert_eq!(end.is_done(), Ok(false));
    end.synchronize().expect("it is passed");
    assert_eq!(end.milliseconds_since(&start), Ok(2.0));
    let plain = Event::new(&context).expect("an event");
    plain.record(&stream).expect("it is queued");
    assert!(plain.milliseconds_since(&start).is_err(), "it has no clock");
    for event in [plain, Event::blocking(&context).expect("an event"), start, end] {
        assert_eq!(event.close(), Ok(()));
    }
    drop((stream, context));
    fake.assert_nothing_left();
}

#[test]
fn a_host_call_that_is_refused_is_dropped_at_once() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let kept = Arc::new(());
    let body = Arc::clone(&kept);
    fake.fail("cuLaunchHostFunc", 0, 1, CUresult(4242));
    assert!(stream.call_host(move || drop(body)).is_err());
    assert_eq!(Arc::strong_count(&kept), 1);
}

static REPORTED: AtomicU32 = AtomicU32::new(0);

#[test]
fn a_panic_in_a_host_call_and_errors_of_drops_go_to_the_hook_once_each() {
    fn count(_: &Error) {
        REPORTED.fetch_add(1, Ordering::SeqCst);
    }
    assert!(set_drop_error_hook(count), "no other test of this file sets it");
    let reported = || REPORTED.swap(0, Ordering::SeqCst);

    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    stream.call_host(|| panic!("in a host call")).expect("it is queued");
    assert_eq!((stream.synchronize(), reported()), (Ok(()), 1));

    let mut pinned = PinnedBuffer::<u8>::zeroed(&context, 1, PinnedKind::Cached).expect("it fits");
    let buffer = DeviceBuffer::<u8>::zeroed(&stream, 1).expect("it fits");
    buffer.copy_to_pinned(&mut pinned, &stream).expect("it is queued");
    let event = Event::new(&context).expect("an event");
    let unused = Stream::new(&context).expect("a stream");
    fake.fail("*", 0, -1, CUresult::ILLEGAL_ADDRESS);
    drop(event);
    assert_eq!(reported(), 1);
    drop(unused);
    assert_eq!(reported(), 1);
    drop(buffer);
    assert_eq!(reported(), 1);
    // The buffer and the event that it waits with.
    drop(pinned);
    assert_eq!(reported(), 2);
    fake.mend();
}

#[test]
fn nothing_that_a_replay_could_not_repeat_gets_into_a_graph() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let (stream, other) =
        (Stream::new(&context).expect("one"), Stream::new(&context).expect("two"));
    let mut pinned = PinnedBuffer::<u32>::zeroed(&context, 4, PinnedKind::Cached).expect("it fits");
    let mut here = DeviceBuffer::<u32>::zeroed(&stream, 4).expect("it fits");
    let mut there = DeviceBuffer::<u32>::zeroed(&other, 4).expect("it fits");
    fake.begin_strict(&stream);
    assert_eq!(stream.is_capturing(), Ok(true));
    let outcomes = [
        DeviceBuffer::<u32>::unwritten(&stream, 4).map(drop),
        here.copy_from_pinned(&pinned, &stream),
        here.copy_from_pinned(&pinned, &other),
        there.copy_from_pinned(&pinned, &stream),
        here.copy_to_pinned(&mut pinned, &stream),
        here.copy_to_pinned(&mut pinned, &other),
        here.copy_from_host(&[0; 4]),
        here.copy_to_host(&mut [0; 4]),
        here.copy_from_device(there.as_slice(), &stream),
        here.fill_zero(&other),
        there.fill_u32(1, &stream),
        pinned.in_use_by(&stream),
        stream.call_host(|| {}),
    ];
    for (i, outcome) in outcomes.into_iter().enumerate() {
        assert!(matches!(outcome, Err(Error::Capturing { .. })), "{i}: {outcome:?}");
    }
    // What lies on the captured stream becomes a node.
    let (mut left, right) = here.as_mut_slice().split_at_mut(2).expect("two and two");
    left.copy_from_device(right.as_slice(), &stream).expect("a node");
    here.fill_u32(7, &stream).expect("a node");
    // Other streams go on.
    there.fill_u32(3, &other).expect("it is queued");
    assert_eq!(fake.end_strict(&stream), Some(2));
    assert_eq!(here.to_vec(), Ok(vec![0; 4]), "nothing of it ran");
    assert_eq!(there.to_vec(), Ok(vec![3; 4]));
    drop((pinned, here, there, stream, other, context));
    fake.assert_nothing_left();
}

#[test]
fn waits_and_drops_neither_fail_beside_a_strict_capture_nor_spoil_it() {
    for defines in [&[][..], &["POOLS=0"]] {
        let fake = Fake::new(defines);
        let context = fake.context();
        let (captured, other) =
            (Stream::new(&context).expect("one"), Stream::new(&context).expect("two"));
        let mut pinned =
            PinnedBuffer::<u32>::zeroed(&context, 4, PinnedKind::Cached).expect("it fits");
        let buffer = DeviceBuffer::from_host(&other, &[1u32, 2, 3, 4]).expect("it fits");
        buffer.copy_to_pinned(&mut pinned, &other).expect("it is queued");
        fake.begin_strict(&captured);
        assert_eq!(pinned.is_ready(), Ok(false));
        assert_eq!(pinned.as_slice().expect("it is done"), [1, 2, 3, 4]);
        assert_eq!(buffer.to_vec(), Ok(vec![1, 2, 3, 4]));
        assert_eq!(pinned.close(), Ok(()));
        assert_eq!(buffer.close(), Ok(()));
        // Allocations too, and what is made of the layer's own accord: the events of a join and of a page-locked buffer.
        let third = Stream::new(&context).expect("three");
        let mut buffer = DeviceBuffer::<u32>::zeroed(&other, 4).expect("it fits");
        let mut pinned =
            PinnedBuffer::<u32>::zeroed(&context, 4, PinnedKind::Cached).expect("it fits");
        buffer.fill_u32(7, &third).expect("it is queued");
        buffer.copy_to_pinned(&mut pinned, &third).expect("it is queued");
        assert_eq!(pinned.as_slice().expect("it is done"), [7; 4]);
        drop(buffer);
        drop(pinned);
        assert_eq!(Event::new(&context).and_then(Event::close), Ok(()));
        assert_eq!(third.close(), Ok(()));
        assert_eq!(fake.end_strict(&captured), Some(0));
        // The exemption was for those calls alone: what the user asks for is the user's to answer for.
        fake.begin_strict(&captured);
        assert!(other.synchronize().is_err());
        assert_eq!(fake.end_strict(&captured), None);
        drop((captured, other, context));
        fake.assert_nothing_left();
    }
}

#[test]
fn a_buffer_dropped_while_its_home_is_captured_is_freed_afterwards() {
    for defines in [&[][..], &["POOLS=0"]] {
        // At the next allocation, at the next free, or with the stream.
        for next in 0..3 {
            let fake = Fake::new(defines);
            let context = fake.context();
            let stream = Stream::new(&context).expect("a stream");
            let [early, late] =
                [(); 2].map(|()| DeviceBuffer::<u8>::zeroed(&stream, 9).expect("it fits"));
            let watch = early.watch();
            let mut late = Some(late);
            fake.begin_strict(&stream);
            drop(early);
            assert!(!watch.is_alive());
            if next == 2 {
                assert_eq!(late.take().map(DeviceBuffer::close), Some(Ok(())));
            }
            assert_eq!(fake.end_strict(&stream), Some(0));
            assert_eq!(fake.counts().allocated, 2);
            if next == 0 {
                let new = DeviceBuffer::<u8>::unwritten(&stream, 1).expect("it fits");
                assert_eq!(fake.counts().allocated, 2);
                drop(new);
            }
            drop(late);
            assert_eq!(fake.counts().allocated, if next == 2 { 2 } else { 0 });
            drop((stream, context));
            fake.assert_nothing_left();
        }
    }
}

#[test]
fn threads_share_streams_buffers_and_a_context() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let (home, other) = (Stream::new(&context).expect("one"), Stream::new(&context).expect("two"));
    let source = DeviceBuffer::from_host(&home, &[5u32; 64]).expect("it fits");
    let staging =
        PinnedBuffer::from_slice(&context, &[6u32; 64], PinnedKind::Cached).expect("it fits");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (home, other, source, staging) = (&home, &other, &source, &staging);
            let (context, stop) = (&context, &stop);
            scope.spawn(move || {
                let mut landing =
                    PinnedBuffer::<u32>::zeroed(context, 64, PinnedKind::Cached).expect("it fits");
                for round in 0..50 {
                    let (mine, on) =
                        if (number + round) % 2 == 0 { (home, other) } else { (other, home) };
                    let mut buffer = DeviceBuffer::<u32>::unwritten(mine, 64).expect("it fits");
                    buffer.copy_from_device(source.as_slice(), on).expect("it is queued");
                    buffer.copy_to_pinned(&mut landing, mine).expect("it is queued");
                    assert_eq!(landing.as_slice().expect("it is done"), [5; 64]);
                    buffer.copy_from_pinned(staging, on).expect("it is queued");
                    assert_eq!(staging.as_slice().expect("it may be read"), [6; 64]);
                    assert_eq!(buffer.to_vec(), Ok(vec![6; 64]));
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
    });
    assert!(stop.into_inner());
    drop((source, staging, home, other, context));
    fake.assert_nothing_left();
}
