//! `cargo xtask doctor`: what this machine has for Kasmina, what is missing, and what would be chosen.
//!
//! [`report::examine`] looks and keeps everything as a value; this module prints it, as text or as JSON.

use std::io::{self, Write};
use std::process::ExitCode;

pub mod report;

use report::{DeviceReport, Outcome, Report, examine};

/// Arguments of `cargo xtask doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command. A machine without a GPU is no failure: the report says so. A GPU that computes something else than the
/// host is one.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    let report = examine();
    let mut out = io::stdout().lock();
    let printed = if args.json {
        serde_json::to_writer_pretty(&mut out, &report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        print(&report, &mut out)
    };
    if let Err(error) = printed {
        eprintln!("error: could not write: {error}");
        return ExitCode::FAILURE;
    }
    if report.devices.iter().any(|device| device.failed_self_check) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn print(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "driver      {}", text(&report.driver))?;
    if let Some(reason) = &report.no_devices {
        writeln!(out, "devices     none: {reason}")?;
    }
    for device in &report.devices {
        print_device(device, out)?;
    }
    match &report.toolkit.found {
        Some(found) => writeln!(out, "toolkit     {found}")?,
        None => writeln!(out, "toolkit     none; `cargo xtask build-kernels` installs one")?,
    }
    for place in &report.toolkit.passed_by {
        writeln!(out, "            not from {place}")?;
    }
    for kernel in &report.kernels {
        writeln!(out, "kernels     {}/{}", kernel.package, kernel.name)?;
        if let Some(file) = &kernel.file {
            writeln!(out, "            file      {file}")?;
        }
        if let Some(embedded) = &kernel.embedded {
            writeln!(out, "            embedded  {}", text(embedded))?;
        }
    }
    writeln!(out, "auto        {}", report.auto.device)?;
    if let Some(reason) = &report.auto.because {
        writeln!(out, "            because {reason}")?;
    }
    Ok(())
}

fn print_device(device: &DeviceReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "device {:<4} {}", device.ordinal, text(&device.summary))?;
    if let Some(uuid) = &device.uuid {
        writeln!(out, "            uuid        {}", text(uuid))?;
    }
    writeln!(out, "            kernels     {}", text(&device.code))?;
    writeln!(out, "            self-check  {}", text(&device.self_check))?;
    writeln!(out, "            TMA         {}", device.tma)?;
    writeln!(out, "            load path   {} for {}", text(&device.load_path), device.load_shape)?;
    for rung in &device.passed_by {
        writeln!(out, "                        not {}: {}", rung.path, rung.reason)?;
    }
    Ok(())
}

fn text(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Found(text) | Outcome::Unavailable(text) => text,
    }
}
