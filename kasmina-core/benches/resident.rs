//! Steps of small layers, one after the other: by stream launches, as a graph, by the resident grid; how long a submission takes; and what a large
//! pass loses there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kasmina_core::cuda::executor::launch_plainly;
use kasmina_core::cuda::{
    CudaLayer, Engine, ExecutorOptions, PersistentExecutor, ResidentStep, ResidentStepBuilder,
    SharedLayer, SharedMatrix,
};
use kasmina_core::{
    Blueprint, ForwardOptions, InitialSeed, Layer, Objective, SeedLayout, State, Strategy,
};
use kasmina_gpu_test::{Body, Failed};
use kasmina_sys::{CaptureMode, Device, Event, Graph, Stream};
use parking_lot::Mutex;

const LAYERS: usize = 48;
const SAMPLES: usize = 41;

fn main() -> std::process::ExitCode {
    let tests: &[(&str, Body)] =
        &[("steps", steps), ("latency", latency), ("throughput", throughput), ("large", large)];
    kasmina_gpu_test::bench_main("kasmina-core", &kasmina_core::cuda::KERNELS, tests)
}

struct Stack {
    layers: Vec<SharedLayer>,
    matrices: Vec<SharedMatrix<f32>>,
}

fn stack(
    engine: &Arc<Engine>,
    stream: &Stream,
    rows: usize,
    hidden: usize,
    chunk: usize,
    grown: bool,
) -> Result<Stack, Failed> {
    let layout = SeedLayout::new(hidden, chunk)?;
    let mut layers = Vec::new();
    for _ in 0..LAYERS {
        let mut builder = Layer::builder(layout);
        for seed in (0..layout.seeds()).filter(|seed| grown && seed % 2 == 0) {
            builder = builder.seed(
                seed,
                InitialSeed {
                    state: State::FineTuning,
                    alpha: 1.0,
                    blueprint: Some(Blueprint::Residual),
                    objective: Objective::StraightThrough,
                    strategy: Strategy::FixedRamp { steps: 1 },
                    parameters: None,
                },
            );
        }
        layers.push(Arc::new(Mutex::new(CudaLayer::from_layer(
            &builder.build()?,
            engine,
            stream,
        )?)));
    }
    let matrices: Vec<SharedMatrix<f32>> = (0..2 * LAYERS + 2)
        .map(|_| SharedMatrix::zeroed(stream, rows, hidden))
        .collect::<Result<_, _>>()?;
    for (i, matrix) in matrices.iter().enumerate() {
        matrix.write(&values(rows * hidden, i as u64))?;
    }
    stream.synchronize()?;
    Ok(Stack { layers, matrices })
}

/// Numbers in (−1, 1), by a linear congruence.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Forward through all layers, and with `both` back.
fn step_of(stack: &Stack, both: bool) -> Result<ResidentStep, Failed> {
    let mut step = ResidentStepBuilder::new();
    let options = ForwardOptions::new();
    let m = &stack.matrices;
    for (i, layer) in stack.layers.iter().enumerate() {
        step.forward(layer, &m[i], &m[i + 1], &options)?;
    }
    if both {
        for (i, layer) in stack.layers.iter().enumerate().rev() {
            step.backward(layer, &m[i], &m[LAYERS + 2 + i], &m[LAYERS + 1 + i], &options)?;
        }
    }
    Ok(step.build()?)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Median µs of what `body` queues on the stream.
fn on_stream(
    engine: &Engine,
    stream: &Stream,
    mut body: impl FnMut() -> Result<(), Failed>,
) -> Result<f64, Failed> {
    let (begin, end) = (Event::timed(engine.context())?, Event::timed(engine.context())?);
    let mut samples = Vec::new();
    for i in 0..SAMPLES + 5 {
        begin.record(stream)?;
        body()?;
        end.record(stream)?;
        end.synchronize()?;
        if i >= 5 {
            samples.push(f64::from(end.milliseconds_since(&begin)?) * 1e3);
        }
    }
    Ok(median(samples))
}

fn on_host(mut body: impl FnMut() -> Result<(), Failed>) -> Result<f64, Failed> {
    let mut samples = Vec::new();
    for i in 0..SAMPLES + 5 {
        let begun = Instant::now();
        body()?;
        if i >= 5 {
            samples.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(median(samples))
}

fn steps(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    println!("µs a layer and pass, {LAYERS} layers, f32, telemetry; medians of {SAMPLES}");
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "own", "launches", "graph", "host", "queued", "stream"
    );
    for (rows, hidden, chunk) in [(32, 768, 48), (8, 4096, 256), (256, 1024, 64)] {
        for (grown, both) in [(false, false), (true, false), (true, true)] {
            let stream = Stream::new(engine.context())?;
            let stack = stack(&engine, &stream, rows, hidden, chunk, grown)?;
            let step = step_of(&stack, both)?;
            let passes = if both { 2.0 * LAYERS as f64 } else { LAYERS as f64 };
            // The layer's own passes, as users call them.
            let by_launches =
                PersistentExecutor::new(&engine, ExecutorOptions::new().by_launches("bench"))?;
            let own = on_stream(&engine, &stream, || {
                let _ticket = by_launches.submit(&step)?;
                Ok(())
            })?;
            by_launches.drain()?;
            let executor = PersistentExecutor::new(
                &engine,
                ExecutorOptions::new().idle(Duration::from_millis(20)),
            )?;
            executor.submit(&step)?.wait()?;
            std::thread::sleep(Duration::from_millis(60));
            let launches = on_stream(&engine, &stream, || {
                // SAFETY: everything is kept, and the stream is waited for.
                Ok(unsafe { launch_plainly(&executor, &step, &stream) }?)
            })?;
            let mut captured = Ok(());
            let graph = Graph::capture(&stream, CaptureMode::ThreadLocal, |stream| {
                // SAFETY: as above.
                captured = unsafe { launch_plainly(&executor, &step, stream) };
                Ok(())
            })?;
            captured?;
            let graph = graph.instantiate()?;
            // SAFETY: as above.
            let graph = on_stream(&engine, &stream, || Ok(unsafe { graph.launch(&stream) }?))?;
            let host = on_host(|| Ok(executor.submit(&step)?.wait()?))?;
            let queued = on_host(|| {
                for _ in 0..8 {
                    let _ticket = executor.submit(&step)?;
                }
                Ok(executor.drain()?)
            })? / 8.0;
            // SAFETY: as above.
            unsafe { executor.launch_on(&step, &stream) }?;
            stream.synchronize()?;
            let from_stream =
                // SAFETY: as above.
                on_stream(&engine, &stream, || Ok(unsafe { executor.launch_on(&step, &stream) }?))?;
            let name = format!(
                "[{rows}, {hidden}] chunk {chunk} {} {}",
                if grown { "half grown" } else { "dormant" },
                if both { "fwd+bwd" } else { "forward" }
            );
            println!(
                "{name:<34} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
                own / passes,
                launches / passes,
                graph / passes,
                host / passes,
                queued / passes,
                from_stream / passes
            );
        }
    }
    Ok(())
}

fn single(
    engine: &Arc<Engine>,
    stream: &Stream,
    rows: usize,
    hidden: usize,
    chunk: usize,
) -> Result<(ResidentStep, [SharedMatrix<f32>; 2]), Failed> {
    let layer = Layer::builder(SeedLayout::new(hidden, chunk)?).build()?;
    let layer = Arc::new(Mutex::new(CudaLayer::from_layer(&layer, engine, stream)?));
    let (x, y) =
        (SharedMatrix::zeroed(stream, rows, hidden)?, SharedMatrix::zeroed(stream, rows, hidden)?);
    let mut step = ResidentStepBuilder::new();
    step.forward(&layer, &x, &y, &ForwardOptions::new())?;
    stream.synchronize()?;
    Ok((step.build()?, [x, y]))
}

fn latency(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let executor =
        PersistentExecutor::new(&engine, ExecutorOptions::new().idle(Duration::from_millis(50)))?;
    for (rows, hidden, chunk) in [(1, 64, 64), (32, 768, 48)] {
        let (step, _kept) = single(&engine, &stream, rows, hidden, chunk)?;
        let mut samples = Vec::new();
        let mut submits = Vec::new();
        for i in 0..20_100 {
            let begun = Instant::now();
            let ticket = executor.submit(&step)?;
            let submitted = begun.elapsed();
            ticket.wait()?;
            if i >= 100 {
                samples.push(begun.elapsed().as_secs_f64() * 1e6);
                submits.push(submitted.as_secs_f64() * 1e6);
            }
        }
        samples.sort_by(f64::total_cmp);
        submits.sort_by(f64::total_cmp);
        let at = |all: &[f64], q: f64| all[((all.len() - 1) as f64 * q) as usize];
        println!(
            "submit → result, [{rows}, {hidden}]: p50 {:.2}, p99 {:.2}, p99.9 {:.2} µs; the call of submit p50 {:.2}, p99 {:.2}",
            at(&samples, 0.5),
            at(&samples, 0.99),
            at(&samples, 0.999),
            at(&submits, 0.5),
            at(&submits, 0.99)
        );
    }
    println!("{}", executor.report());
    Ok(())
}

fn throughput(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    for threads in [1, 4, 16] {
        let executor = PersistentExecutor::new(&engine, ExecutorOptions::new().window(64))?;
        let steps: Vec<_> =
            (0..threads).map(|_| single(&engine, &stream, 4, 256, 64)).collect::<Result<_, _>>()?;
        let each = 40_000 / threads;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for (step, _) in &steps {
                let executor = &executor;
                scope.spawn(move || -> Result<(), String> {
                    for _ in 0..each {
                        let _ticket = executor.submit(step).map_err(|e| e.to_string())?;
                    }
                    Ok(())
                });
            }
        });
        executor.drain()?;
        let rate = (each * threads) as f64 / begun.elapsed().as_secs_f64();
        println!("{threads} submitters: {:.0} steps a second", rate);
    }
    Ok(())
}

fn large(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    for (rows, hidden) in [(4096, 4096), (8192, 8192)] {
        let (step, _kept) = single(&engine, &stream, rows, hidden, 64)?;
        let by_launches =
            PersistentExecutor::new(&engine, ExecutorOptions::new().by_launches("bench"))?;
        let own = on_stream(&engine, &stream, || {
            let _ticket = by_launches.submit(&step)?;
            Ok(())
        })?;
        by_launches.drain()?;
        let executor = PersistentExecutor::new(
            &engine,
            ExecutorOptions::new().idle(Duration::from_millis(20)),
        )?;
        let host = on_host(|| Ok(executor.submit(&step)?.wait()?))?;
        let queued = on_host(|| {
            for _ in 0..16 {
                let _ticket = executor.submit(&step)?;
            }
            Ok(executor.drain()?)
        })? / 16.0;
        println!(
            "[{rows}, {hidden}] f32 forward + telemetry: launched {own:.1} µs; through the executor {queued:.1} in a row ({:.3} of the \
             launches' speed), {host:.1} one by one; {}",
            own / queued,
            executor.report()
        );
    }
    Ok(())
}
