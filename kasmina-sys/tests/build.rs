//! The kernel build from a user's side, with a shell script in nvcc's place: no toolkit is needed.
#![cfg(unix)]

mod fake_nvcc;

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use fake_nvcc::fake_nvcc;
use kasmina_sys::Arch;
use kasmina_sys::build::{
    BuildError, Environment, KernelSet, Nvcc, Origin, Status, compile, embed, find_nvcc, status,
    without_bulk_tensor,
};

struct Workspace {
    folder: tempfile::TempDir,
    nvcc: Nvcc,
}

impl Workspace {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = fake_nvcc(folder.path(), "13.0.88");
        let environment = Environment::of([("KASMINA_NVCC", path.as_os_str())]);
        let nvcc = find_nvcc(&environment).ok().and_then(|search| search.found).expect("nvcc");
        let workspace = Self { folder, nvcc };
        fs::create_dir(workspace.kernels()).expect("a folder");
        workspace.write("a.cu", "#include \"a.cuh\"\nint a;\n");
        workspace.write("a.cuh", "int header;\n");
        workspace
    }

    fn kernels(&self) -> PathBuf {
        self.folder.path().join("kernels")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.kernels().join(name), text).expect("it is written");
    }

    fn set(&self) -> KernelSet {
        KernelSet::open("kasmina-x", &self.kernels()).expect("the folder is read")
    }

    fn compile(&self) -> Result<(), BuildError> {
        let set = self.set();
        compile(&self.nvcc, &set, &set.units[0], &Arch::DEFAULT).map(|_| ())
    }

    fn status(&self) -> Status {
        status(&self.set().units[0]).expect("it is read")
    }

    fn is_stale(&self) -> bool {
        matches!(self.status(), Status::Stale { .. })
    }

    fn embedded(&self) -> String {
        let out = self.folder.path().join("out");
        fs::create_dir_all(&out).expect("a folder");
        let watched = embed(&self.set(), &out).expect("it is taken in");
        assert_eq!(watched, [self.kernels()]);
        fs::read_to_string(out.join("kernels.rs")).expect("it is written")
    }
}

#[test]
fn a_build_is_fresh_until_something_that_made_it_changes() {
    let workspace = Workspace::new();
    assert_eq!(workspace.status(), Status::NotBuilt);
    let rebuilt = || {
        workspace.compile().expect("it compiles");
        assert!(matches!(workspace.status(), Status::Fresh(_)));
    };

    rebuilt();
    workspace.write("a.cu", "#include \"a.cuh\"\nint b;\n");
    assert!(workspace.is_stale(), "the source changed");

    rebuilt();
    workspace.write("a.cuh", "int other;\n");
    assert!(workspace.is_stale(), "a header changed");

    rebuilt();
    workspace.write("a.fatbin", "cut off");
    assert!(workspace.is_stale(), "the fatbin changed");

    rebuilt();
    workspace.write("a.fatbin.record", "kasmina-kernel-record 2\nsources");
    assert!(workspace.is_stale(), "the record is damaged");

    rebuilt();
    fs::remove_file(workspace.kernels().join("a.fatbin.record")).expect("it goes");
    assert!(workspace.is_stale(), "the record is gone");

    rebuilt();
    workspace.write("unrelated.txt", "x");
    assert!(matches!(workspace.status(), Status::Fresh(_)), "nothing of it changed");
}

#[test]
fn the_record_holds_what_the_assembler_said() {
    let workspace = Workspace::new();
    workspace.compile().expect("it compiles");
    let Status::Fresh(record) = workspace.status() else { panic!("it was just built") };
    assert_eq!(record.archs, Arch::DEFAULT);
    assert_eq!(record.nvcc.to_string(), "13.0.88");
    let kernel = &record.resources[0];
    assert_eq!((kernel.function.as_str(), kernel.registers), ("k", Some(40)));
    assert_eq!((kernel.shared_bytes, kernel.spill_stores), (128, 4));
    assert!(kernel.spills());
}

#[test]
fn the_hash_is_of_the_architectures_too() {
    let workspace = Workspace::new();
    let unit = &workspace.set().units[0];
    let hash = |archs: &[Arch]| unit.hash(archs).expect("it is read");
    assert_eq!(hash(&Arch::DEFAULT), hash(&Arch::DEFAULT));
    assert_ne!(hash(&Arch::DEFAULT), hash(&Arch::DEFAULT[1..]));
    let set = workspace.set();
    let none = compile(&workspace.nvcc, &set, unit, &[]);
    assert!(matches!(none, Err(BuildError::NoArchitecture)));
}

#[test]
fn a_failing_compilation_shows_the_compilers_words_and_keeps_the_old_pair() {
    let workspace = Workspace::new();
    workspace.compile().expect("it compiles");
    let before = fs::read(workspace.kernels().join("a.fatbin")).expect("it is there");
    workspace.write("a.cu", "BROKEN");
    let error = workspace.compile().expect_err("it is broken").to_string();
    assert!(error.contains("broken on purpose") && error.contains("a.cu"), "{error}");
    assert_eq!(fs::read(workspace.kernels().join("a.fatbin")).ok(), Some(before));
    let mut left: Vec<_> = fs::read_dir(workspace.kernels())
        .expect("the folder is read")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    left.sort();
    assert_eq!(left, ["a.cu", "a.cuh", "a.fatbin", "a.fatbin.record"]);
}

#[test]
fn a_header_that_the_scan_misses_is_an_error() {
    let workspace = Workspace::new();
    workspace.write("a.cu", "#define H \"a.cuh\"\n#include H\n");
    let error = workspace.compile().expect_err("a.cuh was read unseen");
    assert!(
        matches!(&error, BuildError::UntrackedHeader { header, .. } if header.ends_with("a.cuh"))
    );
}

#[test]
fn another_crates_header_counts_like_an_own_one() {
    let workspace = Workspace::new();
    let theirs = workspace.folder.path().join("theirs");
    fs::create_dir(&theirs).expect("a folder");
    let header = |text: &str| fs::write(theirs.join("b.cuh"), text).expect("it is written");
    header("int b;\n");
    workspace.write("a.cu", "#include \"a.cuh\"\n#include \"b.cuh\"\n");
    let open = |include: &[&PathBuf]| {
        let include = include.iter().copied().cloned().collect();
        KernelSet::open_with("kasmina-x", &workspace.kernels(), include).expect("it is read")
    };
    let set = open(&[&theirs]);
    compile(&workspace.nvcc, &set, &set.units[0], &Arch::DEFAULT).expect("it compiles");
    assert!(matches!(status(&set.units[0]), Ok(Status::Fresh(_))));
    assert_eq!(
        embed(&set, workspace.folder.path()).expect("it is taken in"),
        [workspace.kernels(), theirs.clone()],
        "a change there is seen"
    );
    // Who does not know the folder does not take the fatbin for fresh.
    assert!(matches!(status(&open(&[]).units[0]), Ok(Status::Stale { .. })));
    header("int c;\n");
    assert!(matches!(status(&set.units[0]), Ok(Status::Stale { .. })));
    // Read by the compiler, and not found by the scan.
    workspace.write("a.cu", "#include \"a.cuh\"\n");
    let set = open(&[&theirs]);
    let error = compile(&workspace.nvcc, &set, &set.units[0], &Arch::DEFAULT).err();
    assert!(matches!(&error, Some(BuildError::UntrackedHeader { .. })), "{error:?}");
}

#[test]
fn the_record_holds_what_each_kernel_does_with_tensor_maps_ptx_included() {
    let workspace = Workspace::new();
    let load = "cp.async.bulk.tensor.1d.shared::cluster.global [x], [y];";
    workspace.write(
        "a.cu",
        &format!(
            "#include \"a.cuh\"\n// param: .param .align 64 .b8 p[128]\n// ptx sm_90: {load}\n"
        ),
    );
    workspace.compile().expect("it compiles");
    let Status::Fresh(record) = workspace.status() else { panic!("it was just built") };
    let archs: Vec<Arch> = record.tensors.iter().map(|kernel| kernel.arch).collect();
    assert_eq!(archs, Arch::DEFAULT);
    assert!(record.tensors.iter().all(|kernel| kernel.takes_map && kernel.function == "k"));
    let loading: Vec<String> = record
        .tensors
        .iter()
        .filter(|kernel| kernel.loads > 0)
        .map(|k| k.arch.to_string())
        .collect();
    assert_eq!(loading, ["compute_90"]);
    let missing = without_bulk_tensor(&record.archs, &record.tensors);
    assert_eq!(missing.len(), 3, "sm_90a, sm_100 and sm_120: {missing:?}");
}

#[test]
fn a_compiler_whose_words_are_not_understood_is_an_error_and_not_a_clean_bill() {
    let workspace = Workspace::new();
    workspace.write("a.cu", "#include \"a.cuh\"\n// SILENT\n");
    let error = workspace.compile().expect_err("no register counts").to_string();
    assert!(error.contains("register count of k") && error.contains("sm_80"), "{error}");
}

#[test]
fn headers_that_include_one_another_are_read_once() {
    let workspace = Workspace::new();
    workspace.write("a.cuh", "#include \"b.cuh\"\n");
    workspace.write("b.cuh", "#include \"a.cuh\"\n");
    let set = workspace.set();
    let files: Vec<_> = set.units[0].files.keys().map(String::as_str).collect();
    assert_eq!(files, ["a.cu", "a.cuh", "b.cuh"]);
    workspace.compile().expect("it compiles");
}

#[test]
fn embedding_tells_the_three_states_apart() {
    let workspace = Workspace::new();
    assert!(workspace.embedded().contains("ImageState::NotBuilt"));
    workspace.compile().expect("it compiles");
    let text = workspace.embedded();
    for part in ["ImageState::Embedded", "include_bytes!", "from_raw(13000)", "SpecificCubin"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    workspace.write("a.cuh", "int other;\n");
    assert!(workspace.embedded().contains("ImageState::Stale { reason: \"its sources"));
}

#[test]
fn a_crate_without_kernels_has_an_empty_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = KernelSet::open("kasmina-x", &folder.path().join("kernels")).expect("none is fine");
    assert!(embed(&set, folder.path()).expect("it is written").is_empty());
    let text = fs::read_to_string(folder.path().join("kernels.rs")).expect("it is there");
    assert!(text.contains("[kasmina_sys::KernelImage; 0]"), "{text}");
}

#[test]
fn names_that_could_not_stand_in_generated_code_are_refused() {
    for name in ["a b.cu", "a\"b.cu", "ü.cu", ".cu.cu"] {
        let workspace = Workspace::new();
        workspace.write(name, "");
        let set = KernelSet::open("kasmina-x", &workspace.kernels());
        assert!(matches!(set, Err(BuildError::BadName { .. })), "{name}");
    }
    let workspace = Workspace::new();
    workspace.write("A.cu", "");
    let set = KernelSet::open("kasmina-x", &workspace.kernels());
    assert!(matches!(set, Err(BuildError::DuplicateUnit { .. })));
}

#[test]
fn the_compiler_is_looked_for_in_order_and_each_place_passed_by_has_its_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str, release: &str| {
        let root = folder.path().join(name);
        fake_nvcc(&root, release);
        root
    };
    let (old, new, good) =
        (place("old", "12.2.1"), place("new", "13.4.1"), place("good", "13.0.48"));
    let good_bin = good.join("bin");
    let environment = Environment::of([
        ("CUDA_HOME", old.as_os_str()),
        ("CUDA_PATH", new.as_os_str()),
        ("PATH", good_bin.as_os_str()),
        ("HOME", folder.path().as_os_str()),
    ]);
    let search = find_nvcc(&environment).expect("nothing is wrong");
    assert_eq!(search.found.map(|nvcc| nvcc.origin), Some(Origin::Path));
    let passed: Vec<_> = search.passed_by.iter().map(|place| place.origin).collect();
    assert_eq!(passed, [Origin::Variable, Origin::CudaHome, Origin::CudaPath]);
    assert!(search.passed_by[1].reason.contains("older than 12.8"), "{:?}", search.passed_by);
    assert!(search.passed_by[2].reason.contains("later than 13.0"), "{:?}", search.passed_by);

    let bare = Environment::of([("HOME", folder.path().as_os_str())]);
    let search = find_nvcc(&bare).expect("nothing is wrong");
    assert!(search.found.is_none());
    assert_eq!(search.passed_by.len(), 5);
    assert!(search.passed_by.iter().all(|place| !place.reason.is_empty()));
}

#[test]
fn a_named_compiler_is_taken_as_it_is_or_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let later = fake_nvcc(folder.path(), "14.0.1");
    let environment = Environment::of([("KASMINA_NVCC", later.as_os_str())]);
    let found = find_nvcc(&environment).ok().and_then(|search| search.found);
    assert_eq!(found.map(|nvcc| nvcc.release.to_string()).as_deref(), Some("14.0.1"));

    for bad in ["/no/such/nvcc", "/bin/true", "/bin/false"] {
        let environment = Environment::of([("KASMINA_NVCC", OsStr::new(bad))]);
        let error = find_nvcc(&environment).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains(bad) && text.contains("KASMINA_NVCC")));
    }
}
