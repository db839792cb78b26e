//! The project's commands, as `cargo xtask <command>`: one module a command, nothing decided here.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{build_kernels, doctor, make_cases, verify};

#[derive(Debug, Parser)]
#[command(name = "xtask", about = "Commands of the Kasmina workspace", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compile the GPU kernels, with an nvcc that is found or installed
    BuildKernels(build_kernels::Args),
    /// Show driver, devices, toolkit and kernels, and what would be chosen
    Doctor(doctor::Args),
    /// Run verification cases through a backend and judge what comes out
    Verify(verify::Args),
    /// Write random verification cases with expectations from the oracle
    MakeCases(make_cases::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::BuildKernels(args) => build_kernels::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Verify(args) => verify::main(&args),
        Command::MakeCases(args) => make_cases::main(&args),
    }
}
