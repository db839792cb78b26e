//! The life of the resident grid's queue: nothing lost, nothing doubled, nothing that waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kasmina_core::cuda::{
    CudaError, Engine, ExecutorError, ExecutorOptions, PersistentExecutor, Priority, ResidentStep,
    ResidentStepBuilder, SharedLayer, SharedMatrix,
};
use kasmina_core::{
    Blueprint, ForwardOptions, InitialSeed, Layer, Objective, SeedLayout, Stability, StabilityMode,
    State, Strategy as Grafting,
};
use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_sys::{CaptureMode, Device, Graph, Stream};

use crate::common::Draw;
use crate::executor::{many, shared};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("nothing_is_lost_or_doubled_in_a_long_queue", long_queue),
    ("submitters_share_a_queue_and_die", submitters),
    ("the_grid_rests_and_comes_back", idleness),
    ("tickets_tell", tickets),
    ("a_full_queue_refuses_and_then_takes", full_queue),
    ("a_stop_in_the_middle_loses_no_word", stop_in_the_middle),
    ("steps_stand_in_line_with_streams_and_graphs", streams_and_graphs),
    ("another_kernel_may_have_the_multiprocessors", competitor),
    ("a_grid_that_cannot_come_is_given_up_in_time", no_grid),
    ("a_step_that_outlasts_the_watchdog_is_told", overlong),
];

/// x + 1 in place, exact in f32 up to 2²⁴.
pub(crate) fn counter(
    engine: &Arc<Engine>,
    stream: &Stream,
    columns: usize,
) -> Result<(SharedLayer, SharedMatrix<f32>, ResidentStep), Failed> {
    let layout = SeedLayout::new(columns, columns)?;
    let seed = InitialSeed {
        state: State::Fossilized,
        alpha: 1.0,
        blueprint: Some(Blueprint::Residual),
        objective: Objective::StraightThrough,
        strategy: Grafting::FixedRamp { steps: 1 },
        parameters: Some(vec![vec![1.0; columns], vec![1.0]]),
    };
    let layer = Layer::builder(layout)
        .stability(Stability::new(StabilityMode::Fast))
        .seed(0, seed)
        .build()?;
    let layer = shared(&layer, engine, stream)?;
    let x = SharedMatrix::<f32>::zeroed(stream, 4, columns)?;
    let mut step = ResidentStepBuilder::new();
    step.forward(&layer, &x, &x, &ForwardOptions::new().inference())?;
    stream.synchronize()?;
    Ok((layer, x, step.build()?))
}

pub(crate) fn counted(
    layer: &SharedLayer,
    x: &SharedMatrix<f32>,
    steps: usize,
) -> Result<(), Failed> {
    let mut layer = layer.lock();
    layer.synchronize()?;
    let (rows, columns) = x.shape();
    let n = layer.chunk_stats()[0].n;
    ensure(n == (steps * rows * columns) as u64, || {
        format!("{n} elements were counted in {steps} steps of {}", rows * columns)
    })?;
    let values = x.read()?;
    let wrong = values.iter().find(|value| **value != steps as f32);
    ensure(wrong.is_none(), || format!("{wrong:?} after {steps} steps of x + 1"))
}

fn long_queue(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let (layer, x, step) = counter(&engine, &stream, 8)?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new().window(64))?;
    let steps = match std::env::var("KASMINA_QUEUE_STEPS") {
        Ok(text) => text.parse()?,
        Err(_) => many(200_000),
    };
    let begun = Instant::now();
    let mut last = None;
    for _ in 0..steps {
        last = Some(executor.submit(&step)?);
    }
    if let Some(last) = last {
        last.wait()?;
    }
    let each = begun.elapsed() / steps as u32;
    println!("  {steps} steps, {each:?} each; {}", executor.report());
    counted(&layer, &x, steps)
}

fn submitters(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let executor = Arc::new(PersistentExecutor::new(&engine, ExecutorOptions::new())?);
    let (layer, x, step) = counter(&engine, &stream, 64)?;
    let each = many(2000);
    let mut threads = Vec::new();
    for thread in 0..8 {
        let (executor, step) = (Arc::clone(&executor), step.clone());
        let own = counter(&engine, &stream, 128)?;
        threads.push(std::thread::spawn(move || -> Result<(), String> {
            let (layer, x, own) = own;
            for i in 0..each {
                let priority = [Priority::Low, Priority::Normal, Priority::High][(i + thread) % 3];
                let ticket = executor.submit_with(&step, priority).map_err(|e| e.to_string())?;
                let other = executor.submit_with(&own, priority).map_err(|e| e.to_string())?;
                if i % 50 == 0 {
                    ticket.wait().map_err(|e| e.to_string())?;
                }
                drop(other);
            }
            executor.drain().map_err(|e| e.to_string())?;
            counted(&layer, &x, each).map_err(|e| format!("{e:?}"))?;
            // Dies with a ticket in its hand, and one in the queue.
            let _ticket = executor.submit(&step).map_err(|e| e.to_string())?;
            std::panic::resume_unwind(Box::new("as planned"));
        }));
    }
    for thread in threads {
        match thread.join() {
            Ok(Err(error)) => return Err(error.into()),
            Ok(Ok(())) => return Err("a thread forgot to die".into()),
            Err(_) => {}
        }
    }
    executor.drain()?;
    counted(&layer, &x, 8 * (each + 1))
}

fn idleness(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let (layer, x, step) = counter(&engine, &stream, 64)?;
    let executor =
        PersistentExecutor::new(&engine, ExecutorOptions::new().idle(Duration::from_micros(300)))?;
    let mut draw = Draw(7);
    let rounds = many(300);
    for _ in 0..rounds {
        let ticket = executor.submit(&step)?;
        // Also just about when it ends, and without anybody who waits.
        let pause = Duration::from_micros(draw.next() % 700);
        if draw.next().is_multiple_of(2) {
            ticket.wait()?;
        }
        std::thread::sleep(pause);
    }
    executor.drain()?;
    let report = executor.report();
    ensure(report.restarts > 0, || format!("it never rested: {report}"))?;
    // A rested grid leaves the device to those who want all of it.
    std::thread::sleep(Duration::from_millis(5));
    engine.context().synchronize()?;
    counted(&layer, &x, rounds)
}

fn tickets(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let (layer, x, step) = counter(&engine, &stream, 64)?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
    let called = Arc::new(AtomicUsize::new(0));
    let steps = many(500);
    for i in 0..steps {
        let ticket = executor.submit(&step)?;
        let called = Arc::clone(&called);
        ticket.on_done(move |outcome| {
            called.fetch_add(1 + 1000 * usize::from(outcome.is_err()), Ordering::SeqCst);
        });
        match i % 3 {
            0 => ticket.wait()?,
            1 => ensure(ticket.wait_for(Duration::from_secs(2))?.is_some(), || {
                "not within 2 s".to_owned()
            })?,
            _ => while !ticket.is_done() {},
        }
        ensure(ticket.is_done(), || "waited for and not done".to_owned())?;
    }
    let report = layer.lock().report();
    let kernel = report.forward.as_ref().and_then(|forward| forward.kernel.as_deref());
    ensure(kernel == Some("kasmina_resident"), || format!("{report}"))?;
    let begun = Instant::now();
    while called.load(Ordering::SeqCst) != steps && begun.elapsed() < Duration::from_secs(2) {
        std::thread::yield_now();
    }
    ensure(called.load(Ordering::SeqCst) == steps, || {
        format!("{called:?} calls for {steps} steps")
    })?;
    counted(&layer, &x, steps)
}

fn full_queue(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let (layer, x, step) = counter(&engine, &stream, 64)?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new().capacity(2).window(1))?;
    let (mut taken, mut refused) = (0, 0);
    let limit = many(5000);
    while refused < 10 && taken < limit {
        match executor.try_submit(&step, Priority::Normal) {
            Ok(_) => taken += 1,
            Err(CudaError::Executor(ExecutorError::Full { capacity: 2 })) => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    for _ in 0..20 {
        let _ticket = executor.submit(&step)?;
    }
    executor.drain()?;
    println!("  refused {refused} of {} at a capacity of 2", taken + refused);
    counted(&layer, &x, taken + 20)
}

fn stop_in_the_middle(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    for round in 0..many(30).min(30) {
        let (layer, x, step) = counter(&engine, &stream, 64)?;
        let executor =
            PersistentExecutor::new(&engine, ExecutorOptions::new().window(1 + round % 8))?;
        let tickets: Vec<_> = (0..100).map(|_| executor.submit(&step)).collect::<Result<_, _>>()?;
        match round % 3 {
            0 => executor.stop()?,
            1 => drop(executor),
            // Dropped while its owner unwinds.
            _ => {
                let thread = std::thread::spawn(move || {
                    let _kept = executor;
                    std::panic::resume_unwind(Box::new("as planned"));
                });
                ensure(thread.join().is_err(), || "it did not unwind".to_owned())?;
            }
        }
        let mut done = 0;
        for ticket in &tickets {
            match ticket.wait() {
                Ok(()) => done += 1,
                Err(ExecutorError::Stopped) => {}
                Err(error) => return Err(error.into()),
            }
        }
        counted(&layer, &x, done)?;
    }
    Ok(())
}

fn streams_and_graphs(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let (layer, x, step) = counter(&engine, &stream, 64)?;
    let executor =
        PersistentExecutor::new(&engine, ExecutorOptions::new().idle(Duration::from_micros(500)))?;
    ensure(
        matches!(
            // SAFETY: nothing is queued.
            unsafe { executor.launch_on(&step, &stream) },
            Err(CudaError::Executor(ExecutorError::NotPrepared))
        ),
        || "an unprepared step was queued".to_owned(),
    )?;
    let mut steps = 0;
    // Behind work of the layer's stream: copies that take longer than the host needs to submit.
    let large = SharedMatrix::<f32>::zeroed(&stream, 4096, 8192)?;
    let other = SharedMatrix::<f32>::zeroed(&stream, 4096, 8192)?;
    let wide = shared(&Layer::builder(SeedLayout::new(8192, 64)?).build()?, &engine, &stream)?;
    let mut copies = ResidentStepBuilder::new();
    copies.forward(&wide, &large, &other, &ForwardOptions::new())?;
    let by_launches =
        PersistentExecutor::new(&engine, ExecutorOptions::new().by_launches("a test"))?;
    let copies = copies.build()?;
    for _ in 0..many(20) {
        for _ in 0..4 {
            let _launched = by_launches.submit(&copies)?;
        }
        executor.submit(&step)?.wait()?;
        steps += 1;
    }
    let report = executor.report();
    ensure(report.waited_for_streams > 0, || format!("nobody waited for a stream: {report}"))?;
    by_launches.drain()?;
    // On a stream, and in a graph, also long after the grid has gone to rest. Preparing counts as a pass, and is none.
    for _ in 0..5 {
        // SAFETY: step, layer and executor are kept and left alone until the stream is done, below.
        unsafe { executor.launch_on(&step, &stream) }?;
        steps += 1;
    }
    stream.synchronize()?;
    let mut queued = Ok(());
    let graph = Graph::capture(&stream, CaptureMode::ThreadLocal, |stream| {
        // SAFETY: as above.
        queued = (0..3).try_for_each(|_| unsafe { executor.launch_on(&step, stream) });
        Ok(())
    })?;
    queued?;
    let replay = graph.instantiate()?;
    for round in 0..many(20) {
        // SAFETY: step, layer and executor are kept until the stream is done, below.
        unsafe { replay.launch(&stream) }?;
        steps += 3;
        if round % 4 == 0 {
            stream.synchronize()?;
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    stream.synchronize()?;
    counted(&layer, &x, steps)
}

/// Two grids that both want every multiprocessor, and ordinary kernels beside them.
fn competitor(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let options = || ExecutorOptions::new().idle(Duration::from_micros(200));
    let (one, two) = (
        PersistentExecutor::new(&engine, options())?,
        PersistentExecutor::new(&engine, options())?,
    );
    let (layer, x, step) = counter(&engine, &stream, 64)?;
    let theirs = counter(&engine, &stream, 64)?;
    let third = counter(&engine, &Stream::new(engine.context())?, 64)?;
    let by_launches =
        PersistentExecutor::new(&engine, ExecutorOptions::new().by_launches("a test"))?;
    let rounds = many(200);
    for _ in 0..rounds {
        let (a, b) = (one.submit(&step)?, two.submit(&theirs.2)?);
        let c = by_launches.submit(&third.2)?;
        for ticket in [a, b, c] {
            ensure(ticket.wait_for(Duration::from_secs(5))?.is_some(), || {
                "not done within 5 s".to_owned()
            })?;
        }
    }
    counted(&layer, &x, rounds)?;
    counted(&theirs.0, &theirs.1, rounds)?;
    counted(&third.0, &third.1, rounds)
}

/// An executor whose grid was asked for by a kernel while another executor's had the multiprocessors, for longer than its watchdog.
pub(crate) fn lost(engine: &Arc<Engine>) -> Result<PersistentExecutor, Failed> {
    let stream = Stream::new(engine.context())?;
    let (_kept, _x, step) = counter(engine, &stream, 64)?;
    let (_theirs, _y, other) = counter(engine, &stream, 64)?;
    let long = ExecutorOptions::new().idle(Duration::from_millis(100));
    let holder = PersistentExecutor::new(engine, long)?;
    let short =
        ExecutorOptions::new().idle(Duration::from_micros(10)).watchdog(Duration::from_millis(20));
    let executor = PersistentExecutor::new(engine, short)?;
    executor.prepare(&step)?;
    executor.submit(&step)?.wait()?;
    std::thread::sleep(Duration::from_millis(2));
    holder.submit(&other)?.wait()?;
    // SAFETY: step, layer and executor are kept until the stream is done, below.
    unsafe { executor.launch_on(&step, &stream) }?;
    stream.synchronize()?;
    // The holder's end lets its grid begin, which then ends: nobody uses the step any more.
    drop(holder);
    engine.context().synchronize()?;
    Ok(executor)
}

fn no_grid(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let executor = lost(&engine)?;
    let (_layer, _x, step) = counter(&engine, &stream, 64)?;
    let limit = Duration::from_millis(20);
    let told = |outcome: Result<(), CudaError>| {
        let expected = CudaError::Executor(ExecutorError::NoGrid { watchdog: limit });
        ensure(outcome == Err(expected), || format!("{outcome:?}"))
    };
    told(executor.submit(&step).map(drop))?;
    told(executor.drain())?;
    told(executor.stop())?;
    // Others are not concerned.
    let (layer, x, step) = counter(&engine, &stream, 64)?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
    executor.submit(&step)?.wait()?;
    counted(&layer, &x, 1)
}

/// A step of thousands of items, one after the other by one worker, which the others wait for longer than the watchdog allows.
fn overlong(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let (layer, x, short) = counter(&engine, &stream, 8)?;
    let mut long = ResidentStepBuilder::new();
    for _ in 0..3000 {
        long.forward(&layer, &x, &x, &ForwardOptions::new().inference())?;
    }
    let long = long.build()?;
    let limit = Duration::from_millis(1);
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new().watchdog(limit))?;
    // Made for the device first, so that the two come one right behind the other.
    executor.prepare(&long)?;
    let (first, second) = (executor.submit(&long)?, executor.submit(&short)?);
    let outcome = second.wait();
    let told =
        matches!(&outcome, Err(ExecutorError::Watchdog { watchdog, .. }) if *watchdog == limit);
    ensure(told, || format!("{outcome:?}, {}", executor.report()))?;
    // The long one may have come to its end before the grid was given up.
    let _outcome = first.wait();
    ensure(executor.submit(&short).is_err(), || "an executor went on after a fault".to_owned())?;
    ensure(executor.stop().is_err(), || "a fault was forgotten".to_owned())?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
    let before = x.read()?[0];
    executor.submit(&short)?.wait()?;
    let after = x.read()?[0];
    ensure(after == before + 1.0, || format!("{after} after {before}"))
}
