//! A process that is listened to line by line, for a limited time.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines of its standard error that are kept for an error's text.
const KEPT: usize = 3;
/// How long it may take to end, and its standard error to close, after its last line.
const GRACE: Duration = Duration::from_secs(10);

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// By itself, or because nothing more was wanted of it; `None` where it then had to be stopped.
    Exited(Option<ExitStatus>),
    /// It was stopped because its time was over.
    TimedOut,
}

/// What a process was, once it is over.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub end: End,
    /// The last lines of its standard error.
    pub last_words: Vec<String>,
}

/// Runs a command, whose standard error is passed on, and calls `hear` with each line of its standard output until that says
/// `Ok(false)`, the process ends, or `limit` is over. It does not outlive this call.
///
/// # Errors
/// It could not be started, or `hear` failed.
pub fn listen<E: From<io::Error>>(
    command: &mut Command,
    limit: Duration,
    mut hear: impl FnMut(&str) -> Result<bool, E>,
) -> Result<Ended, E> {
    let deadline = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Stopped(command.spawn()?);
    let (sender, said) = channel();
    if let Some(stdout) = child.0.stdout.take() {
        thread::spawn(move || tell(stdout, &sender));
    }
    let (sender, words) = channel();
    if let Some(stderr) = child.0.stderr.take() {
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                eprintln!("peers: {line}");
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    let end = loop {
        match said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if !hear(&line)? {
                    break End::Exited(child.wait(GRACE)?);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break End::Exited(child.wait(GRACE)?),
            Err(RecvTimeoutError::Timeout) => break End::TimedOut,
        }
    };
    drop(child);
    Ok(Ended { end, last_words: last_words(&words) })
}

fn tell(stdout: ChildStdout, sender: &Sender<String>) {
    for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
        if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
    }
}

/// A grandchild may hold the standard error open, so that its end is not waited for without a limit.
fn last_words(words: &Receiver<String>) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut kept = VecDeque::new();
    while let Ok(line) = words.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if !line.trim().is_empty() {
            kept.push_back(line);
        }
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
    kept.into()
}

/// A process that is killed when it is dropped.
struct Stopped(Child);

impl Stopped {
    /// Its status, or none where it does not end in time.
    fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Both fail only where it is over already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (Vec<String>, Ended) {
        let mut said = Vec::new();
        let ended = listen::<io::Error>(Command::new("sh").args(["-c", script]), limit, |line| {
            said.push(line.to_owned());
            Ok(line != "stop")
        });
        (said, ended.expect("it runs"))
    }

    #[test]
    fn every_line_is_heard_and_the_last_words_are_kept() {
        let script = "echo one; for i in 1 2 3 4; do echo $i >&2; done; echo two; exit 3";
        let (said, ended) = shell(script, GRACE);
        assert_eq!(said, ["one", "two"]);
        assert_eq!(ended.last_words, ["2", "3", "4"]);
        let End::Exited(Some(status)) = ended.end else { panic!("{ended:?}") };
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn it_is_stopped_when_its_time_is_over() {
        let begun = Instant::now();
        let (said, ended) = shell("echo one; exec sleep 60", Duration::from_millis(300));
        assert_eq!(said, ["one"]);
        assert!(matches!(ended.end, End::TimedOut), "{ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn nothing_is_heard_after_the_last_line() {
        let (said, _) = shell("echo stop; echo more", GRACE);
        assert_eq!(said, ["stop"]);
    }
}
