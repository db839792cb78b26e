//! Each test in a process of its own: a fault ends the simulated context and with it whatever came later in the same process.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::build::Executable;
use super::{Failure, io_at};

/// Lines of a failed test's output that are shown; all of it is in its log.
const SHOWN: usize = 40;
const GLANCE: Duration = Duration::from_millis(10);

/// A test.
#[derive(Clone, Debug)]
pub(super) struct Test<'a> {
    pub(super) executable: &'a Executable,
    pub(super) name: String,
}

/// What tests are run with.
#[derive(Clone, Debug)]
pub(super) struct Variables {
    pub(super) library: PathBuf,
    pub(super) seed: u64,
    pub(super) capability: String,
    pub(super) cases: String,
    pub(super) cache: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) timeout: Duration,
}

/// What a test came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// The test says that it does not apply, and why.
    Ignored(String),
    /// It failed, crashed, or did not end; how.
    Failed(String),
}

/// The names of an executable's tests.
pub(super) fn list(executable: &Executable) -> Result<Vec<String>, Failure> {
    let output =
        Command::new(&executable.path).arg("--list").output().map_err(io_at(&executable.path))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs the tests, several at a time, and tells of each when it ends. The outcomes are in the tests' order.
pub(super) fn all(
    tests: &[Test<'_>],
    variables: &Variables,
    jobs: usize,
    out: &mut dyn Write,
) -> Result<Vec<Outcome>, Failure> {
    for folder in [&variables.logs, &variables.cache] {
        fs::create_dir_all(folder).map_err(io_at(folder))?;
    }
    let next = AtomicUsize::new(0);
    let mut outcomes = vec![Outcome::Failed("it was not run".to_owned()); tests.len()];
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for _ in 0..jobs {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(test) = tests.get(at) else { return };
                    let begin = Instant::now();
                    let (outcome, log) = one(test, variables);
                    // The receiver goes only when its output is closed, and then nobody is interested.
                    let _ = send.send((at, outcome, log, begin.elapsed()));
                }
            });
        }
        drop(send);
        for (at, outcome, log, time) in receive {
            tell(&tests[at], &outcome, &log, time, out)?;
            outcomes[at] = outcome;
        }
        Ok(outcomes)
    })
}

fn tell(
    test: &Test<'_>,
    outcome: &Outcome,
    log: &Path,
    time: Duration,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let name = format!("{} {}", test.executable.package, test.name);
    let seconds = time.as_secs_f64();
    match outcome {
        Outcome::Passed => writeln!(out, "ok      {seconds:6.1} s {name}")?,
        Outcome::Ignored(reason) => writeln!(out, "ignored {seconds:6.1} s {name}: {reason}")?,
        Outcome::Failed(how) => {
            writeln!(out, "FAILED  {seconds:6.1} s {name}: {how}")?;
            let text = fs::read(log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(SHOWN)..] {
                writeln!(out, "    {line}")?;
            }
            writeln!(out, "    all of it: {}", log.display())?;
        }
    }
    Ok(())
}

/// Runs one test; its outcome and where its output lies.
fn one(test: &Test<'_>, variables: &Variables) -> (Outcome, PathBuf) {
    let log = variables.logs.join(format!("{}.{}.log", test.executable.package, test.name));
    match start(test, variables, &log).and_then(|child| wait(child, variables.timeout)) {
        Ok(Some(status)) => {
            let text = fs::read(&log).unwrap_or_default();
            (judge(status, &test.name, &String::from_utf8_lossy(&text)), log)
        }
        Ok(None) => (
            Outcome::Failed(format!("it did not end within {} s", variables.timeout.as_secs())),
            log,
        ),
        Err(error) => (Outcome::Failed(format!("it could not be run: {error}")), log),
    }
}

fn start(test: &Test<'_>, variables: &Variables, log: &Path) -> std::io::Result<Child> {
    let file = fs::File::create(log)?;
    let mut command = Command::new(&test.executable.path);
    command
        .args(["--exact", &test.name, "--test-threads", "1", "--color", "never"])
        .env("KASMINA_CUDA_LIBRARY", &variables.library)
        .env("KASMINA_REQUIRE_GPU", "1")
        .env("KASMINA_SANITIZER", "simulator")
        .env("KASMINA_TEST_CASES", &variables.cases)
        .env("KASMINA_CACHE_DIR", &variables.cache)
        .env("KASMINA_SIMULATOR_SEED", variables.seed.to_string())
        .env("KASMINA_SIMULATOR_CAPABILITY", &variables.capability)
        // Devices are the simulator's business here.
        .env_remove("CUDA_VISIBLE_DEVICES")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    command.spawn()
}

/// The status of a process that ends in time; one that does not is ended.
fn wait(mut child: Child, timeout: Duration) -> std::io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(GLANCE);
    }
}

/// What a test's exit and output mean. A process that ends well has run the one test that it was asked for, or says that it did not.
fn judge(status: ExitStatus, name: &str, text: &str) -> Outcome {
    if !status.success() {
        return Outcome::Failed(status.to_string());
    }
    let told = format!("test {name}");
    let line = text.lines().find(|line| line.starts_with(&told));
    match line.and_then(|line| line.split_once(" ... ")) {
        Some((_, "ok")) => Outcome::Passed,
        Some((_, rest)) if rest.starts_with("ignored") => {
            let reason = rest.trim_start_matches("ignored").trim_start_matches([',', ' ']);
            Outcome::Ignored(reason.to_owned())
        }
        // A test that prints breaks its line in two.
        _ if text.contains("test result: ok. 1 passed") => Outcome::Passed,
        _ if text.contains("0 failed; 1 ignored") => {
            Outcome::Ignored("it says no reason".to_owned())
        }
        _ => Outcome::Failed("it ended without running the test".to_owned()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn an_outcome_is_what_the_harness_says_and_a_crash_is_none_of_them() {
        let ended = |code| ExitStatus::from_raw(code << 8);
        assert_eq!(judge(ended(0), "a", "test a ... ok\n"), Outcome::Passed);
        assert_eq!(
            judge(ended(0), "a", "test a ... ignored, no clusters\n"),
            Outcome::Ignored("no clusters".into())
        );
        assert_eq!(
            judge(ended(0), "a", "test a ... 3 rounds\nok\ntest result: ok. 1 passed; 0 failed"),
            Outcome::Passed
        );
        assert!(matches!(judge(ended(0), "a", "running 0 tests\n"), Outcome::Failed(_)));
        assert!(matches!(judge(ended(101), "a", "test a ... ok\n"), Outcome::Failed(_)));
        assert!(matches!(
            judge(ExitStatus::from_raw(11), "a", "test a ... ok\n"),
            Outcome::Failed(_)
        ));
    }
}
