//! Streams and events on a device.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_sys::{CUresult, Context, Device, DeviceBuffer, Error, Event, Stream};

use crate::support::{LONG, hold_up, leaks_nothing};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("streams_have_the_priority_they_were_given", priorities),
    ("streams_are_independent_until_joined", independent_until_joined),
    ("streams_joined_wait_for_a_slow_fill", slow_fill),
    ("streams_that_are_gone_finish_their_work", gone_streams_finish),
    ("streams_borrowed_by_their_handle", borrowed),
    ("streams_call_the_host_in_order", host_calls),
    ("events_measure_time", events_measure),
    ("events_say_when_they_are_passed", events_pass),
    ("streams_and_events_in_rounds_leak_nothing", rounds_leak_nothing),
];

fn priorities(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let range = Stream::priorities(&context)?;
    println!("{range:?}");
    ensure(range.greatest <= range.least, || format!("{range:?}"))?;
    for asked in [range.least, range.greatest, range.greatest - 100, range.least + 100] {
        let stream = Stream::with_priority(&context, asked)?;
        let given = stream.priority()?;
        let expected = asked.clamp(range.greatest, range.least);
        ensure(given == expected, || format!("asked for {asked}, got {given}"))?;
    }
    ensure(Stream::new(&context)?.priority()? == range.least, || "not the least".to_owned())
}

fn independent_until_joined(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let (slow, fast) = (Stream::new(&context)?, Stream::new(&context)?);
    let buffer = DeviceBuffer::<u32>::zeroed(&fast, 100)?;
    fast.synchronize()?;
    hold_up(&slow)?;
    ensure(!slow.is_idle()?, || "idle while a host call sleeps".to_owned())?;
    let begin = Instant::now();
    buffer.to_vec()?;
    ensure(begin.elapsed() < LONG / 2, || {
        format!("{:?}: the fast stream waited for the slow one", begin.elapsed())
    })?;
    fast.join(&slow)?;
    buffer.to_vec()?;
    ensure(begin.elapsed() > LONG / 2, || {
        format!("{:?}: joined, and yet not waited", begin.elapsed())
    })?;
    ensure(slow.is_idle()?, || "what was waited for is not done".to_owned())
}

fn slow_fill(device: Device) -> Result<(), Failed> {
    // 64 fills of 256 MiB: some milliseconds on any device, so that an order that is missing shows.
    const WORDS: usize = 64 << 20;
    let context = Context::primary(device)?;
    let (home, other) = (Stream::new(&context)?, Stream::new(&context)?);
    let mut large = DeviceBuffer::<u32>::unwritten(&home, WORDS)?;
    let mut last = DeviceBuffer::<u32>::unwritten(&other, 1000)?;
    for round in 1..=5 {
        for step in 0..64 {
            large.fill_u32(round * 100 + step, &home)?;
        }
        // On the other stream: after the fills, and before the next round's.
        last.copy_from_device(large.slice(WORDS - 1000..)?, &other)?;
        large.fill_u32(0, &home)?;
        let seen = last.to_vec()?;
        ensure(seen.iter().all(|&word| word == round * 100 + 63), || {
            format!("round {round}: {:?}", &seen[..4])
        })?;
    }
    // By hand, with raw copies that look after nothing.
    for _ in 0..64 {
        large.fill_u32(7, &home)?;
    }
    other.join(&home)?;
    // SAFETY: both have so many bytes; the joins order the copy after the fills and before the read.
    unsafe { other.copy_raw_on_device(last.address(), large.address(), 4000) }?;
    home.join(&other)?;
    ensure(last.to_vec()? == [7; 1000], || "the raw copy came too early".to_owned())
}

fn gone_streams_finish(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let home = Stream::new(&context)?;
    let mut buffer = DeviceBuffer::<u32>::zeroed(&home, 1000)?;
    for round in 1..20 {
        let stream = Stream::new(&context)?;
        hold_up_briefly(&stream)?;
        buffer.fill_u32(round, &stream)?;
        stream.close()?;
        ensure(buffer.to_vec()? == [round; 1000], || format!("round {round}"))?;
    }
    Ok(())
}

fn hold_up_briefly(stream: &Stream) -> Result<(), Error> {
    stream.call_host(|| std::thread::sleep(Duration::from_millis(2)))
}

fn borrowed(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let driver = device.driver();
    let mut raw = std::ptr::null_mut();
    let code = context.with_current(|| {
        let create = driver.cuStreamCreateWithPriority()?;
        // SAFETY: a live handle; flag 1 is for streams that do not wait for the default one.
        Ok(unsafe { create(&mut raw, 1, 0) })
    })?;
    ensure(code.is_success(), || format!("cuStreamCreateWithPriority: {code}"))?;
    {
        // SAFETY: a stream of the context, destroyed below, after everything made on it.
        let stream = unsafe { Stream::from_raw(&context, raw) };
        let buffer = DeviceBuffer::from_host(&stream, &[1u8, 2, 3])?;
        ensure(buffer.to_vec()? == [1, 2, 3], || "a copy differs".to_owned())?;
        ensure(stream.raw() == raw, || "another handle".to_owned())?;
    }
    let code = context.with_current(|| {
        let destroy = driver.cuStreamDestroy()?;
        // SAFETY: created above, destroyed once.
        Ok(unsafe { destroy(raw) })
    })?;
    ensure(code.is_success(), || format!("the borrower has destroyed it: {code}"))?;
    let default = Stream::default_of(&context);
    let buffer = DeviceBuffer::from_host(&default, &[4u64; 9])?;
    ensure(buffer.to_vec()? == [4; 9], || "the default stream differs".to_owned())
}

fn host_calls(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let (send, receive) = mpsc::channel();
    for number in 0..100u32 {
        let send = send.clone();
        stream.call_host(move || send.send(number).expect("the receiver lives"))?;
    }
    // Told by the hook, and no harm to what comes later.
    stream.call_host(|| panic!("on purpose, in a host call"))?;
    stream.call_host(move || send.send(100).expect("the receiver lives"))?;
    stream.synchronize()?;
    let received: Vec<u32> = receive.try_iter().collect();
    ensure(received == (0..=100).collect::<Vec<_>>(), || format!("{received:?}"))?;
    // What a body owns goes with it.
    let owned = Arc::new(AtomicU32::new(0));
    let body = Arc::clone(&owned);
    stream.call_host(move || {
        body.fetch_add(1, Ordering::SeqCst);
    })?;
    stream.synchronize()?;
    let (count, owners) = (owned.load(Ordering::SeqCst), Arc::strong_count(&owned));
    ensure((count, owners) == (1, 1), || format!("called {count} times, {owners} owners"))
}

fn events_measure(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let (start, end) = (Event::timed(&context)?, Event::timed(&context)?);
    start.record(&stream)?;
    hold_up(&stream)?;
    end.record(&stream)?;
    let early = end.milliseconds_since(&start).err();
    let expected = matches!(early, Some(Error::Call { code: CUresult::NOT_READY, .. }));
    ensure(expected, || format!("asked too early: {early:?}"))?;
    end.synchronize()?;
    let milliseconds = end.milliseconds_since(&start)?;
    let long = LONG.as_secs_f32() * 1e3;
    println!("{milliseconds} ms of {long}");
    ensure(milliseconds > long * 0.9 && milliseconds < long * 10.0, || {
        format!("{milliseconds} ms")
    })?;
    let plain = Event::new(&context)?;
    plain.record(&stream)?;
    plain.synchronize()?;
    ensure(plain.milliseconds_since(&start).is_err(), || {
        "an event without a clock told time".into()
    })?;
    let never = Event::timed(&context)?;
    ensure(never.milliseconds_since(&start).is_err(), || "never recorded, and told time".into())
}

fn events_pass(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    for event in [Event::new(&context)?, Event::timed(&context)?, Event::blocking(&context)?] {
        ensure(event.is_done()?, || "never recorded, and not done".to_owned())?;
        event.synchronize()?;
        hold_up(&stream)?;
        event.record(&stream)?;
        ensure(!event.is_done()?, || "done before what it marks".to_owned())?;
        // Others wait for the recording that there was when they were told to.
        let other = Stream::new(&context)?;
        other.wait(&event)?;
        let begin = Instant::now();
        other.synchronize()?;
        ensure(begin.elapsed() > LONG / 2, || format!("{:?} is no wait", begin.elapsed()))?;
        ensure(event.is_done()?, || "not done after what it marks".to_owned())?;
        event.close()?;
    }
    Ok(())
}

fn rounds_leak_nothing(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let held = Stream::new(&context)?;
    leaks_nothing(&context, || {
        let stream = Stream::with_priority(&context, -1)?;
        let events = [Event::new(&context)?, Event::timed(&context)?, Event::blocking(&context)?];
        for event in &events {
            event.record(&stream)?;
        }
        held.join(&stream)?;
        stream.join(&held)?;
        for event in events {
            event.close()?;
        }
        Ok(stream.close()?)
    })
}
