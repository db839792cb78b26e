//! `run.sh` with executables that are played by scripts: what they do, what is said of it, and the exit code. And the command
//! itself, in a small workspace of its own.
#![cfg(target_os = "linux")]

#[path = "gpu_bundle/mod.rs"]
mod played;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use played::{Bundle, Run, script};
use proptest::prelude::*;
use roxmltree::{Document, Node};

const PASSES: &str = "say '' 'running 2 tests' 'test one ... ok' 'test two ... ok' '' \
    'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s' ''; echo printed";

fn case<'a>(document: &'a Document<'_>, name: &str) -> Node<'a, 'a> {
    document
        .descendants()
        .find(|node| node.has_tag_name("testcase") && node.attribute("name") == Some(name))
        .unwrap_or_else(|| panic!("no case {name}"))
}

/// The number of cases with such an element, and that every suite says so of itself.
fn counts(document: &Document<'_>) -> [usize; 4] {
    let mut sums = [0; 4];
    for suite in document.root_element().children().filter(Node::is_element) {
        let cases = || suite.children().filter(|node| node.has_tag_name("testcase"));
        let with =
            |tag| cases().filter(|case| case.children().any(|node| node.has_tag_name(tag))).count();
        let found = [cases().count(), with("failure"), with("error"), with("skipped")];
        let said: [usize; 4] = ["tests", "failures", "errors", "skipped"].map(|name| {
            suite.attribute(name).and_then(|text| text.parse().ok()).expect("a number")
        });
        assert_eq!(said, found, "{suite:?}");
        for (sum, count) in sums.iter_mut().zip(found) {
            *sum += count;
        }
    }
    sums
}

#[test]
fn the_script_is_valid_bash() {
    let bundle = Bundle::new();
    let status = Command::new("bash").arg("-n").arg(bundle.path().join("run.sh")).status();
    assert!(status.expect("bash runs").success());
}

#[test]
fn what_passes_is_counted_logged_and_reported() {
    let bundle = Bundle::new().test("gpu", "one two", PASSES);
    let (run, xml) = bundle.junit(&[]);
    run.says(0, &["package/gpu: 2 passed, 0 failed, 0 ignored", "c0ffee", "passed: 2, ignored: 0"]);
    assert_eq!(run.row("package/gpu"), [2, 0, 0]);
    assert_eq!(bundle.log("package.test.gpu.log"), "printed\n");
    let document = Document::parse(&xml).expect("XML");
    assert_eq!(counts(&document), [2, 0, 0, 0]);
    assert_eq!(case(&document, "two").attribute("classname"), Some("package.gpu"));
    // Again, over what the first run left.
    assert_eq!(bundle.run(&[]).row("package/gpu"), [2, 0, 0]);
}

#[test]
fn failures_are_told_with_their_messages() {
    let bundle = Bundle::new()
        .test(
            "gpu",
            "good bad worse",
            "say 'running 3 tests' 'test good  ... ok' 'test bad   ... FAILED' 'test worse ... FAILED' '' 'failures:' '' \
             '---- bad ----' '1 < 2 && \"3\"' 'failures:' '---- worse ----' '  indented' '' '---- worse ----' '' '' '' \
             'failures:' '    bad' '    worse' '' 'test result: FAILED.'; exit 101",
        )
        .test("fine", "one two", PASSES);
    let (run, xml) = bundle.junit(&[]);
    run.says(1, &["bad: 1 < 2 && \"3\"", "FAILED: 2 of 5"]);
    assert_eq!(run.row("package/gpu"), [1, 2, 0]);
    assert_eq!(run.row("package/fine"), [2, 0, 0]);
    let document = Document::parse(&xml).expect("XML");
    assert_eq!(counts(&document), [5, 2, 0, 0]);
    let failure = case(&document, "bad").first_element_child().expect("a failure");
    assert_eq!(failure.attribute("message"), Some("1 < 2 && \"3\""));
    // A message may look like the lines around it.
    assert_eq!(failure.text(), Some("1 < 2 && \"3\"\nfailures:"));
    let failure = case(&document, "worse").first_element_child().expect("a failure");
    assert_eq!(failure.text(), Some("  indented\n\n---- worse ----"));
}

#[test]
fn after_a_crash_what_did_not_report_is_an_error() {
    let body = "say 'running 4 tests' 'test one   ... ok'; printf 'test two   ... ' >>\"$events\"; echo last words; kill -SEGV $$";
    let bundle = Bundle::new().test("gpu", "one two three four", body);
    let (run, xml) = bundle.junit(&[]);
    run.says(
        1,
        &[
            "two: crashed by SIGSEGV in this test",
            "three: crashed by SIGSEGV in two",
            "FAILED: 3 of 4",
        ],
    );
    assert_eq!(run.row("package/gpu"), [1, 3, 0]);
    let document = Document::parse(&xml).expect("XML");
    assert_eq!(counts(&document), [4, 0, 3, 0]);
    let error =
        document.descendants().find(|node| node.has_tag_name("system-err")).expect("the log's end");
    assert!(error.text().is_some_and(|text| text.contains("last words")));
    // With a filter only what it lets through is missing.
    let run = bundle.run(&["--filter", "t"]);
    assert_eq!(run.row("package/gpu"), [1, 2, 0]);
}

#[test]
fn a_crash_after_the_last_test_is_still_a_failure() {
    for (end, reason) in [
        ("kill -ABRT $$", "crashed by SIGABRT"),
        ("exit 3", "exit code 3"),
        ("exit 101", "exit code 101"),
    ] {
        let bundle = Bundle::new().test("gpu", "one two", &format!("{PASSES}; {end}"));
        let run = bundle.run(&[]);
        run.says(1, &[&format!("executable: {reason}")]);
        assert_eq!(run.row("package/gpu"), [2, 1, 0]);
    }
}

#[test]
fn an_executable_that_says_nothing_has_not_passed() {
    for (body, tests) in [
        ("exit 0", "one two"),
        ("say 'running 2 tests' 'test one ... ok'", "one two"),
        ("exit 0", ""),
    ] {
        let bundle = Bundle::new().test("gpu", tests, body);
        bundle.run(&[]).says(1, &["ended early"]);
    }
}

#[test]
fn what_hangs_is_stopped_and_the_rest_still_runs() {
    let bundle = Bundle::new()
        .test(
            "hangs",
            "one",
            "say 'running 1 test'; printf 'test one ... ' >>\"$events\"; exec sleep 60",
        )
        .test("fine", "one two", PASSES);
    let start = Instant::now();
    let run = bundle.run(&["--timeout", "1"]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    run.says(1, &["one: no end after 1 s in this test"]);
    assert_eq!(run.row("package/hangs"), [0, 1, 0]);
    assert_eq!(run.row("package/fine"), [2, 0, 0]);
}

#[test]
fn ignored_tests_show_their_reason_and_do_not_count_as_passed() {
    let body = "say 'running 1 test' 'test one ... ignored (no CUDA driver (here); <install> one)'";
    let (run, xml) = Bundle::new().test("gpu", "one", body).junit(&["--no-require-gpu"]);
    run.says(0, &["no CUDA driver (here); <install> one", "passed: 0, ignored: 1"]);
    assert_eq!(run.row("package/gpu"), [0, 0, 1]);
    let document = Document::parse(&xml).expect("XML");
    assert_eq!(counts(&document), [1, 0, 0, 1]);
    let skipped = case(&document, "one").first_element_child().expect("skipped");
    assert_eq!(skipped.attribute("message"), Some("no CUDA driver (here); <install> one"));
}

#[test]
fn executables_get_their_variables_and_arguments() {
    let bundle = Bundle::new().executable(
        "bench",
        "driver",
        "#!/bin/bash\necho \"$KASMINA_REQUIRE_GPU $KASMINA_COMMIT $KASMINA_RESULTS:$*\"",
    );
    let results = bundle.path().join("r.jsonl");
    bundle
        .run(&[
            "--results",
            results.to_str().expect("text"),
            "--filter",
            "enc",
            "--",
            "--samples",
            "a b",
        ])
        .says(0, &[]);
    let log = bundle.log("package.bench.driver.log");
    assert_eq!(log, format!("1 c0ffee {}:--bench enc --samples a b\n", results.display()));
    bundle.run(&["--no-require-gpu"]).says(0, &[]);
    assert_eq!(bundle.log("package.bench.driver.log"), "0 c0ffee :--bench\n");
}

#[test]
fn benches_and_examples_pass_fail_or_say_that_there_is_no_gpu() {
    let bundle = Bundle::new()
        .executable("bench", "skips", "#!/bin/bash\necho 'no GPU for package: none here'")
        .executable("example", "copies", "#!/bin/bash\nexit 0")
        .executable("example", "breaks", "#!/bin/bash\necho last words\nexit 7");
    let run = bundle.run(&[]);
    run.says(1, &["none here", "exit code 7\n    last words"]);
    assert_eq!(run.row("package/skips"), [0, 0, 1]);
    assert_eq!(run.row("package/copies"), [1, 0, 0]);
    assert_eq!(run.row("package/breaks"), [0, 1, 0]);
    let run = bundle.run(&["--only", "benches"]);
    run.says(0, &[]);
    assert!(!run.out.contains("package/copies"), "{run:?}");
}

#[test]
fn doctor_comes_first_and_verify_runs_the_cases() {
    let tool = "#!/bin/bash\necho \"tool $*\"\n[[ $* != *--require-gpu* ]]";
    let bundle = Bundle::new().executable("tool", "xtask", tool).test("gpu", "one two", PASSES);
    fs::create_dir(bundle.path().join("cases")).expect("a folder");
    let run = bundle.run(&[]);
    run.says(1, &["doctor: exit code 1", "tool doctor --require-gpu"]);
    assert!(run.out.find("doctor:") < run.out.find("package/gpu:"), "{run:?}");
    assert_eq!(run.row("verify"), [1, 0, 0]);
    assert!(
        bundle
            .log("verify.log")
            .contains(&format!("tool verify {}/cases", bundle.path().display()))
    );
    assert_eq!(bundle.log("doctor.json"), "tool doctor --json\n");
    bundle.run(&["--no-require-gpu"]).says(0, &["passed: 4"]);
    let run = bundle.run(&["--only", "verify", "--only", "tests"]);
    run.says(0, &["passed: 3"]);
    // A filter is for tests and benches.
    let run = bundle.run(&["--no-require-gpu", "--filter", "one"]);
    assert!(!run.out.contains("verify"), "{run:?}");
}

#[test]
fn the_soak_runs_when_it_is_asked_for() {
    let tool = "#!/bin/bash\necho \"tool $*\"\n[[ $* != *7* ]]";
    let bundle = Bundle::new().executable("tool", "xtask", tool).test("gpu", "one", PASSES);
    let run = bundle.run(&[]);
    assert!(!run.out.contains("soak:"), "{run:?}");
    let run = bundle.run(&["--only", "soak", "--", "--quick"]);
    run.says(0, &["passed: 1", "  tool soak --backend cuda --quick"]);
    assert_eq!(run.row("soak"), [1, 0, 0]);
    bundle.run(&["--only", "soak", "--", "--seed", "7"]).says(1, &["soak: exit code 1"]);
}

const SANITIZER: &str = "#!/bin/bash
echo \"$*\" >>\"$(dirname \"$0\")/calls\"
code=0
while [[ $1 == --* ]]; do
    case $1 in --error-exitcode) code=$2; shift 2 ;; --tool | --report-api-errors | --target-processes) shift 2 ;; *) shift ;; esac
done
\"$@\" || exit
[[ -e $(dirname \"$0\")/clean ]] || exit \"$code\"";

#[test]
fn the_sanitizer_wraps_every_executable_and_its_verdict_counts() {
    let bundle =
        Bundle::new().test("gpu", "one two", PASSES).executable("bench", "driver", "#!/bin/bash\n");
    let folder = bundle.path().join("tools/bin");
    fs::create_dir_all(&folder).expect("a folder");
    script(&folder.join("compute-sanitizer"), SANITIZER);
    let home = bundle.path().join("tools");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("a path"));
    // Found as CUDA_HOME's, then on PATH.
    for variable in [("CUDA_HOME", home.to_str().expect("text")), ("PATH", path.as_str())] {
        let run = bundle.run_with(&["--sanitize", "racecheck"], &[variable]);
        run.says(1, &["executable: racecheck found errors"]);
        assert_eq!(run.row("package/gpu"), [2, 1, 0]);
        assert!(!run.out.contains("package/driver"), "benches are not measured under it: {run:?}");
    }
    fs::write(folder.join("clean"), "").expect("it is written");
    let run = bundle.run_with(
        &["--sanitize=memcheck", "--sanitizer-option", "--leak-check=full"],
        &[("PATH", &path)],
    );
    run.says(0, &[]);
    let calls = fs::read_to_string(folder.join("calls")).expect("it was called");
    let last = calls.lines().last().expect("a call");
    assert!(
        last.starts_with("--tool memcheck --error-exitcode 86 --report-api-errors no"),
        "{last}"
    );
    assert!(
        last.contains("--leak-check=full ") && last.contains("bin/test.gpu --logfile "),
        "{last}"
    );
}

#[test]
fn without_a_sanitizer_it_says_where_it_looked() {
    let bundle = Bundle::new().test("gpu", "one two", PASSES);
    // What the script needs of this machine, and nothing else that may lie beside it.
    let tools = bundle.path().join("only");
    fs::create_dir(&tools).expect("a folder");
    for name in ["bash", "dirname", "uname", "timeout", "getconf"] {
        let find = Command::new("bash")
            .args(["-c", &format!("command -v {name}")])
            .output()
            .expect("bash runs");
        let found = String::from_utf8(find.stdout).expect("text");
        std::os::unix::fs::symlink(found.trim(), tools.join(name)).expect("a link");
    }
    let run =
        bundle.run_with(&["--sanitize", "memcheck"], &[("PATH", tools.to_str().expect("text"))]);
    // A machine that has one in the toolkit's usual place finds it.
    if !std::path::Path::new("/usr/local/cuda").exists() {
        run.says(2, &["compute-sanitizer is not in PATH, CUDA_HOME"]);
    }
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_runs() {
    let bundle = || Bundle::new().test("gpu", "one two", PASSES);
    for (arguments, reason) in [
        (&["--frobnicate"][..], "--frobnicate is no option"),
        (&["--filter"], "--filter needs a value"),
        (&["--only", "everything"], "--only everything"),
        (&["--sanitize", "valgrind"], "--sanitize valgrind"),
        (&["--timeout", "0"], "--timeout 0"),
        (&["--timeout", "1m"], "--timeout 1m"),
        (&["--junit", "/no/such/folder/x.xml"], "/no/such/folder/x.xml"),
        (&["--only", "benches"], "nothing ran"),
        (&["--filter", "three", "--only", "examples"], "nothing ran"),
    ] {
        bundle().run(arguments).says(2, &[reason]);
    }
    bundle().line("glibc\t2.999").run(&[]).says(2, &["need glibc 2.999"]);
    bundle().line("architecture\tpdp11").run(&[]).says(2, &["for pdp11"]);
    bundle().line("format\t2").run(&[]).says(2, &["format '2'"]);
    bundle().line("test\tp\tgone\tbin/gone").run(&[]).says(2, &["bin/gone is missing"]);
    // A bundle whose executables lost their mode on the way is mended.
    let bundle = bundle();
    let file = bundle.path().join("bin/test.gpu");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("it is set");
    bundle.run(&[]).says(0, &["passed: 2"]);
}

#[test]
fn a_filter_that_nothing_matches_is_no_success() {
    let body = "say 'running 0 tests' '' 'test result: ok. 0 passed;'";
    let bundle =
        Bundle::new().executable("tool", "xtask", "#!/bin/bash\n").test("gpu", "one two", body);
    bundle.run(&["--filter", "three"]).says(2, &["nothing ran", "(three)"]);
}

#[test]
fn a_list_names_tests_and_starts_nothing_else() {
    let bundle = Bundle::new()
        .test("gpu", "one two", "touch \"$(dirname \"$0\")/started\"")
        .executable("bench", "driver", "#!/bin/bash\ntouch \"$(dirname \"$0\")/started\"");
    let run = bundle.run(&["--list"]);
    run.says(0, &[]);
    assert_eq!(run.out, "doctor\nverify\npackage/gpu one\npackage/gpu two\nbench package/driver\n");
    assert_eq!(
        bundle.run(&["--list", "--only", "tests", "--filter", "tw"]).out,
        "package/gpu two\n"
    );
    assert!(!bundle.path().join("bin/started").exists());
}

/// The characters that XML, the shell and the harness's own lines give a meaning, and some that XML cannot hold.
const HOSTILE: &str =
    "[a&<>\"'`$\\\\%*{}!\\[\\]\u{1}\u{8}\u{1b}\u{7f}\u{e9}\u{2192}\u{fffe}\u{1f600} -]{0,12}";

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_message_comes_through_the_xml(lines in prop::collection::vec(HOSTILE, 1..5)) {
        let message = lines.join("\n");
        let bundle = Bundle::new().test(
            "gpu",
            "bad",
            "say 'running 1 test' 'test bad ... FAILED' '' 'failures:' '' '---- bad ----'
            cat \"$(dirname \"$0\")/message\" >>\"$events\"
            say '' '' '' 'failures:' '    bad' '' 'test result: FAILED.'; cat \"$(dirname \"$0\")/message\"; exit 101",
        );
        fs::write(bundle.path().join("bin/message"), &message).expect("it is written");
        let (run, xml) = bundle.junit(&[]);
        run.says(1, &["FAILED: 1 of 1"]);
        let document = Document::parse(&xml).map_err(|error| TestCaseError::fail(format!("{error}: {xml}")))?;
        let lost = |c: &char| matches!(c, '\u{1}' | '\u{8}' | '\u{1b}' | '\u{fffe}');
        let expected: String = message.trim_matches('\n').chars().filter(|c| !lost(c)).collect();
        let failure = case(&document, "bad").first_element_child().expect("a failure");
        if !message.trim_matches('\n').is_empty() {
            prop_assert_eq!(failure.text().unwrap_or(""), expected);
        }
    }
}

/// A workspace with a package that names a GPU test and a bench, and a tool.
fn workspace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("it is written");
    };
    write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"alpha\", \"xtask\"]\n");
    let package = |name: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n")
    };
    write(
        "alpha/Cargo.toml",
        &(package("alpha")
            + "[[test]]\nname = \"gpu\"\nharness = false\n[[bench]]\nname = \"driver\"\nharness = false\n\
               [package.metadata.kasmina]\ngpu-tests = [\"gpu\"]\ngpu-benches = [\"driver\"]\n"),
    );
    write("alpha/src/lib.rs", "");
    write("alpha/tests/gpu.rs", "fn main() { println!(\"a test\"); }");
    write("alpha/benches/driver.rs", "fn main() { println!(\"a bench\"); }");
    write("xtask/Cargo.toml", &package("xtask"));
    write("xtask/src/main.rs", "fn main() { println!(\"the tool\"); }");
    write("xtask/tests/cases/a.safetensors", "a case");
    write("xtask/tests/cases/README", "no case");
    folder
}

fn command(workspace: &tempfile::TempDir, arguments: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("gpu-bundle")
        .args(arguments)
        .current_dir(workspace.path())
        .env("CARGO_TARGET_DIR", workspace.path().join("built"))
        .env_remove("RUSTFLAGS")
        .output()
        .expect("it runs");
    Run::new(output)
}

#[test]
fn the_command_builds_what_manifests_name_and_puts_it_together() {
    let workspace = workspace();
    let run = command(&workspace, &[]);
    run.says(0, &["bin/alpha.test.gpu", "bin/xtask", "1 verification cases", "glibc 2."]);
    let bundle = workspace.path().join("built/gpu-bundle");
    let played = Command::new(bundle.join("bin/alpha.test.gpu")).output().expect("it runs");
    assert_eq!(played.stdout, b"a test\n");
    assert!(bundle.join("cases/a.safetensors").is_file() && !bundle.join("cases/README").exists());
    let manifest = fs::read(bundle.join("manifest.json")).expect("there is a manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let executables = manifest["executables"].as_array().expect("a list");
    assert_eq!(executables.len(), 2, "{manifest}");
    for executable in executables {
        let bytes = fs::read(bundle.join(executable["file"].as_str().expect("a name")))
            .expect("it is there");
        assert_eq!(executable["bytes"], bytes.len());
        assert_eq!(executable["crc32"], format!("{:08x}", crc32fast::hash(&bytes)));
    }
    assert!(
        manifest["rustc"].as_str().is_some_and(|text| text.starts_with("rustc 1.")),
        "{manifest}"
    );
    // The tool of this bundle says nothing that is understood, and the test is no harness: both are seen.
    let output =
        Command::new(bundle.join("run.sh")).arg("--only").arg("tests").output().expect("it runs");
    Run::new(output).says(1, &["executable: ended early"]);

    // Again, with benches, over the first; then too large, which leaves it as it was.
    command(&workspace, &["--benches", "--package", "alpha"]).says(0, &["bin/alpha.bench.driver"]);
    command(&workspace, &["--max-mib", "0"])
        .says(1, &["0 are allowed; the largest: bin/", "--max-mib"]);
    assert!(bundle.join("bin/alpha.bench.driver").is_file());
    assert!(!workspace.path().join("built/gpu-bundle.partial").exists());
}

#[test]
fn the_command_refuses_what_would_be_no_bundle() {
    let workspace = workspace();
    let out = workspace.path().join("alpha");
    command(&workspace, &["--out", out.to_str().expect("text")])
        .says(1, &["is there and is no bundle"]);
    assert!(out.join("src/lib.rs").is_file());
    command(&workspace, &["--package", "beta"]).says(1, &["no package beta"]);
    command(&workspace, &["--cases", "alpha/src"]).says(1, &["alpha/src holds no *.safetensors"]);
    fs::create_dir(workspace.path().join("alpha/kernels")).expect("a folder");
    fs::write(workspace.path().join("alpha/kernels/copy.cu"), "").expect("it is written");
    command(&workspace, &[]).says(1, &["alpha/copy was not built", "cargo xtask build-kernels"]);
}
