//! `build-kernels` as a user runs it, in a small workspace and with a shell script in nvcc's place.
#![cfg(unix)]

#[path = "../../kasmina-sys/tests/fake_nvcc/mod.rs"]
mod fake_nvcc;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// One crate with one kernel, `tile.cu` with the given text.
fn workspace(tile: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    write(&root, "Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"some-crate\"]\n");
    write(&root, "some-crate/Cargo.toml", "[package]\nname = \"some-crate\"\n");
    write(&root, "some-crate/src/lib.rs", "");
    write(&root, "some-crate/kernels/tile.cu", tile);
    fake_nvcc::fake_nvcc(root.path(), "13.0.88");
    root
}

fn write(root: &tempfile::TempDir, name: &str, text: &str) {
    let path = root.path().join(name);
    fs::create_dir_all(path.parent().expect("it lies below the root")).expect("a folder");
    fs::write(path, text).expect("it is written");
}

fn build_kernels(root: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("build-kernels")
        .args(arguments)
        .current_dir(root.join("some-crate"))
        .env("KASMINA_NVCC", root.join("bin/nvcc"))
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_builds_once_and_shows_what_each_kernel_takes() {
    let root = workspace("int tile;\n");
    let first = build_kernels(root.path(), &[]);
    let shown = text(&first.stdout);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(shown.contains("some-crate/tile: built for sm_80, sm_90a"), "{shown}");
    for part in ["sm_90a", "40", "128", "KASMINA_NVCC"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(root.path().join("some-crate/kernels/tile.fatbin").is_file());
    assert!(text(&build_kernels(root.path(), &[]).stdout).contains("tile: fresh"));
    let other = build_kernels(root.path(), &["--arch", "sm_90a,compute_90"]);
    assert!(text(&other.stdout).contains("built for sm_90a, compute_90 in"));
}

#[test]
fn check_fails_on_spills_and_names_the_kernel_also_when_it_is_fresh() {
    let root = workspace("int tile;\n");
    for _ in 0..2 {
        let checked = build_kernels(root.path(), &["--check"]);
        assert!(!checked.status.success());
        let said = text(&checked.stderr);
        assert!(said.contains("spill in k for sm_90a (4 B stored, 4 B loaded)"), "{said}");
        assert!(!said.contains("bulk-tensor"), "{said}");
    }
}

#[test]
fn check_lets_pass_what_is_listed_and_nothing_beyond() {
    let root = workspace("int tile;\n");
    let archs = ["sm_80", "sm_90a", "sm_100", "sm_120"];
    let listed = |bytes: u32| archs.map(|arch| format!("k {arch} {bytes}\n")).concat();
    write(&root, "some-crate/kernels/spills.txt", &listed(4));
    assert!(build_kernels(root.path(), &["--check"]).status.success());
    for text in [listed(3), listed(4).replace("sm_90a", "sm_90"), listed(4).replace("k ", "l ")] {
        write(&root, "some-crate/kernels/spills.txt", &text);
        let checked = build_kernels(root.path(), &["--check"]);
        assert!(!checked.status.success(), "{text}");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let root = workspace("int tile;\n");
    let wrong = build_kernels(root.path(), &["--arch", "sm_9"]);
    assert!(text(&wrong.stderr).contains("sm_9"), "{}", text(&wrong.stderr));
    write(&root, "some-crate/kernels/tile.cu", "BROKEN");
    let broken = build_kernels(root.path(), &[]);
    assert!(!broken.status.success());
    assert!(text(&broken.stderr).contains("broken on purpose"), "{}", text(&broken.stderr));
    write(&root, "some-crate/kernels/whole.cu", "int whole;");
    let broken = build_kernels(root.path(), &[]);
    assert!(!broken.status.success());
    assert!(text(&broken.stdout).contains("whole: built for"), "the others are built all the same");
    let outside = build_kernels(root.path(), &["--help"]);
    assert!(outside.status.success());
}

const MAP: &str = "// param: .param .align 128 .b8 k_param_0[128]\n";
const LOAD: &str =
    "cp.async.bulk.tensor.2d.shared::cluster.global.tile [%r1], [%rd1, {%r2, %r3}], [%r4];\n";

#[test]
fn check_fails_where_a_kernel_with_a_tensor_map_has_no_bulk_tensor_instruction() {
    let without = |root: &tempfile::TempDir| -> Vec<String> {
        let checked = build_kernels(root.path(), &["--check"]);
        text(&checked.stderr)
            .lines()
            .filter_map(|line| line.split_once("no bulk-tensor instruction is in k for "))
            .filter_map(|(_, rest)| rest.split_once(','))
            .map(|(arch, _)| arch.to_owned())
            .collect()
    };
    let everywhere = ["sm_90a", "sm_100", "sm_120", "compute_90"];
    assert_eq!(without(&workspace(MAP)), everywhere);
    assert_eq!(without(&workspace(&format!("{MAP}// ptx: {LOAD}"))), [""; 0]);
    let root = workspace(&format!("{MAP}// ptx sm_90a: {LOAD}"));
    assert_eq!(without(&root), everywhere[1..]);
    assert_eq!(without(&root), everywhere[1..], "also when it is fresh");
    // Without a map, but with the instruction for one architecture.
    assert_eq!(without(&workspace(&format!("// ptx sm_90: {LOAD}"))), everywhere[..3]);
}

#[test]
fn the_tables_have_machine_code_with_its_resources_and_ptx_with_its_instructions() {
    let root = workspace(&format!("// ptx: {LOAD}// ptx: {LOAD}"));
    let cells = |arguments: &[&str], code: &str| -> Vec<String> {
        let shown = text(&build_kernels(root.path(), arguments).stdout);
        let row = shown
            .lines()
            .find(|line| line.starts_with('│') && line.contains(&format!(" {code} ")))
            .expect("a row");
        let cells = row.split(['│', '┆']).map(|cell| cell.trim().to_owned());
        cells.filter(|cell| !cell.is_empty()).skip_while(|cell| cell != code).skip(1).collect()
    };
    assert_eq!(cells(&["--functions"], "sm_90a"), ["40", "128", "8", "4", "4", "2", "0"]);
    assert_eq!(cells(&["--functions"], "compute_90"), ["-", "-", "-", "-", "-", "2", "0"]);
    assert_eq!(cells(&[], "sm_90a"), ["1", "40", "128", "8", "1", "4", "2", "0"]);
    assert_eq!(cells(&[], "compute_90"), ["1", "-", "-", "-", "-", "-", "2", "0"]);
}

/// The whole way of a header across crates, through the real Cargo: `b` includes one of `a`, xtask builds its kernel, and
/// `b`'s build script, which gets the folder from `a`'s, agrees that the fatbin is fresh.
#[test]
fn a_dependencys_header_counts_for_xtask_and_build_script_alike() {
    let root = workspace("int tile;\n");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sys = here.join("../kasmina-sys");
    let manifest = |name: &str, more: &str| {
        format!(
            "[package]\nname = \"{name}\"\nedition = \"2024\"\n{more}\n\
             kasmina-sys = {{ path = {sys:?} }}\n[build-dependencies]\n\
             kasmina-sys = {{ path = {sys:?}, features = [\"build\"] }}\n"
        )
    };
    let (a, b) = ("links = \"crate-a\"\n[dependencies]", "[dependencies]\na = { path = \"../a\" }");
    for (name, more) in [("a", a), ("b", b)] {
        write(&root, &format!("{name}/Cargo.toml"), &manifest(name, more));
        write(
            &root,
            &format!("{name}/build.rs"),
            "fn main() { kasmina_sys::build::build_script() }",
        );
        let lib = "include!(concat!(env!(\"OUT_DIR\"), \"/kernels.rs\"));\n";
        write(&root, &format!("{name}/src/lib.rs"), lib);
    }
    let members = "members = [\"a\", \"b\", \"some-crate\"]";
    write(&root, "Cargo.toml", &format!("[workspace]\nresolver = \"3\"\n{members}\n"));
    let lock = fs::read_to_string(here.join("../Cargo.lock")).expect("the versions that are here");
    write(&root, "Cargo.lock", &lock);
    write(&root, "a/kernels/shared.cuh", "int shared;\n");
    write(&root, "b/kernels/use.cu", "#include \"shared.cuh\"\n");

    // Kept between runs, so that only the first one compiles the dependencies.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("headers");
    let embedded = || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "check",
                "--offline",
                "--package",
                "b",
                "--message-format=json-render-diagnostics",
            ])
            .current_dir(root.path())
            .env("CARGO_TARGET_DIR", &target)
            .output()
            .expect("Cargo runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let folder = text(&output.stdout)
            .lines()
            .filter(|line| line.contains("build-script-executed") && line.contains("/b#"))
            .find_map(|line| {
                Some(line.split_once("\"out_dir\":\"")?.1.split_once('"')?.0.to_owned())
            })
            .expect("its build script ran");
        fs::read_to_string(Path::new(&folder).join("kernels.rs")).expect("it was written")
    };
    assert!(embedded().contains("ImageState::NotBuilt"));

    let built = build_kernels(root.path(), &[]);
    assert!(text(&built.stdout).contains("b/use: built for"), "{}", text(&built.stderr));
    assert!(text(&build_kernels(root.path(), &[]).stdout).contains("b/use: fresh"));
    assert!(embedded().contains("ImageState::Embedded"), "both hash the same files");

    write(&root, "a/kernels/shared.cuh", "int changed;\n");
    assert!(embedded().contains("ImageState::Stale"), "the build script saw the header change");
    assert!(text(&build_kernels(root.path(), &[]).stdout).contains("b/use: built for"));
    assert!(embedded().contains("ImageState::Embedded"));
}
