//! Everything importable: each crate compiles alone, with every set of its features, from what its own manifest names.
//!
//! `cargo test --workspace` hides what is missing: features that one crate asks for are there for all. So each set is a
//! `cargo check -p CRATE` of its own.

use std::path::Path;
use std::process::Stdio;

use kasmina_sys::build::{Environment, find_headers};

use super::line::{Line, Outcome};
use crate::workspace::{self, Member};

/// Sets of features beyond which only the smallest and the largest are checked: with n features there are 2ⁿ.
const MOST_FEATURES: usize = 3;

/// Runs the check. `quick` leaves out what is never published, and of the sets all but the smallest and the largest.
///
/// # Errors
/// The workspace cannot be read.
pub(super) fn check(root: &Path, quick: bool) -> Result<Vec<Line>, String> {
    let members = workspace::members(root).map_err(|error| error.to_string())?;
    let needs = |feature: &str| unavailable(feature, &Environment::of_process());
    let lines = plan(&members, quick, needs).into_iter().map(|set| {
        let outcome = match &set.without {
            Some(reason) => Outcome::NotChecked(reason.clone()),
            None => Outcome::of(compile(root, &set)),
        };
        Line::new(set.to_string(), outcome)
    });
    Ok(lines.collect())
}

/// A crate with some of its features.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set {
    package: String,
    features: Vec<String>,
    /// Why it cannot be compiled here.
    without: Option<String>,
}

impl std::fmt::Display for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.features.is_empty() {
            true => write!(f, "{} alone", self.package),
            false => write!(f, "{} with {}", self.package, self.features.join(" and ")),
        }
    }
}

/// What is to be compiled. Features that cannot be had here are left out of the others' sets, and each has a line of its own.
fn plan(members: &[Member], quick: bool, needs: impl Fn(&str) -> Option<String>) -> Vec<Set> {
    let mut sets = Vec::new();
    for member in members.iter().filter(|member| member.is_published || !quick) {
        let (absent, present): (Vec<&String>, Vec<&String>) =
            member.features.iter().partition(|feature| needs(feature).is_some());
        let all = (1usize << present.len().min(usize::BITS as usize - 1)) - 1;
        let few = quick || present.len() > MOST_FEATURES;
        let chosen = (0..=all).filter(|set| !few || *set == 0 || *set == all);
        for bits in chosen {
            let with = present.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
            let features = with.map(|(_, name)| (*name).clone()).collect();
            sets.push(Set { package: member.name.clone(), features, without: None });
        }
        for feature in absent {
            let (package, features) = (member.name.clone(), vec![feature.clone()]);
            sets.push(Set { package, features, without: needs(feature) });
        }
    }
    sets
}

/// Why a feature cannot be compiled on this machine.
fn unavailable(feature: &str, environment: &Environment) -> Option<String> {
    match feature {
        "bindgen" => without_bindgen(environment),
        "candle-cuda" => without_nvcc(environment),
        _ => None,
    }
}

/// Candle's CUDA support asks the `nvcc` of PATH for its version, and compiles its kernels with it, which takes minutes.
fn without_nvcc(environment: &Environment) -> Option<String> {
    let paths = environment.get("PATH").unwrap_or_default();
    let found = std::env::split_paths(paths).any(|folder| folder.join("nvcc").is_file());
    let proof = "docs/gpu-testing.md says how `tests/candle_cuda` is built and run";
    (!found).then(|| format!("nvcc is not in PATH; {proof}"))
}

fn without_bindgen(environment: &Environment) -> Option<String> {
    let proof = "`.ci/run` compiles it with the pinned headers and libclang";
    let absent = match find_headers(environment) {
        Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        Ok(_) if environment.get("LIBCLANG_PATH").is_none() => {
            "LIBCLANG_PATH is not set".to_owned()
        }
        Ok(_) => return None,
    };
    Some(format!("{absent}; {proof}"))
}

fn compile(root: &Path, set: &Set) -> Result<String, String> {
    let mut command = workspace::cargo();
    command.args(["check", "--quiet", "--package", &set.package, "--no-default-features"]);
    let mut text = format!("cargo check -p {} --no-default-features", set.package);
    if !set.features.is_empty() {
        let features = set.features.join(",");
        text.push_str(&format!(" --features {features}"));
        command.args(["--features", &features]);
    }
    let output = command.current_dir(root).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{text} could not be started: {error}"))?;
    if output.status.success() {
        return Ok(text);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let first = words.lines().find(|line| line.starts_with("error")).unwrap_or("no error line");
    Err(format!("{text}: {first}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, features: &[&str], is_published: bool) -> Member {
        let features = features.iter().map(ToString::to_string).collect();
        Member { name: name.to_owned(), features, is_published }
    }

    #[test]
    fn every_set_of_features_is_compiled_once() {
        let members = [member("a", &["x", "y"], true), member("b", &[], false)];
        let names = |quick| -> Vec<String> {
            plan(&members, quick, |_| None).iter().map(ToString::to_string).collect()
        };
        let all = ["a alone", "a with x", "a with y", "a with x and y", "b alone"];
        assert_eq!(names(false), all);
        assert_eq!(names(true), ["a alone", "a with x and y"]);
        let many = [member("a", &["1", "2", "3", "4", "5"], true)];
        assert_eq!(plan(&many, false, |_| None).len(), 2);
    }

    #[test]
    fn a_feature_that_cannot_be_had_spoils_no_set_and_has_its_reason() {
        let members = [member("a", &["bindgen", "x"], true)];
        let sets = plan(&members, false, |name| (name == "bindgen").then(|| "no headers".into()));
        let names: Vec<String> = sets.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a alone", "a with x", "a with bindgen"]);
        assert_eq!(sets[2].without.as_deref(), Some("no headers"));
        let reason = unavailable("bindgen", &Environment::default()).expect("nothing is there");
        assert!(reason.contains("headers"), "{reason}");
        let reason = unavailable("candle-cuda", &Environment::default()).expect("no PATH");
        assert!(reason.contains("nvcc"), "{reason}");
        assert_eq!(unavailable("build", &Environment::default()), None);
    }

    /// A workspace of one crate that has an undeclared dependency behind a feature.
    #[test]
    fn a_crate_that_does_not_compile_is_named_with_the_compilers_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
            std::fs::write(path, text).expect("it is written");
        };
        write(
            "Cargo.toml",
            "[workspace]\n[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[features]\nx = []\n",
        );
        write("src/lib.rs", "#[cfg(feature = \"x\")]\nuse nowhere::Nothing;\n");
        let lines = check(folder.path(), false).expect("it is read");
        let [alone, with_x] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(matches!(alone.outcome, Outcome::Passed(_)), "{alone:?}");
        let Outcome::Failed(found) = &with_x.outcome else { panic!("{with_x:?}") };
        assert!(found.contains("error[E0432]"), "{found}");
    }
}
