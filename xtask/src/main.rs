//! The project's commands, as `cargo xtask <command>`: one module a command, nothing decided here.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{
    bench, bindings, build_kernels, doctor, gpu_bundle, make_cases, simulate, soak, validate,
    variants, verify,
};

#[derive(Debug, Parser)]
#[command(name = "xtask", about = "Commands of the Kasmina workspace", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Time the layer's passes on a GPU, each beside what that GPU can do at best
    Bench(bench::Args),
    /// Make the driver's bindings from the pinned toolkit's headers, or compare them
    Bindings(bindings::Args),
    /// Compile the GPU kernels, with an nvcc that is found or installed
    BuildKernels(build_kernels::Args),
    /// Show driver, devices, toolkit and kernels, and what would be chosen
    Doctor(doctor::Args),
    /// Make a folder of GPU tests that runs on a machine with a driver and no Rust
    GpuBundle(gpu_bundle::Args),
    /// Run the GPU tests without a GPU, on a simulated device
    Simulate(simulate::Args),
    /// Run random layers through full lives, with faults, beside replays that must agree
    Soak(soak::Args),
    /// Check that everything fits together, and say what proves each line
    Validate(validate::Args),
    /// Write the sources that instantiate the streaming kernels, from their table
    Variants(variants::Args),
    /// Run verification cases through a backend and judge what comes out
    Verify(verify::Args),
    /// Write random verification cases with expectations from the oracle
    MakeCases(make_cases::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::main(&args),
        Command::Bindings(args) => bindings::main(&args),
        Command::BuildKernels(args) => build_kernels::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::GpuBundle(args) => gpu_bundle::main(&args),
        Command::Simulate(args) => simulate::main(&args),
        Command::Soak(args) => soak::main(&args),
        Command::Validate(args) => validate::main(&args),
        Command::Variants(args) => variants::main(&args),
        Command::Verify(args) => verify::main(&args),
        Command::MakeCases(args) => make_cases::main(&args),
    }
}
