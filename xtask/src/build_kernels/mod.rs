//! `cargo xtask build-kernels`: finds or installs nvcc, compiles what is not fresh, and shows what each kernel takes.

mod table;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use kasmina_sys::Arch;
use kasmina_sys::build::{
    BuildError, Environment, KernelSet, Nvcc, Record, Resources, Status, Unit, compile, find_nvcc,
    install_nvcc, status, without_bulk_tensor,
};

use crate::workspace::{self, WorkspaceError};

/// Arguments of `cargo xtask build-kernels`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Build for these architectures alone, for example sm_90a or compute_90
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Only the kernels of this package; may be given again
    #[arg(long, short, value_name = "NAME")]
    package: Vec<String>,
    /// Fail when a kernel spills registers beyond what its folder's spills.txt lists, or should copy through tensor maps and does not
    #[arg(long)]
    check: bool,
    /// Compile what is fresh, too
    #[arg(long)]
    force: bool,
    /// Show every function of every fatbin by itself: thousands of lines
    #[arg(long)]
    functions: bool,
}

/// Why the command stopped.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    #[error("could not write: {0}")]
    Output(#[from] io::Error),
    #[error("{0} lies in no Cargo workspace; run this inside the project")]
    NoWorkspace(String),
    #[error("no crate of this workspace has kernels")]
    NoKernels,
    #[error("{0} is no crate of this workspace with kernels")]
    NoSuchPackage(String),
}

/// A fatbin that was built or found fresh.
type Built<'a> = (&'a KernelSet, &'a Unit, Record);

/// Runs the command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    match run(args, &mut io::stdout().lock()) {
        Ok(faults) => {
            faults.iter().for_each(|fault| eprintln!("error: {fault}"));
            if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Builds what can be built and reports; returns what could not, and what `--check` refuses.
fn run(args: &Args, out: &mut dyn Write) -> Result<Vec<String>, Failure> {
    let here = std::env::current_dir()?;
    let root =
        workspace::root(&here).ok_or_else(|| Failure::NoWorkspace(here.display().to_string()))?;
    let mut sets = workspace::kernel_sets(&root)?;
    if let Some(name) =
        args.package.iter().find(|&name| sets.iter().all(|set| set.package != *name))
    {
        return Err(Failure::NoSuchPackage(name.clone()));
    }
    sets.retain(|set| args.package.is_empty() || args.package.contains(&set.package));
    if sets.is_empty() {
        return Err(Failure::NoKernels);
    }
    let archs = if args.arch.is_empty() { Arch::DEFAULT.to_vec() } else { args.arch.clone() };
    let environment = Environment::of_process();
    let mut nvcc = None;
    let (mut rows, mut faults): (Vec<Built<'_>>, Vec<String>) = (Vec::new(), Vec::new());
    for set in &sets {
        for unit in &set.units {
            let record = match status(unit)? {
                Status::Fresh(record) if !args.force && record.archs == archs => {
                    writeln!(out, "{}/{}: fresh (nvcc {})", set.package, unit.name, record.nvcc)?;
                    record
                }
                _ => {
                    if nvcc.is_none() {
                        nvcc = Some(obtain(&environment, out)?);
                    }
                    // Just filled where it was empty.
                    let Some(nvcc) = &nvcc else { continue };
                    match build(nvcc, set, unit, &archs, out) {
                        Ok(record) => record,
                        // One source of many: the others are built all the same.
                        Err(Failure::Build(error)) => {
                            faults.push(error.to_string());
                            continue;
                        }
                        Err(failure) => return Err(failure),
                    }
                }
            };
            rows.push((set, unit, record));
        }
    }
    let shown = if args.functions { table::functions(&rows) } else { table::fatbins(&rows) };
    writeln!(out, "{shown}")?;
    writeln!(
        out,
        "tensor loads and stores: bulk-tensor instructions in the code; registers and the like: of machine code, PTX has none"
    )?;
    if !args.functions {
        writeln!(out, "the most of a function stands for its fatbin; --functions shows each")?;
    }
    writeln!(out, "embedded on the next compilation of each crate")?;
    if args.check {
        faults.extend(refused(&rows));
    }
    Ok(faults)
}

fn build(
    nvcc: &Nvcc,
    set: &KernelSet,
    unit: &Unit,
    archs: &[Arch],
    out: &mut dyn Write,
) -> Result<Record, Failure> {
    let started = std::time::Instant::now();
    let record = compile(nvcc, set, unit, archs)?;
    let names = archs.iter().map(Arch::to_string).collect::<Vec<_>>().join(", ");
    let seconds = started.elapsed().as_secs_f64();
    writeln!(out, "{}/{}: built for {names} in {seconds:.1} s", set.package, unit.name)?;
    Ok(record)
}

/// The compiler that is there, or else the pinned one.
fn obtain(environment: &Environment, out: &mut dyn Write) -> Result<Nvcc, Failure> {
    let search = find_nvcc(environment)?;
    for place in &search.passed_by {
        writeln!(out, "no nvcc from {}: {}", place.origin, place.reason)?;
    }
    let nvcc = match search.found {
        Some(nvcc) => nvcc,
        None => install_nvcc(environment, &mut |what| eprintln!("{what}"))?,
    };
    writeln!(out, "nvcc {} from {}: {}", nvcc.release, nvcc.origin, nvcc.path.display())?;
    Ok(nvcc)
}

/// Bytes that threads of known kernels spill, by function and architecture: lines of `spills.txt` beside the kernels. A line that is
/// none allows nothing.
fn listed_spills(folder: &Path) -> HashMap<(String, String), u32> {
    let text = fs::read_to_string(folder.join("spills.txt")).unwrap_or_default();
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (function, arch) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(((function, arch), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

/// What `--check` refuses, in words.
fn refused(rows: &[Built<'_>]) -> Vec<String> {
    let mut faults = Vec::new();
    for (set, unit, record) in rows {
        let place = format!("{}/{}", set.package, unit.name);
        let listed = listed_spills(&set.folder);
        let beyond = |kernel: &&Resources| {
            let place = (kernel.function.clone(), kernel.arch.to_string());
            kernel.spills() && listed.get(&place).is_none_or(|most| kernel.spill_stores > *most)
        };
        for kernel in record.resources.iter().filter(beyond) {
            let (stores, loads) = (kernel.spill_stores, kernel.spill_loads);
            faults.push(format!(
                "{place}: registers spill in {} for {} ({stores} B stored, {loads} B loaded)",
                kernel.function, kernel.arch
            ));
        }
        for (kernel, arch) in without_bulk_tensor(&record.archs, &record.tensors) {
            faults.push(format!(
                "{place}: no bulk-tensor instruction is in {kernel} for {arch}, though it takes a tensor map, is named \
                 bulk_tensor, or has them for another architecture"
            ));
        }
    }
    faults
}
