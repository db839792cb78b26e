//! A bundle of scripts that play executables, for the tests of `run.sh`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// What every played test executable begins with: the arguments of libtest, as `run.sh` gives them. `say` writes to where
/// the harness writes, apart from what tests print.
const PROLOGUE: &str = r#"#!/bin/bash
events=/dev/stdout list=0 filter=
while (( $# )); do
    case $1 in
        --logfile) events=$2; shift 2 ;;
        --color) shift 2 ;;
        --list) list=1; shift ;;
        --*) shift ;;
        *) filter=$1; shift ;;
    esac
done
say() { printf '%s\n' "$@" >>"$events"; }
if (( list )); then
    for name in $tests; do [[ $name == *"$filter"* ]] && echo "$name: test"; done
    exit 0
fi
"#;

/// A folder that `run.sh` takes for a bundle.
pub(crate) struct Bundle {
    folder: tempfile::TempDir,
    table: String,
}

impl Bundle {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("bin")).expect("a folder");
        script(&folder.path().join("run.sh"), xtask::gpu_bundle::RUN_SCRIPT);
        Self { folder, table: "format\t1\ncommit\tc0ffee\n".to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A line of the table.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.table.push_str(line);
        self.table.push('\n');
        self
    }

    /// A test executable with `tests`, names between spaces, that does what `body` says.
    pub(crate) fn test(self, name: &str, tests: &str, body: &str) -> Self {
        let text = PROLOGUE.replace("events=/dev", &format!("tests='{tests}' events=/dev")) + body;
        self.executable("test", name, &text)
    }

    /// Any executable.
    pub(crate) fn executable(self, kind: &str, name: &str, text: &str) -> Self {
        let file = format!("bin/{kind}.{name}");
        script(&self.path().join(&file), text);
        self.line(&format!("{kind}\tpackage\t{name}\t{file}"))
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, &[])
    }

    pub(crate) fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
        fs::write(self.path().join("bundle.tsv"), &self.table).expect("it is written");
        let output = Command::new("bash")
            .arg(self.path().join("run.sh"))
            .args(arguments)
            .env_remove("KASMINA_RESULTS")
            .env_remove("KASMINA_REQUIRE_GPU")
            .env_remove("CUDA_HOME")
            .env_remove("CUDA_PATH")
            .envs(variables.iter().copied())
            .output()
            .expect("bash runs");
        Run::new(output)
    }

    /// Runs with `--junit` and returns the file's text beside.
    pub(crate) fn junit(&self, arguments: &[&str]) -> (Run, String) {
        let file = self.path().join("junit.xml");
        let arguments = [arguments, &["--junit", file.to_str().expect("text")]].concat();
        let run = self.run(&arguments);
        (run, fs::read_to_string(file).expect("it was written"))
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path().join("logs").join(name)).expect("there is a log")
    }
}

pub(crate) fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("it is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is made executable");
}

/// How a run ended and what it said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// The exit code is `code`, and `parts` were said.
    pub(crate) fn says(&self, code: i32, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(
                self.out.contains(part) || self.err.contains(part),
                "{part:?} was not said: {self:#?}"
            );
        }
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The numbers of a row of the table: passed, failed, ignored.
    pub(crate) fn row(&self, name: &str) -> [u32; 3] {
        let table = self.out.rsplit_once("\nexecutable").expect("there is a table").1;
        let row = table.lines().find(|line| line.starts_with(name)).expect("there is a row");
        let words: Vec<&str> = row.split_whitespace().collect();
        [1, 2, 3].map(|at: usize| words[at].parse().expect("a number"))
    }
}
