//! The fatbins of the workspace with what the compiler said of each: the evidence of three checks.

use std::path::Path;

use kasmina_sys::build::{KernelSet, Record, Status, status};

use crate::workspace;

/// What mends a fatbin that is not there.
const BUILD: &str = "run `cargo xtask build-kernels`";

/// One `.cu` file's fatbin.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// The crate.
    pub(super) package: String,
    /// The fatbin.
    pub(super) name: String,
    /// What made it, or why it is no evidence.
    pub(super) record: Result<Record, String>,
}

/// Every fatbin of the workspace at `root`.
///
/// # Errors
/// The workspace cannot be read.
pub(super) fn images(root: &Path) -> Result<Vec<Image>, String> {
    let sets = workspace::kernel_sets(root).map_err(|error| error.to_string())?;
    sets.iter().flat_map(of_set).collect()
}

fn of_set(set: &KernelSet) -> Vec<Result<Image, String>> {
    let image = |unit| -> Result<Image, String> {
        let record = match status(unit).map_err(|error| error.to_string())? {
            Status::Fresh(record) => Ok(record),
            Status::NotBuilt => Err(format!("not built; {BUILD}")),
            Status::Stale { reason } => Err(format!("stale, {reason}; {BUILD}")),
        };
        Ok(Image { package: set.package.clone(), name: unit.name.clone(), record })
    };
    set.units.iter().map(image).collect()
}

/// The first reason why one of these is no evidence, with the number of the others.
pub(super) fn missing<'a>(images: impl Iterator<Item = &'a Image>) -> Option<String> {
    let mut reasons = images.filter_map(|image| {
        let reason = image.record.as_ref().err()?;
        Some(format!("{}/{} is {reason}", image.package, image.name))
    });
    let first = reasons.next()?;
    Some(match reasons.count() {
        0 => first,
        others => format!("{first} ({others} more)"),
    })
}

/// Some of these in words, and how many more there are.
pub(super) fn some_of(mut found: Vec<String>) -> String {
    const SHOWN: usize = 4;
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    let text = found.join("; ");
    if more == 0 { text } else { format!("{text}; and {more} more") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kasmina_sys::Arch;
    use kasmina_sys::build::{Hash, Release, Resources, Signature, TensorUse};

    /// A record of kernels that take these bytes, for sm_90a and compute_90.
    pub(in crate::validate) fn record(kernels: &[(&str, &[u32])]) -> Record {
        let archs: Vec<Arch> =
            ["sm_90a", "compute_90"].iter().map(|name| name.parse().expect("a name")).collect();
        let each = || kernels.iter().flat_map(|one| archs.iter().map(move |arch| (one, *arch)));
        Record {
            sources: Hash::of(b"s"),
            fatbin: Hash::of(b"f"),
            nvcc: Release { major: 13, minor: 0, patch: 88 },
            resources: each()
                .map(|((name, _), arch)| Resources {
                    function: (*name).to_owned(),
                    arch,
                    registers: Some(64),
                    shared_bytes: 0,
                    stack_bytes: 0,
                    spill_stores: 0,
                    spill_loads: 0,
                })
                .collect(),
            tensors: each()
                .map(|((name, _), arch)| TensorUse {
                    function: (*name).to_owned(),
                    arch,
                    takes_map: false,
                    loads: u32::from(name.contains("bulk_tensor")),
                    stores: 0,
                    edits: 0,
                })
                .collect(),
            signatures: each()
                .map(|((name, bytes), arch)| Signature {
                    function: (*name).to_owned(),
                    arch,
                    parameter_bytes: bytes.to_vec(),
                })
                .collect(),
            archs: archs.clone(),
        }
    }

    /// A built image.
    pub(in crate::validate) fn built(package: &str, name: &str, record: Record) -> Image {
        Image { package: package.into(), name: name.into(), record: Ok(record) }
    }

    #[test]
    fn the_first_reason_is_told_with_the_number_of_the_others() {
        let absent = |name: &str| Image {
            package: "p".into(),
            name: name.into(),
            record: Err("not built".into()),
        };
        let there = built("p", "a", record(&[]));
        assert_eq!(missing([&there].into_iter()), None);
        let all = [there, absent("b"), absent("c")];
        assert_eq!(missing(all.iter()), Some("p/b is not built (1 more)".into()));
    }

    #[test]
    fn the_workspace_has_images_of_four_crates() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = images(here.parent().expect("the workspace")).expect("it is read");
        for package in ["kasmina-sys", "kasmina-tma", "kasmina-telemetry", "kasmina-core"] {
            assert!(found.iter().any(|image| image.package == package), "{package}");
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let names = |count| (0..count).map(|i| i.to_string()).collect();
        assert_eq!(some_of(names(2)), "0; 1");
        assert_eq!(some_of(names(6)), "0; 1; 2; 3; and 2 more");
    }
}
