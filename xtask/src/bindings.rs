//! `cargo xtask bindings`: makes the driver's Rust bindings from the pinned toolkit's headers with a pinned libclang, so that
//! everyone makes the same bytes, and writes them or compares them.
//!
//! What makes them is the build script of `kasmina-sys` under its feature `bindgen`, which users' own bindings come from too.
//! So this runs Cargo on that crate, and by the way sees that the crate compiles with what came out.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};

use kasmina_sys::build::{
    BuildError, Environment, find_headers, install_headers, install_libclang,
};
use serde::Deserialize;

use crate::workspace;

/// The committed file, from the workspace's root.
const FILE: &str = "kasmina-sys/src/bindings.rs";
/// What mends a difference.
const COMMAND: &str = "cargo xtask bindings";

/// Arguments of `cargo xtask bindings`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Compare with the committed file, change nothing, and fail where they differ
    #[arg(long)]
    check: bool,
    /// Use the headers in this folder instead of the pinned toolkit's
    #[arg(long, value_name = "DIR")]
    include: Option<PathBuf>,
}

/// Why the command stopped.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("could not write: {0}")]
    Output(#[from] io::Error),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{0} lies in no Cargo workspace; run this inside the project")]
    NoWorkspace(String),
    #[error("the bindings could not be made ({0}); what was wrong stands above")]
    NotMade(ExitStatus),
    #[error("kasmina-sys does not compile with these bindings ({0}); what was wrong stands above")]
    DoesNotCompile(ExitStatus),
    #[error("{FILE} is not what these headers give: {0}\nrun `{COMMAND}`")]
    Differs(Difference),
}

/// Where two texts part.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is\n  {}\nand ought to be\n  {}", shown(.is), shown(.ought))]
struct Difference {
    /// From 1.
    line: usize,
    /// The line of the committed file; `None` past its end.
    is: Option<String>,
    /// The line that was made; `None` past its end.
    ought: Option<String>,
}

fn shown(line: &Option<String>) -> &str {
    line.as_deref().unwrap_or("(the end of the file)")
}

/// Runs the command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    match run(args, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let here = std::env::current_dir()?;
    let root =
        workspace::root(&here).ok_or_else(|| Failure::NoWorkspace(here.display().to_string()))?;
    let environment = Environment::of_process();
    let mut progress = |what: &str| eprintln!("{what}");
    let include = match &args.include {
        Some(folder) => {
            // The build script runs in another folder.
            let folder = std::path::absolute(folder)?;
            find_headers(&Environment::of([("KASMINA_CUDA_INCLUDE", folder.as_os_str())]))?
        }
        None => install_headers(&environment, &mut progress)?,
    };
    let libclang = match environment.get("LIBCLANG_PATH") {
        Some(path) => std::path::absolute(path)?,
        None => install_libclang(&environment, &mut progress)?,
    };
    writeln!(out, "headers from {}, libclang from {}", include.display(), libclang.display())?;

    let (made, compiled) = make(&root, &include, &libclang)?;
    let path = root.join(FILE);
    let failed = |source| Failure::File { path: path.clone(), source };
    let is = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(failed)?,
    };
    match first_difference(&is, &made) {
        None => writeln!(out, "{FILE} is what these headers give")?,
        Some(difference) if args.check => return Err(Failure::Differs(difference)),
        Some(difference) => {
            replace(&path, &made).map_err(failed)?;
            writeln!(out, "{FILE} written; it differed from line {} on", difference.line)?;
        }
    }
    if compiled.success() { Ok(()) } else { Err(Failure::DoesNotCompile(compiled)) }
}

/// One line of what Cargo says of a build, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    package_id: Option<String>,
    out_dir: Option<PathBuf>,
}

/// The bindings as the build script of `kasmina-sys` makes them, and whether the crate compiles with them.
fn make(root: &Path, include: &Path, libclang: &Path) -> Result<(String, ExitStatus), Failure> {
    let output = workspace::cargo()
        .args(["check", "--package", "kasmina-sys", "--lib", "--features", "bindgen"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .env("KASMINA_CUDA_INCLUDE", include)
        .env("LIBCLANG_PATH", libclang)
        // Someone's own options would make someone's own bindings.
        .env_remove("BINDGEN_EXTRA_CLANG_ARGS")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let folder = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "build-script-executed")
        .filter(|message| message.package_id.as_deref().is_some_and(is_kasmina_sys))
        .find_map(|message| message.out_dir)
        .ok_or(Failure::NotMade(output.status))?;
    let path = folder.join("bindings.rs");
    let made = std::fs::read_to_string(&path).map_err(|source| Failure::File { path, source })?;
    Ok((made, output.status))
}

/// Whether Cargo's name for a package, `path+file:///…/kasmina-sys#0.1.0` or `…#kasmina-sys@0.1.0`, is that crate's.
fn is_kasmina_sys(id: &str) -> bool {
    let (place, name) = id.rsplit_once('#').unwrap_or((id, ""));
    place.ends_with("/kasmina-sys") || name.starts_with("kasmina-sys@")
}

/// Beside its place and moved, so that an interrupted run leaves the old file: without it this command does not build.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("rs.new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}

fn first_difference(is: &str, ought: &str) -> Option<Difference> {
    let (mut is, mut ought) = (is.split('\n'), ought.split('\n'));
    for line in 1.. {
        match (is.next(), ought.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                let (is, ought) = (a.map(str::to_owned), b.map(str::to_owned));
                return Some(Difference { line, is, ought });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_named_and_the_last_newline_counts() {
        let at = |is, ought| first_difference(is, ought).map(|difference| difference.line);
        assert_eq!(at("", ""), None);
        assert_eq!(at("a\nb\n", "a\nb\n"), None);
        assert_eq!(at("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(at("a\nb\n", "a\nb"), Some(3));
        assert_eq!(at("a\r\n", "a\n"), Some(1));
        let difference = first_difference("a", "a\nb").expect("a line is missing").to_string();
        assert!(difference.contains("line 2") && difference.contains("(the end of the file)"));
    }

    #[test]
    fn both_of_cargos_ways_to_name_a_package_are_known() {
        assert!(is_kasmina_sys("path+file:///home/me/kasmina/kasmina-sys#0.1.0"));
        assert!(is_kasmina_sys("path+file:///home/me/renamed#kasmina-sys@0.1.0"));
        assert!(!is_kasmina_sys("path+file:///home/kasmina-sys/kasmina-tma#0.1.0"));
        assert!(!is_kasmina_sys("registry+https://example.org/index#clang-sys@1.8.1"));
    }
}
