//! Every wrapper of the device header, assembled for every architecture, with and without its checks. Ignored with the reason
//! where there is no nvcc.

use std::path::Path;
use std::process::{Command, ExitCode};

use kasmina_sys::Arch;
use kasmina_sys::build::{Environment, find_nvcc};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Beside those of our own kernels: family-specific code, and the last ones that edit maps.
const OTHERS: [&str; 3] = [
    "arch=compute_90,code=sm_90",
    "arch=compute_100f,code=sm_100f",
    "arch=compute_120a,code=sm_120a",
];

/// The checks are plain CUDA: what assembles for the first and the last will for the others.
const CHECKED: [&str; 2] = ["arch=compute_90a,code=sm_90a", "arch=compute_120a,code=sm_120a"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let targets = Arch::DEFAULT.iter().map(|arch| arch.gencode());
    let plain = targets.chain(OTHERS.map(str::to_owned)).map(|gencode| (gencode, false));
    let checked = CHECKED.map(|gencode| (gencode.to_owned(), true));
    let trials = plain.chain(checked).map(|(gencode, checks)| {
        let name = format!("{gencode}{}", if checks { " with checks" } else { "" });
        Trial::ignorable_test(name, move || assemble(&gencode, checks))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn assemble(gencode: &str, checks: bool) -> Result<Completion, Failed> {
    let search = find_nvcc(&Environment::of_process())?;
    let Some(nvcc) = search.found else {
        let reasons: Vec<String> = search.passed_by.iter().map(|it| it.reason.clone()).collect();
        return Ok(Completion::ignored_with(format!("no nvcc: {}", reasons.join("; "))));
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir()?;
    let output = Command::new(&nvcc.path)
        .args(["--fatbin", "-std=c++17", "--Werror", "all-warnings", "-gencode", gencode])
        .arg(format!("-DKASMINA_TMA_CHECK={}", u32::from(checks)))
        .arg("-I")
        .arg(root.join("kernels"))
        .arg("-o")
        .arg(folder.path().join("surface.fatbin"))
        .arg(root.join("tests/header_surface.cu"))
        .output()?;
    if output.status.success() {
        return Ok(Completion::Completed);
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
}
