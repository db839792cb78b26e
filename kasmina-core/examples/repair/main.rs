//! The main job: a classifier whose sensors drift is repaired by a layer in front of it that grows.
//!
//! A 64-32-10 perceptron is trained on handwritten digits and frozen. A Kasmina layer stands on its input,
//! four chunks of 16 sensors, all dormant. Then one chunk drifts, c → tanh(2·c·R). The controller finds it
//! by telemetry alone, germinates a bottleneck there, trains it beside the running model, grafts it,
//! judges it on held-back rows, fine-tunes it and keeps it. Seven other ways to deal with the accident run
//! beside it, on the same rows and with the same updates, over several paired seeds.
//!
//! ```sh
//! cargo run --release -p kasmina-core --example repair -- --seeds 10 --out target/repair
//! ```

mod arms;
mod blueprints;
mod cost;
mod data;
mod drift;
mod grow;
mod host;
mod progress;
mod report;
mod results;
mod stats;
mod table;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use kasmina_core::candle::DevicePasses;
use kasmina_core::{Device, DeviceRequest};

use arms::PairedSeed;
use progress::Progress;
use results::Results;

/// Repairs a classifier whose sensors drift, and measures what that is worth.
#[derive(Debug, Parser)]
struct Options {
    /// Paired seeds: hosts, splits and drifts to average over, at least 2 [default: 10, with --quick 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=10_000))]
    seeds: Option<u64>,
    /// Fewer paired seeds, for a look in seconds.
    #[arg(long)]
    quick: bool,
    /// Where report.html and repair.json go.
    #[arg(long, value_name = "DIR", default_value = "target/repair")]
    out: PathBuf,
    /// Where the numbers go, if elsewhere [default: repair.json in --out].
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What the layers run on: auto, cpu, cuda or cuda:N. With auto, a GPU where everything fits, else the CPU and the
    /// reason; with cuda, an error where there is none to be used.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceRequest::Cpu)]
    device: DeviceRequest,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the experiment; whether every promise was kept.
fn run(options: &Options) -> Result<bool> {
    let device = device(options.device)?;
    let engine = device.engine()?;
    let seeds = options.seeds.unwrap_or(if options.quick { 3 } else { 10 });
    // Before the work, so that a folder that cannot be written costs no wait.
    let out = &options.out;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let digits = data::load()?;

    let start = Instant::now();
    let progress = Progress::new(seeds)?;
    let mut runs = Vec::new();
    for seed in 0..seeds {
        progress.begin(seed);
        runs.push(
            PairedSeed::run(seed, &digits, engine.as_ref(), &|arm| progress.done(seed, arm))
                .with_context(|| format!("seed {seed}"))?,
        );
    }
    progress.end();
    let took = start.elapsed();
    if engine.is_some() {
        let mut passes = DevicePasses::default();
        runs.iter().for_each(|run: &PairedSeed| passes += run.passes);
        let DevicePasses { on_device, on_cpu } = passes;
        eprintln!(
            "{on_device} passes on {device}, {on_cpu} on the CPU: user-defined blueprints ran in these"
        );
    }

    let results = Results::new(runs)?;
    println!("{}", table::render(&results));
    write(options, &results, &device, took)?;
    Ok(results.invariants().iter().all(|(_, kept)| *kept))
}

/// The device of the request; says why it is no GPU where one was welcome.
fn device(request: DeviceRequest) -> Result<Device> {
    let selection =
        Device::select(request).with_context(|| format!("--device {request} cannot be had"))?;
    match selection.because {
        Some(reason) => eprintln!("running on {}: {reason}", selection.device),
        None => eprintln!("running on {}", selection.device),
    }
    Ok(selection.device)
}

fn write(options: &Options, results: &Results, device: &Device, took: Duration) -> Result<()> {
    let json = options.json.clone().unwrap_or_else(|| options.out.join("repair.json"));
    let report = options.out.join("report.html");
    let text = serde_json::to_string_pretty(&results.json())?;
    fs::write(&json, text + "\n").with_context(|| format!("cannot write {}", json.display()))?;
    let html = report::render(results, device, took)?;
    fs::write(&report, html).with_context(|| format!("cannot write {}", report.display()))?;
    println!("\n{}\n{}", report.display(), json.display());
    Ok(())
}
