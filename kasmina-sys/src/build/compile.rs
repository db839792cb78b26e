//! One unit through nvcc: the fatbin, and the record that says what it was made of.

use std::borrow::BorrowMut;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::nvcc::Nvcc;
use super::ptx::{self, TensorUse};
use super::record::Record;
use super::report::{Resources, parse_resources};
use super::signature::Signature;
use super::sources::{KernelSet, Unit};
use super::{BuildError, Hash};
use crate::arch::{Arch, CodeKind};

/// The flags of every compilation beside architectures and paths. They are part of the sources' hash.
pub const FLAGS: &[&str] = &[
    "--fatbin",
    "--compress-mode=size",
    "-std=c++17",
    "-O3",
    "--Werror",
    "all-warnings",
    "-Xptxas",
    "-v",
];

/// As much output as several threads of nvcc can write and none is interrupted: a pipe's capacity on Linux. Each thread
/// collects what its assembler says and writes it in one piece, but in pieces of 64 KiB once it is longer, as some 170
/// kernels make it. Then words of two architectures could mix, and the unit is compiled once more on one thread.
const WHOLE_WRITES: usize = 64 << 10;

/// Compiles one unit for `archs` and puts fatbin and record in place.
///
/// Both are written beside their place and renamed, the record last. Whatever interrupts this, what stays is the old pair,
/// the new pair, or a fatbin that its record does not describe, which [`status`](super::status) calls stale.
///
/// # Errors
/// nvcc's own message, a header that the scan of includes missed, or a file that could not be written.
pub fn compile(
    nvcc: &Nvcc,
    set: &KernelSet,
    unit: &Unit,
    archs: &[Arch],
) -> Result<Record, BuildError> {
    if archs.is_empty() {
        return Err(BuildError::NoArchitecture);
    }
    // Hashed first: a source that is saved while nvcc runs makes the result stale, not fresh.
    let sources = unit.hash(archs)?;
    let scratch = Scratch::beside(unit)?;
    let mut text = run(command(nvcc, set, unit, archs, &scratch), nvcc, unit)?;
    if text.len() > WHOLE_WRITES {
        text = run(command(nvcc, set, unit, archs, &scratch).args(["--threads", "1"]), nvcc, unit)?;
    }
    check_headers(set, unit, &scratch.dependencies)?;
    let fatbin = fs::read(&scratch.fatbin).map_err(BuildError::io(&scratch.fatbin))?;
    let mut resources = parse_resources(&text);
    // In the order of the architectures, whichever of them was done first.
    resources.sort_by_key(|row| archs.iter().position(|arch| *arch == row.arch));
    let (tensors, signatures) = read_ptx(nvcc, unit, archs, &scratch.intermediates, &resources)?;
    let record = Record {
        sources,
        fatbin: Hash::of(&fatbin),
        nvcc: nvcc.release,
        archs: archs.to_vec(),
        resources,
        tensors,
        signatures,
    };
    fs::write(&scratch.record, record.to_text()).map_err(BuildError::io(&scratch.record))?;
    for (from, to) in [(&scratch.fatbin, unit.fatbin_path()), (&scratch.record, unit.record_path())]
    {
        fs::rename(from, &to).map_err(BuildError::io(to))?;
    }
    Ok(record)
}

/// Runs nvcc and returns what it wrote.
fn run(
    mut command: impl BorrowMut<Command>,
    nvcc: &Nvcc,
    unit: &Unit,
) -> Result<String, BuildError> {
    let output = command.borrow_mut().output().map_err(BuildError::io(&nvcc.path))?;
    let text = [&output.stdout[..], &output.stderr[..]]
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .concat();
    if output.status.success() {
        return Ok(text);
    }
    let (unit, status) = (unit.source.clone(), output.status);
    Err(BuildError::Compile { unit, status, output: text })
}

fn command(
    nvcc: &Nvcc,
    set: &KernelSet,
    unit: &Unit,
    archs: &[Arch],
    scratch: &Scratch,
) -> Command {
    let mut command = Command::new(&nvcc.path);
    command.args(FLAGS);
    for arch in archs {
        command.args(["-gencode", &arch.gencode()]);
    }
    for folder in &set.include {
        command.arg("-I").arg(folder);
    }
    // One architecture a thread, as many at once as there are processors.
    command.args(["--threads", "0"]);
    command.arg("--keep").arg("--keep-dir").arg(&scratch.intermediates);
    command.arg("-MD").arg("-MF").arg(&scratch.dependencies);
    command.arg("-o").arg(&scratch.fatbin).arg(&unit.source);
    command
}

/// Reads the PTX of every architecture, and makes sure that the assembler's words were understood: a kernel without numbers
/// would pass every check of them.
fn read_ptx(
    nvcc: &Nvcc,
    unit: &Unit,
    archs: &[Arch],
    intermediates: &Path,
    resources: &[Resources],
) -> Result<(Vec<TensorUse>, Vec<Signature>), BuildError> {
    let mut modules = Vec::new();
    for entry in fs::read_dir(intermediates).map_err(BuildError::io(intermediates))? {
        let path = entry.map_err(BuildError::io(intermediates))?.path();
        if path.extension().is_some_and(|ending| ending == "ptx") {
            let text = fs::read(&path).map_err(BuildError::io(&path))?;
            modules.extend(ptx::Module::parse(&String::from_utf8_lossy(&text)));
        }
    }
    let unreported = |arch: Arch, what: String| BuildError::Unreported {
        unit: unit.source.clone(),
        release: nvcc.release,
        arch,
        what,
    };
    let (mut uses, mut signatures) = (Vec::new(), Vec::new());
    for &arch in archs {
        let target = ptx::target(arch);
        let module = modules.iter().find(|module| module.target == target);
        let module = module.ok_or_else(|| unreported(arch, "PTX".to_owned()))?;
        let reported = |name: &str| {
            let is = |row: &Resources| row.function == name && row.registers.is_some();
            resources.iter().any(|row| row.arch == arch && is(row))
        };
        let missing = module.kernels().iter().find(|name| !reported(name));
        if let Some(name) = missing.filter(|_| arch.kind != CodeKind::Ptx) {
            return Err(unreported(arch, format!("register count of {name}")));
        }
        uses.extend(module.uses(arch));
        signatures.extend(module.signatures(arch));
    }
    Ok((uses, signatures))
}

/// Every header below our own folders that the compiler read must be one that the scan found: else its changes would go unseen.
fn check_headers(set: &KernelSet, unit: &Unit, dependencies: &Path) -> Result<(), BuildError> {
    let text = fs::read_to_string(dependencies).map_err(BuildError::io(dependencies))?;
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let known: Vec<PathBuf> = unit.files.values().map(|path| real(path)).collect();
    let ours: Vec<PathBuf> =
        std::iter::once(&set.folder).chain(&set.include).map(|path| real(path)).collect();
    for header in dependency_paths(&text) {
        let path = real(&header);
        if ours.iter().any(|folder| path.starts_with(folder)) && !known.contains(&path) {
            return Err(BuildError::UntrackedHeader { unit: unit.source.clone(), header });
        }
    }
    Ok(())
}

/// The prerequisites in a makefile rule: `target : a b\` with `\ ` for a blank inside a name.
fn dependency_paths(text: &str) -> Vec<PathBuf> {
    let Some((_, rest)) = text.split_once(" :").or_else(|| text.split_once(": ")) else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    let mut path = String::new();
    let mut letters = rest.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek().is_some_and(|&next| next == ' ') => {
                path.extend(letters.next());
            }
            '\\' if letters.peek().is_some_and(|&next| next == '\n') => {}
            letter if letter.is_whitespace() => {
                if !path.is_empty() {
                    paths.push(PathBuf::from(std::mem::take(&mut path)));
                }
            }
            letter => path.push(letter),
        }
    }
    if !path.is_empty() {
        paths.push(PathBuf::from(path));
    }
    paths
}

/// Files of one compilation, beside the source so that a rename is one step; whatever is left of them goes on drop.
struct Scratch {
    fatbin: PathBuf,
    record: PathBuf,
    dependencies: PathBuf,
    /// A folder: what nvcc makes on the way.
    intermediates: PathBuf,
}

impl Scratch {
    fn beside(unit: &Unit) -> Result<Self, BuildError> {
        let id = std::process::id();
        let file = |what: &str| unit.source.with_extension(format!("fatbin.{id}.{what}"));
        let scratch = Self {
            fatbin: file("new"),
            record: file("record"),
            dependencies: file("deps"),
            intermediates: file("keep"),
        };
        fs::create_dir_all(&scratch.intermediates)
            .map_err(BuildError::io(&scratch.intermediates))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in [&self.fatbin, &self.record, &self.dependencies] {
            // Gone already where it was moved into place.
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir_all(&self.intermediates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prerequisites_are_split_at_blanks_that_are_not_escaped() {
        let text = "probe.fatbin : probe.cu \\\n    /usr/include/a.h \\\n    my\\ dir/b.cuh\n";
        let expected = ["probe.cu", "/usr/include/a.h", "my dir/b.cuh"].map(PathBuf::from);
        assert_eq!(dependency_paths(text), expected);
        assert!(dependency_paths("").is_empty());
    }
}
