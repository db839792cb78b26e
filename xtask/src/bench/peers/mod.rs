//! `cargo xtask bench --peers`: what a user would run instead, at the same work, on the same device, in the same run.
//!
//! The peers are Python scripts (`bench/peers`), which PyTorch and Triton run; [`scripts`] carries them, [`oracle`] makes the
//! cases that their reference is judged by, [`child`] runs them, [`protocol`] understands them, and [`table`] shows it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kasmina_core::DType;
use serde::{Deserialize, Serialize};

use super::case::{Case, On, Seeds, Work};
use super::header::Cpu;
use super::row::Row;
use crate::make_cases::DrawError;

pub mod child;
pub mod oracle;
pub mod protocol;
pub mod scripts;
pub mod table;

use child::{End, Ended};
use protocol::{Conversation, Peer, PeerRow, Software};

/// Names the Python, where no option does.
const VARIABLE: &str = "KASMINA_PYTHON";
const DEFAULT_PYTHON: &str = "python3";
/// As much of a line as an error shows.
const SHOWN: usize = 120;

/// How the peers are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Python that runs them.
    pub python: OsString,
    /// What runs them.
    pub place: Place,
    /// Times of each.
    pub repetitions: usize,
    /// For all of them together.
    pub limit: Duration,
}

/// What runs the peers.
#[derive(Clone, Debug)]
pub enum Place {
    /// The GPU of this number.
    Gpu(u32),
    /// The processor.
    Cpu(Cpu),
}

/// What the peers were and took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// What they ran on.
    pub software: Software,
    /// One a case and peer.
    pub rows: Vec<PeerRow>,
}

/// Why the peers were not run, or not all of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeersError {
    /// None of the lines that were chosen has any.
    #[error(
        "none of these lines has peers; forward + telemetry and forward + backward of 8192×8192 f32, or of 4096×4096 on a processor, have"
    )]
    NoCase,
    /// Python is not there.
    #[error("{python} cannot be run ({source}); --python or {VARIABLE} name another")]
    NoPython {
        /// What was tried.
        python: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The scripts say why they cannot.
    #[error("{0}")]
    Unavailable(String),
    /// PyTorch numbers the devices in another way.
    #[error("PyTorch's device of that number is {found}, not {ours}")]
    OtherDevice {
        /// PyTorch's.
        found: String,
        /// Ours.
        ours: String,
    },
    /// A line is not of the protocol.
    #[error("the scripts said {line:?}: {why}")]
    Protocol {
        /// The line.
        line: String,
        /// What is wrong with it.
        why: String,
    },
    /// The process was over too early.
    #[error("Python ended with {status}: {words}")]
    Ended {
        /// Its exit status.
        status: String,
        /// What it said last.
        words: String,
    },
    /// The process took too long.
    #[error("the time limit of {0} s was over before it")]
    TimedOut(u64),
    /// The scripts ended without a word.
    #[error("the scripts said nothing")]
    Silent,
    /// The scripts ended well but left a row out.
    #[error("the scripts left it out")]
    LeftOut,
    /// The oracle made no cases.
    #[error(transparent)]
    Oracle(#[from] DrawError),
    /// The scripts cannot be written, or their output cannot be read.
    #[error("the scripts cannot be run: {0}")]
    Io(#[from] io::Error),
}

impl PeersError {
    fn protocol(line: &str, why: String) -> Self {
        Self::Protocol { line: line.chars().take(SHOWN).collect(), why }
    }
}

/// The Python that an option names, or the environment, or the one on PATH.
#[must_use]
pub fn python(option: Option<&Path>) -> OsString {
    let named = || std::env::var_os(VARIABLE).filter(|name| !name.is_empty());
    option.map(|path| path.as_os_str().to_owned()).or_else(named).unwrap_or(DEFAULT_PYTHON.into())
}

/// Whether the peers do a case: few, because compiling one takes its time, and of those of a quick run one shape and type.
#[must_use]
pub fn has_peers(case: &Case, on: On, quick: bool) -> bool {
    let pass = matches!(
        (case.work, case.seeds),
        (Work::ForwardTelemetry, Seeds::Dormant | Seeds::Residual)
            | (Work::ForwardBackward, Seeds::ExpansionTrains)
    );
    let matrices = case.matrices;
    let dtype = match matrices.dtype {
        DType::F32 => true,
        DType::Bf16 => case.chunk == 64 && !quick,
        DType::F16 => false,
    };
    pass && dtype && (matrices.rows, matrices.hidden) == on.peers_shape()
}

/// Runs the peers of `cases` on the GPU that is called `device`, or on the processor, and compares them with `ours`.
///
/// # Errors
/// Why none was run. One that fails is in its row.
pub fn run(
    options: &Options,
    device: &str,
    cases: &[Case],
    ours: &[Row],
) -> Result<Peers, PeersError> {
    if cases.is_empty() {
        return Err(PeersError::NoCase);
    }
    let folder = tempfile::tempdir()?;
    let mut command = command(options, folder.path(), cases)?;
    // A processor has a name of its own in each language, and there is but one.
    let (device, on) = match options.place {
        Place::Gpu(_) => (Some(device), On::Gpu),
        Place::Cpu(_) => (None, On::Cpu),
    };
    let mut said = Conversation::new(device, cases, Peer::all(on));
    let ended = child::listen(&mut command, options.limit, |line| {
        said.hear(line)?;
        Ok::<bool, Heard>(!said.is_done())
    });
    let why = match ended {
        Ok(_) if said.is_done() => None,
        Ok(Ended { end: End::TimedOut, .. }) => Some(PeersError::TimedOut(options.limit.as_secs())),
        Ok(Ended { end: End::Exited(status), last_words }) => {
            let status = status.map_or_else(|| "no status".to_owned(), |s| s.to_string());
            Some(PeersError::Ended { status, words: last_words.join(" / ") })
        }
        Err(Heard::Start(source)) => {
            let python = options.python.to_string_lossy().into_owned();
            Some(PeersError::NoPython { python, source })
        }
        Err(Heard::Line(error)) => Some(error),
    };
    let (software, mut rows) = said.finish(why)?;
    for row in &mut rows {
        compare(row, ours);
    }
    Ok(Peers { software, rows })
}

/// The line that was heard, or what kept any from being heard.
enum Heard {
    Start(io::Error),
    Line(PeersError),
}

impl From<io::Error> for Heard {
    fn from(error: io::Error) -> Self {
        Self::Start(error)
    }
}

impl From<PeersError> for Heard {
    fn from(error: PeersError) -> Self {
        Self::Line(error)
    }
}

fn command(options: &Options, folder: &Path, cases: &[Case]) -> Result<Command, PeersError> {
    let device = match options.place {
        Place::Gpu(number) => format!("cuda:{number}"),
        Place::Cpu(_) => "cpu".to_owned(),
    };
    let mut command = Command::new(&options.python);
    command
        .arg(scripts::write(folder)?)
        .args(["--device", &device])
        .args(["--repetitions", &options.repetitions.to_string()])
        // What compilers leave behind goes with the folder, and nothing of an earlier run is used.
        .env("TORCHINDUCTOR_CACHE_DIR", folder.join("inductor"))
        .env("TRITON_CACHE_DIR", folder.join("triton"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if let Place::Cpu(cpu) = &options.place {
        command.arg(format!("--threads={}", cpu.threads));
        command.args(cpu.cache_bytes.map(|bytes| format!("--cache={bytes}")));
    }
    for file in oracle_files(folder)? {
        command.arg("--oracle").arg(file);
    }
    for case in cases {
        command.arg("--case").arg(serde_json::to_string(case).map_err(io::Error::from)?);
    }
    Ok(command)
}

/// Writes the oracle's cases into a folder.
///
/// # Errors
/// The oracle refused one, or it cannot be written.
pub fn oracle_files(folder: &Path) -> Result<Vec<PathBuf>, PeersError> {
    let mut files = Vec::new();
    for (i, case) in oracle::cases()?.into_iter().enumerate() {
        let file = folder.join(format!("oracle-{i}.safetensors"));
        fs::write(&file, case.encode())?;
        files.push(file);
    }
    Ok(files)
}

/// Sets the ratio of a peer's median to ours.
fn compare(row: &mut PeerRow, ours: &[Row]) {
    let ours = ours.iter().find(|ours| ours.case == row.case);
    let ours = ours.and_then(|ours| ours.outcome.as_ref().ok()?.summary);
    if let Ok(numbers) = &mut row.outcome {
        numbers.ratio = numbers.summary.zip(ours).map(|(peer, ours)| peer.median / ours.median);
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::cases;
    use super::*;

    fn options(python: &str) -> Options {
        let limit = Duration::from_secs(20);
        Options { python: python.into(), place: Place::Gpu(0), repetitions: 31, limit }
    }

    /// A Python that is a shell script.
    fn fake(folder: &Path, script: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join("python");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path.to_str().expect("a path").to_owned()
    }

    /// Those of a quick run.
    fn some() -> Vec<Case> {
        cases(On::Gpu, true, None)
            .into_iter()
            .filter(|case| has_peers(case, On::Gpu, true))
            .collect()
    }

    #[test]
    fn few_lines_have_peers() {
        let all = cases(On::Gpu, false, None);
        // Three passes: f32 in three chunks and bf16 in one, or f32 in one.
        assert_eq!(all.iter().filter(|case| has_peers(case, On::Gpu, false)).count(), 12);
        assert_eq!(some().len(), 3);
    }

    #[test]
    fn a_missing_python_is_named() {
        let error = run(&options("/no/such/python"), "GPU", &some(), &[]).expect_err("none there");
        assert!(matches!(error, PeersError::NoPython { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("/no/such/python") && text.contains("KASMINA_PYTHON"), "{text}");
    }

    #[test]
    fn lines_without_peers_start_nothing() {
        let error = run(&options("/no/such/python"), "GPU", &[], &[]);
        assert!(matches!(error, Err(PeersError::NoCase)));
    }

    #[test]
    fn a_python_that_fails_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let python = fake(folder.path(), "echo 'no module of that name' >&2; exit 4");
        let error = run(&options(&python), "GPU", &some(), &[]).expect_err("it failed");
        assert!(error.to_string().contains("exit status: 4: no module of that name"), "{error}");
    }

    #[test]
    fn what_was_measured_before_a_crash_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let python = fake(
            folder.path(),
            r#"test -f "$1" && test -f "${1%/*}/layer.py" || exit 9
echo '{"kind":"found","device":"GPU","python":"3","torch":"2","triton":"3"}'
echo '{"kind":"row","case":0,"peer":"eager","outcome":{"Ok":{"timing":{"milliseconds":[4.0],"launches":1},"worst_error":0.1,"sets":3,"cold_cache":true,"note":null}}}'
kill -SEGV $$"#,
        );
        let some = some();
        let peers = run(&options(&python), "GPU", &some, &[]).expect("it said something");
        assert_eq!(peers.rows.len(), 3 * Peer::all(On::Gpu).len());
        let first = &peers.rows[0];
        assert_eq!((first.case, first.peer), (some[0], Peer::Eager));
        assert!(first.outcome.as_ref().is_ok_and(|numbers| numbers.ratio.is_none()));
        let lost = peers.rows[1].outcome.as_ref().expect_err("it was lost");
        assert!(lost.contains("signal"), "{lost}");
    }

    #[test]
    fn the_option_names_the_python() {
        assert_eq!(python(Some(Path::new("/p"))), "/p");
    }
}
