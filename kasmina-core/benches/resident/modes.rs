//! Steps through a runner, in each mode and as `auto` chooses: microseconds a layer and pass.

use std::sync::Arc;
use std::time::Instant;

use kasmina_core::AdamW;
use kasmina_core::cuda::{
    Engine, ExecutionMode, RunnerOptions, SharedStep, StepEnd, StepRunner, Way,
};
use kasmina_gpu_test::Failed;
use kasmina_sys::{Device, Stream};

use crate::stack::{LAYERS, Stack, stack};

/// Steps that are timed together, and how often that is done.
const BATCH: usize = 8;
const REPEATS: usize = 21;
/// Steps before that: as many as a search takes, for `auto`.
const SEARCH: usize = 160;
const WARM_UP: usize = 10;

/// The last one searches.
const MODES: [ExecutionMode; 4] =
    [ExecutionMode::Launch, ExecutionMode::Graph, ExecutionMode::Persistent, ExecutionMode::Auto];

/// What of a step is run.
#[derive(Clone, Copy)]
enum Parts {
    Forward,
    Both,
    Whole,
}

pub(crate) fn modes(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    println!(
        "µs a layer of a step, {LAYERS} layers, f32, half of the seeds residuals in fine-tuning, telemetry; batches of {BATCH} steps queued \
         one behind the other and waited for, the modes in turn; medians of {REPEATS}, and the fastest and the slowest tenth"
    );
    for (rows, hidden, chunk) in [(32, 768, 48), (8, 4096, 256), (256, 1024, 64)] {
        for parts in [Parts::Forward, Parts::Both, Parts::Whole] {
            let stream = Stream::new(engine.context())?;
            let stack = stack(&engine, &stream, rows, hidden, chunk, true)?;
            let step = stack.step(parts)?;
            println!("[{rows}, {hidden}] {}", parts.name());
            compare(&engine, &stream, &step, &parts.end())?;
        }
    }
    Ok(())
}

/// Times each mode, in turn, so that whatever the device's clocks do they do it to all.
fn compare(
    engine: &Arc<Engine>,
    stream: &Stream,
    step: &SharedStep<f32>,
    end: &StepEnd,
) -> Result<(), Failed> {
    let options = RunnerOptions::new().sums_may_differ(true);
    let runner = |mode| (StepRunner::new(engine, stream, options.clone().mode(mode)), Vec::new());
    let mut runners = MODES.map(runner);
    for (i, (runner, _)) in runners.iter_mut().enumerate() {
        batch(runner, step, end, stream, if i == MODES.len() - 1 { SEARCH } else { WARM_UP })?;
    }
    for _ in 0..REPEATS {
        for (runner, samples) in &mut runners {
            // What another mode has left behind ends in these.
            batch(runner, step, end, stream, 2)?;
            samples.push(batch(runner, step, end, stream, BATCH)? / LAYERS as f64);
        }
    }
    for (mode, (runner, samples)) in MODES.iter().zip(&mut runners) {
        samples.sort_by(f64::total_cmp);
        let at = |q: usize| samples[(samples.len() - 1) * q / 10];
        print!("  {mode:<10} {:>6.2} ({:.2} to {:.2})", at(5), at(1), at(9));
        let report = runner.report();
        if *mode == ExecutionMode::Auto {
            print!("  by {}: {};", report.way.unwrap_or(Way::Launch), report.choice);
            for way in report.ways.iter().filter(|way| way.median_us.is_some()) {
                print!(" {} {:.2}", way.way, way.median_us.unwrap_or(0.0) / LAYERS as f64);
            }
        }
        for (way, reason) in report.ways.iter().filter_map(|w| Some((w.way, w.excluded.as_ref()?)))
        {
            print!("  no {way}: {reason}");
        }
        println!();
    }
    Ok(())
}

/// Microseconds a step, the last one's end on the device included. Another mode may follow.
fn batch(
    runner: &mut StepRunner,
    step: &SharedStep<f32>,
    end: &StepEnd,
    stream: &Stream,
    steps: usize,
) -> Result<f64, Failed> {
    let begun = Instant::now();
    let mut last = None;
    for _ in 0..steps {
        last = Some(runner.run(step, end)?);
    }
    runner.wait()?;
    let time = begun.elapsed().as_secs_f64() * 1e6 / steps as f64;
    if let Some(last) = last {
        last.join(stream)?;
    }
    Ok(time)
}

impl Parts {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Both => "forward, backward",
            Self::Whole => "forward, backward, optimizer",
        }
    }

    fn end(self) -> StepEnd {
        match self {
            Self::Whole => StepEnd::new().optimizer(&AdamW::default()).advance(),
            Self::Forward | Self::Both => StepEnd::new().advance(),
        }
    }
}

impl Stack {
    fn step(&self, parts: Parts) -> Result<SharedStep<f32>, Failed> {
        let (x, g) = self.matrices.split_at(LAYERS + 1);
        Ok(match parts {
            Parts::Forward => SharedStep::forward(&self.layers, x)?,
            Parts::Both | Parts::Whole => SharedStep::both(&self.layers, x, g)?,
        })
    }
}
