//! `cargo xtask build-kernels`: finds or installs nvcc, compiles what is not fresh, and shows what each kernel takes.

use std::io::{self, Write};
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use kasmina_sys::Arch;
use kasmina_sys::build::{
    BuildError, Environment, KernelSet, Nvcc, Record, Status, Unit, compile, find_nvcc,
    install_nvcc, status,
};

use crate::workspace;

/// Arguments of `cargo xtask build-kernels`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Build for these architectures alone, for example sm_90a or compute_90
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Fail when a kernel spills registers
    #[arg(long)]
    check: bool,
    /// Compile what is fresh, too
    #[arg(long)]
    force: bool,
}

/// Why the command stopped.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("could not write: {0}")]
    Output(#[from] io::Error),
    #[error("{0} lies in no Cargo workspace; run this inside the project")]
    NoWorkspace(String),
    #[error("no crate of this workspace has kernels")]
    NoKernels,
}

/// Runs the command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    match run(args, &mut io::stdout().lock()) {
        Ok(spilling) if args.check && !spilling.is_empty() => {
            eprintln!("error: registers spill in {}", spilling.join(", "));
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Builds and reports; returns the kernels that spill.
fn run(args: &Args, out: &mut dyn Write) -> Result<Vec<String>, Failure> {
    let here = std::env::current_dir()?;
    let root =
        workspace::root(&here).ok_or_else(|| Failure::NoWorkspace(here.display().to_string()))?;
    let sets = workspace::kernel_sets(&root)?;
    if sets.is_empty() {
        return Err(Failure::NoKernels);
    }
    let archs = if args.arch.is_empty() { Arch::DEFAULT.to_vec() } else { args.arch.clone() };
    let environment = Environment::of_process();
    let mut nvcc = None;
    let mut rows = Vec::new();
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
                    build(nvcc, set, unit, &archs, out)?
                }
            };
            rows.push((set, unit, record));
        }
    }
    writeln!(out, "{}", table(&rows))?;
    writeln!(
        out,
        "PTX holds no machine code and has no row; embedded on the next compilation of each crate"
    )?;
    Ok(spilling(&rows))
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

fn table(rows: &[(&KernelSet, &Unit, Record)]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "package",
        "fatbin",
        "kernel",
        "code",
        "registers",
        "shared B",
        "stack B",
        "spill stores B",
        "spill loads B",
    ]);
    for (set, unit, record) in rows {
        for kernel in &record.resources {
            table.add_row([
                set.package.clone(),
                unit.name.clone(),
                kernel.function.clone(),
                kernel.arch.to_string(),
                kernel.registers.map_or_else(|| "-".to_owned(), |count| count.to_string()),
                kernel.shared_bytes.to_string(),
                kernel.stack_bytes.to_string(),
                kernel.spill_stores.to_string(),
                kernel.spill_loads.to_string(),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn spilling(rows: &[(&KernelSet, &Unit, Record)]) -> Vec<String> {
    rows.iter()
        .flat_map(|(_, _, record)| &record.resources)
        .filter(|kernel| kernel.spills())
        .map(|kernel| {
            let (stores, loads) = (kernel.spill_stores, kernel.spill_loads);
            format!("{} for {} ({stores} B stored, {loads} B loaded)", kernel.function, kernel.arch)
        })
        .collect()
}
