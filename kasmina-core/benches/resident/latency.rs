//! From the host's call to a result that the host may use: a step of one small layer, waited for each time.

use std::time::{Duration, Instant};

use kasmina_core::cuda::{
    Engine, ExecutionMode, ExecutorOptions, PersistentExecutor, RunnerOptions, SharedStep, StepEnd,
    StepRunner,
};
use kasmina_gpu_test::Failed;
use kasmina_sys::{Device, Stream};

use crate::plot::{Curve, draw};
use crate::stack::single;

const STEPS: usize = 20_000;
const WARM_UP: usize = 200;

/// Names a file for the picture.
const PLOT_VARIABLE: &str = "KASMINA_LATENCY_PLOT";

pub(crate) fn latency(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let options = ExecutorOptions::new().idle(Duration::from_millis(50));
    let mut curves = Vec::new();
    for (rows, hidden, chunk) in [(1, 64, 64), (32, 768, 48)] {
        let (step, layer, [x, y]) = single(&engine, &stream, rows, hidden, chunk)?;
        let shared = SharedStep::forward(&[layer], &[x, y])?;
        for mode in [ExecutionMode::Launch, ExecutionMode::Graph] {
            let mut runner = StepRunner::new(&engine, &stream, RunnerOptions::new().mode(mode));
            let name = format!("{mode}, [{rows}, {hidden}]");
            curves.push(sample(name, || Ok(runner.run(&shared, &StepEnd::new())?.wait()?))?);
        }
        let executor = PersistentExecutor::new(&engine, options.clone())?;
        let name = format!("grid, [{rows}, {hidden}]");
        curves.push(sample(name, || Ok(executor.submit(&step)?.wait()?))?);
        // No curve of the picture.
        let name = format!("the call of submit alone, in a row, [{rows}, {hidden}]");
        let _submits = sample(name, || {
            let _ticket = executor.submit(&step)?;
            Ok(())
        })?;
        executor.stop()?;
    }
    if let Some(path) = std::env::var_os(PLOT_VARIABLE).filter(|path| !path.is_empty()) {
        let title = format!(
            "From the call to the result, one layer, {}; {STEPS} steps of each",
            device.name()?
        );
        std::fs::write(&path, draw(&title, &curves)?)?;
    }
    Ok(())
}

/// Microseconds of each call, printed.
fn sample(name: String, mut body: impl FnMut() -> Result<(), Failed>) -> Result<Curve, Failed> {
    let mut values = Vec::with_capacity(STEPS);
    for i in 0..WARM_UP + STEPS {
        let begun = Instant::now();
        body()?;
        if i >= WARM_UP {
            values.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    values.sort_by(f64::total_cmp);
    let curve = Curve { name, values };
    println!("{curve}");
    Ok(curve)
}
