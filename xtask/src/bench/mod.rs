//! `cargo xtask bench`: how fast the layer's passes are, each beside what the same device can do at best in the same run.
//!
//! [`case`] says what is measured, [`buffers`] keep the cache cold, [`clock`] times, [`measure`](mod@measure) runs it on a GPU
//! and [`cpu`] on the processor; [`stacks`] are steps of many small layers by every way to execute them, [`reductions`] those of
//! kasmina-telemetry, [`peers`] what others take for the same, [`claims`] what the source system promised; [`throttle`] watches the clocks, [`report`] and [`html`] show it all,
//! and [`compare`] holds it against an earlier run.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use half::{bf16, f16};
use kasmina_core::cuda::CudaError;
use kasmina_core::{DType, Device, DeviceRequest, Element};
use kasmina_sys::Stream;

pub mod buffers;
#[cfg(feature = "candle")]
pub mod candle;
pub mod case;
pub mod claims;
pub mod clock;
pub mod compare;
pub mod cpu;
pub mod header;
pub mod html;
pub mod measure;
pub mod peers;
pub mod reductions;
pub mod report;
pub mod row;
pub mod seeds;
mod selection;
pub mod stacks;
pub mod summary;
pub mod throttle;

use case::{Case, Matrices, On};
use clock::Clock;
use compare::{CompareError, Comparison};
use header::{Cpu, Gpu, Header, Machine};
use measure::{Bench, Group};
use peers::protocol::PeerRow;
use peers::{Peers, PeersError, Place};
use report::{Report, SCHEMA};
use selection::Selection;
use throttle::Watch;

/// Times of every case: an odd number, so that the median is one of them.
const REPETITIONS: usize = 101;
const QUICK_REPETITIONS: usize = 31;
#[cfg(feature = "candle")]
const CANDLES_REPETITIONS: usize = 11;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("with peers").args(["peers", "all"]).multiple(true)))]
pub struct Args {
    /// Only 8192×8192 (4096×4096 on the processor) and 32×768 with chunks of 64, stacks of 32×768, and fewer repetitions
    #[arg(long)]
    quick: bool,
    /// Only lines whose names have every word of TEXT, such as "backward bf16" or "8192x8192"
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Measure what the source system promised of each optimization, on against off, instead of the passes; --quick repeats less
    #[arg(long, conflicts_with_all = ["compare", "peers"])]
    claims: bool,
    /// Measure everything in one run: passes, stacks, latencies, reductions, the claims, and the peers
    #[arg(long, conflicts_with = "claims")]
    all: bool,
    /// Measure nothing: show the run that --json wrote to this file, and with --html draw it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["claims", "all", "only", "json", "compare", "peers"])]
    show: Option<PathBuf>,
    /// Write all numbers to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with charts into this folder
    #[arg(long, value_name = "DIR")]
    html: Option<PathBuf>,
    /// Fail if a line is slower than in this file, which --json wrote on the same machine
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// How much slower counts; besides, nine tenths of the times must be longer than nine tenths of the old ones
    #[arg(long, value_name = "PERCENT", requires = "compare", default_value_t = 5.0, value_parser = percent)]
    noise: f64,
    /// The GPU's number, or cpu
    #[arg(long, value_name = "N|cpu", default_value = "0")]
    device: Wanted,
    /// Time others at the same work: PyTorch and Triton, where a Python has them, and CUB, where there is an nvcc
    #[arg(long)]
    peers: bool,
    /// That Python [default: KASMINA_PYTHON, else python3]
    #[arg(long, value_name = "FILE", requires = "with peers")]
    python: Option<PathBuf>,
    /// bench/cub/cub_reference.cu as it was compiled elsewhere, where this machine has no nvcc
    #[arg(long, value_name = "FILE", requires = "with peers")]
    cub: Option<PathBuf>,
    /// For all scripts together, and for each run of CUB's program
    #[arg(long, value_name = "SECONDS", requires = "with peers", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    peers_timeout: u64,
}

impl Args {
    fn wants_peers(&self) -> bool {
        self.peers || self.all
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1000.0).contains(number));
    number.ok_or_else(|| "give percent from 0 to 1000".to_owned())
}

/// What the passes are to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A GPU's number.
    Gpu(u32),
    /// The processor.
    Cpu,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "cpu" {
            return Ok(Self::Cpu);
        }
        text.parse().map(Self::Gpu).map_err(|_| "give a GPU's number, as 0, or cpu".to_owned())
    }
}

impl Wanted {
    fn on(self) -> On {
        match self {
            Self::Gpu(_) => On::Gpu,
            Self::Cpu => On::Cpu,
        }
    }
}

/// Why nothing was measured, or not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// There is no GPU on which the kernels run.
    #[error("there is no GPU to measure: {0}; --device cpu measures the processor")]
    NoGpu(String),
    /// The claims, and with them everything, are of a GPU.
    #[error(
        "--claims and --all measure a GPU: give its number by --device, or leave --device out; a processor is measured without them"
    )]
    GpuOnly,
    /// No line has the words.
    #[error("no line has all words of {0:?}; there are {1} lines, such as {2:?}")]
    Nothing(String, usize, String),
    /// The device failed.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The file is no run of this command.
    #[error("{path} cannot be read: {why}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        why: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The runs say nothing of each other.
    #[error("{path} cannot be compared with: {why}")]
    Compare {
        /// Which.
        path: String,
        /// Why.
        why: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file or the output cannot be written.
    #[error("{path} cannot be written: {source}")]
    Output {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Runs the command: 0 where everything was measured and nothing is slower than it was, 2 where there is no GPU, 1 otherwise.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    match run(args, &mut io::stdout().lock()) {
        Ok((report, regressions)) if report.is_whole() && regressions == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, BenchError::NoGpu(_)) { 2 } else { 1 })
        }
    }
}

/// Measures, writes the table to `out`, and the numbers to the file that was asked for. Lines that fail are part of the report;
/// beside it is how many have become slower, or have failed only now.
///
/// # Errors
/// See [`BenchError`].
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(Report, usize), BenchError> {
    if let Some(path) = &args.show {
        let report = read(path)?;
        show(args, &report, out)?;
        return Ok((report, 0));
    }
    let chosen = Selection::of(args)?;
    // Before --json may write to the same file, and before minutes of measuring.
    let old = args.compare.as_deref().map(|path| earlier(path, &chosen)).transpose()?;
    let mut report = measure(args, &chosen, old.as_ref())?;
    if args.wants_peers() {
        if let Machine::Cpu(cpu) = &report.header.machine {
            report.candle = Some(run_candle(cpu, &chosen.cases, &report));
        }
        report.peers = Some(run_peers(args, &chosen.cases, &report).map_err(|e| e.to_string()));
        save(args, &report)?;
    }
    show(args, &report, out)?;
    let Some((path, old)) = old else { return Ok((report, 0)) };
    let comparison = Comparison::new(&old, &report, args.noise)
        .map_err(|error| BenchError::Compare { path, why: error.into() })?;
    comparison.write(out).map_err(output_error("the table".as_ref()))?;
    Ok((report, comparison.regressions()))
}

/// Writes the table, and the page that was asked for.
fn show(args: &Args, report: &Report, out: &mut dyn Write) -> Result<(), BenchError> {
    report.write(out).map_err(output_error("the table".as_ref()))?;
    let Some(folder) = &args.html else { return Ok(()) };
    html::write(report, folder).map_err(output_error(folder))
}

/// The run to compare with, and its name. It has some of the chosen lines.
fn earlier(path: &Path, chosen: &Selection) -> Result<(String, Report), BenchError> {
    let (report, name) = (read(path)?, path.display().to_string());
    if compare::lines(&report).iter().any(|line| chosen.has(&line.name)) {
        return Ok((name, report));
    }
    Err(BenchError::Compare { path: name, why: CompareError::NothingInCommon.into() })
}

/// A run that --json wrote.
fn read(path: &Path) -> Result<Report, BenchError> {
    let report =
        fs::read_to_string(path).map_err(Into::into).and_then(|json| Comparison::read(&json));
    report.map_err(|why| BenchError::Read { path: path.display().to_string(), why })
}

fn save(args: &Args, report: &Report) -> Result<(), BenchError> {
    let Some(path) = &args.json else { return Ok(()) };
    let failed = output_error(path);
    let text = serde_json::to_string_pretty(report).map_err(|e| failed(e.into()))?;
    fs::write(path, text + "\n").map_err(failed)
}

/// candle at those cases that it does, or why it is not asked.
#[cfg(feature = "candle")]
fn run_candle(cpu: &Cpu, cases: &[Case], report: &Report) -> Result<Vec<PeerRow>, String> {
    // It takes a hundred times as long, or more.
    let repetitions = report.header.repetitions.min(CANDLES_REPETITIONS);
    let bench = cpu::Bench::new(repetitions, cpu.cache_bytes);
    let rows = candle::run(&bench, cases, &report.rows);
    if rows.is_empty() {
        return Err("none of these lines is one of candle's; forward + telemetry f32 is".to_owned());
    }
    Ok(rows)
}

#[cfg(not(feature = "candle"))]
fn run_candle(_: &Cpu, _: &[Case], _: &Report) -> Result<Vec<PeerRow>, String> {
    Err("this xtask was built without it: cargo run --release -p xtask --features candle"
        .to_owned())
}

fn run_peers(args: &Args, cases: &[Case], report: &Report) -> Result<Peers, PeersError> {
    let options = peers::Options {
        python: peers::python(args.python.as_deref()),
        place: match (&report.header.machine, args.device) {
            (Machine::Cpu(cpu), _) => Place::Cpu(cpu.clone()),
            (Machine::Gpu(_), Wanted::Gpu(number)) => Place::Gpu(number),
            (Machine::Gpu(_), Wanted::Cpu) => Place::Gpu(0),
        },
        repetitions: report.header.repetitions,
        limit: Duration::from_secs(args.peers_timeout),
    };
    let has_peers = |case: &Case| peers::has_peers(case, args.device.on(), args.quick);
    let cases: Vec<Case> = cases.iter().copied().filter(has_peers).collect();
    peers::run(&options, report.header.machine.name(), &cases, &report.rows)
}

/// How CUB is run on the GPU of the report.
fn cub_options(args: &Args, report: &Report) -> Option<reductions::cub::Options> {
    let (Machine::Gpu(gpu), Wanted::Gpu(device)) = (&report.header.machine, args.device) else {
        return None;
    };
    Some(reductions::cub::Options {
        program: args.cub.clone(),
        device,
        name: gpu.device.clone(),
        capability: gpu.compute_capability.clone(),
        repetitions: report.header.repetitions,
        limit: Duration::from_secs(args.peers_timeout),
    })
}

/// What measures the cases of one shape and type.
enum Runner {
    Gpu(Bench),
    Cpu(cpu::Bench),
}

impl Runner {
    fn new(wanted: Wanted, repetitions: usize) -> Result<(Self, Machine), BenchError> {
        let Wanted::Gpu(number) = wanted else {
            let cpu = Cpu::here();
            let bench = cpu::Bench::new(repetitions, cpu.cache_bytes);
            return Ok((Self::Cpu(bench), Machine::Cpu(cpu)));
        };
        let missing = |reason: &dyn std::fmt::Display| BenchError::NoGpu(reason.to_string());
        let device = Device::select(DeviceRequest::Cuda(number)).map_err(|e| missing(&e))?.device;
        let engine = device.engine()?.ok_or_else(|| missing(&device))?;
        let gpu = Gpu::of(engine.context().device()).map_err(CudaError::from)?;
        let stream = Stream::new(engine.context()).map_err(CudaError::from)?;
        let watch = Watch::gpu(engine.context().device());
        let clock = Clock::new(&stream, repetitions, watch)?;
        let bench = Bench::new(engine, clock, gpu.l2_bytes.into());
        Ok((Self::Gpu(bench), Machine::Gpu(gpu)))
    }

    fn watch(&self) -> &Watch {
        match self {
            Self::Gpu(bench) => bench.clock().watch(),
            Self::Cpu(bench) => bench.watch(),
        }
    }

    fn group<T: Element>(&self, matrices: Matrices, cases: &[Case]) -> Group {
        match self {
            Self::Gpu(bench) => bench.group::<T>(matrices, cases),
            Self::Cpu(bench) => bench.group::<T>(matrices, cases),
        }
    }
}

/// What measures, and a report of nothing yet.
fn begin(args: &Args) -> Result<(Runner, Report), BenchError> {
    let repetitions = if args.quick { QUICK_REPETITIONS } else { REPETITIONS };
    let (runner, machine) = Runner::new(args.device, repetitions)?;
    if let Some(path) = &args.json {
        // Now rather than after minutes of measuring.
        OpenOptions::new().append(true).create(true).open(path).map_err(output_error(path))?;
    }
    let (schema, header) = (SCHEMA, Header::now(machine, repetitions));
    let (ceilings, rows, claims) = (Vec::new(), Vec::new(), Vec::new());
    let (stacks, latencies) = (Vec::new(), Vec::new());
    let (reductions, candle, peers) = (None, None, None);
    let report = Report {
        schema,
        header,
        ceilings,
        rows,
        stacks,
        latencies,
        reductions,
        candle,
        peers,
        claims,
    };
    Ok((runner, report))
}

/// Measures what was chosen, and saves it after each part: a run that is stopped keeps what it has measured.
fn measure(
    args: &Args,
    chosen: &Selection,
    old: Option<&(String, Report)>,
) -> Result<Report, BenchError> {
    let (runner, mut report) = begin(args)?;
    if let Some((path, old)) = old {
        let compared = compare::same_machine(&old.header.machine, &report.header.machine);
        compared.map_err(|error| BenchError::Compare { path: path.clone(), why: error.into() })?;
    }
    let keep = |report: &mut Report| {
        report.header.clocks = Some(runner.watch().run());
        save(args, report)
    };
    let mut lost = measure_passes(&runner, &chosen.cases, &mut report);
    keep(&mut report)?;
    let Runner::Gpu(bench) = &runner else { return Ok(report) };
    if !lost {
        let found = stacks::measure(bench, &chosen.stacks, &chosen.latencies);
        (report.stacks, report.latencies, lost) = (found.rows, found.latencies, found.lost);
        keep(&mut report)?;
    }
    if !lost && !chosen.reductions.is_empty() {
        let mut found = reductions::measure(bench, &chosen.reductions);
        lost = found.lost;
        report.reductions = Some(found.reductions.clone());
        keep(&mut report)?;
        if let (false, true, Some(options)) = (lost, args.wants_peers(), cub_options(args, &report))
        {
            found.ask_cub(&options);
            report.reductions = Some(found.reductions);
            keep(&mut report)?;
        }
    }
    if lost {
        // The lines after it are not there, and the run is a failure by those that are.
        eprintln!("the device is lost; nothing more can be measured");
        return Ok(report);
    }
    claims::measure(bench, &chosen.claims, |rows| {
        report.claims = rows;
        keep(&mut report)
    })?;
    Ok(report)
}

/// Whether the device was lost meanwhile.
fn measure_passes(runner: &Runner, cases: &[Case], report: &mut Report) -> bool {
    for group in cases.chunk_by(|a, b| a.matrices == b.matrices) {
        let Some(matrices) = group.first().map(|case| case.matrices) else { continue };
        eprintln!("{matrices}: {} lines", group.len());
        let mut measured = match matrices.dtype {
            DType::F32 => runner.group::<f32>(matrices, group),
            DType::F16 => runner.group::<f16>(matrices, group),
            DType::Bf16 => runner.group::<bf16>(matrices, group),
        };
        report.ceilings.append(&mut measured.ceilings);
        report.rows.append(&mut measured.rows);
        if measured.lost {
            return true;
        }
    }
    false
}

fn output_error(path: &Path) -> impl Fn(io::Error) -> BenchError {
    let path = path.display().to_string();
    move |source| BenchError::Output { path: path.clone(), source }
}
