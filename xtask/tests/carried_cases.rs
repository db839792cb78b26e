//! The carried cases, made by automatic differentiation elsewhere: the parser reads them, the oracle agrees
//! with them, and what is written again reads back the same.

use std::path::{Path, PathBuf};

use xtask::verify::judge::judge;
use xtask::verify::plane::Storage;
use xtask::verify::{Backend, Case, Oracle, find};

fn carried() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let files = find(&[directory]).unwrap();
    files.iter().map(|f| Case::read(f).unwrap()).collect()
}

#[test]
fn they_cover_every_storage_and_mode() {
    use kasmina_oracle::StabilityMode::{Adaptive, Fast, Strict};
    let cases = carried();
    for storage in Storage::ALL {
        assert!(cases.iter().any(|c| c.x.storage == storage), "{storage:?}");
    }
    for mode in [Fast, Adaptive, Strict] {
        assert!(cases.iter().any(|c| c.stability.mode == mode), "{mode:?}");
    }
}

#[test]
fn the_oracle_agrees_to_a_millionth_of_every_bound() {
    for case in carried() {
        let verdict = judge(&case, &Oracle.run(&case).unwrap());
        assert!(verdict.passed(), "{}: {:?}", case.name, verdict.failures);
        assert!(verdict.worst < 1e-6, "{}: {}", case.name, verdict.worst_at);
    }
}

#[test]
fn a_case_reads_back_as_it_was_written() {
    for case in carried() {
        let again = Case::parse(&case.name, &case.encode()).unwrap();
        // Debug text, because NaN in the telemetry of an empty chunk equals nothing.
        assert_eq!(format!("{again:?}"), format!("{case:?}"));
        assert_eq!(again.encode(), case.encode());
    }
}

#[test]
fn paths_without_a_case_are_an_error() {
    let empty = tempfile::tempdir().unwrap();
    let message = find(&[empty.path().to_owned()]).unwrap_err().to_string();
    assert!(message.contains("no case found"), "{message}");
    let absent = empty.path().join("absent");
    let message = find(&[absent]).unwrap_err().to_string();
    assert!(message.contains("absent"), "{message}");
    let message = find(&[] as &[PathBuf]).unwrap_err().to_string();
    assert!(message.contains("no case found"), "{message}");
}
