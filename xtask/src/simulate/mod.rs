//! `cargo xtask simulate`: the GPU tests on a machine without a GPU, by the driver that runs the kernels on the processor.
//!
//! What passes here has passed in a simulation. It says nothing about speed, and a kernel is not tested until it ran on a GPU.

mod build;
mod images;
mod leave_out;
mod run;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kasmina_sys::build::BuildError;

use crate::workspace::{self, WorkspaceError};

pub use leave_out::{LEFT_OUT, LeftOut};
use run::{Outcome, Test, Variables};

/// Random cases of each test, unless `KASMINA_TEST_CASES` says otherwise.
const CASES: &str = "2";

/// Arguments of `cargo xtask simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the GPU tests of this package; may be given again
    #[arg(long, short, value_name = "NAME")]
    package: Vec<String>,
    /// Watch for races, with kernels that report every access to memory; takes about ten times the time
    #[arg(long)]
    races: bool,
    /// What the order of threads and of late copies is drawn with
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The compute capability of the simulated device
    #[arg(long, value_name = "N.N", default_value = "9.0", value_parser = ["9.0", "8.0"])]
    capability: String,
    /// Images that are built, and tests that run, at a time; one for each processor unless given
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// For each test, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Show the tests, and what is left out and why, and run nothing
    #[arg(long)]
    list: bool,
    /// Run tests that are left out as well
    #[arg(long, conflicts_with = "quick")]
    all: bool,
    /// Leave out the tests that take longest, too
    #[arg(long)]
    quick: bool,
    /// Only tests whose names contain one of these
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("{0}")]
    Plan(#[from] crate::gpu_bundle::plan::PlanError),
    #[error("{0}")]
    Cargo(String),
    #[error("{} of the images could not be made:\n{}", .0.len(), .0.join("\n"))]
    Images(Vec<String>),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("could not write: {0}")]
    Output(#[from] io::Error),
    #[error("{0} lies in no Cargo workspace; run this inside the project")]
    NoWorkspace(String),
    #[error("no test has a name with {}", .0.join(" or "))]
    NoTest(Vec<String>),
    #[error("{} of {} is left out by a row of simulate's table, and there is no such test", .0.test, .0.package)]
    Stale(&'static LeftOut),
    #[error("the simulator runs on Linux on x86-64 alone")]
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    System,
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.to_owned();
    move |source| Failure::Io { path, source }
}

/// Runs the command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    match run(args, &mut io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Builds and runs; whether nothing failed.
fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Failure> {
    let here = std::env::current_dir()?;
    let root =
        workspace::root(&here).ok_or_else(|| Failure::NoWorkspace(here.display().to_string()))?;
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .max(1);
    let folder = root.join("target").join("simulator");
    let images = images::build(
        &root,
        &folder,
        &images::Wanted::of(&args.capability, args.races),
        jobs,
        out,
    )?;
    let built = build::build(&root, &folder, &images, &args.package)?;

    let (mut tests, mut left_out) = (Vec::new(), Vec::new());
    for executable in &built.tests {
        let names = run::list(executable)?;
        let of_package = LEFT_OUT.iter().filter(|it| it.package == executable.package);
        if let Some(stale) = of_package.clone().find(|it| !names.iter().any(|name| name == it.test))
        {
            return Err(Failure::Stale(stale));
        }
        for name in names {
            let is_meant =
                args.filter.is_empty() || args.filter.iter().any(|text| name.contains(text));
            let row = of_package.clone().find(|it| it.test == name);
            match row.filter(|it| args.quick || !it.only_quick) {
                _ if !is_meant => {}
                Some(reason) if !args.all => left_out.push(reason),
                _ => tests.push(Test { executable, name }),
            }
        }
    }
    if tests.is_empty() && left_out.is_empty() {
        return Err(Failure::NoTest(args.filter.clone()));
    }
    if args.list {
        for test in &tests {
            writeln!(out, "{} {}", test.executable.package, test.name)?;
        }
        tell(&left_out, out)?;
        return Ok(true);
    }
    let variables = Variables {
        library: built.library.clone(),
        seed: args.seed,
        capability: args.capability.clone(),
        cases: std::env::var("KASMINA_TEST_CASES").unwrap_or_else(|_| CASES.to_owned()),
        cache: folder.join("cache"),
        logs: folder.join("logs"),
        timeout: Duration::from_secs(args.timeout),
    };
    let begin = Instant::now();
    let outcomes = run::all(&tests, &variables, jobs, out)?;
    let failed: Vec<String> = tests
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
        .map(|(test, _)| format!("{} {}", test.executable.package, test.name))
        .collect();
    tell(&left_out, out)?;
    let passed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Passed)).count();
    let ignored = outcomes.len() - passed - failed.len();
    writeln!(
        out,
        "in simulation, which is no run on a GPU: {passed} passed, {} failed, {ignored} do not apply, {} left out; {:.0} s, {} cases, \
         seed {}",
        failed.len(),
        left_out.len(),
        begin.elapsed().as_secs_f64(),
        variables.cases,
        args.seed,
    )?;
    for name in &failed {
        writeln!(out, "failed: {name}")?;
    }
    Ok(failed.is_empty())
}

fn tell(left_out: &[&LeftOut], out: &mut dyn Write) -> io::Result<()> {
    for it in left_out {
        writeln!(out, "left out: {} {}: {}", it.package, it.test, it.reason)?;
    }
    Ok(())
}
