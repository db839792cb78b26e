//! `cargo xtask doctor`: what this machine has for Kasmina, what is missing, and what would be chosen.
//!
//! [`report::examine`] looks and keeps everything as a value; this module prints it, as text or as JSON.

use std::io::{self, Write};
use std::process::ExitCode;

pub mod report;

use report::{CodeReport, DeviceReport, Outcome, Report, examine};

/// Arguments of `cargo xtask doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Fail unless there is a GPU that passes the self-check
    #[arg(long)]
    require_gpu: bool,
}

/// Runs the command. A machine without a GPU is no failure unless one is required: the report says so. A GPU that computes
/// something else than the host is one.
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
    let passed = |device: &DeviceReport| matches!(device.self_check, Outcome::Found(_));
    if args.require_gpu && !report.devices.iter().any(passed) {
        eprintln!("error: --require-gpu, and no GPU passed the self-check; the report says why");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn print(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "driver      {}", text(&report.driver))?;
    if let Some(release) = &report.driver_release {
        writeln!(out, "            release {release}")?;
    }
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
    let autotune = &report.autotune;
    writeln!(out, "autotune    {}, choices in {}", autotune.mode, text(&autotune.folder))?;
    for problem in &autotune.problems {
        writeln!(out, "            {problem}")?;
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
    for CodeReport { package, name, code } in &device.code {
        writeln!(out, "            kernels     {package}/{name}: {}", text(code))?;
    }
    writeln!(out, "            self-check  {}", text(&device.self_check))?;
    for feature in &device.features {
        let supported = match (feature.supported, &feature.reason) {
            (Some(true), _) => "yes",
            (Some(false), _) => "no",
            (None, reason) => reason.as_deref().unwrap_or("unknown"),
        };
        writeln!(out, "            {:<19} {supported}", feature.name)?;
    }
    writeln!(out, "            TMA         {}", device.tma)?;
    writeln!(out, "            load path   {} for {}", text(&device.load_path), device.load_shape)?;
    for rung in &device.ladder {
        let state = match (rung.chosen, rung.possible) {
            (true, _) => "chosen",
            (false, true) => "possible",
            (false, false) => "not possible",
        };
        let reason = rung.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        writeln!(out, "                        {:<10}  {state}{reason}", rung.path)?;
    }
    writeln!(out, "            autotune    {} measured choices", device.autotune.choices)?;
    for problem in &device.autotune.problems {
        writeln!(out, "                        {problem}")?;
    }
    Ok(())
}

fn text(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Found(text) | Outcome::Unavailable(text) => text,
    }
}
