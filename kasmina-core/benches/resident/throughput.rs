//! How many steps the queue takes from several submitters, and what a large pass loses there.

use std::time::Instant;

use kasmina_core::cuda::{
    Engine, ExecutionMode, ExecutorOptions, PersistentExecutor, RunnerOptions, SharedStep, StepEnd,
    StepRunner,
};
use kasmina_gpu_test::Failed;
use kasmina_sys::{Device, Stream};

use crate::stack::{median, single};

pub(crate) fn throughput(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    for threads in [1, 4, 16] {
        let executor = PersistentExecutor::new(&engine, ExecutorOptions::new().window(64))?;
        let steps: Vec<_> =
            (0..threads).map(|_| single(&engine, &stream, 4, 256, 64)).collect::<Result<_, _>>()?;
        let each = 40_000 / threads;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for (step, ..) in &steps {
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
        println!("{threads} submitters: {rate:.0} steps a second of [4, 256]");
    }
    Ok(())
}

/// Passes in a row, how often they are timed, and before that not.
const ROW: u32 = 16;
const REPEATS: usize = 21;
const WARM_UP: usize = 10;

/// A pass of 64 to 256 MiB, by the layer's own calls and through the executor, which launches it for its size. The same clock and as
/// many in a row for both, in turn: from the host's first call to the end of the last pass.
pub(crate) fn large(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    for (rows, hidden) in [(4096, 4096), (8192, 8192)] {
        let (step, layer, [x, y]) = single(&engine, &stream, rows, hidden, 64)?;
        let executor = PersistentExecutor::new(&engine, ExecutorOptions::new())?;
        let own = SharedStep::forward(&[layer], &[x, y])?;
        let mode = RunnerOptions::new().mode(ExecutionMode::Launch);
        let mut runner = StepRunner::new(&engine, &stream, mode);
        let mut samples = [Vec::new(), Vec::new(), Vec::new()];
        for i in 0..WARM_UP + REPEATS {
            let row = [
                timed(ROW, || {
                    for _ in 0..ROW {
                        let _run = runner.run(&own, &StepEnd::new())?;
                    }
                    Ok(runner.wait()?)
                })?,
                timed(ROW, || {
                    for _ in 0..ROW {
                        let _ticket = executor.submit(&step)?;
                    }
                    Ok(executor.drain()?)
                })?,
                timed(1, || Ok(executor.submit(&step)?.wait()?))?,
            ];
            if i >= WARM_UP {
                samples.iter_mut().zip(row).for_each(|(samples, time)| samples.push(time));
            }
        }
        let [own, through, alone] = samples.map(median);
        println!(
            "[{rows}, {hidden}] f32 forward + telemetry, {ROW} in a row: own calls {own:.1} µs, through the executor {through:.1} ({:.3} of \
             the own calls' speed); waited for alone {alone:.1}; {}",
            own / through,
            executor.report()
        );
    }
    Ok(())
}

/// Microseconds of each of `passes`.
fn timed(passes: u32, body: impl FnOnce() -> Result<(), Failed>) -> Result<f64, Failed> {
    let begun = Instant::now();
    body()?;
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(passes))
}
