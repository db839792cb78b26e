//! Steps of small layers, one after the other: by stream launches, as a graph, by the resident grid.

use std::time::Duration;

use kasmina_core::cuda::executor::launch_plainly;
use kasmina_core::cuda::{Engine, ExecutorOptions, PersistentExecutor};
use kasmina_gpu_test::Failed;
use kasmina_sys::{CaptureMode, Device, Graph, Stream};

use crate::stack::{LAYERS, SAMPLES, on_host, on_stream, stack, step_of};

pub(crate) fn steps(device: Device) -> Result<(), Failed> {
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
