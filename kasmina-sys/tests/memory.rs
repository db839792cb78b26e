//! What a user sees of memory, on a fake driver that runs everything as late as it may and counts what it gives out.
#![cfg(target_os = "linux")]

mod fake;

use fake::Fake;
use kasmina_sys::{
    CUresult, Context, DeviceBuffer, DeviceSlice, DeviceSliceMut, Error, PinnedBuffer, PinnedKind,
    Stream, current_context,
};

fn pattern(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| i.wrapping_mul(0x9E37_79B1) ^ 0x1234).collect()
}

/// Both allocators must behave alike.
const ALLOCATORS: [&[&str]; 2] = [&[], &["POOLS=0"]];

#[test]
fn buffers_round_trip_and_everything_is_given_back() {
    for defines in ALLOCATORS {
        let fake = Fake::new(defines);
        let context = fake.context();
        let stream = Stream::new(&context).expect("a stream");
        let host: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let buffer = DeviceBuffer::from_host(&stream, &host).expect("it fits");
        let zeros = DeviceBuffer::<u64>::zeroed(&stream, 10).expect("it fits");
        let empty = DeviceBuffer::<u8>::zeroed(&stream, 0).expect("nothing always fits");
        drop((context, stream));
        assert_eq!((fake.counts().retained, fake.counts().allocated), (1, 2));
        assert_eq!((empty.address(), empty.is_empty(), empty.to_vec()), (0, true, Ok(vec![])));
        assert_eq!(buffer.to_vec().expect("it copies"), host);
        assert_eq!(zeros.to_vec().expect("it copies"), [0; 10]);
        assert_eq!(
            zeros.copy_to_host(&mut [0; 9]),
            Err(Error::Length { what: "a copy to the host", from: 10, to: 9 })
        );
        assert_eq!(buffer.close(), Ok(()));
        drop((zeros, empty));
        fake.assert_nothing_left();
    }
}

#[test]
fn nothing_waits_that_need_not() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let (home, other) = (Stream::new(&context).expect("one"), Stream::new(&context).expect("two"));
    let mut pinned =
        PinnedBuffer::from_slice(&context, &pattern(64), PinnedKind::Cached).expect("it fits");
    let mut buffer = DeviceBuffer::<u32>::zeroed(&home, 64).expect("it fits");
    let mut second = DeviceBuffer::<u32>::unwritten(&other, 64).expect("it fits");
    buffer.copy_from_pinned(&pinned, &other).expect("it is queued");
    second.copy_from_device(buffer.as_slice(), &home).expect("it is queued");
    second.copy_to_pinned(&mut pinned, &other).expect("it is queued");
    drop((buffer, second));
    // Two births, a fill, three copies, two deaths; the rest is order.
    assert!(fake.pending() >= 8, "{}", fake.pending());
    assert_eq!(pinned.is_ready(), Ok(false));
    assert_eq!(pinned.as_slice().expect("it is done"), pattern(64));
    assert_eq!(pinned.is_ready(), Ok(true));
    drop((pinned, home, other, context));
    fake.assert_nothing_left();
}

#[test]
fn a_pinned_buffer_is_not_written_while_a_copy_reads_it() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let mut pinned =
        PinnedBuffer::from_slice(&context, &pattern(64), PinnedKind::Cached).expect("it fits");
    let mut buffer = DeviceBuffer::<u32>::zeroed(&stream, 64).expect("it fits");
    buffer.copy_from_pinned(&pinned, &stream).expect("it is queued");
    // Reading beside a reader waits for nobody.
    let pending = fake.pending();
    assert_eq!(pinned.as_slice().expect("it may be read"), pattern(64));
    assert_eq!(fake.pending(), pending);
    pinned.as_mut_slice().expect("the copy is done").fill(7);
    assert_eq!(buffer.to_vec().expect("it copies"), pattern(64));
    drop((pinned, buffer, stream, context));
    fake.assert_nothing_left();
}

#[test]
fn copies_from_two_streams_through_one_pinned_buffer_are_all_waited_for() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let streams = [(); 3].map(|()| Stream::new(&context).expect("a stream"));
    let pinned = PinnedBuffer::from_slice(&context, &pattern(16), PinnedKind::WriteCombined)
        .expect("it fits");
    let buffers: Vec<_> = streams
        .iter()
        .map(|stream| {
            let mut buffer = DeviceBuffer::<u32>::unwritten(stream, 16).expect("it fits");
            buffer.copy_from_pinned(&pinned, stream).expect("it is queued");
            buffer
        })
        .collect();
    // The fake driver counts it as misuse where a copy is still to come.
    assert_eq!(pinned.close(), Ok(()));
    for buffer in &buffers {
        assert_eq!(buffer.to_vec().expect("it copies"), pattern(16));
    }
    drop((buffers, streams, context));
    fake.assert_nothing_left();
}

#[test]
fn blocking_copies_wait_also_where_the_slice_happens_to_be_page_locked() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let mut buffer = DeviceBuffer::<u32>::zeroed(&stream, 16).expect("it fits");
    let mut pinned =
        PinnedBuffer::from_slice(&context, &pattern(16), PinnedKind::Cached).expect("it fits");
    let slice = pinned.as_mut_slice().expect("nothing is in flight");
    buffer.copy_from_host(slice).expect("it copies");
    slice.fill(0);
    buffer.copy_to_host(slice).expect("it copies");
    assert_eq!(slice, pattern(16));
    drop((pinned, buffer, stream, context));
    fake.assert_nothing_left();
}

#[test]
fn a_stream_that_is_gone_is_still_waited_for() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let home = Stream::new(&context).expect("a stream");
    let buffer = DeviceBuffer::from_host(&home, &pattern(32)).expect("it fits");
    let mut pinned =
        PinnedBuffer::<u32>::zeroed(&context, 32, PinnedKind::Cached).expect("it fits");
    let other = Stream::new(&context).expect("a stream");
    buffer.copy_to_pinned(&mut pinned, &other).expect("it is queued");
    assert_eq!(other.close(), Ok(()));
    drop(buffer);
    assert_eq!(pinned.as_slice().expect("it is done"), pattern(32));
    drop((pinned, home, context));
    fake.assert_nothing_left();
}

#[test]
fn slices_cover_their_ranges_and_no_more() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let mut buffer = DeviceBuffer::from_host(&stream, &pattern(20)).expect("it fits");
    let mut expected = pattern(20);
    buffer
        .slice_mut(3..7)
        .and_then(|mut part| part.fill_u32(0xABCD, &stream))
        .expect("it is queued");
    expected[3..7].fill(0xABCD);
    buffer.slice_mut(18..).and_then(|mut part| part.fill_zero(&stream)).expect("it is queued");
    expected[18..].fill(0);
    let (mut left, right) = buffer.as_mut_slice().split_at_mut(10).expect("ten and ten");
    left.slice_mut(..=1)
        .and_then(|mut part| part.copy_from_device(right.slice(5..7)?, &stream))
        .expect("it is queued");
    expected.copy_within(15..17, 0);
    assert_eq!(buffer.to_vec().expect("it copies"), expected);
    assert_eq!(buffer.slice(4..4).and_then(|part| part.to_vec()), Ok(vec![]));
    assert_eq!(buffer.slice(5..8).map(|part| part.address()), Ok(buffer.address() + 20));
    assert_eq!(buffer.slice(5..8).map(|part| part.pointer()), buffer.pointer().offset(5));
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
    for range in [0..21, 7..3, 21..21, 0..usize::MAX] {
        let error = buffer.slice(range.clone()).err();
        assert_eq!(error, Some(Error::Range { start: range.start, end: range.end, len: 20 }));
    }
    assert!(buffer.as_slice().split_at(21).is_err());
    drop((buffer, stream, context));
    fake.assert_nothing_left();
}

#[test]
fn memory_of_someone_else_is_borrowed_and_not_freed() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let owner = DeviceBuffer::from_host(&stream, &pattern(8)).expect("it fits");
    {
        // SAFETY: the owner lives throughout and is not used meanwhile.
        let (mut all, first) = unsafe {
            (
                DeviceSliceMut::<u32>::from_raw(&stream, owner.address(), 8).expect("it fits"),
                DeviceSlice::<u32>::from_raw(&stream, owner.address(), 2).expect("it fits"),
            )
        };
        assert!(all.watch().is_none() && first.watch().is_none());
        assert_eq!(first.to_vec().expect("it copies"), pattern(2));
        all.copy_from_host(&[9; 8]).expect("it copies");
        assert_eq!(all.home().raw(), stream.raw());
    }
    assert_eq!(owner.to_vec().expect("it copies"), [9; 8]);
    for (address, len) in [(owner.address(), usize::MAX / 2), (u64::MAX - 3, 1)] {
        // SAFETY: refused for its size.
        let slice = unsafe { DeviceSlice::<u32>::from_raw(&stream, address, len) };
        assert!(matches!(slice, Err(Error::TooLarge { .. })), "{slice:?}");
    }
    drop((owner, stream, context));
    fake.assert_nothing_left();
}

#[test]
fn a_watch_tells_the_end_of_its_buffer_and_of_no_other() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let buffer = DeviceBuffer::<u8>::zeroed(&stream, 8).expect("it fits");
    let other = DeviceBuffer::<u8>::zeroed(&stream, 0).expect("it fits");
    let part = buffer.slice(1..3).expect("within").watch().expect("a buffer's");
    let (watch, rest) = (buffer.watch(), other.watch());
    assert_eq!(part.id(), watch.id());
    assert_ne!(watch.id(), rest.id());
    assert!(watch.is_alive() && rest.is_alive());
    // A free that fails ends it, too: the buffer is gone either way.
    fake.fail("cuMemFreeAsync", 0, 1, CUresult(4242));
    assert!(buffer.close().is_err());
    assert!(!watch.is_alive() && !part.is_alive() && rest.is_alive());
    drop(other);
    assert!(!rest.is_alive());
}

#[test]
fn failures_in_the_middle_leak_nothing_and_leave_no_context_current() {
    // Each call of a program with everything in it fails in turn, with a code that nobody knows.
    for defines in ALLOCATORS {
        let calls = [
            "cuMemAlloc",
            "cuMemAllocFromPoolAsync",
            "cuMemHostAlloc",
            "cuMemcpyHtoDAsync",
            "cuMemcpyDtoHAsync",
            "cuMemcpyDtoDAsync",
            "cuMemsetD8Async",
            "cuMemsetD32Async",
            "cuStreamCreateWithPriority",
            "cuStreamSynchronize",
            "cuStreamIsCapturing",
            "cuStreamWaitEvent",
            "cuEventCreate",
            "cuEventRecord",
            "cuEventSynchronize",
            "cuMemPoolCreate",
            "cuMemPoolSetAttribute",
        ];
        for call in calls {
            let mut seen = 0;
            for skip in 0.. {
                let fake = Fake::new(defines);
                let device = fake.device();
                fake.fail(call, skip, 1, CUresult(4242));
                let result = everything(&fake);
                assert!(current_context(device).is_ok_and(|context| context.is_null()));
                fake.assert_nothing_left();
                match result {
                    Ok(()) => break,
                    Err(Error::Call { code: CUresult(4242), .. }) => seen += 1,
                    Err(error) => panic!("{call}, {skip}: {error:?}"),
                }
            }
            // A pool that cannot be made is no error; the other allocator's call never comes.
            let optional = call.starts_with("cuMemPool") || call.starts_with("cuMemAlloc");
            assert!(seen > 0 || optional, "{call} was never called");
        }
    }
}

fn everything(fake: &Fake) -> Result<(), Error> {
    let context = Context::primary(fake.device())?;
    let (home, other) = (Stream::new(&context)?, Stream::new(&context)?);
    let mut pinned = PinnedBuffer::from_slice(&context, &pattern(16), PinnedKind::Cached)?;
    let mut a = DeviceBuffer::<u32>::unwritten(&home, 16)?;
    let mut b = DeviceBuffer::zeroed(&other, 16)?;
    a.copy_from_pinned(&pinned, &other)?;
    b.copy_from_device(a.as_slice(), &home)?;
    b.copy_to_pinned(&mut pinned, &home)?;
    a.fill_u32(5, &other)?;
    a.copy_to_pinned(&mut pinned, &other)?;
    pinned.as_mut_slice()?.fill(1);
    a.copy_from_host(pinned.as_slice()?)?;
    b.to_vec()?;
    Ok(())
}

#[test]
fn a_context_in_ruins_is_reported_and_never_a_panic() {
    for defines in ALLOCATORS {
        let fake = Fake::new(defines);
        let context = fake.context();
        let stream = Stream::new(&context).expect("a stream");
        let mut pinned =
            PinnedBuffer::<u32>::zeroed(&context, 4, PinnedKind::Cached).expect("it fits");
        let buffer = DeviceBuffer::<u32>::zeroed(&stream, 4).expect("it fits");
        buffer.copy_to_pinned(&mut pinned, &stream).expect("it is queued");
        // As after an illegal address: every call fails from here on.
        fake.fail("*", 0, -1, CUresult::ILLEGAL_ADDRESS);
        let ruined = |error: Option<Error>| {
            matches!(error, Some(Error::Call { code: CUresult::ILLEGAL_ADDRESS, .. }))
        };
        assert!(ruined(buffer.to_vec().err()));
        assert!(ruined(pinned.as_slice().err()));
        assert!(ruined(pinned.is_ready().err()));
        assert!(ruined(DeviceBuffer::<u8>::zeroed(&stream, 1).err()));
        assert!(ruined(pinned.close().err()));
        drop(buffer);
        assert!(ruined(stream.close().err()));
        // The pool keeps a share, so that with it nothing is released here.
        let released = context.allocator().why_no_pool().is_some();
        assert_eq!(ruined(context.close().err()), released);
        assert_eq!(fake.counts().misused, 0);
    }
}

#[test]
fn a_size_past_the_address_space_is_an_error_value() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    for len in [usize::MAX, usize::MAX / 8 + 1, isize::MAX as usize / 8 + 1] {
        let error = DeviceBuffer::<u64>::zeroed(&stream, len).err();
        assert!(matches!(error, Some(Error::TooLarge { .. })), "{len}: {error:?}");
        let error = PinnedBuffer::<u64>::zeroed(&context, len, PinnedKind::Cached).err();
        assert!(matches!(error, Some(Error::TooLarge { .. })), "{len}: {error:?}");
    }
    // Elements of no size take no room, however many there are.
    let mut nothing = DeviceBuffer::<()>::zeroed(&stream, usize::MAX).expect("nothing always fits");
    nothing.fill_zero(&stream).expect("nothing is done");
    assert_eq!(nothing.slice(5..).map(|part| part.len()), Ok(usize::MAX - 5));
    let nothing =
        PinnedBuffer::<[u32; 0]>::zeroed(&context, 3, PinnedKind::Cached).expect("it fits");
    assert_eq!(nothing.as_slice().expect("it is there").len(), 3);
}

#[test]
fn pinned_memory_that_sleeps_has_its_event_from_the_start() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let values = DeviceBuffer::from_host(&stream, &[1u32, 2, 3]).expect("it fits");
    let pinned = || PinnedBuffer::<u32>::zeroed(&context, 3, PinnedKind::Cached).expect("it fits");
    fake.fail("cuEventCreate", 0, 1, CUresult(4242));
    let refused = pinned().with_sleeping_waits().err();
    assert!(matches!(refused, Some(Error::Call { call: "cuEventCreate", .. })), "{refused:?}");
    let mut sleeping = pinned().with_sleeping_waits().expect("an event");
    // No other is made when it is used.
    fake.fail("cuEventCreate", 0, 1, CUresult(4242));
    values.copy_to_pinned(&mut sleeping, &stream).expect("it is queued");
    assert_eq!(sleeping.as_slice(), Ok(&[1, 2, 3][..]));
    assert!(values.copy_to_pinned(&mut pinned(), &stream).is_err(), "the failure still waits");
    drop((values, sleeping, stream, context));
    fake.assert_nothing_left();
}

#[test]
fn pinned_memory_tells_both_its_addresses() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let cached = PinnedBuffer::<u32>::zeroed(&context, 4, PinnedKind::Cached).expect("it fits");
    assert_eq!(cached.device_address(), Ok(cached.address().addr() as u64));
    let combined =
        PinnedBuffer::<u32>::zeroed(&context, 4, PinnedKind::WriteCombined).expect("it fits");
    assert_ne!(combined.device_address(), Ok(combined.address().addr() as u64));
    let empty = PinnedBuffer::<u32>::zeroed(&context, 0, PinnedKind::Cached).expect("it fits");
    assert_eq!((empty.device_address(), empty.as_slice()), (Ok(0), Ok(&[][..])));
    assert_eq!((cached.kind(), combined.kind()), (PinnedKind::Cached, PinnedKind::WriteCombined));
}

#[test]
fn pinned_memory_for_elements_of_any_alignment_lies_right_or_is_refused() {
    #[repr(C, align(8192))]
    #[derive(Clone, Copy)]
    struct Wide([u8; 8192]);
    // SAFETY: bytes without padding, whose zeros are a value.
    unsafe impl bytemuck::Zeroable for Wide {}
    // SAFETY: as above, and so is every other bit pattern.
    unsafe impl bytemuck::Pod for Wide {}

    let fake = Fake::new(&[]);
    let context = fake.context();
    // The driver promises pages; whether eight kibibytes are aligned is luck, and either outcome is right.
    for _ in 0..8 {
        match PinnedBuffer::<Wide>::zeroed(&context, 1, PinnedKind::Cached) {
            Ok(buffer) => assert_eq!(buffer.address().addr() % 8192, 0),
            Err(error) => {
                assert!(matches!(error, Error::Misaligned { align: 8192, .. }), "{error}")
            }
        }
    }
    drop(context);
    fake.assert_nothing_left();
}

#[test]
fn forgotten_values_leak_and_do_no_harm() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let stream = Stream::new(&context).expect("a stream");
    let mut pinned = PinnedBuffer::<u32>::zeroed(&context, 4, PinnedKind::Cached).expect("it fits");
    let buffer = DeviceBuffer::from_host(&stream, &[1u32, 2, 3, 4]).expect("it fits");
    buffer.copy_to_pinned(&mut pinned, &stream).expect("it is queued");
    let watch = buffer.watch();
    std::mem::forget(buffer);
    assert_eq!(pinned.as_slice().expect("it is done"), [1, 2, 3, 4]);
    pinned.as_mut_slice().expect("it is done")[0] = 9;
    std::mem::forget(pinned);
    assert!(watch.is_alive());
    drop((stream, context));
    let counts = fake.counts();
    // The forgotten buffer keeps its stream, and that the context.
    assert_eq!((counts.allocated, counts.pinned, counts.streams, counts.retained), (1, 1, 1, 1));
    assert_eq!(counts.misused, 0);
}

#[test]
fn values_of_two_contexts_do_not_mix() {
    // Two libraries stand for two devices.
    let (one, two) = (Fake::new(&[]), Fake::new(&[]));
    let (near, far) = (one.context(), two.context());
    let here = Stream::new(&near).expect("a stream");
    let there = Stream::new(&far).expect("a stream");
    let mut buffer = DeviceBuffer::<u32>::zeroed(&here, 4).expect("it fits");
    let other = DeviceBuffer::<u32>::zeroed(&there, 4).expect("it fits");
    let mut pinned = PinnedBuffer::<u32>::zeroed(&far, 4, PinnedKind::Cached).expect("it fits");
    let outcomes = [
        buffer.copy_from_device(other.as_slice(), &here),
        buffer.fill_zero(&there),
        buffer.copy_to_pinned(&mut pinned, &here),
        pinned.in_use_by(&here),
    ];
    for outcome in outcomes {
        assert!(matches!(outcome, Err(Error::OtherContext { .. })), "{outcome:?}");
    }
}
