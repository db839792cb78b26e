//! The repository's documents: each is compiled by the tests, found from the README, and its links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Documents of the root and of `docs/`, by their paths from the root.
fn documents() -> Vec<String> {
    let mut found = vec!["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    for entry in fs::read_dir(root().join("docs")).expect("a folder") {
        let name = entry.expect("a file").file_name();
        found.push(format!("docs/{}", name.to_string_lossy()));
    }
    found.retain(|name| name.ends_with(".md"));
    found.sort();
    found
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Targets of the Markdown links in a text, without what follows `#`; addresses of other places are left out.
fn links(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in text.split("](").skip(1) {
        let target = part.split([')', ' ']).next().unwrap_or_default();
        let file = target.split('#').next().unwrap_or_default();
        // Rust paths are rustdoc's links.
        if !file.is_empty() && !file.contains("://") && !file.contains("::") {
            found.insert(file.to_owned());
        }
    }
    found
}

#[test]
fn every_document_is_compiled() {
    let library = text("xtask/src/lib.rs");
    for name in documents() {
        assert!(library.contains(&format!("\"{name}\"")), "{name} is not in xtask/src/lib.rs");
    }
}

#[test]
fn every_document_is_linked_from_the_readme() {
    let linked = links(&text("README.md"));
    for name in documents().iter().filter(|name| *name != "README.md") {
        assert!(linked.contains(name), "README.md has no link to {name}");
    }
}

#[test]
fn links_lead_to_files() {
    for name in documents() {
        let folder = root().join(&name).parent().expect("a folder").to_owned();
        for link in links(&text(&name)) {
            assert!(folder.join(&link).exists(), "{name} links to {link}, which is not there");
        }
    }
}

#[test]
fn no_fence_of_a_document_is_taken_for_rust_by_mistake() {
    for name in documents() {
        let mut open = false;
        for (i, line) in text(&name).lines().enumerate() {
            let Some(kind) = line.trim_start().strip_prefix("```") else { continue };
            assert!(open || !kind.is_empty(), "{name}:{}: a block without a language", i + 1);
            open = !open;
        }
        assert!(!open, "{name}: a block without an end");
    }
}

#[test]
fn every_variable_of_the_sources_is_in_the_operations() {
    let operations = text("docs/operations.md");
    let mut folders: Vec<PathBuf> =
        ["sys", "tma", "telemetry", "core", "gpu-test", "bench", "simulator"]
            .iter()
            .map(|name| root().join(format!("kasmina-{name}")))
            .collect();
    folders.push(root().join("xtask"));
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("a file").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                for part in text.split("\"KASMINA_").skip(1) {
                    let ends = |c: char| !(c.is_ascii_uppercase() || c == '_');
                    let (name, rest) = part.split_at(part.find(ends).unwrap_or(part.len()));
                    // A whole text, not a sentence or a macro's beginning.
                    if rest.starts_with('"') {
                        found.insert(format!("KASMINA_{name}"));
                    }
                }
            }
        }
    }
    assert!(found.len() > 10, "{found:?}");
    for name in found {
        assert!(operations.contains(&format!("`{name}")), "docs/operations.md has no {name}");
    }
}
