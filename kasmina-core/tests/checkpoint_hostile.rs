//! Files that fuzzing found, and the seeds it starts from: loading them never panics, and what loads saves
//! to a file that loads as the same.

use std::path::PathBuf;

use kasmina_core::{LayerState, Registry};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn load(bytes: &[u8]) -> bool {
    let Ok(mut state) = LayerState::from_bytes(bytes, &Registry::empty()) else {
        return false;
    };
    assert_eq!(state.lifecycle.verify(), Ok(()));
    let saved = state.to_bytes().unwrap();
    let again = LayerState::from_bytes(&saved, state.lifecycle.registry()).unwrap();
    assert!(again.to_bytes().unwrap() == saved);
    state.lifecycle.advance_step();
    drop(state.lifecycle.end_epoch());
    assert_eq!(state.lifecycle.verify(), Ok(()));
    true
}

#[test]
fn hostile_files_do_no_harm() {
    let hostile = files("tests/data/hostile");
    assert!(!hostile.is_empty());
    for path in hostile {
        load(&std::fs::read(&path).unwrap());
    }
}

#[test]
fn the_seeds_of_the_fuzzer_load() {
    let seeds = files("../fuzz/seeds/checkpoint");
    assert!(seeds.len() >= 5);
    for path in seeds {
        assert!(load(&std::fs::read(&path).unwrap()), "{}", path.display());
    }
}
