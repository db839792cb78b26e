//! The `main` of test and bench executables: finds the device, and decides what its absence means.

use std::process::ExitCode;

use kasmina_sys::{Device, DeviceChoice, DeviceRequest, KernelImage, Unavailable};
use libtest_mimic::{Arguments, Completion, Trial};

use crate::failed::{Failed, Why};

/// The environment variable that makes a missing GPU a failure.
pub const REQUIRE_VARIABLE: &str = "KASMINA_REQUIRE_GPU";

/// The environment variable by which a bundle's `run.sh` names the sanitizer that it runs under.
pub const SANITIZER_VARIABLE: &str = "KASMINA_SANITIZER";

/// Whether a sanitizer watches, which runs kernels one after another and slowly: nothing overlaps then.
#[must_use]
pub fn is_sanitized() -> bool {
    std::env::var_os(SANITIZER_VARIABLE).is_some_and(|tool| !tool.is_empty())
}

/// One test or bench.
pub type Body = fn(Device) -> Result<(), Failed>;

/// Runs the tests whose names pass the command line's filters, on the first device, with the kernels of `package`.
///
/// Without a device, or without kernels that run on it, every test is ignored with the reason; with `KASMINA_REQUIRE_GPU=1`
/// every one fails with it.
#[must_use]
pub fn main(package: &str, kernels: &[KernelImage], tests: &[(&'static str, Body)]) -> ExitCode {
    run(package, kernels, tests, &Arguments::from_args())
}

/// [`main`] for benches, which run only when the command line says `--bench`, as `cargo bench` does; otherwise
/// `cargo test --benches` would measure what nobody reads.
#[must_use]
pub fn bench_main(
    package: &str,
    kernels: &[KernelImage],
    benches: &[(&'static str, Body)],
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // To libtest-mimic the bodies are tests, which it would pass over.
    if !std::mem::take(&mut arguments.bench) && !arguments.list {
        let trials =
            benches.iter().map(|&(name, _)| ignored(name, "run it with --bench".to_owned()));
        return libtest_mimic::run(&arguments, trials.collect()).exit_code();
    }
    run(package, kernels, benches, &arguments)
}

fn run(
    package: &str,
    kernels: &[KernelImage],
    bodies: &[(&'static str, Body)],
    arguments: &Arguments,
) -> ExitCode {
    let required = match required(std::env::var_os(REQUIRE_VARIABLE).as_deref()) {
        Ok(required) => required,
        Err(reason) => {
            eprintln!("error: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let mut arguments = arguments.clone();
    // Bodies measure free memory and time, and the device is shared.
    arguments.test_threads.get_or_insert(1);
    // A list needs no device, and must not wake one.
    let device = if arguments.list { Err(Unavailable::NoDevice) } else { find(package, kernels) };
    match &device {
        Err(reason) if !arguments.list => eprintln!("no GPU for {package}: {reason}"),
        _ => {}
    }
    let trials = bodies.iter().map(|&(name, body)| match &device {
        Ok(device) => on_device(name, body, *device),
        Err(reason) if required => {
            let message = format!("{REQUIRE_VARIABLE} is 1: {reason}");
            Trial::test(name, move || Err(message.into()))
        }
        Err(reason) => ignored(name, reason.to_string()),
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn on_device(name: &'static str, body: Body, device: Device) -> Trial {
    Trial::ignorable_test(name, move || match body(device) {
        Ok(()) => Ok(Completion::Completed),
        Err(Failed(Why::NotApplicable(reason))) => Ok(Completion::ignored_with(one_line(&reason))),
        Err(Failed(Why::Wrong(message))) => {
            // At once: the list of failures comes last, and a later crash would take it away.
            eprintln!("{name} failed: {message}");
            Err(message.into())
        }
    })
}

fn ignored(name: &'static str, reason: String) -> Trial {
    Trial::ignorable_test(name, move || Ok(Completion::ignored_with(one_line(&reason))))
}

/// A reason stands in the middle of a line, and readers of that line go by lines.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).collect::<Vec<_>>().join(" ")
}

fn find(package: &str, kernels: &[KernelImage]) -> Result<Device, Unavailable> {
    match kasmina_sys::probe(package, kernels).choose(DeviceRequest::Cuda(0))? {
        DeviceChoice::Cuda { device, .. } => Ok(device),
        DeviceChoice::Cpu { because } => Err(because.unwrap_or(Unavailable::NoDevice)),
    }
}

/// What the variable says. A value that is neither yes nor no must not quietly mean no on a machine that is there to test.
fn required(value: Option<&std::ffi::OsStr>) -> Result<bool, String> {
    match value.map(|value| value.to_string_lossy().into_owned()).as_deref() {
        None | Some("" | "0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(format!("{REQUIRE_VARIABLE} is {other:?}, it must be 1 or 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_says_yes_no_or_is_refused() {
        for (value, expected) in [
            (None, Ok(false)),
            (Some(""), Ok(false)),
            (Some("0"), Ok(false)),
            (Some("1"), Ok(true)),
        ] {
            assert_eq!(required(value.map(std::ffi::OsStr::new)), expected);
        }
        for value in ["true", "2", " 1"] {
            let reason = required(Some(value.as_ref())).expect_err("neither yes nor no");
            assert!(reason.contains(value) && reason.contains(REQUIRE_VARIABLE), "{reason}");
        }
    }

    #[test]
    fn a_reason_of_several_lines_becomes_one() {
        assert_eq!(one_line("a\n  b\r\nc"), "a b  c");
    }
}
