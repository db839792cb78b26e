//! CUB at the same reductions: `bench/cub/cub_reference.cu`, which this executable carries, is compiled on the machine that has an nvcc,
//! and runs twice: once for its results, which have to agree, and then for the times of those that do.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kasmina_sys::build::{BuildError, Environment, find_nvcc};

use super::super::peers::child::{self, End, Ended};
use super::arena::Sizes;
pub use super::conversation::Software;
use super::conversation::{Conversation, Phase, Told};
use super::line::{Quantity, ReductionLine, Shape};

const SOURCE: &str = include_str!("../../../../bench/cub/cub_reference.cu");
/// As much of a line as an error shows.
const SHOWN: usize = 120;

/// How CUB is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program, if someone has compiled it already.
    pub program: Option<PathBuf>,
    /// The GPU's number.
    pub device: u32,
    /// And its name.
    pub name: String,
    /// `major.minor` of its compute capability.
    pub capability: String,
    /// Times of each line.
    pub repetitions: usize,
    /// For each run of the program, and for its compilation.
    pub limit: Duration,
}

/// Why CUB was not run, or not at all lines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CubError {
    /// None of the lines that were chosen is one of CUB's.
    #[error(
        "none of these lines is one of CUB's; sums and extremes of f32, flat and in segments, are"
    )]
    NoLine,
    /// There is no compiler.
    #[error("no nvcc: {0}; --cub names a cub_reference that was compiled elsewhere")]
    NoNvcc(String),
    /// A compiler was named that is none.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It does not compile.
    #[error("{nvcc} ended with {status}: {words}")]
    Compile {
        /// The compiler.
        nvcc: String,
        /// Its exit status.
        status: String,
        /// What it said last.
        words: String,
    },
    /// The program says why it cannot.
    #[error("{0}")]
    Unavailable(String),
    /// CUDA's runtime numbers the devices in another way.
    #[error("CUB's device of that number is {found}, not {ours}")]
    OtherDevice {
        /// CUB's.
        found: String,
        /// Ours.
        ours: String,
    },
    /// A line is not of the protocol.
    #[error("cub_reference said {line:?}: {why}")]
    Protocol {
        /// The line.
        line: String,
        /// What is wrong with it.
        why: String,
    },
    /// The process was over too early.
    #[error("cub_reference ended with {status}: {words}")]
    Ended {
        /// Its exit status.
        status: String,
        /// What it said last.
        words: String,
    },
    /// The process took too long.
    #[error("the time limit of {0} s was over before it")]
    TimedOut(u64),
    /// The program ended without a word.
    #[error("cub_reference said nothing")]
    Silent,
    /// The program ended well but left a line out.
    #[error("cub_reference left it out")]
    LeftOut,
    /// The program cannot be written or started, or its results cannot be read.
    #[error("cub_reference cannot be run: {0}")]
    Io(#[from] io::Error),
}

impl CubError {
    pub(super) fn protocol(line: &str, why: String) -> Self {
        Self::Protocol { line: line.chars().take(SHOWN).collect(), why }
    }
}

/// What CUB was, and of each line its times and the error of its results over their bound.
pub(super) type Found = (Software, Vec<Result<(super::Timing, f64), String>>);

/// Runs CUB at lines, all of which it has. `judge` gets a line's place among them and its results, and says how far these are off.
pub(super) fn run(
    options: &Options,
    sizes: &Sizes,
    lines: &[ReductionLine],
    mut judge: impl FnMut(usize, &[f32]) -> Result<f64, String>,
) -> Result<Found, CubError> {
    if lines.is_empty() {
        return Err(CubError::NoLine);
    }
    let folder = tempfile::tempdir()?;
    let program = match &options.program {
        Some(program) => program.clone(),
        None => compile(&Environment::of_process(), options, folder.path())?,
    };
    let words = words(lines, folder.path())?;
    let ask = |phase, asked: &[usize]| {
        ask(options, sizes, &program, folder.path(), (phase, asked), &words)
    };
    let all: Vec<usize> = (0..lines.len()).collect();
    let (software, told) = ask(Phase::Check, &all)?;
    let agrees = |(line, told)| match told {
        Told::Computed => judge(line, &results(folder.path(), line, lines[line].shape)?),
        Told::Timed(_) => Err(CubError::LeftOut.to_string()),
        Told::Failed(why) => Err(why),
    };
    let agreed: Vec<Result<f64, String>> = told.into_iter().enumerate().map(agrees).collect();
    let sound: Vec<usize> = all.into_iter().filter(|line| agreed[*line].is_ok()).collect();
    // Nothing is timed that does not agree.
    let timed = match &sound[..] {
        [] => Vec::new(),
        sound => ask(Phase::Time, sound)?.1,
    };
    let mut timed = timed.into_iter();
    let both = |worst| match timed.next() {
        Some(Told::Timed(timing)) => Ok((timing, worst)),
        Some(Told::Failed(why)) => Err(why),
        Some(Told::Computed) | None => Err(CubError::LeftOut.to_string()),
    };
    let mut both = both;
    let found = agreed.into_iter().map(|agreed| agreed.and_then(&mut both)).collect();
    Ok((software, found))
}

/// Each line as the program reads it, and the files that it reads with it.
fn words(lines: &[ReductionLine], folder: &Path) -> io::Result<Vec<OsString>> {
    let word = |(number, line): (usize, &ReductionLine)| {
        let what = if line.quantity == Quantity::Sum { "sum" } else { "max" };
        let elements = line.shape.elements();
        let mut word = OsString::from(format!("{number}:{what}:"));
        match line.shape {
            Shape::Segments { segment, .. } => word.push(format!("segments:{elements}:{segment}")),
            Shape::Offsets { .. } | Shape::Uneven { .. } => {
                let file = folder.join(format!("{number}.cuts"));
                let cuts = line.shape.cuts().unwrap_or_default();
                fs::write(&file, bytemuck::cast_slice::<u64, u8>(&cuts))?;
                word.push(format!("offsets:{elements}:"));
                word.push(file);
            }
            _ => word.push(format!("flat:{elements}")),
        }
        Ok(word)
    };
    lines.iter().enumerate().map(word).collect()
}

/// What the program left of a line.
fn results(folder: &Path, line: usize, shape: Shape) -> Result<Vec<f32>, String> {
    let file = folder.join(format!("{line}.f32"));
    let bytes = fs::read(&file).map_err(|error| format!("its results cannot be read: {error}"))?;
    let expected = shape.cuts().map_or(0, |cuts| cuts.len() - 1);
    if bytes.len() != 4 * expected {
        return Err(format!("{} bytes of results instead of {}", bytes.len(), 4 * expected));
    }
    Ok(bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect())
}

/// One run of the program.
fn ask(
    options: &Options,
    sizes: &Sizes,
    program: &Path,
    folder: &Path,
    (phase, asked): (Phase, &[usize]),
    words: &[OsString],
) -> Result<(Software, Vec<Told>), CubError> {
    let mut command = Command::new(program);
    command
        .arg("--device")
        .arg(options.device.to_string())
        .args(["--repetitions", &options.repetitions.to_string()])
        .args(["--arena", &sizes.arena.to_string(), "--before", &sizes.before.to_string()]);
    if phase == Phase::Check {
        command.arg("--check").arg(folder);
    }
    command.args(asked.iter().filter_map(|line| words.get(*line)));
    let mut said = Conversation::new(&options.name, phase, asked);
    let ended = child::listen(&mut command, options.limit, |line| {
        said.hear(line)?;
        Ok::<bool, CubError>(!said.is_done())
    });
    let why = match ended {
        Ok(_) if said.is_done() => None,
        Ok(ended) => {
            Some(over(ended, options.limit, |status, words| CubError::Ended { status, words }))
        }
        Err(error) => Some(error),
    };
    said.finish(why)
}

/// Why a process that is over was over too early.
fn over(ended: Ended, limit: Duration, error: impl FnOnce(String, String) -> CubError) -> CubError {
    match ended.end {
        End::TimedOut => CubError::TimedOut(limit.as_secs()),
        End::Exited(status) => {
            let status = status.map_or_else(|| "no status".to_owned(), |s| s.to_string());
            error(status, ended.last_words.join(" / "))
        }
    }
}

/// Compiles the program into a folder, for the device's machine code.
fn compile(
    environment: &Environment,
    options: &Options,
    folder: &Path,
) -> Result<PathBuf, CubError> {
    let search = find_nvcc(environment)?;
    let Some(nvcc) = search.found else {
        let reasons =
            search.passed_by.iter().map(|place| format!("{}: {}", place.origin, place.reason));
        return Err(CubError::NoNvcc(reasons.collect::<Vec<_>>().join(", ")));
    };
    let (source, program) = (folder.join("cub_reference.cu"), folder.join("cub_reference"));
    fs::write(&source, SOURCE)?;
    let mut command = Command::new(&nvcc.path);
    command.args([
        "-O3",
        "-std=c++17",
        &format!("-arch=sm_{}", options.capability.replace('.', "")),
    ]);
    // Where the toolkit came from Python packages, nvcc does not know where its libraries are.
    let libraries = nvcc.path.parent().and_then(Path::parent).map(|toolkit| toolkit.join("lib"));
    if let Some(libraries) = libraries.filter(|folder| folder.is_dir()) {
        command.arg("-L").arg(libraries);
    }
    command.arg("-o").arg(&program).arg(&source);
    eprintln!("compiling cub_reference.cu by nvcc {} of {}", nvcc.release, nvcc.origin);
    let ended = child::listen(&mut command, options.limit, |_| Ok::<bool, CubError>(true))?;
    if matches!(&ended.end, End::Exited(Some(status)) if status.success()) {
        return Ok(program);
    }
    let nvcc = nvcc.path.display().to_string();
    Err(over(ended, options.limit, |status, words| CubError::Compile { nvcc, status, words }))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::PermissionsExt;

    use super::super::line::{Scalar, Way};
    use super::*;

    const SIZES: Sizes = Sizes { arena: 1 << 28, before: 1 << 20 };

    fn options(program: Option<PathBuf>) -> Options {
        let limit = Duration::from_secs(20);
        let (name, capability) = ("GPU".to_owned(), "9.0".to_owned());
        Options { program, device: 0, name, capability, repetitions: 3, limit }
    }

    fn lines() -> Vec<ReductionLine> {
        let line = |quantity, shape| ReductionLine {
            quantity,
            shape,
            scalar: Scalar::F32,
            way: Way::Hierarchical,
        };
        vec![
            line(Quantity::Sum, Shape::Flat { elements: 4096 }),
            line(Quantity::Bounds, Shape::Segments { elements: 100, segment: 50 }),
            line(Quantity::Sum, Shape::Offsets { elements: 100, segment: 60 }),
        ]
    }

    /// A program, or a compiler, that is a shell script.
    fn fake(folder: &Path, name: &str, script: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    const SAYS: &str = r#"
echo '{"kind":"found","device":"GPU","cub":"3.0.2","toolkit":"13.0"}'
case " $* " in
*" --check "*)
    while test "$1" != --check; do shift; done
    printf 'aaaa' > "$2/0.f32"; printf 'aaaabbbb' > "$2/1.f32"; printf 'aaaa' > "$2/2.f32"
    for i in 0 1 2; do echo '{"kind":"computed","line":'$i'}'; done ;;
*) for line in "$@"; do case "$line" in
    ?:*) echo '{"kind":"timed","line":'${line%%:*}',"milliseconds":[1.0,3.0,2.0]}' ;;
    esac; done ;;
esac
echo '{"kind":"done"}'"#;

    #[test]
    fn what_agrees_is_timed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let script = format!("echo \"$*\" >> {}\n{SAYS}", log.display());
        let program = fake(folder.path(), "cub", &script);
        let mut seen = Vec::new();
        let (software, found) = run(&options(Some(program)), &SIZES, &lines(), |line, results| {
            seen.push((line, results.to_vec()));
            if line == 0 { Err("sum is 2, not 3".to_owned()) } else { Ok(0.5) }
        })
        .expect("it runs");
        assert_eq!(software, Software { cub: "3.0.2".to_owned(), toolkit: "13.0".to_owned() });
        let a = f32::from_le_bytes(*b"aaaa");
        assert_eq!(seen, [(0, vec![a]), (1, vec![a, f32::from_le_bytes(*b"bbbb")])]);
        assert_eq!(found[0], Err("sum is 2, not 3".to_owned()));
        let (timing, worst) = found[1].clone().expect("it agrees");
        assert_eq!((timing.milliseconds, worst), (vec![1.0, 3.0, 2.0], 0.5));
        assert_eq!(found[2], Err("4 bytes of results instead of 8".to_owned()));
        let log = fs::read_to_string(log).expect("it was called");
        let calls: Vec<&str> = log.lines().collect();
        assert_eq!(calls.len(), 2, "{log}");
        assert!(
            calls[0].starts_with(
                "--device 0 --repetitions 3 --arena 268435456 --before 1048576 --check "
            )
        );
        assert!(
            calls[0].contains(" 0:sum:flat:4096 1:max:segments:100:50 2:sum:offsets:100:/"),
            "{log}"
        );
        assert!(calls[1].ends_with("--before 1048576 1:max:segments:100:50"), "{log}");
    }

    #[test]
    fn offsets_are_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let words = words(&lines(), folder.path()).expect("they can be written");
        let word = words[2].to_str().expect("text");
        let file = word.strip_prefix("2:sum:offsets:100:").expect(word);
        let bytes = fs::read(file).expect("it is there");
        let cuts: Vec<u64> = bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
        assert_eq!(cuts, [0, 60, 100]);
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = |script: &str| {
            let program = fake(folder.path(), "cub", script);
            run(&options(Some(program)), &SIZES, &lines(), |_, _| Ok(0.0))
        };
        let error = run("echo 'no libcuda' >&2; exit 4").expect_err("it failed").to_string();
        assert!(error.contains("exit status: 4: no libcuda"), "{error}");
        let error = run(r#"echo '{"kind":"unavailable","why":"no device"}'"#).expect_err("none");
        assert_eq!(error.to_string(), "no device");
        // What it had not come to is lost with it, and nothing is timed.
        let found = r#"{"kind":"found","device":"GPU","cub":"3","toolkit":"13"}"#;
        let (_, lost) = run(&format!("echo '{found}'; kill -SEGV $$")).expect("it was found");
        assert!(lost.iter().all(|row| row.as_ref().is_err_and(|why| why.contains("signal"))));
        let missing = options(Some("/no/such/program".into()));
        let error = super::run(&missing, &SIZES, &lines(), |_, _| Ok(0.0)).expect_err("none");
        assert!(error.to_string().contains("cannot be run"), "{error}");
        let none = super::run(&options(None), &SIZES, &[], |_, _| Ok(0.0));
        assert!(matches!(none, Err(CubError::NoLine)));
    }

    #[test]
    fn it_is_compiled_by_the_nvcc_that_is_found_or_the_reason_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = folder.path().join("cache");
        let nothing = Environment::of([("KASMINA_CACHE_DIR", cache.as_os_str())]);
        let error = compile(&nothing, &options(None), folder.path()).expect_err("none").to_string();
        assert!(error.starts_with("no nvcc: KASMINA_NVCC: not set, CUDA_HOME: not set"), "{error}");
        assert!(error.contains("--cub"), "{error}");
        let version = r#"case "$1" in --version) echo 'release 13.0, V13.0.88'; exit 0 ;; esac"#;
        let named = |script: &str| {
            let nvcc = fake(folder.path(), "nvcc", &format!("{version}\n{script}"));
            let environment = Environment::of([("KASMINA_NVCC", OsStr::new(nvcc.as_os_str()))]);
            compile(&environment, &options(None), folder.path())
        };
        let program = named(r#"echo "$*" > "${7:-$5}" || exit 1; test "$3" = -arch=sm_90"#);
        let error = named("echo 'no such option' >&2; exit 2").expect_err("it fails").to_string();
        assert!(error.contains("exit status: 2: no such option"), "{error}");
        let program = program.expect("it compiles");
        let called = fs::read_to_string(&program).expect("it was made");
        assert!(
            called.starts_with("-O3 -std=c++17 -arch=sm_90 ")
                && called.contains("cub_reference.cu")
        );
    }

    /// With a compiler, but whatever device there is: it says what it found, or why there is nothing.
    #[test]
    #[ignore = "takes an nvcc, which `cargo xtask build-kernels` installs, and a minute"]
    fn the_program_compiles_and_starts() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options { limit: Duration::from_secs(600), ..options(None) };
        let environment = Environment::of_process();
        let program = compile(&environment, &options, folder.path()).expect("it compiles");
        let options = Options { program: Some(program), ..options };
        let error =
            run(&options, &SIZES, &lines(), |_, _| Ok(0.0)).expect_err("no device is a \"GPU\"");
        let told = matches!(error, CubError::Unavailable(_) | CubError::OtherDevice { .. });
        assert!(told, "{error}");
    }
}
