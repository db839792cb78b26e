//! The resident grid: the bits of launches, nothing lost, nothing doubled, nothing that waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use half::{bf16, f16};
use kasmina_core::cuda::executor::launch_plainly;
use kasmina_core::cuda::{
    CudaError, CudaLayer, Engine, ExecutorError, ExecutorOptions, PersistentExecutor, Priority,
    ResidentStep, ResidentStepBuilder, SharedLayer, SharedMatrix,
};
use kasmina_core::{
    Blueprint, Element, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, Objective, SeedLayout,
    Stability, StabilityMode, State, Strategy as Grafting,
};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{CaptureMode, Device, Graph, Stream};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::strategy::Strategy as Drawn;

use crate::common::{Draw, bits, same};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("the_grid_has_the_bits_of_launches", random_programs),
    ("nothing_is_lost_or_doubled_in_a_long_queue", long_queue),
    ("submitters_share_a_queue_and_die", submitters),
    ("the_grid_rests_and_comes_back", idleness),
    ("tickets_tell", tickets),
    ("a_full_queue_refuses_and_then_takes", full_queue),
    ("a_stop_in_the_middle_loses_no_word", stop_in_the_middle),
    ("steps_stand_in_line_with_streams_and_graphs", streams_and_graphs),
    ("a_change_of_the_layer_is_seen_by_the_next_step", changes),
    ("what_is_not_for_the_grid_is_launched", launches),
    ("another_kernel_may_have_the_multiprocessors", competitor),
];

/// Steps in a test's queue, unless the environment asks for fewer cases.
fn many(n: usize) -> usize {
    if kasmina_gpu_test::is_sanitized() { 20 } else { n }
}

/// A layer of pointwise seeds in all states, drawn.
fn layer(
    hidden: usize,
    chunk: usize,
    mode: StabilityMode,
    owning: u64,
    draw: &mut Draw,
) -> Result<Layer, Failed> {
    const STATES: [State; 7] = [
        State::Germinated,
        State::Training,
        State::Grafting,
        State::Stabilization,
        State::Evaluating,
        State::FineTuning,
        State::Fossilized,
    ];
    let layout = SeedLayout::new(hidden, chunk)?;
    let mut builder = Layer::builder(layout).stability(Stability::new(mode));
    for seed in 0..layout.seeds() {
        if draw.next() % 8 >= owning {
            continue;
        }
        let blueprints = [Blueprint::Residual, Blueprint::AttentionHead, Blueprint::MlpExpansion];
        let blueprint = blueprints[draw.below(3)].clone();
        let specs = blueprint.parameters(layout.chunk_len(seed))?;
        let all = specs
            .specs()
            .iter()
            .map(|spec| (0..spec.shape.iter().product()).map(|_| draw.unit()).collect());
        let parameters = Some(all.collect());
        builder = builder.seed(
            seed,
            InitialSeed {
                state: STATES[draw.below(7)],
                alpha: [0.0, 0.3, 1.0][draw.below(3)],
                blueprint: Some(blueprint),
                objective: Objective::StraightThrough,
                strategy: Grafting::FixedRamp { steps: 4 },
                parameters,
            },
        );
    }
    Ok(builder.build()?)
}

fn shared(layer: &Layer, engine: &Arc<Engine>, stream: &Stream) -> Result<SharedLayer, Failed> {
    Ok(Arc::new(Mutex::new(CudaLayer::from_layer(layer, engine, stream)?)))
}

/// A program: matrices of one shape, layers, and passes among them.
#[derive(Clone, Debug)]
struct Case {
    dtype: usize,
    rows: usize,
    hidden: usize,
    mode: StabilityMode,
    owning: u64,
    layers: usize,
    matrices: usize,
    items: usize,
    runs: usize,
    values: u64,
}

fn case() -> impl Drawn<Value = Case> {
    let sizes = (
        1usize..200,
        prop_oneof![3 => (1usize..40).prop_map(|n| 8 * n), 1 => (1usize..30).prop_map(|n| 96 * n)],
    );
    let mode = prop_oneof![Just(StabilityMode::Fast), Just(StabilityMode::Adaptive)];
    let rest = (1usize..4, 3usize..7, 1usize..14, 1usize..4, any::<u64>());
    (0usize..3, sizes, mode, 0u64..=8, rest).prop_map(
        |(dtype, (rows, hidden), mode, owning, (layers, matrices, items, runs, values))| Case {
            dtype,
            rows,
            hidden,
            mode,
            owning,
            layers,
            matrices,
            items,
            runs,
            values,
        },
    )
}

fn random_programs(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
    let report = executor.report();
    ensure(report.workers > 1, || format!("no grid: {report}"))?;
    Cases::from_environment(200)?.check(&case(), |case| match case.dtype {
        0 => program::<f32>(&engine, &executor, &case),
        1 => program::<f16>(&engine, &executor, &case),
        _ => program::<bf16>(&engine, &executor, &case),
    })?;
    let report = executor.report();
    ensure(report.by_launches == 0, || format!("something was launched: {report}"))
}

/// One of two equal worlds.
struct World<T: Element> {
    layers: Vec<SharedLayer>,
    matrices: Vec<SharedMatrix<T>>,
    step: ResidentStep,
}

fn world<T: Element>(
    engine: &Arc<Engine>,
    stream: &Stream,
    case: &Case,
) -> Result<World<T>, Failed> {
    let mut draw = Draw(case.values);
    let mut layers = Vec::new();
    for _ in 0..case.layers {
        let chunk = [1, 8, 48, 64, 3, case.hidden][draw.below(6)].min(case.hidden);
        layers.push(shared(
            &layer(case.hidden, chunk, case.mode, case.owning, &mut draw)?,
            engine,
            stream,
        )?);
    }
    let mut matrices = Vec::new();
    for _ in 0..case.matrices {
        let matrix = SharedMatrix::<T>::zeroed(stream, case.rows, case.hidden)?;
        let values: Vec<T> = (0..case.rows * case.hidden)
            .map(|_| T::from_f32(draw.value(case.mode == StabilityMode::Adaptive)))
            .collect();
        matrix.write(&values)?;
        matrices.push(matrix);
    }
    let mut step = ResidentStepBuilder::new();
    let options = ForwardOptions::new().inference();
    for _ in 0..case.items {
        let layer = &layers[draw.below(layers.len())];
        let mut any = || &matrices[draw.below(case.matrices)];
        let (a, b, c) = (any(), any(), any());
        match draw.below(8) {
            0..4 => step.forward(layer, a, b, &options)?,
            // In place of its own gradient, or of x, a block would overwrite what it reads, in every implementation alike.
            4..7 => step.backward(layer, a, b, c, &options)?,
            _ => step.collect(layer),
        };
    }
    Ok(World { layers, matrices, step: step.build()? })
}

/// Runs one world through the grid and the other by launches.
fn program<T: Element>(
    engine: &Arc<Engine>,
    executor: &PersistentExecutor,
    case: &Case,
) -> Result<(), Failed> {
    let stream = Stream::new(engine.context())?;
    let (grid, plain) = (world::<T>(engine, &stream, case)?, world::<T>(engine, &stream, case)?);
    for run in 0..case.runs {
        executor.submit(&grid.step)?.wait()?;
        executor.prepare(&plain.step)?;
        // SAFETY: everything is kept, and the stream is waited for below.
        unsafe { launch_plainly(executor, &plain.step, &stream) }?;
        stream.synchronize()?;
        for (i, (found, want)) in grid.matrices.iter().zip(&plain.matrices).enumerate() {
            let (found, want) = (bits(&found.read()?, |_| false), bits(&want.read()?, |_| false));
            same(&format!("run {run}, matrix {i}"), &found, &want)?;
        }
    }
    for (i, (found, want)) in grid.layers.iter().zip(&plain.layers).enumerate() {
        let (mut found, mut want) = (found.lock(), want.lock());
        found.synchronize()?;
        want.synchronize()?;
        let text =
            |layer: &CudaLayer| format!("{:?} {:?}", layer.chunk_stats(), layer.gradient_stats());
        ensure(text(&found) == text(&want), || format!("statistics of layer {i} differ"))?;
        let seeds = found.layout().seeds();
        for seed in 0..seeds {
            let bits = |layer: &CudaLayer| {
                let gradients = layer.gradients(seed).map(|all| {
                    all.flat_map(|(_, values)| values.iter().map(|g| g.to_bits()))
                        .collect::<Vec<_>>()
                });
                (gradients, layer.alpha_gradient(seed).map(f32::to_bits))
            };
            ensure(bits(&found) == bits(&want), || {
                format!("gradients of layer {i}, seed {seed} differ")
            })?;
        }
    }
    Ok(())
}

/// x + 1 in place, exact in f32 up to 2²⁴.
fn counter(
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

fn counted(layer: &SharedLayer, x: &SharedMatrix<f32>, steps: usize) -> Result<(), Failed> {
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

fn changes(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
    let mut draw = Draw(11);
    let (rows, hidden) = (9, 96);
    let mut cpu = layer(hidden, 16, StabilityMode::Adaptive, 8, &mut draw)?;
    let gpu = shared(&cpu, &engine, &stream)?;
    let (x, y) = (
        SharedMatrix::<f32>::zeroed(&stream, rows, hidden)?,
        SharedMatrix::<f32>::zeroed(&stream, rows, hidden)?,
    );
    let mut step = ResidentStepBuilder::new();
    step.forward(&gpu, &x, &y, &ForwardOptions::new().inference())?;
    let step = step.build()?;
    for round in 0..many(60).min(60) {
        let values: Vec<f32> = (0..rows * hidden).map(|_| draw.value(false)).collect();
        x.write(&values)?;
        executor.submit(&step)?.wait()?;
        let mut want = vec![0.0; rows * hidden];
        cpu.forward(
            MatRef::contiguous(&values, hidden)?,
            MatMut::contiguous(&mut want, hidden)?,
            &ForwardOptions::new().inference(),
        )?;
        same(&format!("y in round {round}"), &bits(&y.read()?, |_| true), &bits(&want, |_| true))?;
        // Alphas move on, or a seed's parameters are others.
        if round % 2 == 0 {
            cpu.advance_step();
            gpu.lock().advance_step()?;
        } else if let Some(seed) = (0..6).find(|_| draw.next().is_multiple_of(2)) {
            let count =
                cpu.parameters(seed).map(|all| all.map(|(_, values)| values.len()).sum::<usize>());
            let parameters =
                count.map(|count| (0..count).map(|_| draw.unit()).collect::<Vec<f32>>());
            if let Some(parameters) = parameters {
                cpu.set_parameters(seed, &parameters)?;
                gpu.lock().set_parameters(seed, &parameters)?;
            }
        }
    }
    Ok(())
}

fn launches(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let forced =
        PersistentExecutor::new(&engine, ExecutorOptions::new().by_launches("the test wants it"))?;
    ensure(forced.report().why_no_grid.as_deref() == Some("the test wants it"), || {
        forced.report().to_string()
    })?;
    let none_left = ExecutorOptions::new().leave_multiprocessors(10_000);
    let crowded = PersistentExecutor::new(&engine, none_left)?;
    ensure(crowded.report().why_no_grid.is_some(), || crowded.report().to_string())?;
    for executor in [&forced, &crowded] {
        let (layer, x, step) = counter(&engine, &stream, 64)?;
        for _ in 0..50 {
            let _ticket = executor.submit(&step)?;
        }
        executor.drain()?;
        counted(&layer, &x, 50)?;
        ensure(executor.report().by_launches == 50, || executor.report().to_string())?;
    }
    // A filter has kernels of its own.
    let layout = SeedLayout::new(64, 64)?;
    let seed = InitialSeed {
        state: State::Fossilized,
        alpha: 1.0,
        blueprint: Some(Blueprint::ConvFilter { taps: 3 }),
        objective: Objective::StraightThrough,
        strategy: Grafting::FixedRamp { steps: 1 },
        parameters: Some(vec![vec![0.5, 0.25, 1.0], vec![2.0]]),
    };
    let cpu = Layer::builder(layout).seed(0, seed).build()?;
    let gpu = shared(&cpu, &engine, &stream)?;
    let x = SharedMatrix::<f32>::zeroed(&stream, 5, 64)?;
    let y = SharedMatrix::<f32>::zeroed(&stream, 5, 64)?;
    let mut draw = Draw(3);
    let values: Vec<f32> = (0..5 * 64).map(|_| draw.value(false)).collect();
    x.write(&values)?;
    let mut step = ResidentStepBuilder::new();
    step.forward(&gpu, &x, &y, &ForwardOptions::new())?;
    let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
    executor.submit(&step.build()?)?.wait()?;
    let report = executor.report();
    ensure(report.by_launches == 1 && report.last_reason.is_some(), || report.to_string())?;
    let mut cpu = cpu;
    let mut want = vec![0.0; 5 * 64];
    cpu.forward(
        MatRef::contiguous(&values, 64)?,
        MatMut::contiguous(&mut want, 64)?,
        &ForwardOptions::new(),
    )?;
    same("a filter's y", &bits(&y.read()?, |_| true), &bits(&want, |_| true))
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
